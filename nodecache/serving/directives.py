"""Builds what only some server blocks have; most daemons never import it.

Each import here saves time at the start and memory for good where the directive is not used.
"""

# ruff: noqa: PLC0415 (imports where they are needed are what this file is for)

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from nodecache.config.model import ServerBlock
from nodecache.engine.local import Chain, Responder

if TYPE_CHECKING:
    from nodecache.engine.directives.template import TemplateCounts
    from nodecache.engine.front import Directives


def build_front(block: ServerBlock) -> Directives | None:
    """Returns what stands before the cache, None if nothing does."""
    if block.dns64 is None and block.loadbalance is None and not block.logs:
        return None
    from nodecache.engine.directives.balance import Balancer
    from nodecache.engine.directives.dns64 import Synthesizer
    from nodecache.engine.front import Directives
    from nodecache.telemetry.querylog import QueryLog

    return Directives(
        Synthesizer(block.dns64) if block.dns64 is not None else None,
        Balancer(block.loadbalance, random.random) if block.loadbalance is not None else None,
        QueryLog(block.logs).note if block.logs else None,
    )


def build_chain(block: ServerBlock, counts: TemplateCounts | None) -> Chain | None:
    """Returns what stands between cache and ``forward``, None if nothing does.

    ``counts`` is None for a block without templates, see ``new_counts``.
    """
    responders: list[Responder] = []
    rewriter = None
    if counts is not None:
        from nodecache.engine.directives.template import TemplateResponder

        responders.append(TemplateResponder(block.templates, counts))
    if block.hosts is not None:
        from nodecache.engine.directives.hosts import HostsResponder

        responders.append(HostsResponder(block.hosts))
    if block.rewrites:
        from nodecache.engine.directives.rewrite import RuleRewriter

        rewriter = RuleRewriter(block.rewrites)
    return Chain(rewriter, tuple(responders)) if rewriter or responders else None


def new_counts(block: ServerBlock) -> TemplateCounts | None:
    """Returns what the templates of a block count, None without templates."""
    if not block.templates:
        return None
    from nodecache.engine.directives.template import TemplateCounts

    return TemplateCounts()
