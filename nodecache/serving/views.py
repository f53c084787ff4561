"""What commands on this node see of a daemon (process/window.py): facts, no verdict."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING

from nodecache.config.model import ROOT, Config
from nodecache.counters import Counters
from nodecache.serving.beating import Beat
from nodecache.serving.reloading import Reloader

if TYPE_CHECKING:
    from nodecache.telemetry.http_server import Page, PageRequest, Response


@dataclasses.dataclass(frozen=True, slots=True)
class StateView:
    """The page "/state", which ``nodecache doctor`` reads.

    Attributes:
        probe: What only we know: who answers it with its last 16 octets is us.
        config: Returns what is in force.
        reloader: Knows why newer files are not.
        beat: Knows whether the rules hear us.
        details: Returns what /ready tells beside.
        counters: Their gauges tell whether rules stand, and which configuration is in force.
    """

    probe: bytes
    config: Callable[[], Config]
    reloader: Reloader
    beat: Beat
    details: Callable[[], Sequence[str]]
    counters: Counters

    @property
    def pages(self) -> dict[str, Page]:
        """The page, by its path."""
        return {"/state": self._show}

    async def _show(self, _request: PageRequest) -> Response:
        config, gauges = self.config(), self.counters.gauges
        redirect = gauges.get("redirect")
        return compose_json(
            {
                "mark": self.probe.hex(),
                "plan": config.node.to_json(),
                "upstreams": find_upstreams(config),
                "refusal": self.reloader.refusal,
                "is_last_good": bool(gauges["config_last_good"]()),
                "has_redirect": None if redirect is None else bool(redirect()),
                "is_beat_heard": self.beat.is_heard,
                "details": list(self.details()),
            }
        )


def find_upstreams(config: Config) -> list[tuple[str, str, int, str]]:
    """Returns zone, address, port and transport of each upstream, once for each zone."""
    found = {
        (zone.text, each.address.host, each.address.port, each.transport.value): None
        for block in config.blocks
        for policy in block.forwards
        for zone in (block.zones if policy.origin == ROOT else (policy.origin,))
        for each in policy.upstreams
    }
    return list(found)


def compose_json(value: object) -> Response:
    """Returns ``value`` as a page."""
    import json  # noqa: PLC0415 # 0.1 MB, where somebody wants it

    from nodecache.telemetry.http_server import Response  # noqa: PLC0415 # takes 40 ms

    return Response(HTTPStatus.OK, json.dumps(value).encode(), "application/json")
