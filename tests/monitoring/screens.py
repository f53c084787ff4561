"""Makes docs/doctor.svg: what a command prints on a node that is broken.

python -m tests.monitoring.screens     (as root)
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from daemonset.monitoring.terminal import draw
from tests.daemon.processes import PATIENCE_S
from tests.daemon.zone import ORIGIN
from tests.netns.children import METRICS
from tests.netns.node import NodeBed, bed_in
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


def nodecache(bed: NodeBed, *words: str) -> str:
    """Returns what a command prints on the node, whatever its exit code."""
    with inside(bed.node):
        done = subprocess.run(
            [sys.executable, "-m", "nodecache", *words],
            capture_output=True, text=True, timeout=PATIENCE_S, check=False,
        )  # fmt: skip
    assert not done.stderr, done.stderr
    return done.stdout


# Picture -> the command as it is shown, and what it prints.
SCREENS = {"doctor": ("nodecache doctor -resolvconf /etc/resolv.conf", doctor)}


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
