"""The bench of full sagas in its short form: on this engine and on stock Faust, every order is confirmed once.

The long form is `make bench-kafka ENGINES=ours,faust`.
"""

import os
from pathlib import Path

import pytest

from bench.saga_kafka import Bench, figures, measure
from tests.live.kafka_broker import KafkaBroker


@pytest.mark.live
@pytest.mark.slow
def test_both_engines_confirm_every_order_once(kafka_broker: KafkaBroker, tmp_path: Path) -> None:
    bench = Bench(
        kafka_broker.servers, tmp_path, os.getpid(), orders=400, slow_orders=200, waiting=60, products=9, workers=1
    )
    told = figures(*measure(["ours", "faust_at_least_once"], 1, bench))
    assert told["wrong"] == {}
    assert told["orders_per_second"].keys() == {"ours", "faust_at_least_once"}
    assert told["ours_to"].keys() == {"faust_at_least_once"}
    assert told["cpu_microseconds_per_order"]["faust_at_least_once"].keys() == {"worker-0", "outside", "broker"}


def test_medians_are_told_and_ours_is_compared_with_each_other_engine() -> None:
    def runs(*speeds: int) -> list[dict[str, object]]:
        return [{"orders_per_second": speed, "cpu_microseconds_per_order": {"worker-0": -speed}} for speed in speeds]

    told = figures({"ours": runs(4_000, 6_000, 5_000), "faust": runs(400, 600), "broken": []}, {"broken": "it ended"})
    assert told["orders_per_second"] == {"ours": 5_000, "faust": 500}
    assert told["rounds"] == {"ours": [4_000, 6_000, 5_000], "faust": [400, 600]}
    assert told["ours_to"] == {"faust": 10.0}
    assert told["cpu_microseconds_per_order"] == {"ours": {"worker-0": -5_000}, "faust": {"worker-0": -500}}
    assert told["wrong"] == {"broken": "it ended"}
