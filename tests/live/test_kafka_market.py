"""The whole application on Kafka: several `a4co worker` processes, a real broker, a real NATS, a real mail server."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import nats
import pytest
import pytest_asyncio

from bench.chaos_kafka import KafkaRun
from tests.live.kafka_broker import KafkaBroker
from tests.live.marketplace import SUBJECTS, MailServer
from tests.live.nats_server import NatsServer
from tests.live.test_fixtures import (  # the same tests, with the site of this file
    Site,
    test_the_captured_services_are_answered_in_the_words_of_the_services_that_are_replaced,  # noqa: F401
)
from tests.live.worker_process import WorkerProcess
from tests.waiting import wait_until

pytestmark = [pytest.mark.live, pytest.mark.slow]


@pytest_asyncio.fixture
async def site(nats_server: NatsServer, kafka_broker: KafkaBroker, tmp_path: Path, request: Any) -> AsyncIterator[Site]:
    """A worker on Kafka instead of the embedded log."""
    mail = MailServer()
    worker = WorkerProcess(
        tmp_path / "worker", NATS_URL=nats_server.url, SMTP_URL=await mail.start(), PAYMENT_MAX_ATTEMPTS="1",
        KAFKA_URL=kafka_broker.url, TOPIC_PREFIX=f"site-{abs(hash(request.node.name))}.", WORKER_NAME="one",
    )  # fmt: skip
    client = await nats.connect(nats_server.url)
    site = Site(worker, client)
    for subject in SUBJECTS:
        await client.subscribe(subject, cb=site.hear)
    await client.flush()
    worker.start()
    await worker.ready()
    await wait_until(worker.connected)
    yield site
    worker.stop()
    await worker.close()
    await client.close()
    mail.close()


async def test_workers_killed_and_stopped_at_work_lose_nothing_and_repeat_nothing(
    kafka_broker: KafkaBroker, tmp_path: Path
) -> None:
    """The long form is `make chaos-kafka`."""
    run = KafkaRun(
        tmp_path, servers=kafka_broker.servers, workers=2, kills=2, leaves=1, seed=32, orders=200, tell=print
    )
    verdict = await run.verdict()
    assert verdict.differences == []
    assert (verdict.lost, verdict.duplicates, verdict.mails_lost) == (0, 0, 0)
    assert set(verdict.outcomes) >= {"confirmed", "refused", "unpaid", "cancelled"}, "the plan has to have all of them"
