"""Templates of the ``log`` directive: what stands between their placeholders, and which exist."""

from __future__ import annotations

import re

from nodecache.config.values import nearest
from nodecache.printing import shown

COMMON = (
    '{remote}:{port} - {>id} "{type} {class} {name} {proto} {size} {>do} {>bufsize}"'
    " {rcode} {>rflags} {rsize} {duration}"
)
COMBINED = COMMON + ' "{>opcode}"'

PLACEHOLDERS = (
    "{type}", "{name}", "{class}", "{proto}", "{remote}", "{port}", "{local}", "{size}",
    "{duration}", "{rcode}", "{rsize}", "{>rflags}", "{>bufsize}", "{>do}", "{>id}", "{>opcode}",
    "{/log/class}", "{/log/type}", "{/forward/upstream}",
)  # fmt: skip
_SHORTCUTS = {"{common}": COMMON, "{combined}": COMBINED}

# Braces round one word; others, as in a line of JSON, are plain text.
_PLACEHOLDER = re.compile(r"(\{[>/]?[A-Za-z0-9_/.~-]+\})")


def parse_template(text: str) -> str:
    """Returns the template that ``text`` writes, its shortcuts filled in.

    Raises:
        ValueError: With a sentence that names a placeholder that does not exist.
    """
    for shortcut, template in _SHORTCUTS.items():
        text = text.replace(shortcut, template)
    for piece in split_template(text):
        if _PLACEHOLDER.fullmatch(piece) and piece not in PLACEHOLDERS:
            known = (*PLACEHOLDERS, *_SHORTCUTS)
            raise ValueError(
                f"there is no placeholder {shown(piece)}{nearest(piece, known)};"
                f" there are {' '.join(known)}"
            )
    return text


def split_template(text: str) -> list[str]:
    """Returns the pieces of a template in order: plain text and placeholders."""
    return [piece for piece in _PLACEHOLDER.split(text) if piece]
