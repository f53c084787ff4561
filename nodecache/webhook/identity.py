"""The certificate and key that handshakes show, exchanged while the server runs."""

from __future__ import annotations

import os
import ssl
from contextlib import closing
from dataclasses import dataclass

from cryptography import x509

from nodecache.errors import CertificateError

# A Secret holds 1 MiB at most; chains of the kind that sign webhooks are some kilobytes.
MOST_OCTETS = 256 * 1024


@dataclass(frozen=True, slots=True)
class _Shown:
    """One pair in force."""

    context: ssl.SSLContext
    not_after: float


class ServerIdentity:
    """What a TLS server shows to who connects; nothing at first.

    Each pair has a context of its own, which ``context`` hands a handshake to: a context that is
    given a second pair keeps the first one where the kinds of keys differ, and has no pair at all
    for a moment where they do not fit each other.

    Attributes:
        context: For the listener; TLS 1.2 or newer. Until a pair is loaded each handshake fails.
    """

    def __init__(self) -> None:
        self.context = _make_context()
        self.context.sni_callback = self._choose
        self._shown: _Shown | None = None

    @property
    def not_after(self) -> float | None:
        """Unix seconds at which the certificate in force expires; None without one."""
        return self._shown.not_after if self._shown else None

    def load(self, chain_pem: bytes, key_pem: bytes) -> None:
        """Puts a pair in force for the next handshake; connections that are open go on.

        Args:
            chain_pem: The server's own certificate, then those that lead to its CA.
            key_pem: Its private key, not encrypted.

        Raises:
            CertificateError: They are of no use; what was in force stays.
        """
        if len(chain_pem) > MOST_OCTETS or len(key_pem) > MOST_OCTETS:
            raise CertificateError(f"it is longer than {MOST_OCTETS >> 10} KiB")
        leaf = _read_leaf(chain_pem)
        context = _make_context()
        _load_pair(context, chain_pem, key_pem)
        self._shown = _Shown(context, leaf.not_valid_after_utc.timestamp())

    def _choose(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        """Called for each handshake, by OpenSSL, whether the client names a server or not."""
        if self._shown is not None:
            connection.context = self._shown.context


def _make_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 9325 section 3.1.1
    # A resumed session would go on with the certificate that it began with.
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    return context


def _read_leaf(chain_pem: bytes) -> x509.Certificate:
    """Returns the first certificate.

    Raises:
        CertificateError: There is none, or API servers would refuse it.
    """
    try:
        leaf = x509.load_pem_x509_certificates(chain_pem)[0]
        leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        # Go looks at nothing else since 1.17: https://go.dev/doc/go1.17#crypto/x509
        step = "make one with the Service's name as a DNS name"
        raise CertificateError(
            f"the certificate has no subjectAltName, and API servers refuse it: {step}"
        ) from None
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        raise CertificateError(f"no certificate in PEM could be read: {error}") from None
    return leaf


def _load_pair(context: ssl.SSLContext, chain_pem: bytes, key_pem: bytes) -> None:
    """Loads both from memory: the key touches no disk, and none need be writable."""
    with closing(_Memory(chain_pem)) as chain, closing(_Memory(key_pem)) as key:
        try:
            # Without a password OpenSSL would ask the terminal for one.
            context.load_cert_chain(chain.path, key.path, password=lambda: "")
        except ssl.SSLError as error:
            raise CertificateError(_reason(error)) from None


def _reason(error: ssl.SSLError) -> str:
    if error.reason == "KEY_VALUES_MISMATCH":
        return "the private key belongs to another certificate"
    return f"OpenSSL refuses certificate or private key: {error.reason or error}"


class _Memory:
    """A file in memory: the ssl module reads files only."""

    def __init__(self, octets: bytes) -> None:
        self._descriptor = os.memfd_create("pem")
        self.path = f"/proc/self/fd/{self._descriptor}"
        os.write(self._descriptor, octets)

    def close(self) -> None:
        os.close(self._descriptor)
