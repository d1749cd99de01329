"""Which W3C trace context is kept, and which begins where none came. Cases from the recommendation's own test suite."""

import pytest

from app.domain import traces

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
LATER = "00-11111111111111111111111111111111-2222222222222222-00"


def as_headers(parent: str, state: str = "") -> traces.Headers:
    own = (("traceparent", parent.encode()),)
    return (*own, ("tracestate", state.encode())) if state else own


@pytest.mark.parametrize("name", ["traceparent", "Traceparent", "TraceParent", "TRACEPARENT"])
def test_a_valid_trace_is_kept_whatever_the_case_of_its_name(name: str) -> None:
    assert traces.continued({name: PARENT, "Tracestate": "vendor=1"}) == as_headers(PARENT, "vendor=1")


@pytest.mark.parametrize(
    "parent",
    [
        "",
        "00-1",
        PARENT.upper(),
        PARENT + "-",
        PARENT + "-more",
        " " + PARENT,
        PARENT.replace("00-", "ff-", 1),
        PARENT.replace("00-", "0-", 1),
        PARENT.replace("0af7651916cd43dd8448eb211c80319c", 32 * "0"),
        PARENT.replace("b7ad6b7169203331", 16 * "0"),
        PARENT.replace("b7ad", "zzzz"),
        PARENT[:-1],
        "01" + PARENT[2:] + "x",
        PARENT + "," + PARENT,
        "\u0660" * 2 + PARENT[2:],
    ],
)
def test_an_invalid_trace_is_none_and_its_state_goes_with_it(parent: str) -> None:
    assert traces.continued({"traceparent": parent, "tracestate": "vendor=1"}) == ()


def test_a_later_version_is_read_as_far_as_the_first_goes() -> None:
    assert traces.continued({"traceparent": "cc" + PARENT[2:] + "-what-comes"}) == as_headers(PARENT)
    assert traces.continued({"traceparent": "cc" + PARENT[2:]}) == as_headers("cc" + PARENT[2:])


@pytest.mark.parametrize(
    ("state", "kept"),
    [
        ("a=1", True),
        ("tenant@vendor=1, b=2 ,,c=3", True),
        (",".join(f"k{number}=1" for number in range(32)), True),
        (",".join(f"k{number}=1" for number in range(33)), False),
        ("a=" + 256 * "v", True),
        ("a=" + 257 * "v", False),
        (256 * "k" + "=" + 256 * "v", False),
        ("A=1", False),
        ("a", False),
        ("a=\u00f1", False),
        ("", False),
    ],
)
def test_a_wrong_tracestate_is_left_out(state: str, *, kept: bool) -> None:
    expected = as_headers(PARENT, state) if kept else as_headers(PARENT)
    assert traces.continued({"traceparent": PARENT, "tracestate": state}) == expected


def test_a_trace_that_begins_is_valid_and_the_same_for_the_same_cause() -> None:
    [(_, parent)] = traces.begun("order-1")
    assert traces.continued({"traceparent": parent.decode()}) == traces.begun("order-1")
    assert traces.begun("order-1") != traces.begun("order-2")
    assert len(traces.trace_id(traces.begun("order-1"))) == 32


def test_what_others_began_counts_before_the_orders_and_what_we_began_after_it() -> None:
    assert traces.of_order(as_headers(LATER), "order-1", PARENT) == as_headers(LATER)
    assert traces.of_order(traces.begun("order-1"), "order-1", PARENT) == as_headers(PARENT)
    assert traces.of_order((), "order-1", PARENT) == as_headers(PARENT)
    assert traces.of_order((), "order-1", "") == traces.begun("order-1")
    assert traces.of_order(traces.begun("mail-1"), "order-1", "") == traces.begun("mail-1")


def test_only_the_trace_of_a_records_headers_is_carried_on() -> None:
    headers = (*as_headers(PARENT, "vendor=1"), ("a4co-subject", b"order.created"), ("x-tenant", b"jaen"))
    assert traces.carried(headers) == as_headers(PARENT, "vendor=1")
    assert traces.carried((*as_headers(PARENT), ("a4co-subject", b"order.created"))) == as_headers(PARENT)
    assert traces.carried((("x-tenant", b"jaen"), *as_headers(PARENT))) == traces.carried(()) == ()
    assert (traces.trace_id(headers), traces.trace_id(())) == ("0af7651916cd43dd8448eb211c80319c", "")
    assert (traces.given(headers), traces.given(traces.begun("order-1"))) == (PARENT, "")
