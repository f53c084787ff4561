"""Keeper and worker are killed together where iptables keeps the rules, and nobody starts again."""

from __future__ import annotations

import time

import pytest

from tests.netns.node import By, NodeBed, figure
from tests.netns.test_handover import tell
from tests.netns.topology import ADDRESSES, CLUSTER, LOCAL, UPSTREAM, UPSTREAM6

pytestmark = [pytest.mark.root, pytest.mark.netns]

AWAY_S = 4.0  # longer than a beat lives, and than a stub's first patience
# What a worker has read and not answered dies with it, and what comes until its sockets are closed.
LOST_EACH_KILL = 10
RATE = 200  # all of it reaches one server, which may rest for a while on a busy machine


@pytest.mark.parametrize("variant", ["nft", "legacy"])
def test_kernel_leads_to_the_endpoints_while_nobody_is_there(bed: NodeBed, variant: str) -> None:
    flags = ("-rules", f"iptables-{variant}", "-fallback", f"{UPSTREAM},{UPSTREAM6}")
    daemon = bed.start(*flags)
    loads = [
        bed.load(pod, "--server", server, "--rate", f"{RATE}")
        for pod, server in enumerate((LOCAL, CLUSTER))
    ]
    time.sleep(1)  # some load before
    began = time.monotonic()
    daemon.kill_all()
    killed_at = time.monotonic()
    dying_s = killed_at - began
    for server in ADDRESSES:
        bed.wait_for(By.CLUSTER, server, daemon)
    time.sleep(max(0.0, killed_at + AWAY_S - time.monotonic()))
    for server in ADDRESSES:
        assert bed.answerer(server, 5.0) is By.CLUSTER
    daemon = bed.start(*flags)
    reports = [load.finish() for load in loads]
    tell(f"SIGKILL of keeper and worker, {AWAY_S:.0f} s away (iptables-{variant})", reports)
    figure(f"they died for {dying_s * 1000:.0f} ms")
    for report in reports:
        while_dying = dying_s * report.udp["sent"] / report.seconds
        assert report.udp["lost"] <= LOST_EACH_KILL + 2 * while_dying, report
        assert report.rcode(2) == 0, report
