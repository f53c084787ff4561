"""The ``forward`` directive in plain words: who is asked, how, and what happens when they fail."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from nodecache.config.model import (
    ROOT,
    Address,
    ForwardPolicy,
    HealthCheck,
    NamedUpstream,
    SelectionPolicy,
    Transport,
    Upstream,
)
from nodecache.config.wording import Row, below, duration, marked, names, some
from nodecache.resolve.block import PATIENCE_S
from nodecache.upstreams.connection import ATTEMPT_S
from nodecache.upstreams.pace import TURN_WITHIN_S
from nodecache.upstreams.turnover import AGE_S, IDLE_S
from nodecache.wire.text import rcode_text

_TURN_TEXT = (
    "then what has expired is served if it may be, another upstream asked, or the query waits"
    f" up to {duration(TURN_WITHIN_S)}; after that REFUSED"
)
_DEFAULT = ForwardPolicy(ROOT, ())
_DEFAULT_UPSTREAM = Upstream(Address("", 53))
_TRANSPORTS = {
    Transport.UDP: "over UDP, TCP if truncated (default)",
    Transport.TCP: "over TCP",
    Transport.TLS: "over TLS",
}
_ORDERS = {
    SelectionPolicy.RANDOM: "any of them first",
    SelectionPolicy.ROUND_ROBIN: "each of them first in turn",
    SelectionPolicy.SEQUENTIAL: "as listed",
}


def forward_rows(policy: ForwardPolicy) -> Iterator[Row]:
    """Yields what one ``forward`` comes to."""
    left_out = f", but not {below(policy.except_zones)}" if policy.except_zones else ""
    yield "forward", f"{below((policy.origin,))}{left_out}"
    destinations = policy.destinations or policy.upstreams
    if not destinations:
        yield "  to", "nobody, as long as no upstream is known: REFUSED"
        return
    for number, destination in enumerate(destinations):
        yield "" if number else "  to", _destination_text(destination)
    if len(destinations) > 1 or policy.destinations:
        yield "  order", marked(_ORDERS[policy.selection], policy.selection, _DEFAULT.selection)
    yield "  time", _time_text(policy)
    yield "  RCODEs", _rcodes_text(policy)
    yield "  EDNS", _edns_text(policy)
    if policy.next_rcodes:
        yield "", f"on {_codes(policy.next_rcodes)} the next forward of this block is asked"
    # What follows is the same for all upstreams of one directive.
    pattern = _pattern(destinations[0])
    yield from _bound_rows(policy, pattern)
    yield from _health_rows(policy, pattern)
    yield "  connections", _connections_text(pattern)


def _pattern(destination: Upstream | NamedUpstream) -> Upstream:
    return destination if isinstance(destination, Upstream) else destination.pattern


def _destination_text(destination: Upstream | NamedUpstream) -> str:
    if isinstance(destination, Upstream):
        return _upstream_text(destination, str(destination.address))
    host, port = destination.host, destination.pattern.address.port
    servers = some(map(str, host.servers)) or "nobody"
    text = _upstream_text(destination.pattern, f"{names((host.name,))} port {port}")
    return f"{text}; {servers} is asked for its addresses"


def _upstream_text(upstream: Upstream, place: str) -> str:
    parts = [f"{place} {_TRANSPORTS[upstream.transport]}"]
    if upstream.transport is Transport.TLS:
        parts.append(f"certificate of {upstream.server_name or upstream.address.host}")
        tls = upstream.tls
        parts.append(f"trusting {tls.ca_file or 'the CAs of this system (default)'}")
        if tls.certificate_file:
            parts.append(f"showing {tls.certificate_file}")
    return ", ".join(parts)


def _time_text(policy: ForwardPolicy) -> str:
    default_s = _DEFAULT.read_timeout_s
    most_s = policy.read_timeout_s if policy.read_timeout_s < default_s else ATTEMPT_S
    most = marked(duration(most_s), policy.read_timeout_s, default_s)
    return (
        f"{duration(PATIENCE_S)} for a query with all its retries, then SERVFAIL;"
        f" what comes within {most} is kept"
    )


def _rcodes_text(policy: ForwardPolicy) -> str:
    if not policy.failover_rcodes:
        return "what an upstream replies is passed on, whatever its code (default)"
    return f"on {_codes(policy.failover_rcodes)} the next upstream is asked"


def _edns_text(policy: ForwardPolicy) -> str:
    if not policy.has_edns:
        return "without: answers over UDP of 512 octets, nobody gets DNSSEC records"
    return "with an OPT record, without it to upstreams that do not take it (default)"


def _codes(rcodes: Iterable[int]) -> str:
    return some(map(rcode_text, sorted(rcodes)))


def _bound_rows(policy: ForwardPolicy, pattern: Upstream) -> Iterator[Row]:
    most = policy.max_concurrent
    text = f"{most} exchanges, then REFUSED" if most else "no bound of its own"
    yield "  in flight", marked(text, most, _DEFAULT.max_concurrent)
    if pattern.max_rate:
        yield "  pace", f"{pattern.max_rate} queries a second to each, {_TURN_TEXT}"
    attempts = policy.max_connect_attempts
    if attempts:
        yield "  dialling", f"{attempts} attempts for a query, then SERVFAIL"


def _health_rows(policy: ForwardPolicy, upstream: Upstream) -> Iterator[Row]:
    default, check = _DEFAULT_UPSTREAM, upstream.health_check
    most = upstream.max_fails
    if not most:
        yield "  down", "never, whatever fails"
        return
    fails = marked(f"more than {most} failures in a row", most, default.max_fails)
    yield "  down", f"after {fails}, {_probe_text(check)}"
    text = "SERVFAIL at once" if policy.failfast_all_unhealthy else "asked all the same"
    value, unless = policy.failfast_all_unhealthy, _DEFAULT.failfast_all_unhealthy
    yield "  all down", marked(text, value, unless)


def _probe_text(check: HealthCheck) -> str:
    default = HealthCheck()
    every = marked(duration(check.interval_s), check.interval_s, default.interval_s)
    flags = "" if check.recursion_desired else ", without RD"
    return f"then probed every {every} for {names((check.name,))} NS{flags}"


def _connections_text(upstream: Upstream) -> str:
    default = _DEFAULT_UPSTREAM
    idle = marked(duration(min(upstream.expire_s, IDLE_S)), upstream.expire_s, default.expire_s)
    age = duration(upstream.max_age_s) if upstream.max_age_s else f"about {duration(AGE_S)}"
    age = marked(age, upstream.max_age_s, default.max_age_s)
    kept = upstream.max_idle_connections
    idle_count = f", at most {kept} idle" if kept else ""
    most = upstream.max_connections
    count = f"{most} to each at most over TCP or TLS, " if most else ""
    return f"{count}closed after {idle} idle, replaced after {age}{idle_count}"
