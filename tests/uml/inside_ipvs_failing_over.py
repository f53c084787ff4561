"""The local address falls back to the cluster's DNS behind IPVS, which keeps the ClusterIP.

Legacy iptables, since nft has no tables in a guest. Who answers says his name; nodecache is two
sockets here, of which the test says whether they serve.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace

import pytest

from nodecache.config.node import Backend, NodePlan
from nodecache.host import rules
from tests.daemon.processes import PATIENCE_S, wait_until
from tests.netns.failing_over import (
    CLUSTER_NAME,
    NODE_NAME,
    SILENCE,
    TRANSPORTS,
    Answerer,
    Speaker,
    ask,
)
from tests.netns.node import figure
from tests.netns.topology import inside
from tests.uml.inside_ipvs import (
    BACKENDS,
    make_namespaces,
    on_node,
    serve_by_ipvs,
    skip_without_ipvs,
)
from tests.uml.stage import CLUSTER_IP, LOCAL_IP

PLAN = NodePlan("nodelocaldns", (LOCAL_IP,), backend=Backend.IPTABLES_LEGACY)
WHERE = ("stub", "node")


class IpvsNode:
    """A node whose ClusterIP is IPVS's, a stub, and two backends."""

    def __init__(self, stack: ExitStack) -> None:
        make_namespaces(stack)
        serve_by_ipvs(expire_nodest_conn=1)
        for number, host in enumerate(BACKENDS):
            backend = Answerer(f"backend{number}", (host,), CLUSTER_NAME)
            stack.callback(backend.close)
        self._stack = stack

    def start(self) -> Speaker:
        """Starts who answers on the node; it ends with the test."""
        node = Speaker("node", (LOCAL_IP,), (LOCAL_IP,))
        self._stack.callback(node.close)
        return node

    def install(self, plan: NodePlan) -> rules.RulesReport:
        with inside("node"):
            return rules.install(plan, PATIENCE_S)

    def expect(self, who: str, serving: Speaker | None = None) -> None:
        """Holds who answers at the local address, and that IPVS has the ClusterIP throughout."""
        for where in WHERE:
            for transport in TRANSPORTS:
                for address, wanted in ((LOCAL_IP, who), (CLUSTER_IP, CLUSTER_NAME)):
                    if serving is not None:
                        assert serving.beat() == [True]
                    assert ask(where, address, transport) == wanted, (where, transport, address)


@pytest.fixture
def bed() -> Iterator[IpvsNode]:
    skip_without_ipvs()
    with ExitStack() as stack:
        yield IpvsNode(stack)


@pytest.mark.parametrize("cluster_dns", [BACKENDS, (CLUSTER_IP,)], ids=["endpoints", "service"])
def test_local_address_is_served_and_falls_back(bed: IpvsNode, cluster_dns: Sequence[str]) -> None:
    report = bed.install(replace(PLAN, cluster_dns=tuple(cluster_dns)))
    assert report.covered == (LOCAL_IP,), report
    node = bed.start()
    bed.expect(CLUSTER_NAME)
    on_node("conntrack", "-F")
    bed.expect(NODE_NAME, node)
    assert LOCAL_IP not in on_node("conntrack", "-L")
    assert node.say_goodbye() == [True]
    bed.expect(CLUSTER_NAME)
    bed.expect(NODE_NAME, node)
    node.beat()
    node.close()
    started_at = time.monotonic()
    wait_until(lambda: ask("stub", LOCAL_IP, patience_s=0.2) == CLUSTER_NAME, "the cluster's DNS")
    figure(f"ipvs: fall-back {time.monotonic() - started_at:.2f} s after a death")
    bed.expect(CLUSTER_NAME)


def test_tracked_mode_is_served_and_says_that_this_kernel_has_no_zones(bed: IpvsNode) -> None:
    report = bed.install(replace(PLAN, cluster_dns=BACKENDS, is_tracked=True))
    assert report.covered == ()
    [note] = [note for note in report.notes if "nothing leads queries elsewhere" in note]
    print(note)
    assert "zones of connection tracking" in note
    bed.start()
    bed.expect(NODE_NAME)
    assert LOCAL_IP in on_node("conntrack", "-L")


def test_local_address_without_endpoints_is_nobodys_but_ours(bed: IpvsNode) -> None:
    report = bed.install(PLAN)
    assert report.covered == ()
    assert [note for note in report.notes if "name endpoints with -fallback" in note]
    node = bed.start()
    bed.expect(NODE_NAME)
    node.close()
    bed.expect(SILENCE)
