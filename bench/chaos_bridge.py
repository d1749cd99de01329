"""Kills the bridge, nats-server and Kafka again and again under load, and compares what crossed with what was said.

`python -m bench.chaos_bridge --log kafka --kills 30 --nats-kills 15 --kafka-kills 15` prints a line for each and ends
with one line of JSON; its exit code is 1 when anything was lost, mirrored or published twice, or in another order, or
when the ledger is wrong. Half of the rate goes in (half of it acked by JetStream, half plain), half out.
"""

import argparse
import asyncio
import random
import secrets
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench import report
from bench.bridge_sites import EmbeddedSite, KafkaSite, Site
from tests.live import bridge_checks as check
from tests.live.bridge_load import Publishers, Subscriber
from tests.live.kafka_broker import KafkaBroker
from tests.live.kill_checks import records
from tests.live.nats_server import NatsServer

BRIDGE, NATS, KAFKA = "bridge", "nats-server", "Kafka"
STILL = 60.0
"""Seconds without any change after which it is stuck, when nothing is killed any more."""

CALM = 5
"""So many looks in a row have to find that nothing waits."""

Tell = Callable[[str], None]


@dataclass
class Verdict:
    """What became of a run: all of `lost`, `duplicates`, `disorder` and `differences` must be nothing."""

    kills: dict[str, int]
    rate: float
    seed: int
    log: str
    published: dict[str, int] = field(default_factory=dict)
    lost: int = 0
    duplicates: int = 0
    disorder: int = 0
    differences: list[str] = field(default_factory=list)
    heard_again: int = 0
    """Messages that a core subscriber heard once too often."""
    ended: int = 0
    """Bridges that ended by themselves, and were started again."""
    seconds: float = 0.0

    @property
    def good(self) -> bool:
        return not (self.lost or self.duplicates or self.disorder or self.differences)


class Storm:
    """One run: everything is chosen by the seed but the time that things take."""

    def __init__(
        self, folder: Path, *, kills: int, nats_kills: int, broker: KafkaBroker | None = None, kafka_kills: int = 0,
        rate: float, seed: int, tell: Tell,
    ) -> None:  # fmt: skip
        self._chance = random.Random(seed)
        self._victims = [BRIDGE] * kills + [NATS] * nats_kills + [KAFKA] * (kafka_kills if broker else 0)
        self._chance.shuffle(self._victims)
        self._tell = tell
        self._nats = NatsServer(folder / "nats")
        self._broker = broker
        self._folder = folder
        self._rate = rate
        self._publishers = Publishers(rate / 2, seed)
        self._subscriber = Subscriber()
        counted = {victim: self._victims.count(victim) for victim in (BRIDGE, NATS, KAFKA)}
        self.verdict = Verdict(counted, rate, seed, "kafka" if broker else "embedded")

    async def run(self) -> Verdict:
        """Do it all. Raises AssertionError when it can't come to an end."""
        began = time.monotonic()
        await self._nats.start()
        out = self._rate / 2
        site: Site = (
            KafkaSite(self._folder, self._nats.url, out, self._broker)
            if self._broker
            else EmbeddedSite(self._folder, self._nats.url, out)
        )
        hearing = asyncio.create_task(self._subscriber.run(self._nats.url))
        try:
            await site.start()
            publishing = asyncio.create_task(self._publishers.run(self._nats.url))
            await self._trouble(site)
            self._publishers.stop()
            await publishing
            await self._settle(site)
            await self._judge(site)
            self.verdict.ended = site.ended
        finally:
            hearing.cancel()
            await asyncio.gather(hearing, return_exceptions=True)
            await site.close()
            self._nats.stop()
        self.verdict.seconds = round(time.monotonic() - began, 1)
        return self.verdict

    async def _trouble(self, site: Site) -> None:
        for number, victim in enumerate(self._victims):
            await asyncio.sleep(self._moment())
            away = self._chance.choice([0.0, 0.0, 0.5, 2.0])
            await self._kill(victim, site, away)
            said = f"{len(self._publishers.acked):,} acked, {self._publishers.plain:,} plainly said"
            self._tell(f"{number + 1}/{len(self._victims)}: {victim} killed, away for {away:g} s; {said}")
        await asyncio.sleep(2)

    def _moment(self) -> float:
        """Seconds to the next kill: while it comes back, or at work."""
        return self._chance.choice([self._chance.uniform(0, 1.5), self._chance.uniform(1, 5)])

    async def _kill(self, victim: str, site: Site, away: float) -> None:
        if victim == BRIDGE:
            await site.kill()
            await asyncio.sleep(away)
            site.start_bridge()
        elif victim == NATS:
            self._nats.kill()
            await asyncio.sleep(away)
            await self._nats.start()
        else:
            assert self._broker is not None
            await asyncio.to_thread(self._broker.kill)
            await asyncio.sleep(away)
            await asyncio.to_thread(self._broker.start)

    async def _settle(self, site: Site) -> None:
        """Wait until everything has crossed. Raises AssertionError when nothing does any more."""
        await site.stop_filling()
        seen: int | None = None
        moved, calm = time.monotonic(), 0
        while calm < CALM:
            left = await site.waits()
            calm = calm + 1 if left == 0 else 0
            if left != seen:
                moved = time.monotonic()
                self._tell(f"left to cross: {'unknown' if left is None else f'{left:,}'}")
            assert time.monotonic() < moved + STILL, f"{left} wait, and nothing moves for {STILL:g} s:\n{site.told()}"
            seen = left
            await asyncio.sleep(0.5)

    async def _judge(self, site: Site) -> None:
        verdict = self.verdict
        self._tell("reading the stream")
        stream = await check.stored(self._nats.url, lambda done, total: report.progress("the stream", done, total))
        await site.stop()
        self._tell("comparing")
        if complaint := await asyncio.to_thread(site.verify):
            verdict.differences.append(complaint)
        with site.reading() as (log, account):
            come = check.compare_in(stream, log, verdict.differences)
            gone = check.compare_out(stream, log, verdict.differences)
            said = sum(len(partition) for partition in records(log, "outbound"))
            verdict.differences += check.ledger_differences(account, stream, come)
        kept = {message.event_id for message in stream}
        verdict.lost = come.lost + gone.lost + len(self._publishers.acked - kept)
        verdict.duplicates = come.duplicates + gone.duplicates
        verdict.disorder = come.disorder + gone.disorder
        verdict.heard_again = self._subscriber.heard.total() - len(self._subscriber.heard)
        verdict.published = {
            "acked": len(self._publishers.acked), "plain": self._publishers.plain, "said_again": come.repeated,
            "outbound": said, "in_the_stream": len(stream),
        }  # fmt: skip


def tell(line: str) -> None:
    """A word about how far it is."""
    print(line, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    about = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m bench.chaos_bridge", description=about)
    parser.add_argument("--log", choices=["kafka", "embedded"], default="kafka")
    parser.add_argument("--kills", type=int, default=30, help="of the bridge")
    parser.add_argument("--nats-kills", type=int, default=15)
    parser.add_argument("--kafka-kills", type=int, default=15)
    parser.add_argument("--rate", type=float, default=1000, help="messages/s, half of them in, half of them out")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000))
    given = parser.parse_args(arguments)
    options = {"rate": given.rate, "seed": given.seed, "tell": tell}
    with tempfile.TemporaryDirectory(prefix="a4co-storm-") as name:
        folder, broker = Path(name), None
        try:
            if given.log == "kafka":
                broker = KafkaBroker(folder / "kafka")
            storm = Storm(
                folder, kills=given.kills, nats_kills=given.nats_kills, broker=broker, kafka_kills=given.kafka_kills,
                **options,
            )  # fmt: skip
            verdict = asyncio.run(storm.run())
        finally:
            if broker is not None:
                broker.stop()
    for difference in verdict.differences:
        tell(difference)
    figures = {name: value for name, value in verdict.__dict__.items() if name not in ("seed", "differences")}
    report.conclude(
        "kill -9 of the bridge, nats-server and Kafka",
        figures | {"differences": len(verdict.differences)},
        seed=verdict.seed,
    )
    return 0 if verdict.good else 1


if __name__ == "__main__":
    sys.exit(main())
