"""The order of records that ``loadbalance`` gives a reply."""

from __future__ import annotations

import ipaddress
import random
import struct
from collections import Counter
from collections.abc import Iterator

import dns.message
import dns.rcode
import dns.rdata
import dns.rdatatype
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodecache.config.names import parse_name
from nodecache.directives.loadbalance.act import Balancer
from nodecache.directives.loadbalance.model import LoadBalance
from nodecache.wire.rrs import RR, read_contents
from tests.cache.building import name, opt, record
from tests.strategies import MadeResponse, mutated, responses

ROUND_ROBIN = LoadBalance()


def seeded(policy: LoadBalance = ROUND_ROBIN, seed: int = 7) -> Balancer:
    return Balancer(policy, random.Random(seed).random)


def steady(policy: LoadBalance, *numbers: float) -> Balancer:
    """A balancer whose random numbers are given, the last one for ever."""
    endless: Iterator[float] = iter(numbers)
    return Balancer(policy, lambda: next(endless, numbers[-1]))


def reply(
    answer: str = "",
    authority: str = "",
    additional: str = "",
    *,
    qtype: str = "A",
    rcode: int = dns.rcode.NOERROR,
    edns: bytes = b"",
) -> bytes:
    """A reply with its records exactly in the order given, names compressed."""
    sections = [list(filter(None, text.split("\n"))) for text in (answer, authority, additional)]
    counts = [len(section) for section in sections]
    counts[2] += bool(edns)
    octets = struct.pack("!6H", 0xBEEF, 0x8180 | rcode, 1, *counts)
    octets += name("a.test") + struct.pack("!HH", dns.rdatatype.from_text(qtype), 1)
    for line in (line for section in sections for line in section):
        owner, rtype, text = line.split(maxsplit=2)
        rdata = dns.rdata.from_text("IN", rtype, text).to_wire() or b""
        owner_octets = name(owner)
        known = octets.find(owner_octets, 12)
        if known >= 0:
            owner_octets = struct.pack("!H", 0xC000 | known)
        octets += record(dns.rdatatype.from_text(rtype), 30, rdata, owner_octets)
    return octets + edns


def lines(octets: bytes, section: int = 0) -> list[str]:
    message = dns.message.from_wire(octets, one_rr_per_rrset=True)
    found = (message.answer, message.authority, message.additional)[section]
    return [
        f"{rrset.name.to_text()} {dns.rdatatype.to_text(rrset.rdtype)} {rdata.to_text()}"
        for rrset in found
        for rdata in rrset
    ]


THREE = "a.test. A 10.0.0.1\na.test. A 10.0.0.2\na.test. A 10.0.0.3"
CHAIN = "a.test. CNAME b.test.\nb.test. A 10.0.0.1\nb.test. A 10.0.0.2\nb.test. A 10.0.0.3"


def test_each_order_of_addresses_comes_up_as_often_as_any_other() -> None:
    balancer, octets = seeded(), reply(THREE)
    orders = Counter(tuple(lines(balancer.reorder(octets))) for _ in range(1200))
    assert len(orders) == 6
    assert min(orders.values()) > 140


def test_reply_keeps_its_octets_but_for_the_order() -> None:
    octets = reply(CHAIN, "test. NS ns.test.", "ns.test. A 10.0.0.9", edns=opt())
    found = [seeded(seed=seed).reorder(octets) for seed in range(20)]
    assert len(set(found)) > 1
    for each in found:
        assert len(each) == len(octets)
        assert dns.message.from_wire(each) == dns.message.from_wire(octets)
        assert lines(each)[0] == "a.test. CNAME b.test."


def test_compressed_names_stay_compressed() -> None:
    # "test." stands at offset 14, "b.test." in the RDATA of the CNAME at offset 36.
    octets = struct.pack("!6H", 1, 0x8180, 1, 4, 0, 1) + name("a.test") + b"\0\1\0\1"
    octets += record(5, 30, b"\1b\xc0\x0e")
    for number in (1, 2, 3):
        octets += record(1, 30, b"\x0a\0\0" + bytes([number]), b"\xc0\x24")
    octets += opt()
    found = [seeded(seed=seed).reorder(octets) for seed in range(60)]
    assert len(set(found)) == 6
    assert {len(each) for each in found} == {len(octets)}
    assert {tuple(sorted(lines(each))) for each in found} == {tuple(lines(octets))}


def test_ipv6_addresses_and_mail_exchanges_are_shuffled_too() -> None:
    ipv6 = reply("a.test. AAAA 2001:db8::1\na.test. AAAA 2001:db8::2", qtype="AAAA")
    mail = reply("a.test. MX 10 m1.a.test.\na.test. MX 10 m2.a.test.", qtype="MX")
    for octets in (ipv6, mail):
        found = {tuple(lines(seeded(seed=seed).reorder(octets))) for seed in range(20)}
        first, second = lines(octets)
        assert found == {(first, second), (second, first)}


def test_addresses_of_the_additional_section_are_shuffled_around_the_opt_record() -> None:
    addresses = "x.test. A 10.0.0.1\ny.test. A 10.0.0.2"
    octets = reply("a.test. SRV 0 0 53 x.test.", "", addresses, qtype="SRV", edns=opt(1400))
    found = [seeded(seed=seed).reorder(octets) for seed in range(20)]
    assert {tuple(lines(each, 2)) for each in found} == {
        ("x.test. A 10.0.0.1", "y.test. A 10.0.0.2"),
        ("y.test. A 10.0.0.2", "x.test. A 10.0.0.1"),
    }
    assert {dns.message.from_wire(each).payload for each in found} == {1400}


def test_aliases_come_first_and_all_else_before_the_addresses() -> None:
    octets = reply(
        "b.test. A 10.0.0.1\na.test. TXT x\na.test. MX 1 m.test.\nb.test. A 10.0.0.2\n"
        "a.test. CNAME b.test."
    )
    assert [line.split()[1] for line in lines(seeded().reorder(octets))] == [
        "CNAME",
        "TXT",
        "A",
        "A",
        "MX",
    ]


def test_alias_is_moved_in_front_of_a_single_address() -> None:
    octets = reply("b.test. A 10.0.0.1\na.test. CNAME b.test.")
    assert lines(seeded().reorder(octets)) == ["a.test. CNAME b.test.", "b.test. A 10.0.0.1"]


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        reply(),
        reply("a.test. A 10.0.0.1"),
        reply("a.test. CNAME b.test.\nb.test. A 10.0.0.1"),
        reply("a.test. TXT x\na.test. TXT y", qtype="TXT"),
        reply("a.test. A 10.0.0.1", "test. NS ns.test.", "ns.test. A 10.0.0.9"),
        reply(THREE, rcode=dns.rcode.NXDOMAIN),
        reply(THREE)[:-1],
        reply(THREE)[:5] + b"\2" + reply(THREE)[6:],
    ],
)
@pytest.mark.parametrize(
    "policy", [ROUND_ROBIN, LoadBalance(prefer=("10.0.0.0/8",)), LoadBalance(is_weighted=True)]
)
def test_what_has_no_order_comes_back_as_the_same_object(
    octets: bytes, policy: LoadBalance
) -> None:
    assert seeded(policy).reorder(octets) is octets


def test_uncompressed_owners_are_shuffled_too() -> None:
    message = dns.message.from_wire(reply(THREE))
    octets = message.to_wire()[:12] + b"\1a\4test\0\0\1\0\1"
    for number in (1, 2, 3):
        octets += b"\1a\4test\0\0\1\0\1\0\0\0\x1e\0\4\x0a\0\0" + bytes([number])
    found = {tuple(lines(seeded(seed=seed).reorder(octets))) for seed in range(60)}
    assert len(found) == 6


WEIGHED = LoadBalance(
    is_weighted=True,
    weights=(
        (
            parse_name("b.test").wire,
            (
                (ipaddress.ip_address("10.0.0.1").packed, 3),
                (ipaddress.ip_address("10.0.0.3").packed, 2),
                (ipaddress.ip_address("10.9.9.9").packed, 200),
            ),
        ),
    ),
)


def test_weights_decide_how_often_an_address_comes_first() -> None:
    balancer, octets = seeded(WEIGHED), reply(CHAIN)
    firsts = Counter(lines(balancer.reorder(octets))[1] for _ in range(3000))
    # 10.0.0.2 has no weight of its own and weighs 1.
    assert firsts["b.test. A 10.0.0.1"] == pytest.approx(1500, abs=120)
    assert firsts["b.test. A 10.0.0.2"] == pytest.approx(500, abs=120)
    assert firsts["b.test. A 10.0.0.3"] == pytest.approx(1000, abs=120)


@pytest.mark.parametrize(
    ("number", "order"),
    [
        (0.0, "123"),
        (0.49, "123"),
        (0.5, "213"),
        (0.66, "213"),
        (0.67, "321"),
        (0.99, "321"),
    ],
)
def test_weights_swap_two_addresses_and_shuffle_nothing(number: float, order: str) -> None:
    found = lines(steady(WEIGHED, number).reorder(reply(CHAIN)))
    assert "".join(line[-1] for line in found[1:]) == order


def test_weights_are_found_whatever_the_case_of_the_owner() -> None:
    octets = reply("B.test. A 10.0.0.2\nB.test. A 10.0.0.1")
    assert lines(steady(WEIGHED, 0.3).reorder(octets))[0] == "B.test. A 10.0.0.1"


def test_weights_without_any_make_all_addresses_equal() -> None:
    balancer = seeded(LoadBalance(is_weighted=True))
    firsts = Counter(lines(balancer.reorder(reply(THREE)))[0] for _ in range(900))
    assert min(firsts.values()) > 220


def test_weights_are_for_addresses_and_services_alone() -> None:
    addresses = "x.test. A 10.0.0.1\ny.test. A 10.0.0.2"
    weighted = LoadBalance(is_weighted=True)
    service = reply("a.test. SRV 0 0 53 x.test.", "", addresses, qtype="SRV")
    assert lines(steady(weighted, 0.9).reorder(service), 2)[0] == "y.test. A 10.0.0.2"
    mail = reply("a.test. MX 1 x.test.\na.test. MX 1 y.test.", "", addresses, qtype="MX")
    assert steady(weighted, 0.9).reorder(mail) is mail


def test_preferred_networks_come_first_in_their_order() -> None:
    octets = reply(
        "a.test. A 192.168.7.1\na.test. A 10.0.0.1\na.test. A 203.0.113.9\n"
        "a.test. A 10.9.0.1\na.test. A 10.9.0.2\na.test. MX 1 m.test.\na.test. TXT x"
    )
    policy = LoadBalance(prefer=("10.9.0.0/16", "192.168.0.0/16", "10.0.0.0/8"))
    orders = {tuple(lines(seeded(policy, seed).reorder(octets))) for seed in range(20)}
    tail = ["a.test. A 192.168.7.1", "a.test. A 10.0.0.1", "a.test. A 203.0.113.9"]
    tail += ["a.test. MX 1 m.test.", 'a.test. TXT "x"']
    assert orders == {
        ("a.test. A 10.9.0.1", "a.test. A 10.9.0.2", *tail),
        ("a.test. A 10.9.0.2", "a.test. A 10.9.0.1", *tail),
    }


def test_preferred_ipv6_network_holds_no_ipv4_address() -> None:
    octets = reply("a.test. A 10.0.0.1\na.test. AAAA 2001:db8::1", qtype="ANY")
    for network, first in (("::/0", "AAAA"), ("0.0.0.0/0", "A")):
        found = lines(seeded(LoadBalance(prefer=(network,))).reorder(octets))
        assert found[0].split()[1] == first


def test_preferred_networks_order_what_weights_leave() -> None:
    policy = LoadBalance(is_weighted=True, prefer=("10.0.0.3/32",))
    assert [line[-1] for line in lines(steady(policy, 0.4).reorder(reply(THREE)))] == [
        "3",
        "2",
        "1",
    ]
    mail = reply("a.test. MX 1 x.test.", "", "x.test. A 10.0.0.1\nx.test. A 10.0.0.3", qtype="MX")
    assert lines(steady(policy, 0.9).reorder(mail), 2)[0] == "x.test. A 10.0.0.3"


POLICIES = st.sampled_from(
    [ROUND_ROBIN, WEIGHED, LoadBalance(prefer=("0.0.0.0/1", "8000::/1")), LoadBalance(True)]
)


def canonical(octets: bytes) -> list[list[RR]] | None:
    contents = read_contents(octets)
    return [sorted(section) for section in contents.sections] if contents is not None else None


@given(responses(), POLICIES, st.randoms())
def test_no_record_is_lost_or_changed(
    made: MadeResponse, policy: LoadBalance, numbers: random.Random
) -> None:
    octets = made.octets
    found = Balancer(policy, numbers.random).reorder(octets)
    assert canonical(found) == canonical(octets)
    assert found[:4] == octets[:4]


@given(
    mutated(responses().map(lambda made: made.octets)) | st.binary(max_size=60),
    POLICIES,
    st.floats(0, 1, exclude_max=True),
)
def test_any_octets_are_taken(octets: bytes, policy: LoadBalance, number: float) -> None:
    found = Balancer(policy, lambda: number).reorder(octets)
    assert found is octets or found[:2] == octets[:2]


@given(st.integers(1, 4000), st.floats(0, 1, exclude_max=True))
def test_a_random_number_below_one_stays_in_bounds(count: int, number: float) -> None:
    assert int(number * count) < count
    assert int((1 - 2**-53) * count) < count


def test_random_numbers_are_asked_for_only_where_needed() -> None:
    calls: list[float] = []

    def source() -> float:
        calls.append(0.0)
        return 0.0

    assert Balancer(ROUND_ROBIN, source).reorder(reply(THREE)) == reply(THREE)
    assert len(calls) == 2
    Balancer(WEIGHED, source).reorder(reply(THREE))
    assert len(calls) == 3
