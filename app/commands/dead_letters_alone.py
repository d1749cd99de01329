"""The dead letters of an embedded log when no worker runs: their agent and their HTTP API, in this process alone.

What is replayed waits in its topic for the next worker.
"""

import asyncio
import threading
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from fastapi import FastAPI

from agents.dead_letters import keep_dead_letters
from app import topics
from app.bridging import APP_ID
from app.commands.worker_client import Told, told
from app.dead_letters import Letters
from app.engine.embedded_log import EmbeddedLog
from app.engine.engine import Application, Engine
from app.engine.errors import EngineError
from app.engine.lanes import Hooks
from app.settings import Settings
from app.web.dead_letters import ShownLetters, letter_routes
from app.web.elsewhere import Elsewhere
from app.web.freshness import Freshness
from app.web.letter_wishes import wish_routes
from app.web.problems import install_problems
from app.web.views import ReadTable
from bridge.dead_letters import dead_letter
from bridge.routes_file import load_routes
from tables.dead_letters import DEAD_LETTERS


class LettersAlone:
    """Answers as a worker does. Its loop is a thread's, so that the agent works on between two questions."""

    def __init__(self, settings: Settings) -> None:
        self.url = str(settings.log_path)
        self._settings = settings
        self._routes = load_routes(settings.routes_file)
        self._log = EmbeddedLog(settings.log_path)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="letters", daemon=True)
        self._engine: Engine
        self._api: FastAPI

    def open(self) -> "LettersAlone":
        """Take the log and bring the table up to date.

        Raises:
            EngineError: there is no log, another process has it, or it can't be read.
        """
        if not self._settings.log_path.exists():
            raise EngineError(
                f"there is no log {self._settings.log_path}: set DATA_DIR or WEB_PORT as the worker has it"
            )
        self._thread.start()
        self._run(self._open())
        return self

    def ask(self, method: str, path: str, query: Mapping[str, str] | None = None, body: bytes | None = None) -> Told:
        """One request, without a network."""
        if self._engine.failure is not None:
            raise self._engine.failure
        answer: Told = self._run(self._ask(method, path, urlencode(query or {}), body or b""))
        return answer

    def close(self) -> None:
        """Finish, and give the log back."""
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _open(self) -> None:
        application = Application(
            name=APP_ID,
            topics=(*topics.ALL, *self._routes.more_topics()),
            reducers=(keep_dead_letters(),),
            partitions=self._settings.partitions,
            hooks=Hooks(reject=dead_letter),
        )
        self._engine = Engine(application, self._log, self._settings.data_dir / "tables")
        await self._log.connect()
        await self._engine.open()
        await self._engine.start()
        self._api = self._made_api()

    def _made_api(self) -> FastAPI:
        table: ReadTable[Any] = self._engine.tables[DEAD_LETTERS.name]
        letters = Letters(self._log, self._routes, self._settings.partitions)
        shown = ShownLetters(table, letters, Elsewhere((table,)), self._freshness)
        api = FastAPI()
        install_problems(api)
        api.include_router(letter_routes(shown))
        api.include_router(wish_routes(shown))
        return api

    def _freshness(self, _table: str) -> Freshness:
        return Freshness(sum(self._engine.lag().values()), stale=False)

    async def _ask(self, method: str, path: str, query: str, body: bytes) -> Told:
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(b"host", b"alone"), (b"content-type", b"application/json")],
        }
        status, answer = 500, b""

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            nonlocal status, answer
            status = message.get("status", status)
            answer += message.get("body", b"")

        await self._api(scope, receive, send)
        return told(status, answer)

    async def _close(self) -> None:
        # A lane tells nobody that it is done.
        while self._engine.failure is None and not self._engine.idle():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await self._engine.stop()
        await self._log.disconnect()
