"""The stream that keeps the routes' subjects: made when missing, never narrowed.

It speaks JetStream's JSON API itself, for exact times and error codes. It decides nothing about messages.
"""

import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import nats.errors
from nats.aio.client import Client

from bridge.connection import BridgeError
from bridge.routes import covers, overlap

logger = logging.getLogger("a4co.bridge")

DAY = 86_400.0
SECOND_NS = 1_000_000_000
DEDUPLICATION = 120.0
"""Seconds in which JetStream drops a second message with the same Nats-Msg-Id."""

BARRIER = "a4co.bridge.barrier"
"""A subject of ours in the stream: its ack tells that everything sent before it has been stored (see log_to_nats)."""

API_TIMEOUT = 5.0
UNLIMITED = 2**31 - 1

BATCHES = (2, 14)
"""The version of nats-server from which on streams may take batches (fast ingest)."""
ONLY_ACCOUNT = "$G"
"""Where everybody is on a nats-server without accounts."""


class StreamConflict(BridgeError):
    """The stream can't be had as the bridge needs it. The text says what is in the way and what to do."""


class NoJetStream(BridgeError):
    """Nothing keeps messages here: what nobody hears is gone."""


class ApiError(BridgeError):
    """JetStream refused a request. `err_code` is JetStream's own number (10059: no such stream)."""

    def __init__(self, subject: str, error: dict[str, Any]) -> None:
        self.code = int(error.get("code", 0))
        self.err_code = int(error.get("err_code", 0))
        super().__init__(f"{subject}: {error.get('description', 'refused')} ({self.err_code or self.code})")


@dataclass(frozen=True)
class StreamState:
    """A stream as it is now. `created` (RFC 3339) tells one stream from another of the same name."""

    name: str
    created: str
    first_seq: int
    last_seq: int
    subjects: frozenset[str]
    retention: str = "limits"
    max_age: float = 0.0
    """Seconds; 0: for ever."""
    largest: int = UNLIMITED
    """Bytes of a message, with its headers."""
    takes_batches: bool = False
    """Whether it takes JetStream's fast ingest."""

    def holds(self, subject: str) -> bool:
        """Whether the stream keeps what is published on the subject."""
        return subject in self.subjects or any(covers(pattern, subject) for pattern in self.wildcards)

    def overlaps(self, subject: str) -> bool:
        """Whether it keeps some of what a subject or a pattern stands for."""
        return subject in self.subjects or any(overlap(pattern, subject) for pattern in self.subjects)

    @cached_property
    def wildcards(self) -> list[str]:
        """The subjects with `*` or `>`."""
        return [subject for subject in self.subjects if "*" in subject or ">" in subject]


async def api(client: Client, subject: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """One request to JetStream's API (`subject` without `$JS.API.`), and its answer.

    Raises:
        ApiError: JetStream refused it, or isn't enabled on the server.
        nats.errors.Error: the connection failed or nobody answered in 5 s.
    """
    payload = json.dumps(body).encode() if body is not None else b""
    try:
        message = await client.request("$JS.API." + subject, payload, timeout=API_TIMEOUT)
    except nats.errors.NoRespondersError:
        raise ApiError(subject, {"description": "JetStream is not enabled: start nats-server with -js"}) from None
    answer: dict[str, Any] = json.loads(message.data)
    if "error" in answer:
        raise ApiError(subject, answer["error"])
    return answer


async def ensure_stream(client: Client, name: str, subjects: Iterable[str], max_age: float = 7 * DAY) -> StreamState:
    """Make the stream, or add the subjects that it lacks. Everything else of an existing stream stays as it is.

    Raises:
        StreamConflict: the stream deletes what others have read, or another one got one of the subjects meanwhile.
    """
    wanted = _widest({*subjects, BARRIER})
    try:
        config = (await api(client, f"STREAM.INFO.{name}"))["config"]
    except ApiError as error:
        if error.err_code != STREAM_NOT_FOUND:
            raise
        batches = {"allow_batched": True} if _alone(client) else {}  # which an older server does not know
        await _write(client, "CREATE", _new_stream(name, wanted, max_age) | batches)
        logger.info("NATS: stream %s made for %d subjects, kept %.3g days", name, len(wanted), max_age / DAY)
        return await stream_state(client, name)
    if config.get("retention", "limits") != "limits":
        raise StreamConflict(
            f"the stream {name} has {config['retention']} retention, which deletes what the bridge has not read: "
            "set NATS_STREAM to another name, or make that stream with limits retention"
        )
    present = config.get("subjects") or []
    missing = {subject for subject in wanted if not any(covers(pattern, subject) for pattern in present)}
    if missing:
        config["subjects"] = sorted(_widest({*present, *missing}))
        await _write(client, "UPDATE", config)
        logger.info("NATS: %d subjects added to the stream %s", len(missing), name)
    return await stream_state(client, name)


STREAM_NOT_FOUND = 10059
NOT_ENABLED = 10076
NOT_ENABLED_FOR_ACCOUNT = 10039
SUBJECTS_OVERLAP = 10065


def _widest(subjects: set[str]) -> set[str]:
    """Without those that a pattern among them covers: a stream takes each subject once."""
    return {one for one in subjects if not any(covers(other, one) for other in subjects - {one})}


def _alone(client: Client) -> bool:
    """Whether nats-server knows batches, and it is as good as sure that no other stream is to keep what ours does: one
    in another account or domain would refuse what comes in a batch, and nobody would hear of it.
    """
    version = client.connected_server_version
    there = (version.major, version.minor) >= BATCHES
    return there and getattr(client, "account", "") == ONLY_ACCOUNT and not client._server_info.get("domain")  # noqa: SLF001


def _new_stream(name: str, subjects: Iterable[str], max_age: float) -> dict[str, Any]:
    return {
        "name": name,
        "subjects": sorted(subjects),
        "retention": "limits",
        "storage": "file",
        "discard": "old",
        "max_age": int(max_age * SECOND_NS),
        "duplicate_window": int(min(DEDUPLICATION, max_age) * SECOND_NS),
        "num_replicas": 1,
    }


async def _write(client: Client, verb: str, config: dict[str, Any]) -> None:
    try:
        await api(client, f"STREAM.{verb}.{config['name']}", config)
    except ApiError as error:
        if error.err_code != SUBJECTS_OVERLAP:
            raise
        raise StreamConflict(f"another stream got a subject of {config['name']} meanwhile: looking again") from error


async def stream_state(client: Client, name: str) -> StreamState:
    """The stream as it is now. Raises ApiError when it isn't there."""
    return _state(await api(client, f"STREAM.INFO.{name}"))


async def streams(client: Client) -> list[StreamState]:
    """Every stream of the account.

    Raises:
        NoJetStream: the server, or the account, has none.
    """
    found: list[StreamState] = []
    while True:
        try:
            answer = await api(client, "STREAM.LIST", {"offset": len(found)})
        except ApiError as error:
            if error.err_code in (0, NOT_ENABLED, NOT_ENABLED_FOR_ACCOUNT):
                raise NoJetStream(str(error)) from None
            raise
        page = answer.get("streams") or []
        found += [_state(stream) for stream in page]
        if not page or len(found) >= answer.get("total", 0):
            return found


def _state(answer: dict[str, Any]) -> StreamState:
    config, state = answer["config"], answer["state"]
    return StreamState(
        name=config["name"],
        created=answer["created"],
        first_seq=state["first_seq"],
        last_seq=state["last_seq"],
        subjects=frozenset(config.get("subjects") or ()),
        retention=config.get("retention", "limits"),
        max_age=config.get("max_age", 0) / SECOND_NS,
        largest=largest if (largest := config.get("max_msg_size", -1)) > 0 else UNLIMITED,
        takes_batches=bool(config.get("allow_batched")),
    )


async def stored_at(client: Client, stream: str, seq: int) -> int | None:
    """When the message with this sequence was stored, in ns since the epoch; None when it isn't there any more."""
    try:
        answer = await api(client, f"STREAM.MSG.GET.{stream}", {"seq": seq})
    except ApiError as error:
        if error.code == 404:
            return None
        raise
    return nanoseconds(answer["message"]["time"])


def nanoseconds(rfc3339: str) -> int:
    """`2026-11-24T13:37:38.123456789Z` as ns since the epoch, exactly."""
    whole, _, fraction = rfc3339.removesuffix("Z").partition(".")
    seconds = int(datetime.fromisoformat(whole).replace(tzinfo=UTC).timestamp())
    return seconds * SECOND_NS + int(fraction.ljust(9, "0") or "0")


def rfc3339(ns: int) -> str:
    """The opposite of `nanoseconds`."""
    seconds, fraction = divmod(ns, SECOND_NS)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{fraction:09d}Z"
