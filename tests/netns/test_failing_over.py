"""Who answers, as the nftables table has it: we while we say so, else the cluster's DNS.

Each fact is shown for pods and for processes of the node, both families, UDP and TCP, and with
what we serve untracked or tracked.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator

import pytest

from nodecache.config.node import Backend
from nodecache.host import beat, nftables, rules
from nodecache.host.programs import Deadline
from nodecache.host.table import compose
from tests.daemon.processes import PATIENCE_S, wait_until
from tests.kept import Kept
from tests.netns.failing_over import (
    BACKENDS,
    BACKENDS6,
    CLUSTER_NAME,
    NODE_NAME,
    OLD_TABLE,
    PLAN,
    SILENCE,
    TRANSPORTS,
    RuledNode,
    any_source,
    ask,
    ask_over,
    bed_of_two,
    open_socket,
    ports,
    put_addresses,
)
from tests.netns.test_pod import ip
from tests.netns.topology import ADDRESSES, CLUSTER, LOCAL, LOCAL6, inside

pytestmark = [pytest.mark.root, pytest.mark.netns]

CASES = tuple(itertools.product(ADDRESSES, TRANSPORTS))
LONG = 6600  # 401 addresses


@pytest.fixture(scope="module")
def beds() -> Iterator[Kept[RuledNode]]:
    with Kept(bed_of_two) as kept:
        yield kept


@pytest.fixture
def bed(beds: Kept[RuledNode], request: pytest.FixtureRequest) -> Iterator[RuledNode]:
    """The namespaces, without rules and without anybody who serves."""
    bed = beds.get(request)
    try:
        yield bed
    finally:
        bed.clear()


@pytest.fixture(params=["untracked", "tracked"])
def ruled(request: pytest.FixtureRequest, bed: RuledNode) -> RuledNode:
    """The namespaces with our table."""
    assert bed.install(is_tracked=request.param == "tracked").covered
    return bed


def who_answers(bed: RuledNode) -> set[str]:
    """Returns who answers the pod and the node, by all addresses and transports."""
    return {
        ask(where, address, transport)
        for where in (bed.pod, bed.node)
        for address, transport in CASES
    }


def wait_until_served(bed: RuledNode) -> None:
    """Returns when all are answered here; on a busy machine a beat may come late."""
    wait_until(lambda: who_answers(bed) == {NODE_NAME}, "not served")


def test_cluster_dns_answers_until_somebody_says_that_he_serves(ruled: RuledNode) -> None:
    assert who_answers(ruled) == {CLUSTER_NAME}
    ruled.serve()
    wait_until_served(ruled)


def test_goodbye_leads_the_next_packet_away(ruled: RuledNode) -> None:
    worker = ruled.serve()
    wait_until_served(ruled)
    worker.set_serving(False)
    assert who_answers(ruled) == {CLUSTER_NAME}


@pytest.mark.parametrize(("address", "transport"), CASES)
def test_packet_that_finds_no_socket_is_answered_by_the_cluster(
    ruled: RuledNode, address: str, transport: str
) -> None:
    worker = ruled.serve()
    assert ask(ruled.pod, address, transport) == NODE_NAME
    worker.close()
    with ports(ruled.pod, any_source(address)) as client:
        asked = client.ask_udp if transport == "udp" else client.ask_tcp
        assert asked(address, 1, PATIENCE_S).startswith(CLUSTER_NAME)
    assert "expires" not in ruled.nft("list", "set", "inet", "nodecache", "beat")


@pytest.mark.parametrize(("address", "transport"), CASES)
def test_process_of_the_node_finds_no_socket_once(
    ruled: RuledNode, address: str, transport: str
) -> None:
    """What it sent was let through on its way out; what it sends next goes to the cluster."""
    worker = ruled.serve()
    assert ask(ruled.node, address, transport) == NODE_NAME
    worker.close()
    with ports(ruled.node, any_source(address)) as client:
        asked = client.ask_udp if transport == "udp" else client.ask_tcp
        answers = [asked(address, 1, patience_s) for patience_s in (0.1, PATIENCE_S)]
    assert answers[1].startswith(CLUSTER_NAME)


def test_who_hangs_is_given_up_with_his_last_beat(ruled: RuledNode) -> None:
    ruled.serve().hang()
    time.sleep(beat.LIFE_S + 0.05)
    assert who_answers(ruled) == {CLUSTER_NAME}


def test_cluster_address_is_led_by_kube_proxy_alone(ruled: RuledNode) -> None:
    assert who_answers(ruled) == {CLUSTER_NAME}
    zones = {zone for zone in ("zone-orig=53 ", "zone-orig=54 ") if ruled.tracked(zone)}
    assert zones == {"zone-orig=53 "}
    led, plain = ruled.tracked("zone-orig=53 "), ruled.tracked()
    assert len(plain) == 2 * len(led) == 2 * len(CASES)


@pytest.mark.parametrize("address", ADDRESSES)
def test_answer_under_way_arrives_after_a_goodbye(ruled: RuledNode, address: str) -> None:
    """What is asked next over the same connection finds the cluster's DNS, which knows none."""
    with (
        open_socket(ruled.node, address, "udp", 53) as udp,
        open_socket(ruled.node, address, "tcp", 53) as listener,
        ports(ruled.pod, any_source(address)) as client,
    ):
        listener.listen()
        listener.settimeout(PATIENCE_S)
        assert beat.say_serving(udp, address)
        udp.settimeout(PATIENCE_S)
        client.udp.settimeout(PATIENCE_S)
        client.udp.sendto(b"query", (address, 53))
        _, peer = udp.recvfrom(100)
        with client.connect(address) as stream, listener.accept()[0] as accepted:
            assert beat.say_goodbye(udp, address)
            udp.sendto(b"answer", peer)
            accepted.sendall(b"answer")
            assert client.udp.recvfrom(100)[1][:2] == (address, 53)
            assert stream.recv(100) == b"answer"
            with pytest.raises(ConnectionResetError):
                ask_over(stream)


@pytest.mark.parametrize("is_served", [False, True])
def test_one_socket_may_ask_all_addresses_of_a_family(ruled: RuledNode, is_served: bool) -> None:
    """As musl does; the reply to each comes from where it was sent."""
    if is_served:
        ruled.serve()
    for where in (ruled.pod, ruled.node):
        for pair in (ADDRESSES[:2], ADDRESSES[2:]):
            with ports(where, any_source(pair[0])) as client:
                client.udp.settimeout(PATIENCE_S)
                for _ in range(10):
                    for address in pair:
                        client.udp.sendto(b"1", (address, 53))
                    found = {client.udp.recvfrom(100)[1][0] for _ in pair}
                    assert found == set(pair)


@pytest.mark.parametrize(("address", "transport"), CASES)
def test_port_used_before_leads_where_a_fresh_one_would(
    ruled: RuledNode, address: str, transport: str
) -> None:
    """Entries of connection tracking hold no flow at who answered before."""
    worker = ruled.serve()
    for where in (ruled.pod, ruled.node):
        with ports(where, any_source(address)) as client, ports(where, any_source(address)) as two:
            for is_served in (True, False, True, False, False, True):
                worker.set_serving(is_served)
                if transport == "udp":
                    found = client.ask_udp(address)
                else:
                    with client.connect(address, port=two.port) as connection:
                        found = ask_over(connection)
                wanted = NODE_NAME if is_served else CLUSTER_NAME
                assert found.startswith(wanted), (where, is_served)


@pytest.mark.parametrize("is_served", [False, True])
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_long_answer_comes_whole(ruled: RuledNode, transport: str, is_served: bool) -> None:
    if is_served:
        ruled.serve()
    wanted = NODE_NAME if is_served else CLUSTER_NAME
    for where in (ruled.pod, ruled.node):
        for address, octets in itertools.product(ADDRESSES, (500, LONG)):
            assert ask(where, address, transport, octets) == wanted, (where, address)


def test_address_that_is_gone_is_answered_by_the_cluster(ruled: RuledNode) -> None:
    """Though somebody says that he serves."""
    ruled.serve((CLUSTER, *ADDRESSES[2:]))
    try:
        ip("-n", ruled.node, "address", "del", f"{LOCAL}/32", "dev", "local0")
        for where, transport in itertools.product((ruled.pod, ruled.node), TRANSPORTS):
            assert ask(where, LOCAL, transport) == CLUSTER_NAME
            assert ask(where, CLUSTER, transport) == NODE_NAME
    finally:
        ip("-n", ruled.node, "address", "add", f"{LOCAL}/32", "dev", "local0")


def test_interface_that_is_gone_takes_nothing_with_it(ruled: RuledNode) -> None:
    worker = ruled.serve()
    try:
        ip("-n", ruled.node, "link", "del", "local0")
        assert who_answers(ruled) == {CLUSTER_NAME}
    finally:
        put_addresses(ruled.node)
    worker.heard = None
    wait_until(lambda: worker.heard, "not heard again")
    wait_until_served(ruled)


@pytest.mark.parametrize("command", ["flush table", "delete table", "flush ruleset"])
def test_who_beats_sees_that_another_took_the_rules(ruled: RuledNode, command: str) -> None:
    worker = ruled.serve()
    table = [] if command == "flush ruleset" else ["inet", "nodecache"]
    kube_proxy = ruled.nft("list", "table", "inet", "kube_proxy")
    try:
        ruled.nft(*command.split(), *table)
        wait_until(lambda: worker.heard is False, "still heard")
        with inside(ruled.node):
            assert not rules.stands(ruled.plan)
    finally:
        if command == "flush ruleset":
            ruled.nft("-f", "-", stdin=kube_proxy)
    ruled.install(is_tracked=ruled.plan.is_tracked)
    wait_until(lambda: worker.heard, "not heard again")
    wait_until_served(ruled)


def test_nothing_that_is_served_is_tracked(bed: RuledNode) -> None:
    bed.install()
    bed.serve()
    wait_until_served(bed)
    assert bed.tracked() == []


def test_own_questions_reach_us_while_nobody_is_served(ruled: RuledNode) -> None:
    """They are told by where they come from; nothing tracks them either."""
    ruled.serve().set_serving(False)
    for address, transport in CASES:
        with ports(ruled.node, "::1" if ":" in address else "127.0.0.1") as client:
            assert client.ask(address, transport) == NODE_NAME
    assert ruled.tracked() == []
    assert who_answers(ruled) == {CLUSTER_NAME}


@pytest.mark.parametrize("address", ADDRESSES)
def test_socket_reaches_itself_while_nobody_is_served(ruled: RuledNode, address: str) -> None:
    with open_socket(ruled.node, address, "udp", 53) as own:
        own.settimeout(PATIENCE_S)
        own.sendto(b"question", (address, 53))
        assert own.recv(100) == b"question"
    assert ruled.tracked() == []


def test_other_ports_are_nothing_to_the_rules(ruled: RuledNode) -> None:
    """Neither their queries nor their replies: served or not, tracked as ever."""
    for is_served in (False, True):
        with (
            open_socket(ruled.node, LOCAL, "udp", 54) as server,
            open_socket(ruled.pod, "0.0.0.0", "udp", 53) as client,
        ):
            server.settimeout(PATIENCE_S)
            client.settimeout(PATIENCE_S)
            client.sendto(b"query", (LOCAL, 54))
            server.sendto(*server.recvfrom(100))
            assert client.recvfrom(100) == (b"query", (LOCAL, 54))
        assert len(ruled.tracked("dport=54 ")) == 1
        if not is_served:
            ruled.serve()


def test_nobody_but_who_has_our_port_can_say_that_we_serve(ruled: RuledNode) -> None:
    for where, source, port in ((ruled.pod, "0.0.0.0", 53), (ruled.node, "127.0.0.1", 53),
                                (ruled.node, LOCAL, 5353)):  # fmt: skip
        with open_socket(where, source, "udp", port) as stranger:
            assert not beat.say_serving(stranger, LOCAL)
    assert who_answers(ruled) == {CLUSTER_NAME}


@pytest.mark.parametrize("is_wildcard", [False, True])
def test_socket_without_an_address_serves_only_where_it_is_ours(
    bed: RuledNode, is_wildcard: bool
) -> None:
    """What else may be bound so, once we are gone, is not asked in our place."""
    bed.install(is_wildcard=is_wildcard)
    bed.serve(ADDRESSES[2:], "::")
    for address in ADDRESSES:
        assert ask(bed.pod, address, "tcp") == (NODE_NAME if is_wildcard else CLUSTER_NAME)


def test_form_without_sockets_gives_up_with_the_last_beat(bed: RuledNode) -> None:
    bed.plan = PLAN
    bed.nft("-f", "-", stdin=compose(PLAN, has_socket=False))
    with inside(bed.node):
        assert rules.stands(PLAN)
    worker = bed.serve()
    wait_until_served(bed)
    worker.close()
    time.sleep(beat.LIFE_S + 0.05)
    assert who_answers(bed) == {CLUSTER_NAME}


def test_second_install_is_not_noticed_by_who_asks(ruled: RuledNode) -> None:
    """It leaves the table alone: what was heard and counted stays."""
    ask(ruled.pod, LOCAL)
    ruled.serve().hang()
    before = ruled.nft("-a", "list", "table", "inet", "nodecache").split("chain")[1:]
    assert ruled.install(is_tracked=ruled.plan.is_tracked).covered == ADDRESSES
    after = ruled.nft("-a", "list", "table", "inet", "nodecache").split("chain")[1:]
    assert before == after
    with inside(ruled.node):
        counted = nftables.unserved(Deadline.within(PATIENCE_S))
    assert counted is not None
    assert counted >= 1, "a stub that asked again on a busy machine is counted twice"


def test_table_of_before_is_replaced(bed: RuledNode) -> None:
    """Its sets make an older nft crash, and it leads to nobody once we are gone."""
    bed.nft("-f", "-", stdin=OLD_TABLE)
    with inside(bed.node):
        assert not rules.stands(PLAN)
    bed.install()
    assert "ipv4_addr" not in bed.nft("list", "table", "inet", "nodecache")
    assert ask(bed.pod, CLUSTER) == CLUSTER_NAME


@pytest.mark.parametrize("backend", [Backend.IPTABLES_NFT, Backend.IPTABLES_LEGACY])
def test_rules_of_before_kept_by_iptables_no_longer_lead_to_nobody(
    bed: RuledNode, backend: Backend
) -> None:
    try:
        bed.run(f"{backend.value}-save", "-t", "raw")
    except AssertionError as error:
        pytest.skip(f"this kernel has no {backend.value}: {error}")
    assert bed.install(backend=backend, fails_over=False).covered == ()
    with ports(bed.pod, any_source(LOCAL)) as client:
        assert client.ask_udp(LOCAL, 1, 0.3) == SILENCE
    assert bed.install().removed
    assert who_answers(bed) == {CLUSTER_NAME}


def test_many_goodbyes_hold_up_no_beat_for_long(bed: RuledNode) -> None:
    """What a packet took away fills its place until the kernel collects it, once a second."""
    bed.install()
    worker = bed.serve()
    worker.hang()
    slowest_s = 0.0
    for _ in range(400):
        assert beat.say_goodbye(worker.udp[0], LOCAL)
        began = time.monotonic()
        wait_until(lambda: beat.say_serving(worker.udp[0], LOCAL), "no room for a beat")
        slowest_s = max(slowest_s, time.monotonic() - began)
    print(f"FIGURE longest wait for a beat's room among 400: {slowest_s * 1000:.0f} ms")
    assert slowest_s < beat.LIFE_S


@pytest.mark.parametrize(
    ("addresses", "cluster_dns"),
    [
        pytest.param((LOCAL, LOCAL6), PLAN.cluster_dns, id="cluster address not ours"),
        pytest.param(ADDRESSES[:2], PLAN.cluster_dns[:1], id="only IPv4"),
        pytest.param(ADDRESSES[2:], PLAN.cluster_dns, id="only IPv6"),
        pytest.param(ADDRESSES, (BACKENDS[0], BACKENDS6[0]), id="servers, not a Service"),
        pytest.param(ADDRESSES, PLAN.cluster_dns[:1], id="IPv6 not covered"),
    ],
)
def test_plan_with_less_is_served_and_falls_back(
    bed: RuledNode, addresses: tuple[str, ...], cluster_dns: tuple[str, ...]
) -> None:
    covered = bed.install(addresses=addresses, cluster_dns=cluster_dns).covered
    assert covered
    cases = [(address, way) for address in covered for way in TRANSPORTS]
    for where, (address, way) in itertools.product((bed.pod, bed.node), cases):
        assert ask(where, address, way) == CLUSTER_NAME, (where, address)
    bed.serve(addresses)
    for where, address in itertools.product((bed.pod, bed.node), addresses):
        assert [ask(where, address, way) for way in TRANSPORTS] == [NODE_NAME] * 2


def test_policy_that_knows_only_tracked_flows_drops_what_is_served_untracked(
    bed: RuledNode,
) -> None:
    """kubernetes/kubernetes#98758; see the next test for what helps."""
    bed.nft("-f", "-", stdin=POLICY)
    try:
        bed.install()
        assert ask(bed.pod, LOCAL) == CLUSTER_NAME
        bed.serve()
        with ports(bed.pod, any_source(LOCAL)) as client:
            assert client.ask_udp(LOCAL, 1, 0.3) == SILENCE
    finally:
        bed.nft("delete", "table", "inet", "denying")


def test_policy_that_knows_only_tracked_flows_lets_pass_what_is_tracked(bed: RuledNode) -> None:
    bed.nft("-f", "-", stdin=POLICY)
    try:
        bed.install(is_tracked=True)
        assert who_answers(bed) == {CLUSTER_NAME}
        worker = bed.serve()
        wait_until_served(bed)
        worker.close()
        for address, transport in CASES:
            assert ask(bed.pod, address, transport) == CLUSTER_NAME
    finally:
        bed.nft("delete", "table", "inet", "denying")


def test_another_who_changes_rules_for_long_delays_no_beat(bed: RuledNode) -> None:
    """kube-proxy's rules of a large cluster: netlink waits for them, datagrams do not."""
    bed.install()
    worker = bed.serve()
    worker.hang()
    loaded, ruleset = threading.Event(), large_ruleset()

    def load() -> None:
        try:
            bed.nft("-f", "-", stdin=ruleset)
        finally:
            loaded.set()

    loader = threading.Thread(target=load, daemon=True)
    loader.start()
    slowest_s, count = 0.0, 0
    while not loaded.is_set():
        began = time.monotonic()
        assert beat.say_serving(worker.udp[0], LOCAL)
        slowest_s, count = max(slowest_s, time.monotonic() - began), count + 1
        loaded.wait(0.01)
    loader.join()
    bed.nft("delete", "table", "ip", "large")
    print(f"FIGURE slowest of {count} beats while rules are loaded: {slowest_s * 1000:.2f} ms")
    assert slowest_s < beat.LIFE_S - beat.INTERVAL_S


def test_account_of_connection_tracking(bed: RuledNode) -> None:
    """One entry for each UDP port and TCP connection in fall-back, none while served."""
    counts = {}
    for mode in (False, True):
        for is_served in (False, True):
            bed.clear()
            bed.install(is_tracked=mode)
            if is_served:
                bed.serve()
            for _ in range(20):
                for transport in TRANSPORTS:
                    ask(bed.pod, LOCAL, transport)
            counts[mode, is_served] = len(bed.tracked())
    print(f"FIGURE entries for 20 UDP ports and 20 connections, (tracked, served): {counts}")
    assert counts.pop((False, True)) == 0
    assert all(38 <= count <= 40 for count in counts.values())  # a dump may miss some


def large_ruleset() -> str:
    """Returns some ten thousand rules for Services, as kube-proxy might have them."""
    chains = "".join(
        f"chain s{number} {{ ip daddr 10.97.{number // 250}.{number % 250} tcp dport 80"
        f" dnat to 10.244.9.{number % 250}:8080; counter; counter; counter; }}\n"
        for number in range(5000)
    )
    jumps = "".join(
        f"10.97.{number // 250}.{number % 250} : goto s{number}, " for number in range(5000)
    )
    base = "type nat hook prerouting priority -100;"
    return f"table ip large {{ {chains} chain c {{ {base} ip daddr vmap {{ {jumps} }}; }}; }}"


# What a pod gets that denies ingress, where connection tracking says what is a reply (Calico).
POLICY = """
table inet denying {
  chain to_pod {
    ct state established,related accept
    meta l4proto { tcp, udp } drop
  }
  chain output { type filter hook output priority 0; oifname "veth1" jump to_pod; }
  chain forward { type filter hook forward priority 0; oifname "veth1" jump to_pod; }
}
"""
