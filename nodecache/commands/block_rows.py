"""One server block in plain words: who may ask, what is done here, and who is told about it."""

from __future__ import annotations

from collections.abc import Iterator

from nodecache.commands.cache_rows import cache_rows
from nodecache.commands.forward_rows import forward_rows
from nodecache.config.model import (
    Address,
    ErrorsPolicy,
    ServerBlock,
    Timeouts,
)
from nodecache.config.wording import Row, duration, marked, names, octets, some, url
from nodecache.directives.lazy import Place
from nodecache.directives.table import plugins_of
from nodecache.net.stream import TcpBounds


def block_title(block: ServerBlock) -> str:
    """Returns the first line about a block: its zones and where it stands."""
    return f"{names(block.zones)} on port {block.port} ({block.file}:{block.line})"


def block_rows(block: ServerBlock) -> Iterator[Row]:
    """Yields all rows about a block, in the order in which a query meets them."""
    yield from _listen_rows(block)
    yield from _directive_rows(block, Place.BEFORE_CACHE)
    yield from cache_rows(block)
    yield from _directive_rows(block, Place.REWRITES, Place.ANSWERS)
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
    if block.nsid is not None:
        yield "NSID", block.nsid or "the name of this host (default)"
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


def _directive_rows(block: ServerBlock, *places: Place) -> Iterator[Row]:
    for plugin in plugins_of(block, *places):
        yield from plugin.rows(block)


def _last_rows(block: ServerBlock) -> Iterator[Row]:
    last = tuple(plugins_of(block, Place.ANSWERS_LAST))
    for plugin in last:
        yield from plugin.rows(block)
    if not last and not block.forwards:
        rcode = "SERVFAIL" if block.takes_queries else "REFUSED"
        yield "forward", f"nobody is asked: there is no 'forward' in this block, so {rcode}"
    yield from _directive_rows(block, Place.LOOKS)


def _watch_rows(block: ServerBlock) -> Iterator[Row]:
    yield from _directive_rows(block, Place.LOGS)
    yield "errors", _errors_text(block.errors)
    if block.is_debug:
        yield "debug", "lines for debugging are logged"
    nowhere = "not by this block (default)"
    yield "metrics", f"{url(block.prometheus)}/metrics" if block.prometheus else nowhere
    yield "health", _health_text(block)
    yield "ready", f"{url(block.ready)}/ready" if block.ready else nowhere
    yield from _directive_rows(block, Place.PAGES)


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
    return f"{url(block.health.address)}/health; serving on for {lameduck} after SIGTERM"
