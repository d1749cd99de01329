"""A mail server on loopback that counts the mails by order and kind, and throws them away."""

import asyncio
from collections import Counter
from email.parser import BytesHeaderParser
from email.policy import default

from aiosmtpd.smtp import SMTP, Envelope, Session

from app.demo.ledger import CANCELLATION, CONFIRMATION, Mail

_headers = BytesHeaderParser(policy=default)


class MailSink:
    """Listens from `start` to `stop`. `mails` counts each order's confirmations and cancellations."""

    def __init__(self) -> None:
        self.mails: Counter[Mail] = Counter()
        self._server: asyncio.Server | None = None

    async def start(self) -> str:
        """Return its smtp:// URL."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: SMTP(self, hostname="localhost", ident="demo", enable_SMTPUTF8=True, loop=loop), "127.0.0.1", 0
        )
        return f"smtp://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        """Take no more."""
        if self._server is not None:
            self._server.close()
            await asyncio.sleep(0)

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 - aiosmtpd's name
        """Count one mail by its subject, which names the order behind a `#`."""
        del server, session
        content = envelope.content
        subject = str(_headers.parsebytes(content if isinstance(content, bytes) else b"")["subject"] or "")
        order_id = subject.partition("#")[2].partition(" ")[0]
        self.mails[order_id, CANCELLATION if subject.endswith("cancelada") else CONFIRMATION] += 1
        return "250 OK"
