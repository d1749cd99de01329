"""The W3C trace context of a message: which one that came is valid, and which one begins where none came.

It decides whose trace a message belongs to. What is passed on keeps its traceparent as it is, unless spans of ours are
reported (`followed`): a parent that nobody reports would tear the tree. In a record it stands before other headers.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from hashlib import blake2b

Headers = tuple[tuple[str, bytes], ...]

TRACEPARENT, TRACESTATE = "traceparent", "tracestate"
_PARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_MEMBER = re.compile(r"[a-z0-9][a-z0-9_\-*/@]{0,255}=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{1,256}")
LONGEST_STATE, MOST_MEMBERS = 512, 32
"""Characters of a tracestate that are passed on, and its members at most (W3C Trace Context, 3.3)."""


def continued(came: Mapping[str, str] | None) -> Headers:
    """The trace that came in a message's headers; nothing where there is none, or one that is not valid.

    The names count in any case. A version after 00 is read as far as 00 goes. A wrong tracestate is left out.
    """
    if not came:
        return ()
    by_name = {name.lower(): value for name, value in came.items()}
    parent, state = by_name.get(TRACEPARENT, ""), by_name.get(TRACESTATE)
    found = _PARENT.match(parent)
    rest = parent[found.end() :] if found else ""
    if not found or (rest and (parent.startswith("00") or rest[0] != "-")):
        return ()
    kept = ((TRACEPARENT, found[0].encode() if not rest else b"00" + found[0][2:].encode()),)
    return (*kept, (TRACESTATE, state.encode())) if state and _is_state(state) else kept


def _is_state(state: str) -> bool:
    members = [member.strip(" \t") for member in state.split(",")]
    return (
        len(state) <= LONGEST_STATE
        and len(members) <= MOST_MEMBERS
        and all(not member or _MEMBER.fullmatch(member) for member in members)
    )


def begun_once(cause: str) -> Headers:
    """The trace of what came without one: always the same for the same cause, so that all that is said of an order
    where nobody traces is one trace. Its span is the first half of its id, by which it is known again.
    """
    trace = _NO_TRACE.copy()  # a new one takes twice as long
    trace.update(cause.encode(errors="surrogatepass"))
    trace_id = trace.hexdigest()
    return ((TRACEPARENT, f"00-{trace_id}-{trace_id[:16]}-01".encode()),)


_NO_TRACE = blake2b(digest_size=16, person=b"a4co-trace")
begun = lru_cache(maxsize=4096)(begun_once)
"""The same, for causes that come again."""


def carried(headers: Headers) -> Headers:
    """The trace at the head of a record's headers: what its outputs carry on."""
    if not headers or headers[0][0] != TRACEPARENT:
        return ()
    return headers[:2] if len(headers) > 1 and headers[1][0] == TRACESTATE else headers[:1]


def followed(headers: Headers, span: str) -> Headers:
    """The same trace for what follows from a span of ours: 16 hexadecimal digits."""
    [(name, parent), *state] = headers
    return ((name, parent[:36] + span.encode() + parent[52:]), *state)


def is_sampled(headers: Headers) -> bool:
    """Whether whoever began the trace wants its spans."""
    own = carried(headers)
    return bool(own) and int(own[0][1][53:55], 16) & 1 == 1


def span_id(headers: Headers) -> str:
    """The span that the headers name as their parent."""
    own = carried(headers)
    return own[0][1][36:52].decode(errors="replace") if own else ""


def began_here(headers: Headers) -> bool:
    """Whether nobody had begun the trace before us, and nothing of ours is its parent yet."""
    own = carried(headers)
    return bool(own) and _began_here(own[0][1])


def _began_here(parent: bytes) -> bool:
    return parent[3:19] == parent[36:52]


def given(headers: Headers) -> str:
    """The traceparent among a record's headers; "" where there is none, or one that we began."""
    own = carried(headers)
    return "" if not own or _began_here(own[0][1]) else own[0][1].decode()


def of_order(headers: Headers, order_id: str, known: str) -> Headers:
    """What the outputs of a record about an order carry on: its own trace, where somebody else began that; else the
    order's: the traceparent that its order.created came with (`known`), or the one that begins with its id.
    """
    own = carried(headers)
    if own and not _began_here(own[0][1]):
        return own
    return ((TRACEPARENT, known.encode()),) if known else own or begun(order_id)


def trace_id(headers: Headers) -> str:
    """The trace's id among a record's headers: 32 hexadecimal digits, "" where there is none."""
    own = carried(headers)
    return own[0][1][3:35].decode(errors="replace") if own else ""
