"""Load over backends behind one address, over minutes of a time that is only a number."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from nodecache.upstreams.room import TARGET_CONNECTIONS
from nodecache.upstreams.streams import REPLACEMENT_S
from nodecache.upstreams.turnover import AGE_S, IDLE_S, LEAST_AGE_S
from tests.upstreams.balancing import Cluster
from tests.upstreams.forwarding import TCP, policy

pytestmark = pytest.mark.slow
SEEDS = range(4)


@pytest.mark.parametrize("seed", SEEDS)
def test_three_backends_are_asked_alike_within_a_minute(seed: int) -> None:
    cluster = Cluster(rate=400, seed=seed)
    cluster.run(60)
    print(
        f"FIGURE busiest to idlest {cluster.ratio():.2f}, {cluster.dialled} connections in 60 s, "
        f"most at once {cluster.most}, oldest {cluster.oldest_s:.1f} s"
    )
    assert cluster.ratio() < 1.5
    assert cluster.dialled <= 60 * TARGET_CONNECTIONS / (0.75 * LEAST_AGE_S)
    assert cluster.most <= 2 * TARGET_CONNECTIONS
    assert cluster.results == Counter(good=len(cluster.latencies_s))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_fourth_backend_gets_its_share_within_90_seconds(seed: int) -> None:
    cluster = Cluster(rate=200, seed=seed)
    cluster.run(30)
    cluster.backends = 4
    cluster.run(60)
    cluster.queries.clear()
    cluster.run(30)
    print(f"FIGURE share of the fourth backend {cluster.share(3):.3f} from 60 s to 90 s")
    assert cluster.share(3) >= 0.15


@pytest.mark.parametrize("seed", SEEDS)
def test_a_backend_that_gets_slow_gets_less(seed: int) -> None:
    cluster = Cluster(rate=400, seed=seed)
    cluster.run(20)
    before = cluster.share(0)
    cluster.delays_s[0] = 0.05
    cluster.queries.clear()
    cluster.run(40)
    print(f"FIGURE share {before:.3f} before, {cluster.share(0):.3f} when 50 ms slower")
    assert cluster.share(0) < 0.25
    assert cluster.queries.total() < 1.05 * 40 * 400 * 1.03  # with the noise of arrivals
    assert cluster.results == Counter(good=len(cluster.latencies_s))


@pytest.mark.parametrize("rate", [0.2, 1, 20])
def test_no_connection_is_older_or_idler_than_its_bounds(rate: float) -> None:
    cluster = Cluster(rate=rate)
    cluster.run(300)
    idle_s = cluster.longest_idle_s
    print(f"FIGURE {rate}/s: oldest {cluster.oldest_s:.1f} s, idlest {idle_s:.1f} s")
    assert cluster.oldest_s <= 1.25 * AGE_S + 2 * REPLACEMENT_S
    assert idle_s <= IDLE_S
    assert cluster.most <= TARGET_CONNECTIONS


def test_max_age_bounds_the_age_under_load_too() -> None:
    cluster = Cluster(rate=100, forward=policy(replace(TCP, max_age_s=2.0)))
    cluster.run(30)
    print(f"FIGURE oldest {cluster.oldest_s:.2f} s of 2")
    assert 0.5 < cluster.oldest_s <= 2.01  # and what it was asked last


@pytest.mark.parametrize("seed", SEEDS)
def test_a_backend_that_says_servfail_to_everything_is_left_out(seed: int) -> None:
    cluster = Cluster(rate=300, seed=seed)
    cluster.run(5)
    cluster.rcodes[0] = 2
    asked, queries = cluster.asked, cluster.queries.total()
    cluster.run(20)
    extra = (cluster.queries.total() - queries) / (cluster.asked - asked) - 1
    print(f"FIGURE extra queries {100 * extra:.2f} %, {cluster.results}")
    assert cluster.results == Counter(good=len(cluster.latencies_s))
    assert extra < 0.05


@pytest.mark.parametrize("seed", SEEDS)
def test_names_that_fail_everywhere_cost_one_query_in_a_hundred(seed: int) -> None:
    cluster = Cluster(rate=300, seed=seed, rcodes={0: 2, 1: 2, 2: 2})
    cluster.run(20)
    extra = cluster.queries.total() / cluster.asked - 1
    print(f"FIGURE extra queries {100 * extra:.2f} %")
    assert set(cluster.results) == {2}
    assert extra < 0.02


@pytest.mark.parametrize("seed", SEEDS)
def test_a_backend_that_accepts_and_never_answers_costs_few_queries(seed: int) -> None:
    cluster = Cluster(rate=300, seed=seed)
    cluster.run(5)
    cluster.silent.add(0)
    asked, queries = cluster.asked, cluster.queries.total()
    cluster.run(30)
    extra = (cluster.queries.total() - queries) / (cluster.asked - asked) - 1
    cluster.latencies_s.sort()
    p99_ms = 1e3 * cluster.latencies_s[len(cluster.latencies_s) * 99 // 100]
    print(f"FIGURE extra queries {100 * extra:.2f} %, p99 of misses {p99_ms:.1f} ms")
    assert cluster.results == Counter(good=len(cluster.latencies_s))
    assert extra < 0.05
    assert p99_ms < 400
