from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nodecache.cache.admit import Answer, admit_failure, admit_response
from nodecache.cache.lifetime import Kind
from nodecache.cache.message import NEVER, Message
from nodecache.cache.store import MessageCache
from nodecache.config.model import (
    CLUSTER_DOMAIN,
    ROOT,
    CachePolicy,
    Lifetime,
    Name,
    Prefetch,
    ServeStale,
)
from tests.cache.building import (
    AAAA,
    NOW,
    POINTER,
    a,
    cache,
    cname,
    key,
    message,
    name,
    opt,
    record,
    response,
    soa,
    ttls,
)
from tests.strategies import MadeResponse, mutated, responses

POLICY = CachePolicy()


def admit(
    store: MessageCache | None, octets: bytes, for_key: bytes | None = None, now: float = NOW
) -> Answer:
    answer = admit_response(octets, for_key or key(), store, now, 0.0)
    assert answer is not None
    return answer


def kept(store: MessageCache, for_key: bytes | None = None) -> Message:
    found = store.peek(for_key or key())
    assert found is not None
    return found


def test_kept_answer_goes_out_with_the_common_ttl_already_to_those_who_waited() -> None:
    store = cache()
    answer = admit(store, response(key(), [cname(300), a(30)]))
    assert ttls(answer.records, 0) == [30, 30]
    assert answer.counts == (2, 0, 0)
    assert kept(store).records(NOW) == answer.records


def test_ttl_counts_down_begun_seconds_whole_and_ends_at_zero() -> None:
    store = cache()
    admit(store, response(key(), [a(3)]))
    shown = [kept(store).remaining_ttl(NOW + after) for after in (0, 0.5, 1, 1.5, 2.9, 3, 9)]
    assert shown == [3, 3, 2, 2, 1, 0, 0]


@given(st.floats(0, 1e7), st.integers(1, 1 << 20))
@example(4090.1, 30)  # whose sum, rounded, is more than 30 s later
def test_ttl_is_never_rounded_above_what_the_upstream_gave(now: float, ttl: int) -> None:
    assert message(key(), now, ttl_s=float(ttl)).remaining_ttl(now) == ttl


def test_keepttl_shows_the_same_ttl_until_the_end() -> None:
    store = cache(replace(POLICY, keep_ttl=True))
    admit(store, response(key(), [a(30)]))
    assert kept(store).remaining_ttl(NOW + 29) == 30
    assert kept(store).expires_at == NOW + 30


def test_our_opt_and_the_upstreams_stay_apart() -> None:
    store = cache()
    octets = response(key(), [a()], [], [opt()])
    answer = admit(store, octets)
    assert answer.counts == (1, 0, 0)
    assert answer.records == a()


def test_without_a_cache_ttls_pass_unchanged_and_nothing_is_capped() -> None:
    octets = response(key(), [cname(99_999), a(7)])
    answer = admit(None, octets)
    assert answer.records == octets[12 + len(key()) - 1 :]


@pytest.mark.parametrize("ttl", [1 << 31, (1 << 31) + 30, (1 << 32) - 1])
@pytest.mark.parametrize("is_cached", [False, True])
def test_rfc2181_ttls_with_the_highest_bit_are_shown_as_zero_on_the_miss_too(
    ttl: int, *, is_cached: bool
) -> None:
    store = cache() if is_cached else None
    answer = admit(store, response(key(), [cname(9), a(ttl)], [], [a((1 << 31) - 1)]))
    assert ttls(answer.records, 0) == [9, 0, (1 << 31) - 1]
    assert store is None or not len(store)


@pytest.mark.parametrize("more", [b"\0", bytes(40), a(300)])
def test_octets_behind_a_response_are_neither_kept_nor_handed_on(more: bytes) -> None:
    octets = response(key(), [a()], [], [a()])
    store = cache()
    for where in (store, None):
        answer = admit(where, octets + more)
        assert answer.records == octets[12 + len(key()) - 1 :]
    assert kept(store).records(NOW) == octets[12 + len(key()) - 1 :]


@pytest.mark.parametrize(
    "octets",
    [
        response(key(), [record(1, 30, bytes(5))]),
        response(key(), [a(), record(28, 30, bytes(4))]),
        response(key(), [record(5, 30, b"\xc0\xff")]),
        response(key(), [], [record(6, 30, POINTER + b"\3ns1" + bytes(16))], rcode=3),
        response(key(), [a()], [], [record(33, 30, bytes(6) + POINTER + b"\0")]),
    ],
    ids=["A", "AAAA", "CNAME", "SOA", "SRV in the additional section"],
)
def test_malformed_rdata_is_a_malformed_response(octets: bytes) -> None:
    store = cache()
    assert admit_response(octets, key(), store, NOW, 0.0) is None
    assert not len(store)


@pytest.mark.parametrize(
    "octets",
    [
        response(key(), [a(0)]),
        response(key(), [], []),
        response(key(), [], [], rcode=3),
        response(key(), [a()], rcode=5),
        response(key(), [a()], flags=0x8380),
    ],
    ids=["ttl 0", "nodata without soa", "nxdomain without soa", "refused", "truncated"],
)
def test_what_must_not_be_kept_goes_to_those_who_waited_as_it_came(octets: bytes) -> None:
    store = cache()
    answer = admit(store, octets)
    assert answer.records == octets[12 + len(key()) - 1 :]
    assert len(store) == 0


def test_truncated_answer_says_so() -> None:
    assert admit(cache(), response(key(), [a()], flags=0x8380)).is_truncated
    assert not admit(cache(), response(key(), [a()])).is_truncated


def test_extended_rcode_counts_as_malformed() -> None:
    badvers = b"\0\0\x29\4\xd0\1\0\0\0\0\0"
    assert admit_response(response(key(), [], [], [badvers]), key(), cache(), NOW, 0) is None


def test_servfail_is_kept_1_2_4_5_seconds_while_it_lasts() -> None:
    store, now, lifetimes = cache(), NOW, []
    for _ in range(5):
        admit(store, response(key(), rcode=2), now=now)
        lifetimes.append(kept(store).ttl_s)
        now += kept(store).ttl_s + 0.5
    assert lifetimes == [1, 2, 4, 5, 5]


def test_good_answer_ends_the_row_of_failures() -> None:
    store = cache()
    admit(store, response(key(), rcode=2))
    admit(store, response(key(), [a(1)]))
    admit(store, response(key(), rcode=2), now=NOW + 1)
    assert kept(store).ttl_s == 1


def test_failure_is_neither_refreshed_ahead_nor_served_stale() -> None:
    store = cache(replace(POLICY, serve_stale=ServeStale()))
    admit(store, response(key(), rcode=2))
    assert kept(store).refresh_at == NEVER
    assert kept(store).keep_until <= kept(store).expires_at + 5


def test_failure_of_all_upstreams_is_kept_one_second() -> None:
    store = cache()
    answer = admit_failure(key(), store, NOW)
    assert (answer.flags & 0xF, answer.records, answer.kind) == (2, b"", Kind.FAILURE)
    assert kept(store).expires_at == NOW + 1


def test_failure_of_all_upstreams_leaves_a_good_message_in_place() -> None:
    store = cache()
    admit(store, response(key(), [a(30)]))
    good = kept(store)
    admit_failure(key(), store, NOW + 5)
    admit(store, response(key(), rcode=2), now=NOW + 6)
    assert store.find(key(), NOW + 7) is good


def test_servfail_0_keeps_no_failure() -> None:
    store = cache(replace(POLICY, servfail_s=0.0))
    admit(store, response(key(), rcode=2))
    admit_failure(key(), store, NOW)
    assert len(store) == 0


def test_serve_stale_keeps_a_message_beyond_its_expiry() -> None:
    store = cache(replace(POLICY, serve_stale=ServeStale(duration_s=100)))
    admit(store, response(key(), [a(30)]))
    assert kept(store).keep_until == NOW + 130
    assert kept(store).expires_at == NOW + 30


@pytest.mark.parametrize(("prefetch", "due"), [(Prefetch(), 27.0), (None, 30.0)])
def test_refresh_is_planned_for_the_last_tenth(prefetch: Prefetch | None, due: float) -> None:
    store = cache(replace(POLICY, prefetch=prefetch))
    admit(store, response(key(), [a(30)]))
    assert kept(store).refresh_at == pytest.approx(NOW + due)


@pytest.mark.parametrize(
    ("zone", "is_kept"), [(ROOT, False), (CLUSTER_DOMAIN, False), (Name("b.", name("b")), True)]
)
def test_disabled_zones_keep_no_answers_or_no_denials(zone: Name, is_kept: bool) -> None:
    answers = cache(replace(POLICY, disable_success=(zone,)))
    admit(answers, response(key(), [a()]))
    admit(answers, response(key(qtype=AAAA), [], [soa()]), key(qtype=AAAA))
    denials = cache(replace(POLICY, disable_denial=(zone,)))
    admit(denials, response(key(), [a()]))
    admit(denials, response(key(qtype=AAAA), [], [soa()]), key(qtype=AAAA))
    assert denials.peek(key()) is not None
    assert (answers.peek(key()) is not None) is is_kept
    assert answers.peek(key(qtype=AAAA)) is not None
    assert (denials.peek(key(qtype=AAAA)) is not None) is is_kept


def test_names_of_disable_are_not_kept_and_have_the_ttl_that_kept_ones_have() -> None:
    store = cache(
        replace(
            POLICY,
            success=Lifetime(100, 60),
            denial=Lifetime(100, 20, 10),
            disable_success=(ROOT,),
            disable_denial=(ROOT,),
        )
    )
    assert ttls(admit(store, response(key(), [cname(300), a(90)])).records, 0) == [60, 60]
    denial = admit(store, response(key(), [], [soa(5, 5)], rcode=3))
    assert ttls(denial.records, 0) == [10]
    assert store.peek(key()) is None


@pytest.mark.parametrize(
    ("host", "covers"), [("x.cluster.local", True), ("x.example", False), ("xcluster.local", False)]
)
def test_nxdomain_covers_all_types_only_inside_the_zone_given(host: str, covers: bool) -> None:
    store = cache()
    admit(store, response(key(host), [], [soa()], rcode=3), key(host))
    assert kept(store, key(host)).covers_all_types is covers
    assert (store.find(key(host, AAAA), NOW) is not None) is covers


def test_nxdomain_behind_an_alias_covers_its_own_type_only() -> None:
    store = cache()
    admit(store, response(key(), [cname()], [soa()], rcode=3))
    assert not kept(store).covers_all_types


@given(responses())
def test_kept_records_differ_from_the_response_only_in_their_ttls(made: MadeResponse) -> None:
    asked = made.question + b"\1"
    store = cache(octets=1 << 30)
    answer = admit_response(made.octets, asked, store, NOW, 0.5)
    assert answer is not None
    found = store.peek(asked)
    if found is None:
        shown = [record.octets(record.ttl if record.ttl < 1 << 31 else 0) for record in made.kept]
        assert answer.records == b"".join(shown)
        return
    ttl = int(found.ttl_s)
    assert 0 < ttl <= (3600 if found.kind is Kind.SUCCESS else 1800)
    if found.kind is not Kind.FAILURE:
        assert made.compose(ttl)[made.question_end :].startswith(answer.records)
    assert found.records_octets == len(answer.records)


@given(mutated(responses().map(MadeResponse.compose)), st.integers(0, 40))
def test_hostile_octets_raise_nothing(octets: bytes, qname_octets: int) -> None:
    # What follows the header is taken for the question, as if it had been found to match.
    octets = octets.ljust(12 + 5, b"\0")
    question = octets[12 : 12 + qname_octets].ljust(5, b"\0")
    store = cache()
    answer = admit_response(octets[:12] + question + octets[12:], question + b"\1", store, NOW, 0.0)
    assert len(store) <= (answer is not None)
