"""What stubs get when the upstream lies, breaks off or goes silent: never a wrong answer."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import dns.rcode
import pytest

from tests.daemon.conftest import StartDaemon
from tests.daemon.faulty import POISON, Fault, ScriptedUpstream, right_address
from tests.daemon.processes import wait_until
from tests.daemon.servers import Upstream, start_knot
from tests.daemon.stubs import (
    addresses,
    ask,
    make_query,
    scrape,
    timed_ask,
    total,
    udp_socket,
    wait_until_answering,
)
from tests.daemon.zone import ORIGIN

# A response whose records are broken answers its query (with SERVFAIL), so it has tests of its own.
FAULTS = [fault for fault in Fault if fault is not Fault.NONE]
NAMES = [fault.name.lower() for fault in FAULTS]


@pytest.mark.parametrize("fault", FAULTS, ids=NAMES)
def test_the_next_connection_answers_within_a_second(
    daemon_for: StartDaemon, scripted: ScriptedUpstream, fault: Fault
) -> None:
    scripted.faults.append(fault)
    daemon = daemon_for(scripted)
    for number in range(10):
        name = f"n{number}.{fault.name.lower()}.test"
        reply, seconds = timed_ask(daemon, name)
        assert reply.rcode() == dns.rcode.NOERROR
        assert addresses(reply) == [right_address(name)]
        assert seconds < 1
    assert not scripted.faults, "the fault never happened"


@pytest.mark.parametrize("fault", FAULTS, ids=NAMES)
def test_no_stub_is_told_anything_wrong_while_most_connections_misbehave(
    daemon_for: StartDaemon, scripted: ScriptedUpstream, fault: Fault
) -> None:
    scripted.faults.extend([fault, fault, fault, Fault.NONE] * 4)
    daemon = daemon_for(scripted)
    names = [f"m{number}.{fault.name.lower()}.test" for number in range(60)]
    with ThreadPoolExecutor(20) as pool:
        replies = list(pool.map(lambda name: ask(daemon, name), names))
    for name, reply in zip(names, replies, strict=True):
        if reply.rcode() == dns.rcode.NOERROR:
            assert addresses(reply) == [right_address(name)]
        else:
            assert reply.rcode() == dns.rcode.SERVFAIL
            assert not reply.answer
    for name in names:  # nothing wrong was kept either
        assert addresses(ask(daemon, name)) in ([], [right_address(name)])


@pytest.mark.parametrize("fault", [Fault.WRONG_QUESTION, Fault.SILENCE, Fault.HALF, Fault.RESET])
def test_an_upstream_that_never_answers_right_ends_in_servfail(
    daemon_for: StartDaemon, scripted: ScriptedUpstream, fault: Fault
) -> None:
    scripted.later = fault
    daemon = daemon_for(scripted)
    reply = ask(daemon, f"x.{fault.name.lower()}.test", payload=1232)
    assert reply.rcode() == dns.rcode.SERVFAIL
    assert reply.answer == []
    scripted.later = Fault.NONE
    wait_until_answering(daemon, "after.test")


def test_records_that_end_too_early_are_never_passed_on(
    daemon_for: StartDaemon, scripted: ScriptedUpstream
) -> None:
    scripted.later = Fault.BROKEN
    daemon = daemon_for(scripted)
    for number in range(10):
        reply = ask(daemon, f"broken{number}.test", tcp=number % 2 == 0)
        assert reply.rcode() == dns.rcode.SERVFAIL
        assert reply.answer == []
    daemon.wait_for_log("malformed")


def test_a_name_that_is_cached_is_served_while_the_upstream_is_silent(
    daemon_for: StartDaemon, scripted: ScriptedUpstream
) -> None:
    daemon = daemon_for(scripted)
    assert addresses(ask(daemon, "kept.test")) == [right_address("kept.test")]
    scripted.later = Fault.SILENCE
    with udp_socket(daemon) as sock:
        for number in range(50):
            sock.send(make_query(f"lost{number}.test").to_wire())
        for _ in range(50):
            reply, seconds = timed_ask(daemon, "kept.test")
            assert addresses(reply) == [right_address("kept.test")]
            assert seconds < 1


def test_names_of_any_octets_may_fail_without_harm(
    daemon_for: StartDaemon, scripted: ScriptedUpstream
) -> None:
    scripted.later = Fault.FIN
    daemon = daemon_for(scripted)
    header = bytes.fromhex("abcd01000001000000000000")
    labels = [bytes(range(1, 64)), bytes(range(128, 191)), b"\r\n[INFO] forged", b"\0.\\\xff"]
    with udp_socket(daemon) as sock:
        for label in labels:
            sock.send(header + bytes([len(label)]) + label + b"\0\0\1\0\1")
            reply = sock.recv(65535)
            assert reply[:2] == b"\xab\xcd"
            assert reply[3] & 0xF == dns.rcode.SERVFAIL
    scripted.later = Fault.NONE
    wait_until_answering(daemon, "after.test")
    daemon.wait_for_log(r"\\191|\\190")
    assert "\n[INFO] forged" not in daemon.log()


def test_an_upstream_that_is_killed_and_started_again_answers_again(
    daemon_for: StartDaemon, own_knot: Upstream
) -> None:
    daemon = daemon_for(own_knot)
    assert addresses(ask(daemon, f"plain.{ORIGIN}")) == ["192.0.2.1"]
    own_knot.child.kill()
    assert addresses(ask(daemon, f"plain.{ORIGIN}")) == ["192.0.2.1"]
    reply = ask(daemon, f"dual.{ORIGIN}")
    assert reply.rcode() == dns.rcode.SERVFAIL
    own_knot.restart()
    wait_until_answering(daemon, f"mailless.wild.{ORIGIN}")
    wait_until_answering(daemon, f"dual.{ORIGIN}")


def test_a_restart_of_the_upstream_between_two_queries_goes_unnoticed(
    daemon_for: StartDaemon, own_knot: Upstream
) -> None:
    daemon = daemon_for(own_knot)
    for number in range(3):
        assert addresses(ask(daemon, f"r{number}.wild.{ORIGIN}")) == ["192.0.2.77"]
        own_knot.child.kill()
        own_knot.restart()
    assert addresses(ask(daemon, f"last.wild.{ORIGIN}")) == ["192.0.2.77"]


def test_of_two_upstreams_the_living_one_answers(
    daemon_for: StartDaemon, scripted: ScriptedUpstream, own_knot: Upstream
) -> None:
    targets = f"{own_knot.host}:{own_knot.port} {scripted.host}:{scripted.port}"
    daemon = daemon_for(targets, options="force_tcp\n        policy round_robin")
    own_knot.child.kill()
    for number in range(20):
        name = f"two{number}.test"
        reply, seconds = timed_ask(daemon, name)
        assert addresses(reply) == [right_address(name)]
        assert seconds < 1


def test_wrong_datagrams_before_the_right_one_are_passed_over(
    daemon_for: StartDaemon, scripted: ScriptedUpstream
) -> None:
    scripted.udp_noise = True
    daemon = daemon_for(scripted, options="max_fails 2")
    for number in range(20):
        name = f"noise{number}.wait-5.test"
        reply, seconds = timed_ask(daemon, name)
        assert addresses(reply) == [right_address(name)]
        assert seconds < 1
    assert total(scrape(daemon), "nodecache_upstream_strays_total") >= 60


def test_the_poison_of_these_tests_would_be_seen(
    daemon_for: StartDaemon, scripted: ScriptedUpstream
) -> None:
    daemon = daemon_for(scripted)
    assert POISON not in addresses(ask(daemon, "plain.test"))
    assert [asked.name for asked in scripted.asked] == ["plain.test"]


def test_wrong_answers_are_counted(daemon_for: StartDaemon, scripted: ScriptedUpstream) -> None:
    scripted.faults.append(Fault.WRONG_ID)
    daemon = daemon_for(scripted)
    ask(daemon, "counted.test")

    def is_counted() -> bool:
        return total(scrape(daemon), "nodecache_upstream_strays_total") >= 1

    wait_until(is_counted, "the stray is counted")


@pytest.fixture
def own_knot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream]:
    """Knot DNS for one test, which may kill it."""
    upstream = start_knot(tmp_path_factory.mktemp("knot"))
    try:
        upstream.wait_until_serving()
        yield upstream
    finally:
        upstream.stop()
