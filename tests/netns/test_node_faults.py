"""What others do to a node, and how a daemon leaves it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable

import pytest

from tests.daemon.processes import wait_until
from tests.netns.children import NodeDaemon, stock_corefile
from tests.netns.node import HEALTH, By, NodeBed, figure
from tests.netns.topology import ADDRESSES, CLUSTER, LOCAL, LOCAL6, inside

pytestmark = [pytest.mark.root, pytest.mark.netns]

ALL_OF_THEM = sorted(ADDRESSES)
FLUSHES = {
    "nftables": [["nft", "flush", "ruleset"]],
    "iptables-nft": [
        [f"{tool}-nft", "-t", table, *what]
        for tool in ("iptables", "ip6tables")
        for table in ("raw", "filter")
        for what in (["-F"], ["-X"])
    ],
}
# Only nftables can lead packets to another address before they are tracked.
WITHOUT_US = {
    "nftables": dict.fromkeys(ADDRESSES, By.CLUSTER),
    "iptables-nft": {CLUSTER: By.CLUSTER, LOCAL: By.NOBODY},
}


def measure(condition: Callable[[], object], what: Callable[[], str]) -> float:
    """Returns how many seconds it takes until ``condition`` holds."""
    began = time.monotonic()
    wait_until(condition, what)
    return time.monotonic() - began


def test_pods_resolve_past_connection_tracking(bed: NodeBed, backend: str) -> None:
    bed.start("-rules", backend)
    bed.run("conntrack", "-F")
    for server in ADDRESSES:
        for pod in (0, 1):
            for tcp in (False, True):
                reply = bed.ask(server, "plain.example.test", tcp=tcp, pod=pod)
                assert reply.answer[0][0].to_text() == "192.0.2.1"
                assert reply.answer[0].ttl <= 30
    assert bed.connections() == ""


def test_without_us_the_cluster_dns_answers(bed: NodeBed, backend: str) -> None:
    daemon = bed.start("-rules", backend)
    rules = bed.rules(backend)
    assert daemon.stop() == 0
    assert bed.addresses() == []
    assert bed.rules(backend) == rules
    for server, who in WITHOUT_US[backend].items():
        assert bed.answerer(server, 5 if who is By.CLUSTER else 0.5) is who, server
    assert f"dst={CLUSTER} " in bed.connections()
    bed.clean_up()
    assert bed.answerer(CLUSTER, 5) is By.CLUSTER


def test_without_fail_over_the_rules_go_with_us(bed: NodeBed, backend: str) -> None:
    daemon = bed.start("-rules", backend, "-fallback=off")
    assert daemon.stop() == 0
    assert (bed.rules(backend), bed.addresses()) == ([], [])
    assert bed.answerer(CLUSTER, 5) is By.CLUSTER


@pytest.mark.parametrize("address", [f"{LOCAL}/32", f"{LOCAL6}/128"])
def test_an_address_that_was_pulled_away_comes_back(bed: NodeBed, address: str) -> None:
    daemon = bed.start("-rules", "nftables")
    device = bed.device_of(address.partition("/")[0])
    bed.run("ip", "address", "del", address, "dev", device)
    seconds = measure(
        lambda: bed.addresses() == ALL_OF_THEM, lambda: f"{bed.addresses()}: {daemon.tail()}"
    )
    figure(f"address pulled away: {address} is back after {seconds:.2f} s")
    bed.wait_for(By.NODE, address.partition("/")[0], daemon)


def test_rules_that_another_tool_flushed_come_back(bed: NodeBed, backend: str) -> None:
    daemon = bed.start("-rules", backend)
    rules = bed.rules(backend)
    for command in FLUSHES[backend]:
        subprocess.run(
            [*("ip", "netns", "exec", bed.node), *command], capture_output=True, check=False
        )
    seconds = measure(
        lambda: bed.rules(backend) == rules, lambda: f"{bed.rules(backend)}: {daemon.tail()}"
    )
    figure(f"rules flushed ({backend}): they are back after {seconds:.2f} s")
    bed.wait_for(By.NODE, CLUSTER, daemon)


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
def test_a_taken_port_53_is_reported_with_its_holder(bed: NodeBed, kind: socket.SocketKind) -> None:
    with inside(bed.node):
        holder = socket.socket(socket.AF_INET, kind)
    with holder:
        holder.bind(("0.0.0.0", 53))
        if kind == socket.SOCK_STREAM:
            holder.listen()
        daemon = bed.launch("-rules", "nftables")
        assert daemon.wait_for_end() == 1, daemon.tail()
    assert f"(pid {os.getpid()})" in daemon.log()
    assert bed.rules("nftables") == []


def test_a_taken_port_8080_does_not_keep_dns_from_serving(bed: NodeBed) -> None:
    with inside(bed.node):
        holder = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    with holder:
        holder.bind(("0.0.0.0", 8080))
        holder.listen()
        daemon = bed.start("-rules", "nftables")
        wait_until(lambda: f"{LOCAL}:8080" in daemon.log(), daemon.tail)
    wait_until(lambda: bed.get(HEALTH).strip() == "OK", daemon.tail)


def start_leaving(bed: NodeBed, lameduck_s: int, number: signal.Signals, *flags: str) -> NodeDaemon:
    """Returns a daemon that has just been told to end."""
    corefile = stock_corefile(lameduck_s=lameduck_s)
    daemon = bed.start("-rules", "nftables", *flags, corefile=corefile)
    daemon.process.send_signal(number)
    return daemon


def test_sigterm_serves_on_says_goodbye_then_drains_then_takes_the_interface(bed: NodeBed) -> None:
    daemon = start_leaving(bed, 3, signal.SIGTERM)
    daemon.wait_for_log("serving on for 3 s")
    assert [bed.answerer(server, 5) for server in (LOCAL, CLUSTER)] == [By.NODE, By.NODE]
    assert bed.addresses() == ALL_OF_THEM
    for server in ADDRESSES:
        bed.wait_for(By.CLUSTER, server, daemon)
    assert daemon.wait_for_end() == 0
    assert bed.addresses() == []
    assert bed.processes() == []
    assert [bed.answerer(server, 5) for server in ADDRESSES] == [By.CLUSTER] * len(ADDRESSES)


def test_skipteardown_leaves_the_local_addresses_and_where_they_lead(bed: NodeBed) -> None:
    daemon = start_leaving(bed, 0, signal.SIGTERM, "-skipteardown")
    assert daemon.wait_for_end() == 0
    assert bed.addresses() == [LOCAL, LOCAL6]
    assert [bed.answerer(server, 5) for server in ADDRESSES] == [By.CLUSTER] * len(ADDRESSES)
    bed.start("-rules", "nftables").stop()
    assert bed.addresses() == []


def test_node_of_one_who_came_too_late_to_take_over_is_left_alone(bed: NodeBed) -> None:
    first = bed.start("-rules", "nftables")
    second = bed.launch("-rules", "nftables", "-rundir", str(bed.folder / "another"))
    second.wait_for_log("rules kept by nftables")
    assert first.stop() == 0
    assert "the node is left as it is" in first.log()
    assert bed.addresses() == ALL_OF_THEM
    for server in ADDRESSES:
        bed.wait_for(By.NODE, server, second)
    assert second.stop() == 0
    assert bed.addresses() == []


def test_second_sigterm_leaves_at_once(bed: NodeBed) -> None:
    daemon = start_leaving(bed, 60, signal.SIGTERM)
    daemon.wait_for_log("serving on for 60 s")
    time.sleep(0.5)  # two within a moment count as one: a terminal sends to keeper and worker
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.wait_for_end() == 0
    assert bed.addresses() == []


def test_sigquit_leaves_without_lameduck(bed: NodeBed) -> None:
    daemon = start_leaving(bed, 60, signal.SIGQUIT)
    assert daemon.wait_for_end() == 0
    assert bed.addresses() == []
