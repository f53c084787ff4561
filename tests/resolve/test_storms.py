"""Search-path storms: what ndots:5 does to a node, and what of it gets past the cache."""

from __future__ import annotations

from functools import partial

import dns.rcode
import pytest

from nodecache.config.model import CLUSTER_DOMAIN, CachePolicy
from nodecache.limits import CACHE_OCTETS
from nodecache.resolve.block import Pending
from tests.cache.building import AAAA, DS, SOA, A, a, key, name, opt, query, record, response, soa
from tests.resolve.resolving import Bed
from tests.telemetry.test_series import samples_of
from tests.upstreams.passing_time import Node

SEARCH = ("default.svc.cluster.local", "svc.cluster.local", "cluster.local")
HOT = 25
FLOOD = 10  # unique NXDOMAIN names for each hot query
SECONDS = 60
LITTLE_OCTETS = int(CACHE_OCTETS.least * 0.75)  # what messages may take of the smallest cache
GONE, BELOW = "gone.default.svc.cluster.local", "www.gone.default.svc.cluster.local"


def deny(bed: Bed) -> None:
    """Answers everything under way with NXDOMAIN."""
    for exchange in bed.forwarder.under_way:
        octets = response(exchange.key, [], [soa()], rcode=3)
        bed.forwarder.finish(exchange, octets, bed.now)
    bed.collect()


def test_pair_of_questions_asked_one_after_the_other_costs_one_exchange() -> None:
    bed = Bed()
    for suffix in SEARCH:
        for qtype in (A, AAAA):
            bed.ask(query(f"api.example.com.{suffix}", qtype), qtype)
            deny(bed)
            assert bed.last(qtype).rcode() == dns.rcode.NXDOMAIN
    assert bed.exchanges == len(SEARCH)


def test_pair_of_questions_asked_together_costs_two_exchanges_and_then_none() -> None:
    bed = Bed()
    for qtype in (A, AAAA):
        assert bed.ask(query("api.example.com.cluster.local", qtype), qtype) is None
    deny(bed)
    assert bed.exchanges == 2
    for qtype in (A, AAAA):
        assert bed.last(qtype).rcode() == dns.rcode.NXDOMAIN
        assert bed.last(qtype).question[0].rdtype == qtype
        bed.ask_now(query("api.example.com.cluster.local", qtype))
    assert bed.exchanges == 2


def test_second_of_a_pair_is_answered_while_the_first_is_refreshed() -> None:
    bed = Bed()
    bed.ask(query("no.cluster.local", A))
    deny(bed)
    for _ in range(2):
        bed.ask_now(query("no.cluster.local", A))
    bed.wait(29)
    bed.ask_now(query("no.cluster.local", A))
    assert len(bed.forwarder.under_way) == 1
    assert bed.ask_now(query("no.cluster.local", AAAA)).rcode() == dns.rcode.NXDOMAIN
    assert bed.exchanges == 2


@pytest.mark.parametrize("is_negative", [False, True], ids=["existing", "missing"])
def test_hot_names_keep_their_hits_under_ten_unique_nxdomains_each(is_negative: bool) -> None:
    hot = [f"hot{n}.svc.cluster.local" for n in range(HOT)]

    def upstream(pending: Pending, _: float) -> tuple[float, bytes]:
        if pending.key[1:4] == b"hot" and not is_negative:
            return 0.002, response(pending.key, [a(30)])
        return 0.002, response(pending.key, [], [soa()], rcode=3)

    node = Node(upstream)
    assert node.bed.messages is not None
    node.bed.messages._budget.limit_octets = LITTLE_OCTETS
    for n, host in enumerate(hot):
        node.ask_steadily(host, 0.5, SECONDS, n * 0.01)
    for n in range(HOT * FLOOD * SECONDS * 2):
        once = f"once{n}.example.com.default.svc.cluster.local"
        node.at(n * 0.5 / (HOT * FLOOD), partial(node.serve, once, query(once)))
    node.run(SECONDS + 1)
    got = [each for each in node.got if each.name.startswith("hot")]
    missed = [each for each in got if each.waited_s > 0]
    ratio = 1 - len(missed) / len(got)
    print(f"{len(got)} hot queries, {len(node.got) - len(got)} others: {ratio:.2%} hits")
    assert len(node.got) > FLOOD * len(got)
    assert ratio >= 0.99


def cut_bed() -> Bed:
    return Bed(CachePolicy(nxdomain_cut=(CLUSTER_DOMAIN,)))


def test_cut_answers_names_below_without_asking() -> None:
    bed = cut_bed()
    bed.ask(query(GONE))
    deny(bed)
    for qtype in (A, AAAA, DS):
        reply = bed.ask_now(query(BELOW, qtype))
        assert reply.rcode() == dns.rcode.NXDOMAIN
        assert reply.question[0].name.to_text() == BELOW + "."
        assert [rrset.rdtype for rrset in reply.authority] == [SOA]
    assert bed.ask(query(BELOW, edns=opt(do=True))) is None  # another key
    assert bed.exchanges == 2
    assert bed.caches.denial_hits == 3


def test_packet_made_of_a_cut_counts_down_and_leaves_when_a_name_below_exists() -> None:
    bed = cut_bed()
    bed.ask(query(f"x.{BELOW}"), "early")  # under way when the cut comes
    bed.ask(query(GONE))
    bed.answer(response(key(GONE), [], [soa()], rcode=3), index=1)
    bed.ask_now(query(BELOW))
    (packet,) = bed.packets.fresh.values()
    assert packet.reply.endswith(record(SOA, 30, bytes(2) + packet.reply[-20:], origin()))
    bed.now += 1
    bed.packets.turn(bed.now)
    assert bed.packets.revive(packet.key, bed.now) is packet
    assert packet.reply.endswith(record(SOA, 29, bytes(2) + packet.reply[-20:], origin()))
    bed.answer()
    assert len(bed.packets) == 0
    assert bed.ask_now(query(f"x.{BELOW}")).answer
    assert bed.ask(query(BELOW)) is None
    assert bed.ask(query(GONE)) is None


def test_what_is_under_way_when_a_cut_comes_is_not_denied_by_it() -> None:
    bed = cut_bed()
    bed.ask(query(BELOW), "early")
    bed.ask(query(GONE))
    bed.answer(response(key(GONE), [], [soa()], rcode=3), index=1)
    assert bed.ask(query(BELOW), "late") is None
    bed.answer()
    assert bed.last("early").answer == bed.last("late").answer != []


def origin() -> bytes:
    return name("cluster.local")


def test_cut_whose_names_below_are_asked_is_refreshed_ahead() -> None:
    bed = cut_bed()
    bed.ask(query(GONE))
    deny(bed)
    for n in range(3):
        bed.ask_now(query(f"www{n}.{GONE}"))
    bed.wait(28.5)
    assert bed.ask_now(query(BELOW)).rcode() == dns.rcode.NXDOMAIN
    (refresh,) = bed.forwarder.under_way
    assert refresh.key == key(GONE)
    deny(bed)
    bed.wait(20)
    assert bed.ask_now(query(BELOW)).rcode() == dns.rcode.NXDOMAIN


def test_every_nxdomain_sent_counts_once_whoever_made_it() -> None:
    bed = cut_bed()
    series = bed.series
    bed.ask(query(GONE))
    bed.ask(query(GONE), "other")  # coalesced
    deny(bed)
    for _ in range(3):
        bed.ask_now(query(GONE))  # tier 2, then ready packets
    for packet in bed.packets.fresh.values():
        packet.hits += 200
    bed.ask_now(query(BELOW))
    bed.packets.hand_in(bed.now)
    assert sum(series.nxdomains.by_zone.values()) + sum(series.nxdomains.by_suffix.values()) == 206
    sent = sum(n for (rcode, _), n in series.responses.items() if rcode == 3)
    assert sent == 206
    bed.ask(query("yes.cluster.local"))
    bed.answer()
    bed.ask_now(query("yes.cluster.local"))
    assert sum(series.nxdomains.by_zone.values()) + sum(series.nxdomains.by_suffix.values()) == 206
    counters = bed.counters
    counters.nxdomains = series.nxdomains
    shown = {s.labels["suffix"]: s.value for s in samples_of(counters, "nodecache_nxdomain_total")}
    assert shown.keys() == {".", "cluster.local."}
