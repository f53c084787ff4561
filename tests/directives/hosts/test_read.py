"""What ``hosts`` and ``whoami`` make of the Corefile and of the hosts file."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import dns.name
import dns.reversename
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodecache.config.corefile import Reader, parse_corefile
from nodecache.config.entries import MAX_ENTRIES
from nodecache.config.lexer import Report
from nodecache.config.model import ROOT, ServerBlock
from nodecache.config.names import parse_name
from nodecache.config.reading import Scope
from nodecache.directives.hosts.model import HOSTS, HostsTable
from nodecache.directives.hosts.read import read as read_hosts

Files = Mapping[str, str | Exception]


@dataclass(frozen=True)
class Outcome:
    """What reading one directive led to."""

    table: HostsTable
    faults: list[str]
    warnings: list[str]

    def addresses(self, name: str) -> list[str]:
        found = dict(self.table.addresses).get(wire(name), ())
        return [str(ipaddress.ip_address(octets)) for octets in found]

    def names(self, address: str) -> list[str]:
        reverse = dns.reversename.from_address(address).to_wire()
        assert reverse is not None
        found = dict(self.table.names).get(reverse, ())
        return [dns.name.from_wire(octets, 0)[0].to_text() for octets in found]


Read = Callable[..., Outcome]


def wire(name: str) -> bytes:
    octets = dns.name.from_text(name).to_wire()
    assert octets is not None
    return octets


@pytest.fixture
def read(make_reader: Callable[[Files], Reader]) -> Read:
    """A directive with its braces -> what it means in a block for ``zones``."""

    def read_one(
        text: str, files: Files | None = None, zones: tuple[str, ...] = (".",), folder: str = ""
    ) -> Outcome:
        report, reader = Report(), make_reader(files or {})
        path = f"{folder}Corefile"
        (block,) = parse_corefile(f".:53 {{\n{text}\n}}\n", path, {}, reader, report)
        (directive,) = block.directives
        scope = Scope(report, reader, zones=tuple(map(parse_name, zones)))
        draft = read_hosts(directive, scope, ServerBlock((ROOT,), 53))
        faults = [str(fault) for fault in report.faults]
        table = draft.of(HOSTS) or HostsTable(())
        return Outcome(table, faults, report.warnings)

    return read_one


def test_entries_of_a_file_give_both_directions(read: Read) -> None:
    text = (
        "# machines of this site\n"
        "10.1.2.3 db.site.test db # two names\n"
        "\n"
        "2001:db8::17\tdb.site.test\r\n"
    )
    found = read("hosts /srv/names", {"/srv/names": text})
    assert found.addresses("db.site.test.") == ["10.1.2.3", "2001:db8::17"]
    assert found.addresses("db.") == ["10.1.2.3"]
    assert found.names("10.1.2.3") == ["db.site.test.", "db."]
    assert found.names("2001:db8::17") == ["db.site.test."]
    assert (found.faults, found.warnings) == ([], [])
    assert (found.table.file, found.table.entries, found.table.ttl_s) == ("/srv/names", 6, 3600)
    assert found.table.zones == (ROOT,)
    assert found.table.fallthrough is None


def test_etc_hosts_is_read_when_no_file_is_named_even_beside_entries_of_its_own(
    read: Read,
) -> None:
    found = read("hosts {\n10.0.0.9 own.test\n}", {"/etc/hosts": "127.0.0.1 localhost\n"})
    assert found.addresses("localhost.") == ["127.0.0.1"]
    assert found.addresses("own.test.") == ["10.0.0.9"]
    assert found.table.file == "/etc/hosts"


def test_missing_etc_hosts_is_no_trouble(read: Read) -> None:
    found = read("hosts {\n10.0.0.9 own.test\n}")
    assert found.addresses("own.test.") == ["10.0.0.9"]
    assert (found.faults, found.warnings, found.table.file) == ([], [], "")


def test_file_is_sought_from_the_working_directory(read: Read) -> None:
    files = {"site.hosts": "10.0.0.1 a.test", "/etc/coredns/site.hosts": "10.0.0.2 a.test"}
    found = read("hosts site.hosts", files, folder="/etc/coredns/")
    assert (found.addresses("a.test."), found.warnings) == (["10.0.0.1"], [])


def test_file_that_lies_beside_the_corefile_alone_is_named(read: Read) -> None:
    files = {"/etc/coredns/site.hosts": "10.0.0.2 a.test"}
    found = read("hosts site.hosts", files, folder="/etc/coredns/")
    assert found.addresses("a.test.") == []
    assert found.warnings == [
        (
            "/etc/coredns/Corefile:2:7: cannot read 'site.hosts' yet: No such file or directory;"
            " relative paths begin at the working directory: for the one beside"
            " '/etc/coredns/Corefile' write '/etc/coredns/site.hosts'"
        )
    ]


def test_what_stands_behind_the_ttl_has_no_effect_as_in_coredns(read: Read) -> None:
    found = read("hosts {\nttl 5 6\n}")
    assert (found.table.ttl_s, found.faults) == (5, [])
    assert found.warnings == ["Corefile:3:7: '6' has no effect: write 'ttl SECONDS'"]


@pytest.mark.parametrize(
    "error",
    [FileNotFoundError(2, "No such file or directory"), IsADirectoryError(21, "Is a directory")],
)
def test_missing_file_is_a_warning(read: Read, error: OSError) -> None:
    found = read("hosts gone {\n10.0.0.1 a.test\n}", {"gone": error})
    assert found.addresses("a.test.") == ["10.0.0.1"]
    assert found.faults == []
    assert found.warnings == [f"Corefile:2:7: cannot read 'gone' yet: {error.strerror}"]


def test_unreadable_file_is_a_fault_so_that_a_reload_does_not_lose_its_entries(read: Read) -> None:
    assert read("hosts kept", {"kept": PermissionError(13, "Permission denied")}).faults == [
        "Corefile:2:7: cannot read 'kept': Permission denied"
    ]


def test_too_long_file_is_a_fault(read: Read) -> None:
    assert read("hosts long", {"long": "#" * (1024 * 1024 + 1)}).faults == [
        "Corefile:2:7: 'long' is longer than 1 MiB: leave something out"
    ]


def test_bad_lines_of_a_file_are_skipped_with_few_warnings(read: Read) -> None:
    lines = ["10.0.0 short", "10.0.0.1", "10.0.0.2 good b..d", "host 10.0.0.3", "256.1.1.1 x"]
    found = read("hosts mixed", {"mixed": "\n".join(lines)})
    assert found.addresses("good.") == ["10.0.0.2"]
    assert found.table.entries == 2
    assert found.faults == []
    assert found.warnings == [
        "mixed:1:1: '10.0.0' is no IP address: it is skipped",
        "mixed:2:1: '10.0.0.1' has no name: it is skipped",
        (
            "mixed:3:1: 'b..d' cannot be meant: a domain name has no empty label;"
            " remove the surplus dot: it is skipped"
        ),
        "Corefile:2:7: 2 more words or lines of 'mixed' are skipped",
    ]


@pytest.mark.parametrize(
    ("entry", "trouble"),
    [
        ("10.0.0 a.test", "'10.0.0' is no IP address"),
        ("10.0.0.1", "'10.0.0.1' has no name"),
        ("db.test 10.0.0.1", "'db.test' is no IP address"),
        ("::g a.test", "'::g' is no IP address"),
        (
            "10.0.0.1 a..test",
            "'a..test' cannot be meant: a domain name has no empty label; remove the surplus dot",
        ),
    ],
)
def test_bad_entry_in_the_braces_is_skipped_as_in_coredns(
    read: Read, entry: str, trouble: str
) -> None:
    found = read(f"hosts {{\n{entry}\n10.0.0.9 good.test\n}}")
    assert found.addresses("good.test.") == ["10.0.0.9"]
    assert found.faults == []
    assert found.warnings == [f"Corefile:3:1: {trouble}: it is skipped"]


def test_entry_with_braces_is_a_fault(read: Read) -> None:
    assert read("hosts {\n10.0.0.1 a.test {\n}\n}").faults == [
        "Corefile:3:1: an entry takes no braces; write 'IP NAME...'"
    ]


def test_entry_in_the_braces_replaces_what_the_file_says_of_its_name_or_address(
    read: Read,
) -> None:
    file = "10.0.0.1 db.test\n2001:db8::1 db.test\n10.0.0.2 old.test\n10.0.0.3 other.test\n"
    found = read("hosts file {\n10.0.0.2 db.test\n}", {"file": file})
    assert found.addresses("db.test.") == ["10.0.0.2"]
    assert found.addresses("other.test.") == ["10.0.0.3"]
    assert found.names("10.0.0.2") == ["db.test."]
    assert found.names("10.0.0.1") == ["db.test."]


def test_entries_may_stand_around_the_options(read: Read) -> None:
    found = read("hosts {\n10.0.0.1 a.test\nttl 60\nfallthrough\n10.0.0.2 a.test\n}")
    assert found.addresses("a.test.") == ["10.0.0.1", "10.0.0.2"]
    assert found.table.ttl_s == 60


def test_names_outside_of_the_zones_are_left_out(read: Read) -> None:
    file = "10.0.0.1 a.one.test one.test xone.test two.test\n"
    named = read("hosts file one.test", {"file": file})
    assert [name for name, _ in named.table.addresses] == [wire("a.one.test."), wire("one.test.")]
    assert named.names("10.0.0.1") == ["a.one.test.", "one.test."]
    inherited = read("hosts file", {"file": file}, zones=("two.test",))
    assert [name for name, _ in inherited.table.addresses] == [wire("two.test.")]
    assert inherited.table.zones == (parse_name("two.test"),)


def test_addresses_and_names_are_kept_once_and_in_one_form(read: Read) -> None:
    text = "10.0.0.1 A.test\n10.0.0.1 a.test.\n::ffff:10.0.0.1 a.test\nfe80::1%eth0 a.test\n"
    found = read("hosts file", {"file": text})
    assert found.addresses("a.test.") == ["10.0.0.1", "fe80::1"]
    assert found.names("10.0.0.1") == ["a.test."]


def test_wildcards_have_no_reverse_entry(read: Read) -> None:
    found = read("hosts {\n10.0.0.1 *.apps.test\n}")
    assert found.addresses("*.apps.test.") == ["10.0.0.1"]
    assert found.table.names == ()


def test_no_reverse_leaves_all_reverse_entries_out(read: Read) -> None:
    found = read("hosts {\n10.0.0.1 a.test\nno_reverse\n}")
    assert found.addresses("a.test.") == ["10.0.0.1"]
    assert (found.table.names, found.table.entries) == ((), 1)


def test_fallthrough_is_for_all_zones_or_for_those_named(read: Read) -> None:
    assert read("hosts {\nfallthrough\n}").table.fallthrough == (ROOT,)
    some = read("hosts {\nfallthrough a.test 10.0.0.0/8\n}").table
    assert some.fallthrough == (parse_name("a.test"), parse_name("10.in-addr.arpa"))
    others = read("hosts {\nfallthrough\nfallthrough_unsupported\n}").table
    assert others.passes_other_types
    assert not some.passes_other_types


def test_reload_is_accepted_and_zero_is_a_warning(read: Read) -> None:
    assert read("hosts {\nreload 1m30s\n}").warnings == []
    assert read("hosts {\nreload 0\n}").warnings == [
        "Corefile:3:1: 'reload 0' has no effect: a change of the file is noticed at once"
    ]


@pytest.mark.parametrize(
    ("option", "fault"),
    [
        (
            "ttl 0",
            (
                "Corefile:3:5: 0 is out of range: give 1 to 65535 seconds (the bounds of CoreDNS);"
                " write 'ttl SECONDS'"
            ),
        ),
        ("ttl", "Corefile:3:1: 'ttl' needs SECONDS; write 'ttl SECONDS'"),
        ("ttl 5m", "Corefile:3:5: '5m' is no whole number; write 'ttl SECONDS'"),
        (
            "reload 30",
            "Corefile:3:8: '30' has no unit: write 30s for seconds; write 'reload DURATION'",
        ),
        (
            "reload -1s",
            (
                "Corefile:3:8: -1 is out of range: give 0 to 604800 seconds"
                " (files are watched anyway); write 'reload DURATION'"
            ),
        ),
        (
            "no_reverse yes",
            "Corefile:3:12: 'yes' is one argument too many; write 'no_reverse'",
        ),
        (
            "falthrough",
            "Corefile:3:1: 'hosts' has no option 'falthrough'; did you mean 'fallthrough'?",
        ),
        (
            "cache 30",
            (
                "Corefile:3:1: 'hosts' has no option 'cache'; there are: ttl, no_reverse, reload,"
                " fallthrough, fallthrough_unsupported"
            ),
        ),
        (
            "fallthrough_unsupported",
            "Corefile:2:1: 'fallthrough_unsupported' needs 'fallthrough': add a line with it",
        ),
    ],
)
def test_bad_option_is_a_fault(read: Read, option: str, fault: str) -> None:
    assert read(f"hosts {{\n{option}\n}}").faults == [fault]


def test_bad_zone_is_a_fault(read: Read) -> None:
    assert read("hosts file a..b", {"file": ""}).faults == [
        (
            "Corefile:2:12: a domain name has no empty label; remove the surplus dot;"
            " write 'hosts [FILE [ZONES...]]'"
        )
    ]


def test_entries_are_bounded(read: Read) -> None:
    names = " ".join(f"n{n}" for n in range(MAX_ENTRIES // 2))
    found = read("hosts file", {"file": f"::1 {names}\n::2 {names}"})
    assert found.faults == []
    found = read("hosts file", {"file": f"::1 {names}\n::2 {names}\n::3 a"})
    assert found.faults == ["Corefile:2:1: more than 100000 entries are too many: leave some out"]


def test_addresses_of_one_name_are_bounded(read: Read) -> None:
    lines = [f"10.0.{n // 250}.{n % 250} many.test" for n in range(1001)]
    found = read("hosts file", {"file": "\n".join(lines)})
    assert len(found.addresses("many.test.")) == 1000
    assert found.warnings == [
        (
            "file:1001:1: 'many.test' cannot be meant: one name has at most 1000 addresses:"
            " it is skipped"
        )
    ]


def test_names_of_one_address_are_bounded_in_the_reverse_direction(read: Read) -> None:
    lines = [f"0.0.0.0 blocked{n}.test" for n in range(101)]
    found = read("hosts file", {"file": "\n".join(lines)})
    assert found.addresses("blocked100.test.") == ["0.0.0.0"]
    assert len(found.names("0.0.0.0")) == 100
    assert found.warnings == [
        (
            "Corefile:2:1: 0.0.0.0 has more than 100 names: a PTR query finds the first ones;"
            " 'no_reverse' finds none of any address"
        )
    ]


@given(st.text(max_size=80))
def test_any_text_is_a_hosts_file(text: str) -> None:
    class Found:
        def read_text(self, _path: str) -> str:
            return text

        def glob(self, _pattern: str) -> list[str]:
            return []

        def exists(self, _path: str) -> bool:
            return True

    report = Report()
    (block,) = parse_corefile(".:53 {\nhosts\n}", "Corefile", {}, Found(), report)
    scope = Scope(report, Found(), zones=(ROOT,))
    draft = read_hosts(block.directives[0], scope, ServerBlock((ROOT,), 53))
    assert draft.of(HOSTS) is not None
    assert report.faults == []
