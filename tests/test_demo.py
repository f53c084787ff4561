"""The demo: its upstream answers as a cluster's would, and its runner starts and ends cleanly."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import psutil
import pytest

from nodecache.demo import __main__ as demo
from nodecache.demo.children import ChildError, Children
from nodecache.demo.zone import HEADLESS_ADDRESSES, compose_reply

HOST = "127.0.0.1"
ROOT = Path(__file__).parent.parent

# What ``run`` may expect of the daemon: DNS on the Corefile's port, figures on its metrics port.
STAND_IN = textwrap.dedent(
    """
    import asyncio, re, sys
    from nodecache.config.model import Address
    from nodecache.counters import CacheSeries, Counters, QuerySeries, UpstreamSeries
    from nodecache.demo.server import serve
    from nodecache.net.sockets import open_http
    from nodecache.telemetry.endpoints import Endpoints

    async def main():
        text = open(sys.argv[sys.argv.index("-conf") + 1]).read()
        counters = Counters()
        series = QuerySeries("s", ".", "udp", "1")
        series.count_query(1, 40, False, times=1234)
        cache = CacheSeries("s", ".")
        cache.requests, cache.success_hits, cache.denial_hits = 1000, 900, 50
        upstream = UpstreamSeries("u")
        upstream.count_response(0, 0.1)
        counters.queries, counters.caches, counters.upstreams = [series], [cache], [upstream]
        endpoints = Endpoints(counters, asyncio.get_running_loop(), open_http)
        port = int(re.search(r"prometheus 127.0.0.1:(\\d+)", text)[1])
        await endpoints.start_metrics(Address("127.0.0.1", port))
        await serve("127.0.0.1", int(re.search(r"^cluster.local:(\\d+)", text, re.M)[1]))

    asyncio.run(main())
    """
)


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """The port of a demo upstream in its own process."""
    with start("serve") as process:
        assert process.stdout is not None
        yield int(process.stdout.readline().split()[-1])


@contextlib.contextmanager
def start(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Runs the demo's command line, and ends it."""
    command = [sys.executable, "-m", "nodecache.demo", *arguments]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=20)


def ask(port: int, name: str, rdtype: str, *, tcp: bool = True) -> dns.message.Message:
    query = dns.message.make_query(name, rdtype, use_edns=0, payload=1232)
    send = dns.query.tcp if tcp else dns.query.udp
    return send(query, HOST, port=port, timeout=5)


def rdata_of(reply: dns.message.Message, rdtype: str) -> list[str]:
    """Returns the RDATA of all answers of a type, as text."""
    wanted = dns.rdatatype.from_text(rdtype)
    return [str(rdata) for rrset in reply.answer if rrset.rdtype == wanted for rdata in rrset]


@pytest.mark.parametrize(
    ("name", "rdtype", "expected"),
    [
        ("kubernetes.default.svc.cluster.local.", "A", ["10.96.0.1"]),
        ("web.shop.svc.cluster.local.", "AAAA", ["fd00:10:96::c22"]),
        (
            "_dns._udp.kube-dns.kube-system.svc.cluster.local.",
            "SRV",
            ["0 100 53 kube-dns.kube-system.svc.cluster.local."],
        ),
        ("10.0.96.10.in-addr.arpa.", "PTR", ["kube-dns.kube-system.svc.cluster.local."]),
        ("10-244-3-9.shop.pod.cluster.local.", "A", ["10.244.3.9"]),
        ("WWW.Example.COM.", "A", ["198.51.100.1", "198.51.100.2"]),
        ("database.shop.svc.cluster.local.", "A", ["198.51.100.77"]),
        ("api.example.com.", "HTTPS", ['1 . alpn="h3,h2" ipv4hint="192.0.2.44"']),
        ("example.com.", "MX", ["10 mail.example.com."]),
    ],
)
def test_zone_answers(port: int, name: str, rdtype: str, expected: list[str]) -> None:
    for tcp in (True, False):
        reply = ask(port, name, rdtype, tcp=tcp)
        assert reply.rcode() == dns.rcode.NOERROR
        assert sorted(rdata_of(reply, rdtype)) == expected


def test_nothing_claims_to_be_validated() -> None:
    query = dns.message.make_query("www.example.com", "A")
    query.flags |= dns.flags.AD
    reply = dns.message.from_wire(compose_reply(query.to_wire(), is_udp=True))
    assert not reply.flags & dns.flags.AD


def test_cname_chain_is_followed_within_the_demo(port: int) -> None:
    reply = ask(port, "www.example.com.", "A")
    assert rdata_of(reply, "CNAME") == ["edge.example.com.", "a.edge.example.org."]


@pytest.mark.parametrize(
    ("name", "rcode"),
    [
        ("nobody.default.svc.cluster.local.", dns.rcode.NXDOMAIN),
        ("www.example.net.", dns.rcode.NXDOMAIN),
        ("10-244-3-256.shop.pod.cluster.local.", dns.rcode.NXDOMAIN),
        ("svc.cluster.local.", dns.rcode.NOERROR),
        ("kubernetes.default.svc.cluster.local.", dns.rcode.NOERROR),
    ],
)
def test_negative_responses_carry_the_soa(port: int, name: str, rcode: dns.rcode.Rcode) -> None:
    reply = ask(port, name, "MX")
    assert reply.rcode() == rcode
    assert not reply.answer
    assert [rrset.rdtype for rrset in reply.authority] == [dns.rdatatype.SOA]


@pytest.mark.parametrize(
    ("name", "rdtype", "least_octets", "records"),
    [
        ("workers.shop.svc.cluster.local.", "A", 6000, HEADLESS_ADDRESSES),
        ("long.example.com.", "TXT", 1501, 1),
        ("huge.example.com.", "TXT", 60_000, 1),
    ],
)
def test_what_does_not_fit_a_datagram_is_truncated_by_udp_and_whole_by_tcp(
    port: int, name: str, rdtype: str, least_octets: int, records: int
) -> None:
    datagram = ask(port, name, rdtype, tcp=False)
    assert datagram.flags & dns.flags.TC
    assert not datagram.answer
    reply = ask(port, name, rdtype)
    assert not reply.flags & dns.flags.TC
    assert len(reply.to_wire()) >= least_octets
    assert len(rdata_of(reply, rdtype)) == records


def test_pipelined_queries_are_answered_in_order(port: int) -> None:
    names = ["web.shop.svc.cluster.local.", "nobody.example.com.", "example.com."] * 5
    queries = [dns.message.make_query(name, "A") for name in names]
    with socket.create_connection((HOST, port), timeout=5) as client:
        wires = [query.to_wire() for query in queries]
        client.sendall(b"".join(len(wire).to_bytes(2) + wire for wire in wires))
        replies = [dns.query.receive_tcp(client)[0] for _ in queries]
    assert [reply.id for reply in replies] == [query.id for query in queries]


def test_garbage_does_not_stop_the_demo_upstream(port: int) -> None:
    query = dns.message.make_query("example.com.", "A").to_wire()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        for cut in range(len(query)):
            client.sendto(query[:cut], (HOST, port))
    assert ask(port, "example.com.", "A", tcp=False).rcode() == dns.rcode.NOERROR


@pytest.mark.parametrize(
    ("text", "upstream"),
    [
        ("", ""),
        ("10.96.0.10", "10.96.0.10:53"),
        ("10.96.0.10:5353", "10.96.0.10:5353"),
        ("fd00::a", "[fd00::a]:53"),
        ("[fd00::a]:5353", "[fd00::a]:5353"),
    ],
)
def test_upstream_is_an_address_with_or_without_port(text: str, upstream: str) -> None:
    assert demo.parse_upstream(text) == upstream


@pytest.mark.parametrize("text", ["dns.example", "10.96.0.10:", "10.96.0.10:70000", "10.96.0"])
def test_upstream_that_is_no_address_is_refused(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refusal:
        demo.main(["run", "--upstream", text])
    assert refusal.value.code == 2
    assert "give an IP address" in capsys.readouterr().err


def test_run_shows_figures_and_leaves_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in = tmp_path / "stand_in.py"
    stand_in.write_text(STAND_IN)
    port = demo.choose_free_ports(1)[0]
    lines: list[str] = []
    has_figures = asyncio.Event()

    def print_line(line: str) -> None:
        lines.append(line)
        if line.startswith("queries"):
            has_figures.set()

    monkeypatch.setattr(demo, "print_line", print_line)
    before = children_of(os.getpid())

    async def run_until_figures() -> None:
        command = [sys.executable, str(stand_in)]
        work = asyncio.create_task(demo.run("", port, command, interval_s=0.05))
        await has_figures.wait()
        work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await work

    asyncio.run(asyncio.wait_for(run_until_figures(), 30))
    output = "\n".join(lines)
    assert f"nodecache on {HOST}:{port} answers" in output
    assert "kubernetes.default.svc.cluster.local" in output
    assert "queries 1,234   hit ratio 95.0 %   upstream exchanges 1" in lines
    assert children_of(os.getpid()) == before


def test_run_says_which_child_ended_and_how(capfd: pytest.CaptureFixture[str]) -> None:
    port = demo.choose_free_ports(1)[0]
    command = [sys.executable, "-c", "raise SystemExit(3)"]
    with pytest.raises(ChildError, match="nodecache ended by itself, with exit code 3"):
        asyncio.run(demo.run("127.0.0.1:9", port, command))
    assert "answers" not in capfd.readouterr().out


def test_child_that_ignores_sigterm_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nodecache.demo.children.END_S", 0.2)
    code = (
        "import signal,time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(60)"
    )

    async def play() -> int:
        children = Children()
        child = await children.start("stubborn", [sys.executable, "-c", code], subprocess.PIPE)
        assert child.stdout is not None
        await child.stdout.readline()
        await children.end()
        return await children.ended["stubborn"]

    assert asyncio.run(play()) == -signal.SIGKILL


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_serve_ends_cleanly(number: signal.Signals) -> None:
    with start("serve") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(number)
        assert process.wait(10) == 0
        assert process.stdout.read() == ""


def test_run_with_the_real_daemon_answers_and_ends_cleanly() -> None:
    port = demo.choose_free_ports(1)[0]
    with start("run", "--port", str(port)) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("queries"):
                break
        text = "".join(lines)
        assert f"nodecache on {HOST}:{port} answers" in text
        assert re.search(r"^queries \d+   hit ratio .*   upstream exchanges \d+$", text, re.M)
        assert rdata_of(ask(port, "web.shop.svc.cluster.local.", "A"), "A") == ["10.96.12.34"]
        children = children_of(process.pid)
        assert len(children) >= 2
        process.send_signal(signal.SIGINT)
        assert process.wait(15) == 0
    assert not [child for child in children if child.is_running()]


def children_of(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)
