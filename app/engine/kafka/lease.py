"""Who of many processes does what only one may do: it decides who has the lease, not what is done with it.

The holder gives a sign of life in a topic of one partition, twice a second. When it falls silent, whoever wants the
lease claims the next term there; the first claim of a term in the topic's order has it, and everybody reads the same.
A wrong guess (the holder only slept) costs a change of hands and nothing else, for the holder's transactions have one
transactional id for all processes: a former holder is fenced, whatever it believes.
"""

import asyncio
import contextlib
import math
import threading
import time
from collections.abc import Awaitable, Callable
from uuid import uuid4

import msgspec
import structlog
from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka import TopicPartition as Place

from app.engine.kafka.cluster import Cluster, served, why
from app.engine.kafka.owners import CLOCK

LEASE = "lease-signs"
"""The topic of the signs, one partition."""

BRIEF = {"retention.ms": "86400000", "segment.ms": "3600000", "segment.bytes": str(1024 * 1024)}
"""Its settings: a day's signs are more than anybody needs."""

BEAT = 0.5
"""Seconds between two signs."""

SILENCE = 2.0
"""Seconds without a sign, while Kafka answers, after which the holder counts as gone. Kafka's own groups would say so
after 45 s, or 6 s in the classic protocol: by default the brokers allow no less."""

RECENT = 20
"""Signs that are read at the start: with a claim that came second, those that tell who came first."""

ANSWERS = 1.0
"""Seconds that Kafka has to tell where the topic ends."""

APART = 3 * BEAT
"""Seconds between two looks beyond which one has slept, or Kafka was away: the silence counts from anew."""

logger = structlog.get_logger("a4co.engine.kafka")


class Sign(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a holder says. `at`: when, by its own clock. `note`: what it wants the others to know. `gone`: it ends."""

    term: int
    holder: str
    at: float = 0.0
    note: str = ""
    gone: bool = False


class Lease:
    """One process's part. `held` tells whether it has the lease, by the last sign read.

    `claims`: whether it wants the lease, or only looks on. `says` gives the note of its signs (from another thread).
    """

    def __init__(self, cluster: Cluster, *, claims: bool = True, says: Callable[[], str] = lambda: "") -> None:
        self.held = False
        self.problem = ""
        """Why Kafka does not tell, if it does not."""
        self._cluster = cluster
        self._worker = cluster.options.worker
        self._me = f"{self._worker}.{uuid4().hex[:12]}"
        self._claims = claims
        self._says = says
        self._place = Place(cluster.outer(LEASE), 0)
        self._at = -1
        self._last = Sign(0, "", gone=True)
        self._free = True
        self._heard = self._quiet = self._looked = self._beaten = self._confirmed = -APART
        self._answers_since = -math.inf
        self._began = False
        self._asked = threading.Event()
        self._stop = threading.Event()
        self._changed = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    # ---- for the loop ----------------------------------------------------------------------------------

    async def run(self, begin: Callable[[], Awaitable[None]], end: Callable[[], Awaitable[None]]) -> None:
        """Take part until cancelled: `begin` when the lease is ours, `end` when it is not any more, one at a time."""
        self._loop = asyncio.get_running_loop()
        working = asyncio.ensure_future(self._cluster.call(self._work))
        working.add_done_callback(lambda _working: self._changed.set())
        begun = False
        try:
            while True:
                await self._changed.wait()
                self._changed.clear()
                if working.done():
                    working.result()
                if self.held and not begun:
                    begun = True
                    await begin()
                elif begun and not self.held:
                    begun = False
                    await end()
        finally:
            if begun:
                await end()
            self._stop.set()
            await asyncio.wait([working])

    @property
    def sign(self) -> Sign | None:
        """The last sign of a holder, if it is alive."""
        alive = not self._last.gone and _now() - self._heard < SILENCE
        return self._last if alive else None

    def certain(self) -> bool:
        """Whether nobody else can have the lease at this moment: a sign of ours that is not old has been read."""
        return self.held and _now() - self._confirmed < SILENCE

    def answered_for(self, seconds: float) -> bool:
        """Whether Kafka has read our signs back to us without a break for so long, or since the lease is ours."""
        return self.certain() and _now() - self._answers_since >= seconds

    async def still_ours(self, within: float = 5.0) -> bool:
        """Whether it is ours by a look that begins now; when Kafka does not answer in time, by the last one."""
        self._asked.set()
        deadline = _now() + within
        while self.held and self._asked.is_set() and _now() < deadline:  # noqa: ASYNC110 - a thread answers
            await asyncio.sleep(BEAT / 10)
        return self.held

    # ---- on the thread ---------------------------------------------------------------------------------

    def _work(self) -> None:
        soon = {"reconnect.backoff.max.ms": int(1000 * BEAT)}
        reads = {
            "group.id": self._cluster.outer(LEASE),
            "isolation.level": "read_uncommitted",
            "fetch.wait.max.ms": 500,
        }
        consumer = Consumer(self._cluster.consumer(**soon, **reads))
        writes = {"linger.ms": 0, "message.timeout.ms": int(1000 * SILENCE)}
        producer = Producer(self._cluster.common | soon | writes)
        try:
            while not self._stop.is_set():
                try:
                    self._step(consumer, producer)
                except KafkaException as error:
                    self._looked = -APART
                    self.problem = f"Kafka does not tell who has the lease: {why(error).str()}"
                    self._stop.wait(BEAT)
            if self._last.holder == self._me and not self._last.gone:
                self._send(producer, self._last.term, gone=True)
                served(lambda: producer.flush(ANSWERS))
        finally:
            consumer.close()

    def _step(self, consumer: Consumer, producer: Producer) -> None:
        if self._at < 0:
            low, high = consumer.get_watermark_offsets(self._place, timeout=ANSWERS)
            self._at = max(low, high - RECENT)
            consumer.assign([Place(self._place.topic, 0, self._at)])
        self._read(consumer)
        if self.held:
            self._keep(producer)
            if self._asked.is_set() and self._ends_here(consumer):
                self._asked.clear()
        elif self._free or _now() - self._looked >= BEAT or _now() - self._quiet >= SILENCE:
            self._look(consumer, producer)
        producer.poll(0)

    def _read(self, consumer: Consumer) -> None:
        first = consumer.poll(BEAT / 5)
        for message in (first, *consumer.consume(100, timeout=0)) if first is not None else ():
            if message.error() is not None:
                continue
            self._at = (message.offset() or 0) + 1
            with contextlib.suppress(msgspec.DecodeError):  # somebody else's
                self._take_in(msgspec.json.decode(message.value() or b"", type=Sign))

    def _take_in(self, sign: Sign) -> None:
        last = self._last
        if sign.term < last.term or (sign.term == last.term and sign.holder != last.holder):
            return  # of a former holder; or a claim that came second
        self._last = sign
        self._heard = self._quiet = _now()
        ours = sign.holder == self._me
        if ours:
            if self.held and sign.at - self._confirmed >= SILENCE:
                self._answers_since = _now()
            self._confirmed = sign.at
        # What this process said before it was started again: nobody else has its name.
        former = not self._began and not ours and sign.holder.rpartition(".")[0] == self._worker
        self._free = sign.gone or former
        self._hold(ours and not sign.gone)

    def _hold(self, held: bool) -> None:
        if held != self.held:
            self.held = held
            assert self._loop is not None
            self._loop.call_soon_threadsafe(self._changed.set)

    def _keep(self, producer: Producer) -> None:
        if _now() - self._beaten >= BEAT:
            self._beaten = _now()
            self._send(producer, self._last.term)

    def _look(self, consumer: Consumer, producer: Producer) -> None:
        """Claim the lease when nobody has it: nothing has come for long, and Kafka says that there is nothing."""
        there_is_no_more = self._ends_here(consumer)
        now = _now()
        if now - self._looked > APART:
            self._quiet = now
        self._looked, self.problem = now, ""
        if not there_is_no_more:
            return
        self._began = True
        if self._claims and (self._free or now - self._quiet >= SILENCE):
            self._quiet, self._free = now, False
            self._send(producer, self._last.term + 1)

    def _ends_here(self, consumer: Consumer) -> bool:
        """Whether the topic has nothing that was not read. Raises KafkaException."""
        _, end = consumer.get_watermark_offsets(self._place, timeout=ANSWERS)
        return end <= self._at

    def _send(self, producer: Producer, term: int, *, gone: bool = False) -> None:
        sign = Sign(term, self._me, _now(), "" if gone else self._says(), gone)
        producer.produce(self._place.topic, msgspec.json.encode(sign), partition=0)


def _now() -> float:
    return time.clock_gettime(CLOCK)
