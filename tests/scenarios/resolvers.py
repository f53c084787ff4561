"""What stands between the client and the cluster DNS: nodecache, or another node's cache."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import dns.exception
import dns.message
import dns.query
import psutil

from tests.daemon.processes import Child, Daemon, wait_until
from tests.daemon.servers import program
from tests.netns.topology import inside
from tests.scenarios.bed import LOCAL, VIRTUAL, ScenarioBed

METRICS = 9253

_COREFILE = f""".:53 {{
    bind {LOCAL}
    errors
    cache 3600 {{
        STALE
    }}
    OPTIONS
    forward . {VIRTUAL} {{
        force_tcp
    }}
    prometheus 127.0.0.1:{METRICS}
}}
"""
_UNBOUND = f"""server:
    verbosity: 0
    directory: ""
    chroot: ""
    username: ""
    pidfile: ""
    use-syslog: no
    do-daemonize: no
    interface: {LOCAL}
    access-control: 0.0.0.0/0 allow
    do-not-query-localhost: no
    module-config: "iterator"
    tcp-upstream: yes
    outgoing-num-tcp: 64
    qname-minimisation: no
    num-queries-per-thread: 4096
    local-zone: "test." nodefault
remote-control:
    control-enable: no
forward-zone:
    name: "."
    forward-addr: {VIRTUAL}
"""
_DNSDIST = f"""setSecurityPollSuffix("")
addLocal("{LOCAL}:53", {{doTCP=true, reusePort=false}})
setACL({{"0.0.0.0/0"}})
newServer({{address="{VIRTUAL}:53", tcpOnly=true}}):setUp()
getPool(""):setCache(newPacketCache(100000))
"""


def is_installed(kind: str) -> bool:
    """Tells whether a resolver can be started; nodecache always can."""
    return kind == "nodecache" or shutil.which(kind, path="/usr/sbin:/sbin:/usr/bin") is not None


class Resolver:
    """A running cache on the node, whichever it is.

    Attributes:
        child: Its process; nodecache's is a Daemon.
    """

    def __init__(
        self, kind: str, bed: ScenarioBed, folder: Path, options: Sequence[str], stale: str = ""
    ) -> None:
        within = [program("ip"), "netns", "exec", bed.node]
        self.kind = kind
        self.child: Child
        if kind == "nodecache":
            self.child = Daemon(
                folder,
                _COREFILE.replace("OPTIONS", "\n    ".join(options)).replace("STALE", stale),
                host=LOCAL, port=53, metrics_port=9353, within=within,
            )  # fmt: skip
        else:
            path = folder / f"{kind}.conf"
            path.write_text({"unbound": _UNBOUND, "dnsdist": _DNSDIST}[kind])
            arguments = {
                "unbound": ["-d", "-p", "-c", str(path)],
                "dnsdist": ["--supervised", "--disable-syslog", "-C", str(path)],
            }[kind]
            self.child = Child([*within, program(kind), *arguments], folder / f"{kind}.log")
        self._bed = bed

    def wait_until_serving(self) -> None:
        """Returns when it answers the client."""
        query = dns.message.make_query("h0.test", "A")

        def answers() -> bool:
            assert self.child.process.poll() is None, self.child.log()
            with inside(self._bed.node):
                try:
                    return bool(dns.query.udp(query, LOCAL, 1).answer)
                except (OSError, dns.exception.DNSException):
                    return False

        wait_until(answers, lambda: f"{self.kind} answers: {self.child.log()}")

    def cpu_s(self) -> float:
        """Returns the seconds of processor time that it has used."""
        times = psutil.Process(self.child.pid).cpu_times()
        return float(times.user + times.system)

    def stop(self) -> None:
        """Ends it, and holds that nothing of ours escaped into the log."""
        if self.child.process.poll() is not None:
            return
        code = self.child.stop()
        if self.kind == "nodecache":
            assert code == 0, self.child.log()
            assert "Traceback" not in self.child.log(), self.child.log()
