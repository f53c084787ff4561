"""Answers that end in a CNAME: what is still to be asked, and the two answers made one."""

from __future__ import annotations

from nodecache.wire.const import MAX_MESSAGE_OCTETS, TYPE_AND_CLASS
from nodecache.wire.numbers import TYPE_A, TYPE_AAAA, TYPE_CNAME
from nodecache.wire.rrs import read_contents

_MOST_LINKS = 16


def find_open_target(response: bytes) -> bytes | None:
    """Returns the question that is left open by a response that ends in a CNAME.

    None where QTYPE is neither A nor AAAA, the chain ends in an address, has no end within 16
    links, or the response is broken. Raises nothing.
    """
    contents = read_contents(response)
    if contents is None or len(contents.question) < 5:
        return None
    qtype, _ = TYPE_AND_CLASS.unpack_from(contents.question, len(contents.question) - 4)
    if qtype not in (TYPE_A, TYPE_AAAA):
        return None
    targets = {rr.owner.lower(): rr.rdata for rr in contents.answer if rr.rtype == TYPE_CNAME}
    answered = {rr.owner.lower() for rr in contents.answer if rr.rtype == qtype}
    name = start = contents.question[:-4].lower()
    for _ in range(_MOST_LINKS):
        if name in answered or name not in targets:
            break
        name = targets[name].lower()
    is_open = name != start and name not in answered and name not in targets
    return name + contents.question[-4:] if is_open else None


def add_answers(response: bytes, found: bytes) -> bytes:
    """Returns ``response`` with the answer section of ``found`` behind its own.

    Both are whole messages. ``response`` comes back as it was when either is broken or the whole
    would be too long. Raises nothing.
    """
    contents, more = read_contents(response), read_contents(found)
    if contents is None or more is None:
        return response
    contents.answer += more.answer
    octets = contents.compose()
    return octets if len(octets) <= MAX_MESSAGE_OCTETS else response
