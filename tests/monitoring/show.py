"""Makes docs/dashboard.png: some nodes, what happens to nodes, and a picture of it after a while.

python -m tests.monitoring.show --minutes 7 --out docs/dashboard.png     (as root)
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import threading
import time
from pathlib import Path

from daemonset.monitoring import picture
from tests.monitoring.fleet import Fleet, fleet_in
from tests.netns.test_pod import ip
from tests.netns.topology import inside

NODES = 4
# Of a node: whose names its pods ask for, and how many a second. What is below svc.cluster.local
# is what search lists make of other names: NXDOMAIN.
LOADS = (
    (("wild.example.test", 400), ("com.shop.svc.cluster.local", 60), ("shop.cluster.local", 20)),
    (("wild.example.test", 250), ("com.svc.cluster.local", 40), ("org.app.svc.cluster.local", 14)),
    (("app.wild.example.test", 600), ("org.mail.svc.cluster.local", 90), ("lan.example.test", 12)),
    (("wild.example.test", 150), ("com.shop.svc.cluster.local", 20), ("corp.example.test", 30)),
)


def run(minutes: float, out: Path) -> None:
    """Lets the nodes live, and draws what Prometheus has seen of it."""
    with tempfile.TemporaryDirectory() as folder, fleet_in(Path(folder), NODES) as fleet:
        daemons = [fleet.serve(number, "-stuckafter", "1m") for number in range(NODES)]
        fleet.start_webhook(days=90)
        for number, loads in enumerate(LOADS):
            for pod, (suffix, rate) in enumerate(loads):
                fleet.load(number, suffix, rate, pod % 2)
        fleet.watch(interval="5s")
        stopped = threading.Event()
        threading.Thread(target=_ask_webhook, args=(fleet, stopped), daemon=True).start()
        part = minutes * 60 / 12
        time.sleep(4 * part)
        worker = daemons[1].worker()
        worker.suspend()  # the kernel leads its queries away
        time.sleep(12)
        worker.resume()
        time.sleep(2 * part)
        cluster = fleet.beds[2].cluster
        ip("-n", cluster, "link", "set", "eth0", "down")  # answers are stale
        time.sleep(part)
        ip("-n", cluster, "link", "set", "eth0", "up")
        time.sleep(5 * part - 12)
        stopped.set()
        with inside(fleet.monitor):
            picture.main(["--minutes", f"{minutes - 0.5}", "--window", "25s", "--out", str(out)])


def _ask_webhook(fleet: Fleet, stopped: threading.Event) -> None:
    for number in itertools.count():
        fleet.review("Default" if number % 4 == 0 else "ClusterFirst")
        if stopped.wait(0.3):
            return


def main() -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.monitoring.show", description=__doc__)
    parser.add_argument("--minutes", type=float, default=7)
    parser.add_argument("--out", type=Path, default=Path("docs/dashboard.png"))
    options = parser.parse_args()
    run(options.minutes, options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
