"""How many clients there may be, and how much of what they send: bounds over all connections.

Anybody in the cluster may connect. Who asks for nothing makes room for who does. Knows no socket.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

MOST_CONNECTIONS = 128  # an API server has one or a few; 260 KB each with what TLS keeps
MOST_OCTETS = 32 * 1024 * 1024  # of bodies that are still incomplete: four of the largest


def nothing() -> None:
    """Does it: nobody is there to be told."""


@dataclass(slots=True, eq=False)
class Guest:
    """One connection, from accept on.

    Attributes:
        abort: Ends it at once, whatever it does.
        leave: Ends it if it waits for the next request, else after this one.
        is_busy: Has begun a request that is not answered.
        octets: What it has sent of a body.
    """

    abort: Callable[[], None] = nothing
    leave: Callable[[], None] = nothing
    is_busy: bool = False
    octets: int = 0


class Room:
    """The connections that are open, who waits longest first.

    Attributes:
        is_leaving: Each connection ends with its next answer.
    """

    def __init__(self, most: int = MOST_CONNECTIONS, most_octets: int = MOST_OCTETS) -> None:
        self.is_leaving = False
        self._most = most
        self._free_octets = most_octets
        self._guests: dict[Guest, None] = {}

    def __len__(self) -> int:
        return len(self._guests)

    @property
    def in_flight(self) -> int:
        """How many requests have begun and are not answered."""
        return sum(guest.is_busy for guest in self._guests)

    def admit(self) -> tuple[Guest, bool]:
        """Returns the place of a new connection, and whether another had to go for it.

        That is who has waited longest of those who ask for nothing; of all, if everybody asks.
        """
        has_evicted = len(self._guests) >= self._most
        if has_evicted:
            guests = list(self._guests)
            oldest = next((guest for guest in guests if not guest.is_busy), guests[0])
            self.remove(oldest)
            oldest.abort()
        guest = Guest()
        self._guests[guest] = None
        return guest, has_evicted

    def remove(self, guest: Guest) -> None:
        """Gives a place up, known or not, and what was gathered there."""
        self._guests.pop(guest, None)
        self.gather(guest, 0)

    def refresh(self, guest: Guest) -> None:
        """Notes that somebody was answered."""
        if guest in self._guests:
            self._guests[guest] = self._guests.pop(guest)

    def gather(self, guest: Guest, octets: int) -> bool:
        """Notes how much of a body has come; returns whether there is room for that."""
        self._free_octets += guest.octets - octets
        guest.octets = octets
        return self._free_octets >= 0

    def leave(self) -> None:
        """Has everybody leave who waits, and the others after their next answer."""
        self.is_leaving = True
        for guest in list(self._guests):
            guest.leave()

    def abort(self) -> None:
        """Ends all connections at once."""
        for guest in list(self._guests):
            guest.abort()
