"""The way back: what each gets who waits, and who joins an exchange towards its end."""

from __future__ import annotations

import dns.flags
import dns.message
import dns.rcode
import pytest

from nodecache.config.model import (
    ROOT,
    ForwardPolicy,
)
from nodecache.upstreams.exchange import Failure
from tests.cache.building import a, key, opt, query, response, soa
from tests.resolve.resolving import UPSTREAMS, Bed, extended_errors

EDNS = opt()


@pytest.mark.parametrize(("failure", "code"), [(Failure.TIMED_OUT, 22), (Failure.UNREACHABLE, 23)])
def test_failed_exchange_is_servfail_with_its_reason_for_those_who_have_edns(
    failure: Failure, code: int
) -> None:
    bed = Bed()
    bed.ask(query(), "plain")
    bed.ask(query(edns=EDNS), "edns")
    bed.answer(failure)
    assert bed.last("plain").rcode() == bed.last("edns").rcode() == dns.rcode.SERVFAIL
    assert extended_errors(bed.last("edns")) == [code]
    assert bed.last("plain").edns == -1
    (error,) = bed.resolver.results.failures
    assert (error.rcode, error.detail) == (dns.rcode.SERVFAIL, failure.value)


def test_rfc9520_failed_exchange_is_remembered_one_second_and_says_so() -> None:
    bed = Bed()
    bed.ask(query())
    bed.answer(Failure.TIMED_OUT)
    bed.wait(0.9)
    reply = bed.ask_now(query(edns=EDNS))
    assert (reply.rcode(), extended_errors(reply)) == (dns.rcode.SERVFAIL, [13])
    bed.wait(0.2)
    assert bed.ask(query()) is None
    assert len(bed.packets) == 0


def test_failure_that_ends_before_submit_returns_reaches_the_client() -> None:
    bed = Bed()
    bed.forwarder.instantly = Failure.UNREACHABLE
    assert bed.ask(query()) is None
    assert bed.last().rcode() == dns.rcode.SERVFAIL
    assert (bed.resolver.pending_count, bed.state.pending) == (0, {})


@pytest.mark.parametrize("cut", range(1, 32))
def test_a_malformed_response_is_refused_and_the_next_one_taken(cut: int) -> None:
    bed = Bed()
    bed.ask(query())
    octets = response(key(), [a(), a()])
    bed.answer(octets[:-cut])
    assert not bed.resolver.results.replies
    assert bed.resolver.pending_count == 1
    bed.answer(octets)
    assert len(bed.last().answer) == 1
    assert bed.resolver.pending_count == 0


def test_truncated_response_goes_to_clients_over_tcp_too_as_it_came() -> None:
    bed = Bed()
    bed.ask(query(), "udp")
    bed.ask(query(), "tcp", tcp=True)
    bed.answer(response(key(), [a()], flags=0x8380))
    for client in ("udp", "tcp"):
        assert bed.last(client).flags & dns.flags.TC
        assert len(bed.last(client).answer) == 1
    assert bed.ask(query()) is None


def test_next_hands_the_question_to_the_following_forward_and_keeps_the_deadline() -> None:
    policies = tuple(ForwardPolicy(ROOT, UPSTREAMS, next_rcodes=frozenset({3})) for _ in range(3))
    bed = Bed(forwards=policies)
    bed.ask(query())
    deadline = bed.forwarder.submitted[0].deadline
    nxdomain = response(key(), [], [soa()], rcode=3)
    for index in range(2):
        bed.wait(0.5)
        bed.answer(nxdomain)
        assert bed.forwarder.submitted[-1].policy is policies[index + 1]
        assert bed.forwarder.submitted[-1].deadline == deadline
        assert (bed.resolver.pending_count, "stub" in bed.got) == (1, False)
    bed.ask(query(), "joins late")
    bed.answer(nxdomain)
    assert bed.exchanges == 3
    assert bed.last().rcode() == bed.last("joins late").rcode() == dns.rcode.NXDOMAIN
    assert bed.resolver.pending_count == 0


def test_other_rcodes_do_not_move_on() -> None:
    first = ForwardPolicy(ROOT, UPSTREAMS, next_rcodes=frozenset({3}))
    bed = Bed(forwards=(first, ForwardPolicy(ROOT, UPSTREAMS)))
    bed.ask(query())
    bed.answer()
    assert bed.last().rcode() == dns.rcode.NOERROR
    assert bed.exchanges == 1


def test_who_came_in_its_second_half_is_asked_for_anew() -> None:
    bed = Bed()
    bed.ask(query(), "early")
    bed.now += 4.0
    bed.ask(query(), "late")
    bed.now += 0.5
    bed.answer(Failure.TIMED_OUT)
    assert bed.last("early").rcode() == dns.rcode.SERVFAIL
    assert "late" not in bed.got
    [again] = bed.forwarder.under_way
    assert again.deadline == bed.now - 0.5 + 4.5
    bed.answer()
    assert bed.last("late").rcode() == dns.rcode.NOERROR
    assert bed.resolver.pending_count == 0


def test_who_came_in_its_first_half_fails_with_it() -> None:
    bed = Bed()
    bed.ask(query(), "early")
    bed.now += 2.0
    bed.ask(query(), "joined")
    bed.now += 2.5
    bed.answer(Failure.TIMED_OUT)
    assert bed.last("joined").rcode() == dns.rcode.SERVFAIL
    assert bed.forwarder.under_way == []


def test_where_nothing_may_begin_the_late_are_refused() -> None:
    bed = Bed()
    bed.ask(query(), "early")
    bed.now += 4.0
    bed.ask(query(), "late")
    bed.now += 0.5
    bed.resolver.refuse_misses()
    bed.answer(Failure.TIMED_OUT)
    assert bed.last("late").rcode() == dns.rcode.REFUSED
