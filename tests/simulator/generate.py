"""Makes histories from seeds."""

from __future__ import annotations

import random

from tests.simulator.faults import KINDS
from tests.simulator.history import Blink, Fault, History, Lookup, Place
from tests.simulator.stubs import MANNERS

LEAST_CALM_S, MOST_CALM_S = 4.0, 25.0
LEAST_FAULT_S, MOST_FAULT_S = 2.0, 25.0
FIRST_FAULT_AT = 5.0
LAST_CALM_S = 10.0
BURST_EACH_S = 20.0
NAMES = 60  # that are asked again and again
FRESH = 0.3  # the share of names that nobody asked before
# What names are made of, by how often.
NAME_KINDS = ("n", "n", "n", "n", "none", "four", "big", "huge", "late", "mute", "bad")
COMPOSED = {
    "blink": "resolv.conf names other upstreams, or none",
    "rolls": "the servers behind an address are restarted, one by one",
}
FAULTY_NAMES = ("late", "mute", "bad")
STUBS = (*MANNERS, "glibc", "glibc", "musl")


def generate(seed: int, minutes: float, fault: str = "") -> History:
    """Returns the history of a seed; all its faults are of the kind ``fault`` if that is given.

    That may be one of COMPOSED, too. Raises KeyError for a kind that there is not.
    """
    dice = random.Random(seed)
    ends_at = minutes * 60.0
    transport = KINDS[fault].needs if fault in KINDS else ""
    places = _places(dice, transport)
    troubles = _troubles(dice, places, ends_at, fault)
    return History(
        seed=seed,
        places=places,
        stale=dice.choice(("off", "off", "immediate", "verify")),
        selection=dice.choice(("random", "round_robin", "sequential")),
        ends_at=ends_at,
        lookups=_lookups(dice, ends_at),
        faults=tuple(each for each in troubles if isinstance(each, Fault)),
        blinks=tuple(each for each in troubles if isinstance(each, Blink)),
    )


def _places(dice: random.Random, transport: str) -> tuple[Place, ...]:
    transport = transport or dice.choice(("tcp", "tcp", "udp"))
    is_ordered = dice.random() < 0.4
    return tuple(
        Place(
            transport,
            dice.choice((0.0003, 0.001, 0.01, 0.04)),
            dice.choice((1, 1, 3, 4)),
            is_ordered,
            dice.choice((0, 0, 0, 0, 0, 4)),
        )
        for _ in range(dice.choice((1, 1, 2, 3)))
    )


def _troubles(
    dice: random.Random, places: tuple[Place, ...], ends_at: float, fault: str
) -> list[Fault | Blink]:
    troubles: list[Fault | Blink] = []
    at = FIRST_FAULT_AT
    while at < ends_at - LAST_CALM_S:
        until = min(at + dice.uniform(LEAST_FAULT_S, MOST_FAULT_S), ends_at - LAST_CALM_S)
        count = dice.choice((1, 1, 1, 2))
        for _ in range(count):
            troubles += _trouble(dice, places, at, until, fault)
        at = until + dice.uniform(LEAST_CALM_S, MOST_CALM_S)
    return troubles


def _trouble(
    dice: random.Random, places: tuple[Place, ...], at: float, until: float, fault: str
) -> list[Fault] | list[Blink]:
    at, until = round(at + dice.random(), 3), round(until, 3)
    upstream = dice.randrange(len(places))
    place = places[upstream]
    fitting = [kind for kind in KINDS if KINDS[kind].needs in ("", place.transport)]
    name = fault or dice.choice([*fitting, *COMPOSED])
    if name == "blink":
        others = tuple(index for index in range(len(places)) if dice.random() < 0.5)
        return [Blink(at, max(until, at + 0.1), others)]
    if name == "rolls":
        return _roll(dice, upstream, place.backends, at)
    kind = KINDS[name]
    is_one = kind.of_one and place.backends > 1 and dice.random() < 0.7
    return [
        Fault(
            name,
            at,
            max(until, at + 0.1),
            upstream,
            dice.randrange(place.backends) if is_one else -1,
            dice.choice(kind.values),
            dice.choice(FAULTY_NAMES) if kind.is_named else "",
        )
    ]


def _roll(dice: random.Random, upstream: int, backends: int, at: float) -> list[Fault]:
    """Restarts one server behind an address after the other."""
    each_s = dice.uniform(1.0, 4.0)
    return [
        Fault(
            "dies",
            round(at + index * each_s, 3),
            round(at + (index + 1) * each_s, 3),
            upstream,
            index,
        )
        for index in range(backends)
    ]


def _lookups(dice: random.Random, ends_at: float) -> tuple[Lookup, ...]:
    rate = dice.choice((1.0, 2.0, 4.0))
    lookups = []
    at, burst_at, fresh = 0.5, dice.uniform(0, BURST_EACH_S), NAMES
    while at < ends_at:
        fresh += 1
        size = 1
        if at > burst_at:
            size = dice.choice((10, 20, 40))
            burst_at = at + dice.expovariate(1 / BURST_EACH_S)
        for _ in range(size):
            fresh += 1
            lookups.append(Lookup(round(at, 3), _name(dice, fresh), dice.choice(STUBS)))
        at += dice.expovariate(rate)
    return tuple(lookups)


def _name(dice: random.Random, fresh: int) -> str:
    number = fresh if dice.random() < FRESH else int(NAMES * dice.random() ** 2)
    return f"{dice.choice(NAME_KINDS)}{number}"
