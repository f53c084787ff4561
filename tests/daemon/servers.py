"""Real DNS servers as upstreams: each in a folder of its own, as an ordinary process."""

from __future__ import annotations

import shutil
import subprocess
import textwrap
from collections.abc import Sequence
from pathlib import Path

import dns.exception
import dns.message
import dns.query
import pytest

from tests.daemon.processes import HOST, PATIENCE_S, Child, free_port, wait_until
from tests.daemon.zone import CLUSTER_ZONE, ORIGIN, zone_text

TLS_NAME = "dns.example.test"

_PACKAGES = {
    "knotd": "knot",
    "unbound": "unbound",
    "named": "bind9",
    "dig": "bind9-dnsutils",
    "kdig": "knot-dnsutils",
    "node": "nodejs",
    "openssl": "openssl",
    "ip": "iproute2",
    "getent": "libc-bin",
    "prometheus": "prometheus",
    "promtool": "prometheus",
}


def program(name: str) -> str:
    """Returns the path of an installed program; skips the test when there is none."""
    path = shutil.which(name, path="/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin")
    path = path or shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is missing; Debian's package is {_PACKAGES.get(name, name)}")
    return path


class Upstream:
    """One real server that can be ended and started again."""

    def __init__(
        self, name: str, folder: Path, arguments: Sequence[str], host: str, port: int
    ) -> None:
        self.name = name
        self.host = host
        self.port = port
        self.folder = folder
        self._command = list(arguments)
        self.child = self._start()

    def _start(self) -> Child:
        return Child(self._command, self.folder / "log")

    def restart(self) -> None:
        """Starts it again after ``child`` has ended."""
        self.child = self._start()
        self.wait_until_serving()

    def wait_until_serving(self) -> None:
        """Returns when it answers over TCP, from this network namespace."""
        query = dns.message.make_query(f"plain.{ORIGIN}", "A")

        def answers() -> bool:
            assert self.child.process.poll() is None, self.child.log()
            try:
                return bool(dns.query.tcp(query, self.host, 1, self.port).answer)
            except (OSError, EOFError, dns.exception.DNSException):
                return False

        wait_until(answers, lambda: f"{self.name} answers: {self.child.log()}")

    def stop(self) -> None:
        """Ends it."""
        if self.child.process.poll() is None:
            self.child.process.terminate()
            try:
                self.child.process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                self.child.kill()


def _write_zones(folder: Path) -> None:
    (folder / "example.zone").write_text(zone_text())
    (folder / "cluster.zone").write_text(CLUSTER_ZONE)


def start_knot(
    folder: Path, host: str = HOST, port: int = 0, within: Sequence[str] = ()
) -> Upstream:
    """Starts Knot DNS."""
    knotd = program("knotd")
    port = port or free_port(host)
    _write_zones(folder)
    (folder / "knot.conf").write_text(
        textwrap.dedent(
            f"""\
            server:
                rundir: {folder}
                listen: {host}@{port}
                udp-workers: 1
                tcp-workers: 1
                background-workers: 1
                tcp-max-clients: 500
            control:
                listen: {folder}/control
            database:
                storage: {folder}
            log:
              - target: stderr
                any: warning
            template:
              - id: default
                storage: {folder}
                zonefile-sync: -1
                journal-content: none
            zone:
              - domain: {ORIGIN}
                file: example.zone
              - domain: cluster.local
                file: cluster.zone
            """
        )
    )
    command = [*within, knotd, "-c", str(folder / "knot.conf")]
    return Upstream("knot", folder, command, host, port)


def start_unbound(folder: Path, tls_port: int = 0) -> Upstream:
    """Starts unbound; with ``tls_port`` it also serves TLS, and makes its certificate."""
    unbound = program("unbound")
    port = free_port()
    _write_zones(folder)
    tls = ""
    if tls_port:
        make_certificate(folder)
        tls = (
            f"interface: {HOST}@{tls_port}\n    tls-port: {tls_port}\n"
            f"    tls-service-pem: {folder}/cert.pem\n    tls-service-key: {folder}/key.pem\n"
        )
    (folder / "unbound.conf").write_text(
        f"""server:
    interface: {HOST}@{port}
    {tls}
    access-control: 127.0.0.0/8 allow
    do-daemonize: no
    username: ""
    chroot: ""
    pidfile: ""
    directory: {folder}
    use-syslog: no
    module-config: iterator
    incoming-num-tcp: 500
    edns-buffer-size: 1232
    max-udp-size: 1232
    local-zone: "." refuse
    local-zone: "{ORIGIN}." transparent
remote-control:
    control-enable: no
auth-zone:
    name: {ORIGIN}
    zonefile: {folder}/example.zone
    for-upstream: no
"""
    )
    command = [unbound, "-d", "-c", str(folder / "unbound.conf")]
    return Upstream("unbound", folder, command, HOST, port)


def start_bind(folder: Path) -> Upstream:
    """Starts BIND."""
    named = program("named")
    host = "127.0.0.1"  # BIND finds its addresses on the interfaces
    port = free_port(host)
    _write_zones(folder)
    (folder / "named.conf").write_text(
        f"""options {{
    directory "{folder}";
    managed-keys-directory "{folder}";
    pid-file none;
    session-keyfile none;
    lock-file none;
    listen-on port {port} {{ {host}; }};
    listen-on-v6 {{ none; }};
    recursion no;
    dnssec-validation no;
    tcp-clients 500;
    max-records-per-type 0;
}};
controls {{ }};
zone "{ORIGIN}" {{ type primary; file "example.zone"; }};
"""
    )
    command = [named, "-g", "-n", "1", "-c", str(folder / "named.conf")]
    return Upstream("bind", folder, command, host, port)


def make_certificate(folder: Path, days: int = 2) -> None:
    """Writes key.pem and a self-signed cert.pem for ``TLS_NAME``."""
    command = [
        program("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt",
        "ec_paramgen_curve:prime256v1", "-nodes", "-days", str(days), "-subj", f"/CN={TLS_NAME}",
        "-addext", f"subjectAltName=DNS:{TLS_NAME}",
        "-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem"),
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE_S)
