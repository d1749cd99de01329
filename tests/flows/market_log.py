"""The log under a marketplace of the flow tests: what a test does with it and asks of it, whichever log it is."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, cast

from app.engine.embedded_log import EmbeddedLog
from app.engine.embedded_reader import EmbeddedReader
from app.engine.engine import Engine
from app.engine.kafka.log import KafkaLog
from app.engine.lanes import Lane
from app.engine.records import Record, Send


class MarketLog(Protocol):
    """A log that outlives the application which runs over it. `clock` is the time of what is appended."""

    clock: Callable[[], float]

    async def open(self, directory: Path) -> EmbeddedLog | KafkaLog:
        """The log for an application that is about to start."""

    async def close(self) -> None:
        """The application has ended."""

    async def drop(self) -> None:
        """The test has ended."""

    async def append(self, sends: Sequence[Send]) -> None:
        """Records arrive, all at once; also while the application's engine is down."""

    def records(self, topic: str) -> list[Record]:
        """Everything in a topic, partition by partition."""

    async def idle(self, engine: Engine) -> bool:
        """Whether nothing waits anywhere: every record is done and no row is due."""

    def wake(self, engine: Engine) -> None:
        """The clock was moved."""

    async def send_away(self, lane: Lane, partitions: int) -> None:
        """The lane does not run, but its table is there."""


class EmbeddedMarketLog:
    """The embedded log, in a file of the application's folder."""

    def __init__(self) -> None:
        self.clock: Callable[[], float] = lambda: 0.0
        self._log: EmbeddedLog | None = None

    async def open(self, directory: Path) -> EmbeddedLog:
        self._log = EmbeddedLog(directory / "log.db", clock=self.clock)
        self._log.open()
        return self._log

    async def close(self) -> None:
        self.log.close()

    async def drop(self) -> None:
        """The file goes with the test's folder."""

    @property
    def log(self) -> EmbeddedLog:
        assert self._log is not None
        return self._log

    async def append(self, sends: Sequence[Send]) -> None:
        await self.log.commit(sends)

    def records(self, topic: str) -> list[Record]:
        partitions = range(self.log.partitions(topic))
        return [record for partition in partitions for record in self.log.read(topic, partition, 0, 1_000_000)]

    async def idle(self, engine: Engine) -> bool:
        return engine.idle()

    def wake(self, engine: Engine) -> None:
        """The lanes look at their deadlines at once, not at their next poll."""
        for lane in engine.lanes:
            cast(EmbeddedReader, lane.reader)._wakeup.set()

    async def send_away(self, lane: Lane, partitions: int) -> None:
        """It can be stepped, too."""
        await lane.reader.start(lane)
