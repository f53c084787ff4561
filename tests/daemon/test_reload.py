"""A changed configuration is in force within two seconds, and nobody notices the change."""

from __future__ import annotations

import os
import re
import signal
import time
import urllib.error
import urllib.request
from pathlib import Path

import dns.rcode
import psutil
import pytest

from tests.daemon.conftest import StartDaemon, corefile
from tests.daemon.faulty import ScriptedUpstream, right_address
from tests.daemon.load import Load
from tests.daemon.processes import HOST, Daemon, faultless, free_port, own_host, wait_until
from tests.daemon.stubs import addresses, ask, scrape, total

NAMES = [f"hot{n}.test" for n in range(50)]
NAMESERVER = own_host(2)  # not where the daemon itself listens
NOTICED_S = 2.0
ROUNDS = 30


def path_of(daemon: Daemon) -> Path:
    return Path(daemon.command[daemon.command.index("-basecorefile") + 1])


def change(daemon: Daemon, old: str, new: str) -> None:
    """Replaces the Corefile as an editor or ``mv`` does."""
    path = path_of(daemon)
    text = path.read_text()
    assert old in text
    draft = path.with_suffix(".draft")
    draft.write_text(text.replace(old, new))
    draft.rename(path)


def loaded(daemon: Daemon) -> int:
    return daemon.log().count("configuration loaded")


def wait_for_load(daemon: Daemon, count: int) -> None:
    wait_until(lambda: loaded(daemon) >= count, lambda: f"load {count} in {daemon.log()}")


@pytest.fixture
def daemon(daemon_for: StartDaemon, scripted: ScriptedUpstream) -> Daemon:
    return daemon_for(scripted)


def test_changed_file_is_noticed_within_two_seconds(daemon: Daemon) -> None:
    assert ask(daemon, "a.test").rcode() == dns.rcode.NOERROR
    changed_at = time.monotonic()
    change(daemon, f".:{daemon.port}", f"test:{daemon.port}")
    while ask(daemon, "other.example").rcode() != dns.rcode.REFUSED:
        assert time.monotonic() - changed_at < NOTICED_S
        time.sleep(0.02)
    assert addresses(ask(daemon, "a.test")) == [right_address("a.test")]


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1])
def test_signal_reloads_at_once_where_files_are_not_watched(
    tmp_path: Path, scripted: ScriptedUpstream, number: signal.Signals
) -> None:
    port, metrics_port = free_port(), free_port()
    text = corefile(port, metrics_port, f"{scripted.host}:{scripted.port}", "300", "force_tcp")
    with faultless(
        Daemon(tmp_path, text, port=port, metrics_port=metrics_port, flags=["-watch=false"])
    ) as daemon:
        daemon.wait_until_serving()
        change(daemon, f".:{port}", f"test:{port}")
        time.sleep(NOTICED_S)
        assert loaded(daemon) == 0
        daemon.process.send_signal(number)
        wait_for_load(daemon, 1)
        assert ask(daemon, "other.example").rcode() == dns.rcode.REFUSED


def test_config_map_whose_link_is_swapped_is_loaded(
    tmp_path: Path, scripted: ScriptedUpstream
) -> None:
    port, metrics_port = free_port(), free_port()
    text = corefile(port, metrics_port, f"{scripted.host}:{scripted.port}", "300", "force_tcp")

    def publish(text: str, version: str) -> None:
        """What kubelet does: a new folder, then one atomic change of the link to it."""
        (tmp_path / version).mkdir()
        (tmp_path / version / "Corefile").write_text(text)
        (tmp_path / "..data_tmp").symlink_to(version)
        (tmp_path / "..data_tmp").rename(tmp_path / "..data")

    publish(text, "..1")
    (tmp_path / "Corefile").symlink_to("..data/Corefile")
    with faultless(
        Daemon(
            tmp_path,
            text,
            port=port,
            metrics_port=metrics_port,
            flags=["-basecorefile", str(tmp_path / "Corefile"), "-conf", str(tmp_path / "out")],
        )
    ) as daemon:
        daemon.wait_until_serving()
        assert (tmp_path / "out").read_text() == text
        changed = text.replace(f".:{port}", f"test:{port}")
        publish(changed, "..2")
        wait_for_load(daemon, 1)
        assert ask(daemon, "other.example").rcode() == dns.rcode.REFUSED
        assert (tmp_path / "out").read_text() == changed


@pytest.mark.slow
def test_wrong_configuration_leaves_the_running_one_alone_and_is_told_once(daemon: Daemon) -> None:
    ask(daemon, "a.test")
    good = path_of(daemon).read_text()
    change(daemon, "errors", "erors")
    wait_until(lambda: "the running one goes on" in daemon.log(), daemon.log)
    time.sleep(3.0)
    assert addresses(ask(daemon, "b.test")) == [right_address("b.test")]
    assert len(re.findall(r"unknown directive 'erors'", daemon.log())) == 1
    assert total(scrape(daemon), "coredns_reload_failed_total") == 1
    path_of(daemon).write_text(good.replace("cache 300", "cache 299"))
    wait_for_load(daemon, 1)


def test_address_that_cannot_be_bound_leaves_the_running_configuration_alone(
    daemon: Daemon,
) -> None:
    change(daemon, f"bind {HOST}", f"bind {HOST} 192.0.2.1")
    wait_until(lambda: "cannot listen on 192.0.2.1" in daemon.log(), daemon.log)
    assert addresses(ask(daemon, "b.test")) == [right_address("b.test")]


def test_cache_outlives_a_reload(daemon: Daemon, scripted: ScriptedUpstream) -> None:
    ask(daemon, "a.test")
    change(daemon, "errors", "errors\n    loop")
    wait_for_load(daemon, 1)
    assert addresses(ask(daemon, "a.test")) == [right_address("a.test")]
    assert len(scripted.asked_for("a.test")) == 1


def test_added_address_serves_and_a_removed_one_ends(daemon: Daemon) -> None:
    port = free_port()
    text = path_of(daemon).read_text()
    second = text.replace(f".:{daemon.port}", f".:{port}")
    path_of(daemon).write_text(text + second)
    wait_for_load(daemon, 1)
    twin = Twin(daemon.host, port)
    assert addresses(ask(twin, "a.test")) == [right_address("a.test")]
    assert addresses(ask(twin, "a.test", tcp=True)) == [right_address("a.test")]
    path_of(daemon).write_text(text)
    wait_for_load(daemon, 2)
    assert addresses(ask(daemon, "a.test")) == [right_address("a.test")]
    with pytest.raises(ConnectionError):
        ask(twin, "a.test", tcp=True)


class Twin:
    """A second address of the same daemon, as ``ask`` wants it."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="resolv.conf means port 53, which needs root")
def test_replaced_resolv_conf_is_used(tmp_path: Path, daemon_for: StartDaemon) -> None:
    resolv_conf = tmp_path / "resolv.conf"
    resolv_conf.write_text("# nobody yet\n")
    daemon = daemon_for(str(resolv_conf))
    assert ask(daemon, "a.test").rcode() == dns.rcode.REFUSED
    with ScriptedUpstream(host=NAMESERVER, port=53):
        resolv_conf.write_text(f"nameserver {NAMESERVER}\n")
        wait_for_load(daemon, 1)
        assert addresses(ask(daemon, "a.test")) == [right_address("a.test")]


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="resolv.conf means port 53, which needs root")
def test_resolv_conf_that_blinks_costs_neither_upstreams_nor_cache(
    tmp_path: Path, daemon_for: StartDaemon
) -> None:
    resolv_conf = tmp_path / "resolv.conf"
    text = f"nameserver {NAMESERVER}\n"
    resolv_conf.write_text(text)
    daemon, port = daemon_for(str(resolv_conf)), free_port()
    change(daemon, "errors", f"errors\n    ready {HOST}:{port}")
    wait_for_load(daemon, 1)

    def kept(count: int) -> bool:
        return total(scrape(daemon), "nodecache_kept_files") == count

    with ScriptedUpstream(host=NAMESERVER, port=53) as upstream:
        ask(daemon, "warm.test")
        resolv_conf.write_text("")
        wait_until(lambda: kept(1), daemon.log)
        resolv_conf.unlink()
        os.mkfifo(resolv_conf)
        time.sleep(NOTICED_S)
        assert str(resolv_conf) in ready_text(daemon, port)
        assert addresses(ask(daemon, "cold.test")) == [right_address("cold.test")]
        resolv_conf.unlink()
        resolv_conf.write_text(text)
        wait_until(lambda: kept(0), daemon.log)
        assert str(resolv_conf) not in ready_text(daemon, port)
        for name in ("warm.test", "cold.test"):
            assert addresses(ask(daemon, name)) == [right_address(name)]
            assert len(upstream.asked_for(name)) == 1
    assert daemon.log().count("those that it named before go on") == 1


@pytest.mark.slow
def test_reload_each_second_under_load_loses_no_query_and_no_hit(
    daemon: Daemon, scripted: ScriptedUpstream
) -> None:
    variants = ["cache 300", "cache 299", "cache 300 {\n        prefetch 5\n    }"]
    for name in NAMES:
        ask(daemon, name)
    before = scrape(daemon)
    with Load(daemon.host, daemon.port, NAMES, rate=1000, unique_each=100) as load:
        for round_number in range(ROUNDS):
            old, new = variants[round_number % 3], variants[(round_number + 1) % 3]
            change(daemon, old, new)
            if round_number % 2:
                daemon.process.send_signal(signal.SIGHUP)
            time.sleep(1.0)
    after = scrape(daemon)
    hits, requests = (
        total(after, f"coredns_cache_{kind}_total") - total(before, f"coredns_cache_{kind}_total")
        for kind in ("hits", "requests")
    )
    print(
        f"FIGURE {loaded(daemon)} reloads, {load.sent} queries: {load.lost} lost,"
        f" {hits / requests:.2%} hits, longest {load.longest_s * 1000:.0f} ms"
    )
    assert loaded(daemon) >= ROUNDS - 2
    assert load.lost == 0
    assert set(load.rcodes) == {0}
    assert requests == load.sent
    assert requests - hits <= load.sent / 100 + 1  # the names that nobody had asked before


@pytest.mark.slow
def test_memory_stays_where_it_is_over_many_reloads(
    tmp_path: Path, daemon: Daemon, scripted: ScriptedUpstream
) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("".join(f"10.0.{n >> 8}.{n & 255} h{n}.test\n" for n in range(500)))
    variants = [
        "errors\n    loadbalance",
        f"errors\n    hosts {hosts} {{\n        fallthrough\n    }}",
        "errors\n    log\n    rewrite name regex (.*)[.]old[.]test[.] {1}.test",
    ]
    process = psutil.Process(daemon.pid)
    for number in range(500):
        ask(daemon, f"known{number}.test")
    change(daemon, "errors", variants[0])
    sizes = []
    for round_number in range(160):
        wait_for_load(daemon, round_number + 1)
        ask(daemon, f"known{round_number}.test")
        if round_number % 80 == 79:
            sizes.append(process.memory_info().rss)
        change(daemon, variants[round_number % 3], variants[(round_number + 1) % 3])
        daemon.process.send_signal(signal.SIGHUP)
    # 80 reloads; if what they replace stayed, it would be 5 MB.
    assert sizes[1] - sizes[0] < 1024 * 1024


def ready_text(daemon: Daemon, port: int) -> str:
    """What the page says, or "" while nobody listens: pages open a moment after the switch."""
    address = f"http://{daemon.host}:{port}/ready?format=json"
    try:
        with urllib.request.urlopen(address, timeout=5) as page:
            text: str = page.read().decode()
            return text
    except ConnectionRefusedError:
        return ""
    except urllib.error.URLError as error:
        if isinstance(error.reason, ConnectionRefusedError):
            return ""
        raise


@pytest.fixture
def ready_port(daemon: Daemon) -> int:
    port = free_port()
    change(daemon, "errors", f"errors\n    ready {HOST}:{port}")
    wait_for_load(daemon, 1)
    return port


def test_ready_tells_of_a_refused_configuration(daemon: Daemon, ready_port: int) -> None:
    wait_until(lambda: "true" in ready_text(daemon, ready_port), "ready")
    change(daemon, "errors", "erors")
    wait_until(lambda: "unknown directive" in ready_text(daemon, ready_port), daemon.log)
