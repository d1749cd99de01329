"""The mark on what we publish, by which we know it again when it comes back through the mirror.

It says that we published this payload with this id on this subject: nobody can put it on another message.
"""

import hmac
import secrets

from bridge.bridge_log import BridgeLog

ORIGIN = "A4co-Origin"
MESSAGE_ID = "Nats-Msg-Id"
NOTE = "origin-secret"


class Origin:
    """Marks and recognises by a secret that stays in the log."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    @classmethod
    async def of(cls, log: BridgeLog) -> "Origin":
        """The log's own; a new log gets one."""
        secret = log.note(NOTE)
        if secret is None:
            secret = secrets.token_bytes(32)
            await log.commit([], notes={NOTE: secret})
            await log.synced()
        return cls(secret)

    def sealed(self, message_id: str) -> str:
        """The id as it is said on NATS: with 16 hexadecimal digits behind it that nobody can guess.

        An event's id follows from its cause. Whoever publishes something else under the id that we are going to use
        makes JetStream take ours for its repetition, and drop it.
        """
        return f"{message_id}:{hmac.digest(self._secret, message_id.encode(), 'sha256').hex()[:16]}"

    def mark(self, message_id: str, subject: str, payload: bytes) -> str:
        """The value of the header A4co-Origin: 32 hexadecimal digits."""
        return hmac.digest(self._secret, f"{message_id}\n{subject}\n".encode() + payload, "sha256").hex()[:32]

    def is_ours(self, subject: str, headers: dict[str, str] | None, payload: bytes) -> bool:
        """Whether the mark is there and right."""
        if not headers or ORIGIN not in headers:
            return False
        right = self.mark(headers.get(MESSAGE_ID, ""), subject, payload)
        return hmac.compare_digest(headers[ORIGIN].encode(), right.encode())
