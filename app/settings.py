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
from urllib.parse import SplitResult, unquote, urlsplit

from dotenv import dotenv_values
from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.domain.order_saga import Policy, Role
from app.engine.kafka.options import KafkaOptions

EMBEDDED = "embedded://"
KAFKA = "kafka://"


class SettingsError(Exception):
    """A setting is wrong. Its text has one line for each: the variable, its value, what is allowed."""


class Allowed(NamedTuple):
    """What a variable may be, in words for people."""

    words: str


def redact(value: str) -> str:
    """Return the value with the passwords and tokens of its URLs replaced by `***`."""
    return ",".join(_redact_one(url) for url in _split_urls(value))


def _split_urls(value: str) -> list[str]:
    # A password may hold a comma: a new URL starts only where a scheme does.
    return re.split(r",\s*(?=[a-z]+://)", value)


def nats_servers(value: str) -> list[str]:
    """The URLs of a NATS_URL as nats-py takes them: it sends a user and a password as they stand, still encoded."""
    return [_decoded(url) for url in _split_urls(value)]


def _decoded(url: str) -> str:
    userinfo, at, host = url.rpartition("@")
    scheme, _, userinfo = userinfo.partition("://")
    user, colon, password = userinfo.partition(":")
    user, password = unquote(user), unquote(password)
    # nats-py would take what follows one of these for another part of the URL.
    if not at or set("/?#[]") & set(user + password) or ":" in user:
        return url
    return f"{scheme}://{user}{colon}{password}@{host}"


def _redact_one(url: str) -> str:
    userinfo, at, host = url.rpartition("@")
    if not at:
        return url
    scheme, slashes, userinfo = userinfo.partition("://")
    user, colon, _ = userinfo.partition(":")
    return (
        f"{scheme}{slashes}{user}:***@{host}"
        if slashes and colon
        else f"{scheme if slashes else ''}{slashes}***@{host}"
    )


def _parts(url: str, schemes: tuple[str, ...]) -> SplitResult:
    parts = urlsplit(url)
    if parts.scheme not in schemes or not parts.hostname or parts.port == 0:
        raise ValueError
    return parts


def _nats_url(value: str) -> str:
    urls = _split_urls(value.strip())
    for url in urls:
        _parts(url, ("nats", "tls", "ws", "wss"))
    return ",".join(urls)


def _smtp_url(value: str | None) -> str | None:
    if value is not None:
        _parts(value, ("smtp", "smtps"))
    return value


def _broker(value: str) -> str:
    if value.startswith(KAFKA):
        for server in value.removeprefix(KAFKA).split(","):
            _parts(KAFKA + server, ("kafka",))
        return value
    if not value.removeprefix(EMBEDDED).startswith("/") or value.endswith("/"):
        raise ValueError
    return value


def _kafka_url(value: str | None) -> str | None:
    return value if value is None else _broker(value) if value.startswith(KAFKA) else _not_kafka()


def _not_kafka() -> str:
    raise ValueError


def _mail_address(value: str) -> str:
    if not re.fullmatch(r"[^@\r\n]*[^@\s<]@[^@\s<]+", value):
        raise ValueError
    return value


def _web_url(value: str) -> str:
    parts = _parts(value, ("http", "https"))
    if parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError
    return value.rstrip("/")


def _reached_at(host: str, port: int) -> str:
    host = socket.gethostname() if host in {"0.0.0.0", "::"} else host  # noqa: S104 - read, not bound
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def is_loopback(url: str) -> bool:
    """Whether the URL's (first) host is this machine, seen from itself only."""
    host = urlsplit(url.partition(",")[0]).hostname or ""
    return host in {"localhost", "::1"} or host.startswith("127.")


def _secret_file(path: Path | None) -> Path | None:
    try:
        _secret(path)
    except OSError as error:
        raise ValueError(error.strerror) from error
    return path


def _secret(path: Path | None) -> str | None:
    return path.read_text("utf-8").strip() if path else None


def _log_level(value: object) -> object:
    level = str(value).lower()
    return {"warn": "warning", "verbose": "debug", "fatal": "critical"}.get(level, level)


Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$"), Allowed("letters, digits, - and _")]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False), Allowed("a number of seconds above 0")]
Attempts = Annotated[int, Field(ge=1, le=100), Allowed("a whole number from 1 to 100")]
AnyRole = Annotated[Role, Allowed("act, observe or shadow")]
StockRole = Annotated[Literal["act", "shadow"], Allowed("act or shadow")]
SecretFile = Annotated[Path | None, AfterValidator(_secret_file), Allowed("a UTF-8 file that can be read")]
NatsUrl = Annotated[str, AfterValidator(_nats_url), Allowed("nats://[user:password@]host[:port], several by commas")]
SmtpUrl = Annotated[str | None, AfterValidator(_smtp_url), Allowed("smtp[s]://[user:password@]host[:port]")]
Broker = Annotated[
    str, AfterValidator(_broker), Allowed("embedded:///absolute/path/of/the/log.db or kafka://host:port[,host:port]")
]
WebUrl = Annotated[str, AfterValidator(_web_url), Allowed("http[s]://host[:port]")]
MailAddress = Annotated[str, AfterValidator(_mail_address), Allowed("name@host or Name <name@host>")]
AbsolutePath = Annotated[Path, AfterValidator(Path.absolute)]
LogLevel = Annotated[
    Literal["debug", "info", "warning", "error", "critical"],
    BeforeValidator(_log_level),
    Allowed("debug, info, warning, error or critical"),
]
PaymentRequest = Annotated[
    Literal["payment.initiated", "order.payment.requested", "none"],
    Allowed("payment.initiated, order.payment.requested or none"),
]


class Settings(BaseSettings):
    """The settings of one process. Make it with `load`, which tells in one line what is wrong.

    A field with `repr=False` may hold a password: it is shown redacted.
    """

    model_config = SettingsConfigDict(
        env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True, validate_default=True
    )

    # ---- NATS, with the names that the marketplace has ----
    nats_url_file: SecretFile = Field(None, description="a file that holds NATS_URL, instead of it")
    nats_url: NatsUrl = Field(
        default_factory=lambda data: _secret(data.get("nats_url_file")) or "nats://127.0.0.1:4222",
        description="where NATS listens",
        repr=False,
    )
    nats_cluster_name: Word = Field("a4co-marketplace", description="the NATS cluster's name, told in /health")
    nats_stream: Word = Field("A4CO_EVENTS", description="the JetStream stream that keeps the marketplace's subjects")
    service_name: Word = Field("a4co-streams", description="who we say we are: to NATS, in logs and /health")
    log_level: LogLevel = Field("info", description="how much is logged")
    debug: str = Field("", description="loggers that log everything, as nats:*,a4co:*")

    # ---- this process ----
    data_dir: AbsolutePath = Field(Path("data"), description="folder of the embedded log and the tables")
    kafka_url: Annotated[str | None, AfterValidator(_kafka_url), Allowed("kafka://host:port[,host:port]")] = Field(
        None, description="Kafka's brokers, for many workers; unset: the embedded log"
    )
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
    topic_prefix: str = Field("", description="stands before the names of topics and groups on Kafka")
    topic_replication: Annotated[int, Field(ge=1, le=32767), Allowed("a whole number from 1")] = Field(
        1, description="copies of every topic on Kafka; 3 in production"
    )
    worker_name: Word = Field(
        default_factory=lambda: re.sub(r"[^A-Za-z0-9_-]", "-", socket.gethostname()) or "worker",
        description="this worker among others on Kafka: the same after a restart, another for each process",
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
        default_factory=lambda data: _secret(data.get("kafka_sasl_password_file")) or "",
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
        default_factory=lambda data: _reached_at(data.get("web_host", ""), data.get("web_port", 0)),
        description="where other workers reach this one's HTTP; by default WEB_HOST and WEB_PORT",
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

    # ---- mail ----
    smtp_url_file: SecretFile = Field(None, description="a file that holds SMTP_URL, instead of it")
    smtp_url: SmtpUrl = Field(
        default_factory=lambda data: _secret(data.get("smtp_url_file")),
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
        for name in ("nats_url", "smtp_url"):
            if {name, f"{name}_file"} <= self.model_fields_set:
                raise ValueError(f"{name.upper()} and {name.upper()}_FILE are both set: only one of them may be")
        if self.standby and not self.broker.startswith(KAFKA):
            raise ValueError(
                "STANDBY=true needs Kafka (KAFKA_URL): the embedded log has one worker, who owns everything"
            )
        if self.role_notify == "act" and not self.smtp_url:
            raise ValueError("ROLE_NOTIFY=act needs SMTP_URL: without a mail server we cannot tell the customer")
        return self

    @property
    def nats_servers(self) -> list[str]:
        """The URLs in NATS_URL, for nats-py."""
        return nats_servers(self.nats_url)

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
    return redact(text) if not name.endswith("password") else "***" if text else ""
