"""How much of what is in flight one client may take."""

from __future__ import annotations

import dns.rcode
import pytest

from nodecache.config.model import ROOT, Address, ForwardPolicy
from nodecache.resolve.resolver import Resolver
from nodecache.resolve.shares import ClientShares
from tests.cache.building import query
from tests.resolve.resolving import UPSTREAMS, Bed

ANY = ForwardPolicy(ROOT, UPSTREAMS)
FEW = ForwardPolicy(ROOT, UPSTREAMS, max_concurrent=20)


class ShareBed(Bed):
    """Its clients are pairs of an IP address and anything; refusals come at once."""

    def begin(self, percent: int) -> ShareBed:
        self.resolver = Resolver(
            self.forwarder, self.counters, lambda: 0.0, self.most_pending, percent
        )
        self.udp.locate = lambda client: Address(client[0], 4000)
        return self

    def flood(self, host: str, count: int) -> int:
        """Asks for ``count`` names from ``host``; returns how many began."""
        before = self.exchanges
        for n in range(count):
            self.ask(query(f"{host.replace(':', '-').replace('.', '-')}-{n}-{before}"), (host, n))
        return self.exchanges - before


def test_one_client_leaves_room_to_others() -> None:
    bed = ShareBed(most_pending=100).begin(20)
    assert bed.flood("10.0.0.1", 200) == 50 + 20
    assert bed.flood("10.0.0.2", 200) == 20
    assert bed.flood("10.0.0.3", 200) == 10
    assert bed.counters.events["shed_client_share"] == 130 + 180
    assert bed.counters.events["shed"] == 500
    assert bed.last(("10.0.0.1", 199)).rcode() == dns.rcode.REFUSED


def test_a_client_alone_has_half_of_the_room_uncounted() -> None:
    bed = ShareBed(most_pending=100).begin(1)
    assert bed.flood("10.0.0.1", 50) == 50
    assert repr(bed.resolver._admission) == "{}"


def test_who_joins_an_exchange_is_not_counted() -> None:
    bed = ShareBed(most_pending=4).begin(25)
    assert bed.flood("10.0.0.1", 3) == 3
    for n in range(50):
        assert bed.ask(query("10-0-0-1-0-0"), ("10.0.0.1", n)) is None
    assert repr(bed.resolver._admission) == "{'10.0.0.1': 1}"


def test_a_share_is_given_back_with_the_answer() -> None:
    bed = ShareBed(most_pending=4).begin(25)
    bed.flood("10.0.0.1", 4)
    assert bed.exchanges == 3
    while bed.forwarder.under_way:
        bed.answer()
    assert repr(bed.resolver._admission) == "{}"
    assert bed.flood("10.0.0.1", 3) == 3


def test_a_share_goes_on_with_the_next_forward_of_a_block() -> None:
    first = ForwardPolicy(ROOT, UPSTREAMS, next_rcodes=frozenset({3}))
    bed = ShareBed(most_pending=4, forwards=(first, ANY)).begin(25)
    bed.flood("10.0.0.1", 3)
    last = bed.forwarder.under_way[-1]
    refused = b"\0\0\x81\x83\0\1\0\0\0\0\0\0" + last.question
    bed.forwarder.finish(last, refused, bed.now)
    assert repr(bed.resolver._admission) == "{'10.0.0.1': 1}"
    while bed.forwarder.under_way:
        bed.answer()
    assert repr(bed.resolver._admission) == "{}"


def test_all_of_max_concurrent_is_not_one_client_s_either() -> None:
    bed = ShareBed(forwards=(FEW,)).begin(20)
    assert bed.flood("10.0.0.1", 100) == 10 + 4
    assert bed.flood("10.0.0.2", 100) == 4


def test_100_per_cent_sets_no_limit() -> None:
    bed = ShareBed(most_pending=100).begin(100)
    assert bed.flood("10.0.0.1", 200) == 100
    few = ShareBed(forwards=(FEW,)).begin(100)
    assert few.flood("10.0.0.1", 100) == 20
    assert "shed_client_share" not in bed.counters.events | few.counters.events


def test_nobody_is_counted_before_half_of_what_one_upstream_takes_is_in_flight() -> None:
    assert ClientShares(20, 10_000).crowded_from == 500
    assert ClientShares(20, 10).crowded_from == 5
    assert ClientShares(100, 10_000).crowded_from == 10_000


@pytest.mark.parametrize(
    ("one", "other", "are_one"),
    [
        ("10.0.0.1", "10.0.0.2", False),
        ("fd00::1", "fd00::2", True),
        ("fd00::1", "fd00:0:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("::ffff:10.0.0.1", "::ffff:10.0.0.2", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("no:address", "no:address", True),
    ],
)
def test_a_client_is_an_ipv4_address_or_64_bits_of_an_ipv6_address(
    one: str, other: str, are_one: bool
) -> None:
    shares = ClientShares(20, 10)
    assert (shares.take(one, ANY) == shares.take(other, ANY)) is are_one


def test_the_table_holds_only_clients_with_something_in_flight() -> None:
    shares = ClientShares(20, 1000)
    owners = [shares.take(f"10.0.{n // 256}.{n % 256}", ANY) for n in range(1000)]
    for owner in owners:
        shares.give_back(owner)
    assert repr(shares) == "{}"
