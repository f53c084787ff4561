"""Upstreams that drop what is too much: with their limits set, clients do not notice them."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.daemon.conftest import StartDaemon
from tests.daemon.limited import LimitedUpstream
from tests.daemon.load import Load
from tests.daemon.processes import wait_until
from tests.daemon.stubs import ask, scrape, total

LIMIT_A_SECOND = 300
# Below the limit, because the last query of one second may be late on its way to the upstream.
MAX_RATE = 250
# The upstream is a thread of this process: what waits while it sleeps looks like a burst to it.
AFTER_A_NAP = 25
MOST_CONNECTIONS = 20
HOT = [f"h{n}.ttl-5.test" for n in range(60)]
SECONDS = 5.0
REFUSED = 5


@pytest.fixture
def limited() -> Iterator[LimitedUpstream]:
    """An upstream with a limit of datagrams a second."""
    with LimitedUpstream(most_a_second=LIMIT_A_SECOND) as upstream:
        yield upstream


def most_in_a_second(upstream: LimitedUpstream) -> int:
    times = [asked.at for asked in upstream.asked]
    first = most = 0
    for last, at in enumerate(times):
        while at - times[first] >= 1.0:
            first += 1
        most = max(most, last - first + 1)
    return most


@pytest.mark.slow
def test_clients_far_above_the_rate_notice_nothing_while_what_is_new_is_below_it(
    daemon_for: StartDaemon, limited: LimitedUpstream
) -> None:
    daemon = daemon_for(limited, options=f"max_rate {MAX_RATE}")
    for name in HOT:
        ask(daemon, name)
    # 1,200 queries a second, of which 120 are for names that nobody asked for before.
    with Load(daemon.host, daemon.port, HOT, rate=1200, unique_each=10) as load:
        time.sleep(SECONDS)
    samples = scrape(daemon)
    paced = total(samples, "nodecache_paced_total")
    print(
        f"{load.sent} queries, {load.rcodes}, lost {load.lost}, longest {load.longest_s:.3f} s;"
        f" upstream: {len(limited.asked)} asked, at most {most_in_a_second(limited)} a second,"
        f" {limited.dropped} dropped; {paced:.0f} waited for their turn"
    )
    assert load.lost == 0
    assert set(load.rcodes) == {0}
    assert limited.dropped <= AFTER_A_NAP


@pytest.mark.slow
def test_more_new_names_than_the_rate_are_refused_and_known_ones_still_answered(
    daemon_for: StartDaemon, limited: LimitedUpstream
) -> None:
    daemon = daemon_for(limited, options=f"max_rate {MAX_RATE}")
    for name in HOT:
        ask(daemon, name)
    hot = Load(daemon.host, daemon.port, HOT, rate=300)
    new = Load(daemon.host, daemon.port, ["new.test"], rate=2 * MAX_RATE, unique_each=1)
    with hot, new:
        time.sleep(SECONDS)
    samples = scrape(daemon)
    shed = total(samples, "nodecache_shed_paced_total")
    print(
        f"known: {hot.rcodes}, lost {hot.lost}; new: {new.rcodes}, lost {new.lost}, longest"
        f" {new.longest_s:.3f} s; upstream: at most {most_in_a_second(limited)} a second,"
        f" {limited.dropped} dropped; {shed:.0f} refused"
    )
    assert limited.dropped <= AFTER_A_NAP
    assert hot.lost == new.lost == 0
    assert set(new.rcodes) == {0, REFUSED}
    assert new.rcodes[0] > MAX_RATE * SECONDS / 2
    # A known name whose refresh was left out again and again is a new one for a moment.
    assert hot.rcodes[0] >= 0.95 * hot.sent
    assert new.rcodes[REFUSED] + hot.rcodes.get(REFUSED, 0) == shed
    assert total(samples, "nodecache_shed_total") == shed


@pytest.mark.slow
def test_what_has_expired_is_served_when_the_rate_is_used_up(
    daemon_for: StartDaemon, limited: LimitedUpstream
) -> None:
    names = [f"s{n}.ttl-1.test" for n in range(40)]
    cache = "{\n        serve_stale 1h verify 400ms\n    }"
    daemon = daemon_for(limited, cache=cache, options="max_rate 20")
    for name in names:
        ask(daemon, name)
    time.sleep(1.5)
    with Load(daemon.host, daemon.port, names, rate=200) as load:
        time.sleep(2)
    print(f"{load.rcodes}, lost {load.lost}, longest {load.longest_s:.3f} s")
    assert load.lost == 0
    assert set(load.rcodes) == {0}
    assert total(scrape(daemon), "nodecache_stale_total") > 0
    assert most_in_a_second(limited) <= LIMIT_A_SECOND


def test_an_upstream_with_few_connections_never_sees_more(daemon_for: StartDaemon) -> None:
    names = [f"c{n}.wait-200.test" for n in range(1000)]
    with LimitedUpstream(most_connections=MOST_CONNECTIONS) as limited:
        daemon = daemon_for(limited, options=f"force_tcp\nmax_conns {MOST_CONNECTIONS}")
        # 300 answers a second that take 200 ms each want more connections than there may be.
        with Load(daemon.host, daemon.port, names, rate=300) as load:
            wait_until(lambda: load.sent >= len(names), "all names asked for")
        print(
            f"{load.sent} queries, {load.rcodes}, lost {load.lost}, longest {load.longest_s:.3f}"
            f" s; at most {limited.most_open} connections, {limited.refused} refused"
        )
        assert load.lost == 0
        assert set(load.rcodes) == {0}
        assert limited.refused == 0
        assert limited.most_open <= MOST_CONNECTIONS
