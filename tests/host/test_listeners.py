"""Who has the DNS port of our addresses: real sockets, of this process."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from nodecache.config.node import NodePlan
from nodecache.host import listeners
from nodecache.host.listeners import who_serves
from tests.daemon.processes import HOST, free_port


@pytest.fixture
def plan() -> NodePlan:
    return NodePlan("nodelocaldns", (HOST, "::1"), dns_port=free_port())


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def listen(stack: ExitStack, host: str, port: int, kind: socket.SocketKind) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = stack.enter_context(socket.socket(family, kind))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    sock.bind((host, port))
    if kind == socket.SOCK_STREAM:
        sock.listen()
    return sock


def test_each_socket_is_named_with_its_address(plan: NodePlan, stack: ExitStack) -> None:
    port = plan.dns_port
    assert who_serves(plan) == []
    for host in plan.addresses:
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            listen(stack, host, port, kind)
    wanted = {f"{name} {host}:{port}" for name in ("udp", "tcp") for host in (HOST, "[::1]")}
    assert set(who_serves(plan)) == wanted
    assert who_serves(replace(plan, dns_port=free_port())) == []
    assert who_serves(replace(plan, addresses=("127.0.0.1",))) == []
    stack.close()
    assert who_serves(plan) == []


def test_our_own_sockets_do_not_count_whoever_else_holds_them(
    plan: NodePlan, stack: ExitStack
) -> None:
    ours, others = (
        stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(2)
    )
    for sock in (ours, others):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((HOST, plan.dns_port))
    duplicate = stack.enter_context(ours.dup())
    inodes = [os.fstat(duplicate.fileno()).st_ino]
    assert who_serves(plan, inodes) == [f"udp {HOST}:{plan.dns_port}"]
    others.close()
    assert who_serves(plan, inodes) == []


def test_successor_with_the_same_sockets_is_seen_once(plan: NodePlan, stack: ExitStack) -> None:
    sock = listen(stack, HOST, plan.dns_port, socket.SOCK_DGRAM)
    other = stack.enter_context(sock.dup())
    listen(stack, HOST, plan.dns_port, socket.SOCK_DGRAM)
    sock.close()
    assert who_serves(plan) == [f"udp {HOST}:{plan.dns_port}"]
    assert other.fileno() >= 0


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_sockets_without_an_address_count_where_ours_are_so(
    plan: NodePlan, stack: ExitStack, host: str
) -> None:
    listen(stack, host, plan.dns_port, socket.SOCK_DGRAM)
    assert who_serves(plan) == []
    shown = "[::]" if host == "::" else host
    assert who_serves(replace(plan, is_wildcard=True)) == [f"udp {shown}:{plan.dns_port}"]


def test_connections_and_what_only_asks_do_not_serve(plan: NodePlan, stack: ExitStack) -> None:
    listener = listen(stack, HOST, plan.dns_port, socket.SOCK_STREAM)
    client = stack.enter_context(socket.create_connection((HOST, plan.dns_port)))
    accepted, _ = listener.accept()
    stack.enter_context(accepted)
    listener.close()
    asking = listen(stack, HOST, plan.dns_port, socket.SOCK_DGRAM)
    asking.connect((HOST, 9))
    assert who_serves(plan) == []
    assert client.fileno() >= 0


def test_plan_without_addresses_is_about_all_but_the_hosts_own(stack: ExitStack) -> None:
    plan = NodePlan("nodelocaldns", (), dns_port=free_port())
    listen(stack, HOST, plan.dns_port, socket.SOCK_DGRAM)
    listen(stack, "::1", plan.dns_port, socket.SOCK_DGRAM)
    assert who_serves(plan) == []
    listen(stack, "0.0.0.0", plan.dns_port, socket.SOCK_DGRAM)
    assert who_serves(replace(plan, is_wildcard=True)) == [f"udp 0.0.0.0:{plan.dns_port}"]


def test_list_of_connections_is_not_read(
    plan: NodePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = "  sl  local_address rem_address   st\n"
    rows = "   0: 0100007F:0035 00000000:0000 0A 0:0 0:0 0 0 0 77\n"
    rows += "   1: 0100007F:1F90 0100007F:0035 01\nbroken\n"
    for name in ("udp", "udp6", "tcp6"):
        (tmp_path / name).write_text(head)
    (tmp_path / "tcp").write_text(head + rows)
    monkeypatch.setattr(listeners, "_NET", tmp_path)
    assert who_serves(NodePlan("x", ("127.0.0.1",))) == ["tcp 127.0.0.1:53"]


def test_kernel_without_ipv6_has_no_such_list_and_one_without_any_is_an_error(
    plan: NodePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listeners, "_NET", tmp_path)
    with pytest.raises(OSError, match="udp"):
        who_serves(plan)
    for name in ("udp", "tcp"):
        (tmp_path / name).write_text("head\n")
    assert who_serves(plan) == []
