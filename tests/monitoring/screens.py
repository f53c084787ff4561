"""Makes docs/doctor.svg and docs/top.svg: what these print on a broken node, and on a busy one.

python -m tests.monitoring.screens     (as root)
"""

from __future__ import annotations

import argparse
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from daemonset.monitoring.terminal import draw
from tests.daemon.processes import PATIENCE_S
from tests.daemon.stubs import make_query
from tests.daemon.zone import ORIGIN
from tests.netns.children import METRICS, stock_corefile
from tests.netns.node import NodeBed, bed_in
from tests.netns.test_pod import ip
from tests.netns.topology import ADDRESSES, CLUSTER, LOCAL, UPSTREAM, inside

DOCS = Path("docs")
COREFILE = f"""{ORIGIN}:53 {{
    bind {" ".join(ADDRESSES)}
    cache 30
    forward . {UPSTREAM} {{
        force_tcp
    }}
    prometheus :{METRICS}
}}
"""
RESOLV_CONF = f"""nameserver {LOCAL}
nameserver {CLUSTER}
search shop.svc.cluster.local svc.cluster.local cluster.local
options ndots:5
"""
# Name -> how often it is asked for among the others.
NAMES = {
    f"{name}.wild.example.test": 40 // place
    for place, name in enumerate(("db", "queue", "api", "mail", "logs", "reports", "billing"), 1)
}
SEARCH = ("shop.svc.cluster.local", "svc.cluster.local", "cluster.local")
WARM_S, STILL_S = 33.0, 1.5  # what was kept at first has left the cache then
COLUMNS = "100"  # of the terminal
# Somebody's firewall before the cluster's DNS: it lets UDP pass only.
FIREWALL = "add table inet wall; add chain inet wall in { type filter hook input priority 0; }"


def doctor(bed: NodeBed) -> str:
    """Returns what doctor says where TCP does not pass to the cluster's DNS."""
    bed.start(corefile=COREFILE)
    bed.run("nft", f"{FIREWALL}; add rule inet wall in tcp dport 53 drop", namespace=bed.cluster)
    path = bed.folder / "resolv.conf"
    path.write_text(RESOLV_CONF)
    text = nodecache(bed, "doctor", "-rundir", str(bed.rundir), "-resolvconf", str(path))
    return text.replace(str(path), "/etc/resolv.conf")


def top(bed: NodeBed) -> str:
    """Returns what top says where one pod has a search list, and an upstream stood still."""
    bed.start(corefile=stock_corefile())
    with ExitStack() as stack:
        pods = [stack.enter_context(_socket_in(pod)) for pod in bed.pods]
        _ask(pods, WARM_S)
        ip("-n", bed.cluster, "link", "set", "eth0", "down")
        _ask(pods, STILL_S)
        ip("-n", bed.cluster, "link", "set", "eth0", "up")
        with ThreadPoolExecutor() as pool:
            rundir = str(bed.rundir)
            page = pool.submit(nodecache, bed, "top", "-once", "-interval", "5", "-rundir", rundir)
            while not page.done():
                _ask(pods, 0.1)
            return page.result()


def _socket_in(pod: str) -> socket.socket:
    with inside(pod):
        return socket.socket(type=socket.SOCK_DGRAM)


def _ask(pods: list[socket.socket], seconds: float) -> None:
    """Has both pods ask; the first tries its search domains before each name."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for pod, domains in zip(pods, (SEARCH, ()), strict=True):
            [name] = random.choices(list(NAMES), list(NAMES.values()))
            for asked in (*(f"{name}.{domain}" for domain in domains), name):
                for kind in ("A", "AAAA"):
                    pod.sendto(make_query(asked, kind).to_wire(), (LOCAL, 53))
        time.sleep(0.005)


def nodecache(bed: NodeBed, *words: str) -> str:
    """Returns what a command prints on the node, whatever its exit code."""
    with inside(bed.node):
        done = subprocess.run(
            [sys.executable, "-m", "nodecache", *words],
            capture_output=True, text=True, timeout=PATIENCE_S, check=False,
            env={**os.environ, "COLUMNS": COLUMNS},
        )  # fmt: skip
    assert not done.stderr, done.stderr
    return done.stdout


# Picture -> the command as it is shown, and what it prints.
SCREENS = {
    "doctor": ("nodecache doctor -resolvconf /etc/resolv.conf", doctor),
    "top": ("nodecache top -once", top),
}


def main() -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.monitoring.screens", description=__doc__)
    parser.add_argument("--folder", type=Path, default=DOCS)
    options = parser.parse_args()
    for name, (command, run) in SCREENS.items():
        with tempfile.TemporaryDirectory() as folder, bed_in(Path(folder)) as bed:
            picture = draw(command, run(bed))
        (options.folder / f"{name}.svg").write_text(picture, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
