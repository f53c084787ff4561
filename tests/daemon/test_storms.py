"""A flood of names that do not exist, over real sockets: hot names stay hits, and it is counted."""

from __future__ import annotations

import dns.message
import dns.rcode
import dns.rrset
import pytest

from tests.daemon import faulty
from tests.daemon.conftest import StartDaemon
from tests.daemon.faulty import ScriptedUpstream
from tests.daemon.processes import Daemon
from tests.daemon.stubs import ask, make_query, scrape, total, udp_socket

HOT = [f"hot{n}.test" for n in range(10)]
ROUNDS = 150
FLOOD = 10  # unique NXDOMAIN names for each hot query
SOA = "ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 30"


@pytest.fixture
def cluster(scripted: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch) -> ScriptedUpstream:
    """An upstream that knows no name of cluster.local."""
    answer = faulty._answer

    def deny(query: dns.message.Message, address: str | None = None) -> dns.message.Message:
        if not query.question[0].name.to_text().endswith("cluster.local."):
            return answer(query, address)
        response = dns.message.make_response(query, recursion_available=True)
        response.set_rcode(dns.rcode.NXDOMAIN)
        response.authority.append(dns.rrset.from_text("cluster.local.", 30, "IN", "SOA", SOA))
        return response

    monkeypatch.setattr(faulty, "_answer", deny)
    return scripted


def flood(daemon: Daemon) -> None:
    """Asks each hot name 150 times, ten new names before each time."""
    once = 0
    with udp_socket(daemon) as sock:
        for _ in range(ROUNDS):
            for host in HOT:
                names = [f"once{once + n}.example.com.prod.svc.cluster.local" for n in range(FLOOD)]
                once += FLOOD
                for each in [*names, host]:
                    sock.send(make_query(each).to_wire())
                for _ in range(FLOOD + 1):
                    sock.recv(65535)


@pytest.mark.slow
def test_hot_names_stay_hits_under_a_storm_and_the_scrape_says_where_it_comes_from(
    cluster: ScriptedUpstream, daemon_for: StartDaemon
) -> None:
    # Longer than a slow machine takes, or the hot names would be refreshed once.
    daemon = daemon_for(cluster, cache="60")
    flood(daemon)
    queries = ROUNDS * len(HOT)
    missed = [asked for asked in list(cluster.asked) if asked.name in HOT]
    ratio = 1 - len(missed) / queries
    print(f"{queries} hot queries among {queries * FLOOD} others: {ratio:.2%} hits")
    assert ratio >= 0.99
    samples = scrape(daemon)
    name = "nodecache_nxdomain_total"
    # The daemon's one zone is the root; a hundred responses make a suffix below it.
    assert total(samples, name, suffix="cluster.local.") == queries * FLOOD - 100
    assert total(samples, name, suffix=".") == 100
    assert total(samples, name) == queries * FLOOD


def test_pair_of_questions_costs_one_exchange_and_a_cut_spares_the_rest(
    cluster: ScriptedUpstream, daemon_for: StartDaemon
) -> None:
    daemon = daemon_for(cluster, cache="30 {\n        nxdomain_cut cluster.local\n    }")
    gone = "gone.prod.svc.cluster.local"
    for name in (gone, f"a.{gone}", f"b.a.{gone}"):
        for rdtype in ("A", "AAAA", "SRV"):
            reply = ask(daemon, name, rdtype)
            assert reply.rcode() == dns.rcode.NXDOMAIN
            (soa,) = reply.authority
            assert soa.to_text().split(" ", 2)[2] == f"IN SOA {SOA}"
    assert [asked.name for asked in cluster.asked] == [gone]
    assert ask(daemon, gone, payload=1232, tcp=True).rcode() == dns.rcode.NXDOMAIN
