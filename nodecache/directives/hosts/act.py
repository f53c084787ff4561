"""The ``hosts`` directive at work: answers out of a table, or lets the question pass.

Knows nothing of files; the table was read with the configuration.
"""

from __future__ import annotations

from nodecache.config.model import Name, ServerBlock
from nodecache.directives.hosts.model import HOSTS, HostsTable
from nodecache.resolve.behind_cache import Responder
from nodecache.wire.const import AA, QR, TYPE_AND_CLASS
from nodecache.wire.numbers import CLASS_IN, SERVFAIL, TYPE_A, TYPE_AAAA, TYPE_PTR
from nodecache.wire.query import is_below
from nodecache.wire.rrs import RR, Contents

_ADDRESS_OCTETS = {TYPE_A: 4, TYPE_AAAA: 16}
_WILDCARD = b"\1*"
_ROOT = b"\0"


def responder(block: ServerBlock, _before: Responder | None) -> HostsResponder:
    """Returns the ``hosts`` of ``block``."""
    return HostsResponder(block.of(HOSTS) or HostsTable(()))


class HostsResponder:
    """A Responder (resolve/behind_cache.py).

    There is no SOA to send along: NODATA comes without, and what CoreDNS's hosts has no entry
    for, and does not let pass, is SERVFAIL instead of NXDOMAIN.
    """

    def __init__(self, table: HostsTable) -> None:
        self.name = "hosts"
        self._zones = table.zones
        self._fallthrough = table.fallthrough or ()
        self._passes_other_types = table.passes_other_types
        self._addresses = dict(table.addresses)
        self._names = dict(table.names)
        self._ttl_s = table.ttl_s

    def respond(self, question: bytes) -> bytes | None:
        """Returns a whole response with ID 0, or None to pass. Raises nothing.

        Args:
            question: QNAME in lower case, QTYPE and QCLASS in wire format.
        """
        qname = question[:-4]
        qtype, qclass = TYPE_AND_CLASS.unpack(question[-4:])
        if qclass != CLASS_IN:
            return None
        if qtype == TYPE_PTR:
            # Reverse names need not lie in the zones, and pass whatever ``fallthrough`` says.
            names = self._names.get(qname)
            return self._answer(question, qtype, names) if names else None
        if not _is_in(qname, self._zones):
            return None
        octets = _ADDRESS_OCTETS.get(qtype)
        addresses = self._find(qname)
        is_unknown = addresses is None or (octets is None and self._passes_other_types)
        if is_unknown and _is_in(qname, self._fallthrough):
            return None
        if addresses is None:
            return Contents(QR | SERVFAIL, question).compose()
        wanted = tuple(address for address in addresses if len(address) == octets)
        return self._answer(question, qtype, wanted)

    def _find(self, qname: bytes) -> tuple[bytes, ...] | None:
        """Returns the addresses of a name; a wildcard stands for what has no entry of its own."""
        found = self._addresses.get(qname)
        parent = qname[qname[0] + 1 :]
        if found is None and len(parent) > len(_ROOT):
            found = self._addresses.get(_WILDCARD + parent)
        return found

    def _answer(self, question: bytes, qtype: int, found: tuple[bytes, ...]) -> bytes:
        qname, ttl_s = question[:-4], self._ttl_s
        answer = [RR(qname, qtype, CLASS_IN, ttl_s, rdata) for rdata in found]
        return Contents(QR | AA, question, answer).compose()


def _is_in(qname: bytes, zones: tuple[Name, ...]) -> bool:
    return any(is_below(qname, zone.wire) for zone in zones)
