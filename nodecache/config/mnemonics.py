"""Names of record types, classes and response codes, and how directives about questions take them.

A table of our own: a library's costs 20 ms and 2 MB, in the middle of the first failure.
"""

from __future__ import annotations

import re
from typing import Final

from nodecache.config.reading import one_of
from nodecache.config.values import nearest, shown

# IANA's registry of RR types without those never used.
TYPES: Final = {
    "A": 1, "NS": 2, "MD": 3, "MF": 4, "CNAME": 5, "SOA": 6, "MB": 7, "MG": 8, "MR": 9,
    "NULL": 10, "WKS": 11, "PTR": 12, "HINFO": 13, "MINFO": 14, "MX": 15, "TXT": 16, "RP": 17,
    "AFSDB": 18, "X25": 19, "ISDN": 20, "RT": 21, "NSAP": 22, "NSAP-PTR": 23, "SIG": 24,
    "KEY": 25, "PX": 26, "GPOS": 27, "AAAA": 28, "LOC": 29, "NXT": 30, "EID": 31, "NIMLOC": 32,
    "SRV": 33, "ATMA": 34, "NAPTR": 35, "KX": 36, "CERT": 37, "A6": 38, "DNAME": 39, "OPT": 41,
    "APL": 42, "DS": 43, "SSHFP": 44, "IPSECKEY": 45, "RRSIG": 46, "NSEC": 47, "DNSKEY": 48,
    "DHCID": 49, "NSEC3": 50, "NSEC3PARAM": 51, "TLSA": 52, "SMIMEA": 53, "HIP": 55, "NINFO": 56,
    "RKEY": 57, "TALINK": 58, "CDS": 59, "CDNSKEY": 60, "OPENPGPKEY": 61, "CSYNC": 62,
    "ZONEMD": 63, "SVCB": 64, "HTTPS": 65, "SPF": 99, "UINFO": 100, "UID": 101, "GID": 102,
    "UNSPEC": 103, "NID": 104, "L32": 105, "L64": 106, "LP": 107, "EUI48": 108, "EUI64": 109,
    "NXNAME": 128, "TKEY": 249, "TSIG": 250, "IXFR": 251, "AXFR": 252, "MAILB": 253,
    "MAILA": 254, "ANY": 255, "URI": 256, "CAA": 257, "AVC": 258, "AMTRELAY": 260,
    "RESINFO": 261, "WALLET": 262, "TA": 32_768, "DLV": 32_769,
}  # fmt: skip
CLASSES: Final = {"IN": 1, "CS": 2, "CH": 3, "HS": 4, "NONE": 254, "ANY": 255}
# As CoreDNS spells them, one of them in two ways; the codes that a header can carry.
RCODES: Final = {
    "NOERROR": 0, "FORMERR": 1, "SERVFAIL": 2, "NXDOMAIN": 3, "NOTIMP": 4, "NOTIMPL": 4,
    "REFUSED": 5, "YXDOMAIN": 6, "YXRRSET": 7, "NXRRSET": 8, "NOTAUTH": 9, "NOTZONE": 10,
}  # fmt: skip
TYPE_NAMES: Final = {number: name for name, number in TYPES.items()}
CLASS_NAMES: Final = {number: name for name, number in CLASSES.items()}

_CLASSES_ASKED = {name: CLASSES[name] for name in ("IN", "CH", "HS")}
_NO_QUESTIONS = frozenset((0, 41, 249, 250, 251, 252))  # OPT, TKEY, TSIG, zone transfers
_EXTENDED_RCODES = {
    "BADSIG", "BADVERS", "BADKEY", "BADTIME", "BADMODE", "BADNAME", "BADALG", "BADTRUNC",
    "BADCOOKIE",
}  # fmt: skip
_NUMBERED_TYPE = re.compile("TYPE([0-9]{1,5})")


def parse_type(text: str) -> int:
    """Returns the number of a record type that may be asked for, TYPE65280 included.

    Raises:
        ValueError: With a sentence saying why it is none.
    """
    name = text.upper()
    numbered = _NUMBERED_TYPE.fullmatch(name)
    rtype = int(numbered[1]) if numbered else TYPES.get(name, -1)
    if not 0 <= rtype <= 0xFFFF:
        hint = (
            nearest(name, TYPES)
            or "; write TYPE and its number, 0 to 65535, if it has no name here"
        )
        raise ValueError(f"{shown(text)} is no record type{hint}")
    if rtype in _NO_QUESTIONS:
        raise ValueError(f"nobody asks a cache for {shown(text)}")
    return rtype


def parse_class(text: str) -> int:
    """Returns the number of the class IN, CH or HS; raises ValueError for others."""
    return one_of(_CLASSES_ASKED)(text.upper())


def parse_rcode(text: str) -> int:
    """Returns the number of a response code below 16, written as a number or by name.

    Raises:
        ValueError: With a sentence saying why it is none.
    """
    name = text.upper()
    if name in _EXTENDED_RCODES or (name.isdecimal() and len(name) == 2 and "16" <= name <= "23"):
        raise ValueError(
            f"{shown(text)} speaks about one hop's EDNS or TSIG (RFC 6891) and never passes the"
            " cache: give a code from 0 to 15"
        )
    if re.fullmatch("[0-9]|1[0-5]", name):
        return int(name)
    return one_of(RCODES)(name)
