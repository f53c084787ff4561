"""Exchanges on their way: which upstream, when to ask again, what counts as the answer.

Sans-I/O. The resolver submits exchanges; a shell reports what connections do and carries out
the outbox after each call. Knows nothing of caches and stub resolvers.

An exchange that is not done has a live attempt, or waits in one pool, or both, and is in the
agenda once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from math import inf
from typing import cast

from nodecache.config.model import Address, ForwardPolicy, Transport, Upstream
from nodecache.counters import Counters, UpstreamSeries
from nodecache.engine.agenda import Agenda
from nodecache.engine.datagrams import DatagramPool
from nodecache.engine.doubt import MOST_OPINIONS, Doubts
from nodecache.engine.exchange import Exchange, Failure, Setbacks
from nodecache.engine.pace import Pace, Queue
from nodecache.engine.probe import Prober
from nodecache.engine.selection import Route
from nodecache.engine.streams import StreamPool
from nodecache.engine.upstream import (
    EDNS_OFF_S,
    PROTO_LABELS,
    Attempt,
    Connection,
    Means,
    Outbox,
    Pool,
    State,
)
from nodecache.wire.const import FORMERR, SERVFAIL, TC

HEDGE_SHARE = 0.05  # extra queries that a healthy upstream is burdened with at most
HEDGE_BURST = 50.0  # so that all queries of one dead connection can be asked again at once
RETRY_AFTER_S = (0.5, 1.0)  # after the hedge; the last one again and again
MAX_RETRIES = 5  # with the first query six in all: more would add load where it hurts
MAX_ATTEMPTS = 16  # one that moves from dying connection to dying connection included


class Forwarder:
    """All exchanges with all upstreams.

    Args:
        counters: Gets the events and one series per upstream address.
        random: Numbers in [0, 1).
        message_id: Unpredictable numbers from 0 to 65535.
    """

    def __init__(
        self, counters: Counters, random: Callable[[], float], message_id: Callable[[], int]
    ) -> None:
        self._counters = counters
        self._means = Means(random, message_id)
        self._prober = Prober(self._means)
        self._pools: dict[Upstream, Pool] = {}
        self._retired: list[Pool] = []
        self._paces: dict[tuple[Address, int], Pace] = {}
        self._routes: dict[int, Route] = {}
        self._exchanges: Agenda[Exchange] = Agenda()
        self._submitted = 0
        self._hedge_tokens = HEDGE_BURST
        self._tokens_of = 0
        self._doubts = Doubts()
        counters.before_scrape.append(self._hand_in)

    @property
    def outbox(self) -> Outbox:
        """What the shell has to do."""
        return self._means.outbox

    def pool(self, upstream: Upstream) -> Pool:
        """Returns the one pool of ``upstream``."""
        pool = self._pools.get(upstream)
        if pool is None:
            series = self._series(str(upstream.address))
            kind = DatagramPool if upstream.transport is Transport.UDP else StreamPool
            pool = self._pools[upstream] = kind(upstream, series, self._means)
            pool.pace = self._pace(upstream)
        return pool

    def _pace(self, upstream: Upstream) -> Pace | None:
        """Returns what all pools of the upstream's address share, None without ``max_rate``."""
        if not upstream.max_rate:
            return None
        key = (upstream.address, upstream.max_rate)
        return self._paces.get(key) or self._paces.setdefault(key, Pace(upstream.max_rate))

    def keep_only(self, upstreams: Iterable[Upstream], now: float) -> None:
        """Drains the connections to all other upstreams: the configuration changed."""
        kept = set(upstreams)
        kept |= {_over_tcp(upstream) for upstream in kept if upstream.transport is Transport.UDP}
        for upstream in list(self._pools):
            if upstream not in kept:
                pool = self._pools.pop(upstream)
                pool.retire()
                self._retired.append(pool)
        paces = {(upstream.address, upstream.max_rate) for upstream in kept}
        self._paces = {key: pace for key, pace in self._paces.items() if key in paces}
        self._routes.clear()

    # What the resolver calls.

    def submit(self, exchange: Exchange, now: float) -> None:
        """Starts an exchange; it may be done before this returns."""
        route = self._routes.get(id(exchange.policy)) or self._add_route(exchange.policy)
        exchange.route = route
        self._submitted += 1
        if not route.pools:  # a resolv.conf without nameservers
            self._finish(exchange, Failure.UNREACHABLE, now)
            return
        pool = route.only or route.choose(now)
        if pool.health.is_down and route.all_down():
            self._counters.healthcheck_broken += 1
            if exchange.policy.failfast_all_unhealthy:
                self._finish(exchange, Failure.UNREACHABLE, now)
                return
        failure = pool.ask(exchange, now)
        if failure is not None:
            if failure is Failure.PACED and (exchange.is_spare or route.only is not None):
                self._finish(exchange, failure, now)  # nobody has room: ``choose`` looked
                return
            self._ask_somebody(exchange, now)
            if exchange.is_done:
                return
        wake_at = now + pool.patience_s
        exchange.wake_at = wake_at = min(wake_at, exchange.deadline)
        self._exchanges.add(wake_at, exchange)

    def looks_dead(self, policy: ForwardPolicy, now: float) -> bool:
        """Whether none of the upstreams of ``policy`` is likely to answer a query at once."""
        route = self._routes.get(id(policy)) or self._add_route(policy)
        return not any(pool.is_usable(now) for pool in route.pools)

    def refusal(self, policy: ForwardPolicy) -> Failure | None:
        """Returns why an exchange would be refused now, None if somebody can be asked or may be.

        Cheaper than to submit one, for a flood of which nearly all are refused.
        """
        route = self._routes.get(id(policy)) or self._add_route(policy)
        failure: Failure | None = None
        for pool in route.pools:
            failure = pool.refusal()
            if failure is None:
                break
        return failure

    # What the shell calls.

    def connected(self, connection: Connection, now: float) -> None:
        """Takes note that a TCP or TLS connection is open (and its certificate good)."""
        if connection.state is not State.CONNECTING:
            return
        if connection.is_probe:
            self._prober.connected(connection, now)
        else:
            connection.pool.connected(connection, now)

    def received(self, connection: Connection, octets: bytes, now: float) -> None:
        """Takes octets of the stream, cut anywhere, or one datagram."""
        if connection.state is State.CLOSED:
            return
        if connection.is_probe:
            self._prober.received(connection, octets)
            return
        connection.heard_at = now
        pool = connection.pool
        for message in connection.split(octets):
            attempt = connection.take_attempt(message)
            if attempt is None:
                self._counters.count_event("upstream_strays")
                continue
            rcode = message[3] & 0xF
            pool.series.count_response(rcode, now - attempt.sent_at)
            pool.answered(connection, attempt, now)
            exchange = attempt.exchange
            if exchange.is_done:
                continue
            if rcode or message[2] & TC >> 8:
                self._judge(attempt, message, now)
            else:
                self._offer(attempt, message, now)

    def closed(self, connection: Connection, now: float) -> None:
        """Takes note that a connection could not be opened, or ended for any reason."""
        if connection.state is State.CLOSED:
            return
        if connection.is_probe:
            self._prober.closed(connection, now)
            return
        pool = connection.pool
        self._rescue(pool, pool.lost(connection, now), now)

    def timer(self, now: float) -> None:
        """Does what is due."""
        for item in self._means.chores.take_due(now):
            if isinstance(item, Pool):
                self._rescue(item, item.wake(now), now)
            elif item.state is not State.CLOSED:
                self._rescue(item.pool, item.pool.check(item, now), now)
        for exchange in self._exchanges.take_due(now):
            if not exchange.is_done:
                self._patience_over(exchange, now)
        self._prober.timer(now)

    def next_timer(self) -> float | None:
        """Returns when ``timer`` must be called next, None if never."""
        first = self._exchanges.next_at
        for agenda in (self._means.chores, self._prober.agenda):
            if agenda.next_at < first:
                first = agenda.next_at
        return first if first < inf else None

    # Answers.

    def _judge(self, attempt: Attempt, message: bytes, now: float) -> None:
        """Decides about a response that may not be the answer: an RCODE or TC is set."""
        exchange, pool = attempt.exchange, attempt.connection.pool
        rcode = message[3] & 0xF
        if rcode == FORMERR and self._went_without_edns(attempt, message, now):
            return
        if message[4:6] == b"\0\0":
            self._pass_over(exchange, None, now)
        elif message[2] & TC >> 8 and not pool.is_stream:
            _setbacks(exchange).needs_stream = True
            if not (self._may_ask(exchange) and self._streams(pool).ask(exchange, now) is None):
                self._pass_over(exchange, None, now)
        elif rcode in exchange.policy.failover_rcodes:
            self._pass_over(exchange, message, now)
        elif not self._doubt(attempt, message, now):
            self._offer(attempt, message, now)

    def _went_without_edns(self, attempt: Attempt, message: bytes, now: float) -> bool:
        """Asks again without OPT if the server does not know EDNS (RFC 6891 section 7)."""
        pool = attempt.connection.pool
        if not attempt.has_edns or message[10:12] != b"\0\0":
            return False  # an OPT record in the response: it does
        if pool.edns_off_until <= now:
            self._counters.count_event("upstream_edns_off")
        pool.edns_off_until = now + EDNS_OFF_S
        exchange = attempt.exchange
        return self._may_ask(exchange) and pool.ask(exchange, now) is None

    def _doubt(self, attempt: Attempt, message: bytes, now: float) -> bool:
        """Asks on another connection whether a SERVFAIL, or TC over TCP, is true."""
        exchange, pool = attempt.exchange, attempt.connection.pool
        setbacks = _setbacks(exchange)
        if (
            not (_is_doubtful(message) and isinstance(pool, StreamPool))
            or setbacks.opinions >= MOST_OPINIONS - 1
            or not (self._may_ask(exchange) and pool.has_spare(now))
            or not self._doubts.take_token(self._submitted)
        ):
            return False
        setbacks.opinions += 1
        setbacks.response = message
        self._counters.count_event("doubted")
        pool.distrust(attempt.connection)
        return pool.ask(exchange, now) is None

    def _settle_doubt(self, pool: Pool, message: bytes, now: float) -> None:
        """Takes note that one backend answered what others, or another one, would not."""
        if isinstance(pool, StreamPool) and not _is_doubtful(message):
            pool.keep_what_works(now)

    def _pass_over(self, exchange: Exchange, message: bytes | None, now: float) -> None:
        """Hands the exchange to an untried upstream; without one, ``message`` is the answer."""
        setbacks = _setbacks(exchange)
        setbacks.response = message or setbacks.response
        tried = _tried(exchange)
        untried = [p for p in self._rank(exchange, tried, now) if p not in tried]
        if self._ask_first(exchange, untried, now) is None or _is_under_way(exchange):
            return
        self._finish(exchange, Failure.UNREACHABLE, now)

    def _finish(self, exchange: Exchange, outcome: bytes | Failure, now: float) -> bool:
        """Ends the exchange; False if its owner refuses the response, and it goes on."""
        exchange.is_done = True
        if exchange.waiting_in is not None:
            cast("Queue", exchange.waiting_in).waiting.pop(exchange, None)
            exchange.waiting_in = None
        if isinstance(outcome, Failure):
            held = exchange.setbacks.response if exchange.setbacks is not None else None
            if held is None or not exchange.on_done(exchange, held, now):
                exchange.on_done(exchange, outcome, now)
        elif not exchange.on_done(exchange, outcome, now):
            exchange.is_done = False
            return False
        exchange.attempts.clear()  # they point back: the pair would be left to the cycle collector
        return True

    def _offer(self, attempt: Attempt, message: bytes, now: float) -> None:
        """Ends the exchange with a response; asks elsewhere if that is refused as malformed."""
        exchange, connection = attempt.exchange, attempt.connection
        if self._finish(exchange, message, now):
            if exchange.setbacks is not None and exchange.setbacks.opinions:
                self._settle_doubt(connection.pool, message, now)
            return
        self._counters.count_event("upstream_malformed")
        pool, stranded = connection.pool, [exchange]
        if connection.state is not State.CLOSED:  # a connection that talks nonsense is not kept
            stranded += pool.lost(connection, now)
            pool.close(connection)
        self._rescue(pool, stranded, now)

    # Asking again.

    def _rescue(self, pool: Pool, stranded: list[Exchange], now: float) -> None:
        """Moves the exchanges of a dead connection, and sees to the health of its pool."""
        if pool.health.has_trouble:
            self._prober.watch(pool, now)
        for exchange in stranded:
            if exchange.is_done or _is_under_way(exchange):
                continue
            if self._gave_up_dialling(exchange):
                self._finish(exchange, Failure.UNREACHABLE, now)
            elif not (
                pool.is_usable(now) and self._may_ask(exchange) and pool.ask(exchange, now) is None
            ):
                self._ask_somebody(exchange, now)

    def _gave_up_dialling(self, exchange: Exchange) -> bool:
        most, setbacks = exchange.policy.max_connect_attempts, exchange.setbacks
        return bool(most) and setbacks is not None and setbacks.dial_failures >= most

    def _patience_over(self, exchange: Exchange, now: float) -> None:
        """Asks again, because an answer is later than usual, or ends the exchange."""
        if now >= exchange.deadline:
            self._finish(exchange, Failure.TIMED_OUT, now)
            return
        setbacks = _setbacks(exchange)
        for attempt in _attempts(exchange):
            if attempt.is_live:
                attempt.connection.pool.mark_late(attempt.connection)
        if setbacks.retries < MAX_RETRIES:
            self._ask_again(exchange, setbacks, now)
        if exchange.is_done:
            return
        delay_s = RETRY_AFTER_S[min(setbacks.retries, len(RETRY_AFTER_S) - 1)]
        setbacks.retries += 1
        exchange.wake_at = min(now + delay_s, exchange.deadline)
        self._exchanges.add(exchange.wake_at, exchange)

    def _ask_again(self, exchange: Exchange, setbacks: Setbacks, now: float) -> None:
        """Asks on a second connection, of another upstream if there is one that is usable."""
        if isinstance(exchange.waiting_in, Pace):
            return  # it will have its turn soon
        tried = _tried(exchange)
        ranked = self._rank(exchange, tried, now)
        waiting_in = cast("Pool | None", exchange.waiting_in)
        if waiting_in is not None:
            others = [p for p in ranked if p.is_usable(now) and p is not waiting_in]
            if not others:
                return
            del waiting_in.waiting[exchange]
            exchange.waiting_in = None
            if self._ask_first(exchange, [*others, waiting_in], now) is not None:
                self._ask_somebody(exchange, now)
            return
        if setbacks.retries == 0:
            ranked = self._with_spare(ranked, now)
            if not ranked or not self._take_hedge_token():
                return
            self._counters.count_event("hedged")
        self._ask_first(exchange, ranked, now)

    def _with_spare(self, pools: list[Pool], now: float) -> list[Pool]:
        """Returns the pools that have room for a hedge."""
        spare = [pool for pool in pools if pool.has_spare(now)]
        if not spare:
            pools[0].series.left_out += 1
        return spare

    def _ask_somebody(self, exchange: Exchange, now: float) -> None:
        """Asks whoever is most likely to answer; ends the exchange if nobody can be asked."""
        failure = self._ask_first(exchange, self._rank(exchange, _tried(exchange), now), now)
        if failure is not None and not _is_under_way(exchange):
            self._finish(exchange, failure, now)

    def _ask_first(self, exchange: Exchange, pools: list[Pool], now: float) -> Failure | None:
        """Asks the first pool that takes the query; returns why none does."""
        failure: Failure | None = Failure.UNREACHABLE
        if not self._may_ask(exchange):
            return failure
        for pool in pools:
            failure = pool.ask(exchange, now)
            if failure is None:
                break
        return failure

    def _may_ask(self, exchange: Exchange) -> bool:
        return len(exchange.attempts) < MAX_ATTEMPTS

    def _take_hedge_token(self) -> bool:
        """Returns whether a hedge may go out now: 5 per cent of all queries and a burst."""
        earned = (self._submitted - self._tokens_of) * HEDGE_SHARE
        self._tokens_of = self._submitted
        self._hedge_tokens = min(self._hedge_tokens + earned, HEDGE_BURST)
        if self._hedge_tokens < 1.0:
            return False
        self._hedge_tokens -= 1.0
        return True

    # Pools and routes.

    def _rank(self, exchange: Exchange, tried: set[Pool], now: float) -> list[Pool]:
        pools = cast("Route", exchange.route).rank(tried, now)
        if exchange.setbacks is not None and exchange.setbacks.needs_stream:
            return [pool if pool.is_stream else self._streams(pool) for pool in pools]
        return pools

    def _streams(self, pool: Pool) -> Pool:
        """Returns the pool that asks the same server over TCP, after a truncated response."""
        return self.pool(_over_tcp(pool.upstream))

    def _add_route(self, policy: ForwardPolicy) -> Route:
        pools = tuple(self.pool(upstream) for upstream in policy.upstreams)
        route = self._routes[id(policy)] = Route(policy, pools, self._means.random)
        return route

    def _series(self, to: str) -> UpstreamSeries:
        """Returns the series of an address, the old one if there was one before a reload."""
        for series in self._counters.upstreams:
            if series.to == to:
                return series
        series = UpstreamSeries(to)
        self._counters.upstreams.append(series)
        return series

    def _hand_in(self) -> None:
        """Puts what the pools counted into the series."""
        pools = [*self._pools.values(), *self._retired]
        for pool in pools:
            pool.series.connections.clear()
        for pool in pools:
            series, proto = pool.series, PROTO_LABELS[pool.upstream.transport]
            for state, count in pool.connection_counts().items():
                series.connections[state] = series.connections.get(state, 0) + count
            reused = max(0, pool.attempts - pool.dialled)
            series.reused[proto] = series.reused.get(proto, 0) + reused
            series.dialled[proto] = series.dialled.get(proto, 0) + pool.dialled
            pool.attempts = pool.dialled = 0
        self._retired = [p for p in self._retired if any(p.connection_counts().values())]


def _over_tcp(upstream: Upstream) -> Upstream:
    return replace(upstream, transport=Transport.TCP)


def _is_doubtful(message: bytes) -> bool:
    """Whether a response over a stream may be the fault of one backend among several."""
    return message[3] & 0xF == SERVFAIL or bool(message[2] & TC >> 8)


def _setbacks(exchange: Exchange) -> Setbacks:
    if exchange.setbacks is None:
        exchange.setbacks = Setbacks()
    return exchange.setbacks


def _attempts(exchange: Exchange) -> list[Attempt]:
    return cast("list[Attempt]", exchange.attempts)


def _tried(exchange: Exchange) -> set[Pool]:
    return {attempt.connection.pool for attempt in _attempts(exchange)}


def _is_under_way(exchange: Exchange) -> bool:
    """Whether an answer may still come, or the exchange waits for a connection."""
    if exchange.waiting_in is not None:
        return True
    return any(attempt.is_live for attempt in _attempts(exchange))
