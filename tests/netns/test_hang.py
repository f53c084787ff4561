"""A worker that stands still: pods reach the cluster DNS until it moves again."""

from __future__ import annotations

import time

import pytest

from tests.daemon.processes import wait_until
from tests.netns.node import Bed, By, figure
from tests.netns.topology import CLUSTER, CLUSTER6, LOCAL

pytestmark = [pytest.mark.root, pytest.mark.netns]

# The keeper's two seconds, and what a busy machine adds.
WITHDRAWN_WITHIN_S = 10.0


def test_clients_of_a_stopped_worker_reach_the_cluster_dns(bed: Bed, backend: str) -> None:
    daemon = bed.start("-rules", backend)
    rules = bed.rules(backend)
    worker = daemon.worker()
    worker.suspend()
    stopped = time.monotonic()
    try:
        bed.wait_for(By.REFUSAL, LOCAL, daemon)
        refused_s = time.monotonic() - stopped
        bed.wait_for(By.CLUSTER, CLUSTER, daemon)
        withdrawn_s = time.monotonic() - stopped
        bed.wait_for(By.CLUSTER, CLUSTER6, daemon)
        assert bed.answerer(LOCAL) is By.REFUSAL
        assert bed.rules(backend) != rules
    finally:
        worker.resume()
    resumed = time.monotonic()
    bed.wait_for(By.NODE, LOCAL, daemon)
    answered_s = time.monotonic() - resumed
    bed.wait_for(By.NODE, CLUSTER, daemon)
    restored_s = time.monotonic() - resumed
    wait_until(lambda: bed.rules(backend) == rules, lambda: f"the rules are back: {daemon.tail()}")
    figure(
        f"SIGSTOP ({backend}): REFUSED after {refused_s:.2f} s, the cluster DNS answers after"
        f" {withdrawn_s:.2f} s; SIGCONT: we answer after {answered_s:.2f} s, the redirect is back"
        f" after {restored_s:.2f} s"
    )
    assert withdrawn_s < WITHDRAWN_WITHIN_S
    assert daemon.worker().pid == worker.pid


def test_a_stub_with_two_nameservers_loses_nothing_to_a_stopped_worker(bed: Bed) -> None:
    daemon = bed.start("-rules", "nftables")
    load = bed.load(0, "--server", LOCAL, "--second-server", CLUSTER, "--rate", "200")
    worker = daemon.worker()
    worker.suspend()
    try:
        bed.wait_for(By.CLUSTER, CLUSTER, daemon)
        time.sleep(1)  # a second of lookups that the cluster DNS answers
    finally:
        worker.resume()
    bed.wait_for(By.NODE, CLUSTER, daemon)
    report = load.finish()
    figure(
        f"SIGSTOP with a second nameserver: {report.udp['lost']} of {report.udp['sent']} lost,"
        f" {report.udp['by_server']} by server, longest {report.longest_ms:.0f} ms"
    )
    assert report.udp["lost"] == 0, report
    assert report.udp["by_server"]["1"] > 0
