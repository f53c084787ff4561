"""Draws what a command printed as a terminal shows it, in SVG: for the docs.

Text goes in, text comes out; nothing is run here.
"""

from __future__ import annotations

from html import escape

_CELL_PX = 7.8  # width of a character at this size in the fonts below
_LINE_PX = 18
_MARGIN_PX = 14
_FONTS = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
_STYLE = (
    f"text {{ font: 13px {_FONTS}; fill: #d8d9da; white-space: pre }}"
    " .asked { fill: #8ab8ff } .broken { fill: #ff7383 } .doubtful { fill: #fade2a }"
    " .healthy { fill: #73bf69 }"
)
_MARKS = ("broken", "doubtful", "healthy")


def draw(command: str, text: str) -> str:
    """Returns the picture of a prompt with ``command``, and of ``text`` below it."""
    lines = [f"$ {command}", *text.rstrip("\n").split("\n")]
    width = round(max(map(len, lines)) * _CELL_PX) + 2 * _MARGIN_PX
    height = len(lines) * _LINE_PX + 2 * _MARGIN_PX
    drawn = [
        f'<text x="{_MARGIN_PX}" y="{_MARGIN_PX + (row + 1) * _LINE_PX - 5}"{_mark(row, line)}>'
        f"{escape(line)}</text>\n"
        for row, line in enumerate(lines)
        if line
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
        f' viewBox="0 0 {width} {height}">\n<style>{_STYLE}</style>\n'
        f'<rect width="100%" height="100%" rx="6" fill="#111217"/>\n{"".join(drawn)}</svg>\n'
    )


def _mark(row: int, line: str) -> str:
    first = line.partition(" ")[0].rstrip(":")
    kind = "asked" if row == 0 else first if first in _MARKS else ""
    return f' class="{kind}"' if kind else ""
