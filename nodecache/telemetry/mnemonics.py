"""What types, classes, response codes and questions are called in a log."""

from __future__ import annotations

from functools import lru_cache

from nodecache.config.mnemonics import CLASS_NAMES, TYPE_NAMES
from nodecache.telemetry.readings import RCODE_NAMES
from nodecache.wire.text import name_text


def type_text(qtype: int) -> str:
    """Returns "AAAA", or "TYPE65280" as RFC 3597 section 5 writes what has no name."""
    return TYPE_NAMES.get(qtype) or f"TYPE{qtype}"


def class_text(qclass: int) -> str:
    """Returns "IN", or "CLASS42"."""
    return CLASS_NAMES.get(qclass) or f"CLASS{qclass}"


def rcode_text(rcode: int) -> str:
    """Returns "NXDOMAIN", or the number of a code without a name, as CoreDNS does."""
    return RCODE_NAMES.get(rcode) or str(rcode)


@lru_cache(maxsize=1024)
def question_texts(question: bytes) -> tuple[str, str, str]:
    """Returns name, type and class of a question in wire format that was scanned before.

    The texts are ASCII without blanks, quotes and control characters, whatever the client sent.
    """
    qtype = int.from_bytes(question[-4:-2], "big")
    qclass = int.from_bytes(question[-2:], "big")
    return name_text(question[:-4]), type_text(qtype), class_text(qclass)
