"""A node with a pod, a cluster's DNS of two, and one who serves and says so, or stops to.

Who serves is a thread with sockets in the node's namespace, so that each way to stop is one call.
Queries and replies are not DNS: a query says how long a reply it wants, a reply says whose it is.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import ipaddress
import selectors
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

import pytest

from nodecache.config.node import Backend, NodePlan
from nodecache.host import beat, rules
from nodecache.host.rules import RulesReport
from nodecache.host.table import compose
from tests.daemon.processes import PATIENCE_S, wait_until
from tests.daemon.servers import program
from tests.netns.test_pod import ip
from tests.netns.topology import (
    ADDRESSES,
    CLUSTER,
    CLUSTER6,
    LOCAL,
    Topology,
    inside,
    make_topology,
)

BACKENDS = ("10.244.0.53", "10.244.0.54")
BACKENDS6 = ("fd00:244::53", "fd00:244::54")
TRANSPORTS = ("udp", "tcp")
NODE_NAME, CLUSTER_NAME, SILENCE = "node", "cluster", "silence"
PLAN = NodePlan(
    "dummy",
    ADDRESSES,
    backend=Backend.NFTABLES,
    cluster_dns=(CLUSTER, CLUSTER6),
)
# What 0.1.0 made, cut short.
OLD_TABLE = f"""
table inet nodecache {{
  set addresses4 {{ type ipv4_addr; elements = {{ {LOCAL}, {CLUSTER} }}; }}
  chain prerouting {{
    type filter hook prerouting priority -300; policy accept;
    udp dport 53 ip daddr @addresses4 fib daddr type local notrack comment "nodecache: udp"
  }}
}}
"""

_KINDS = {"udp": socket.SOCK_DGRAM, "tcp": socket.SOCK_STREAM}
_MOST_OCTETS = 65535
_SIOCETHTOOL, _ETHTOOL_STXCSUM = 0x8946, 0x17  # linux/sockios.h, linux/ethtool.h


def family_of(address: str) -> socket.AddressFamily:
    """Returns the family of a literal."""
    version = ipaddress.ip_address(address).version
    return socket.AF_INET if version == 4 else socket.AF_INET6


def open_socket(namespace: str, address: str, transport: str, port: int = 0) -> socket.socket:
    """Returns a socket of a namespace, bound to an address and a port."""
    with inside(namespace):
        opened = socket.socket(family_of(address), _KINDS[transport])
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    opened.bind((address, port))
    return opened


class Answerer:
    """Answers on port 53 of its addresses, over UDP and TCP, with its name in front."""

    def __init__(self, namespace: str, addresses: Sequence[str], name: str) -> None:
        self._name = name
        self._selector = selectors.DefaultSelector()
        self._hanging = threading.Event()
        self.udp = [open_socket(namespace, address, "udp", 53) for address in addresses]
        for opened in self.udp:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
            self._selector.register(opened, selectors.EVENT_READ, self._answer_datagram)
        for address in addresses:
            listener = open_socket(namespace, address, "tcp", 53)
            listener.listen(64)
            self._selector.register(listener, selectors.EVENT_READ, self._accept)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def hang(self) -> None:
        """Stops to do anything, with all sockets open; returns once it has stopped."""
        self._hanging.set()
        self._thread.join(PATIENCE_S)

    def close(self) -> None:
        """Ends as a killed process does: its sockets are closed, and nothing is said. Once does."""
        self.hang()
        for key in list((self._selector.get_map() or {}).values()):
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()
        self._selector.close()

    def tick(self) -> None:
        """Called many times a second."""

    def _run(self) -> None:
        while not self._hanging.is_set():
            for key, _ in self._selector.select(0.02):
                with contextlib.suppress(OSError):
                    key.data(key.fileobj)
            self.tick()

    def _reply(self, query: bytes) -> bytes:
        return self._name.encode().ljust(int(query), b".")

    def _answer_datagram(self, opened: socket.socket) -> None:
        query, peer = opened.recvfrom(_MOST_OCTETS)
        opened.sendto(self._reply(query), peer)

    def _accept(self, listener: socket.socket) -> None:
        connection, _ = listener.accept()
        self._selector.register(connection, selectors.EVENT_READ, self._answer_stream)

    def _answer_stream(self, connection: socket.socket) -> None:
        query = connection.recv(100)
        if query:
            reply = self._reply(query)
            connection.sendall(len(reply).to_bytes(2) + reply)
        else:
            self._selector.unregister(connection)
            connection.close()


class Worker(Answerer):
    """Serves on the node and says so, four times a second."""

    def __init__(self, namespace: str, addresses: Sequence[str], listening: str) -> None:
        self.heard: bool | None = None
        self._host = addresses[0]
        self._is_beating = True
        self._turn = threading.Lock()
        self._next_at = 0.0
        super().__init__(namespace, [listening] if listening else addresses, NODE_NAME)

    def tick(self) -> None:
        """Beats when it is time."""
        now = time.monotonic()
        with self._turn:
            if self._is_beating and now >= self._next_at:
                self.heard = beat.say_serving(self.udp[0], self._host)
                self._next_at = now + beat.INTERVAL_S

    def set_serving(self, is_serving: bool) -> None:
        """Says that it serves, or does not, and was heard; answers in both cases."""
        with self._turn:
            self._is_beating = is_serving
            say = beat.say_serving if is_serving else beat.say_goodbye
            assert say(self.udp[0], self._host)


class Speaker(Answerer):
    """Serves on the node and says so only when told, once in each family."""

    def __init__(self, namespace: str, addresses: Sequence[str], speaks_to: Sequence[str]) -> None:
        super().__init__(namespace, addresses, NODE_NAME)
        self._pairs = [
            (next(sock for sock in self.udp if sock.family == family_of(host)), host)
            for host in speaks_to
        ]

    def beat(self) -> list[bool | None]:
        """Returns whether each was heard."""
        return [beat.say_serving(sock, host) for sock, host in self._pairs]

    def say_goodbye(self) -> list[bool | None]:
        """Returns whether each was heard."""
        return [beat.say_goodbye(sock, host) for sock, host in self._pairs]


@dataclass(slots=True)
class RuledNode:
    """A node, its pods and the cluster's DNS."""

    names: Topology
    plan: NodePlan = PLAN
    _workers: list[Answerer] = field(default_factory=list)

    @property
    def pod(self) -> str:
        return self.names.pods[0]

    @property
    def node(self) -> str:
        return self.names.node

    def install(self, **changes: object) -> RulesReport:
        """Makes the rules what a plan asks for."""
        self.plan = replace(PLAN, **changes)  # type: ignore[arg-type]
        with inside(self.node):
            return rules.install(self.plan, PATIENCE_S)

    def nft(self, *words: str, stdin: str = "") -> str:
        """Runs nft in the node, which has to succeed."""
        return self.run("nft", *words, stdin=stdin)

    def run(self, *words: str, stdin: str = "") -> str:
        with inside(self.node):
            done = subprocess.run(
                [program(words[0]), *words[1:]],
                input=stdin, capture_output=True, text=True, timeout=PATIENCE_S * 3, check=False,
            )  # fmt: skip
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    def serve(self, addresses: Sequence[str] = ADDRESSES, listening: str = "") -> Worker:
        """Starts who serves, on each address or on one for all; returns once it was heard."""
        worker = Worker(self.node, addresses, listening)
        self._workers.append(worker)
        wait_until(lambda: worker.heard, "no rules that hear a beat")
        return worker

    def clear(self) -> None:
        """Closes all who serve; the next test begins with neither beats, entries nor rules."""
        for worker in self._workers:
            with contextlib.suppress(OSError, RuntimeError, AttributeError):
                worker.close()
        self._workers.clear()
        with inside(self.node):
            rules.withdraw(self.plan, PATIENCE_S)
        self.run("conntrack", "-F")

    def tracked(self, text: str = "dport=53 ") -> list[str]:
        """Returns the entries of connection tracking with a text in them."""
        lines = []
        for version in ("ipv4", "ipv6"):
            lines += self.run("conntrack", "-L", "-f", version, "-o", "extended").splitlines()
        return [line for line in lines if text in line]


@contextlib.contextmanager
def ports(namespace: str, address: str, port: int = 0) -> Iterator[Client]:
    """A stub that keeps its ports, as long as it is used."""
    client = Client(namespace, address, port)
    try:
        yield client
    finally:
        client.udp.close()


class Client:
    """Asks from one namespace; over UDP from one port."""

    def __init__(self, namespace: str, source: str, port: int = 0) -> None:
        self.namespace = namespace
        self.source = source
        self.udp = open_socket(namespace, source, "udp", port)
        self.port: int = self.udp.getsockname()[1]
        self.udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)

    def ask_udp(self, address: str, octets: int = 1, patience_s: float = PATIENCE_S) -> str:
        """Returns who answered from just that address; what else comes fails."""
        self.udp.settimeout(patience_s)
        try:
            self.udp.sendto(b"%d" % octets, (address, 53))
            reply, peer = self.udp.recvfrom(_MOST_OCTETS)
        except TimeoutError:
            return SILENCE
        assert peer[:2] == (address, 53), peer
        return _name_in(reply, octets)

    def ask_tcp(self, address: str, octets: int = 1, patience_s: float = PATIENCE_S) -> str:
        """Returns who answered over a new connection."""
        try:
            with self.connect(address, patience_s) as connection:
                return ask_over(connection, octets)
        except (TimeoutError, ConnectionError):
            return SILENCE

    def connect(self, address: str, patience_s: float = PATIENCE_S, port: int = 0) -> socket.socket:
        """Returns a connection; its end is a reset, so that the port is free at once."""
        opened = open_socket(self.namespace, self.source, "tcp", port)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        opened.settimeout(patience_s)
        try:
            opened.connect((address, 53))
        except OSError:
            opened.close()
            raise
        return opened

    def ask(
        self, address: str, transport: str, octets: int = 1, patience_s: float = PATIENCE_S
    ) -> str:
        asking = self.ask_udp if transport == "udp" else self.ask_tcp
        return asking(address, octets, patience_s)


def ask_over(connection: socket.socket, octets: int = 1) -> str:
    """Returns who answers over a connection."""
    connection.sendall(b"%d" % octets)
    with connection.makefile("rb") as stream:
        length = int.from_bytes(stream.read(2))
        reply = stream.read(length)
    return _name_in(reply, octets) if reply else SILENCE


def _name_in(reply: bytes, octets: int) -> str:
    assert len(reply) >= octets, len(reply)
    return reply.decode().rstrip(".")


def any_source(address: str) -> str:
    """Returns what to bind to for the kernel to choose a source."""
    return "0.0.0.0" if family_of(address) is socket.AF_INET else "::"


def ask(
    namespace: str, address: str, transport: str = "udp", octets: int = 1, *,
    source: str = "", patience_s: float = PATIENCE_S,
) -> str:  # fmt: skip
    """Asks once, from a fresh port; returns who answered, without his number."""
    with ports(namespace, source or any_source(address)) as client:
        return client.ask(address, transport, octets, patience_s).rstrip("0123456789")


def skip_without_our_table(node: str) -> None:
    """Skips the test where the kernel does not take the table in its full form."""
    with inside(node):
        done = subprocess.run(
            [program("nft"), "--check", "-f", "-"],
            input=compose(PLAN), capture_output=True, text=True, timeout=PATIENCE_S, check=False,
        )  # fmt: skip
    if done.returncode:
        pytest.skip(f"this kernel does not take our table: {done.stderr.strip()}")


def proxy() -> None:
    """Does what kube-proxy does for the cluster's DNS: an endpoint at random for each flow."""
    rules = "".join(
        f"{family} daddr {service} meta l4proto {{ tcp, udp }} th dport 53"
        f" dnat {family} to numgen random mod 2 map {{ 0 : {one}, 1 : {two} }}\n"
        for family, service, (one, two) in (
            ("ip", CLUSTER, BACKENDS),
            ("ip6", CLUSTER6, BACKENDS6),
        )
    )
    chains = "".join(
        f"chain {hook} {{ type nat hook {hook} priority -100; {rules} }}\n"
        for hook in ("prerouting", "output")
    )
    table = f"table inet kube_proxy {{ {chains} }}"
    subprocess.run([program("nft"), "-f", "-"], input=table, text=True, check=True)


@contextlib.contextmanager
def bed_of_two() -> Iterator[RuledNode]:
    """The namespaces, our addresses on a dummy (or lo, for want of one), the cluster's DNS."""
    with ExitStack() as stack:
        names = make_topology(stack, proxy)
        skip_without_our_table(names.node)
        ip("-n", names.node, "route", "add", "default", "via", BACKENDS[0])
        ip("-n", names.node, "-6", "route", "add", "default", "via", BACKENDS6[0])
        put_addresses(names.node)
        write_checksums(names.cluster, "eth0")
        for addresses, bits in ((BACKENDS[1:], 24), (BACKENDS6[1:], 64)):
            for address in addresses:
                nodad = ("nodad",) if ":" in address else ()
                ip(
                    "-n", names.cluster, "address", "add", f"{address}/{bits}",
                    "dev", "eth0", *nodad,
                )  # fmt: skip
        for number, pair in enumerate(zip(BACKENDS, BACKENDS6, strict=True)):
            server = Answerer(names.cluster, pair, f"{CLUSTER_NAME}{number}")
            stack.callback(server.close)
        yield RuledNode(names)


def write_checksums(namespace: str, device: str) -> None:
    """Makes packets of a veth carry true checksums, as those of another machine do."""
    setting = ctypes.create_string_buffer(struct.pack("II", _ETHTOOL_STXCSUM, 0))
    request = struct.pack("16sP16x", device.encode(), ctypes.addressof(setting))
    with inside(namespace), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCETHTOOL, request)


def put_addresses(node: str) -> None:
    """Makes the node's link with our addresses: a veth's end, for want of dummies."""
    ip("-n", node, "link", "add", "local0", "type", "veth", "peer", "name", "local1")
    for end in ("local0", "local1"):
        ip("-n", node, "link", "set", end, "up")
    for address in ADDRESSES:
        nodad = ("nodad",) if ":" in address else ()
        bits = 128 if ":" in address else 32
        ip("-n", node, "address", "add", f"{address}/{bits}", "dev", "local0", *nodad)
