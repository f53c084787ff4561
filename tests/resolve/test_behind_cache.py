"""What stands between cache and forward, and who is answered without either."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

import dns.flags
import dns.message
import dns.opcode
import dns.rcode

from nodecache.config.model import CachePolicy, ForwardPolicy
from nodecache.directives.loop.act import LoopGuard
from nodecache.resolve.behind_cache import BehindCache
from nodecache.upstreams.exchange import Failure
from nodecache.wire.reply import compose_opt, extended_error
from nodecache.wire.rrs import RR, Contents, read_contents
from tests.cache.building import CNAME, NOW, A, a, key, name, opt, query, response
from tests.resolve.resolving import FORWARD, Bed, extended_errors

ASKED = name("a.cluster.local")
OTHER = name("other.example")
ADDRESS = struct.pack("!HH", A, 1)


@dataclass
class Fixed:
    """Answers ``qname`` with one address, or with ``octets``."""

    qname: bytes
    octets: bytes | None = None
    name: str = "hosts"
    asked: int = 0

    def respond(self, question: bytes) -> bytes | None:
        self.asked += 1
        if question[:-4] != self.qname:
            return None
        if self.octets is not None:
            return self.octets
        record = RR(self.qname, A, 1, 60, b"\x0a\1\1\1")
        return Contents(0x8580, question, [record]).compose()


@dataclass
class Renamed:
    question: bytes
    original: bytes
    options: bytes = b""
    is_illegal: bool = False

    def rewrite_response(self, response: bytes) -> bytes | None:
        contents = read_contents(response)
        if contents is None:
            return None
        back = [rr._replace(owner=self.original[:-4]) for rr in contents.answer]
        return Contents(contents.flags, self.original, back).compose()


@dataclass
class Renaming:
    """Asks for other.example instead of a.cluster.local."""

    options: bytes = b""
    is_illegal: bool = False

    def rewrite(self, question: bytes) -> Renamed | None:
        if question[:-4] != ASKED:
            return None
        return Renamed(OTHER + question[-4:], question, self.options, self.is_illegal)


def test_answer_of_a_directive_is_cached_like_an_upstreams() -> None:
    hosts = Fixed(ASKED)
    bed = Bed(behind_cache=BehindCache(None, (hosts,)))
    bed.ask(query(), "first")
    assert bed.last("first").answer[0][0].to_text() == "10.1.1.1"
    assert bed.ask_now(query()).answer[0].ttl == 60
    assert (hosts.asked, bed.exchanges) == (1, 0)
    assert bed.series.responses == {(0, "hosts"): 1, (0, "cache"): 1}
    assert bed.resolver.pending_count == 0


def test_question_that_no_directive_takes_is_forwarded() -> None:
    bed = Bed(behind_cache=BehindCache(None, (Fixed(OTHER),)))
    bed.ask(query())
    bed.answer()
    assert bed.last().answer[0][0].to_text() == "10.0.0.1"


def test_directive_answers_though_nothing_is_forwarded() -> None:
    bed = Bed(forwards=(), behind_cache=BehindCache(None, (Fixed(ASKED),)))
    bed.ask(query())
    assert bed.last().rcode() == dns.rcode.NOERROR
    bed.ask(query("b.cluster.local"))
    assert bed.last().rcode() == dns.rcode.SERVFAIL


def test_broken_answer_of_a_directive_is_a_servfail() -> None:
    bed = Bed(behind_cache=BehindCache(None, (Fixed(ASKED, b"\0" * 7 + b"\xff" + b"\0" * 40),)))
    bed.ask(query())
    assert bed.last().rcode() == dns.rcode.SERVFAIL
    assert bed.resolver.pending_count == 0


def test_rewritten_question_is_asked_and_the_answer_goes_back_under_the_old_name() -> None:
    bed = Bed(behind_cache=BehindCache(Renaming(b"\0\3\0\0"), ()))
    bed.ask(query(edns=opt()))
    sent = dns.message.from_wire(b"\0\0" + bed.forwarder.submitted[0].query)
    assert sent.question[0].name.to_text() == "other.example."
    assert [int(option.otype) for option in sent.options] == [3]
    asked = OTHER + ADDRESS
    bed.answer(response(asked + b"\1", [a(30)]))
    reply = bed.last()
    assert reply.question[0].name.to_text() == "a.cluster.local."
    assert reply.answer[0].name.to_text() == "a.cluster.local."
    assert bed.ask_now(query()).answer[0][0].to_text() == "10.0.0.1"
    assert bed.exchanges == 1


def test_responders_see_the_rewritten_question() -> None:
    bed = Bed(behind_cache=BehindCache(Renaming(), (Fixed(OTHER),)))
    bed.ask(query())
    reply = bed.last()
    assert reply.answer[0].name.to_text() == "a.cluster.local."
    assert reply.answer[0][0].to_text() == "10.1.1.1"


def test_response_that_cannot_be_restored_is_malformed() -> None:
    bed = Bed(behind_cache=BehindCache(Renaming(), ()))
    bed.ask(query())
    exchange = bed.forwarder.under_way[0]
    broken = response(OTHER + ADDRESS + b"\1", [a(30)])[:-2]
    bed.forwarder.finish(exchange, broken, NOW)
    assert not exchange.is_done
    bed.answer(Failure.TIMED_OUT)
    assert bed.last().rcode() == dns.rcode.SERVFAIL


def test_question_that_the_rules_make_illegal_is_asked_of_nobody() -> None:
    hosts = Fixed(OTHER)
    bed = Bed(behind_cache=BehindCache(Renaming(is_illegal=True), (hosts,)))
    bed.ask(query())
    assert bed.last().rcode() == dns.rcode.SERVFAIL
    assert (hosts.asked, bed.exchanges) == (0, 0)


def alias(target: bytes = OTHER) -> Fixed:
    """A template that answers with a CNAME."""
    record = RR(ASKED, CNAME, 1, 60, target)
    return Fixed(ASKED, Contents(0x8580, ASKED + ADDRESS, [record]).compose(), "template")


def test_end_of_a_templates_cname_is_asked_for() -> None:
    bed = Bed(behind_cache=BehindCache(None, (alias(),)))
    bed.ask(query())
    exchange = bed.forwarder.asked[0]
    assert exchange.question == OTHER + ADDRESS
    bed.forwarder.finish(exchange, response(OTHER + ADDRESS + b"\1", [a(30)]), bed.now)
    bed.collect()
    assert [rrset[0].to_text() for rrset in bed.last().answer] == ["other.example.", "10.0.0.1"]
    assert len(bed.ask_now(query()).answer) == 2
    assert len(bed.forwarder.asked) == 1


def test_templates_cname_stands_alone_when_its_end_cannot_be_asked() -> None:
    bed = Bed(behind_cache=BehindCache(None, (alias(),)), forwards=())
    bed.ask(query())
    assert len(bed.last().answer) == 1
    failing = Bed(behind_cache=BehindCache(None, (alias(),)))
    failing.ask(query())
    failing.forwarder.finish(failing.forwarder.asked[0], Failure.TIMED_OUT, failing.now)
    failing.collect()
    assert len(failing.last().answer) == 1


def test_extended_error_of_a_template_reaches_who_speaks_edns() -> None:
    contents = Contents(0x8583, ASKED + ADDRESS)
    contents.opt = compose_opt(dnssec_ok=False, options=extended_error(21, b"not here"))
    template = Fixed(ASKED, contents.compose(), "template")
    bed = Bed(behind_cache=BehindCache(None, (template,)))
    bed.ask(query(edns=opt()))
    assert extended_errors(bed.last()) == [21]


def test_next_forward_is_asked_the_rewritten_question() -> None:
    first = replace(FORWARD, next_rcodes=frozenset((3,)))
    bed = Bed(forwards=(first, FORWARD), behind_cache=BehindCache(Renaming(), ()))
    bed.ask(query())
    bed.answer(response(OTHER + ADDRESS + b"\1", rcode=3))
    second = bed.forwarder.under_way[0]
    assert second.question == OTHER + ADDRESS
    bed.answer(response(OTHER + ADDRESS + b"\1", [a(30)]))
    assert bed.last().answer[0].name.to_text() == "a.cluster.local."


def test_whoami_answers_what_is_not_forwarded_with_the_clients_address() -> None:
    bed = Bed(forwards=(), is_whoami=True)
    bed.ask(query())
    reply = bed.last()
    assert [rrset[0].to_text() for rrset in reply.additional if int(rrset.rdtype) == A] == [
        "192.0.2.7"
    ]
    assert bed.series.responses == {(0, "whoami"): 1}
    bed.ask(query())
    assert bed.series.responses == {(0, "whoami"): 2}


def test_forward_without_upstreams_refuses_at_once_and_says_that_it_is_not_ready() -> None:
    bed = Bed(forwards=(ForwardPolicy(FORWARD.origin, ()),))
    reply = bed.ask_now(query(edns=opt()))
    assert (reply.rcode(), extended_errors(reply)) == (dns.rcode.REFUSED, [14])
    assert bed.exchanges == 0


def test_bufsize_bounds_udp_replies_and_what_the_upstream_is_told() -> None:
    bed = Bed(bufsize=512)
    octets = query(edns=opt(4096))
    bed.ask(octets)
    sent = dns.message.from_wire(b"\0\0" + bed.forwarder.submitted[0].query)
    assert sent.payload == 512
    bed.answer(response(key(), [a(30, bytes([10, 0, 0, n])) for n in range(60)]))
    assert bed.last().flags & dns.flags.TC
    assert bed.ask_now(octets).flags & dns.flags.TC
    assert len(bed.ask_now(octets, tcp=True).answer[0]) == 60


def test_looping_block_refuses_misses_but_serves_what_it_knows() -> None:
    bed = Bed()
    bed.ask(query("known.cluster.local"))
    bed.answer()
    guard = LoopGuard(name("x.y"))
    bed.resolver.look_for_loop(bed.state, guard, bed.now)
    assert bed.exchanges == 2
    assert not guard.is_looping
    # What we asked the upstream arrives here as a query.
    looped = bed.ask_now(query("x.y", qtype=13))
    assert looped.rcode() == dns.rcode.SERVFAIL
    assert (guard.has_returned, guard.is_looping) == (True, True)
    assert bed.ask_now(query("b.cluster.local")).rcode() == dns.rcode.SERVFAIL
    assert bed.ask_now(query("known.cluster.local")).rcode() == dns.rcode.NOERROR
    assert bed.exchanges == 2


def test_look_for_a_loop_leaves_nothing_in_cache_nor_log() -> None:
    bed = Bed()
    unanswered = LoopGuard(name("x.y"))
    bed.resolver.look_for_loop(bed.state, unanswered, bed.now)
    bed.answer(Failure.TIMED_OUT)
    assert bed.resolver.results.failures == []
    assert (unanswered.has_failed, unanswered.is_looping) == (True, False)
    bed.resolver.look_for_loop(bed.state, LoopGuard(name("x.z")), bed.now)
    bed.answer(response(key("x.z", 13)))
    assert bed.messages is not None
    assert len(bed.messages) == 0
    assert bed.resolver.pending_count == 0


def test_own_check_is_answered_and_not_counted() -> None:
    bed = Bed(policy=CachePolicy())
    check = struct.pack("!6H", 99, 0x7800, 0, 0, 0, 0) + b"r" * 16
    bed.resolver.self_check = check[2:]
    reply = bed.ask(check)
    assert reply is not None
    assert reply[:2] == check[:2]
    assert dns.rcode.from_flags(reply[3], 0) == dns.rcode.NOTIMP
    assert bed.unserved.requests == {}
    bed.ask(check[:-1] + b"!")
    assert bed.unserved.requests == {0: 1}
