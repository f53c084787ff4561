"""Tells the rules that we serve: an empty datagram, from where we answer, that they eat.

No netlink, no right, no lock: 3 us. The rules keep what they heard for ``LIFE_S``; who stops to say
it, for whatever reason, is not served any more.
"""

from __future__ import annotations

import socket

# Nobody listens there (RFC 863, and unassigned); the rules let no such datagram through.
BEAT_PORT = 9
GOODBYE_PORT = 10
LIFE_S = 1.0
INTERVAL_S = 0.3


def say_serving(sock: socket.socket, host: str) -> bool | None:
    """Says that we serve from now on; returns whether the rules heard it, None if nobody knows.

    Args:
        sock: A UDP socket that is bound to the port that we answer on.
        host: The address of ours to say it to, of the same family.
    """
    return _say(sock, host, BEAT_PORT)


def say_goodbye(sock: socket.socket, host: str) -> bool | None:
    """Says that we do not; see ``say_serving``."""
    return _say(sock, host, GOODBYE_PORT)


def _say(sock: socket.socket, host: str, port: int) -> bool | None:
    try:
        sock.sendto(b"", socket.MSG_DONTWAIT, (host, port))
    except PermissionError:
        return True  # dropped on the way out, as only the rules do
    except OSError:
        return None
    return False
