"""The poison set: what strangers may publish by mistake or on purpose, and what has to become of each.

A row is (what it is, subject, payload, what becomes of it, headers). What becomes of it is the reason of its dead
letter, or `Applied(order)` where it is valid after all: there is a saga of that order, or `KEPT`: mirrored, no more.
"""

import itertools
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from tests.live.market_site import PICUAL, order_created

MEBIBYTE = 1_048_576
CREATED, PAID, MOVED, MAILED, USER = (
    "order.created", "payment.succeeded", "inventory.stock.updated", "notification.email.sent", "user.registered",
)  # fmt: skip
KEPT = "kept"
NO_HEADERS: Mapping[str, str] = {}
IDS = itertools.count(1)


class Applied(NamedTuple):
    """There is a saga of this order afterwards."""

    order: str


class Poison(NamedTuple):
    """One row."""

    what: str
    subject: str
    payload: bytes
    becomes: str | Applied
    headers: Mapping[str, str] = NO_HEADERS


def order(name: str = "", item: Mapping[str, Any] | None = None, **data: Any) -> dict[str, Any]:
    """A good order.created, but for what is given of its one item and of its eventData."""
    envelope = order_created(name or f"poisoned-{next(IDS)}")
    line = envelope["eventData"]["items"][0] | (item or {})
    return envelope | {"eventData": envelope["eventData"] | {"items": [line]} | data}


def of(name: str = "", item: Mapping[str, Any] | None = None, **data: Any) -> bytes:
    """That order's bytes."""
    return json.dumps(order(name, item, **data)).encode()


def envelope(**changes: Any) -> bytes:
    """A good order with other fields in its envelope; `...` takes a field away."""
    return json.dumps({name: value for name, value in {**order(), **changes}.items() if value is not ...}).encode()


def put(envelope: Mapping[str, Any], placeholder: str, raw: str) -> bytes:
    """The envelope with raw JSON where the placeholder stands as a string."""
    return json.dumps(envelope).replace(json.dumps(placeholder), raw).encode()


def dated(name: str, **changes: str) -> bytes:
    """A good order with another date."""
    return json.dumps(order(name) | changes).encode()


def lines(number: int, name: str) -> bytes:
    """An order of so many lines of one bottle each."""
    line = {"productId": PICUAL, "quantity": 1, "unitPrice": 1}
    envelope = order(name, items=[line] * number)
    return json.dumps(envelope, separators=(",", ":")).encode()


def padded(size: int, name: str) -> bytes:
    """A good order of exactly so many bytes."""
    empty = of(name, specialInstructions="")
    return of(name, specialInstructions="x" * (size - len(empty)))


def nested(depth: int, name: str) -> bytes:
    """An order with a field so deep: the envelope, eventData and so many more."""
    return put(order(name, extra="HERE"), "HERE", "[" * depth + "]" * depth)


POISON = (
    # ---- bytes that are no JSON
    Poison("nothing at all", CREATED, b"", "not-json"),
    Poison("spaces", CREATED, b"  \n\t ", "not-json"),
    Poison("one NUL", CREATED, b"\x00", "not-json"),
    Poison("bytes that are no UTF-8", CREATED, b"\xff\xfe\xfd", "not-json"),
    Poison("no UTF-8 inside a string", CREATED, of().replace(b"customer-1", b"Ja\xe9n"), "not-json"),
    Poison("an overlong UTF-8 slash", CREATED, of().replace(b"customer-1", b"\xc0\xaf"), "not-json"),
    Poison("a surrogate in UTF-8", CREATED, of().replace(b"customer-1", b"\xed\xa0\x80"), "not-json"),
    Poison("half a surrogate pair, escaped", CREATED, put(order(customerId="X"), "X", r'"\ud800"'), "not-json"),
    Poison("UTF-16", CREATED, of().decode().encode("utf-16"), "not-json"),
    Poison("a byte order mark", CREATED, b"\xef\xbb\xbf" + of(), "not-json"),
    Poison("gzip", CREATED, bytes.fromhex("1f8b0800000000000003abae05004302a3bf02000000"), "not-json"),
    Poison("a truncated object", CREATED, of()[:-1], "not-json"),
    Poison("an object cut in a string", CREATED, of()[:40], "not-json"),
    Poison("two objects", CREATED, of() * 2, "not-json"),
    Poison("a comma too many", CREATED, of()[:-1] + b",}", "not-json"),
    Poison("a comment", CREATED, b"/* order */" + of(), "not-json"),
    Poison("single quotes", CREATED, b"{'eventId': '1'}", "not-json"),
    Poison("a raw line end in a string", CREATED, put(order(customerId="X"), "X", '"a\nb"'), "not-json"),
    Poison("a raw NUL in a string", CREATED, put(order(customerId="X"), "X", '"a\x00b"'), "not-json"),
    Poison("XML", CREATED, b"<order><id>1</id></order>", "not-json"),
    Poison("NaN alone", CREATED, b"NaN", "not-json"),
    # ---- JSON that is no object
    Poison("an array", CREATED, b"[1,2]", "not-an-object"),
    Poison("an array of a good order", CREATED, b"[" + of() + b"]", "not-an-object"),
    Poison("a string", CREATED, b'"order"', "not-an-object"),
    Poison("a number", CREATED, b"42", "not-an-object"),
    Poison("null", CREATED, b"null", "not-an-object"),
    Poison("a good order as a string", CREATED, json.dumps(of().decode()).encode(), "not-an-object"),
    # ---- numbers
    Poison("a total of NaN", CREATED, put(order(totalAmount="X"), "X", "NaN"), "not-json"),
    Poison("a total of Infinity", CREATED, put(order(totalAmount="X"), "X", "Infinity"), "not-json"),
    Poison("a total of -Infinity", CREATED, put(order(totalAmount="X"), "X", "-Infinity"), "not-json"),
    Poison("a total of 1e400", CREATED, put(order(totalAmount="X"), "X", "1e400"), "not-json"),
    Poison("a total of 1e308", CREATED, of("huge-total", totalAmount=1e308), Applied("huge-total")),
    Poison("a total of 2**63", CREATED, of("total-2-63", totalAmount=2**63), Applied("total-2-63")),
    Poison("a total of 2**200", CREATED, of("total-2-200", totalAmount=2**200), Applied("total-2-200")),
    Poison("a total of -0.0", CREATED, of("minus-zero", totalAmount=-0.0), Applied("minus-zero")),
    Poison("a negative total", CREATED, of(totalAmount=-1), "wrong-type"),
    Poison("a total as text", CREATED, of(totalAmount="12.5"), "wrong-type"),
    Poison("a total of true", CREATED, of(totalAmount=True), "wrong-type"),
    Poison("a total of null", CREATED, of(totalAmount=None), "wrong-type"),
    Poison("a quantity of 0", CREATED, of(item={"quantity": 0}), "wrong-type"),
    Poison("a quantity of -0", CREATED, put(order(item={"quantity": "X"}), "X", "-0"), "wrong-type"),
    Poison("a quantity of -1", CREATED, of(item={"quantity": -1}), "wrong-type"),
    Poison("a quantity of 1.5", CREATED, of(item={"quantity": 1.5}), "wrong-type"),
    Poison("a quantity of 1.0", CREATED, of(item={"quantity": 1.0}), "wrong-type"),
    Poison("a quantity as text", CREATED, of(item={"quantity": "1"}), "wrong-type"),
    Poison("a quantity of true", CREATED, of(item={"quantity": True}), "wrong-type"),
    Poison("a quantity of 2**63", CREATED, of(item={"quantity": 2**63}), "wrong-type"),
    Poison("a quantity of 2**200", CREATED, of(item={"quantity": 2**200}), "wrong-type"),
    Poison("a price below 0", CREATED, of(item={"unitPrice": -0.01}), "wrong-type"),
    Poison("a number with a leading 0", CREATED, put(order(totalAmount="X"), "X", "012"), "not-json"),
    Poison("a hexadecimal number", CREATED, put(order(totalAmount="X"), "X", "0x10"), "not-json"),
    Poison("an amount of 1e400", PAID, put(order(orderId="o", amount="X"), "X", "1e400"), "not-json"),
    Poison("stock of 2**63", MOVED, envelope(eventData={"newStock": 2**63}), "wrong-type"),
    Poison("stock below 0", MOVED, envelope(eventData={"newStock": -1}), "wrong-type"),
    # ---- fields
    Poison("an empty object", CREATED, b"{}", "unknown-dialect"),
    Poison("empty eventData", CREATED, envelope(eventData={}), "missing-field"),
    Poison("eventData as text", CREATED, envelope(eventData="{}"), "wrong-type"),
    Poison("eventData as a list", CREATED, envelope(eventData=[]), "wrong-type"),
    Poison("no eventId", CREATED, envelope(eventId=...), "missing-event-id"),
    Poison("an empty eventId", CREATED, envelope(eventId=""), "missing-event-id"),
    Poison("an eventId of 1", CREATED, envelope(eventId=1), "wrong-type"),
    Poison("an eventId of 257 characters", CREATED, envelope(eventId="x" * 257), "wrong-type"),
    Poison("no order id", CREATED, envelope(aggregateId=...), "missing-order-id"),
    Poison("an order id of 1", CREATED, envelope(aggregateId=1), "wrong-type"),
    Poison("an order id that is an object", CREATED, envelope(aggregateId={"id": "1"}), "wrong-type"),
    Poison("an order id of 10,000 characters", CREATED, of("x" * 10_000), "wrong-type"),
    Poison("no items", CREATED, of(items=[]), "wrong-type"),
    Poison("items as an object", CREATED, of(items={"0": {}}), "wrong-type"),
    Poison("an item of null", CREATED, of(items=[None]), "wrong-type"),
    Poison("an item without a product", CREATED, of(items=[{"quantity": 1, "unitPrice": 1}]), "missing-field"),
    Poison("an empty product id", CREATED, of(item={"productId": ""}), "wrong-type"),
    Poison("no customer", CREATED, of(customerId=None), "wrong-type"),
    Poison("a payment without an order", PAID, of(), "missing-order-id"),
    Poison("a payment without an amount", PAID, envelope(eventData={"orderId": "o"}), "missing-field"),
    Poison("stock without a product", MOVED, envelope(aggregateId=..., eventData={}), "missing-product-id"),
    Poison("stock that does not say how much", MOVED, envelope(eventData={}), "missing-field"),
    Poison("a mail of nobody", MAILED, envelope(aggregateId=..., eventId=..., eventData={}), "missing-order-id"),
    Poison("a user without an id", USER, envelope(aggregateId=..., eventData={}), "missing-user-id"),
    Poison("a user of another shape", USER, envelope(eventData={"x": 1}), KEPT),
    # ---- versions and dialects
    Poison("eventVersion 2", CREATED, envelope(eventVersion=2), "unknown-version"),
    Poison("eventVersion as text", CREATED, envelope(eventVersion="1"), "unknown-version"),
    Poison("metadata.version 2.0", CREATED, envelope(metadata={"version": "2.0"}), "unknown-version"),
    Poison("another envelope", CREATED, b'{"type":"order.created","order":{"id":"1"}}', "unknown-dialect"),
    Poison("a CloudEvent", CREATED, b'{"specversion":"1.0","id":"1","data":{"orderId":"1"}}', "unknown-dialect"),
    Poison("C with data that is text", "order.created.v1", b'{"eventId":"1","data":"x"}', "wrong-type"),
    Poison("C that says nothing", "order.created.v1", b'{"pattern":"order.created.v1","data":{}}', "missing-order-id"),
    # ---- text that displays or stores badly, and is text all the same
    Poison("a NUL in an order id", CREATED, of("nul\x00id"), Applied("nul\x00id")),
    Poison("a line end in an order id", CREATED, of("line\r\nid"), Applied("line\r\nid")),
    Poison("right to left", CREATED, of("\u202etfel-ot-thgir"), Applied("\u202etfel-ot-thgir")),
    Poison("joiners and marks", CREATED, of("👩\u200d🌾\u0301\ufe0f"), Applied("👩\u200d🌾\u0301\ufe0f")),
    Poison("a name of SQL", CREATED, of("'; DROP TABLE records; --"), Applied("'; DROP TABLE records; --")),
    Poison("a path as an order id", CREATED, of("../../etc/passwd"), Applied("../../etc/passwd")),
    Poison("wildcards as an order id", CREATED, of("*.>"), Applied("*.>")),
    Poison("a key twice", CREATED, of("twice")[:-1] + b', "aggregateId": "twice-2"}', Applied("twice-2")),
    Poison("__proto__", CREATED, put(order("proto", x="X"), "X", '{"__proto__":{"toString":1}}'), Applied("proto")),
    Poison("the year 9999", CREATED, dated("9999", occurredOn="9999-12-31T23:59:59.999Z"), Applied("9999")),
    Poison("the epoch", CREATED, dated("epoch", occurredOn="1970-01-01T00:00:00.000Z"), Applied("epoch")),
    Poison("a date that is none", CREATED, dated("no-date", occurredOn="yesterday"), Applied("no-date")),
    # ---- size
    Poison("64 levels", CREATED, nested(62, "deep-64"), Applied("deep-64")),
    Poison("65 levels", CREATED, nested(63, "deep-65"), "too-deep"),
    Poison("10,000 levels", CREATED, nested(10_000, "deep-10000"), "too-deep"),
    Poison("400,000 open brackets", CREATED, b"[" * 400_000, "too-deep"),
    Poison("10,000 lines", CREATED, lines(10_000, "lines-10000"), Applied("lines-10000")),
    Poison("10,001 lines", CREATED, lines(10_001, "lines-10001"), "wrong-type"),
    Poison("1 MiB", CREATED, padded(MEBIBYTE, "one-mebibyte"), Applied("one-mebibyte")),
    Poison("1 MiB and a byte", CREATED, padded(MEBIBYTE + 1, "more"), "too-large"),
    Poison("8 MB", CREATED, padded(8_000_000, "eight"), "too-large"),
    Poison("8 MiB of NULs", CREATED, bytes(8 * MEBIBYTE), "too-large"),
    # ---- headers (JetStream keeps no message with more than 64 KiB of them)
    Poison("1,000 headers", CREATED, of(), "too-many-headers", {f"x-{n}": "1" for n in range(1_000)}),
    Poison("a header of 60 kB", CREATED, of(), "headers-too-large", {"x-long": "x" * 60_000}),
    Poison("a header name of 20 kB", CREATED, of(), "headers-too-large", {"x" * 20_000: "1"}),
    Poison("headers of our own", CREATED, of("forged"), Applied("forged"),
           {"a4co-ours": "1", "A4CO-Subject": "order.cancelled", "a4co-letter": "1", "A4co-Origin": "0" * 32}),
    Poison("a trace that is none", CREATED, of("no-trace"), Applied("no-trace"), {"traceparent": "x" * 999}),
)  # fmt: skip
