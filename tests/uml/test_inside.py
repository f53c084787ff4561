"""Shows what the tests in ``inside_*.py`` found in a guest: one boot for each file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.kept import runs_again
from tests.uml.bed import BOOT_S, HERE, BootError, Findings, find_out, missing, names_in

WITHIN_S = 600.0  # one file of 50 restarts takes two minutes on two free cores

pytestmark = [
    pytest.mark.root,
    pytest.mark.uml,
    pytest.mark.slow,
    pytest.mark.timeout(2 * (WITHIN_S + BOOT_S)),
]

FILES = sorted(HERE.glob("inside_*.py"))


class Guests:
    """The guests of this run, two at a time: each has one processor of its own."""

    def __init__(self, paths: Iterable[Path], pool: ThreadPoolExecutor) -> None:
        self._without = missing()
        self._findings: dict[Path, Future[Findings]] = {}
        if not self._without:
            self._findings = {path: pool.submit(find_out, path, WITHIN_S) for path in paths}

    def findings(self, path: Path, only: str = "") -> Findings:
        """Returns what the file's tests found, or one of them in a new guest.

        Skips where there can be no guest.
        """
        if self._without:
            pytest.skip(self._without)
        try:
            return find_out(path, WITHIN_S, only) if only else self._findings[path].result()
        except BootError as error:
            pytest.skip(str(error))


@pytest.fixture(scope="module")
def guests(request: pytest.FixtureRequest) -> Iterator[Guests]:
    calls = [getattr(item, "callspec", None) for item in request.session.items]
    paths = [call.params["path"] for call in calls if call is not None and "path" in call.params]
    with ThreadPoolExecutor(2) as pool:
        yield Guests(dict.fromkeys(path for path in paths if path in FILES), pool)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        pytest.param(path, name, id=f"{path.stem.removeprefix('inside_')}-{name}")
        for path in FILES
        for name in names_in(path)
    ],
)
def test_in_a_guest(guests: Guests, request: pytest.FixtureRequest, path: Path, name: str) -> None:
    findings = guests.findings(path, name if runs_again(request) else "")
    print(f"booted in {findings.outcome.boot_s:.1f} s, gone after {findings.outcome.total_s:.1f} s")
    findings.show(name)
