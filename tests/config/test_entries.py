from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodecache.config.entries import parse_address_octets, parse_host_name
from nodecache.config.names import parse_name


@pytest.mark.parametrize(
    ("text", "octets"),
    [
        ("192.0.2.1", b"\xc0\0\2\1"),
        ("::ffff:192.0.2.1", b"\xc0\0\2\1"),
        ("fe80::1%eth0", b"\xfe\x80" + bytes(13) + b"\1"),
    ],
)
def test_zones_are_left_out_and_mapped_addresses_are_ipv4(text: str, octets: bytes) -> None:
    assert parse_address_octets(text) == octets


@given(st.text("ab-_*1.\\A\u212a", max_size=12) | st.from_regex(r"([a-zA-Z0-9-]{60,64}\.){1,5}"))
def test_host_names_mean_what_all_names_mean(text: str) -> None:
    def outcome(parse: Callable[[str], bytes]) -> bytes | str:
        try:
            return parse(text)
        except ValueError as error:
            return str(error)

    assert outcome(parse_host_name) == outcome(lambda name: parse_name(name).wire)
