"""A picture of a terminal holds each line of the text, and nothing that a text smuggles in."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from daemonset.monitoring.terminal import draw
from tests.daemon.processes import ROOT

SVG = "{http://www.w3.org/2000/svg}"
PICTURES = sorted((ROOT / "docs").glob("*.svg"))


def lines_of(picture: str) -> list[tuple[str, str]]:
    """Returns text and class of each line."""
    texts = ElementTree.fromstring(picture).iter(f"{SVG}text")
    return [(text.text or "", text.get("class", "")) for text in texts]


def test_command_and_lines_are_shown_in_their_order_and_coloured_by_their_first_word() -> None:
    picture = draw("nodecache doctor", "broken: 1 finding\n\n  next  look\nhealthy\n")
    assert lines_of(picture) == [
        ("$ nodecache doctor", "asked"),
        ("broken: 1 finding", "broken"),
        ("  next  look", ""),
        ("healthy", "healthy"),
    ]


def test_text_stays_text() -> None:
    text = '<script>"&</script>'
    assert lines_of(draw("cat", text))[1] == (text, "")


def test_all_of_the_longest_line_fits() -> None:
    width = float(ElementTree.fromstring(draw("x", "w" * 100)).get("width", "0"))
    assert width > 100 * 7.8


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.name)
def test_pictures_of_the_docs_are_drawn_by_this(path: Path) -> None:
    (command, _), *rest = lines_of(path.read_text(encoding="utf-8"))
    assert command.startswith("$ nodecache ")
    assert rest
