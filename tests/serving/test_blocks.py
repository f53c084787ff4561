"""Which server block continues which, and what of its cache is still true."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nodecache.config.model import (
    CLUSTER_DOMAIN,
    ROOT,
    Address,
    CachePolicy,
    Config,
    ForwardPolicy,
    HostName,
    Lifetime,
    Name,
    NamedUpstream,
    NxdomainScope,
    ServerBlock,
    Upstream,
)
from nodecache.counters import Counters
from nodecache.directives.hosts.model import HOSTS, HostsTable
from nodecache.resolve.block import Pending
from nodecache.serving.blocks import Blocks
from nodecache.serving.directives import build_before_cache
from tests.cache.building import NOW, key, message, name

FIRST, SECOND, THIRD = (Upstream(Address(f"192.0.2.{n}", 53)) for n in (1, 2, 3))

ADDRESS = bytes([192, 0, 2, 9])


def forward(*upstreams: Upstream, origin: Name = ROOT) -> ForwardPolicy:
    return ForwardPolicy(origin, upstreams)


CLUSTER = ServerBlock(
    (CLUSTER_DOMAIN,), 53, ("192.0.2.53",), cache=CachePolicy(), forwards=(forward(FIRST),)
)
REST = replace(CLUSTER, zones=(ROOT,))


class House:
    """Blocks that went through one configuration after the other."""

    def __init__(self, *blocks: ServerBlock) -> None:
        self.blocks = Blocks(1 << 22, Counters())
        self.apply(*blocks)

    def apply(self, *blocks: ServerBlock, scope: NxdomainScope = NxdomainScope.CLUSTER) -> None:
        self.blocks.apply(Config(blocks, nxdomain_scope=scope), NOW)

    def sweep(self) -> None:
        while self.blocks.sweep(NOW):
            pass

    def know(self, text: str = "a.cluster.local", index: int = 0) -> None:
        messages = self.blocks.states[index].messages
        assert messages is not None
        messages.admit(message(key(text), ttl_s=30.0), NOW)

    def knows(self, text: str = "a.cluster.local", index: int = 0) -> bool:
        messages = self.blocks.states[index].messages
        return messages is not None and messages.peek(key(text)) is not None


def test_unchanged_block_keeps_everything() -> None:
    house = House(CLUSTER, REST)
    house.know()
    before = house.blocks.states
    messages = before[0].messages
    house.apply(CLUSTER, REST)
    assert house.blocks.states == before
    assert house.blocks.states[0].messages is messages
    assert house.knows()


def test_order_in_the_file_does_not_matter() -> None:
    house = House(CLUSTER, REST)
    house.know()
    first, second = house.blocks.states
    house.apply(REST, CLUSTER)
    assert house.blocks.states == (second, first)
    assert house.knows(index=1)


@pytest.mark.parametrize(
    "changed",
    [
        replace(CLUSTER, cache=CachePolicy(success=Lifetime(100, 20))),
        replace(CLUSTER, forwards=(forward(FIRST, SECOND),)),
        replace(CLUSTER, forwards=(replace(forward(FIRST), max_concurrent=5),)),
        replace(CLUSTER, bind=("192.0.2.54",)),
        replace(CLUSTER, zones=(CLUSTER_DOMAIN, Name("example.", name("example")))),
        CLUSTER.having(
            HOSTS, HostsTable((ROOT,), ((name("other.example"), (ADDRESS,)),), fallthrough=(ROOT,))
        ),
    ],
    ids=["cap", "further upstream", "bound", "address", "further zone", "hosts for others"],
)
def test_what_is_still_true_stays(changed: ServerBlock) -> None:
    house = House(CLUSTER, REST)
    house.know()
    house.apply(changed, REST)
    assert house.knows()


@pytest.mark.parametrize(
    "changed",
    [
        replace(CLUSTER, forwards=(forward(SECOND, THIRD),)),
        replace(CLUSTER, forwards=()),
        replace(CLUSTER, forwards=(forward(FIRST, origin=CLUSTER_DOMAIN),)),
        replace(CLUSTER, cache=None),
        CLUSTER.having(HOSTS, HostsTable((ROOT,), ((name("a.cluster.local"), (ADDRESS,)),))),
        replace(CLUSTER, port=54),
    ],
    ids=["other upstreams", "no forward", "other names", "no cache", "hosts for it", "other port"],
)
def test_what_may_be_wrong_goes(changed: ServerBlock) -> None:
    house = House(CLUSTER, REST)
    house.know()
    house.apply(changed, REST)
    assert not house.knows()
    house.sweep()
    assert house.blocks.budget.octets == 0


@pytest.mark.parametrize(
    ("scope", "zone"), [(NxdomainScope.ALL, ROOT.wire), (NxdomainScope.NONE, None)]
)
def test_other_nxdomain_scope_keeps_what_is_kept(scope: NxdomainScope, zone: bytes | None) -> None:
    house = House(CLUSTER)
    house.know()
    house.apply(CLUSTER, scope=scope)
    assert house.knows()
    messages = house.blocks.states[0].messages
    assert messages is not None
    assert messages.nxdomain_zone == zone


def test_removed_block_leaves_budget_and_gauges() -> None:
    house = House(CLUSTER, REST)
    house.know()
    gone = house.blocks.states[0]
    house.apply(REST)
    house.sweep()
    assert house.blocks.budget.octets == 0
    assert len(house.blocks.budget.partitions) == 2
    assert gone.messages is None


def test_question_under_way_to_former_upstreams_is_answered_but_not_kept() -> None:
    house = House(CLUSTER)
    state = house.blocks.states[0]
    policy = state.block.forwards[0]
    pending = Pending(state, key(), policy, state.messages, NOW, lambda *_: True)
    state.pending[key()] = pending
    house.apply(replace(CLUSTER, forwards=(forward(SECOND),)))
    assert house.blocks.states[0] is state
    assert state.pending == {key(): pending}
    assert pending.messages is None


def test_question_under_way_by_milder_changes_is_kept_by_the_new_rules() -> None:
    house = House(CLUSTER)
    state = house.blocks.states[0]
    pending = Pending(state, key(), state.block.forwards[0], state.messages, NOW, lambda *_: True)
    state.pending[key()] = pending
    house.apply(replace(CLUSTER, cache=CachePolicy(success=Lifetime(10, 5))))
    assert pending.messages is state.messages
    assert state.messages is not None
    assert state.messages.policy.success.max_ttl_s == 5


def test_blocks_without_directives_before_the_cache_have_no_front() -> None:
    house = House(CLUSTER)
    assert build_before_cache(CLUSTER) is None
    assert house.blocks.states[0].behind_cache is None


def test_host_that_moves_is_the_same_server_and_another_host_is_not() -> None:
    def named(text: str, *upstreams: Upstream) -> ServerBlock:
        host = HostName(Name(text, name(text)), ())
        destinations = (NamedUpstream(host, Upstream(Address("", 53))),)
        return replace(REST, forwards=(replace(forward(*upstreams), destinations=destinations),))

    house = House(named("up.test.", FIRST))
    house.know()
    for block in (named("up.test.", SECOND), named("up.test."), named("up.test.", THIRD)):
        house.apply(block)
        assert house.knows()
    house.apply(named("other.test.", FIRST))
    assert not house.knows()
