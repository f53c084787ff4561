"""Behind the packet cache: find the zone, look up, and answer a hit; a miss joins others or begins.

Sans-I/O. ``query`` takes what a listener received. A miss goes out through exchanges.py, what an
upstream answered comes back through answering.py, and replies that come later are collected in
``results`` for the shell to deliver.

Every query gets one reply, or a counted drop (``Counters.drops``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nodecache.cache.lifetime import Kind
from nodecache.cache.message import NEVER, Message
from nodecache.cache.packet import Packet
from nodecache.counters import Counters
from nodecache.resolve.admission import Admission, shed
from nodecache.resolve.answering import Answering
from nodecache.resolve.block import MOST_WAITERS, BlockState, Guard, Pending
from nodecache.resolve.exchanges import Asks, Exchanges
from nodecache.resolve.listener import Listener
from nodecache.resolve.prefetch import Prefetcher
from nodecache.resolve.results import Results
from nodecache.resolve.slow_names import SlowNames
from nodecache.resolve.stale import StaleServing
from nodecache.resolve.waiter import Waiter, identity_for, most_octets, reply_stale
from nodecache.upstreams.exchange import Failure
from nodecache.wire.const import HEADER_OCTETS, RA, TYPE_AND_CLASS
from nodecache.wire.key import RD_MARK, key_of, make_key
from nodecache.wire.numbers import (
    CLASS_IN,
    EDE_CACHED_ERROR,
    NXDOMAIN,
    REFUSED,
    SERVFAIL,
    TYPE_HINFO,
)
from nodecache.wire.query import Query, Refusal, Silence, scan_query
from nodecache.wire.reply import (
    compose_ends,
    compose_refusal,
    compose_reply,
    extended_error,
    keep_what_fits,
)

SILENCE = b""  # what ``query`` returns when there will be no reply

_NO_COUNTS = (0, 0, 0)
_CACHED_ERROR = extended_error(EDE_CACHED_ERROR)


class Resolver:
    """The way of a query behind the packet caches of all listeners."""

    def __init__(
        self,
        forwarder: Asks,
        counters: Counters,
        random: Callable[[], float],
        most_pending: int,
        client_share: int = 100,
    ) -> None:
        """Makes a resolver with nothing under way.

        Args:
            forwarder: Asks the upstreams.
            counters: Of the whole daemon.
            random: Returns numbers in [0, 1).
            most_pending: Exchanges under way above which misses are REFUSED.
            client_share: Per cent for one client, see ClientShares.
        """
        self.results = Results()
        self.self_check = b""
        self.own_question = b"\0"  # no message ends so behind its ID
        self.on_own_question: Callable[[], None] = _ignore
        self._counters = counters
        refusal, looks_dead = forwarder.refusal, forwarder.looks_dead
        self._admission = Admission(refusal, counters, self.results, most_pending, client_share)
        self._exchanges = Exchanges(forwarder, self._admission, self.results)
        self._stale = StaleServing(self._exchanges, looks_dead, self.results)
        self._answering = Answering(
            forwarder, self._exchanges, self._admission, self._stale, self.results, counters, random
        )
        self._prefetcher = Prefetcher(self._exchanges, counters)

    @property
    def slow_names(self) -> SlowNames:
        """The names that upstreams take long for."""
        return self._answering.slow_names

    def watch_ends(self, see: Callable[[Pending, bytes | Failure, float], None] | None) -> None:
        """Has ``see`` told of the end of each exchange that begins from now on; None ends that."""
        if see is None:
            self._exchanges.on_done = self._answering.done
            return

        def done(pending: Pending, result: bytes | Failure, now: float) -> bool:
            see(pending, result, now)
            return self._answering.done(pending, result, now)

        self._exchanges.on_done = done

    @property
    def pending_count(self) -> int:
        """Exchanges under way."""
        return self._admission.pending_count

    def refuse_misses(self) -> None:
        """From now on answers what it knows, and refuses the rest: we are about to leave."""
        self._admission.refuse_all()

    def query(self, octets: bytes, listener: Listener, client: Any, now: float) -> bytes | None:
        """Returns the reply to ``octets``, SILENCE for none, None if it comes in ``results``.

        ``client`` is handed back to ``listener.deliver``. Raises nothing.
        """
        query = scan_query(octets)
        if not isinstance(query, Query):
            return self._refuse(octets, query, listener)
        served = listener.zones.find(query.qname, query.qtype)
        if served is None:
            return _refuse_unserved(query, listener)
        if served.before_cache is not None:
            return served.before_cache.query(query, client, now)
        return self.resolve(Waiter(listener, client, query, served, now), now)

    def _refuse(self, octets: bytes, verdict: Refusal | Silence, listener: Listener) -> bytes:
        if isinstance(verdict, Silence):
            self._counters.count_drop(verdict.value)
            return SILENCE
        if octets[2:] == self.own_question:
            self.on_own_question()
            return SILENCE
        reply = octets[:2] + compose_refusal(octets, verdict)
        if octets[2:] == self.self_check:
            # Whoever asks knows by the mark that it is us; others who answer do not repeat it.
            return reply + octets[HEADER_OCTETS:]
        unserved = listener.zones.unserved
        unserved.count_query(0, len(octets), wants_dnssec=False)
        unserved.count_response(verdict.rcode, "", len(reply))
        return reply

    def resolve(self, waiter: Waiter, now: float) -> bytes | None:
        """Returns the reply to a query that has its zone; else as ``query``."""
        query, served = waiter.query, waiter.served
        served.queries.count_query(query.qtype, len(query.octets), query.dnssec_ok)
        messages = served.state.cache_for(query.qname)
        if messages is None:
            return self._miss(waiter, key_of(query), None, now)
        served.caches.requests += 1
        key = key_of(query)
        message = messages.find(key, now)
        if message is not None and message.expires_at > now:
            # What another type or a name above was denied is no answer to what is under way: who
            # asks now gets what those get who wait, and that may contradict it.
            if (
                not message.covers_all_types
                or message.key == key
                or key not in served.state.pending
            ):
                return self._hit(waiter, message, now)
            message = messages.peek(key)
        served.caches.misses += 1
        if message is not None and message.kind is not Kind.FAILURE and message.keep_until > now:
            return self._miss(waiter, key, message, now)
        return self._miss(waiter, key, None, now)

    def _hit(self, waiter: Waiter, message: Message, now: float) -> bytes:
        """Returns the reply made of a valid message, and admits the question to tier 1."""
        listener, query, served = waiter.listener, waiter.query, waiter.served
        if message.kind is Kind.SUCCESS:
            served.caches.success_hits += 1
        else:
            served.caches.denial_hits += 1
        if message.partition is not None:
            message.partition.touch(message)
        self._prefetcher.note_hit(message, served, now)
        limit = most_octets(query, listener, served.state)
        options = _CACHED_ERROR if message.kind is Kind.FAILURE else b""
        if served.state.nsid:
            options += identity_for(query, served.state)
        head, tail, fits = compose_ends(
            query, message.flags, message.counts, message.records_octets, limit, options
        )
        records, pieces = message.records(now), message.pieces
        if not fits:
            head, kept, octets = keep_what_fits(query, head, tail, records, message.counts, limit)
            records, pieces = records[:octets], message.first_pieces(kept, octets)
        reply = query.octets[:2] + head + records + tail
        served.queries.count_response(message.rcode, "cache", len(reply))
        if message.rcode == NXDOMAIN:
            served.queries.count_nxdomain(query.qname)
        served.queries.durations.observe(0.0)
        packets = listener.packets
        # Cookies and 0x20 spellings will not come again: they would only push others out.
        if packets is not None and not query.is_personal and query.qname in query.octets:
            series = (served.queries, served.caches)
            packets.admit(Packet(query, message, pieces, (head, tail), series), now)
        return reply

    def _miss(self, waiter: Waiter, key: bytes, stale: Message | None, now: float) -> bytes | None:
        """Joins or begins the exchange for ``key``; ``stale`` may be served instead (RFC 8767)."""
        state = waiter.served.state
        guard = state.guard
        if guard is not None and guard.stops(waiter.query.qname):
            return shed(waiter, stale, SERVFAIL)
        pending = state.pending.get(key)
        if pending is not None:
            if len(pending.waiters) >= MOST_WAITERS:
                self._counters.count_event("shed")
                return shed(waiter, stale)
            self._counters.count_event("coalesced")
            return self._wait(pending, waiter, stale, now)
        if stale is not None and self._stale.is_fresh_unlikely(waiter, stale, now):
            return self._stale.ask_behind(waiter, key, stale, now)
        pending = self._exchanges.begin(state, key, now, waiter)
        if pending is None:
            return shed(waiter, stale)
        reply = self._wait(pending, waiter, stale, now)
        self._exchanges.submit(pending, now)
        return reply

    def _wait(
        self, pending: Pending, waiter: Waiter, stale: Message | None, now: float
    ) -> bytes | None:
        """Lets ``waiter`` wait; returns a stale reply if it should not have to."""
        if stale is not None and self._stale.offer(pending, stale, now):
            return reply_stale(waiter, stale)
        if pending.wants_whole and waiter.listener.proto == "udp":
            pending.wants_whole = False
        pending.waiters.append(waiter)
        return None

    def look_for_loop(self, state: BlockState, guard: Guard, now: float) -> None:
        """Asks for the name of ``guard`` and keeps nothing; ``guard`` tells what came of it."""
        state.guard = guard
        key = make_key(guard.qname + TYPE_AND_CLASS.pack(TYPE_HINFO, CLASS_IN), RD_MARK)
        pending = self._exchanges.begin(state, key, now)
        if pending is not None:
            pending.messages = None
            self._exchanges.submit(pending, now)

    def next_timer(self) -> float | None:
        """Returns when ``timer`` wants to be called, monotonic seconds; None for never."""
        first = self._prefetcher.due.next_at
        if self._stale.next_at < first:
            first = self._stale.next_at
        return first if first < NEVER else None

    def timer(self, now: float) -> None:
        """Refreshes what is due, and serves stale to those who have waited long enough."""
        self._prefetcher.timer(now)
        self._stale.timer(now)


def _ignore() -> None:
    """Stands in until somebody asks himself."""


def _refuse_unserved(query: Query, listener: Listener) -> bytes:
    """Returns the reply to a query that no zone takes."""
    unserved = listener.zones.unserved
    unserved.count_query(query.qtype, len(query.octets), query.dnssec_ok)
    reply = query.octets[:2] + compose_reply(query, RA | REFUSED, _NO_COUNTS, b"", 512)
    unserved.count_response(REFUSED, "", len(reply))
    return reply
