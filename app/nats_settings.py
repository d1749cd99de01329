"""The settings of NATS: where it is, who we are to it, how it is trusted. Decides only what may go together.

The names are those that the marketplace has, or `nats` clients have.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, Field, model_validator
from pydantic_settings import BaseSettings

from app.setting_types import Allowed, SecretFile, Word, parts_of, secret, split_urls

MEBIBYTE = 1_048_576


@dataclass(frozen=True)
class NatsOptions:
    """How the bridge comes in to NATS. Files are read at each connection, so that they can be exchanged meanwhile."""

    user: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    nkey_file: Path | None = None
    creds_file: Path | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    tls_first: bool = False
    inbox_prefix: str = "_INBOX"
    payload_limit: int = MEBIBYTE

    @property
    def wants_tls(self) -> bool:
        """Whether nothing may be said to a server without TLS."""
        return self.tls_first or bool(self.ca_file or self.cert_file)


def nats_servers(value: str) -> list[str]:
    """The URLs of a NATS_URL as nats-py takes them: it sends a user and a password as they stand, still encoded."""
    return [_decoded(url) for url in split_urls(value)]


def _decoded(url: str) -> str:
    userinfo, at, host = url.rpartition("@")
    scheme, _, userinfo = userinfo.partition("://")
    user, colon, password = userinfo.partition(":")
    user, password = unquote(user), unquote(password)
    # nats-py would take what follows one of these for another part of the URL.
    if not at or set("/?#[]") & set(user + password) or ":" in user:
        return url
    return f"{scheme}://{user}{colon}{password}@{host}"


def _nats_url(value: str) -> str:
    urls = split_urls(value.strip())
    for url in urls:
        parts_of(url, ("nats", "tls", "ws", "wss"))
    return ",".join(urls)


NatsUrl = Annotated[str, AfterValidator(_nats_url), Allowed("nats://[user:password@]host[:port], several by commas")]
InboxPrefix = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$"), Allowed("a subject of letters, digits, -, _ and dots")
]


class NatsSettings(BaseSettings):
    """What is set of NATS. One way to say who we are, at most: a user, a token, an nkey or a credentials file."""

    nats_url_file: SecretFile = Field(None, description="a file that holds NATS_URL, instead of it")
    nats_url: NatsUrl = Field(
        default_factory=lambda data: secret(data.get("nats_url_file")) or "nats://127.0.0.1:4222",
        description="where NATS listens",
        repr=False,
    )
    nats_cluster_name: Word = Field("a4co-marketplace", description="the NATS cluster's name, told in /health")
    nats_stream: Word = Field("A4CO_EVENTS", description="the JetStream stream that keeps the marketplace's subjects")
    nats_history: Annotated[Literal["auto", "take", "skip"], Allowed("auto, take or skip")] = Field(
        "auto",
        description="messages from before a stream was first met: taken, left out, or (auto) of our own stream taken",
    )
    routes_file: Path | None = Field(None, description="a TOML file that changes the routes: see docs/bridge.md")
    nats_user: str = Field("", description="user name for NATS")
    nats_password_file: SecretFile = Field(None, description="a file that holds NATS_PASSWORD, instead of it")
    nats_password: str = Field(
        default_factory=lambda data: secret(data.get("nats_password_file")) or "",
        description="password for NATS",
        repr=False,
    )
    nats_token_file: SecretFile = Field(None, description="a file that holds NATS_TOKEN, instead of it")
    nats_token: str = Field(
        default_factory=lambda data: secret(data.get("nats_token_file")) or "",
        description="token for NATS",
        repr=False,
    )
    nats_nkey_file: SecretFile = Field(None, description="a file that holds an nkey's seed (SU...)")
    nats_creds_file: SecretFile = Field(None, description="a credentials file: a user's JWT and seed, as nsc makes it")
    nats_ca_file: SecretFile = Field(None, description="certificates to trust NATS by; TLS is then a must")
    nats_cert_file: SecretFile = Field(None, description="our certificate, for servers that want one (mTLS)")
    nats_key_file: SecretFile = Field(None, description="the key of NATS_CERT_FILE")
    nats_tls_first: Annotated[bool, Allowed("true or false")] = Field(
        False, description="TLS from the first byte on (the server's handshake_first)"
    )
    nats_inbox_prefix: InboxPrefix = Field(
        "_INBOX_A4CO", description="how subjects begin on which NATS answers us: nobody else should be let hear them"
    )
    payload_limit: Annotated[int, Field(ge=1024, le=64 * MEBIBYTE), Allowed("bytes, from 1024 to 67108864")] = Field(
        MEBIBYTE, description="bytes of a payload from NATS; what is larger is a dead letter"
    )

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        for name in ("nats_url", "nats_password", "nats_token"):
            if {name, f"{name}_file"} <= self.model_fields_set:
                raise ValueError(f"{name.upper()} and {name.upper()}_FILE are both set: only one of them may be")
        ways = [
            words
            for words, given in (
                ("a user or token in NATS_URL", any(urlsplit(url).username for url in split_urls(self.nats_url))),
                ("NATS_USER", self.nats_user),
                ("NATS_TOKEN", self.nats_token),
                ("NATS_NKEY_FILE", self.nats_nkey_file),
                ("NATS_CREDS_FILE", self.nats_creds_file),
            )
            if given
        ]
        if len(ways) > 1:
            raise ValueError(f"{' and '.join(ways)} are set: only one of them may be, for one user is who we are")
        for one, other in (("nats_user", "nats_password"), ("nats_cert_file", "nats_key_file")):
            if bool(getattr(self, one)) != bool(getattr(self, other)):
                raise ValueError(f"{one.upper()} and {other.upper()} go together: set both or none")
        return self

    @property
    def nats_servers(self) -> list[str]:
        """The URLs in NATS_URL, for nats-py."""
        return nats_servers(self.nats_url)

    @property
    def nats(self) -> NatsOptions:
        """How to come in there."""
        return NatsOptions(
            user=self.nats_user,
            password=self.nats_password,
            token=self.nats_token,
            nkey_file=self.nats_nkey_file,
            creds_file=self.nats_creds_file,
            ca_file=self.nats_ca_file,
            cert_file=self.nats_cert_file,
            key_file=self.nats_key_file,
            tls_first=self.nats_tls_first,
            inbox_prefix=self.nats_inbox_prefix,
            payload_limit=self.payload_limit,
        )
