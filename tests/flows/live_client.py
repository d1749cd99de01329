"""A client of the live feed in the same process: it reads events, or does not."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from urllib.parse import urlencode

from app.web.api import create_api
from app.web.views import Views
from tests.waiting import wait_until


class Heard(NamedTuple):
    """One event. `place` is the last id behind it."""

    event: str
    data: dict[str, Any]
    place: str


class Events:
    """Takes a stream apart as a browser does: events, and the last id."""

    def __init__(self) -> None:
        self.heard: list[Heard] = []
        self.place = ""
        self.retry = ""
        self._rest = ""

    def take(self, text: str) -> None:
        """The next piece of the stream."""
        *blocks, self._rest = (self._rest + text).split("\n\n")
        for block in blocks:
            fields = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":"))
            self.place = fields.get("id", self.place)
            self.retry = fields.get("retry", self.retry)
            if "data" in fields:
                self.heard.append(Heard(fields["event"], json.loads(fields["data"]), self.place))


class LiveClient(Events):
    """One connection. `reads` is cleared by who does not read on."""

    def __init__(self) -> None:
        super().__init__()
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self.ended = False
        self.reads = asyncio.Event()
        self.reads.set()
        self._gone = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        await self.reads.wait()
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        elif self.status == 200:
            self.take(message["body"].decode())
        else:
            self.body += message["body"]
        self.ended = message.get("more_body", True) is False

    def go(self) -> None:
        """The client goes away."""
        self._gone.set()

    async def hears(self, event: str, within: float = 10.0, **data: Any) -> Heard:
        """The first event of that name with these fields."""

        def heard() -> Heard | None:
            return self.first(event, **data)

        found = await wait_until(heard, within=within, what=f"no {event} {data}")
        assert found is not None
        return found

    def first(self, event: str, **data: Any) -> Heard | None:
        return next((each for each in self.heard if each.event == event and data.items() <= each.data.items()), None)

    def told(self, event: str, field: str) -> list[Any]:
        """A field of every event of that name."""
        return [each.data[field] for each in self.heard if each.event == event]


@asynccontextmanager
async def listening(views: Views, place: str = "", **query: Any) -> AsyncIterator[LiveClient]:
    """A client that has heard hello, or was refused."""
    client = LiveClient()
    scope = {
        "type": "http", "method": "GET", "path": "/api/live", "raw_path": b"/api/live", "root_path": "",
        "query_string": urlencode(query, doseq=True).encode(), "scheme": "http", "http_version": "1.1",
        "headers": [(b"last-event-id", place.encode())] if place else [], "server": ("web", 80), "client": None,
    }  # fmt: skip
    answering = asyncio.create_task(create_api(views)(scope, client.receive, client.send))  # type: ignore[arg-type]
    try:
        await wait_until(lambda: client.heard or client.ended or answering.done())
        yield client
    finally:
        client.go()
        client.reads.set()
        await asyncio.wait_for(answering, 10)
