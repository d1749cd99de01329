"""What a mail to a customer looks like: subject, text and HTML, in Spanish.

Whether it is sent, and when again, is decided in order_saga.py.
"""

from html import escape
from typing import Any, NamedTuple

from app.domain.announcements import CANCELLATION, mail_subject
from app.domain.causes import caused
from app.domain.messages import SendMail

SYMBOLS = {"EUR": "€", "USD": "$", "GBP": "£"}


class Rendered(NamedTuple):
    """A mail, ready to be sent. `message_id` ("<uuid5@a4co>") is the same for every attempt at the same mail."""

    subject: str
    text: str
    html: str
    message_id: str


def render(mail: SendMail) -> Rendered:
    """Render a mail from its variables. Never raises: what is missing is left out. The subject is one line."""
    subject = _one_line(mail_subject(mail.template, mail.key))
    paragraphs = _cancelled(mail) if mail.template == CANCELLATION else _confirmed(mail)
    items = [_item(line, mail.variables) for line in _lines(mail.variables)]
    total = f"Total: {_money(mail.variables.get('total', 0), mail.variables)}"
    text = "\n".join(
        [*paragraphs, "", *(f"- {item}" for item in items), "", total, "", "A4CO, mercado local de Jaén", ""]
    )
    html = (
        '<!doctype html>\n<html lang="es"><body>\n'
        + "".join(f"<p>{escape(paragraph)}</p>\n" for paragraph in paragraphs)
        + "<ul>\n"
        + "".join(f"<li>{escape(item)}</li>\n" for item in items)
        + f"</ul>\n<p><strong>{escape(total)}</strong></p>\n<p>A4CO, mercado local de Jaén</p>\n</body></html>\n"
    )
    return Rendered(subject, text, html, f"<{caused(mail.key, 'mail', mail.template)}@a4co>")


def _confirmed(mail: SendMail) -> list[str]:
    paragraphs = [f"Hemos recibido el pago de su pedido {mail.key} y ya lo estamos preparando."]
    if tracking := mail.variables.get("trackingNumber"):
        paragraphs.append(f"Número de seguimiento: {tracking}")
    if delivery := mail.variables.get("estimatedDelivery"):
        paragraphs.append(f"Entrega estimada: {_day(str(delivery))}")
    return paragraphs


def _cancelled(mail: SendMail) -> list[str]:
    paragraphs = [f"Su orden {mail.key} ha sido cancelada."]
    if reason := mail.variables.get("reason"):
        paragraphs.append(f"Motivo: {reason}")
    if mail.variables.get("refundRequired"):
        paragraphs.append("Hemos solicitado la devolución de su pago.")
    return paragraphs


def _lines(variables: dict[str, Any]) -> list[dict[str, Any]]:
    lines = variables.get("lines")
    return [line for line in lines if isinstance(line, dict)] if isinstance(lines, list) else []


def _item(line: dict[str, Any], variables: dict[str, Any]) -> str:
    price = _money(line.get("unitPrice", 0), variables)
    return _one_line(f"{line.get('quantity', 1)} x {line.get('name', '')}, {price} por unidad")


def _money(amount: Any, variables: dict[str, Any]) -> str:
    """1234.5 -> "1.234,50 €"."""
    if not isinstance(amount, int | float):
        return str(amount)
    currency = str(variables.get("currency", "EUR"))
    figures = f"{amount:,.2f}".translate(str.maketrans(",.", ".,"))
    return f"{figures} {SYMBOLS.get(currency, currency)}"


def _day(iso: str) -> str:
    """2026-11-27T13:35:53.037Z -> 27/11/2026; anything else as it is."""
    parts = iso[:10].split("-")
    return "/".join(reversed(parts)) if len(parts) == 3 else iso


def _one_line(text: str) -> str:
    """No control characters: an id may carry a line break, a header must not."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
