"""Owns the tables: medians of all rounds, ratios, and the project's targets with their verdicts.

A ratio of two servers is the median of the ratios of each round: both were measured within seconds
of each other, so what slows the machine for a while cancels out.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

from bench.generator import Sample
from bench.process import Memory

OURS = ("nodecache", "nodecache-compiled")
FLOOR = "floor"
MEGA = 1e6


@dataclass(slots=True)
class Figures:
    """All that was measured of one server.

    Attributes:
        name: The server.
        forwards_by: "tcp", "udp" or "".
        samples: By step, one for each round.
        start_ms: Milliseconds from start to first answer, one for each round.
        memory: With 10,000 names cached.
        left_out: Why it was left out, if it was.
    """

    name: str
    forwards_by: str
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    start_ms: list[float] = field(default_factory=list)
    memory: Memory | None = None
    left_out: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    """One figure: how to get its values by round, how to print them, and how to compare them.

    Attributes:
        title: The column's head.
        values: Returns one value for each round, or none.
        form: Format of one value.
        more_is_better: Whether the best peer is the one with the largest value.
        rivals: "all"; "peers" without the floor; "tcp" for peers that forward over TCP; "none".
    """

    title: str
    values: Callable[[Figures], list[float]]
    form: str
    more_is_better: bool = False
    rivals: str = "all"


def _of(step: str, attribute: str) -> Callable[[Figures], list[float]]:
    """Returns the reader of one attribute of a step's samples."""
    return lambda figures: [float(getattr(s, attribute)) for s in figures.samples.get(step, [])]


HITS_QPS = Column("hits/s", _of("hits", "qps"), ",.0f", more_is_better=True)
HITS_CPU = Column("CPU us", _of("hits", "cpu_us"), ".2f")
SINGLE = Column("one, p50 us", _of("single", "p50_us"), ".1f")
MISSES_QPS = Column("misses/s", _of("misses", "qps"), ",.0f", more_is_better=True, rivals="tcp")
MISSES_CPU = Column("CPU us", _of("misses", "cpu_us"), ".2f", rivals="tcp")
PSS = Column("PSS MB", lambda f: [f.memory.pss / MEGA] if f.memory else [], ".1f", rivals="peers")
START = Column("start ms", lambda f: f.start_ms, ".0f", rivals="peers")
COLUMNS = (
    HITS_QPS,
    HITS_CPU,
    Column("core", _of("hits", "utilisation"), ".0%", rivals="none"),
    SINGLE,
    Column("one, p99", _of("single", "p99_us"), ".1f"),
    MISSES_QPS,
    MISSES_CPU,
    Column("core", _of("misses", "utilisation"), ".0%", rivals="none"),
    Column("p50 us", _of("misses", "p50_us"), ".0f", rivals="tcp"),
    Column("p99 us", _of("misses", "p99_us"), ".0f", rivals="tcp"),
    PSS,
    Column("RSS MB", lambda f: [f.memory.rss / MEGA] if f.memory else [], ".1f", rivals="peers"),
    START,
)


@dataclass(frozen=True, slots=True)
class Target:
    """A figure to reach: ours against a reference's, or against a plain bound.

    Attributes:
        text: What is compared.
        column: The figure.
        bound: The ratio, or in the figure's unit when there is no reference.
        reference: A server's name, "best peer", or "" for none.
    """

    text: str
    column: Column
    bound: float
    reference: str = ""


BEST_PEER = "best peer"
TARGETS = (
    Target("hits, CPU per query", HITS_CPU, 1.20, FLOOR),
    Target("hits, CPU per query", HITS_CPU, 0.95, BEST_PEER),
    Target("hits, queries/s", HITS_QPS, 0.80, FLOOR),
    Target("hits, queries/s", HITS_QPS, 1.00, BEST_PEER),
    Target("one at a time, p50", SINGLE, 1.20, BEST_PEER),
    Target("misses, CPU per query", MISSES_CPU, 1.00, "unbound"),
    Target("misses, CPU per query", MISSES_CPU, 0.60, "node-cache"),
    Target("start to first answer, ms", START, 400),
    Target("proportional memory, 10,000 names, MB", PSS, 45),
)


def ratio(ours: Figures, other: Figures, column: Column) -> float | None:
    """Returns the median over the rounds of ours / theirs, or None without figures."""
    pairs = zip(column.values(ours), column.values(other), strict=False)
    ratios = [mine / theirs for mine, theirs in pairs if theirs]
    return median(ratios) if ratios else None


def best_peer(figures: list[Figures], column: Column) -> Figures | None:
    """Returns the peer with the best median; for misses only among those that forward over TCP."""
    peers = [
        f
        for f in figures
        if f.name not in (*OURS, FLOOR)
        and column.values(f)
        and (column.rivals != "tcp" or f.forwards_by == "tcp")
    ]
    if not peers:
        return None
    choose = max if column.more_is_better else min
    return choose(peers, key=lambda f: median(column.values(f)))


def _by_name(figures: list[Figures], name: str, column: Column) -> Figures | None:
    """Returns a server by name, where "best peer" is a name too."""
    if name == BEST_PEER:
        return best_peer(figures, column)
    return next((f for f in figures if f.name == name and column.values(f)), None)


def _row(figures: Figures) -> list[str]:
    """Returns one server's row."""
    name = figures.name + (" *" if figures.forwards_by == "udp" else "")
    cells = [name]
    for column in COLUMNS:
        values = column.values(figures)
        cells.append(format(median(values), column.form) if values else "-")
    return cells


def _ratio_row(figures: list[Figures], ours: Figures, name: str) -> list[str]:
    """Returns the row of ratios of ours to a reference."""
    cells = [f"{ours.name} / {name}"]
    for column in COLUMNS:
        skipped = column.rivals == "none" or (name == FLOOR and column.rivals != "all")
        other = None if skipped else _by_name(figures, name, column)
        value = ratio(ours, other, column) if other else None
        cells.append("-" if value is None else f"{value:.2f}")
    return cells


def _print_rows(rows: list[list[str]]) -> None:
    """Prints a table: first column to the left, the rest to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        print("  ".join(cells))


def judge(figures: list[Figures], target: Target) -> str:
    """Returns one target's line: what was asked, what each of ours gave, reached or not."""
    sign = ">=" if target.column.more_is_better else "<="
    against = f" x {target.reference}" if target.reference else ""
    text = f"{target.text} {sign} {target.bound:g}{against}"
    other = _by_name(figures, target.reference, target.column) if target.reference else None
    if other and target.reference == BEST_PEER:
        text += f" ({other.name})"
    verdicts = []
    for name in OURS:
        ours = _by_name(figures, name, target.column)
        value: float | None = None
        if ours and not target.reference:
            value = median(target.column.values(ours))
        elif ours and other:
            value = ratio(ours, other, target.column)
        if value is not None:
            good = value >= target.bound if target.column.more_is_better else value <= target.bound
            figure = f"{value:.{2 if target.reference else 1}f}"
            verdicts.append(f"{name} {figure} {'reached' if good else 'not reached'}")
    return f"{text}: {', '.join(verdicts) or 'not measured'}"


def print_report(figures: list[Figures]) -> None:
    """Prints medians, ratios, targets and remarks."""
    rows = [["", *(column.title for column in COLUMNS)]]
    rows += [_row(f) for f in figures if f.start_ms]
    for ours in figures:
        if ours.name in OURS and ours.start_ms:
            rows += [_ratio_row(figures, ours, name) for name in (FLOOR, BEST_PEER)]
    print()
    _print_rows(rows)
    print("\n* misses forwarded by UDP: not among the best peers there\n")
    for target in TARGETS:
        print(judge(figures, target))
    for f in figures:
        if f.left_out:
            print(f"{f.name}: left out: {f.left_out}")


def write_json(figures: list[Figures], path: Path) -> None:
    """Writes every sample of every server."""
    path.write_text(json.dumps([asdict(f) for f in figures], indent=1) + "\n")
