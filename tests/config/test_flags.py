"""The command line: syntax of Go's flag package, node-cache's flags and our own."""

from __future__ import annotations

from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodecache.config.flag_table import TABLE
from nodecache.config.flags import Flags, help_text, parse_flags
from nodecache.config.model import Address, LogFormat, NxdomainScope
from nodecache.config.names import parse_name

READY = ["-localip", "127.0.0.15", "-setupinterface=false", "-setupiptables=false"]


def read(*words: str) -> Flags:
    flags, faults = parse_flags([*READY, *words])
    assert faults == []
    return flags


def faults_of(*words: str) -> list[str]:
    _, faults = parse_flags([*READY, *words])
    return [str(fault) for fault in faults]


@pytest.mark.parametrize(
    "words", [["-conf", "x"], ["--conf", "x"], ["-conf=x"], ["--conf=x"], ["-conf", "y", "-conf=x"]]
)
def test_one_dash_or_two_and_blank_or_equals_sign(words: list[str]) -> None:
    assert read(*words).conf == "x"


@pytest.mark.parametrize("word", ["-quiet", "--quiet", "-quiet=true", "-quiet=1", "-quiet=T"])
def test_boolean_is_set_by_its_name(word: str) -> None:
    assert read(word).quiet


@pytest.mark.parametrize("word", ["-quiet=false", "--quiet=0", "-quiet=F", "-quiet=FALSE"])
def test_boolean_is_cleared_with_an_equals_sign(word: str) -> None:
    assert not read(word).quiet


def test_boolean_takes_no_next_word() -> None:
    assert faults_of("-quiet", "false") == [
        "command line: 'false' belongs to no flag; write booleans as -flag=false"
    ]


def test_value_may_be_empty_or_start_with_a_dash() -> None:
    assert read("-conf=").conf == ""
    assert read("-conf", "-").conf == "-"


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("169.254.20.10", ("169.254.20.10",)),
        ("169.254.20.10,10.96.0.10", ("169.254.20.10", "10.96.0.10")),
        ("169.254.20.10,", ("169.254.20.10",)),
        ("169.254.20.10, FD00::10 ,169.254.20.10", ("169.254.20.10", "fd00::10")),
    ],
)
def test_localip_forgives_commas_and_mixes_families(text: str, hosts: tuple[str, ...]) -> None:
    assert read("-localip", text).localip == hosts


@pytest.mark.parametrize(
    ("text", "seconds"), [("60", 60.0), ("60s", 60.0), ("2m", 120.0), ("60ns", 60.0), ("1h", 3600)]
)
def test_syncinterval_in_all_forms_that_node_cache_shows_or_takes(
    text: str, seconds: float
) -> None:
    assert read("-syncinterval", text).sync_interval_s == seconds


@pytest.mark.parametrize("name", ["-p", "-dns.port"])
def test_default_port_has_two_names(name: str) -> None:
    assert read(name, "5353").dns_port == 5353


def test_every_flag_of_node_cache_is_known() -> None:
    names = (
        "localip setupinterface interfacename setupiptables syncinterval skipteardown"
        " metrics-listen-address prometheus-listen-address basecorefile corefile conf kubednscm"
        " upstreamsvc health-port reloadwithsignal pidfile dns.port p plugins version quiet"
    )
    known = {name for rows in TABLE.values() for row in rows for name in row.names}
    assert set(names.split()) <= known


def test_stock_values_of_every_flag_are_accepted() -> None:
    words = (
        "-interfacename nodelocaldns -syncinterval 60 -skipteardown=true -health-port 8081"
        " -upstreamsvc kube-dns-upstream -kubednscm /etc/kube-dns -corefile /etc/Corefile"
        " -basecorefile /b -conf /c -pidfile /p -reloadwithsignal=false"
        " -prometheus-listen-address :9253 -dns.port 53 -metrics-listen-address 0.0.0.0:9353"
    )
    flags = read(*words.split())
    assert flags == Flags(
        localip=("127.0.0.15",),
        setup_interface=False,
        setup_iptables=False,
        skip_teardown=True,
        health_port=8081,
        upstreamsvc="kube-dns-upstream",
        kubednscm="/etc/kube-dns",
        basecorefile="/b",
        conf="/c",
        pidfile="/p",
    )


def test_our_own_flags() -> None:
    flags = read(
        *["-cache-size", "64MiB", "-cluster-domain", "k8s.example", "-nxdomain-scope", "all"],
        *[
            "-max-inflight=500",
            "-client-share=30",
            "-watch=false",
            "-log-format=json",
            "-legacy-metrics",
        ],
    )
    assert flags.cache_octets == 64 * 1024 * 1024
    assert flags.cluster_domain == parse_name("k8s.example")
    assert flags.nxdomain_scope is NxdomainScope.ALL
    assert flags.max_inflight == 500
    assert flags.client_share == 30
    assert not flags.watch
    assert flags.log_format is LogFormat.JSON
    assert flags.legacy_metrics


def test_our_own_flags_are_off_or_harmless_by_default() -> None:
    flags = read()
    assert flags.watch
    assert flags.log_format is LogFormat.TEXT
    assert not flags.legacy_metrics


def test_reloadwithsignal_is_accepted() -> None:
    assert read("-reloadwithsignal").reload_with_signal


def test_arguments_of_acks_chart_are_accepted() -> None:
    words = (
        "-localip 169.254.20.10 -conf /etc/coredns/Corefile -upstreamsvc node-local-upstream"
        " -setupiptables=true -skipteardown=true -forwardonexit=false"
    )
    ours = read(*words.split())
    assert ours.skip_teardown
    assert not ours.forward_on_exit


def test_upstreamsvc_may_be_empty_for_who_writes_addresses() -> None:
    assert read("-upstreamsvc=").upstreamsvc == ""


def test_hostile_zone_of_an_address_is_refused() -> None:
    assert faults_of("-localip", "fe80::1%a }\n. {") == [
        "command line: -localip: 'fe80::1%a }\\n. {' is no IP address"
    ]


def test_metrics_address_may_be_turned_off() -> None:
    assert read().metrics_listen == Address("0.0.0.0", 9353)
    assert read("-metrics-listen-address", "127.0.0.1:1").metrics_listen == Address("127.0.0.1", 1)
    assert read("-metrics-listen-address=").metrics_listen is None


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["-basecorfile", "x"], "unknown flag '-basecorfile'; did you mean '-basecorefile'?"),
        (["-xyzzy=1"], "unknown flag '-xyzzy'; see -help"),
        (["---conf", "x"], "unknown flag '--conf'; did you mean '-conf'?"),
        (["Corefile"], "'Corefile' belongs to no flag"),
        (["--"], "'--' belongs to no flag"),
        (["-conf"], "-conf needs a value: write -conf FILE"),
        (["-conf", "-quiet"], "-conf needs a value: write -conf FILE"),
        (["-quiet=yes"], "-quiet: 'yes' is neither true nor false"),
        (["-localip", "1.2.3"], "-localip: '1.2.3' is no IP address"),
        (["-p", "0"], "-p: 0 is out of range: give 1 to 65535 as a port (16 bits)"),
        (["-health-port", "x"], "-health-port: 'x' is no whole number"),
        (
            ["-syncinterval", "0"],
            (
                "-syncinterval: 0 is out of range: give 1 to 86400 seconds"
                " (node-cache's own default is 60)"
            ),
        ),
        (
            ["-cache-size", "1KiB"],
            (
                "-cache-size: 1024 is out of range: give 1048576 to 68719476736 octets"
                " (memory of a node)"
            ),
        ),
        (["-cache-size", "1MB"], "-cache-size: '1MB' is no size: write one such as 64MiB or 1GiB"),
        (["-nxdomain-scope", "no"], "-nxdomain-scope: 'no' is none of cluster, all, none"),
        (
            ["-client-share", "0"],
            "-client-share: 0 is out of range: give 1 to 100 per cent (100 sets no limit)",
        ),
        (
            ["-max-inflight", "0"],
            "-max-inflight: 0 is out of range: give 1 to 1000000 exchanges (memory of a node)",
        ),
        (
            ["-metrics-listen-address", "9353"],
            "-metrics-listen-address: '9353' has no port: write IP:PORT or :PORT",
        ),
        (
            ["-cluster-domain", "a..b"],
            "-cluster-domain: a domain name has no empty label; remove the surplus dot",
        ),
        (
            ["-localip", ",".join(f"10.0.1.{n}" for n in range(101))],
            "-localip: give at most 100 addresses",
        ),
        (
            ["-upstreamsvc", "kube_dns"],
            "-upstreamsvc: 'kube_dns' is no name of a Service: write one such as kube-dns",
        ),
        (["-log-format", "xml"], "-log-format: 'xml' is none of text, json"),
        (["-watch=maybe"], "-watch: 'maybe' is neither true nor false"),
        (["-legacy-metrics=2"], "-legacy-metrics: '2' is neither true nor false"),
    ],
)
def test_fault_says_what_to_write(words: list[str], fault: str) -> None:
    assert faults_of(*words) == [f"command line: {fault}"]


def test_localip_is_required_once() -> None:
    for words in ([], ["-localip", ","]):
        _, faults = parse_flags([*READY[2:], *words])
        assert [fault.text for fault in faults] == [
            "-localip is missing: add for instance -localip 169.254.20.10"
        ]


def test_all_faults_come_together_and_good_flags_still_count() -> None:
    flags, faults = parse_flags(["-localip", "x", "-quiet", "-p=y", "-xyzzy", "z"])
    assert [fault.text for fault in faults] == [
        "-localip: 'x' is no IP address",
        "-p: 'y' is no whole number",
        "unknown flag '-xyzzy'; see -help",
    ]
    assert flags.quiet
    assert flags.dns_port == 53


@pytest.mark.parametrize("word", ["-help", "--help", "-h", "-version", "-plugins"])
def test_asking_for_information_needs_no_other_flag(word: str) -> None:
    flags, faults = parse_flags([word])
    assert faults == []
    assert flags.help or flags.version or flags.plugins


def test_help_shows_every_flag_with_meaning_and_default() -> None:
    lines = help_text().splitlines()
    for row in (row for rows in TABLE.values() for row in rows):
        index = next(i for i, line in enumerate(lines) if line.startswith(f"  -{row.names[0]}"))
        assert row.text in lines[index + 1]
        assert f"(default {row.default})" in lines[index + 1]
    assert max(map(len, lines)) <= 105


def test_table_and_values_name_the_same_fields() -> None:
    rows = [row.field for group in TABLE.values() for row in group]
    assert sorted(rows) == sorted(field.name for field in fields(Flags))


def test_examples_in_the_help_are_accepted() -> None:
    joined = help_text().replace("\\\n", " ")
    examples = [
        line.split()[1:] for line in joined.splitlines() if line.startswith("    nodecache")
    ]
    assert len(examples) == 2
    for words in examples:
        assert parse_flags(words)[1] == []


@given(st.lists(st.one_of(st.text(), st.sampled_from(["-p", "-conf", "-quiet", "=", "-", "--"]))))
def test_no_words_make_the_command_line_raise(words: list[str]) -> None:
    flags, faults = parse_flags(words)
    assert isinstance(flags, Flags)
    assert all(fault.file == "command line" for fault in faults)
