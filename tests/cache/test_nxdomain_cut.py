"""RFC 8020: an NXDOMAIN answers for the names below its own, in zones that the operator named."""

from __future__ import annotations

from dataclasses import replace

import dns.message
import dns.rcode
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodecache.cache.admit import admit_failure, admit_response
from nodecache.cache.carry_over import CarryOver
from nodecache.cache.lifetime import Kind
from nodecache.cache.message import Message
from nodecache.cache.nxdomain_cut import portable_pieces
from nodecache.cache.snapshot import read, restore, write
from nodecache.cache.store import Budget, MessageCache
from nodecache.config.model import CLUSTER_DOMAIN, ROOT, CachePolicy, Name, ServeStale
from nodecache.wire.query import Query, scan_query
from nodecache.wire.reply import compose_reply
from tests.cache.building import (
    AAAA,
    ANY,
    DS,
    NOW,
    SOA,
    TXT,
    A,
    a,
    cname,
    key,
    name,
    query,
    record,
    response,
    soa,
)
from tests.strategies import MadeResponse, responses

RRSIG, NSEC = 46, 47
CORP = Name("corp.example.", name("corp.example"))
POLICY = CachePolicy(nxdomain_cut=(CLUSTER_DOMAIN, CORP))
GONE, BELOW = "gone.cluster.local", "a.b.gone.cluster.local"


def cutting(policy: CachePolicy = POLICY) -> MessageCache:
    return MessageCache(policy, Budget(1 << 20), CLUSTER_DOMAIN.wire)


def keep(
    store: MessageCache,
    host: str,
    rcode: int = 0,
    qtype: int = A,
    answer: list[bytes] | None = None,
    now: float = NOW,
    bits: int = 1,
) -> None:
    asked = key(host, qtype, bits)
    records = [] if rcode else [a()]
    authority = [soa()] if rcode == 3 else []
    octets = response(asked, records if answer is None else answer, authority, rcode=rcode)
    assert admit_response(octets, asked, store, now, 0.5) is not None


def denied(store: MessageCache, host: str, qtype: int = A, now: float = NOW) -> bool:
    """Whether an NXDOMAIN is served for the question."""
    found = store.find(key(host, qtype), now)
    return found is not None and found.expires_at > now and found.kind is Kind.NXDOMAIN


def as_reply(message: Message, host: str, now: float) -> dns.message.Message:
    asked = scan_query(query(host))
    assert isinstance(asked, Query)
    rest = compose_reply(asked, message.flags, message.counts, message.records(now), 4096)
    return dns.message.from_wire(b"\0\0" + rest)


@pytest.mark.parametrize("qtype", [A, AAAA, TXT, DS, RRSIG, ANY])
def test_known_nxdomain_answers_everything_below_it(qtype: int) -> None:
    store = cutting()
    keep(store, GONE, rcode=3)
    assert denied(store, GONE, qtype)
    assert denied(store, "x." + GONE, qtype)
    assert denied(store, BELOW, qtype)
    assert store.find(key("other.cluster.local", qtype), NOW) is None
    assert store.find(key("xgone.cluster.local", qtype), NOW) is None
    assert store.find(key("local", qtype), NOW) is None


def test_without_the_option_nothing_below_is_answered() -> None:
    store = cutting(CachePolicy())
    keep(store, GONE, rcode=3)
    assert denied(store, GONE, AAAA)
    assert store.find(key(BELOW), NOW) is None


def test_only_zones_with_the_option_have_cuts() -> None:
    store = cutting()
    for host in ("gone.example", "gone.corp.example", "corp.example"):
        keep(store, host, rcode=3)
    assert store.find(key("a.gone.example"), NOW) is None
    assert denied(store, "a.gone.corp.example")
    assert denied(store, "a.corp.example")
    assert denied(store, "gone.corp.example", AAAA)
    assert store.find(key("gone.example", AAAA), NOW) is None


def test_root_has_cuts_everywhere() -> None:
    store = cutting(CachePolicy(nxdomain_cut=(ROOT,)))
    keep(store, "nosuchtld", rcode=3)
    assert denied(store, "www.nosuchtld")


def test_rd_cd_do_and_class_are_kept_apart() -> None:
    store = cutting()
    keep(store, GONE, rcode=3, bits=5)
    assert store.find(key(BELOW, bits=5), NOW) is not None
    for bits in (0, 1, 3, 4, 7):
        assert store.find(key(BELOW, bits=bits), NOW) is None
    assert store.find(key(BELOW, bits=5, qclass=3), NOW) is None


def test_reply_has_the_soa_the_remaining_ttl_and_its_own_question() -> None:
    store = cutting()
    keep(store, GONE, rcode=3)
    found = store.find(key(BELOW), NOW + 11.5)
    assert found is not None
    reply = as_reply(found, BELOW, NOW + 11.5)
    assert reply.rcode() == dns.rcode.NXDOMAIN
    assert reply.question[0].name.to_text() == BELOW + "."
    assert (reply.answer, reply.additional) == ([], [])
    (rrset,) = reply.authority
    assert rrset.to_text() == "cluster.local. 19 IN SOA . . 1 2 3 4 30"


def test_records_that_point_into_the_question_fit_every_question() -> None:
    store, asked = cutting(), key(GONE)
    origin = b"\xc0" + bytes([12 + 5])
    rdata = b"\2ns\3dns" + origin + b"\4root" + origin + bytes(19) + b"\x1e"
    octets = response(asked, [], [record(SOA, 30, rdata, origin)], rcode=3)
    assert admit_response(octets, asked, store, NOW, 0.5) is not None
    for host in (GONE, BELOW):
        found = store.find(key(host), NOW)
        assert found is not None
        (rrset,) = as_reply(found, host, NOW).authority
        assert rrset.to_text() == (
            "cluster.local. 30 IN SOA ns.dns.cluster.local. root.cluster.local. 0 0 0 0 30"
        )


def test_proof_by_nsec_is_moved_and_other_records_end_no_names() -> None:
    nsec = record(NSEC, 30, name("h.cluster.local") + b"\0\1\x40", name("f.cluster.local"))
    asked = key(GONE)
    for authority, additional, cuts in (
        ([soa(), nsec], [], True),
        ([soa(), a()], [], False),
        ([soa()], [a()], False),
        ([soa(), *[nsec] * 32], [], False),
    ):
        store = cutting()
        octets = response(asked, [], authority, additional, rcode=3)
        assert admit_response(octets, asked, store, NOW, 0.5) is not None
        assert denied(store, GONE, TXT)
        assert denied(store, BELOW) == cuts


def test_nxdomain_behind_an_alias_denies_nothing_below() -> None:
    store = cutting()
    keep(store, GONE, rcode=3, answer=[cname(30, "nowhere.example")])
    assert denied(store, GONE)
    assert store.find(key(BELOW), NOW) is None


def test_expired_and_failed_messages_never_cut() -> None:
    store = cutting(replace(POLICY, serve_stale=ServeStale(3600.0)))
    keep(store, GONE, rcode=3)
    assert denied(store, BELOW, now=NOW + 29.9)
    assert store.find(key(BELOW), NOW + 30.1) is None
    keep(store, "failed.cluster.local", rcode=2)
    assert store.find(key("a.failed.cluster.local"), NOW) is None


def test_failure_does_not_hide_a_cut() -> None:
    store = cutting()
    admit_failure(key(BELOW), store, NOW)
    keep(store, GONE, rcode=3)
    assert denied(store, BELOW)


@pytest.mark.parametrize(
    ("rcode", "answer"), [(0, None), (3, [cname(30, "nowhere.example")])], ids=["data", "alias"]
)
def test_proof_that_a_name_below_exists_ends_the_cut(
    rcode: int, answer: list[bytes] | None
) -> None:
    store = cutting()
    keep(store, GONE, rcode=3)
    keep(store, "b." + GONE, rcode=3)
    keep(store, BELOW, rcode, answer=answer)
    assert store.find(key(GONE), NOW) is None
    assert store.find(key("x.b." + GONE), NOW) is None
    assert store.find(key(BELOW), NOW) is not None


def test_what_is_kept_of_a_name_wins_over_a_later_cut() -> None:
    store = cutting()
    keep(store, BELOW)
    keep(store, GONE, rcode=3)
    assert not denied(store, BELOW)
    assert store.find(key(BELOW, AAAA), NOW) is None  # asked, so that both families agree
    assert denied(store, "other." + GONE)
    # Once it has expired, the name itself is asked again rather than denied from above.
    keep(store, GONE, rcode=3, now=NOW + 29)
    found = store.find(key(BELOW), NOW + 30.5)
    assert found is not None
    assert found.expires_at < NOW + 30.5


def test_nearest_of_several_cuts_answers() -> None:
    store = cutting()
    keep(store, GONE, rcode=3)
    keep(store, "b." + GONE, rcode=3)
    found = store.find(key(BELOW), NOW)
    assert found is store.peek(key("b." + GONE))


def test_cut_that_left_cuts_no_more() -> None:
    store = cutting()
    keep(store, GONE, rcode=3)
    cut = store.peek(key(GONE))
    assert cut is not None
    store.remove(cut)
    assert store.find(key(BELOW), NOW) is None
    assert store._nxdomain_cuts is not None
    assert len(store._nxdomain_cuts) == 0


def test_longest_names_are_looked_through_and_no_octets_raise() -> None:
    store = cutting(CachePolicy(nxdomain_cut=(ROOT,)))
    keep(store, "z", rcode=3)
    assert denied(store, "a." * 126 + "z")
    assert not denied(store, "a." * 127)


def test_cuts_come_back_from_a_snapshot_by_the_rules_of_their_new_place() -> None:
    store = cutting(CachePolicy())
    keep(store, GONE, rcode=3)
    octets = b"".join(write([(b"rules", store)], b"boot", NOW))
    for policy, cuts in ((POLICY, True), (CachePolicy(), False)):
        filled = cutting(policy)
        assert sum(restore(read(octets, b"boot", NOW).sections[b"rules"], filled, NOW)) == 1
        assert denied(filled, GONE, AAAA)
        assert denied(filled, BELOW) == cuts


def test_reload_gives_and_takes_cuts() -> None:
    store = cutting(CachePolicy())
    keep(store, GONE, rcode=3)
    with_cuts, without = cutting(), cutting(CachePolicy())
    CarryOver(store, with_cuts, NOW, lambda _: True)
    assert denied(with_cuts, BELOW)
    keep(with_cuts, "gone.corp.example", rcode=3)
    CarryOver(with_cuts, without, NOW, lambda _: True)
    assert denied(without, GONE, TXT)
    assert store.find(key(BELOW), NOW) is None
    assert without.find(key("gone.corp.example", TXT), NOW) is None


@given(made=responses())
def test_any_records_are_moved_whole_or_not_at_all(made: MadeResponse) -> None:
    moved = replace(made, answer=[])
    asked = moved.question + b"\1"
    if admit_response(moved.octets, asked, (store := cutting()), NOW, 0.5) is None:
        return
    message = store.peek(asked)
    pieces = None if message is None else portable_pieces(message)
    if message is not None and pieces is not None:
        twin = Message(asked, Kind.NXDOMAIN, message.flags, message.counts, pieces, 30.0, NOW)
        assert len(pieces) == len(message.pieces)
        assert portable_pieces(twin) == pieces


@given(host=st.text(st.sampled_from("ab."), min_size=1, max_size=40))
def test_only_names_below_are_denied(host: str) -> None:
    labels = [label for label in host.split(".") if label]
    store = cutting(CachePolicy(nxdomain_cut=(ROOT,)))
    keep(store, "a.b", rcode=3)
    assert denied(store, ".".join(labels) or ".") == (labels[-2:] == ["a", "b"])
