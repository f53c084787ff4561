"""A resolv.conf as stub resolvers read it (resolv.conf(5)): servers, search domains, options."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nodecache.config.resolvconf import parse_nameservers

MOST_SERVERS = 3  # MAXNS of glibc and musl
MOST_SEARCH = 32  # what Kubernetes lets a pod have
_MOST_WORDS = 256
_NDOTS, _MOST_NDOTS = 1, 15
# resolv.conf(5), and what musl and Go read of it.
_OPTIONS = frozenset(
    (
        "attempts", "debug", "edns0", "inet6", "ip6-bytestring", "ip6-dotint", "ndots", "no-aaaa",
        "no-check-names", "no-ip6-dotint", "no-reload", "no-tld-query", "rotate", "single-request",
        "single-request-reopen", "timeout", "trust-ad", "use-vc", "strict-error",
    )
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ResolvConf:
    """What one says.

    Attributes:
        servers: Addresses, in normal form.
        others: Words of ``nameserver`` lines that are no addresses.
        search: Domains; the last line counts.
        ndots: Dots from which on a name is first asked for as it is.
        unknown: Options that nobody understands.
    """

    servers: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    ndots: int = _NDOTS
    unknown: tuple[str, ...] = ()

    @property
    def queries_outside(self) -> int:
        """How many queries a stub sends for A and AAAA of a name such as www.example.com."""
        dots_of_a_usual_name = 2
        tries = 1 + (len(self.search) if self.ndots > dots_of_a_usual_name else 0)
        return 2 * tries


def parse(text: str) -> ResolvConf:
    """Returns what ``text`` says; raises nothing."""
    servers, others = parse_nameservers(text)
    search: tuple[str, ...] = ()
    options: list[str] = []
    for name, words in _lines(text):
        if name in ("search", "domain"):
            search = words
        elif name == "options":
            options += words
    unknown = [word for word in options if word.partition(":")[0] not in _OPTIONS]
    return ResolvConf(tuple(servers), tuple(others), search, _ndots(options), tuple(unknown))


def _lines(text: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    for line in text.split("\n"):
        words = line.split()[:_MOST_WORDS]
        if words and not words[0].startswith(("#", ";")):
            yield words[0], tuple(words[1:])


def _ndots(options: list[str]) -> int:
    ndots = _NDOTS
    for word in options:
        name, _, value = word.partition(":")
        if name == "ndots" and value.isascii() and value.isdigit():
            ndots = min(int(value[:4]), _MOST_NDOTS)
    return ndots
