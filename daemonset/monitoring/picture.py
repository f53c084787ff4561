"""Draws the dashboard as a picture, of a Prometheus' answers: for the docs, and without a Grafana.

    python -m daemonset.monitoring.picture --prometheus http://127.0.0.1:9090 --out dashboard.png

It reads the panels of the chart's dashboard.json, asks Prometheus, and has Chromium make a picture
of the page. An --out that ends in .html keeps the page itself.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from daemonset.monitoring.drawing import WIDTH, Line, Panel, page

BOARD = Path(__file__).parent.parent / "chart" / "files" / "dashboard.json"
POINTS = 200
_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Source:
    """A Prometheus, and the span that is looked at.

    Attributes:
        url: Its address.
        job: The nodes' job there.
        start, end: Unix seconds.
        window: Over how long rates are taken, a duration of PromQL.
    """

    url: str
    job: str
    start: float
    end: float
    window: str

    def answers(self, panel: Panel) -> list[list[Line]]:
        """Returns the lines of each query; raises OSError when Prometheus does not answer."""
        return [self._read(target) for target in panel["targets"]]

    def _read(self, target: dict[str, Any]) -> list[Line]:
        chosen = {"$job": self.job, "$instance": ".*", "$__rate_interval": self.window}
        expr = target["expr"]
        for variable, value in chosen.items():
            expr = expr.replace(variable, value)
        step = (self.end - self.start) / POINTS
        query = urllib.parse.urlencode(
            {"query": expr, "start": self.start, "end": self.end, "step": step}
        )
        address = f"{self.url}/api/v1/query_range?{query}"
        with urllib.request.urlopen(address, timeout=_TIMEOUT_S) as answer:  # noqa: S310  a user's own
            found = json.load(answer)["data"]["result"]
        lines = []
        for each in found:
            labels = each["metric"]
            points = [(float(at), float(value)) for at, value in each["values"] if value != "NaN"]
            is_now = bool(points) and points[-1][0] > self.end - 3 * step
            if points and (is_now or not target.get("instant")):
                lines.append(Line(_legend(target.get("legendFormat", ""), labels), labels, points))
        return lines


def _legend(pattern: str, labels: dict[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), pattern)


def photograph(text: str, out: Path) -> None:
    """Has Chromium make a picture of a page; raises OSError where there is none."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        raise OSError("no Chromium here: install Debian's chromium, or name an --out in .html")
    height = re.search(r"height: (\d+)px; width", text)
    size = f"{WIDTH},{height[1] if height else 1200}"
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "page.html"
        source.write_text(text, encoding="utf-8")
        subprocess.run(  # noqa: S603  a page of ours
            [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
             f"--user-data-dir={folder}/profile", f"--window-size={size}",
             f"--screenshot={out.resolve()}", source.as_uri()],
            check=True, capture_output=True, timeout=_TIMEOUT_S,
        )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m daemonset.monitoring.picture", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--prometheus", default="http://127.0.0.1:9090", help="its address")
    parser.add_argument("--job", default="node-local-dns", help="the nodes' job there")
    parser.add_argument("--minutes", type=float, default=60, help="how far to look back")
    parser.add_argument("--window", default="1m", help="over how long rates are taken")
    parser.add_argument("--out", type=Path, default=Path("dashboard.png"), help=".png or .html")
    options = parser.parse_args(arguments)
    end = datetime.now(UTC).timestamp()  # what Prometheus counts in
    start = end - options.minutes * 60
    source = Source(options.prometheus, options.job, start, end, options.window)
    board = json.loads(BOARD.read_text(encoding="utf-8"))
    text = page(board, source.answers, options.minutes)
    if options.out.suffix == ".html":
        options.out.write_text(text, encoding="utf-8")
    else:
        photograph(text, options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
