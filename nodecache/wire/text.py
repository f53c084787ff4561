"""Names, types, classes and response codes as people write them; not on a plain query's path."""

from __future__ import annotations

from functools import lru_cache

from nodecache.wire.numbers import CLASS_NAMES, RCODE_NAMES, TYPE_NAMES

# As CoreDNS has it, since users' patterns rely on it; a blank would split a line of a log.
_BEHIND_BACKSLASH = frozenset(b".\"\\'@;()")
_OCTET_TEXTS = [
    f"\\{chr(octet)}"
    if octet in _BEHIND_BACKSLASH
    else (chr(octet) if 0x20 < octet < 0x7F else f"\\{octet:03}")
    for octet in range(256)
]


def name_text(wire: bytes) -> str:
    """Returns the presentation format of an uncompressed name, with its final dot.

    Whatever a log, a zone file or its reader could misunderstand is escaped (RFC 4343 section
    2.1); at most 1003 characters of ASCII.
    """
    if wire[:1] == b"\0":
        return "."
    labels = []
    position = 0
    while wire[position]:
        end = position + 1 + wire[position]
        labels.append("".join([_OCTET_TEXTS[octet] for octet in wire[position + 1 : end]]))
        position = end
    return ".".join(labels) + "."


def type_text(qtype: int) -> str:
    """Returns "AAAA", or "TYPE65280" as RFC 3597 section 5 writes what has no name."""
    return TYPE_NAMES.get(qtype) or f"TYPE{qtype}"


def class_text(qclass: int) -> str:
    """Returns "IN", or "CLASS42"."""
    return CLASS_NAMES.get(qclass) or f"CLASS{qclass}"


def rcode_text(rcode: int) -> str:
    """Returns "NXDOMAIN", or the number of a code without a name, as CoreDNS does."""
    return RCODE_NAMES.get(rcode) or str(rcode)


@lru_cache(maxsize=1024)
def question_texts(question: bytes) -> tuple[str, str, str]:
    """Returns name, type and class of a question in wire format that was scanned before.

    The texts are ASCII without blanks, quotes and control characters, whatever the client sent.
    """
    qtype = int.from_bytes(question[-4:-2], "big")
    qclass = int.from_bytes(question[-2:], "big")
    return name_text(question[:-4]), type_text(qtype), class_text(qclass)
