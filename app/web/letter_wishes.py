"""The wish that dead letters are replayed or discarded, over HTTP.

A wish becomes a command in the log, and the letter's row says what came of it: whoever repeats one changes nothing.
"""

import asyncio
import contextlib
import hashlib
import time
from typing import Annotated, Any, TypeVar

import msgspec
from fastapi import APIRouter, Depends, Path, Query, Request
from starlette.responses import Response

from app.dead_letters import GONE, STILL_UNUSABLE, Outcome
from app.domain.causes import iso
from app.domain.dead_letters import LETTER_ID, Letter, LetterState
from app.domain.events import MAX_ID
from app.engine.errors import PartitionElsewhere
from app.web.answers import SCHEMAS, Answer, accepts, json_answer
from app.web.bodies import json_body_of
from app.web.dead_letters import PATH, DeadLetter, LetterPage, ShownLetters
from app.web.letter_filter import LetterFilter, Order, Selection
from app.web.pages import LONGEST_CURSOR, PageAnswer, key_of
from app.web.problems import Fault, ProblemError
from app.web.query import given

AWAITED = 1.2
"""Seconds that an answer waits for the row to tell what came of a wish; another worker that asks us waits 2."""

MOST = 500
"""Letters that one wish may name."""

SOMEBODY = "http"
"""Who wants it, when nobody says."""

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
Reason = Annotated[str, msgspec.Meta(min_length=1, max_length=500)]
Named = Annotated[list[Annotated[str, msgspec.Meta(pattern=f"^{LETTER_ID.pattern}$")]], msgspec.Meta(max_length=MOST)]


class Body(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """by: who wants it, for the letter's history; nobody checks it."""

    by: Name = SOMEBODY


class ReplayOne(Body, frozen=True, kw_only=True):
    """Replay one letter; `payload` (any JSON) goes in the place of its own, byte by byte as it stands here."""

    payload: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class DiscardOne(Body, frozen=True, kw_only=True):
    """Discard one letter; the reason is kept with it."""

    reason: Reason


class ReplaySome(Body, frozen=True, kw_only=True):
    """Replay these letters; without any, those of the filter in the query."""

    letters: Named = []


class DiscardSome(Body, frozen=True, kw_only=True):
    """Discard these letters; without any, those of the filter in the query."""

    reason: Reason
    letters: Named = []


class LetterOutcome(Answer, frozen=True, kw_only=True):
    """accepted; still-unusable: it would be a dead letter again, and was left alone; gone: its record was removed."""

    id: str
    outcome: str
    detail: str


class LettersDone(PageAnswer, frozen=True, kw_only=True):
    """What came of a wish about many, oldest first. nextCursor: where to go on; dryRun: nothing was done."""

    items: list[LetterOutcome]
    dry_run: bool


ANSWERS = (LettersDone, ReplayOne, ReplaySome, DiscardOne, DiscardSome)

AnyBody = TypeVar("AnyBody", bound=Body)
Identity = Annotated[str, Path(alias="letterId", max_length=MAX_ID)]
Limit = Annotated[int, Query(ge=1, le=MOST)]
Cursor = Annotated[str | None, Query(max_length=LONGEST_CURSOR)]
DryRun = Annotated[bool, Query(alias="dryRun")]


def wish_routes(shown: ShownLetters) -> APIRouter:
    """The endpoints under /api/dead-letters that change something. Those about many are the first to be looked at."""
    router = APIRouter(tags=["dead letters"], default_response_class=Response)
    _about_many(router, shown)
    _about_one(router, shown)
    return router


def _about_many(router: APIRouter, shown: ShownLetters) -> None:
    problems = (400, 413, 415, 422, 503)

    @router.post(PATH + "/replay", responses=accepts(LettersDone, *problems), openapi_extra=_body(ReplaySome))
    async def replay_letters(
        request: Request,
        wanted: Annotated[LetterFilter, Depends(given(LetterFilter))],
        limit: Limit = 100,
        cursor: Cursor = None,
        dry_run: DryRun = False,
    ) -> Response:
        """Replay the open letters that are named, or those of a filter, oldest first; each goes again once."""
        wish = await _wished(request, ReplaySome)
        page = await _filtered(request, shown, wish.letters, Selection(wanted, Order.OLDEST, limit, key_of(cursor)))
        outcomes = await shown.letters.replay(_named(page, wish.letters), wish.by, dry_run=dry_run)
        return _done(page, outcomes, iso(shown.clock()), dry_run=dry_run)

    @router.post(PATH + "/discard", responses=accepts(LettersDone, *problems), openapi_extra=_body(DiscardSome))
    async def discard_letters(
        request: Request,
        wanted: Annotated[LetterFilter, Depends(given(LetterFilter))],
        limit: Limit = 100,
        cursor: Cursor = None,
        dry_run: DryRun = False,
    ) -> Response:
        """Discard the open letters that are named, or those of a filter, oldest first."""
        wish = await _wished(request, DiscardSome)
        page = await _filtered(request, shown, wish.letters, Selection(wanted, Order.OLDEST, limit, key_of(cursor)))
        outcomes = await shown.letters.discard(_named(page, wish.letters), wish.by, wish.reason, dry_run=dry_run)
        return _done(page, outcomes, iso(shown.clock()), dry_run=dry_run)


async def _filtered(request: Request, shown: ShownLetters, named: list[str], selection: Selection) -> LetterPage | None:
    """The open letters of the filter; None where letters are named."""
    if named:
        return None
    selection.filter.only_open()
    return await shown.page(request, selection, f"{PATH}?{request.url.query}&state=open&order=oldest")


def _named(page: LetterPage | None, named: list[str]) -> list[str]:
    return named if page is None else [letter.id for letter in page.items]


def _done(page: LetterPage | None, outcomes: list[Outcome], as_of: str, *, dry_run: bool) -> Response:
    body = LettersDone(
        items=[LetterOutcome(id=one.letter, outcome=one.outcome, detail=one.detail) for one in outcomes],
        next_cursor=page.next_cursor if page else None,
        partial=page is not None and page.partial,
        missing_partitions=page.missing_partitions if page else [],
        as_of=as_of,
        dry_run=dry_run,
    )
    return json_answer(body, 200 if dry_run else 202)


def _about_one(router: APIRouter, shown: ShownLetters) -> None:
    problems = (404, 409, 413, 415, 422, 503)

    @router.post(
        PATH + "/{letterId}/replay", responses=accepts(DeadLetter, 410, *problems), openapi_extra=_body(ReplayOne)
    )
    async def replay_letter(request: Request, letter_id: Identity) -> Response:
        """Replay one letter, once: again is 200 as well. With `payload`, that goes in the place of its own."""
        letter = shown.letter(letter_id)
        wish = await _wished(request, ReplayOne)
        payload = bytes(wish.payload) if wish.payload else None
        edited = "" if payload is None else f"edited: {len(payload)} bytes, sha256 {_digest(payload)}"
        if letter.state is LetterState.OPEN:
            [outcome] = await shown.letters.replay([letter_id], wish.by, payload=payload, edited=edited)
            _refused(outcome)
            letter = await _decided(shown, letter_id)
        return await _told(shown, letter, LetterState.REPLAYED, edited)

    @router.post(
        PATH + "/{letterId}/discard", responses=accepts(DeadLetter, *problems), openapi_extra=_body(DiscardOne)
    )
    async def discard_letter(request: Request, letter_id: Identity) -> Response:
        """Discard one letter, with the reason why it is not needed."""
        letter = shown.letter(letter_id)
        wish = await _wished(request, DiscardOne)
        if letter.state is LetterState.OPEN:
            await shown.letters.discard([letter_id], wish.by, wish.reason)
            letter = await _decided(shown, letter_id)
        return await _told(shown, letter, LetterState.DISCARDED)


def _refused(outcome: Outcome) -> None:
    if outcome.outcome == STILL_UNUSABLE:
        raise ProblemError("still-unusable", outcome.detail)
    if outcome.outcome == GONE:
        raise ProblemError("letter-gone", f"The record of {outcome.letter} is not in the topic any more.")


async def _decided(shown: ShownLetters, identity: str) -> Letter:
    """The letter, when something came of a wish about it, or when that takes long or another worker has it by now."""
    deadline = time.monotonic() + AWAITED
    letter = shown.letter(identity)
    with contextlib.suppress(PartitionElsewhere):
        while letter.state is LetterState.OPEN and time.monotonic() < deadline:
            await asyncio.sleep(0.01)  # a row tells nobody that it changes
            letter = shown.letter(identity)
    return letter


async def _told(shown: ShownLetters, letter: Letter, wanted: LetterState, edited: str = "") -> Response:
    """200: it is as it was wanted; 202: it will be. ProblemError: it was decided otherwise before."""
    if letter.state is LetterState.OPEN:
        return await shown.answer(letter, 202)
    if letter.state is not wanted or (edited and all(act.detail != edited for act in letter.acts)):
        by = next((act.by for act in letter.acts), "")
        raise ProblemError("letter-closed", f"{letter.letter_id} was {letter.state.value} by {by}.")
    return await shown.answer(letter)


def _digest(payload: bytes) -> str:
    return hashlib.sha256(payload).hexdigest()[:16]


def _body(kind: type[Body]) -> dict[str, Any]:
    """The OpenAPI description of a body."""
    schema = {"$ref": SCHEMAS.format(name=kind.__name__)}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


async def _wished(request: Request, kind: type[AnyBody]) -> AnyBody:
    """What the body says. ProblemError: it is not JSON, too long, or not of this kind."""
    body = await json_body_of(request)
    try:
        return msgspec.json.decode(body or b"{}", type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProblemError("invalid-wish", "The body can't be used.", [Fault(cause=str(error))]) from None
