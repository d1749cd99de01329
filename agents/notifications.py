"""What happens when a customer is to be told: the mail is handed to the mail server, and the saga hears how it went.

It decides nothing: texts are in domain/mail.py, another try is the saga's decision.
"""

import asyncio
import time
from collections.abc import Callable
from email.message import EmailMessage
from email.utils import formatdate
from typing import Any
from urllib.parse import unquote, urlsplit

import aiosmtplib
import structlog

from app import topics
from app.domain.causes import caused
from app.domain.mail import Rendered, render
from app.domain.messages import MailDelivered, MailFailed, SendMail
from app.engine.declarations import Effect
from app.engine.records import Send

TIMEOUT = 10.0
"""Seconds for one mail, from the connection to the server's answer."""

CONNECTIONS = 8
"""Mails under way at once."""

logger = structlog.get_logger("a4co.mail")

LONGEST_ADDRESS = 320
"""Characters: 64 before the @ and 255 behind it (RFC 5321). Python's parser takes hours for a hostile megabyte."""


class Mailer:
    """Sends mails by the server of an smtp:// or smtps:// URL. `sender` is the From header."""

    def __init__(self, smtp_url: str, sender: str, clock: Callable[[], float] = time.time) -> None:
        parts = urlsplit(smtp_url)
        self._sender = sender
        self._clock = clock
        self._places = asyncio.Semaphore(CONNECTIONS)
        self._options: dict[str, Any] = {
            "hostname": parts.hostname,
            "port": parts.port or (465 if parts.scheme == "smtps" else 25),
            "username": unquote(parts.username) if parts.username else None,
            "password": unquote(parts.password) if parts.password else None,
            "use_tls": parts.scheme == "smtps",
            "timeout": TIMEOUT,
        }

    async def deliver(self, mail: SendMail) -> MailDelivered | MailFailed:
        """Hand one mail to the server. What goes wrong is an answer, not an error."""
        try:
            rendered = render(mail)
            message = self._written(mail, rendered)
        except Exception as error:  # noqa: BLE001 - Python's parser of addresses raises whatever comes to it
            return self._failed(mail, error, permanent=True)
        try:
            async with self._places:
                await aiosmtplib.send(message, **self._options)
        except Exception as error:  # noqa: BLE001 - it parses the address once more
            return self._failed(mail, error, permanent=_refused_for_good(error))
        return MailDelivered(
            event_id=caused(mail.event_id, "MailDelivered"),
            key=mail.key,
            at=self._clock(),
            source="mail-server",
            template=mail.template,
            message_id=rendered.message_id,
        )

    def _written(self, mail: SendMail, rendered: Rendered) -> EmailMessage:
        message = EmailMessage()
        if len(mail.recipient) > LONGEST_ADDRESS:
            raise ValueError(f"the address has {len(mail.recipient)} characters")
        message["From"] = self._sender
        message["To"] = mail.recipient
        if len(message["To"].addresses) != 1:
            raise ValueError(f"{mail.recipient!r} is not one address")
        message["Subject"] = rendered.subject
        message["Date"] = formatdate(mail.at)
        message["Message-ID"] = rendered.message_id  # the same at every try: a second copy can be told
        message.set_content(rendered.text)
        if rendered.html:
            message.add_alternative(rendered.html, subtype="html")
        return message

    def _failed(self, mail: SendMail, error: Exception, *, permanent: bool) -> MailFailed:
        # What a mail server says of an address holds the customer's; what the network says does not.
        why = f"{type(error).__name__}: {error}" if isinstance(error, OSError) else type(error).__name__
        logger.warning("mail not sent", order=mail.key, template=mail.template, attempt=mail.attempt, error=why)
        return MailFailed(
            event_id=caused(mail.event_id, "MailFailed"),
            key=mail.key,
            at=self._clock(),
            source="mail-server",
            template=mail.template,
            attempt=mail.attempt,
            error=f"{type(error).__name__}: {error}"[:300],
            permanent=permanent,
        )


def _refused_for_good(error: Exception) -> bool:
    """Whether another try would end alike: a 5xx answer, or an address that is none."""
    if isinstance(error, aiosmtplib.SMTPRecipientsRefused):
        return all(500 <= refused.code < 600 for refused in error.recipients)
    if not isinstance(error, aiosmtplib.SMTPException | OSError):
        return True
    return 500 <= getattr(error, "code", 0) < 600


def send_mails(mailer: Mailer) -> Effect:
    """The agent that talks to the mail server."""

    async def perform(mails: list[SendMail]) -> list[Send]:
        answers = await asyncio.gather(*(mailer.deliver(mail) for mail in mails))
        return [send for answer in answers for send in topics.sends_of(answer)]

    return Effect("send_mails", topics.MAILS, perform, batch=32)
