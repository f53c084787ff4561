"""The way out: what is asked of whom, and what is answered here instead."""

from __future__ import annotations

from dataclasses import replace

import dns.flags
import dns.message
import dns.rcode
import pytest

from nodecache.config.model import (
    CLUSTER_DOMAIN,
    ROOT,
    Address,
    CachePolicy,
    ForwardPolicy,
    ServeStale,
)
from nodecache.directives.loop.act import LoopGuard
from nodecache.directives.rewrite.act import RuleRewriter
from nodecache.directives.rewrite.model import Match, NameTest, RewriteName
from nodecache.resolve.behind_cache import BehindCache
from tests.cache.building import AAAA, TXT, a, key, opt, query, response
from tests.cache.building import name as wire_name
from tests.resolve.resolving import UPSTREAMS, Bed, zone

EDNS = opt()


def test_upstream_query_is_canonical() -> None:
    bed = Bed()
    cookie = b"\0\x0a\0\x08testtest"
    bed.ask(query("A.CLUSTER.local", edns=opt(4096, do=True, options=cookie), flags=0x0130))
    sent = dns.message.from_wire(b"\0\0" + bed.forwarder.submitted[0].query)
    assert sent.question[0].name.to_text() == "a.cluster.local."
    assert sent.payload == 1232
    assert sent.ednsflags == dns.flags.DO
    assert sent.options == ()
    assert sent.flags & dns.flags.RD
    assert sent.flags & dns.flags.CD


def test_rd_cd_do_class_and_type_are_asked_for_apart() -> None:
    bed = Bed()
    different = [
        query(),
        query(flags=0),
        query(flags=0x0110),
        query(edns=opt(do=True)),
        query(qtype=AAAA),
        query(qclass=3),
    ]
    for octets in different:
        bed.ask(octets)
    assert bed.exchanges == len(different)
    for _ in different:
        bed.answer()
    for octets in different:
        assert bed.ask(octets)
    assert bed.exchanges == len(different)


def test_edns_and_ad_alone_share_an_exchange() -> None:
    bed = Bed()
    for octets in (query(), query(edns=EDNS), query(flags=0x0120)):
        bed.ask(octets)
    assert bed.exchanges == 1


@pytest.mark.parametrize(
    "forwards",
    [
        (),
        (ForwardPolicy(CLUSTER_DOMAIN, UPSTREAMS),),
        (ForwardPolicy(ROOT, UPSTREAMS, except_zones=(zone("example."),)),),
    ],
    ids=["no forward", "outside origin", "except"],
)
def test_name_that_no_directive_takes_is_a_servfail_that_is_logged_and_not_kept(
    forwards: tuple[ForwardPolicy, ...],
) -> None:
    bed = Bed(forwards=forwards)
    for _ in range(2):
        bed.ask(query("x.example"))
    for octets in bed.got["stub"]:
        reply = dns.message.from_wire(octets)
        assert (reply.rcode(), reply.answer) == (dns.rcode.SERVFAIL, [])
    assert bed.exchanges == 0
    assert bed.resolver.pending_count == 0
    assert bed.series.responses == {(2, ""): 2}
    assert [error.text for error in bed.resolver.results.failures] == ["no next plugin found"] * 2
    assert bed.messages is not None
    assert bed.messages.peek(key("x.example")) is None


def test_block_without_a_directive_about_queries_refuses_them() -> None:
    quiet = ("timeouts", "reload", "bind", "debug", "ready", "health", "pprof")
    for directives in ((), ("bind",), quiet):
        bed = Bed(forwards=(), directives=directives)
        assert bed.ask_now(query("x.example")).rcode() == dns.rcode.REFUSED
        assert bed.resolver.results.failures == []


def test_rewritten_name_that_no_directive_takes_comes_back_as_it_was_asked() -> None:
    test = NameTest(Match.EXACT, "a.cluster.local.")
    rewriter = RuleRewriter((RewriteName(test, "a.example.", is_auto=True),))
    forwards = (ForwardPolicy(CLUSTER_DOMAIN, UPSTREAMS),)
    bed = Bed(forwards=forwards, behind_cache=BehindCache(rewriter, ()))
    bed.ask(query("a.cluster.local"))
    reply = bed.last()
    assert reply.rcode() == dns.rcode.SERVFAIL
    assert reply.question[0].name.to_text() == "a.cluster.local."


def test_stale_goes_out_where_no_directive_takes_the_name_any_more() -> None:
    bed = Bed(policy=replace(CachePolicy(), serve_stale=ServeStale()))
    bed.ask(query())
    bed.answer(response(key(), [a(5)]))
    bed.state.configure(replace(bed.state.block, forwards=()), bed.messages, None)
    bed.now += 10
    bed.ask(query())
    assert bed.last().rcode() == dns.rcode.NOERROR


def test_second_forward_takes_what_the_first_excepts() -> None:
    first = ForwardPolicy(ROOT, UPSTREAMS, except_zones=(zone("example."),))
    second = ForwardPolicy(zone("example."), UPSTREAMS)
    bed = Bed(forwards=(first, second))
    bed.ask(query("x.example"))
    assert bed.forwarder.submitted[0].policy is second


def test_class_ch_is_forwarded_and_kept_apart() -> None:
    bed = Bed()
    bed.ask(query("version.bind", TXT, qclass=3))
    assert bed.forwarder.submitted[0].question == key("version.bind", TXT, qclass=3)[:-1]
    bed.answer()
    assert bed.ask(query("version.bind", TXT, qclass=1)) is None


def test_whoami_answers_each_client_for_itself_and_only_what_no_forward_takes() -> None:
    bed = Bed(forwards=(ForwardPolicy(CLUSTER_DOMAIN, UPSTREAMS),), is_whoami=True)
    bed.ask(query("x.example"))
    assert str(bed.last().additional[0][0]) == "192.0.2.7"
    bed.udp.locate = lambda _client: Address("192.0.2.8", 40_000)
    bed.ask(query("x.example"))
    assert str(bed.last().additional[0][0]) == "192.0.2.8"
    bed.ask(query())
    assert (bed.exchanges, bed.resolver.pending_count) == (1, 1)


def test_nobody_is_told_who_he_is_in_a_question_of_our_own() -> None:
    bed = Bed(forwards=(), is_whoami=True)
    guard = LoopGuard(wire_name("nobody.knows"))
    bed.resolver.look_for_loop(bed.state, guard, bed.now)
    assert (bed.resolver.pending_count, guard.has_failed, guard.has_returned) == (0, False, False)


def test_what_is_asked_ahead_is_counted_until_it_ends() -> None:
    bed = Bed()
    bed.ask(query())
    bed.answer()
    for _ in range(3):
        bed.ask_now(query())
    bed.wait(28)
    bed.ask_now(query())
    assert (bed.state.asked_ahead, bed.exchanges) == (1, 2)
    bed.answer()
    assert (bed.state.asked_ahead, bed.resolver.pending_count) == (0, 0)
