from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests import loops

# tests/test_compiled.py has tests run on the package that `make compile` made.
if "NODECACHE_FROM" in os.environ:
    sys.path.insert(0, os.environ["NODECACHE_FROM"])

# Tests may run in a pod, where a daemon that is told to end would wait for a successor.
os.environ.pop("KUBERNETES_SERVICE_HOST", None)

# No deadline: the machines that run this are shared, and no test asserts speed.
settings.register_profile("dev", deadline=None)
settings.register_profile(
    "ci",
    deadline=None,
    derandomize=True,  # a run fails because of its change, not of its luck
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("ci" if os.environ.get("CI") else "dev")

# Real processes, namespaces and kernels live in real time, and a machine that is shared may rest
# for longer than any test waits. What fails there is run once more, and the run says so at its end.
# All other tests have invented time: they fail because of what they test, each time.
REAL_TIME = {
    "cluster", "daemon", "deploy", "host", "monitoring/test_for_real.py", "net", "netlife", "netns",
    "monitoring/test_rarer_faults.py", "process", "scenarios", "serving", "telemetry", "uml",
    "test_cleanup.py", "test_cli.py", "test_demo.py", "test_makefile.py", "test_packages.py",
    "webhook/certificates/test_api.py", "webhook/certificates/test_chart.py",
    "webhook/certificates/test_replicas.py",
}  # fmt: skip
# `make test` has two workers. Load that is measured, and what takes the whole machine (guests, the
# image), never run two at a time: they stay in one worker, and so do those that share a download.
# All others are dealt out.
ONE_BY_ONE = {
    "netlife", "scenarios", "uml", "daemon/test_flood.py", "daemon/test_storms.py",
    "deploy/test_image.py", "host/test_nft_releases.py",
}  # fmt: skip
_TIMER = pytest.StashKey[object]()


def pytest_itemcollected(item: pytest.Item) -> None:
    """Gives a second try to some folders and files, and some to one worker."""
    path = item.path.relative_to(Path(__file__).parent)
    places = {path.parts[0], str(path)}
    if places & REAL_TIME:
        item.add_marker(pytest.mark.flaky(reruns=1, reruns_delay=1))
    if places & ONE_BY_ONE:
        item.add_marker(pytest.mark.xdist_group("one by one"))


@pytest.hookimpl(tryfirst=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: object) -> None:
    """Notes the bound of a test."""
    item.stash[_TIMER] = settings


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Bounds the second try, too: pytest-timeout is done with a test when it has failed."""
    if getattr(item, "execution_count", 1) > 1 and _TIMER in item.stash:
        item.config.hook.pytest_timeout_set_timer(item=item, settings=item.stash[_TIMER])


@pytest.fixture(params=loops.LOOPS)
def run(request: pytest.FixtureRequest) -> loops.Run:
    """Runs a test's coroutine on either loop; whatever the loop would log fails the test."""
    return partial(loops.run, loop=request.param)
