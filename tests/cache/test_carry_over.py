from __future__ import annotations

from nodecache.cache.carry_over import CarryOver
from nodecache.cache.lifetime import Kind
from nodecache.cache.message import Message
from nodecache.cache.store import Budget, MessageCache
from nodecache.config.model import CLUSTER_DOMAIN, CachePolicy, Lifetime, Name, ServeStale
from tests.cache.building import AAAA, NOW, denial, key, message, name


class Pair:
    """The cache of a block before and after a reload, on one budget."""

    def __init__(self, policy: CachePolicy, old_policy: CachePolicy | None = None) -> None:
        self.budget = Budget(1 << 20)
        self.old = MessageCache(old_policy or CachePolicy(), self.budget, CLUSTER_DOMAIN.wire)
        self.new = MessageCache(policy, self.budget, CLUSTER_DOMAIN.wire)

    def carry(self, *messages: Message, now: float = NOW) -> None:
        for each in messages:
            self.old.admit(each, NOW)
        self.begin(now)
        while self.way.step(now):
            pass

    def begin(self, now: float = NOW) -> None:
        self.way = CarryOver(
            self.old, self.new, now, lambda for_key: not for_key.startswith(name("no")[:3])
        )


def test_messages_move_with_their_lifetime() -> None:
    pair = Pair(CachePolicy())
    kept = message(key(), ttl_s=30.0)
    pair.carry(kept, now=NOW + 10)
    assert pair.new.find(key(), NOW + 10) is kept
    assert kept.remaining_ttl(NOW + 10) == 20
    assert len(pair.old) == 0


def test_lifetime_is_cut_to_a_smaller_cap() -> None:
    pair = Pair(CachePolicy(success=Lifetime(100, 15)))
    kept = message(key(), ttl_s=30.0)
    pair.carry(kept, now=NOW + 10)
    assert kept.remaining_ttl(NOW + 10) == 5


def test_message_older_than_the_new_cap_is_not_served() -> None:
    pair = Pair(CachePolicy(success=Lifetime(100, 5)))
    pair.carry(message(key(), ttl_s=30.0), now=NOW + 10)
    assert pair.new.find(key(), NOW + 10) is None


def test_larger_cap_lengthens_nothing() -> None:
    pair = Pair(CachePolicy(success=Lifetime(100, 7200)))
    kept = message(key(), ttl_s=30.0)
    pair.carry(kept)
    assert kept.remaining_ttl(NOW) == 30


def test_expired_message_stays_only_while_it_may_be_served_stale() -> None:
    stale = Pair(CachePolicy(serve_stale=ServeStale(60.0)))
    stale.carry(message(key(), ttl_s=5.0), now=NOW + 10)
    assert stale.new.peek(key()) is not None
    fresh_only = Pair(CachePolicy())
    fresh_only.carry(message(key(), ttl_s=5.0), now=NOW + 10)
    assert fresh_only.new.peek(key()) is None


def test_what_does_not_hold_any_more_is_left() -> None:
    pair = Pair(CachePolicy())
    pair.carry(message(key("no.cluster.local")), message(key("yes.cluster.local")))
    assert pair.new.peek(key("no.cluster.local")) is None
    assert pair.new.peek(key("yes.cluster.local")) is not None


def test_failures_are_left() -> None:
    pair = Pair(CachePolicy())
    pair.carry(message(key(), kind=Kind.FAILURE))
    assert len(pair.new) == 0


def test_names_whose_caching_was_turned_off_are_left() -> None:
    zone = Name("b.local.", name("b.local"))
    pair = Pair(
        CachePolicy(disable_success=(zone,), zones=(zone, Name("a.local.", name("a.local"))))
    )
    pair.carry(*(message(key(text)) for text in ("x.a.local", "x.b.local", "x.c.local")))
    assert [
        pair.new.peek(key(text)) is not None for text in ("x.a.local", "x.b.local", "x.c.local")
    ] == [
        True,
        False,
        False,
    ]


def test_hot_messages_stay_protected_and_budget_counts_each_once() -> None:
    pair = Pair(CachePolicy())
    hot, cold = message(key("hot.cluster.local")), message(key("cold.cluster.local"))
    pair.old.admit(hot, NOW)
    assert hot.partition is not None
    hot.partition.touch(hot)
    pair.carry(cold)
    assert (hot.is_protected, cold.is_protected) == (True, False)
    assert pair.budget.octets == hot.size_octets + cold.size_octets
    assert pair.budget.partitions == [pair.new.success, pair.new.denial]


def test_smaller_capacity_holds_at_once() -> None:
    pair = Pair(CachePolicy(success=Lifetime(2, 3600)))
    pair.carry(*(message(key(f"{n}.cluster.local")) for n in range(5)))
    assert len(pair.new) == 2


def test_what_is_asked_for_comes_before_its_turn() -> None:
    pair = Pair(CachePolicy(success=Lifetime(9984, 15)))
    names = [f"{n}.cluster.local" for n in range(200)]
    for text in names:
        pair.old.admit(message(key(text), ttl_s=30.0), NOW)
    pair.begin()
    found = pair.new.find(key(names[150]), NOW)
    assert found is not None
    assert found.remaining_ttl(NOW) == 15
    assert (len(pair.old), len(pair.new)) == (199, 1)
    assert pair.way.step(NOW)
    assert 100 < len(pair.old) < 199
    while pair.way.step(NOW):
        pass
    assert (len(pair.old), len(pair.new)) == (0, 200)
    assert pair.budget.partitions == [pair.new.success, pair.new.denial]


def test_newer_answer_is_not_replaced_by_what_is_still_on_its_way() -> None:
    pair = Pair(CachePolicy())
    pair.old.admit(message(key(), ttl_s=30.0), NOW)
    pair.begin()
    newer = message(key(), ttl_s=20.0)
    pair.new.admit(newer, NOW)
    while pair.way.step(NOW):
        pass
    assert pair.new.find(key(), NOW) is newer
    assert pair.budget.octets == newer.size_octets


def test_failure_does_not_hide_a_good_answer_that_is_still_on_its_way() -> None:
    pair = Pair(CachePolicy())
    good = message(key(), ttl_s=30.0)
    pair.old.admit(good, NOW)
    pair.begin()
    assert not pair.new.admit(message(key(), kind=Kind.FAILURE, ttl_s=5.0), NOW)
    assert pair.new.find(key(), NOW) is good


def test_denial_of_all_types_answers_another_type_while_it_is_on_its_way() -> None:
    pair = Pair(CachePolicy())
    denied = denial(key())
    denied.covers_all_types = True
    pair.old.admit(denied, NOW)
    pair.begin()
    assert pair.new.find(key(qtype=AAAA), NOW) is denied


def test_answer_ends_a_cut_above_it_that_is_still_on_its_way() -> None:
    zone = Name("cluster.local.", name("cluster.local"))
    pair = Pair(CachePolicy(nxdomain_cut=(zone,)))
    cut = denial(key("gone.cluster.local"))
    cut.covers_all_types = True
    pair.old.admit(cut, NOW)
    pair.begin()
    pair.new.admit(message(key("is.gone.cluster.local")), NOW)
    while pair.way.step(NOW):
        pass
    assert pair.new.find(key("other.gone.cluster.local"), NOW) is None


def test_change_upon_change_brings_a_message_all_the_way() -> None:
    pair = Pair(CachePolicy(success=Lifetime(9984, 15)))
    pair.old.admit(message(key(), ttl_s=30.0), NOW)
    pair.begin()
    third = MessageCache(CachePolicy(success=Lifetime(9984, 20)), pair.budget, None)
    CarryOver(pair.new, third, NOW, lambda _: True)
    found = third.find(key(), NOW)
    assert found is not None
    assert found.remaining_ttl(NOW) == 15


def test_evictions_go_on_counting() -> None:
    pair = Pair(CachePolicy())
    pair.old.success.evictions = 7
    pair.carry()
    assert pair.new.success.evictions == 7
