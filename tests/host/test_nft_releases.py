"""What one release of nft writes, another can read: on a node there are several.

Ours is the image's, of Debian 13; kube-proxy's and the node's own are often older. At some of what
1.1.3 writes nft 1.0.6 crashes, whatever it was asked for, and with it kube-proxy in nftables mode.
"""

from __future__ import annotations

import itertools
import json
import lzma
import os
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import pytest

from nodecache.config.node import NodePlan
from nodecache.host.table import TABLE, compose, covered, is_complete
from tests.daemon.processes import PATIENCE_S
from tests.daemon.servers import program
from tests.deploy.building import mirror
from tests.netns.failing_over import OLD_TABLE
from tests.netns.test_pod import ip
from tests.netns.topology import inside

pytestmark = [pytest.mark.root, pytest.mark.netns]

RELEASES = {"bookworm": "1.0.6", "trixie": "1.1.3"}
ADDRESSES = ("169.254.20.10", "10.96.0.10", "fd00:20::10", "fd96::10")
PLAN = NodePlan("x", ADDRESSES, cluster_dns=("10.96.0.10", "fd96::10"))
PLANS = (
    PLAN,
    replace(PLAN, is_tracked=True),
    replace(PLAN, is_wildcard=True),
    replace(PLAN, fails_over=False),
    replace(PLAN, fails_over=False, is_tracked=True),
    replace(PLAN, addresses=ADDRESSES[:1]),
    replace(PLAN, addresses=ADDRESSES[2:], cluster_dns=("fd96::11",)),
)
LISTINGS = ("list tables", "list ruleset", "-j list ruleset", "-j list table inet nodecache")
LIST = ("list", "table", *TABLE.split())
PAIRS = tuple(itertools.product(RELEASES, RELEASES))


@dataclass(frozen=True, slots=True)
class Nft:
    """A release of nft with the libraries that it was made for."""

    root: Path

    def run(self, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Runs it where the calling thread is."""
        loader = next(self.root.glob("usr/lib/*/ld-linux*"), None) or next(
            self.root.glob("lib/*/ld-linux*")
        )
        folders = [*self.root.glob("lib/*-linux-gnu*"), *self.root.glob("usr/lib/*-linux-gnu*")]
        libraries = ["--library-path", ":".join(map(str, folders))]
        return subprocess.run(
            [loader, *libraries, self.root / "usr/sbin/nft", *words],
            input=stdin, capture_output=True, text=True, timeout=PATIENCE_S, check=False,
        )  # fmt: skip

    def must(self, *words: str, stdin: str = "") -> str:
        """Runs it; returns what it printed, and fails if it was not content."""
        done = self.run(*words, stdin=stdin)
        assert done.returncode == 0, (words, done.returncode, done.stderr)
        return done.stdout


@pytest.fixture(scope="module")
def nfts(request: pytest.FixtureRequest) -> dict[str, Nft]:
    """Both releases, from a Debian mirror, or from the folder of the last time."""
    if os.geteuid() != 0:
        pytest.skip("packet filter rules need root")
    for name in ("ip", "dpkg", "dpkg-deb"):
        program(name)
    cache = Path(request.config.cache.mkdir("nft-releases"))
    found = {}
    for release, version in RELEASES.items():
        folder = cache / release
        if not folder.exists():
            try:
                unpack("nftables", release, folder)
            except OSError as error:
                pytest.skip(f"there is no Debian mirror at {mirror()}: {error}")
        found[release] = Nft(folder)
        assert f"v{version} " in found[release].must("--version")
    return found


@pytest.fixture
def node() -> Iterator[str]:
    """A namespace without rules; the test runs in it."""
    name = f"nc-nft{os.getpid()}"
    with ExitStack() as stack:
        try:
            ip("netns", "add", name)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"ip netns does not work here: {error.stderr.strip()}")
        stack.callback(ip, "netns", "del", name)
        stack.enter_context(inside(name))
        yield name


def unpack(package: str, release: str, folder: Path) -> None:
    """Unpacks a package of Debian, and all that it depends on, into a new folder."""
    architecture = subprocess.run(
        ["dpkg", "--print-architecture"], capture_output=True, text=True, check=True
    ).stdout.strip()
    index = lzma.decompress(download(f"dists/{release}/main/binary-{architecture}/Packages.xz"))
    shutil.rmtree(beside := folder.with_suffix(".part"), ignore_errors=True)
    beside.mkdir()
    for path in closure(package, index.decode()):
        deb = beside / PurePosixPath(path).name
        deb.write_bytes(download(path))
        subprocess.run(["dpkg-deb", "-x", deb, beside], check=True)
        deb.unlink()
    beside.rename(folder)


def closure(package: str, index: str) -> list[str]:
    """Returns the files of a package and of all that it needs, the first of alternatives."""
    names, paths = [package], []
    for name in names:
        _, _, rest = index.partition(f"\nPackage: {name}\n")
        fields = dict(re.findall(r"^([\w-]+): (.*)$", rest.partition("\n\n")[0], re.MULTILINE))
        if fields:  # what is virtual here is for scripts that nobody runs
            paths.append(fields["Filename"])
            needed = re.split(r", ?", fields.get("Depends", ""))
            first = [re.split(r"[ |:]", text)[0] for text in needed if text]
            names += [other for other in first if other not in names]
    return paths


def download(path: str) -> bytes:
    """Returns a file of the mirror. Raises OSError."""
    with urllib.request.urlopen(f"{mirror()}/{path}", timeout=PATIENCE_S) as reply:
        octets: bytes = reply.read()
    return octets


@pytest.mark.usefixtures("node")
@pytest.mark.parametrize(("writer", "reader"), PAIRS)
def test_what_one_release_writes_another_reads(
    nfts: dict[str, Nft], writer: str, reader: str
) -> None:
    for plan, has_socket in itertools.product(PLANS, (True, False)):
        nfts[writer].must("-f", "-", stdin=compose(plan, has_socket))
        if covered(plan):
            nfts[writer].must("add", "element", *TABLE.split(), "beat", "{ 53 }")
        for words in LISTINGS:
            printed = nfts[reader].must(*words.split())
            assert "nodecache" in printed
            if "-j" in words:
                assert json.loads(printed)["nftables"]
        listing = nfts[reader].must(*LIST)
        assert [form for form in (True, False) if is_complete(plan, listing, form)] == (
            [has_socket] if covered(plan) else [True, False]
        )


@pytest.mark.usefixtures("node")
@pytest.mark.parametrize(("writer", "reader"), PAIRS)
def test_what_one_release_prints_another_takes(
    nfts: dict[str, Nft], writer: str, reader: str
) -> None:
    """As when an operator saves the rules and restores them."""
    for plan in PLANS:
        nfts[writer].must("-f", "-", stdin=compose(plan))
        printed = nfts[writer].must(*LIST)
        nfts[writer].must("delete", "table", *TABLE.split())
        nfts[reader].must("-f", "-", stdin=printed)
        assert is_complete(plan, nfts[writer].must(*LIST))


@pytest.mark.usefixtures("node")
def test_table_of_before_is_replaced_and_no_release_stumbles_any_more(
    nfts: dict[str, Nft],
) -> None:
    nfts["trixie"].must("-f", "-", stdin=OLD_TABLE)
    assert nfts["bookworm"].run("list", "tables").returncode != 0  # so it was with 0.1.0
    assert not is_complete(PLAN, nfts["trixie"].must(*LIST))
    nfts["trixie"].must("-f", "-", stdin=compose(PLAN))
    for nft in nfts.values():
        assert is_complete(PLAN, nft.must(*LIST))
