"""Where ``pprof`` answers."""

from __future__ import annotations

from nodecache.config.model import Address, Setting

PPROF: Setting[Address | None] = Setting("pprof", None)
