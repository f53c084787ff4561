"""Health probes: an upstream that failed is asked at intervals until it answers anything.

At most one probe is in flight for an upstream, on a connection of its own. Ordinary responses
end the probing too.
"""

from __future__ import annotations

from nodecache.config.model import HealthCheck
from nodecache.timers import Timers
from nodecache.upstreams.connection import Connection, Pool, State
from nodecache.upstreams.outside import Outside
from nodecache.wire.const import HEADER_OCTETS, QR, RD, TYPE_AND_CLASS
from nodecache.wire.framing import frame
from nodecache.wire.numbers import CLASS_IN, TYPE_NS

LEAST_INTERVAL_S = 0.05  # "health_check 0s" must not become a busy loop
TIMEOUT_S = 1.0  # CoreDNS's read time-out for probes


class Prober:
    """Probes all pools that need it.

    Attributes:
        timers: Pools to probe and probes to end, by time.
    """

    __slots__ = ("_in_flight", "_outside", "_watched", "timers")

    def __init__(self, outside: Outside) -> None:
        self.timers: Timers[Pool | Connection] = Timers()
        self._outside = outside
        self._watched: set[Pool] = set()
        self._in_flight: dict[Pool, Connection] = {}

    def watch(self, pool: Pool, now: float) -> None:
        """Begins to probe ``pool`` if it has failed and is not probed yet."""
        if pool.health.wants_probes and pool not in self._watched and not pool.is_retired:
            self._watched.add(pool)
            self._put_off(pool, now)

    def timer(self, now: float) -> None:
        """Sends the probes that are due, and ends those whose time is up."""
        for item in self.timers.take_due(now):
            if isinstance(item, Pool):
                self._start(item, now)
            elif item.state is not State.CLOSED and now >= self._ends_at(item):
                item.become(State.CLOSED)
                self._outside.outbox.to_close.append(item)
                self._failed(item, now)

    def connected(self, probe: Connection, now: float) -> None:
        """Sends the probe."""
        probe.become(State.READY)
        probe.heard_at = now
        message_id = self._outside.message_id()
        message = message_id.to_bytes(2, "big") + compose_probe(probe.upstream.health_check)
        if probe.pool.is_stream:
            probe.out.append(frame(message))
            self._outside.outbox.to_write.append(probe)
        else:
            probe.out.append(message)
        self.timers.add(self._ends_at(probe), probe)

    def received(self, probe: Connection, octets: bytes) -> None:
        """Takes any response for a sign of life."""
        for message in probe.split(octets):
            if len(message) >= HEADER_OCTETS and message[2] >= QR >> 8:
                probe.pool.health.recover()
                probe.pool.has_probe = False
                self._in_flight.pop(probe.pool, None)
                self._watched.discard(probe.pool)
                probe.become(State.CLOSED)
                self._outside.outbox.to_close.append(probe)
                return

    def closed(self, probe: Connection, now: float) -> None:
        """Takes note that the peer, or the machine, ended the probe."""
        probe.become(State.CLOSED)
        self._failed(probe, now)

    def _start(self, pool: Pool, now: float) -> None:
        if not pool.health.wants_probes or pool.is_retired:
            self._watched.discard(pool)
            return
        if not pool.may_probe(now):  # whoever has its room will tell how the upstream is
            pool.series.left_out += 1
            self._put_off(pool, now)
            return
        if pool.pace is not None:
            pool.pace.spend()
        pool.has_probe = True
        probe = self._in_flight[pool] = Connection(pool, now)
        probe.is_probe = True
        self._outside.outbox.to_open.append(probe)
        if pool.is_stream:
            self.timers.add(self._ends_at(probe), probe)
        else:
            self.connected(probe, now)

    def _ends_at(self, probe: Connection) -> float:
        is_connecting = probe.state is State.CONNECTING
        return probe.heard_at + (probe.pool.connect_timeout_s if is_connecting else TIMEOUT_S)

    def _failed(self, probe: Connection, now: float) -> None:
        pool = probe.pool
        del self._in_flight[pool]
        pool.has_probe = False
        pool.health.count_failure()
        pool.series.healthcheck_failures += 1
        self._put_off(pool, now)

    def _put_off(self, pool: Pool, now: float) -> None:
        interval_s = max(pool.upstream.health_check.interval_s, LEAST_INTERVAL_S)
        self.timers.add(now + interval_s, pool)


def compose_probe(check: HealthCheck) -> bytes:
    """Returns the probe without its ID: NS of the configured name, RD as configured."""
    flags = RD if check.recursion_desired else 0
    question = check.name.wire + TYPE_AND_CLASS.pack(TYPE_NS, CLASS_IN)
    return flags.to_bytes(2, "big") + b"\0\1\0\0\0\0\0\0" + question
