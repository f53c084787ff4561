"""What a stub resolver is told about itself."""

from __future__ import annotations

import dns.flags
import dns.message
import dns.rcode
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodecache.config.model import Address
from nodecache.directives.whoami.act import whoami_response
from tests.cache.building import AAAA, TXT, A, name
from tests.strategies import U16, names


def additional(qname: str, qtype: int, address: Address, proto: str) -> list[str]:
    question = name(qname) + qtype.to_bytes(2, "big") + b"\0\1"
    message = dns.message.from_wire(whoami_response(question, address, proto))
    assert message.id == 0
    assert message.flags == dns.flags.QR | dns.flags.AA
    assert message.rcode() == dns.rcode.NOERROR
    assert (message.answer, message.authority) == ([], [])
    return [rrset.to_text() for rrset in message.additional]


@pytest.mark.parametrize("qtype", [A, AAAA, TXT])
def test_ipv4_client_gets_a_and_srv_whatever_it_asks(qtype: int) -> None:
    assert additional("who.test", qtype, Address("10.20.30.40", 40212), "udp") == [
        "who.test. 0 IN A 10.20.30.40",
        "_udp.who.test. 0 IN SRV 0 0 40212 .",
    ]


def test_ipv6_client_gets_aaaa_without_the_zone() -> None:
    assert additional("who.test", A, Address("fe80::17%eth0", 5353), "tcp") == [
        "who.test. 0 IN AAAA fe80::17",
        "_tcp.who.test. 0 IN SRV 0 0 5353 .",
    ]


def test_ipv4_client_of_an_ipv6_socket_gets_a() -> None:
    assert additional("who.test", A, Address("::ffff:10.0.0.1", 1), "udp")[0] == (
        "who.test. 0 IN A 10.0.0.1"
    )


def test_root_has_its_service_right_below() -> None:
    assert additional("", A, Address("10.0.0.1", 65535), "udp") == [
        ". 0 IN A 10.0.0.1",
        "_udp. 0 IN SRV 0 0 65535 .",
    ]


def test_unknown_client_has_no_address_record() -> None:
    assert additional("who.test", A, Address("", 0), "udp") == ["_udp.who.test. 0 IN SRV 0 0 0 ."]


def test_name_that_has_no_room_for_the_label_has_no_srv_record() -> None:
    longest = ".".join(["x" * 63] * 3 + ["y" * 61])
    assert [line.split()[3] for line in additional(longest, A, Address("10.0.0.1", 1), "udp")] == [
        "A"
    ]


@given(names(), U16, U16, st.text(max_size=20), U16)
def test_any_question_from_anywhere_gets_a_sound_response(
    qname: bytes, qtype: int, qclass: int, host: str, port: int
) -> None:
    question = qname + qtype.to_bytes(2, "big") + qclass.to_bytes(2, "big")
    response = whoami_response(question, Address(host, port), "udp")
    assert response[12 : 12 + len(question)] == question
    assert len(response) <= 65535
