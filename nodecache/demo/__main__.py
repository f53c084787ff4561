"""Tries nodecache without a cluster: ``run`` starts it beside a demo upstream, ``serve`` is that.

Everything runs in child processes on loopback, as strangers to each other; the daemon is told
what node-cache would be told, and is seen only through DNS and its metrics.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import ipaddress
import os
import shutil
import signal
import socket
import sys
import tempfile
from asyncio.subprocess import PIPE
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path

from dnslib import RCODE, DNSRecord
from prometheus_client.parser import text_string_to_metric_families

from nodecache.demo.children import ChildError, Children
from nodecache.demo.server import print_line, serve

LOOPBACK = "127.0.0.1"
FIRST_NAME = "kubernetes.default.svc.cluster.local"
START_S = 10.0
PROBE_S = 0.2
SCRAPE_S = 1.0
TERMINAL_INTERVAL_S = 1.0
LOG_INTERVAL_S = 10.0

DAEMON = (sys.executable, "-m", "nodecache")
UPSTREAM = (sys.executable, "-m", "nodecache.demo", "serve", "--port", "0")

BLOCK = """{zone}:{port} {{
    bind {host}
    errors
    cache {{
        success 9984 30
        denial 9984 5
    }}
    forward . {upstream} {{
        force_tcp
    }}
    prometheus {host}:{metrics_port}
}}
"""


@dataclass(frozen=True, slots=True)
class Figures:
    """What the live line shows, as sums over all servers and zones."""

    queries: int
    lookups: int
    hits: int
    exchanges: int

    def __str__(self) -> str:
        ratio = f"{100 * self.hits / self.lookups:.1f} %" if self.lookups else "-"
        return (
            f"queries {self.queries:,}   hit ratio {ratio}   upstream exchanges {self.exchanges:,}"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    options = make_parser().parse_args(arguments)
    try:
        if options.command == "serve":
            asyncio.run(_until_signal(serve(options.host, options.port)))
        else:
            asyncio.run(_until_signal(run(options.upstream, options.port)))
    except (ChildError, OSError) as error:
        print_line(f"nodecache demo: {error}")
        return 1
    return 0


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    parser = argparse.ArgumentParser(prog="python -m nodecache.demo", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("serve", help="serve the demo zone over UDP and TCP")
    command.add_argument("--host", default=LOOPBACK, help="IPv4 address (default: %(default)s)")
    command.add_argument("--port", type=parse_port, default=0, help="0 chooses one (default)")
    command = commands.add_parser("run", help="run nodecache and show what it does")
    command.add_argument("--port", type=parse_port, default=5353, help="default: %(default)s")
    command.add_argument(
        "--upstream", type=parse_upstream, default="", help="IP or IP:port; default: the demo zone"
    )
    return parser


def parse_port(text: str) -> int:
    """Returns a port number; 0 is one."""
    if text.isascii() and text.isdigit() and int(text) < 65536:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no port: give a number from 0 to 65535")


def parse_upstream(text: str) -> str:
    """Returns "IP:port" (IPv6 in brackets); "" stays "", for an unset variable of make."""
    if not text:
        return ""
    with contextlib.suppress(ValueError):
        return join(str(ipaddress.ip_address(text.strip("[]"))), 53)
    host, _, port = text.rpartition(":")
    with contextlib.suppress(ValueError, argparse.ArgumentTypeError):
        return join(str(ipaddress.ip_address(host.strip("[]"))), parse_port(port))
    raise argparse.ArgumentTypeError(
        f"{text!r} is no upstream: give an IP address, or one with a port, as 10.96.0.10:53"
    )


def join(host: str, port: int) -> str:
    """Returns host and port as a Corefile takes them."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def run(
    upstream: str, port: int, daemon: Sequence[str] = DAEMON, interval_s: float = 0.0
) -> None:
    """Runs the daemon with ``upstream``, or a demo one if "", and shows its figures for ever.

    Raises:
        ChildError: A child process ended by itself.
    """
    children = Children()
    with tempfile.TemporaryDirectory(prefix="nodecache-demo-") as folder:
        try:
            upstream = upstream or await start_upstream(children)
            metrics_port, setup_port = choose_free_ports(2)
            corefile = write_corefile(folder, compose_corefile(port, upstream, metrics_port))
            flags = daemon_flags(corefile, join(LOOPBACK, setup_port))
            await children.start("nodecache", [*daemon, *flags])
            is_answering = await wait_until_answering(children, port)
            show_how_to_ask(port, upstream, is_answering)
            await show_figures(children, metrics_port, interval_s)
        finally:
            print_line("")  # ends the live line
            await children.end()


def daemon_flags(corefile: Path, setup_metrics: str) -> list[str]:
    """Returns the flags, as the DaemonSet of node-cache would give them."""
    return [
        *("-localip", LOOPBACK),
        *("-conf", str(corefile)),
        *("-basecorefile", str(corefile)),
        *("-metrics-listen-address", setup_metrics),
        *("-setupinterface=false", "-setupiptables=false", "-rundir="),
    ]


def write_corefile(folder: str, text: str) -> Path:
    """Returns the path of a new Corefile."""
    path = Path(folder, "Corefile")
    path.write_text(text)
    return path


def compose_corefile(port: int, upstream: str, metrics_port: int) -> str:
    """Returns a Corefile with the zones of NodeLocal DNSCache."""
    values = {"port": port, "host": LOOPBACK, "upstream": upstream, "metrics_port": metrics_port}
    zones = ("cluster.local", "in-addr.arpa", "ip6.arpa", ".")
    return "".join(BLOCK.format(zone=zone, **values) for zone in zones)


async def start_upstream(children: Children) -> str:
    """Starts the demo upstream; returns where it listens."""
    process = await children.start("the demo upstream", UPSTREAM, stdout=PIPE)
    assert process.stdout is not None  # noqa: S101 (asked for above)
    line = await asyncio.wait_for(process.stdout.readline(), START_S)
    if not line:
        await children.rest(START_S)
    return join(LOOPBACK, int(line.split()[-1]))


async def wait_until_answering(children: Children, port: int) -> bool:
    """Returns whether the daemon answers within START_S; REFUSED means that it is starting."""
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + START_S
    while loop.time() < give_up_at:
        if await asyncio.to_thread(is_answered, port):
            return True
        await children.rest(PROBE_S / 4)
    return False


def is_answered(port: int) -> bool:
    """Asks once and returns whether an answer came."""
    query = DNSRecord.question(FIRST_NAME)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(PROBE_S)
        try:
            client.connect((LOOPBACK, port))
            client.send(query.pack())
            reply = DNSRecord.parse(client.recv(4096))
        except OSError:
            return False
    return bool(reply.header.id == query.header.id and reply.header.rcode != RCODE.REFUSED)


def show_how_to_ask(port: int, upstream: str, is_answering: bool) -> None:
    """Prints a command to try."""
    state = "answers" if is_answering else "has not answered yet"
    print_line(f"\nnodecache on {LOOPBACK}:{port} {state}; it forwards to {upstream}. Ask it:\n")
    if shutil.which("dig"):
        print_line(f"    dig @{LOOPBACK} -p {port} {FIRST_NAME}\n")
    else:
        python = os.path.relpath(sys.executable)
        print_line(f"    {python} -m dnslib.client --server {LOOPBACK}:{port} {FIRST_NAME}")
        print_line("    (dig is not installed here: Debian's package bind9-dnsutils has it)\n")
    print_line("Ctrl-C ends it.\n")


async def show_figures(children: Children, metrics_port: int, interval_s: float) -> None:
    """Prints the live line until a child ends, rewriting it in place on a terminal."""
    is_terminal = sys.stdout.isatty()
    interval_s = interval_s or (TERMINAL_INTERVAL_S if is_terminal else LOG_INTERVAL_S)
    failures_left = int(START_S / PROBE_S)  # the daemon answers DNS before it answers scrapes
    while True:
        try:
            text = str(read_figures(await asyncio.to_thread(fetch_metrics, metrics_port)))
        except (OSError, ValueError, http.client.HTTPException) as error:
            if failures_left := max(0, failures_left - 1):
                await children.rest(PROBE_S)
                continue
            text = f"no figures: {error}"
        if is_terminal:
            print(f"\r\x1b[K{text}", end="", flush=True)  # noqa: T201 (a program for people)
        else:
            print_line(text)
        await children.rest(interval_s)


def fetch_metrics(port: int) -> str:
    """Returns the daemon's metrics in Prometheus' text format."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=SCRAPE_S)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def read_figures(text: str) -> Figures:
    """Returns the sums of interest; ValueError if ``text`` is not in Prometheus' format."""
    sums: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            sums[sample.name] = sums.get(sample.name, 0) + sample.value
    return Figures(
        queries=int(sums.get("coredns_dns_requests_total", 0)),
        lookups=int(sums.get("coredns_cache_requests_total", 0)),
        hits=int(sums.get("coredns_cache_hits_total", 0)),
        exchanges=int(sums.get("coredns_proxy_request_duration_seconds_count", 0)),
    )


def choose_free_ports(count: int) -> list[int]:
    """Returns ports that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server((LOOPBACK, 0))) for _ in range(count)]
        return [listener.getsockname()[1] for listener in listeners]


async def _until_signal(work: Coroutine[None, None, None]) -> None:
    """Runs ``work`` until it ends, or SIGINT, SIGTERM or SIGHUP cancels it, which is no error."""
    task = asyncio.ensure_future(work)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # Once: a second Ctrl-C must not cut short the ending of the children.
        asyncio.get_running_loop().add_signal_handler(
            number, lambda: None if task.cancelling() else task.cancel()
        )
    with contextlib.suppress(asyncio.CancelledError):
        await task


if __name__ == "__main__":
    sys.exit(main())
