"""Names in wire format as people write them; never on the path of a plain query."""

from __future__ import annotations


def name_text(wire: bytes) -> str:
    """Returns the presentation format of an uncompressed name, with its final dot.

    Whatever a log or its reader could misunderstand is escaped (RFC 4343 section 2.1).
    """
    if wire[:1] == b"\0":
        return "."
    labels = []
    position = 0
    while wire[position]:
        end = position + 1 + wire[position]
        labels.append("".join(map(_octet_text, wire[position + 1 : end])))
        position = end
    return ".".join(labels) + "."


def _octet_text(octet: int) -> str:
    character = chr(octet)
    if character in '."\\':
        return f"\\{character}"
    return character if "!" <= character <= "~" else f"\\{octet:03}"
