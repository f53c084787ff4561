"""A directive with a folder of its own, and which of its modules is imported when.

Nothing of a folder is imported before a Corefile has the directive: that is time at the start,
and memory for good, of every node. Its modules, each with the names that are looked for in it:

model.py     its Setting
read.py      USAGE; read(directive, scope, draft) -> ServerBlock
explain.py   rows(block) -> the rows of ``nodecache explain``
series.py    note(config, counters), where ``notes``: figures that come with a configuration

and what it does, by its Place.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from nodecache.config.model import ServerBlock
from nodecache.config.plugin import Plugin, Syntax
from nodecache.config.reading import Twice

if TYPE_CHECKING:
    from nodecache.config.wording import Row


class Place(enum.Enum):
    """Where in a query's way a directive does its work, and as what.

    BEFORE_CACHE, LOGS: act.before_cache(block, parts, random) -> Directives with one more part
        (resolve/before_cache.py).
    REWRITES: act.rewriter(block) -> Rewriter (resolve/behind_cache.py).
    ANSWERS: act.responder(block, before) -> Responder (there), ``before`` the one that it follows
        in a running server block, or None; and, where ``counts``, act.hand_in(responder, server,
        counters).
    ANSWERS_LAST: act.whoami_response(question, address, proto) -> response.
    LOOKS: watch.make_watch(resolver, flush, loop) -> Watch (serving/directives.py).
    PAGES: pages.address_of(block); pages.make_pages(gauges) -> path -> page.
    """

    BEFORE_CACHE = "before the cache"
    LOGS = "logs what passes"
    REWRITES = "changes questions behind the cache"
    ANSWERS = "answers behind the cache"
    ANSWERS_LAST = "answers what no forward takes"
    LOOKS = "looks after the block"
    PAGES = "shows HTTP pages"


_ANSWERING = (Place.REWRITES, Place.ANSWERS, Place.ANSWERS_LAST)


@dataclass(frozen=True, slots=True, kw_only=True)
class LazyPlugin(Plugin):
    """A plugin that has its folder.

    Attributes:
        name: Of the directive, the folder and the Setting.
        place: What it does.
        counts: Its responder has figures that are handed in before each scrape.
        notes: It has series.py.
    """

    name: str
    place: Place
    counts: bool = False
    notes: bool = False

    @property
    def syntax(self) -> Syntax:
        """How it is written and read."""
        module = self.module("read")
        return Syntax(module.USAGE, module.read)

    def module(self, name: str) -> Any:
        """Returns a module of the folder."""
        return import_module(f"nodecache.directives.{self.name}.{name}")

    def rows(self, block: ServerBlock) -> Iterator[Row]:
        """Returns what ``nodecache explain`` says of the directive in ``block``."""
        rows: Iterator[Row] = self.module("explain").rows(block)
        return rows


def lazy(
    name: str,
    place: Place,
    twice: Twice = Twice.REFUSED,
    *,
    counts: bool = False,
    notes: bool = False,
) -> LazyPlugin:
    """Returns the plugin of the folder ``name``."""
    return LazyPlugin(
        name=name,
        place=place,
        twice=twice,
        counts=counts,
        notes=notes,
        is_about_queries=place is not Place.PAGES,
        answers=place in _ANSWERING,
    )
