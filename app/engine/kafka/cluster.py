"""The connection to one Kafka cluster: client settings, topics, and threads for calls that block."""

import asyncio
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar, cast

from confluent_kafka import (
    Consumer,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicCollection,
)
from confluent_kafka import TopicPartition as Place
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, OffsetSpec  # type: ignore[attr-defined]

from app.engine.cancelling import unbroken
from app.engine.errors import LogAway, LogFailed, TopicMismatch
from app.engine.kafka.options import KafkaOptions
from app.engine.log import TopicState
from app.engine.records import Headers, Record, Send, TopicPartition

T = TypeVar("T")

REQUEST = 15.0
"""Seconds for one request."""

FOR_EVER = 3600.0
"""Seconds that the admin client waits for an answer, its longest: one that comes after the client gave it up ends the
process (librdkafka 2.16: "Assertion `eonce->refcnt > 0' failed"; seen with brokers that were killed and came back)."""

REFUSED = (KafkaError._AUTHENTICATION, KafkaError._SSL)  # noqa: SLF001 - librdkafka's own names
"""Causes that waiting does not mend."""
TELLING = (*REFUSED, KafkaError._RESOLVE, KafkaError._TRANSPORT)  # noqa: SLF001
"""Causes that tell more than others, the most telling first."""

AWAY = {
    KafkaError._ALL_BROKERS_DOWN,  # noqa: SLF001
    KafkaError._TRANSPORT,  # noqa: SLF001
    KafkaError._RESOLVE,  # noqa: SLF001
    KafkaError._TIMED_OUT,  # noqa: SLF001
    KafkaError._TIMED_OUT_QUEUE,  # noqa: SLF001
    KafkaError._WAIT_COORD,  # noqa: SLF001
    KafkaError._UNKNOWN_PARTITION,  # noqa: SLF001 - just after a broker's return: which there are was seen at the start
    KafkaError._MAX_POLL_EXCEEDED,  # noqa: SLF001 - after minutes without Kafka: the member joins again
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.NETWORK_EXCEPTION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
    KafkaError.UNSTABLE_OFFSET_COMMIT,
}
"""No broker answers, or it is just coming up: the client goes on trying, and so may whoever has asked."""

LARGEST = 8 * 1024 * 1024
"""Bytes of a message, at most. By default NATS lets 1,048,576 through, and librdkafka only 1,000,000."""

TRANSACTION_TIMEOUT = 15.0
"""Seconds after which the broker gives up a transaction of a worker that is gone."""

KEPT = {"cleanup.policy": "delete", "retention.ms": "-1"}
"""A topic's settings that keep its records for ever."""


class Cluster:
    """Makes clients of one cluster."""

    def __init__(self, options: KafkaOptions) -> None:
        self.options = options
        self.threads = ThreadPoolExecutor(32, thread_name_prefix="kafka")
        self._admin: AdminClient | None = None
        self._silent: list[AdminClient] = []
        self._making = threading.Lock()  # two threads would each make one, and one of the two would lose its answers
        self._causes: dict[int, str] = {}
        self._inner: dict[str, str] = {}

    def outer(self, name: str) -> str:
        """A name of ours as the cluster knows it."""
        return self.options.prefix + name

    def inner(self, name: str) -> str:
        """A name of the cluster's as we know it: always the same string, whose hash is known."""
        return self._inner.get(name) or self._inner.setdefault(name, name[len(self.options.prefix) :])

    def record(self, message: Message) -> Record:
        """A message as a record."""
        return Record(
            self.inner(message.topic() or ""),
            message.partition() or 0,
            message.offset() or 0,
            message.timestamp()[1] / 1000,
            message.key(),
            message.value(),
            headers_of(message),
        )

    def produce(
        self,
        producer: Producer,
        sends: Sequence[Send],
        delivered: Callable[[KafkaError | None, Message], None] | None = None,
    ) -> None:
        """Queue the messages; a full queue is waited for.

        `delivered` hears of the last message for each partition that is named: those before it have come there as well.
        """
        # A named partition -> the last message for it.
        last: dict[tuple[str, int | None], Send] = {}
        if delivered is not None:
            last = {(send.topic, send.partition): send for send in sends if send.partition is not None}
        names: dict[str, str] = {}
        produce = producer.produce
        for send in sends:
            topic, headers, place = send.topic, send.headers, send.partition
            name = names.get(topic) or names.setdefault(topic, self.outer(topic))
            told = delivered if last and last.get((topic, place)) is send else None
            place = -1 if place is None else place  # librdkafka's own for "by the key"
            when = 0 if send.timestamp is None else int(1000 * send.timestamp)
            while True:
                try:
                    produce(name, send.value, send.key, place, told, None, when, list(headers) if headers else None)
                except BufferError:
                    served(lambda: producer.poll(0.1))
                else:
                    break

    @property
    def common(self) -> dict[str, Any]:
        """The settings that every client has. What fails, its caller hears: librdkafka's own lines would repeat it."""
        return {"bootstrap.servers": self.options.servers, "log_level": 0, **self.options.client}

    def consumer(self, **settings: Any) -> dict[str, Any]:
        """The settings of a consumer that sees committed records only."""
        return self.common | {
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 100,
            "fetch.queue.backoff.ms": 5,
            "queued.min.messages": 20_000,
            "queued.max.messages.kbytes": 32_768,
            **settings,
        }

    def producer(self, transactional_id: str) -> dict[str, Any]:
        """The settings of a transactional producer. Keys are placed by murmur2, as Java's and the embedded log's."""
        return self.common | {
            "transactional.id": self.outer(transactional_id),
            "transaction.timeout.ms": int(1000 * TRANSACTION_TIMEOUT),
            "partitioner": "murmur2_random",
            "message.max.bytes": LARGEST,
            # A commit sends at once what is still here. With less, a large transaction travels in more requests, each
            # of which costs the broker 0.2 ms or more, and us a write that wakes librdkafka's thread: 0.12 requests
            # an order with 5 ms, 0.07 with 50.
            "linger.ms": 50,
            # The broker asks for a retry while it still ends the transaction before: 100 ms is librdkafka's default.
            "retry.backoff.ms": 2,
            "retry.backoff.max.ms": 100,
            "queue.buffering.max.messages": 1_000_000,
            "queue.buffering.max.kbytes": 262_144,
            "compression.type": "lz4",
        }

    def committed(self, consumer: Consumer, places: Sequence[Place]) -> list[Place]:
        """The group's offsets of the places. Raises KafkaException, also when only one of them is not told."""
        found = consumer.committed(list(places), timeout=REQUEST)
        for place in found:
            if place.error is not None:
                raise KafkaException(place.error)
        return found

    def stands(
        self, group: str, places: Collection[TopicPartition], isolation: str = "read_committed"
    ) -> dict[TopicPartition, tuple[int | None, str]]:
        """The group's offset (None: it has none) and metadata of each place. Raises LogFailed.

        Asked by a consumer that is no member, so that the members go on meanwhile.
        """
        asking = Consumer(self.consumer(**{"group.id": self.outer(group), "isolation.level": isolation}))
        try:
            found = self.committed(asking, [Place(self.outer(topic), partition) for topic, partition in places])
        except KafkaException as error:
            raise failed(f"{group} does not tell where it stands", error) from error
        finally:
            asking.close()
        return {
            TopicPartition(self.inner(place.topic), place.partition): (
                place.offset if place.offset >= 0 else None,
                place.metadata or "",
            )
            for place in found
        }

    def set_offsets(self, group: str, offsets: Mapping[TopicPartition, int]) -> None:
        """Set them from outside of the group. Raises LogFailed, also while the group has members."""
        name = self.outer(group)
        places = [Place(self.outer(topic), partition, at) for (topic, partition), at in offsets.items()]
        wanted = [ConsumerGroupTopicPartitions(name, places)]
        try:
            done = answer(self.admin.alter_consumer_group_offsets(wanted, request_timeout=FOR_EVER)[name])
            for place in done.topic_partitions:
                if place.error is not None:
                    raise KafkaException(place.error)
        except KafkaException as error:
            raise failed(f"the offsets of {group} can't be set", error) from error

    async def call(self, work: Callable[..., T], *arguments: Any) -> T:
        """A call that blocks, on a thread. Whoever is cancelled waits for its end: nobody else may call meanwhile."""
        return await unbroken(asyncio.get_running_loop().run_in_executor(self.threads, work, *arguments))

    @property
    def admin(self) -> AdminClient:
        """The admin client."""
        with self._making:
            if self._admin is None:
                self._admin = AdminClient(
                    self.common | {"error_cb": lambda error: self._causes.update({error.code(): error.str()})}
                )
            return self._admin

    def renew_admin(self, silent: AdminClient) -> None:
        """Take another admin client in the place of one that gets no answer while Kafka gives answers to others.

        The silent one stays: an answer that came to one that is gone would end the process. Blocks, up to a second.

        Raises:
            KafkaException: Kafka answers nobody.
        """
        silent.list_topics(timeout=1.0)
        with self._making:
            if self._admin is silent:
                self._silent.append(silent)
                self._admin = None

    def reach(self, within: float = REQUEST) -> None:
        """Ask for anything.

        Raises:
            LogAway: no broker answers within so many seconds.
            LogFailed: it refuses us.
        """
        deadline = time.monotonic() + within
        self._causes.clear()
        while True:
            try:
                self.admin.list_topics(timeout=1.0)
            except KafkaException as error:
                causes = self._causes
                self.admin.poll(0)  # what the client knows of the cause
                refused = any(code in causes for code in REFUSED)
                if refused or time.monotonic() > deadline:
                    cause = next((causes[code] for code in TELLING if code in causes), why(error).str())
                    failure = LogFailed if refused else LogAway
                    raise failure(f"no Kafka at {self.options.servers}: {cause}") from error
                time.sleep(0.1)
            else:
                return

    def topic_ids(self, names: Collection[str]) -> dict[str, str]:
        """The topics' ids, which no other topic has, also not one that is made anew under its name.

        Raises:
            LogFailed: the broker does not tell.
        """
        if not names:
            return {}
        try:
            names_there = TopicCollection([self.outer(name) for name in names])
            asked = self.admin.describe_topics(names_there, request_timeout=FOR_EVER)
            return {name: str(answer(asked[self.outer(name)]).topic_id) for name in names}
        except KafkaException as error:
            raise failed(f"not every topic of {sorted(names)} is known", error) from error

    def partitions(self) -> dict[str, int]:
        """Every topic of ours and how many partitions it has."""
        try:
            topics = self.admin.list_topics(timeout=REQUEST).topics
        except KafkaException as error:
            raise failed("its topics are not told", error) from error
        prefix = self.options.prefix
        return {self.inner(name): len(of.partitions) for name, of in topics.items() if name.startswith(prefix)}

    def describe(self) -> dict[str, TopicState]:
        """Every topic of ours, as it is. Raises LogFailed."""
        prefix = self.options.prefix
        try:
            there = self.admin.list_topics(timeout=REQUEST).topics
            topics = {name: topic for name, topic in there.items() if name.startswith(prefix) and name[:2] != "__"}
            configs = self._configs(topics)
            places = [Place(name, partition) for name, topic in topics.items() for partition in topic.partitions]
            first = self._offsets(places, OffsetSpec.earliest())  # type: ignore[no-untyped-call]
            last = self._offsets(places, OffsetSpec.latest())  # type: ignore[no-untyped-call]
        except KafkaException as error:
            raise failed("its topics are not told", error) from error
        states = {}
        for name, topic in topics.items():
            policy, retention = configs[name]["cleanup.policy"], float(configs[name]["retention.ms"])
            records = sum(last[name, partition] - first[name, partition] for partition in topic.partitions)
            copies = min((len(partition.replicas) for partition in topic.partitions.values()), default=0)
            kept = None if retention < 0 or "delete" not in policy else retention / 1000
            states[self.inner(name)] = TopicState(len(topic.partitions), policy, copies, kept, records)
        return states

    def _configs(self, names: Iterable[str]) -> dict[str, dict[str, str]]:
        resources = [ConfigResource(ConfigResource.Type.TOPIC, name) for name in names]
        asked = self.admin.describe_configs(resources, request_timeout=FOR_EVER) if resources else {}
        try:
            return {
                resource.name: {name: entry.value for name, entry in answer(future).items()}
                for resource, future in asked.items()
            }
        except KafkaException as error:
            raise failed("the settings of its topics are not told", error) from error

    def _offsets(self, places: Collection[Place], spec: OffsetSpec) -> dict[tuple[str, int], int]:
        asked = self.admin.list_offsets(dict.fromkeys(places, spec), request_timeout=FOR_EVER) if places else {}
        return {(place.topic, place.partition): answer(future).offset for place, future in asked.items()}

    def prepare(self, topics: Mapping[str, bool], partitions: int, settings: Mapping[str, str] | None = None) -> None:
        """Make the topics (name -> compacted) that are missing, and check that the others have so many partitions.

        `settings`: further ones of the topics that are made.

        Raises:
            TopicMismatch: one has other partitions, or another cleanup policy.
        """
        there = self.partitions()
        missing = [
            NewTopic(
                self.outer(name),
                partitions,
                self.options.replication,
                config={
                    "max.message.bytes": str(LARGEST),
                    **({"cleanup.policy": "compact"} if compacted else KEPT),
                    **(settings or {}),
                },
            )
            for name, compacted in topics.items()
            if name not in there
        ]
        if missing:
            made = self.admin.create_topics(missing, operation_timeout=REQUEST, request_timeout=FOR_EVER)
            for future in made.values():
                try:
                    answer(future)
                except KafkaException as error:
                    if why(error).code() != KafkaError.TOPIC_ALREADY_EXISTS:  # another worker made it meanwhile
                        raise failed("a topic can't be made", error) from error
        there = self.known(topics)
        for name in topics:
            if there.get(name) != partitions:
                raise TopicMismatch(
                    f"topic {name!r} has {there.get(name, 0)} partitions at {self.options.servers}, and {partitions} "
                    "are wanted: set PARTITIONS as it was, or use another cluster"
                )
        self.check_policies(topics)

    def known(self, topics: Iterable[str]) -> dict[str, int]:
        """The partitions of every topic, once the brokers have told each other of the new ones."""
        deadline = time.monotonic() + REQUEST
        while True:
            there = self.partitions()
            if all(name in there for name in topics) or time.monotonic() > deadline:
                return there
            time.sleep(0.1)

    def check_policies(self, topics: Mapping[str, bool]) -> None:
        """Check that the topics (name -> compacted) are compacted or not. Raises TopicMismatch."""
        for name, config in self._configs([self.outer(name) for name in topics]).items():
            policy = config["cleanup.policy"]
            compacted = topics[self.inner(name)]
            if ("compact" in policy) != compacted:
                wanted = "compact" if compacted else "delete"
                raise TopicMismatch(f"topic {name!r} has cleanup.policy={policy}, and {wanted} is wanted")

    def close(self) -> None:
        """End the threads."""
        self.threads.shutdown(wait=False, cancel_futures=True)


def headers_of(message: Message) -> Headers:
    """A message's headers as a record has them."""
    headers = message.headers()
    return cast(Headers, tuple(headers)) if headers else ()


def served(work: Callable[[], object]) -> None:
    """A call that serves callbacks. The client raises what is fatal in the midst of them, which makes a SystemError."""
    try:
        work()
    except SystemError as error:
        if isinstance(error.__cause__, KafkaException):
            raise error.__cause__ from None
        raise


def answer(future: Future[Any]) -> Any:
    """The admin client's answer. Raises KafkaException, also when it does not come in time: it is not given up."""
    try:
        return future.result(REQUEST)
    except TimeoutError:
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT, f"no answer within {REQUEST:g} s")) from None  # noqa: SLF001


def failed(what: str, error: KafkaException) -> LogFailed:
    """The exception as the engine's own."""
    reason = why(error)
    return (LogAway if passing(reason) else LogFailed)(f"Kafka: {what}: {reason.str()}")


def passing(error: KafkaError) -> bool:
    """Whether it may be over when Kafka is asked again."""
    return not error.fatal() and (error.retriable() or error.code() in AWAY)


def why(error: KafkaException) -> KafkaError:
    """The KafkaError in an exception."""
    return cast(KafkaError, error.args[0])
