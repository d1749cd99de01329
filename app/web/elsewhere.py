"""Asks other workers for what is not here: the answer for a key of theirs, or their part of a list.

Who they are, only the log says. A request from another worker names the partitions that it wants and is never passed
on: it hops once. Such a request has no more rights than any other, so nothing is gained by forging one.
"""

import asyncio
import re
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import Any
from urllib.parse import quote

import aiohttp
import msgspec
from starlette.requests import Request
from starlette.responses import Response
from yarl import URL

from app.engine.errors import PartitionElsewhere
from app.web.bodies import body_of
from app.web.freshness import waiting
from app.web.pages import AnyPage
from app.web.problems import NotReadyError, ProblemError, not_here, problem_answer
from app.web.views import ReadTable

WANTED = "a4co-partitions"
"""The header of a request from another worker: the partitions that it wants, by commas."""

PASSED_ON = frozenset(
    [
        "accept",
        "accept-language",
        "authorization",
        "content-type",
        "cookie",
        "if-modified-since",
        "if-none-match",
        "traceparent",
        "tracestate",
        "user-agent",
        "x-correlation-id",
        "x-request-id",
    ]
)
PASSED_BACK = frozenset(
    [
        "cache-control",
        "content-language",
        "content-type",
        "etag",
        "last-modified",
        "location",
        "retry-after",
        "vary",
        "www-authenticate",
    ]
)
"""Headers of the request that the other worker gets, and of its answer that the client gets."""

TIME = 2.0
"""Seconds that another worker has, beside what the client lets it wait for."""

IDLE = 3.0
"""Seconds that an unused connection is kept: uvicorn closes it after 5."""


class Elsewhere:
    """The other workers, as the tables' owners name them."""

    def __init__(self, tables: Iterable[ReadTable[Any]]) -> None:
        self._tables = {table.name: table for table in tables}
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    # ---- one key -----------------------------------------------------------------------------------------

    async def answer(self, request: Request, error: Exception) -> Response:
        """The answer of the worker that has the key's partition; 503 when none is known, or it doesn't answer.

        Asked a second time only where another look names another worker.
        """
        assert isinstance(error, PartitionElsewhere)  # noqa: S101 - registered for it
        reasons = {"partition": str(error)}
        if WANTED in request.headers:
            return not_here(request, error, reasons)
        try:
            body = await body_of(request)
        except ProblemError as problem:
            return await problem_answer(request, problem)
        owners = self._tables[error.table].owners
        asked, refused = None, None
        for again in (True, False):
            url = owners.url(error.partition)
            if url is not None and url != asked:
                asked, answer = url, await self._ask(url, request, [error.partition], body)
                if answer is None:
                    reasons["owner"] = f"{url} does not answer"
                elif answer.status_code != 503:
                    return answer
                refused = answer
            if again:
                await owners.look()
        return refused or not_here(request, error, reasons)

    async def get(self, request: Request, error: PartitionElsewhere, path: str) -> dict[str, Any] | None:
        """What the worker that has the key's partition answers to a GET of this path; None: it knows no such thing.

        Raises:
            NotReadyError: no worker answers for the partition.
        """
        owners = self._tables[error.table].owners
        for again in (True, False):
            url = owners.url(error.partition)
            answer = await self._ask(url, request, [error.partition], listed=quote(path)) if url else None
            if answer is not None and answer.status_code == 404:
                return None
            if answer is not None and answer.status_code == 200:
                return dict(msgspec.json.decode(answer.body))
            if again:
                await owners.look()
        raise NotReadyError({"partition": str(error)})

    # ---- a list ------------------------------------------------------------------------------------------

    async def pages(
        self,
        request: Request,
        table: ReadTable[Any],
        kind: type[AnyPage],
        local: Callable[[set[int]], Awaitable[AnyPage]],
        listed: str = "",
    ) -> tuple[list[AnyPage], list[int]]:
        """Pages that have every partition once, and the partitions that could not be asked.

        `local` gives the page of those of the given partitions that are here. `listed` is the list's own URL (path and
        query), where the request itself is another one.

        Raises:
            NotReadyError: none could be asked.
        """
        wanted = _wanted(request)
        everything = set(range(table.total)) if wanted is None else wanted
        missing, silent = everything, set[str]()
        pages: list[AnyPage] = []
        for again in (True, False):
            here = missing & table.here()
            asked = {"": here} if here else {}
            if wanted is None:
                asked |= _by_owner(table, missing - here, silent)
            found = await asyncio.gather(
                *(self._page(url, request, kind, of, listed) if url else local(of) for url, of in asked.items())
            )
            for (url, of), page in zip(asked.items(), found, strict=True):
                if page is None:
                    silent.add(url)
                else:
                    pages.append(page)
                    missing = missing - (of - set(page.missing_partitions))
            if not missing or wanted is not None:
                break
            if again:
                await table.owners.look()
        if missing == everything:
            raise NotReadyError({"partitions": f"{sorted(missing)} of {table.name} are not ready on any worker"})
        return pages, sorted(missing)

    async def _page(
        self, url: str, request: Request, kind: type[AnyPage], partitions: Collection[int], listed: str
    ) -> AnyPage | None:
        answer = await self._ask(url, request, partitions, listed=listed, whole=True)
        if answer is None or answer.status_code != 200:
            return None
        try:
            return msgspec.json.decode(answer.body, type=kind)
        except msgspec.DecodeError:  # of another version of this application
            return None

    # ---- asking ------------------------------------------------------------------------------------------

    async def _ask(
        self,
        url: str,
        request: Request,
        partitions: Collection[int],
        body: bytes = b"",
        listed: str = "",
        *,
        whole: bool = False,
    ) -> Response | None:
        """What the worker answers to this request (or to a GET of `listed`); None: it doesn't.

        `whole`: also where the client has this already, for it may have to be put together with others.
        """
        headers = {name: value for name, value in request.headers.items() if name in PASSED_ON}
        if whole:
            headers.pop("if-none-match", None)
        headers[WANTED] = ",".join(map(str, sorted(partitions)))
        try:
            path, _, query = listed.partition("?")
            target = URL.build(
                scheme=URL(url).scheme,
                authority=URL(url).raw_authority,
                path=path or request.scope["raw_path"].decode("ascii"),
                query_string=query or request.scope["query_string"].decode("ascii"),
                encoded=True,
            )
            async with self._client.request(
                "GET" if listed else request.method,
                target,
                headers=headers,
                data=body or None,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=TIME + waiting(request), connect=1.0),
            ) as answer:
                kept = {name: value for name, value in answer.headers.items() if name.lower() in PASSED_BACK}
                return Response(await answer.read(), answer.status, kept)
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return None

    @property
    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(keepalive_timeout=IDLE),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session


def _wanted(request: Request) -> set[int] | None:
    """The partitions that another worker asks for; None: a client asks for all of them."""
    given = request.headers.get(WANTED)
    if given is None:
        return None
    if not re.fullmatch(r"\d{1,5}(,\d{1,5})*", given):
        raise ProblemError("invalid-request", f"{WANTED} must be numbers of partitions by commas.")
    return {int(number) for number in given.split(",")}


def _by_owner(table: ReadTable[Any], partitions: Iterable[int], silent: Collection[str]) -> dict[str, set[int]]:
    """The partitions whose owners are known and not silent, by the owners' URLs."""
    found: defaultdict[str, set[int]] = defaultdict(set)
    for partition in partitions:
        url = table.owners.url(partition)
        if url is not None and url not in silent:
            found[url].add(partition)
    return dict(found)
