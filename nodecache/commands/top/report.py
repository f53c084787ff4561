"""What the daemon says of itself ("/top", see serving/top.py), as lines for a terminal. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from nodecache.commands.top.searches import find_searches
from nodecache.printing import printable

SORTS = ("queries", "cost", "denied")
_LEAST_CELLS = 40
# Lines of each table on a page that is printed once.
MOST_ROWS = 10

Said = Mapping[str, Any]
Row = tuple[str, ...]


def lay_out(said: Said, sort: str, cells: int, lines: int | None = None) -> list[str]:
    """Returns the page.

    Args:
        said: What the daemon said.
        sort: One of SORTS: what names are ordered by.
        cells: How wide it may be.
        lines: How high; None for as high as it is.
    """
    cells = max(cells, _LEAST_CELLS)
    tables = [
        _names(said, sort),
        _suffixes(said),
        _clients(said),
        _searches(said),
        _slow(said),
        _upstreams(said),
    ]
    head = _head(said)
    rows = MOST_ROWS if lines is None else _rows_for(lines - len(head), tables)
    page = [*head]
    for table in tables:
        page += _table(table[:1] + table[1 : rows + 1], cells)
    return [printable(line)[:cells] for line in page][:lines]


def _rows_for(lines: int, tables: Sequence[list[Row]]) -> int:
    """Returns how many rows of each table there is room for, at least one."""
    rows = 1
    while sum(min(rows + 1, len(table) - 1) + 2 for table in tables if len(table) > 1) <= lines:
        rows += 1
        if rows > max(map(len, tables)):
            break
    return rows


def _table(rows: list[Row], cells: int) -> Iterator[str]:
    """Yields a title line and rows; the first column is text and takes what room is left."""
    if len(rows) < 2:  # nothing but the title
        return
    widths = [max(len(row[column]) for row in rows) for column in range(1, len(rows[0]))]
    first = max(12, cells - sum(widths) - 2 * len(widths))
    first = min(first, max(len(row[0]) for row in rows))
    yield ""
    for row in rows:
        name = row[0] if len(row[0]) <= first else f"{row[0][: first - 3]}..."
        rest = [f"{cell:>{width}}" for cell, width in zip(row[1:], widths, strict=True)]
        yield "  ".join([f"{name:<{first}}", *rest]).rstrip()


def _head(said: Said) -> list[str]:
    tiers, seconds = said["tiers"], max(float(said["seconds"]), 0.001)
    seen = tiers["packet"] + tiers["message"] + tiers["miss"]
    every = int(said["every"])
    sampled = "every query looked at" if every == 1 else f"1 of {every} queries looked at"
    rate = f"{said['queries'] / seconds:,.0f} queries/s over {seconds:.0f} s, {sampled}"
    if not seen:
        return [rate, "no queries"]
    shares = (
        ("ready packets", tiers["packet"]),
        ("messages", tiers["message"]),
        ("misses", tiers["miss"]),
        ("NXDOMAIN", tiers["nxdomain"]),
    )
    return [rate, ", ".join(f"{_percent(count, seen)} {what}" for what, count in shares)]


_ORDERS: Mapping[str, Callable[[Said], float]] = {
    "queries": lambda name: float(name["queries"]),
    "cost": lambda name: float(name["seconds"]),
    "denied": lambda name: float(name["nxdomains"]),
}


def _names(said: Said, sort: str) -> list[Row]:
    rows: list[Row] = [("NAME", "TYPE", "QUERIES", "HITS", "NXDOMAIN", "ASKED", "TIME", "FAILED")]
    for name in sorted(said["names"], key=_ORDERS[sort], reverse=True):
        queries = max(int(name["queries"]), 1)
        rows.append(
            (
                str(name["name"]),
                str(name["type"]),
                f"{name['queries']:,}",
                _percent(name["hits"], queries),
                f"{name['nxdomains']:,}",
                f"{name['exchanges']:,}",
                _span(name["seconds"]),
                f"{name['failures']:,}",
            )
        )
    return rows


def _suffixes(said: Said) -> list[Row]:
    """Names by how they end: what stands behind the first label."""
    queries: Counter[str] = Counter()
    denied: Counter[str] = Counter()
    for name in said["names"]:
        suffix = str(name["name"]).partition(".")[2] or "."
        queries[suffix] += name["queries"]
        denied[suffix] += name["nxdomains"]
    rows: list[Row] = [("SUFFIX", "QUERIES", "NXDOMAIN")]
    return rows + [(each, f"{n:,}", f"{denied[each]:,}") for each, n in queries.most_common()]


def _clients(said: Said) -> list[Row]:
    rows: list[Row] = [("CLIENT", "QUERIES", "SHARE")]
    every = max(sum(count for _, count in said["clients"]), 1)
    return rows + [(str(c), f"{n:,}", _percent(n, every)) for c, n in said["clients"]]


def _searches(said: Said) -> list[Row]:
    asked: Counter[str] = Counter()
    denied: Counter[str] = Counter()
    for name in said["names"]:
        asked[str(name["name"])] += name["queries"]
        denied[str(name["name"])] += name["nxdomains"]
    rows: list[Row] = [("SEARCH LIST: ASKED IN VAIN FOR", "IN VAIN", "OF ALL", "MEND")]
    for found in find_searches(asked, denied, str(said["cluster_domain"])):
        share = _percent(found.share, 1)
        rows.append((found.name, f"{found.in_vain:,}", share, "final dot, or ndots:1"))
    return rows


def _slow(said: Said) -> list[Row]:
    title = ("SLOW NAME", "TYPE", "TIMES", "TIME", "LONGEST", "GAVE UP", "ANSWERED BY")
    return [title, *map(_slow_row, said["slow"])]


def _slow_row(name: Said) -> Row:
    return (
        str(name["name"]),
        str(name["type"]),
        f"{name['times']:,}",
        _span(name["seconds"]),
        _span(name["longest"]),
        f"{name['gave_up']:,}",
        str(name["answered_by"]) or "nobody",
    )


def _upstreams(said: Said) -> list[Row]:
    rows: list[Row] = [("UPSTREAM", "OVER", "STATE", "RTT", "FAILED", "WAITING", "CONNECTIONS")]
    for each in said["upstreams"]:
        counts = ", ".join(f"{n} {state}" for state, n in each["connections"].items() if n)
        rows.append(
            (
                str(each["address"]),
                str(each["transport"]),
                "down" if each["is_down"] else "up",
                _span(each["rtt"]) if each["rtt"] else "-",
                f"{each['failures']:,}",
                f"{each['waiting']:,}",
                counts or "none",
            )
        )
    return rows


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %"


def _span(seconds: float) -> str:
    """Returns a time with the unit that suits it."""
    return f"{1000 * seconds:.1f} ms" if seconds < 1 else f"{seconds:.1f} s"
