"""Domain names in presentation format, and CIDR blocks as reverse zones, turned into ``Name``.

Pure text work; knows nothing of the Corefile around a name.
"""

from __future__ import annotations

import ipaddress
import re

from nodecache.config.model import ROOT, Name

_MAX_LABEL_OCTETS = 63  # RFC 1035 section 2.3.4
_MAX_NAME_OCTETS = 255
_MAX_OCTET = 255

_ESCAPE_OR_DOT = re.compile(r"\\([0-9]{3})|\\([^0-9])|(\.)|([^\\.])")
# Octets that stand for themselves in presentation format (RFC 1035 section 5.1).
_PLAIN = frozenset(range(0x21, 0x7F)) - frozenset(b'."()$;@\\')


def parse_name(text: str) -> Name:
    """Returns the name that ``text`` means, in lower case; the final dot may be left out.

    Escapes are those of RFC 1035 section 5.1 (a backslash and a character, or three digits).

    Raises:
        ValueError: With a sentence saying why it is no domain name.
    """
    if not text:
        raise ValueError("an empty word is no domain name")
    if text == ".":
        return ROOT
    labels = _split_labels(text)
    if labels[-1] == b"":
        labels.pop()
    if not labels or b"" in labels:
        raise ValueError("a domain name has no empty label; remove the surplus dot")
    if max(map(len, labels)) > _MAX_LABEL_OCTETS:
        raise ValueError("a label of a domain name has at most 63 octets")
    if sum(len(label) + 1 for label in labels) + 1 > _MAX_NAME_OCTETS:
        raise ValueError("a domain name has at most 255 octets")
    return _from_labels(labels)


def parse_zones(text: str) -> tuple[Name, ...]:
    """Returns the zones that a name or a CIDR block stands for.

    A prefix that does not end on an octet (IPv4) or nibble (IPv6) boundary becomes all the
    zones of the next boundary: 10.0.0.0/23 is two zones (RFC 2317 delegation is not used).

    Raises:
        ValueError: With a sentence saying why it is neither.
    """
    if "/" not in text:
        return (parse_name(text),)
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError("neither a domain name nor an address block such as 10.0.0.0/8") from None
    return _reverse_zones(network)


def _split_labels(text: str) -> list[bytes]:
    labels = [bytearray()]
    position = 0
    while position < len(text):
        match = _ESCAPE_OR_DOT.match(text, position)
        if match is None:
            raise ValueError("a backslash in a domain name needs a character or three digits")
        digits, escaped, dot, plain = match.groups()
        if dot:
            labels.append(bytearray())
        else:
            labels[-1].append(_octet(digits, escaped or plain))
        position = match.end()
    return [bytes(label) for label in labels]


def _octet(digits: str | None, character: str | None) -> int:
    """The octet in lower case that an escape or a character stands for."""
    value = int(digits) if digits else ord(character or "\0")
    if digits and value > _MAX_OCTET:
        raise ValueError("a domain name's escape goes up to \\255")
    if not digits and value >= 0x7F:
        raise ValueError("write an international domain name in its xn-- form")
    if not digits and value <= 0x20:
        raise ValueError("a domain name holds no blanks and no control characters")
    return value + 0x20 if 0x41 <= value <= 0x5A else value


def _from_labels(labels: list[bytes]) -> Name:
    wire = b"".join(bytes((len(label),)) + label for label in labels) + b"\0"
    return Name("".join(_label_text(label) + "." for label in labels), wire)


def _label_text(label: bytes) -> str:
    return "".join(chr(octet) if octet in _PLAIN else f"\\{octet:03d}" for octet in label)


def _reverse_zones(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> tuple[Name, ...]:
    step = 8 if network.version == 4 else 4
    suffix = "in-addr.arpa" if network.version == 4 else "ip6.arpa"
    boundary = -(-network.prefixlen // step) * step
    zones = []
    for part in network.subnets(new_prefix=boundary):
        labels = part.network_address.reverse_pointer.split(".")
        total = part.max_prefixlen // step
        kept = labels[total - boundary // step : total]
        zones.append(parse_name(".".join([*kept, suffix])))
    return tuple(zones)
