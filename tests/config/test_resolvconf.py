"""Nameservers out of a resolv.conf, and our own addresses in every spelling."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodecache.config.model import Address
from nodecache.config.resolvconf import is_own, parse_nameservers


@pytest.mark.parametrize(
    ("text", "hosts", "others"),
    [
        ("", [], []),
        ("search a b\noptions ndots:5\n", [], []),
        ("nameserver 10.0.0.1\r\n\tnameserver   FD00::1\n", ["10.0.0.1", "fd00::1"], []),
        ("nameserver fe80::1%eth0", ["fe80::1%eth0"], []),
        ("#nameserver 10.0.0.1\n ; nameserver 10.0.0.2", [], []),
        ("nameserver 10.0.0.1#x\nnameserver 10.0.0.2;x y", ["10.0.0.1", "10.0.0.2"], []),
        ("nameserver 10.0.0.1 10.0.0.2\nnameserver 10.0.0.1", ["10.0.0.1"], []),
        ("nameserver\nnameserver dns.example", [], ["", "dns.example"]),
        ("nameservers 10.0.0.1\nNAMESERVER 10.0.0.1", [], []),
        (
            "nameserver fe80::1%eth0}{\nnameserver 10.0.0.1\x1b[",
            [],
            ["fe80::1%eth0}{", "10.0.0.1\x1b["],
        ),
    ],
)
def test_nameserver_lines(text: str, hosts: list[str], others: list[str]) -> None:
    assert parse_nameservers(text) == (hosts, others)


def test_the_first_fifteen_nameservers_count() -> None:
    text = "".join(f"nameserver 10.0.0.{n}\n" for n in range(100))
    assert parse_nameservers(text)[0] == [f"10.0.0.{n}" for n in range(15)]
    assert len(parse_nameservers("nameserver x\n" * 100)[1]) == 15


@given(st.text())
def test_no_text_makes_it_raise(text: str) -> None:
    hosts, others = parse_nameservers("nameserver " + text)
    assert len(hosts) + len(others) <= 15


@pytest.mark.parametrize(
    ("host", "is_ours"),
    [
        ("169.254.20.10", True),
        ("::ffff:169.254.20.10", True),
        ("fe80::a%eth0", True),
        ("0.0.0.0", True),
        ("::", False),
        ("127.0.0.53", False),
        ("fe80::b%eth0", False),
    ],
)
def test_own_address_is_known_in_every_spelling(host: str, is_ours: bool) -> None:
    own = [Address(o, 53) for o in ("169.254.20.10", "fe80::a", "127.0.0.1")]
    assert is_own(Address(host, 53), own) is is_ours
    assert not is_own(Address(host, 54), own)
