"""Directives before the cache: what a client gets is made of what the cache holds."""

from __future__ import annotations

from ipaddress import IPv6Address
from typing import Any

import dns.flags
import dns.message
import dns.rcode

from nodecache.config.model import Address
from nodecache.directives.dns64.act import Synthesizer
from nodecache.directives.dns64.model import Dns64
from nodecache.directives.loadbalance.act import Balancer
from nodecache.directives.loadbalance.model import LoadBalance
from nodecache.resolve.before_cache import BeforeCache, Directives
from nodecache.resolve.listener import Listener
from nodecache.resolve.logged import LoggedQuery
from nodecache.resolve.zones import ServedZone, Zones
from nodecache.upstreams.exchange import Failure
from tests.cache.building import AAAA, A, a, key, opt, query, record, response, soa
from tests.resolve.resolving import Bed

TRANSLATE = Directives(dns64=Synthesizer(Dns64(allow_ipv4=True)))


class FrontBed(Bed):
    """A bed whose listeners have ``directives`` before their cache."""

    def __init__(self, directives: Directives, **options: Any) -> None:
        super().__init__(**options)
        self.translated = 0
        for listener in (self.udp, self.tcp):
            served = [self._served(directives, listener)]
            listener.zones = Zones(served, self.unserved)

    def _served(self, directives: Directives, listener: Listener) -> ServedZone:
        zone = self.zones[0]
        inner = ServedZone(zone, self.state, self.series, self.caches)
        before_cache = BeforeCache(
            directives, self.resolver, listener, inner, self._later, self._note
        )
        return ServedZone(zone, self.state, self.series, self.caches, before_cache)

    def _later(self, listener: Listener, client: Any, reply: bytes) -> None:
        self.resolver.results.send_as_it_is(listener, client, reply)

    def _note(self) -> None:
        self.translated += 1


def log_to(entries: list[LoggedQuery]) -> Directives:
    return Directives(log=entries.append)


def test_each_reply_is_logged_hit_or_miss_with_client_and_duration() -> None:
    entries: list[LoggedQuery] = []
    bed = FrontBed(log_to(entries))
    bed.ask(query(ident=1))
    assert entries == []
    bed.now += 0.25
    bed.answer()
    bed.ask(query(ident=2))
    assert [entry.duration_s for entry in entries] == [0.25, 0.0]
    assert [entry.reply[:2] for entry in entries] == [b"\0\1", b"\0\2"]
    assert entries[0].remote == Address("192.0.2.7", 40_000)
    assert (entries[0].proto, entries[0].server) == ("udp", "dns://x")
    assert bed.got["stub"] == [entry.reply for entry in entries]


def test_logged_hits_never_enter_the_packet_cache() -> None:
    bed = FrontBed(log_to([]))
    bed.ask(query())
    bed.answer()
    for _ in range(3):
        bed.ask_now(query())
    assert len(bed.packets) == 0
    assert bed.caches.success_hits == 3


def test_everybody_who_waited_is_logged() -> None:
    entries: list[LoggedQuery] = []
    bed = FrontBed(log_to(entries))
    for client in range(5):
        bed.ask(query(ident=client), client)
    assert bed.exchanges == 1
    bed.answer(Failure.TIMED_OUT)
    assert sorted(entry.reply[1] for entry in entries) == [0, 1, 2, 3, 4]
    assert {entry.reply[3] & 15 for entry in entries} == {2}


def test_log_alone_leaves_truncation_to_the_cache() -> None:
    entries: list[LoggedQuery] = []
    bed = FrontBed(log_to(entries))
    bed.ask(query())
    bed.answer(response(key(), [a(30, bytes([10, 0, 0, n])) for n in range(60)]))
    assert bed.last().flags & dns.flags.TC
    assert len(entries[0].reply) < 512
    assert len(bed.ask_now(query(), tcp=True).answer[0]) == 60


def test_ipv6_address_is_made_of_the_ipv4_address_with_two_questions() -> None:
    bed = FrontBed(TRANSLATE)
    bed.ask(query(qtype=AAAA, ident=9))
    bed.answer(response(key(qtype=AAAA), authority=[soa(60, 20)]))
    assert "stub" not in bed.got
    bed.answer(response(key(), [a(30, b"\xc0\0\2\x21")]))
    reply = bed.last()
    assert reply.id == 9
    assert reply.answer[0][0].to_text() == str(IPv6Address("64:ff9b::192.0.2.33"))
    assert reply.answer[0].ttl == 20
    assert bed.translated == 1
    assert bed.ask_now(query(qtype=AAAA)).answer[0][0].to_text() == "64:ff9b::c000:221"
    assert bed.exchanges == 2


def test_ipv6_address_that_exists_is_left_alone() -> None:
    bed = FrontBed(TRANSLATE)
    bed.ask(query(qtype=AAAA))
    bed.answer(response(key(qtype=AAAA), [record(AAAA, 30, b"\x20\1\x0d\xb8" + bytes(12))]))
    assert bed.last().answer[0][0].to_text() == "2001:db8::"
    assert (bed.exchanges, bed.translated) == (1, 0)


def test_failing_ipv4_question_leaves_the_first_answer() -> None:
    bed = FrontBed(TRANSLATE)
    bed.ask(query(qtype=AAAA))
    bed.answer(response(key(qtype=AAAA), authority=[soa()]))
    bed.answer(Failure.TIMED_OUT)
    assert bed.last().rcode() == dns.rcode.NOERROR
    assert bed.last().answer == []
    assert bed.translated == 0


def test_other_types_pass_dns64() -> None:
    bed = FrontBed(TRANSLATE)
    bed.ask(query(qtype=A))
    bed.answer()
    assert (bed.exchanges, bed.last().answer[0].rdtype) == (1, A)


def test_translated_reply_is_cut_to_what_the_client_takes() -> None:
    bed = FrontBed(TRANSLATE)
    edns = opt(1232)
    bed.ask(query(qtype=AAAA, edns=edns))
    bed.answer(response(key(qtype=AAAA), authority=[soa()]))
    bed.answer(response(key(), [a(30, bytes([10, 0, 0, n])) for n in range(70)]))
    assert bed.last().flags & dns.flags.TC
    assert 0 < len(bed.last().answer[0]) < 70
    assert len(bed.got["stub"][-1]) <= 1232
    whole = bed.ask_now(query(qtype=AAAA), tcp=True)
    assert len(whole.answer[0]) == 70


def test_order_of_addresses_changes_from_reply_to_reply() -> None:
    numbers = iter(n / 97 for n in range(1, 10_000))
    balancer = Balancer(LoadBalance(), lambda: next(numbers) % 1.0)
    bed = FrontBed(Directives(balancer=balancer))
    bed.ask(query())
    bed.answer(response(key(), [a(30, bytes([10, 0, 0, n])) for n in range(4)]))
    orders = set()
    for _ in range(20):
        rrset = bed.ask_now(query()).answer[0]
        assert len(rrset) == 4
        reply = bed.ask(query())
        assert reply is not None
        orders.add(reply)
    assert len(orders) > 3


def test_silence_and_refusals_do_not_reach_the_directives() -> None:
    entries: list[LoggedQuery] = []
    bed = FrontBed(log_to(entries))
    assert bed.ask(b"short") == b""
    bed.ask(query(flags=0x2900))
    assert entries == []


def test_log_tells_the_upstream_that_answered_and_none_for_a_hit() -> None:
    entries: list[LoggedQuery] = []
    bed = FrontBed(log_to(entries))
    for ident in (1, 2):
        bed.ask(query(ident=ident))
    bed.forwarder.submitted[0].answered_by = "192.0.2.53:53"
    bed.answer()
    bed.ask(query(ident=3))
    upstreams = [entry.upstream for entry in entries]
    assert upstreams == ["192.0.2.53:53", "192.0.2.53:53", ""]
