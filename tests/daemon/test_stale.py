"""An upstream dies, hangs or fails, and comes back: what clients of known names notice."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from statistics import median

import dns.edns
import dns.message
import dns.rcode
import pytest

from nodecache.resolve.stale import RECHECK_S
from tests.daemon.conftest import StartDaemon
from tests.daemon.faulty import Fault, ScriptedUpstream, right_address
from tests.daemon.processes import Daemon, wait_until
from tests.daemon.servers import Upstream, start_knot
from tests.daemon.stubs import addresses, ask, scrape, total, wait_until_answering
from tests.daemon.zone import ORIGIN

TTL_S = 3
STALE_CACHE = f"300 {{\n success 9984 {TTL_S}\n serve_stale 1h verify\n }}"
VERIFY_S = 0.4
MARGIN_S = 1.0  # a busy machine; what is printed is what was measured
NAMES = [f"n{number}.wild.{ORIGIN}" for number in range(10)]


@dataclass(frozen=True)
class Fragile:
    """An upstream, how to break it, and how to mend it."""

    upstream: Upstream | ScriptedUpstream
    break_it: Callable[[], object]
    mend_it: Callable[[], object]


@dataclass
class Visit:
    """One query for each of ``NAMES``."""

    at: float
    waits: list[float] = field(default_factory=list)
    replies: list[dns.message.Message] = field(default_factory=list)

    @property
    def is_fresh(self) -> bool:
        """Whether no reply was stale."""
        return not any(is_stale(reply) for reply in self.replies)


def is_stale(reply: dns.message.Message) -> bool:
    codes = [int(o.code) for o in reply.options if isinstance(o, dns.edns.EDEOption)]
    assert codes in ([], [3])
    if codes:
        assert [rrset.ttl for rrset in reply.answer] == [5]
    return bool(codes)


def visit(daemon: Daemon, names: list[str]) -> Visit:
    """Asks for each name once; every one must be answered."""
    done = Visit(time.monotonic())
    for name in names:
        begun_at = time.monotonic()
        reply = ask(daemon, name, payload=1232)
        done.waits.append(time.monotonic() - begun_at)
        done.replies.append(reply)
        assert reply.rcode() == dns.rcode.NOERROR, reply
        assert reply.answer
    return done


def visit_for(daemon: Daemon, seconds: float) -> list[Visit]:
    """Asks for all names again and again, about ten times a second."""
    end, visits = time.monotonic() + seconds, []
    while time.monotonic() < end:
        visits.append(visit(daemon, NAMES))
        time.sleep(0.1)
    return visits


def stop_and_go(knot: Upstream) -> Fragile:
    return Fragile(
        knot,
        lambda: os.kill(knot.child.pid, signal.SIGSTOP),
        lambda: os.kill(knot.child.pid, signal.SIGCONT),
    )


@pytest.fixture
def own_knot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream]:
    """Knot DNS for one test, which may stop it."""
    upstream = start_knot(tmp_path_factory.mktemp("knot"))
    try:
        upstream.wait_until_serving()
        yield upstream
    finally:
        if upstream.child.process.poll() is None:
            os.kill(upstream.child.pid, signal.SIGCONT)
        upstream.stop()


@pytest.fixture(params=["killed", "stopped", "failing"])
def fragile(request: pytest.FixtureRequest) -> Fragile:
    """Upstreams that end in three manners."""
    if request.param == "failing":
        scripted: ScriptedUpstream = request.getfixturevalue("scripted")
        return Fragile(
            scripted,
            lambda: setattr(scripted, "fails", True),
            lambda: setattr(scripted, "fails", False),
        )
    knot: Upstream = request.getfixturevalue("own_knot")
    if request.param == "stopped":
        return stop_and_go(knot)
    return Fragile(knot, knot.child.kill, knot.restart)


@pytest.mark.slow
def test_hot_names_are_answered_through_an_outage_and_fresh_after_one_recheck(
    daemon_for: StartDaemon, fragile: Fragile
) -> None:
    daemon = daemon_for(fragile.upstream, cache=STALE_CACHE)
    assert all(each.is_fresh for each in visit_for(daemon, 2.0))
    fragile.break_it()
    during = visit_for(daemon, TTL_S + 6.0)
    waits = [wait for each in during for wait in each.waits]
    stale = [each for each in during if not each.is_fresh]
    assert stale, "the outage was never noticed"
    fragile.mend_it()
    mended_at = time.monotonic()
    after: list[Visit] = []

    def is_fresh_again() -> bool:
        after.append(visit(daemon, NAMES))
        return after[-1].is_fresh

    wait_until(is_fresh_again, "all names are fresh")
    fresh_s = after[-1].at - mended_at
    print(
        f"{len(waits)} queries in the outage, 0 lost; slowest {max(waits) * 1000:.0f} ms,"
        f" median {median(waits) * 1000:.2f} ms; all {len(NAMES)} names fresh {fresh_s:.2f} s after"
    )
    assert max(waits) < VERIFY_S + MARGIN_S
    assert median(wait for each in stale[1:] for wait in each.waits) < VERIFY_S / 2
    assert fresh_s < RECHECK_S + 0.5 + MARGIN_S  # half a second is one health probe's interval


def test_first_query_waits_400_ms_for_a_hung_upstream_and_the_second_not_at_all(
    daemon_for: StartDaemon, own_knot: Upstream
) -> None:
    fragile = stop_and_go(own_knot)
    daemon = daemon_for(own_knot, cache=STALE_CACHE)
    visit(daemon, NAMES[:1])
    time.sleep(TTL_S + 0.2)
    fragile.break_it()
    first, second = visit(daemon, NAMES[:1]), visit(daemon, NAMES[:1])
    fragile.mend_it()
    print(f"first {first.waits[0] * 1000:.0f} ms, second {second.waits[0] * 1000:.2f} ms")
    assert not first.is_fresh
    assert not second.is_fresh
    assert VERIFY_S * 0.95 < first.waits[0] < VERIFY_S + MARGIN_S
    assert second.waits[0] < VERIFY_S / 2


@pytest.mark.slow
def test_upstream_known_to_be_dead_makes_no_client_wait(
    daemon_for: StartDaemon, own_knot: Upstream
) -> None:
    """Each name is asked for the first time since its end, so only health can know."""
    daemon = daemon_for(own_knot, cache=STALE_CACHE)
    visit(daemon, NAMES)
    own_knot.child.kill()
    time.sleep(TTL_S + 0.2)
    first = visit(daemon, NAMES[:1])

    def is_down() -> bool:
        return total(scrape(daemon), "coredns_proxy_healthcheck_failures_total") >= 3

    wait_until(is_down, "the probes have failed")
    others = visit(daemon, NAMES[1:])
    assert not others.is_fresh
    print(
        f"first of all {first.waits[0] * 1000:.1f} ms,"
        f" nine others {max(others.waits) * 1000:.1f} ms at most"
    )
    assert median(others.waits) < VERIFY_S / 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault",
    [Fault.WRONG_ID, Fault.WRONG_QUESTION, Fault.ECHO, Fault.GARBAGE, Fault.HALF, Fault.BROKEN],
)
def test_nonsense_never_replaces_a_good_answer(
    daemon_for: StartDaemon, scripted: ScriptedUpstream, fault: Fault
) -> None:
    name = "known.ttl-2.test"
    # Each question has a connection of its own, so the fault begins with the second one.
    daemon = daemon_for(scripted, cache=STALE_CACHE, options="force_tcp\n expire 500ms")
    assert addresses(ask(daemon, name)) == [right_address(name)]
    time.sleep(2.3)
    scripted.later = fault
    for _ in range(3):
        reply = visit(daemon, [name]).replies[0]
        assert is_stale(reply)
        assert addresses(reply) == [right_address(name)]
    scripted.later = Fault.NONE
    wait_until(lambda: visit(daemon, [name]).is_fresh, "a fresh answer")


@pytest.mark.slow
def test_nxdomain_of_a_living_upstream_wins_over_stale(
    daemon_for: StartDaemon, own_knot: Upstream
) -> None:
    daemon = daemon_for(own_knot, cache=STALE_CACHE)
    wait_until_answering(daemon, f"short.{ORIGIN}")
    zone = own_knot.folder / "example.zone"
    zone.write_text(zone.read_text().replace("short   3", "renamed 3"))
    own_knot.stop()
    own_knot.restart()

    def is_gone() -> bool:
        return ask(daemon, f"short.{ORIGIN}").rcode() == dns.rcode.NXDOMAIN

    wait_until(is_gone, "the name is gone")
    own_knot.child.kill()
    time.sleep(TTL_S + 0.2)
    assert is_gone()


@pytest.mark.slow
def test_name_asked_steadily_has_no_miss_but_the_first(
    daemon_for: StartDaemon, scripted: ScriptedUpstream
) -> None:
    name = "hot.wait-30.ttl-5.test"
    daemon = daemon_for(scripted)
    ask(daemon, name)
    slowest, queries, end = 0.0, 0, time.monotonic() + 12.5
    while time.monotonic() < end:
        begun_at = time.monotonic()
        assert ask(daemon, name).answer
        slowest = max(slowest, time.monotonic() - begun_at)
        queries += 1
        time.sleep(0.02)
    samples = scrape(daemon)
    misses = total(samples, "coredns_cache_misses_total")
    print(
        f"{queries} queries in 12.5 s, TTL 5 s, upstream 30 ms: {misses:g} miss,"
        f" {len(scripted.asked_for(name))} questions, slowest hit {slowest * 1000:.1f} ms"
    )
    assert misses == 1
    assert total(samples, "coredns_cache_prefetch_total") >= 2
