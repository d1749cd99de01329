"""Transactions of one writer, one after the other. It decides what may be tried again, not what is written.

Two producers take turns: when a commit is answered the broker still writes its marks, and refuses the producer's next
transaction until that is done (measured: 7.0 ms a transaction by one producer, 3.7 to 4.7 ms by two; the broker's
CPU 5.3 ms and 3.6 ms).
"""

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from confluent_kafka import KafkaError, KafkaException, Message, Producer
from confluent_kafka import TopicPartition as Place

from app.engine.errors import CommitAborted, CommitUnknown, LogFailed
from app.engine.kafka.cluster import Cluster, failed, served, why
from app.engine.records import Send

COMMIT = 15.0
"""Seconds for one commit with all that belongs to it. The broker itself gives a transaction up after as many."""

ABORT = 5.0
"""Seconds for the end of a transaction that is given up. Kafka that comes back may leave a producer without an answer
for ever; new ones are there within a second."""

OFFSETS = 5.0
"""Seconds for the offsets of a transaction. A producer whose broker was away may wait for ever (seen with librdkafka
2.16, after a broker was stopped for 30 s); after this, new ones take its place."""

OPEN = 10.0
"""Seconds for new producers."""

TURNS = 2


class Transactions:
    """The transactions of `name`, a writer that nobody else is: who opens it again ends what the one before left.

    `silent`: nobody asks where its messages have come to, so the client tells only of those that failed.
    """

    def __init__(self, cluster: Cluster, name: str, *, silent: bool = False) -> None:
        self.name = name
        self._settings = {"delivery.report.only.error": silent}
        self._cluster = cluster
        self._producers: list[Producer] = []
        self._under_way = False
        self._failure: KafkaException | None = None
        self._offered: Future[None] | None = None
        self._offers_end = 0.0

    def open(self) -> None:
        """Begin, or begin anew: end whatever an earlier writer of this name, or this one, has left. Blocks.

        A commit whose end was not known is decided when this returns.

        Raises:
            LogFailed: there are no producers. LogAway: because no broker answers.
        """
        self._producers, self._failure, self._under_way, self._offered = [], None, False, None
        settings = [self._cluster.producer(f"{self.name}.{turn}") | self._settings for turn in range(TURNS)]
        producers = [Producer(each) for each in settings]
        try:
            with ThreadPoolExecutor(TURNS) as threads:
                list(threads.map(begin, producers))
        except KafkaException as error:
            raise failed(f"no transactions for {self.name}", error) from error
        self._producers = producers

    @property
    def under_way(self) -> bool:
        """Whether something waits to be committed or aborted."""
        return self._under_way or self._failure is not None

    def stage(
        self, sends: Sequence[Send], delivered: Callable[[KafkaError | None, Message], None] | None = None
    ) -> None:
        """Hand the messages to the producer: they travel while the caller works on. What fails, `commit` raises."""
        if not sends or self._failure is not None:
            return
        try:
            self._begin()
            self._cluster.produce(self._producers[0], sends, delivered)
        except KafkaException as error:
            self._failure = error

    def _begin(self) -> None:
        if not self._producers:
            raise KafkaException(KafkaError(KafkaError._STATE, f"{self.name} is to be opened again"))  # noqa: SLF001
        if not self._under_way:
            self._producers[0].begin_transaction()
            self._under_way = True

    def offer(self, places: Sequence[Place], membership: Callable[[], object]) -> None:
        """Send the offsets, of the group that `membership` tells, on a thread; more may be staged meanwhile.

        To be called once for a transaction. What fails, `commit` raises.
        """
        if not places or self._failure is not None:
            return
        try:
            self._begin()
        except KafkaException as error:
            self._failure = error
            return
        producer = self._producers[0]
        self._offers_end = time.monotonic() + OFFSETS + 1.0
        self._offered = on_its_own(lambda: producer.send_offsets_to_transaction(list(places), membership(), OFFSETS))

    def commit(self) -> None:
        """Commit what was staged and offered. Blocks, up to COMMIT.

        Raises:
            CommitAborted: it was not committed; after `abort` it can be done again.
            CommitUnknown: whether it was committed is not known; after `open` it is decided.
        """
        deadline = time.monotonic() + COMMIT

        def left() -> float:
            return max(0.1, deadline - time.monotonic())

        try:
            if self._failure is not None:
                raise self._failure
            self._begin()
            producer = self._producers[0]
            served(lambda: producer.flush(left()))  # with the delivery reports
            self._offers_done()
        except KafkaException as error:
            raise CommitAborted(why(error).str()) from error
        try:
            until_done(lambda: producer.commit_transaction(left()), deadline)
        except KafkaException as error:
            self._producers = []  # what these still do is not to be known
            raise CommitUnknown(f"Kafka: the transaction of {self.name} failed: {why(error).str()}") from error
        self._under_way = False
        self._producers.append(self._producers.pop(0))

    def _offers_done(self) -> None:
        """Wait for the offsets. Raises KafkaException: they were refused, or nothing is heard of them."""
        offered, self._offered = self._offered, None
        if offered is not None:
            try:
                offered.result(max(0.0, self._offers_end - time.monotonic()))
            except TimeoutError:  # librdkafka's own timeout does not always end its calls
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "no end of it")) from None  # noqa: SLF001

    def abort(self) -> None:
        """Forget what was staged. Blocks, up to ABORT.

        Raises:
            LogFailed: another writer of this name, or the broker, has ended it, or does not answer: this one writes
                nothing any more before it is opened again.
        """
        if not self.under_way:
            return
        self._failure = None
        if not self._producers:
            self._under_way = False
            raise LogFailed(f"Kafka: {self.name} is to be opened again")
        try:
            with contextlib.suppress(KafkaException):
                self._offers_done()
            self._producers[0].abort_transaction(ABORT)
        except KafkaException as error:
            raise failed(f"the transaction of {self.name} was ended", error) from error
        finally:
            self._under_way = False


def begin(producer: Producer) -> None:
    """Make it ready for transactions. When librdkafka does not know its broker yet, it looks for the coordinator only
    after half a second; when it was asked twice, it does (measured: 0.51 s, and 0.07 s).
    """
    for _ in range(2):
        producer.list_topics(timeout=OPEN)
    producer.init_transactions(OPEN)


def on_its_own(work: Callable[[], None]) -> "Future[None]":
    """Do it on a thread that nobody waits for at the process's end, for it may never end."""
    ended: Future[None] = Future()

    def run() -> None:
        try:
            work()
            ended.set_result(None)
        except BaseException as error:  # noqa: BLE001 - whoever waits raises it
            ended.set_exception(error)

    threading.Thread(target=run, name="kafka offsets", daemon=True).start()
    return ended


def until_done(work: Callable[[], object], deadline: float) -> None:
    """Do it again for as long as Kafka says that it may be done again, and there is time."""
    while True:
        try:
            work()
        except KafkaException as error:
            if not why(error).retriable() or time.monotonic() >= deadline:
                raise
        else:
            return
