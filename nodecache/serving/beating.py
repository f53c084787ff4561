"""Says to the node's rules that we serve, for as long as we answer.

Three times a second a beat goes to the rules (host/beat.py) if queries were read and answered in
this second. If there were none, a question of our own goes from a listening socket to itself, and
the beat goes out when that has come through socket, loop and resolver. So whatever keeps us from
answering ends the beat, and the kernel leads queries to the cluster's DNS.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable, Iterable, Sequence
from math import inf
from time import monotonic
from typing import NamedTuple

from nodecache.counters import Counters
from nodecache.host.beat import INTERVAL_S, LIFE_S, say_goodbye, say_serving
from nodecache.net.selfcheck import make_probe
from nodecache.resolve.resolver import Resolver

logger = logging.getLogger("nodecache")

# Who is not heard says so when that begins, and then as often as a repair may be tried again.
_COMPLAIN_S = 5.0


class Voice(NamedTuple):
    """A UDP socket that we answer with, and the address of ours that it speaks from.

    ``reads_until`` returns the end of the second in which the listener has last read something.
    """

    sock: socket.socket
    host: str
    port: int
    reads_until: Callable[[], float]


class Beat:
    """The beat of one worker.

    Args:
        resolver: Says when our question has come through.
        voices: Returns where to speak from, one for each family: iptables keeps them apart.
        counters: Get what was heard, and for how long nothing was.
        loop: The loop that serves queries.

    Attributes:
        is_heard: Whether the rules heard the last beat: queries are led here.
        on_unheard: Called when they did not: they are gone, or not ours.
    """

    def __init__(
        self,
        resolver: Resolver,
        voices: Callable[[], Sequence[Voice]],
        counters: Counters,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.is_heard = False
        self.on_unheard: Callable[[], None] = lambda: None
        self._question = make_probe()
        self._voices = voices
        self._counters = counters
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self._heard_at: float | None = None
        self._is_told: bool | None = None
        self._complains_at = -inf
        resolver.own_question = self._question[2:]
        resolver.on_own_question = self._on_answered

    def start(self) -> None:
        """Speaks from now on; once more does nothing."""
        if self._timer is None:
            self._tick()

    def stop(self) -> None:
        """Says no more; what was said last holds for a second."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def say_goodbye(self) -> None:
        """Has queries led to the cluster's DNS from now on."""
        self.stop()
        for voice in self._voices():
            say_goodbye(voice.sock, voice.host)
        self.is_heard = False
        self._heard_at = None

    def _tick(self) -> None:
        self._timer = self._loop.call_later(INTERVAL_S, self._tick)
        voices, now = self._voices(), monotonic()
        if any(voice.reads_until() > now for voice in voices):
            self._say(voices)
        elif voices:
            _ask(voices[0], os.urandom(2) + self._question[2:])

    def _on_answered(self) -> None:
        """Our own question came through; one that comes after the end says nothing."""
        if self._timer is not None:
            self._say(self._voices())

    def _say(self, voices: Iterable[Voice]) -> None:
        said = [say_serving(voice.sock, voice.host) for voice in voices]
        if True in said:
            self._note_heard(monotonic())
        if False in said:
            self._note_unheard()
        elif True in said:
            self._tell(is_heard=True)

    def _note_heard(self, now: float) -> None:
        self._counters.count_event("beats_heard")
        if self._heard_at is not None and now - self._heard_at > LIFE_S:
            away_s = now - self._heard_at - LIFE_S
            self._counters.count_event("fallbacks")
            self._counters.fallback_s += away_s
            logger.warning(
                "for %.1f s nothing was answered here, and the kernel led queries to the cluster's"
                " DNS; they are led here again",
                away_s,
            )
        self._heard_at = now

    def _note_unheard(self) -> None:
        self._counters.count_event("beats_unheard")
        now = monotonic()
        if self.is_heard or now >= self._complains_at:
            self._complains_at = now + _COMPLAIN_S
            self.on_unheard()
        self._tell(is_heard=False)

    def _tell(self, *, is_heard: bool) -> None:
        """Logs one line each way."""
        self.is_heard = is_heard
        if is_heard == self._is_told:
            return
        if is_heard:
            logger.info("queries are led here as long as they are answered")
        elif self._is_told:
            logger.warning("the packet filter rules are gone, which lead queries here")
        self._is_told = is_heard


def _ask(voice: Voice, question: bytes) -> None:
    # A full buffer, an address that is gone: then there is no answer, and no beat.
    with contextlib.suppress(OSError):
        voice.sock.sendto(question, socket.MSG_DONTWAIT, (voice.host, voice.port))
