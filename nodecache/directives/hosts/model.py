"""What ``hosts`` answers, as a value."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nodecache.config.model import Name, Setting


@dataclass(frozen=True, slots=True)
class HostsTable:
    """The ``hosts`` directive.

    Attributes:
        zones: Names below these are answered for.
        addresses: (name, addresses) pairs: name in wire format, ``*`` as its first label for any
            one label there; addresses as RDATA of A (4 octets) and AAAA (16 octets).
        names: (reverse name, host names) pairs, all in wire format.
        ttl_s: TTL of all answers.
        fallthrough: None: names without an entry get SERVFAIL; else zones whose names go on.
        passes_other_types: Also where an entry exists and neither A nor AAAA is asked
            (``fallthrough_unsupported``).
        file: What it was read from, "" without a file (for coredns_hosts_entries).
        entries: Addresses and reverse names, as coredns_hosts_entries counts them.
    """

    zones: tuple[Name, ...]
    addresses: tuple[tuple[bytes, tuple[bytes, ...]], ...] = ()
    names: tuple[tuple[bytes, tuple[bytes, ...]], ...] = ()
    ttl_s: int = 3600
    fallthrough: tuple[Name, ...] | None = None
    passes_other_types: bool = False
    file: str = ""
    entries: int = 0

    def rules(self) -> Iterator[object]:
        """Yields what answers depend on, see serving/identity.py; 1 us for each entry."""
        fallthrough = None if self.fallthrough is None else _wires(self.fallthrough)
        yield _wires(self.zones), self.ttl_s, fallthrough, self.passes_other_types
        for table in (self.addresses, self.names):
            yield len(table)
            yield from table


def _wires(names: tuple[Name, ...]) -> list[bytes]:
    return sorted(name.wire for name in names)


HOSTS: Setting[HostsTable | None] = Setting("hosts", None)
