"""Makes CAs and server certificates, as Go's verifier wants them: names in subjectAltName only.

The CA has no name constraints: it is known in our own caBundles alone, where API servers look for
one name. Its key stays in the Secret, which nobody but the webhook needs to read.
"""

from __future__ import annotations

from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from nodecache.webhook.certificates.model import Authority, Held, Pair, Settings
from nodecache.webhook.certificates.planning import BACKDATE_S, Step
from nodecache.webhook.certificates.reading import (
    CA_BUNDLE,
    CA_KEY,
    CHAIN,
    KEY,
    load_certificate,
    read_bundle,
)

# A regular life needs two; more are there only if caBundles could not be changed for a year.
_MOST_AUTHORITIES = 8
_MOST_NAME = 64  # characters of a common name: RFC 5280 appendix A.1, ub-common-name


def make_data(step: Step, held: Held, now: float, settings: Settings) -> dict[str, bytes]:
    """Returns what a step writes into the Secret; it follows from `plan_secret` for ``held``.

    Args:
        step: Any but NOTHING.
        held: What the Secret holds.
        now: Unix seconds.
        settings: Names and lives.
    """
    signer = Pair(held.signer.pem if held.signer else b"", held.signer_key_pem)
    valid = [each for each in held.authorities if now < each.until]
    if step is not Step.RENEW_LEAF:
        signer = _make_ca(now, settings)
        valid = [*read_bundle(signer.chain_pem), *_newest(valid, held)]
    data = {CA_BUNDLE: join(valid), CA_KEY: signer.key_pem}
    if step is not Step.ADD_CA:
        leaf = _make_leaf(signer, now, settings)
        data |= {CHAIN: leaf.chain_pem, KEY: leaf.key_pem}
    return data


def join(authorities: tuple[Authority, ...] | list[Authority]) -> bytes:
    """Returns them in PEM, one behind the other."""
    return b"".join(each.pem for each in authorities)


def _newest(authorities: list[Authority], held: Held) -> list[Authority]:
    """Returns as many as may stay; that of the certificate in use is one of them."""
    issuer = held.leaf.issuer if held.leaf else ""
    ranked = sorted(authorities, key=lambda each: each.fingerprint != issuer)
    return ranked[: _MOST_AUTHORITIES - 1]


def _make_ca(now: float, settings: Settings) -> Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    # Each has another name: some verifiers look for an issuer by name alone, and try one only.
    name = _name(f"{settings.service} CA {identifier.digest.hex()[:12]}")
    usage = _usage(key_cert_sign=True, crl_sign=True)
    certificate = (
        _builder(name, name, key, now, now + settings.ca_life_s)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(identifier, critical=False)
        .sign(key, SHA256())
    )
    return _pair(certificate, key)


def _make_leaf(signer: Pair, now: float, settings: Settings) -> Pair:
    ca = load_certificate(signer.chain_pem)
    ca_key = load_pem_private_key(signer.key_pem, None)
    assert isinstance(ca_key, ec.EllipticCurvePrivateKey)  # noqa: S101 - as read_held has it
    key = ec.generate_private_key(ec.SECP256R1())
    until = min(now + settings.leaf_life_s, ca.not_valid_after_utc.timestamp())
    names = [x509.DNSName(name) for name in sorted(settings.names)]
    purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    certificate = (
        _builder(_name(f"{settings.service}.{settings.namespace}.svc"), ca.subject, key, now, until)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(purpose, critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(_key_identifier(ca, ca_key), critical=False)
        .sign(ca_key, SHA256())
    )
    return _pair(certificate, key)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: float, until: float
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.fromtimestamp(now - BACKDATE_S, UTC))
        .not_valid_after(datetime.fromtimestamp(until, UTC))
    )


def _key_identifier(
    ca: x509.Certificate, ca_key: ec.EllipticCurvePrivateKey
) -> x509.AuthorityKeyIdentifier:
    """Returns the CA's own identifier, if it has one; somebody else may have made it."""
    try:
        own = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


def _usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[-_MOST_NAME:])])


def _pair(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Pair:
    return Pair(
        certificate.public_bytes(Encoding.PEM),
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )
