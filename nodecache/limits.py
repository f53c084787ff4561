"""Settings that a user may change within bounds: default, least, most, unit and source.

A value outside its bounds is refused with a sentence, never clamped. Bounds that nobody sets
(queue lengths, table sizes) stand beside the code that they bound.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limit:
    """Bounds of one numeric setting, in ``unit``, and where they come from."""

    default: float
    least: float
    most: float
    unit: str
    source: str

    def refusal(self, value: float) -> str:
        """Returns why ``value`` is refused, or "" if it is within the bounds."""
        if self.least <= value <= self.most:
            return ""
        return (
            f"{value:.15g} is out of range: give {self.least:.15g} to {self.most:.15g} {self.unit}"
            f" ({self.source})"
        )


_DAY_S = 86_400
_WEEK_S = 7 * _DAY_S
_MIB = 1024 * 1024

PORT = Limit(53, 1, 65_535, "as a port", "16 bits")
CACHE_OCTETS = Limit(32 * _MIB, _MIB, 65_536 * _MIB, "octets", "memory of a node")
MAX_INFLIGHT = Limit(10_000, 1, 1_000_000, "exchanges", "memory of a node")
CLIENT_SHARE = Limit(20, 1, 100, "per cent", "100 sets no limit")
STUCK_AFTER_S = Limit(3, 1, 3600, "seconds, or 0 for never", "who serves may be busy for some time")
LEAVE_WAIT_S = Limit(10, 0, 3600, "seconds", "kubelet's patience with a pod that ends")
WEBHOOK_NDOTS = Limit(3, 0, 15, "dots", "resolv.conf(5)")
WEBHOOK_ATTEMPTS = Limit(2, 1, 5, "attempts", "resolv.conf(5)")
WEBHOOK_TIMEOUT_S = Limit(1, 1, 30, "seconds", "resolv.conf(5)")
SYNC_INTERVAL_S = Limit(60, 1, _DAY_S, "seconds", "node-cache's own default is 60")

CACHE_TTL_S = Limit(3600, 1, _WEEK_S, "seconds", "RFC 8767 section 4 advises a week at most")
CACHE_MIN_TTL_S = Limit(0, 0, _DAY_S, "seconds", "a longer floor outlives what it describes")
CACHE_CAPACITY = Limit(9984, 1, 10_000_000, "entries", "memory of a node")
PREFETCH_AMOUNT = Limit(2, 0, 1_000_000, "queries", "0 turns it off")
PREFETCH_DURATION_S = Limit(60, 0, _DAY_S, "seconds", "CoreDNS's default is one minute")
PREFETCH_PERCENTAGE = Limit(10, 10, 90, "per cent", "the bounds of CoreDNS")
SERVFAIL_S = Limit(5, 0, 300, "seconds", "RFC 9520 section 3.2")
STALE_S = Limit(3600, 0, _WEEK_S, "seconds", "RFC 8767 section 5 advises one to three days")
VERIFY_TIMEOUT_S = Limit(0.4, 0.001, 5, "seconds", "stub resolvers give up after 5 s")

UPSTREAM_COUNT = Limit(1, 1, 15, "upstreams", "the bound of CoreDNS")
MAX_FAILS = Limit(2, 0, 2**32 - 1, "failures", "0 never takes an upstream for down")
MAX_CONCURRENT = Limit(0, 0, 2**31 - 1, "exchanges", "0 sets no limit")
MAX_RATE = Limit(0, 0, 1_000_000, "queries a second", "0 sets no limit")
MAX_CONNS = Limit(0, 0, 64, "connections", "0 chooses 64, the most to one upstream")
IDLE_CONNECTIONS = Limit(0, 0, 65_535, "connections", "0 sets no limit")
CONNECT_ATTEMPTS = Limit(0, 0, 1000, "attempts", "0 sets no limit")
CONNECTION_AGE_S = Limit(0, 0, _WEEK_S, "seconds", "0 chooses about 30")
CONNECTION_IDLE_S = Limit(10, 0, _DAY_S, "seconds", "CoreDNS closes idle connections after 10 s")
HEALTH_INTERVAL_S = Limit(0.5, 0, _DAY_S, "seconds", "CoreDNS's default is 500ms")
READ_TIMEOUT_S = Limit(2, 0.001, 60, "seconds", "stub resolvers give up after 5 s")
LAMEDUCK_S = Limit(0, 0, 3600, "seconds", "kubelet's patience with a pod that ends")
HOSTS_TTL_S = Limit(3600, 1, 65_535, "seconds", "the bounds of CoreDNS")
LOADBALANCE_WEIGHT = Limit(1, 1, 255, "as a weight", "the bounds of CoreDNS")
FILE_RELOAD_S = Limit(5, 0, _WEEK_S, "seconds", "files are watched anyway")
CONSOLIDATE_S = Limit(60, 0.001, _DAY_S, "seconds", "a longer silence hides the failure")
BUFSIZE_OCTETS = Limit(1232, 512, 4096, "octets", "the bounds of CoreDNS")
TIMEOUT_S = Limit(10, 1, _DAY_S, "seconds", "the bounds of CoreDNS")
RELOAD_INTERVAL_S = Limit(30, 2, _DAY_S, "seconds", "CoreDNS's own least is 2 s")
RELOAD_JITTER_S = Limit(15, 1, _DAY_S, "seconds", "or 0; CoreDNS's own least is 1 s")
PROFILE_S = Limit(30, 1, 60, "seconds", "a profile costs a few per cent while it lasts")
