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

from app import topics
from app.domain.causes import caused
from app.domain.mail import render
from app.domain.messages import MailDelivered, MailFailed, SendMail
from app.engine.lanes import Effect
from app.engine.records import Record, Send

TIMEOUT = 10.0
"""Seconds for one mail, from the connection to the server's answer."""

CONNECTIONS = 8
"""Mails under way at once."""


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
        rendered = render(mail)
        message = EmailMessage()
        message["From"] = self._sender
        message["To"] = mail.recipient
        message["Subject"] = rendered.subject
        message["Date"] = formatdate(mail.at)
        message["Message-ID"] = rendered.message_id  # the same at every try: a second copy can be told
        message.set_content(rendered.text)
        if rendered.html:
            message.add_alternative(rendered.html, subtype="html")
        try:
            async with self._places:
                await aiosmtplib.send(message, **self._options)
        except (aiosmtplib.SMTPException, OSError, ValueError) as error:
            return self._failed(mail, error)
        return MailDelivered(
            event_id=caused(mail.event_id, "MailDelivered"),
            key=mail.key,
            at=self._clock(),
            source="mail-server",
            template=mail.template,
            message_id=rendered.message_id,
        )

    def _failed(self, mail: SendMail, error: Exception) -> MailFailed:
        # A 5xx answer or a recipient that is no address stays as it is however often it is tried.
        if isinstance(error, aiosmtplib.SMTPRecipientsRefused):
            permanent = all(500 <= refused.code < 600 for refused in error.recipients)
        else:
            permanent = isinstance(error, ValueError) or 500 <= getattr(error, "code", 0) < 600
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


def send_mails(mailer: Mailer) -> Effect:
    """The agent that talks to the mail server."""

    async def perform(records: list[Record]) -> list[Send]:
        mails: list[SendMail] = [topics.MAILS.decode(record) for record in records]  # type: ignore[misc]
        answers = await asyncio.gather(*(mailer.deliver(mail) for mail in mails))
        return [send for answer in answers for send in topics.sends_of(answer)]

    return Effect("send_mails", topics.MAILS, perform, batch=32)
