"""``nodecache explain``: what an operator reads about each directive, and about its absence."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from nodecache.cli import main

Explain = Callable[..., str]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("nodecache.config.kubedns._FOLDER", str(tmp_path / "no-kube-dns"))
    for name in [name for name in os.environ if name.endswith("_SERVICE_HOST")]:
        monkeypatch.delenv(name)
    return tmp_path


@pytest.fixture
def explain(folder: Path, capsys: pytest.CaptureFixture[str]) -> Explain:
    """Lines of one server block, and flags -> what is printed, folded lines joined."""

    def run(*lines: str, flags: tuple[str, ...] = (), zones: str = ".") -> str:
        body = "".join(f"    {line}\n" for line in lines)
        (folder / "Corefile").write_text(f"{zones} {{\n{body}}}\n")
        code = main(["explain", *flags, "Corefile"])
        out, err = capsys.readouterr()
        assert (code, err) == (0, "")
        return re.sub(r"\n {18}", " ", out)

    return run


def rows(text: str, label: str) -> list[str]:
    """Returns what the rows with this label say, without those that continue them."""
    found = re.findall(rf"^ +{re.escape(label)} {{1,13}}(\S.*)$", text, re.MULTILINE)
    return [str(row) for row in found]


def row(text: str, label: str) -> str:
    (found,) = rows(text, label)
    return found


def test_empty_block_says_that_it_does_nothing(explain: Explain) -> None:
    text = explain(zones="a.example b.example:54")
    assert "a.example. on port 53 (Corefile:1)\n" in text
    assert "b.example. on port 54 (Corefile:1)\n" in text
    assert rows(text, "cache") == ["nothing is kept: there is no 'cache' in this block"] * 2
    nobody = "nobody is asked: there is no 'forward' in this block, so REFUSED"
    assert rows(text, "forward") == [nobody] * 2
    assert rows(text, "errors") == ["are not logged: there is no 'errors' in this block"] * 2
    assert "fast path" not in text
    assert "no effect" not in text


def test_listening_is_told_with_and_without_bind(explain: Explain) -> None:
    assert row(explain(), "listens on") == (
        "every address of the machine (default), port 53; UDP and TCP"
    )
    text = explain("bind 10.0.0.1 ::1", "bufsize 1232")
    assert row(text, "listens on") == "10.0.0.1:53, [::1]:53; UDP and TCP"
    assert row(text, "UDP") == "replies, and those of upstreams, of 1232 octets at most"


def test_only_given_timeouts_are_no_defaults(explain: Explain) -> None:
    text = explain("timeouts {", "    idle 30s", "}")
    assert row(text, "TCP") == (
        "a client may be idle for 30 s, take 5 s (default) to ask, and 5 s (default)"
        " to read its replies"
    )


def test_defaults_of_the_cache_are_marked(explain: Explain) -> None:
    text = explain("cache")
    assert row(text, "cache") == "all names of this block (default)"
    assert row(text, "positive") == (
        "for 1 h (default) at most, 0 s (default) at least; 9984 responses (default)"
    )
    assert row(text, "negative") == (
        "for 30 min (default) at most, 0 s (default) at least; 9984 responses (default)"
    )
    assert row(text, "failures") == "for 1 s, doubling to 5 s while they last (default)"
    assert row(text, "ahead") == (
        "what was asked 2 times (default) within 1 min (default) is refreshed when"
        " 10 % (default) of its TTL are left"
    )
    assert row(text, "stale") == "what has expired is not served (default)"
    assert row(text, "fast path") == "hits are sent from the packet cache"


def test_every_option_of_the_cache_is_told(explain: Explain) -> None:
    text = explain(
        "cache 30 a.example {",
        "    success 500 300 5",
        "    disable denial b.example",
        "    prefetch 0",
        "    servfail 0",
        "    serve_stale 36h verify 1s",
        "    keepttl",
        "    nxdomain_cut cluster.local a.example",
        "}",
    )
    assert row(text, "cache") == "names below a.example."
    assert row(text, "positive") == "for 5 min at most, 5 s at least; 500 responses"
    assert "\n                but not names below b.example.\n" in text
    cuts = "in cluster.local., a.example. an NXDOMAIN for A also answers all names below its own"
    assert f"\n                {cuts}\n" in text
    assert row(text, "ahead") == "nothing is refreshed before its TTL is over"
    assert row(text, "failures") == "are not kept"
    assert row(text, "stale") == (
        "served for 36 h after expiry with a TTL of 5 s, unless a fresh response comes within 1 s"
    )
    assert row(text, "TTL").startswith("replies carry the TTL as it was stored")


def test_immediate_stale_serving_is_told(explain: Explain) -> None:
    text = explain("cache {", "    serve_stale", "    prefetch 3 90s 20%", "}")
    assert row(text, "stale") == (
        "served for 1 h (default) after expiry with a TTL of 5 s, at once, and refreshed"
        " behind it (default)"
    )
    assert row(text, "ahead").startswith(
        "what was asked 3 times within 90 s is refreshed when 20 %"
    )


@pytest.mark.parametrize(
    ("lines", "reasons"),
    [
        (("log",), "log looks at"),
        (("dns64",), "dns64 works on"),
        (("loadbalance",), "loadbalance works on"),
        (("loadbalance", "log", "dns64"), "log and dns64 and loadbalance work on"),
    ],
)
def test_block_without_packet_cache_says_why(
    lines: tuple[str, ...], reasons: str, explain: Explain
) -> None:
    assert row(explain("cache", *lines), "fast path") == (
        f"not used, since {reasons} each reply: no packet cache, slower hits"
    )


def test_plain_forward_is_told_with_its_defaults(explain: Explain) -> None:
    text = explain("forward . 10.0.0.1")
    assert row(text, "forward") == "all names"
    assert row(text, "to") == "10.0.0.1:53 over UDP, TCP if truncated (default)"
    assert row(text, "time") == (
        "4.5 s for a query with all its retries, then SERVFAIL;"
        " what comes within 10 s (default) is kept"
    )
    assert row(text, "down") == (
        "after more than 2 failures in a row (default), then probed every 500 ms (default) for . NS"
    )
    assert row(text, "all down") == "asked all the same (default)"
    assert row(text, "connections") == (
        "closed after 8 s (default) idle, replaced after about 30 s (default)"
    )
    assert rows(text, "order") == []


def test_every_option_of_forward_is_told(explain: Explain) -> None:
    text = explain(
        "forward a.example 10.0.0.1 10.0.0.2:5353 {",
        "    except b.a.example",
        "    force_tcp",
        "    policy sequential",
        "    max_fails 5",
        "    health_check 2s no_rec domain health.example",
        "    expire 5s",
        "    max_age 1m",
        "    max_idle_conns 4",
        "    max_conns 20",
        "    max_rate 500",
        "    max_concurrent 100",
        "    max_connect_attempts 3",
        "    read_timeout 500ms",
        "    failover SERVFAIL REFUSED",
        "    next NXDOMAIN",
        "    failfast_all_unhealthy_upstreams",
        "}",
        "forward . 10.0.0.3 {",
        "    max_fails 0",
        "}",
    )
    assert rows(text, "forward") == [
        "names below a.example., but not names below b.a.example.",
        "all names",
    ]
    assert "10.0.0.1:53 over TCP\n                10.0.0.2:5353 over TCP\n" in text
    assert row(text, "order") == "as listed"
    assert rows(text, "time")[0].endswith("what comes within 500 ms is kept")
    assert rows(text, "RCODEs")[0] == "on SERVFAIL, REFUSED the next upstream is asked"
    assert "on NXDOMAIN the next forward of this block is asked" in text
    assert rows(text, "in flight")[0] == "100 exchanges, then REFUSED"
    assert row(text, "dialling") == "3 attempts for a query, then SERVFAIL"
    assert rows(text, "down")[0] == (
        "after more than 5 failures in a row,"
        " then probed every 2 s for health.example. NS, without RD"
    )
    assert row(text, "all down") == "SERVFAIL at once"
    assert rows(text, "connections")[0] == (
        "20 to each at most over TCP or TLS, closed after 5 s idle, replaced after 1 min,"
        " at most 4 idle"
    )
    assert row(text, "pace").startswith("500 queries a second to each, then what has expired")
    assert rows(text, "down")[1] == "never, whatever fails"


def test_tls_upstream_is_told_with_its_trust(folder: Path, explain: Explain) -> None:
    for name in ("ca.pem", "cert.pem", "key.pem"):
        (folder / name).touch()
    text = explain(
        "forward . tls://10.0.0.1 tls://10.0.0.2 {", "    tls_servername dns.example", "}"
    )
    assert row(text, "to") == (
        "10.0.0.1:853 over TLS, certificate of dns.example, trusting the CAs of this system"
        " (default)"
    )
    text = explain("forward . tls://10.0.0.1 {", "    tls cert.pem key.pem ca.pem", "}")
    assert row(text, "to") == (
        "10.0.0.1:853 over TLS, certificate of 10.0.0.1, trusting ca.pem, showing cert.pem"
    )


def test_forward_that_waits_for_its_service_says_so(explain: Explain) -> None:
    text = explain("forward . __PILLAR__CLUSTER__DNS__", flags=("-upstreamsvc", "up"))
    assert row(text, "to") == "nobody, as long as no upstream is known: REFUSED"
    assert row(text, "waits for").startswith("the Service up.kube-system: UP_SERVICE_HOST, else ")
    assert text.count("warning: the Service 'up' has no address") == 1


def test_what_is_changed_and_answered_here_is_told(folder: Path, explain: Explain) -> None:
    (folder / "table").write_text("10.0.0.1 a.example b.example\n")
    text = explain(
        "rewrite name a.example b.example",
        "rewrite name c.example d.example",
        "rewrite ttl a.example 30",
        "template IN AAAA {",
        "    rcode NXDOMAIN",
        "}",
        "template IN A b.example {",
        "    match ^x",
        '    answer "{{ .Name }} 60 IN A 10.0.0.9"',
        "}",
        "hosts table c.example example {",
        "    ttl 60",
        "    fallthrough",
        "}",
        "dns64 {",
        "    translate_all",
        "}",
        "loadbalance {",
        "    prefer 10.0.0.0/8",
        "}",
        "whoami",
        "loop",
        "forward . 10.0.0.1",
    )
    assert row(text, "rewrite") == (
        "rules of the question and its response, in this order: 2 about name, 1 about ttl"
    )
    assert row(text, "template") == "IN AAAA of all names get NXDOMAIN with 0 records"
    assert (
        "IN A of names below b.example. that match one of 1 patterns get NOERROR with 1 records,"
        " others SERVFAIL (default)\n"
    ) in text
    hosts = row(text, "hosts")
    assert hosts.startswith("4 entries of ")
    assert hosts.endswith("table and the Corefile for names below c.example., example., TTL 1 min")
    assert "without an entry, all names go on\n" in text
    assert row(text, "dns64") == (
        "AAAA records are made of A records with 64:ff9b::/96 (default), always,"
        " for clients that ask over IPv6 (default)"
    )
    assert row(text, "loadbalance") == (
        "addresses stand in another order in each reply (default); first come those in 10.0.0.0/8"
    )
    assert row(text, "whoami").startswith("what no forward takes")
    assert row(text, "loop").startswith("after each start and reload")


def test_weights_and_strict_hosts_are_told(folder: Path, explain: Explain) -> None:
    (folder / "weights").write_text("a.example\n10.0.0.1 3\n")
    text = explain("loadbalance weighted weights", "hosts missing {", "    10.0.0.1 a.example", "}")
    assert row(text, "loadbalance") == (
        "one address comes first, chosen by weight; 1 names have some"
    )
    assert "names without an entry get SERVFAIL (default)\n" in text


def test_pages_and_logs_are_told(explain: Explain) -> None:
    text = explain(
        "log a.example {rcode} {",
        "    class denial error",
        "}",
        "log",
        "errors {",
        '    consolidate 5m "timeout$" warning',
        "}",
        "debug",
        "prometheus :9253",
        "health 127.0.0.15:8080 {",
        "    lameduck 5s",
        "}",
        "ready",
        "pprof",
        "reload 10s",
    )
    assert (
        rows(text, "log")[0]
        == "responses of denial, error about names below a.example., as {rcode}"
    )
    assert "                all responses about all names, as {remote}:{port} - " in text
    assert row(text, "errors") == "are logged; summed up: 'timeout$' once in 5 min"
    assert row(text, "debug") == "lines for debugging are logged"
    assert rows(text, "metrics")[0] == "http://*:9253/metrics"
    assert row(text, "health") == "http://127.0.0.15:8080/health; serving on for 5 s after SIGTERM"
    assert row(text, "ready") == "http://*:8181/ready"
    assert row(text, "pprof") == "http://127.0.0.1:6053/debug/pprof/"
    assert row(text, "no effect") == "reload: changed files are loaded anyway, see -watch"


def test_what_holds_for_all_is_told_with_its_defaults(folder: Path, explain: Explain) -> None:
    (folder / "more").write_text("errors\n")
    text = explain("import more")
    assert "All of Corefile: 1 server block\n" in text
    assert row(text, "own addresses") == "192.0.2.1, for want of -localip"
    assert row(text, "caches") == "32 MiB (default) for all server blocks together"
    assert row(text, "NXDOMAIN") == (
        "for A answers every type of names below cluster.local. (default)"
    )
    assert row(text, "in flight") == (
        "10000 exchanges with upstreams at a time, then REFUSED (default)"
    )
    assert row(text, "one client") == "may add 200 when 500 are in flight, then REFUSED (default)"
    assert rows(text, "metrics")[-1] == "http://0.0.0.0:9353/metrics (default)"
    assert row(text, "pidfile") == "none (default)"
    assert row(text, "reads") == "Corefile, more"
    assert row(text, "imports") == "relative ones from . (the daemon: from the folder of -conf)"
    assert "no-kube-dns/stubDomains" in row(text, "looks for")
    assert row(text, "changes") == (
        "of these files are loaded within 2 s, and on SIGUSR1 and SIGHUP (default)"
    )


def test_flags_show_in_what_holds_for_all(explain: Explain) -> None:
    flags = (
        *("-localip", "10.0.0.1,::1", "-setupinterface=false", "-setupiptables=false"),
        *("-cache-size", "1500KiB", "-nxdomain-scope", "all", "-max-inflight", "5"),
        *("-client-share", "100"),
        *("-metrics-listen-address=", "-watch=false", "-log-format", "json", "-pidfile", "pid"),
    )
    text = explain("bind __PILLAR__LOCAL__DNS__", flags=flags)
    assert row(text, "own addresses") == "10.0.0.1, ::1"
    assert row(text, "listens on") == "10.0.0.1:53, [::1]:53; UDP and TCP"
    assert row(text, "caches") == "1500 KiB for all server blocks together"
    assert row(text, "NXDOMAIN") == "for A answers every type of all names"
    text = explain("", flags=("-nxdomain-scope", "none"))
    assert row(text, "NXDOMAIN") == "answers the type that was asked for"
    text = explain("bind __PILLAR__LOCAL__DNS__", flags=flags)
    assert row(text, "in flight") == "5 exchanges with upstreams at a time, then REFUSED"
    assert row(text, "one client") == "may have all of them"
    assert rows(text, "metrics")[-1] == "nowhere"
    assert rows(text, "log")[-1] == "to standard error, as json"
    assert row(text, "pidfile") == "pid"
    assert row(text, "changes") == "of these files are loaded on SIGUSR1 and SIGHUP"


def test_lines_are_short_and_values_keep_their_units(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    zones = " ".join(f"zone{n}.example" for n in range(40))
    (folder / "Corefile").write_text(f"{zones} {{\n    cache\n    bind 127.0.0.15\n}}\n")
    (folder / "kube-dns").mkdir()
    assert main(["explain", "Corefile", "kube-dns"]) == 0
    title, *lines = capsys.readouterr().out.splitlines()
    assert title.endswith("zone11.example., and 28 more on port 53 (Corefile:1)")
    assert max(map(len, lines)) <= 100
    assert not [line for line in lines if line.strip().startswith(("(default)", "s ", "% "))]


def test_stub_domains_of_the_config_map_are_explained_too(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "Corefile").write_text(". {\n    forward . __PILLAR__UPSTREAM__SERVERS__\n}\n")
    (folder / "kube-dns").mkdir()
    (folder / "kube-dns/stubDomains").write_text('{"a.example": ["10.0.0.1"]}')
    (folder / "kube-dns/upstreamNameservers").write_text('["10.0.0.2:5353"]')
    assert main(["explain", "Corefile", "kube-dns"]) == 0
    out = capsys.readouterr().out
    assert "a.example. on port 53 (kube-dns/stubDomains:1)\n" in out
    assert "10.0.0.2:5353 over UDP" in out


def test_config_map_alone_cannot_be_explained(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "kube-dns").mkdir()
    assert main(["explain", "kube-dns"]) == 2
    assert capsys.readouterr().out == (
        "kube-dns: what a ConfigMap comes to depends on the Corefile; name that, too\n"
    )


def test_faults_are_shown_as_check_shows_them(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "Corefile").write_text(". {\n    cach\n}\n")
    assert main(["check", "Corefile"]) == 2
    out = capsys.readouterr().out
    assert main(["explain", "Corefile"]) == 2
    assert capsys.readouterr().out == out


def test_fault_of_the_command_line_is_shown_above(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "Corefile").write_text(". {\n}\n")
    assert main(["explain", "-quite", "Corefile"]) == 2
    out = capsys.readouterr().out
    assert out.startswith("command line: unknown flag '-quite'; did you mean '-quiet'?\n")
    assert "All of Corefile" in out


def test_missing_file_ends_with_one(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "missing"]) == 1
    assert capsys.readouterr() == ("", "missing: cannot read this: No such file or directory\n")


def test_explain_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "-h"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("nodecache explain says in plain words")
    assert main(["help", "explain"]) == 0
    assert capsys.readouterr().out == out


def test_host_name_as_upstream_is_told_with_who_is_asked_for_it(explain: Explain) -> None:
    text = explain("forward . 192.0.2.1 up.example:5300 {\n        resolver 192.0.2.9\n    }")
    assert row(text, "to") == "192.0.2.1:53 over UDP, TCP if truncated (default)"
    host = "up.example. port 5300 over UDP, TCP if truncated (default)"
    assert f"{host}; 192.0.2.9:53 is asked for its addresses" in " ".join(text.split())
