"""How large a message from NATS may be: what goes over is a dead letter. It decides nothing else."""

from app.domain.dialects import Undecodable
from bridge.ordered_pull import Arrived

MAX_HEADERS = 64
MAX_HEADER_BYTES = 16 * 1024
"""Of all names and values of a message together."""


def check(message: Arrived, payload_limit: int) -> None:
    """Raise Undecodable with one of the reasons too-large, too-many-headers, headers-too-large."""
    if len(message.data) > payload_limit:
        raise Undecodable("too-large", f"{len(message.data)} bytes, PAYLOAD_LIMIT is {payload_limit}")
    if not message.headers:
        return
    if len(message.headers) > MAX_HEADERS:
        raise Undecodable("too-many-headers", f"{len(message.headers)}, at most {MAX_HEADERS}")
    size = sum(len(name) + len(value) for name, value in message.headers.items())
    if size > MAX_HEADER_BYTES:
        raise Undecodable("headers-too-large", f"{size} characters, at most {MAX_HEADER_BYTES}")
