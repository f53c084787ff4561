"""Each invariant is worth something: a node or a network that breaks it is found out."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from nodecache.resolve.listener import Listener
from nodecache.resolve.results import Results
from nodecache.upstreams.connection import Connection
from nodecache.upstreams.exchange import Exchange, Failure
from nodecache.upstreams.forwarder import Forwarder
from nodecache.wire.query import name_end
from tests.simulator import bounds, budgets
from tests.simulator.history import Blink, Fault, History, Lookup, Place
from tests.simulator.network import Network
from tests.simulator.node import Node
from tests.simulator.run import run
from tests.simulator.stubs import Query
from tests.simulator.watch import INVARIANTS

CALM = History(
    ends_at=20.0,
    lookups=tuple(Lookup(1.0 + index, f"n{index % 4}") for index in range(15)),
)
CLOSING = History(
    ends_at=20.0,
    lookups=tuple(Lookup(1.0 + index, f"n{index}") for index in range(15)),
    faults=(Fault("closes", 0.0, 20.0, value=2),),
)
TRUNCATING = History(
    places=(Place("udp"),),
    ends_at=20.0,
    lookups=(Lookup(1.0, "n1"),),
    faults=(Fault("tc", 0.0, 20.0),),
)

Alter = Callable[[Node], None]


def broken(invariant: str, history: History, alter: Alter | None = None) -> str:
    """What is found if only one invariant is looked at; nothing if it holds."""
    others = set(INVARIANTS) - {invariant}
    violation = run(history, others, alter).violation
    return "" if violation is None else violation.detail


def deliver_by(deliver: Callable[[Node, Listener, Query, bytes], None]) -> Alter:
    """Has replies that come later delivered in another way."""

    def alter(node: Node) -> None:
        for listener in (node.udp, node.tcp):
            listener.deliver = partial(deliver, node, listener)

    return alter


def doctor(change: Callable[[bytes], bytes]) -> Alter:
    """Has replies that come later changed."""
    return deliver_by(lambda node, _listener, query, reply: node.on_reply(query, change(reply)))


def fail(reply: bytes) -> bytes:
    """SERVFAIL instead."""
    end = name_end(reply, 12) + 4
    return reply[:3] + b"\x82" + reply[4:6] + bytes(6) + reply[12:end]


def twice(node: Node, _listener: Listener, query: Query, reply: bytes) -> None:
    node.on_reply(query, reply)
    node.on_reply(query, reply)


def late(node: Node, _listener: Listener, query: Query, reply: bytes) -> None:
    node.clock.after(2.5, lambda: node.on_reply(query, reply))


def never(_node: Node, _listener: Listener, _query: Query, _reply: bytes) -> None:
    pass


def change_address(reply: bytes) -> bytes:
    return reply[:-1] + bytes([reply[-1] ^ 0x55])


def raise_ttl(reply: bytes) -> bytes:
    return reply.replace(b"\0\1\0\1\0\0\0", b"\0\1\0\1\0\1\0")


def rename(reply: bytes) -> bytes:
    return reply[:13] + b"x" + reply[14:]


@pytest.mark.parametrize("history", [CALM, CLOSING])
def test_all_holds_where_nothing_is_broken(history: History) -> None:
    outcome = run(history)
    assert outcome.violation is None
    assert outcome.queries == len(history.lookups)


@pytest.mark.parametrize(
    ("invariant", "history", "alter", "detail"),
    [
        ("one reply", CALM, deliver_by(twice), "two replies"),
        ("one reply", CALM, deliver_by(never), "no reply by the deadline"),
        ("truth", CALM, doctor(change_address), "records that nobody said"),
        ("truth", CALM, doctor(raise_ttl), "TTL"),
        ("truth", CALM, doctor(rename), "ID or question"),
        ("answers arrive", CALM, deliver_by(late), "no reply"),
        ("answers arrive", CALM, doctor(fail), "an attempt was answered"),
        ("recovery", CALM, doctor(fail), "nothing is wrong"),
        ("answerable", CLOSING, doctor(fail), "closes"),
        ("two seconds", CALM, deliver_by(late), "nothing is wrong"),
        ("truncated", TRUNCATING, doctor(fail), "had said TC"),
    ],
)  # fmt: skip
def test_altered_replies_are_found_out(
    invariant: str, history: History, alter: Alter, detail: str
) -> None:
    assert broken(invariant, history) == ""
    assert detail in broken(invariant, history, alter)


def test_who_waits_when_the_faults_end_must_have_an_answer() -> None:
    history = History(
        ends_at=20.0,
        lookups=(Lookup(1.0, "n1"),),
        faults=(Fault("hangs", 0.0, 1.3),),
    )
    assert broken("two seconds", history) == ""
    assert "the faults are over" in broken("two seconds", history, deliver_by(never))


def test_silence_without_a_counted_drop_is_found_out() -> None:
    def alter(node: Node) -> None:
        node.resolver = Silent()  # type: ignore[assignment]

    assert "silence" in broken("one reply", CALM, alter)


class Silent:
    """A resolver that answers nothing and counts nothing."""

    results = Results()
    pending_count = 0

    def query(self, *_: object) -> bytes:
        return b""

    def next_timer(self) -> None:
        return None

    def timer(self, _now: float) -> None:
        pass


def test_answers_that_are_not_kept_are_found_out() -> None:
    def alter(node: Node) -> None:
        node.state.configure(node.state.block, None, None)

    assert broken("kept", CALM) == ""
    assert "its answer had come before" in broken("kept", CALM, alter)


def test_to_fail_without_asking_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def submit(_self: Forwarder, exchange: Exchange, now: float) -> None:
        exchange.is_done = True
        exchange.on_done(exchange, Failure.UNREACHABLE, now)

    assert broken("tried", CALM) == ""
    monkeypatch.setattr(Forwarder, "submit", submit)
    assert "nobody was asked" in broken("tried", CALM)


def test_to_fail_without_asking_is_right_while_there_is_nobody_to_ask() -> None:
    history = History(ends_at=20.0, lookups=(Lookup(2.0, "n1"),), blinks=(Blink(1.0, 5.0),))
    assert run(history).violation is None


@pytest.mark.parametrize(
    ("bound", "detail"),
    [
        ("MAX_DEPTH", "queries on one connection"),
        ("MAX_CONNECTIONS", "connections to one upstream"),
        ("MOST_PENDING", "exchanges"),
        ("MOST_WAITERS", "waiters"),
    ],
)
def test_a_bound_that_is_passed_is_found_out(
    bound: str, detail: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = History(
        ends_at=5.0, lookups=(Lookup(0.9999, "n1"),), faults=(Fault("hangs", 0.5, 3.0),)
    )
    assert broken("bounds", history) == ""
    monkeypatch.setattr(bounds, bound, 0)
    assert detail in broken("bounds", history)


@pytest.mark.parametrize(
    ("bound", "kind", "detail"),
    [
        ("MOST_SILENT", "silent_names", "without any answer"),
        ("MOST_WRONG", "malformed", "nonsense"),
        ("MOST_ANSWERED", "silent_names", "queries"),
    ],
)
def test_a_dear_look_up_is_found_out(
    bound: str, kind: str, detail: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = History(ends_at=5.0, lookups=(Lookup(1.0, "n1"),), faults=(Fault(kind, 0.5, 3.0),))
    monkeypatch.setattr(budgets, bound, 1)
    assert detail in broken("budget", history)


def test_too_many_queries_about_slow_names_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    history = History(
        ends_at=30.0,
        lookups=tuple(Lookup(1.0 + index / 10, f"n{index}") for index in range(200)),
        faults=(Fault("slow", 0.0, 30.0, value=0.02),),
    )
    assert broken("budget", history) == ""
    monkeypatch.setattr(budgets, "SLOW_BUDGETS", {1.0: 0.5})
    assert "1.00 queries a look-up" in broken("budget", history)


def test_a_busy_loop_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Node, "next_timer", lambda node: node.clock.now)
    with pytest.raises(AssertionError, match="no busy loop"):
        raise run(CALM).violation or ValueError


def test_what_is_left_over_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def close(_network: Network, _connection: Connection) -> None:
        pass

    assert broken("rest", CALM) == ""
    monkeypatch.setattr(Network, "close", close)
    assert "connections" in broken("rest", CALM)
