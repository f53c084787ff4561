from __future__ import annotations

from collections.abc import Callable

import pytest

from nodecache.config.model import Config
from nodecache.directives.dns64.model import DNS64, Dns64


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("dns64", Dns64("64:ff9b::/96")),
        ("dns64 2001:db8:64::/96", Dns64("2001:db8:64::/96")),
        ("dns64 2001:db8:64::1/64", Dns64("2001:db8:64::/64")),
        ("dns64 {\nprefix 2001:db8::/32\n}", Dns64("2001:db8::/32")),
        ("dns64 64:ff9b:1::/48 {\ntranslate_all\n}", Dns64("64:ff9b:1::/48", translate_all=True)),
        ("dns64 {\nallow_ipv4\ntranslate_all\n}", Dns64("64:ff9b::/96", True, True)),
        ("dns64 2001:db8::/40 {\nprefix 2001:db8::/56\n}", Dns64("2001:db8::/56")),
    ],
)
def test_dns64_forms(configure: Callable[..., Config], text: str, policy: Dns64) -> None:
    config = configure(f".:53 {{\n{text}\n}}\n")
    assert config.blocks[0].of(DNS64) == policy
    assert config.warnings == ()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (
            "dns64 10.0.0.0/8",
            (
                "Corefile:2:7: '10.0.0.0/8' is no IPv6 prefix such as 64:ff9b::/96;"
                " write 'dns64 [PREFIX]'"
            ),
        ),
        (
            "dns64 64:ff9b::/72",
            (
                "Corefile:2:7: '64:ff9b::/72' has 72 bits: RFC 6052 knows 32, 40, 48, 56, 64 and"
                " 96; write 'dns64 [PREFIX]'"
            ),
        ),
        (
            "dns64 64:ff9b::",
            (
                "Corefile:2:7: '64:ff9b::' has 128 bits: RFC 6052 knows 32, 40, 48, 56, 64 and 96;"
                " write 'dns64 [PREFIX]'"
            ),
        ),
        (
            "dns64 64:ff9b::/96 64:ff9b:1::/96",
            "Corefile:2:20: '64:ff9b:1::/96' is one argument too many; write 'dns64 [PREFIX]'",
        ),
        ("dns64 {\nprefix\n}", "Corefile:3:1: 'prefix' needs a PREFIX; write 'prefix PREFIX'"),
        (
            "dns64 {\ntranslate_all on\n}",
            "Corefile:3:15: 'on' is one argument too many; write 'translate_all'",
        ),
        (
            "dns64 {\nallow_ip4\n}",
            "Corefile:3:1: 'dns64' has no option 'allow_ip4'; did you mean 'allow_ipv4'?",
        ),
    ],
)
def test_bad_dns64_is_a_fault(find_faults: Callable[..., list[str]], text: str, fault: str) -> None:
    assert find_faults(f".:53 {{\n{text}\n}}\n") == [fault]
