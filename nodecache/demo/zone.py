"""A small cluster's DNS data, and what an authoritative server answers from it.

Names and answers are shaped as CoreDNS shapes them for Kubernetes. Must not know of sockets.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

from dnslib import CLASS, EDNS0, QTYPE, RCODE, RR, TXT, DNSError, DNSHeader, DNSRecord
from dnslib import A as AddressData
from dnslib.label import DNSLabel

MIN_PAYLOAD_OCTETS = 512
OUR_PAYLOAD_OCTETS = 1232
MAX_CHAIN = 8

ZONES = ("cluster.local.", "10.in-addr.arpa.", "example.com.", "example.org.", ".")
HEADLESS_ADDRESSES = 401
LONG_TXT_STRINGS = 16  # of 120 octets: above 1,500 octets together
HUGE_TXT_STRINGS = 240  # of 250 octets: nearly as long as a message can be

RECORDS = """
.                                               60 IN SOA ns.example.com. hostmaster.example.com. 1 7200 1800 86400 60
.                                               60 IN NS  ns.example.com.
cluster.local.                                  5 IN SOA ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5
cluster.local.                                  5 IN NS  ns.dns.cluster.local.
ns.dns.cluster.local.                           5 IN A   10.96.0.10
dns-version.cluster.local.                      5 IN TXT "1.1.0"
kubernetes.default.svc.cluster.local.           5 IN A   10.96.0.1
_https._tcp.kubernetes.default.svc.cluster.local. 5 IN SRV 0 100 443 kubernetes.default.svc.cluster.local.
kube-dns.kube-system.svc.cluster.local.         5 IN A   10.96.0.10
_dns._udp.kube-dns.kube-system.svc.cluster.local. 5 IN SRV 0 100 53 kube-dns.kube-system.svc.cluster.local.
_dns-tcp._tcp.kube-dns.kube-system.svc.cluster.local. 5 IN SRV 0 100 53 kube-dns.kube-system.svc.cluster.local.
web.shop.svc.cluster.local.                     30 IN A    10.96.12.34
web.shop.svc.cluster.local.                     30 IN AAAA fd00:10:96::c22
_http._tcp.web.shop.svc.cluster.local.          30 IN SRV  0 100 80 web.shop.svc.cluster.local.
cart.shop.svc.cluster.local.                    30 IN A    10.96.56.78
database.shop.svc.cluster.local.                30 IN CNAME db.example.org.
db-0.db.shop.svc.cluster.local.                 30 IN A    10.244.1.7
db-1.db.shop.svc.cluster.local.                 30 IN A    10.244.2.7
db.shop.svc.cluster.local.                      30 IN A    10.244.1.7
db.shop.svc.cluster.local.                      30 IN A    10.244.2.7
_sql._tcp.db.shop.svc.cluster.local.            30 IN SRV  0 50 5432 db-0.db.shop.svc.cluster.local.
_sql._tcp.db.shop.svc.cluster.local.            30 IN SRV  0 50 5432 db-1.db.shop.svc.cluster.local.
10.in-addr.arpa.                                30 IN SOA  ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5
10.in-addr.arpa.                                30 IN NS   ns.dns.cluster.local.
1.0.96.10.in-addr.arpa.                         30 IN PTR  kubernetes.default.svc.cluster.local.
10.0.96.10.in-addr.arpa.                        30 IN PTR  kube-dns.kube-system.svc.cluster.local.
34.12.96.10.in-addr.arpa.                       30 IN PTR  web.shop.svc.cluster.local.
example.com.                                    300 IN SOA   ns.example.com. hostmaster.example.com. 1 7200 1800 86400 60
example.com.                                    300 IN NS    ns.example.com.
example.com.                                    300 IN A     192.0.2.10
example.com.                                    300 IN MX    10 mail.example.com.
ns.example.com.                                 300 IN A     192.0.2.53
mail.example.com.                               300 IN A     192.0.2.25
www.example.com.                                300 IN CNAME edge.example.com.
edge.example.com.                               60 IN CNAME  a.edge.example.org.
api.example.com.                                300 IN HTTPS 1 . alpn=h3,h2 ipv4hint=192.0.2.44
api.example.com.                                300 IN A     192.0.2.44
api.example.com.                                300 IN AAAA  2001:db8::44
example.org.                                    300 IN SOA   ns.example.org. hostmaster.example.org. 1 7200 1800 86400 60
example.org.                                    300 IN NS    ns.example.org.
ns.example.org.                                 300 IN A     198.51.100.53
a.edge.example.org.                             20 IN A      198.51.100.1
a.edge.example.org.                             20 IN A      198.51.100.2
a.edge.example.org.                             20 IN AAAA   2001:db8:1::1
db.example.org.                                 120 IN A     198.51.100.77
"""  # noqa: E501 (one record a line)


def compose_reply(query: bytes, *, is_udp: bool) -> bytes:
    """Returns the reply to a query in wire format, or b"" for what deserves none.

    Truncated (TC, no records) if it is to go by UDP and does not fit what the query allows.
    """
    if len(query) < 12 or query[2] & 0x80:
        return b""
    return query[:2] + _compose_after_id(query[2:], is_udp)


@functools.lru_cache(maxsize=4096)
def _compose_after_id(query: bytes, is_udp: bool) -> bytes:
    """Returns the octets after the ID: repeated questions cost the demo next to nothing."""
    try:
        request = DNSRecord.parse(b"\0\0" + query)
    except DNSError:
        return bytes(DNSRecord(DNSHeader(qr=1, rcode=RCODE.FORMERR)).pack()[2:])
    reply = request.reply(ra=1, aa=1)
    reply.header.ad = 0  # dnslib hands the query's back, and nothing here is validated
    opt = next((rr for rr in request.ar if rr.rtype == QTYPE.OPT), None)
    if request.header.opcode or len(request.questions) != 1:
        reply.header.rcode = RCODE.NOTIMP if request.header.opcode else RCODE.FORMERR
    else:
        answer(reply)
    if opt is not None:
        reply.add_ar(EDNS0(udp_len=OUR_PAYLOAD_OCTETS, flags="do" * (opt.edns_do & 1)))
    octets = bytes(reply.pack())
    limit = max(MIN_PAYLOAD_OCTETS, opt.edns_len if opt else 0)
    if is_udp and len(octets) > limit:
        reply.rr, reply.auth, reply.header.tc = [], [], 1
        octets = bytes(reply.pack())
    return octets[2:]


def answer(reply: DNSRecord) -> None:
    """Fills in records and RCODE; follows CNAMEs as far as the demo's own zones go."""
    if reply.q.qclass != CLASS.IN:
        reply.header.rcode = RCODE.REFUSED
        return
    name, qtype = fold(reply.q.qname), reply.q.qtype
    for _ in range(MAX_CHAIN):
        records = find_records(name)
        found = [rr for rr in records if qtype in (rr.rtype, QTYPE.ANY)]
        alias = next((rr for rr in records if rr.rtype == QTYPE.CNAME), None)
        if found or alias is None:
            break
        reply.add_answer(alias)
        name = fold(alias.rdata.label)
    reply.add_answer(*found)
    if not found:
        reply.header.rcode = RCODE.NOERROR if name in existing_names() else RCODE.NXDOMAIN
        reply.add_auth(find_soa(name))


def find_records(name: str) -> list[RR]:
    """Returns all records of a name; 10-1-2-3.<namespace>.pod.cluster.local is its own data."""
    if name.endswith(".pod.cluster.local."):
        host, _, rest = name.removesuffix(".pod.cluster.local.").partition(".")
        octets = host.split("-")
        if rest and "." not in rest and len(octets) == 4 and all(map(is_octet, octets)):
            return [RR(name, QTYPE.A, ttl=5, rdata=AddressData(".".join(octets)))]
    return records_by_name().get(name, [])


def is_octet(text: str) -> bool:
    """Returns whether ``text`` is a number from 0 to 255."""
    return text.isascii() and text.isdigit() and len(text) <= 3 and int(text) < 256


def find_soa(name: str) -> RR:
    """Returns the SOA record of the zone that holds ``name``; the root's in the end."""
    zone = next(zone for zone in ZONES if f".{name}".endswith(f".{zone.lstrip('.')}"))
    return next(rr for rr in records_by_name()[zone] if rr.rtype == QTYPE.SOA)


def fold(label: DNSLabel) -> str:
    """Returns a name in lower case with its final dot."""
    return str(label).lower()


@functools.cache
def records_by_name() -> dict[str, list[RR]]:
    """Returns all records, those that would be tedious to write down included."""
    records: dict[str, list[RR]] = {}
    for rr in (*RR.fromZone(RECORDS), *_large_records()):
        records.setdefault(fold(rr.rname), []).append(rr)
    return records


@functools.cache
def existing_names() -> frozenset[str]:
    """Returns every name that has records or lies above one that has (RFC 8020)."""
    names = {"."}
    for owner in records_by_name():
        name = owner
        while name:
            names.add(name)
            name = name.partition(".")[2]
    return frozenset(names)


def _large_records() -> Iterator[RR]:
    """Yields answers that do not fit a datagram."""
    for number in range(HEADLESS_ADDRESSES):
        address = AddressData(f"10.244.{100 + number // 250}.{1 + number % 250}")
        yield RR("workers.shop.svc.cluster.local.", QTYPE.A, ttl=30, rdata=address)
    for name, strings, octets in (("long", LONG_TXT_STRINGS, 120), ("huge", HUGE_TXT_STRINGS, 250)):
        text = TXT([f"{number:03d} ".encode().ljust(octets, b".") for number in range(strings)])
        yield RR(f"{name}.example.com.", QTYPE.TXT, ttl=300, rdata=text)
