"""Zones whose NXDOMAIN speak for one type only, because one of them was contradicted.

Some servers deny by type what exists: a ``template`` that answers A or AAAA with NXDOMAIN, a
balancer that knows only A. Once that was seen of a zone, an NXDOMAIN in it answers its own type and
cuts nothing, until the process ends.
"""

from __future__ import annotations

from nodecache.cache.message import Message
from nodecache.wire.key import QNAME_END
from nodecache.wire.numbers import TYPE_SOA
from nodecache.wire.query import is_below

ROOT = b"\0"
MOST_ZONES = 256  # with more, nobody is trusted


class Distrust:
    """Zones in wire format and lower case; at most MOST_ZONES and the root."""

    def __init__(self) -> None:
        self._zones: set[bytes] = set()

    def add(self, zone: bytes) -> bytes:
        """Distrusts ``zone``; returns what is distrusted now: that, or the root."""
        if len(self._zones) >= MOST_ZONES:
            zone = ROOT
        self._zones.add(zone)
        return zone

    def includes(self, qname: bytes) -> bool:
        """Whether ``qname`` is in a zone that is distrusted."""
        if not self._zones:
            return False
        position = 0
        while qname[position:] not in self._zones:
            if not qname[position]:
                return False
            position += qname[position] + 1
        return True


def denying_zone(message: Message, cluster: bytes | None) -> bytes:
    """Returns the zone that a wrong NXDOMAIN makes doubtful.

    Args:
        message: The NXDOMAIN.
        cluster: Zone inside which NXDOMAIN cover all types, None for nowhere.

    Inside ``cluster`` that is all of it: a ``template`` denies whatever it matches, and may write
    any SOA. Elsewhere, or if ``cluster`` is the root, it is the zone of the SOA (RFC 2308 section
    3), and the root if that does not enclose the name.
    """
    qname = message.key[:QNAME_END]
    if cluster is not None and cluster != ROOT and is_below(qname, cluster):
        return cluster
    contents = message.contents()
    for rr in contents.authority if contents is not None else ():
        owner = rr.owner.lower()
        if rr.rtype == TYPE_SOA and is_below(qname, owner):
            return owner
    return ROOT
