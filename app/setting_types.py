"""What settings may be, checked and said in words, and how a value with a secret in it is shown. Decides no setting."""

import re
import socket
from pathlib import Path
from typing import Annotated, Literal, NamedTuple
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field

EMBEDDED = "embedded://"
KAFKA = "kafka://"


class Allowed(NamedTuple):
    """What a variable may be, in words for people."""

    words: str


def redact(value: str) -> str:
    """Return the value with the passwords and tokens of its URLs replaced by `***`."""
    return ",".join(_redact_one(url) for url in split_urls(value))


def split_urls(value: str) -> list[str]:
    """The URLs of a list with commas. A password may hold one: a new URL starts only where a scheme does."""
    return re.split(r",\s*(?=[a-z]+://)", value)


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


def parts_of(url: str, schemes: tuple[str, ...]) -> SplitResult:
    """A URL's parts. Raises ValueError for another scheme, and without a host."""
    parts = urlsplit(url)
    if parts.scheme not in schemes or not parts.hostname or parts.port == 0:
        raise ValueError
    return parts


def _smtp_url(value: str | None) -> str | None:
    if value is not None:
        parts_of(value, ("smtp", "smtps"))
    return value


def _broker(value: str) -> str:
    if value.startswith(KAFKA):
        for server in value.removeprefix(KAFKA).split(","):
            parts_of(KAFKA + server, ("kafka",))
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
    parts = parts_of(value, ("http", "https"))
    if parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError
    return value.rstrip("/")


def reached_at(host: str, port: int) -> str:
    """The URL of what listens there, for others."""
    host = socket.gethostname() if host in {"0.0.0.0", "::"} else host  # noqa: S104 - read, not bound
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def is_loopback(url: str) -> bool:
    """Whether the URL's (first) host is this machine, seen from itself only."""
    host = urlsplit(url.partition(",")[0]).hostname or ""
    return host in {"localhost", "::1"} or host.startswith("127.")


def _secret_file(path: Path | None) -> Path | None:
    try:
        secret(path)
    except OSError as error:
        raise ValueError(error.strerror) from error
    return path


def secret(path: Path | None) -> str | None:
    """What a file holds, without the space around it; None without a file."""
    return path.read_text("utf-8").strip() if path else None


def _log_level(value: object) -> object:
    level = str(value).lower()
    return {"warn": "warning", "verbose": "debug", "fatal": "critical"}.get(level, level)


Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$"), Allowed("letters, digits, - and _")]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False), Allowed("a number of seconds above 0")]
Attempts = Annotated[int, Field(ge=1, le=100), Allowed("a whole number from 1 to 100")]
SecretFile = Annotated[Path | None, AfterValidator(_secret_file), Allowed("a UTF-8 file that can be read")]
SmtpUrl = Annotated[str | None, AfterValidator(_smtp_url), Allowed("smtp[s]://[user:password@]host[:port]")]
Broker = Annotated[
    str, AfterValidator(_broker), Allowed("embedded:///absolute/path/of/the/log.db or kafka://host:port[,host:port]")
]
KafkaUrl = Annotated[str | None, AfterValidator(_kafka_url), Allowed("kafka://host:port[,host:port]")]
WebUrl = Annotated[str, AfterValidator(_web_url), Allowed("http[s]://host[:port]")]
MailAddress = Annotated[str, AfterValidator(_mail_address), Allowed("name@host or Name <name@host>")]
AbsolutePath = Annotated[Path, AfterValidator(Path.absolute)]
LogLevel = Annotated[
    Literal["debug", "info", "warning", "error", "critical"],
    BeforeValidator(_log_level),
    Allowed("debug, info, warning, error or critical"),
]
