"""Who has which partition, as the group's coordinator tells: the members' client ids carry their addresses.

It also decides whether what is here may be shown. A worker that slept or was cut off has lost its partitions without
knowing it; so a partition counts as held only for `CERTAIN` seconds after the coordinator was asked and named us. The
coordinator gives a silent member's partitions away after the session timeout, counted from the last heartbeat:
as long as CERTAIN + the heartbeat interval are less than that, nobody else has them yet.
"""

import asyncio
import contextlib
import time
from collections import Counter
from typing import Any

import structlog
from confluent_kafka import KafkaException

from app.engine.kafka.cluster import FOR_EVER, Cluster, why

EVERY = 1.0
"""Seconds between two looks."""

CERTAIN = 4.0
"""Seconds that a look holds: less than a session less a heartbeat, which are 6 s and 1 s on `make kafka`'s broker, and
45 s and 5 s by Kafka's default."""

APART = 0.1
"""Seconds between two looks at the least, however many ask."""

ANSWERS = 2.0
"""Seconds that the coordinator has for an answer."""

NEVER = 8.0
"""Seconds after which another client asks, if Kafka answers at all: one whose broker was away may wait for ever (seen
with librdkafka 2.16, after a broker was stopped for 30 s)."""

SETTLED = 5.0
"""Seconds after which a worker that was given nothing is one too many: the group gives a share within 1 to 3."""

CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""A clock that goes on while the machine sleeps, where there is one."""

AT = "@"

logger = structlog.get_logger("a4co.engine.kafka")


def client_id(name: str, url: str) -> str:
    """What a member is called so that the others find it."""
    return f"{name}{AT}{url}"


class GroupOwners:
    """The owners of a group's partitions. `member` is this worker's id in the group, which its reader tells."""

    def __init__(self, cluster: Cluster, group: str, topics: int) -> None:
        self.member = ""
        self._cluster = cluster
        self._group = cluster.outer(group)
        self._topics = topics
        self._has: dict[int, tuple[str, str]] = {}  # partition -> member id, url
        self._asked = -CERTAIN
        self._without: float | None = None
        self._looking: asyncio.Task[None] | None = None
        self._answer: tuple[float, asyncio.Future[Any]] | None = None
        self._admin = cluster.admin
        self._watching: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self.silent = False

    def held(self, partition: int) -> bool:
        """Whether the coordinator said so, not longer than CERTAIN ago."""
        has = self._has.get(partition)
        return has is not None and has[0] == self.member and time.clock_gettime(CLOCK) - self._asked < CERTAIN

    def url(self, partition: int) -> str | None:
        """The address of the member that has the partition, by the last look, however old."""
        member, url = self._has.get(partition, (self.member, ""))
        return url or None if member != self.member else None

    def others_have(self, partitions: int) -> bool:
        """Whether others have all of so many partitions, and we had none at every look of the last SETTLED seconds."""
        settled = self._without is not None and self._asked - self._without >= SETTLED
        return settled and all(self.url(partition) for partition in range(partitions))

    def start(self) -> None:
        """Look from now on, again and again."""
        self._watching = asyncio.create_task(self._watch(), name=f"owners of {self._group}")

    def changed(self) -> None:
        """Something has become ours: look soon."""
        self._wake.set()

    async def stop(self) -> None:
        """Look no more."""
        tasks = [task for task in (self._watching, self._looking) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self) -> None:
        while True:
            self._wake.clear()
            await self._look_now()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(EVERY):
                    await self._wake.wait()

    async def look(self) -> None:
        """Ask the coordinator, unless it is known to be silent; those who ask at the same time get the same answer."""
        if not self.silent:
            await self._look_now()

    async def _look_now(self) -> None:
        if self._looking is None:
            self._looking = asyncio.create_task(self._look())
        await asyncio.shield(self._looking)

    async def _look(self) -> None:
        try:
            await asyncio.sleep(max(0.0, self._asked + APART - time.clock_gettime(CLOCK)))
            try:
                asked, has = await self._ask()
            except Exception as error:  # noqa: BLE001 - whatever it is, the next look may succeed
                if not self.silent:
                    cause = why(error).str() if isinstance(error, KafkaException) else str(error) or "no answer"
                    logger.warning("the group does not tell who has what", group=self._group, cause=cause)
                self.silent = True
            else:
                if self.silent:
                    logger.info("the group tells again who has what", group=self._group)
                self._has, self._asked, self.silent = has, asked, False
                nothing = all(member != self.member for member, _ in has.values())
                self._without = (self._without or asked) if nothing else None
        finally:
            self._looking = None

    async def _ask(self) -> tuple[float, dict[int, tuple[str, str]]]:
        """When it was asked, and what the answer was. Of an answer that is late, the next look hears."""
        if self._answer is None:
            self._admin = self._cluster.admin
            asked = self._admin.describe_consumer_groups([self._group], request_timeout=FOR_EVER)
            self._answer = time.clock_gettime(CLOCK), asyncio.wrap_future(asked[self._group])
        at, answer = self._answer
        if not (await asyncio.wait([answer], timeout=ANSWERS))[0]:
            if time.clock_gettime(CLOCK) - at > NEVER:
                await self._cluster.call(self._cluster.renew_admin, self._admin)
                self._answer = None
            raise TimeoutError
        self._answer = None
        has: dict[int, tuple[str, str]] = {}
        for member in answer.result().members:
            url = member.client_id.partition(AT)[2]
            places = Counter(place.partition for place in member.assignment.topic_partitions)
            # While it moves, a member may have the partition of some topics only.
            has |= {partition: (member.member_id, url) for partition, n in places.items() if n == self._topics}
        return at, has
