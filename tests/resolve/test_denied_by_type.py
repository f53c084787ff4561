"""Servers that deny by type what exists: whoever asks for another type is never told so."""

from __future__ import annotations

import struct
from functools import partial

import dns.rcode
import pytest

from nodecache.config.model import CLUSTER_DOMAIN, CachePolicy
from nodecache.resolve.behind_cache import BehindCache
from nodecache.resolve.block import Pending
from nodecache.upstreams.exchange import Failure
from nodecache.wire.rrs import RR, Contents
from tests.cache.building import AAAA, SOA, TXT, A, key, name, query, record, response, soa
from tests.resolve.resolving import Bed
from tests.upstreams.passing_time import Node

NAME = "web.default.svc.cluster.local"
NOERROR, NXDOMAIN, SERVFAIL = dns.rcode.NOERROR, dns.rcode.NXDOMAIN, dns.rcode.SERVFAIL
IPV6 = bytes(15) + b"\1"


def exists(for_key: bytes, ttl: int = 30) -> bytes:
    rdata = IPV6 if for_key[-4] == AAAA else bytes(4)
    return response(for_key, [record(for_key[-4], ttl, rdata)])


def denied(for_key: bytes) -> bytes:
    return response(for_key, [], [soa(30, 30)], rcode=3)


def finish(bed: Bed, qtype: int, result: bytes | Failure) -> None:
    keys = [exchange.key[-4] for exchange in bed.forwarder.under_way]
    bed.answer(result, keys.index(qtype))


@pytest.mark.parametrize(
    ("denied_type", "between_ms"),
    # Who is denied A and asks for AAAA only then is beyond help: see -nxdomain-scope none.
    [(AAAA, 0.0), (AAAA, 0.05), (AAAA, 7.0), (AAAA, 40.0), (AAAA, -40.0), (A, 0.0), (A, 0.5)],
)
@pytest.mark.parametrize("denied_rtt_ms", [1, 20, 80, 300])
def test_of_parallel_pairs_none_is_told_that_the_name_does_not_exist(
    denied_type: int, between_ms: float, denied_rtt_ms: int
) -> None:
    """Twenty stubs that ask for A and AAAA, as they come; one type is denied, soon or late."""

    def behave(pending: Pending, _: float) -> tuple[float, bytes]:
        is_denied = pending.key[-4] == denied_type
        octets = denied(pending.key) if is_denied else exists(pending.key, 2)
        return denied_rtt_ms / 1000 if is_denied else 0.1, octets

    node = Node(behave)
    wanted = A if denied_type == AAAA else AAAA
    for number in range(20):
        for qtype in (A, AAAA):
            octets = query(NAME, qtype, ident=number + 1)
            when = 1 + number * 0.011 + (between_ms / 1000 if qtype == AAAA else 0)
            for at in (when, when + 3):
                node.at(at, partial(node.serve, str(qtype), octets))
    node.run(10)
    assert len(node.got) == 80
    for got in node.got:
        is_wanted = got.name == str(wanted)
        assert got.octets[1] & 0xF == (NOERROR if is_wanted else NXDOMAIN), got.name
    assert len(node.begun) <= 8, "and still each is asked for once"


@pytest.mark.parametrize("then", [0.0, 5.0, 29.0])
def test_an_nxdomain_for_aaaa_never_answers_a(then: float) -> None:
    bed = Bed()
    bed.ask(query(NAME, AAAA))
    bed.answer(denied(key(NAME, AAAA)))
    bed.wait(then)
    assert bed.ask(query(NAME)) is None
    bed.answer(exists(key(NAME)))
    assert bed.last().rcode() == NOERROR
    assert bed.ask_now(query(NAME, AAAA)).rcode() == NXDOMAIN


def deny_a(bed: Bed, host: str = NAME) -> None:
    bed.ask(query(host))
    finish(bed, A, denied(key(host)))


def test_an_nxdomain_for_a_answers_other_types_until_one_of_them_is_answered() -> None:
    bed = Bed()
    bed.ask(query(NAME, AAAA), "early")
    deny_a(bed)
    deny_a(bed, "other.cluster.local")
    assert bed.ask_now(query(NAME, TXT)).rcode() == NXDOMAIN
    assert bed.ask_now(query("other.cluster.local", TXT)).rcode() == NXDOMAIN
    assert len(bed.packets) == 2
    assert bed.ask(query(NAME, AAAA), "late") is None
    bed.answer(exists(key(NAME, AAAA)))
    assert bed.last("early").rcode() == bed.last("late").rcode() == NOERROR
    assert len(bed.packets) == 0, "what was made of wrong ones went with them"
    for host in (NAME, "other.cluster.local", "later.cluster.local"):
        assert bed.ask(query(host, TXT)) is None
    deny_a(bed, "later.cluster.local")
    assert bed.ask(query("later.cluster.local", AAAA)) is None
    assert bed.ask_now(query("other.cluster.local")).rcode() == NXDOMAIN


def test_what_is_kept_of_another_type_contradicts_at_once() -> None:
    bed = Bed()
    bed.ask(query(NAME, AAAA))
    bed.answer(response(key(NAME, AAAA), [], [soa()]))  # NODATA: the name exists
    deny_a(bed)
    assert bed.ask(query(NAME, TXT)) is None
    assert bed.ask_now(query(NAME)).rcode() == NXDOMAIN


@pytest.mark.parametrize(
    "answer",
    [
        response(key(NAME, AAAA), [record(AAAA, 0, IPV6)]),
        response(key(NAME, AAAA)),
        response(key(NAME, AAAA), [record(AAAA, 30, IPV6)], flags=0x8380),
    ],
    ids=["TTL 0", "without SOA", "truncated"],
)
def test_an_answer_that_is_not_kept_contradicts_as_well(answer: bytes) -> None:
    bed = Bed()
    bed.ask(query(NAME, AAAA))
    deny_a(bed)
    bed.answer(answer)
    assert bed.ask(query(NAME, AAAA)) is None
    assert bed.messages is not None
    assert not bed.messages.covers_all_types(key("other.cluster.local"))


def test_a_referral_contradicts_nothing() -> None:
    bed = Bed()
    bed.ask(query(NAME, AAAA))
    deny_a(bed)
    ns = record(2, 30, name("ns.example"), name("svc.cluster.local"))
    bed.answer(response(key(NAME, AAAA), [], [ns]))
    assert bed.ask_now(query(NAME, AAAA)).rcode() == NXDOMAIN


@pytest.mark.parametrize("result", [Failure.TIMED_OUT, response(key(NAME, AAAA), rcode=2)])
def test_who_waits_for_a_failure_gets_what_was_told_of_the_name(result: bytes | Failure) -> None:
    bed = Bed()
    bed.ask(query(NAME, AAAA), "early")
    deny_a(bed)
    bed.answer(result)
    assert bed.last("early").rcode() == NXDOMAIN
    assert bed.ask_now(query(NAME, AAAA)).rcode() == NXDOMAIN


def test_without_more_knowledge_a_failure_is_a_failure() -> None:
    bed = Bed()
    bed.ask(query(NAME, AAAA), "early")
    bed.answer(Failure.TIMED_OUT)
    assert bed.last("early").rcode() == SERVFAIL


class Denies:
    """A template for one type."""

    name = "template"

    def __init__(self, qtype: int, rcode: int = 3) -> None:
        self.qtype = qtype
        self.rcode = rcode

    def respond(self, question: bytes) -> bytes | None:
        if question[-4:] != struct.pack("!HH", self.qtype, 1):
            return None
        authority = [RR(b"\0", SOA, 1, 60, bytes(21) + b"\x3c")] if self.rcode else []
        answer = [] if self.rcode else [RR(question[:-4], A, 1, 60, bytes(4))]
        return Contents(0x8580 | self.rcode, question, answer, authority).compose()


@pytest.mark.parametrize("qtype", [A, AAAA])
def test_what_a_directive_of_ours_denies_it_denies_for_that_type_only(qtype: int) -> None:
    bed = Bed(behind_cache=BehindCache(None, (Denies(qtype),)))
    other = A if qtype == AAAA else AAAA
    bed.ask(query(NAME, qtype))
    assert bed.last().rcode() == NXDOMAIN
    assert bed.ask_now(query(NAME, qtype)).rcode() == NXDOMAIN
    assert bed.ask(query(NAME, other)) is None
    bed.answer(exists(key(NAME, other)))
    assert bed.ask_now(query(NAME, other)).rcode() == NOERROR


def test_an_upstreams_nxdomain_does_not_hide_what_a_directive_of_ours_answers() -> None:
    bed = Bed(behind_cache=BehindCache(None, (Denies(TXT, 0),)))
    deny_a(bed)
    bed.ask(query(NAME, TXT))
    assert bed.last().rcode() == NOERROR


def test_outside_the_cluster_domain_only_the_zone_of_the_soa_loses_its_say() -> None:
    bed = Bed()
    assert bed.messages is not None
    bed.messages.nxdomain_zone = b"\0"
    rdata = b"\0\0" + bytes(16) + struct.pack("!I", 30)

    def deny(host: str, zone: str) -> None:
        bed.ask(query(host))
        octets = response(key(host), [], [record(SOA, 30, rdata, name(zone))], rcode=3)
        finish(bed, A, octets)

    for zone in ("bad.example", "good.example"):
        deny(f"gone.{zone}", zone)
    bed.ask(query("www.bad.example", AAAA))
    deny("www.bad.example", "bad.example")
    finish(bed, AAAA, response(key("www.bad.example", AAAA), [record(AAAA, 30, IPV6)]))
    assert bed.ask(query("gone.bad.example", AAAA)) is None
    assert bed.ask_now(query("gone.good.example", AAAA)).rcode() == NXDOMAIN


def test_a_contradicted_zone_has_no_cuts_either() -> None:
    bed = Bed(CachePolicy(nxdomain_cut=(CLUSTER_DOMAIN,)))
    deny_a(bed, "gone.cluster.local")
    assert bed.ask_now(query("a.gone.cluster.local")).rcode() == NXDOMAIN
    bed.ask(query(NAME, AAAA))
    deny_a(bed)
    bed.answer(exists(key(NAME, AAAA)))
    assert len(bed.packets) == 0
    assert bed.ask(query("a.gone.cluster.local")) is None
    deny_a(bed, "later.cluster.local")
    assert bed.ask(query("a.later.cluster.local")) is None
    assert bed.ask_now(query("gone.cluster.local")).rcode() == NXDOMAIN


@pytest.mark.parametrize("is_plain", [True, False])
def test_what_comes_late_covers_what_it_would_have_covered_in_time(*, is_plain: bool) -> None:
    bed = Bed(behind_cache=None if is_plain else BehindCache(None, (Denies(TXT, 0),)))
    bed.ask(query(NAME))
    (pending,) = bed.forwarder.under_way
    bed.answer(Failure.TIMED_OUT)
    assert pending.on_late is not None
    pending.on_late(pending, denied(key(NAME)), bed.now)
    assert bed.ask_now(query(NAME)).rcode() == NXDOMAIN
    assert (bed.ask(query(NAME, AAAA)) is not None) == is_plain
