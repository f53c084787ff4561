"""The words of a hand-over, and the places where two daemons meet."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodecache.errors import HandoverError, SocketError
from nodecache.process.descriptors import map_sealed
from nodecache.process.handover import (
    MESSAGE_OCTETS,
    MOST_IN_BATCH,
    MOST_SOCKETS,
    PROTOCOL,
    SNAPSHOT_OCTETS,
    SOCKET_FILE,
    Batch,
    Declined,
    Hello,
    Said,
    Welcome,
    Word,
    compose_message,
    network_id,
    open_handover_socket,
    parse_message,
    peer_user,
    why_strangers,
)
from tests.process.memory import sealed

NUMBERS = st.integers(0, 2**63 - 1)
PRINTABLE = st.characters(min_codepoint=0x20, max_codepoint=0x7E)
HELLOS = st.builds(
    Hello,
    st.text(PRINTABLE, max_size=64),
    st.lists(st.text(max_size=10), max_size=20).map(tuple),
    NUMBERS,
    NUMBERS,
)
MESSAGES: st.SearchStrategy[Said] = st.one_of(
    HELLOS,
    st.builds(Welcome, HELLOS, st.integers(0, MOST_SOCKETS), st.integers(0, SNAPSHOT_OCTETS)),
    st.builds(Batch, st.lists(st.text(PRINTABLE, max_size=100), max_size=MOST_IN_BATCH).map(tuple)),
    st.builds(Declined, st.text(PRINTABLE, max_size=400)),
    st.sampled_from(Word),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
HELLO = Hello("1.2.3", ("169.254.20.10", "fd00::a"), 1, 4026531840)


def parse(octets: bytes) -> Said | None:
    """Returns what the parser makes of it; any exception but its own fails the test."""
    try:
        return parse_message(octets)
    except HandoverError:
        return None


def open_descriptors() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


@given(MESSAGES)
def test_each_message_comes_back_as_it_went(message: Said) -> None:
    assert parse_message(compose_message(message)) == message


@given(st.binary(max_size=200))
def test_any_octets_are_a_message_or_refused(octets: bytes) -> None:
    assert parse(octets) is None


@given(MESSAGES, st.data())
def test_a_message_cut_short_is_refused(message: Said, data: st.DataObject) -> None:
    octets = compose_message(message)
    assert parse(octets[: data.draw(st.integers(0, len(octets) - 1))]) is None


@given(MESSAGES, st.data())
def test_fields_of_any_kind_are_parsed_or_refused(message: Said, data: st.DataObject) -> None:
    fields = json.loads(compose_message(message))
    name = data.draw(st.sampled_from(sorted(fields)))
    fields[name] = data.draw(JSON)
    found = parse(json.dumps(fields).encode())
    assert found is None or json.loads(compose_message(found))["protocol"] == PROTOCOL


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("network", True),
        ("network", -1),
        ("network", 2**63),
        ("network", 1.0),
        ("network", None),
        ("addresses", "169.254.20.10"),
        ("addresses", ["a"] * 257),
        ("addresses", ["a" * 65]),
        ("addresses", [1]),
        ("version", "v" * 65),
        ("version", ["1"]),
        ("type", "hallo"),
        ("type", ["hello"]),
    ],
)
def test_a_wrong_field_is_refused(field: str, value: object) -> None:
    fields = json.loads(compose_message(HELLO)) | {field: value}
    with pytest.raises(HandoverError):
        parse_message(json.dumps(fields).encode())


@pytest.mark.parametrize(
    "octets",
    [
        b"[" * 20_000,
        b'{"a":' * 5_000,
        b'{"protocol":' + b"9" * 10_000 + b"}",
        b"\xff\xfe",
        b"NaN",
        b" " * (MESSAGE_OCTETS + 1),
    ],
)
def test_what_strains_a_parser_is_refused(octets: bytes) -> None:
    with pytest.raises(HandoverError):
        parse_message(octets)


def test_another_version_of_the_protocol_is_named_before_all_else() -> None:
    with pytest.raises(HandoverError, match=rf"version 7 of .* this program {PROTOCOL}"):
        parse_message(b'{"protocol": 7, "anything": "else"}')


def test_what_a_peer_says_cannot_act_on_a_terminal() -> None:
    said = parse_message(compose_message(Declined("no\x1b[2J\nreally \ud800")))
    assert said == Declined("no\\x1b[2J\\nreally \\ud800")


def test_the_longest_batch_fits_into_a_message() -> None:
    assert len(compose_message(Batch(("n" * 100,) * MOST_IN_BATCH))) < MESSAGE_OCTETS


def test_a_message_that_nobody_would_accept_is_not_composed() -> None:
    with pytest.raises(HandoverError, match="too long"):
        compose_message(Batch(("n" * 1000,) * MOST_IN_BATCH))


@pytest.mark.parametrize(
    ("others", "reason"),
    [
        (("169.254.20.10",), ""),
        (("10.0.0.1", "FD00:0::A"), ""),
        (("169.254.20.11",), "no -localip in common"),
        ((), "no -localip in common"),
        (("nonsense",), "no -localip in common"),
    ],
)
def test_daemons_replace_each_other_if_they_share_an_address(
    others: tuple[str, ...], reason: str
) -> None:
    assert reason in why_strangers(HELLO, Hello("1", others, 1, HELLO.network))
    assert bool(why_strangers(HELLO, Hello("1", others, 1, HELLO.network))) == bool(reason)


def test_daemons_without_local_addresses_replace_each_other() -> None:
    assert why_strangers(Hello("1", (), 1, 5), Hello("2", (), 1, 5)) == ""


def test_daemons_in_two_network_namespaces_are_strangers() -> None:
    other = Hello("1", HELLO.addresses, 1, HELLO.network + 1)
    assert "different network namespaces" in why_strangers(HELLO, other)


def test_network_id_is_that_of_the_kernel() -> None:
    assert Path("/proc/self/ns/net").readlink() == Path(f"net:[{network_id()}]")


@pytest.mark.netns
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_another_network_namespace_has_another_id() -> None:
    command = ["unshare", "-n", "stat", "-L", "-c", "%i", "/proc/self/ns/net"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    if done.returncode:
        pytest.skip(f"no network namespaces here: {done.stderr.strip()}")
    assert int(done.stdout) != network_id()


# The socket on which successors find us.


def test_the_socket_is_private_and_listens(tmp_path: Path) -> None:
    rundir = tmp_path / "a" / "b"  # a socket's path has 107 octets at most
    with closing(open_handover_socket(rundir)) as sock:
        file = rundir / SOCKET_FILE
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert stat.S_IMODE(rundir.stat().st_mode) == 0o700
        assert [path.name for path in rundir.iterdir()] == [SOCKET_FILE]
        assert not sock.getblocking()
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
            client.connect(str(file))
            assert peer_user(client) == os.geteuid()


def test_the_file_of_a_dead_predecessor_is_replaced(tmp_path: Path) -> None:
    open_handover_socket(tmp_path).close()
    with (
        closing(open_handover_socket(tmp_path)) as new,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client,
    ):
        client.connect(str(tmp_path / SOCKET_FILE))
        new.accept()[0].close()


@pytest.mark.parametrize("rundir", ["file", "file/below", "d" * 120])
def test_a_place_that_is_none_is_refused_with_the_next_step(tmp_path: Path, rundir: str) -> None:
    (tmp_path / "file").touch()
    before = open_descriptors()
    with pytest.raises(SocketError, match=r"cannot listen on .*choose another -rundir"):
        open_handover_socket(tmp_path / rundir)
    assert open_descriptors() == before


# Files in memory.


def test_a_sealed_file_holds_what_was_written_and_no_more() -> None:
    descriptor = sealed(b"one" + b"two" * 100_000)
    try:
        with closing(map_sealed(descriptor, 300_003)) as found:
            assert found[:] == b"one" + b"two" * 100_000
        for change in (lambda: os.write(descriptor, b"x"), lambda: os.ftruncate(descriptor, 1)):
            with pytest.raises(PermissionError):
                change()
    finally:
        os.close(descriptor)
