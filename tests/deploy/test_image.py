"""The image, built by its Dockerfile and run with the manifest's arguments, rights and volumes."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

import nodecache
from tests.daemon.processes import PATIENCE_S, ROOT, Child, wait_until
from tests.daemon.servers import program, start_knot
from tests.deploy.building import (
    IMAGE,
    Store,
    base_name,
    make_base,
    require_builder,
    require_space,
)
from tests.deploy.manifest import (
    CLUSTER_IP,
    LOCAL_IP,
    UPSTREAM_IP,
    Json,
    container,
    corefile,
    filled,
)
from tests.deploy.running import Container, Place
from tests.kept import Kept
from tests.netns.test_pod import execute, ip, make_namespaces
from tests.webhook.clients import review
from tests.webhook.pairs import make_pair
from tests.webhook.test_flags import ACK

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(900)]

# What a compiler, its tools and package managers of Python are called.
_TOOLS = re.compile(r"(.*-)?(cc|gcc|g\+\+|cpp|as|ld|make|cmake|strip|pip\d?|uv|mypyc)(-?[\d.]+)?")
MOST_COMPRESSED_OCTETS = 80_000_000
ARGUMENTS = {
    "VERSION": nodecache.__version__,
    "REVISION": "0123456789abcdef",
    "SOURCE": "https://example.com/nodecache",
}
# As ACK's chart runs its own image, in our chart's pod.
_WEBHOOK: Json = {
    "command": ["/node-local-dns-admission-controller"],
    "args": list(ACK),
    "env": [{"name": "KUBE_DNS_SERVICE_HOST", "value": CLUSTER_IP}],
    "securityContext": {
        "runAsUser": 65532,
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    },
    "volumeMounts": [],
}
_NET_RIGHTS = (1 << 10) | (1 << 12)  # CAP_NET_BIND_SERVICE, CAP_NET_ADMIN: capabilities(7)


@dataclass(frozen=True, slots=True)
class Built:
    """The image.

    Attributes:
        root: Its files, in a container of buildah's.
        config: How it wants to be run.
        compressed: Size of each layer in a registry, the base's first.
    """

    root: Path
    config: Json
    compressed: list[int]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    require_builder()
    folder = tmp_path_factory.mktemp("image")
    require_space(folder)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder)  # gigabytes, which pytest would keep
        base = folder / "base"
        make_base(base, base_name())
        store = Store(folder)
        stack.callback(store.clear)
        store.import_folder(base, base_name())
        shutil.rmtree(base)
        seconds = store.build(make_context(folder), ARGUMENTS)
        root = store.mount(IMAGE)
        print(f"\nbuilt in {seconds:.0f} s")
        yield Built(root, store.configuration(), store.compressed_octets(folder / "registry"))


def make_context(folder: Path) -> Path:
    """Copies what a build may see: others may work on the sources while it lasts."""
    context = folder / "context"
    context.mkdir()
    for name in ("Dockerfile", ".dockerignore", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, context)
    shutil.copytree(ROOT / "nodecache", context / "nodecache")
    (context / "nodecache" / "stray.cpython-313-x86_64-linux-gnu.so").write_bytes(b"not ours")
    (context / "secret").write_text("not for the image")
    return context


def octets(folder: Path) -> int:
    """Size of all regular files, each once."""
    found = (path.lstat() for path in folder.rglob("*"))
    return sum({item.st_ino: item.st_size for item in found if stat.S_ISREG(item.st_mode)}.values())


def test_size(built: Built) -> None:
    whole, venv = octets(built.root), octets(built.root / "opt/nodecache")
    base, *own = built.compressed
    print(
        f"\nFIGURE image: {whole / 1e6:.0f} MB, of it nodecache and libraries {venv / 1e6:.0f}; "
        f"compressed {(base + sum(own)) / 1e6:.0f} MB, of it the base {base / 1e6:.0f}"
    )
    assert base + sum(own) < MOST_COMPRESSED_OCTETS
    # The published base has another Python than this one: about 45 MB, so that there is room.
    assert sum(own) < MOST_COMPRESSED_OCTETS // 4


def test_image_has_neither_compiler_nor_anything_of_the_build(built: Built) -> None:
    folders = ("bin", "sbin", "usr/bin", "usr/sbin", "usr/local/bin", "opt/nodecache/bin")
    found = [path for folder in folders for path in (built.root / folder).iterdir()]
    assert [path.name for path in found if _TOOLS.fullmatch(path.name)] == []
    for name in ("build", "root/.cache", "secret", "opt/nodecache/include/python3"):
        assert not (built.root / name).exists(), name
    assert list(built.root.glob("opt/nodecache/lib/python3*/site-packages/pip*")) == []
    assert list(built.root.glob("usr/local/**/*pip*")) == []
    assert list((built.root / "opt/nodecache").rglob("stray*")) == []
    for name in ("var/lib/apt/lists", "var/cache/apt", "var/log/apt"):
        assert list(built.root.glob(f"{name}/*")) == [], name


def test_all_files_belong_to_root(built: Built) -> None:
    for path in built.root.rglob("*"):
        assert path.lstat().st_uid == 0, path
    for path in (built.root / "opt/nodecache").rglob("*"):
        assert path.is_symlink() or not path.lstat().st_mode & 0o022, path


def test_image_has_the_programs_for_every_kind_of_rules(built: Built) -> None:
    for name in (
        "nft",
        *(f"{v}-{kind}-{do}" for v in ("iptables", "ip6tables") for kind in ("nft", "legacy")
          for do in ("save", "restore")),
    ):  # fmt: skip
        assert (built.root / "usr/sbin" / name).exists(), name


def test_image_says_what_it_is(built: Built) -> None:
    labels = built.config["Labels"]
    assert labels["org.opencontainers.image.title"] == "nodecache"
    assert labels["org.opencontainers.image.version"] == nodecache.__version__
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert labels["org.opencontainers.image.revision"] == ARGUMENTS["REVISION"]
    assert labels["org.opencontainers.image.source"] == ARGUMENTS["SOURCE"]
    assert labels["org.opencontainers.image.url"] == ARGUMENTS["SOURCE"]
    assert labels["org.opencontainers.image.base.name"] == base_name()
    page = labels["org.opencontainers.image.documentation"]
    prefix = f"{ARGUMENTS['SOURCE']}/blob/{ARGUMENTS['REVISION']}/"
    assert (ROOT / page.removeprefix(prefix)).is_file()
    assert built.config["Entrypoint"] == ["/opt/nodecache/bin/nodecache"]
    assert "User" not in built.config
    assert not built.config.get("ExposedPorts")


@dataclass(frozen=True, slots=True)
class Running:
    """The container that serves, and where."""

    container: Container
    child: Child
    node: str
    pod: str

    def ask(self, *words: str, server: str = LOCAL_IP) -> list[str]:
        """Asks in the pod, as ``dig`` does."""
        answer = execute(self.pod, program("dig"), "+short", "+time=2", f"@{server}", *words)
        return answer.split()

    def exec(self, *words: str) -> str:
        """Runs a program in the container, which must succeed."""
        code, text = self.container.exec(*words)
        assert code == 0, text
        return text


def make_place(folder: Path, root: Path, network: str, text: str) -> Place:
    """Makes the files that kubelet would mount, and a Corefile of this text."""
    for name in ("coredns", "run", "kube-dns"):
        (folder / name).mkdir()
    (folder / "coredns/Corefile.base").write_text(text)
    (folder / "resolv.conf").write_text(f"nameserver {UPSTREAM_IP}\n")
    (folder / "xtables.lock").touch()
    mounts = {
        "/etc/coredns": folder / "coredns",
        "/etc/kube-dns": folder / "kube-dns",
        "/etc/resolv.conf": folder / "resolv.conf",
        "/run/nodecache": folder / "run",
        "/run/xtables.lock": folder / "xtables.lock",
    }
    return Place(folder, root, network, mounts)


@pytest.fixture(scope="module")
def containers(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept[Running]]:
    with Kept(lambda: run_image(built, tmp_path_factory.mktemp("running"))) as kept:
        yield kept


@pytest.fixture
def running(containers: Kept[Running], request: pytest.FixtureRequest) -> Running:
    """The image as a node runs it."""
    return containers.get(request)


@contextmanager
def run_image(built: Built, folder: Path) -> Iterator[Running]:
    program("runc")
    with ExitStack() as stack:
        node, pod = make_namespaces(stack)
        ip("-n", node, "address", "flush", "dev", "lo", "scope", "global")  # nodecache sets it up
        ip("-n", node, "address", "add", f"{UPSTREAM_IP}/32", "dev", "lo")
        (folder / "knot").mkdir()
        knot = start_knot(folder / "knot", UPSTREAM_IP, 53, [program("ip"), "netns", "exec", node])
        stack.callback(knot.stop)
        found = filled("iptables", folder)
        (folder / "bundle").mkdir()
        place = make_place(folder / "bundle", built.root, node, corefile(found))
        one = Container(place, built.config, container(found))
        child = one.start()
        stack.callback(child.stop)
        here = Running(one, child, node, pod)
        child.wait_for_log("rules kept by nftables", PATIENCE_S * 2)
        wait_until(lambda: here.ask("web.prod.svc.cluster.local"), child.log)
        yield here
        assert child.stop() == 0, child.log()
        # The rules stay, and lead to the cluster's DNS.
        assert "table inet nodecache" in execute(node, program("nft"), "list", "tables")
        assert "Traceback" not in child.log()


def test_image_answers_pods(running: Running) -> None:
    assert running.ask("web.prod.svc.cluster.local") == ["10.96.1.2"]
    assert running.ask("+tcp", "web.prod.svc.cluster.local") == ["10.96.1.2"]


def test_image_sets_up_the_node(running: Running) -> None:
    assert running.ask("web.prod.svc.cluster.local", server=CLUSTER_IP) == ["10.96.1.2"]
    assert "notrack" in running.exec("nft", "list", "table", "inet", "nodecache")


def test_read_only_root_is_only_a_warning(running: Running) -> None:
    assert "read-only file system" in running.child.log().lower()
    code, text = running.container.exec("python", "-c", "open('/etc/Corefile', 'w')")
    assert code != 0
    assert "Read-only file system" in text
    assert "Traceback" not in running.child.log()


def test_daemon_has_the_rights_of_the_manifest_and_no_others(running: Running) -> None:
    status = running.exec("python", "-c", "print(open('/proc/1/status').read())")
    rights = dict(re.findall(r"^(Cap\w+|NoNewPrivs):\s*(\w+)$", status, re.MULTILINE))
    assert int(rights["CapEff"], 16) == int(rights["CapBnd"], 16) == _NET_RIGHTS
    assert rights["NoNewPrivs"] == "1"


def test_probe_asks_about_this_pod(running: Running) -> None:
    wait_until(lambda: running.container.exec("nodecache", "probe")[0] == 0, running.child.log)
    code, text = running.container.exec("nodecache", "probe", environ=["POD_UID=another"])
    assert code != 0, text


@pytest.mark.parametrize("page", [":8080/health", ":8181/ready", ":9253/metrics"])
def test_kubelet_and_prometheus_find_their_pages(running: Running, page: str) -> None:
    fetch = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read().decode())"
    text = running.exec("python", "-c", fetch, f"http://{LOCAL_IP}{page}")
    if page.endswith("metrics"):
        assert "coredns_nodecache_setup_errors_total" in text
        assert "coredns_dns_requests_total" in text


def test_core_is_compiled_and_nothing_is_compiled_at_start(running: Running) -> None:
    script = (
        "import nodecache.resolve.resolver as core, nodecache.process.start; print(core.__file__)"
    )
    text = running.exec("python", "-v", "-c", script)
    assert re.search(r"^/opt/nodecache/.*\.so$", text, re.MULTILINE)
    loaded = re.findall(r"^# code object from '(.*)'$", text, re.MULTILINE)
    assert loaded
    assert [file for file in loaded if not file.endswith(".pyc")] == []


def test_memory(running: Running) -> None:
    script = (
        "import pathlib, re\n"
        "for path in pathlib.Path('/proc').glob('[0-9]*/smaps_rollup'):\n"
        "    pid, text = path.parent.name, path.read_text()\n"
        "    print(pid, *re.findall(r'^(?:Rss|Pss): +(\\d+)', text, re.M))\n"
    )
    lines = running.exec("python", "-c", script).splitlines()
    keeper, worker, *_ = sorted(tuple(map(int, line.split())) for line in lines)
    print(f"\nKiB resident, proportional: keeper {keeper[1:]}, worker {worker[1:]}")
    assert keeper[0] == 1
    assert keeper[1] < worker[1]


def test_manifests_that_name_the_command_find_it(built: Built, running: Running) -> None:
    for name in ("node-cache", "node-local-dns-admission-controller"):
        assert os.readlink(built.root / name) == built.config["Entrypoint"][0]  # noqa: PTH115 # as written
    assert running.exec("/node-cache", "-version") == f"nodecache {nodecache.__version__}\n"


@pytest.fixture
def webhook(built: Built, tmp_path: Path) -> Iterator[Container]:
    """The image in place of that of ACK's admission controller."""
    network = f"nodecache-{os.getpid()}-webhook"
    mounted = tmp_path / "tls"
    mounted.mkdir()
    for name, octets in zip(("tls.crt", "tls.key"), make_pair(), strict=True):
        (mounted / name).write_bytes(octets)
    with ExitStack() as stack:
        ip("netns", "add", network)
        stack.callback(ip, "netns", "del", network)
        ip("-n", network, "link", "set", "lo", "up")
        (tmp_path / "bundle").mkdir()
        mounts = {"/run/node-local-dns-admission-controller": mounted}
        one = Container(
            Place(tmp_path / "bundle", built.root, network, mounts), built.config, _WEBHOOK
        )
        child = one.start()
        stack.callback(child.stop)
        ready = "import urllib.request as u; u.urlopen('http://127.0.0.1:9253/readyz')"
        wait_until(lambda: one.exec("python", "-c", ready)[0] == 0, child.log)
        yield one
        assert child.stop() == 0, child.log()


def test_webhook_runs_without_root_rights_and_a_place_to_write(webhook: Container) -> None:
    script = (
        "import ssl, sys, urllib.request as u\n"
        "request = u.Request('https://127.0.0.1:8443/inject', sys.argv[1].encode(),"
        " {'Content-Type': 'application/json'})\n"
        "context = ssl._create_unverified_context()\n"
        "print(u.urlopen(request, context=context).read().decode())"
    )
    code, text = webhook.exec("python", "-c", script, review("4711").decode())
    assert code == 0, text
    response = json.loads(text)["response"]
    assert (response["uid"], response["allowed"]) == ("4711", True)
    assert "patch" in response
    _, status = webhook.exec("python", "-c", "print(open('/proc/1/status').read())")
    user = _WEBHOOK["securityContext"]["runAsUser"]
    assert re.search(rf"^Uid:\s+{user}\s+{user}\s", status, re.MULTILINE)
    assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE)
    assert re.search(r"^CapBnd:\s+0+$", status, re.MULTILINE)
