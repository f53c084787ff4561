"""What became of an exchange, in the words of Go's network library, as CoreDNS logs it.

Patterns of ``consolidate`` and alerts on logs were written for these words.
"""

from __future__ import annotations

from nodecache.config.model import Transport, Upstream
from nodecache.upstreams.exchange import Exchange, Failure

ENDED = "EOF"  # the peer closed in good order, and a query was pending
NOBODY = "no healthy proxies"  # all are down, and none was asked
_TIMEOUT = "i/o timeout"


def dial_timeout(upstream: Upstream) -> str:
    """Returns the text for a connection that was not open in time."""
    return no_connection(upstream, _TIMEOUT)


def read_timeout(upstream: Upstream, local: str) -> str:
    """Returns the text for a query that was not answered in time; ``local`` is our own end."""
    return broken(upstream, local, _TIMEOUT)


def no_connection(upstream: Upstream, reason: str, call: str = "") -> str:
    """Returns the text for a connection that cannot be opened.

    ``call`` names the system call that said so, "" where none did.
    """
    return f"dial {_network(upstream)} {upstream.address}: {_said(reason, call)}"


def broken(upstream: Upstream, local: str, reason: str, call: str = "") -> str:
    """Returns the text for a connection that ended while a query was pending."""
    return f"read {_network(upstream)} {local}->{upstream.address}: {_said(reason, call)}"


def unverified(reason: str) -> str:
    """Returns the text for a certificate that is not good."""
    return f"tls: failed to verify certificate: x509: {reason}"


def too_many(most: int) -> str:
    """Returns the text for a query above ``max_concurrent``."""
    return f"concurrent queries exceeded maximum {most}"


def _said(reason: str, call: str) -> str:
    return f"{call}: {reason}" if call else reason


def _network(upstream: Upstream) -> str:
    return "udp" if upstream.transport is Transport.UDP else "tcp"


def describe(exchange: Exchange, failure: Failure) -> tuple[str, str]:
    """Returns why an exchange failed, in CoreDNS's words, and in more of our own."""
    attempts = len(exchange.attempts)
    detail = f"{failure.value}, {attempts} attempts" if attempts > 1 else failure.value
    if failure is Failure.TIMED_OUT:
        return _timeout(exchange), detail
    if failure in (Failure.UNREACHABLE, Failure.HUNG_UP):
        return exchange.last_error or NOBODY, detail
    return failure.value, ""


def _timeout(exchange: Exchange) -> str:
    """Returns the text for the attempt that was waited for last, or for the wait for a dial."""
    attempt = exchange.attempts[-1] if exchange.attempts else None
    if attempt is not None and attempt.is_live:
        return read_timeout(attempt.pool.upstream, attempt.link.local)
    if exchange.last_error:
        return exchange.last_error
    upstreams = exchange.policy.upstreams
    if attempt is not None:
        return dial_timeout(attempt.pool.upstream)
    return dial_timeout(upstreams[0]) if upstreams else NOBODY
