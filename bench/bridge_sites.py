"""A bridge that can be killed, and who fills `outbound` for it: on the embedded log, and on Kafka."""

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
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
from tests.live.worker_process import WorkerProcess, environment


def waiting(status: Mapping[str, Any]) -> int | None:
    """Messages that wait, by a bridge's status; None: it is not ready."""
    return int(status["lag_in"] + status["lag_out"]) if status and not status["problem"] else None


class Site:
    """A bridge on some log, and what fills `outbound`."""

    async def start(self) -> None:
        """Return when it works."""
        raise NotImplementedError

    ended = 0
    """Bridges that have ended by themselves."""

    async def kill(self) -> None:
        """SIGKILL of the bridge."""
        raise NotImplementedError

    def start_bridge(self) -> None:
        """Start whatever does not run."""
        raise NotImplementedError

    def revive(self) -> None:
        """Start what has ended by itself, as a supervisor does."""
        raise NotImplementedError

    def _count_ended(self, output: str) -> None:
        self.ended += 1
        sys.stderr.write(f"a bridge has ended by itself: {output.strip().rpartition(chr(10))[2]}\n")

    async def stop_filling(self) -> None:
        """Nothing more goes into `outbound`."""
        raise NotImplementedError

    async def waits(self) -> int | None:
        """Messages that wait in either direction; None: nobody knows."""
        raise NotImplementedError

    def told(self) -> str:
        """The end of what the bridges have said."""
        raise NotImplementedError

    async def stop(self) -> None:
        """End the bridges in order."""
        raise NotImplementedError

    settings: Mapping[str, str]
    """What a command of ours needs to find log and NATS."""

    def verify(self) -> str:
        """What `a4co bridge verify` has to complain about; "": nothing."""
        ran = subprocess.run(
            [Path(sys.executable).parent / "a4co", "bridge", "verify"],
            env=environment(self.settings), check=False, capture_output=True, text=True,
        )  # fmt: skip
        return "" if ran.returncode == 0 else f"a4co bridge verify: {ran.stdout}{ran.stderr}"

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
        self.settings = {"DATA_DIR": str(folder), "NATS_URL": url}
        arguments = ["-m", "tests.live.bridge_app", str(self._log), url, str(rate)]
        self._process = Killable("the bridge", arguments, folder / "bridge.log")
        self._before = 0

    async def start(self) -> None:
        self.start_bridge()
        while not (status := self._status()) or status["problem"]:  # noqa: ASYNC110 - it is another process
            await asyncio.sleep(0.05)

    def _status(self) -> dict[str, Any]:
        """What it has said last since it was started."""
        whole = self._process.text()[self._before :].rpartition("\n")[0].splitlines()
        lines = [line for line in whole if line.startswith("{")]
        return dict(json.loads(lines[-1])) if lines else {}

    async def kill(self) -> None:
        self.revive()
        self._process.kill()

    def revive(self) -> None:
        if self._process.exit_code not in (None, -signal.SIGKILL):
            self._count_ended(self._process.output())
            self.start_bridge()

    def start_bridge(self) -> None:
        if not self._process.running:
            self._before = len(self._process.text())
            self._process.start()

    async def stop_filling(self) -> None:
        self.revive()
        while not self._status():  # noqa: ASYNC110 - before that it does not know of signals
            await asyncio.sleep(0.05)
        self._process.send(signal.SIGUSR1)

    async def waits(self) -> int | None:
        self.revive()
        return waiting(self._status())

    def told(self) -> str:
        return self._process.output()

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
        self.settings = {"KAFKA_URL": broker.url, "NATS_URL": url, "TOPIC_PREFIX": self._prefix}
        self._bridges = [
            WorkerProcess(
                folder / f"bridge-{number}", command="bridge", **self.settings, WORKER_NAME=f"bridge-{number}",
                LOG_LEVEL="warning",
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

    async def kill(self) -> None:
        """Of the active one; of any, when none is."""
        self.revive()
        victim = await self._active() or next(bridge for bridge in self._bridges if bridge.running)
        victim.kill()

    def revive(self) -> None:
        for bridge in self._bridges:
            if bridge.exit_code is not None:
                self._count_ended(bridge.output())
                bridge.start()

    def start_bridge(self) -> None:
        for bridge in self._bridges:
            if not bridge.running:
                bridge.start()

    async def stop_filling(self) -> None:
        if self._filling is not None:
            self._filling.cancel()
            await asyncio.gather(self._filling, return_exceptions=True)

    async def waits(self) -> int | None:
        self.revive()
        active = await self._active()
        answer = await active.answer("/health") if active is not None else None
        return None if answer is None else waiting(answer.json()["checks"]["nats"])

    def told(self) -> str:
        return "\n\n".join(f"{bridge.settings['WORKER_NAME']}: {bridge.output(3_000)}" for bridge in self._bridges)

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
