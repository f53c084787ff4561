from __future__ import annotations

import socket
import sys

import pytest

from nodecache.net.pktinfo import (
    CONTROL_OCTETS,
    MOST_CONTROL_OCTETS,
    interface_span,
    keep_destination,
    without_interface,
)

HOSTS = {socket.AF_INET: ("0.0.0.0", "127.0.0.9"), socket.AF_INET6: ("::", "::1")}


@pytest.mark.parametrize("family", HOSTS)
def test_reply_leaves_from_the_address_that_was_asked_whatever_the_interface(
    family: socket.AddressFamily,
) -> None:
    wildcard, asked = HOSTS[family]
    with (
        socket.socket(family, socket.SOCK_DGRAM) as sock,
        socket.socket(family, socket.SOCK_DGRAM) as client,
    ):
        keep_destination(sock)
        sock.bind((wildcard, 0))
        client.settimeout(5)
        client.connect((asked, sock.getsockname()[1]))  # a reply from elsewhere would not arrive
        client.send(b"query")
        octets, control, _, address = sock.recvmsg(512, CONTROL_OCTETS[family])
        (message,) = control
        cleared = without_interface(family, message)
        sock.sendmsg([octets], [cleared], 0, address)
        assert client.recv(512) == b"query"
    span = interface_span(family)
    data_at = socket.CMSG_LEN(0)
    here = slice(span.start - data_at, span.stop - data_at)
    loopback = socket.if_nametoindex("lo")
    assert int.from_bytes(message[2][here], sys.byteorder) == loopback
    assert cleared[2] == message[2][: here.start] + bytes(4) + message[2][here.stop :]
    assert len(message[2]) + data_at <= CONTROL_OCTETS[family] <= MOST_CONTROL_OCTETS
