"""In which form an upstream is asked: with our OPT record, with a small size in it, or without.

Some servers say an error to EDNS, or nothing at all (RFC 6891 section 6.2.2), and on some ways
no datagram of more than 512 octets arrives. What was found out is remembered for the server's
address, for all transports, and tried anew after a while: servers and networks are replaced.
"""

from __future__ import annotations

import enum

from nodecache.wire.const import MIN_PAYLOAD_OCTETS, U16
from nodecache.wire.numbers import BADVERS, FORMERR, NOTIMP, REFUSED, SERVFAIL

REMEMBERED_S = 300.0
CLEARED_S = 10.0  # errors are common, and one that is not about EDNS says nothing of the next
# One may be a lost datagram or a slow name. Without EDNS nothing is validated, so be sure.
SILENCES_OF_PROOF = 2

_BARE_OPT = b"\0\0\x29"  # the root, OPT; what follows takes 8 octets without options
_BARE_OPT_OCTETS = 11
_COUNTS_END = 10  # of a query without its ID
_SIZE_IN_OPT = 3
_SMALL = U16.pack(MIN_PAYLOAD_OCTETS)
_NOT_FOR_EDNS = frozenset((SERVFAIL, NOTIMP, REFUSED))


class Form(enum.IntEnum):
    """How much a query asks of its server; what is greater asks less."""

    WHOLE = 0  # OPT with our size
    SMALL = 1  # OPT with 512 octets
    PLAIN = 2  # no OPT


class Forms:
    """What is known of one server.

    Attributes:
        knows_edns: An OPT record came back with an answer.
        odd_until: Some queries take another form than WHOLE until then, monotonic seconds; 0 for
            never. The one thing to look at for every query.
    """

    __slots__ = (
        "_cleared_until",
        "_lost_at",
        "_plain_until",
        "_silences",
        "_stream_until",
        "knows_edns",
        "odd_until",
    )

    def __init__(self) -> None:
        self.knows_edns = False
        self.odd_until = 0.0
        self._plain_until = 0.0
        self._stream_until = 0.0
        self._cleared_until = 0.0
        self._lost_at = 0.0
        self._silences = 0

    def form(self, now: float) -> Form:
        """Returns in which form a new question is asked."""
        if now >= self.odd_until:
            return Form.WHOLE
        return Form.PLAIN if now < self._plain_until else Form.SMALL

    def is_plain(self, now: float) -> bool:
        """Whether the server takes no EDNS, as far as is known."""
        return now < self._plain_until

    def loses_datagrams(self, now: float) -> bool:
        """Whether answers arrive over TCP only, as far as is known."""
        return now < self._stream_until

    def may_blame_edns(self, message: bytes) -> bool:
        """Whether the error ``message`` may be about our OPT record.

        One that knows EDNS has an OPT record in errors, too (RFC 6891 section 7).
        """
        if message[3] & 0xF not in _NOT_FOR_EDNS:
            return False
        return not (self.knows_edns and message[10:12] != b"\0\0")

    def is_cleared(self, now: float) -> bool:
        """Whether EDNS was blamed just now, and was not to blame."""
        return now < self._cleared_until

    def note_answer(self, message: bytes) -> None:
        """Takes note of an answer to a query with OPT."""
        if message[-_BARE_OPT_OCTETS : -_BARE_OPT_OCTETS + 3] == _BARE_OPT:
            self.knows_edns = True

    def note_plain(self, is_better: bool, now: float) -> bool:
        """Takes note of what came without OPT after an error with it; True if that is news."""
        if not is_better:
            self._cleared_until = now + CLEARED_S
            return False
        return self._turn_plain(now)

    def note_silence(self, now: float) -> bool:
        """Takes note of silence with OPT and an answer without; True if OPT goes from now on."""
        self._silences += 1
        return self._silences >= SILENCES_OF_PROOF and self._turn_plain(now)

    def _turn_plain(self, now: float) -> bool:
        is_news = now >= self._plain_until
        self.odd_until = self._plain_until = now + REMEMBERED_S
        self.knows_edns = False
        return is_news

    def note_small(self, now: float) -> None:
        """Takes note that large datagrams do not arrive from there."""
        self.odd_until = now + REMEMBERED_S

    def note_loss(self, answered_at: float, now: float) -> None:
        """Takes note of datagrams large and small that were lost, and an answer over TCP.

        Twice, with no answer over UDP between, the last at ``answered_at``, shows that none
        arrive.
        """
        if self._lost_at > answered_at:
            self.odd_until = self._stream_until = now + REMEMBERED_S
        self._lost_at = now


def is_about_edns(message: bytes) -> bool:
    """Whether an error is likely to be about our OPT record, even if its server knows EDNS."""
    return message[3] & 0xF == FORMERR or extended_rcode(message) == BADVERS


def extended_rcode(message: bytes) -> int:
    """Returns the RCODE of a response, upper bits of a bare OPT record at its end included."""
    upper = 0
    if message[-_BARE_OPT_OCTETS : -_BARE_OPT_OCTETS + 3] == _BARE_OPT:
        upper = message[-6]
    return upper << 4 | message[3] & 0xF


def has_opt(query: bytes) -> bool:
    """Whether ``query`` (ours, without its ID) carries an OPT record; it has no other."""
    return query[_COUNTS_END - 1] != 0


def compose(query: bytes, question: bytes, form: Form) -> bytes:
    """Returns ``query`` (ours, without its ID) in another form."""
    if form is Form.WHOLE or not has_opt(query):
        return query
    if form is Form.PLAIN:
        return query[: _COUNTS_END - 2] + b"\0\0" + question
    size_at = _COUNTS_END + len(question) + _SIZE_IN_OPT
    return query[:size_at] + _SMALL + query[size_at + 2 :]
