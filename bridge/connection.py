"""One connection to NATS, from connect to close, and what can go wrong with it. It decides nothing about messages."""

import asyncio
import logging
import ssl
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import nats
import nats.errors
from nats.aio.msg import Msg
from nats.aio.transport import TcpTransport

from app.nats_settings import NatsOptions
from app.setting_types import redact
from bridge.credentials import AccessError, access, explained
from bridge.frames import FrameClient

logger = logging.getLogger("a4co.bridge")

CONNECT_TIMEOUT = 2
HANG_UPS = 5
"""Attempts at a server that hangs up without a word."""
HUNG_UP = (ConnectionResetError, BrokenPipeError, nats.errors.UnexpectedEOF)
PERMISSIONS = "permissions violation"
"""What NATS says, in whatever case, of a subject that we may not publish on or hear."""


class BridgeError(Exception):
    """NATS isn't usable right now; the bridge tries again. The text says why, for people."""


class Disconnected(BridgeError):
    """The connection to NATS is gone or could not be made."""


class OneBreath(TcpTransport):
    """Sends nats-py's CONNECT together with the PING behind it. A server that refuses us hangs up after its reason: a
    PING that arrives later is answered with a reset, which takes away the reason before it is read (1 time in 11).
    """

    def __init__(self, begun: TcpTransport) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        vars(self).update(vars(begun))
        self._connect = b""

    def write(self, payload: bytes) -> None:
        """Keep a CONNECT for what comes next."""
        if payload.startswith(b"CONNECT "):
            self._connect = payload
        else:
            super().write(self._connect + payload)  # type: ignore[no-untyped-call]
            self._connect = b""


class LenientClient(FrameClient):
    """nats-py stops reading for good, and tells nobody, at a header block or a subject that it can't parse. Publishers
    can make both, and the stream would deliver them again to every new connection.

    nats-py's `flush` asks the server before it has sent what is published: here the answer stands for all of it.

    What a server that refuses us says is heard (`OneBreath`).
    Where TLS is wanted, it says nothing to a server that offers none; nats-py would send the password in the clear.
    `refused` is what NATS said of a subject that we may not use: whatever was published on it is lost.
    """

    wants_tls = False
    refused = ""

    async def _process_headers(self, headers: bytes) -> dict[str, str] | None:
        try:
            return await super()._process_headers(headers)
        except (IndexError, ValueError):
            return None  # the message counts without them

    def _build_message(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: dict[str, str] | None
    ) -> Msg:
        subject = subject if subject.isascii() else subject.decode(errors="replace").encode()
        message: Msg = super()._build_message(sid, subject, reply, data, headers)
        return message

    async def _send_ping(self, future: asyncio.Future[Any] | None = None) -> None:
        if self._pending and self._transport:
            self._transport.writelines(self._pending[:])
            self._pending, self._pending_data_size = [], 0
        await super()._send_ping(future)

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        self.account = info.get("remote_account", self.account)
        if initial_connection and self.wants_tls and not self.options["tls_handshake_first"]:
            if not (info.get("tls_required") or info.get("tls_available")):
                raise AccessError(
                    "it offers no TLS, and tls:// in NATS_URL, or NATS_CA_FILE, wants it: nothing was said"
                )
            info["tls_required"] = True
        if initial_connection and isinstance(self._transport, TcpTransport):
            self._transport = OneBreath(self._transport)
        await super()._process_info(info, initial_connection)


class Connection:
    """One connection, from connect to close. It never reconnects by itself: the bridge starts a new one, and checks
    what the old one left behind before it says anything again (nats-py would send its buffer a second time).
    """

    def __init__(self, client: LenientClient, closed: asyncio.Event) -> None:
        self.client = client
        self.closed = closed

    async def lost(self) -> None:
        """Return when the connection is gone. Raises Disconnected when NATS has refused us a subject."""
        # nats-py forgets its callbacks when the closing itself fails, so look at the client too.
        while not self.closed.is_set() and not self.client.is_closed:
            with suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await self.closed.wait()
            raise_if_refused(self.client)

    async def close(self) -> None:
        try:
            async with asyncio.timeout(1):
                await self.client.close()
        except (OSError, TimeoutError, nats.errors.Error) as error:
            logger.debug("NATS: closing the connection: %r", error)
        finally:
            # nats-py leaves the socket open when it fails or is cancelled while closing.
            transport = self.client._transport  # noqa: SLF001
            if transport:
                transport.close()  # type: ignore[no-untyped-call]


def raise_if_refused(client: FrameClient) -> None:
    """After a flush: NATS has said by then what it refused of all that was published before.

    Raises:
        Disconnected: it refused a subject.
    """
    refused = getattr(client, "refused", "")
    if refused:
        raise Disconnected(
            f"{refused}: the bridge's user has to be let do that; `a4co routes accounts` prints all that it needs"
        )


async def connect(servers: Sequence[str], name: str, options: NatsOptions | None = None) -> Connection:
    """Connect to one of the servers.

    Raises:
        Disconnected: none of them answered, or they refused us.
    """
    options = options or NatsOptions()
    for attempt in range(1, HANG_UPS + 1):
        try:
            return await _connected(servers, name, options)
        except (OSError, TimeoutError, AccessError, nats.errors.Error, ssl.SSLError) as error:
            # Who is refused writes on while the server closes, and may not hear why: ask once more.
            if isinstance(error, HUNG_UP) and attempt < HANG_UPS:
                continue
            why = explained(error, options, servers)
            raise Disconnected(f"no NATS at {redact(','.join(servers))}: {why}") from error
    raise AssertionError("the last attempt returns or raises")


async def _connected(servers: Sequence[str], name: str, options: NatsOptions) -> Connection:
    way_in = access(options)
    closed = asyncio.Event()
    last: deque[Exception] = deque(maxlen=1)
    client = LenientClient()
    client.wants_tls = options.wants_tls or any(server.startswith("tls:") for server in servers)
    connection = Connection(client, closed)

    async def on_error(error: Exception) -> None:
        last.append(error)
        logger.debug("NATS: %r", error)
        if PERMISSIONS in str(error).lower():
            client.refused = str(error)
            closed.set()

    async def on_closed() -> None:
        closed.set()

    try:
        async with asyncio.timeout(CONNECT_TIMEOUT * (len(servers) + 2)):
            await client.connect(
                list(servers),
                name=name,
                error_cb=on_error,
                disconnected_cb=on_closed,
                closed_cb=on_closed,
                allow_reconnect=False,
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                connect_timeout=CONNECT_TIMEOUT,
                ping_interval=10,
                max_outstanding_pings=2,
                **way_in,
            )
        if not client.is_connected:  # nats-py takes a server that hangs up in the midst for one that agrees
            raise nats.errors.UnexpectedEOF
    except AccessError:
        await connection.close()
        raise
    except (OSError, TimeoutError, nats.errors.Error, ssl.SSLError) as error:
        await connection.close()
        raise (last[-1] if last else error) from None  # "no servers available" says less than why none is
    except asyncio.CancelledError:
        await connection.close()
        raise
    return connection
