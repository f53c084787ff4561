"""``nodecache explain``: says in plain words what a configuration comes to, defaults included."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from nodecache.commands.block_rows import block_rows, block_title
from nodecache.commands.check import look, unreadable_line
from nodecache.commands.inspection import Inspection
from nodecache.commands.layout import lay_out
from nodecache.commands.output import (
    EXIT_CONFIGURATION,
    EXIT_GOOD,
    EXIT_MACHINE,
    counted,
    write,
    write_error,
)
from nodecache.commands.request import STAND_IN, Request, read_request
from nodecache.config.flags import Flags
from nodecache.config.model import Address, Config, NxdomainScope
from nodecache.config.wording import Row, marked, octets, some
from nodecache.limits import MAX_INFLIGHT
from nodecache.printing import printable
from nodecache.upstreams.pool import MAX_WAITING

HELP = f"""\
nodecache explain says in plain words what a configuration comes to: for each server block what it
listens on, keeps, changes, answers and forwards, with every default; and what holds for all.
It starts nothing, binds nothing and writes nothing.

Usage: nodecache explain [FLAGS] [FILE...]

  FILE   a Corefile, "-" for standard input, and beside it the folder of a kube-dns ConfigMap.
         Without FILE: what -basecorefile, -conf and -kubednscm name.
         With neither FILE nor FLAGS: those of the nodecache that runs here, with its environment
         (-rundir FOLDER finds it elsewhere), else the defaults.
  FLAGS  those of nodecache (see nodecache help), so that the args of a DaemonSet can be pasted
         here. Without -localip, {STAND_IN} stands in for it.

Examples:
  nodecache explain Corefile
  nodecache explain -localip 169.254.20.10 Corefile

"(default)" stands behind what is as if it had not been written. With faults, those are shown as by
nodecache check.

Exit codes: 0 explained, 2 faults, 1 a FILE cannot be read at all.
"""

_DEFAULTS = Flags()
_WHOLE = 100  # per cent


def explain(words: Sequence[str]) -> int:
    """Runs ``nodecache explain`` with the words behind it; returns the exit code."""
    request = read_request(words)
    if request.flags.help:
        write(HELP)
        return EXIT_GOOD
    write(request.origin and f"{request.origin}\n")
    for fault in request.faults:
        write(f"{printable(str(fault))}\n")
    codes = [_explain_one(found, request) for found in look(request)]
    if EXIT_MACHINE in codes:
        return EXIT_MACHINE
    return EXIT_CONFIGURATION if request.faults or any(codes) else EXIT_GOOD


def _explain_one(found: Inspection, request: Request) -> int:
    """Explains what was found, or says why it cannot; returns an exit code."""
    if found.unreadable:
        write_error(unreadable_line(found))
        return EXIT_MACHINE
    if found.faults:
        write(f"{found.show()}{printable(found.summary().rstrip())}\n")
        return EXIT_CONFIGURATION
    if found.config is None:
        text = "what a ConfigMap comes to depends on the Corefile; name that, too"
        write(printable(f"{found.label}: {text}") + "\n")
        return EXIT_CONFIGURATION
    parts = [lay_out(block_title(block), block_rows(block)) for block in found.config.blocks]
    count = counted(len(found.config.blocks), "server block")
    parts.append(lay_out(f"All of {found.label}: {count}", _rows(found, found.config, request)))
    parts.append("".join(map(found.excerpts.show_warning, found.warnings)))
    write("\n".join(part for part in parts if part))
    return EXIT_GOOD


def _rows(found: Inspection, config: Config, request: Request) -> Iterator[Row]:
    """What holds for all server blocks."""
    flags = request.flags
    own = some(flags.localip) if request.has_localip else f"{STAND_IN}, for want of -localip"
    yield "own addresses", own
    yield "caches", _caches_text(config)
    yield "NXDOMAIN", _nxdomain_text(config)
    most = config.max_inflight
    text = f"{most} exchanges with upstreams at a time, then REFUSED"
    yield "in flight", marked(text, most, int(MAX_INFLIGHT.default))
    yield "one client", marked(_share_text(config), config.client_share, _DEFAULTS.client_share)
    if config.missing_service is not None:
        missing = config.missing_service
        servers = some(map(str, missing.servers)) or "nobody"
        name = f"{missing.name}.{missing.namespace}"
        yield "waits for", f"the Service {name}: {missing.variable}, else {servers} is asked"
    metrics = _metrics_text(config.setup_metrics)
    yield "metrics", marked(metrics, config.setup_metrics, _DEFAULTS.metrics_listen)
    form = f"to standard error, as {config.log_format.value}"
    yield "log", marked(form, config.log_format, _DEFAULTS.log_format)
    yield "pidfile", marked(config.pidfile or "none", config.pidfile, _DEFAULTS.pidfile)
    yield from _file_rows(found, config)


def _caches_text(config: Config) -> str:
    size = marked(octets(config.cache_octets), config.cache_octets, _DEFAULTS.cache_octets)
    return f"{size} for all server blocks together"


def _share_text(config: Config) -> str:
    if config.client_share >= _WHOLE:
        return "may have all of them"
    room = min(config.max_inflight, MAX_WAITING)
    more = max(1, room * config.client_share // _WHOLE)
    return f"may add {more} when {room // 2} are in flight, then REFUSED"


def _nxdomain_text(config: Config) -> str:
    scope = config.nxdomain_scope
    if scope is NxdomainScope.NONE:
        text = "answers the type that was asked for"
    elif scope is NxdomainScope.ALL:
        text = "for A answers every type of all names"
    else:
        text = f"for A answers every type of names below {config.cluster_domain.text}"
    return marked(text, scope, _DEFAULTS.nxdomain_scope)


def _metrics_text(address: Address | None) -> str:
    if address is None:
        return "nowhere"
    return f"http://{address.host or '*'}:{address.port}/metrics"


def _file_rows(found: Inspection, config: Config) -> Iterator[Row]:
    yield "reads", some(found.reader.paths)
    if found.imports:
        yield "imports", f"relative ones from {found.imports}"
    missing = [path for path in found.reader.failures if path not in found.reader.paths]
    if missing:
        yield "looks for", some(missing)
    when = "within 2 s, and on SIGUSR1 and SIGHUP" if config.is_watched else "on SIGUSR1 and SIGHUP"
    changes = marked(f"are loaded {when}", config.is_watched, _DEFAULTS.watch)
    yield "changes", f"of these files {changes}"
    yield "", "while a resolv.conf names nobody, or a hosts file is gone, what it said goes on"
