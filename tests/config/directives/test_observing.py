"""The directives by which a block is watched, the small ones, and the faults of all of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from nodecache.config.directives.logformat import COMBINED, COMMON, PLACEHOLDERS, parse_template
from nodecache.config.model import ROOT, Address, Config, LogClass, LogRule, ServerBlock, Timeouts
from nodecache.config.names import parse_name

ReadBlock = Callable[[str], ServerBlock]


@pytest.fixture
def block_of(configure: Callable[..., Config]) -> ReadBlock:
    """Directives of one block -> that block, read without a warning."""

    def read(directives: str) -> ServerBlock:
        config = configure(f". {{\n{directives}\n}}\n")
        assert config.warnings == ()
        (block,) = config.blocks
        return block

    return read


@pytest.fixture
def faults_of(find_faults: Callable[..., list[str]]) -> Callable[[str], list[str]]:
    def find(directives: str) -> list[str]:
        return find_faults(f". {{\n{directives}\n}}\n")

    return find


def test_without_directives_nothing_is_watched(block_of: ReadBlock) -> None:
    block = block_of("")
    assert (block.logs, block.bufsize, block.timeouts, block.ready, block.pprof) == (
        (),
        None,
        None,
        None,
        None,
    )
    assert not block.is_debug
    assert not block.is_loop_checked


@pytest.mark.parametrize(
    ("directive", "rule"),
    [
        ("log", LogRule((ROOT,), COMMON)),
        ("log Example.ORG", LogRule((parse_name("example.org"),), COMMON)),
        ("log . {combined}", LogRule((ROOT,), COMBINED)),
        ("log {combined}", LogRule((ROOT,), COMBINED)),
        ('log . "{common} x"', LogRule((ROOT,), f"{COMMON} x")),
        (
            'log a b "{name} {>id} {/log/class}"',
            LogRule((parse_name("a"), parse_name("b")), "{name} {>id} {/log/class}"),
        ),
        (
            "log . {\nclass denial success\nclass error\n}",
            LogRule(
                (ROOT,), COMMON, frozenset((LogClass.DENIAL, LogClass.SUCCESS, LogClass.ERROR))
            ),
        ),
        ("log . {\n}", LogRule((ROOT,), COMMON, frozenset((LogClass.ALL,)))),
    ],
)
def test_log(directive: str, rule: LogRule, block_of: ReadBlock) -> None:
    assert block_of(directive).logs == (rule,)


def test_logs_keep_the_order_of_the_file(block_of: ReadBlock) -> None:
    logs = block_of("log b\nlog a {\nclass error\n}\nlog b").logs
    assert [rule.zones[0].text for rule in logs] == ["b.", "a."]


@pytest.mark.parametrize("text", [*PLACEHOLDERS, '{"a": 1}', "{ }", "} {", "{{name}}", "{a b}"])
def test_templates_that_stay_as_they_are(text: str) -> None:
    assert parse_template(text) == text


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
    ("directive", "address"),
    [("pprof", Address("127.0.0.1", 6053)), ("pprof :6060", Address("", 6060))],
)
def test_pprof(directive: str, address: Address, block_of: ReadBlock) -> None:
    assert block_of(directive).pprof == address


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


def test_debug_and_loop(block_of: ReadBlock) -> None:
    block = block_of("debug\nloop")
    assert (block.is_debug, block.is_loop_checked) == (True, True)


@pytest.mark.parametrize("directive", ["reload", "reload 2s", "reload 10s 0", "reload 2s 1s"])
def test_reload_is_checked_and_changes_nothing(directive: str, block_of: ReadBlock) -> None:
    block = block_of(directive)
    assert block.directives == ("reload",)
    assert block == ServerBlock((ROOT,), 53, directives=("reload",), file="Corefile", line=1)


TIMEOUTS = "write 'timeouts { read|write|idle DURATION }'"
KNOWN = (
    "{type} {name} {class} {proto} {remote} {port} {local} {size} {duration} {rcode} {rsize}"
    " {>rflags} {>bufsize} {>do} {>id} {>opcode} {/log/class} {/log/type} {common} {combined}"
)

FAULTS = [
    (
        'log . "{nme}"',
        (
            "2:7: there is no placeholder '{nme}'; did you mean '{name}'?; there are"
            f" {KNOWN}; write 'log [NAMES...] [FORMAT]'"
        ),
    ),
    (
        'log . "{/trace/traceid}"',
        (
            "2:7: there is no placeholder '{/trace/traceid}'; there are"
            f" {KNOWN}; write 'log [NAMES...] [FORMAT]'"
        ),
    ),
    (
        'log . "no placeholder"',
        (
            "2:7: a domain name holds no blanks and no control characters;"
            " write 'log [NAMES...] [FORMAT]'"
        ),
    ),
    (
        "log {\nclass\n}",
        "3:1: 'class' needs a CLASS; write 'class all|success|denial|error...'",
    ),
    (
        "log {\nclass denied\n}",
        (
            "3:7: 'denied' is none of all, success, denial, error;"
            " write 'class all|success|denial|error...'"
        ),
    ),
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
    (
        "pprof {\nblock 1\n}",
        (
            "3:1: 'block' profiles goroutines, of which there are none here: remove it;"
            " /debug/pprof/tasks shows what waits, and where"
        ),
    ),
    ("debug on", "2:7: 'on' is one argument too many; write 'debug'"),
    ("loop {\nx\n}", "3:1: 'loop' takes no options: remove the braces"),
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


def test_logs_of_a_block_are_bounded(faults_of: Callable[[str], list[str]]) -> None:
    (fault,) = faults_of("\n".join(f"log z{n}" for n in range(1001)))
    assert fault.startswith("Corefile:1002:1: more than 1000 items are too many")
