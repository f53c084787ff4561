"""When the rules are told that we serve; what they do then is tested in tests/netns."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from nodecache.counters import Counters
from nodecache.serving import beating as module
from nodecache.serving.beating import Beat, Voice
from tests.loops import run, until

HOST = "127.0.0.1"


@dataclass
class Resolver:
    """Stands in for the miss path: has what the beat sets."""

    own_question: bytes = b""
    on_own_question: Callable[[], None] = lambda: None


@dataclass
class BeatingHouse:
    """A listener that reads its own question, and rules that hear or do not.

    Attributes:
        is_answering: Whether somebody reads what comes in.
        hears: What the rules make of a beat.
        said: What they were told, in order.
        reads_until: When the second ends in which something was read.
    """

    sock: socket.socket
    is_answering: bool = True
    hears: bool | None = True
    said: list[str] = field(default_factory=list)
    reads_until: float = 0.0
    complaints: int = 0
    resolver: Resolver = field(default_factory=Resolver)
    counters: Counters = field(default_factory=Counters)

    def voices(self) -> list[Voice]:
        return [Voice(self.sock, HOST, self.sock.getsockname()[1], lambda: self.reads_until)]

    def read(self) -> None:
        octets = self.sock.recv(512)
        if self.is_answering and octets[2:] == self.resolver.own_question:
            self.resolver.on_own_question()

    def hear(self, word: str) -> bool | None:
        self.said.append(word)
        return self.hears

    def complain(self) -> None:
        self.complaints += 1


@pytest.fixture
def house(monkeypatch: pytest.MonkeyPatch) -> Iterator[BeatingHouse]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((HOST, 0))
        sock.setblocking(False)
        house = BeatingHouse(sock)
        monkeypatch.setattr(module, "say_serving", lambda *_: house.hear("serving"))
        monkeypatch.setattr(module, "say_goodbye", lambda *_: house.hear("goodbye"))
        monkeypatch.setattr(module, "INTERVAL_S", 0.02)
        yield house


def live(house: BeatingHouse, body: Callable[[Beat], Awaitable[None]]) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        resolver: Any = house.resolver
        beat = Beat(resolver, house.voices, house.counters, loop)
        beat.on_unheard = house.complain
        loop.add_reader(house.sock, house.read)
        try:
            await body(beat)
        finally:
            beat.stop()
            loop.remove_reader(house.sock)

    run(main())


def test_rules_are_told_again_and_again_while_we_answer_ourselves(house: BeatingHouse) -> None:
    async def body(beat: Beat) -> None:
        beat.start()
        await until(lambda: len(house.said) >= 3)
        assert beat.is_heard

    live(house, body)
    assert set(house.said) == {"serving"}
    assert house.counters.events["beats_heard"] == len(house.said)


def test_nothing_is_said_while_our_own_question_is_not_answered(house: BeatingHouse) -> None:
    async def body(beat: Beat) -> None:
        house.is_answering = False
        beat.start()
        await asyncio.sleep(0.2)
        assert house.said == []
        house.is_answering = True
        await until(lambda: bool(house.said))

    live(house, body)


def test_full_queue_that_loses_our_question_is_served_all_the_same(house: BeatingHouse) -> None:
    async def body(beat: Beat) -> None:
        house.is_answering = False
        house.reads_until = time.monotonic() + 1000
        beat.start()
        await until(lambda: len(house.said) >= 3)

    live(house, body)


def test_rules_that_do_not_hear_are_looked_at_but_not_each_time(
    house: BeatingHouse, caplog: pytest.LogCaptureFixture
) -> None:
    async def body(beat: Beat) -> None:
        beat.start()
        await until(lambda: beat.is_heard)
        house.hears = False
        await until(lambda: house.counters.events.get("beats_unheard", 0) >= 5)
        assert not beat.is_heard
        house.hears = True
        await until(lambda: beat.is_heard)

    with caplog.at_level(logging.INFO, "nodecache"):
        live(house, body)
    assert house.complaints == 1
    assert [record.getMessage() for record in caplog.records] == [
        "queries are led here as long as they are answered",
        "the packet filter rules are gone, which lead queries here",
        "queries are led here as long as they are answered",
    ]


def test_beat_that_could_not_be_sent_says_nothing_about_the_rules(house: BeatingHouse) -> None:
    async def body(beat: Beat) -> None:
        house.hears = None
        beat.start()
        await until(lambda: len(house.said) >= 3)
        assert not beat.is_heard

    live(house, body)
    assert house.complaints == 0
    assert house.counters.events == {}


def test_silence_that_outlived_a_beat_is_counted_and_told(
    house: BeatingHouse, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LIFE_S", 0.1)

    async def body(beat: Beat) -> None:
        beat.start()
        await until(lambda: beat.is_heard)
        house.is_answering = False
        await asyncio.sleep(0.4)
        house.is_answering = True
        await until(lambda: "fallbacks" in house.counters.events)

    with caplog.at_level(logging.WARNING, "nodecache"):
        live(house, body)
    assert house.counters.events["fallbacks"] >= 1
    assert house.counters.fallback_s >= 0.1
    assert "the kernel led queries to the cluster's DNS" in caplog.text


def test_goodbye_is_the_last_word(house: BeatingHouse) -> None:
    async def body(beat: Beat) -> None:
        beat.start()
        await until(lambda: beat.is_heard)
        beat.say_goodbye()
        said = len(house.said)
        assert house.said[-1] == "goodbye"
        house.resolver.on_own_question()  # was under way
        await asyncio.sleep(0.1)
        assert len(house.said) == said
        assert not beat.is_heard

    live(house, body)


def test_without_a_voice_nothing_is_said(house: BeatingHouse) -> None:
    async def body(beat: Beat) -> None:
        beat._voices = list
        beat.start()
        await asyncio.sleep(0.1)

    live(house, body)
    assert house.said == []
