"""Our bridge as a worker runs it, without agents. `python -m bench.bridge.ours in|out|both LOG NATS NAME`.

`out` alone leaves the way in away: what was published does not come back through the mirror.
"""

import asyncio
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace

from app.engine.kafka.log import KafkaLog
from app.engine.kafka.options import KafkaOptions
from app.engine.open_logs import log_at
from app.metrics.worker import Metrics
from bench.bridge.topics import ALL, PARTITIONS
from bridge.bridge_log import BridgeLog
from bridge.counters import BridgeCounters
from bridge.leased import LeasedBridge
from bridge.routes import ROUTES, Direction, Routes
from bridge.service import Bridge

Make = Callable[[BridgeLog, Callable[[Exception], None]], Bridge]


OUT_ONLY = Routes(replace(route, direction=Direction.OUT) for route in ROUTES)
"""Nothing is mirrored."""


def counters(metrics: Metrics) -> BridgeCounters:
    """What a worker tells Prometheus of each message."""

    def bridged(subject: str, outcome: str, number: int) -> None:
        if outcome == "published":
            metrics.published(subject, n=number)
            metrics.bridge_published(number)
        elif outcome == "mirrored":
            metrics.mirrored(ROUTES[subject].topic, number)
        else:
            metrics.failed(subject, n=number)

    return BridgeCounters(on_event=bridged, on_dead_letter=metrics.dead_lettered, on_gap=metrics.bridge_gap)


async def main() -> int:
    """Run until SIGTERM (0) or a failure (1)."""
    direction, where, nats, name = sys.argv[1:]
    ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set_result, 0)

    def failed(error: Exception) -> None:
        sys.stderr.write(f"{error!r}\n")
        if not ended.done():
            ended.set_result(1)

    def bridge(log: BridgeLog, on_failure: Callable[[Exception], None]) -> Bridge:
        routes = OUT_ONLY if direction == "out" else ROUTES
        return Bridge(log, [nats], routes=routes, counters=counters(Metrics(time.time)), on_failure=on_failure)

    return await (_on_kafka if where.startswith("kafka:") else _embedded)(where, name, bridge, failed, ended)


async def _on_kafka(
    where: str,
    name: str,
    make: Make,
    failed: Callable[[Exception], None],
    ended: "asyncio.Future[int]",
) -> int:
    log = KafkaLog(KafkaOptions(where.removeprefix("kafka://"), "one", prefix=f"{name}."), "a4co")
    await log.connect()
    await log.prepare(dict.fromkeys(ALL, False), PARTITIONS)
    bridge = LeasedBridge(log, "a4co", make, failed)
    await bridge.start()
    code = await ended
    await bridge.stop()
    await log.disconnect()
    return code


async def _embedded(
    where: str,
    name: str,
    make: Make,
    failed: Callable[[Exception], None],
    ended: "asyncio.Future[int]",
) -> int:
    del name
    log = log_at(where)
    await log.prepare(dict.fromkeys(ALL, False), PARTITIONS)
    bridge = make(log, failed)
    await bridge.start()
    code = await ended
    await bridge.stop()
    await log.disconnect()
    return code


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
