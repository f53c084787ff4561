"""The ``log`` directive: one line for each query, as CoreDNS writes it.

Everything is worked out from the octets of query and reply, none of which is trusted. A line
costs about 10 us in all, so only blocks with the directive pay for it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache, lru_cache

from nodecache.config.model import ServerBlock
from nodecache.directives.log.line_format import PLACEHOLDERS, split_template
from nodecache.directives.log.model import LOGS, LogClass, LogRule
from nodecache.resolve.before_cache import Directives
from nodecache.resolve.logged import LoggedQuery
from nodecache.wire.const import (
    EDNS_DO,
    HEADER,
    HEADER_OCTETS,
    MAX_MESSAGE_OCTETS,
    MIN_PAYLOAD_OCTETS,
    OPCODE_MASK,
    OPT_FIXED,
    RCODE_MASK,
)
from nodecache.wire.numbers import (
    NOERROR,
    NOTIMP,
    NXDOMAIN,
    SERVFAIL,
    TYPE_AXFR,
    TYPE_IXFR,
    TYPE_NS,
    TYPE_OPT,
    TYPE_SOA,
)
from nodecache.wire.query import is_below, name_end
from nodecache.wire.records import walk_records
from nodecache.wire.text import question_texts, rcode_text

logger = logging.getLogger("nodecache.query")

_NOTHING = "-"  # what CoreDNS writes for a value that there is not
_NO_QUESTION = (".", _NOTHING, _NOTHING)
_NO_RECORDS = b"\0\0\0\0\0\0"
_ROOT = b"\0"
_NOTIFY, _UPDATE = 4 << 11, 5 << 11
_FLAGS = (
    (0x8000, "qr"),
    (0x0400, "aa"),
    (0x0200, "tc"),
    (0x0100, "rd"),
    (0x0080, "ra"),
    (0x0040, "z"),
    (0x0020, "ad"),
    (0x0010, "cd"),
)
_FLAG_MASK = sum(mask for mask, _ in _FLAGS)

# What CoreDNS calls a response, in {/log/type} -> the class that it belongs to.
_CLASS_OF = {
    "NOERROR": LogClass.SUCCESS,
    "DELEGATION": LogClass.SUCCESS,
    "NXDOMAIN": LogClass.DENIAL,
    "NODATA": LogClass.DENIAL,
}


def before_cache(block: ServerBlock, parts: Directives, _random: Callable[[], float]) -> Directives:
    """Returns ``parts`` with the ``log`` of ``block``."""
    return parts._replace(log=QueryLog(block.of(LOGS)).note)


class QueryLog:
    """The ``log`` directives of one server block.

    Args:
        rules: In the order of the Corefile; the first whose zones hold the QNAME decides.
    """

    def __init__(self, rules: tuple[LogRule, ...]) -> None:
        self._rules = tuple(map(_Rule, rules))

    def note(self, entry: LoggedQuery) -> None:
        """Writes the line of one query if its rule wants it. Raises nothing."""
        facts = _Facts(entry)
        for rule in self._rules:
            if rule.is_about(facts.qname):
                if rule.wants_all or _CLASS_OF.get(facts.kind, LogClass.ERROR) in rule.classes:
                    _write(rule.text % tuple([value(facts) for value in rule.values]))
                return


def _write(line: str) -> None:
    """Logs a line; without the search for the caller, which would cost as much as the line."""
    if logger.isEnabledFor(logging.INFO):
        logger.handle(logging.LogRecord(logger.name, logging.INFO, "", 0, line, None, None))


class _Rule:
    """One rule with its template taken apart."""

    def __init__(self, rule: LogRule) -> None:
        pieces = split_template(rule.template)
        self.text = "".join(
            "%s" if piece in PLACEHOLDERS else piece.replace("%", "%%") for piece in pieces
        )
        self.values = tuple(_VALUES[piece] for piece in pieces if piece in PLACEHOLDERS)
        self.wants_all = LogClass.ALL in rule.classes
        self.classes = rule.classes
        self._zones = tuple(zone.wire for zone in rule.zones)

    def is_about(self, qname: bytes) -> bool:
        return any(zone == _ROOT or is_below(qname, zone) for zone in self._zones)


class _Facts:
    """What a line may say of one query.

    Attributes:
        entry: Query, reply and circumstances.
        qname: In wire format and lower case; the root when there is none.
        question: Name, type and class as text.
        dnssec_ok: DO of the query.
        payload_size: Octets that the reply may have, as CoreDNS works it out.
        flags: The reply's flag word, None without a reply.
        kind: What CoreDNS calls the response.
        rcode: With the upper bits from the OPT record; those of a reply with answers are not
            looked for, since none has any.
    """

    __slots__ = (
        "dnssec_ok",
        "entry",
        "flags",
        "kind",
        "payload_size",
        "qname",
        "question",
        "rcode",
    )

    def __init__(self, entry: LoggedQuery) -> None:
        self.entry = entry
        self.qname = _ROOT
        self.question = _NO_QUESTION
        self.dnssec_ok = False
        self.payload_size = MIN_PAYLOAD_OCTETS
        self.flags: int | None = None
        self.kind = "OTHERERROR"
        self.rcode = 0
        qtype = self._read_query(entry.query)
        if entry.proto == "tcp":
            self.payload_size = MAX_MESSAGE_OCTETS
        if len(entry.reply) >= HEADER_OCTETS:
            self._read_reply(entry.reply, qtype)

    def _read_query(self, octets: bytes) -> int:
        """Takes question and OPT record as far as they are sound; returns QTYPE, 0 if unknown."""
        end = name_end(octets, HEADER_OCTETS) if octets[4:6] == b"\0\1" else 0
        if not end or end + 4 > len(octets):
            return 0
        self.qname = octets[HEADER_OCTETS:end].lower()
        self.question = question_texts(self.qname + octets[end : end + 4])
        if octets[6:12] != _NO_RECORDS:
            for rtype, _, start, fixed, _ in _records(octets, end + 4):
                if rtype == TYPE_OPT and fixed == start + 1:
                    _, _, size, _, _, flags, _ = OPT_FIXED.unpack_from(octets, start)
                    self.dnssec_ok = bool(flags & EDNS_DO)
                    self.payload_size = max(size, MIN_PAYLOAD_OCTETS)
        return octets[end] << 8 | octets[end + 1]

    def _read_reply(self, octets: bytes, qtype: int) -> None:
        self.flags = octets[2] << 8 | octets[3]
        self.rcode = self.flags & RCODE_MASK
        has_answers = octets[6:8] != b"\0\0"
        types = set() if has_answers else self._read_records(octets)
        opcode = self.flags & OPCODE_MASK
        if opcode == _UPDATE:
            self.kind = "UPDATE"
        elif opcode == _NOTIFY or qtype in (TYPE_AXFR, TYPE_IXFR):
            self.kind = "META"
        elif has_answers and self.rcode in (NOERROR, NXDOMAIN):
            self.kind = "NOERROR" if self.rcode == NOERROR else "OTHERERROR"
        else:
            self.kind = _kind_of(self.rcode, types)

    def _read_records(self, octets: bytes) -> set[int]:
        """Takes the upper bits of the RCODE; returns the types in the authority section."""
        end = name_end(octets, HEADER_OCTETS) + 4 if octets[4:6] == b"\0\1" else HEADER_OCTETS
        records = _records(octets, end)
        for rtype, _, _, fixed, _ in records:
            if rtype == TYPE_OPT:
                self.rcode |= octets[fixed + 4] << 4
        authority = octets[8] << 8 | octets[9]
        return {record[0] for record in records[:authority]}


def _records(octets: bytes, start: int) -> list[tuple[int, int, int, int, int]]:
    """Returns the records of a message, none if one is broken."""
    _, _, _, ancount, nscount, arcount = HEADER.unpack_from(octets)
    return walk_records(octets, start, ancount + nscount + arcount) or []


def _kind_of(rcode: int, authority: set[int]) -> str:
    """Returns what CoreDNS calls a response by its RCODE, whose answers do not tell."""
    if rcode == NXDOMAIN:
        return "NXDOMAIN"
    if rcode in (SERVFAIL, NOTIMP):
        return "SERVERERROR"
    if rcode != NOERROR:
        return "OTHERERROR"
    if TYPE_SOA in authority:
        return "NODATA"
    return "DELEGATION" if TYPE_NS in authority else "NOERROR"


@cache  # of the 256 combinations
def _flags_text(flags: int) -> str:
    return ",".join(name for mask, name in _FLAGS if flags & mask)


@lru_cache(maxsize=64)
def _local(server: str) -> str:
    """Returns the address in a listener's label; one for all addresses has CoreDNS's "[::]"."""
    return server.rpartition("://")[2].rpartition(":")[0] or "[::]"


def _remote(facts: _Facts) -> str:
    host = facts.entry.remote.host
    return f"[{host}]" if ":" in host else host or _NOTHING


def _response_class(facts: _Facts) -> str:
    return _CLASS_OF.get(facts.kind, LogClass.ERROR).value


def _id(facts: _Facts) -> int:
    return int.from_bytes(facts.entry.query[:2], "big")


def _opcode(facts: _Facts) -> int:
    return facts.entry.query[2] >> 3 & 0xF if len(facts.entry.query) > 2 else 0


def _rcode(facts: _Facts) -> str:
    return _NOTHING if facts.flags is None else rcode_text(facts.rcode)


def _rflags(facts: _Facts) -> str:
    return _NOTHING if facts.flags is None else _flags_text(facts.flags & _FLAG_MASK)


_VALUES: dict[str, Callable[[_Facts], str | int]] = {
    "{name}": lambda facts: facts.question[0],
    "{type}": lambda facts: facts.question[1],
    "{class}": lambda facts: facts.question[2],
    "{proto}": lambda facts: facts.entry.proto,
    "{remote}": _remote,
    "{port}": lambda facts: facts.entry.remote.port,
    "{local}": lambda facts: _local(facts.entry.server),
    "{size}": lambda facts: len(facts.entry.query),
    "{duration}": lambda facts: f"{facts.entry.duration_s:.9f}s",
    "{rcode}": _rcode,
    "{rsize}": lambda facts: len(facts.entry.reply),
    "{>rflags}": _rflags,
    "{>bufsize}": lambda facts: facts.payload_size,
    "{>do}": lambda facts: "true" if facts.dnssec_ok else "false",
    "{>id}": _id,
    "{>opcode}": _opcode,
    "{/log/class}": _response_class,
    "{/log/type}": lambda facts: facts.kind,
    "{/forward/upstream}": lambda facts: facts.entry.upstream or _NOTHING,
}
