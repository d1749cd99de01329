"""A bridge that can be killed, and who fills `outbound` for it: on the embedded log, and on Kafka."""

import asyncio
import contextlib
import json
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from app.engine.embedded_log import EmbeddedLog
from app.engine.errors import EngineError
from app.engine.kafka.log import KafkaLog
from app.engine.kafka.options import KafkaOptions
from bridge.ledger import Account
from bridge.nats_to_log import account_of
from tests.live.bridge_checks import newest_account
from tests.live.bridge_load import TICK, outbound
from tests.live.bridge_site import STREAM
from tests.live.kafka_broker import KafkaBroker
from tests.live.kafka_read import KafkaAsRead
from tests.live.kill_checks import AnyLog, records
from tests.live.killable import Killable
from tests.live.worker_process import WorkerProcess


class Site:
    """A bridge on some log, and what fills `outbound`."""

    async def start(self) -> None:
        """Return when it works."""
        raise NotImplementedError

    async def kill(self) -> bool:
        """SIGKILL of the bridge. False: it had ended by itself."""
        raise NotImplementedError

    def start_bridge(self) -> None:
        """Start whatever does not run."""
        raise NotImplementedError

    async def stop_filling(self) -> None:
        """Nothing more goes into `outbound`."""
        raise NotImplementedError

    async def idle(self) -> bool:
        """Whether nothing waits in either direction."""
        raise NotImplementedError

    async def stop(self) -> None:
        """End the bridges in order."""
        raise NotImplementedError

    def reading(self) -> contextlib.AbstractContextManager[tuple[AnyLog, Account]]:
        """The log and the ledger, once everything has been stopped."""
        raise NotImplementedError

    async def close(self) -> None:
        """Whatever the state."""
        raise NotImplementedError


class EmbeddedSite(Site):
    """A process with bridge and log."""

    def __init__(self, folder: Path, url: str, rate: float) -> None:
        self._log = folder / "log.db"
        arguments = ["-m", "tests.live.bridge_app", str(self._log), url, str(rate)]
        self._process = Killable("the bridge", arguments, folder / "bridge.log")

    async def start(self) -> None:
        self._process.start()
        while not (status := self._status()) or status["problem"]:  # noqa: ASYNC110 - it is another process
            await asyncio.sleep(0.05)

    def _status(self) -> dict[str, Any]:
        lines = [line for line in self._process.text().splitlines()[-5:-1] if line.startswith("{")]
        return dict(json.loads(lines[-1])) if lines else {}

    async def kill(self) -> bool:
        if not self._process.running:
            return False
        self._process.kill()
        return True

    def start_bridge(self) -> None:
        if not self._process.running:
            self._process.start()

    async def stop_filling(self) -> None:
        self._process.send(signal.SIGUSR1)

    async def idle(self) -> bool:
        status = self._status()
        return not (status["problem"] or status["lag_in"] or status["lag_out"])

    async def stop(self) -> None:
        await asyncio.to_thread(self._process.stop)

    @contextlib.contextmanager
    def reading(self) -> Iterator[tuple[AnyLog, Account]]:
        log = EmbeddedLog(self._log)
        log.open()
        with contextlib.closing(log):
            yield log, account_of(log, STREAM) or Account()

    async def close(self) -> None:
        self._process.close()


class KafkaSite(Site):
    """`a4co bridge` processes, and a producer beside them."""

    def __init__(self, folder: Path, url: str, rate: float, broker: KafkaBroker, bridges: int = 2) -> None:
        self._rate = rate
        self._broker = broker
        self._prefix = f"storm-{uuid.uuid4().hex[:8]}."
        self._bridges = [
            WorkerProcess(
                folder / f"bridge-{number}", command="bridge", NATS_URL=url, KAFKA_URL=broker.url,
                TOPIC_PREFIX=self._prefix, WORKER_NAME=f"bridge-{number}", LOG_LEVEL="warning",
            )
            for number in range(bridges)
        ]  # fmt: skip
        self._log = KafkaLog(KafkaOptions(broker.servers, "filler", self._prefix), "a4co")
        self._filling: asyncio.Task[None] | None = None

    async def start(self) -> None:
        for bridge in self._bridges:
            bridge.start()
        for bridge in self._bridges:
            await bridge.ready()
        await self._log.connect()
        self._filling = asyncio.create_task(self._fill())

    async def _fill(self) -> None:
        """What was not committed for sure is not tried again: what counts is what stands in the topic."""
        began, clock = asyncio.get_running_loop().time(), asyncio.get_running_loop().time
        filled = 0
        while True:
            until = min(int((clock() - began) * self._rate), filled + 1_000)
            try:
                if until > filled:
                    await self._log.commit(outbound(range(filled, until)))
                filled = until
            except EngineError:
                filled = until
                await asyncio.sleep(0.5)
            await asyncio.sleep(TICK)

    async def _active(self) -> WorkerProcess | None:
        for bridge in self._bridges:
            answer = await bridge.answer("/health") if bridge.running else None
            if answer is not None and answer.json()["checks"]["nats"]["connected"]:
                return bridge
        return None

    async def kill(self) -> bool:
        """Of the active one; of any, when none is."""
        victim = await self._active() or next((bridge for bridge in self._bridges if bridge.running), None)
        if victim is not None and victim.running:
            victim.kill()
        return all(bridge.running or bridge.exit_code == -signal.SIGKILL for bridge in self._bridges)

    def start_bridge(self) -> None:
        for bridge in self._bridges:
            if not bridge.running:
                bridge.start()

    async def stop_filling(self) -> None:
        if self._filling is not None:
            self._filling.cancel()
            await asyncio.gather(self._filling, return_exceptions=True)

    async def idle(self) -> bool:
        active = await self._active()
        return active is not None and await active.idle()

    async def stop(self) -> None:
        for bridge in self._bridges:
            await asyncio.to_thread(bridge.stop)

    @contextlib.contextmanager
    def reading(self) -> Iterator[tuple[AnyLog, Account]]:
        log = KafkaAsRead(self._broker.servers, self._prefix)
        [notes] = records(log, "notes")
        yield log, newest_account((record.key or b"", record.value) for record in notes)

    async def close(self) -> None:
        await self.stop_filling()
        for bridge in self._bridges:
            await bridge.close()
        await self._log.disconnect()
