"""Makes Prometheus families of the counters, row by row of the catalogue.

Knows neither who serves queries, nor what the numbers mean, nor how the text gets to a scraper.

Several counter objects may share one label set (UDP and TCP differ in ``proto``, which
durations do not carry): each family adds up by its own labels. A family is computed in one go
when it is asked for, so each is consistent in itself, and none when it has no series yet.
"""

from __future__ import annotations

import resource
from collections.abc import Iterable, Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from nodecache.counters import Counters
from nodecache.telemetry.catalogue import CATALOGUE, Exposure, Kind, Part, Series, parts_of
from nodecache.telemetry.readings import HISTOGRAMS, NUMBERS, Histograms, Labels, Numbers

_NETSTAT = Path("/proc/self/net/netstat")
_NO_LIMIT = 2**64 - 1  # as Go shows it


def make_registry(
    counters: Counters, exposure: Exposure = Exposure.ALL, *, legacy: bool = False
) -> CollectorRegistry:
    """Returns a registry of its own with what a page of ``exposure`` shows.

    Args:
        counters: What is shown.
        exposure: Which part of it.
        legacy: Whether the former names of forward's series stand beside the present ones.
    """
    parts = parts_of(exposure, legacy=legacy)
    registry = CollectorRegistry()
    registry.register(SeriesCollector(counters, parts))
    if Part.PROCESS in parts:
        # Without registry=None it would also enter the library's global registry.
        registry.register(ProcessCollector(registry=None))
        registry.register(KernelCollector())
    return registry


class KernelCollector(Collector):
    """What Go's library shows of a process, and Python's does not."""

    def describe(self) -> Iterable[Metric]:
        """Returns nothing: what the kernel does not tell is left out."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yields each family that the kernel tells of."""
        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        most = _NO_LIMIT if limit == resource.RLIM_INFINITY else limit
        yield _summed(CATALOGUE["process_virtual_memory_max_bytes"], [((), most)])
        octets = _network_octets()
        for direction, field in (("receive", "InOctets"), ("transmit", "OutOctets")):
            if field in octets:
                row = CATALOGUE[f"process_network_{direction}_bytes_total"]
                yield _summed(row, [((), octets[field])])


def _network_octets() -> dict[str, int]:
    """The kernel's IpExt counters, by name; empty where it has none (proc(5))."""
    try:
        lines = _NETSTAT.read_text(encoding="ascii").splitlines()
        names, values = (line.split()[1:] for line in lines if line.startswith("IpExt:"))
        return dict(zip(names, map(int, values), strict=True))
    except (OSError, ValueError):
        return {}


class SeriesCollector(Collector):
    """Reads ``counters`` each time it is asked; hot paths hand in their integers first."""

    def __init__(self, counters: Counters, parts: frozenset[Part]) -> None:
        self._counters = counters
        # The process's figures come from the library's own collector.
        self._rows = [row for row in CATALOGUE.values() if row.part in parts - {Part.PROCESS}]

    def describe(self) -> Iterable[Metric]:
        """Returns nothing: which families exist is known only once something was counted."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yields each family that has series; may be resumed on a later turn of the loop."""
        self._counters.fold()
        for row in self._rows:
            family = self._read(row)
            if family.samples:
                yield family

    def _read(self, row: Series) -> Metric:
        if row.kind is Kind.HISTOGRAM:
            return _histogram(row, HISTOGRAMS[row.name](self._counters))
        return _summed(row, NUMBERS[row.name](self._counters))


def _summed(row: Series, numbers: Numbers) -> Metric:
    """Returns a counter or gauge with one series for each label set that occurs."""
    make = CounterMetricFamily if row.kind is Kind.COUNTER else GaugeMetricFamily
    family = make(row.name, row.text, labels=row.labels)
    sums: dict[Labels, float] = {}
    for labels, number in numbers:
        sums[labels] = sums.get(labels, 0) + number
    for labels, number in sums.items():
        family.add_metric(labels, number)
    return family


def _histogram(row: Series, parts: Histograms) -> Metric:
    """Returns a histogram with one series for each label set that occurs in ``parts``."""
    family = HistogramMetricFamily(row.name, row.text, labels=row.labels)
    sums: dict[Labels, tuple[list[int], float]] = {}
    for labels, part in parts:
        counts, total = sums.get(labels, ([0] * len(part.counts), 0.0))
        counts = [a + b for a, b in zip(counts, part.counts, strict=True)]
        sums[labels] = (counts, total + part.total)
    for labels, (counts, total) in sums.items():
        if labels and not any(counts):
            continue  # as CoreDNS: zones that nobody asks would fill most of a scrape
        family.add_metric(labels, _cumulative(row.bounds, counts), total)
    return family


def _cumulative(bounds: tuple[float, ...], counts: list[int]) -> list[tuple[str, float]]:
    """Returns (upper bound as Go writes it, values up to it), "+Inf" last."""
    running = 0.0
    buckets = []
    for bound, count in zip([*map(_as_go, bounds), "+Inf"], counts, strict=True):
        running += count
        buckets.append((bound, running))
    return buckets


def _as_go(bound: float) -> str:
    """Returns "100", not "100.0": ``le`` is compared as text by older Prometheus servers."""
    return repr(bound).removesuffix(".0")
