from __future__ import annotations

from nodecache.cache.carry_over import carry_over
from nodecache.cache.lifetime import Kind
from nodecache.cache.message import Message
from nodecache.cache.store import Budget, MessageCache
from nodecache.config.model import CLUSTER_DOMAIN, CachePolicy, Lifetime, Name, ServeStale
from tests.cache.building import NOW, key, message, name


class Pair:
    """The cache of a block before and after a reload, on one budget."""

    def __init__(self, policy: CachePolicy, old_policy: CachePolicy | None = None) -> None:
        self.budget = Budget(1 << 20)
        self.old = MessageCache(old_policy or CachePolicy(), self.budget, CLUSTER_DOMAIN.wire)
        self.new = MessageCache(policy, self.budget, CLUSTER_DOMAIN.wire)

    def carry(self, *messages: Message, now: float = NOW) -> None:
        for each in messages:
            self.old.admit(each, NOW)
        carry_over(self.old, self.new, now, lambda for_key: not for_key.startswith(name("no")[:3]))


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


def test_evictions_go_on_counting() -> None:
    pair = Pair(CachePolicy())
    pair.old.success.evictions = 7
    pair.carry()
    assert pair.new.success.evictions == 7
