"""`a4co demo`: a whole marketplace on this machine. Starts NATS, a mail sink, the worker and the simulated services in
this order, and ends all of it in the other order, whatever happens.
"""

import asyncio
import http.client
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from pathlib import Path

import click
import nats.errors

from app.demo import screen
from app.demo.mail_sink import MailSink
from app.demo.market import Market
from app.demo.processes import Child, DemoError
from app.demo.servers import Worker, start_nats, start_worker
from app.demo.users_nats import borrowed_nats
from app.setting_types import redact
from app.settings import Settings

WORKER_STOPS, NATS_STOPS = 1.8, 0.5
"""Seconds after SIGTERM, then SIGKILL. Together with all else that is less than 3 s."""


def main(settings: Settings, orders: int | None) -> int:
    """Run it. `orders`: end when so many are done, with a verdict; None: until Ctrl-C. Returns the exit code."""
    try:
        return asyncio.run(_until_told(Demo(settings, orders)))
    except DemoError as error:
        click.echo(f"Error: {error}", err=True)
        return 1


async def _until_told(demo: "Demo") -> int:
    """Ctrl-C, SIGTERM and a closed terminal end it; asking again changes nothing, it ends in seconds."""
    task = asyncio.ensure_future(demo.run())
    asked: list[float] = []

    def end() -> None:
        if not asked:
            task.cancel()
        asked.append(time.monotonic())

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, end)
    try:
        return await task
    except asyncio.CancelledError:
        return 1 if demo.wanted else 0
    finally:
        if asked:
            click.echo(f"stopped in {time.monotonic() - asked[0]:.1f} s")


class Demo:
    """One run. `wanted`: how many orders, None without an end."""

    def __init__(self, settings: Settings, wanted: int | None) -> None:
        self.wanted = wanted
        self._settings = settings
        self._began = time.monotonic()
        self._children: list[Child] = []

    async def run(self) -> int:
        """Start everything, work, end everything; the run's files stay after a failure. Raises DemoError."""
        folder = _new_folder(self._settings.data_dir)
        keep = True
        try:
            code = await self._run_in(folder)
            keep = code != 0
            return code
        except asyncio.CancelledError:
            keep = False
            raise
        finally:
            if keep and any(folder.glob("*.log")):
                click.echo(f"kept for a look: {screen.near(folder)}", err=True)
            else:
                shutil.rmtree(folder, ignore_errors=True)

    async def _run_in(self, folder: Path) -> int:
        async with AsyncExitStack() as stack:
            nats_url = await stack.enter_async_context(self._nats(folder))
            sink = MailSink()
            smtp_url = await sink.start()
            stack.push_async_callback(sink.stop)
            screen.say("mail", f"{smtp_url}   a sink: it counts the mails and throws them away")
            worker = await stack.enter_async_context(self._worker(folder, nats_url, smtp_url))
            screen.say("data", f"{screen.near(folder)}   removed at the end, kept after a failure")
            screen.say_timers(self._settings)
            screen.say_try(worker.api.url, redact(nats_url))
            market = Market(worker.api, nats_url, sink, self.wanted, self._began)
            return await self._unless_a_child_dies(market.run())

    @asynccontextmanager
    async def _nats(self, folder: Path) -> AsyncIterator[str]:
        if self._settings.model_fields_set & {"nats_url", "nats_url_file"}:
            async with borrowed_nats(self._settings) as url:
                screen.say("nats", f"{redact(url)}   yours, by NATS_URL")
                yield url
            return
        server = await start_nats(folder)
        try:
            self._children.append(server.child)
            screen.say("nats", f"{server.url}   JetStream, sync_interval always; monitoring {server.monitor}")
            yield server.url
        finally:
            await server.child.stop(NATS_STOPS)

    @asynccontextmanager
    async def _worker(self, folder: Path, nats_url: str, smtp_url: str) -> AsyncIterator[Worker]:
        worker = await start_worker(folder, self._settings, nats_url, smtp_url)
        try:
            self._children.append(worker.child)
            url = worker.api.url
            screen.say("worker", f"pid {worker.child.pid}, ready in {worker.seconds:.1f} s: bridge, agents and web")
            screen.say("log", screen.near(worker.child.output))
            screen.say("page", f"{url}/   the dashboard: open it in a browser")
            screen.say("api", f"{url}/api/orders   {url}/docs   {url}/metrics   {url}/health")
            yield worker
        finally:
            await worker.child.stop(WORKER_STOPS)

    async def _unless_a_child_dies(self, work: Awaitable[int]) -> int:
        working = asyncio.ensure_future(work)
        deaths = [asyncio.ensure_future(child.died()) for child in self._children]
        try:
            await asyncio.wait([working, *deaths], return_when=asyncio.FIRST_COMPLETED)
            if working.done() and working.exception() is not None:
                # Who talks to a process often notices its death before its parent does.
                await asyncio.wait(deaths, timeout=1, return_when=asyncio.FIRST_COMPLETED)
            for death in deaths:
                if death.done():
                    death.result()
            return await working
        except (OSError, http.client.HTTPException, nats.errors.Error) as error:
            raise DemoError(f"no answer any more: {error!r}") from error
        finally:
            # The work goes first: it must not see a server that is stopping.
            for task in (working, *deaths):
                task.cancel()
            await asyncio.gather(working, *deaths, return_exceptions=True)


def _new_folder(data_dir: Path) -> Path:
    folder = data_dir / f"demo-{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}"  # noqa: DTZ005 - for people here
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise DemoError(f"DATA_DIR={data_dir} can't be written: {error.strerror}") from None
    return folder
