"""One query and its reply, as a query log is told of them."""

from __future__ import annotations

from dataclasses import dataclass

from nodecache.config.model import Address


@dataclass(frozen=True, slots=True)
class LoggedQuery:
    """A query that was answered.

    Attributes:
        query: The message as received, untrusted.
        reply: The whole message as sent, ID included; b"" when none was sent.
        remote: The client.
        server: The listener's label, "dns://169.254.20.10:53".
        proto: "udp" or "tcp".
        duration_s: Seconds from query to reply.
        upstream: Address of the upstream that answered, "" for a hit and what was made here.
    """

    query: bytes
    reply: bytes
    remote: Address
    server: str
    proto: str
    duration_s: float
    upstream: str = ""
