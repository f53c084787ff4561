"""What was kept is kept again, octet for octet; what is damaged does no harm."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodecache.cache import snapshot
from nodecache.cache.admit import admit_failure, admit_response
from nodecache.cache.lifetime import Kind
from nodecache.cache.message import NEVER, Message
from nodecache.cache.partition import Partition
from nodecache.cache.snapshot import read, restore, write
from nodecache.cache.store import Budget, MessageCache
from nodecache.config.model import CLUSTER_DOMAIN, CachePolicy, Lifetime, Prefetch, ServeStale
from nodecache.errors import SnapshotError
from nodecache.wire.key import QUESTION_END, key_of
from nodecache.wire.query import Query, scan_query
from nodecache.wire.reply import compose_reply
from nodecache.wire.response import scan_response
from tests.cache.building import (
    AAAA,
    NOW,
    SOA,
    TXT,
    A,
    a,
    budgeted_octets,
    cache,
    cname,
    key,
    name,
    opt,
    query,
    record,
    response,
    soa,
    ttls,
)
from tests.strategies import MadeResponse, responses

BOOT = b"0c9a2d35-boot"
IDENTITY = b"rules"
HEAD_OCTETS = 21 + len(BOOT)
STALE = CachePolicy(serve_stale=ServeStale(100.0))


def keep(
    store: MessageCache,
    text: str = "a.cluster.local",
    answer: Sequence[bytes] = (a(),),
    qtype: int = A,
    now: float = NOW,
) -> Message:
    asked = key(text, qtype)
    return keep_response(store, asked, response(asked, answer), now)


def keep_nxdomain(store: MessageCache, text: str, qtype: int = A, now: float = NOW) -> Message:
    asked = key(text, qtype)
    return keep_response(store, asked, response(asked, [], [soa()], rcode=3), now)


def keep_response(store: MessageCache, asked: bytes, octets: bytes, now: float = NOW) -> Message:
    assert admit_response(octets, asked, store, now, 0.5) is not None
    kept = store.peek(asked)
    assert kept is not None
    return kept


def touch(message: Message, now: float) -> None:
    assert message.partition is not None
    message.partition.touch(message)
    message.hits += 1
    message.hit_at = now


def written(store: MessageCache, now: float = NOW + 1, limit: int = snapshot.MOST_OCTETS) -> bytes:
    return b"".join(write([(IDENTITY, store)], BOOT, now, limit))


def load(octets: bytes, store: MessageCache, now: float = NOW + 1) -> int:
    section = read(octets, BOOT, now).sections.get(IDENTITY)
    return 0 if section is None else sum(restore(section, store, now))


def through(
    store: MessageCache, policy: CachePolicy | None = None, now: float = NOW + 1
) -> MessageCache:
    """The cache that a snapshot of ``store`` fills."""
    filled = cache(policy or store.policy)
    load(written(store, now), filled, now)
    check(filled)
    return filled


def check(*stores: MessageCache) -> None:
    """The invariants of cache/store.py, as far as one moment shows them."""
    budget = stores[0]._budget
    kept = [message for store in stores for message in store.all_messages()]
    assert budget.octets == budgeted_octets(kept) <= budget.limit_octets
    for store in stores:
        for half in (store.success, store.denial):
            inside = [each for each in store.all_messages() if each.partition is half]
            protected = [each for each in inside if each.is_protected]
            assert len(half) == len(inside) <= half.capacity
            assert len(protected) == len(half) - half.probation_count <= half.capacity * 0.8
            assert half.octets == sum(each.size_octets for each in inside)
        assert all(store.peek(each.key) is each for each in store.all_messages())


def reply(store: MessageCache, octets: bytes, now: float, limit: int = 4096) -> bytes:
    asked = scan_query(octets)
    assert isinstance(asked, Query)
    found = store.find(key_of(asked), now)
    assert found is not None
    return compose_reply(asked, found.flags, found.counts, found.records(now), limit)


def contents(message: Message) -> dict[str, object]:
    """All that makes up a message but the objects around it."""
    around = {"packets", "partition"}
    # Translated classes have no __slots__.
    names = {each for each in dir(Message) if not each.startswith("_")}
    slots = {each for each in names - around if not callable(getattr(Message, each))}
    assert len(slots) == 19
    return {slot: getattr(message, slot) for slot in slots}


@pytest.mark.parametrize("later", [0.0, 1.0, 17.5, 29.0])
def test_replies_are_the_same_octets_and_ttls_count_down(later: float) -> None:
    store = cache()
    keep(store, answer=[cname(300), a(30), a(60, b"\x0a\0\0\2")])
    keep_nxdomain(store, "no.cluster.local")
    filled = through(store, now=NOW)
    for asked in (
        query(),
        query("A.CLUSTER.local", edns=opt()),
        query("no.cluster.local", AAAA, 7),
        query("a.cluster.local", flags=0x0120),
    ):
        for limit in (4096, 64):
            one, other = (reply(each, asked, NOW + later, limit) for each in (store, filled))
            assert one == other
    whole = query()[:2] + reply(filled, query(), NOW + later)
    assert ttls(whole, len(query())) == [30 - int(later)] * 3


@given(
    made=responses(),
    flags=st.sampled_from([0x8180, 0x85B0, 0x8183]),
    bits=st.integers(0, 7),
    later=st.floats(0, 30),
)
def test_any_kept_response_comes_back_with_all_that_makes_it_up(
    made: MadeResponse, flags: int, bits: int, later: float
) -> None:
    store = cache(STALE)
    asked = made.question + bytes([bits])
    octets = struct.pack("!HH", 0, flags) + made.octets[4:12]
    octets += asked[:-1] + made.octets[made.question_end :]
    admit_response(octets, asked, store, NOW, 0.5)
    kept = store.peek(asked)
    filled = through(store, now=NOW + later)
    if kept is None or kept.kind is Kind.FAILURE:
        assert len(filled) == 0
        return
    found = filled.peek(asked)
    assert found is not None
    assert contents(found) == contents(kept)


def test_hits_refresh_and_protection_come_back() -> None:
    store = cache()
    hot = keep(store)
    touch(hot, NOW + 0.25)
    touch(hot, NOW + 0.5)
    keep(store, "b.cluster.local")
    filled = through(store)
    for text in ("a.cluster.local", "b.cluster.local"):
        before, after = store.peek(key(text)), filled.peek(key(text))
        assert before is not None
        assert after is not None
        assert contents(before) == contents(after)
    assert repr(filled.success) == repr(store.success)


def evictions(partition: Partition) -> list[bytes]:
    keys: list[bytes] = []
    forget = partition._forget

    def note(message: Message) -> None:
        keys.append(message.key)
        forget(message)

    partition._forget = note
    while len(partition):
        partition.evict()
    return keys


def test_order_of_eviction_comes_back() -> None:
    store = cache()
    kept = [keep(store, f"{n}.cluster.local") for n in range(700)]
    for turn, message in enumerate(kept[::-3] + kept[::5]):
        touch(message, NOW + turn / 1000)
    filled = through(store)
    assert evictions(filled.success) == evictions(store.success)


def test_refresh_that_was_under_way_is_due_again() -> None:
    store = cache()
    keep(store).refresh_at = NEVER
    kept = through(store).peek(key())
    assert kept is not None
    assert kept.refresh_at == NOW + 1
    without = through(store, CachePolicy(prefetch=None)).peek(key())
    assert without is not None
    assert without.refresh_at == without.expires_at


def test_expired_messages_are_left_out_unless_they_may_be_served_stale() -> None:
    for policy, count in ((CachePolicy(), 0), (STALE, 1)):
        store = cache(policy)
        keep(store, answer=[a(5)])
        octets = written(store, NOW + 1)
        for moment in (NOW + 5, NOW + 50):
            assert load(octets, cache(policy), moment) == count
            assert load(written(store, moment), cache(policy), moment) == count
        assert load(octets, cache(policy), NOW + 200) == 0


def test_failures_are_left_out() -> None:
    store = cache()
    admit_failure(key(), store, NOW)
    assert len(through(store, now=NOW)) == 0


def test_nxdomain_that_covers_all_types_still_does() -> None:
    store = cache()
    keep_nxdomain(store, "no.cluster.local")
    filled = through(store)
    found = filled.find(key("no.cluster.local", TXT), NOW + 1)
    assert found is not None
    assert found.covers_all_types
    keep(filled, "no.cluster.local", [a()], AAAA, NOW + 2)
    assert filled.find(key("no.cluster.local", TXT), NOW + 2) is None


def test_nxdomain_covers_all_types_by_the_rules_of_its_new_place_only() -> None:
    store = cache()
    keep_nxdomain(store, "no.cluster.local")
    elsewhere = MessageCache(CachePolicy(), Budget(1 << 20), name("example"))
    assert load(written(store), elsewhere) == 1
    assert elsewhere.find(key("no.cluster.local", TXT), NOW + 1) is None


def test_contradicted_nxdomain_covers_no_more_in_its_new_place_either() -> None:
    store = cache()
    touch(keep(store, qtype=AAAA), NOW)
    keep_nxdomain(store, "a.cluster.local", now=NOW + 1)
    keep_nxdomain(store, "other.cluster.local", now=NOW + 1)
    for each in (store, through(store)):
        for host in ("a.cluster.local", "other.cluster.local"):
            found = each.find(key(host), NOW + 1)
            assert found is not None
            assert found.kind is Kind.NXDOMAIN
            assert each.find(key(host, TXT), NOW + 1) is None


def test_lifetimes_are_cut_to_the_caps_of_the_new_policy() -> None:
    store = cache()
    keep(store)
    short = CachePolicy(success=Lifetime(100, 12), keep_ttl=True)
    kept = through(store, short).peek(key())
    assert kept is not None
    assert (kept.ttl_s, kept.expires_at, kept.keeps_ttl) == (12, NOW + 12, True)
    off = CachePolicy(disable_success=(CLUSTER_DOMAIN,))
    assert len(through(store, off)) == 0


def test_what_the_cache_has_is_fresher_and_stays() -> None:
    store = cache()
    keep(store)
    keep(store, "no.cluster.local", qtype=AAAA)
    octets = written(store)
    other = cache()
    fresh = keep(other, answer=[a(9, b"\x0a\0\0\x09")])
    covering = keep_nxdomain(other, "no.cluster.local")
    assert load(octets, other) == 0
    assert other.all_messages() == [fresh, covering]


def test_failure_gives_way_to_what_is_known() -> None:
    store = cache()
    keep(store)
    other = cache()
    admit_failure(key(), other, NOW + 1)
    assert load(written(store), other) == 1
    check(other)


@pytest.mark.parametrize(
    "store", [cache(CachePolicy(success=Lifetime(20, 3600))), cache(octets=20_000)]
)
def test_restoring_evicts_nothing_and_the_most_used_come_in(store: MessageCache) -> None:
    full = cache()
    for n in range(300):
        message = keep(full, f"{n}.cluster.local")
        if n % 50 == 0:
            touch(message, NOW)
    mine = [keep(store, f"mine{n}.cluster.local") for n in range(10)]
    assert 0 < load(written(full), store) < 20
    check(store)
    assert store.success.evictions == 0
    assert all(each.partition is not None for each in mine)
    assert all(store.peek(key(f"{n}.cluster.local")) for n in range(0, 300, 50))


def test_limit_costs_the_least_used_of_all_sections() -> None:
    stores = [cache(), cache()]
    for store in stores:
        for n in range(1000):
            message = keep(store, f"{n}.cluster.local")
            if n < 200:
                touch(message, NOW + n)
    sections = [(b"one", stores[0]), (b"two", stores[1])]
    octets = b"".join(write(sections, BOOT, NOW + 1, 60_000))
    assert 45_000 < len(octets) <= 60_000
    found = read(octets, BOOT, NOW + 1).sections
    for identity in (b"one", b"two"):
        filled = cache()
        assert sum(restore(found[identity], filled, NOW + 1)) >= 200
        assert len(filled.success) - filled.success.probation_count == 200


def test_limit_too_small_for_anything_gives_an_empty_snapshot() -> None:
    store = cache()
    keep(store)
    assert load(written(store, limit=0), cache()) == 0


def test_each_slice_is_bounded_in_messages_and_octets() -> None:
    store = cache(octets=1 << 24)
    for n in range(1000):
        keep(store, f"{n}.cluster.local")
    for n in range(40):
        rdata = b"".join(b"\xff" + bytes(255) for _ in range(200))
        keep(store, f"big{n}.cluster.local", [record(TXT, 30, rdata)], TXT)
    chunks = list(write([(IDENTITY, store)], BOOT, NOW))
    assert max(map(len, chunks)) < 2 * 65_536
    section = read(b"".join(chunks), BOOT, NOW).sections[IDENTITY]
    counts = list(restore(section, cache(octets=1 << 24), NOW))
    assert sum(counts) == 1040
    assert max(counts) <= 100


def test_many_protected_messages_are_sorted_in_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "_RUN_MESSAGES", 7)
    store = cache()
    kept = [keep(store, f"{n}.cluster.local") for n in range(50)]
    for turn, message in enumerate(kept[::3] + kept[1::3]):
        touch(message, NOW + turn / 1000)
    assert evictions(through(store).success) == evictions(store.success)


def test_caches_may_change_between_slices() -> None:
    store = cache()
    kept = [keep(store, f"{n}.cluster.local") for n in range(400)]
    chunks = []
    for turn, chunk in enumerate(write([(IDENTITY, store)], BOOT, NOW)):
        chunks.append(chunk)
        if turn == 6:  # the newest hundred are written
            for message in kept[:100]:
                store.remove(message)
            for n in range(100, 200):
                keep(store, f"{n}.cluster.local", [a(20, b"\x0a\0\0\x07")], now=NOW)
            keep(store, "late.cluster.local")
    filled = cache()
    load(b"".join(chunks), filled)
    assert filled.peek(key("0.cluster.local")) is None
    renewed = filled.peek(key("150.cluster.local"))
    assert renewed is not None
    assert renewed.ttl_s == 20
    assert filled.peek(key("350.cluster.local")) is not None


def test_cache_may_retire_between_slices() -> None:
    store = cache()
    for n in range(300):
        keep(store, f"{n}.cluster.local")
    steps = write([(IDENTITY, store)], BOOT, NOW)
    chunks = [next(steps) for _ in range(6)]
    while store.pop_next() is not None:
        pass
    assert load(b"".join([*chunks, *steps]), cache()) < 300


def test_message_too_long_for_the_wire_is_left_out() -> None:
    store = cache()
    keep(store)
    octets = bytes(65_500)
    pieces = (b"\xc0\x0c\0\x10\0\1", struct.pack("!H", len(octets)) + octets)
    store.admit(Message(key("b.local"), Kind.SUCCESS, 0x8180, (1, 0, 0), pieces, 30, NOW), NOW)
    assert len(store) == 2
    assert len(through(store)) == 1


def test_same_identity_may_come_twice() -> None:
    stores = cache(), cache()
    keep(stores[0])
    keep(stores[1], "b.cluster.local")
    octets = b"".join(write([(IDENTITY, each) for each in stores], BOOT, NOW))
    assert load(octets, cache(), NOW + 1) == 2


@pytest.fixture(scope="module")
def sound() -> bytes:
    store = cache()
    keep(store, answer=[cname(), a()])
    touch(keep(store, "b.cluster.local"), NOW + 0.5)
    keep_nxdomain(store, "no.cluster.local")
    return written(store)


def refusal(octets: bytes | memoryview, boot_id: bytes = BOOT, now: float = NOW + 1) -> str:
    with pytest.raises(SnapshotError) as caught:
        read(octets, boot_id, now)
    return str(caught.value)


def test_refusals_say_why(sound: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refusal(b"") == refusal(b"x" * 999) == "it is no snapshot"
    assert refusal(sound, b"other") == "it was written before the machine was started"
    within = "it was not written within the last hour"
    assert refusal(sound, now=NOW + 0.9) == refusal(sound, now=NOW + 3602) == within
    other = sound[:8] + struct.pack("!I", 2) + sound[12:]
    assert refusal(other) == "its format is 2, not 1"
    assert refusal(sound[:-1]) == "its end is missing"
    assert refusal(sealed(sound[:-9] + b"X\0\0\0\0")) == "its frames are broken"
    monkeypatch.setattr(snapshot, "MOST_OCTETS", 99)
    assert refusal(sound) == "it is longer than 256 MiB"


def test_memoryview_is_read_like_bytes(sound: bytes) -> None:
    assert read(memoryview(sound), BOOT, NOW + 1).sections.keys() == {IDENTITY}


def test_cut_anywhere_it_is_refused(sound: bytes) -> None:
    for end in range(len(sound)):
        refusal(sound[:end])
        refusal(sound + sound[:end][-1:] if end else sound + b"\0")


def test_one_wrong_octet_anywhere_is_noticed(sound: bytes) -> None:
    for at in range(len(sound)):
        refusal(sound[:at] + bytes([sound[at] ^ 0x10]) + sound[at + 1 :])


@given(st.binary(max_size=300))
def test_any_octets_are_refused(octets: bytes) -> None:
    refusal(octets)
    refusal(octets, b"")


def sealed(body: bytes) -> bytes:
    """``body`` with an end that fits."""
    return body + struct.pack("!cII", b"E", 4, zlib.crc32(body))


def spoiled(sound: bytes, changes: Iterable[tuple[int, bytes]]) -> bytes:
    """``sound`` with octets overwritten behind its head, and the right checksum all the same."""
    body = bytearray(sound[:-9])
    for at, octets in changes:
        place = HEAD_OCTETS + at % (len(body) - HEAD_OCTETS)
        body[place : place + len(octets)] = octets
    return sealed(bytes(body))


SPECIAL = [struct.pack("!d", value) for value in (float("nan"), NEVER, -NEVER, 1e300, -1.0, 0.0)]
CHANGES = st.tuples(
    st.integers(0, 4000), st.binary(min_size=1, max_size=8) | st.sampled_from(SPECIAL)
)


@settings(max_examples=400)
@given(changes=st.lists(CHANGES, min_size=1, max_size=6))
def test_damage_that_the_checksum_hides_builds_no_wrong_reply(
    sound: bytes, changes: list[tuple[int, bytes]]
) -> None:
    """What is restored is what an upstream could have sent, for no longer than it may be kept."""
    store = cache(STALE)
    now = NOW + 1
    try:
        load(spoiled(sound, changes), store, now)
    except SnapshotError:
        return
    check(store)
    for message in store.all_messages():
        octets = response(message.key, rcode=0)[:6] + struct.pack("!3H", *message.counts)
        octets += message.key[:QUESTION_END] + message.records(now)
        again = scan_response(octets, 12 + len(message.key) - 1)
        assert again is not None
        assert (again.pieces, again.counts) == (message.pieces, message.counts)
        cap = STALE.success if message.kind is Kind.SUCCESS else STALE.denial
        assert 0 <= message.remaining_ttl(now) <= message.ttl_s <= cap.max_ttl_s
        assert message.expires_at <= message.keep_until <= now + cap.max_ttl_s + 100
        assert message.stored_at <= message.hit_at <= now
        assert message.refresh_at <= max(message.expires_at, now)
    store._budget.expire(now + 1e6)


def test_times_of_the_impossible_are_refused() -> None:
    store = cache()
    kept = keep(store)
    for stored_at, ttl_s in (
        (NOW + 2, 30.0),
        (float("nan"), 30.0),
        (NOW, float("nan")),
        (NOW, NEVER),
        (NOW, 0.0),
        (NOW, -1.0),
        (-NEVER, 30.0),
    ):
        kept.stored_at, kept.ttl_s = stored_at, ttl_s
        assert load(written(store), cache()) == 0


def test_prefetch_counts_go_on() -> None:
    store = cache(CachePolicy(prefetch=Prefetch(3)))
    touch(keep(store), NOW + 0.5)
    kept = through(store).peek(key())
    assert kept is not None
    assert (kept.hits, kept.hit_at) == (1, NOW + 0.5)


def test_negative_answer_behind_an_alias_comes_back() -> None:
    store = cache()
    asked = key("alias.cluster.local", SOA)
    octets = response(asked, [cname(20)], [soa()], rcode=3)
    keep_response(store, asked, octets)
    kept = through(store).peek(asked)
    assert kept is not None
    assert (kept.kind, kept.covers_all_types, kept.counts) == (Kind.NXDOMAIN, False, (1, 1, 0))


def test_ten_thousand_messages_of_one_address_take_little(
    record_property: Callable[[str, object], None],
) -> None:
    store = cache(CachePolicy(success=Lifetime(10_000, 3600)), 1 << 24)
    for n in range(10_000):
        keep(store, f"service-{n}.namespace-{n % 50}.svc.cluster.local")
    octets = written(store)
    assert len(octets) / 10_000 < 150
    filled = cache(store.policy, 1 << 24)
    assert load(octets, filled) == 10_000
    check(filled)
    record_property("octets of a snapshot of 10,000 messages", len(octets))
