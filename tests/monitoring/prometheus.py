"""Prometheus from Debian, and its tool: as processes, and asked over HTTP."""

from __future__ import annotations

import contextlib
import json
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.daemon.processes import PATIENCE_S, Child, wait_until
from tests.daemon.servers import program


def promtool(*arguments: str | Path) -> str:
    """Returns what the tool says; fails with that when it finds fault."""
    done = subprocess.run(
        [program("promtool"), *map(str, arguments)],
        capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Prometheus(Child):
    """A server that scrapes once a second; ends with the block.

    Attributes:
        jobs: Job -> address -> the name under which it is known.
        url: Where it answers.
    """

    def __init__(
        self, folder: Path, address: str, jobs: Mapping[str, Mapping[str, str]], rules: str = "",
        within: Sequence[str] = (), interval: str = "1s",
    ) -> None:  # fmt: skip
        folder.mkdir()
        (folder / "rules.yaml").write_text(rules or "groups: []\n")
        configuration = {
            "global": {"scrape_interval": interval, "evaluation_interval": interval},
            "rule_files": ["rules.yaml"],
            "scrape_configs": [
                {
                    "job_name": job,
                    "static_configs": [
                        {"targets": [address], "labels": {"instance": name}}
                        for address, name in targets.items()
                    ],
                }
                for job, targets in jobs.items()
            ],
        }
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(configuration))
        self.url = f"http://{address}"
        command = [
            *(*within, program("prometheus"), f"--config.file={folder}/prometheus.yaml"),
            *(f"--storage.tsdb.path={folder}/data", f"--web.listen-address={address}"),
        ]
        super().__init__(command, folder / "log")

    def wait_until_ready(self) -> None:
        """Returns when it answers."""

        def answers() -> bool:
            assert self.process.poll() is None, self.log()
            with contextlib.suppress(OSError):
                return bool(self._get("/-/ready"))
            return False

        wait_until(answers, lambda: f"Prometheus: {self.log()[-2000:]}")

    def query(self, expr: str) -> list[dict[str, Any]]:
        """Returns the samples of an instant vector, those that are no number left out."""
        found = json.loads(self._get("/api/v1/query", query=expr))["data"]["result"]
        return [each for each in found if each["value"][1] != "NaN"]

    def firing(self) -> dict[str, dict[str, Any]]:
        """Returns alert -> the last one that fires."""
        found = json.loads(self._get("/api/v1/alerts"))["data"]["alerts"]
        return {each["labels"]["alertname"]: each for each in found if each["state"] == "firing"}

    def _get(self, path: str, **parameters: str) -> str:
        address = f"{self.url}{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(address, timeout=PATIENCE_S) as answer:
                text: str = answer.read().decode()
        except urllib.error.HTTPError as error:
            if error.code == 400:
                raise AssertionError(error.read().decode()) from None
            raise
        return text
