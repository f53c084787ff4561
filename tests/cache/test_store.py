from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from nodecache.cache.distrust import Distrust
from nodecache.cache.lifetime import Kind
from nodecache.cache.message import Message
from nodecache.cache.store import Budget, MessageCache
from nodecache.config.model import CLUSTER_DOMAIN, CachePolicy, Lifetime
from tests.cache.building import (
    AAAA,
    NOW,
    TXT,
    A,
    budgeted_octets,
    cache,
    denial,
    key,
    message,
)
from tests.reference.naive_cache import NaiveCache, NaiveSegments

KEYS = [
    key(f"{host}.cluster.local", qtype, bits)
    for host in ("a", "b", "c.b")
    for qtype in (A, AAAA)
    for bits in (1, 5)
]
KEPT = st.sampled_from([Kind.SUCCESS, Kind.NODATA, Kind.NXDOMAIN, Kind.FAILURE])


def policy(success: int = 9984, denial: int = 9984) -> CachePolicy:
    return CachePolicy(success=Lifetime(success, 3600), denial=Lifetime(denial, 1800))


class Twins(RuleBasedStateMachine):
    """Two server blocks on one budget, the second with NXDOMAIN cuts, and their naive twins."""

    @initialize(
        capacities=st.tuples(*[st.integers(1, 12)] * 4),
        limit=st.one_of(st.just(1 << 30), st.integers(1000, 30_000)),
    )
    def build(self, capacities: tuple[int, int, int, int], limit: int) -> None:
        self.now = NOW
        self.count = 0
        self.budget = Budget(limit)
        self.real: list[MessageCache] = []
        self.naive: list[NaiveCache] = []
        for positive, negative in (capacities[:2], capacities[2:]):
            cuts = bool(self.real)
            rules = replace(policy(positive, negative), nxdomain_cut=(CLUSTER_DOMAIN,) * cuts)
            self.real.append(MessageCache(rules, self.budget, CLUSTER_DOMAIN.wire))
            halves = NaiveSegments(positive), NaiveSegments(negative)
            self.naive.append(NaiveCache(self.naive, limit, *halves, cuts))

    def make(
        self,
        for_key: bytes,
        kind: Kind,
        ttl_s: int,
        stale_s: int,
        octets: int,
        has_soa: bool = False,
    ) -> Message:
        # No two messages of the same moment, so that the order of expiry is one.
        self.count += 1
        stored_at = self.now + self.count * 1e-6
        made = message(for_key, stored_at, kind, float(ttl_s), octets)
        if has_soa and kind in (Kind.NXDOMAIN, Kind.NODATA):
            made = denial(for_key, stored_at, kind, float(ttl_s))
        made.keep_until += stale_s
        return made

    @rule(
        block=st.integers(0, 1),
        for_key=st.sampled_from(KEYS),
        kind=KEPT,
        covers=st.booleans(),
        ttl_s=st.integers(1, 60),
        stale_s=st.sampled_from([0, 0, 5, 100]),
        octets=st.sampled_from([12, 12, 400, 9000]),
        has_soa=st.booleans(),
    )
    def admit(
        self,
        block: int,
        for_key: bytes,
        kind: Kind,
        covers: bool,
        ttl_s: int,
        stale_s: int,
        octets: int,
        has_soa: bool,
    ) -> None:
        made = self.make(for_key, kind, ttl_s, stale_s, octets, has_soa)
        is_plain = kind is Kind.NXDOMAIN and not made.counts[0]
        made.covers_all_types = covers and is_plain and not self.naive[block].is_doubted
        self.naive[block].admit(made, self.now)
        is_kept = self.real[block].admit(made, self.now)
        assert is_kept == (made in self.naive[block].all())

    @rule(block=st.integers(0, 1), count=st.integers(1, 15), kind=KEPT)
    def flood(self, block: int, count: int, kind: Kind) -> None:
        for _ in range(count):
            made = self.make(key(f"once{self.count}.cluster.local"), kind, 30, 0, 12)
            self.naive[block].admit(made, self.now)
            self.real[block].admit(made, self.now)

    @rule(block=st.integers(0, 1), for_key=st.sampled_from(KEYS))
    def look_up(self, block: int, for_key: bytes) -> None:
        found = self.real[block].find(for_key, self.now)
        assert found is self.naive[block].find(for_key, self.now)
        if found is not None and found.expires_at > self.now:
            assert found.partition is not None
            found.partition.touch(found)
            self.naive[block].hit(found)

    @rule(seconds=st.floats(0.01, 40))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def trust_again(self) -> None:
        """As another process would, so that covering is tried again, too."""
        self.budget.distrust = Distrust()
        for naive in self.naive:
            naive.is_doubted = False

    @rule()
    def expire(self) -> None:
        before = sum(len(block) for block in self.real)
        met = self.budget.expire(self.now)
        self.naive[0].expire(self.now)
        assert sum(len(block) for block in self.real) >= before - met

    @invariant()
    def both_keep_the_same(self) -> None:
        for real, naive in zip(self.real, self.naive, strict=True):
            assert len(real) == len(naive.all())
            for half, segments in ((real.success, naive.success), (real.denial, naive.denial)):
                assert (len(half), half.probation_count, half.octets) == (
                    len(segments.all()),
                    len(segments.probation),
                    segments.octets(),
                ), repr(half)
                assert len(half) <= half.capacity
                assert len(half) - half.probation_count <= half.capacity * 0.8
            for kept in naive.all():
                assert real.peek(kept.key) is kept
                assert kept.is_protected == (kept in naive.segments_of(kept).protected)

    @invariant()
    def nothing_covers_once_one_was_contradicted(self) -> None:
        for real, naive in zip(self.real, self.naive, strict=True):
            assert self.budget.distrust.includes(KEYS[0][:-5]) == naive.is_doubted
            if naive.is_doubted:
                assert not any(kept.covers_all_types for kept in naive.all())
                assert not real._nxdomains
                assert not real._nxdomain_cuts

    @invariant()
    def octets_are_counted_and_bounded(self) -> None:
        kept = [m for naive in self.naive for m in naive.all()]
        assert self.budget.octets == budgeted_octets(kept) <= self.budget.limit_octets


Twins.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
TestTwins = Twins.TestCase


def admit(store: MessageCache, *messages: Message, now: float = NOW) -> None:
    for each in messages:
        store.admit(each, now)


def nxdomain(for_key: bytes, covers: bool = True, ttl_s: float = 30.0) -> Message:
    made = denial(for_key, ttl_s=ttl_s)
    made.covers_all_types = covers
    return made


def test_hot_names_survive_a_flood_of_one_off_names() -> None:
    store = cache(policy(success=100))
    hot = [message(key(f"hot{n}.example")) for n in range(50)]
    admit(store, *hot)
    for each in hot:
        store.success.touch(each)
    admit(store, *[message(key(f"once{n}.example")) for n in range(1000)])
    assert all(store.find(each.key, NOW) is each for each in hot)
    assert len(store.success) == 100
    assert store.success.evictions == 950


def test_hot_names_survive_a_flood_under_the_octet_budget() -> None:
    hot = [message(key(f"hot{n}.example")) for n in range(50)]
    store = cache(octets=100 * hot[0].size_octets)
    admit(store, *hot)
    for each in hot:
        store.success.touch(each)
    admit(store, *[message(key(f"once{n}.example"), kind=Kind.NXDOMAIN) for n in range(1000)])
    assert all(store.find(each.key, NOW) is each for each in hot)


def test_refresh_does_not_cost_a_hot_name_its_safety() -> None:
    store = cache(policy(success=10))
    admit(store, message(key()))
    store.success.touch(message_of(store, key()))
    admit(store, message(key(), ttl_s=60.0), *[message(key(f"once{n}.example")) for n in range(99)])
    assert message_of(store, key()).ttl_s == 60


def message_of(store: MessageCache, for_key: bytes) -> Message:
    found = store.peek(for_key)
    assert found is not None
    return found


def test_new_names_can_stay_when_hot_ones_fill_the_budget() -> None:
    hot = [message(key(f"hot{n}.example")) for n in range(10)]
    store = cache(octets=10 * hot[0].size_octets)
    admit(store, *hot)
    for each in hot:
        store.success.touch(each)
    admit(store, message(key("new.example")))
    assert store.peek(key("new.example")) is not None
    assert store.peek(key("hot0.example")) is None


def test_capacity_of_one_keeps_the_last_message_even_if_it_is_hit() -> None:
    store = cache(policy(success=1))
    admit(store, message(key("a.example")))
    store.success.touch(message_of(store, key("a.example")))
    admit(store, message(key("b.example")))
    assert repr(store.success).startswith("1 on probation, 0 protected, ")
    assert store.peek(key("b.example")) is not None


def test_message_larger_than_the_budget_is_not_kept() -> None:
    store = cache(octets=2000)
    assert not store.admit(message(key(), octets=3000), NOW)
    assert len(store) == 0


def test_expired_message_goes_before_an_unused_valid_one() -> None:
    store = cache(policy(success=2))
    admit(store, message(key("valid.example"), ttl_s=100))
    expired = message(key("expired.example"), ttl_s=1)
    admit(store, expired)
    store.success.touch(expired)
    admit(store, message(key("new.example"), NOW + 5), now=NOW + 5)
    assert store.peek(key("valid.example")) is not None
    assert store.peek(key("expired.example")) is None
    assert store.success.evictions == 0


def test_one_call_of_expire_takes_a_bounded_number() -> None:
    store, budget = cache_with_budget()
    admit(store, *[message(key(f"n{n}.example"), ttl_s=1) for n in range(600)])
    assert [budget.expire(NOW + 2) for _ in range(4)] == [250, 250, 100, 0]


def test_stale_message_stays_until_its_time_is_over() -> None:
    store, budget = cache_with_budget()
    stale = message(key(), ttl_s=1)
    stale.keep_until += 10
    admit(store, stale)
    budget.expire(NOW + 5)
    assert store.find(key(), NOW + 5) is stale
    budget.expire(NOW + 12)
    assert store.find(key(), NOW + 12) is None


def test_names_that_are_replaced_again_and_again_leave_no_trace() -> None:
    store, budget = cache_with_budget()
    now = NOW
    for _ in range(20_000):
        now += 2
        again = message(key(), now, ttl_s=1)
        again.keep_until += 3600
        admit(store, again, now=now)
        budget.expire(now + 1.5)
    assert len(store) == 1
    assert budget.watched_count == 1


def cache_with_budget() -> tuple[MessageCache, Budget]:
    budget = Budget(1 << 30)
    return MessageCache(policy(), budget, CLUSTER_DOMAIN.wire), budget


def test_nxdomain_that_covers_all_types_answers_them_but_no_other_name_class_or_flag() -> None:
    store = cache()
    covering = nxdomain(key(qtype=A))
    admit(store, covering)
    assert store.find(key(qtype=AAAA), NOW) is covering
    assert store.find(key(qtype=AAAA, bits=5), NOW) is None
    assert store.find(key(qtype=AAAA, qclass=3), NOW) is None
    assert store.find(key("b.a.cluster.local", AAAA), NOW) is None
    assert store.find(key(qtype=AAAA), NOW + 30) is None


def test_nxdomain_that_does_not_cover_answers_its_own_type_only() -> None:
    store = cache()
    admit(store, nxdomain(key(qtype=A), covers=False))
    assert store.find(key(qtype=AAAA), NOW) is None


@pytest.mark.parametrize("kind", [Kind.SUCCESS, Kind.NODATA])
@pytest.mark.parametrize("is_first", [True, False])
def test_contradicted_nxdomain_covers_no_more_in_its_whole_zone(
    kind: Kind, *, is_first: bool
) -> None:
    store = cache()
    other = nxdomain(key("other.cluster.local"))
    pair = [nxdomain(key(qtype=A)), message(key(qtype=AAAA), kind=kind)]
    admit(store, other, *(reversed(pair) if is_first else pair))
    assert store.find(key(qtype=AAAA), NOW) is pair[1]
    assert store.find(key(qtype=TXT), NOW) is None
    assert store.find(key("other.cluster.local", TXT), NOW) is None
    assert store.find(other.key, NOW) is other, "its own type it still answers"
    assert not store.covers_all_types(key("later.cluster.local"))
    assert store.find(key(qtype=A), NOW) is (pair[0] if is_first else None)


def test_other_blocks_on_the_same_budget_distrust_the_zone_too() -> None:
    budget = Budget(1 << 20)
    stores = [MessageCache(policy(), budget, CLUSTER_DOMAIN.wire) for _ in range(2)]
    other = nxdomain(key("other.cluster.local"))
    admit(stores[0], other)
    admit(stores[1], nxdomain(key(qtype=A)), message(key(qtype=AAAA)))
    assert stores[0].find(key("other.cluster.local", TXT), NOW) is None
    assert stores[0].find(other.key, NOW) is other


def test_what_came_later_than_an_expired_nxdomain_contradicts_nothing() -> None:
    store = cache()
    admit(store, nxdomain(key(qtype=A), ttl_s=5.0))
    admit(store, message(key(qtype=AAAA), NOW + 6), now=NOW + 6)
    admit(store, nxdomain(key("gone.cluster.local")), now=NOW + 6)
    admit(store, message(key("gone.cluster.local"), NOW + 7), now=NOW + 7)  # it has come to be
    assert store.covers_all_types(key())


def test_nxdomain_for_another_type_than_a_covers_nothing_and_ends_nothing() -> None:
    store = cache()
    assert [store.covers_all_types(key(qtype=qtype)) for qtype in (A, AAAA, TXT)] == [
        True,
        False,
        False,
    ]
    covering = nxdomain(key(qtype=A))
    admit(store, covering, nxdomain(key(qtype=AAAA), covers=False))
    assert store.find(key(qtype=TXT), NOW) is covering
    assert store.find(key(qtype=A), NOW) is covering


def test_without_a_zone_nothing_covers() -> None:
    store = MessageCache(policy(), Budget(1 << 20), None)
    assert not store.covers_all_types(key())


@pytest.mark.parametrize("kind", [Kind.SUCCESS, Kind.NODATA])
def test_proof_that_the_name_exists_ends_a_covering_nxdomain(kind: Kind) -> None:
    store = cache()
    admit(store, nxdomain(key(qtype=A)), message(key(qtype=TXT), kind=kind))
    assert store.find(key(qtype=A), NOW) is None
    assert store.find(key(qtype=AAAA), NOW) is None


def test_positive_answer_ends_all_of_several_covering_nxdomains() -> None:
    store = cache()
    admit(store, nxdomain(key(qtype=A)), nxdomain(key(qtype=AAAA)), message(key(qtype=TXT)))
    assert store.find(key(qtype=A), NOW) is None
    assert store.find(key(qtype=AAAA), NOW) is None


def test_failure_does_not_end_or_hide_a_covering_nxdomain() -> None:
    store = cache()
    covering = nxdomain(key(qtype=A))
    admit(store, covering, message(key(qtype=AAAA), kind=Kind.FAILURE))
    assert store.find(key(qtype=AAAA), NOW) is covering
    assert store.find(key(qtype=A), NOW) is covering


def test_negative_messages_with_equal_records_hold_them_once() -> None:
    store = cache()
    made = [denial(key(f"no{n}.cluster.local")) for n in range(5)]
    made.append(denial(key("no9.cluster.local"), kind=Kind.NODATA))
    admit(store, *made)
    assert len({id(each.pieces) for each in made}) == 1
    budget = store._budget
    assert len(budget.shared_records) == 1
    assert budget.octets == budgeted_octets(made)
    for each in made[:-1]:
        store.remove(each)
    assert budget.octets == budgeted_octets(made[-1:])
    store.remove(made[-1])
    assert (budget.octets, len(budget.shared_records)) == (0, 0)


def test_records_that_all_differ_are_bounded_by_the_budget_like_the_rest() -> None:
    store = cache(octets=20_000)
    for n in range(200):
        made = denial(key(f"no{n}.cluster.local"))
        made.replace_records((made.pieces[0], n.to_bytes(22, "big")))
        store.admit(made, NOW)
    assert 0 < len(store) == len(store._budget.shared_records)
    assert store._budget.octets == budgeted_octets(store.all_messages()) <= 20_000


def test_message_whose_records_nobody_has_needs_room_for_them() -> None:
    first, second = denial(key("a.cluster.local")), denial(key("b.cluster.local"))
    odd = denial(key("c.cluster.local"))
    odd.replace_records((odd.pieces[0], bytes(22)))
    store = cache(octets=budgeted_octets([first, second]))
    store.admit(first, NOW)
    assert store.has_room(second)
    assert not store.has_room(odd)


def test_failure_never_replaces_a_message_that_may_be_served() -> None:
    store = cache()
    good = message(key(), ttl_s=10)
    good.keep_until += 10
    admit(store, good)
    assert not store.admit(message(key(), NOW + 15, Kind.FAILURE), NOW + 15)
    assert store.find(key(), NOW + 15) is good
    assert store.admit(message(key(), NOW + 21, Kind.FAILURE), NOW + 21)


def test_good_answer_replaces_a_failure() -> None:
    store = cache()
    good = message(key())
    admit(store, message(key(), kind=Kind.FAILURE), good)
    assert store.find(key(), NOW) is good
    assert len(store) == 1
