"""A broken Corefile does nothing to a node that crashes or restarts."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.daemon.conftest import corefile
from tests.daemon.faulty import ScriptedUpstream, right_address
from tests.daemon.processes import HOST, Daemon, faultless, free_port, wait_until
from tests.daemon.stubs import addresses, ask, scrape, total

TOLD = r"is refused; serving the last configuration that worked, of 20\d\d-\d\d-\d\d [\d:]{8} UTC"


class Folder:
    """A daemon with a keeper and a -rundir, which can be started again."""

    def __init__(self, folder: Path, upstream: ScriptedUpstream) -> None:
        self.folder = folder
        self.ready_port = free_port()
        self.port, self.metrics_port = free_port(), free_port()
        target = f"{upstream.host}:{upstream.port}"
        text = corefile(self.port, self.metrics_port, target, "300", "force_tcp")
        self.good = text.replace("errors", f"errors\n    ready {HOST}:{self.ready_port}")
        self.broken = self.good.replace("errors", "erors")
        self.path = folder / f"Corefile.{self.port}"
        self.kept = folder / "run" / "configuration"

    def start(self, text: str) -> Daemon:
        return Daemon(
            self.folder,
            text,
            port=self.port,
            metrics_port=self.metrics_port,
            flags=["-keeper=true", f"-rundir={self.folder / 'run'}"],
        )

    def break_corefile(self, daemon: Daemon) -> None:
        """Breaks it, and returns when the running daemon has refused that."""
        wait_until(self.kept.exists, lambda: f"something kept: {daemon.log()}")
        self.path.write_text(self.broken)
        daemon.wait_for_log("is refused; the running one goes on")

    def ready_details(self) -> list[str]:
        with urllib.request.urlopen(
            f"http://{HOST}:{self.ready_port}/ready?format=json", timeout=5
        ) as page:
            assert page.status == 200
            details: list[str] = json.load(page)["details"]
            return details


@pytest.fixture
def house(tmp_path: Path, scripted: ScriptedUpstream) -> Folder:
    return Folder(tmp_path, scripted)


def kill_worker(daemon: Daemon) -> None:
    """Kills it as the kernel does for want of memory."""
    (worker,) = psutil.Process(daemon.pid).children()
    worker.kill()


def is_last_good(daemon: Daemon) -> float:
    return total(scrape(daemon), "nodecache_config_last_good")


def check_serving_the_last(house: Folder, daemon: Daemon) -> None:
    """Asserts that what was in force is served, and that this is told."""
    daemon.wait_for_log(TOLD)
    # On a busy machine a worker takes longer than the keeper leaves queries to it.
    right = [right_address("b.test")]
    wait_until(lambda: addresses(ask(daemon, "b.test")) == right, daemon.log)
    wait_until(lambda: answers(lambda: is_last_good(daemon) == 1), daemon.log)
    wait_until(lambda: answers(house.ready_details), daemon.log)
    assert total(scrape(daemon), "coredns_reload_failed_total") == 1
    (detail,) = house.ready_details()
    assert detail.startswith("serving the last configuration that worked, of 20")
    assert "unknown directive 'erors'" in detail


def answers(page: Callable[[], object]) -> object:
    """What a page gives; nothing while nobody listens, as pages open a moment after DNS."""
    try:
        return page()
    except OSError:
        return None


def repair(house: Folder, daemon: Daemon, text: str) -> None:
    """Writes a Corefile that is right, and returns when the daemon says that all is well."""
    house.path.write_text(text)
    wait_until(lambda: is_last_good(daemon) == 0, daemon.log)
    assert house.ready_details() == []


def test_killed_worker_comes_back_with_what_was_in_force(house: Folder) -> None:
    with faultless(house.start(house.good)) as daemon:
        daemon.wait_until_serving()
        assert is_last_good(daemon) == 0
        house.break_corefile(daemon)
        kill_worker(daemon)
        check_serving_the_last(house, daemon)
        repair(house, daemon, house.good)
        daemon.wait_for_log("the files say what is in force again")
        assert len(re.findall(TOLD, daemon.log())) == 1
        assert "ended with exit code 2" not in daemon.log()


def test_restarted_daemon_comes_up_with_what_was_in_force(house: Folder) -> None:
    with faultless(house.start(house.good)) as daemon:
        daemon.wait_until_serving()
        house.break_corefile(daemon)
    with faultless(house.start(house.broken)) as daemon:
        check_serving_the_last(house, daemon)
        before = house.kept.read_text()
        repair(house, daemon, house.good.replace("cache 300", "cache 299"))
        wait_until(lambda: house.kept.read_text() != before, daemon.log)
        assert addresses(ask(daemon, "c.test")) == [right_address("c.test")]
        assert len(re.findall(TOLD, daemon.log())) == 1


def test_first_start_with_a_broken_corefile_fails(house: Folder) -> None:
    with house.start(house.broken) as daemon:
        assert daemon.process.wait(20) == 2
        assert "unknown directive 'erors'" in daemon.log()
