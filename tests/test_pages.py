"""What the pages quote is there: series, lines of the log, values of the chart."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from daemonset.monitoring import dashboard
from nodecache.cli import main
from nodecache.commands.doctor.catalogue import BY_NAME
from nodecache.telemetry.catalogue import CATALOGUE

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NODE_CACHES = {"coredns_cache_drops_total"}  # compatibility.md says that we leave it out
INSTALL = ROOT / "docs" / "install.md"
VALUES = ROOT / "daemonset" / "chart" / "values.yaml"
OPERATIONS = ROOT / "docs" / "operations.md"

_SERIES = re.compile(r"`((?:coredns|nodecache)_[a-z0-9_]+)(?:\{[^`]*\})?`")
_PARTS = re.compile(r"_(?:bucket|sum|count)$")  # of a histogram
_LINE = re.compile(r"`\[(?:INFO|WARNING|ERROR)\] ([^`]+)`")
_VALUE = re.compile(r"(?:--set |`)([a-z][A-Za-z_]*(?:\.[A-Za-z_]+)*)(?:\.\*|=[^`\s]*)?(?:`|\s)")
_PLACEHOLDER = re.compile(r"%[-+ #0-9.]*[a-zA-Z]")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_LINK = re.compile(r"\]\(([a-z]*(?:\.md)?)#([^)]+)\)")
_PANEL = re.compile(r"panels? \*([^*]+)\*")
_COMMAND = re.compile(r"(?:`|-- |^    )(nodecache [a-z]+)", re.MULTILINE)
_LEAST = 8  # characters of a piece between two dots, or it says nothing


def texts() -> Iterator[str]:
    """Yields each text of the sources, with ``...`` for what is filled in."""
    for path in (ROOT / "nodecache").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield _PLACEHOLDER.sub("...", node.value)
            elif isinstance(node, ast.JoinedStr):
                yield "".join(
                    str(part.value) if isinstance(part, ast.Constant) else "..."
                    for part in node.values
                )


def quoted_lines() -> list[str]:
    page = re.sub(r"\s+", " ", OPERATIONS.read_text(encoding="utf-8"))
    return _LINE.findall(page)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_series_that_a_page_names_is_in_the_catalogue(page: Path) -> None:
    named = set(_SERIES.findall(page.read_text(encoding="utf-8")))
    assert {name for name in named if _PARTS.sub("", name) not in CATALOGUE} <= NODE_CACHES


def test_every_line_of_the_log_that_operations_quotes_is_in_the_sources() -> None:
    known = set(texts())
    lines = quoted_lines()
    assert len(lines) >= 15
    for line in lines:
        pieces = [piece.strip() for piece in line.split("...")]
        said = [piece for piece in pieces if len(piece) >= _LEAST]
        assert said, f"{line!r} quotes too little to be found"
        for piece in said:
            assert any(piece in text for text in known), f"{piece!r} of {line!r} is nowhere"


@pytest.mark.parametrize("page", [INSTALL, OPERATIONS], ids=lambda page: page.name)
def test_every_value_of_the_chart_that_a_page_names_is_in_its_values(page: Path) -> None:
    values = yaml.safe_load(VALUES.read_text(encoding="utf-8"))
    named = [name.split(".") for name in _VALUE.findall(page.read_text(encoding="utf-8"))]
    named = [keys for keys in named if len(keys) > 1 and keys[0] in values and keys[-1] != "yaml"]
    assert len(named) >= 1
    for keys in named:
        here = values
        for key in keys:
            assert key in here, ".".join(keys)
            here = here[key]


def test_values_for_gitops_are_values_of_the_chart() -> None:
    values = yaml.safe_load(VALUES.read_text(encoding="utf-8"))
    text = INSTALL.read_text(encoding="utf-8")
    [block] = re.findall(r"^    config:\n(?:    .*\n)+", text, re.MULTILINE)
    for name, settings in yaml.safe_load(block).items():
        assert settings.keys() <= values[name].keys()


def anchors(page: Path) -> set[str]:
    """Returns what GitHub makes of the headings of a page."""
    headings = _HEADING.findall(page.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def findings_of(page: str) -> Iterator[str]:
    """Yields the names in the columns that say what doctor says."""
    column = -1
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if "doctor says" in cells:
            column = cells.index("doctor says")
        elif not line.startswith("|"):
            column = -1
        elif column > 0:
            yield from re.findall(r"`([a-z-]+)`", cells[column])


def test_findings_panels_and_commands_that_operations_names_are_there(
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = OPERATIONS.read_text(encoding="utf-8")
    findings = set(findings_of(page))
    assert len(findings) >= 15
    assert findings <= BY_NAME.keys()
    titles = {panel["title"] for panel in json.loads(dashboard.composed())["panels"]}
    panels = {re.sub(r"\s+", " ", title) for title in _PANEL.findall(page)}
    assert panels <= titles
    assert main(["help"]) == 0
    known = capsys.readouterr().out
    commands = set(_COMMAND.findall(page))
    assert "nodecache doctor" in commands
    assert all(f"\n  {command} " in known for command in commands)


def test_what_doctor_and_the_pages_refer_to_is_on_the_page_they_name() -> None:
    for kind in BY_NAME.values():
        named, _, anchor = kind.more.partition("#")
        assert not anchor or anchor in anchors(ROOT / "docs" / named), kind.more
    for page in PAGES:
        for name, anchor in _LINK.findall(page.read_text(encoding="utf-8")):
            assert anchor in anchors(page.parent / name if name else page), f"{page}: #{anchor}"
