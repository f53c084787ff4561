from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from nodecache.webhook.certificates.making import make_data
from nodecache.webhook.certificates.model import Held
from nodecache.webhook.certificates.planning import Step
from nodecache.webhook.certificates.reading import read_bundle, read_held
from tests.webhook import pairs
from tests.webhook.certificates.lives import BEGIN, SETTINGS

OURS = make_data(Step.START, Held(), BEGIN, SETTINGS)
THEIRS = make_data(Step.START, Held(), BEGIN, SETTINGS)


def without(name: str) -> dict[str, bytes]:
    return {key: octets for key, octets in OURS.items() if key != name}


def make_ca(*extensions: x509.ExtensionType, curve: ec.EllipticCurve) -> dict[str, bytes]:
    """Returns what somebody might put into the Secret by hand."""
    key = ec.generate_private_key(curve)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "by hand")])
    begin = datetime.fromtimestamp(BEGIN, UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(begin)
        .not_valid_after(begin + timedelta(days=365))
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    pem = builder.sign(key, SHA256()).public_bytes(Encoding.PEM)
    key_pem = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    return {"ca.crt": pem, "ca.key": key_pem}


def usage(key_cert_sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(True, False, False, False, False, key_cert_sign, False, False, False)


IS_CA = x509.BasicConstraints(ca=True, path_length=None)


def test_what_was_made_is_read() -> None:
    held = read_held(OURS)
    assert held.signer == held.authorities[0]
    assert held.leaf is not None
    assert held.leaf.issuer == held.authorities[0].fingerprint
    assert held.leaf.pair.chain_pem == OURS["tls.crt"]


def test_an_empty_secret_holds_nothing() -> None:
    assert read_held({}) == Held()


@pytest.mark.parametrize("name", ["tls.crt", "tls.key"])
def test_half_a_pair_is_none(name: str) -> None:
    assert read_held(without(name)).leaf is None
    assert read_held(OURS | {name: THEIRS[name]}).leaf is None
    assert read_held(OURS | {name: b"nonsense"}).leaf is None
    assert read_held(OURS | {name: OURS[name][:200]}).leaf is None


@pytest.mark.parametrize(
    "key",
    [b"", b"nonsense", THEIRS["ca.key"], OURS["tls.key"]],
    ids=["none", "nonsense", "another", "of another certificate"],
)
def test_a_ca_without_its_own_key_does_not_sign(key: bytes) -> None:
    held = read_held(OURS | {"ca.key": key})
    assert (held.signer, held.signer_key_pem) == (None, b"")
    assert len(held.authorities) == 1


def test_a_certificate_of_a_ca_that_is_not_there_has_no_issuer() -> None:
    leaf = read_held(OURS | {"ca.crt": THEIRS["ca.crt"]}).leaf
    assert leaf is not None
    assert leaf.issuer == ""


def test_a_certificate_that_signed_itself_is_no_servers() -> None:
    chain, key = pairs.make_pair()
    assert read_held({"ca.crt": chain, "tls.crt": chain, "tls.key": key}) == Held()


@pytest.mark.parametrize("kind", ["rsa", "encrypted"])
def test_keys_of_another_kind_are_not_ours(kind: str) -> None:
    chain, key = pairs.make_pair(kind="rsa" if kind == "rsa" else "ec")
    key = pairs.encrypted(key) if kind == "encrypted" else key
    assert read_held(OURS | {"tls.crt": chain, "tls.key": key}).leaf is None
    assert read_held(OURS | {"ca.key": key}).signer is None


def test_a_ca_made_by_hand_may_sign() -> None:
    for extensions in ([IS_CA], [IS_CA, usage(key_cert_sign=True)]):
        data = make_ca(*extensions, curve=ec.SECP256R1())
        held = read_held(data)
        assert held.signer is not None
        leaf = read_held(data | make_data(Step.RENEW_LEAF, held, BEGIN, SETTINGS)).leaf
        assert leaf is not None
        assert leaf.issuer == held.signer.fingerprint


def test_a_ca_that_verifiers_do_not_let_sign_is_none() -> None:
    no_ca = x509.BasicConstraints(ca=False, path_length=None)
    for extensions in ([], [no_ca], [IS_CA, usage(key_cert_sign=False)]):
        assert read_held(make_ca(*extensions, curve=ec.SECP256R1())) == Held()
    assert read_held(make_ca(IS_CA, curve=ec.SECP384R1())).signer is None


def test_one_certificate_that_cannot_be_read_spoils_no_other() -> None:
    broken = OURS["ca.crt"].replace(b"M", b"!", 3)
    pem = b"# a remark\n" + broken + THEIRS["ca.crt"] + b"-----BEGIN X-----\n" + OURS["ca.crt"]
    assert read_bundle(pem) == read_bundle(THEIRS["ca.crt"]) + read_bundle(OURS["ca.crt"])


def test_the_same_certificate_twice_is_one() -> None:
    assert len(read_bundle(OURS["ca.crt"] * 5)) == 1


def test_a_long_bundle_is_read_up_to_a_bound() -> None:
    many = b"".join(make_data(Step.START, Held(), BEGIN, SETTINGS)["ca.crt"] for _ in range(40))
    assert len(read_bundle(many)) == 32
    assert read_bundle(b"x" * 65_536 + OURS["ca.crt"]) == ()


def test_no_key_is_shown_where_values_are_printed() -> None:
    shown = repr(read_held(OURS))
    assert "PRIVATE" not in shown
    assert "CERTIFICATE" in shown


SLIPS = st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=4)


@given(name=st.sampled_from(sorted(OURS)), slips=SLIPS)
def test_whatever_somebody_writes_is_read_without_an_error(
    name: str, slips: list[tuple[int, int]]
) -> None:
    first, *body, last = OURS[name].splitlines()
    octets = bytearray(base64.b64decode(b"".join(body)))
    for place, octet in slips:
        octets[place % len(octets)] = octet
    pem = b"\n".join([first, base64.b64encode(octets), last])
    assert len(read_held(OURS | {name: pem}).authorities) <= 1
    read_bundle(pem)


@given(st.dictionaries(st.sampled_from(sorted(OURS)), st.binary(max_size=300)))
def test_octets_of_any_kind_hold_nothing(data: dict[str, bytes]) -> None:
    assert read_held(data) == Held()
