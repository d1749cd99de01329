"""A small application of one reducer, for tests that kill it: it counts, and says each number once.

`python -m tests.live.counting_app SERVERS PREFIX WORKER FOLDER [COMMIT_SECONDS TRANSACTION_TIMEOUT PAUSE]` runs until
SIGTERM. It writes lines of JSON: what it works on, and at SIGUSR1 its table and lag. PAUSE: seconds that the
first record "pause" takes, within a transaction.
"""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from app.engine.declarations import Reducer, TableSpec, Topic
from app.engine.engine import Application, Engine
from app.engine.errors import EngineError
from app.engine.kafka import cluster
from app.engine.kafka.log import KafkaLog
from app.engine.kafka.options import KafkaOptions
from app.engine.lanes import Hooks
from app.engine.records import Headers, Record, Send
from app.engine.standby import Standby

PARTITIONS = 4
NAME = "counting"
GROUP = f"{NAME}.count"


class Count(msgspec.Struct, frozen=True):
    """What is known of a key: how many numbers, their sum, the last, and how often one was not the next."""

    count: int = 0
    total: int = 0
    last: int = -1
    wrong: int = 0


class Number(msgspec.Struct, frozen=True):
    """A number that was said for a key: 0, 1, 2, ..."""

    key: str
    number: int


@dataclass
class Counted:
    """A rule's return."""

    row: Count
    outputs: tuple[Number, ...]
    outcome: str = "counted"


def count(row: Count | None, message: Number) -> Counted:
    """One more."""
    row = row or Count()
    wrong = row.wrong + (message.number != row.last + 1)
    return Counted(Count(row.count + 1, row.total + message.number, message.number, wrong), (message,))


paused: list[Record] = []


def decode(record: Record) -> Number:
    """A number's key is the record's."""
    number = (record.value or b"").decode()
    if number == "pause":
        number = "0"
        if not paused:
            paused.append(record)
            time.sleep(float(sys.argv[7]))
    return Number((record.key or b"").decode(), int(number))


def encode(said: Number, headers: Headers) -> Sequence[Send]:
    """To the topic `counted`."""
    return [Send("counted", said.key.encode(), b"%d" % said.number, headers)]


NUMBERS = Topic("numbers", decode)
COUNTED = Topic("counted")
COUNTS: TableSpec[Count] = TableSpec("counts", Count)
TABLE = Reducer("count", (NUMBERS,), COUNTS, count, encode)


def tell(what: str, **more: Any) -> None:
    """A line for the test."""
    print(json.dumps({"what": what, "at": time.time(), **more}), flush=True)


def processed(_lane: str, records: Sequence[Record], _outcomes: Sequence[str], seconds: float) -> None:
    """A batch is committed."""
    partitions = sorted({record.partition for record in records})
    tell("did", partitions=partitions, records=len(records), seconds=round(seconds, 4))


async def main() -> int:
    """Run until a signal or a failure."""
    servers, prefix, worker, folder = sys.argv[1:5]
    seconds = float(sys.argv[5]) if len(sys.argv) > 5 else 0.1
    if len(sys.argv) > 6:
        cluster.TRANSACTION_TIMEOUT = float(sys.argv[6])
    cluster.REQUEST = 5.0  # so that a test need not wait long for what isn't there
    log = KafkaLog(KafkaOptions(servers, worker, prefix, commit_seconds=seconds), NAME)
    hooks = Hooks(reject=lambda record, reason, error: [], processed=processed)
    application = Application(
        name=NAME, topics=(NUMBERS, COUNTED), reducers=(TABLE,), partitions=PARTITIONS, hooks=hooks
    )
    engine = Engine(application, log, Path(folder))
    standby = Standby(engine.tables.values(), log, lambda: engine.ready) if os.environ.get("STANDBY") else None
    ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def end(why: str) -> None:
        if not ended.done():
            ended.set_result(why)

    def table() -> None:
        rows = {key: msgspec.to_builtins(row) for key, row in engine.tables["counts"].items()}
        owned = sorted(engine.tables["counts"].partitions)
        tell("table", rows=rows, lag=sum(engine.lag().values()), owned=owned)

    engine.on_failure = lambda error: end(f"{type(error).__name__}: {error}")
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, end, "")
    loop.add_signal_handler(signal.SIGUSR1, table)
    try:
        await log.connect()
        await engine.open()
        await engine.start()
    except EngineError as error:
        end(f"{type(error).__name__}: {error}")
    else:
        tell("started")
        if standby is not None:
            standby.start()
    while not ended.done():
        await asyncio.wait([ended], timeout=0.05)
        tell("owned", partitions=sorted(engine.tables["counts"].partitions))
    if ended.result():
        tell("failed", cause=ended.result())
    if standby is not None:
        await standby.stop()
    await engine.stop()
    await log.disconnect()
    tell("ended")
    return 1 if ended.result() else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
