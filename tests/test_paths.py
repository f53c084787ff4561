"""Each file that a docstring, a comment or a page names is there."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = ("nodecache", "tests", "docs", "bench", "daemonset")
SOURCES = sorted(path for folder in OURS for path in (ROOT / folder).rglob("*.py"))
PAGES = [
    *ROOT.glob("*.md"),
    *(path for folder in ("docs", "bench") for path in (ROOT / folder).glob("*.md")),
    *(ROOT / "daemonset").rglob("*.md"),
    *(ROOT / name for name in ("Makefile", "Dockerfile", "pyproject.toml", ".ci/run", ".ci/pack")),
]
# What looks like a file of ours and is none.
OTHERS = {
    "nodelocaldns.yaml",  # Kubernetes has it
    "json.py",  # in any working directory
    "daemonset/node-local-dns",  # an object, as kubectl names it
    "daemonset/nodecache",  # the same under another name
}

# A file by its ending, or whatever lies in a folder of ours; not the end of a longer path.
_NAMED = re.compile(
    r"(?<![\w./:<>{}$*-])"
    r"((?:[\w*-]+/)*[\w*-]+\.(?:py|md|toml|yaml|sh)\b|(?:" + "|".join(OURS) + r")/[\w*./-]*\w)"
)


def remarks(path: Path) -> Iterator[str]:
    """Yields the docstrings and comments of a source, or a page."""
    text = path.read_text()
    if path.suffix != ".py":
        yield text
        return
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.string
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node) or ""


def is_there(name: str, folder: Path) -> bool:
    """Tells whether a name leads to a file, as readers look for it.

    From the top, from nodecache/, or beside the file that names it; a bare name from anywhere.
    """
    if "/" in name:
        found = [path for base in (ROOT, ROOT / "nodecache", folder) for path in base.glob(name)]
    else:
        found = [*ROOT.glob(name), *(path for each in OURS for path in (ROOT / each).rglob(name))]
    return bool(found)


def find_missing(path: Path) -> list[str]:
    """Returns the names in a file that lead nowhere."""
    named = {match[1] for text in remarks(path) for match in _NAMED.finditer(text)}
    return sorted(name for name in named - OTHERS if not is_there(name, path.parent))


def test_named_files_are_there() -> None:
    found = {str(path.relative_to(ROOT)): find_missing(path) for path in (*SOURCES, *PAGES)}
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ('"""See net/udp.py and nodecache/net, tests/net/test_udp.py or udp.py."""', []),
        ('"""See net/none.py."""', ["net/none.py"]),
        ("a = 1  # as in none.py", ["none.py"]),
        ('a = "none.py"', []),
        ('"""All of tests/uml/inside_*.py, and bench/none_*.py."""', ["bench/none_*.py"]),
        (
            '"""In nodecache/none, /etc/none.yaml or https://example.com/none.md."""',
            ["nodecache/none"],
        ),
    ],
)
def test_missing_file_is_found(tmp_path: Path, text: str, missing: list[str]) -> None:
    path = tmp_path / "remarks.py"
    path.write_text(text)
    assert find_missing(path) == missing
