"""A cluster DNS whose ``template`` turns IPv6 off with NXDOMAIN: what stubs behind a daemon see."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import dns.rcode
import pytest

from tests.daemon.processes import HOST, Daemon, faultless, free_port
from tests.daemon.stubs import addresses, ask, scrape, total

DENY_IPV6 = """
    template IN AAAA cluster.local {
        rcode NXDOMAIN
        authority "cluster.local. 60 IN SOA ns.cluster.local. admin.cluster.local. 1 60 60 60 60"
    }"""
SERVICES = """
    template IN A cluster.local {
        match ^svc[0-9]+[.]
        answer "{{ .Name }} 5 IN A 10.96.0.7"
        fallthrough
    }
    template ANY ANY . {
        rcode NXDOMAIN
        authority "cluster.local. 60 IN SOA ns.cluster.local. admin.cluster.local. 1 60 60 60 60"
    }"""


class Start(Protocol):
    """Starts a daemon with one block of these directives."""

    def __call__(self, directives: str, *flags: str) -> Daemon: ...


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    with ExitStack() as stack:

        def start_one(directives: str, *flags: str) -> Daemon:
            port, metrics_port = free_port(), free_port()
            text = f""".:{port} {{
    bind {HOST}
    errors
    prometheus {HOST}:{metrics_port}
{directives}
}}
"""
            daemon = Daemon(tmp_path, text, port=port, metrics_port=metrics_port, flags=flags)
            stack.enter_context(faultless(daemon))
            daemon.wait_until_serving()
            return daemon

        yield start_one


def behind(upstream: Daemon) -> str:
    forward = f"forward . {upstream.host}:{upstream.port} {{\n        force_tcp\n    }}"
    return f"    cache 30\n    {forward}"


@pytest.mark.parametrize("first", ["A", "AAAA"])
@pytest.mark.parametrize("is_own", [False, True], ids=["upstream's template", "own template"])
def test_all_parallel_look_ups_find_the_address(start: Start, first: str, *, is_own: bool) -> None:
    upstream = start(SERVICES if is_own else DENY_IPV6 + SERVICES)
    daemon = start(behind(upstream) + (DENY_IPV6 if is_own else ""))

    def look_up(number: int) -> tuple[list[str], dns.rcode.Rcode]:
        name = f"svc{number % 5}.default.svc.cluster.local"
        replies = {rdtype: ask(daemon, name, rdtype) for rdtype in sorted(("A", "AAAA"))[::order]}
        return addresses(replies["A"]), replies["AAAA"].rcode()

    order = 1 if first == "A" else -1
    with ThreadPoolExecutor(20) as pool:
        for _ in range(3):
            found = list(pool.map(look_up, range(40)))
            assert found == [(["10.96.0.7"], dns.rcode.NXDOMAIN)] * 40


def test_none_lets_an_nxdomain_answer_its_own_type_only(start: Start) -> None:
    upstream = start(SERVICES)
    for flags, asked in (((), 1), (("-nxdomain-scope", "none"), 2)):
        daemon = start(behind(upstream), *flags)
        for rdtype in ("A", "AAAA"):
            assert ask(daemon, "no.cluster.local", rdtype).rcode() == dns.rcode.NXDOMAIN
        assert total(scrape(daemon), "coredns_cache_misses_total") == asked
