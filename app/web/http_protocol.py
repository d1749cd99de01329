"""HTTP on one connection, as uvicorn speaks it; who takes nothing of an answer for long is cut off."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

STALLED = 30.0
"""Seconds in which a client has to take what waits for it here, which is some 64 KiB at most."""


class HttpProtocol(HttpToolsProtocol):
    """Of one connection."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._cut: asyncio.TimerHandle | None = None

    def pause_writing(self) -> None:
        """More waits here than should."""
        super().pause_writing()
        if self._cut is None:
            self._cut = self.loop.call_later(STALLED, self.transport.abort)

    def resume_writing(self) -> None:
        """The client has taken most of it."""
        super().resume_writing()
        self._stay()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        self._stay()
        super().connection_lost(exc)

    def _stay(self) -> None:
        if self._cut is not None:
            self._cut.cancel()
            self._cut = None
