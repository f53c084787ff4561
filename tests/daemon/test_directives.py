"""Each directive as users write it, in a running daemon, seen by a stub resolver."""

from __future__ import annotations

import http.client
import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import dns.edns
import dns.flags
import dns.message
import dns.query
import dns.rcode
import pytest

from tests.daemon.faulty import ScriptedUpstream, right_address
from tests.daemon.processes import HOST, PATIENCE_S, Daemon, faultless, free_port, wait_until
from tests.daemon.stubs import (
    addresses,
    ask,
    framed,
    make_query,
    read_message,
    scrape,
    tcp_socket,
    texts,
    total,
)


class StartWith(Protocol):
    """Starts a daemon whose one block forwards to the scripted upstream and has ``lines``."""

    def __call__(self, lines: str, *, flags: tuple[str, ...] = (), zone: str = ...) -> Daemon: ...


@pytest.fixture
def daemon_with(tmp_path: Path, scripted: ScriptedUpstream) -> Iterator[StartWith]:
    with ExitStack() as stack:

        def start(lines: str, *, flags: tuple[str, ...] = (), zone: str = ".") -> Daemon:
            port, metrics_port = free_port(), free_port()
            text = f"""{zone}:{port} {{
    bind {HOST}
    errors
    cache 300
    forward . {scripted.host}:{scripted.port} {{
        force_tcp
    }}
    prometheus {HOST}:{metrics_port}
{lines}
}}
"""
            daemon = Daemon(tmp_path, text, port=port, metrics_port=metrics_port, flags=flags)
            stack.enter_context(faultless(daemon))
            daemon.wait_until_serving()
            return daemon

        yield start


def fetch(port: int, path: str, **headers: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection(HOST, port, timeout=20)
    try:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def when_served(port: int, path: str) -> tuple[int, str]:
    """The page as soon as its port is open."""

    def is_there() -> bool:
        try:
            fetch(port, path)
        except ConnectionRefusedError:
            return False
        return True

    wait_until(is_there, path)
    return fetch(port, path)


def test_hosts_answers_and_its_file_is_watched(tmp_path: Path, daemon_with: StartWith) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("10.1.2.3 printer.test\n")
    daemon = daemon_with(f"    hosts {hosts} {{\n        ttl 60\n        fallthrough\n    }}")
    assert addresses(ask(daemon, "printer.test")) == ["10.1.2.3"]
    assert texts(ask(daemon, "3.2.1.10.in-addr.arpa", "PTR"), "PTR") == ["printer.test."]
    assert addresses(ask(daemon, "other.test")) == [right_address("other.test")]
    samples = scrape(daemon)
    assert total(samples, "coredns_hosts_entries", hostsfile=str(hosts)) >= 1
    assert total(samples, "coredns_dns_responses_total", plugin="hosts") == 2
    hosts.write_text("10.1.2.4 printer.test\n")
    wait_until(lambda: addresses(ask(daemon, "printer.test")) == ["10.1.2.4"], daemon.log)
    assert addresses(ask(daemon, "other.test")) == [right_address("other.test")]


def test_template_answers_by_pattern(daemon_with: StartWith) -> None:
    daemon = daemon_with(
        "    template IN A ip.test {\n"
        "        match ^ip-(?P<a>[0-9]+)-(?P<b>[0-9]+)[.]ip[.]test[.]$\n"
        '        answer "{{ .Name }} 60 IN A 10.0.{{ .Group.a }}.{{ .Group.b }}"\n'
        "        fallthrough\n"
        "    }"
    )
    assert addresses(ask(daemon, "ip-7-8.ip.test")) == ["10.0.7.8"]
    assert addresses(ask(daemon, "x.ip.test")) == [right_address("x.ip.test")]
    assert total(scrape(daemon), "coredns_template_matches_total", type="A") == 1


def test_rewritten_name_is_asked_and_the_old_one_answered(
    daemon_with: StartWith, scripted: ScriptedUpstream
) -> None:
    daemon = daemon_with("    rewrite name exact old.test new.test")
    reply = ask(daemon, "old.test")
    assert reply.answer[0].name.to_text() == "old.test."
    assert addresses(reply) == [right_address("new.test")]
    assert scripted.asked_for("old.test") == []


def test_dns64_makes_addresses_of_names_without_any(
    daemon_with: StartWith, scripted: ScriptedUpstream
) -> None:
    daemon = daemon_with(
        "    dns64 {\n        allow_ipv4\n    }\n"
        "    hosts {\n        192.0.2.33 four.test\n        fallthrough\n    }"
    )
    assert texts(ask(daemon, "four.test", "AAAA"), "AAAA") == ["64:ff9b::c000:221"]
    assert total(scrape(daemon), "coredns_dns64_requests_translated_total") == 1


def test_loadbalance_changes_the_order(daemon_with: StartWith) -> None:
    lines = "\n".join(f"        10.0.0.{n} many.test" for n in range(1, 9))
    daemon = daemon_with(f"    loadbalance\n    hosts {{\n{lines}\n    }}")
    first = {ask(daemon, "many.test").answer[0][0].to_text() for _ in range(60)}
    assert len(first) > 2


LINE = re.compile(
    r'^\[INFO\] 127\.0\.0\.1:[0-9]+ - [0-9]+ "A IN logged\.test\. udp 29 false 512"'
    r" NOERROR qr,rd,ra 45 0\.[0-9]+s$",
    re.MULTILINE,
)


def test_log_writes_coredns_lines_for_misses_and_hits(daemon_with: StartWith) -> None:
    daemon = daemon_with("    log")
    for _ in range(3):
        ask(daemon, "logged.test")
    wait_until(lambda: len(LINE.findall(daemon.log())) == 3, daemon.log)


def test_lines_are_json_when_asked_for(daemon_with: StartWith) -> None:
    daemon = daemon_with("    log", flags=("-log-format", "json"))
    ask(daemon, "logged.test")
    wait_until(lambda: "logged.test" in daemon.log(), daemon.log)
    records = [json.loads(line) for line in daemon.log().splitlines()]
    assert {record["level"] for record in records} == {"info"}
    assert any("logged.test" in record["message"] for record in records)


def test_debug_tells_of_upstream_connections(daemon_with: StartWith) -> None:
    daemon = daemon_with("    debug")
    ask(daemon, "a.test")
    wait_until(lambda: "[DEBUG] upstream" in daemon.log(), daemon.log)


def test_whoami_tells_a_client_its_address(tmp_path: Path) -> None:
    port, metrics_port = free_port(), free_port()
    text = f".:{port} {{\n    bind {HOST}\n    whoami\n}}\n"
    with faultless(Daemon(tmp_path, text, port=port, metrics_port=metrics_port)) as daemon:
        daemon.wait_until_serving()
        for tcp in (False, True):
            reply = ask(daemon, "who.test", tcp=tcp)
            found = [rrset[0].to_text() for rrset in reply.additional if rrset.rdtype == 1]
            assert found == ["127.0.0.1"]
            owner = reply.additional[-1].name.to_text()
            assert owner == f"_{'tcp' if tcp else 'udp'}.who.test."


def test_bufsize_cuts_replies(daemon_with: StartWith) -> None:
    lines = "\n".join(f"        10.0.0.{n} many.test" for n in range(1, 51))
    daemon = daemon_with(f"    bufsize 512\n    hosts {{\n{lines}\n    }}")
    assert ask(daemon, "many.test", payload=4096).flags & dns.flags.TC
    assert len(ask(daemon, "many.test", tcp=True).answer[0]) == 50


def test_idle_connections_are_closed_when_timeouts_say(daemon_with: StartWith) -> None:
    daemon = daemon_with("    timeouts {\n        idle 1s\n    }")
    with tcp_socket(daemon) as sock:
        sock.sendall(framed([make_query("a.test").to_wire()]))
        read_message(sock)
        asked_at = time.monotonic()
        assert sock.recv(1) == b""
        assert 0.5 < time.monotonic() - asked_at < 4.0


def test_ready_says_ok_and_as_json_why(daemon_with: StartWith) -> None:
    port = free_port()
    daemon_with(f"    ready {HOST}:{port}")
    assert when_served(port, "/ready") == (200, "OK")
    status, text = fetch(port, "/ready", Accept="application/json")
    assert (status, json.loads(text)["ready"]) == (200, True)


def test_health_asks_ourselves_over_udp_and_tcp(daemon_with: StartWith) -> None:
    port = free_port()
    daemon = daemon_with(f"    health {HOST}:{port}")
    assert when_served(port, "/health") == (200, "OK")
    # The questions to ourselves are not counted as anybody's.
    assert total(scrape(daemon), "coredns_dns_requests_total") == 0


def test_profile_shows_where_the_loop_spends_its_time(daemon_with: StartWith) -> None:
    port = free_port()
    daemon_with(f"    pprof {HOST}:{port}")
    status, text = when_served(port, "/debug/pprof/profile?seconds=1")
    assert status == 200
    assert re.search(r"^nodecache\.__main__\.[^ ]* [0-9]+$|;.* [0-9]+$", text, re.MULTILINE)


def test_no_series_is_on_both_pages_of_metrics(daemon_with: StartWith) -> None:
    setup_port = free_port()
    flags = ("-metrics-listen-address", f"{HOST}:{setup_port}")
    daemon = daemon_with("", flags=flags)
    ask(daemon, "a.test")
    setup = set(re.findall(r"^# TYPE (\S+)", when_served(setup_port, "/metrics")[1], re.MULTILINE))
    serving = set(
        re.findall(r"^# TYPE (\S+)", fetch(daemon.metrics_port, "/metrics")[1], re.MULTILINE)
    )
    assert "coredns_nodecache_setup_errors_total" in setup
    assert "coredns_dns_requests_total" in serving
    assert setup & serving == set()


def test_taken_port_of_a_page_stops_no_query(
    daemon_with: StartWith, scripted: ScriptedUpstream
) -> None:
    daemon = daemon_with(f"    health {scripted.host}:{scripted.port}")
    wait_until(lambda: "cannot serve HTTP" in daemon.log(), daemon.log)
    assert addresses(ask(daemon, "a.test")) == [right_address("a.test")]


@pytest.mark.slow
def test_loop_is_found_and_only_its_misses_fail(tmp_path: Path) -> None:
    port, metrics_port, ready_port = free_port(), free_port(), free_port()
    text = f""".:{port} {{
    bind {HOST}
    errors
    cache
    loop
    hosts {{
        10.0.0.1 known.test
        fallthrough
    }}
    forward . {HOST}:{port}
    ready {HOST}:{ready_port}
}}
"""
    with faultless(Daemon(tmp_path, text, port=port, metrics_port=metrics_port)) as daemon:
        daemon.wait_until_serving()
        wait_until(lambda: ask(daemon, "x.test").rcode() == dns.rcode.SERVFAIL, daemon.log)
        wait_until(lambda: "comes back here" in daemon.log(), daemon.log)
        asked_at = time.monotonic()
        assert ask(daemon, "y.test").rcode() == dns.rcode.SERVFAIL
        assert time.monotonic() - asked_at < 1.0
        assert "comes back here" in when_served(ready_port, "/ready?format=json")[1]


def test_bind_takes_the_addresses_of_an_interface(tmp_path: Path) -> None:
    port, metrics_port = free_port("127.0.0.1"), free_port()
    text = f".:{port} {{\n    bind lo\n    whoami\n}}\n"
    daemon = Daemon(tmp_path, text, host="127.0.0.1", port=port, metrics_port=metrics_port)
    with faultless(daemon):
        daemon.wait_until_serving()
        assert ask(daemon, "who.test").rcode() == dns.rcode.NOERROR


def nsids(daemon: Daemon, *, asked: bool) -> list[bytes]:
    query = make_query("a.test", payload=1232)
    query.use_edns(0, payload=1232, options=[dns.edns.NSIDOption(b"")] if asked else [])
    reply = dns.query.udp(query, daemon.host, PATIENCE_S, daemon.port)
    return [option.nsid for option in reply.options if isinstance(option, dns.edns.NSIDOption)]


def test_nsid_tells_the_host_or_what_is_written_and_changes_with_a_reload(
    daemon_with: StartWith,
) -> None:
    daemon = daemon_with("    nsid")
    for _ in range(3):  # a miss, a hit, and from the packet cache
        assert nsids(daemon, asked=True) == [socket.gethostname().encode()]
        assert nsids(daemon, asked=False) == []
    path = Path(daemon.command[daemon.command.index("-basecorefile") + 1])
    path.write_text(path.read_text().replace("nsid", "nsid somebody else"))
    wait_until(lambda: nsids(daemon, asked=True) == [b"somebody else"], daemon.log)
    assert nsids(daemon, asked=False) == []


@pytest.mark.slow
def test_errors_are_told_in_the_words_of_coredns_and_summed_up_by_its_patterns(
    tmp_path: Path,
) -> None:
    port, metrics_port, dead = free_port(), free_port(), free_port()
    deaf = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    deaf.bind((HOST, 0))
    text = f""".:{port} {{
    bind {HOST}
    errors {{
        consolidate 1h ".* i/o timeout$" warning
    }}
    forward silent.test {HOST}:{deaf.getsockname()[1]}
    forward . {HOST}:{dead} {{
        force_tcp
    }}
    prometheus {HOST}:{metrics_port}
}}
"""
    daemon = Daemon(tmp_path, text, port=port, metrics_port=metrics_port)
    with deaf, faultless(daemon):
        daemon.wait_until_serving()
        for name in ("a.test", "a.silent.test"):
            assert ask(daemon, name).rcode() == dns.rcode.SERVFAIL
        assert daemon.stop() == 0
    refused = f"dial tcp {HOST}:{dead}: connect: connection refused"
    assert f"[ERROR] plugin/errors: 2 a.test. A: {refused} (" in daemon.log()
    timeouts = "plugin/errors: 1 errors like '.* i/o timeout$' occurred in last 1h0m0s"
    assert f"[WARNING] {timeouts}" in daemon.log()


def test_query_log_names_the_upstream_that_answered(
    daemon_with: StartWith, scripted: ScriptedUpstream
) -> None:
    daemon = daemon_with('    log . "{name} from {/forward/upstream}"')
    for _ in range(2):
        ask(daemon, "a.test")
    place = f"{scripted.host}:{scripted.port}"
    wait_until(lambda: "a.test. from -" in daemon.log(), daemon.log)
    assert daemon.log().count(f"a.test. from {place}") == 1
