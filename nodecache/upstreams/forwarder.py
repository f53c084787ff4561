"""Exchanges on their way: asked of an upstream, answered, looked at again when it is time.

Sans-I/O. The resolver submits exchanges; a shell reports what connections do and carries out
the outbox after each call. Knows nothing of caches and stub resolvers.

A plain miss passes this file, the pool, the connection and the exchange. What may come between
has a file of its own: hedging, rescue, judging, truncated, second_opinion.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf

from nodecache.config.model import ForwardPolicy, Upstream
from nodecache.counters import Counters
from nodecache.upstreams.asking import Asker
from nodecache.upstreams.connection import Connection, Pool, State
from nodecache.upstreams.exchange import Exchange, Failure
from nodecache.upstreams.forms import Form
from nodecache.upstreams.hedging import Hedging
from nodecache.upstreams.judging import Judge
from nodecache.upstreams.outside import Outbox, Outside
from nodecache.upstreams.patience import MOST_PATIENCE_S
from nodecache.upstreams.pools import Pools
from nodecache.upstreams.probe import Prober
from nodecache.upstreams.rescue import Rescue
from nodecache.upstreams.truncated import Truncated
from nodecache.wire.const import TC


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
        self._outside = Outside(random, message_id)
        self._prober = Prober(self._outside)
        self._pools = Pools(counters, self._outside)
        self._routes = self._pools.routes
        self._asker = Asker(self._pools)
        self._exchanges = self._asker.timers
        self._hedging = Hedging(self._asker, counters)
        truncated = Truncated(self._asker)
        self._rescue = Rescue(self._asker, truncated)
        self._judge = Judge(self._asker, truncated, self._rescue, counters)

    @property
    def outbox(self) -> Outbox:
        """What the shell has to do."""
        return self._outside.outbox

    def pool(self, upstream: Upstream) -> Pool:
        """Returns the one pool of ``upstream``."""
        return self._pools.pool(upstream)

    def pools(self) -> list[Pool]:
        """Returns the pools of all upstreams that were asked since they are configured."""
        return self._pools.all()

    def keep_only(self, upstreams: Iterable[Upstream], now: float) -> None:
        """Drains the connections to all other upstreams: the configuration changed."""
        self._pools.keep_only(upstreams, now)

    # What the resolver calls.

    def submit(self, exchange: Exchange, now: float) -> None:
        """Starts an exchange; it may be done before this returns."""
        route = self._routes.get(id(exchange.policy)) or self._pools.route(exchange.policy)
        asker = self._asker
        asker.submitted += 1
        if not route.pools:  # a resolv.conf without nameservers
            exchange.fail(Failure.UNREACHABLE, now)
            return
        pool = route.only or route.choose(now)
        if pool.forms.odd_until and not pool.is_stream:
            pool = asker.carrier(exchange, pool, now)
        if pool.health.is_down and route.all_down():
            self._counters.healthcheck_broken += 1
            if exchange.policy.failfast_all_unhealthy:
                exchange.fail(Failure.UNREACHABLE, now)
                return
        failure = pool.ask(exchange, now)
        if failure is not None:
            if failure is Failure.PACED and (exchange.is_spare or route.only is not None):
                exchange.fail(failure, now)  # nobody has room: ``choose`` looked
                return
            asker.ask_somebody(exchange, now)
            if exchange.is_done:
                return
        wake_at = now + min(pool.patience.usual_s, MOST_PATIENCE_S)
        exchange.wake_at = wake_at = min(wake_at, exchange.deadline)
        self._exchanges.add(wake_at, exchange)

    def settle(self, exchange: Exchange, message: bytes, now: float) -> None:
        """Ends an exchange with a response that came to another one for the same question."""
        if not exchange.is_done:
            exchange.is_answered = exchange.end(message, now)

    def looks_dead(self, policy: ForwardPolicy, now: float) -> bool:
        """Whether none of the upstreams of ``policy`` is likely to answer a query at once."""
        return not any(pool.is_usable(now) for pool in self._pools.route(policy).pools)

    def refusal(self, policy: ForwardPolicy) -> Failure | None:
        """Returns why an exchange would be refused now, None if somebody can be asked or may be.

        Cheaper than to submit one, for a flood of which nearly all are refused.
        """
        failure: Failure | None = None
        for pool in self._pools.route(policy).pools:
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
            if not pool.forms.knows_edns and attempt.form is not Form.PLAIN:
                pool.forms.note_answer(message)
            exchange = attempt.exchange
            is_odd = rcode or message[2] & TC >> 8
            if is_odd or exchange.is_done or exchange.setbacks is not None:
                self._judge.judge(connection, attempt, message, now)
            elif not exchange.answer(attempt, message, now):
                self._judge.refused(connection, attempt, message, now)

    def closed(self, connection: Connection, now: float) -> None:
        """Takes note that a connection could not be opened, or ended for any reason."""
        if connection.state is State.CLOSED:
            return
        if connection.is_probe:
            self._prober.closed(connection, now)
            return
        pool = connection.pool
        for attempt in connection.pending.values():
            attempt.exchange.last_error = connection.error
        stranded = pool.lost(connection, now)
        for exchange in stranded:  # those that waited for the connection, too
            exchange.last_error = connection.error
        self._see_to(pool, stranded, now)

    def timer(self, now: float) -> None:
        """Does what is due."""
        for item in self._outside.chores.take_due(now):
            if isinstance(item, Pool):
                self._see_to(item, item.wake(now), now)
            elif item.state is not State.CLOSED:
                self._see_to(item.pool, item.pool.check(item, now), now)
        for exchange in self._exchanges.take_due(now):
            if not exchange.is_done and now >= exchange.wake_at:
                self._hedging.look(exchange, now)
        self._prober.timer(now)

    def next_timer(self) -> float | None:
        """Returns when ``timer`` must be called next, None if never."""
        first = self._exchanges.next_at
        for timers in (self._outside.chores, self._prober.timers):
            if timers.next_at < first:
                first = timers.next_at
        return first if first < inf else None

    def _see_to(self, pool: Pool, stranded: list[Exchange], now: float) -> None:
        """Sees to the health of a pool, and asks for those again that it let down."""
        if pool.health.has_trouble:
            self._prober.watch(pool, now)
        self._rescue.move_all(stranded, pool, now)
