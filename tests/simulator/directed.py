"""One history for each thing that once went wrong, named as what must hold."""

from __future__ import annotations

from tests.simulator.history import Fault, History, Lookup, Place

FOREVER = 1000.0


def _steady(
    rate: float, seconds: float, stub: str = "once", kind: str = "n", since: float = 0.0
) -> tuple[Lookup, ...]:
    """Look-ups of ever new names, ``rate`` a second."""
    return tuple(
        Lookup(since + index / rate, f"{kind}{index}", stub) for index in range(int(rate * seconds))
    )


def _bursts(size: int, count: int) -> tuple[Lookup, ...]:
    """Look-ups of ever new names, ``size`` at a time, every 20 ms."""
    return tuple(
        Lookup(1.0 + burst * 0.02, f"n{burst * size + index}")
        for burst in range(count)
        for index in range(size)
    )


def _slow(seconds: float) -> History:
    return History(
        ends_at=40.0,
        lookups=_steady(5, 30, since=1.0),
        faults=(Fault("slow", 0.0, FOREVER, value=seconds),),
    )


HISTORIES = {
    # A1
    "a name that takes 1.2 s is answered": History(
        lookups=(Lookup(1.0, "late1"),),
        faults=(Fault("slow_names", 0.0, FOREVER, value=1.2, names="late"),),
        ends_at=10.0,
    ),
    "a name that takes 4 s is answered": History(
        lookups=(Lookup(1.0, "late1"), *_steady(2, 10, since=2.0)),
        faults=(Fault("slow_names", 0.0, FOREVER, value=4.0, names="late"),),
        ends_at=15.0,
    ),
    "an upstream that needs 1 s for every name is asked 1.5 times at most": _slow(1.0),
    "an upstream that needs 3 s for every name is asked twice at most": _slow(3.0),
    # A2
    "an answer that comes after 5.3 s answers who asks then": History(
        lookups=(Lookup(1.0, "late1"), Lookup(6.5, "late1")),
        faults=(Fault("slow_names", 0.0, FOREVER, value=5.3, names="late"),),
        ends_at=20.0,
    ),
    # A3
    "a name that ends each connection takes no other name along": History(
        lookups=tuple(
            sorted(
                [*_steady(10, 20, "glibc", since=1.0), *_steady(4, 15, kind="bad", since=3.0)],
                key=lambda lookup: lookup.at,
            )
        ),
        faults=(Fault("poison", 0.0, FOREVER, names="bad"),),
        ends_at=25.0,
    ),
    "while all upstreams look down, a query is tried": History(
        places=(Place(), Place()),
        lookups=_steady(20, 8, since=1.0),
        faults=(
            Fault("refuses", 0.5, 8.0, upstream=0),
            Fault("refuses", 0.5, 8.0, upstream=1),
        ),
        ends_at=12.0,
    ),
    # A4
    "an upstream that resets after every answer loses nothing": History(
        places=(Place(rtt_s=0.01),),
        lookups=_bursts(20, 30),
        faults=(Fault("resets", 0.0, FOREVER, value=1),),
        ends_at=35.0,
    ),
    "an upstream that allows two connections loses nothing": History(
        places=(Place(rtt_s=0.04),),
        lookups=_bursts(20, 30),
        faults=(Fault("few", 0.0, FOREVER, value=2),),
        ends_at=15.0,
    ),
    # A6
    "datagrams above 512 octets that are lost are asked for over TCP": History(
        places=(Place("udp"),),
        lookups=_steady(2, 10, "go", kind="big", since=1.0),
        faults=(Fault("udp_limit", 0.0, FOREVER, value=512),),
        ends_at=15.0,
    ),
    "datagrams that are cut without TC are asked for over TCP": History(
        places=(Place("udp"),),
        lookups=_steady(2, 10, "go", kind="big", since=1.0),
        faults=(Fault("cut", 0.0, FOREVER),),
        ends_at=15.0,
    ),
    "TCP answers where no datagram does": History(
        places=(Place("udp"),),
        lookups=_steady(2, 10, "tcp", since=1.0),
        faults=(Fault("udp_lost", 0.0, FOREVER, value=1.0),),
        ends_at=15.0,
    ),
    # A8
    "a silent name costs four queries at most": History(
        lookups=(Lookup(1.0, "mute1"),),
        faults=(Fault("silent_names", 0.0, FOREVER, names="mute"),),
        ends_at=10.0,
    ),
    "a malformed answer is asked again twice at most": History(
        lookups=(Lookup(1.0, "n1"),), faults=(Fault("malformed", 0.0, FOREVER),), ends_at=10.0
    ),
    # A9
    "octets behind an answer do no harm": History(
        lookups=(Lookup(1.0, "n1"),), faults=(Fault("trailing", 0.0, FOREVER),), ends_at=10.0
    ),
}
# A5
for _how in (
    "formerr", "formerr_bare", "echo", "notimp", "refused", "servfail", "badvers", "silent",
):  # fmt: skip
    for _transport in ("tcp", "udp"):
        HISTORIES[f"EDNS is left out after {_how} over {_transport}"] = History(
            places=(Place(_transport),),
            lookups=_steady(2, 10, since=1.0),
            faults=(Fault(f"edns_{_how}", 0.0, FOREVER),),
            ends_at=15.0,
        )
# A7
for _value in (0.0, 1.0):
    _how = "hangs" if not _value else "is refused"
    HISTORIES[f"a truncated answer is handed on while TCP {_how}"] = History(
        places=(Place("udp"),),
        lookups=_steady(1, 5, since=1.0),
        faults=(Fault("tc_no_tcp", 0.0, FOREVER, value=_value),),
        ends_at=10.0,
    )
