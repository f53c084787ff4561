"""The rules of ``rewrite``, as values."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from nodecache.config.model import Setting


class Match(enum.Enum):
    """How a name is compared in ``rewrite``."""

    EXACT = "exact"
    PREFIX = "prefix"
    SUFFIX = "suffix"
    SUBSTRING = "substring"
    REGEX = "regex"


@dataclass(frozen=True, slots=True)
class NameTest:
    """Which names a rule of ``rewrite`` is about.

    ``text`` is a regular expression for REGEX, else lower case with the final dot.
    """

    match: Match
    text: str


class AnswerPart(enum.Enum):
    """Which names in the records of a response are changed: owners, or those in the RDATA."""

    NAME = "name"
    VALUE = "value"


@dataclass(frozen=True, slots=True)
class AnswerRewrite:
    """``answer name|value PATTERN TO``: names that match become ``to``, groups filled in."""

    part: AnswerPart
    pattern: str
    to: str


@dataclass(frozen=True, slots=True)
class RewriteName:
    """A ``name`` rule.

    Attributes:
        test: Which QNAMEs it changes.
        to: What the part that matched becomes, for REGEX the whole name with groups filled in.
        is_last: ``stop``: no rule follows this one where it applied; so in all rules.
        is_auto: Names in the response are changed back.
        answers: Further changes of the response, done in reverse order.
    """

    test: NameTest
    to: str
    is_last: bool = True
    is_auto: bool = False
    answers: tuple[AnswerRewrite, ...] = ()


@dataclass(frozen=True, slots=True)
class RewriteType:
    """A ``type`` rule: QTYPE ``before`` becomes ``after``."""

    before: int
    after: int
    is_last: bool = True


@dataclass(frozen=True, slots=True)
class RewriteClass:
    """A ``class`` rule: QCLASS ``before`` becomes ``after``."""

    before: int
    after: int
    is_last: bool = True


@dataclass(frozen=True, slots=True)
class RewriteTtl:
    """A ``ttl`` rule: all TTLs are brought into the range of seconds, both ends included."""

    test: NameTest
    least_s: int
    most_s: int
    is_last: bool = True


@dataclass(frozen=True, slots=True)
class RewriteRcode:
    """A ``rcode`` rule: response code ``before`` becomes ``after``, both below 16."""

    test: NameTest
    before: int
    after: int
    is_last: bool = True


class EdnsAction(enum.Enum):
    """What becomes of an EDNS option of the query to the upstream."""

    SET = "set"
    APPEND = "append"
    REPLACE = "replace"
    UNSET = "unset"


class EdnsVariable(enum.Enum):
    """What an EDNS option may hold that differs from question to question."""

    QNAME = "{qname}"
    QTYPE = "{qtype}"


@dataclass(frozen=True, slots=True)
class RewriteEdns:
    """An ``edns0`` rule about the option ``code`` (0 to 65535) and its octets."""

    action: EdnsAction
    code: int
    data: bytes | EdnsVariable = b""
    is_last: bool = True


Rewrite = RewriteName | RewriteType | RewriteClass | RewriteTtl | RewriteRcode | RewriteEdns

REWRITES: Setting[tuple[Rewrite, ...]] = Setting("rewrite", ())
