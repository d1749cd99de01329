"""Works off wishes about many dead letters: looks at them first, then in small steps, at a pace, and with progress.

Each step may be said again: a letter is replayed or discarded once, so after a break only the others are left.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self, TypeVar
from urllib.parse import quote

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from app import logs
from app.commands.worker_client import NoWorker, Told, WorkerClient
from app.engine.errors import EngineError
from app.settings import Settings

PATH = "/api/dead-letters"
STEP = 200
"""Letters of one request, at most."""

LOOKED_AT = 500
"""Letters that are looked at in one request."""

COMES_BACK = 30.0
"""Seconds that a worker may be away in the midst of the work."""

EVERY = 3.0
"""Seconds between two lines of progress, where no bar can be shown."""

Item = TypeVar("Item")


class Refused(Exception):
    """It was not done, and why."""


class Asks(Protocol):
    """A worker, or what answers in its place."""

    url: str

    def ask(
        self, method: str, path: str, query: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> Told: ...
    def close(self) -> None: ...


def open_office(settings: Settings, url: str | None) -> Office:
    """Whoever answers for dead letters: the worker; on an embedded log without one, this process.

    Raises:
        click.ClickException: nobody can.
    """
    worker = WorkerClient(url) if url else WorkerClient.of(settings)
    try:
        worker.ask("GET", PATH, {"limit": "1"})
        return Office(worker)
    except NoWorker as error:
        if url or settings.kafka:
            raise click.ClickException(f"{error}: start `a4co worker` first, or say --url") from None
        try:
            return Office(_alone(settings))
        except EngineError as failure:
            raise click.ClickException(f"{error}, and {failure}") from None


def _alone(settings: Settings) -> Asks:
    from app.commands.dead_letters_alone import LettersAlone  # noqa: PLC0415 - the engine is loaded only where it is needed

    logs.only_warnings()
    return LettersAlone(settings).open()


class Office:
    """What can be asked about dead letters, and be done with them."""

    def __init__(self, asks: Asks) -> None:
        self._asks = asks

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._asks.close()

    def page(self, query: Mapping[str, str]) -> dict[str, Any]:
        """A page of the list."""
        return self._good(self._ask("GET", PATH, query))

    def filled(self, query: Mapping[str, str]) -> dict[str, Any]:
        """A page as long as it was asked for: a worker looks at a bounded number of rows for one answer."""
        page = self.page(query)
        while page["nextCursor"] is not None and len(page["items"]) < int(query["limit"]):
            left = int(query["limit"]) - len(page["items"])
            more = self.page({**query, "limit": str(left), "cursor": page["nextCursor"]})
            page = more | {"items": page["items"] + more["items"], "partial": page["partial"] or more["partial"]}
        return page

    def letter(self, letter: str) -> dict[str, Any]:
        """One letter with everything."""
        return self._good(self._ask("GET", _path(letter)))

    def replay(self, letter: str, by: str, payload: bytes | None) -> str:
        """Replay one. Returns what came of it. Raises Refused."""
        body = json.dumps({"by": by}).encode()
        if payload is not None:
            try:
                json.loads(payload)
            except (ValueError, RecursionError) as error:
                raise click.ClickException(f"what is to be sent instead is not JSON: {error}") from None
            body = body[:-1] + b',"payload":' + payload.strip() + b"}"
        return self._decided(self._ask("POST", _path(letter) + "/replay", body=body))

    def discard(self, letter: str, by: str, reason: str) -> str:
        """Discard one. Returns what came of it. Raises Refused."""
        body = json.dumps({"by": by, "reason": reason}).encode()
        return self._decided(self._ask("POST", _path(letter) + "/discard", body=body))

    def some(self, act: str, body: Mapping[str, Any], query: Mapping[str, str] | None = None) -> dict[str, Any]:
        """One step of a wish about many."""
        return self._good(self._ask("POST", f"{PATH}/{act}", query, json.dumps(body).encode()))

    def _decided(self, answer: Told) -> str:
        if answer.status >= 400:
            raise Refused(answer.cause)
        return str(answer.body["state"]) if answer.status == 200 else "accepted, and not done yet"

    def _good(self, answer: Told) -> dict[str, Any]:
        if answer.status >= 300:
            raise click.ClickException(f"{self._asks.url} answered {answer.status}: {answer.cause}")
        return dict(answer.body)

    def _ask(self, method: str, path: str, query: Mapping[str, str] | None = None, body: bytes | None = None) -> Told:
        """Ask, and ask again while the worker is away or not ready: nothing of this has an effect twice."""
        deadline = time.monotonic() + COMES_BACK
        pause = 0.1
        while True:
            try:
                answer = self._asks.ask(method, path, query, body)
                if answer.status != 503 or time.monotonic() > deadline:
                    return answer
            except NoWorker as error:
                if time.monotonic() > deadline:
                    raise click.ClickException(str(error)) from None
            except EngineError as error:
                raise click.ClickException(str(error)) from None
            time.sleep(pause)
            pause = min(2 * pause, 2.0)


def _path(letter: str) -> str:
    return f"{PATH}/{quote(letter, safe='')}"


class Plan(NamedTuple):
    """Which letters it is about, oldest first; how many would fail again, by reason; and one of each of these.

    `missing`: partitions that no worker answered for.
    """

    letters: list[str]
    unusable: Counter[str]
    examples: dict[str, str]
    missing: set[int]


class Work:
    """One act ("replay" or "discard") on many letters."""

    def __init__(self, office: Office, act: str, body: Mapping[str, Any], rate: float | None) -> None:
        self._office = office
        self._act = act
        self._body = dict(body)
        self._rate = rate
        self.done = 0
        self.refused = 0
        self._total = 0
        self._began = time.monotonic()

    def planned(self, wanted: Mapping[str, str]) -> Plan:
        """What would come of it."""
        plan = Plan([], Counter(), {}, set())
        query = {**wanted, "dryRun": "true", "limit": str(LOOKED_AT)}
        reasons = self._office.page({**wanted, "state": "open", "limit": "1"})["reasons"]
        total = sum(number for reason, number in reasons.items() if wanted.get("reason", reason) == reason)
        with shown_progress("looking at", total) as told:
            looked = 0
            while True:
                answer = self._office.some(self._act, self._body, query)
                for item in answer["items"]:
                    if item["outcome"] == "accepted":
                        plan.letters.append(item["id"])
                        continue
                    reason = item["detail"].partition(":")[0] or item["outcome"]
                    plan.unusable[reason] += 1
                    plan.examples.setdefault(reason, item["id"])
                plan.missing.update(answer["missingPartitions"])
                looked += len(answer["items"])
                told(looked)
                if answer["nextCursor"] is None:
                    return plan
                query["cursor"] = answer["nextCursor"]

    def run(self, plan: Plan) -> None:
        """Do it."""
        self._began, self._total = time.monotonic(), len(plan.letters)
        step = STEP if self._rate is None else max(1, min(STEP, int(self._rate)))
        steps = [plan.letters[start : start + step] for start in range(0, len(plan.letters), step)]
        with shown_progress(f"{self._act}ing", self._total) as told:
            for letters in paced(steps, self._rate and self._rate / step):
                answer = self._office.some(self._act, self._body | {"letters": letters})
                good = sum(item["outcome"] == "accepted" for item in answer["items"])
                self.done += good
                self.refused += len(letters) - good
                told(self.done + self.refused)
        self._settle(plan.letters[-1:])

    def _settle(self, last: Iterable[str]) -> None:
        """Return when the last letter's row tells of it."""
        deadline = time.monotonic() + 10
        for letter in last:
            while self._office.letter(letter)["state"] == "open" and time.monotonic() < deadline:
                time.sleep(0.05)

    @property
    def line(self) -> str:
        """What was done, in words."""
        seconds = time.monotonic() - self._began
        refused = f", {self.refused:,} could not be" if self.refused else ""
        verb = {"replay": "replayed", "discard": "discarded"}[self._act]
        return f"{self.done:,} of {self._total:,} letters {verb}{refused}, in {seconds:.1f} s"


def paced(items: Iterable[Item], rate: float | None) -> Iterator[Item]:
    """The items, at most so many a second."""
    due = time.monotonic()
    for item in items:
        if rate:
            time.sleep(max(0.0, due - time.monotonic()))
            due = max(due, time.monotonic() - 1 / rate) + 1 / rate
        yield item


class shown_progress:  # noqa: N801 - used as a function
    """Tells how far something is: by a bar on a terminal, by a line now and then elsewhere (stderr both)."""

    def __init__(self, what: str, total: int) -> None:
        self._what = what
        self._total = total
        self._began = self._said = time.monotonic()
        self._bar: Progress | None = None

    def __enter__(self) -> Callable[[int], None]:
        if not sys.stderr.isatty():
            return self._line
        columns = (TextColumn(self._what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = bar = Progress(*columns, console=Console(stderr=True), transient=True)
        task = bar.add_task(self._what, total=self._total)
        bar.start()
        return lambda done: bar.update(task, completed=done)

    def _line(self, done: int) -> None:
        now = time.monotonic()
        if now - self._said >= EVERY:
            self._said = now
            rate = done / (now - self._began)
            left = f", {(self._total - done) / rate:.0f} s left" if rate else ""
            click.echo(f"{self._what} {done:,} of {self._total:,}, {rate:,.0f}/s{left}", err=True)

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
