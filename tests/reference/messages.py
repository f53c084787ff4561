"""Slow twins of the wire scanners: the same verdicts, by dnspython's parser."""

from __future__ import annotations

from dataclasses import dataclass

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rdatatype
import dns.rdtypes.ANY.SOA
import dns.rrset
import dns.wirebase

CLIENT_SUBNET_AND_COOKIE = (dns.edns.ECS, dns.edns.COOKIE)


def parse(octets: bytes, *, ignore_trailing: bool = True) -> dns.message.Message | None:
    """The whole message, one RRset for each RR; None if dnspython finds any fault in it.

    Octets behind it are none, unless ``ignore_trailing`` is False.
    """
    try:
        return dns.message.from_wire(
            octets, one_rr_per_rrset=True, keyring=False, ignore_trailing=ignore_trailing
        )
    except (dns.exception.DNSException, ValueError, OverflowError):
        return None


@dataclass(frozen=True)
class QueryView:
    """What may be looked up, and how the reply has to look."""

    qname: bytes
    qtype: int
    qclass: int
    flags: int
    has_edns: bool
    dnssec_ok: bool
    payload_size: int
    is_personal: bool


def view_query(message: dns.message.Message, *, has_more: bool) -> QueryView:
    """The view of a query; ``has_more`` tells of octets behind it."""
    question = message.question[0]
    records = [*message.answer, *message.authority, *message.additional]
    return QueryView(
        qname=question.name.to_wire() or b"",
        qtype=int(question.rdtype),
        qclass=int(question.rdclass),
        flags=int(message.flags),
        has_edns=message.edns >= 0,
        dnssec_ok=bool(message.ednsflags & dns.flags.DO),
        payload_size=max(512, message.payload),
        is_personal=bool(records)
        or message.had_tsig
        or has_more
        or any(option.otype in CLIENT_SUBNET_AND_COOKIE for option in message.options),
    )


def judge_query(octets: bytes) -> QueryView | int | str | None:
    """A view to look up, an RCODE to refuse with, or why there is silence.

    None if dnspython refuses what is behind the header, for a reason that need not be ours: it
    checks the RDATA of records, too.
    """
    if len(octets) < 12:
        return "too_short"
    if octets[2] & 0x80:
        return "is_response"
    if octets[2] & 0x78:
        return 4
    if int.from_bytes(octets[4:6], "big") != 1:
        return 1
    message = parse(octets)
    if message is None or _has_compressed_question(octets):
        return None
    if message.edns > 0:
        return 16
    if message.question[0].rdtype in (dns.rdatatype.AXFR, dns.rdatatype.IXFR):
        return 5
    return view_query(message, has_more=parse(octets, ignore_trailing=False) is None)


def _has_compressed_question(octets: bytes) -> bool:
    parser = dns.wirebase.Parser(octets, 12)
    try:
        dns.name.from_wire_parser(parser, decompress=False)
    except dns.name.DecompressionForbidden:
        return True
    return False


@dataclass(frozen=True)
class ResponseView:
    """What the cache has to know of a response."""

    rcode: int
    counts: tuple[int, int, int]
    least_ttl_s: int | None
    negative_ttl_s: int | None
    answers_type: bool
    is_referral: bool


def view_response(message: dns.message.Message) -> ResponseView:
    """The view of a response whose OPT record, if any, is the last record."""
    sections = [message.answer, message.authority, message.additional]
    qtype = message.question[0].rdtype
    everything = [rrset for section in sections for rrset in section]
    negative = _negative_ttls(message.authority)
    has_ns = any(rrset.rdtype == dns.rdatatype.NS for rrset in message.authority)
    return ResponseView(
        rcode=int(message.rcode()),
        counts=(len(message.answer), len(message.authority), len(message.additional)),
        least_ttl_s=min((rrset.ttl for rrset in everything), default=None),
        negative_ttl_s=negative[-1] if negative else None,
        answers_type=any(qtype in (rrset.rdtype, dns.rdatatype.ANY) for rrset in message.answer),
        is_referral=has_ns and not negative and not message.answer,
    )


def _negative_ttls(authority: list[dns.rrset.RRset]) -> list[int]:
    """min(TTL, MINIMUM) of each SOA; MINIMUM above 2^31 - 1 counts as 0, as a TTL does."""
    return [
        min(rrset.ttl, rdata.minimum if rdata.minimum < 2**31 else 0)
        for rrset in authority
        for rdata in rrset
        if isinstance(rdata, dns.rdtypes.ANY.SOA.SOA)
    ]
