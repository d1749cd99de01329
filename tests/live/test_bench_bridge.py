"""The bench of the bridge in its short form: a run counts only when everything came once, in order.

The long form is `make bench-bridge`.
"""

from pathlib import Path

import pytest

from app.domain.dialects import key_of
from bench.bridge.__main__ import Bench, figures, measure
from bench.bridge.judge import Judge
from bench.bridge.messages import UNDER_WAY, Told, number_in, spoken_in, spoken_out, told_in, told_out
from bench.bridge.programs import PROGRAMS
from bench.bridge.stream import Stream
from bench.bridge.topics import EmbeddedTopics
from bench.programs import Wrong
from bridge.routes import ROUTES
from tests.live.nats_server import NatsServer


@pytest.mark.live
@pytest.mark.slow
@pytest.mark.parametrize("way", ["in", "out", "both"])
async def test_a_backlog_of_thousands_comes_over_once_and_in_order(
    nats_server: NatsServer, tmp_path: Path, way: str
) -> None:
    bench = Bench(EmbeddedTopics(tmp_path), Stream(nats_server.url), tmp_path, messages=3_000, slow=0, seed=3)
    programs = [PROGRAMS[name] for name in ("ours", "loop") if way != "both" or name == "ours"]
    good, wrong = await measure(programs, way, 1, bench)
    assert wrong == {}
    told = figures(good, wrong)
    assert set(told["messages_per_second"]) == {program.name for program in programs}


def test_the_messages_are_ones_that_the_bridge_takes_with_the_keys_that_are_told() -> None:
    spoken = list(spoken_in(7 * UNDER_WAY, seed=9))
    assert [number_in(message.payload) for message in spoken] == list(range(7 * UNDER_WAY))
    for number, message in enumerate(spoken[::250]):
        told = told_in(250 * number)
        route = ROUTES[message.subject]
        assert told == Told(message.subject, route.topic, key_of(message.subject, message.payload))
    assert {message.subject for message in spoken_out(3 * UNDER_WAY, seed=9)} == {
        told_out(number).subject for number in range(3 * UNDER_WAY)
    }


@pytest.mark.parametrize(
    ("came", "why"),
    [
        ([0, 1, 3], "missing"),
        ([0, 1, 2, 2, 3], "twice"),
        ([0, 1, 2, 3, 4], "not of this run"),
        ([2, 0, 1, 3], "before others of their key"),
    ],
    ids=lambda case: case if isinstance(case, str) else None,
)
def test_a_run_with_anything_missing_repeated_foreign_or_out_of_order_does_not_count(came: list[int], why: str) -> None:
    judge = Judge(range(4), lambda number: Told("order.created", "orders", f"order-{number % 2}"))
    for number in came:
        judge.hear(number, float(number))
    with pytest.raises(Wrong, match=why):
        judge.speed(ordered=True)


def test_a_run_is_measured_behind_its_first_messages() -> None:
    judge = Judge(range(10), told_in)
    for number in range(10):
        judge.hear(number, 100.0 if number == 0 else 200.0 + number)
    assert judge.speed(ordered=True) == pytest.approx(8 / 7)
