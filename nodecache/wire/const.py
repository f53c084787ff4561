"""Sizes, flag masks and fixed layouts of DNS messages."""

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
# 15, unassigned (IANA's registry ends at 6), so no stub sends it: only we do, to our own sockets.
OPCODE_SELF_CHECK = 0x7800
RCODE_MASK = 0x000F

# EDNS, RFC 6891.
MIN_PAYLOAD_OCTETS = 512
OUR_PAYLOAD_OCTETS = 1232
EDNS_DO = 0x8000

HEADER = struct.Struct("!HHHHHH")
U16 = struct.Struct("!H")
U32 = struct.Struct("!I")
TYPE_AND_CLASS = struct.Struct("!HH")
RR_FIXED = struct.Struct("!HHIH")  # TYPE, CLASS, TTL, RDLENGTH
OPT_FIXED = struct.Struct("!BHHBBHH")  # root, OPT, size, extended RCODE, version, flags, RDLENGTH
