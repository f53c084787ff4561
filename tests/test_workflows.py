"""The workflows: what linters can say of what runs only at GitHub; and their scripts, run here."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import nodecache

ROOT = Path(__file__).parent.parent
GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
TOOLS = Path(sys.executable).parent  # of the virtual environment
NOTES = ROOT / ".ci" / "release_notes.py"

# owner/name@hash, and behind it the release that this is
_PINNED = re.compile(r"uses: [\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")
_OF_OURS = re.compile(r"(?<![\w/.])\.(?:ci|github)/[\w./-]*\w")
# What a workflow may be allowed at most, and which job needs it.
WRITES = {
    ("release", "image"): {"packages"},
    ("release", "chart"): {"packages"},
    ("release", "pypi"): {"id-token"},
    ("release", "github"): {"contents"},
}

Json = dict[str, Any]


def read(path: Path) -> Json:
    found: Json = yaml.safe_load(path.read_text())
    return found


def jobs() -> Iterator[tuple[str, str, Json]]:
    """Yields each job with the names of its workflow and its own."""
    for path in WORKFLOWS:
        for name, job in read(path)["jobs"].items():
            yield path.stem, name, job


def run(
    *command: str | Path, text: str | None = None, environ: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in command],
        cwd=ROOT, env=environ, input=text, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip


def tool(name: str) -> str:
    """Returns a program of the virtual environment, or any other of that name."""
    found = shutil.which(name, path=str(TOOLS)) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def assert_clean(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stdout + done.stderr


def test_there_are_workflows_for_tests_and_for_a_release() -> None:
    assert [path.stem for path in WORKFLOWS] == ["release", "tests"]


@pytest.mark.parametrize(
    ("schema", "paths"),
    [("github-workflows", WORKFLOWS), ("dependabot", [GITHUB / "dependabot.yml"])],
)
def test_files_are_of_githubs_schema(schema: str, paths: list[Path]) -> None:
    assert_clean(run(tool("check-jsonschema"), "--builtin-schema", f"vendor.{schema}", *paths))


def test_actionlint_finds_nothing() -> None:
    assert_clean(run(tool("actionlint"), "-no-color", *WORKFLOWS))


def test_zizmor_finds_nothing_that_trusts_too_much() -> None:
    words = ("--offline", "--no-progress", "--no-config", "--min-severity", "medium")
    assert_clean(run(tool("zizmor"), *words, GITHUB))


def test_scripts_are_sound_for_shellcheck() -> None:
    for workflow, name, job in jobs():
        for step in job.get("steps", ()):
            if "run" in step:
                # GitHub fills its expressions in before any shell sees them; ours have none.
                assert "${{" not in step["run"], (workflow, name)
                script = f"#!/usr/bin/env bash\n{step['run']}"
                assert_clean(run(tool("shellcheck"), "-", text=script))
    for path in (ROOT / ".ci").iterdir():
        if path.read_text().startswith("#!/usr/bin/env bash"):
            assert_clean(run(tool("shellcheck"), path))


def test_every_action_is_pinned_to_a_commit_and_says_which_release_that_is() -> None:
    for path in WORKFLOWS:
        for line in path.read_text().splitlines():
            if "uses:" in line and "uses: ./" not in line:
                assert _PINNED.search(line), f"{path.name}: {line}"


def test_one_action_has_one_release() -> None:
    text = "".join(path.read_text() for path in WORKFLOWS)
    found = set(re.findall(r"uses: ([\w./-]+)@(\w+)", text))
    assert len(found) == len({name for name, _ in found})


def test_each_job_has_the_rights_that_it_needs_and_no_others() -> None:
    for path in WORKFLOWS:
        assert read(path)["permissions"] == {}, path.name
    for workflow, name, job in jobs():
        writes = {right for right, level in job["permissions"].items() if level == "write"}
        assert writes == WRITES.get((workflow, name), set()), (workflow, name)
        assert job["permissions"].keys() - writes <= {"contents"}, (workflow, name)


def test_no_job_runs_without_end_nor_keeps_the_token_in_its_checkout() -> None:
    for workflow, name, job in jobs():
        assert "uses" in job or job["timeout-minutes"] <= 90, (workflow, name)
        for step in job.get("steps", ()):
            if "actions/checkout@" in step.get("uses", ""):
                assert step["with"]["persist-credentials"] is False, (workflow, name)
    assert all("concurrency" in read(path) for path in WORKFLOWS)


def test_nothing_is_published_but_by_a_tag_after_all_tests() -> None:
    found = read(GITHUB / "workflows" / "release.yml")["jobs"]

    def before(name: str) -> set[str]:
        needs = found[name].get("needs", [])
        direct = {needs} if isinstance(needs, str) else set(needs)
        return direct.union(*(before(other) for other in direct))

    for _, name in WRITES:
        assert {"version", "tests"} <= before(name), name
    by_tag = "github.event_name == 'push'"
    for name in ("pypi", "github"):
        assert found[name]["if"] == by_tag
    for name in ("image", "chart"):
        publishing = [
            step for step in found[name]["steps"]
            if "login" in step.get("uses", "") or "helm push" in step.get("run", "")
        ]  # fmt: skip
        assert publishing
        assert all(step["if"] == by_tag for step in publishing), name


def test_files_that_workflows_name_are_there() -> None:
    named = [name for path in WORKFLOWS for name in _OF_OURS.findall(path.read_text())]
    assert {".ci/run", ".ci/release_notes.py", ".ci/pack"} <= set(named)
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_python_versions_are_those_of_the_package() -> None:
    versions = read(GITHUB / "workflows" / "tests.yml")["jobs"]["versions"]["strategy"]["matrix"]
    settings = (ROOT / "pyproject.toml").read_text()
    built = re.findall(r"\bcp3(\d+)-manylinux", settings)
    assert versions["python"] == [f"3.{minor}" for minor in built]
    assert f'requires-python = ">={versions["python"][0]}"' in settings


def test_what_is_packed_names_the_image_of_the_release(tmp_path: Path) -> None:
    helm = tmp_path / "bin" / "helm"
    helm.parent.mkdir()
    helm.write_text('#!/bin/sh\ntar -cf "$4/chart.tar" -C "$2" .\n')  # package CHART --destination
    helm.chmod(0o755)
    image = "registry.example.com/dns/nodecache"
    environ = {"PATH": f"{helm.parent}:{os.environ['PATH']}"}
    folder = tmp_path / "packed"
    assert_clean(run(ROOT / ".ci" / "pack", image, folder, environ=environ))
    with tarfile.open(folder / "chart.tar") as chart:
        values = chart.extractfile("./values.yaml")
        assert values is not None
        assert yaml.safe_load(values)["image"]["repository"] == image
    for name in ("nodecache.yaml", "nodecache-ipvs.yaml", "nodecache-cilium.yaml"):
        text = (folder / name).read_text()
        assert f"image: {image}:{nodecache.__version__}\n" in text, name
        assert "image: nodecache" not in text, name


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The script that looks at a tag, the version, and a CHANGELOG that has it."""
    for folder in (".ci", "nodecache"):
        (tmp_path / folder).mkdir()
    shutil.copy(NOTES, tmp_path / ".ci")
    (tmp_path / "nodecache" / "__init__.py").write_text('"""Doc."""\n\n__version__ = "1.2.3"\n')
    (tmp_path / "CHANGELOG.md").write_text(
        "# Changelog\n\n## [Unreleased]\n\n## [1.2.3] - 2026-12-01\n\n### Added\n\n- This.\n\n"
        "## [1.2.2] - 2026-11-01\n\n- That.\n"
    )
    return tmp_path / ".ci" / NOTES.name


def test_notes_of_a_release_are_its_section_of_the_changelog(copy: Path) -> None:
    done = run(sys.executable, copy, "v1.2.3")
    assert_clean(done)
    assert done.stdout == "### Added\n\n- This.\n"


@pytest.mark.parametrize("tag", ["v1.2.4", "1.2.3", "v1.2.3-rc1", "v1.2", "v1x2.3", ""])
def test_a_tag_that_is_not_the_version_is_refused(copy: Path, tag: str) -> None:
    done = run(sys.executable, copy, tag)
    assert done.returncode != 0
    assert done.stdout == ""
    assert "nodecache/__init__.py says 1.2.3: tag v1.2.3" in done.stderr


def test_a_release_without_a_word_in_the_changelog_is_refused(copy: Path) -> None:
    changelog = copy.parent.parent / "CHANGELOG.md"
    changelog.write_text("# Changelog\n\n## [Unreleased]\n\n- This.\n\n## [1.2.3]\n\n## [1.2.2]\n")
    done = run(sys.executable, copy, "v1.2.3")
    assert done.returncode != 0
    assert 'nothing under "## [1.2.3]"' in done.stderr


def test_the_script_finds_the_version_that_the_package_has() -> None:
    done = run(sys.executable, NOTES, "v0.0.0.none")
    assert done.returncode != 0
    assert f"tag v{nodecache.__version__}" in done.stderr
