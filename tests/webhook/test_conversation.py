from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodecache.webhook.conversation import (
    MOST_BODY_OCTETS,
    MOST_HEAD_OCTETS,
    Conversation,
    Phase,
    Reply,
    Request,
)

GOOD = Reply(200, b"yes\n")


def post(body: bytes, *fields: str, path: str = "/inject?timeout=2s") -> bytes:
    head = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *fields, "", ""]
    return "\r\n".join(head).encode() + body


def ask(conversation: Conversation, octets: bytes) -> Request | Reply | None:
    conversation.receive(octets)
    return conversation.take()


def test_a_request_is_read_as_it_was_sent() -> None:
    request = ask(Conversation(), post(b"{}", "Content-Type: application/json"))
    assert request == Request("POST", "/inject", "application/json", b"{}")


def test_pieces_make_the_same_request_as_the_whole() -> None:
    conversation, whole = Conversation(), post(b"{}")
    *before, last = (ask(conversation, whole[i : i + 1]) for i in range(len(whole)))
    assert before == [None] * (len(whole) - 1)
    assert last == Request("POST", "/inject", "", b"{}")


def test_a_body_in_chunks_is_joined() -> None:
    chunked = b"POST /inject HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    request = ask(Conversation(), chunked + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
    assert isinstance(request, Request)
    assert request.body == b"abcde"


def test_phases_follow_the_request() -> None:
    conversation, whole = Conversation(), post(b"{}")
    phases = [conversation.phase]
    for piece in (whole[:10], whole[10:-1], whole[-1:]):
        ask(conversation, piece)
        phases.append(conversation.phase)
    conversation.answer(GOOD)
    phases.append(conversation.phase)
    assert phases == [Phase.IDLE, Phase.HEAD, Phase.BODY, Phase.BODY, Phase.IDLE]


def test_answers_are_one_piece_and_leave_the_connection_open() -> None:
    conversation = Conversation()
    for _ in range(3):
        assert isinstance(ask(conversation, post(b"{}")), Request)
        head, _, body = conversation.answer(GOOD).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"Content-Length: 4" in head
        assert b"close" not in head
        assert body == b"yes\n"
    assert not conversation.has_ended


def test_the_last_answer_says_that_it_is_the_last() -> None:
    conversation = Conversation()
    ask(conversation, post(b"{}"))
    assert b"Connection: close" in conversation.answer(GOOD, is_last=True)
    assert conversation.has_ended
    assert ask(conversation, post(b"{}")) is None


def test_a_client_that_wants_to_close_is_let_go() -> None:
    conversation = Conversation()
    ask(conversation, post(b"{}", "Connection: close"))
    conversation.answer(GOOD)
    assert conversation.has_ended


def test_requests_that_come_together_are_answered_in_order() -> None:
    conversation = Conversation()
    first = ask(conversation, post(b"1") + post(b"2") + post(b"3")[:20])
    conversation.answer(GOOD)
    second = conversation.take()
    conversation.answer(GOOD)
    assert isinstance(first, Request)
    assert isinstance(second, Request)
    assert (first.body, second.body) == (b"1", b"2")
    assert conversation.take() is None
    assert conversation.phase is Phase.HEAD


def test_a_head_has_a_bound() -> None:
    endless = b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * (MOST_HEAD_OCTETS + 1)
    refusal = ask(Conversation(), endless)
    assert isinstance(refusal, Reply)
    assert (refusal.status, refusal.fault) == (431, "malformed")


def test_a_body_that_is_announced_as_too_long_is_refused_before_it_comes() -> None:
    conversation = Conversation()
    length = str(MOST_BODY_OCTETS + 1).encode()
    head = b"POST /inject HTTP/1.1\r\nHost: x\r\nContent-Length: " + length + b"\r\n\r\n"
    refusal = ask(conversation, head)
    assert isinstance(refusal, Reply)
    assert (refusal.status, refusal.fault) == (413, "too_large")
    assert b"Connection: close" in conversation.answer(refusal)
    assert not conversation.has_ended  # the client may still send: it is to read why first
    assert conversation.phase is Phase.OVER


def test_a_body_without_a_length_has_the_same_bound() -> None:
    conversation = Conversation()
    ask(conversation, b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    piece = b"10000\r\n" + b"a" * 65536 + b"\r\n"
    found = [ask(conversation, piece) for _ in range(MOST_BODY_OCTETS // 65536)]
    assert set(found) == {None}
    assert conversation.gathered == MOST_BODY_OCTETS
    refusal = ask(conversation, piece)
    assert isinstance(refusal, Reply)
    assert refusal.status == 413


def test_a_client_that_asks_before_it_sends_is_told_to_go_on() -> None:
    conversation = Conversation()
    ask(conversation, post(b"{}", "Expect: 100-continue")[:-2])
    assert conversation.interim().startswith(b"HTTP/1.1 100 ")
    assert conversation.interim() == b""
    assert isinstance(ask(conversation, b"{}"), Request)


def test_head_gets_no_body() -> None:
    conversation = Conversation()
    ask(conversation, b"HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert conversation.answer(GOOD).endswith(b"\r\n\r\n")
    assert conversation.phase is Phase.IDLE


@pytest.mark.parametrize(
    "octets",
    [
        b"\x16\x03\x01 not HTTP\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",  # no Host
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
    ],
)
def test_what_is_no_http_is_refused_and_ends_the_connection(octets: bytes) -> None:
    conversation = Conversation()
    refusal = ask(conversation, octets)
    assert isinstance(refusal, Reply)
    assert refusal.fault == "malformed"
    assert conversation.answer(refusal).startswith(b"HTTP/1.1 ")
    assert conversation.phase is Phase.OVER


def test_nobody_gets_a_tunnel() -> None:
    conversation = Conversation()
    refusal = ask(conversation, b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n")
    assert isinstance(refusal, Reply)
    assert (refusal.status, refusal.fault) == (405, "method")
    assert conversation.answer(refusal).startswith(b"HTTP/1.1 405 ")
    assert conversation.phase is Phase.OVER


def test_an_upgrade_that_is_asked_for_is_left_out() -> None:
    conversation = Conversation()
    upgrade = "Upgrade: websocket\r\nConnection: upgrade"
    assert isinstance(ask(conversation, post(b"{}", upgrade)), Request)
    assert conversation.answer(GOOD).startswith(b"HTTP/1.1 200 ")
    assert conversation.has_ended


WORDS = [
    b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    post(b"{}"),
    b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n",
    b"Upgrade: websocket\r\nConnection: upgrade\r\n\r\n",
    b"\r\n",
    b"HTTP/1.0 200\r\n",
    b"\0",
]
PIECES = st.sampled_from(WORDS) | st.binary(max_size=30)


@given(st.lists(PIECES, max_size=12), st.booleans())
def test_no_octets_raise(pieces: list[bytes], is_last: bool) -> None:
    conversation = Conversation()
    for piece in filter(None, pieces):
        conversation.receive(piece)
        for _ in range(20):
            found = conversation.take()
            if found is None:
                break
            reply = GOOD if isinstance(found, Request) else found
            assert conversation.answer(reply, is_last=is_last)
        conversation.interim()
