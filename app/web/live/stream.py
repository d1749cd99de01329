"""What one client of the live feed gets: hello, what changed since it was there, and then what changes."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from app.domain.causes import iso
from app.engine.cancelling import end, set_within
from app.engine.records import TopicPartition
from app.web.live.events import Dropped, Hello, LiveEvent, Restart, said
from app.web.live.feed import BATCH, WAIT, Listener, LiveFeed, Mark, events_of
from app.web.live.places import Places

HEARTBEAT = 15.0
"""Seconds without an event after which a comment is sent, so that proxies keep the connection."""

CATCHES_UP = 60.0
"""Seconds in which a client is to take what it has missed."""

HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}  # the second is nginx's

Say = Callable[[bytes], Awaitable[None]]


class LiveStream(Response):
    """The answer: it goes on until the client goes, is dropped, or the feed ends. `word`: where the client has been."""

    media_type = "text/event-stream"

    def __init__(self, feed: LiveFeed, wants: Callable[[LiveEvent], bool], word: str | None) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers(HEADERS)
        self._feed = feed
        self._wants = wants
        self._word = word

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it. Raises ProblemError before anything is sent."""
        del scope
        listener = await self._feed.join(self._word)
        works = [asyncio.ensure_future(work) for work in (self._answer(listener, send), _gone(receive))]
        try:
            await asyncio.wait(works, return_when=asyncio.FIRST_COMPLETED)
            if works[0].done():
                works[0].result()
        finally:
            self._feed.leave(listener)
            await end(works)

    async def _answer(self, listener: Listener, send: Send) -> None:
        async def say(text: bytes) -> None:
            if text:
                await send(_part(text))

        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await self._begin(listener, say)
        await self._go_on(listener, say)
        await send(_part(b"", more=False))

    async def _begin(self, listener: Listener, say: Say) -> None:
        hello = Hello(as_of=iso(self._feed.clock()), resumed=listener.was)
        await say(b"retry: 1000\n" + said("hello", hello, listener.place.line()))
        if listener.restart:
            await say(said("restart", Restart(reason=listener.restart)))
        if listener.was:
            async with self._feed.turns:
                try:
                    async with asyncio.timeout(CATCHES_UP):
                        await self._catch_up(listener, say)
                except TimeoutError:
                    self._feed.drop(listener)

    async def _catch_up(self, listener: Listener, say: Say) -> None:
        """What changed from the client's place on, until it is where the feed is."""
        feed, place = self._feed, listener.place
        while not feed.closing:
            mark = feed.mark()
            listener.cursor = mark.number
            behind = {at: offset for at, offset in place.positions().items() if offset < mark.positions[at]}
            if behind:
                await self._read(behind, mark, place, say)
            if feed.has(listener.cursor):
                listener.was = False
                return

    async def _read(self, behind: Mapping[TopicPartition, int], mark: Mark, place: Places, say: Say) -> None:
        """From the places that are behind to the mark."""
        onlooker = self._feed.onlooker()
        try:
            await onlooker.begin(behind)
            while not self._feed.closing and any(onlooker.positions[at] < mark.positions[at] for at in behind):
                records = [
                    record
                    for record in await onlooker.take(BATCH, WAIT)
                    if record.offset < mark.positions[TopicPartition(record.topic, record.partition)]
                ]
                events = [event.text for event in events_of(records, place) if self._wants(event)]
                self._feed.metrics.live_sent(len(events))
                await say(b"".join(events))
                await asyncio.sleep(0)  # others have their turn, also when nothing is waited for
        finally:
            await onlooker.close()
        place.move_all({at: mark.positions[at] for at in behind})

    async def _go_on(self, listener: Listener, say: Say) -> None:
        feed, told = self._feed, time.monotonic()
        while not feed.closing and not listener.dropped:
            changed = feed.changed
            text = feed.next_of(listener, self._wants)
            if text:
                await say(text)
                await asyncio.sleep(0)
                told = time.monotonic()
            elif not feed.has_more(listener):
                await set_within(changed, told + HEARTBEAT - time.monotonic())
                if time.monotonic() >= told + HEARTBEAT:
                    await say(feed.heartbeat(listener))
                    told = time.monotonic()
        if listener.dropped:
            await say(said("dropped", Dropped(reason="it did not read", behind=feed.behind(listener))))


async def _gone(receive: Receive) -> None:
    """Return when the client is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _part(body: bytes, *, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more}
