"""The ``whoami`` directive at work: tells a stub resolver where its query came from."""

from __future__ import annotations

import ipaddress
import struct

from nodecache.config.model import Address
from nodecache.wire.const import AA, MAX_NAME_OCTETS, QR, U16
from nodecache.wire.numbers import TYPE_A, TYPE_AAAA, TYPE_SRV
from nodecache.wire.rrs import RR, Contents

_SRV = struct.Struct("!HHHB")  # priority, weight, port, and the root as target


def whoami_response(question: bytes, address: Address, proto: str) -> bytes:
    """Returns a whole response with ID 0: no answer, the client in the additional section.

    Args:
        question: QNAME, QTYPE and QCLASS in wire format; any type gets the same response.
        address: The client's. A host that is no IP address is left out.
        proto: "udp" or "tcp".

    The TTLs are 0: the response is for this client alone and must not be kept for others.
    Raises nothing.
    """
    qname = question[:-4]
    qclass = U16.unpack(question[-2:])[0]
    additional = []
    octets = _address_octets(address.host)
    if octets:
        rtype = TYPE_A if len(octets) == 4 else TYPE_AAAA
        additional.append(RR(qname, rtype, qclass, 0, octets))
    owner = bytes([len(proto) + 1]) + b"_" + proto.encode() + qname
    if len(owner) <= MAX_NAME_OCTETS:
        rdata = _SRV.pack(0, 0, address.port & 0xFFFF, 0)
        additional.append(RR(owner, TYPE_SRV, qclass, 0, rdata))
    return Contents(QR | AA, question, additional=additional).compose()


def _address_octets(host: str) -> bytes:
    """Returns the RDATA for an address; an IPv4-mapped one is IPv4. b"" if it is none."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return b""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).packed
