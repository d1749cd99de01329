"""One connection to NATS, from connect to close, and what can go wrong with it. It decides nothing about messages."""

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from contextlib import suppress

import nats
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from app.settings import redact

logger = logging.getLogger("a4co.bridge")

CONNECT_TIMEOUT = 2


class BridgeError(Exception):
    """NATS isn't usable right now; the bridge tries again. The text says why, for people."""


class Disconnected(BridgeError):
    """The connection to NATS is gone or could not be made."""


class LenientClient(Client):
    """nats-py stops reading for good, and tells nobody, at a header block or a subject that it can't parse. Publishers
    can make both, and the stream would deliver them again to every new connection.
    """

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


class Connection:
    """One connection, from connect to close. It never reconnects by itself: the bridge starts a new one, and checks
    what the old one left behind before it says anything again (nats-py would send its buffer a second time).
    """

    def __init__(self, client: Client, closed: asyncio.Event) -> None:
        self.client = client
        self.closed = closed

    async def lost(self) -> None:
        """Return when the connection is gone."""
        # nats-py forgets its callbacks when the closing itself fails, so look at the client too.
        while not self.closed.is_set() and not self.client.is_closed:
            with suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await self.closed.wait()

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


async def connect(servers: Sequence[str], name: str) -> Connection:
    """Connect to one of the servers.

    Raises:
        Disconnected: none of them answered, or they refused us.
    """
    closed = asyncio.Event()
    last: deque[Exception] = deque(maxlen=1)

    async def on_error(error: Exception) -> None:
        last.append(error)
        logger.debug("NATS: %r", error)

    async def on_closed() -> None:
        closed.set()

    client = LenientClient()
    connection = Connection(client, closed)
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
            )
    except (OSError, TimeoutError, nats.errors.Error) as error:
        await connection.close()
        cause = last[-1] if last else error
        raise Disconnected(f"no NATS at {redact(','.join(servers))}: {str(cause) or repr(cause)}") from error
    except asyncio.CancelledError:
        await connection.close()
        raise
    return connection
