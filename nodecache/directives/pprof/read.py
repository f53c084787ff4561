"""How ``pprof`` is written."""

from __future__ import annotations

from nodecache.config.corefile import Directive
from nodecache.config.model import Address, ServerBlock
from nodecache.config.reading import Arguments, Option, Scope, read_options, read_value
from nodecache.config.values import parse_listen_address
from nodecache.directives.pprof.model import PPROF

USAGE = "pprof [IP:PORT]"


def read(directive: Directive, scope: Scope, draft: ServerBlock) -> ServerBlock:
    """Applies ``pprof``."""
    default = Address("127.0.0.1", 6053)
    address = read_value(directive, USAGE, scope, parse_listen_address, default)
    read_options(directive, _OPTIONS, None, scope)
    return draft.having(PPROF, address)


def _refuse_block(arguments: Arguments, _value: None) -> None:
    text = "'block' profiles goroutines, of which there are none here"
    arguments.rest()
    arguments.scope.report.fault(
        arguments.name, f"{text}: remove it; /debug/pprof/tasks shows what waits, and where"
    )


_OPTIONS = {"block": Option("block [RATE]", _refuse_block)}
