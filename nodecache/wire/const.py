"""Offsets, flag masks and numbers of the DNS, with their IANA names."""

from __future__ import annotations

import struct

HEADER_OCTETS = 12
MAX_MESSAGE_OCTETS = 65535
MAX_NAME_OCTETS = 255  # RFC 1035 section 2.3.4
MAX_LABEL_OCTETS = 63

# Flag word of the header, RFC 1035 section 4.1.1 and RFC 4035 section 3.2.
QR = 0x8000
AA = 0x0400
TC = 0x0200
RD = 0x0100
RA = 0x0080
AD = 0x0020
CD = 0x0010
OPCODE_MASK = 0x7800
OPCODE_SELF_CHECK = 0x7800  # 15, unassigned: only we send it, to our own sockets
RCODE_MASK = 0x000F

NOERROR = 0
FORMERR = 1
SERVFAIL = 2
NXDOMAIN = 3
NOTIMP = 4
REFUSED = 5
BADVERS = 16  # RFC 6891 section 9; needs the OPT record's upper octet

TYPE_A = 1
TYPE_NS = 2
TYPE_CNAME = 5
TYPE_SOA = 6
TYPE_HINFO = 13
TYPE_AAAA = 28
TYPE_DNAME = 39
TYPE_OPT = 41
TYPE_DS = 43
TYPE_RRSIG = 46
TYPE_IXFR = 251
TYPE_AXFR = 252
TYPE_ANY = 255
CLASS_IN = 1

# EDNS, RFC 6891.
MIN_PAYLOAD_OCTETS = 512
OUR_PAYLOAD_OCTETS = 1232
EDNS_DO = 0x8000
OPTION_CLIENT_SUBNET = 8
OPTION_COOKIE = 10
OPTION_EXTENDED_ERROR = 15  # RFC 8914

EDE_STALE_ANSWER = 3
EDE_NOT_READY = 14
EDE_CACHED_ERROR = 13
EDE_NO_REACHABLE_AUTHORITY = 22
EDE_NETWORK_ERROR = 23

HEADER = struct.Struct("!HHHHHH")
U16 = struct.Struct("!H")
U32 = struct.Struct("!I")
TYPE_AND_CLASS = struct.Struct("!HH")
RR_FIXED = struct.Struct("!HHIH")  # TYPE, CLASS, TTL, RDLENGTH
OPT_FIXED = struct.Struct("!BHHBBHH")  # root, OPT, size, extended RCODE, version, flags, RDLENGTH
