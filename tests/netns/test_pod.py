"""A pod and a node as two network namespaces: glibc in the one asks the daemon in the other."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.daemon.processes import PATIENCE_S, Child, Daemon, faultless, wait_until
from tests.daemon.servers import program, start_knot
from tests.daemon.zone import MANY, ORIGIN
from tests.kept import Kept

pytestmark = [pytest.mark.root, pytest.mark.netns]

LOCAL_IP = "169.254.20.10"
LOCAL_IP6 = "fd00:20::10"
CLUSTER_IP = "10.96.0.10"
NODE, POD = "10.203.0.1", "10.203.0.2"
NODE6, POD6 = "fd00:203::1", "fd00:203::2"
UPSTREAM = "127.0.0.53"
METRICS_PORT = 9253

NAMES = tuple(f"nodecache{os.getpid()}{side}" for side in ("n", "p"))
NETNS_FILES = Path("/etc/netns")
SEARCH = "search prod.svc.cluster.local svc.cluster.local cluster.local\n"


@dataclass(frozen=True, slots=True)
class Machine:
    """The two namespaces, and the daemon that serves both."""

    node: str
    pod: str
    daemon: Daemon

    def in_pod(self, *command: str) -> str:
        """Runs a program in the pod; returns what it printed on both outputs."""
        return execute(self.pod, *command)

    def resolv_conf(self, text: str) -> None:
        """Gives the pod its resolv.conf."""
        (NETNS_FILES / self.pod / "resolv.conf").write_text(text)

    def getent(self, *arguments: str) -> list[str]:
        """Returns the lines that getent prints in the pod."""
        return self.in_pod("getent", *arguments).splitlines()

    def addresses(self, name: str, database: str = "ahosts") -> list[str]:
        """Returns the addresses that getent finds, each once, sorted."""
        return sorted({line.split()[0] for line in self.getent(database, name)})


def execute(namespace: str, *command: str) -> str:
    done = subprocess.run(
        ["ip", "netns", "exec", namespace, *command],
        capture_output=True, text=True, timeout=PATIENCE_S * 2, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


def ip(*arguments: str) -> None:
    subprocess.run([program("ip"), *arguments], check=True, capture_output=True, text=True)


def make_namespaces(stack: ExitStack) -> tuple[str, str]:
    """Makes node and pod, joined by a veth pair; skips the test where that is not allowed."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    program("ip")
    node, pod = NAMES
    for name in NAMES:
        try:
            ip("netns", "add", name)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"ip netns does not work here: {error.stderr.strip()}")
        stack.callback(ip, "netns", "del", name)
        ip("-n", name, "link", "set", "lo", "up")
    ip("-n", node, "link", "add", "veth0", "type", "veth", "peer", "name", "eth0", "netns", pod)
    for name, device, own, own6 in ((node, "veth0", NODE, NODE6), (pod, "eth0", POD, POD6)):
        ip("-n", name, "address", "add", f"{own}/24", "dev", device)
        ip("-n", name, "-6", "address", "add", f"{own6}/64", "dev", device, "nodad")
        ip("-n", name, "link", "set", device, "up")
    ip("-n", pod, "route", "add", "default", "via", NODE)
    ip("-n", pod, "-6", "route", "add", "default", "via", NODE6)
    for address in (LOCAL_IP, CLUSTER_IP):
        ip("-n", node, "address", "add", f"{address}/32", "dev", "lo")
    ip("-n", node, "-6", "address", "add", f"{LOCAL_IP6}/128", "dev", "lo", "nodad")
    return node, pod


def make_files(stack: ExitStack, folder: Path, pod: str) -> None:
    """Makes /etc/netns/POD, which ip netns exec lays over /etc."""
    etc = NETNS_FILES / pod
    etc.mkdir(parents=True)
    stack.callback(etc.rmdir)  # not what it lies in: another worker may be about to use that
    for name, text in (
        ("resolv.conf", ""),
        ("nsswitch.conf", "hosts: files dns\n"),
        ("hosts", "127.0.0.1 localhost\n"),
    ):
        (etc / name).write_text(text)
        stack.callback((etc / name).unlink)


def corefile(bind: str) -> str:
    return f"""cluster.local:53 {{
    {bind}
    errors
    cache {{
        success 9984 30
        denial 9984 5
    }}
    forward . {UPSTREAM}:5300 {{
        force_tcp
    }}
    prometheus 127.0.0.1:{METRICS_PORT}
}}
.:53 {{
    {bind}
    errors
    cache 30
    forward . {UPSTREAM}:5300 {{
        force_tcp
    }}
    prometheus 127.0.0.1:{METRICS_PORT}
}}
"""


@pytest.fixture(scope="module", params=["bound", "wildcard"])
def machines(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Kept[Machine]]:
    bind = f"bind {LOCAL_IP} {CLUSTER_IP} {LOCAL_IP6}" if request.param == "bound" else ""
    with Kept(lambda: machine_with(bind, tmp_path_factory.mktemp("machine"))) as kept:
        yield kept


@pytest.fixture
def machine(machines: Kept[Machine], request: pytest.FixtureRequest) -> Machine:
    """The daemon on port 53 of a node, bound to its addresses or to all there are."""
    return machines.get(request)


@contextmanager
def machine_with(bind: str, folder: Path) -> Iterator[Machine]:
    """Makes the namespaces, and starts upstream and daemon."""
    with ExitStack() as stack:
        node, pod = make_namespaces(stack)
        make_files(stack, folder, pod)
        within = [program("ip"), "netns", "exec", node]
        knot = start_knot(folder, UPSTREAM, 5300, within)
        stack.callback(knot.stop)
        daemon = Daemon(
            folder,
            corefile(bind),
            host=LOCAL_IP,
            port=53,
            metrics_port=9353,
            within=within,
        )
        stack.enter_context(faultless(daemon))
        daemon.wait_until_serving()
        here = Machine(node, pod, daemon)
        here.resolv_conf(f"nameserver {LOCAL_IP}\n")
        wait_until(
            lambda: here.getent("hosts", f"plain.{ORIGIN}"),
            lambda: f"an answer in the pod: {daemon.log()}{knot.child.log()}",
        )
        yield here


def test_getent_hosts_finds_a_name(machine: Machine) -> None:
    machine.resolv_conf(f"nameserver {LOCAL_IP}\n")
    for _ in range(3):
        [line] = machine.getent("hosts", f"plain.{ORIGIN}")
        assert line.split() == ["192.0.2.1", f"plain.{ORIGIN}"]


def test_getent_ahosts_finds_both_families(machine: Machine) -> None:
    machine.resolv_conf(f"nameserver {LOCAL_IP}\n")
    for _ in range(3):
        assert machine.addresses(f"dual.{ORIGIN}") == ["192.0.2.2", "2001:db8::2"]
        assert machine.addresses(f"dual.{ORIGIN}", "ahostsv4") == ["192.0.2.2"]
        assert machine.addresses(f"dual.{ORIGIN}", "ahostsv6") == ["2001:db8::2"]


def test_401_addresses_reach_glibc_over_tcp(machine: Machine) -> None:
    machine.resolv_conf(f"nameserver {LOCAL_IP}\n")
    assert machine.addresses(f"many.{ORIGIN}", "ahostsv4") == MANY


@pytest.mark.parametrize(
    "options", ["use-vc", "edns0", "trust-ad", "single-request", "single-request-reopen", "rotate"]
)
def test_every_option_of_glibc_works(machine: Machine, options: str) -> None:
    machine.resolv_conf(f"nameserver {LOCAL_IP}\noptions {options}\n")
    for _ in range(2):
        assert machine.addresses(f"dual.{ORIGIN}") == ["192.0.2.2", "2001:db8::2"]
        assert machine.addresses(f"chain1.{ORIGIN}", "ahostsv4") == ["192.0.2.1"]


def test_the_search_path_of_a_pod_leads_to_its_services(machine: Machine) -> None:
    machine.resolv_conf(f"nameserver {LOCAL_IP}\n{SEARCH}options ndots:5\n")
    for _ in range(3):
        assert machine.addresses("web") == ["10.96.1.2"]
        assert machine.addresses("web.prod") == ["10.96.1.2"]
        assert machine.addresses("db") == ["10.244.1.7", "10.244.2.9", "fd00::7"]
        assert machine.addresses(f"plain.{ORIGIN}") == ["192.0.2.1"]


def test_a_name_that_does_not_exist_is_not_found(machine: Machine) -> None:
    machine.resolv_conf(f"nameserver {LOCAL_IP}\n{SEARCH}options ndots:5\n")
    for _ in range(2):
        assert machine.getent("hosts", f"nowhere.{ORIGIN}") == []


@pytest.mark.parametrize("server", [CLUSTER_IP, LOCAL_IP6])
def test_replies_come_from_the_address_that_was_asked(machine: Machine, server: str) -> None:
    machine.resolv_conf(f"nameserver {server}\noptions timeout:1 attempts:1\n")
    for _ in range(3):
        assert machine.addresses(f"dual.{ORIGIN}") == ["192.0.2.2", "2001:db8::2"]


@pytest.mark.parametrize("server", [LOCAL_IP, CLUSTER_IP, LOCAL_IP6])
def test_dig_in_the_pod_sees_the_address_that_it_asked(machine: Machine, server: str) -> None:
    dig = program("dig")
    for transport in ("+notcp", "+tcp"):
        printed = machine.in_pod(dig, f"@{server}", f"plain.{ORIGIN}", transport, "+tries=1")
        assert "status: NOERROR" in printed
        assert f"SERVER: {server}#53" in printed
        assert "reply from unexpected source" not in printed


def test_many_lookups_at_once_all_succeed(machine: Machine, tmp_path: Path) -> None:
    machine.resolv_conf(f"nameserver {LOCAL_IP}\noptions timeout:2 attempts:1\n")
    prefix = [program("ip"), "netns", "exec", machine.pod, "getent", "ahosts"]
    lookups = [
        Child([*prefix, f"n{number}.wild.{ORIGIN}"], tmp_path / str(number)) for number in range(30)
    ]
    for lookup in lookups:
        assert lookup.process.wait(PATIENCE_S) == 0, lookup.log()
        assert "192.0.2.77" in lookup.log()


def test_a_second_nameserver_is_not_needed(machine: Machine) -> None:
    machine.resolv_conf(f"nameserver {LOCAL_IP}\nnameserver 192.0.2.99\noptions timeout:1\n")
    for number in range(10):
        assert machine.addresses(f"s{number}.wild.{ORIGIN}", "ahostsv4") == ["192.0.2.77"]
