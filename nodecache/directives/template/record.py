"""One resource record in presentation format (RFC 1035 section 5.1), read by dnspython.

Importing this takes 20 ms and 2 MB, so it is imported only where a ``template`` makes records.
"""

from __future__ import annotations

from typing import NamedTuple

import dns.exception
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.tokenizer
import dns.ttl

from nodecache.printing import printable, shown

_MAX_CHARACTERS = 65_536
_MAX_RDATA_OCTETS = 65_535
_MAX_SENTENCE_CHARACTERS = 200
_MOST_TTL_S = 2**31 - 1  # RFC 2181 section 8
_DEFAULT_TTL_S = 3600  # CoreDNS's; RFC 1035 would take the one of the record before


class Record(NamedTuple):
    """A record; names in wire format, case kept, uncompressed."""

    owner: bytes
    rtype: int
    rclass: int
    ttl_s: int
    rdata: bytes


def parse_record(text: str) -> Record:
    """Returns the record that ``text`` writes: NAME [TTL] [CLASS] TYPE RDATA.

    Names without a final dot count from the root, TTL is 3600 and CLASS is IN when they are
    left out; both may stand in either order. RDATA may go over several lines in parentheses.

    Args:
        text: At most 65,536 characters.

    Raises:
        ValueError: With a sentence that says why it is no record.
    """
    if len(text) > _MAX_CHARACTERS:
        raise ValueError(f"it has more than {_MAX_CHARACTERS} characters")
    try:
        return _read_record(dns.tokenizer.Tokenizer(text))
    except (dns.exception.DNSException, UnicodeError) as error:
        sentence = printable(str(error) or "it is malformed").rstrip(".")
        raise ValueError(sentence[:_MAX_SENTENCE_CHARACTERS]) from None


def _read_record(words: dns.tokenizer.Tokenizer) -> Record:
    token = words.get()
    while token.is_eol():
        token = words.get()
    if token.is_eof():
        raise ValueError("it is empty")
    owner = words.as_name(token, dns.name.root)
    ttl_s, rclass, rtype = _read_head(words)
    rdata = dns.rdata.from_text(rclass, rtype, words, dns.name.root, relativize=False)
    token = words.get()
    while token.is_eol():
        token = words.get()
    if not token.is_eof():
        raise ValueError("a second record follows: give each one of its own")
    octets = rdata.to_wire() or b""
    if len(octets) > _MAX_RDATA_OCTETS:
        raise ValueError(f"its data are longer than {_MAX_RDATA_OCTETS} octets")
    return Record(owner.to_wire() or b"", int(rtype), int(rclass), ttl_s, octets)


def _read_head(
    words: dns.tokenizer.Tokenizer,
) -> tuple[int, dns.rdataclass.RdataClass, dns.rdatatype.RdataType]:
    """TTL and class, each of which may lack, and the type."""
    ttl_s, rclass = _DEFAULT_TTL_S, dns.rdataclass.IN
    text = words.get_identifier()
    for _ in range(2):
        found = _find_class(text)
        if found is not None:
            rclass = found
        elif text[:1].isdecimal():
            ttl_s = dns.ttl.from_text(text)
        else:
            break
        text = words.get_identifier()
    if ttl_s > _MOST_TTL_S:
        raise ValueError(f"a TTL is at most {_MOST_TTL_S} seconds (RFC 2181 section 8)")
    return ttl_s, rclass, _parse_type(text)


def _find_class(text: str) -> dns.rdataclass.RdataClass | None:
    try:
        return dns.rdataclass.from_text(text)
    except dns.rdataclass.UnknownRdataclass:
        return None


def _parse_type(text: str) -> dns.rdatatype.RdataType:
    try:
        rtype = dns.rdatatype.from_text(text)
    except dns.rdatatype.UnknownRdatatype:
        raise ValueError(f"there is no type {shown(text)}") from None
    if dns.rdatatype.is_metatype(rtype):
        raise ValueError(f"{shown(text)} is no type of a record")
    return rtype
