"""``nodecache doctor`` on broken nodes: the right finding first; and nothing on a healthy one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.processes import Child, wait_until
from tests.daemon.servers import program
from tests.daemon.zone import ORIGIN
from tests.netns.children import METRICS, NodeDaemon
from tests.netns.node import NodeBed
from tests.netns.test_pod import ip
from tests.netns.topology import ADDRESSES, CLUSTER, CLUSTER6, LOCAL, UPSTREAM, inside

pytestmark = [pytest.mark.root, pytest.mark.netns, pytest.mark.slow]

_LOCALIP = ("-localip", ",".join(ADDRESSES))
_PATIENCE_S = 30.0
_WITHIN_S = 12.0  # ten, and the start of Python on a busy machine


def corefile(forward: str = f"forward . {UPSTREAM} {{\n force_tcp\n}}") -> str:
    """Returns a Corefile for the one zone that the cluster's DNS of these tests has."""
    bind = " ".join(ADDRESSES)
    rest = f"prometheus :{METRICS}\n reload\n cache 30\n"
    return f"{ORIGIN}:53 {{\n bind {bind}\n {forward}\n {rest}}}\n"


@dataclass(frozen=True, slots=True)
class Told:
    """What doctor said."""

    code: int
    report: dict[str, Any]

    @property
    def names(self) -> list[str]:
        return [finding["name"] for finding in self.report["findings"]]

    @property
    def first(self) -> str:
        return self.names[0] if self.names else ""


def ask_doctor(
    bed: NodeBed, *words: str, command: Sequence[str] = ("-m", "nodecache"), namespace: str = ""
) -> Told:
    """Runs ``nodecache doctor`` on the node."""
    with inside(namespace or bed.node):
        done = subprocess.run(
            [sys.executable, *command, "doctor", "-json", "-rundir", str(bed.rundir), *words],
            capture_output=True, text=True, timeout=_PATIENCE_S, check=False,
        )  # fmt: skip
    assert done.returncode in (0, 3, 4), (done.returncode, done.stderr)
    assert done.stderr == ""
    return Told(done.returncode, json.loads(done.stdout))


def start(bed: NodeBed, *flags: str, forward: str = "") -> NodeDaemon:
    return bed.start(*flags, corefile=corefile(forward) if forward else corefile())


def nft(namespace: str, script: str) -> None:
    with inside(namespace):
        subprocess.run([program("nft"), "-f", "-"], input=script, text=True, check=True)


def add_rule(namespace: str, base: str, rule: str, table: str = "wall") -> None:
    """Makes a table of somebody else's with one chain that is hooked in as ``base`` says."""
    nft(namespace, f"table inet {table} {{\nchain own {{\ntype {base};\n{rule}\n}}\n}}\n")


def test_healthy_node_has_no_finding(bed: NodeBed, tmp_path: Path) -> None:
    start(bed)
    path = tmp_path / "resolv.conf"
    path.write_text(f"nameserver {LOCAL}\nnameserver {CLUSTER}\nsearch svc.cluster.local\n")
    told = ask_doctor(bed, "-resolvconf", str(path))
    assert (told.names, told.code, told.report["verdict"]) == ([], 0, "healthy")
    answered = [row["text"] for row in told.report["seen"] if row["what"] == "asked"]
    assert len(answered) == 2 * len(ADDRESSES)
    assert all(text.endswith("by this node's nodecache") for text in answered)


def test_another_server_has_the_port(bed: NodeBed) -> None:
    with inside(bed.node):
        ip("-n", bed.node, "address", "add", f"{LOCAL}/32", "dev", "lo")
        command = "import socket, time; s = socket.socket(type=socket.SOCK_DGRAM); "
        command += f"s.bind(('{LOCAL}', 53)); print('bound', flush=True); time.sleep(60)"
        other = Child([sys.executable, "-c", command], bed.folder / "other")
    bed.stack.callback(other.stop)
    wait_until(lambda: "bound" in other.log(), "the other server")
    daemon = bed.launch(corefile=corefile())
    wait_until(lambda: daemon.process.poll() is not None, "the daemon gives up")
    told = ask_doctor(bed, *_LOCALIP)
    assert (told.names[:2], told.code) == (["port-taken", "daemon-absent"], 3)
    assert f"(pid {other.pid})" in told.report["findings"][0]["why"]


def test_rules_are_flushed_and_do_not_come_back(
    bed: NodeBed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken"
    fake = tmp_path / "bin" / "nft"
    fake.parent.mkdir()
    fake.write_text(f'#!/bin/sh\n[ -e {broken} ] && exit 1\nexec {program("nft")} "$@"\n')
    fake.chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{fake.parent}:{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/bin")
        start(bed, "-rules", "nftables")
    broken.touch()
    nft(bed.node, "delete table inet nodecache")
    wait_until(lambda: ask_doctor(bed).first == "rules-missing", "the rules are missed")


def test_address_is_gone_that_is_not_ours_to_make(bed: NodeBed) -> None:
    for address in ADDRESSES:
        nodad = ("nodad",) if ":" in address else ()
        bits = 128 if ":" in address else 32
        ip("-n", bed.node, "address", "add", f"{address}/{bits}", "dev", "lo", *nodad)
    start(bed, "-setupinterface=false")
    ip("-n", bed.node, "address", "del", f"{LOCAL}/32", "dev", "lo")
    told = ask_doctor(bed)
    assert (told.first, told.code) == ("address-missing", 3)
    assert LOCAL in told.report["findings"][0]["why"]


def test_nothing_listens_at_the_upstream(bed: NodeBed) -> None:
    daemon = bed.launch(corefile=corefile("forward . 10.244.0.1:5399 {\n force_tcp\n}"))
    bed.wait_for_rules(daemon)
    told = ask_doctor(bed)
    assert (told.names, told.code) == (["upstream-refuses"], 3)


@pytest.mark.parametrize(
    ("transport", "forward", "name"),
    [
        ("tcp", "force_tcp", "upstream-no-tcp"),
        ("udp", "prefer_udp", "upstream-no-udp"),
        ("{ tcp, udp }", "force_tcp", "upstream-silent"),
    ],
)
def test_upstream_is_black_holed(bed: NodeBed, transport: str, forward: str, name: str) -> None:
    start(bed, forward=f"forward . {UPSTREAM} {{\n {forward}\n}}")
    rule = f"meta l4proto {transport} th dport 53 drop"
    add_rule(bed.cluster, "filter hook input priority 0", rule)
    told = ask_doctor(bed)
    assert (told.names, told.code) == ([name], 3)


def test_newer_configuration_is_refused(bed: NodeBed) -> None:
    daemon = start(bed)
    path = Path(daemon_word(daemon, "-conf"))
    path.write_text("nonsense {\n")
    wait_until(lambda: "refused" in daemon.log(), "the refusal")
    told = ask_doctor(bed)
    assert (told.names, told.code) == (["configuration-refused"], 4)


def test_last_good_configuration_is_in_force(bed: NodeBed) -> None:
    first = start(bed)
    wait_until((bed.rundir / "configuration").exists, "what is kept")
    first.stop()
    path = Path(daemon_word(first, "-conf"))
    path.write_text("nonsense {\n")
    second = bed.launch("-conf", str(path), "-basecorefile", str(path))
    bed.wait_for_rules(second)
    wait_until(lambda: ask_doctor(bed).first == "last-good", "the last good one")


def daemon_word(daemon: NodeDaemon, flag: str) -> str:
    words = list(map(str, daemon.process.args))  # type: ignore[arg-type, unused-ignore]
    return words[words.index(flag) + 1]


def test_daemon_is_stopped(bed: NodeBed) -> None:
    daemon = start(bed)
    worker = daemon.worker()
    for pid in (daemon.pid, worker.pid):
        os.kill(pid, signal.SIGSTOP)
    told = ask_doctor(bed)
    for pid in (daemon.pid, worker.pid):
        os.kill(pid, signal.SIGCONT)
    assert (told.first, told.code) == ("daemon-stopped", 3)


def test_daemon_is_dead_and_its_rules_fall_back(bed: NodeBed) -> None:
    daemon = start(bed)
    daemon.kill_all()
    told = ask_doctor(bed, *_LOCALIP)
    assert (told.first, told.code) == ("daemon-absent", 3)
    assert "its rules stand" in told.report["findings"][0]["why"]


def test_rules_of_node_cache_are_left(bed: NodeBed) -> None:
    daemon = start(bed)
    daemon.kill_all()
    comment = ("-m", "comment", "--comment", "NodeLocal DNS Cache: skip conntrack")
    rule = ("-d", f"{CLUSTER}/32", "-p", "udp", "-m", "udp", "--dport", "53", *comment)
    bed.run("iptables-nft", "-t", "raw", "-I", "PREROUTING", *rule, "-j", "NOTRACK")
    told = ask_doctor(bed, *_LOCALIP)
    assert told.names == ["daemon-absent", "leftovers-harm"]


def test_somebody_drops_dns(bed: NodeBed) -> None:
    start(bed)
    add_rule(bed.node, "filter hook input priority 0", "udp dport 53 drop")
    told = ask_doctor(bed)
    assert (told.first, told.code) == ("dns-dropped", 3)
    assert "table inet wall" in told.report["findings"][0]["why"]


def test_somebody_leads_dns_away_before_us(bed: NodeBed) -> None:
    start(bed)
    lead = f"ip daddr {LOCAL} udp dport 53 ip daddr set {UPSTREAM}"
    add_rule(bed.node, "route hook output priority -350", lead, "thief")
    told = ask_doctor(bed)
    assert (told.first, told.code) == ("dns-stolen", 3)
    assert "table inet thief" in told.report["findings"][0]["why"]


def test_resolv_conf_of_a_pod_names_a_stranger_and_many_searches(
    bed: NodeBed, tmp_path: Path
) -> None:
    start(bed)
    path = tmp_path / "resolv.conf"
    search = " ".join(f"{letter}.example" for letter in "abcde")
    path.write_text(f"nameserver 192.0.2.9\nsearch {search}\noptions ndots:5 fast\n")
    told = ask_doctor(bed, "-resolvconf", str(path))
    assert (told.names, told.code) == (["pod-stranger", "pod-ndots", "pod-options"], 4)
    assert "12 queries" in told.report["findings"][1]["why"]


def test_servers_of_a_pod_are_asked_from_within_its_network(bed: NodeBed, tmp_path: Path) -> None:
    start(bed)
    own = tmp_path / "resolv.conf"
    own.write_text(f"nameserver {LOCAL}\nsearch svc.cluster.local\noptions ndots:2\n")
    work = f"mount --bind {own} /etc/resolv.conf && echo mounted && exec sleep 60"
    with inside(bed.pods[0]):
        pod = Child([program("unshare"), "--mount", "sh", "-c", work], bed.folder / "pod")
    bed.stack.callback(pod.stop)
    wait_until(lambda: "mounted" in pod.log(), "a pod")
    assert ask_doctor(bed, "-pid", str(pod.pid)).names == []
    add_rule(bed.pods[0], "filter hook output priority 0", "th dport 53 drop")
    told = ask_doctor(bed, "-pid", str(pod.pid))
    assert (told.names, told.code) == (["pod-cannot-reach"], 3)


def test_daemon_is_of_another_version(bed: NodeBed) -> None:
    start(bed)
    text = "import sys, nodecache; nodecache.__version__ = '99.0.0'\n"
    text += "from nodecache.cli import main; sys.exit(main(sys.argv[1:]))"
    told = ask_doctor(bed, command=("-c", text))
    assert (told.names, told.code) == (["versions-differ"], 4)


def test_localip_is_not_what_pods_ask(bed: NodeBed) -> None:
    start(bed)
    told = ask_doctor(bed, "-localip", f"169.254.20.11,{CLUSTER6}")
    assert (told.names, told.code) == (["localip-differs"], 4)


def test_whole_run_is_bounded_in_time(bed: NodeBed) -> None:
    daemon = start(bed)
    worker = daemon.worker()
    worker.suspend()
    add_rule(bed.node, "filter hook output priority -350", "th dport 53 drop")
    with inside(bed.node):
        subprocess.run(
            [sys.executable, "-m", "nodecache", "doctor", "-rundir", str(bed.rundir)],
            capture_output=True, timeout=_WITHIN_S, check=False,
        )  # fmt: skip
    worker.resume()
