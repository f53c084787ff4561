from __future__ import annotations

from collections.abc import Callable

from nodecache.config.model import Config
from nodecache.directives.whoami.model import WHOAMI


def test_whoami_takes_nothing(
    configure: Callable[..., Config], find_faults: Callable[..., list[str]]
) -> None:
    assert configure(". {\nwhoami\n}\n").blocks[0].of(WHOAMI)
    assert find_faults(". {\nwhoami me\n}\n") == [
        "Corefile:2:8: 'me' is one argument too many; write 'whoami'"
    ]
    assert find_faults(". {\nwhoami {\nport\n}\n}\n") == [
        "Corefile:3:1: 'whoami' takes no options: remove the braces"
    ]
