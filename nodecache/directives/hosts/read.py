"""How ``hosts`` is written: options and entries in the braces, and the hosts file."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass, replace

from nodecache import limits
from nodecache.config.corefile import Directive
from nodecache.config.entries import (
    MAX_ENTRIES,
    check_reload,
    parse_address_octets,
    parse_host_name,
    read_file,
)
from nodecache.config.lexer import Word
from nodecache.config.model import ROOT, Name, ServerBlock
from nodecache.config.names import parse_name
from nodecache.config.reading import (
    MAX_ITEMS,
    Arguments,
    Option,
    Scope,
    parse_all_zones,
    read_options,
)
from nodecache.config.values import parse_integer, within
from nodecache.directives.hosts.model import HOSTS, HostsTable
from nodecache.printing import shown

USAGE = "hosts [FILE [ZONES...]]"

_ENTRY_USAGE = "IP NAME..."
_DEFAULT_FILE = "/etc/hosts"
# Only addresses that stand for "blocked" have more names, and nobody asks for those.
_MAX_NAMES_OF_ADDRESS = 100
_MAX_WARNINGS = 3


def read(directive: Directive, scope: Scope, draft: ServerBlock) -> ServerBlock:
    """Returns ``draft`` with the entries of the hosts file and of the braces.

    What the braces say of a name, or of an address, replaces what the file says of it. What is
    wrong in an entry is skipped with a warning.
    """
    arguments = Arguments(directive, USAGE, scope)
    file = arguments.take_word("") if arguments else None
    zones = parse_all_zones(arguments, arguments.rest()) or scope.zones
    entries = [child for child in directive.body or () if _is_entry(child)]
    others = tuple(child for child in directive.body or () if not _is_entry(child))
    draft_options = _Reading(HostsTable(zones))
    options = read_options(replace(directive, body=others), _OPTIONS, draft_options, scope)
    if options.table.passes_other_types and options.table.fallthrough is None:
        text = "'fallthrough_unsupported' needs 'fallthrough': add a line with it"
        scope.report.fault(directive.name, text)
    from_file, from_braces = _Entries(zones), _Entries(zones)
    path = _read_hosts_file(file, directive.name, from_file, scope)
    for entry in entries:
        _read_entry(entry, from_braces, scope)
    if from_file.count + from_braces.count > MAX_ENTRIES:
        text = f"more than {MAX_ENTRIES} entries are too many: leave some out"
        scope.report.fault(directive.name, text)
        return draft
    addresses = {**from_file.addresses, **from_braces.addresses}
    names = {**from_file.names, **from_braces.names} if options.has_reverse else {}
    table = replace(
        options.table,
        addresses=tuple((name, tuple(found)) for name, found in addresses.items()),
        names=tuple(_reverse_entries(names, directive.name, scope)),
        file=path,
        entries=sum(map(len, addresses.values())) + sum(map(len, names.values())),
    )
    return draft.having(HOSTS, table)


class _Entries:
    """What one source says: in the order of its lines, everything once."""

    def __init__(self, zones: tuple[Name, ...]) -> None:
        self.addresses: dict[bytes, dict[bytes, None]] = {}
        self.names: dict[bytes, dict[bytes, None]] = {}
        self.count = 0
        self._zones = {zone.wire for zone in zones}

    def add(self, address: bytes, name: bytes) -> None:
        """Adds a name that lies in the zones; wildcards have no way back.

        Raises ValueError for the 1001st address of a name: all must fit into one message.
        """
        if not self._holds(name):
            return
        self.count += 1
        if self.count > MAX_ENTRIES:
            return
        addresses = self.addresses.setdefault(name, {})
        if len(addresses) >= MAX_ITEMS:
            raise ValueError(f"one name has at most {MAX_ITEMS} addresses")
        addresses[address] = None
        if not name.startswith(b"\1*"):
            self.names.setdefault(address, {})[name] = None

    def _holds(self, name: bytes) -> bool:
        position = 0
        while name[position] and name[position:] not in self._zones:
            position += name[position] + 1
        return name[position:] in self._zones


def _is_entry(child: Directive) -> bool:
    """Whether a line in the braces is meant to be ``IP NAME...``."""
    text = child.name.text
    return text not in _OPTIONS and (text[:1].isdigit() or "." in text or ":" in text)


def _read_entry(entry: Directive, entries: _Entries, scope: Scope) -> None:
    arguments = Arguments(entry, _ENTRY_USAGE, scope)
    if entry.body is not None:
        arguments.fault(entry.name, "an entry takes no braces")
    fields = [entry.name.text, *(word.text for word in arguments.rest())]
    for trouble in _add_line(fields, entries):
        scope.report.warn(entry.name, f"{trouble}: it is skipped")


def _read_hosts_file(file: Word | None, place: Word, entries: _Entries, scope: Scope) -> str:
    """Adds the entries of the file, and returns its path; "" if there is none."""
    path = file.text if file else _DEFAULT_FILE
    if file is None and not scope.reader.exists(path) and scope.kept.recall(path) is None:
        return ""
    text = read_file(file or place, path, scope)
    if text is None:
        return ""
    troubles = 0
    for number, line in enumerate(text.split("\n"), 1):
        for trouble in _add_line(line.partition("#")[0].split(), entries):
            troubles += 1
            if troubles <= _MAX_WARNINGS:
                scope.report.warn(Word("", path, number, 1), f"{trouble}: it is skipped")
    if troubles > _MAX_WARNINGS:
        text = f"{troubles - _MAX_WARNINGS} more words or lines of {shown(path)} are skipped"
        scope.report.warn(file or place, text)
    return path


def _add_line(fields: list[str], entries: _Entries) -> Iterator[str]:
    """Adds what a line of a hosts file says; yields what is wrong with it."""
    if not fields:
        return
    try:
        address = parse_address_octets(fields[0])
    except ValueError as error:
        yield str(error)
        return
    if len(fields) == 1:
        yield f"{shown(fields[0])} has no name"
    for text in fields[1:]:
        try:
            entries.add(address, parse_host_name(text))
        except ValueError as error:
            yield f"{shown(text)} cannot be meant: {error}"


def _reverse_entries(
    names: dict[bytes, dict[bytes, None]], place: Word, scope: Scope
) -> Iterator[tuple[bytes, tuple[bytes, ...]]]:
    for octets, found in names.items():
        address = ipaddress.ip_address(octets)
        if len(found) > _MAX_NAMES_OF_ADDRESS:
            text = (
                f"{address} has more than {_MAX_NAMES_OF_ADDRESS} names: a PTR query finds the"
                " first ones; 'no_reverse' finds none of any address"
            )
            scope.report.warn(place, text)
        reverse = parse_name(address.reverse_pointer).wire
        yield reverse, tuple(found)[:_MAX_NAMES_OF_ADDRESS]


@dataclass(frozen=True, slots=True)
class _Reading:
    """What the options say so far."""

    table: HostsTable
    has_reverse: bool = True


def _read_ttl(arguments: Arguments, options: _Reading) -> _Reading:
    parse = within(parse_integer, limits.HOSTS_TTL_S)
    ttl_s = arguments.take("SECONDS", parse, options.table.ttl_s)
    arguments.ignore_rest()
    return replace(options, table=replace(options.table, ttl_s=ttl_s))


def _read_no_reverse(_arguments: Arguments, options: _Reading) -> _Reading:
    return replace(options, has_reverse=False)


def _read_reload(arguments: Arguments, options: _Reading) -> _Reading:
    check_reload(arguments)
    return options


def _read_fallthrough(arguments: Arguments, options: _Reading) -> _Reading:
    zones = parse_all_zones(arguments, arguments.rest()) or (ROOT,)
    return replace(options, table=replace(options.table, fallthrough=zones))


def _read_fallthrough_unsupported(_arguments: Arguments, options: _Reading) -> _Reading:
    return replace(options, table=replace(options.table, passes_other_types=True))


_OPTIONS = {
    "ttl": Option("ttl SECONDS", _read_ttl),
    "no_reverse": Option("no_reverse", _read_no_reverse),
    "reload": Option("reload DURATION", _read_reload),
    "fallthrough": Option("fallthrough [ZONES...]", _read_fallthrough),
    "fallthrough_unsupported": Option("fallthrough_unsupported", _read_fallthrough_unsupported),
}
