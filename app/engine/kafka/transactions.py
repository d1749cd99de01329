"""Transactions of one writer, one after the other. It decides what may be tried again, not what is written.

Two producers take turns: when a commit is answered the broker still writes its marks, and refuses the producer's next
transaction until that is done (measured: 7.0 ms a transaction by one producer, 3.7 to 4.7 ms by two; the broker's
CPU 5.3 ms and 3.6 ms).
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from confluent_kafka import KafkaError, KafkaException, Message, Producer
from confluent_kafka import TopicPartition as Place

from app.engine.errors import CommitAborted, LogFailed
from app.engine.kafka.cluster import Cluster, served, why
from app.engine.records import Send

COMMIT = 30.0
"""Seconds for one commit."""

FATAL = KafkaError._FATAL  # noqa: SLF001
"""The producer had failed for good before: it does nothing any more."""

TURNS = 2


class Transactions:
    """The transactions of `name`, a writer that nobody else is: who opens it again ends what the one before left."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.name = name
        self.undecided = False
        """Whether the last commit may have been made, which is not known: nothing is committed any more."""
        self._cluster = cluster
        self._producers: list[Producer] = []
        self._under_way = False
        self._failure: KafkaException | None = None

    def open(self) -> None:
        """End whatever an earlier writer of this name has left. Blocks; raises LogFailed."""
        producers = [Producer(self._cluster.producer(f"{self.name}.{turn}")) for turn in range(TURNS)]
        try:
            with ThreadPoolExecutor(TURNS) as threads:
                list(threads.map(begin, producers))
            self._producers = producers
        except KafkaException as error:
            raise LogFailed(f"Kafka: no transactions for {self.name}: {why(error).str()}") from error

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
        if not self._under_way:
            self._producers[0].begin_transaction()
            self._under_way = True

    def commit(self, places: Sequence[Place], membership: object) -> None:
        """Commit what was staged, with the offsets of the group whose metadata `membership` is. Blocks.

        Raises:
            CommitAborted: it was not committed; after `abort` it can be done again.
            LogFailed: whether it was committed is not known.
        """
        producer, decided = self._producers[0], False
        try:
            if self._failure is not None:
                raise self._failure
            self._begin()
            if places:
                producer.send_offsets_to_transaction(list(places), membership, COMMIT)
            served(lambda: producer.flush(COMMIT))  # with the delivery reports
            decided = True
            until_done(lambda: producer.commit_transaction(COMMIT))
        except KafkaException as error:
            reason = why(error)
            if reason.txn_requires_abort() or (not decided and (reason.fatal() or reason.code() == FATAL)):
                raise CommitAborted(reason.str()) from error
            self.undecided = True
            raise LogFailed(f"Kafka: the transaction of {self.name} failed: {reason.str()}") from error
        self._under_way = False
        self._producers.append(self._producers.pop(0))

    def abort(self) -> None:
        """Forget what was staged. Blocks.

        Raises:
            LogFailed: another writer of this name, or the broker, has ended it: this one writes nothing any more.
        """
        if not self.under_way:
            return
        self._failure = None
        try:
            self._producers[0].abort_transaction(COMMIT)
        except KafkaException as error:
            raise LogFailed(f"Kafka: the transaction of {self.name} was ended: {why(error).str()}") from error
        finally:
            self._under_way = False


def begin(producer: Producer) -> None:
    """Make it ready for transactions. When librdkafka does not know its broker yet, it looks for the coordinator only
    after half a second; when it was asked twice, it does (measured: 0.51 s, and 0.07 s).
    """
    for _ in range(2):
        producer.list_topics(timeout=COMMIT)
    producer.init_transactions(COMMIT)


def until_done(work: Callable[[], object]) -> None:
    """Do it again for as long as Kafka says that it may be done again."""
    for attempt in range(5):
        try:
            work()
        except KafkaException as error:
            if attempt == 4 or not why(error).retriable():
                raise
        else:
            return
