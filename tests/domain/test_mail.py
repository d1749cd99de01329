"""What a customer reads."""

from typing import Any

from app.domain.mail import render
from app.domain.messages import SendMail
from tests.domain.saga_story import a_cancelled_order, a_confirmed_order


def mail(template: str = "order-confirmation", key: str = "ORDER-1", **variables: Any) -> SendMail:
    return SendMail(event_id="E", key=key, at=0.0, template=template, recipient="ana@jaen.example", variables=variables)


def test_a_confirmation_names_the_order_its_items_and_its_total() -> None:
    rendered = render(a_confirmed_order().only("SendMail"))
    assert rendered.subject == "Confirmación de pedido #ORDER-OF-ANA"
    for part in (
        "2 x Cheese, 10,00 € por unidad",
        "1 x Honey, 6,00 € por unidad",
        "Total: 26,00 €",
        "TRK",
        "27/11/2026",
    ):
        assert part in rendered.text
        assert part in rendered.html


def test_a_cancellation_gives_the_reason() -> None:
    rendered = render(a_cancelled_order().only("SendMail"))
    assert rendered.subject == "Orden #ORDER-OF-ANA cancelada"
    assert "Motivo: Pago fallido: Tarjeta rechazada" in rendered.text
    assert "devolución" not in rendered.text


def test_a_refund_is_told() -> None:
    assert "devolución" in render(mail("order-cancellation", refundRequired=True)).text


def test_what_a_customer_wrote_is_not_html() -> None:
    rendered = render(mail(key="<b>1</b>", lines=[{"name": "<script>", "quantity": 1, "unitPrice": 1}]))
    assert "<script>" not in rendered.html
    assert "<b>" not in rendered.html
    assert "&lt;script&gt;" in rendered.html


def test_a_subject_is_one_line() -> None:
    assert render(mail(key="ORDER\r\n\0Bcc: x@y.example")).subject == "Confirmación de pedido #ORDER Bcc: x@y.example"


def test_every_attempt_has_the_same_message_id() -> None:
    first, again, other = mail(), mail(), mail("order-cancellation")
    assert render(first).message_id == render(again).message_id
    assert render(first).message_id != render(other).message_id
    assert render(first).message_id.startswith("<")
    assert render(first).message_id.endswith("@a4co>")


def test_large_amounts_are_written_the_spanish_way() -> None:
    assert "Total: 12.345,60 CHF" in render(mail(total=12345.6, currency="CHF")).text


def test_missing_or_strange_variables_are_left_out() -> None:
    assert "Total: " in render(mail(lines="none", total=None, estimatedDelivery="soon")).text
