"""What costs too much to make for each test, and must not be the reason that one fails twice."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType
from typing import Generic, Self, TypeVar

import pytest

T = TypeVar("T")


def runs_again(request: pytest.FixtureRequest) -> bool:
    """Tells whether this is the second try of a test; see tests/conftest.py."""
    return bool(getattr(request.node, "execution_count", 1) > 1)


class Kept(Generic[T]):
    """One thing that many tests use, made when first asked for; a second try has a new one."""

    def __init__(self, make: Callable[[], AbstractContextManager[T]]) -> None:
        self._make = make
        self._stack = ExitStack()
        self._made: list[T] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._drop()

    def get(self, request: pytest.FixtureRequest) -> T:
        """Returns it; what a first try may have broken is ended before."""
        if runs_again(request):
            self._drop()
        if not self._made:
            self._made.append(self._stack.enter_context(self._make()))
        return self._made[0]

    def _drop(self) -> None:
        self._made.clear()
        self._stack.close()
