"""Asks our own addresses, the upstreams, and what a pod's resolv.conf names; all at once."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import secrets
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic

from nodecache.commands.doctor.seen import Answer, AskedHere, AskedUpstream, By, Upstreams
from nodecache.config.model import Address
from nodecache.config.names import parse_name
from nodecache.config.node import SELF_CHECK_SOURCES, NodePlan
from nodecache.net.dial import ask, connect, sockaddr
from nodecache.net.selfcheck import make_probe
from nodecache.wire.const import HEADER_OCTETS, QR, RCODE_MASK, RD, TYPE_AND_CLASS
from nodecache.wire.numbers import CLASS_IN, TYPE_NS, TYPE_SOA
from nodecache.wire.reply import compose_upstream_query

_OWN_S, _UPSTREAM_S = 1.0, 2.0
_MOST_ADDRESSES, _MOST_UPSTREAMS, _MOST_SERVERS = 8, 24, 3
_TRANSPORTS = ("udp", "tcp")
_CLONE_NEWNET = 0x40000000  # sched.h
_REFUSALS = (errno.ECONNREFUSED,)

Source = tuple[str, str] | None


async def ask_here(plan: NodePlan, mark: bytes) -> tuple[AskedHere, ...]:
    """Asks each address of ours over UDP and TCP, on both ways that lead there.

    Args:
        plan: Whose addresses; the first eight count.
        mark: The daemon's probe; b"" if nobody knows it, so that nobody is told apart.

    Takes little more than ``_OWN_S`` twice; raises nothing.
    """
    return tuple(
        await asyncio.gather(
            *(
                _ask_both_ways(Address(host, plan.dns_port), transport, mark)
                for host in plan.addresses[:_MOST_ADDRESSES]
                for transport in _TRANSPORTS
            )
        )
    )


async def ask_upstreams(upstreams: Upstreams) -> tuple[AskedUpstream, ...]:
    """Asks each upstream over UDP and TCP; takes ``_UPSTREAM_S`` at most, raises nothing."""
    asked = [_ask_upstream(*upstream) for upstream in upstreams[:_MOST_UPSTREAMS]]
    return tuple(await asyncio.gather(*asked))


async def ask_from_pod(pid: int, servers: Sequence[str], mark: bytes) -> tuple[Answer, ...]:
    """Asks servers from within the network of a process; raises OSError if that is refused."""

    def work() -> tuple[Answer, ...]:
        _enter_network(pid)
        return asyncio.run(_ask_servers(servers[:_MOST_SERVERS], mark))

    # A thread of its own: it stays in that network until it ends.
    with ThreadPoolExecutor(1) as executor:
        return await asyncio.get_running_loop().run_in_executor(executor, work)


def _enter_network(pid: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    with Path(f"/proc/{pid}/ns/net").open("rb") as network:
        if libc.setns(network.fileno(), _CLONE_NEWNET):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))


async def _ask_servers(servers: Sequence[str], mark: bytes) -> tuple[Answer, ...]:
    asked = [
        _probe(Address(host, 53), transport, mark, None)
        for host in servers
        for transport in _TRANSPORTS
    ]
    return tuple(await asyncio.gather(*asked))


async def _ask_both_ways(server: Address, transport: str, mark: bytes) -> AskedHere:
    direct, led = await asyncio.gather(
        _probe(server, transport, mark, SELF_CHECK_SOURCES), _probe(server, transport, mark, None)
    )
    return AskedHere(server.host, transport, direct, led)


async def _probe(server: Address, transport: str, mark: bytes, source: Source) -> Answer:
    """Asks by the probe, and an ordinary question where that is not answered at all."""
    query = secrets.token_bytes(2) + (mark or make_probe())[2:]
    found = await _ask(server, transport, query, _OWN_S, source, mark)
    if found.by is By.NOBODY and not found.is_refused:
        query = _question(".", TYPE_NS)
        found = await _ask(server, transport, query, _OWN_S, source)
    return found


async def _ask_upstream(zone: str, server: Address, transport: str) -> AskedUpstream:
    name = str(server)
    if transport == "tls":
        return AskedUpstream(name, zone, transport, None, await _open(server))
    small, large = _question(zone, TYPE_SOA), None
    questions = [_ask(server, way, small, _UPSTREAM_S) for way in _TRANSPORTS]
    if zone == ".":
        # The root's servers, with signatures where the upstream has them: 811 octets and more.
        questions.append(_ask(server, "udp", _question(zone, TYPE_NS, dnssec_ok=True), _UPSTREAM_S))
    udp, tcp, *rest = await asyncio.gather(*questions)
    large = rest[0] if rest else None
    return AskedUpstream(name, zone, transport, udp, tcp, large)


def _question(zone: str, qtype: int, *, dnssec_ok: bool = False) -> bytes:
    question = parse_name(zone).wire + TYPE_AND_CLASS.pack(qtype, CLASS_IN)
    return secrets.token_bytes(2) + compose_upstream_query(question, RD, dnssec_ok=dnssec_ok)


async def _ask(
    server: Address,
    transport: str,
    query: bytes,
    patience_s: float,
    source: Source = None,
    mark: bytes = b"",
) -> Answer:
    began = monotonic()
    try:
        async with asyncio.timeout(patience_s):
            reply = await ask(server, transport, query, _answers, source)
    except TimeoutError:
        return _nothing(server, transport, began, f"no answer within {patience_s:g} s")
    except OSError as error:
        text = (os.strerror(error.errno) if error.errno else str(error)).lower()
        return _nothing(server, transport, began, text, is_refused=error.errno in _REFUSALS)
    is_ours = bool(mark) and reply[HEADER_OCTETS:] == mark[HEADER_OCTETS:]
    by = By.DAEMON if is_ours else By.ANOTHER
    took_s = monotonic() - began
    return Answer(server.host, transport, by, reply[3] & RCODE_MASK, len(reply), took_s)


def _nothing(
    server: Address, transport: str, began: float, error: str, *, is_refused: bool = False
) -> Answer:
    took_s = monotonic() - began
    return Answer(
        server.host, transport, By.NOBODY, took_s=took_s, error=error, is_refused=is_refused
    )


def _answers(query: bytes, reply: bytes) -> bool:
    return len(reply) >= HEADER_OCTETS and reply[:2] == query[:2] and bool(reply[2] & QR >> 8)


async def _open(server: Address) -> Answer:
    """Opens a connection and no more: who speaks TLS there is for the daemon to verify."""
    began = monotonic()
    family = socket.AF_INET6 if ":" in server.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as sock:
        try:
            async with asyncio.timeout(_UPSTREAM_S):
                await connect(sock, sockaddr(server))
        except TimeoutError:
            return _nothing(server, "tcp", began, f"not open within {_UPSTREAM_S:g} s")
        except OSError as error:
            text = str(error.strerror or error).lower()
            return _nothing(server, "tcp", began, text, is_refused=error.errno in _REFUSALS)
    return Answer(server.host, "tcp", By.ANOTHER, took_s=monotonic() - began)
