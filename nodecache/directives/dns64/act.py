"""DNS64 (RFC 6147): AAAA records made of A records, for clients that have IPv6 alone.

Pure: says when the A records are needed, and puts two replies together. Asking is the caller's.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

from nodecache.config.model import ServerBlock
from nodecache.directives.dns64.model import DNS64, Dns64
from nodecache.resolve.before_cache import Directives
from nodecache.wire.const import AA, AD, CD, HEADER, HEADER_OCTETS, RCODE_MASK, U16
from nodecache.wire.numbers import CLASS_IN, NOERROR, NXDOMAIN, TYPE_A, TYPE_AAAA, TYPE_SOA
from nodecache.wire.query import Query, name_end
from nodecache.wire.records import walk_records
from nodecache.wire.rrs import RR, Contents, read_contents

_IPV6 = "2"  # Listener.family
_WITHOUT_SOA_S = 600  # RFC 6147 section 5.1.7
_QTYPE_AND_QCLASS_OCTETS = 4
_ADDRESS_OCTETS = 4
_UNUSED_OCTET = 8  # bits 64 to 71 of an address are zero, RFC 6052 section 2.2


def before_cache(block: ServerBlock, parts: Directives, _random: Callable[[], float]) -> Directives:
    """Returns ``parts`` with the ``dns64`` of ``block``."""
    return parts._replace(dns64=Synthesizer(block.of(DNS64) or Dns64()))


class Synthesizer:
    """The ``dns64`` directive of one server block."""

    def __init__(self, policy: Dns64) -> None:
        network = ipaddress.IPv6Network(policy.prefix)
        self._prefix = network.network_address.packed[: network.prefixlen // 8]
        self._translates_all = policy.translate_all
        self._allows_ipv4 = policy.allow_ipv4

    def wants(self, query: Query, family: str) -> bool:
        """Returns whether the reply to ``query`` may be translated.

        Args:
            query: Of a stub resolver.
            family: How it came: "1" for IPv4, "2" for IPv6.

        A client that sets DO and CD validates, and translates, by itself (RFC 6147 section 5.5).
        """
        if query.qtype != TYPE_AAAA or query.qclass != CLASS_IN:
            return False
        if query.dnssec_ok and query.flags & CD:
            return False
        return family == _IPV6 or self._allows_ipv4

    def needs(self, reply: bytes) -> bool:
        """Returns whether the A records are needed, given the whole reply to the AAAA query.

        Not if the name does not exist, nor if there are AAAA records; any error counts as if
        there were none (RFC 6147 sections 5.1.1 and 5.1.2). Raises nothing.
        """
        if len(reply) < HEADER_OCTETS:
            return False
        _, flags, _, ancount, _, _ = HEADER.unpack_from(reply)
        question_end = name_end(reply, HEADER_OCTETS) + _QTYPE_AND_QCLASS_OCTETS
        answer = walk_records(reply, question_end, ancount)
        if answer is None or flags & RCODE_MASK == NXDOMAIN:
            return False
        return self._translates_all or all(record[0] != TYPE_AAAA for record in answer)

    def address_query(self, octets: bytes, question_end: int) -> bytes:
        """Returns the query ``octets`` with QTYPE A; ``question_end`` as in Query."""
        start = question_end - _QTYPE_AND_QCLASS_OCTETS
        return octets[:start] + U16.pack(TYPE_A) + octets[start + U16.size :]

    def synthesize(self, aaaa_reply: bytes, a_reply: bytes) -> bytes:
        """Returns the whole reply to the AAAA query, made of the one to the A query.

        ID and question are those of ``aaaa_reply``, all else that of ``a_reply``, AD cleared
        (RFC 6147 section 5.5). Without A records to translate it is ``aaaa_reply`` itself.
        Raises nothing.
        """
        asked, found = read_contents(aaaa_reply), read_contents(a_reply)
        if asked is None or found is None or found.flags & RCODE_MASK != NOERROR:
            return aaaa_reply
        most_s = _negative_ttl_s(asked)
        answer = [self._translate(rr, most_s) for rr in found.answer]
        if answer == found.answer:
            return aaaa_reply
        found.ident, found.question, found.answer = asked.ident, asked.question, answer
        found.flags &= ~(AA | AD)  # made here: neither authoritative nor validated
        return found.compose()

    def _translate(self, rr: RR, most_s: int) -> RR:
        """Returns the AAAA record for an A record, and any other as it is."""
        if rr.rtype != TYPE_A or rr.rclass != CLASS_IN or len(rr.rdata) != _ADDRESS_OCTETS:
            return rr
        rdata = embed_address(self._prefix, rr.rdata)
        return RR(rr.owner, TYPE_AAAA, CLASS_IN, min(rr.ttl_s, most_s), rdata)


def embed_address(prefix: bytes, address: bytes) -> bytes:
    """Returns the IPv6 address that stands for an IPv4 address (RFC 6052 section 2.2).

    Args:
        prefix: 4, 5, 6, 7, 8 or 12 octets.
        address: 4 octets.
    """
    if len(prefix) > _UNUSED_OCTET:
        return prefix + address
    before = _UNUSED_OCTET - len(prefix)
    return (prefix + address[:before] + b"\0" + address[before:]).ljust(16, b"\0")


def _negative_ttl_s(reply: Contents) -> int:
    """Returns how long a synthesized record may live at most (RFC 6147 section 5.1.7)."""
    found = [rr.ttl_s for rr in reply.authority if rr.rtype == TYPE_SOA]
    return found[-1] if found else _WITHOUT_SOA_S
