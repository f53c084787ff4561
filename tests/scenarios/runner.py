"""Runs a scenario: a file that says what goes wrong when, and what clients may see of it.

``[backends]``: ``count``, ``ttl_s``, ``delay_ms``. ``[load]``: ``rate`` (queries/s), ``hot``
(names), ``unique`` (share of names asked once), ``aaaa``. ``[[fault]]``: at second ``at`` backend
``backend`` gets ``do`` (see ``Timeline``). ``[expect]``: the greatest value of each figure, or,
with ``least_`` before its name, the smallest. ``measure_from_s``: when the client begins.
``others``: caches whose figures in the same run are printed beside nodecache's. ``options``: lines
for the Corefile; ``stale``: one for its ``cache``.

Figures: ``failures`` of all queries, ``hot_failures`` of those for hot names, ``over_1s`` answered
later or never; ``median_ms``, ``p95_ms``, ``p99_ms``, ``longest_ms`` to an answer,
``hot_longest_ms`` to one for a hot name; ``extra_percent``, queries to the upstream beyond one for
each name that was asked once (true where hot names do not expire); ``cpu_percent`` of the
resolver, as if the machine had its usual speed (tests/slowness.py); ``oldest_s`` and ``idle_s`` of
connections as the backends saw them; ``connections``, the most at once of each backend, summed;
``dials_per_s``; ``ratio_before``, the busiest backend over the idlest before the first fault;
``first_share`` and ``last_share`` of the queries of the last 10 s.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import tomllib
import urllib.request
from contextlib import ExitStack
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.daemon.processes import PATIENCE_S, ROOT
from tests.daemon.servers import program
from tests.netns.topology import inside
from tests.scenarios.bed import LOCAL, ScenarioBed, bed_of
from tests.scenarios.resolvers import METRICS, Resolver
from tests.scenarios.timeline import Fault, Timeline
from tests.slowness import slowness

# What a query that is sent to an upstream adds to: a connection was there, or had to be opened.
_ATTEMPTS = ("coredns_proxy_conn_cache_hits_total", "coredns_proxy_conn_cache_misses_total")
_WARM_UP_S = 1.5


@dataclass(frozen=True, slots=True)
class Scenario:
    """What a file says."""

    name: str
    about: str
    seconds: float
    count: int
    ttl_s: int
    delay_ms: float
    load: dict[str, Any]
    faults: tuple[Fault, ...]
    expect: dict[str, float]
    others: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    stale: str = ""
    measure_from_s: float = 0.0


@dataclass(slots=True)
class Figures:
    """What came of one run: by name, as ``[expect]`` names them, and for people."""

    values: dict[str, float] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        numbers = ", ".join(f"{name} {value:.4g}" for name, value in self.values.items())
        return f"{numbers}; {self.notes}"

    def violations(self, expect: dict[str, float]) -> list[str]:
        """Returns what was expected and is not so."""
        found = []
        for name, bound in expect.items():
            value = self.values[name.removeprefix("least_")]
            if value < bound if name.startswith("least_") else value > bound:
                found.append(f"{name}: {value:.4g}, expected {bound:g}")
        return found


def load_scenario(path: Path) -> Scenario:
    """Reads a file. Raises KeyError, TypeError or tomllib.TOMLDecodeError if it is wrong."""
    data = tomllib.loads(path.read_text())
    backends = data["backends"]
    return Scenario(
        name=path.stem,
        about=data["about"],
        seconds=data["seconds"],
        count=backends["count"],
        ttl_s=backends.get("ttl_s", 3600),
        delay_ms=backends.get("delay_ms", 0.0),
        load=data["load"],
        faults=tuple(Fault(**fault) for fault in data.get("fault", ())),
        expect=data["expect"],
        others=tuple(data.get("others", ())),
        options=tuple(data.get("options", ())),
        stale=data.get("stale", ""),
        measure_from_s=data.get("measure_from_s", 0.0),
    )


class Client:
    """client.py in the node's namespace."""

    def __init__(self, bed: ScenarioBed, load: dict[str, Any], label: str) -> None:
        options = [
            f"--{name}" if value is True else f"--{name}={value}" for name, value in load.items()
        ]
        self._process = subprocess.Popen(
            [
                program("ip"), "netns", "exec", bed.node, sys.executable, "-m",
                "tests.scenarios.client", LOCAL, f"--label={label}", *options,
            ],
            stdout=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip
        bed.stack.callback(self._process.kill)

    def finish(self) -> dict[str, Any]:
        """Stops asking and returns the client's report."""
        self._process.terminate()
        printed, _ = self._process.communicate(timeout=PATIENCE_S)
        report: dict[str, Any] = json.loads(printed)
        return report


@dataclass(frozen=True, slots=True)
class _Mark:
    """What the counters say at one moment."""

    at: float
    attempts: float
    cpu_s: float
    unique: list[int]
    accepted: list[int]

    @classmethod
    def now(cls, bed: ScenarioBed, resolver: Resolver) -> _Mark:
        reports = [backend.order() for backend in bed.backends]
        attempts = _scrape_attempts(bed) if resolver.kind == "nodecache" else 0.0
        unique = [report["unique"] for report in reports]
        accepted = [report["accepted"] for report in reports]
        return cls(time.monotonic(), attempts, resolver.cpu_s(), unique, accepted)


def _scrape_attempts(bed: ScenarioBed) -> float:
    with (
        inside(bed.node),
        urllib.request.urlopen(f"http://127.0.0.1:{METRICS}/metrics", timeout=PATIENCE_S) as page,
    ):
        text = page.read().decode()
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name in _ATTEMPTS
    )


def run(scenario: Scenario, kind: str, folder: Path) -> Figures:
    """Runs a scenario with one resolver and returns its figures."""
    with ExitStack() as stack:
        bed = stack.enter_context(bed_of(scenario.count, scenario.ttl_s, scenario.delay_ms))
        resolver = Resolver(kind, bed, folder, scenario.options, scenario.stale)
        stack.callback(resolver.stop)
        resolver.wait_until_serving()
        warm_up = Client(bed, {**scenario.load, "unique": 0.05}, "warm")
        time.sleep(_WARM_UP_S)
        warm_up.finish()
        timeline = Timeline(bed, scenario.faults)
        timeline.run(scenario.measure_from_s)
        before = _Mark.now(bed, resolver)
        client = Client(bed, scenario.load, "run")
        timeline.run(scenario.measure_from_s + scenario.seconds)
        after = _Mark.now(bed, resolver)
        report = client.finish()
        end = _Mark.now(bed, resolver)
        first = scenario.faults[0].at if scenario.faults else 0.0
        moments = (before.at, after.at, timeline.began + first)
        figures = _figures(bed, report, before, after, end) | _shares(bed, scenario.count, *moments)
        return Figures(figures, _notes(bed, report))


def _figures(
    bed: ScenarioBed, report: dict[str, Any], before: _Mark, after: _Mark, end: _Mark
) -> dict[str, float]:
    reports = [backend.order() for backend in bed.backends]
    asked = report["unique"]
    sent = end.attempts - before.attempts or sum(end.unique) - sum(before.unique)
    seconds = after.at - before.at
    names = (
        "failures", "hot_failures", "over_1s",
        "median_ms", "p95_ms", "p99_ms", "longest_ms", "hot_longest_ms",
    )  # fmt: skip
    return {
        **{name: report[name] for name in names},
        "extra_percent": 100 * (sent - asked) / asked if asked else 0.0,
        "cpu_percent": 100 * (after.cpu_s - before.cpu_s) / seconds / slowness(),
        "oldest_s": max(r["oldest_s"] for r in reports),
        "idle_s": max(r["longest_idle_s"] for r in reports),
        "connections": sum(r["most"] for r in reports),
        "dials_per_s": (sum(end.accepted) - sum(before.accepted)) / seconds,
    }


def _notes(bed: ScenarioBed, report: dict[str, Any]) -> dict[str, Any]:
    shares = _queries(bed, -inf, inf)
    return {
        **{name: report[name] for name in ("sent", "unique", "kinds", "failed_at")},
        "shares": [round(count / max(1, sum(shares)), 3) for count in shares],
    }


def _shares(
    bed: ScenarioBed, count: int, began: float, ended: float, first_fault: float
) -> dict[str, float]:
    """Returns how evenly backends were asked: before the first fault, and in the last 10 s."""
    before = _queries(bed, began, first_fault)[:count]
    last = _queries(bed, ended - 10, ended)
    return {
        "ratio_before": max(before) / max(1, min(before)),
        "first_share": last[0] / max(1, sum(last)),
        "last_share": last[-1] / max(1, sum(last)),
    }


def _queries(bed: ScenarioBed, since: float, until: float) -> list[int]:
    """Returns what each backend was asked between two moments, to the second."""
    return [
        sum(
            count
            for second, count in backend.last_report["by_second"].items()
            if since <= int(second) < until
        )
        for backend in bed.backends
    ]
