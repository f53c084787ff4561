"""The alerts that test_for_real.py leaves out, fired by a real Prometheus on the real fault.

Two of them are about series of others, kube-state-metrics and the API server. A page stands in for
these, in the form that their documentation gives. An error that escapes a query is planted, since
none is known.
"""

from __future__ import annotations

import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from daemonset.monitoring.alerts import ALERTS
from tests.daemon.processes import Child, free_port, wait_until
from tests.daemon.servers import program
from tests.daemon.stubs import make_query
from tests.monitoring import test_for_real
from tests.monitoring.fleet import Fleet, corefile, fleet_in
from tests.monitoring.prometheus import Prometheus
from tests.monitoring.test_for_real import AT_ONCE, PATIENCE_S, SHORT_S, wait_for_alerts
from tests.netns.children import METRICS
from tests.netns.test_pod import ip
from tests.netns.topology import ADDRESSES, LOCAL, inside

OVERTAXED = {"NodecacheShedding", "NodecacheSlow"}
FLOODED = {"NodecacheReceiveQueueDrops"}
WITHOUT_RIGHTS = {"NodecacheSetupErrors", "NodecacheRedirectMissing"}
LATE = {"NodecacheLoopLag"}
ESCAPED = {"NodecachePanics"}
OF_OTHERS = {"NodecacheAbsent", "NodecacheRolloutStuck", "NodecacheWebhookFailOpen"}

FLOOD_S = 0.6  # shorter than the beat, or the kernel would lead the flood away
LATE_S = 1.0  # as long as it is between two of its looks at the clock
BURST = 200
PLANTED = """
from nodecache.resolve import zones

real = zones.Zones.find


def find(self, qname, *rest):
    if b"planted" in qname:
        raise RuntimeError("planted by a test")
    return real(self, qname, *rest)


zones.Zones.find = find
"""
PAGE = """\
# TYPE kube_pod_info gauge
kube_pod_info{{namespace="kube-system",pod="node-local-dns-x7k2p",created_by_kind="DaemonSet",\
created_by_name="node-local-dns"}} 1
# TYPE kube_pod_status_phase gauge
kube_pod_status_phase{{namespace="kube-system",pod="node-local-dns-x7k2p",phase="Pending"}} 1
kube_pod_status_phase{{namespace="kube-system",pod="node-local-dns-x7k2p",phase="Running"}} 0
# TYPE apiserver_admission_webhook_fail_open_count counter
apiserver_admission_webhook_fail_open_count{{name="inject.nodecache.io",type="admit"}} {failed}
"""


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with fleet_in(tmp_path, nodes=1) as fleet:
        yield fleet


def test_every_alert_fires_in_one_of_these_or_of_its_neighbours() -> None:
    waits = re.findall(r"wait_for_alerts\([^)]+\)", Path(test_for_real.__file__).read_text())
    elsewhere = set(re.findall(r'"(Nodecache\w+)"', " ".join(waits)))
    here = OVERTAXED | FLOODED | LATE | WITHOUT_RIGHTS | ESCAPED | OF_OTHERS
    assert here | elsewhere == {alert.name for alert in ALERTS}


@pytest.mark.root
@pytest.mark.netns
@pytest.mark.slow
def test_alerts_fire_on_a_node_that_is_asked_too_much(fleet: Fleet) -> None:
    fleet.serve(0, "-max-inflight", "60", cache_s=SHORT_S)
    prometheus = fleet.watch(AT_ONCE)
    wait_until_scraped(fleet, prometheus)

    ip("-n", fleet.beds[0].cluster, "link", "set", "eth0", "down")
    for number in range(3):
        ask_anew(fleet, number)
    wait_for_alerts(fleet, prometheus, OVERTAXED)


@pytest.mark.root
@pytest.mark.netns
@pytest.mark.slow
def test_an_alert_fires_on_a_flood_that_the_process_does_not_read(fleet: Fleet) -> None:
    worker = fleet.serve(0, "-stuckafter", "30s").worker()
    prometheus = fleet.watch(AT_ONCE)
    wait_until_scraped(fleet, prometheus)
    for _ in range(3):  # a machine that does much else may not send enough at once
        worker.suspend()
        send_for(FLOOD_S, fleet)
        worker.resume()
        time.sleep(LATE_S)
    wait_for_alerts(fleet, prometheus, FLOODED)


@pytest.mark.root
@pytest.mark.netns
@pytest.mark.slow
def test_an_alert_fires_on_a_process_that_gets_no_core(fleet: Fleet) -> None:
    worker = fleet.serve(0, "-stuckafter", "30s").worker()
    prometheus = fleet.watch(AT_ONCE)
    wait_until_scraped(fleet, prometheus)
    for _ in range(8):
        worker.suspend()
        time.sleep(LATE_S)
        worker.resume()
        time.sleep(LATE_S / 4)
    wait_for_alerts(fleet, prometheus, LATE)


@pytest.mark.root
@pytest.mark.netns
@pytest.mark.slow
def test_alerts_fire_on_a_node_that_nodecache_may_not_change(fleet: Fleet) -> None:
    start(fleet, "setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin")
    prometheus = fleet.watch(AT_ONCE)
    wait_for_alerts(fleet, prometheus, WITHOUT_RIGHTS)


@pytest.mark.root
@pytest.mark.netns
@pytest.mark.slow
def test_an_alert_fires_on_an_error_that_escapes_a_query(fleet: Fleet, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(PLANTED)
    daemon = start(fleet, "env", f"PYTHONPATH={tmp_path}")
    prometheus = fleet.watch(AT_ONCE)
    wait_until_scraped(fleet, prometheus)
    with inside(fleet.beds[0].pods[0]), socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.sendto(make_query("planted.example.test", "A").to_wire(), (LOCAL, 53))
    wait_until(lambda: "planted by a test" in daemon.log(), daemon.log)
    wait_for_alerts(fleet, prometheus, ESCAPED)


@pytest.mark.slow
def test_alerts_fire_where_no_node_is_known_and_on_what_others_count(tmp_path: Path) -> None:
    failed = 0

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            nonlocal failed
            failed += 1
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(PAGE.format(failed=failed).encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    program("prometheus")
    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        job = {"others": {f"127.0.0.1:{server.server_port}": "control-plane"}}
        with Prometheus(
            tmp_path / "prometheus", f"127.0.0.1:{free_port()}", job, AT_ONCE
        ) as prometheus:
            prometheus.wait_until_ready()
            wait_until(
                lambda: prometheus.firing().keys() == OF_OTHERS,
                lambda: f"{sorted(OF_OTHERS)} fire, but {sorted(prometheus.firing())} do",
                PATIENCE_S,
            )
        server.shutdown()


def start(fleet: Fleet, *wrapper: str) -> Child:
    """Starts a daemon below another program, on a node that has the addresses already."""
    bed = fleet.beds[0]
    for address in ADDRESSES:
        bits = "/128" if ":" in address else "/32"
        bed.run("ip", "address", "add", f"{address}{bits}", "dev", "lo")
    path = fleet.folder / "Corefile"
    path.write_text(corefile(SHORT_S))
    daemon = Child(
        [
            *(program("ip"), "netns", "exec", bed.node, *wrapper, sys.executable, "-m"),
            *("nodecache", "-localip", ",".join(ADDRESSES), "-setupinterface=false"),
            *("-conf", str(path), "-basecorefile", str(path), "-rundir", str(bed.rundir)),
            *("-metrics-listen-address", f":{METRICS}"),
        ],
        fleet.folder / "log",
    )
    fleet.stack.callback(daemon.stop)
    return daemon


def wait_until_scraped(fleet: Fleet, prometheus: Prometheus) -> None:
    """Returns when Prometheus knows where the counters begin."""
    with inside(fleet.monitor):
        wait_until(
            lambda: prometheus.query("coredns_panics_total"), "counters in Prometheus", PATIENCE_S
        )


def send_for(seconds: float, fleet: Fleet) -> None:
    """Sends more in this time than a receive queue holds."""
    query = make_query("h0.wild.example.test", "A").to_wire()
    with inside(fleet.beds[0].pods[0]), socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.connect((LOCAL, 53))
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for _ in range(100):
                sock.send(query)


def ask_anew(fleet: Fleet, number: int) -> None:
    """Asks for names that nobody asked before, all at once; nobody waits for the replies."""
    with inside(fleet.beds[0].pods[1]), socket.socket(type=socket.SOCK_DGRAM) as sock:
        for each in range(BURST):
            name = f"n{number}-{each}.wild.example.test"
            sock.sendto(make_query(name, "A").to_wire(), (LOCAL, 53))
