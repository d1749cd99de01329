"""Who we are to NATS and whom we trust, as nats-py takes it; and what a refusal means, with the way out, for people.

It decides nothing. No secret is in any text of it.
"""

import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import nkeys
from nats.aio.client import RawCredentials

from app.nats_settings import NatsOptions

WAYS = "NATS_USER and NATS_PASSWORD, NATS_TOKEN, NATS_NKEY_FILE or NATS_CREDS_FILE"

ALERTS = ("certificate required", "certificate_required", "bad certificate", "unknown ca", "certificate unknown")
"""What a server says, in TLS, of a client's certificate that is missing or that it does not trust."""


class AccessError(Exception):
    """What we would come in with can't be used. The text says why, for people."""


def access(options: NatsOptions) -> dict[str, Any]:
    """The arguments of nats-py's `connect`, from the files as they are now.

    Raises:
        AccessError: a file can't be read, or holds something else.
    """
    given: dict[str, Any] = {"inbox_prefix": options.inbox_prefix, "tls_handshake_first": options.tls_first}
    if options.user:
        given |= {"user": options.user, "password": options.password}
    if options.token:
        given["token"] = options.token
    if options.nkey_file is not None:
        given["nkeys_seed_str"] = _seed(options.nkey_file, _read("NATS_NKEY_FILE", options.nkey_file).strip())
    if options.creds_file is not None:
        given["user_credentials"] = _credentials(options.creds_file)
    if options.wants_tls:
        given["tls"] = _tls(options)
    return given


def _read(name: str, path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise AccessError(f"{name}={path} can't be read: {getattr(error, 'strerror', None) or error}") from None


def _seed(path: Path, seed: str) -> str:
    try:
        nkeys.from_seed(bytearray(seed.encode())).wipe()
    except Exception:  # noqa: BLE001 - base32, checksums and prefixes raise what they like; their texts may quote it
        raise AccessError(f"{path} holds no nkey seed (SU..., 58 characters)") from None
    return seed


def _credentials(path: Path) -> RawCredentials:
    text = _read("NATS_CREDS_FILE", path)
    # nats-py would look for these for ever.
    parts = text.partition("BEGIN NATS USER JWT")[2].partition("BEGIN USER NKEY SEED")
    if not parts[0].count("\n") or not parts[2].count("\n"):
        raise AccessError(f"NATS_CREDS_FILE={path} holds no user JWT followed by its seed, as nsc writes them")
    _seed(path, parts[2].splitlines()[1].strip())
    return RawCredentials(text)


def _tls(options: NatsOptions) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=options.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise AccessError(f"NATS_CA_FILE={options.ca_file} holds no certificates: {error}") from None
    if options.cert_file is not None:
        try:
            context.load_cert_chain(options.cert_file, options.key_file)
        except (OSError, ssl.SSLError) as error:
            files = f"NATS_CERT_FILE={options.cert_file}, NATS_KEY_FILE={options.key_file}"
            raise AccessError(f"{files} are no certificate with its key: {error}") from None
    return context


def explained(error: BaseException, options: NatsOptions, servers: Sequence[str]) -> str:
    """The cause in one line, with what to do about it where that is known."""
    text = " ".join((str(error) or repr(error)).split())
    said = text.lower()
    if isinstance(error, ssl.SSLCertVerificationError):
        why = error.verify_message or text
        return f"its certificate is not trusted ({why}): NATS_CA_FILE has to hold its CA, NATS_URL the name in it"
    if "authorization violation" in said or "authentication" in said:
        return f"it refuses {_who(options, servers)} ({text.removeprefix('nats: ')})"
    if any(alert in said for alert in ALERTS):
        return f"it wants a client certificate that it trusts: NATS_CERT_FILE and NATS_KEY_FILE ({text})"
    if "wrong version number" in said or "wrong_version_number" in said:
        return f"it does not begin with TLS: NATS_TLS_FIRST is for servers with handshake_first ({text})"
    if isinstance(error, TimeoutError) or "expecting info" in said:
        return "it does not begin to speak; a server with handshake_first needs NATS_TLS_FIRST=true"
    if isinstance(error, ConnectionResetError) or "unexpected eof" in said:
        hint = "" if options.cert_file else "; a server that wants a client certificate needs NATS_CERT_FILE"
        return f"it hung up{hint} ({text})"
    return text


def _who(options: NatsOptions, servers: Sequence[str]) -> str:
    if options.creds_file is not None:
        return f"the credentials in NATS_CREDS_FILE={options.creds_file}: expired, revoked, or of another account"
    if options.nkey_file is not None:
        return f"the nkey in NATS_NKEY_FILE={options.nkey_file}: the server has to know its public key"
    if options.user:
        return f"the user {options.user} with this password: look at NATS_USER and NATS_PASSWORD"
    if options.token:
        return "this token: look at NATS_TOKEN"
    if any(urlsplit(server).username for server in servers):
        return "the user or token in NATS_URL"
    return f"us without credentials: set {WAYS}"
