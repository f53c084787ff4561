"""Writes the counters in Prometheus' text format, a bounded time at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from nodecache.telemetry.http_server import PageRequest, Response

PIECE_SAMPLES = 100  # about 1 ms
SPACING_S = 0.1  # between two renderings, so that a flood of scrapes takes a sixth of the CPU


class Scraper:
    """The page for /metrics: one rendering at a time, shared by all who came before it began."""

    def __init__(
        self,
        registry: Collector,
        loop: asyncio.AbstractEventLoop,
        fold: Callable[[], Iterator[None]],
    ) -> None:
        """Renders ``registry``, each time after ``fold``, which is done in slices, too."""
        self._fold = fold
        self._registry = registry
        self._loop = loop
        self._rendering = asyncio.Lock()
        self._begun = 0
        self._rendered = 0  # number of the rendering whose text is kept
        self._text = b""
        self._not_before = 0.0

    async def __call__(self, _request: PageRequest) -> Response:
        """Returns the text of a rendering that began after the call."""
        wanted = self._begun + 1
        async with self._rendering:
            if self._rendered < wanted:
                await self._render()
            return Response(HTTPStatus.OK, self._text, CONTENT_TYPE_PLAIN_0_0_4)

    async def _render(self) -> None:
        """Renders anew, serving queries between the pieces."""
        await asyncio.sleep(max(0.0, self._not_before - self._loop.time()))
        self._not_before = self._loop.time() + SPACING_S
        self._begun = number = self._begun + 1
        for _ in self._fold():
            await asyncio.sleep(0)
        pieces = []
        for piece in render(self._registry):
            pieces.append(piece)
            await asyncio.sleep(0)
        self._text = b"".join(pieces)
        self._rendered = number


def render(registry: Collector) -> Iterator[bytes]:
    """Yields the text of ``registry``, at most ``PIECE_SAMPLES`` samples at a time, in order."""
    for family in registry.collect():
        for start in range(0, len(family.samples), PIECE_SAMPLES):
            text = generate_latest(_Piece(family, start))
            # HELP and TYPE may stand only once, before the family's first sample.
            yield text if start == 0 else text.split(b"\n", 2)[2]


class _Piece(Collector):
    """Some samples of one family, as a collector of its own."""

    def __init__(self, family: Metric, start: int) -> None:
        self._metric = Metric(family.name, family.documentation, family.type)
        self._metric.samples = family.samples[start : start + PIECE_SAMPLES]

    def collect(self) -> Iterable[Metric]:
        """Returns the one family."""
        return (self._metric,)
