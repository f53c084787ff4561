"""The interface in a network namespace of its own, by the real tool and the real kernel.

Links that the kernels of ordinary test machines can make stand for those of others; whatever they
are called, what is done to a dummy link is tested in tests/host/test_interface.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from nodecache.config.node import NodePlan
from nodecache.host.tool import Report, parse_report, tool_command
from tests.daemon.processes import PATIENCE_S, wait_until
from tests.daemon.servers import program

pytestmark = [pytest.mark.root, pytest.mark.netns]

NAME = f"nc-interface{os.getpid()}"
LOCAL_IP, CLUSTER_IP, LOCAL_IP6 = "169.254.20.10", "10.96.0.10", "fd00:20::10"
PLAN = NodePlan("nodelocaldns", (LOCAL_IP, CLUSTER_IP, LOCAL_IP6), has_rules=False)
_HAS_DUMMY = "the kernel can make dummy links, so lo is not needed"


def ip(*words: str) -> str:
    """Runs ip in the namespace."""
    done = subprocess.run(
        [program("ip"), "-n", NAME, *words], capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.fixture(autouse=True)
def namespace() -> Iterator[None]:
    """A namespace where not even lo is up."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    made = subprocess.run(
        [program("ip"), "netns", "add", NAME], capture_output=True, text=True, check=False
    )
    if made.returncode:
        pytest.skip(f"ip netns does not work here: {made.stderr.strip()}")
    yield
    subprocess.run([program("ip"), "netns", "del", NAME], check=True)


def inside(*command: str) -> list[str]:
    return [program("ip"), "netns", "exec", NAME, *command]


def run(action: str, plan: NodePlan = PLAN, *, before: Sequence[str] = ()) -> Report:
    """Runs the tool in the namespace, behind the words ``before``."""
    done = subprocess.run(
        inside(*before, *tool_command(action, plan)),
        capture_output=True, timeout=PATIENCE_S * 2, check=False,
    )  # fmt: skip
    report = parse_report(action, done.stdout)
    assert report is not None, done
    assert done.returncode == int(not report.ok)
    return report


def on(link: str) -> list[str]:
    """Returns the addresses of a link with their prefixes, sorted, without those of its own."""
    (row,) = json.loads(ip("-j", "address", "show", "dev", link))
    found = [f"{a['local']}/{a['prefixlen']}" for a in row["addr_info"]]
    return sorted(a for a in found if not a.startswith(("127.", "::1/", "fe80:")))


HOSTS = sorted([f"{LOCAL_IP}/32", f"{CLUSTER_IP}/32", f"{LOCAL_IP6}/128"])


def is_up(link: str) -> bool:
    (row,) = json.loads(ip("-j", "link", "show", "dev", link))
    return "UP" in row["flags"]


def needs_no_dummy() -> None:
    done = subprocess.run(
        inside(program("ip"), "link", "add", "nc-probe", "type", "dummy"),
        capture_output=True, check=False,
    )  # fmt: skip
    if done.returncode == 0:
        ip("link", "del", "nc-probe")
        pytest.skip(_HAS_DUMMY)


def test_addresses_go_to_lo_where_there_is_no_dummy_driver() -> None:
    needs_no_dummy()
    first = run("interface")
    assert first.ok, first
    assert sum("module dummy is missing" in note for note in first.notes) == 1
    assert on("lo") == HOSTS
    assert is_up("lo")
    assert run("check").ok
    assert run("interface") == Report(ok=True)

    assert len(run("remove").removed) == 3
    assert on("lo") == []
    assert is_up("lo")
    assert run("remove") == Report(ok=True)
    assert "169.254.20.10 is not local" in run("check").error


def test_addresses_move_from_lo_once_there_is_a_link() -> None:
    needs_no_dummy()
    run("interface")
    assert on("lo") == HOSTS
    ip("link", "add", "nodelocaldns", "type", "bridge")
    error = run("check").error
    assert all(f"{host} is on lo although" in error for host in (LOCAL_IP, CLUSTER_IP, LOCAL_IP6))
    report = run("interface")
    assert len(report.removed) == 3
    assert on("lo") == []
    assert on("nodelocaldns") == HOSTS
    assert run("check").ok
    assert run("interface").removed == ()


def test_address_stays_on_lo_while_the_link_has_ipv6_switched_off() -> None:
    needs_no_dummy()
    run("interface")
    ip("link", "add", "nodelocaldns", "type", "bridge")
    off = "net.ipv6.conf.nodelocaldns.disable_ipv6=1"
    subprocess.run(inside(program("sysctl"), "-q", "-w", off), check=True)
    report = run("interface")
    assert report.ok
    assert any(f"{LOCAL_IP6} stays on lo" in note for note in report.notes)
    assert on("lo") == [f"{LOCAL_IP6}/128"]
    assert run("check").ok


@pytest.mark.parametrize("kind", ["bridge", "veth"])
def test_existing_link_of_that_name_is_adopted_and_brought_up(kind: str) -> None:
    ip("link", "add", "nodelocaldns", "type", kind)
    ip("address", "add", "192.0.2.1/24", "dev", "nodelocaldns")
    assert run("interface").ok
    assert is_up("nodelocaldns")
    assert on("nodelocaldns") == sorted([*HOSTS, "192.0.2.1/24"])
    assert run("check").ok
    ip("link", "set", "nodelocaldns", "down")
    assert "nodelocaldns is down" in run("check").error
    assert run("interface").ok
    assert run("check").ok

    assert len(run("remove").removed) == 3
    assert on("nodelocaldns") == ["192.0.2.1/24"]


def test_who_recedes_leaves_the_local_addresses_alone() -> None:
    ip("link", "add", PLAN.interface, "type", "bridge")
    run("interface")
    report = run("recede")
    assert report.removed == (f"address {CLUSTER_IP} of {PLAN.interface}",)
    assert on(PLAN.interface) == sorted([f"{LOCAL_IP}/32", f"{LOCAL_IP6}/128"])
    assert run("recede").removed == ()


def test_ipv6_serves_at_once_and_is_no_source_by_chance() -> None:
    ip("link", "add", "nodelocaldns", "type", "bridge")
    assert run("interface").ok
    line = next(row for row in ip("-6", "address").splitlines() if LOCAL_IP6 in row)
    assert "tentative" not in line
    assert "deprecated" in line
    line = next(row for row in ip("-4", "address").splitlines() if LOCAL_IP in row)
    assert "scope host" in line


def test_address_on_a_link_of_others_stays_there() -> None:
    ip("link", "add", "kube-ipvs0", "type", "bridge")
    ip("address", "add", f"{CLUSTER_IP}/32", "dev", "kube-ipvs0")
    ip("link", "add", "nodelocaldns", "type", "bridge")
    report = run("interface")
    assert report.ok
    assert any("kube-proxy in IPVS mode" in note for note in report.notes)
    assert f"{CLUSTER_IP}/32" not in on("nodelocaldns")
    assert run("check").ok
    run("remove")
    assert on("kube-ipvs0") == [f"{CLUSTER_IP}/32"]


def test_address_that_failed_its_uniqueness_check_is_made_to_serve() -> None:
    ip("link", "add", "nodelocaldns", "type", "veth", "peer", "name", "other")
    ip("link", "set", "nodelocaldns", "up")
    ip("-6", "address", "add", f"{LOCAL_IP6}/128", "dev", "nodelocaldns")  # no carrier: tentative
    assert "tentative" in ip("-6", "address", "show", "dev", "nodelocaldns")
    assert not run("check").ok
    assert run("interface").ok
    assert run("check").ok


def test_missing_capability_is_named() -> None:
    before = [program("setpriv"), "--bounding-set", "-net_admin", "--inh-caps", "-net_admin"]
    report = run("interface", before=before)
    assert report.kind == "interface_add"
    assert "CAP_NET_ADMIN is missing" in report.error


def test_ipv6_that_is_switched_off_is_named_and_ipv4_serves() -> None:
    ip("link", "add", "nodelocaldns", "type", "bridge")
    off = "net.ipv6.conf.nodelocaldns.disable_ipv6=1"
    subprocess.run(inside(program("sysctl"), "-q", "-w", off), check=True)
    report = run("interface")
    assert "net.ipv6.conf.nodelocaldns.disable_ipv6" in report.error
    assert on("nodelocaldns") == sorted([f"{LOCAL_IP}/32", f"{CLUSTER_IP}/32"])


def test_thousands_of_addresses_on_the_node_are_no_hindrance(tmp_path: Path) -> None:
    ip("link", "add", "kube-ipvs0", "type", "bridge")
    rows = [f"address add 10.97.{a}.{b}/32 dev kube-ipvs0\n" for a in range(12) for b in range(250)]
    (tmp_path / "batch").write_text("".join(rows))
    ip("-batch", str(tmp_path / "batch"))
    ip("link", "add", "nodelocaldns", "type", "bridge")
    assert run("interface").ok
    assert on("nodelocaldns") == HOSTS


LOOK = """
import sys
from nodecache.host.looks import is_local
print(*(is_local(address) for address in sys.argv[1:]))
"""


def test_is_local_is_not_misled_by_sockets_that_may_bind_anything() -> None:
    ip("link", "set", "lo", "up")
    ip("address", "add", f"{LOCAL_IP}/32", "dev", "lo")
    ip("address", "add", f"{LOCAL_IP6}/128", "dev", "lo")
    for setting in ("net.ipv4.ip_nonlocal_bind=1", "net.ipv6.ip_nonlocal_bind=1"):
        subprocess.run(inside(program("sysctl"), "-q", "-w", setting), check=True)
    command = inside(sys.executable, "-c", LOOK, LOCAL_IP, CLUSTER_IP, LOCAL_IP6, "fd00:20::11")
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False", "True", "False"]


LISTEN = """
import asyncio
import uvloop
from nodecache.host.looks import Events

async def main():
    events = Events()
    loop = asyncio.get_running_loop()
    events.start(loop, lambda: print("route", flush=True), lambda: print("rules", flush=True))
    print("ready", len(events._sockets), flush=True)
    await asyncio.sleep(600)

uvloop.run(main())
"""


class Listener:
    """Hears of the namespace's events; ``words`` are those it has printed."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            inside(sys.executable, "-c", LISTEN), stdout=subprocess.PIPE, text=True
        )
        self.words: list[str] = []
        self._reading = threading.Thread(target=self._read)
        self._reading.start()
        wait_until(lambda: "ready" in self.words, "a listener")

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self.words += line.split()

    def expect(self, word: str) -> None:
        """Returns once ``word`` came, and forgets all that came."""
        wait_until(lambda: word in self.words, f"{word} among {self.words}")
        self.words.clear()

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reading.join()


@pytest.fixture
def listener() -> Iterator[Listener]:
    listening = Listener()
    yield listening
    listening.stop()


def test_loss_of_link_and_address_is_told(listener: Listener) -> None:
    for words in (
        ("link", "add", "nodelocaldns", "type", "bridge"),
        ("address", "add", f"{LOCAL_IP}/32", "dev", "nodelocaldns"),
        ("address", "del", f"{LOCAL_IP}/32", "dev", "nodelocaldns"),
        ("-6", "address", "add", f"{LOCAL_IP6}/128", "dev", "lo"),
        ("-6", "address", "del", f"{LOCAL_IP6}/128", "dev", "lo"),
        ("link", "del", "nodelocaldns"),
    ):
        listener.words.clear()
        ip(*words)
        listener.expect("route")


def test_rules_of_ours_are_told_and_those_of_others_are_not(listener: Listener) -> None:
    def nft(*words: str) -> None:
        subprocess.run(inside(program("nft"), *words), check=True, capture_output=True)

    listener.words.clear()
    for _ in range(3):
        nft("add", "table", "ip", "kube-proxy")
        nft("add", "chain", "ip", "kube-proxy", "services")
        nft("delete", "table", "ip", "kube-proxy")
    nft("add", "table", "inet", "nodecache")
    listener.expect("rules")
    nft("flush", "ruleset")
    listener.expect("rules")
    nft("add", "table", "ip", "kube-proxy")
    ip("link", "set", "lo", "up")
    wait_until(lambda: "route" in listener.words, "the end of the events")
    assert "rules" not in listener.words


ADDRESSES = """
import sys
from nodecache.host.addresses import addresses_of
print(*addresses_of(sys.argv[1]))
"""


def test_addresses_of_an_interface_are_all_that_it_has_and_link_local_ones_name_it() -> None:
    ip("link", "add", "one", "type", "veth", "peer", "name", "two")
    ip("address", "add", "10.1.0.1/24", "dev", "one")
    ip("address", "add", "10.1.0.2/24", "dev", "one", "label", "one:1")
    ip("address", "add", "10.1.0.3", "peer", "10.9.9.9", "dev", "one")
    ip("address", "add", "fd00:1::1/64", "dev", "one", "nodad")
    ip("address", "add", "fe80::1/64", "dev", "one", "nodad")
    ip("address", "add", "fd00:1::2/64", "dev", "two", "nodad")

    def found(name: str) -> list[str]:
        done = subprocess.run(
            inside(sys.executable, "-c", ADDRESSES, name),
            capture_output=True, text=True, check=True, timeout=PATIENCE_S,
        )  # fmt: skip
        return done.stdout.split()

    v4 = ["10.1.0.1", "10.1.0.2", "10.1.0.3"]
    assert sorted(found("one")) == sorted([*v4, "fd00:1::1", "fe80::1%one"])
    assert found("two") == ["fd00:1::2"]
    assert found("three") == found("one:1") == []
