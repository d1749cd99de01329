"""Dead letters on Kafka: a worker is killed while they are replayed through another, and each goes again once."""

import asyncio
import json
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app import topics
from app.bridging import APP_ID
from app.engine.kafka.log import KafkaLog
from app.engine.kafka.options import KafkaOptions
from app.engine.records import Send
from tests.live.kafka_broker import KafkaBroker
from tests.live.kafka_read import KafkaAsRead
from tests.live.kill_checks import EVERYTHING, header
from tests.live.worker_process import WorkerProcess, environment

pytestmark = [pytest.mark.live, pytest.mark.slow]

LETTERS, PARTITIONS = 500, 2


@pytest.fixture
async def workers(kafka_broker: KafkaBroker, tmp_path: Path) -> AsyncIterator[list[WorkerProcess]]:
    """Two that share the letters; NATS is not there, and nobody needs it."""
    prefix = f"letters-{uuid.uuid4().hex[:8]}."
    log = KafkaLog(KafkaOptions(kafka_broker.servers, "before", prefix), APP_ID)
    await log.connect()
    await log.prepare({topic.name: topic.compacted for topic in topics.ALL}, PARTITIONS)
    place = (("a4co-subject", b"user.verified"), ("a4co-reason", b"KeyError"), ("a4co-topic", b"users"))
    events = [{"eventId": f"u-{number}", "aggregateId": f"user-{number}", "eventData": {}} for number in range(LETTERS)]
    await log.commit(
        Send("dead-letters", str(event["aggregateId"]).encode(), json.dumps(event).encode(), place) for event in events
    )
    await log.disconnect()
    processes = [
        WorkerProcess(
            tmp_path / name, NATS_URL="nats://127.0.0.1:1", KAFKA_URL=kafka_broker.url, TOPIC_PREFIX=prefix,
            WORKER_NAME=name, PARTITIONS=str(PARTITIONS), LOG_LEVEL="warning",
        )
        for name in ("picual", "arbequina")
    ]  # fmt: skip
    yield processes
    for process in processes:
        await process.close()


async def states_of(worker: WorkerProcess) -> dict[str, int]:
    """Of all letters; {}: some worker's are not known just now."""
    answer = await worker.answer("/api/dead-letters?limit=1")
    whole = answer is not None and answer.status_code == 200 and not answer.json()["partial"]
    return dict(answer.json()["states"]) if answer is not None and whole else {}


async def test_a_worker_killed_while_letters_are_replayed_through_another_repeats_and_loses_none(
    workers: list[WorkerProcess], kafka_broker: KafkaBroker
) -> None:
    asked, killed = workers
    for worker in workers:
        worker.start()

    async def all_known() -> bool:
        known = [sum((await states_of(worker)).values()) for worker in workers]
        return known == [LETTERS] * 2

    await asked.until(all_known, within=90)
    command = subprocess.Popen(
        [Path(sys.executable).parent / "a4co", "dlq", "replay", "--all", "--yes", "--rate", "50"],
        cwd=asked.folder,
        env=environment(asked.settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
    )

    async def so_far() -> bool:
        return (await states_of(asked)).get("replayed", 0) > LETTERS // 10

    await asked.until(so_far, within=60)
    assert command.poll() is None, "it has to be killed in the midst of it"
    killed.kill()
    output, _ = await asyncio.to_thread(command.communicate)
    assert command.returncode == 0, output

    async def all_replayed() -> bool:
        return await states_of(asked) == {"open": 0, "replayed": LETTERS, "discarded": 0}

    await asked.until(all_replayed, within=40)
    asked.stop()
    log = KafkaAsRead(kafka_broker.servers, asked.settings["TOPIC_PREFIX"])
    again = [record for partition in range(PARTITIONS) for record in log.read("users", partition, 0, EVERYTHING)]
    assert len(again) == LETTERS
    assert len({header(record, "a4co-letter") for record in again}) == LETTERS
