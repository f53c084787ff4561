from __future__ import annotations

from collections.abc import Callable

from nodecache.config.model import Config
from nodecache.directives.loop.model import LOOP


def test_loop_takes_nothing(
    configure: Callable[..., Config], find_faults: Callable[..., list[str]]
) -> None:
    assert configure(". {\nloop\n}\n").blocks[0].of(LOOP)
    assert not configure(". {\nerrors\n}\n").blocks[0].of(LOOP)
    assert find_faults(". {\nloop {\nx\n}\n}\n") == [
        "Corefile:3:1: 'loop' takes no options: remove the braces"
    ]
