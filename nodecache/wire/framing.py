"""The two-octet length framing of DNS over TCP (RFC 1035 section 4.2.2, RFC 7766 section 8)."""

from __future__ import annotations

from nodecache.wire.const import U16


def frame(message: bytes) -> bytes:
    """Returns ``message`` (at most 65535 octets) behind its length."""
    return U16.pack(len(message)) + message


class Deframer:
    """Turns a stream of octets, cut anywhere, into messages.

    Holds at most one incomplete message (65537 octets) besides what was fed last.
    """

    __slots__ = ("_partial",)

    def __init__(self) -> None:
        self._partial = bytearray()

    def feed(self, octets: bytes) -> list[bytes]:
        """Returns the messages that ``octets`` complete, in order.

        An empty one is b"": the caller passes it over, but counts it, or whoever sends nothing
        else could keep a connection for ever.
        """
        partial = self._partial
        if partial:
            # Appended in place, looked at only when whole: a message that drips in octet by
            # octet would be copied 65535 times otherwise.
            partial += octets
            if len(partial) < 2 or len(partial) - 2 < (partial[0] << 8 | partial[1]):
                return []
            octets = bytes(partial)
            partial.clear()
        return self._split(octets)

    def _split(self, buffer: bytes) -> list[bytes]:
        messages = []
        start, end = 0, len(buffer)
        while end - start >= 2:
            stop = start + 2 + (buffer[start] << 8 | buffer[start + 1])
            if stop > end:
                break
            messages.append(buffer[start + 2 : stop])
            start = stop
        self._partial += buffer[start:]
        return messages

    @property
    def pending_octets(self) -> int:
        """Octets of an incomplete message that wait for the rest."""
        return len(self._partial)

    @property
    def announced_octets(self) -> int:
        """Length of the incomplete message, 0 if there is none or it is not known yet."""
        partial = self._partial
        return partial[0] << 8 | partial[1] if len(partial) >= 2 else 0
