"""The directives by which a block is watched, the small ones, and the faults of all of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from nodecache.config.model import ROOT, Address, Config, ServerBlock, Timeouts
from tests.config.conftest import ReadBlock


def test_without_directives_nothing_is_watched(block_of: ReadBlock) -> None:
    block = block_of("")
    assert (block.bufsize, block.timeouts, block.ready, block.settings) == (None, None, None, ())
    assert not block.is_debug


@pytest.mark.parametrize(
    ("directive", "address"),
    [
        ("ready", Address("", 8181)),
        ("ready localhost:8091", Address("127.0.0.1", 8091)),
        ("ready [::1]:8181 {\nmonitor continuously\n}", Address("::1", 8181)),
        ("ready {\nmonitor until-ready\n}", Address("", 8181)),
    ],
)
def test_ready(directive: str, address: Address, block_of: ReadBlock) -> None:
    assert block_of(directive).ready == address


@pytest.mark.parametrize(
    ("directive", "size"), [("bufsize", 1232), ("bufsize 512", 512), ("bufsize 4096", 4096)]
)
def test_bufsize(directive: str, size: int, block_of: ReadBlock) -> None:
    assert block_of(directive).bufsize == size


@pytest.mark.parametrize(
    ("options", "timeouts"),
    [
        ("read 1m", Timeouts(read_s=60.0)),
        ("read 1s\nwrite 24h\nidle 90s", Timeouts(1.0, 86_400.0, 90.0)),
        ("idle 10", Timeouts(idle_s=10.0)),
    ],
)
def test_timeouts(options: str, timeouts: Timeouts, block_of: ReadBlock) -> None:
    assert block_of(f"timeouts {{\n{options}\n}}").timeouts == timeouts


def test_debug(block_of: ReadBlock) -> None:
    assert block_of("debug").is_debug


@pytest.mark.parametrize("directive", ["reload", "reload 2s", "reload 10s 0", "reload 2s 1s"])
def test_reload_is_checked_and_changes_nothing(directive: str, block_of: ReadBlock) -> None:
    block = block_of(directive)
    assert block.directives == ("reload",)
    assert block == ServerBlock((ROOT,), 53, directives=("reload",), file="Corefile", line=1)


TIMEOUTS = "write 'timeouts { read|write|idle DURATION }'"
FAULTS = [
    (
        "bufsize 511",
        (
            "2:9: 511 is out of range: give 512 to 4096 octets (the bounds of CoreDNS);"
            " write 'bufsize [SIZE]'"
        ),
    ),
    ("bufsize 1k", "2:9: '1k' is no whole number; write 'bufsize [SIZE]'"),
    ("bufsize 512 1", "2:13: '1' is one argument too many; write 'bufsize [SIZE]'"),
    ("bufsize {\nx\n}", "3:1: 'bufsize' takes no options: remove the braces"),
    ("timeouts", f"2:1: 'timeouts' needs at least one option in its braces; {TIMEOUTS}"),
    ("timeouts {\n}", f"2:1: 'timeouts' needs at least one option in its braces; {TIMEOUTS}"),
    ("timeouts 5s {\nread 5s\n}", f"2:10: '5s' is one argument too many; {TIMEOUTS}"),
    (
        "timeouts {\nread 500ms\n}",
        (
            "3:6: 0.5 is out of range: give 1 to 86400 seconds (the bounds of CoreDNS);"
            " write 'read DURATION'"
        ),
    ),
    ("timeouts {\nwrite\n}", "3:1: 'write' needs a DURATION; write 'write DURATION'"),
    (
        "timeouts {\nidle soon\n}",
        "3:6: 'soon' is no duration: write one such as 500ms, 30s or 1h30m; write 'idle DURATION'",
    ),
    (
        "timeouts {\nmaxtcpqueries 128\n}",
        (
            "3:1: 'maxtcpqueries' has no place here: a connection may carry any number of queries;"
            " remove it"
        ),
    ),
    ("ready 8181", "2:7: '8181' has no port: write IP:PORT or :PORT; write 'ready [IP:PORT]'"),
    (
        "ready {\nmonitor always\n}",
        (
            "3:9: 'always' is none of until-ready, continuously;"
            " write 'monitor until-ready|continuously'"
        ),
    ),
    (
        "reload 1s",
        (
            "2:8: 1 is out of range: give 2 to 86400 seconds (CoreDNS's own least is 2 s);"
            " write 'reload [INTERVAL] [JITTER]'"
        ),
    ),
    (
        "reload 10s 500ms",
        (
            "2:12: 0.5 is out of range: give 1 to 86400 seconds (or 0; CoreDNS's own least is 1 s);"
            " write 'reload [INTERVAL] [JITTER]'"
        ),
    ),
    (
        "reload 30",
        "2:8: '30' has no unit: write 30s for seconds; write 'reload [INTERVAL] [JITTER]'",
    ),
    ("debug on", "2:7: 'on' is one argument too many; write 'debug'"),
    (
        "trace zipkin localhost:9411 {\nevery 100\n}",
        (
            "2:1: 'trace' would send spans to Zipkin or Datadog, which nodecache does not:"
            " remove it;"
            " 'log' writes each query with its duration, 'errors' each failure,"
            " and 'prometheus' shows durations by server, zone and upstream"
        ),
    ),
    (
        'errors {\nconsolidate 5m "(?=x)"\n}',
        (
            "3:16: '(?=x)' is no regular expression: '(?=' begins nothing that RE2 knows: no"
            " look-around and no back-reference; write 'consolidate DURATION REGEXP"
            " [warning|error|info|debug] [show_first]'"
        ),
    ),
    (
        "errors {\nconsolidate 5m \N{LATIN SMALL LETTER E WITH ACUTE}\n}",
        (
            "3:16: '\N{LATIN SMALL LETTER E WITH ACUTE}' holds more than ASCII, which no error text"
            " does; write 'consolidate DURATION REGEXP [warning|error|info|debug] [show_first]'"
        ),
    ),
    (
        "errors {\nconsolidate 5m x show_first warning\n}",
        (
            "3:29: 'warning' is one argument too many; write 'consolidate DURATION REGEXP"
            " [warning|error|info|debug] [show_first]'"
        ),
    ),
]


@pytest.mark.parametrize(("directive", "fault"), FAULTS)
def test_fault(directive: str, fault: str, faults_of: Callable[[str], list[str]]) -> None:
    assert faults_of(directive) == [f"Corefile:{fault}"]


@pytest.mark.parametrize(
    ("line", "data"),
    [("nsid", ""), ("nsid node-1", "node-1"), ("nsid Use The Force", "Use The Force")],
)
def test_nsid_is_what_is_written_or_left_to_the_host(
    block_of: ReadBlock, line: str, data: str
) -> None:
    assert block_of(line).nsid == data
    assert block_of("").nsid is None


def test_nsid_that_would_fill_a_reply_is_refused(faults_of: Callable[[str], list[str]]) -> None:
    assert faults_of(f"nsid {'x' * 255}") == []
    (fault,) = faults_of(f"nsid {'x' * 256}")
    assert "DATA has 256 octets: 255 are the most" in fault


def test_metrics_of_the_runtime_are_accepted_with_a_warning(
    configure: Callable[..., Config],
) -> None:
    config = configure(". {\n    prometheus {\n        runtime_metrics\n    }\n}\n")
    assert config.blocks[0].prometheus == Address("127.0.0.1", 9153)
    (warning,) = config.warnings
    assert "'runtime_metrics' has no effect" in warning
