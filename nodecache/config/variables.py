"""The variables of node-cache's Corefile template, filled so that places stay known.

Everything goes line by line, so line numbers stay; columns of the filled text can be turned back
into those of the text that the user wrote. Knows what a variable stands for, reads no file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from nodecache.config.flags import Flags
from nodecache.config.lexer import MAX_TEXT_CHARACTERS, Report, split_lines
from nodecache.config.model import Address
from nodecache.config.resolvconf import is_own
from nodecache.config.service import find_service_ip, service_variable
from nodecache.config.stock.destinations import MISSING_SERVICE
from nodecache.config.values import nearest
from nodecache.errors import Fault
from nodecache.printing import shown

_MAX_VARIABLES = 10_000
_LOCAL_DNS = "__PILLAR__LOCAL__DNS__"
_CLUSTER_DNS = "__PILLAR__CLUSTER__DNS__"
_UPSTREAM_SERVERS = "__PILLAR__UPSTREAM__SERVERS__"
_DNS_SERVER = "__PILLAR__DNS__SERVER__"
_DNS_DOMAIN = "__PILLAR__DNS__DOMAIN__"
_ENDPOINT = "__PROMETHEUS__ENDPOINT__"
_KNOWN = (_LOCAL_DNS, _DNS_SERVER, _DNS_DOMAIN, _CLUSTER_DNS, _UPSTREAM_SERVERS, _ENDPOINT)
# Known ones whatever they are glued to. What stands for the Service in a filled text is filled
# again when that text is read.
_VARIABLE = re.compile(
    rf"{'|'.join(_KNOWN)}|{MISSING_SERVICE}[-a-z0-9]{{0,63}}"
    r"|__PILLAR__[A-Z_]{0,40}?__(?![A-Z_])"
)
# Comments, and what a '#' is part of: corefile.py cuts words in the same way.
_COMMENT = re.compile(r'(?P<comment>#[^\n]*)|"(?:[^"\\]|\\.)*+"|[^\s#]+', re.DOTALL)
_RESOLV_CONF = "/etc/resolv.conf"
_STAND_IN = "192.0.2.1"  # a documentation address, so that a line that lacks one still parses
_OMISSION = "# left out, since upstreamNameservers are asked over UDP: "


@dataclass(frozen=True, slots=True)
class Shift:
    """One variable of a line: both its ends in the template and in the filled text, from 0."""

    source_start: int
    source_end: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Filled:
    """A template with its variables filled.

    Attributes:
        text: What is parsed.
        faults: Unknown variables.
        warnings: One about the Service, if its address is unknown or our own.
        missing_service: Name of the Service that a variable waits for, "" for none.
    """

    text: str = ""
    faults: tuple[Fault, ...] = ()
    warnings: tuple[str, ...] = ()
    missing_service: str = ""
    shifts: Mapping[int, tuple[Shift, ...]] = field(default_factory=dict, repr=False)

    def source_column(self, line: int, column: int) -> int:
        """Returns the column in the template of a column in ``text``, both from 1.

        A column within a value becomes that of its variable.
        """
        offset = column - 1
        for shift in reversed(self.shifts.get(line, ())):
            if offset >= shift.end:
                return shift.source_end + offset - shift.end + 1
            if offset >= shift.start:
                return shift.source_start + 1
        return column


def fill_variables(
    source: str, path: str, flags: Flags, environ: Mapping[str, str], upstreams: tuple[str, ...]
) -> Filled:
    """Returns the template with every variable filled, also in comments.

    Args:
        source: The template; more than 1 Mi characters are left to the parser to refuse.
        path: Its file, for faults.
        flags: Own addresses, cluster domain, Service.
        environ: Holds the Service's address.
        upstreams: What __PILLAR__UPSTREAM__SERVERS__ stands for, none for /etc/resolv.conf. With
            some, ``force_tcp`` of a forward with that variable becomes a comment.
    """
    if len(source) > MAX_TEXT_CHARACTERS:
        return Filled(source)
    lines = source.split("\n")
    comments = _find_comments(source)
    if upstreams:
        for line, column in _find_force_tcp(source, path, environ).items():
            before, behind = lines[line - 1][: column - 1], lines[line - 1][column - 1 :]
            lines[line - 1] = f"{before}{_OMISSION}{behind}"
            comments[line] = column
    return _Filler(path, flags, environ, upstreams).fill(lines, comments)


def _find_comments(source: str) -> dict[int, int]:
    """Line -> column where its comment begins."""
    found: dict[int, int] = {}
    line, start = 1, 0
    for match in _COMMENT.finditer(source):
        if match["comment"] is None:
            continue
        line += source.count("\n", start, match.start())
        start = match.start()
        found[line] = start - source.rfind("\n", 0, start)
    return found


def _find_force_tcp(source: str, path: str, environ: Mapping[str, str]) -> dict[int, int]:
    """Line -> column of each ``force_tcp`` in the braces of a forward with the variable."""
    found: dict[int, int] = {}
    depth = 0
    for line in split_lines(source, path, environ, Report()):
        if depth == 1 and line[0].text == "force_tcp":
            found[line[0].line] = line[0].column
        if depth:
            depth += line[-1].opens() - line[0].closes()
        elif line[0].text == "forward" and line[-1].opens():
            depth = int(any(_UPSTREAM_SERVERS in word.text for word in line))
    return found


class _Filler:
    """One pass over the lines of one template."""

    def __init__(
        self, path: str, flags: Flags, environ: Mapping[str, str], upstreams: tuple[str, ...]
    ) -> None:
        self._path = path
        self._flags = flags
        self._environ = environ
        self._report = Report()
        self._warnings: list[str] = []
        self._missing = ""
        self._count = 0
        self._values = {
            _LOCAL_DNS: " ".join(flags.localip) or _STAND_IN,
            _DNS_SERVER: "",
            _DNS_DOMAIN: flags.cluster_domain.text.rstrip(".") or ".",
            _UPSTREAM_SERVERS: " ".join(upstreams) or _RESOLV_CONF,
            _ENDPOINT: flags.prometheus_listen,
        }

    def fill(self, lines: list[str], comments: Mapping[int, int]) -> Filled:
        """Returns the lines filled; ``comments`` is line -> column where its comment begins."""
        shifts: dict[int, tuple[Shift, ...]] = {}
        for number, text in enumerate(lines, 1):
            comment_at = comments.get(number, len(text) + 1)
            lines[number - 1], found = self._fill_line(text, number, comment_at)
            if found:
                shifts[number] = found
        faults, warnings = tuple(self._report.faults), tuple(self._warnings)
        return Filled("\n".join(lines), faults, warnings, self._missing, shifts)

    def _fill_line(self, text: str, line: int, comment_at: int) -> tuple[str, tuple[Shift, ...]]:
        parts: list[str] = []
        shifts: list[Shift] = []
        source_end = end = 0
        for match in _VARIABLE.finditer(text):
            before = text[source_end : match.start()]
            value = self._value(match, line, is_comment=match.start() >= comment_at - 1)
            start = end + len(before)
            source_end, end = match.end(), start + len(value)
            shifts.append(Shift(match.start(), source_end, start, end))
            parts += (before, value)
        return "".join(parts) + text[source_end:], tuple(shifts)

    def _value(self, match: re.Match[str], line: int, *, is_comment: bool) -> str:
        self._count += 1
        if self._count > _MAX_VARIABLES:
            self._report.fault_at(self._path, 0, 0, "more than 10,000 variables; write values")
            return match[0]
        name = match[0]
        if name == _CLUSTER_DNS or name.startswith(MISSING_SERVICE):
            return self._cluster_dns(match, line, is_comment=is_comment)
        if name == _LOCAL_DNS and _precedes_port(match) and self._flags.localip:
            return _before_port(self._flags.localip[0])
        if name in self._values or is_comment:
            return self._values.get(name, name)
        hint = nearest(name, _KNOWN)
        self._fault(match, line, f"there is no variable {name}{hint}")
        return _STAND_IN

    def _cluster_dns(self, match: re.Match[str], line: int, *, is_comment: bool) -> str:
        """The Service's address, or the word that stands for it as long as it is not known."""
        service = self._flags.upstreamsvc
        host = find_service_ip(service, self._environ)
        if not is_comment:
            self._check_service(match, line, service, host)
        if not service:
            return _STAND_IN
        if not host:
            return MISSING_SERVICE + service
        return _before_port(host) if _precedes_port(match) else host

    def _check_service(self, match: re.Match[str], line: int, service: str, host: str) -> None:
        if not service:
            text = f"{_CLUSTER_DNS} stands for no Service: give -upstreamsvc SERVICE, or an address"
            self._fault(match, line, text)
            return
        if not host:
            self._missing = service
        text = self._trouble_with_own(service, host) if host else self._trouble(service)
        if text and not self._warnings:  # the other places would say the same
            self._warnings.append(f"{self._path}:{line}:{match.start() + 1}: {text}")

    def _trouble(self, service: str) -> str:
        variable = service_variable(service)
        value = self._environ.get(variable, "")
        found = f"is {shown(value)}, no IP address" if value else "is not set"
        return (
            f"the Service {shown(service)} has no address: {variable} {found}; until it is found,"
            " queries for it are REFUSED: create it with a ClusterIP, name another one with"
            " -upstreamsvc, or write the address here"
        )

    def _trouble_with_own(self, service: str, host: str) -> str:
        port = self._flags.dns_port
        if not is_own(Address(host, port), (Address(own, port) for own in self._flags.localip)):
            return ""
        return (
            f"the Service {shown(service)} is at {host}, which is one of -localip: queries for it"
            " may come back here; name another one with -upstreamsvc, such as kube-dns-upstream"
        )

    def _fault(self, match: re.Match[str], line: int, text: str) -> None:
        self._report.fault_at(self._path, line, match.start() + 1, text)


def _precedes_port(match: re.Match[str]) -> bool:
    return match.string.startswith(":", match.end())


def _before_port(host: str) -> str:
    """The address as it stands in front of a colon and a port."""
    return f"[{host}]" if ":" in host else host
