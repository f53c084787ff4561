"""Builds the image by the real Dockerfile, on a base made here, in a store of its own.

The base goes by the name that the Dockerfile asks for, but is a minimal Debian of the same release
with Debian's own Python. What builds need on this machine (certificates, package index) is put into
that throw-away base: the Dockerfile knows nothing of it.
"""

from __future__ import annotations

import configparser
import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.processes import PATIENCE_S, ROOT
from tests.daemon.servers import program

IMAGE = "localhost/nodecache:test"
_MIRROR = "http://deb.debian.org/debian"
_STEP_S = 600.0
_MIN_FREE_OCTETS = 4 * 1024**3  # every stage is a copy of its own
# Debian's slim images have none of these, nor get any from the packages that are added.
_NOT_IN_SLIM = ("doc", "info", "locale", "man")
_CERTIFICATES = Path("etc/ssl/certs/ca-certificates.crt")


def require_builder() -> None:
    """Skips the test, and says why, where no image can be built."""
    if os.geteuid() != 0:
        pytest.skip("images are built by root here")
    for name in ("buildah", "debootstrap", "chroot"):
        program(name)
    try:
        urllib.request.urlopen(f"{mirror()}/dists/stable/InRelease", timeout=PATIENCE_S).close()
    except (OSError, urllib.error.URLError) as error:
        pytest.skip(f"there is no Debian mirror at {mirror()}: {error}")


def require_space(folder: Path) -> None:
    """Skips the test where the copies of all stages would fill the disk."""
    if shutil.disk_usage(folder).free < _MIN_FREE_OCTETS:
        pytest.skip(f"building takes {_MIN_FREE_OCTETS >> 30} GiB below {folder}")


def base_name() -> str:
    """Returns the base that the Dockerfile takes when nobody says otherwise."""
    found = re.search(r"^ARG BASE=(\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


class Store:
    """Images and containers of buildah, below a folder."""

    def __init__(self, folder: Path) -> None:
        self._options = ["--root", f"{folder}/images", "--runroot", f"{folder}/run"]
        self._options += ["--storage-driver", "vfs"]
        self._temporary = folder / "temporary"
        self._temporary.mkdir()

    def run(self, *words: str) -> str:
        """Runs buildah; returns what it printed, and fails with all of its output."""
        environ = {**os.environ, "TMPDIR": str(self._temporary)}
        command = [program("buildah"), *self._options, *words]
        return execute(command, environ)

    def import_folder(self, folder: Path, name: str) -> None:
        """Makes an image of a root file system."""
        container = self.run("from", "scratch").strip()
        self.run("add", "--quiet", container, str(folder), "/")
        self.run("commit", "--quiet", "--rm", container, name)

    def build(self, context: Path, arguments: Mapping[str, str]) -> float:
        """Builds the Dockerfile in ``context``; returns the seconds that took."""
        begin = time.monotonic()
        words = [word for item in arguments.items() for word in ("--build-arg", "=".join(item))]
        self.run(
            "bud", "--pull=never", "--isolation=chroot", "--layers=false",
            "--tag", IMAGE, *words, str(context),
        )  # fmt: skip
        return time.monotonic() - begin

    def mount(self, name: str) -> Path:
        """Returns the root file system of a new container of an image."""
        return Path(self.run("mount", self.run("from", "--pull=never", name).strip()).strip())

    def configuration(self) -> dict[str, Any]:
        """Returns how the image wants to be run: Entrypoint, Env, Labels."""
        found: dict[str, Any] = json.loads(self.run("inspect", "--type=image", IMAGE))
        settings: dict[str, Any] = found["OCIv1"]["config"]
        return settings

    def compressed_octets(self, folder: Path) -> list[int]:
        """Returns the size of each layer, the base's first, as a registry would have it."""
        self.run("push", "--quiet", IMAGE, f"oci:{folder}:test")
        blobs = folder / "blobs"
        index = json.loads((folder / "index.json").read_text())
        digest = index["manifests"][0]["digest"]
        manifest = json.loads((blobs / digest.replace(":", "/")).read_text())
        assert all(layer["mediaType"].endswith("+gzip") for layer in manifest["layers"])
        return [layer["size"] for layer in manifest["layers"]]

    def clear(self) -> None:
        """Removes all containers and images; whoever made the folder removes it."""
        self.run("rm", "--all")
        self.run("rmi", "--all", "--force")


def execute(command: list[str], environ: Mapping[str, str] | None = None) -> str:
    """Runs a program of the build; returns its standard output."""
    done = subprocess.run(
        command, env=environ, capture_output=True, text=True, timeout=_STEP_S, check=False
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout[-8000:]}\n{done.stderr[-8000:]}"
    return done.stdout


def make_base(folder: Path, name: str) -> None:
    """Makes a root file system like that of the image ``python:...-slim-RELEASE``."""
    release = name.rpartition("-")[2]
    include = "--include=ca-certificates,python3,python3-venv"
    command = [program("debootstrap"), "--variant=minbase", include]
    execute([*command, release, str(folder), mirror()])
    _add_headers(folder)
    _make_slim(folder)
    _add_pip(folder)
    shutil.rmtree(folder / "var/cache/apt")
    for file in (folder / "usr/lib").rglob("*.pyc"):
        file.unlink()  # that image has none either
    if (Path("/") / _CERTIFICATES).exists():
        shutil.copy(Path("/") / _CERTIFICATES, folder / _CERTIFICATES)
    (folder / "etc/pip.conf").write_text(_pip_settings())


def _add_headers(folder: Path) -> None:
    """Adds Python's headers, which Debian packs together with a C library to compile against."""
    script = (
        "cd /tmp && apt-get update -q && version=$(ls /usr/lib | grep -E '^python3\\.' | head -n 1)"
        " && apt-get download -q lib$version-dev && dpkg-deb -x lib$version-dev*.deb headers"
        " && cp -a headers/usr/include/. /usr/include/"
        " && rm -rf headers ./*.deb /var/lib/apt/lists/*"
    )
    execute([program("chroot"), str(folder), "sh", "-ec", script])


def _make_slim(folder: Path) -> None:
    """Leaves out what the slim images of Debian leave out."""
    lines = [f"path-exclude /usr/share/{name}/*\n" for name in _NOT_IN_SLIM]
    (folder / "etc/dpkg/dpkg.cfg.d/slim").write_text("".join(lines))
    for name in _NOT_IN_SLIM:
        for path in (folder / "usr/share" / name).glob("*"):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _add_pip(folder: Path) -> None:
    """Puts something where that image has its pip."""
    for name in ("bin/pip3", "lib/python3.13/ensurepip", "lib/python3.13/site-packages/pip"):
        path = folder / "usr/local" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def mirror() -> str:
    """Returns the Debian mirror that this machine is set to, or Debian's own address."""
    apt = shutil.which("apt-get")
    if apt is None:
        return _MIRROR
    words = ["indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Label: Debian"]
    done = subprocess.run(
        [apt, *words], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    return (done.stdout.split() or [_MIRROR])[0].rstrip("/")


def _pip_settings() -> str:
    """Returns a pip.conf with the indexes that this machine's pip asks over the network."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"],
        capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    settings = configparser.ConfigParser(interpolation=None)
    settings["global"] = {"disable-pip-version-check": "1"}
    for line in done.stdout.splitlines():
        key, _, value = line.partition("=")
        option = key.rpartition(".")[2]
        shown = value.strip("'")
        if option in {"index-url", "extra-index-url", "trusted-host"} and "file:" not in shown:
            settings["global"][option] = shown
    lines = [f"{option} = {value}\n" for option, value in settings["global"].items()]
    return "[global]\n" + "".join(lines)
