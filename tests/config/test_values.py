"""Numbers, durations, sizes and addresses as flags and directives write them."""

from __future__ import annotations

import contextlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodecache.config.model import Address
from nodecache.config.values import (
    nearest,
    parse_duration_s,
    parse_integer,
    parse_ip,
    parse_listen_address,
    parse_octets,
    split_port,
)
from nodecache.limits import PORT


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("500ms", 0.5),
        ("30s", 30.0),
        ("1h30m", 5400.0),
        ("1.5s", 1.5),
        (".5s", 0.5),
        ("1.s", 1.0),
        ("-1s", -1.0),
        ("+2m", 120.0),
        ("3us", 3e-6),
        ("3\N{MICRO SIGN}s", 3e-6),
        ("7ns", 7e-9),
        ("1m1ms", 60.001),
    ],
)
def test_duration_in_the_syntax_of_go(text: str, seconds: float) -> None:
    assert parse_duration_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    ["", "s", "1", "-", "1x", "1s ", " 1s", "1h30", "1e3s", "1ss", "\u0661s"],
)
def test_other_durations_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"duration|no unit"):
        parse_duration_s(text)


def test_duration_without_unit_gets_the_seconds_proposed() -> None:
    with pytest.raises(ValueError, match=r"^'30' has no unit: write 30s for seconds$"):
        parse_duration_s("30")


@given(st.text())
def test_any_text_is_a_duration_or_a_value_error(text: str) -> None:
    seconds = 0.0
    with contextlib.suppress(ValueError):
        seconds = parse_duration_s(text)
    assert -math.inf < seconds < math.inf


@pytest.mark.parametrize("text", ["", "1_000", "1.0", " 1", "0x10", "\u0663", "1" * 19])
def test_only_decimal_digits_are_a_whole_number(text: str) -> None:
    with pytest.raises(ValueError, match="is no whole number"):
        parse_integer(text)


@pytest.mark.parametrize(
    ("text", "octets"),
    [("1", 1), ("1KiB", 1024), ("32MiB", 33_554_432), ("1GiB", 1_073_741_824)],
)
def test_sizes_count_in_powers_of_1024(text: str, octets: int) -> None:
    assert parse_octets(text) == octets


@pytest.mark.parametrize("text", ["", "1MB", "1.5MiB", "-1", "MiB"])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no size"):
        parse_octets(text)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("10.0.0.1", "10.0.0.1", ""),
        ("10.0.0.1:53", "10.0.0.1", "53"),
        ("::1", "::1", ""),
        ("[::1]", "::1", ""),
        ("[::1]:53", "::1", "53"),
        (":53", "", "53"),
        ("fe80::1%eth0", "fe80::1%eth0", ""),
    ],
)
def test_host_and_port_are_parted(text: str, host: str, port: str) -> None:
    assert split_port(text) == (host, port)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:9253", Address("127.0.0.1", 9253)),
        (":9253", Address("", 9253)),
        ("localhost:9153", Address("127.0.0.1", 9153)),
        ("[::]:9153", Address("::", 9153)),
    ],
)
def test_listen_address(text: str, address: Address) -> None:
    assert parse_listen_address(text) == address


@pytest.mark.parametrize(
    "text", ["", "9153", "127.0.0.1", "127.0.0.1:", "[::1", "[::1]9153", "a:1"]
)
def test_other_listen_addresses_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no port|needs the form|no IP address"):
        parse_listen_address(text)


def test_ip_addresses_take_their_normal_form() -> None:
    assert parse_ip("FD00:0:0::1") == "fd00::1"


def test_nearest_word_is_proposed_only_when_it_is_near() -> None:
    assert nearest("forwrd", ["cache", "forward"]) == "; did you mean 'forward'?"
    assert nearest("xyzzy", ["cache", "forward"]) == ""


def test_limit_says_bounds_unit_and_source_in_plain_figures() -> None:
    assert PORT.refusal(1_000_000) == "1000000 is out of range: give 1 to 65535 as a port (16 bits)"
    assert PORT.refusal(65_535) == ""
