"""Health probes of upstreams that failed."""

from __future__ import annotations

from dataclasses import replace

from nodecache.config.model import (
    ForwardPolicy,
    HealthCheck,
    Name,
)
from tests.upstreams.forwarding import (
    ONE,
    TCP,
    TCP2,
    TWO,
    Network,
    answer,
    policy,
    warm,
)


def fail_first(bed: Network, forward: ForwardPolicy = TWO) -> None:
    """Has the first upstream refuse a connection, the second answer the query."""
    bed.connects = False
    bed.ask(forward)
    bed.refuse_all()
    bed.connect(bed.opened[0])
    bed.reply_all()
    bed.connects = True


def probe_names(bed: Network) -> list[bytes]:
    return [query for probe in bed.probes for query in bed.sent[probe]]


def test_after_a_failure_the_upstream_is_probed_until_it_answers() -> None:
    bed = Network()
    fail_first(bed)
    assert bed.probes == []
    bed.wait(0.51)
    [probe] = bed.probes
    assert probe.upstream is TCP
    [query] = bed.sent[probe]
    assert query[2:] == b"\1\0\0\1\0\0\0\0\0\0\0\0\2\0\1"
    bed.deliver(probe, answer(query, rcode=5))
    assert bed.closed == [probe]
    assert repr(bed.forwarder.pool(TCP).health) == "up, 0 fails"
    bed.wait(3.0)
    assert len(bed.probes) == 1


def test_probes_follow_the_configured_name_and_rd() -> None:
    bed = Network()
    check = HealthCheck(0.5, recursion_desired=False, name=Name("x.", b"\1x\0"))
    upstream = replace(TCP, health_check=check)
    bed.connects = False
    bed.ask(policy(upstream))
    bed.refuse_all()
    bed.connects = True
    bed.wait(0.51)
    assert [query[2:] for query in probe_names(bed)] == [b"\0\0\0\1\0\0\0\0\0\0" + b"\1x\0\0\2\0\1"]


def test_at_most_one_probe_is_in_flight_and_each_failure_is_counted() -> None:
    bed = Network()
    fail_first(bed)
    bed.wait(0.51)
    assert len(bed.probes) == 1
    bed.wait(0.9)
    assert len(bed.probes) == 1
    bed.wait(0.2)
    assert bed.forwarder.pool(TCP).series.healthcheck_failures == 1
    bed.wait(0.5)
    assert len(bed.probes) == 2


def test_failed_probes_take_an_upstream_down_and_an_answer_brings_it_back() -> None:
    bed = Network()
    fail_first(bed)
    bed.connects = False
    bed.wait(2.5, refuse=True)
    pool = bed.forwarder.pool(TCP)
    assert pool.health.is_down
    bed.connects = True
    bed.wait(0.6)
    probe = bed.probes[-1]
    bed.deliver(probe, answer(bed.sent[probe][0]))
    assert not pool.health.is_down


def test_a_probe_whose_connection_dies_is_a_failure() -> None:
    bed = Network()
    fail_first(bed)
    bed.wait(0.51)
    bed.drop(bed.probes[0])
    assert bed.forwarder.pool(TCP).series.healthcheck_failures == 1
    bed.wait(0.51)
    assert len(bed.probes) == 2


def test_an_ordinary_answer_ends_the_probing() -> None:
    bed = Network()
    warm(bed)
    bed.ask(ONE)
    bed.wait(1.1)
    assert bed.forwarder.pool(TCP).health.fails == 2
    bed.reply_all()
    bed.wait(5.0)
    assert bed.probes == []


def test_max_fails_0_sends_no_probes() -> None:
    bed = Network()
    fail_first(bed, replace(TWO, upstreams=(replace(TCP, max_fails=0), TCP2)))
    bed.wait(3.0)
    assert bed.probes == []


def test_an_upstream_that_left_the_configuration_is_not_probed() -> None:
    bed = Network()
    fail_first(bed)
    bed.forwarder.keep_only([TCP2], bed.now)
    bed.wait(3.0)
    assert bed.probes == []
