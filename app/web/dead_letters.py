"""Dead letters over HTTP: which there are, and what each is and was. It decides nothing about letters."""

import base64
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Path, Query, Request
from starlette.responses import Response

from app.dead_letters import Letters
from app.domain.causes import iso
from app.domain.dead_letters import LETTER_ID, Letter, LetterState
from app.domain.events import MAX_ID
from app.engine.records import Record
from app.web.answers import Answer, json_answer, says
from app.web.elsewhere import Elsewhere
from app.web.freshness import Freshness, fields
from app.web.letter_filter import LetterFilter, Order, Selection
from app.web.pages import LONGEST_CURSOR, PageAnswer, cursor_of, key_of, merged, page, page_answer
from app.web.problems import ProblemError
from app.web.query import given
from app.web.views import ReadTable
from bridge.dead_letters import is_json

PATH = "/api/dead-letters"


class LetterSummary(Answer, frozen=True, kw_only=True):
    """One dead letter in a list. place: partition-offset in `topic`, empty where it had not come so far."""

    id: str
    state: LetterState
    at: str
    reason: str
    error: str
    topic: str
    place: str
    subject: str
    key: str
    bytes: int
    excerpt: str
    replay_of: str | None
    came_back_as: str | None


class LetterAct(Answer, frozen=True, kw_only=True):
    """What was done with it: replayed, discarded, came back. by: who says so."""

    at: str
    what: str
    by: str
    detail: str


class LetterHeader(Answer, frozen=True, kw_only=True):
    """One header; what is not UTF-8 in it is replaced."""

    name: str
    value: str


class DeadLetter(LetterSummary, frozen=True, kw_only=True):
    """One dead letter with all there is. payload: where it is JSON; null with `gone` when its record was removed."""

    full_error: str
    headers: list[LetterHeader]
    payload: msgspec.Raw | None
    payload_base64: str | None
    gone: bool
    acts: list[LetterAct]


class LetterPage(PageAnswer, frozen=True, kw_only=True):
    """Dead letters by time. states and reasons count all pages together; reasons those of the wanted state only."""

    items: list[LetterSummary]
    states: dict[str, int]
    reasons: dict[str, int]


class LetterOutcome(Answer, frozen=True, kw_only=True):
    """accepted; still-unusable: it would be a dead letter again, and was left alone; gone: its record was removed."""

    id: str
    outcome: str
    detail: str


ANSWERS = (DeadLetter, LetterPage)


class ShownLetters:
    """The letters as they are shown."""

    def __init__(
        self,
        table: ReadTable[Letter],
        letters: Letters,
        elsewhere: Elsewhere,
        freshness: Callable[[str], Freshness],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.letters = letters
        self.clock = clock
        self._freshness = freshness
        self._table = table
        self._elsewhere = elsewhere

    async def page(self, request: Request, selection: Selection, listed: str = "") -> LetterPage:
        """A page of all workers' letters. `listed` is its URL, where the request is for something else."""

        async def local(partitions: set[int]) -> LetterPage:
            return await self._local(selection, partitions)

        pages, missing = await self._elsewhere.pages(request, self._table, LetterPage, local, listed)
        whole = merged(pages, missing, selection.limit, lambda letter: str(letter.id), backwards=selection.backwards)
        states, reasons = _added(page.states for page in pages), _added(page.reasons for page in pages)
        return msgspec.structs.replace(whole, states=states, reasons=reasons)

    async def _local(self, selection: Selection, partitions: set[int]) -> LetterPage:
        here = partitions & self._table.here()
        counts = selection.filter.counts(self._table.sums(here))
        # On a later page it is not known how many were on those before.
        most = counts.most if selection.after is None else None
        found = await page(self._table, here, wanted=selection.filter.wants, most=most, **selection.span())
        return LetterPage(
            items=[letter_summary(letter) for letter in found.rows],
            states=counts.states,
            reasons=counts.reasons,
            next_cursor=cursor_of(found.last),
            partial=here != partitions,
            missing_partitions=sorted(partitions - here),
            as_of=iso(self.clock()),
            **fields(self._freshness(self._table.name)),
        )

    def letter(self, identity: str) -> Letter:
        """The letter's row. Raises ProblemError, and PartitionElsewhere."""
        letter = self._table.get(identity) if LETTER_ID.fullmatch(identity) else None
        if letter is None:
            raise ProblemError("unknown-letter", f"There is no dead letter {identity}.")
        return letter

    async def answer(self, letter: Letter, status: int = 200) -> Response:
        """The letter with all there is."""
        record = await self.letters.record(letter.letter_id)
        return json_answer(_dead_letter(letter, record), status)


def letter_routes(shown: ShownLetters) -> APIRouter:
    """The endpoints under /api/dead-letters that read."""
    router = APIRouter(tags=["dead letters"], default_response_class=Response)

    @router.get(PATH, responses=says(LetterPage, 400, 422, 503))
    async def list_letters(
        request: Request,
        wanted: Annotated[LetterFilter, Depends(given(LetterFilter))],
        order: Order = Order.NEWEST,
        limit: Annotated[int, Query(ge=1, le=1000)] = 50,
        cursor: Annotated[str | None, Query(max_length=LONGEST_CURSOR)] = None,
    ) -> Response:
        """List dead letters, all of them or those of a filter, the newest first."""
        return page_answer(request, await shown.page(request, Selection(wanted, order, limit, key_of(cursor))))

    @router.get(PATH + "/{letterId}", responses=says(DeadLetter, 404, 503))
    async def get_letter(letter_id: Annotated[str, Path(alias="letterId", max_length=MAX_ID)]) -> Response:
        """Show one dead letter: its bytes, headers, place and reason, and what was done with it."""
        return await shown.answer(shown.letter(letter_id))

    return router


def letter_summary(letter: Letter) -> LetterSummary:
    """The letter as lists have it."""
    return LetterSummary(**_summary(letter))


def _added(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for each in counts:
        total.update(each)
    return dict(total)


def _summary(letter: Letter) -> dict[str, Any]:
    return {
        "id": letter.letter_id,
        "state": letter.state,
        "at": iso(letter.at),
        "reason": letter.reason,
        "error": letter.error,
        "topic": letter.topic,
        "place": letter.place,
        "subject": letter.subject,
        "key": letter.of,
        "bytes": letter.size,
        "excerpt": letter.excerpt,
        "replay_of": letter.former or None,
        "came_back_as": letter.latter or None,
    }


def _dead_letter(letter: Letter, record: Record | None) -> DeadLetter:
    headers = [LetterHeader(name=name, value=_text(value)) for name, value in record.headers] if record else []
    payload = record.value or b"" if record else b""
    return DeadLetter(
        **_summary(letter),
        full_error=next((header.value for header in headers if header.name == "a4co-error"), letter.error),
        headers=headers,
        payload=msgspec.Raw(payload) if record and is_json(payload) else None,
        payload_base64=base64.b64encode(payload).decode() if record else None,
        gone=record is None,
        acts=[LetterAct(at=iso(act.at), what=act.what, by=act.by, detail=act.detail) for act in letter.acts],
    )


def _text(value: bytes) -> str:
    return value.decode(errors="replace")
