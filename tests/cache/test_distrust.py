"""Which zones lose their say, and that a lying upstream cannot make the table grow."""

from __future__ import annotations

import pytest
from hypothesis import given

from nodecache.cache.distrust import MOST_ZONES, ROOT, Distrust, denying_zone
from nodecache.cache.lifetime import Kind
from nodecache.cache.message import Message
from nodecache.wire.query import is_below
from tests.cache.building import NOW, SOA, key, name, record, response, scanned
from tests.strategies import names

CLUSTER = name("cluster.local")


def denied(host: str, owner: bytes) -> Message:
    asked = key(host)
    rdata = b"\0\0" + bytes(20)
    found = scanned(asked, response(asked, [], [record(SOA, 30, rdata, owner)], rcode=3))
    return Message(asked, Kind.NXDOMAIN, 0x8183, found.counts, found.pieces, 30.0, NOW)


@given(names(), names())
def test_a_zone_and_all_below_it_are_distrusted_and_nothing_else(zone: bytes, qname: bytes) -> None:
    distrust = Distrust()
    assert not distrust.includes(qname)
    assert distrust.add(zone.lower()) == zone.lower()
    assert distrust.includes(qname.lower()) == is_below(qname.lower(), zone.lower())
    assert distrust.includes(zone.lower())


def test_when_too_many_zones_lie_nobody_is_trusted() -> None:
    distrust = Distrust()
    for n in range(MOST_ZONES):
        assert distrust.add(name(f"z{n}")) == name(f"z{n}")
    assert not distrust.includes(name("honest.example"))
    for n in range(1000):
        assert distrust.add(name(f"more{n}")) == ROOT
    assert distrust.includes(name("honest.example"))
    assert len(distrust._zones) == MOST_ZONES + 1


@pytest.mark.parametrize(
    ("host", "owner", "zone"),
    [
        ("a.svc.cluster.local", name("svc.cluster.local"), CLUSTER),
        ("a.svc.cluster.local", ROOT, CLUSTER),
        ("a.svc.cluster.local", name("example"), CLUSTER),
        ("a.b.example.org", name("Example.ORG"), name("example.org")),
        ("a.b.example.org", b"\xc0\x0e", name("b.example.org")),
        ("a.b.example.org", name("example.com"), ROOT),
        ("a.b.example.org", ROOT, ROOT),
    ],
)
def test_the_zone_is_the_cluster_or_that_of_the_soa(host: str, owner: bytes, zone: bytes) -> None:
    assert denying_zone(denied(host, owner), CLUSTER) == zone


@pytest.mark.parametrize("cluster", [None, ROOT])
def test_without_a_cluster_domain_it_is_that_of_the_soa(cluster: bytes | None) -> None:
    message = denied("a.svc.cluster.local", name("svc.cluster.local"))
    assert denying_zone(message, cluster) == name("svc.cluster.local")


def test_without_soa_it_is_the_root() -> None:
    message = Message(key("a.example"), Kind.NXDOMAIN, 0x8183, (0, 0, 0), (b"",), 30.0, NOW)
    assert denying_zone(message, CLUSTER) == ROOT
