"""What a running daemon makes of configurations as installers write them, as node-cache would."""

from __future__ import annotations

import http.client
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import dns.message
import dns.query
import dns.rcode
import pytest

from tests.daemon.faulty import ScriptedUpstream, right_address
from tests.daemon.processes import HOST, Daemon, faultless, free_port, wait_until
from tests.daemon.stubs import addresses, ask, make_query, scrape, total


class Start(Protocol):
    """Starts a daemon with the Corefile ``text``, in which PORT and METRICS are filled."""

    def __call__(self, text: str | bytes, *flags: str, within: tuple[str, ...] = ()) -> Daemon: ...


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    with ExitStack() as stack:

        def run(text: str | bytes, *flags: str, within: tuple[str, ...] = ()) -> Daemon:
            port, metrics_port = free_port(), free_port()
            octets = text if isinstance(text, bytes) else text.encode()
            octets = octets.replace(b"METRICS", f"{HOST}:{metrics_port}".encode())
            octets = octets.replace(b"PORT", str(port).encode()).replace(b"HOST", HOST.encode())
            template = tmp_path / "base" / "Corefile.base"
            template.parent.mkdir(exist_ok=True)
            template.write_bytes(octets)
            daemon = Daemon(
                tmp_path,
                "",
                port=port,
                metrics_port=metrics_port,
                flags=("-basecorefile", str(template), *flags),
                within=within,
            )
            stack.enter_context(faultless(daemon))
            daemon.wait_until_serving()
            return daemon

        yield run


def get(place: str, path: str) -> str:
    connection = http.client.HTTPConnection(place, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def test_imports_go_by_the_folder_of_conf_and_hosts_by_the_working_directory(
    tmp_path: Path, start: Start
) -> None:
    for folder, address in (("base", "10.0.0.1"), ("conf", "10.0.0.2"), ("work", "10.0.0.3")):
        (tmp_path / folder / "custom").mkdir(parents=True)
        rewrite = f"hosts site.hosts {{\n{address} inline.test\nfallthrough\n}}\n"
        (tmp_path / folder / "custom" / "a.override").write_text(rewrite)
        (tmp_path / folder / "site.hosts").write_text(f"{address} file.test\n")
    text = ".:PORT {\n    bind HOST\n    import custom/*.override\n    prometheus METRICS\n}\n"
    conf = tmp_path / "conf" / "Corefile"
    daemon = start(text, "-conf", str(conf), within=("env", "-C", str(tmp_path / "work")))
    assert addresses(ask(daemon, "inline.test")) == ["10.0.0.2"]
    assert addresses(ask(daemon, "file.test")) == ["10.0.0.3"]
    (tmp_path / "work" / "site.hosts").write_text("10.0.0.4 file.test\n")
    wait_until(lambda: addresses(ask(daemon, "file.test")) == ["10.0.0.4"], "the hosts file")
    more = tmp_path / "conf" / "custom" / "b.override"
    more.write_text('template IN A more.test {\nanswer "more.test 60 IN A 10.0.0.5"\n}\n')
    wait_until(lambda: addresses(ask(daemon, "more.test")) == ["10.0.0.5"], "the new import")


def test_files_in_any_encoding_are_taken_and_kept_as_they_are(tmp_path: Path, start: Start) -> None:
    (tmp_path / "site.hosts").write_bytes(
        b"\xef\xbb\xbf10.0.0.1 a.test # caf\xe9\r\n10.0.0.2 \xe9.test"
    )
    text = (
        "# caf\xe9\r\n.:PORT {\r\n    bind HOST\r\n    prometheus METRICS\r\n"
        f'    hosts {tmp_path}/site.hosts\r\n    log . "gr\xf6\xdfe {{name}}"\r\n}}'
    )
    conf = tmp_path / "written"
    daemon = start(text.encode("latin-1"), "-conf", str(conf))
    assert addresses(ask(daemon, "a.test")) == ["10.0.0.1"]
    assert conf.read_bytes().startswith(b"# caf\xe9\r\n.:")
    daemon.wait_for_log(r"'\\xe9.test' cannot be meant")
    daemon.wait_for_log("gr\N{REPLACEMENT CHARACTER}")
    assert scrape(daemon)


def test_what_no_directive_answers_is_a_servfail_and_logged(start: Start) -> None:
    daemon = start(
        "a.test:PORT {\n    bind HOST\n    errors\n    prometheus METRICS\n}\n"
        "b.test:PORT {\n    bind HOST\n    reload\n}\n"
        "tls://.:PORT {\n    forward . 127.0.0.1\n}\n"
    )
    assert ask(daemon, "x.a.test").rcode() == dns.rcode.SERVFAIL
    assert ask(daemon, "x.b.test").rcode() == dns.rcode.REFUSED
    assert ask(daemon, "elsewhere").rcode() == dns.rcode.REFUSED
    daemon.wait_for_log(r"x\.a\.test\. A: no next plugin found")
    daemon.wait_for_log(r"WARNING.* 'tls://\.:\d+' is left out with its whole block")


def test_label_of_a_listener_is_its_bind_as_it_is_written(start: Start) -> None:
    others = free_port(), free_port(), free_port()
    daemon = start(
        ".:PORT {\n    bind HOST\n    prometheus METRICS\n    whoami\n}\n"
        f".:{others[0]} {{\n    whoami\n}}\n"
        f".:{others[1]} {{\n    bind 0.0.0.0\n    whoami\n}}\n"
        f".:{others[2]} {{\n    bind ::\n    whoami\n}}\n"
    )
    for port in others:
        dns.query.udp(make_query("a.test"), "127.0.0.1", port=port, timeout=5)
    dns.query.udp(make_query("a.test"), "::1", port=others[2], timeout=5)
    found = [
        (labels["server"], labels["family"], value)
        for (name, pairs), value in scrape(daemon).items()
        if name == "coredns_dns_requests_total" and (labels := dict(pairs))["zone"] == "." and value
    ]
    assert sorted(found) == [
        (f"dns://0.0.0.0:{others[1]}", "1", 1.0),
        (f"dns://:{others[0]}", "1", 1.0),
        (f"dns://[::]:{others[2]}", "1", 1.0),
        (f"dns://[::]:{others[2]}", "2", 1.0),
    ]


def test_port_zero_is_a_free_one_that_the_log_names(tmp_path: Path, start: Start) -> None:
    daemon = start(
        f".:PORT {{\n    bind HOST\n    whoami\n    prometheus {HOST}:0\n    health {HOST}:0\n"
        f"    ready {HOST}:0\n    pprof {HOST}:0\n}}\n",
        "-metrics-listen-address",
        "127.0.0.1:0",
    )

    def place_of(path: str, host: str = HOST) -> str:
        pattern = rf"{path} of {host}:0 is at http://({host}:[0-9]+){path}"
        daemon.wait_for_log(pattern)
        found = re.findall(pattern, daemon.log())
        assert len(found) == 1
        return str(found[0])

    assert "OK" in get(place_of("/health"), "/health")
    assert "OK" in get(place_of("/ready"), "/ready")
    assert get(place_of("/debug/pprof/tasks"), "/debug/pprof/tasks")
    text = get(place_of("/metrics"), "/metrics")
    assert "coredns_build_info" in text
    assert re.search(r"^process_virtual_memory_max_bytes \S+$", text, re.MULTILINE)
    assert re.search(r"^process_network_receive_bytes_total \S+$", text, re.MULTILINE)
    assert "setup_errors" in get(place_of("/metrics", "127.0.0.1"), "/metrics")


def test_disabled_names_are_asked_for_each_time_with_the_ttl_that_a_kept_one_has(
    start: Start, scripted: ScriptedUpstream
) -> None:
    daemon = start(
        ".:PORT {\n    bind HOST\n    prometheus METRICS\n"
        "    cache 7 {\n        disable success\n    }\n"
        f"    forward . {scripted.host}:{scripted.port} {{\n        force_tcp\n    }}\n}}\n"
    )
    for _ in range(2):
        reply = ask(daemon, "a.test")
        assert (addresses(reply), reply.answer[0].ttl) == ([right_address("a.test")], 7)
    assert len(scripted.asked) == 2


def test_slip_in_the_configmap_takes_nothing_else_along_and_is_counted(
    tmp_path: Path, start: Start
) -> None:
    folder = tmp_path / "kube-dns"
    folder.mkdir()
    stub = folder / "stubDomains"
    stub.write_text('{"bad one": ["10.0.0.1"], "good.test": ["127.0.0.1:9"]}')
    daemon = start(
        ".:PORT {\n    bind HOST\n    whoami\n    prometheus METRICS\n}\n",
        "-kubednscm", str(folder), "-metrics-listen-address", "", "-conf", str(tmp_path / "conf"),
    )  # fmt: skip
    daemon.wait_for_log("'bad one' is no domain name: left out")
    assert "good.test:53" in (tmp_path / "conf").read_text()

    def failures() -> float:
        name = "coredns_nodecache_setup_errors_total"
        return total(scrape(daemon), name, errortype="configmap")

    assert failures() == 1
    stub.write_text('{"bad two": ["10.0.0.1"], "better.test": ["127.0.0.1:9"]}')
    daemon.wait_for_log("'bad two' is no domain name: left out")
    wait_until(lambda: failures() == 2, "the second slip in the metric")
