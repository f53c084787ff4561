"""Prometheus scrapes nodes that serve: each panel has data, and alerts fire on what is broken.

Windows are the alerts' own, but nobody waits: ``for`` is nothing here. test_rarer_faults.py has the
rest.
"""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemonset.monitoring import alerts, dashboard
from tests.daemon.processes import wait_until
from tests.monitoring.fleet import Fleet, fleet_in
from tests.monitoring.prometheus import Prometheus
from tests.netns.children import NodeDaemon
from tests.netns.test_hang import wait_for_another_worker
from tests.netns.test_pod import ip
from tests.netns.topology import LOCAL, inside

pytestmark = [pytest.mark.root, pytest.mark.netns, pytest.mark.slow]

AT_ONCE = re.sub(r"(?m)^    for: \w+$", "    for: 0s", alerts.composed())
CHOSEN = {"$job": ".*", "$instance": ".*", "$__rate_interval": "10s"}
PATIENCE_S = 60.0
SHORT_S = 2
NO_SERVING_S = 8  # NodecacheFallback asks for more than five
# What a machine that does too much else does to a healthy node.
STARVED = {"NodecacheFallback", "NodecacheLoopLag", "NodecacheSlow"}


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with fleet_in(tmp_path, nodes=1) as fleet:
        yield fleet


def panel_queries() -> dict[str, str]:
    """Returns panel and reference -> query, with what somebody has chosen."""
    queries = {}
    for panel in json.loads(dashboard.composed())["panels"]:
        for target in panel["targets"]:
            expr = target["expr"]
            for variable, value in CHOSEN.items():
                expr = expr.replace(variable, value)
            queries[f"{panel['title']} {target['refId']}"] = expr
    return queries


def without_data(prometheus: Prometheus) -> set[str]:
    return {title for title, expr in panel_queries().items() if not prometheus.query(expr)}


def send_junk(fleet: Fleet) -> None:
    """Sends what is no query: it gets no reply, and is counted."""
    bed = fleet.beds[0]
    with inside(bed.pods[0]), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"junk", (LOCAL, 53))


def test_each_panel_has_data_and_a_healthy_node_no_alert(fleet: Fleet) -> None:
    fleet.serve(0)
    fleet.start_webhook(days=90)
    fleet.load(0, "wild.example.test", 200)
    fleet.load(0, "shop.svc.cluster.local", 100, pod=1)
    prometheus = fleet.watch(AT_ONCE)
    lacking = set(panel_queries())

    def all_have() -> bool:
        send_junk(fleet)
        fleet.review("ClusterFirst")
        fleet.review("Default")
        with inside(fleet.monitor):
            lacking.intersection_update(without_data(prometheus))
        return not lacking

    wait_until(all_have, lambda: f"data in {sorted(lacking)}", PATIENCE_S)
    with inside(fleet.monitor):
        found = prometheus.query(panel_queries()["NXDOMAIN by suffix A"])
    assert "shop.svc.cluster.local." in {sample["metric"]["suffix"] for sample in found}
    wait_until_only(fleet, prometheus, set())


def test_alerts_fire_on_a_node_that_breaks(fleet: Fleet) -> None:
    daemon = fleet.serve(0, "-stuckafter", "30s", cache_s=SHORT_S)
    fleet.start_webhook(days=5)
    fleet.load(0, "wild.example.test", 100)
    prometheus = fleet.watch(AT_ONCE)
    wait_for_alerts(fleet, prometheus, {"NodecacheWebhookCertificateExpiring"})
    wait_until_only(fleet, prometheus, {"NodecacheWebhookCertificateExpiring"})

    suspend(daemon)
    wait_for_alerts(fleet, prometheus, {"NodecacheFallback"})

    ip("-n", fleet.beds[0].cluster, "link", "set", "eth0", "down")
    fleet.load(0, "never-asked-before.wild.example.test", 100, pod=1)
    wait_for_alerts(
        fleet, prometheus,
        {"NodecacheUpstreamsDown", "NodecacheServfail", "NodecacheServingStale"},
    )  # fmt: skip

    break_corefile(daemon)
    wait_for_alerts(fleet, prometheus, {"NodecacheReloadFailed"})

    for _ in range(4):
        worker = daemon.worker()
        worker.kill()
        wait_for_another_worker(daemon, worker.pid)
    wait_for_alerts(fleet, prometheus, {"NodecacheRestarting", "NodecacheLastGoodConfiguration"})

    daemon.kill_all()
    wait_for_alerts(fleet, prometheus, {"NodecacheDown"})


def wait_until_only(fleet: Fleet, prometheus: Prometheus, names: set[str]) -> None:
    """Returns when no others fire; a node that has just come may have been down for a scrape."""
    with inside(fleet.monitor):
        wait_until(
            lambda: set(prometheus.firing()) - STARVED == names,
            lambda: f"only {sorted(names)} fire, but {prometheus.firing()} do",
            PATIENCE_S,
        )


def wait_for_alerts(fleet: Fleet, prometheus: Prometheus, names: set[str]) -> None:
    """Returns when all of them fire, with texts that say of which node."""
    with inside(fleet.monitor):
        wait_until(
            lambda: names <= set(prometheus.firing()),
            lambda: f"{sorted(names)} fire, but only {sorted(prometheus.firing())} do",
            PATIENCE_S,
        )
        firing = prometheus.firing()
    for name in names:
        summary = firing[name]["annotations"]["summary"]
        print("FIGURE", name, summary)
        assert "node1" in summary or "webhook" in summary
        assert not re.search(r"no value|<error|\{\{", summary)


def suspend(daemon: NodeDaemon) -> None:
    """Has the serving process stand still for as long as an alert asks for."""
    worker = daemon.worker()
    worker.suspend()
    time.sleep(NO_SERVING_S)
    worker.resume()


def break_corefile(daemon: NodeDaemon) -> None:
    path = Path(daemon.command[daemon.command.index("-conf") + 1])
    path.write_text(path.read_text().replace("forward", "forwrad"))
