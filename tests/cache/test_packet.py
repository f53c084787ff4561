from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from nodecache.cache import packet as packet_module
from nodecache.cache.lifetime import Kind
from nodecache.cache.message import Message
from nodecache.cache.packet import Packet, PacketCache
from nodecache.cache.store import MessageCache
from nodecache.counters import CacheSeries, QuerySeries
from nodecache.wire.query import Query, scan_query
from nodecache.wire.reply import compose_ends
from tests.cache.building import NOW, a, cache, key, message, name, query, ttls

HOSTS = tuple(f"{host}.cluster.local" for host in "abcde")


class Caches:
    """A packet cache over a message cache, asked as the socket loop asks it."""

    def __init__(self, most_entries: int = 100, most_octets: int = 1 << 20) -> None:
        self.now = NOW
        self.store: MessageCache = cache()
        self.packets = PacketCache(most_entries, most_octets, bytes)
        self.queries = QuerySeries("dns://x", ".", "udp", "1")
        self.caches = CacheSeries("dns://x", ".")

    def keep(self, host: str = HOSTS[0], ttl_s: float = 30.0, kind: Kind = Kind.SUCCESS) -> Message:
        made = message(key(host), self.now, kind, ttl_s)
        # One A record, whole.
        made.pieces = (b"\xc0\x0c\0\1\0\1", b"\0\4\x0a\0\0\1")
        self.store.admit(made, self.now)
        return made

    def admit(self, octets: bytes, made: Message) -> Packet:
        found = scan_query(octets)
        assert isinstance(found, Query)
        head, tail, fits = compose_ends(found, made.flags, made.counts, made.records_octets, 512)
        assert fits
        packet = Packet(found, made, made.pieces, (head, tail), (self.queries, self.caches))
        self.packets.admit(packet, self.now)
        return packet

    def hit(self, octets: bytes) -> bytes | None:
        """Returns the reply as the UDP server finds it."""
        if self.now >= self.packets.turns_at:
            self.packets.turn(self.now)
        packet = self.packets.fresh.get(octets[2:]) or self.packets.revive(octets[2:], self.now)
        if packet is None:
            return None
        packet.hits += 1
        self.packets.durations.observe(0.0001)
        assert packet.sealed == packet.reply
        return octets[:2] + packet.reply


@pytest.fixture
def bed() -> Caches:
    bed = Caches()
    bed.packets.turn(bed.now)
    return bed


def shown_ttl(reply: bytes | None) -> int | None:
    return None if reply is None else ttls(reply, len(query()))[0]


def test_hit_is_the_reply_with_the_id_of_who_asks(bed: Caches) -> None:
    bed.admit(query(ident=1), bed.keep())
    reply = bed.hit(query(ident=0xBEEF))
    assert reply is not None
    assert reply[:2] == b"\xbe\xef"
    assert reply[12:] == query()[12:] + a(30)


def test_ttl_counts_down_second_by_second_and_never_shows_more_than_tier_2(bed: Caches) -> None:
    made = bed.keep(ttl_s=30)
    bed.admit(query(), made)
    shown = []
    for _ in range(300):
        ttl = shown_ttl(bed.hit(query()))
        if ttl is not None:
            assert ttl <= made.remaining_ttl(bed.now)
            assert ttl < made.expires_at - bed.now + 1
            shown.append(ttl)
        bed.now += 0.1
    assert sorted(set(shown), reverse=True) == list(range(30, 0, -1))
    assert shown == sorted(shown, reverse=True)


def test_nothing_is_served_in_or_behind_the_second_of_expiry(bed: Caches) -> None:
    made = bed.keep(ttl_s=5)
    bed.admit(query(), made)
    bed.now = made.expires_at - 0.001
    assert bed.hit(query()) is None
    bed.now = made.expires_at + 0.001
    assert bed.hit(query()) is None


def test_keepttl_shows_the_same_ttl_in_every_second(bed: Caches) -> None:
    made = bed.keep()
    made.keeps_ttl = True
    bed.admit(query(), made)
    bed.now += 20
    assert shown_ttl(bed.hit(query())) == 30


def test_nothing_is_served_after_its_message_left(bed: Caches) -> None:
    made = bed.keep()
    bed.admit(query(), made)
    bed.store.remove(made)
    assert bed.hit(query()) is None
    assert (len(bed.packets), bed.packets.octets) == (0, 0)


def test_nothing_is_served_after_its_message_was_replaced(bed: Caches) -> None:
    packet = bed.admit(query(), bed.keep())
    bed.keep()
    assert bed.hit(query()) is None
    assert packet.cache is None


def test_nothing_is_served_after_its_message_was_evicted() -> None:
    bed = Caches()
    bed.packets.turn(bed.now)
    bed.store = cache(octets=3000)
    bed.admit(query(), bed.keep())
    for host in ("x", "y", "z"):
        bed.keep(host)
    assert bed.hit(query()) is None


def test_message_due_for_refresh_is_left_to_tier_2(bed: Caches) -> None:
    made = bed.keep()
    bed.admit(query(), made)
    bed.hit(query())
    made.refresh_at = bed.now + 2
    bed.now += 3
    assert bed.hit(query()) is None
    assert made.hits == 1
    made.refresh_at = float("inf")
    assert bed.hit(query()) is not None


def test_short_lived_message_is_not_admitted(bed: Caches) -> None:
    packet = bed.admit(query(), bed.keep(ttl_s=2))
    assert packet.cache is None
    assert bed.hit(query()) is None


def test_other_flags_case_or_edns_are_other_packets(bed: Caches) -> None:
    bed.admit(query(), bed.keep())
    for other in (
        query(flags=0x0120),
        query(flags=0x0000),
        query("A.cluster.local"),
        query(edns=b"\0\0\x29\4\xd0\0\0\0\0\0\0"),
    ):
        assert bed.hit(other) is None


def test_admitting_again_replaces_the_packet_and_loses_no_hit(bed: Caches) -> None:
    made = bed.keep()
    bed.admit(query(), made)
    bed.hit(query())
    bed.admit(query(), made)
    bed.packets.hand_in(bed.now)
    assert len(bed.packets) == 1
    assert made.hits == bed.caches.success_hits == 1


def test_hit_protects_the_message_once_a_second(bed: Caches) -> None:
    made = bed.keep()
    bed.admit(query(), made)
    bed.now += 1
    bed.hit(query())
    assert made.is_protected


def test_longest_unused_packet_makes_room() -> None:
    bed = Caches(most_entries=2)
    bed.packets.turn(bed.now)
    for host in HOSTS[:2]:
        bed.admit(query(host), bed.keep(host))
    bed.now += 1
    assert bed.hit(query(HOSTS[0])) is not None
    bed.admit(query(HOSTS[2]), bed.keep(HOSTS[2]))
    assert [bed.hit(query(host)) is not None for host in HOSTS[:3]] == [True, False, True]


def test_packet_larger_than_the_bound_is_not_kept() -> None:
    bed = Caches(most_octets=100)
    bed.packets.turn(bed.now)
    bed.admit(query(), bed.keep())
    assert (len(bed.packets), bed.packets.octets) == (0, 0)
    assert bed.hit(query()) is None


@pytest.mark.parametrize("kind", [Kind.SUCCESS, Kind.NODATA, Kind.NXDOMAIN])
def test_counts_are_exact_after_hand_in(bed: Caches, kind: Kind) -> None:
    made = bed.keep(kind=kind)
    bed.admit(query(), made)
    replies = [bed.hit(query()) for _ in range(7)]
    bed.packets.hand_in(bed.now)
    bed.packets.hand_in(bed.now)
    assert made.hits == 7
    assert made.hit_at == bed.now
    assert bed.queries.requests == {1: 7}
    assert bed.queries.responses == {(made.rcode, "cache"): 7}
    assert bed.queries.request_sizes.total == 7 * len(query())
    assert bed.queries.response_sizes.total == sum(len(reply or b"") for reply in replies)
    assert sum(bed.queries.durations.counts) == 7
    assert bed.queries.durations.total == pytest.approx(0.0007)
    assert bed.caches.requests == 7
    hits = (bed.caches.success_hits, bed.caches.denial_hits)
    assert hits == ((7, 0) if kind is Kind.SUCCESS else (0, 7))


def test_durations_are_dealt_out_to_the_zones_by_their_hits(bed: Caches) -> None:
    bed.admit(query(HOSTS[0]), bed.keep(HOSTS[0]))
    first = bed.queries
    bed.queries = QuerySeries("dns://x", "cluster.local.", "udp", "1")
    bed.admit(query(HOSTS[1]), bed.keep(HOSTS[1]))
    for host in (0, 0, 0, 1):
        bed.hit(query(HOSTS[host]))
    bed.packets.hand_in(bed.now)
    assert [sum(first.durations.counts), sum(bed.queries.durations.counts)] == [3, 1]
    assert first.durations.total == pytest.approx(0.0003)


class Packets(RuleBasedStateMachine):
    """Whatever happens: bounds hold, no hit is lost, nothing outlives its message."""

    @initialize(most_entries=st.integers(1, 6), most_octets=st.sampled_from([1500, 3500, 1 << 20]))
    def build(self, most_entries: int, most_octets: int) -> None:
        self.bed = Caches(most_entries, most_octets)
        self.bed.packets.turn(self.bed.now)
        self.bounds = most_entries, most_octets
        self.hits = 0

    @rule(host=st.sampled_from(HOSTS), ttl_s=st.integers(1, 20))
    def keep(self, host: str, ttl_s: int) -> None:
        self.bed.keep(host, float(ttl_s))

    @rule(host=st.sampled_from(HOSTS), flags=st.sampled_from([0x0100, 0x0120]))
    def ask(self, host: str, flags: int) -> None:
        bed, octets = self.bed, query(host, flags=flags)
        reply = bed.hit(octets)
        made = bed.store.find(key(host), bed.now)
        is_valid = made is not None and made.expires_at > bed.now
        if reply is not None:
            self.hits += 1
            assert made is not None
            assert is_valid
            assert 0 < ttls(reply, len(octets))[0] <= made.remaining_ttl(bed.now)
        elif made is not None and is_valid:
            bed.admit(octets, made)

    @rule(seconds=st.floats(0.01, 8))
    def wait(self, seconds: float) -> None:
        self.bed.now += seconds

    @rule(host=st.sampled_from(HOSTS))
    def remove(self, host: str) -> None:
        made = self.bed.store.peek(key(host))
        if made is not None:
            self.bed.store.remove(made)

    @rule()
    def scrape(self) -> None:
        self.bed.packets.hand_in(self.bed.now)
        assert sum(self.bed.queries.requests.values()) == self.hits
        assert sum(self.bed.queries.durations.counts) == self.hits
        assert self.bed.caches.success_hits == self.hits

    @invariant()
    def bounds_hold(self) -> None:
        packets = self.bed.packets
        assert len(packets) <= self.bounds[0]
        assert packets.octets <= self.bounds[1]
        assert (packets.octets == 0) == (len(packets) == 0)
        assert len(packets.fresh) <= len(packets)


Packets.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
TestPackets = Packets.TestCase


def test_names_in_the_bed_are_of_one_length() -> None:
    assert len({len(name(host)) for host in HOSTS}) == 1


def test_packet_is_not_served_before_its_message_went_over_to_other_rules(bed: Caches) -> None:
    bed.admit(query(), bed.keep())
    assert bed.hit(query()) is not None
    bed.store.retire()
    bed.packets.doubt()
    assert bed.hit(query()) is None


def test_packet_that_is_doubted_is_served_on_if_nothing_came_of_it(bed: Caches) -> None:
    bed.admit(query(), bed.keep())
    before = bed.hit(query())
    bed.packets.doubt()
    assert bed.hit(query()) == before


def test_counts_that_are_handed_in_slowly_are_exact_and_counted_once(bed: Caches) -> None:
    for n in range(50):
        host = f"n{n}.cluster.local"
        bed.admit(query(host), bed.keep(host))
        bed.hit(query(host))
    steps = list(bed.packets.hand_in_slowly(bed.now))
    assert bed.caches.packet_hits == 50
    assert steps == []
    bed.packets.hand_in(bed.now)
    assert bed.caches.packet_hits == 50
    assert sum(bed.queries.durations.counts) == 50


def test_packets_that_leave_between_slices_are_counted_once(
    bed: Caches, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packet_module, "_HANDED_IN_AT_ONCE", 1)
    for host in HOSTS:
        bed.admit(query(host), bed.keep(host))
        bed.hit(query(host))
    steps = bed.packets.hand_in_slowly(bed.now)
    next(steps)
    bed.packets.clear()
    assert len(list(steps)) == len(HOSTS) - 1
    assert bed.caches.packet_hits == len(HOSTS)
