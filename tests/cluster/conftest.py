from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.api_server import ApiServer
from tests.cluster.controllers import settle
from tests.cluster.releases import Helm


@pytest.fixture
def api() -> Iterator[ApiServer]:
    with ApiServer(settle=settle) as server:
        yield server


@pytest.fixture
def helm(api: ApiServer) -> Iterator[Helm]:
    with Helm(api, "kube-system") as client:
        yield client
