from __future__ import annotations

from dataclasses import replace

import dns.flags
import dns.message
import dns.rcode
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodecache.config.model import CLUSTER_DOMAIN, ROOT, CachePolicy, ForwardPolicy
from nodecache.engine import block
from nodecache.engine.exchange import Failure
from tests.cache.building import AAAA, TXT, A, a, cname, key, opt, query, record, response, soa
from tests.engine.resolving import UPSTREAMS, Bed, extended_errors, shown_ttls, zone
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
    monkeypatch.setattr("nodecache.engine.resolver.MOST_WAITERS", 3)
    bed = Bed()
    for n in range(3):
        assert bed.ask(query(), n) is None
    assert bed.ask_now(query()).rcode() == dns.rcode.REFUSED
    assert bed.counters.events["shed"] == 1
    bed.answer()
    assert [len(bed.got[n]) for n in range(3)] == [1, 1, 1]
    assert block.MOST_WAITERS >= 500


def test_misses_beyond_most_pending_are_refused_and_counted_while_hits_are_served() -> None:
    bed = Bed(most_pending=2)
    bed.ask(query())
    bed.answer()
    for host in ("b", "c"):
        bed.ask(query(host))
    assert bed.ask_now(query("d")).rcode() == dns.rcode.REFUSED
    assert bed.counters.events["shed"] == 1
    assert bed.ask_now(query()).rcode() == dns.rcode.NOERROR
    bed.answer()
    assert bed.ask(query("d")) is None


def test_misses_beyond_max_concurrent_are_refused_and_counted() -> None:
    bed = Bed(forwards=(ForwardPolicy(ROOT, UPSTREAMS, max_concurrent=1),))
    bed.ask(query("b"))
    assert bed.ask_now(query("c")).rcode() == dns.rcode.REFUSED
    assert bed.counters.max_concurrent_rejects == 1
    assert bed.ask(query("b"), "joins") is None


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


@pytest.mark.parametrize(
    "forwards",
    [
        (),
        (ForwardPolicy(CLUSTER_DOMAIN, UPSTREAMS),),
        (ForwardPolicy(ROOT, UPSTREAMS, except_zones=(zone("example."),)),),
    ],
    ids=["no forward", "outside origin", "except"],
)
def test_name_that_no_forward_takes_is_refused(forwards: tuple[ForwardPolicy, ...]) -> None:
    bed = Bed(forwards=forwards)
    assert bed.ask_now(query("x.example")).rcode() == dns.rcode.REFUSED
    assert bed.exchanges == 0
    assert bed.resolver.pending_count == 0


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
    assert [error.text for error in bed.resolver.errors] == [failure.value]


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


def test_failures_noted_for_the_log_are_bounded() -> None:
    bed = Bed()
    bed.forwarder.instantly = Failure.UNREACHABLE
    for n in range(300):
        bed.ask(query(f"n{n}"))
    assert len(bed.resolver.errors) == 256
    assert bed.counters.events["upstream_failures"] == 300


@pytest.mark.parametrize("cut", range(1, 40))
def test_a_malformed_response_is_refused_and_the_next_one_taken(cut: int) -> None:
    bed = Bed()
    bed.ask(query())
    octets = response(key(), [a(), a()])
    bed.answer(octets[:-cut] if cut < 32 else octets + bytes(cut))
    assert not bed.resolver.replies
    assert bed.resolver.pending_count == 1
    bed.answer(octets)
    assert len(bed.last().answer) == 1
    assert bed.resolver.pending_count == 0


def test_truncated_response_is_truncated_for_the_client_over_tcp_too() -> None:
    bed = Bed()
    bed.ask(query(), "udp")
    bed.ask(query(), "tcp", tcp=True)
    bed.answer(response(key(), [a()], flags=0x8380))
    for client in ("udp", "tcp"):
        assert bed.last(client).flags & dns.flags.TC
        assert not bed.last(client).answer
    assert bed.ask(query()) is None


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
