"""Whether this is the application as compiled by `make compiled`, or as it is written."""

from app.domain import order_saga

COMPILED = not order_saga.__file__.endswith(".py")
