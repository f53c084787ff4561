from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from contextlib import suppress

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from nodecache.errors import CertificateError
from nodecache.webhook.identity import ServerIdentity
from tests.webhook.pairs import NAME, encrypted, make_pair

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


class Handshake:
    """A client and a server in memory, one step at a time."""

    def __init__(
        self,
        identity: ServerIdentity,
        version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
        name: str | None = NAME,
    ) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.minimum_version = context.maximum_version = version
        up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client = context.wrap_bio(down, up, server_hostname=name)
        self.server = identity.context.wrap_bio(up, down, server_side=True)

    def finish(self) -> None:
        waiting: list[Callable[[], None]] = [self.client.do_handshake, self.server.do_handshake]
        while waiting:
            step = waiting.pop(0)
            try:
                step()
            except ssl.SSLWantReadError:
                waiting.append(step)

    @property
    def serial(self) -> int:
        certificate = self.client.getpeercert(binary_form=True)
        assert certificate is not None
        return x509.load_der_x509_certificate(certificate).serial_number


def serial_of(
    identity: ServerIdentity,
    version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
    name: str | None = NAME,
) -> int:
    handshake = Handshake(identity, version, name)
    handshake.finish()
    return handshake.serial


@pytest.mark.parametrize("name", [NAME, "other.example", None])
@pytest.mark.parametrize("version", VERSIONS)
def test_each_pair_is_shown_to_the_next_handshake_whatever_kind_it_is(
    version: ssl.TLSVersion, name: str | None
) -> None:
    identity = ServerIdentity()
    for serial, kind in enumerate(("ec", "rsa", "ec"), 1):
        identity.load(*make_pair(serial, kind=kind))
        assert serial_of(identity, version, name) == serial


@pytest.mark.parametrize("version", VERSIONS)
def test_without_a_pair_each_handshake_fails(version: ssl.TLSVersion) -> None:
    with pytest.raises(ssl.SSLError):
        Handshake(ServerIdentity(), version).finish()


def test_a_handshake_that_has_begun_ends_with_the_pair_that_it_began_with() -> None:
    identity = ServerIdentity()
    identity.load(*make_pair(1))
    handshake = Handshake(identity)
    with pytest.raises(ssl.SSLWantReadError):
        handshake.client.do_handshake()
    with pytest.raises(ssl.SSLWantReadError):
        handshake.server.do_handshake()  # shows its certificate
    identity.load(*make_pair(2, kind="rsa"))
    handshake.finish()
    assert (handshake.serial, serial_of(identity)) == (1, 2)


def test_a_connection_that_is_open_goes_on() -> None:
    identity = ServerIdentity()
    identity.load(*make_pair(1))
    handshake = Handshake(identity)
    handshake.finish()
    identity.load(*make_pair(2))
    handshake.client.write(b"review")
    assert handshake.server.read() == b"review"


def test_sessions_are_not_resumed_with_a_former_certificate() -> None:
    identity = ServerIdentity()
    identity.load(*make_pair(1))
    handshake = Handshake(identity, ssl.TLSVersion.TLSv1_2)
    handshake.finish()
    session = handshake.client.session
    assert session is None or not session.has_ticket


def test_what_is_older_than_tls_1_2_is_refused() -> None:
    assert ServerIdentity().context.minimum_version == ssl.TLSVersion.TLSv1_2


def test_end_is_that_of_the_certificate_in_force() -> None:
    identity = ServerIdentity()
    assert identity.not_after is None
    identity.load(*make_pair(ends_s=5000))
    now = time.time()  # noqa: TID251 - as certificates have it
    assert identity.not_after == pytest.approx(now + 5000, abs=60)


CHAIN, KEY = make_pair(7)
REFUSED = {
    "nothing": (b"", b""),
    "no key": (CHAIN, b""),
    "no PEM": (b"hello", KEY),
    "no ASN.1": (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", KEY),
    "another's key": (CHAIN, make_pair()[1]),
    "a key under a password": (CHAIN, encrypted(KEY)),
    "key and certificate exchanged": (KEY, CHAIN),
    "no subjectAltName": make_pair(names=()),
    "too long": (CHAIN + b"#" * 300_000, KEY),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_served_with_is_refused_and_changes_nothing(case: str) -> None:
    identity = ServerIdentity()
    identity.load(CHAIN, KEY)
    with pytest.raises(CertificateError):
        identity.load(*REFUSED[case])
    assert serial_of(identity) == 7


def test_a_certificate_without_names_is_refused_with_the_next_step() -> None:
    with pytest.raises(CertificateError, match="Service's name as a DNS name"):
        ServerIdentity().load(*REFUSED["no subjectAltName"])


@given(st.binary(max_size=200), st.integers(0, len(CHAIN)))
def test_no_octets_raise_anything_else(noise: bytes, at: int) -> None:
    with suppress(CertificateError):
        ServerIdentity().load(CHAIN[:at] + noise + CHAIN[at + 1 :], noise + KEY)
