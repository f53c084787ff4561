"""``errors``, ``health`` and the like, and the small directives that take a value or none.

Each ``read_`` function gives ``draft`` with one directive applied.
"""

from __future__ import annotations

from dataclasses import replace

from nodecache import limits
from nodecache.config.corefile import Directive
from nodecache.config.model import (
    Address,
    ErrorRule,
    ErrorsPolicy,
    HealthEndpoint,
    ServerBlock,
    Timeouts,
)
from nodecache.config.reading import (
    Arguments,
    Option,
    Scope,
    Twice,
    one_of,
    parse_all_zones,
    read_nothing,
    read_options,
    read_value,
)
from nodecache.config.values import parse_duration_s, parse_integer, parse_listen_address, within
from nodecache.patterns import parse_pattern
from nodecache.printing import shown

BUFSIZE_USAGE = "bufsize [SIZE]"
DEBUG_USAGE = "debug"
ERRORS_USAGE = "errors [stdout]"
HEALTH_USAGE = "health [IP:PORT]"
NSID_USAGE = "nsid [DATA...]"
PROMETHEUS_USAGE = "prometheus [IP:PORT]"
READY_USAGE = "ready [IP:PORT]"
RELOAD_USAGE = "reload [INTERVAL] [JITTER]"
TIMEOUTS_USAGE = "timeouts { read|write|idle DURATION }"
TRACE_USAGE = "trace [TYPE] [ENDPOINT]"
DNSTAP_USAGE = "dnstap SOCKET [full]"

METADATA_USAGE = "metadata [ZONES...]"
DNSTAP_REFUSAL = (
    "'dnstap' would send each query to a collector, which nodecache, other than node-cache, does"
    " not: remove it; 'log' writes each query and its response, and 'prometheus' counts them"
)
TRACE_REFUSAL = (
    "'trace' would send spans to Zipkin or Datadog, which nodecache does not: remove it;"
    " 'log' writes each query with its duration, 'errors' each failure,"
    " and 'prometheus' shows durations by server, zone and upstream"
)

# A reply of 512 octets must have room for records beside it.
_MOST_NSID_OCTETS = 255
_LEVELS = {level: level for level in ("warning", "error", "info", "debug")}
_MONITORS = {"until-ready": None, "continuously": None}


def read_errors(directive: Directive, scope: Scope, draft: ServerBlock) -> ServerBlock:
    """Applies ``errors``."""
    arguments = Arguments(directive, ERRORS_USAGE, scope)
    arguments.maybe(one_of({"stdout": "stdout"}), "stdout")
    arguments.end()
    policy = read_options(directive, _ERRORS_OPTIONS, ErrorsPolicy(), scope)
    return replace(draft, errors=policy)


def _accept_stacktrace(_arguments: Arguments, policy: ErrorsPolicy) -> ErrorsPolicy:
    # It shows where CoreDNS panics; here each unforeseen error has its trace anyway.
    return policy


def _read_consolidate(arguments: Arguments, policy: ErrorsPolicy) -> ErrorsPolicy:
    parse_interval_s = within(parse_duration_s, limits.CONSOLIDATE_S)
    rule = ErrorRule(
        arguments.take("a DURATION", parse_interval_s, 1.0),
        arguments.take("a REGEXP after DURATION", _parse_pattern, ""),
    )
    if arguments.peek() not in ("", "show_first"):
        rule = replace(rule, level=arguments.maybe(one_of(_LEVELS), "error"))
    show_first = arguments.maybe(one_of({"show_first": True}), fallback=False)
    rules = arguments.join(policy.consolidate, [replace(rule, show_first=show_first)])
    return replace(policy, consolidate=rules)


def _parse_pattern(text: str) -> str:
    if not text.isascii():
        raise ValueError(f"{shown(text)} holds more than ASCII, which no error text does")
    return parse_pattern(text).text


def read_bufsize(directive: Directive, scope: Scope, draft: ServerBlock) -> ServerBlock:
    """Applies ``bufsize``."""
    parse = within(parse_integer, limits.BUFSIZE_OCTETS)
    size = read_value(directive, BUFSIZE_USAGE, scope, parse, int(limits.BUFSIZE_OCTETS.default))
    read_options(directive, {}, None, scope)
    return replace(draft, bufsize=size)


def read_nsid(directive: Directive, scope: Scope, draft: ServerBlock) -> ServerBlock:
    """Applies ``nsid``; as in CoreDNS, DATA of several words is joined by blanks."""
    arguments = Arguments(directive, NSID_USAGE, scope)
    data = " ".join(word.text for word in arguments.rest())
    octets = len(data.encode("utf-8", "replace"))
    if octets > _MOST_NSID_OCTETS:
        text = f"DATA has {octets} octets: {_MOST_NSID_OCTETS} are the most"
        arguments.fault(directive.name, text)
    read_options(directive, {}, None, scope)
    return replace(draft, nsid=data)


def read_timeouts(directive: Directive, scope: Scope, draft: ServerBlock) -> ServerBlock:
    """Applies ``timeouts``; as in CoreDNS, at least one option is needed."""
    arguments = Arguments(directive, TIMEOUTS_USAGE, scope)
    arguments.end()
    if not directive.body:
        arguments.fault(directive.name, "'timeouts' needs at least one option in its braces")
    before = draft.timeouts or Timeouts()
    return replace(draft, timeouts=read_options(directive, _TIMEOUTS_OPTIONS, before, scope))


def _read_read(arguments: Arguments, timeouts: Timeouts) -> Timeouts:
    return replace(timeouts, read_s=arguments.take("a DURATION", _parse_timeout_s, 1.0))


def _read_write(arguments: Arguments, timeouts: Timeouts) -> Timeouts:
    return replace(timeouts, write_s=arguments.take("a DURATION", _parse_timeout_s, 1.0))


def _read_idle(arguments: Arguments, timeouts: Timeouts) -> Timeouts:
    return replace(timeouts, idle_s=arguments.take("a DURATION", _parse_timeout_s, 1.0))


def _parse_timeout_s(text: str) -> float:
    """Returns seconds; here, and only here, CoreDNS takes a bare number for seconds."""
    return within(parse_duration_s, limits.TIMEOUT_S)(f"{text}s" if text.isdecimal() else text)


def _refuse_most_queries(arguments: Arguments, timeouts: Timeouts) -> Timeouts:
    text = "'maxtcpqueries' has no place here: a connection may carry any number of queries"
    arguments.rest()
    arguments.scope.report.fault(arguments.name, f"{text}; remove it")
    return timeouts


def read_ready(directive: Directive, scope: Scope, draft: ServerBlock) -> ServerBlock:
    """Applies ``ready``; /ready always says what holds now, so ``monitor`` changes nothing."""
    default = Address("", 8181)
    address = read_value(directive, READY_USAGE, scope, parse_listen_address, default)
    read_options(directive, _READY_OPTIONS, None, scope)
    return replace(draft, ready=address)


def _read_monitor(arguments: Arguments, _value: None) -> None:
    arguments.take("until-ready or continuously", one_of(_MONITORS), None)


def read_reload(directive: Directive, scope: Scope, draft: ServerBlock) -> ServerBlock:
    """Checks ``reload``, which has no effect: files are watched anyway."""
    arguments = Arguments(directive, RELOAD_USAGE, scope)
    arguments.maybe(within(parse_duration_s, limits.RELOAD_INTERVAL_S), 30.0)
    arguments.maybe(_parse_jitter_s, 15.0)
    arguments.end()
    read_options(directive, {}, None, scope)
    return draft


def _parse_jitter_s(text: str) -> float:
    jitter_s = parse_duration_s(text)
    return jitter_s and within(parse_duration_s, limits.RELOAD_JITTER_S)(text)


def read_debug(directive: Directive, scope: Scope, draft: ServerBlock) -> ServerBlock:
    """Applies ``debug``."""
    read_nothing(directive, DEBUG_USAGE, scope)
    return replace(draft, is_debug=True)


def read_metadata(directive: Directive, scope: Scope, draft: ServerBlock) -> ServerBlock:
    """Checks ``metadata``, which has no effect: no directive here needs it."""
    arguments = Arguments(directive, METADATA_USAGE, scope)
    parse_all_zones(arguments, arguments.rest())
    read_options(directive, {}, None, scope)
    text = "'metadata' has no effect: what 'log' can show of a query it shows without; remove it"
    scope.report.warn(directive.name, text)
    return draft


def read_prometheus(directive: Directive, scope: Scope, draft: ServerBlock) -> ServerBlock:
    """Applies ``prometheus``."""
    default = Address("127.0.0.1", 9153)
    address = read_value(directive, PROMETHEUS_USAGE, scope, parse_listen_address, default)
    read_options(directive, _PROMETHEUS_OPTIONS, None, scope)
    return replace(draft, prometheus=address)


def _read_runtime_metrics(arguments: Arguments, _value: None) -> None:
    text = "'runtime_metrics' has no effect: it shows Go's runtime, of which there is none here"
    arguments.scope.report.warn(arguments.name, text)


def read_health(directive: Directive, scope: Scope, draft: ServerBlock) -> ServerBlock:
    """Applies ``health``."""
    before = draft.health or HealthEndpoint(Address("", 8080))
    address = read_value(directive, HEALTH_USAGE, scope, parse_listen_address, before.address)
    endpoint = replace(before, address=address)
    return replace(draft, health=read_options(directive, _HEALTH_OPTIONS, endpoint, scope))


def _read_lameduck(arguments: Arguments, endpoint: HealthEndpoint) -> HealthEndpoint:
    parse = within(parse_duration_s, limits.LAMEDUCK_S)
    return replace(endpoint, lameduck_s=arguments.take("a DURATION", parse, 0.0))


_ERRORS_OPTIONS = {
    "stacktrace": Option("stacktrace", _accept_stacktrace),
    "consolidate": Option(
        "consolidate DURATION REGEXP [warning|error|info|debug] [show_first]",
        _read_consolidate,
        twice=Twice.BOTH,
    ),
}
_HEALTH_OPTIONS = {"lameduck": Option("lameduck DURATION", _read_lameduck)}
_PROMETHEUS_OPTIONS = {"runtime_metrics": Option("runtime_metrics", _read_runtime_metrics)}
_READY_OPTIONS = {"monitor": Option("monitor until-ready|continuously", _read_monitor)}
_TIMEOUTS_OPTIONS = {
    "read": Option("read DURATION", _read_read),
    "write": Option("write DURATION", _read_write),
    "idle": Option("idle DURATION", _read_idle),
    "maxtcpqueries": Option("maxtcpqueries MAXIMUM", _refuse_most_queries),
}
