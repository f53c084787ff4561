"""What ``dns64`` and ``loadbalance`` make of the Corefile and of the weight file."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodecache.config.corefile import Reader, parse_corefile
from nodecache.config.lexer import Report
from nodecache.config.model import ROOT, ServerBlock
from nodecache.config.names import parse_name
from nodecache.config.reading import Scope
from nodecache.directives.loadbalance.model import LOADBALANCE, LoadBalance
from nodecache.directives.loadbalance.read import read as read_loadbalance

Files = Mapping[str, str | Exception]


@dataclass(frozen=True)
class Outcome:
    """What reading one directive led to."""

    block: ServerBlock
    faults: list[str]
    warnings: list[str]

    def weights(self) -> dict[str, dict[str, int]]:
        policy = self.block.of(LOADBALANCE)
        assert policy is not None
        return {
            name: {str(ipaddress.ip_address(octets)): weight for octets, weight in found}
            for name in ("web.test", "api.test")
            for wire, found in policy.weights
            if wire == parse_name(name).wire
        }


Read = Callable[..., Outcome]


def read_with(reader: Reader, text: str, folder: str = "") -> Outcome:
    report = Report()
    path = f"{folder}Corefile"
    (block,) = parse_corefile(f".:53 {{\n{text}\n}}\n", path, {}, reader, report)
    (directive,) = block.directives
    scope = Scope(report, reader, zones=(ROOT,))
    draft = read_loadbalance(directive, scope, ServerBlock((ROOT,), 53))
    return Outcome(draft, [str(fault) for fault in report.faults], report.warnings)


@pytest.fixture
def read(make_reader: Callable[[Files], Reader]) -> Read:
    """A directive with its braces -> what it means."""

    def read_one(text: str, files: Files | None = None, folder: str = "") -> Outcome:
        return read_with(make_reader(files or {}), text, folder)

    return read_one


WEIGHTS = """
# two services
web.test
10.0.0.1 3
  10.0.0.2   200
2001:db8::2 2

API.test.
10.0.1.1 1
web.test
10.0.0.9 255
10.0.0.1 7
"""


def test_loadbalance_is_round_robin(read: Read) -> None:
    assert read("loadbalance").block.of(LOADBALANCE) == LoadBalance()
    assert read("loadbalance round_robin").block.of(LOADBALANCE) == LoadBalance()


def test_weights_are_read_by_name(read: Read) -> None:
    found = read("loadbalance weighted w {\nreload 10s\n}", {"w": WEIGHTS})
    policy = found.block.of(LOADBALANCE)
    assert policy is not None
    assert policy.is_weighted
    assert found.weights() == {
        "web.test": {"10.0.0.1": 3, "10.0.0.2": 200, "2001:db8::2": 2, "10.0.0.9": 255},
        "api.test": {"10.0.1.1": 1},
    }
    assert (found.faults, found.warnings) == ([], [])


def test_weight_file_is_sought_from_the_working_directory(read: Read) -> None:
    files = {"web.weights": WEIGHTS, "/etc/coredns/web.weights": "nonsense"}
    found = read("loadbalance weighted web.weights", files, folder="/etc/coredns/")
    assert found.weights()["api.test"] == {"10.0.1.1": 1}


def test_missing_weight_file_is_a_warning(read: Read) -> None:
    found = read("loadbalance weighted gone")
    assert found.block.of(LOADBALANCE) == LoadBalance(is_weighted=True)
    assert found.faults == []
    assert found.warnings == [
        "Corefile:2:22: cannot read 'gone' yet: No such file or directory",
    ]


def test_preferred_networks_keep_their_order(read: Read) -> None:
    text = "{\nprefer 10.9.8.7/24 192.168.0.0/16\nprefer 2001:db8::/32 10.9.8.0/24\nreload 1m\n}"
    networks = ("10.9.8.0/24", "192.168.0.0/16", "2001:db8::/32")
    assert read(f"loadbalance {text}").block.of(LOADBALANCE) == LoadBalance(prefer=networks)
    weighted = read(f"loadbalance weighted w {text}", {"w": ""}).block.of(LOADBALANCE)
    assert weighted == LoadBalance(is_weighted=True, prefer=networks)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (
            "loadbalance least",
            (
                "Corefile:2:13: 'least' is none of round_robin, weighted;"
                " write 'loadbalance [round_robin|weighted WEIGHTFILE]'"
            ),
        ),
        (
            "loadbalance round_robin w",
            (
                "Corefile:2:25: 'w' is one argument too many;"
                " write 'loadbalance [round_robin|weighted WEIGHTFILE]'"
            ),
        ),
        (
            "loadbalance weighted",
            (
                "Corefile:2:1: 'loadbalance' needs a WEIGHTFILE;"
                " write 'loadbalance [round_robin|weighted WEIGHTFILE]'"
            ),
        ),
        (
            "loadbalance {\nprefer\n}",
            "Corefile:3:1: 'prefer' needs a CIDR such as 10.0.0.0/8; write 'prefer CIDR...'",
        ),
        (
            "loadbalance {\nprefer 10.0.0.0/33\n}",
            "Corefile:3:8: '10.0.0.0/33' is no network such as 10.0.0.0/8; write 'prefer CIDR...'",
        ),
        (
            "loadbalance {\nprefer 10.0.0.1\n}",
            "Corefile:3:8: '10.0.0.1' is no network such as 10.0.0.0/8; write 'prefer CIDR...'",
        ),
        (
            "loadbalance {\nreload soon\n}",
            (
                "Corefile:3:8: 'soon' is no duration: write one such as 500ms, 30s or 1h30m;"
                " write 'reload DURATION'"
            ),
        ),
        (
            "loadbalance {\nweights w\n}",
            "Corefile:3:1: 'loadbalance' has no option 'weights'; there are: reload, prefer",
        ),
    ],
)
def test_bad_loadbalance_is_a_fault(read: Read, text: str, fault: str) -> None:
    assert read(text).faults == [fault]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("10.0.0.1 3", "w:1:1: a name must stand above the first address"),
        ("web.test\n10.0.0.1", "w:2:1: '10.0.0.1' lacks its weight"),
        ("web.test\n10.0.0.x 3", "w:2:1: '10.0.0.x' is no IP address"),
        (
            "web.test\n10.0.0.1 0",
            "w:2:1: 0 is out of range: give 1 to 255 as a weight (the bounds of CoreDNS)",
        ),
        ("web.test\n10.0.0.1 many", "w:2:1: 'many' is no whole number"),
        ("web.test\n10.0.0.1 3 # heavy", "w:2:1: '#' is one word too many"),
        ("web..test", "w:1:1: a domain name has no empty label; remove the surplus dot"),
    ],
)
def test_bad_weight_is_a_fault_in_its_file(read: Read, content: str, fault: str) -> None:
    found = read("loadbalance weighted w", {"w": content})
    assert found.faults == [f"{fault}; write 'NAME' or 'IP WEIGHT'"]


def test_lines_of_a_weight_file_are_bounded(read: Read) -> None:
    found = read("loadbalance weighted w", {"w": "a\n" * 100_001})
    assert found.faults == ["w:100001:1: more than 100000 lines are too many"]


@given(st.text("ab.1: 2#\n\r\0\u2028", max_size=60) | st.text(max_size=60))
def test_any_text_is_read_as_weights_or_faulted_in_place(text: str) -> None:
    class Found:
        def read_text(self, _path: str) -> str:
            return text

        def glob(self, _pattern: str) -> list[str]:
            return []

        def exists(self, _path: str) -> bool:
            return True

    found = read_with(Found(), "loadbalance weighted w")
    assert found.block.of(LOADBALANCE) is not None
    assert all(fault.startswith("w:") for fault in found.faults)
