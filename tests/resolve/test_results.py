"""What the resolver collects for the shell."""

from __future__ import annotations

from dataclasses import replace

from nodecache.upstreams.exchange import Failure
from tests.cache.building import query
from tests.resolve.resolving import Bed


def test_failures_noted_for_the_log_are_bounded() -> None:
    bed = Bed()
    bed.forwarder.instantly = Failure.UNREACHABLE
    for n in range(300):
        bed.ask(query(f"n{n}"))
    assert len(bed.resolver.results.failures) == 256
    assert bed.counters.events["upstream_failures"] == 300


def test_block_without_an_error_log_keeps_no_failures() -> None:
    bed = Bed()
    bed.state.configure(replace(bed.state.block, errors=None), bed.messages, None)
    bed.forwarder.instantly = Failure.UNREACHABLE
    bed.ask(query())
    assert bed.resolver.results.failures == []
    assert bed.counters.events["upstream_failures"] == 1


def test_replies_are_handed_out_in_the_order_in_which_the_queries_came() -> None:
    bed = Bed()
    for n in range(20):
        bed.ask(query(), n)
    bed.answer()
    assert list(bed.got) == list(range(20))
