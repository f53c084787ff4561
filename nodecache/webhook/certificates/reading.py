"""Reads certificates and keys that anybody may have written; what is of no use is not there."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import ExtendedKeyUsageOID

from nodecache.webhook.certificates.model import Authority, Held, Leaf, Pair

# Keys of the Secret. tls.crt, tls.key and ca.crt are those of Kubernetes and of cert-manager.
CA_BUNDLE, CA_KEY, CHAIN, KEY = "ca.crt", "ca.key", "tls.crt", "tls.key"

_MOST_OCTETS = 64 * 1024  # of one PEM text; ours have about 1,500
_MOST_CERTIFICATES = 32
# One that cannot be read is no reason to lose those beside it; Go's pools read them alike.
_BLOCK = re.compile(rb"-----BEGIN CERTIFICATE-----\s.*?-----END CERTIFICATE-----", re.DOTALL)

# Whatever cryptography raises for octets that are no certificate, or one that it cannot take.
_REFUSALS = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    InvalidSignature,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)


def read_held(data: Mapping[str, bytes]) -> Held:
    """Returns what a Secret with these octets holds; never raises."""
    found = [each for each in _certificates(data.get(CA_BUNDLE, b"")) if _is_authority(each)]
    authorities = tuple(_authority(each) for each in found)
    ca_key_pem = data.get(CA_KEY, b"")
    ca_key = _read_key(ca_key_pem)
    signer = next((_authority(each) for each in found if _fits(each, ca_key)), None)
    leaf = _read_leaf(data.get(CHAIN, b""), data.get(KEY, b""), found)
    return Held(authorities, signer, ca_key_pem if signer else b"", leaf)


def read_bundle(pem: bytes) -> tuple[Authority, ...]:
    """Returns the certificates of a caBundle, whoever made them; never raises."""
    return tuple(_authority(each) for each in _certificates(pem))


def _certificates(pem: bytes) -> list[x509.Certificate]:
    """Returns what can be read, each once, in its order."""
    found = dict.fromkeys(_read_blocks(pem[:_MOST_OCTETS]))
    return list(found)[:_MOST_CERTIFICATES]


def _read_blocks(pem: bytes) -> Iterator[x509.Certificate]:
    for block in _BLOCK.finditer(pem):
        try:
            certificate = load_certificate(block.group())
            _ = certificate.extensions, certificate.subject, certificate.issuer
            # Decoded where it is first asked for, too.
            _ = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        except _REFUSALS:
            continue
        yield certificate


def load_certificate(pem: bytes) -> x509.Certificate:
    """Returns a certificate; raises what cryptography raises if it is none."""
    with warnings.catch_warnings():
        # A serial number of 0 is a fault, and common in certificates made by hand.
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        return x509.load_pem_x509_certificate(pem)


def _authority(certificate: x509.Certificate) -> Authority:
    return Authority(
        certificate.fingerprint(SHA256()).hex(),
        certificate.public_bytes(Encoding.PEM),
        certificate.not_valid_before_utc.timestamp(),
        certificate.not_valid_after_utc.timestamp(),
    )


def _is_authority(certificate: x509.Certificate) -> bool:
    """Whether verifiers let it sign (RFC 5280 sections 4.2.1.3 and 4.2.1.9)."""
    constraints = _extension(certificate, x509.BasicConstraints)
    usage = _extension(certificate, x509.KeyUsage)
    return bool(constraints and constraints.ca) and (usage is None or usage.key_cert_sign)


def _read_leaf(
    chain_pem: bytes, key_pem: bytes, authorities: list[x509.Certificate]
) -> Leaf | None:
    chain = _certificates(chain_pem)
    if not chain or not _fits(chain[0], _read_key(key_pem)) or not _may_serve(chain[0]):
        return None
    leaf = chain[0]
    names = _extension(leaf, x509.SubjectAlternativeName)
    issuer = next((each for each in authorities if _is_signed_by(leaf, each)), None)
    return Leaf(
        Pair(chain_pem, key_pem),
        frozenset(names.get_values_for_type(x509.DNSName) if names else ()),
        _authority(issuer).fingerprint if issuer else "",
        leaf.not_valid_before_utc.timestamp(),
        leaf.not_valid_after_utc.timestamp(),
    )


def _may_serve(leaf: x509.Certificate) -> bool:
    usage = _extension(leaf, x509.ExtendedKeyUsage)
    return usage is not None and ExtendedKeyUsageOID.SERVER_AUTH in usage


def _is_signed_by(leaf: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        leaf.verify_directly_issued_by(authority)
    except _REFUSALS:
        return False
    return True


def _read_key(pem: bytes) -> ec.EllipticCurvePrivateKey | None:
    """Returns a key of the kind that we make; another kind is not ours, and mended."""
    try:
        key = load_pem_private_key(pem[:_MOST_OCTETS], None)
    except _REFUSALS:
        return None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != ec.SECP256R1.name:
        return None
    return key


def _fits(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey | None) -> bool:
    try:
        return key is not None and certificate.public_key() == key.public_key()
    except _REFUSALS:
        return False


_Extension = TypeVar("_Extension", bound=x509.ExtensionType)


def _extension(certificate: x509.Certificate, kind: type[_Extension]) -> _Extension | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None
