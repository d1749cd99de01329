"""The marketplace's settings that the rules go by."""

from typing import Literal

import msgspec

Role = Literal["act", "observe", "shadow"]


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """The marketplace's settings. Times in seconds; attempts count from 1 and include the first."""

    payment_retry_delay: float = 300.0
    payment_max_attempts: int = 3
    payment_timeout: float = 900.0
    reservation_ttl: float = 1800.0
    mail_max_attempts: int = 5
    mail_retry_delay: float = 30.0  # doubles with every attempt
    payment_request: Literal["payment.initiated", "order.payment.requested", "none"] = "payment.initiated"
    reserve: Literal["act", "shadow"] = "act"
    confirm: Role = "act"
    cancel: Role = "act"
    notify: Role = "act"
