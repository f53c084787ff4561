"""The directives by which a server block is watched, and the small ones that take a value or none.

Each ``read_`` function gives ``draft`` with one directive applied.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from nodecache import limits
from nodecache.config.corefile import Directive
from nodecache.config.directives.caching import parse_all_zones
from nodecache.config.directives.logformat import COMMON, parse_template
from nodecache.config.directives.patterns import parse_pattern
from nodecache.config.model import (
    ROOT,
    Address,
    ErrorRule,
    ErrorsPolicy,
    HealthEndpoint,
    LogClass,
    LogRule,
    ServerBlock,
    Timeouts,
)
from nodecache.config.reading import Arguments, Option, Scope, one_of, read_options
from nodecache.config.values import (
    parse_duration_s,
    parse_integer,
    parse_listen_address,
    shown,
    within,
)

T = TypeVar("T")

BUFSIZE_USAGE = "bufsize [SIZE]"
DEBUG_USAGE = "debug"
ERRORS_USAGE = "errors [stdout]"
HEALTH_USAGE = "health [IP:PORT]"
LOG_USAGE = "log [NAMES...] [FORMAT]"
LOOP_USAGE = "loop"
PPROF_USAGE = "pprof [IP:PORT]"
PROMETHEUS_USAGE = "prometheus [IP:PORT]"
READY_USAGE = "ready [IP:PORT]"
RELOAD_USAGE = "reload [INTERVAL] [JITTER]"
TIMEOUTS_USAGE = "timeouts { read|write|idle DURATION }"
TRACE_USAGE = "trace [TYPE] [ENDPOINT]"

TRACE_REFUSAL = (
    "'trace' would send spans to Zipkin or Datadog, which nodecache does not: remove it;"
    " 'log' writes each query with its duration, 'errors' each failure,"
    " and 'prometheus' shows durations by server, zone and upstream"
)

_LEVELS = {level: level for level in ("warning", "error", "info", "debug")}
_CLASSES = {log_class.value: log_class for log_class in LogClass}
_MONITORS = {"until-ready": None, "continuously": None}
_EVERYTHING = frozenset((LogClass.ALL,))


def read_errors(directive: Directive, scope: Scope, draft: ServerBlock) -> ServerBlock:
    """Applies ``errors``."""
    arguments = Arguments(directive, ERRORS_USAGE, scope)
    arguments.maybe(one_of({"stdout": "stdout"}), "stdout")
    arguments.end()
    policy = read_options(directive, _ERRORS_OPTIONS, ErrorsPolicy(), scope)
    return replace(draft, errors=policy)


def _read_stacktrace(_arguments: Arguments, policy: ErrorsPolicy) -> ErrorsPolicy:
    return replace(policy, stacktrace=True)


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


def read_log(directive: Directive, scope: Scope, draft: ServerBlock) -> ServerBlock:
    """Applies ``log``: as in CoreDNS, a last word with a brace in it is the format."""
    arguments = Arguments(directive, LOG_USAGE, scope)
    words = arguments.rest()
    template = COMMON
    if words and "{" in words[-1].text:
        template = arguments.parse(words.pop(), parse_template, COMMON)
    zones = parse_all_zones(arguments, words) or (ROOT,)
    nothing: frozenset[LogClass] = frozenset()
    classes = read_options(directive, _LOG_OPTIONS, nothing, scope)
    rule = LogRule(zones, template, classes or _EVERYTHING)
    return replace(draft, logs=arguments.join(draft.logs, [rule]))


def _read_class(arguments: Arguments, classes: frozenset[LogClass]) -> frozenset[LogClass]:
    words = arguments.rest("a CLASS")
    return classes.union(arguments.parse(word, one_of(_CLASSES), LogClass.ALL) for word in words)


def read_bufsize(directive: Directive, scope: Scope, draft: ServerBlock) -> ServerBlock:
    """Applies ``bufsize``."""
    parse = within(parse_integer, limits.BUFSIZE_OCTETS)
    size = _read_value(directive, BUFSIZE_USAGE, scope, parse, int(limits.BUFSIZE_OCTETS.default))
    read_options(directive, {}, None, scope)
    return replace(draft, bufsize=size)


def read_timeouts(directive: Directive, scope: Scope, draft: ServerBlock) -> ServerBlock:
    """Applies ``timeouts``; as in CoreDNS, at least one option is needed."""
    arguments = Arguments(directive, TIMEOUTS_USAGE, scope)
    arguments.end()
    if not directive.body:
        arguments.fault(directive.name, "'timeouts' needs at least one option in its braces")
    return replace(draft, timeouts=read_options(directive, _TIMEOUTS_OPTIONS, Timeouts(), scope))


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
    address = _read_value(directive, READY_USAGE, scope, parse_listen_address, default)
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


def read_pprof(directive: Directive, scope: Scope, draft: ServerBlock) -> ServerBlock:
    """Applies ``pprof``."""
    default = Address("127.0.0.1", 6053)
    address = _read_value(directive, PPROF_USAGE, scope, parse_listen_address, default)
    read_options(directive, _PPROF_OPTIONS, None, scope)
    return replace(draft, pprof=address)


def _refuse_block(arguments: Arguments, _value: None) -> None:
    text = "'block' profiles goroutines, of which there are none here"
    arguments.rest()
    arguments.scope.report.fault(
        arguments.name, f"{text}: remove it; /debug/pprof/tasks shows what waits, and where"
    )


def read_debug(directive: Directive, scope: Scope, draft: ServerBlock) -> ServerBlock:
    """Applies ``debug``."""
    _read_nothing(directive, DEBUG_USAGE, scope)
    return replace(draft, is_debug=True)


def read_loop(directive: Directive, scope: Scope, draft: ServerBlock) -> ServerBlock:
    """Applies ``loop``."""
    _read_nothing(directive, LOOP_USAGE, scope)
    return replace(draft, is_loop_checked=True)


def read_prometheus(directive: Directive, scope: Scope, draft: ServerBlock) -> ServerBlock:
    """Applies ``prometheus``."""
    default = Address("127.0.0.1", 9153)
    address = _read_value(directive, PROMETHEUS_USAGE, scope, parse_listen_address, default)
    read_options(directive, {}, None, scope)
    return replace(draft, prometheus=address)


def read_health(directive: Directive, scope: Scope, draft: ServerBlock) -> ServerBlock:
    """Applies ``health``."""
    default = Address("", 8080)
    address = _read_value(directive, HEALTH_USAGE, scope, parse_listen_address, default)
    endpoint = read_options(directive, _HEALTH_OPTIONS, HealthEndpoint(address), scope)
    return replace(draft, health=endpoint)


def _read_lameduck(arguments: Arguments, endpoint: HealthEndpoint) -> HealthEndpoint:
    parse = within(parse_duration_s, limits.LAMEDUCK_S)
    return replace(endpoint, lameduck_s=arguments.take("a DURATION", parse, 0.0))


def _read_value(
    directive: Directive, usage: str, scope: Scope, parse: Callable[[str], T], default: T
) -> T:
    """The one argument of a directive, which may be left out."""
    arguments = Arguments(directive, usage, scope)
    value = arguments.maybe(parse, default)
    arguments.end()
    return value


def _read_nothing(directive: Directive, usage: str, scope: Scope) -> None:
    Arguments(directive, usage, scope).end()
    read_options(directive, {}, None, scope)


_ERRORS_OPTIONS = {
    "stacktrace": Option("stacktrace", _read_stacktrace),
    "consolidate": Option(
        "consolidate DURATION REGEXP [warning|error|info|debug] [show_first]",
        _read_consolidate,
        is_repeatable=True,
    ),
}
_HEALTH_OPTIONS = {"lameduck": Option("lameduck DURATION", _read_lameduck)}
_LOG_OPTIONS = {
    "class": Option("class all|success|denial|error...", _read_class, is_repeatable=True)
}
_PPROF_OPTIONS = {"block": Option("block [RATE]", _refuse_block)}
_READY_OPTIONS = {"monitor": Option("monitor until-ready|continuously", _read_monitor)}
_TIMEOUTS_OPTIONS = {
    "read": Option("read DURATION", _read_read),
    "write": Option("write DURATION", _read_write),
    "idle": Option("idle DURATION", _read_idle),
    "maxtcpqueries": Option("maxtcpqueries MAXIMUM", _refuse_most_queries),
}
