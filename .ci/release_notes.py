#!/usr/bin/env python3
"""Prints what CHANGELOG.md says of a release; refuses a tag that is not this version's.

The version is that of nodecache/__init__.py: package, image and chart take it from there.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

_ROOT = Path(__file__).parent.parent


def read_version(source: str) -> str:
    """Returns what ``__version__`` is in the text of nodecache/__init__.py."""
    found = re.search(r'^__version__ = "([^"]+)"$', source, re.MULTILINE)
    if found is None:
        raise SystemExit('nodecache/__init__.py has no line __version__ = "...": write one.')
    return found[1]


def notes_of(version: str, changelog: str) -> str:
    """Returns the section of a version, without its heading."""
    heading = rf"^## \[{re.escape(version)}\][^\n]*\n(.*?)(?=^## |\Z)"
    found = re.search(heading, changelog, re.MULTILINE | re.DOTALL)
    notes = found[1].strip() if found is not None else ""
    if not notes:
        raise SystemExit(
            f'CHANGELOG.md has nothing under "## [{version}]": rename Unreleased, and add the date.'
        )
    return notes


def main(tag: str) -> None:
    """Prints the notes for a tag such as v1.2.3."""
    version = read_version((_ROOT / "nodecache" / "__init__.py").read_text())
    if tag != f"v{version}":
        raise SystemExit(
            f"The tag is {tag}, but nodecache/__init__.py says {version}: "
            f"tag v{version}, or change the version first."
        )
    print(notes_of(version, (_ROOT / "CHANGELOG.md").read_text()))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: .ci/release_notes.py TAG")
    main(sys.argv[1])
