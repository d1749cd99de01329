"""What is too large at the edge; and its dead letter fits into the log, the word about it into NATS."""

import json

import pytest

from app.domain.dialects import Undecodable
from app.engine.kafka.cluster import LARGEST
from app.setting_types import KAFKA
from app.settings import Settings
from bridge import dead_letters
from bridge.limits import MAX_HEADER_BYTES, MAX_HEADERS, check
from bridge.ordered_pull import Arrived

MEBIBYTE = 1_048_576
NATS_LARGEST = 64 * MEBIBYTE
"""What nats-server lets through at most, headers and all (its own default is 1 MiB); of headers, JetStream 64 KiB."""


def arrived(data: bytes = b"{}", headers: dict[str, str] | None = None) -> Arrived:
    return Arrived(b"1", b"0", b"0", "order.created", headers, data)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (arrived(bytes(MEBIBYTE)), ""),
        (arrived(bytes(MEBIBYTE + 1)), "too-large"),
        (arrived(headers={f"x-{number}": "1" for number in range(MAX_HEADERS)}), ""),
        (arrived(headers={f"x-{number}": "1" for number in range(MAX_HEADERS + 1)}), "too-many-headers"),
        (arrived(headers={"x": "y" * (MAX_HEADER_BYTES - 1)}), ""),
        (arrived(headers={"x": "y" * MAX_HEADER_BYTES}), "headers-too-large"),
        (arrived(headers={"x" * MAX_HEADER_BYTES: "y"}), "headers-too-large"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_goes_over_has_its_reason(message: Arrived, reason: str) -> None:
    if not reason:
        check(message, MEBIBYTE)
        return
    with pytest.raises(Undecodable) as caught:
        check(message, MEBIBYTE)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    "payload",
    [
        bytes(NATS_LARGEST),
        b"\xff" * NATS_LARGEST,
        b'"' * NATS_LARGEST,
        b"[" * 200_000 + b"]" * 200_000,
        json.dumps(["\u20ac" * 80_000]).encode(),
        json.dumps({"x": "y" * 600_000}).encode(),
    ],
    ids=["NULs", "no UTF-8", "quotes", "brackets", "escapes", "long JSON"],
)
def test_the_letter_fits_into_the_log_and_the_word_into_nats(payload: bytes) -> None:
    headers = (("x", b"y" * 65_536), ("a4co-subject", b"order.created"))
    letter = dead_letters.keep("orders", None, payload, headers, "too-large", "e" * 10_000)
    size = len(letter.value or b"") + sum(len(name) + len(value) for name, value in letter.headers)
    assert size < LARGEST - MEBIBYTE
    assert payload.startswith(letter.value or b"")
    try:
        raise ValueError("x" * 10_000)
    except ValueError as error:
        [word] = dead_letters.tell("order.created", None, payload, error, "EVENTS-1-1")
    assert len(word.value or b"") < MEBIBYTE // 2
    assert json.loads(word.value or b"")["originalSubject"] == "order.created"


def test_a_payload_limit_that_kafka_does_not_take_is_refused() -> None:
    assert Settings(payload_limit=NATS_LARGEST).nats.payload_limit == NATS_LARGEST
    with pytest.raises(ValueError, match="PAYLOAD_LIMIT=67108864 is more than Kafka's topics take"):
        Settings(payload_limit=NATS_LARGEST, kafka_url=f"{KAFKA}127.0.0.1:9092")
