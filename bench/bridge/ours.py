"""Our bridge: on Kafka `a4co bridge` as it is, on the embedded log as in a worker, without agents.

`python -m bench.bridge.ours in|out|both LOG NATS NAME`. With `out` nothing of what is published is mirrored back.
"""

import asyncio
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

from app import logs
from app.bridging import make_bridge
from app.engine.collecting import collect_briefly
from app.engine.open_logs import log_at
from app.main import run_bridge
from app.metrics.worker import Metrics
from app.settings import Settings, load
from bench.bridge.topics import ALL, PARTITIONS
from bridge.routes import ROUTES
from bridge.routes_file import load_routes
from tests.live.nats_server import free_ports


def settings_of(direction: str, where: str, nats: str, name: str, folder: Path) -> Settings:
    """The settings of one run, from an environment of its own."""
    routes = folder / "routes.toml"
    out_only = [f'[[route]]\nsubject = "{route.subject}"\ndirection = "out"\n' for route in ROUTES if route.published]
    unread = [f'[[route]]\nsubject = "{route.subject}"\non = false\n' for route in ROUTES if not route.published]
    routes.write_text("\n".join([*out_only, *unread]) if direction == "out" else "", "utf-8")
    kafka = {"KAFKA_URL": where, "TOPIC_PREFIX": f"{name}."} if where.startswith("kafka:") else {}
    os.environ |= {
        "NATS_URL": nats, "PARTITIONS": str(PARTITIONS), "DATA_DIR": str(folder), "LOG_LEVEL": "warning",
        "WEB_PORT": str(free_ports(1)[0]), "ROUTES_FILE": str(routes), **kafka,
    }  # fmt: skip
    return load()


async def embedded(settings: Settings, where: str) -> int:
    """Run until SIGTERM (0) or a failure (1)."""
    ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set_result, 0)

    def failed(error: Exception) -> None:
        sys.stderr.write(f"{error!r}\n")
        if not ended.done():
            ended.set_result(1)

    log = log_at(where)
    await log.prepare(dict.fromkeys(ALL, False), PARTITIONS)
    collect_briefly()
    bridge = make_bridge(settings, load_routes(settings.routes_file), log, Metrics(time.time), failed)
    await bridge.start()
    code = await ended
    await bridge.stop()
    await log.disconnect()
    return code


def main() -> int:
    """The command."""
    direction, where, nats, name = sys.argv[1:]
    with tempfile.TemporaryDirectory(prefix="a4co-ours-") as folder:
        settings = settings_of(direction, where, nats, name, Path(folder))
        logs.configure(settings)
        if where.startswith("kafka:"):
            run_bridge(settings)
            return 0
        return asyncio.run(embedded(settings, where))


if __name__ == "__main__":
    sys.exit(main())
