"""Names, queries, responses and mutated messages for Hypothesis, all in wire format.

Messages are put together here octet by octet, by neither the code under test nor dnspython.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from hypothesis import strategies as st

OPT = 41
TYPES = (1, 2, 5, 6, 12, 15, 16, 28, 33, 35, 43, 46, 47, 64, 65, 255, 257, 65280)
U16 = st.integers(0, 0xFFFF)
TTLS = st.one_of(st.integers(0, 7200), st.integers(0, 0xFFFFFFFF))

_LETTERS = st.sampled_from(b"abcxyzABCXYZ019-_")
_LABELS = st.one_of(
    st.lists(_LETTERS, min_size=1, max_size=12).map(bytes),
    st.lists(_LETTERS, min_size=1, max_size=63).map(bytes),
    st.binary(min_size=1, max_size=63),
)


def wire_name(labels: list[bytes]) -> bytes:
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def _shortened(labels: list[bytes]) -> bytes:
    """As many of the labels as 255 octets hold."""
    while len(wire_name(labels)) > 255:
        labels = labels[1:]
    return wire_name(labels)


def names() -> st.SearchStrategy[bytes]:
    """Uncompressed names of 1 to 255 octets, in any case, with any octets."""
    return st.lists(_LABELS, max_size=8).map(_shortened)


def qtypes() -> st.SearchStrategy[int]:
    return st.one_of(st.sampled_from(TYPES), U16)


def _option(code: int, content: bytes) -> bytes:
    return struct.pack("!HH", code, len(content)) + content


_OPTIONS = st.lists(
    st.builds(
        # Codes that dnspython keeps opaque, those for local use: the ones it knows are checked more
        # strictly, and each release knows more of them.
        _option,
        st.integers(65001, 0xFFFF),
        st.binary(max_size=20),
    )
    | st.just(_option(10, b"8 octets"))
    | st.just(_option(8, b"\0\1\x18\0\x0a\0\0")),
    max_size=3,
).map(b"".join)


def opts(*, version: int = 0) -> st.SearchStrategy[bytes]:
    """OPT records; upper RCODE bits are 0."""
    return st.builds(
        lambda size, flags, options: (
            struct.pack("!BHHBBHH", 0, OPT, size, 0, version, flags, len(options)) + options
        ),
        U16,
        st.sampled_from([0, 0x8000, 0x7FFF, 0xFFFF]),
        _OPTIONS,
    )


@dataclass(frozen=True)
class MadeQuery:
    """A sound query and what it was made of."""

    ident: int
    flags: int
    qname: bytes
    qtype: int
    qclass: int
    opt: bytes

    @property
    def question(self) -> bytes:
        return self.qname + struct.pack("!HH", self.qtype, self.qclass)

    @property
    def octets(self) -> bytes:
        counts = (1, 0, 0, bool(self.opt))
        return struct.pack("!6H", self.ident, self.flags, *counts) + self.question + self.opt


def queries() -> st.SearchStrategy[MadeQuery]:
    """Sound queries that may be looked up: QR 0, opcode QUERY, no zone transfer."""
    return st.builds(
        MadeQuery,
        U16,
        U16.map(lambda word: word & 0x07FF),
        names(),
        qtypes().filter(lambda qtype: qtype not in (251, 252)),
        st.one_of(st.just(1), U16),
        st.one_of(st.just(b""), opts()),
    )


@dataclass(frozen=True)
class MadeRecord:
    """A record; ``owner`` may end in a pointer to the question."""

    owner: bytes
    rtype: int
    ttl: int
    rdata: bytes

    def octets(self, ttl: int | None = None) -> bytes:
        fixed = struct.pack(
            "!HHIH", self.rtype, 1, self.ttl if ttl is None else ttl, len(self.rdata)
        )
        return self.owner + fixed + self.rdata


_POINTER_TO_QNAME = b"\xc0\x0c"
_OWNERS = st.one_of(
    st.just(_POINTER_TO_QNAME),
    names(),
)
_TEXTS = st.binary(max_size=255).map(lambda text: bytes([len(text)]) + text)
_SOA_NUMBERS = st.builds(lambda *numbers: struct.pack("!5I", *numbers), *[TTLS] * 5)


def _rdata(rtype: int) -> st.SearchStrategy[bytes]:
    if rtype == 1:
        return st.binary(min_size=4, max_size=4)
    if rtype == 28:
        return st.binary(min_size=16, max_size=16)
    if rtype in (2, 5, 12):
        return st.one_of(names(), st.just(_POINTER_TO_QNAME))
    if rtype == 6:
        return st.builds(lambda *parts: b"".join(parts), names(), names(), _SOA_NUMBERS)
    if rtype == 15:
        return names().map(lambda name: b"\0\x0a" + name)
    if rtype == 16:
        return st.lists(_TEXTS, min_size=1, max_size=4).map(b"".join)
    return st.binary(max_size=80)  # types that nobody knows


_RTYPES = st.sampled_from([1, 2, 5, 12, 15, 16, 28, 65280, 65400])


def _record(rtype: int) -> st.SearchStrategy[MadeRecord]:
    return st.builds(MadeRecord, _OWNERS, st.just(rtype), TTLS, _rdata(rtype))


def records(rtypes: st.SearchStrategy[int] = _RTYPES) -> st.SearchStrategy[MadeRecord]:
    return rtypes.flatmap(_record)


@dataclass(frozen=True)
class MadeResponse:
    """A sound response and what it was made of.

    ``opt`` stands behind ``opt_after`` records of the additional section; b"" for none.
    """

    flags: int
    qname: bytes
    qtype: int
    answer: list[MadeRecord]
    authority: list[MadeRecord]
    additional: list[MadeRecord]
    opt: bytes
    opt_after: int

    @property
    def question(self) -> bytes:
        return self.qname.lower() + struct.pack("!HH", self.qtype, 1)

    @property
    def question_end(self) -> int:
        return 12 + len(self.question)

    @property
    def counts(self) -> tuple[int, int, int]:
        return len(self.answer), len(self.authority), len(self.additional)

    @property
    def kept(self) -> list[MadeRecord]:
        """The records in front of the OPT record."""
        last = self.opt_after if self.opt else len(self.additional)
        return [*self.answer, *self.authority, *self.additional[:last]]

    @property
    def octets(self) -> bytes:
        return self.compose()

    def compose(self, ttl: int | None = None) -> bytes:
        """The message, all TTLs set to ``ttl`` if given."""
        ancount, nscount, arcount = self.counts
        counts = (1, ancount, nscount, arcount + bool(self.opt))
        additional = [record.octets(ttl) for record in self.additional]
        additional.insert(self.opt_after, self.opt)
        return b"".join(
            [
                struct.pack("!6H", 0x1234, self.flags, *counts),
                self.qname + struct.pack("!HH", self.qtype, 1),
                *[record.octets(ttl) for record in [*self.answer, *self.authority]],
                *additional,
            ]
        )


@st.composite
def responses(draw: st.DrawFn) -> MadeResponse:
    """Sound responses; the authority section has at most one SOA."""
    qtype = draw(st.sampled_from([1, 2, 5, 16, 28, 255, 65280]))
    answer_types = st.one_of(st.just(1 if qtype == 255 else qtype), _RTYPES)
    answer = draw(st.lists(records(answer_types), max_size=4))
    authority = draw(st.lists(records(st.sampled_from([2, 65280])), max_size=2))
    authority += draw(st.lists(records(st.just(6)), max_size=1))
    additional = draw(st.lists(records(), max_size=3))
    return MadeResponse(
        flags=draw(U16) & 0x07FF | 0x8000,
        qname=draw(names()),
        qtype=qtype,
        answer=answer,
        authority=draw(st.permutations(authority)),
        additional=additional,
        opt=draw(st.one_of(st.just(b""), opts())),
        opt_after=draw(st.integers(0, len(additional))),
    )


@st.composite
def mutated(draw: st.DrawFn, messages: st.SearchStrategy[bytes]) -> bytes:
    """Messages with one to four octets or stretches changed, removed, doubled or put in."""
    octets = bytearray(draw(messages))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(octets)))
        length = draw(st.integers(0, 12))
        change = draw(st.sampled_from(["set", "pointer", "cut", "double", "insert"]))
        if change == "set":
            octets[at : at + 1] = bytes([draw(st.integers(0, 255))])
        elif change == "pointer":
            octets[at : at + 2] = bytes([0xC0, draw(st.integers(0, 255))])
        elif change == "cut":
            del octets[at : at + length]
        elif change == "double":
            octets[at:at] = octets[at : at + length]
        else:
            octets[at:at] = draw(st.binary(max_size=length))
    return bytes(octets)
