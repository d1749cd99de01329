"""One worker of `bench.saga_kafka` on stock Faust: the application's topics, codecs, rows and rules, Faust's agents.

It does less than the application, which favours it: no timers, no counting for the analytics, no dead letters, no
views, no metrics of ours, and rows are kept in memory as they are.

`python -m bench.saga_faust SERVERS NAME FOLDER PREFIX GUARANTEE` prints how many partitions it has of every table,
once they are there, and runs until SIGTERM.
"""

import asyncio
import sys
from pathlib import Path
from typing import Any

import faust
import msgspec
from faust.serializers import codecs

from app.bridging import APP_ID
from app.engine.collecting import collect_briefly
from app.engine.declarations import Reducer, Transition
from app.engine.engine import Application
from app.engine.kafka.log import KafkaLog
from app.engine.partitioner import partition_for
from app.engine.records import Record
from app.main import Marketplace
from app.settings import Settings
from tables.inventory import INVENTORY
from tables.order_sagas import ORDER_SAGAS

TABLES = {ORDER_SAGAS.name, INVENTORY.name}

COMMIT_SECONDS = {"exactly_once": 0.2, "at_least_once": 2.8}
"""Between two commits. Under `exactly_once` the next agent sees a message only once it is committed: with Faust's own
2.8 s, 300 open orders made 53 orders/s."""


class Rows(codecs.Codec):
    """Rows of one type in a changelog, packed as this engine packs them."""

    def __init__(self, row_type: type[Any]) -> None:
        super().__init__()
        self._of_bytes = msgspec.json.Decoder(row_type).decode
        self._packed = msgspec.json.Encoder().encode

    def _loads(self, s: bytes) -> Any:
        return self._of_bytes(s)

    def _dumps(self, s: Any) -> bytes:
        return self._packed(s)


def partition(key: bytes, everywhere: list[int], _available: list[int]) -> int:
    """What the client's own partitioner says, without its 10 µs in most cases."""
    return partition_for(key, len(everywhere))


class StockFaust:
    """The application on Faust, tuned: what was seen to make it faster is set, what is only for people is off.

    On two cores: a linger of 50 ms, messages that are not awaited one by one, larger polls and buffers, quick keys and
    the collector's brief looks took a tenth of the processor time; a producer on a thread of its own took half more.
    """

    def __init__(self, application: Application, servers: str, folder: str, prefix: str, guarantee: str) -> None:
        self._prefix = prefix
        self.faust = faust.App(
            f"{prefix}{application.name}",
            broker=f"kafka://{servers}",
            store="memory://",
            datadir=folder,
            processing_guarantee=guarantee,
            topic_partitions=application.partitions,
            topic_disable_leader=True,
            producer_linger=0.05,
            producer_partitioner=partition,
            broker_max_poll_records=10_000,
            stream_buffer_maxsize=32_768,
            consumer_auto_offset_reset="earliest",
            web_enabled=False,
            broker_commit_interval=COMMIT_SECONDS[guarantee],
        )
        self._targets = {topic.name: self._topic(topic.name) for topic in application.topics}
        self._tables = [self._add(each) for each in application.reducers if each.table.name in TABLES]
        self.faust.task(self._tell)

    def _topic(self, *names: str) -> Any:
        outer = [self._prefix + name for name in names]
        return self.faust.topic(*outer, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")

    def _add(self, reducer: Reducer[Any]) -> Any:
        """An agent over the reducer's topics, with its table."""
        table: Any = self.faust.Table(reducer.table.name, key_type=bytes)
        table.value_serializer = f"rows of {reducer.table.name}"
        codecs.register(table.value_serializer, Rows(reducer.table.row_type))
        inner = {self._prefix + topic.name: topic.name for topic in reducer.reads}
        decode = {topic.name: topic.decode for topic in reducer.reads}

        async def run(stream: Any) -> None:
            async for event in stream.events():
                it = event.message
                headers = tuple(it.headers)
                record = Record(inner[it.topic], it.partition, it.offset, it.timestamp, it.key, it.value, headers)
                message = decode[record.topic](record)
                if message is None:
                    continue
                key = message.key.encode()
                row = table.get(key)
                transition: Transition = reducer.rule(row, message)
                if transition.row is not row:
                    table[key] = transition.row
                if transition.outputs:
                    carried = reducer.carries(record, transition.row)
                    for output in transition.outputs:
                        for send in reducer.encode(output, carried):
                            self._targets[send.topic].send_soon(
                                key=send.key, value=send.value, partition=send.partition, headers=list(send.headers)
                            )

        self.faust.agent(self._topic(*decode), name=reducer.name)(run)
        return table

    async def _tell(self) -> None:
        collect_briefly()
        await self.faust.tables.wait_until_recovery_completed()
        assigned = self.faust.consumer.assignment()
        print(
            *(sum(place.topic == table.changelog_topic_name for place in assigned) for table in self._tables),
            flush=True,
        )


async def declared(settings: Settings) -> Application:
    """The application's declarations, with its topics on the broker."""
    assert settings.kafka is not None
    log = KafkaLog(settings.kafka, APP_ID)
    application = Marketplace(settings, log).engine.application
    await log.connect()
    await log.prepare({topic.name: topic.compacted for topic in application.topics}, application.partitions)
    await log.disconnect()
    return application


def main() -> None:
    """Run until SIGTERM."""
    servers, name, folder, prefix, guarantee = sys.argv[1:]
    settings = Settings(kafka_url=f"kafka://{servers}", worker_name=name, data_dir=Path(folder), topic_prefix=prefix)
    app = StockFaust(asyncio.run(declared(settings)), servers, folder, prefix, guarantee)
    # Standard output is for what is told here: Faust would write to it, too.
    faust.Worker(
        app.faust, loglevel="WARNING", quiet=True, stdout=sys.stderr, redirect_stdouts=False
    ).execute_from_commandline()


if __name__ == "__main__":
    main()
