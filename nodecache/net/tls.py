"""Client side TLS contexts for upstreams; certificates are always checked."""

from __future__ import annotations

import ssl

from nodecache.config.model import Upstream


def make_client_context(upstream: Upstream) -> ssl.SSLContext:
    """Returns the context for connections to ``upstream``.

    Raises:
        OSError: A file cannot be read, or (as ssl.SSLError) does not hold what it should, or
            the name to check is none that a certificate can have.
    """
    settings = upstream.tls
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
