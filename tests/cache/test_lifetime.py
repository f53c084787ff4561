from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodecache.cache.lifetime import Kind, classify, covers_all_types, lifetime_s, refresh_lead_s
from nodecache.config.model import CachePolicy, Lifetime
from tests.cache.building import (
    AAAA,
    ANY,
    TXT,
    A,
    a,
    cname,
    key,
    name,
    record,
    response,
    scanned,
    soa,
)

POLICY = CachePolicy()
NS = 2
TTLS = st.integers(0, 0xFFFFFFFF)


def kind_of(octets: bytes, for_key: bytes | None = None) -> Kind:
    return classify(scanned(for_key or key(), octets))


def seconds(octets: bytes, policy: CachePolicy = POLICY) -> float:
    found = scanned(key(), octets)
    return lifetime_s(classify(found), found, policy)


def ns() -> bytes:
    return record(NS, 30, name("ns.example"), name("cluster.local"))


def test_rfc1035_answer_of_the_type_is_kept_for_its_smallest_ttl() -> None:
    octets = response(key(), [a(30), a(7)], [ns()], [record(A, 99, bytes(4))])
    assert kind_of(octets) is Kind.SUCCESS
    assert seconds(octets) == 7


def test_rfc2181_section_8_ttl_with_the_top_bit_set_counts_as_zero() -> None:
    assert seconds(response(key(), [a(30), a(0x80000000)])) == 0


def test_rfc2181_section_8_largest_ttl_is_capped_by_the_policy() -> None:
    assert seconds(response(key(), [a(0x7FFFFFFF)])) == 3600


def test_rfc1035_ttl_zero_is_not_kept() -> None:
    assert seconds(response(key(), [a(0)])) == 0


@pytest.mark.parametrize(("ttl", "minimum"), [(10, 20), (20, 10)])
@pytest.mark.parametrize("rcode", [0, 3])
def test_rfc2308_section_5_negative_ttl_is_the_lesser_of_soa_ttl_and_minimum(
    ttl: int, minimum: int, rcode: int
) -> None:
    octets = response(key(), [], [soa(ttl, minimum)], rcode=rcode)
    assert kind_of(octets) is (Kind.NXDOMAIN if rcode else Kind.NODATA)
    assert seconds(octets) == 10


@pytest.mark.parametrize("rcode", [0, 3])
def test_rfc2308_section_5_negative_without_soa_is_not_kept(rcode: int) -> None:
    assert kind_of(response(key(), rcode=rcode)) is Kind.NOT_KEPT


def test_rfc2308_section_2_2_referral_is_not_kept() -> None:
    assert kind_of(response(key(), [], [ns()], [a()])) is Kind.NOT_KEPT


def test_rfc2308_section_2_2_alias_without_data_at_its_end_is_nodata() -> None:
    octets = response(key(), [cname(5)], [soa(30, 30)])
    assert kind_of(octets) is Kind.NODATA
    assert seconds(octets) == 5


def test_alias_whose_end_is_missing_without_soa_is_nodata_for_five_seconds_at_most() -> None:
    for records in ([cname(300)], [cname(300), cname(300)], [record(TXT, 300, b"\1x")]):
        octets = response(key(), records)
        assert kind_of(octets) is Kind.NODATA
        assert seconds(octets) == 5
    assert seconds(response(key(), [cname(3)])) == 3
    assert seconds(response(key(), [cname(0)])) == 0
    floored = replace(CachePolicy(), denial=Lifetime(9984, 1800, 60))
    assert seconds(response(key(), [cname(300)]), floored) == 5


def test_alias_with_the_wanted_type_behind_it_is_an_answer_even_beside_an_soa() -> None:
    assert kind_of(response(key(), [cname(), a()], [soa()])) is Kind.SUCCESS


def test_any_answer_serves_a_query_for_any() -> None:
    asked = key(qtype=ANY)
    assert kind_of(response(asked, [cname()], [soa()]), asked) is Kind.SUCCESS


@pytest.mark.parametrize("rcode", [0, 2, 3])
def test_rfc2181_section_9_truncated_response_is_not_kept(rcode: int) -> None:
    octets = response(key(), [a()], [soa()], rcode=rcode, flags=0x8380)
    assert kind_of(octets) is Kind.NOT_KEPT


@pytest.mark.parametrize(
    ("rcode", "kind"),
    [(1, Kind.NOT_KEPT), (2, Kind.FAILURE), (4, Kind.FAILURE), (5, Kind.NOT_KEPT)]
    + [(rcode, Kind.NOT_KEPT) for rcode in range(6, 16)],
)
def test_of_the_other_rcodes_only_servfail_and_notimp_are_failures(rcode: int, kind: Kind) -> None:
    assert kind_of(response(key(), [a()], [soa()], rcode=rcode)) is kind


def test_rfc8020_nxdomain_covers_all_types_but_not_behind_an_alias() -> None:
    plain = scanned(key(), response(key(), [], [soa()], rcode=3))
    behind = scanned(key(), response(key(), [cname()], [soa()], rcode=3))
    nodata = scanned(key(qtype=AAAA), response(key(qtype=AAAA), [], [soa()]))
    assert covers_all_types(classify(plain), plain)
    assert not covers_all_types(classify(behind), behind)
    assert not covers_all_types(classify(nodata), nodata)


@pytest.mark.parametrize(
    ("failures", "expected"), [(0, 1), (1, 2), (2, 4), (3, 5), (4, 5), (99, 5)]
)
def test_rfc9520_section_3_2_failure_is_kept_longer_while_it_lasts(
    failures: int, expected: int
) -> None:
    found = scanned(key(), response(key(), rcode=2))
    assert lifetime_s(Kind.FAILURE, found, POLICY, failures) == expected


@pytest.mark.parametrize("servfail_s", [0.0, 3.0, 300.0])
def test_servfail_option_sets_the_time_of_every_failure(servfail_s: float) -> None:
    found = scanned(key(), response(key(), rcode=2))
    policy = replace(POLICY, servfail_s=servfail_s)
    assert [lifetime_s(Kind.FAILURE, found, policy, n) for n in range(5)] == [servfail_s] * 5


def test_what_is_not_kept_has_no_lifetime() -> None:
    found = scanned(key(), response(key(), [a()], rcode=5))
    assert lifetime_s(Kind.NOT_KEPT, found, POLICY) == 0


@given(
    TTLS,
    TTLS,
    st.booleans(),
    st.integers(1, 4000),
    st.integers(0, 4000),
    st.integers(1, 4000),
    st.integers(0, 4000),
)
def test_floor_lifts_and_cap_wins(
    ttl: int, minimum: int, is_answer: bool, cap: int, floor: int, other_cap: int, other_floor: int
) -> None:
    mine, other = Lifetime(10, cap, floor), Lifetime(10, other_cap, other_floor)
    policy = CachePolicy(success=mine if is_answer else other, denial=other if is_answer else mine)
    octets = response(
        key(), [a(ttl)] if is_answer else [], [] if is_answer else [soa(ttl, minimum)]
    )
    sound = [0 if value >= 1 << 31 else value for value in (ttl, minimum)]
    raised = max(sound[0] if is_answer else min(sound), floor)
    assert seconds(octets, policy) == min(raised, cap)


@given(st.integers(1, 1 << 31), st.integers(10, 90), st.floats(0, 1, exclude_max=True))
def test_refresh_begins_in_time_but_never_at_once(ttl: int, percentage: int, jitter: float) -> None:
    lead_s = refresh_lead_s(float(ttl), percentage, jitter)
    assert min(1.5, ttl / 2) <= lead_s <= ttl * 0.9
    assert lead_s >= ttl * percentage / 100 * 0.999
    assert lead_s <= max(ttl * percentage / 100, min(1.5, ttl / 2)) * 4 / 3


def test_refresh_of_an_ordinary_message_begins_in_its_last_tenth() -> None:
    assert refresh_lead_s(30.0, 10, 0.0) == pytest.approx(3.0)
    assert refresh_lead_s(30.0, 10, 0.99) == pytest.approx(3.99)
    assert refresh_lead_s(5.0, 10, 0.0) == 1.5
    assert refresh_lead_s(5.0, 10, 0.75) == pytest.approx(1.875)
