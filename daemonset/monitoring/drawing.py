"""Draws panels of a dashboard as HTML and SVG, much as Grafana would: values in, text out."""

from __future__ import annotations

import html
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

WIDTH, COLUMNS, ROW, GAP, HEAD = 1600, 24, 38, 8, 44

_PALETTE = ("#73bf69", "#f2cc0c", "#8ab8ff", "#ff780a", "#f2495c", "#5794f2", "#b877d9", "#ffa6b0",
            "#96d98d", "#ffee52", "#3274d9", "#e0752d")  # fmt: skip
_NAMED = {"green": "#73bf69", "yellow": "#f2cc0c", "red": "#f2495c", "blue": "#5794f2"}
_STYLE = """
* { box-sizing: border-box; margin: 0 }
body { background: #111217; color: #ccccdc; font: 12px/1.35 'DejaVu Sans', Inter, sans-serif; position: relative }
header { padding: 12px 16px; font-size: 15px; color: #e6e6f0 }
header small { color: #8e8ea0; margin-left: 14px; font-size: 12px }
section { position: absolute; background: #181b1f; border: 1px solid #2a2d33; border-radius: 3px; overflow: hidden }
h2 { font-size: 12.5px; font-weight: 500; padding: 6px 10px 2px; color: #d8d9e5; white-space: nowrap }
.figure { position: absolute; top: 44px; left: 0; right: 0; text-align: center; font-size: 25px; font-weight: 600; white-space: nowrap }
.legend { position: absolute; bottom: 5px; left: 10px; right: 8px; height: 32px; overflow: hidden; font-size: 10.5px; color: #b5b6c4 }
.legend span { white-space: nowrap; margin-right: 12px; display: inline-block }
.legend i { display: inline-block; width: 11px; height: 3px; border-radius: 2px; margin-right: 5px; vertical-align: middle }
svg { position: absolute; left: 0 }
text { fill: #9a9bab; font: 10px 'DejaVu Sans', sans-serif }
table { border-collapse: collapse; width: 100%; font-size: 11.5px; margin-top: 2px }
td, th { padding: 5.5px 10px; text-align: right; border-bottom: 1px solid #25282e; font-weight: 400 }
th { color: #8ab8ff }
td:first-child, th:first-child, td:nth-child(2), th:nth-child(2) { text-align: left }
.bar { display: flex; align-items: center; padding: 2px 10px; font-size: 11px }
.bar b { font-weight: 400; width: 45%; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; text-align: right; padding-right: 9px }
.bar u { background: #5794f2; height: 15px; text-decoration: none; border-radius: 2px; opacity: .75; min-width: 1px }
.bar em { font-style: normal; padding-left: 7px; color: #8ab8ff; white-space: nowrap }
"""  # noqa: E501

Panel = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Line:
    """One series of an answer: its legend, labels, and (Unix seconds, value)."""

    name: str
    labels: dict[str, str]
    points: list[tuple[float, float]]

    @property
    def last(self) -> float:
        """The newest value."""
        return self.points[-1][1]


Answers = Callable[[Panel], list[list[Line]]]


def worded(value: float, unit: str) -> str:
    """Returns a figure with its unit, as short as people write it."""
    if unit == "percentunit":
        return f"{value * 100:.3g} %"
    if unit == "s":
        return _scaled(value, ((1, "s"), (1e-3, "ms"), (1e-6, "µs")))
    if unit == "bytes":
        return _scaled(value, ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"), (1, "B")))
    text = f"{value / 1000:.3g} K" if value >= 1000 else f"{value:.3g}"
    return text + {"reqps": " req/s", "cps": " /s"}.get(unit, "")


def _scaled(value: float, units: Sequence[tuple[float, str]]) -> str:
    for size, name in units:
        if value >= size or size == units[-1][0]:
            return f"{value / size:.3g} {name}"
    return "0"


def page(board: dict[str, Any], answers: Answers, minutes: float) -> str:
    """Returns the dashboard as HTML; ``answers`` has the lines of each query of a panel."""
    panels = board["panels"]
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    body = "".join(_section(panel, answers(panel)) for panel in panels)
    return (
        f"<!doctype html><meta charset=utf-8><title>{html.escape(board['title'])}</title>"
        f"<style>{_STYLE} body {{ height: {HEAD + rows * ROW + GAP}px; width: {WIDTH}px }}</style>"
        f"<header>{html.escape(board['title'])}<small>all nodes, last {minutes:.0f} minutes</small>"
        f"</header>{body}"
    )


def _section(panel: Panel, lines: list[list[Line]]) -> str:
    place = panel["gridPos"]
    cell = (WIDTH - GAP) / COLUMNS
    left, top = GAP + place["x"] * cell, HEAD + place["y"] * ROW
    width, height = place["w"] * cell - GAP, place["h"] * ROW - GAP
    inside = _DRAWN_AS[panel["type"]](panel, lines, int(width), int(height))
    return (
        f'<section style="left:{left:.0f}px;top:{top:.0f}px;width:{width:.0f}px;'
        f'height:{height:.0f}px"><h2>{html.escape(panel["title"])}</h2>{inside}</section>'
    )


def _stat(panel: Panel, lines: list[list[Line]], width: int, height: int) -> str:
    found = [line for each in lines for line in each]
    if not found:
        return '<div class=figure style="color:#777">no data</div>'
    defaults = panel["fieldConfig"]["defaults"]
    color = _threshold_color(defaults["thresholds"]["steps"], found[0].last)
    text = worded(found[0].last, defaults["unit"])
    top = max(value for _, value in found[0].points) or 1
    spark = _path(found[0].points, _across(found[0].points, 0, width), lambda v: 46 - 40 * v / top)
    return (
        f'<svg width={width} height=50 style="top:{height - 52}px">'
        f'<path d="{spark} L{width} 50 L0 50Z" fill="{color}" opacity=.16 />'
        f'<path d="{spark}" fill=none stroke="{color}" /></svg>'
        f'<div class=figure style="color:{color}">{html.escape(text)}</div>'
    )


def _threshold_color(steps: list[dict[str, Any]], value: float) -> str:
    color = steps[0]["color"]
    for step in steps[1:]:
        if value >= step["value"]:
            color = step["color"]
    return _NAMED[color]


def _across(
    points: Sequence[tuple[float, float]], left: float, right: float
) -> Callable[[float], float]:
    start, end = points[0][0], points[-1][0]
    return lambda at: left + (right - left) * (at - start) / ((end - start) or 1)


def _path(
    points: Sequence[tuple[float, float]],
    x: Callable[[float], float],
    y: Callable[[float], float],
) -> str:
    return "M" + " L".join(f"{x(at):.1f} {y(value):.1f}" for at, value in points)


def _graph(panel: Panel, lines: list[list[Line]], width: int, height: int) -> str:
    found = sorted((line for each in lines for line in each), key=lambda line: line.name)
    if not found:
        return '<div class=figure style="color:#777">no data</div>'
    custom = panel["fieldConfig"]["defaults"]["custom"]
    stacked = custom.get("stacking", {}).get("mode") == "normal"
    is_log = custom.get("scaleDistribution", {}).get("type") == "log"
    has_legend = panel["options"]["legend"]["showLegend"]
    top, bottom = 8, height - 28 - (54 if has_legend else 22)
    values = _stacked(found) if stacked else [dict(line.points) for line in found]
    unit = panel["fieldConfig"]["defaults"]["unit"]
    if "max" in panel["fieldConfig"]["defaults"]:
        marks, y = _scale([{0: panel["fieldConfig"]["defaults"]["max"]}], top, bottom)
    elif is_log:
        marks, y = _log_scale(values, top, bottom)
    else:
        marks, y = _scale(values, top, bottom, is_binary=unit == "bytes")
    times = [at for line in found for at, _ in line.points]
    x = _across([(min(times), 0), (max(times), 0)], 62, width - 12)
    parts = [
        f'<line x1=62 x2={width - 12} y1={y(mark):.1f} y2={y(mark):.1f} stroke="#2a2d33" />'
        f"<text x=56 y={y(mark) + 3:.1f} text-anchor=end>{html.escape(worded(mark, unit))}</text>"
        for mark in marks
    ]
    parts += _times(min(times), max(times), x, bottom)
    for number in reversed(range(len(found))):
        points = sorted(values[number].items())
        color = _PALETTE[number % len(_PALETTE)]
        line = _path(points, x, y)
        if not is_log:
            area = f"{line} L{x(points[-1][0]):.1f} {bottom} L{x(points[0][0]):.1f} {bottom}Z"
            background = "#181b1f" if stacked else "none"
            parts.append(f'<path d="{area}" fill="{background}" />')
            parts.append(f'<path d="{area}" fill="{color}" opacity={0.35 if stacked else 0.07} />')
        parts.append(f'<path d="{line}" fill=none stroke="{color}" stroke-width=1.3 />')
    legend = _legend_row([line.name for line in found]) if has_legend else ""
    return (
        f'<svg width={width} height={height - 28} style="top:28px">{"".join(parts)}</svg>{legend}'
    )


def _legend_row(names: Sequence[str]) -> str:
    colored = ((name, _PALETTE[number % len(_PALETTE)]) for number, name in enumerate(names))
    return _legend(colored)


def _legend(colored: Iterable[tuple[str, str]]) -> str:
    spans = (
        f'<span><i style="background:{color}"></i>{html.escape(name)}</span>'
        for name, color in colored
    )
    return f"<div class=legend>{''.join(spans)}</div>"


def _stacked(found: Sequence[Line]) -> list[dict[float, float]]:
    below: dict[float, float] = {}
    stacks = []
    for line in found:
        for at, value in line.points:
            below[at] = below.get(at, 0) + value
        stacks.append({at: below[at] for at, _ in line.points})
    return stacks


def _scale(
    values: Sequence[dict[float, float]], top: float, bottom: float, *, is_binary: bool = False
) -> tuple[list[float], Callable[[float], float]]:
    most = max((value for each in values for value in each.values()), default=0) or 1
    if is_binary:
        step = 2.0 ** (math.floor(math.log2(most)) - 1)
    else:
        step = 10.0 ** math.floor(math.log10(most))
        step *= next(factor for factor in (0.2, 0.5, 1, 2) if most / (step * factor) <= 5)
    high = math.ceil(most / step - 1e-9) * step
    marks = [number * step for number in range(round(high / step) + 1)]
    return marks, lambda value: bottom - (bottom - top) * min(value / high, 1)


def _log_scale(
    values: Sequence[dict[float, float]], top: float, bottom: float
) -> tuple[list[float], Callable[[float], float]]:
    positive = [value for each in values for value in each.values() if value > 0] or [1]
    low, high = math.floor(math.log10(min(positive))), math.ceil(math.log10(max(positive)))
    high = max(high, low + 1)
    marks = [10.0**number for number in range(low, high + 1)]
    return (
        marks,
        lambda value: (
            bottom - (bottom - top) * (math.log10(max(value, 10.0**low)) - low) / (high - low)
        ),
    )


def _times(start: float, end: float, x: Callable[[float], float], bottom: float) -> list[str]:
    step = next(
        each for each in (60, 120, 300, 600, 1800, 3600, 10**9) if (end - start) / each <= 6
    )
    first = math.ceil(start / step) * step
    return [
        f"<text x={x(at):.1f} y={bottom + 14} text-anchor=middle>"
        f"{time.strftime('%H:%M', time.gmtime(at))}</text>"
        for at in range(int(first), int(end) + 1, step)
        if x(at) > 75
    ]


def _bars(panel: Panel, lines: list[list[Line]], width: int, height: int) -> str:
    found = sorted((line for each in lines for line in each), key=lambda line: -line.last)
    most = max((line.last for line in found), default=1) or 1
    unit = panel["fieldConfig"]["defaults"]["unit"]
    room = 0.55 * width - 95
    return "<div style='padding-top:6px'>" + "".join(
        f"<div class=bar><b>{html.escape(line.name)}</b>"
        f"<u style='width:{room * line.last / most:.0f}px'></u>"
        f"<em>{html.escape(worded(line.last, unit))}</em></div>"
        for line in found[: (height - 40) // 24]
    ) + "</div>"  # fmt: skip


def _states(panel: Panel, lines: list[list[Line]], width: int, height: int) -> str:
    words = panel["fieldConfig"]["defaults"]["mappings"][0]["options"]
    found = sorted((line for each in lines for line in each), key=lambda line: line.name)
    if not found:
        return '<div class=figure style="color:#777">no data</div>'
    times = [at for line in found for at, _ in line.points]
    x = _across([(min(times), 0), (max(times), 0)], 62, width - 12)
    step = min(
        b[0] - a[0] for line in found for a, b in zip(line.points, line.points[1:], strict=False)
    )
    bottom = height - 28 - 54
    each = (bottom - 6) / len(found)
    parts = _times(min(times), max(times), x, bottom)
    for row, line in enumerate(found):
        y = 6 + row * each
        parts.append(
            f"<text x=56 y={y + each / 2 + 3:.1f} text-anchor=end>{html.escape(line.name)}</text>"
        )
        for at, value in line.points:
            color = _NAMED[words.get(f"{value:.0f}", {"color": "red"})["color"]]
            right = min(x(at + step), width - 12)
            parts.append(
                f"<rect x={x(at):.1f} y={y + 2:.1f} width={right - x(at) + 0.6:.1f}"
                f' height={each - 6:.1f} fill="{color}" opacity=.75 />'
            )
    legend = _legend((word["text"], _NAMED[word["color"]]) for word in words.values())
    return (
        f'<svg width={width} height={height - 28} style="top:28px">{"".join(parts)}</svg>{legend}'
    )


def _table(panel: Panel, lines: list[list[Line]], width: int, height: int) -> str:
    del width
    renamed = panel["transformations"][1]["options"]["renameByName"]
    units = {
        each["matcher"]["options"]: each["properties"][0]["value"]
        for each in panel["fieldConfig"]["overrides"]
    }
    nodes: dict[str, list[str]] = {}
    for line in sorted(lines[0], key=lambda line: line.labels["instance"]):
        nodes[line.labels["instance"]] = [line.labels["instance"], line.labels["version"]]
    headings = ["node", "version"]
    for number, column in enumerate(lines[1:], 1):
        heading = renamed[f"Value #{'ABCDEFGH'[number]}"]
        headings.append(heading)
        by_node = {line.labels["instance"]: line.last for line in column}
        for node, cells in nodes.items():
            cells.append(worded(by_node[node], units[heading]) if node in by_node else "")
    head = "".join(f"<th>{html.escape(each)}</th>" for each in headings)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>"
        for cells in list(nodes.values())[: (height - 50) // 28]
    )
    return f"<table><tr>{head}</tr>{body}</table>"


_DRAWN_AS: dict[str, Callable[[Panel, list[list[Line]], int, int], str]] = {
    "stat": _stat,
    "timeseries": _graph,
    "bargauge": _bars,
    "state-timeline": _states,
    "table": _table,
}
