"""A reload in the middle of an outage."""

from __future__ import annotations

from dataclasses import replace

from nodecache.cache.message import NEVER
from nodecache.config.model import (
    ROOT,
    Address,
    CachePolicy,
    Config,
    ForwardPolicy,
    Lifetime,
    ServerBlock,
    ServeStale,
    StaleMode,
    Upstream,
)
from nodecache.counters import Counters
from nodecache.resolve.block import Pending
from nodecache.serving.blocks import Blocks
from tests.cache.building import NOW, key, message

STALE = CachePolicy(serve_stale=ServeStale(3600, StaleMode.VERIFY))
BLOCK = ServerBlock(
    (ROOT,),
    53,
    ("192.0.2.53",),
    cache=STALE,
    forwards=(ForwardPolicy(ROOT, (Upstream(Address("192.0.2.1", 53)),)),),
)


def test_who_waits_keeps_the_stale_answer_that_is_still_kept() -> None:
    blocks = Blocks(1 << 22, Counters())
    blocks.apply(Config((BLOCK,)), NOW)
    (state,) = blocks.states
    assert state.messages is not None
    known, changed = message(key()), replace(STALE, success=Lifetime(100, 20))
    known.keep_until += 3600
    state.messages.admit(known, NOW)
    pending = Pending(state, key(), BLOCK.forwards[0], state.messages, NOW, lambda *_: True)
    pending.message, known.refresh_at = known, NEVER
    state.pending[key()] = pending
    blocks.apply(Config((replace(BLOCK, cache=changed),)), NOW + 25)
    assert state.messages.peek(key()) is known
    assert pending.message is known, "its exchange tells it when to be asked for again"
    blocks.apply(Config((replace(BLOCK, cache=CachePolicy()),)), NOW + 25)
    assert pending.message is None, "not to be served stale any more"
