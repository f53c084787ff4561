"""What a client gets, and what is kept, for each thing that an upstream may do."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import dns.flags
import dns.message
import dns.rcode
import pytest
from dns.rcode import NOERROR, NXDOMAIN, REFUSED, SERVFAIL

from nodecache.cache.lifetime import Kind
from nodecache.config.model import CachePolicy, ServeStale, StaleMode
from nodecache.upstreams.exchange import Failure
from tests.cache.building import a, key, opt, query, response, soa
from tests.resolve.resolving import extended_errors, shown_ttls
from tests.upstreams.passing_time import Node

NAME = "a.cluster.local"
RTT_S, RTT_MS = 0.01, 10
OLD = b"\x0a\0\0\1"

# What the upstream does: after how long, and how the exchange ends.
OUTCOMES: dict[str, tuple[float, bytes | Failure]] = {
    "time-out": (4.5, Failure.TIMED_OUT),
    "SERVFAIL": (RTT_S, response(key(), rcode=2)),
    "REFUSED": (RTT_S, response(key(), rcode=5)),
    "FORMERR": (RTT_S, response(key(), rcode=1)),
    "NXDOMAIN": (RTT_S, response(key(), [], [soa()], rcode=3)),
    "NODATA": (RTT_S, response(key(), [], [soa()])),
    "empty without SOA": (RTT_S, response(key())),
    "malformed": (RTT_S, response(key(), [a()])[:-3]),
    "refused connection": (RTT_S, Failure.UNREACHABLE),
    "TC only": (RTT_S, response(key(), flags=0x8380)),
}

MODES: dict[str, ServeStale | None] = {
    "off": None,
    "immediate": ServeStale(),
    "verify": ServeStale(mode=StaleMode.VERIFY),
}


class Seen(NamedTuple):
    """A reply, and what could still be served of the name a while later.

    Attributes:
        rcode, ttl: Of the reply; -1 for no records.
        errors: Its Extended DNS Errors.
        after_ms: Between query and reply.
        kept: Kind of the message.
        is_old: It is the one of before.
    """

    rcode: dns.rcode.Rcode
    ttl: int
    errors: tuple[int, ...]
    after_ms: int
    kept: Kind | None
    is_old: bool = False


# Nothing is known, or nothing that may be served: what the upstream does is what comes.
NOTHING = {
    "time-out": Seen(SERVFAIL, -1, (22,), 4500, Kind.FAILURE),
    "SERVFAIL": Seen(SERVFAIL, -1, (), RTT_MS, Kind.FAILURE),
    "REFUSED": Seen(REFUSED, -1, (), RTT_MS, None),
    "FORMERR": Seen(dns.rcode.FORMERR, -1, (), RTT_MS, None),
    "NXDOMAIN": Seen(NXDOMAIN, 30, (), RTT_MS, Kind.NXDOMAIN),
    "NODATA": Seen(NOERROR, 30, (), RTT_MS, Kind.NODATA),
    "empty without SOA": Seen(NOERROR, -1, (), RTT_MS, None),
    "malformed": Seen(SERVFAIL, -1, (22,), RTT_MS, Kind.FAILURE),
    "refused connection": Seen(SERVFAIL, -1, (23,), RTT_MS, Kind.FAILURE),
    "TC only": Seen(NOERROR, -1, (), RTT_MS, None),
}

# Ten seconds after the end of 30 s.
STALE_VERIFIED = {
    "time-out": Seen(NOERROR, 5, (3,), 400, Kind.SUCCESS, is_old=True),
    "SERVFAIL": Seen(NOERROR, 5, (3,), RTT_MS, Kind.SUCCESS, is_old=True),
    "REFUSED": Seen(NOERROR, 5, (3,), RTT_MS, Kind.SUCCESS, is_old=True),
    "FORMERR": Seen(NOERROR, 5, (3,), RTT_MS, Kind.SUCCESS, is_old=True),
    "NXDOMAIN": Seen(NXDOMAIN, 30, (), RTT_MS, Kind.NXDOMAIN),
    "NODATA": Seen(NOERROR, 30, (), RTT_MS, Kind.NODATA),
    "empty without SOA": Seen(NOERROR, 5, (3,), RTT_MS, Kind.SUCCESS, is_old=True),
    "malformed": Seen(NOERROR, 5, (3,), RTT_MS, Kind.SUCCESS, is_old=True),
    "refused connection": Seen(NOERROR, 5, (3,), RTT_MS, Kind.SUCCESS, is_old=True),
    "TC only": Seen(NOERROR, 5, (3,), RTT_MS, Kind.SUCCESS, is_old=True),
}


def at_once(ttl: int, *errors: int) -> dict[str, Seen]:
    """The old answer goes out without waiting; only NXDOMAIN and NODATA take its place then."""
    return {
        outcome: Seen(NOERROR, ttl, errors, 0, seen.kept, seen.is_old)
        for outcome, seen in STALE_VERIFIED.items()
    }


EXPECTED = {
    ("off", "nothing"): NOTHING,
    ("off", "stale"): NOTHING,
    ("off", "fresh"): at_once(3),
    ("immediate", "nothing"): NOTHING,
    ("immediate", "stale"): at_once(5, 3),
    ("immediate", "fresh"): at_once(3),
    ("verify", "nothing"): NOTHING,
    ("verify", "stale"): STALE_VERIFIED,
    ("verify", "fresh"): at_once(3),
}


def prepare(mode: str, have: str, outcome: str) -> Node:
    """A node that was told of the name 27 s (fresh, refresh due) or 40 s (stale) ago, or never."""
    policy = replace(CachePolicy(), serve_stale=MODES[mode])
    node = Node(lambda *_: (0.0, response(key(), [a(30, OLD)])), policy)
    if have != "nothing":
        node.serve(NAME, query())
        node.run(0.5)
        for _ in range(2):
            node.serve(NAME, query())
        node.run(27.5 if have == "fresh" else 40)
    node.upstream = lambda *_: OUTCOMES[outcome]
    node.got.clear()
    node.begun.clear()
    return node


@pytest.mark.parametrize("outcome", OUTCOMES)
@pytest.mark.parametrize(("mode", "have"), EXPECTED)
def test_matrix(mode: str, have: str, outcome: str) -> None:
    node = prepare(mode, have, outcome)
    asked_at = node.bed.now
    if have == "fresh":
        node.bed.now = asked_at = node.start + 27.6
    node.serve(NAME, query(edns=opt()))
    # What is kept is looked at while a failure is remembered, before the old one's end.
    answered_at = asked_at + OUTCOMES[outcome][0]
    node.run(answered_at + 0.5 - node.start)
    assert len(node.begun) == 1, "a question was asked, once"
    (got,) = node.got
    reply = dns.message.from_wire(b"\0\0" + got.octets)
    wanted = EXPECTED[mode, have][outcome]
    if (have, outcome) == ("fresh", "time-out") and mode == "off":
        wanted = wanted._replace(kept=Kind.FAILURE, is_old=False)  # it outlasts the message
    assert (
        reply.rcode(),
        max(shown_ttls(reply), default=-1),
        tuple(extended_errors(reply)),
        round(got.waited_s * 1000),
    ) == wanted[:4]
    assert bool(reply.flags & dns.flags.TC) == (outcome == "TC only" and wanted is NOTHING[outcome])
    assert kept(node) == wanted[4:]


def kept(node: Node) -> tuple[Kind | None, bool]:
    """What can still be served, fresh or stale, and whether it is the old answer."""
    assert node.bed.messages is not None
    found = node.bed.messages.peek(key())
    if found is None or found.keep_until <= node.bed.now:
        return None, False
    return found.kind, found.stored_at < node.start + 1 and found.kind is Kind.SUCCESS


@pytest.mark.parametrize("mode", ["immediate", "verify"])
@pytest.mark.parametrize("outcome", OUTCOMES)
def test_client_without_edns_gets_the_same_without_opt(mode: str, outcome: str) -> None:
    node = prepare(mode, "stale", outcome)
    node.serve(NAME, query())
    node.run(46)
    (got,) = node.got
    reply = dns.message.from_wire(b"\0\0" + got.octets)
    assert reply.edns == -1
    assert reply.rcode() == EXPECTED[mode, "stale"][outcome].rcode


def test_with_extended_errors_nothing_else_changes() -> None:
    replies = []
    for edns in (b"", opt()):
        node = prepare("verify", "stale", "SERVFAIL")
        node.serve(NAME, query(edns=edns))
        node.run(41)
        replies.append(node.got[0].octets)
    assert replies[1][10:].startswith(replies[0][10:])
