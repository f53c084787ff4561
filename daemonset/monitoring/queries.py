"""Queries for Prometheus, composed from the catalogue: what it lacks is refused."""

from __future__ import annotations

from dataclasses import dataclass

from nodecache.telemetry.catalogue import CATALOGUE, Kind

# Prometheus itself gives these to all that it scrapes.
TARGET_LABELS = frozenset({"job", "instance"})

# Series of Prometheus, the API server and kube-state-metrics -> labels of theirs that we use.
FOREIGN = {
    "up": frozenset[str](),
    "apiserver_admission_webhook_fail_open_count": frozenset({"name", "type"}),
    "kube_pod_status_phase": frozenset({"namespace", "pod", "phase"}),
    "kube_pod_info": frozenset({"namespace", "pod", "created_by_kind", "created_by_name"}),
}

_OPERATORS = ("=~", "!=")


class QueryError(ValueError):
    """A query names a series or label that nobody has, or takes a gauge for a counter."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Which targets queries are about, and over how long rates are taken.

    Attributes:
        targets: Matchers, as PromQL has them; "" for all targets.
        window: A PromQL duration, or a variable of Grafana.
    """

    targets: str
    window: str

    def series(self, name: str, /, **matchers: str) -> str:
        """Returns a selector; values may begin with PromQL's "=~" or "!=" in place of "="."""
        _check_labels(name, matchers)
        texts = [
            f'{label}{value[:2]}"{value[2:]}"' if value[:2] in _OPERATORS else f'{label}="{value}"'
            for label, value in matchers.items()
        ]
        inside = ", ".join(filter(None, [self.targets, *texts]))
        return f"{name}{{{inside}}}" if inside else name

    def rate(self, name: str, /, *by: str, **matchers: str) -> str:
        """Returns what a counter counts a second, summed by labels."""
        return self._counted("rate", name, by, matchers)

    def increase(self, name: str, /, *by: str, **matchers: str) -> str:
        """Returns what a counter counted in the window, summed by labels."""
        return self._counted("increase", name, by, matchers)

    def risen(self, name: str, /, *by: str) -> str:
        """Returns what a counter counted in the window, and before it was first seen there."""
        increase = self.increase(name, *by)
        selected = self.series(name)
        return (
            f"({increase} > 0 or sum{_by(by)}({selected} unless {selected} offset {self.window}))"
        )

    def gauge(self, how: str, name: str, /, *by: str, **matchers: str) -> str:
        """Returns a gauge, aggregated by ``how``: "sum", "max", "min", "avg" or "count"."""
        if name in CATALOGUE and CATALOGUE[name].kind is not Kind.GAUGE:
            raise QueryError(f"{name} is no gauge: use rate, increase or quantile")
        _check_labels(name, by)
        return f"{how}{_by(by)}({self.series(name, **matchers)})"

    def quantile(self, share: float, name: str, /, *by: str, **matchers: str) -> str:
        """Returns a quantile of a histogram, by labels."""
        if CATALOGUE[_family(name)].kind is not Kind.HISTOGRAM:
            raise QueryError(f"{name} is no histogram")
        buckets = self.rate(f"{name}_bucket", "le", *by, **matchers)
        return f"histogram_quantile({share:g}, {buckets})"

    def _counted(
        self, function: str, name: str, by: tuple[str, ...], matchers: dict[str, str]
    ) -> str:
        family = _family(name)
        if name in CATALOGUE and CATALOGUE[name].kind is not Kind.COUNTER:
            raise QueryError(f"{name} is no counter: its name ends otherwise, or it is a gauge")
        _check_labels(name, by, also={"le"} if family != name else set())
        return f"sum{_by(by)}({function}({self.series(name, **matchers)}[{self.window}]))"


def share(part: str, whole: str, least: float = 0) -> str:
    """Returns a ratio of sums with the same labels, where the whole is more than ``least``."""
    return f"{part} / ({whole} > {least:g})"


def share_of_all(part: str, whole: str) -> str:
    """Returns what each of several sums is of one."""
    return f"{part} / on () group_left () ({whole} > 0)"


def _by(labels: tuple[str, ...]) -> str:
    return f" by ({', '.join(labels)}) " if labels else ""


def _family(name: str) -> str:
    """Returns the catalogue's name of a series, which may be a part of a histogram."""
    if name in CATALOGUE or name in FOREIGN:
        return name
    family, _, part = name.rpartition("_")
    row = CATALOGUE.get(family)
    if row and row.kind is Kind.HISTOGRAM and part in {"bucket", "count", "sum"}:
        return family
    raise QueryError(f"nobody has a series {name}: see nodecache/telemetry/catalogue.py")


def _check_labels(
    name: str,
    labels: dict[str, str] | tuple[str, ...],
    also: set[str] | frozenset[str] = frozenset(),
) -> None:
    family = _family(name)
    known = FOREIGN.get(family) or frozenset(
        CATALOGUE[family].labels if family in CATALOGUE else ()
    )
    unknown = set(labels) - known - TARGET_LABELS - also
    if unknown:
        raise QueryError(f"{name} has no label {', '.join(sorted(unknown))}")
