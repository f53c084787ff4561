"""What PyPI gets: an sdist and a pure wheel, made as a release makes them, and run."""

from __future__ import annotations

import email
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import nodecache

ROOT = Path(__file__).parent.parent
SDIST = f"nodecache-{nodecache.__version__}.tar.gz"
WHEEL = f"nodecache-{nodecache.__version__}-py3-none-any.whl"
# The translated core is in no checkout; the rest is made here by tests and tools.
NOT_COPIED = shutil.ignore_patterns(".*", "__pycache__", "dist")
HIDDEN = (".ci", ".dockerignore", ".github", ".gitignore")

# In one worker, or each would make them.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(400),
    pytest.mark.xdist_group("packages"),
]


def make_packages(checkout: Path, folder: Path) -> None:
    """Makes both, the wheel from the sdist; skips the test where there is no index."""
    command = [sys.executable, "-m", "build", "--outdir", str(folder), str(checkout)]
    environ = os.environ | {"SOURCE_DATE_EPOCH": "1700000000"}
    done = subprocess.run(
        command, env=environ, capture_output=True, text=True, timeout=180, check=False
    )
    if "No matching distribution found for hatchling" in done.stdout + done.stderr:
        pytest.skip("pip finds no package index")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Folders with sdist and wheel of two checkouts of one commit."""
    folders = []
    for name in ("one", "other"):
        checkout = tmp_path_factory.mktemp(name)
        shutil.copytree(ROOT, checkout, ignore=NOT_COPIED, dirs_exist_ok=True)
        for hidden in HIDDEN:
            source = ROOT / hidden
            copy = shutil.copytree if source.is_dir() else shutil.copy
            copy(source, checkout / hidden)
        make_packages(checkout, checkout / "made")
        folders.append(checkout / "made")
    return folders


@pytest.fixture
def made(packages: list[Path]) -> Path:
    return packages[0]


def test_a_release_is_an_sdist_and_a_wheel_for_every_python(made: Path) -> None:
    assert {path.name for path in made.iterdir()} == {SDIST, WHEEL}


def test_one_commit_gives_the_same_octets_twice(packages: list[Path]) -> None:
    for name in (SDIST, WHEEL):
        found = {hashlib.sha256((folder / name).read_bytes()).hexdigest() for folder in packages}
        assert len(found) == 1, name


def test_the_wheel_is_the_package_and_nothing_else(made: Path) -> None:
    with zipfile.ZipFile(made / WHEEL) as wheel:
        names = set(wheel.namelist())
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "nodecache").rglob("*.py")}
    about = f"nodecache-{nodecache.__version__}.dist-info"
    found = {name for name in names if not name.startswith(about)}
    assert found == sources | {"nodecache/py.typed"}
    assert f"{about}/licenses/LICENSE" in names


def test_the_wheel_says_what_it_is_and_needs(made: Path) -> None:
    about = f"nodecache-{nodecache.__version__}.dist-info"
    with zipfile.ZipFile(made / WHEEL) as wheel:
        metadata = email.message_from_bytes(wheel.read(f"{about}/METADATA"))
        entry_points = wheel.read(f"{about}/entry_points.txt").decode()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert metadata["Version"] == nodecache.__version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == project["requires-python"]
    assert metadata["Description-Content-Type"] == "text/markdown"
    needed = metadata.get_all("Requires-Dist", [])
    extra = [line for line in needed if "extra == " in line]
    assert len(extra) == len(project["optional-dependencies"]["webhook"])
    assert len(needed) - len(extra) == len(project["dependencies"])
    assert metadata.get_all("Provides-Extra") == ["webhook"]
    assert "nodecache = nodecache.__main__:main" in entry_points


def test_the_sdist_has_what_tests_and_builds_need(made: Path) -> None:
    with tarfile.open(made / SDIST) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    for name in (
        "CHANGELOG.md", "Dockerfile", "LICENSE", "Makefile", "README.md", "SECURITY.md",
        "pyproject.toml", ".ci/run", "bench/__main__.py", "daemonset/nodecache.yaml",
        "docs/install.md", "tests/conftest.py",
    ):  # fmt: skip
        assert name in names, name
    assert not {name for name in names if name.endswith((".so", ".pyc"))}


def test_what_is_installed_from_the_wheel_answers(made: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(made / WHEEL) as wheel:
        wheel.extractall(tmp_path)
    environ = os.environ | {"PYTHONPATH": str(tmp_path)}
    smoke = [sys.executable, str(ROOT / ".ci" / "smoke.py")]
    for kind, code in (("pure", 0), ("translated", 1)):
        done = subprocess.run(
            [*smoke, kind], cwd=tmp_path, env=environ,
            capture_output=True, text=True, timeout=100, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
    assert "no translated nodecache" in done.stderr
