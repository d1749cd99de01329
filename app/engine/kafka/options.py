"""How to reach a Kafka cluster and how to work on it. Imports no client, so that settings can name it."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class KafkaOptions:
    """How to reach a cluster and how to work on it.

    `servers` is host:port, several by commas. `worker` names this process: the same after a restart, so that it ends
    its own unfinished transactions. `prefix` stands before every name of ours (topics, groups, transactional ids), so
    that several applications can share a cluster. `url` is where the other workers reach this one over HTTP. `client`
    holds further librdkafka settings (security). A transaction is committed when nothing more waits, or it has
    `commit_records` records, or is `commit_seconds` old. `group_protocol`: "consumer" (KIP-848, Kafka 4: partitions
    that stay are not disturbed when others move) or "classic".
    """

    servers: str
    worker: str
    prefix: str = ""
    url: str = ""
    client: Mapping[str, str] = field(default_factory=dict)
    replication: int = 1
    commit_records: int = 20_000
    commit_seconds: float = 0.1
    group_protocol: str = "consumer"
