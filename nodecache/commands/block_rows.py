"""One server block in plain words: who may ask, what is done here, and who is told about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from nodecache.commands.cache_rows import cache_rows
from nodecache.commands.forward_rows import forward_rows
from nodecache.commands.wording import Row, below, duration, marked, names, octets, some
from nodecache.config.model import (
    Address,
    AnswerTemplate,
    Dns64,
    ErrorsPolicy,
    HostsTable,
    LoadBalance,
    LogClass,
    LogRule,
    ServerBlock,
    Timeouts,
)
from nodecache.net.stream import TcpBounds
from nodecache.telemetry.mnemonics import class_text, rcode_text, type_text

_MOST_LINES = 10  # of rows of one kind


def block_title(block: ServerBlock) -> str:
    """Returns the first line about a block: its zones and where it stands."""
    return f"{names(block.zones)} on port {block.port} ({block.file}:{block.line})"


def block_rows(block: ServerBlock) -> Iterator[Row]:
    """Yields all rows about a block, in the order in which a query meets them."""
    yield from _listen_rows(block)
    yield from _front_rows(block)
    yield from cache_rows(block)
    yield from _local_rows(block)
    for policy in block.forwards:
        yield from forward_rows(policy)
    yield from _last_rows(block)
    yield from _watch_rows(block)
    if "reload" in block.directives:
        yield "no effect", "reload: changed files are loaded anyway, see -watch"


def _listen_rows(block: ServerBlock) -> Iterator[Row]:
    places = some(str(Address(host, block.port)) for host in block.bind)
    everywhere = f"every address of the machine (default), port {block.port}"
    yield "listens on", f"{places or everywhere}; UDP and TCP"
    if block.bufsize is not None:
        yield "UDP", f"replies, and those of upstreams, of {octets(block.bufsize)} at most"
    yield "TCP", _tcp_text(block.timeouts or Timeouts())


def _tcp_text(timeouts: Timeouts) -> str:
    own = TcpBounds()
    idle = _time(timeouts.idle_s, own.idle_s)
    read = _time(timeouts.read_s, own.message_s)
    write = _time(timeouts.write_s, own.blocked_s)
    return f"a client may be idle for {idle}, take {read} to ask, and {write} to read its replies"


def _time(given_s: float | None, own_s: float) -> str:
    return marked(duration(own_s if given_s is None else given_s), given_s, None)


def _front_rows(block: ServerBlock) -> Iterator[Row]:
    if block.dns64 is not None:
        yield "dns64", _dns64_text(block.dns64)
    if block.loadbalance is not None:
        yield "loadbalance", _balance_text(block.loadbalance)


def _dns64_text(policy: Dns64) -> str:
    default = Dns64()
    prefix = marked(policy.prefix, policy.prefix, default.prefix)
    when = "always" if policy.translate_all else "where there is no AAAA record"
    when = marked(when, policy.translate_all, default.translate_all)
    who = "all clients" if policy.allow_ipv4 else "clients that ask over IPv6"
    who = marked(who, policy.allow_ipv4, default.allow_ipv4)
    return f"AAAA records are made of A records with {prefix}, {when}, for {who}"


def _balance_text(policy: LoadBalance) -> str:
    text = "addresses stand in another order in each reply (default)"
    if policy.is_weighted:
        text = f"one address comes first, chosen by weight; {len(policy.weights)} names have some"
    return f"{text}; first come those in {some(policy.prefer)}" if policy.prefer else text


def _local_rows(block: ServerBlock) -> Iterator[Row]:
    if block.rewrites:
        kinds = Counter(
            type(rule).__name__.removeprefix("Rewrite").lower() for rule in block.rewrites
        )
        counts = ", ".join(f"{count} about {kind}" for kind, count in kinds.items())
        yield "rewrite", f"rules of the question and its response, in this order: {counts}"
    for number, template in enumerate(block.templates[:_MOST_LINES]):
        yield "" if number else "template", _template_text(template)
    left = len(block.templates) - _MOST_LINES
    if left > 0:
        yield "", f"and {left} more"
    if block.hosts is not None:
        yield "hosts", _hosts_text(block.hosts)
        yield "", _beyond_hosts(block.hosts)


def _template_text(template: AnswerTemplate) -> str:
    count = len(template.answer) + len(template.authority) + len(template.additional)
    reply = f"{rcode_text(template.rcode)} with {count} records"
    patterns = f" that match one of {len(template.patterns)} patterns" if template.patterns else ""
    others = ""
    if template.patterns and template.fallthrough is None:
        others = ", others SERVFAIL (default)"
    elif template.fallthrough is not None:
        others = f"; what does not match and is {below(template.fallthrough)} goes on"
    about = f"{class_text(template.rclass)} {type_text(template.rtype)}"
    return f"{about} of {below(template.zones)}{patterns} get {reply}{others}"


def _hosts_text(table: HostsTable) -> str:
    ttl = marked(duration(table.ttl_s), table.ttl_s, HostsTable(()).ttl_s)
    source = f" of {table.file} and the Corefile" if table.file else ""
    return f"{table.entries} entries{source} for {below(table.zones)}, TTL {ttl}"


def _beyond_hosts(table: HostsTable) -> str:
    if table.fallthrough is None:
        return "names without an entry get SERVFAIL (default)"
    return f"without an entry, {below(table.fallthrough)} go on"


def _last_rows(block: ServerBlock) -> Iterator[Row]:
    if block.is_whoami:
        yield "whoami", "what no forward takes is answered with the client's own address"
    elif not block.forwards:
        yield "forward", "nobody is asked: there is no 'forward' in this block, so REFUSED"
    if block.is_loop_checked and block.forwards:
        yield "loop", "after each start and reload it is seen whether queries come back here"


def _watch_rows(block: ServerBlock) -> Iterator[Row]:
    for number, rule in enumerate(block.logs[:_MOST_LINES]):
        yield "" if number else "log", _log_text(rule)
    yield "errors", _errors_text(block.errors)
    if block.is_debug:
        yield "debug", "lines for debugging are logged"
    nowhere = "not by this block (default)"
    yield "metrics", f"{_url(block.prometheus)}/metrics" if block.prometheus else nowhere
    yield "health", _health_text(block)
    yield "ready", f"{_url(block.ready)}/ready" if block.ready else nowhere
    if block.pprof:
        yield "pprof", f"{_url(block.pprof)}/debug/pprof/"


def _log_text(rule: LogRule) -> str:
    classes = sorted(log_class.value for log_class in rule.classes)
    what = "all responses" if LogClass.ALL in rule.classes else f"responses of {some(classes)}"
    return f"{what} about {below(rule.zones)}, as {rule.template}"


def _errors_text(policy: ErrorsPolicy | None) -> str:
    if policy is None:
        return "are not logged: there is no 'errors' in this block"
    sums = [f"'{rule.pattern}' once in {duration(rule.interval_s)}" for rule in policy.consolidate]
    return (
        f"are logged; summed up: {some(sums)}" if sums else "are logged, each on a line (default)"
    )


def _health_text(block: ServerBlock) -> str:
    if block.health is None:
        return "not by this block (default)"
    lameduck = duration(block.health.lameduck_s)
    lameduck = marked(lameduck, block.health.lameduck_s, 0.0)
    return f"{_url(block.health.address)}/health; serving on for {lameduck} after SIGTERM"


def _url(address: Address) -> str:
    return f"http://{address}" if address.host else f"http://*:{address.port}"
