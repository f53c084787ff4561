"""Records that many negative messages have in common, kept once: most often one zone's SOA.

Equal means equal octets, pointers into the question included; so names of one length below one
zone share theirs, a few dozen sets for ten thousand names.
"""

from __future__ import annotations

from nodecache.cache.message import PIECE_OVERHEAD_OCTETS, Message

# What a set of records costs besides its pieces, measured by tests/cache/test_memory.py.
SET_OVERHEAD_OCTETS = 260


class _Set:
    """Records, and how many messages have them."""

    __slots__ = ("octets", "pieces", "records_octets", "uses")

    def __init__(self, pieces: tuple[bytes, ...], records_octets: int) -> None:
        self.pieces = pieces
        self.records_octets = records_octets
        self.octets = SET_OVERHEAD_OCTETS + records_octets + PIECE_OVERHEAD_OCTETS * len(pieces)
        self.uses = 0


class SharedRecords:
    """The records of all messages of a budget that share theirs (``Message.shares_records``).

    Holds only what a kept message has, so the budget bounds it.
    """

    def __init__(self) -> None:
        self._sets: dict[tuple[bytes, ...], _Set] = {}

    def __len__(self) -> int:
        return len(self._sets)

    def cost_octets(self, message: Message) -> int:
        """Returns what ``take`` would return."""
        if message.pieces in self._sets:
            return 0
        return _Set(message.pieces, message.records_octets).octets

    def take(self, message: Message) -> int:
        """Gives ``message`` the records that equal ones have; returns the octets of new ones."""
        found = self._sets.get(message.pieces)
        if found is not None:
            found.uses += 1
            message.pieces = found.pieces
            message.records_octets = found.records_octets
            return 0
        new = self._sets[message.pieces] = _Set(message.pieces, message.records_octets)
        new.uses = 1
        return new.octets

    def give_back(self, message: Message) -> int:
        """Ends what ``take`` began; returns the octets of records that nobody has any more."""
        found = self._sets[message.pieces]
        found.uses -= 1
        if found.uses:
            return 0
        del self._sets[message.pieces]
        return found.octets
