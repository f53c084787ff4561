"""Which queries ``log`` writes down, as values."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from nodecache.config.model import Name, Setting


class LogClass(enum.Enum):
    """Which responses a ``log`` line is about."""

    ALL = "all"
    SUCCESS = "success"
    DENIAL = "denial"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class LogRule:
    """One ``log`` directive: queries below ``zones`` whose response is of ``classes``.

    ``template`` has its shortcuts filled in, and no placeholder that does not exist.
    """

    zones: tuple[Name, ...]
    template: str
    classes: frozenset[LogClass] = frozenset((LogClass.ALL,))


LOGS: Setting[tuple[LogRule, ...]] = Setting("log", ())
