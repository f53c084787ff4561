"""What an old and a new daemon say to each other when one takes over from the other, and where.

Knows messages and their bounds; process/descriptors.py carries them, process/predecessor.py and
process/successor.py hold the two ends. The conversation, over ``SOCKET_FILE`` in -rundir::

    successor    hello      who it is
    predecessor  welcome    who it is, how many sockets follow, and the snapshot's descriptor
    predecessor  sockets    names, and as many descriptors; repeated until all are there
    successor    serving    when it answers queries
    predecessor  leaving    when it has stopped to read

Either side may go away at any point before "serving", and then nothing has happened. The
predecessor may say "refused" instead of anything else.

The socket keeps message boundaries (SOCK_SEQPACKET), so each message is one JSON object of at most
MESSAGE_OCTETS that cannot come in halves. Every message carries PROTOCOL, which is judged first.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from nodecache.errors import HandoverError
from nodecache.printing import printable
from nodecache.process.rundir import listen_at

# To be raised by whoever changes a message, or what a name of a socket means.
PROTOCOL = 1

SOCKET_FILE = "handover.sock"
HANDOVER = "handover"  # the name of the listening socket for the next successor

MESSAGE_OCTETS = 32 * 1024
MOST_SOCKETS = 1024
# The kernel carries 253 at a time (SCM_MAX_FD); so many names fit into one message, too.
MOST_IN_BATCH = 128
SNAPSHOT_OCTETS = 256 * 1024 * 1024

_MOST_ADDRESSES = 256
_ADDRESS_CHARACTERS = 64
_NAME_CHARACTERS = 100
_VERSION_CHARACTERS = 64
_REASON_CHARACTERS = 400
_MOST_NUMBER = 2**63 - 1

_CREDENTIALS = struct.Struct("=iII")


@dataclass(frozen=True, slots=True)
class Hello:
    """Who a daemon is.

    Attributes:
        version: Of the program.
        addresses: Those of -localip, at most 256.
        snapshot_format: Of the message cache; others are not read.
        network: The network namespace, see ``network_id``.
    """

    version: str
    addresses: tuple[str, ...]
    snapshot_format: int
    network: int


@dataclass(frozen=True, slots=True)
class Welcome:
    """The predecessor's answer; ``snapshot_octets`` is 0 if no snapshot comes along."""

    identity: Hello
    socket_count: int
    snapshot_octets: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Names of the sockets whose descriptors come along."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Declined:
    """Why the predecessor goes on as before."""

    reason: str


class Word(Enum):
    """What needs no more than a word."""

    SERVING = "serving"
    LEAVING = "leaving"


Said = Hello | Welcome | Batch | Declined | Word


def network_id() -> int:
    """Returns the inode of our network namespace, which tells it from others of this kernel."""
    return Path("/proc/self/ns/net").stat().st_ino


def why_strangers(one: Hello, other: Hello) -> str:
    """Returns why neither of two daemons can take the other's place, or ""."""
    if one.network != other.network:
        return "the two daemons are in different network namespaces"
    ours, theirs = ({_canonical(text) for text in who.addresses} for who in (one, other))
    if ours == theirs or ours & theirs:
        return ""
    return "the two daemons have no -localip in common"


def _canonical(address: str) -> str:
    try:
        return str(ip_address(address))
    except ValueError:
        return address


def peer_user(peer: socket.socket) -> int:
    """Returns the effective user ID of who made the other end of a Unix socket (unix(7))."""
    octets = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(octets)[1])


def open_handover_socket(rundir: Path) -> socket.socket:
    """Returns the listening, non-blocking socket on which successors find us.

    Takes the place of the file that a predecessor left, dead or alive.

    Args:
        rundir: Made with mode 0700 if it is not there.

    Raises:
        SocketError: With the path and the next step.
    """
    return listen_at(rundir / SOCKET_FILE, socket.SOCK_SEQPACKET)


# Messages to octets and back.


def compose_message(message: Said) -> bytes:
    """Returns one message as it is sent.

    Raises:
        HandoverError: It is longer than the other side would accept.
    """
    octets = json.dumps({"protocol": PROTOCOL, **_fields_of(message)}).encode("ascii")
    if len(octets) > MESSAGE_OCTETS:
        raise HandoverError(f"a message of {len(octets)} octets is too long to hand over")
    return octets


def _fields_of(message: Said) -> dict[str, object]:
    match message:
        case Hello():
            return {"type": "hello", **_identity_of(message)}
        case Welcome(identity, sockets, octets):
            more = {"sockets": sockets, "snapshot_octets": octets}
            return {"type": "welcome", **_identity_of(identity), **more}
        case Batch(names):
            return {"type": "sockets", "names": names}
        case Declined(reason):
            return {"type": "refused", "reason": reason[:_REASON_CHARACTERS]}
        case Word():
            return {"type": message.value}


def _identity_of(who: Hello) -> dict[str, object]:
    return {
        "version": who.version,
        "addresses": who.addresses,
        "snapshot_format": who.snapshot_format,
        "network": who.network,
    }


def parse_message(octets: bytes) -> Said:
    """Returns what the other side said.

    Args:
        octets: One message, untrusted.

    Raises:
        HandoverError: Another protocol, or no message of this one.
    """
    try:
        fields = json.loads(octets) if len(octets) <= MESSAGE_OCTETS else None
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        raise HandoverError("the other side sent what is no message")
    protocol = _number(fields, "protocol")
    if protocol != PROTOCOL:
        raise HandoverError(
            f"the other side speaks version {protocol} of the hand-over, this program {PROTOCOL}"
        )
    return _message_of(_text(fields, "type", _NAME_CHARACTERS), fields)


def _message_of(kind: str, fields: Mapping[str, Any]) -> Said:
    match kind:
        case "hello":
            return _parse_identity(fields)
        case "welcome":
            sockets = _number(fields, "sockets", MOST_SOCKETS)
            octets = _number(fields, "snapshot_octets", SNAPSHOT_OCTETS)
            return Welcome(_parse_identity(fields), sockets, octets)
        case "sockets":
            return Batch(_texts(fields, "names", MOST_IN_BATCH, _NAME_CHARACTERS))
        case "refused":
            return Declined(printable(_text(fields, "reason", _REASON_CHARACTERS)))
        case "serving" | "leaving":
            return Word(kind)
    raise HandoverError("the other side sent a message of an unknown type")


def _parse_identity(fields: Mapping[str, Any]) -> Hello:
    return Hello(
        printable(_text(fields, "version", _VERSION_CHARACTERS)),
        _texts(fields, "addresses", _MOST_ADDRESSES, _ADDRESS_CHARACTERS),
        _number(fields, "snapshot_format"),
        _number(fields, "network"),
    )


def _number(fields: Mapping[str, Any], name: str, most: int = _MOST_NUMBER) -> int:
    value = fields.get(name)
    # A bool is an int to Python, not to JSON.
    if type(value) is not int or not 0 <= value <= most:
        raise HandoverError(f'"{name}" is not a number from 0 to {most}')
    return value


def _text(fields: Mapping[str, Any], name: str, most: int) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or len(value) > most:
        raise HandoverError(f'"{name}" is not a text of at most {most} characters')
    return value


def _texts(fields: Mapping[str, Any], name: str, count: int, most: int) -> tuple[str, ...]:
    values = fields.get(name)
    if not isinstance(values, list) or len(values) > count:
        raise HandoverError(f'"{name}" is not a list of at most {count} texts')
    if not all(isinstance(value, str) and len(value) <= most for value in values):
        raise HandoverError(f'"{name}" holds something else than texts of {most} characters')
    return tuple(values)
