"""A pod's processes that resolve names by glibc at a steady rate; says in JSON what they met.

It asks as its resolv.conf says: search list, options, and the second nameserver after a time-out.

Standard library only, and no import of the tests: it is a program of its own.
"""

from __future__ import annotations

import argparse
import json
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from time import monotonic, sleep

_THREADS = 4
_SLOW_S = 0.9  # a time-out of one second, the shortest that resolv.conf can say
_HOT_NAMES = 50
_FRESH_EACH = 10  # look-ups: one is for a name that nobody asked before
_SERVICE_EACH = 4  # look-ups: one is for a Service, by the search list


@dataclass
class Tally:
    """What became of all look-ups; times are seconds since the start."""

    began: float
    asked: int = 0
    failed: list[tuple[float, str, str]] = field(default_factory=list)
    slow: list[tuple[float, str, float]] = field(default_factory=list)
    longest_s: float = 0.0

    def look_up(self, name: str) -> None:
        """Resolves a name as programs do: IPv4 and IPv6."""
        began = monotonic()
        try:
            socket.getaddrinfo(name, 53, type=socket.SOCK_DGRAM)
        except socket.gaierror as error:
            self.failed.append((round(began - self.began, 3), name, str(error)))
        took = monotonic() - began
        self.asked += 1
        self.longest_s = max(self.longest_s, took)
        if took >= _SLOW_S:
            self.slow.append((round(began - self.began, 3), name, round(took, 3)))


def names(label: str) -> Iterator[str]:
    """Yields what to ask for: Services, names that are cached, and names that are not."""
    for number in count():
        if number % _SERVICE_EACH == 0:
            yield "web"
        elif number % _FRESH_EACH == 1:
            yield f"f{number}-{label}.wild.example.test"
        else:
            yield f"h{number % _HOT_NAMES}.wild.example.test"


def ask(tally: Tally, label: str, pause_s: float, seconds: float) -> None:
    """Resolves a name each ``pause_s`` as long as answers keep up, for so many seconds."""
    for number, name in enumerate(names(label)):
        at = tally.began + number * pause_s
        if at > tally.began + seconds:
            return
        sleep(max(0.0, at - monotonic()))
        if monotonic() < tally.began + seconds:
            tally.look_up(name)


def main() -> int:
    """Prints one line of JSON at the end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, required=True, help="look-ups a second")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--start", type=float, required=True, help="when, in monotonic seconds")
    parser.add_argument("--label", required=True, help="makes its fresh names its own")
    arguments = parser.parse_args()
    tallies = [Tally(arguments.start + n / arguments.rate) for n in range(_THREADS)]
    pause_s = _THREADS / arguments.rate
    askers = [
        threading.Thread(target=ask, args=(t, f"{arguments.label}{n}", pause_s, arguments.seconds))
        for n, t in enumerate(tallies)
    ]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    report = {
        "asked": sum(tally.asked for tally in tallies),
        "failed": sorted(each for tally in tallies for each in tally.failed),
        "slow": sorted(each for tally in tallies for each in tally.slow),
        "longest_s": max(tally.longest_s for tally in tallies),
    }
    sys.stdout.write(json.dumps(report) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
