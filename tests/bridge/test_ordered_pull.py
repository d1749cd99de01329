"""What a consumer delivers is read in one go, and anything that is missing or out of order in between is noticed."""

from typing import Any

import pytest

from bridge.frames import Frame
from bridge.ordered_pull import ConsumerLost, OrderedPull

PLAIN = "$JS.ACK.EVENTS.a1B2"
DOMAIN = "$JS.ACK.hub.AbCd.EVENTS.a1B2"


class Client:
    """Takes what is published, and says nothing."""

    max_payload = 1_048_576

    def new_inbox(self) -> str:
        return "_INBOX.1"

    async def publish(self, *_message: Any, **_more: Any) -> None:
        return


def frame(
    delivered: int, seq: int, *, head: str = PLAIN, tail: str = "", times: int = 1, headers: bytes = b""
) -> Frame:
    reply = f"{head}.{times}.{seq}.{delivered}.{1_764_000_000_000_000_000 + seq}.{50 - delivered}{tail}"
    return "pedido.señora".encode(), reply.encode(), headers, b"%d" % seq


async def read(*frames: Frame, pull: OrderedPull | None = None) -> list[tuple[Any, ...]]:
    pull = pull or OrderedPull(Client(), "EVENTS")  # type: ignore[arg-type]
    pull._receive(frames)
    taken = await pull.take(100)
    return [(each.seq, each.time - 1_764_000_000_000_000_000, each.pending, each.subject, each.data) for each in taken]


@pytest.mark.parametrize(
    ("head", "tail"), [(PLAIN, ""), (DOMAIN, ""), (DOMAIN, ".xYz")], ids=["plain", "domain", "domain and token"]
)
async def test_each_message_has_its_numbers(head: str, tail: str) -> None:
    frames = [frame(1, 7, head=head, tail=tail), frame(2, 9, head=head, tail=tail), frame(3, 110, head=head, tail=tail)]
    pull = OrderedPull(Client(), "EVENTS")  # type: ignore[arg-type]
    assert await read(*frames, pull=pull) == [
        (7, 7, 49, "pedido.señora", b"7"),
        (9, 9, 48, "pedido.señora", b"9"),
        (110, 110, 47, "pedido.señora", b"110"),
    ]
    assert pull.last == frames[-1][1]
    assert [each[0] for each in await read(frame(4, 111, head=head, tail=tail), pull=pull)] == [111]


async def test_a_message_that_comes_for_the_tenth_time_is_read_like_any() -> None:
    assert [each[:3] for each in await read(frame(1, 7), frame(2, 8, times=10), frame(3, 9, times=2))] == [
        (7, 7, 49), (8, 8, 48), (9, 9, 47)
    ]  # fmt: skip


@pytest.mark.parametrize("delivered", [[2], [1, 3], [1, 1], [1, 2, 4, 3], [1, 3, 2, 4]])
async def test_what_is_missing_or_out_of_order_ends_the_reading(delivered: list[int]) -> None:
    with pytest.raises(ConsumerLost, match="came instead of"):
        await read(*(frame(number, number) for number in delivered))


async def test_what_is_missing_between_two_reads_ends_the_reading() -> None:
    pull = OrderedPull(Client(), "EVENTS")  # type: ignore[arg-type]
    await read(frame(1, 1), frame(2, 2), pull=pull)
    with pytest.raises(ConsumerLost, match="delivery 4 came instead of 3"):
        await read(frame(4, 4), pull=pull)


async def test_headers_are_read_where_there_are_some() -> None:
    pull = OrderedPull(Client(), "EVENTS")  # type: ignore[arg-type]
    pull._receive(
        [frame(1, 1), frame(2, 2, headers=b"NATS/1.0\r\nX: y\r\n\r\n"), frame(3, 3, headers=b"NATS/1.0\r\n\r\n")]
    )
    assert [each.headers for each in await pull.take(10)] == [None, {"X": "y"}, None]
