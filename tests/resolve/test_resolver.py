from __future__ import annotations

import struct
from dataclasses import replace

import dns.flags
import dns.message
import dns.rcode
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodecache.config.model import (
    CLUSTER_DOMAIN,
    CachePolicy,
)
from nodecache.resolve import block
from nodecache.upstreams.exchange import Failure
from tests.cache.building import AAAA, TXT, A, a, cname, key, opt, query, record, response, soa
from tests.resolve.resolving import Bed, shown_ttls
from tests.strategies import mutated, queries, responses

EDNS = opt()


def big(asked: bytes) -> bytes:
    return response(asked, [a(30, bytes([10, 0, n >> 8, n & 255])) for n in range(100)])


def test_miss_asks_once_and_hit_asks_nobody() -> None:
    bed = Bed()
    assert bed.ask(query()) is None
    bed.answer()
    reply = bed.ask_now(query(ident=7))
    assert (reply.id, shown_ttls(reply)) == (7, [30])
    assert bed.exchanges == 1
    assert (bed.caches.requests, bed.caches.misses, bed.caches.success_hits) == (2, 1, 1)
    assert bed.series.responses == {(0, "forward"): 1, (0, "cache"): 1}


def test_500_clients_with_one_question_share_one_exchange_and_get_their_own_reply() -> None:
    bed = Bed()
    spellings = ["a.cluster.local", "A.cluster.local", "a.CLUSTER.local"]
    asked = [
        query(spellings[n % 3], ident=n, edns=[b"", opt(4096), opt(512)][n % 3]) for n in range(500)
    ]
    for n, octets in enumerate(asked):
        assert bed.ask(octets, n) is None
    assert bed.exchanges == 1
    bed.answer(big(key()))
    for n, octets in enumerate(asked):
        (reply,) = bed.got[n]
        assert reply[:2] == octets[:2]
        assert reply[12 : 12 + len(key()) - 1] == octets[12 : 12 + len(key()) - 1]
        is_whole = n % 3 == 1
        assert bool(reply[2] & 2) is not is_whole
        assert len(reply) <= (4096 if is_whole else 512)
        assert (reply[6:8] == b"\0\x64") is is_whole
        assert bool(reply[11]) is bool(n % 3)
    assert bed.counters.events["coalesced"] == 499
    assert bed.resolver.pending_count == 0


def test_waiters_of_one_exchange_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nodecache.resolve.resolver.MOST_WAITERS", 3)
    bed = Bed()
    for n in range(3):
        assert bed.ask(query(), n) is None
    assert bed.ask_now(query()).rcode() == dns.rcode.REFUSED
    assert bed.counters.events["shed"] == 1
    bed.answer()
    assert [len(bed.got[n]) for n in range(3)] == [1, 1, 1]
    assert block.MOST_WAITERS >= 500


def test_rfc6840_section_5_8_ad_goes_only_to_those_who_want_it() -> None:
    bed = Bed()
    bed.ask(query())
    bed.answer(response(key(), [a()], flags=0x81A0))
    assert not bed.last().flags & dns.flags.AD
    assert not bed.ask_now(query()).flags & dns.flags.AD
    assert bed.ask_now(query(flags=0x0120)).flags & dns.flags.AD
    bed.ask(query(edns=opt(do=True)))
    bed.answer(response(key(bits=5), [a()], flags=0x81A0))
    assert bed.last().flags & dns.flags.AD


def test_reply_has_opt_if_and_only_if_the_query_has() -> None:
    bed = Bed()
    bed.ask(query(edns=EDNS))
    bed.answer(response(key(), [a()], [], [opt(4096)]))
    assert bed.last().edns == 0
    assert bed.ask_now(query()).edns == -1
    assert bed.ask_now(query(edns=EDNS)).payload == 1232


def test_large_answer_is_truncated_over_udp_and_whole_over_tcp() -> None:
    bed = Bed()
    bed.ask(query(), "tcp", tcp=True)
    bed.answer(big(key()))
    assert len(bed.last("tcp").answer[0]) == 100
    reply = bed.ask_now(query())
    assert reply.flags & dns.flags.TC
    assert len(reply.answer[0]) == 29  # 33 octets of header and question, 16 for each
    assert len(bed.ask_now(query(edns=opt(4096))).answer[0]) == 100
    assert len(bed.ask_now(query(), tcp=True).answer[0]) == 100


def test_truncated_reply_is_the_same_from_both_caches_and_for_who_waited() -> None:
    bed = Bed()
    asked = query(edns=opt(700))
    bed.ask(asked, "waited")
    bed.answer(big(key()))
    hit = bed.ask(asked)
    packet = bed.packets.fresh[asked[2:]]
    assert bed.got["waited"] == [hit] == [asked[:2] + packet.reply]
    bed.wait(10.0)
    bed.packets.turn(bed.now)
    revived = bed.packets.revive(asked[2:], bed.now)
    assert revived is not None
    reply = dns.message.from_wire(asked[:2] + revived.reply)
    assert (len(reply.answer[0]), reply.answer[0].ttl) == (41, 20)


@pytest.mark.parametrize(
    ("answer", "authority", "additional", "do", "kept", "is_truncated"),
    [
        (5, 1, 60, False, (5, 1, 0), False),
        (5, 60, 1, False, (5, 0, 0), False),
        (5, 60, 1, True, (5, 0, 0), True),
        (5, 1, 60, True, (5, 1, 0), False),
        (0, 60, 0, False, (0, 0, 0), False),
        (0, 60, 0, True, (0, 0, 0), True),
        (60, 1, 1, False, (41, 0, 0), True),
    ],
)
def test_what_does_not_fit_is_left_out_of_both_caches_and_of_what_waited_alike(
    answer: int,
    authority: int,
    additional: int,
    do: bool,
    kept: tuple[int, int, int],
    is_truncated: bool,
) -> None:
    bed = Bed()
    asked = query(edns=opt(700, do=do))
    denial = [soa(), *[a()] * (authority - 1)] if authority else []
    bed.ask(asked, "waited")
    asked_key = key(bits=5 if do else 1)
    bed.answer(response(asked_key, [a()] * answer, denial, [a()] * additional))
    hit = bed.ask(asked)
    packet = bed.packets.fresh[asked[2:]]
    assert bed.got["waited"] == [hit] == [asked[:2] + packet.reply]
    reply = bed.last("waited")
    counts = struct.unpack("!3H", bed.got["waited"][0][6:12])
    assert (counts[0], counts[1], counts[2] - 1) == kept
    assert bool(reply.flags & dns.flags.TC) == is_truncated
    whole = bed.ask_now(asked, tcp=True)
    assert not whole.flags & dns.flags.TC


def test_reply_longer_than_a_datagram_is_truncated_whatever_the_client_says() -> None:
    bed = Bed()
    asked = query(qtype=TXT, edns=opt(65535))
    bed.ask(asked, "udp")
    bed.ask(asked, "tcp", tcp=True)
    text = record(TXT, 30, (b"\xff" + bytes(255)) * 255)
    bed.answer(response(key(qtype=TXT), [text, *[a()] * 11]))
    assert 65507 < len(bed.got["tcp"][0]) <= 65535
    assert bed.last("udp").flags & dns.flags.TC


def test_mixed_case_and_personal_questions_are_not_admitted_to_the_packet_cache() -> None:
    bed = Bed()
    bed.ask(query())
    bed.answer()
    cookie = opt(options=b"\0\x0a\0\x08testtest")
    subnet = opt(options=b"\0\x08\0\x07\0\1\x18\0\x0a\0\0")
    for octets in (query("A.cluster.local"), query(edns=cookie), query(edns=subnet)):
        bed.ask_now(octets)
    assert len(bed.packets) == 0


def test_first_hit_admits_a_question_to_the_packet_cache_but_tcp_and_failures_do_not() -> None:
    bed = Bed()
    bed.ask(query())
    bed.answer()
    assert len(bed.packets) == 0
    bed.ask_now(query(), tcp=True)
    assert len(bed.packets) == 0
    reply = bed.ask(query(ident=9))
    packet = bed.packets.fresh[query()[2:]]
    assert b"\0\x09" + packet.reply == reply


def test_block_without_cache_passes_ttls_unchanged_and_asks_each_time() -> None:
    bed = Bed(policy=None)
    for _ in range(2):
        bed.ask(query())
        bed.answer(response(key(), [cname(99_999, "a.cluster.local"), a(7)]))
        assert shown_ttls(bed.last()) == [99_999, 7]
    assert bed.exchanges == 2
    assert bed.caches.requests == 0


def test_names_outside_the_cache_zones_are_not_kept() -> None:
    bed = Bed(policy=replace(CachePolicy(), zones=(CLUSTER_DOMAIN,)))
    for host in ("x.cluster.local", "x.example"):
        bed.ask(query(host))
        bed.answer(response(key(host), [a(99_999)]))
    assert bed.ask(query("x.cluster.local"))
    assert bed.ask(query("x.example")) is None
    assert bed.caches.requests == 2


def test_name_outside_every_zone_is_refused() -> None:
    bed = Bed(zones=(CLUSTER_DOMAIN,))
    assert bed.ask_now(query("x.example")).rcode() == dns.rcode.REFUSED
    assert bed.exchanges == 0
    assert bed.unserved.requests == {1: 1}
    assert bed.unserved.responses == {(5, ""): 1}


def test_nxdomain_answers_every_type_of_a_cluster_name() -> None:
    bed = Bed()
    bed.ask(query("no.cluster.local", A))
    bed.answer(response(key("no.cluster.local"), [], [soa()], rcode=3))
    reply = bed.ask_now(query("no.cluster.local", AAAA))
    assert reply.rcode() == dns.rcode.NXDOMAIN
    assert reply.question[0].rdtype == AAAA
    bed.ask_now(query("no.cluster.local", TXT))
    assert bed.exchanges == 1
    assert bed.caches.denial_hits == 2


OUTCOMES = st.one_of(
    st.sampled_from(list(Failure)), responses().map(lambda made: made.octets[12:]), st.binary()
)


@settings(max_examples=150)
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=40),
            mutated(queries().map(lambda made: made.octets)),
            queries().map(lambda made: made.octets),
            st.sampled_from([query(), query(edns=EDNS), query(qtype=AAAA), query(flags=0)]),
        ),
        max_size=12,
    ),
    st.lists(st.tuples(OUTCOMES, st.integers(0, 5)), max_size=30),
    st.integers(1, 4),
    st.booleans(),
)
def test_every_query_gets_one_reply_or_a_counted_drop(
    asked: list[bytes],
    outcomes: list[tuple[bytes | Failure, int]],
    most_pending: int,
    is_cached: bool,
) -> None:
    bed = Bed(policy=CachePolicy() if is_cached else None, most_pending=most_pending)
    dropped = set()
    for client, octets in enumerate(asked):
        if bed.ask(octets, client, tcp=client % 3 == 0) == b"":
            dropped.add(client)
        if client % 2:
            end_first_exchange(bed, outcomes)
    while bed.forwarder.under_way:
        end_first_exchange(bed, outcomes)
    assert sum(bed.counters.drops.values()) == len(dropped)
    for client, octets in enumerate(asked):
        replies = bed.got.get(client, [])
        assert len(replies) == (client not in dropped)
        assert all(reply[:2] == octets[:2] and reply[2] & 0x80 for reply in replies)
    assert bed.resolver.pending_count == len(bed.state.pending) == 0
    answered = sum(bed.series.responses.values()) + sum(bed.unserved.responses.values())
    assert answered == len(asked) - len(dropped)
    assert answered == sum(bed.series.requests.values()) + sum(bed.unserved.requests.values())


def end_first_exchange(bed: Bed, outcomes: list[tuple[bytes | Failure, int]]) -> None:
    """Ends it, if there is one, with a failure or with octets behind a sound question."""
    if bed.forwarder.under_way:
        result, rcode = outcomes.pop() if outcomes else (Failure.TIMED_OUT, 0)
        if isinstance(result, bytes):
            result = response(bed.forwarder.under_way[0].key, [result], rcode=rcode)
        bed.answer(result)
