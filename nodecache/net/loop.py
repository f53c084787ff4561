"""Which event loop serves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Returns uvloop's factory, None for asyncio's own where uvloop does not exist."""
    try:
        import uvloop  # noqa: PLC0415 # platforms without it still serve
    except ImportError:
        return None
    return uvloop.new_event_loop
