"""Our engine's program: one reducer, one table. `python -m bench.peers.ours SERVERS INPUT OUTPUT NAME FOLDER`."""

import asyncio
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from app.engine.declarations import Reducer, TableSpec, Topic
from app.engine.engine import Application, Engine
from app.engine.kafka.log import KafkaLog
from app.engine.kafka.options import KafkaOptions
from app.engine.records import Headers, Record, Send
from bench.peers.lines import PARTITIONS, Line, Row, Totals


class Added(msgspec.Struct, frozen=True, gc=False):
    """The rule's return."""

    row: Row
    outputs: tuple[Totals, ...]
    outcome: str = "added"


def add(row: Row | None, line: Line) -> Added:
    """One more line of a product."""
    row = (row or Row()).add(line)
    return Added(row, (Totals(line.product_id, row.count, row.units, row.revenue),))


def application(name: str, source: str, target: str) -> Application:
    """Totals of `source`, said in `target`."""
    of_record = msgspec.json.Decoder(Line).decode
    packed = msgspec.json.Encoder().encode

    def decode(record: Record) -> Line:
        return of_record(record.value or b"")

    def encode(totals: Totals, headers: Headers) -> Sequence[Send]:
        return (Send(target, totals.product_id.encode(), packed(totals), headers),)

    lines = Topic(source, decode)
    reducer = Reducer("totals", (lines,), TableSpec(f"{name}-totals", Row), add, encode)
    return Application(name=name, topics=(lines, Topic(target)), reducers=(reducer,), partitions=PARTITIONS)


async def main() -> int:
    """Run until SIGTERM (0) or a failure (1)."""
    servers, source, target, name, folder = sys.argv[1:]
    ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set_result, 0)
    log = KafkaLog(KafkaOptions(servers, "one"), name)
    engine = Engine(application(name, source, target), log, Path(folder))
    engine.on_failure = lambda _error: ended.set_result(1)
    await log.connect()
    await engine.open()
    await engine.start()
    code = await ended
    await engine.stop()
    await log.disconnect()
    return code


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
