"""Names in wire format as people write them; never on the path of a plain query."""

from __future__ import annotations

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
