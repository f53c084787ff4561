"""The message cache as octets, for a successor on the same boot, and back again.

Knows neither files nor clocks; which rules a section stands for is the caller's affair.

Layout, all numbers big endian: a head (magic, ``FORMAT``, when it was written, the boot it was
written in), then frames (one octet that says what it is, the length of what follows in four):

- ``S`` an identity: the section that the frames behind it belong to; may come again;
- ``P`` protected messages, the last used first, and ``O`` others, the newest first: at most
  ``_FRAME_MESSAGES`` of them, each its ``_RECORD`` and the message in wire format with TTLs of 0;
- ``E`` the CRC-32 of all octets before this frame; nothing follows it.

Times are seconds of CLOCK_MONOTONIC, which all processes of one boot share: no jump of the wall
clock moves them, and a snapshot of another boot means nothing.

A CRC, because what is looked for is damage; against forgery no digest without a key helps, and
4 MB take 0.6 ms where BLAKE2 takes 3. So nothing is built from the octets that could not have come
from an upstream: a message goes through the same scanner and classifier as a response, which give
pieces, counts, RCODE and kind; lifetimes are cut to the caps of the cache that takes it, counted
from a moment that has been. Not checked: whether a name is in lower case (else nobody finds it).
"""

from __future__ import annotations

import heapq
import struct
import zlib
from collections.abc import Iterable, Iterator
from operator import attrgetter

from nodecache.cache.admit import make_message
from nodecache.cache.carry_over import rebound
from nodecache.cache.lifetime import Kind, classify, covers_all_types
from nodecache.cache.message import NEVER, Message
from nodecache.cache.store import MessageCache
from nodecache.errors import SnapshotError
from nodecache.wire.const import HEADER_OCTETS, MAX_MESSAGE_OCTETS
from nodecache.wire.key import ALL_MARKS, MARKS, QUESTION_END, make_key
from nodecache.wire.query import name_end
from nodecache.wire.response import scan_response

# Changes with the layout, and with the meaning of anything in it.
FORMAT = 1
MOST_OCTETS = 256 * 1024 * 1024
# Whoever was away longer than this finds little that still holds.
LONGEST_AGE_S = 3600.0

_MAGIC = b"NODECACH"
_HEAD = struct.Struct("!8sIdB")
_FRAME = struct.Struct("!cI")
_CHECKSUM = struct.Struct("!I")
_END_OCTETS = _FRAME.size + _CHECKSUM.size
# Marks, octets of the message, hits, stored_at, ttl_s, refresh_at, hit_at; then its header.
_RECORD = struct.Struct("!BHIdddd")
_RECORD_AND_HEADER = struct.Struct("!BHIdddd6H")
_NO_TTL = b"\0\0\0\0"

_SECTION, _PROTECTED, _OTHERS, _END = b"S", b"P", b"O", b"E"
_COVERS_ALL_TYPES = 8  # beside the marks of the key

# A frame is written, and restored, at one go: 0.2 ms and 0.8 ms. Its octets are bounded, too, as
# messages may have 64 KiB.
_FRAME_MESSAGES = 100
_FRAME_OCTETS = 64 * 1024
_MOST_FRAME_OCTETS = _FRAME_OCTETS + _RECORD.size + MAX_MESSAGE_OCTETS
_MOST_FRAMES = 65_536
# Sorted at one go: 2 ms.
_RUN_MESSAGES = 8192
_TOUCH_AT_ONCE = 500

_MOST_HITS = 0xFFFFFFFF
_LONGEST_TTL_S = 0x7FFFFFFF  # RFC 2181 section 8

_by_use = attrgetter("hit_at")


class Section:
    """The messages of one server block, still as octets.

    Attributes:
        octets: Of the whole snapshot.
        protected, others: Where the frames begin and end.
    """

    __slots__ = ("octets", "others", "protected")

    def __init__(self, octets: bytes) -> None:
        self.octets = octets
        self.protected: list[tuple[int, int]] = []
        self.others: list[tuple[int, int]] = []


class Snapshot:
    """A snapshot that is whole and of this boot.

    Attributes:
        sections: By identity.
    """

    __slots__ = ("sections",)

    def __init__(self) -> None:
        self.sections: dict[bytes, Section] = {}


def write(
    sections: Iterable[tuple[bytes, MessageCache]],
    boot_id: bytes,
    now: float,
    limit_octets: int = MOST_OCTETS,
) -> Iterator[bytes]:
    """Yields a snapshot piece by piece, some of them empty, each after at most 2 ms of work.

    To list and part more than 50,000 messages of one section takes longer: 0.4 ms for 10,000.

    The caches may change meanwhile: what has left is left out, what was renewed is taken as it is.
    Left out are failures and what may not be served any more. What the cache would give up last
    comes first, of all sections, so that the limit costs the least.

    Args:
        sections: Identity (1 to 255 octets) and cache of each server block.
        boot_id: Of this boot, at most 255 octets.
        now: Monotonic seconds.
        limit_octets: The whole is no longer, or holds no message; never above MOST_OCTETS.
    """
    room = min(limit_octets, MOST_OCTETS) - _END_OCTETS
    head = _HEAD.pack(_MAGIC, FORMAT, now, len(boot_id)) + boot_id
    checksum = zlib.crc32(head)
    room -= len(head)
    yield head
    for chunk in _frames(list(sections), now):
        if len(chunk) > room:
            break
        room -= len(chunk)
        checksum = zlib.crc32(chunk, checksum)
        yield chunk
    yield _FRAME.pack(_END, _CHECKSUM.size) + _CHECKSUM.pack(checksum)


def _frames(sections: list[tuple[bytes, MessageCache]], now: float) -> Iterator[bytes]:
    """Yields all frames but the last; b"" now and then while there is none."""
    others: list[tuple[bytes, MessageCache, list[Message]]] = []
    for identity, cache in sections:
        yield b""
        messages = cache.all_messages()
        rest = [message for message in messages if not message.is_protected]
        rest.reverse()
        others.append((identity, cache, rest))
        yield b""
        runs: list[list[Message]] = []
        protected = [message for message in messages if message.is_protected]
        for start in range(0, len(protected), _RUN_MESSAGES):
            yield b""
            run = protected[start : start + _RUN_MESSAGES]
            run.sort(key=_by_use, reverse=True)
            runs.append(run)
        yield _frame(_SECTION, identity)
        yield from _message_frames(_PROTECTED, _merged(runs), cache, now)
    for identity, cache, rest in others:
        yield _frame(_SECTION, identity)
        yield from _message_frames(_OTHERS, iter(rest), cache, now)


def _merged(runs: list[list[Message]]) -> Iterator[Message]:
    if len(runs) == 1:
        return iter(runs[0])
    return heapq.merge(*runs, key=_by_use, reverse=True)


def _message_frames(
    mark: bytes, messages: Iterator[Message], cache: MessageCache, now: float
) -> Iterator[bytes]:
    parts: list[bytes] = []
    octets = looked_at = 0
    for before in messages:
        looked_at += 1
        message = cache.peek(before.key)  # what was replaced meanwhile was replaced by this
        if message is not None and message.kind is not Kind.FAILURE and message.keep_until > now:
            octets += _compose(message, parts)
        if looked_at >= _FRAME_MESSAGES or octets >= _FRAME_OCTETS:
            yield _frame(mark, b"".join(parts)) if parts else b""
            parts.clear()
            octets = looked_at = 0
    if parts:
        yield _frame(mark, b"".join(parts))


def _frame(mark: bytes, content: bytes) -> bytes:
    return _FRAME.pack(mark, len(content)) + content


def _compose(message: Message, parts: list[bytes]) -> int:
    """Appends a message to ``parts``; returns its octets, 0 if it is longer than a message is."""
    key = message.key
    octets = HEADER_OCTETS + len(key) - 1 + message.records_octets
    if octets > MAX_MESSAGE_OCTETS:
        return 0
    marks = key[MARKS] & ALL_MARKS
    if message.covers_all_types:
        marks |= _COVERS_ALL_TYPES
    ancount, nscount, arcount = message.counts
    fixed = _RECORD_AND_HEADER.pack(
        marks,
        octets,
        min(message.hits, _MOST_HITS),
        message.stored_at,
        message.ttl_s,
        message.refresh_at,
        message.hit_at,
        0,
        message.flags,
        1,
        ancount,
        nscount,
        arcount,
    )
    parts += (fixed, key[:QUESTION_END], _NO_TTL.join(message.pieces))
    return _RECORD.size + octets


def read(octets: bytes | memoryview, boot_id: bytes, now: float) -> Snapshot:
    """Returns what was written, its messages still to be restored.

    Takes 0.15 ms for 1 MB, nearly all of it without Python's lock; memory for a copy if ``octets``
    are no bytes.

    Args:
        octets: Anything, of any length.
        boot_id: Of this boot.
        now: Monotonic seconds.

    Raises:
        SnapshotError: It is damaged, of another format, of another boot, of the future, or too old.
    """
    if len(octets) > MOST_OCTETS:
        raise SnapshotError("it is longer than 256 MiB")
    whole = bytes(octets)
    if len(whole) < _HEAD.size + _END_OCTETS or not whole.startswith(_MAGIC):
        raise SnapshotError("it is no snapshot")
    _, form, written_at, boot_octets = _HEAD.unpack_from(whole)
    if form != FORMAT:
        raise SnapshotError(f"its format is {form}, not {FORMAT}")
    _check_sum(whole)
    start = _HEAD.size + boot_octets
    if whole[_HEAD.size : start] != boot_id:
        raise SnapshotError("it was written before the machine was started")
    if not now - LONGEST_AGE_S <= written_at <= now:
        raise SnapshotError("it was not written within the last hour")
    snapshot = Snapshot()
    _read_frames(snapshot, whole, start)
    return snapshot


def _check_sum(whole: bytes) -> None:
    at = len(whole) - _END_OCTETS
    mark, length = _FRAME.unpack_from(whole, at)
    if mark != _END or length != _CHECKSUM.size:
        raise SnapshotError("its end is missing")
    if _CHECKSUM.unpack_from(whole, at + _FRAME.size)[0] != zlib.crc32(memoryview(whole)[:at]):
        raise SnapshotError("its checksum is wrong")


def _read_frames(snapshot: Snapshot, whole: bytes, start: int) -> None:
    """Notes which frames belong to which section; the last frame is known to be sound."""
    section: Section | None = None
    end, count = len(whole) - _END_OCTETS, 0
    while start < end:
        count += 1
        if start + _FRAME.size > end or count > _MOST_FRAMES:
            raise SnapshotError("its frames are broken")
        mark, length = _FRAME.unpack_from(whole, start)
        start += _FRAME.size
        if start + length > end or length > _MOST_FRAME_OCTETS:
            raise SnapshotError("its frames are broken")
        if mark == _SECTION:
            section = snapshot.sections.setdefault(whole[start : start + length], Section(whole))
        elif section is None or mark not in (_PROTECTED, _OTHERS):
            raise SnapshotError("its frames are broken")
        else:
            frames = section.protected if mark == _PROTECTED else section.others
            frames.append((start, start + length))
        start += length


def restore(section: Section, cache: MessageCache, now: float) -> Iterator[int]:
    """Admits messages to ``cache``; yields how many, again and again, after 2 ms at most.

    What the cache has already is fresher and stays, and nothing leaves it for want of room. The
    most used come first; the order in which the cache gives up is as it was. ``cache`` must not be
    retired meanwhile: look before each step.

    Args:
        section: Of messages that were obtained by the rules of ``cache``.
        cache: Its policy bounds what it gets.
        now: Monotonic seconds.

    Raises nothing: what is unsound is left out.
    """
    protected: list[Message] = []
    for frame in section.protected:
        admitted = _admit(section.octets, _split_frame(section.octets, *frame), cache, now)
        protected += admitted
        yield len(admitted)
    while protected:
        for message in reversed(protected[-_TOUCH_AT_ONCE:]):
            if message.partition is not None:
                message.partition.touch(message)
        del protected[-_TOUCH_AT_ONCE:]
        yield 0
    for frame in reversed(section.others):
        records = _split_frame(section.octets, *frame)
        records.reverse()
        yield len(_admit(section.octets, records, cache, now))


def _split_frame(octets: bytes, start: int, end: int) -> list[tuple[int, bytes]]:
    """Returns where each record of a frame begins, and its message, up to one that is broken."""
    found: list[tuple[int, bytes]] = []
    while start + _RECORD.size <= end and len(found) < _FRAME_MESSAGES:
        behind = start + _RECORD.size + (octets[start + 1] << 8 | octets[start + 2])
        if behind > end:
            break
        found.append((start, octets[start + _RECORD.size : behind]))
        start = behind
    return found


def _admit(
    octets: bytes, records: list[tuple[int, bytes]], cache: MessageCache, now: float
) -> list[Message]:
    """Returns the messages that are sound, wanted, and now in ``cache``."""
    admitted = []
    for start, wire in records:
        message = _rebuild(octets, start, wire, cache, now)
        if message is not None and cache.has_room(message) and cache.admit(message, now):
            admitted.append(message)
    return admitted


def _rebuild(
    octets: bytes, start: int, wire: bytes, cache: MessageCache, now: float
) -> Message | None:
    """Returns the message of a record; None if it is unsound, over, or ``cache`` knows better."""
    marks, _, hits, stored_at, ttl_s, refresh_at, hit_at = _RECORD.unpack_from(octets, start)
    end = name_end(wire, HEADER_OCTETS)
    if not end or end + 4 > len(wire) or not (0 < ttl_s <= _LONGEST_TTL_S and stored_at <= now):
        return None
    key = make_key(wire[HEADER_OCTETS : end + 4], marks)
    if _is_known(key, cache, now):
        return None
    response = scan_response(wire, end + 4)
    kind = Kind.NOT_KEPT if response is None else classify(response)
    if response is None or kind is Kind.NOT_KEPT or kind is Kind.FAILURE:
        return None
    message = make_message(response, kind, key, ttl_s, stored_at)
    message.covers_all_types = (
        bool(marks & _COVERS_ALL_TYPES)
        and covers_all_types(kind, response)
        and cache.covers_all_types(key)
    )
    message.hits = hits
    message.hit_at = hit_at if stored_at <= hit_at <= now else stored_at
    # A refresh that was under way ended with who had asked; so did the rest after a failed one.
    latest = max(message.expires_at, now)
    message.refresh_at = min(refresh_at, latest) if refresh_at < NEVER else now
    return message if rebound(message, cache.policy, now) else None


def _is_known(key: bytes, cache: MessageCache, now: float) -> bool:
    """Whether ``cache`` has an answer; a failure is none (RFC 9520 section 3.2)."""
    known = cache.find(key, now)
    return known is not None and known.kind is not Kind.FAILURE
