"""Shows what the tests in ``inside_*.py`` found in a guest: one boot for each file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.uml.bed import BOOT_S, HERE, BootError, Findings, find_out, missing, names_in

WITHIN_S = 600.0  # one file of 50 restarts takes two minutes on two free cores

pytestmark = [
    pytest.mark.root,
    pytest.mark.uml,
    pytest.mark.slow,
    pytest.mark.timeout(WITHIN_S + BOOT_S),
]

FILES = sorted(HERE.glob("inside_*.py"))


class Guests:
    """The guests of this run, each booted when first asked for."""

    def __init__(self) -> None:
        self._findings: dict[Path, Findings] = {}
        self._without = missing()

    def findings(self, path: Path) -> Findings:
        """Returns what the file's tests found; skips where there can be no guest."""
        if path not in self._findings and not self._without:
            try:
                self._findings[path] = find_out(path, WITHIN_S)
            except BootError as error:
                self._without = str(error)
        if self._without:
            pytest.skip(self._without)
        return self._findings[path]


@pytest.fixture(scope="module")
def guests() -> Guests:
    return Guests()


@pytest.mark.parametrize(
    ("path", "name"),
    [
        pytest.param(path, name, id=f"{path.stem.removeprefix('inside_')}-{name}")
        for path in FILES
        for name in names_in(path)
    ],
)
def test_in_a_guest(guests: Guests, path: Path, name: str) -> None:
    findings = guests.findings(path)
    print(f"booted in {findings.outcome.boot_s:.1f} s, gone after {findings.outcome.total_s:.1f} s")
    findings.show(name)
