"""What ``nodecache explain`` says of ``dns64``."""

from __future__ import annotations

from collections.abc import Iterator

from nodecache.config.model import ServerBlock
from nodecache.config.wording import Row, marked
from nodecache.directives.dns64.model import DNS64, Dns64


def rows(block: ServerBlock) -> Iterator[Row]:
    """Yields the rows of the directive in ``block``."""
    yield "dns64", _text(block.of(DNS64) or Dns64())


def _text(policy: Dns64) -> str:
    default = Dns64()
    prefix = marked(policy.prefix, policy.prefix, default.prefix)
    when = "always" if policy.translate_all else "where there is no AAAA record"
    when = marked(when, policy.translate_all, default.translate_all)
    who = "all clients" if policy.allow_ipv4 else "clients that ask over IPv6"
    who = marked(who, policy.allow_ipv4, default.allow_ipv4)
    return f"AAAA records are made of A records with {prefix}, {when}, for {who}"
