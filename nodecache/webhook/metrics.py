"""What the webhook counts, under the names of the catalogue."""

from __future__ import annotations

from collections.abc import Callable

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

import nodecache
from nodecache.telemetry.catalogue import CATALOGUE, REFUSALS
from nodecache.webhook.model import Reason, Refusal

CONTENT_TYPE = prometheus_client.CONTENT_TYPE_PLAIN_0_0_4


class Metrics:
    """The series of one webhook."""

    def __init__(self) -> None:
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        self._registry.register(ProcessCollector(registry=None))
        self._decisions = self._counter("nodecache_webhook_decisions_total")
        self._refused = self._counter("nodecache_webhook_refused_total")
        # 0 from the start, so that the first one is a rise.
        for decision in (*Reason, *Refusal):
            self._decisions.labels(decision)
        for refusal in REFUSALS:
            self._refused.labels(refusal)
        row = CATALOGUE["nodecache_webhook_review_duration_seconds"]
        self._durations = Histogram(row.name, row.text, buckets=row.bounds, registry=self._registry)
        self._gauge("nodecache_build_info").labels(nodecache.__version__).set(1)

    def show(self, name: str, read: Callable[[], float]) -> None:
        """Shows a gauge of the catalogue, which is read when somebody scrapes."""
        self._gauge(name).set_function(read)

    def note_decision(self, reason: str, seconds: float) -> None:
        """Counts one review and the time that it took."""
        self._decisions.labels(reason).inc()
        self._durations.observe(seconds)

    def note_refusal(self, reason: str) -> None:
        """Counts what was refused; ``reason`` is one of the catalogue's."""
        self._refused.labels(reason).inc()

    def render(self) -> bytes:
        """Returns all series in Prometheus' text format."""
        return prometheus_client.generate_latest(self._registry)

    def _counter(self, name: str) -> Counter:
        row = CATALOGUE[name]
        return Counter(row.name, row.text, row.labels, registry=self._registry)

    def _gauge(self, name: str) -> Gauge:
        row = CATALOGUE[name]
        return Gauge(row.name, row.text, row.labels, registry=self._registry)
