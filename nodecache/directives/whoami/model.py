"""Whether ``whoami`` answers what no ``forward`` takes."""

from __future__ import annotations

from nodecache.config.model import Setting

WHOAMI: Setting[bool] = Setting("whoami", False)
