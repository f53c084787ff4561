"""Client side TLS for upstreams: contexts, which always check certificates, and what goes wrong."""

from __future__ import annotations

import ssl

from nodecache.config.model import Upstream
from nodecache.files import check_regular
from nodecache.upstreams.wording import ENDED, unverified


def make_client_context(upstream: Upstream) -> ssl.SSLContext:
    """Returns the context for connections to ``upstream``.

    Raises:
        OSError: A file cannot be read, or (as ssl.SSLError) does not hold what it should, or
            the name to check is none that a certificate can have.
    """
    settings = upstream.tls
    for path in filter(None, (settings.ca_file, settings.certificate_file, settings.key_file)):
        check_regular(path)
    context = ssl.create_default_context(cafile=settings.ca_file or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 8310 section 9, RFC 9325
    if settings.certificate_file:
        context.load_cert_chain(settings.certificate_file, settings.key_file or None)
    try:
        context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname=checked_name(upstream))
    except ValueError as error:
        raise OSError(str(error)) from error
    return context


def checked_name(upstream: Upstream) -> str:
    """Returns the name, or IP address, that the certificate of ``upstream`` must be for."""
    return upstream.server_name.rstrip(".") or upstream.address.host.partition("%")[0]


def error_text(error: ssl.SSLError, upstream: Upstream) -> str:
    """Returns why a connection is not secure, in the words of Go's TLS library."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return unverified(_verification_text(error, checked_name(upstream)))
    reason = error.reason or ""
    if isinstance(error, ssl.SSLEOFError) or reason == "UNEXPECTED_EOF_WHILE_READING":
        return ENDED
    if reason in _NOT_TLS:
        return "tls: first record does not look like a TLS handshake"
    _, alert, text = reason.partition("_ALERT_")
    if alert:
        return f"remote error: tls: {text.replace('_', ' ').lower()}"
    return f"tls: {reason.replace('_', ' ').lower() or error}"


def _verification_text(error: ssl.SSLCertVerificationError, name: str) -> str:
    text = error.verify_message
    if error.verify_code in _UNKNOWN_AUTHORITY:
        return "certificate signed by unknown authority"
    if error.verify_code in _OUT_OF_TIME:
        return f"certificate has expired or is not yet valid: {text}"
    if error.verify_code in _OTHER_NAME:
        return f"certificate is valid for others, not {name}"
    return text


# Numbers of OpenSSL's X509_V_ERR_...
_UNKNOWN_AUTHORITY = frozenset((2, 18, 19, 20, 21))
_OUT_OF_TIME = frozenset((9, 10))
_OTHER_NAME = frozenset((62, 64))
_NOT_TLS = frozenset(("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"))
