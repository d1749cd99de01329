"""How commands speak to the running worker: HTTP on its WEB_HOST and WEB_PORT. Decides nothing but where it is."""

import contextlib
import http.client
import json
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit

from app.settings import Settings

ANSWERS = 30.0
"""Seconds that the running worker has for an answer."""


class Told(NamedTuple):
    """An answer: its status, and what its JSON says."""

    status: int
    body: Any

    @property
    def cause(self) -> str:
        """What a problem says, or the answer as it is."""
        try:
            return f"{self.body['title']}: {self.body['detail']}"
        except (TypeError, KeyError):
            return str(self.body)


class NoWorker(Exception):
    """Nobody answers there."""


class WorkerClient:
    """Asks one worker, over one connection as long as it lasts."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        parts = urlsplit(self.url)
        secure = parts.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        self._connection = kind(parts.hostname or "", parts.port, timeout=ANSWERS)

    @classmethod
    def of(cls, settings: Settings) -> "WorkerClient":
        """The worker that these settings are for."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.web_host, settings.web_host)  # noqa: S104 - read, not bound
        return cls(f"http://{f'[{host}]' if ':' in host else host}:{settings.web_port}")

    def ask(self, method: str, path: str, query: Mapping[str, str] | None = None, body: bytes | None = None) -> Told:
        """One request. Raises NoWorker."""
        target = f"{path}?{urlencode(query)}" if query else path
        headers = {} if body is None else {"Content-Type": "application/json"}
        try:
            self._connection.request(method, target, body, headers)
            response = self._connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise NoWorker(f"no worker answers at {self.url}{path} ({error})") from None
        return told(response.status, answer)

    def close(self) -> None:
        """Close the connection."""
        with contextlib.suppress(OSError):
            self._connection.close()


def told(status: int, answer: bytes) -> Told:
    """The answer, read."""
    text = answer.decode(errors="replace").strip()
    try:
        return Told(status, json.loads(text))
    except ValueError:
        return Told(status, text)
