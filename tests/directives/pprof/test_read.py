from __future__ import annotations

from collections.abc import Callable

import pytest

from nodecache.config.model import Address, Config
from nodecache.directives.pprof.model import PPROF


@pytest.mark.parametrize(
    ("directive", "address"),
    [("pprof", Address("127.0.0.1", 6053)), ("pprof :6060", Address("", 6060))],
)
def test_pprof(directive: str, address: Address, configure: Callable[..., Config]) -> None:
    (block,) = configure(f". {{\n{directive}\n}}\n").blocks
    assert block.of(PPROF) == address


def test_profile_of_go_s_own_is_a_fault(find_faults: Callable[..., list[str]]) -> None:
    assert find_faults(". {\npprof {\nblock 1\n}\n}\n") == [
        (
            "Corefile:3:1: 'block' profiles goroutines, of which there are none here: remove it;"
            " /debug/pprof/tasks shows what waits, and where"
        )
    ]
