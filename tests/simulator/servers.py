"""The upstreams: servers that answer from the zone, as far as their faults let them."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from nodecache.wire.framing import frame
from nodecache.wire.query import name_end
from tests.simulator.clock import Clock
from tests.simulator.faults import concerns
from tests.simulator.history import Fault, Place
from tests.simulator.zone import (
    BADVERS,
    FORMERR,
    NOTIMP,
    REFUSED,
    RESPONSE_FLAGS,
    SERVFAIL,
    TC_FLAG,
    Saying,
    Sense,
    Zone,
    compose,
    first_label,
)

WORK_S = 0.0002
OPCODE_STATUS = 2 << 11
BADVERS_OPT = b"\0\0\x29\x04\xd0\x01\0\0\0\0\0"  # the upper bits of its RCODE are in there
EDNS_RCODES = {
    "edns_formerr": FORMERR,
    "edns_formerr_bare": FORMERR,
    "edns_echo": FORMERR,
    "edns_notimp": NOTIMP,
    "edns_refused": REFUSED,
    "edns_servfail": SERVFAIL,
    "edns_badvers": BADVERS,
}
RCODES = {"servfail": SERVFAIL, "servfail_names": SERVFAIL, "refused": REFUSED}
DEADLY = ("dies", "refuses")
WRONG_FIRST = ("wrong_id", "wrong_question", "other_opcode", "only_wrong_id")


@dataclass(slots=True)
class Answer:
    """Octets on their way back; ``saying`` is what they say if they are a whole response to it."""

    octets: bytes
    saying: Saying | None


@dataclass(slots=True)
class Asked:
    """A query as a server reads it."""

    octets: bytes
    question: bytes
    payload: int
    has_edns: bool
    over_udp: bool
    sent_at: float

    @property
    def label(self) -> str:
        return first_label(self.question)


def read_query(octets: bytes, over_udp: bool, sent_at: float) -> Asked:
    """Reads a whole query of the node."""
    end = name_end(octets, 12) + 4
    has_edns = octets[11] > 0
    payload = int.from_bytes(octets[end + 3 : end + 5], "big") if has_edns else 512
    return Asked(octets, octets[12:end], max(512, payload), has_edns, over_udp, sent_at)


class Server:
    """One server behind an upstream address."""

    def __init__(self, place: Place, zone: Zone, clock: Clock, dice: random.Random) -> None:
        self.place = place
        self.faults: list[Fault] = []
        self.connections = 0
        self._zone = zone
        self._clock = clock
        self._dice = dice
        self._stood: list[Callable[[], None]] = []

    def has(self, kind: str, label: str = "") -> Fault | None:
        """Returns the fault of that kind that it has now."""
        for fault in self.faults:
            if fault.kind == kind and concerns(fault, label):
                return fault
        return None

    @property
    def is_dead(self) -> bool:
        """Whether nothing runs there."""
        return any(fault.kind in DEADLY for fault in self.faults)

    def begin(self, fault: Fault) -> None:
        """Has a fault from now on."""
        self.faults.append(fault)

    def end(self, fault: Fault) -> None:
        """Is rid of a fault; who stood still goes on with what came meanwhile."""
        self.faults.remove(fault)
        if not self.has("hangs"):
            stood, self._stood = self._stood, []
            for act in stood:
                act()

    def work(self, asked: Asked, then: Callable[[list[Answer]], None]) -> None:
        """Has ``then`` called with the answers, after as long as it takes."""
        if self.has("hangs"):
            self._stood.append(lambda: self.work(asked, then))
            return
        slow = [self.has(kind, asked.label) for kind in ("slow", "slow_names")]
        delay_s = WORK_S + max((fault.value for fault in slow if fault), default=0.0)
        self._clock.after(delay_s, lambda: self._finish(asked, then))

    def _finish(self, asked: Asked, then: Callable[[list[Answer]], None]) -> None:
        if self.has("hangs"):
            self._stood.append(lambda: then(self.answer(asked)))
        else:
            then(self.answer(asked))

    def answer(self, asked: Asked) -> list[Answer]:
        """Returns what it says, first to last; nothing for silence."""
        label = asked.label
        kinds = [fault.kind for fault in self.faults if concerns(fault, label)]
        if "silent_names" in kinds or (asked.has_edns and "edns_silent" in kinds):
            return []
        errors = [kind for kind in kinds if kind in RCODES]
        if asked.has_edns:
            errors = [kind for kind in kinds if kind in EDNS_RCODES] or errors
        if errors:
            return [self._error(asked, errors[0])]
        if asked.over_udp and ("tc" in kinds or "tc_no_tcp" in kinds):
            return [self._truncated(asked)]
        return [*self._wrong(asked, kinds), *self._answer(asked, kinds)]

    def _error(self, asked: Asked, kind: str) -> Answer:
        rcode = EDNS_RCODES[kind] if kind in EDNS_RCODES else RCODES[kind]
        saying = Saying(asked.question, rcode, Sense.ERROR, 0, asked.sent_at)
        flags = RESPONSE_FLAGS | rcode & 15
        octets = compose(asked.octets[:2], asked.question, flags, (0, 0), b"")
        if kind == "edns_formerr_bare":
            octets = octets[:4] + bytes(8)
        elif kind == "edns_echo":
            octets = octets[:4] + asked.octets[4:]
        elif rcode == BADVERS:
            octets = octets[:11] + b"\1" + octets[12:] + BADVERS_OPT
        return Answer(octets, saying)

    def _truncated(self, asked: Asked) -> Answer:
        flags = RESPONSE_FLAGS | TC_FLAG
        saying = Saying(asked.question, 0, Sense.TRUNCATED, 0, asked.sent_at)
        return Answer(compose(asked.octets[:2], asked.question, flags, (0, 0), b""), saying)

    def _wrong(self, asked: Asked, kinds: list[str]) -> list[Answer]:
        """Returns messages that look like answers and are not."""
        wrong = [kind for kind in kinds if kind in WRONG_FIRST]
        if not wrong:
            return []
        _, records, count = self._zone.say(asked.question, asked.sent_at, Sense.WRONG)
        counts = (count, 0) if count else (0, 1)
        message_id, question, flags = asked.octets[:2], asked.question, RESPONSE_FLAGS
        if "wrong_question" in wrong:
            question = b"\5wrong" + question
        elif "other_opcode" in wrong:
            flags |= OPCODE_STATUS
        else:
            message_id = (int.from_bytes(message_id, "big") ^ 0x5A5A).to_bytes(2, "big")
        return [Answer(compose(message_id, question, flags, counts, records), None)]

    def _answer(self, asked: Asked, kinds: list[str]) -> list[Answer]:
        if "only_wrong_id" in kinds:
            return []
        is_broken = "malformed" in kinds or (asked.over_udp and "malformed_udp" in kinds)
        is_cut = asked.over_udp and "cut" in kinds
        saying, records, count = self._zone.say(
            asked.question, asked.sent_at, Sense.WRONG if is_broken or is_cut else Sense.TRUE
        )
        counts = (count, 0) if count else (0, 1)
        flags = RESPONSE_FLAGS | saying.rcode
        octets = compose(asked.octets[:2], asked.question, flags, counts, records)
        if is_broken or is_cut:
            return [Answer(octets[: -5 if is_broken else -14], saying)]
        if "trailing" in kinds:
            octets += b"\0\0trailing"
        if asked.over_udp and len(octets) > asked.payload:
            saying.sense = Sense.WRONG  # nobody is told it
            return [self._truncated(asked)]
        return [Answer(octets, saying)]


@dataclass(slots=True)
class Session:
    """One TCP connection as a server sees it.

    Attributes:
        send: Puts octets on their way; the saying arrives with their last one.
        end: Ends the connection; True for RST.
    """

    server: Server
    send: Callable[[bytes, Saying | None], None]
    end: Callable[[bool], None]
    answers: int = 0
    is_over: bool = False
    is_busy: bool = False
    queue: list[Asked] = field(default_factory=list)

    def receive(self, asked: Asked) -> None:
        """Takes a query of the node's."""
        self.queue.append(asked)
        if not (self.is_busy and self.server.place.is_ordered):
            self._next()

    def _next(self) -> None:
        self.is_busy = True
        asked = self.queue.pop(0)
        self.server.work(asked, lambda answers: self._reply(asked, answers))

    def _reply(self, asked: Asked, answers: list[Answer]) -> None:
        self.is_busy = False
        server, label = self.server, asked.label
        if self.is_over or server.is_dead:
            return
        if server.has("poison", label) and answers:
            octets = frame(answers[0].octets)
            self.send(octets[: len(octets) // 2], None)
            self._end(is_reset=bool(len(octets) % 2))
            return
        for answer in answers:
            self.send(frame(answer.octets), answer.saying)
        self.answers += bool(answers)
        for kind in ("closes", "resets"):
            fault = server.has(kind)
            if fault is not None and self.answers >= fault.value:
                self._end(is_reset=kind == "resets")
                return
        if self.queue and server.place.is_ordered:
            self._next()

    def _end(self, is_reset: bool) -> None:
        self.is_over = True
        self.end(is_reset)
