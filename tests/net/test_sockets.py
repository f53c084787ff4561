from __future__ import annotations

import errno
import os
import resource
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Protocol

import pytest

from nodecache.config.model import Address
from nodecache.errors import SocketError
from nodecache.net import sockets
from nodecache.net.holders import describe_holder
from nodecache.net.sockets import open_tcp, open_udp, raise_descriptor_limit, receive_drops

OPENERS = (open_udp, open_tcp)


class Opener(Protocol):
    def __call__(self, address: Address, *, freebind: bool = False) -> socket.socket: ...


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback")


def port_of(sock: socket.socket) -> int:
    port: int = sock.getsockname()[1]
    return port


@pytest.fixture(params=["udp", "tcp"])
def holder(request: pytest.FixtureRequest) -> Iterator[tuple[str, socket.socket]]:
    """A socket that shares its port with nobody."""
    kind = socket.SOCK_DGRAM if request.param == "udp" else socket.SOCK_STREAM
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            sock.listen()
        yield request.param, sock


def run_python(code: str) -> str:
    """Runs ``code`` in a process of its own and returns what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("opener", OPENERS)
@pytest.mark.parametrize("host", ["127.0.0.1", pytest.param("::1", marks=needs_ipv6)])
def test_a_listening_socket_is_bound_and_does_not_block(opener: Opener, host: str) -> None:
    with closing(opener(Address(host, 0))) as sock:
        assert sock.getsockname()[0] == host
        assert port_of(sock) > 0
        assert sock.getblocking() is False


@pytest.mark.parametrize("opener", OPENERS)
def test_a_second_process_of_ours_may_bind_beside_the_first(opener: Opener) -> None:
    with (
        closing(opener(Address("127.0.0.1", 0))) as first,
        closing(opener(Address("127.0.0.1", port_of(first)))) as second,
    ):
        assert port_of(second) == port_of(first)


@needs_ipv6
@pytest.mark.parametrize("opener", OPENERS)
def test_both_wildcards_take_the_same_port(opener: Opener) -> None:
    with (
        closing(opener(Address("0.0.0.0", 0))) as v4,
        closing(opener(Address("::", port_of(v4)))) as v6,
    ):
        assert v6.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1


def test_only_tcp_reuses_an_address_in_time_wait() -> None:
    with (
        closing(open_udp(Address("127.0.0.1", 0))) as udp,
        closing(open_tcp(Address("127.0.0.1", 0))) as tcp,
    ):
        assert tcp.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) == 1
        assert udp.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) == 0
        assert udp.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) == 1


def test_accepted_connections_send_at_once_and_hold_little_kernel_memory() -> None:
    with closing(open_tcp(Address("127.0.0.1", 0))) as server:
        client = socket.create_connection(server.getsockname())
        server.setblocking(True)
        accepted, _ = server.accept()
        with client, accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
            sent = accepted.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
            assert sent == 2 * sockets.TCP_BUFFER_OCTETS


def test_the_udp_receive_buffer_is_raised() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
        usual = plain.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    with closing(open_udp(Address("127.0.0.1", 0))) as sock:
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) >= usual


def test_without_the_right_to_force_it_the_receive_buffer_is_what_the_kernel_grants(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sockets, "_SO_RCVBUFFORCE", 9999)  # an option that no kernel has
    with closing(open_udp(Address("127.0.0.1", 0))) as sock:
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) > 0


def test_an_address_in_use_names_the_process_that_holds_it(
    holder: tuple[str, socket.socket],
) -> None:
    transport, sock = holder
    opener = open_udp if transport == "udp" else open_tcp
    with pytest.raises(SocketError) as caught:
        opener(Address("127.0.0.1", port_of(sock)))
    text = str(caught.value)
    assert f"127.0.0.1:{port_of(sock)}" in text
    assert f"(pid {os.getpid()})" in text
    assert "choose another" in text


def test_a_wildcard_in_use_is_found_as_the_holder() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("0.0.0.0", 0))
        assert f"pid {os.getpid()}" in describe_holder(Address("127.0.0.9", port_of(sock)), "udp")


@needs_ipv6
def test_a_dual_stack_socket_is_found_as_the_holder_of_an_ipv4_port() -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(("::", 0))
        sock.listen()
        with pytest.raises(SocketError, match=rf"pid {os.getpid()}\)"):
            open_tcp(Address("127.0.0.1", port_of(sock)))


@needs_ipv6
def test_the_holder_of_an_ipv6_address_is_found() -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.bind(("::1", 0))
        assert f"pid {os.getpid()}" in describe_holder(Address("::1", port_of(sock)), "udp")
        assert describe_holder(Address("::2", port_of(sock)), "udp") == "another socket"


def test_an_address_of_no_interface_is_named_with_the_next_step() -> None:
    with pytest.raises(SocketError, match=r"192\.0\.2\.1:0 .*no interface of this machine"):
        open_udp(Address("192.0.2.1", 0))


@pytest.mark.parametrize("opener", OPENERS)
def test_freebind_takes_an_address_of_no_interface(opener: Opener) -> None:
    with closing(opener(Address("192.0.2.1", 0), freebind=True)) as sock:
        assert sock.getsockname()[0] == "192.0.2.1"


@needs_ipv6
def test_freebind_takes_an_ipv6_address_of_no_interface() -> None:
    with closing(open_udp(Address("2001:db8::1", 0), freebind=True)) as sock:
        assert sock.getsockname()[0] == "2001:db8::1"


@pytest.mark.parametrize("host", ["localhost", "10.0.0.256", "", "fe80::1%nosuchif0", "\udcff"])
def test_what_is_no_address_literal_is_refused(host: str) -> None:
    with pytest.raises(SocketError, match="cannot listen on"):
        open_udp(Address(host, 0))


def test_a_privileged_port_without_the_capability_names_it() -> None:
    text = run_python("""
        import os
        from nodecache.config.model import Address
        from nodecache.errors import SocketError
        from nodecache.net.sockets import open_udp
        if os.geteuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        try:
            open_udp(Address("127.0.0.1", 1))
        except SocketError as error:
            print(error)
        """)
    assert "127.0.0.1:1" in text
    assert "NET_BIND_SERVICE" in text


def test_running_out_of_descriptors_is_said_so() -> None:
    text = run_python("""
        import os, resource
        from nodecache.config.model import Address
        from nodecache.errors import SocketError
        from nodecache.net.sockets import open_tcp
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        try:
            while True:
                os.dup(0)
        except OSError:
            pass
        try:
            open_tcp(Address("127.0.0.1", 0))
        except SocketError as error:
            print(error)
        """)
    assert "no file descriptor is left" in text


def test_every_other_error_names_the_address_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(sock: socket.socket, freebind: bool) -> None:
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr(sockets, "_set_options", refuse)
    with pytest.raises(SocketError, match=r"127\.0\.0\.1:0 \(UDP\): input/output error"):
        open_udp(Address("127.0.0.1", 0))


def test_the_soft_descriptor_limit_rises_to_the_hard_one() -> None:
    text = run_python("""
        import resource
        from nodecache.net.sockets import raise_descriptor_limit
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
        print(raise_descriptor_limit() == hard)
        """)
    assert text.strip() == "True"


def test_a_descriptor_limit_that_cannot_be_raised_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(kind: int, limits: tuple[int, int]) -> None:
        raise ValueError

    monkeypatch.setattr(resource, "getrlimit", lambda kind: (64, 128))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert raise_descriptor_limit() == 64


def test_datagrams_that_found_a_full_queue_are_counted() -> None:
    with open_udp(Address("127.0.0.1", 0)) as sock, plain_udp() as client:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        assert receive_drops(sock) == 0
        for _ in range(200):
            client.sendto(b"query", sock.getsockname())
        arrived = 0
        with suppress(BlockingIOError):
            while sock.recv(512):
                arrived += 1
        assert arrived < 200
        assert receive_drops(sock) == 200 - arrived


def test_closed_socket_has_dropped_nothing() -> None:
    sock = open_udp(Address("127.0.0.1", 0))
    sock.close()
    assert receive_drops(sock) == 0


def plain_udp() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
