"""SIGKILL of keeper and worker, again and again; what stubs see of one is in tests/netlife."""

from __future__ import annotations

import time

import pytest

from tests.netns.node import By, NodeBed, figure
from tests.netns.topology import ADDRESSES, CLUSTER

pytestmark = [pytest.mark.root, pytest.mark.netns]

KILLS = 20


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_twenty_kills_leave_one_set_of_rules_and_addresses(bed: NodeBed, backend: str) -> None:
    flags = ("-rules", backend)
    daemon = bed.start(*flags)
    rules = bed.rules(backend)
    assert rules
    began = time.monotonic()
    for number in range(KILLS):
        daemon.kill_all()
        assert bed.rules(backend) == rules
        assert bed.addresses() == sorted(ADDRESSES)
        daemon = bed.launch(*flags)
        if number % 3:
            bed.wait_for(By.NODE, CLUSTER, daemon)
            bed.wait_for_rules(daemon)
        else:
            time.sleep(number * 0.02)  # dies while it starts, each time a little further on
    daemon.kill_all()
    figure(f"{KILLS} x SIGKILL and start ({backend}): {time.monotonic() - began:.0f} s in all")
    daemon = bed.start(*flags)
    assert bed.rules(backend) == rules
    assert bed.addresses() == sorted(ADDRESSES)
    assert daemon.stop() == 0
    assert (bed.rules(backend), bed.addresses()) == (rules, [])
    bed.clean_up()
