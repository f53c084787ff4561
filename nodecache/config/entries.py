"""Files of names and addresses beside the Corefile, line by line: hosts files, and weights."""

from __future__ import annotations

import ipaddress
import re

from nodecache import limits
from nodecache.config.corefile import reason
from nodecache.config.lexer import MAX_TEXT_CHARACTERS, Word
from nodecache.config.names import parse_name
from nodecache.config.reading import Arguments, Scope, hint_beside
from nodecache.config.values import parse_duration_s, within
from nodecache.printing import shown

# Lines of a file, and entries of a Corefile, that can take effect.
MAX_ENTRIES = 100_000

# Names without escapes, which a long file is full of: parse_name takes six times as long.
_PLAIN_NAME = re.compile(r"(?:[a-z0-9_*-]{1,63}\.)*[a-z0-9_*-]{1,63}")
_MAX_PLAIN_CHARACTERS = 253

_parse_reload_s = within(parse_duration_s, limits.FILE_RELOAD_S)


def parse_address_octets(text: str) -> bytes:
    """Returns the octets of an IP address; a zone is left out, an IPv4-mapped one is IPv4."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        raise ValueError(f"{shown(text)} is no IP address") from None
    mapped = address.ipv4_mapped if address.version == 6 else None
    return (mapped or address).packed


def parse_host_name(text: str) -> bytes:
    """Returns what parse_name does, in wire format alone."""
    plain = text.lower().removesuffix(".")
    is_plain = text.isascii() and len(plain) <= _MAX_PLAIN_CHARACTERS
    if not is_plain or not _PLAIN_NAME.fullmatch(plain):
        return parse_name(text).wire
    labels = plain.encode("ascii").split(b".")
    return b"".join([bytes((len(label),)) + label for label in labels]) + b"\0"


def read_file(word: Word, path: str, scope: Scope) -> str | None:
    """Returns the text of a file that ``word`` names; None, with a warning, if there is none.

    It may appear later: the reader has noted it. If it was there before, what it said goes on.
    One that cannot be read, or is longer than 1 Mi characters, is a fault, so that a running
    configuration is not replaced by nothing.
    """
    try:
        text = scope.reader.read_text(path)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        before = scope.kept.recall(path)
        if before is None:
            hint = hint_beside(word, scope.reader) if path == word.text else ""
            scope.report.warn(word, f"cannot read {shown(path)} yet: {reason(error)}{hint}")
            return None
        scope.kept.stand_in(path)
        text = f"cannot read {shown(path)}: {reason(error)}; what it said before goes on"
        scope.report.warn(word, text)
        return before
    except (OSError, ValueError) as error:
        scope.report.fault(word, f"cannot read {shown(path)}: {reason(error)}")
        return None
    if len(text) > MAX_TEXT_CHARACTERS:
        scope.report.fault(word, f"{shown(path)} is longer than 1 MiB: leave something out")
        return None
    scope.kept.keep(path, text)
    return text


def check_reload(arguments: Arguments) -> None:
    """Reads ``reload DURATION``, which has no effect: whatever was read is watched."""
    if arguments.take("a DURATION", _parse_reload_s, 1.0) == 0:
        text = "'reload 0' has no effect: a change of the file is noticed at once"
        arguments.scope.report.warn(arguments.name, text)
