"""Every setting: its environment variable, its default, its unit and what is allowed. Decides nothing from them.

A variable is the field's name in capitals (`nats_url` is NATS_URL). It comes from the environment, else from the
file `.env`, else it has its default. Times are seconds.
"""

import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

from dotenv import dotenv_values
from pydantic import Field, ValidationError, model_validator
from pydantic_settings import SettingsConfigDict

from app.domain.policy import Policy, Role
from app.engine.kafka.options import KafkaOptions
from app.nats_settings import NatsSettings
from app.setting_types import (
    EMBEDDED,
    KAFKA,
    AbsolutePath,
    Allowed,
    Attempts,
    Broker,
    KafkaUrl,
    LogLevel,
    MailAddress,
    Seconds,
    SecretFile,
    SmtpUrl,
    WebUrl,
    Word,
    reached_at,
    redact,
    secret,
)

LARGEST_ON_KAFKA = 7 * 1024 * 1024
"""Bytes of a payload: our topics take records of 8 MiB, with their headers."""


class SettingsError(Exception):
    """A setting is wrong. Its text has one line for each: the variable, its value, what is allowed."""


AnyRole = Annotated[Role, Allowed("act, observe or shadow")]
StockRole = Annotated[Literal["act", "shadow"], Allowed("act or shadow")]
PaymentRequest = Annotated[
    Literal["payment.initiated", "order.payment.requested", "none"],
    Allowed("payment.initiated, order.payment.requested or none"),
]


class Settings(NatsSettings):
    """The settings of one process. Make it with `load`, which tells in one line what is wrong.

    A field with `repr=False` may hold a password: it is shown redacted.
    """

    model_config = SettingsConfigDict(
        env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True, validate_default=True
    )

    # ---- this process ----
    service_name: Word = Field("a4co-streams", description="who we say we are: to NATS, in logs and /health")
    log_level: LogLevel = Field("info", description="how much is logged")
    debug: str = Field("", description="loggers that log everything, as nats:*,a4co:*")
    data_dir: AbsolutePath = Field(Path("data"), description="folder of the embedded log and the tables")
    kafka_url: KafkaUrl = Field(None, description="Kafka's brokers, for many workers; unset: the embedded log")
    broker: Broker = Field(
        default_factory=lambda data: data.get("kafka_url") or f"{EMBEDDED}{data.get('data_dir', '')}/log.db",
        description="the log: by default KAFKA_URL, else log.db in DATA_DIR",
        repr=False,
    )
    partitions: Annotated[int, Field(ge=1, le=256), Allowed("a whole number from 1 to 256")] = Field(
        4, description="partitions of every topic; fixed once the log is made"
    )
    log_retention: Seconds = Field(
        30 * 86400.0, description="seconds that an embedded log keeps a record which everybody is done with"
    )
    analytics_delay: Seconds = Field(
        1, description="seconds that counts of orders are collected before they show in /api/analytics"
    )
    topic_prefix: str = Field("", description="stands before the names of topics and groups on Kafka")
    topic_replication: Annotated[int, Field(ge=1, le=32767), Allowed("a whole number from 1")] = Field(
        1, description="copies of every topic on Kafka; 3 in production"
    )
    worker_name: Word = Field(
        default_factory=lambda: re.sub(r"[^A-Za-z0-9_-]", "-", socket.gethostname()) or "worker",
        description="this worker among others on Kafka: the same after a restart, another for each process",
    )
    bridge: Annotated[Literal["inside", "apart"], Allowed("inside or apart")] = Field(
        "inside",
        description="where the bridge runs: inside this worker, or in processes of its own beside it (`a4co bridge`)",
    )
    standby: bool = Field(
        False, description="follow the partitions of other workers on Kafka too, to take them over faster"
    )
    commit_records: Annotated[int, Field(ge=1, le=100_000), Allowed("a whole number from 1 to 100000")] = Field(
        20_000, description="records in one Kafka transaction, at most"
    )
    commit_seconds: Seconds = Field(0.1, description="seconds that a Kafka transaction collects records, at most")
    kafka_security_protocol: Annotated[
        Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"],
        Allowed("PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL"),
    ] = Field("PLAINTEXT", description="how Kafka is spoken to")
    kafka_sasl_mechanism: Annotated[
        Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"], Allowed("PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512")
    ] = Field("SCRAM-SHA-512", description="how Kafka is told who we are, with SASL")
    kafka_sasl_username: str = Field("", description="user name for SASL")
    kafka_sasl_password_file: SecretFile = Field(None, description="a file that holds KAFKA_SASL_PASSWORD")
    kafka_sasl_password: str = Field(
        default_factory=lambda data: secret(data.get("kafka_sasl_password_file")) or "",
        description="password for SASL",
        repr=False,
    )
    kafka_ca_file: Path | None = Field(None, description="certificates to trust Kafka's by, with SSL")
    web_host: Annotated[str, Field(pattern=r"^\S+$"), Allowed("a name or an address")] = Field(
        "127.0.0.1", description="address that the HTTP server listens on"
    )
    web_port: Annotated[int, Field(ge=1, le=65535), Allowed("a port from 1 to 65535")] = Field(
        6066, description="port that the HTTP server listens on"
    )
    web_url: WebUrl = Field(
        default_factory=lambda data: reached_at(data.get("web_host", ""), data.get("web_port", 0)),
        description="where other workers reach this one's HTTP; by default WEB_HOST and WEB_PORT",
    )

    live_clients: Annotated[int, Field(ge=1, le=10_000), Allowed("a whole number from 1 to 10000")] = Field(
        100, description="clients that may listen to the live feed at once"
    )

    # ---- the saga ----
    payment_retry_delay: Seconds = Field(300, description="seconds from a retryable failure to the next request")
    payment_max_attempts: Attempts = Field(3, description="times that one order's payment is asked for")
    payment_timeout: Seconds = Field(900, description="seconds to wait for the payment's answer")
    reservation_ttl: Seconds = Field(1800, description="seconds that stock is held for an unpaid order")
    payment_request: PaymentRequest = Field("payment.initiated", description="the event that asks for a payment")
    role_reserve: StockRole = Field(
        "act", description="who reserves and releases stock: we, or we only log what we would"
    )
    role_confirm: AnyRole = Field(
        "act", description="who confirms orders: we (act), another service (observe), or we only log it (shadow)"
    )
    role_cancel: AnyRole = Field("act", description="who cancels orders, as ROLE_CONFIRM")

    # ---- traces ----
    otel_exporter_otlp_endpoint: WebUrl | None = Field(
        None, description="where spans are reported by OTLP over HTTP; unset: none are made"
    )

    # ---- mail ----
    smtp_url_file: SecretFile = Field(None, description="a file that holds SMTP_URL, instead of it")
    smtp_url: SmtpUrl = Field(
        default_factory=lambda data: secret(data.get("smtp_url_file")),
        description="the mail server; unset: another service sends the mails",
        repr=False,
    )
    role_notify: AnyRole = Field(
        default_factory=lambda data: "act" if data.get("smtp_url") else "observe",
        description="who tells the customer; by default we (act) when SMTP_URL is set, else another service (observe)",
    )
    mail_from: MailAddress = Field("A4CO <no-reply@a4co.local>", description="sender of the mails")
    mail_max_attempts: Attempts = Field(5, description="times that one mail is tried")
    mail_retry_delay: Seconds = Field(30, description="seconds to a mail's second try, doubled for each further one")

    @model_validator(mode="after")
    def _says_each_thing_once(self) -> Self:
        if {"smtp_url", "smtp_url_file"} <= self.model_fields_set:
            raise ValueError("SMTP_URL and SMTP_URL_FILE are both set: only one of them may be")
        if self.standby and not self.broker.startswith(KAFKA):
            raise ValueError(
                "STANDBY=true needs Kafka (KAFKA_URL): the embedded log has one worker, who owns everything"
            )
        if self.bridge == "apart" and not self.broker.startswith(KAFKA):
            raise ValueError(
                "BRIDGE=apart needs Kafka (KAFKA_URL): the embedded log has one process, and the bridge is in it"
            )
        if self.payload_limit > LARGEST_ON_KAFKA and self.broker.startswith(KAFKA):
            raise ValueError(
                f"PAYLOAD_LIMIT={self.payload_limit} is more than Kafka's topics take: {LARGEST_ON_KAFKA} at most"
            )
        if self.role_notify == "act" and not self.smtp_url:
            raise ValueError("ROLE_NOTIFY=act needs SMTP_URL: without a mail server we cannot tell the customer")
        return self

    @property
    def kafka(self) -> KafkaOptions | None:
        """How to reach Kafka; None: the log is embedded."""
        if not self.broker.startswith(KAFKA):
            return None
        client: dict[str, str] = {"security.protocol": self.kafka_security_protocol}
        if self.kafka_security_protocol.startswith("SASL"):
            client |= {
                "sasl.mechanism": self.kafka_sasl_mechanism,
                "sasl.username": self.kafka_sasl_username,
                "sasl.password": self.kafka_sasl_password,
            }
        if self.kafka_ca_file is not None:
            client["ssl.ca.location"] = str(self.kafka_ca_file)
        return KafkaOptions(
            servers=self.broker.removeprefix(KAFKA),
            worker=self.worker_name,
            url=self.web_url,
            prefix=self.topic_prefix,
            client=client,
            replication=self.topic_replication,
            commit_records=self.commit_records,
            commit_seconds=self.commit_seconds,
        )

    @property
    def log_path(self) -> Path:
        """The embedded log's file."""
        return Path(self.broker.removeprefix(EMBEDDED))

    def policy(self) -> Policy:
        """Return what the saga's rules need to know of the settings."""
        return Policy(
            payment_retry_delay=self.payment_retry_delay,
            payment_max_attempts=self.payment_max_attempts,
            payment_timeout=self.payment_timeout,
            reservation_ttl=self.reservation_ttl,
            mail_max_attempts=self.mail_max_attempts,
            mail_retry_delay=self.mail_retry_delay,
            payment_request=self.payment_request,
            reserve=self.role_reserve,
            confirm=self.role_confirm,
            cancel=self.role_cancel,
            notify=self.role_notify,
        )


def load() -> Settings:
    """Read the settings of this process. Raises SettingsError."""
    try:
        return Settings()
    except ValidationError as error:
        raise SettingsError("\n".join(_lines(error))) from None


def _lines(error: ValidationError) -> list[str]:
    return [_line(detail) for detail in error.errors() if detail["type"] != "default_factory_not_called"]


def _line(detail: Mapping[str, Any]) -> str:
    cause = str(detail.get("ctx", {}).get("error", ""))
    if not detail["loc"]:
        return cause
    name = str(detail["loc"][0])
    allowed = "".join(f"; allowed: {m.words}" for m in Settings.model_fields[name].metadata if isinstance(m, Allowed))
    cause = f": {cause}" if cause else ""
    return f"{name.upper()}={_for_people(name, detail['input'])} is wrong{cause}{allowed or ': ' + detail['msg']}"


class Shown(NamedTuple):
    """One setting for people: its variable, its value without secrets, and where that came from."""

    name: str
    value: str
    source: str


def shown(settings: Settings) -> list[Shown]:
    """Return every setting, in the order of the class, with secrets replaced by `***`."""
    environment = {name.upper() for name, value in os.environ.items() if value}
    read = str(settings.model_config.get("env_file") or os.devnull)
    env_file = {name.upper() for name, value in dotenv_values(read).items() if value}

    def source(name: str) -> str:
        if name in environment:
            return "environment"
        if name in env_file:
            return read
        return f"{name}_FILE" if getattr(settings, f"{name.lower()}_file", None) else "default"

    return [Shown(name.upper(), _for_people(name, value), source(name.upper())) for name, value in settings]


def _for_people(name: str, value: object) -> str:
    text = "" if value is None else f"{value:.15g}" if isinstance(value, float) else str(value)
    if Settings.model_fields[name].repr:
        return text
    return redact(text) if not name.endswith(("password", "token")) else "***" if text else ""
