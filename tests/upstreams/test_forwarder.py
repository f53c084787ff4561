"""What an exchange may do, whatever becomes of it; test_forwarder_faults.py has the rest.

What it is made of is tested in files of the same names, but for these: exchange.py, asking.py,
outside.py and pool.py in all of them, roster.py in test_forwarder_faults.py, habits.py in
test_deaths.py, truncated.py in test_datagrams.py and test_forms.py.
"""

from __future__ import annotations

from nodecache.upstreams.exchange import Failure
from tests.upstreams.forwarding import (
    ONE,
    Network,
    policy,
)


def test_an_exchange_may_be_submitted_from_within_on_done() -> None:
    bed = Network()
    first = bed.ask(ONE)
    on_done = first.on_done

    def ask_next(*args: object) -> bool:
        on_done(*args)  # type: ignore[arg-type]
        bed.ask(ONE, "b.cluster.local")
        return True

    first.on_done = ask_next
    bed.reply_all()
    bed.reply_all()
    assert len(bed.results) == 2


def test_without_any_upstream_an_exchange_fails_at_once() -> None:
    bed = Network()
    exchange = bed.ask(policy())
    assert exchange.is_done
    assert bed.outcomes == [Failure.UNREACHABLE]
