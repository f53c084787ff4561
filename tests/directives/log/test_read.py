from __future__ import annotations

from collections.abc import Callable

import pytest

from nodecache.config.model import ROOT
from nodecache.config.names import parse_name
from nodecache.directives.log.line_format import COMBINED, COMMON, PLACEHOLDERS, parse_template
from nodecache.directives.log.model import LOGS, LogClass, LogRule
from tests.config.conftest import ReadBlock

KNOWN = (
    "{type} {name} {class} {proto} {remote} {port} {local} {size} {duration} {rcode} {rsize}"
    " {>rflags} {>bufsize} {>do} {>id} {>opcode} {/log/class} {/log/type}"
    " {/forward/upstream} {common} {combined}"
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
]


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
    assert block_of(directive).of(LOGS) == (rule,)


def test_logs_keep_the_order_of_the_file(block_of: ReadBlock) -> None:
    logs = block_of("log b\nlog a {\nclass error\n}\nlog b").of(LOGS)
    assert [rule.zones[0].text for rule in logs] == ["b.", "a."]


@pytest.mark.parametrize("text", [*PLACEHOLDERS, '{"a": 1}', "{ }", "} {", "{{name}}", "{a b}"])
def test_templates_that_stay_as_they_are(text: str) -> None:
    assert parse_template(text) == text


@pytest.mark.parametrize(("directive", "fault"), FAULTS)
def test_fault(directive: str, fault: str, faults_of: Callable[[str], list[str]]) -> None:
    assert faults_of(directive) == [f"Corefile:{fault}"]


def test_logs_of_a_block_are_bounded(faults_of: Callable[[str], list[str]]) -> None:
    (fault,) = faults_of("\n".join(f"log z{n}" for n in range(1001)))
    assert fault.startswith("Corefile:1002:1: more than 1000 items are too many")
