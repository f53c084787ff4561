"""How ``whoami`` is written."""

from __future__ import annotations

from nodecache.config.corefile import Directive
from nodecache.config.model import ServerBlock
from nodecache.config.reading import Scope, read_nothing
from nodecache.directives.whoami.model import WHOAMI

USAGE = "whoami"


def read(directive: Directive, scope: Scope, draft: ServerBlock) -> ServerBlock:
    """Returns ``draft`` with ``whoami``."""
    read_nothing(directive, USAGE, scope)
    return draft.having(WHOAMI, True)
