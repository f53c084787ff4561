"""How ``loop`` is written."""

from __future__ import annotations

from nodecache.config.corefile import Directive
from nodecache.config.model import ServerBlock
from nodecache.config.reading import Scope, read_nothing
from nodecache.directives.loop.model import LOOP

USAGE = "loop"


def read(directive: Directive, scope: Scope, draft: ServerBlock) -> ServerBlock:
    """Applies ``loop``."""
    read_nothing(directive, USAGE, scope)
    return draft.having(LOOP, True)
