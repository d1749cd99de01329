"""SIGKILL of the worker under load: nothing is lost, nothing is said twice, and the tables are what a model says.

The long form is `python -m bench.chaos --kills 30`; here two kills, one with the local tables taken away.
"""

from collections import Counter
from pathlib import Path

import pytest

from bench.chaos import Run
from tests.live.marketplace import Marketplace
from tests.live.nats_server import NatsServer
from tests.live.order_model import Order, said_differences
from tests.live.worker_process import WorkerProcess
from tests.waiting import wait_until

pytestmark = [pytest.mark.live, pytest.mark.slow]


@pytest.mark.parametrize(("seed", "wipe_tables"), [(11, False), (12, True)], ids=["tables kept", "tables wiped"])
async def test_a_worker_killed_at_work_loses_nothing_and_repeats_nothing(
    tmp_path: Path, seed: int, wipe_tables: bool
) -> None:
    run = Run(tmp_path, kills=1, seed=seed, orders=200, wipe_tables=wipe_tables, moments=["at work"], tell=print)
    verdict = await run.verdict()
    assert verdict.differences == []
    assert (verdict.lost, verdict.duplicates, verdict.mails_lost) == (0, 0, 0)
    assert set(verdict.outcomes) >= {"confirmed", "refused", "unpaid", "cancelled"}, "the plan has to have all of them"


async def test_a_worker_that_was_away_for_thousands_of_messages_answers_again(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    """At its start it looks what it had published, in all that the stream got meanwhile."""
    order = Order("order-1", (("product_aceite_picual", 1),), ("paid",), False, False, "", 0)
    worker = WorkerProcess(tmp_path / "worker", NATS_URL=nats_server.url)
    try:
        async with Marketplace([order]).connected(nats_server.url) as market:
            worker.start()
            await worker.ready()
            await market.fill(worker, {"product_aceite_picual": 5})
            worker.kill()
            for number in range(4_000):
                await market.say("user.verified", "UserVerifiedEvent", f"user-{number}", {})
            await market.order(order)
            worker.start()
            await wait_until(lambda: "order.confirmed" in {answer.subject for answer in market.heard}, within=20)
        worker.stop()
    finally:
        await worker.close()


def test_the_model_sees_a_lost_and_a_repeated_answer() -> None:
    order = Order("order-1", (("aceite", 1),), ("paid",), False, False, "", 0, paid={"pay-1"})
    expected = ["inventory.stock.reserved", "payment.initiated", "order.confirmed", "order-confirmation"]
    assert list(said_differences(order, "confirmed", Counter(expected))) == []
    assert list(said_differences(order, "confirmed", Counter(expected[1:]))) != []
    assert list(said_differences(order, "confirmed", Counter([*expected, "order.confirmed"]))) != []
