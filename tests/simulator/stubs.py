"""Stub resolvers: how often, how long and over what they ask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.cache.building import AAAA, A, opt
from tests.simulator.clock import Clock
from tests.simulator.history import Lookup
from tests.simulator.zone import REFUSED, SERVFAIL, Reply, first_label, question_for


@dataclass(frozen=True, slots=True)
class Manner:
    """How one kind of stub resolver asks.

    Attributes:
        waits_s: How long each try waits for its answer.
        types: Asked in parallel.
        has_edns: Sends an OPT record.
        over_tcp: From the first try on.
    """

    waits_s: tuple[float, ...]
    types: tuple[int, ...] = (A, AAAA)
    has_edns: bool = False
    over_tcp: bool = False


MANNERS = {
    "once": Manner((5.0,), (A,)),
    "glibc": Manner((5.0, 5.0)),
    "musl": Manner((2.5, 2.5)),
    "go": Manner((5.0, 5.0), has_edns=True),
    "c-ares": Manner((2.0, 4.0, 8.0), has_edns=True),
    "tcp": Manner((5.0,), (A,), over_tcp=True),
}


@dataclass(eq=False, slots=True)
class Query:
    """One query to the node, and what became of it.

    Attributes:
        patience_s: How long the stub listens.
        is_pending: The node said that the reply comes later.
        must_by: Until when an answer that the node gets must be handed on.
        began_at: When the node began to ask for it.
        is_owed: An answer to it has reached the node.
        is_dropped: The node has counted that there will be no reply.
        replies: How many came.
        reply: The first.
        replied_at: When.
    """

    asking: Asking
    question: bytes
    octets: bytes
    over_tcp: bool
    asked_at: float
    patience_s: float
    is_pending: bool = False
    must_by: float = 0.0
    began_at: float = 0.0
    is_owed: bool = False
    is_dropped: bool = False
    replies: int = 0
    reply: Reply | None = None
    replied_at: float = 0.0

    def __str__(self) -> str:
        """Returns who asks for what."""
        label, qtype = first_label(self.question), "AAAA" if self.question[-3] == AAAA else "A"
        return (
            f"{label} {qtype} by {self.asking.lookup.stub} over {'TCP' if self.over_tcp else 'UDP'}"
        )

    @property
    def has_failed(self) -> bool:
        """Whether the reply is no answer."""
        return self.reply is not None and self.reply.rcode not in (0, 3)


class Asking:
    """A stub resolver that wants the records of one type of one name."""

    def __init__(
        self,
        lookup: Lookup,
        qtype: int,
        clock: Clock,
        message_id: int,
        send: Callable[[Query], None],
    ) -> None:
        self.lookup = lookup
        self._manner = MANNERS[lookup.stub]
        self._question = question_for(lookup.name, qtype)
        self._clock = clock
        self._id = message_id
        self._send = send
        self._tries = 0
        self._over_tcp = self._manner.over_tcp
        self._current: Query | None = None

    def ask(self) -> None:
        """Asks once more, if it may."""
        waits_s = self._manner.waits_s
        if self._tries == len(waits_s):
            self._current = None
            return
        patience_s = waits_s[self._tries]
        self._tries += 1
        query = self._current = self._compose(patience_s)
        self._clock.after(patience_s, lambda: self._give_up(query))
        self._send(query)

    def _compose(self, patience_s: float) -> Query:
        has_edns = self._manner.has_edns
        header = ((self._id + self._tries) & 0xFFFF).to_bytes(2, "big") + b"\1\0\0\1\0\0\0\0\0"
        octets = header + bytes([has_edns]) + self._question + (opt() if has_edns else b"")
        now = self._clock.now
        return Query(self, self._question, octets, self._over_tcp, now, patience_s, began_at=now)

    def _give_up(self, query: Query) -> None:
        if self._current is query:
            self.ask()

    def take(self, query: Query) -> None:
        """Takes the reply to a query: the end, or the reason for another one."""
        reply = query.reply
        if self._current is not query or reply is None:
            return
        self._current = None
        if reply.is_truncated and not self._over_tcp:
            self._over_tcp = True
            self._tries -= 1
            self.ask()
        elif reply.rcode in (SERVFAIL, REFUSED):
            self.ask()
