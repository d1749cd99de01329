"""Keys, JWTs and certificates for a nats-server, made in the test: what nsc and openssl make elsewhere."""

import base64
import datetime as dt
import ipaddress
import json
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nkeys
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

OPERATOR, ACCOUNT, USER = nkeys.PREFIX_BYTE_OPERATOR, nkeys.PREFIX_BYTE_ACCOUNT, nkeys.PREFIX_BYTE_USER


class Key:
    """An nkey: `seed` (S...) and `public`."""

    def __init__(self, kind: int) -> None:
        self.seed = nkeys.encode_seed(secrets.token_bytes(32), kind).decode().rstrip("=")
        self._pair = nkeys.from_seed(bytearray(self.seed.encode()))
        self.public = self._pair.public_key.decode()

    def sign(self, text: str) -> bytes:
        signature: bytes = self._pair.sign(text.encode())
        return signature


def jwt(issuer: Key, subject: Key, kind: str, expires: float | None = None, **claims: Any) -> str:
    """A NATS JWT (version 2): what the issuer says of the subject."""
    body = {
        "jti": secrets.token_hex(16), "iat": int(time.time()), "iss": issuer.public, "sub": subject.public,
        "name": kind, "nats": {"type": kind, "version": 2, **claims},
    }  # fmt: skip
    if expires is not None:
        body["exp"] = int(expires)
    unsigned = ".".join(_part(json.dumps(part).encode()) for part in ({"typ": "JWT", "alg": "ed25519-nkey"}, body))
    return f"{unsigned}.{_part(issuer.sign(unsigned))}"


def _part(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Realm:
    """An operator with one account that may use JetStream, as a server's configuration, and its users' credentials."""

    def __init__(self) -> None:
        self._operator, self._account = Key(OPERATOR), Key(ACCOUNT)
        unlimited = dict.fromkeys(
            ("subs", "data", "payload", "imports", "exports", "conn", "leaf", "mem_storage", "disk_storage", "streams",
             "consumer"),
            -1,
        )  # fmt: skip
        account = jwt(self._operator, self._account, "account", limits=unlimited | {"wildcards": True})
        system = Key(ACCOUNT)  # JetStream wants one
        self.config = (
            f"operator: {jwt(self._operator, self._operator, 'operator', system_account=system.public)}\n"
            f"system_account: {system.public}\nresolver: MEMORY\nresolver_preload: {{\n"
            f"{self._account.public}: {account}\n{system.public}: {jwt(self._operator, system, 'account')}\n}}"
        )

    def credentials(self, expires: float | None = None) -> str:
        """A new user's credentials file."""
        user = Key(USER)
        said = jwt(self._account, user, "user", expires, pub={}, sub={}, subs=-1, data=-1, payload=-1)
        return (
            f"-----BEGIN NATS USER JWT-----\n{said}\n------END NATS USER JWT------\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{user.seed}\n------END USER NKEY SEED------\n"
        )


@dataclass(frozen=True)
class Files:
    """A certificate and its key, in files."""

    cert: Path
    key: Path


class Authority:
    """Signs certificates. `ca` is the file of its own."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"authority of {folder.name}")])
        own = self._unsigned(self._name, self._key.public_key(), days=1)
        own = own.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        own = own.add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
        own = own.add_extension(_USES, critical=True)
        self.ca = folder / "ca.pem"
        self.ca.write_bytes(own.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str, *, host: str = "127.0.0.1", days: float = 1) -> Files:
        """A certificate for the host; `days` below 0: one that has expired."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        names: list[x509.GeneralName] = [x509.IPAddress(ipaddress.ip_address(host))]
        certificate = self._unsigned(subject, key.public_key(), days)
        certificate = certificate.add_extension(x509.SubjectAlternativeName(names), critical=False)
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        signed = certificate.add_extension(identifier, critical=False).sign(self._key, hashes.SHA256())
        files = Files(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        files.cert.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        files.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return files

    def _unsigned(self, subject: x509.Name, key: ec.EllipticCurvePublicKey, days: float) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=2))
            .not_valid_after(now + dt.timedelta(days=days))
        )


_USES = x509.KeyUsage(
    digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
    key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
)  # fmt: skip
