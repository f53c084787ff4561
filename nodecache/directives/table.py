"""The one table of all directives, in node-cache's order of execution.

To add one, add its folder and its line here; without the two it is unknown.
"""

from __future__ import annotations

from collections.abc import Iterator

from nodecache.config.model import ServerBlock
from nodecache.config.plugin import Plugin
from nodecache.config.reading import Twice
from nodecache.config.stock import binding, caching, forwarding, observing
from nodecache.directives.lazy import LazyPlugin, Place, lazy

# Where node-cache has none, ready and nsid stand as in CoreDNS.
PLUGINS: dict[str, Plugin] = {
    "metadata": Plugin(observing.METADATA_USAGE, observing.read_metadata),
    "timeouts": Plugin(
        observing.TIMEOUTS_USAGE,
        observing.read_timeouts,
        twice=Twice.LAST,
        is_about_queries=False,
    ),
    "reload": Plugin(
        observing.RELOAD_USAGE, observing.read_reload, twice=Twice.FIRST, is_about_queries=False
    ),
    "nsid": Plugin(observing.NSID_USAGE, observing.read_nsid),
    "bufsize": Plugin(observing.BUFSIZE_USAGE, observing.read_bufsize, twice=Twice.FIRST),
    "bind": Plugin(binding.USAGE, binding.read_bind, twice=Twice.BOTH, is_about_queries=False),
    "debug": Plugin(
        observing.DEBUG_USAGE, observing.read_debug, twice=Twice.LAST, is_about_queries=False
    ),
    "trace": Plugin(observing.TRACE_USAGE, refusal=observing.TRACE_REFUSAL, twice=Twice.BOTH),
    "ready": Plugin(observing.READY_USAGE, observing.read_ready, is_about_queries=False),
    "health": Plugin(
        observing.HEALTH_USAGE, observing.read_health, twice=Twice.LAST, is_about_queries=False
    ),
    "pprof": lazy("pprof", Place.PAGES),
    "prometheus": Plugin(observing.PROMETHEUS_USAGE, observing.read_prometheus),
    "errors": Plugin(observing.ERRORS_USAGE, observing.read_errors),
    "log": lazy("log", Place.LOGS, Twice.BOTH),
    "dnstap": Plugin(observing.DNSTAP_USAGE, refusal=observing.DNSTAP_REFUSAL, twice=Twice.BOTH),
    "dns64": lazy("dns64", Place.BEFORE_CACHE, Twice.LAST),
    "loadbalance": lazy("loadbalance", Place.BEFORE_CACHE, Twice.LAST),
    "cache": Plugin(caching.USAGE, caching.read_cache),
    "rewrite": lazy("rewrite", Place.REWRITES, Twice.BOTH),
    "template": lazy("template", Place.ANSWERS, Twice.BOTH, counts=True),
    "hosts": lazy("hosts", Place.ANSWERS, notes=True),
    "loop": lazy("loop", Place.LOOKS),
    "forward": Plugin(forwarding.USAGE, forwarding.read_forward, twice=Twice.BOTH),
    "whoami": lazy("whoami", Place.ANSWERS_LAST, Twice.LAST),
}

_LAZY = tuple(plugin for plugin in PLUGINS.values() if isinstance(plugin, LazyPlugin))


def plugins_of(block: ServerBlock, *places: Place) -> Iterator[LazyPlugin]:
    """Yields the directives of ``block`` that have a folder and one of ``places``, in order."""
    present = {name for name, _ in block.settings}
    return (each for each in _LAZY if each.place in places and each.name in present)


def settings_of(block: ServerBlock, *places: Place) -> tuple[tuple[str, object], ...]:
    """Returns what these directives are configured to, to compare."""
    names = {each.name for each in plugins_of(block, *places)}
    return tuple(each for each in block.settings if each[0] in names)
