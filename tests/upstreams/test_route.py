"""Which upstream is asked first."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from nodecache.config.model import (
    ForwardPolicy,
    SelectionPolicy,
    Upstream,
)
from nodecache.upstreams.exchange import Failure
from tests.upstreams.forwarding import (
    TCP,
    TCP2,
    TCP3,
    THREE,
    TWO,
    Network,
    asked,
)


def count_first_choices(bed: Network, forward: ForwardPolicy, times: int) -> Counter[Upstream]:
    chosen: Counter[Upstream] = Counter()
    for _ in range(times):
        bed.ask(forward)
        chosen.update(asked(bed))
        bed.reply_all()
    return chosen


def test_round_robin_takes_turns() -> None:
    forward = replace(THREE, selection=SelectionPolicy.ROUND_ROBIN)
    assert count_first_choices(Network(), forward, 30) == {TCP: 10, TCP2: 10, TCP3: 10}


def test_sequential_prefers_the_first() -> None:
    assert count_first_choices(Network(), TWO, 10) == {TCP: 10}


def test_random_asks_all_alike() -> None:
    chosen = count_first_choices(Network(), THREE, 600)
    assert sum(chosen.values()) == 600
    assert min(chosen[upstream] for upstream in (TCP, TCP2, TCP3)) > 150


def take_down(bed: Network, upstream: Upstream) -> None:
    for _ in range(3):
        bed.forwarder.pool(upstream).health.count_failure()


@pytest.mark.parametrize("selection", list(SelectionPolicy))
def test_an_upstream_that_is_down_is_not_chosen(selection: SelectionPolicy) -> None:
    bed = Network()
    take_down(bed, TCP)
    chosen = count_first_choices(bed, replace(THREE, selection=selection), 40)
    assert chosen[TCP] == 0
    assert sum(chosen.values()) == 40


def test_when_all_are_down_one_is_asked_at_random() -> None:
    bed = Network()
    for upstream in (TCP, TCP2):
        take_down(bed, upstream)
    bed.ask(TWO)
    assert len(asked(bed)) == 1
    assert bed.counters.healthcheck_broken == 1
    bed.reply_all()
    assert isinstance(bed.outcomes[0], bytes)


def test_failfast_fails_at_once_when_all_are_down() -> None:
    bed = Network()
    for upstream in (TCP, TCP2):
        take_down(bed, upstream)
    bed.ask(replace(TWO, failfast_all_unhealthy=True))
    assert bed.outcomes == [Failure.UNREACHABLE]
    assert bed.counters.healthcheck_broken == 1
