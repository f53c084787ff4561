"""Whether ``loop`` looks for forwarding loops."""

from __future__ import annotations

from nodecache.config.model import Setting

LOOP: Setting[bool] = Setting("loop", False)
