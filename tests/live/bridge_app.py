"""A bridge on an embedded log with who fills `outbound`, as a process that can be killed: for the embedded log has one.

`python -m tests.live.bridge_app LOG NATS_URL RATE`: a line of JSON on stdout each half second says how it is. SIGUSR1
ends the filling, SIGTERM the process.
"""

import asyncio
import json
import logging
import signal
import sys
from pathlib import Path

from app.engine.embedded_log import EmbeddedLog
from bridge.service import Bridge
from tests.live.bridge_load import TICK, outbound
from tests.live.bridge_site import TOPICS

PARTITIONS = 4
SAYS = 0.5


async def fill(log: EmbeddedLog, rate: float, enough: asyncio.Event) -> None:
    """Go on where the last process was killed, `rate` records a second."""
    began, clock = asyncio.get_running_loop().time(), asyncio.get_running_loop().time
    first = filled = int(log.note("filled") or b"0")
    while not enough.is_set():
        until = first + int((clock() - began) * rate)
        await log.commit(outbound(range(filled, until)), notes={"filled": b"%d" % until})
        filled = until
        await asyncio.sleep(TICK)


async def main(path: Path, url: str, rate: float) -> int:
    """Exit code 1 when the bridge ended by itself."""
    log = EmbeddedLog(path)
    log.open()
    await log.prepare(dict.fromkeys(TOPICS, False), PARTITIONS)
    failures: list[Exception] = []
    bridge = Bridge(log, [url], on_failure=failures.append)
    enough, over = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, enough.set)
    loop.add_signal_handler(signal.SIGTERM, over.set)
    await bridge.start()
    filling = asyncio.create_task(fill(log, rate, enough))
    while not over.is_set() and not failures:
        status = bridge.status()
        print(json.dumps({name: status[name] for name in ("problem", "position", "lag_in", "lag_out")}), flush=True)
        await asyncio.sleep(SAYS)
    filling.cancel()
    await bridge.stop()
    await log.disconnect()
    return int(bool(failures))


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    sys.exit(asyncio.run(main(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]))))
