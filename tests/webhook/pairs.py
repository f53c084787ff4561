"""Certificates and keys, made as a test needs them."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

NAME = "nodecache-webhook.kube-system.svc"


def make_pair(
    serial: int = 1,
    *,
    kind: str = "ec",
    names: tuple[str, ...] = (NAME,),
    begins_s: float = -60,
    ends_s: float = 3600,
) -> tuple[bytes, bytes]:
    """Returns certificate (signed by itself) and key in PEM; times are seconds from now.

    Who trusts several needs them with different serial numbers: OpenSSL finds them by the name.
    """
    key = ec.generate_private_key(ec.SECP256R1()) if kind == "ec" else _rsa_key()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"pair {serial}")])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(now + timedelta(seconds=begins_s))
        .not_valid_after(now + timedelta(seconds=ends_s))
    )
    if names:
        alternative = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
        builder = builder.add_extension(alternative, critical=False)
    chain = builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
    return chain, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def encrypted(key_pem: bytes) -> bytes:
    """Returns a key that asks for a password."""
    key = load_pem_private_key(key_pem, None)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))


def trusting(*chains: bytes) -> ssl.SSLContext:
    """Returns what a client uses that trusts exactly these."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata="".join(chain.decode() for chain in chains))
    return context


def _rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)
