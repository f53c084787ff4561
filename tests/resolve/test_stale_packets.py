"""Tier 1 never serves stale by accident: whatever happens, in whatever order, at whatever time."""

from __future__ import annotations

import math
from dataclasses import replace

import dns.message
import dns.rcode
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from nodecache.cache.carry_over import rebound
from nodecache.config.model import CachePolicy, Lifetime, ServeStale, StaleMode
from nodecache.upstreams.exchange import Failure
from tests.cache.building import AAAA, a, opt, query, response, soa
from tests.resolve.resolving import Bed, extended_errors

POLICIES = {
    "off": CachePolicy(),
    "immediate": replace(CachePolicy(), serve_stale=ServeStale()),
    "verify": replace(CachePolicy(), serve_stale=ServeStale(mode=StaleMode.VERIFY)),
    "short": replace(CachePolicy(), serve_stale=ServeStale(3.0), prefetch=None),
    "few": replace(CachePolicy(), serve_stale=ServeStale(), success=Lifetime(1, 3600)),
}
QUERIES = [
    query("a.cluster.local"),
    query("a.cluster.local", edns=opt()),
    query("a.cluster.local", AAAA),
    query("b.cluster.local"),
]
FAILURES = [*Failure, "SERVFAIL", "REFUSED", "empty"]


class Packets(RuleBasedStateMachine):
    """Queries, answers, time, expiry and reloads over one resolver and its packet cache.

    The model: each positive answer has an address of its own, and a time when it ends.
    """

    @initialize(mode=st.sampled_from(sorted(POLICIES)), start=st.floats(10, 1e6))
    def begin(self, mode: str, start: float) -> None:
        self.bed = Bed(POLICIES[mode], now=start)
        self.ends: dict[str, float] = {}
        self.packet_hits = 0

    @rule(octets=st.sampled_from(QUERIES), times=st.integers(1, 4))
    def ask(self, octets: bytes, times: int) -> None:
        for _ in range(times):
            self._serve(octets)

    def _serve(self, octets: bytes) -> None:
        """As net/udp.py has it."""
        bed, packets, now = self.bed, self.bed.packets, self.bed.now
        if now >= packets.turns_at:
            packets.turn(now)
        packet = packets.fresh.get(octets[2:]) or packets.revive(octets[2:], now)
        if packet is None:
            bed.ask(octets)
            bed.wait(
                0
            )  # the daemon sets the resolver's timer after each batch, one that is due too
            return
        packet.hits += 1
        self.packet_hits += 1
        assert now < packet.message.expires_at
        assert packet.message.partition is not None
        self._check_against_model(octets[:2] + packet.reply)

    def _check_against_model(self, octets: bytes) -> None:
        reply = dns.message.from_wire(octets)
        assert extended_errors(reply) == []
        assert reply.rcode() in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN)
        for rrset in reply.answer:
            ends_at = self.ends[str(rrset[0])]
            assert self.bed.now < ends_at
            assert rrset.ttl <= math.ceil(ends_at - self.bed.now)

    @rule(octets=st.sampled_from(QUERIES[:2]), ttl=st.integers(3, 6))
    def learn(self, octets: bytes, ttl: int) -> None:
        """The usual beginning: a miss, its answer, hits, and the time that a refresh is due."""
        self._serve(octets)
        self.answer(0, ttl)
        for _ in range(3):
            self._serve(octets)
        self.bed.wait(ttl - 1.4)
        self._serve(octets)

    @rule(seconds=st.one_of(st.floats(0, 1.5), st.sampled_from([0.4, 1.0, 2.0, 3.0, 4.5, 10.0])))
    def wait(self, seconds: float) -> None:
        self.bed.wait(seconds)

    @rule(index=st.integers(0, 7), ttl=st.integers(0, 8))
    def answer(self, index: int, ttl: int) -> None:
        if self.bed.forwarder.under_way:
            index %= len(self.bed.forwarder.under_way)
            key = self.bed.forwarder.under_way[index].key
            if key[-4] == AAAA:
                self.bed.answer(response(key, [], [soa(ttl, ttl)]), index)
                return
            number = len(self.ends)
            address = bytes([10, number >> 16, number >> 8 & 255, number & 255])
            self.ends[".".join(map(str, address))] = self.bed.now + ttl
            self.bed.answer(response(key, [a(ttl, address)]), index)

    @rule(index=st.integers(0, 7), ttl=st.integers(0, 8))
    def deny(self, index: int, ttl: int) -> None:
        if self.bed.forwarder.under_way:
            index %= len(self.bed.forwarder.under_way)
            key = self.bed.forwarder.under_way[index].key
            self.bed.answer(response(key, [], [soa(ttl, ttl)], rcode=3), index)

    @rule(index=st.integers(0, 7), how=st.sampled_from(FAILURES))
    def fail(self, index: int, how: Failure | str) -> None:
        if self.bed.forwarder.under_way:
            index %= len(self.bed.forwarder.under_way)
            key = self.bed.forwarder.under_way[index].key
            rcodes = {"SERVFAIL": 2, "REFUSED": 5, "empty": 0}
            result = response(key, rcode=rcodes[how]) if isinstance(how, str) else how
            self.bed.answer(result, index)

    @rule(is_dead=st.booleans())
    def lose_or_find_the_upstream(self, is_dead: bool) -> None:
        self.bed.forwarder.is_dead = is_dead

    @rule()
    def expire(self) -> None:
        assert self.bed.messages is not None
        self.bed.messages._budget.expire(self.bed.now)

    @rule(cap_s=st.integers(1, 4))
    def reload_with_a_smaller_cap(self, cap_s: int) -> None:
        """As carry_over does it: what is kept leaves, packets too, and comes back shortened."""
        messages = self.bed.messages
        assert messages is not None
        bounds = Lifetime(9984, cap_s)
        policy = replace(messages.policy, success=bounds, denial=bounds)
        for message in messages.all_messages():
            messages.remove(message)
            if rebound(message, policy, self.bed.now):
                messages.admit(message, self.bed.now)

    @invariant()
    def counts_of_exchanges_agree(self) -> None:
        if not hasattr(self, "bed"):
            return
        under_way = self.bed.forwarder.under_way
        assert self.bed.resolver.pending_count == len(self.bed.state.pending) == len(under_way)
        assert self.bed.state.asked_ahead == sum(each.is_ahead for each in under_way)

    @invariant()
    def nobody_waits_beyond_the_verify_time_when_something_stale_is_there(self) -> None:
        if not hasattr(self, "bed"):
            return
        for pending in self.bed.forwarder.under_way:
            known = pending.message
            if known is None or known.partition is None or not pending.stale_at:
                continue  # evicted meanwhile: there is nothing any more
            if known.keep_until <= self.bed.now:
                continue  # nor is there when its time is over, until the next sweep takes it
            if pending.waiters:
                assert self.bed.now <= pending.stale_at + 1e-9


TestPackets = Packets.TestCase
TestPackets.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
