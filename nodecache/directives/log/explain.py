"""What ``nodecache explain`` says of ``log``."""

from __future__ import annotations

from collections.abc import Iterator

from nodecache.config.model import ServerBlock
from nodecache.config.wording import MOST_ROWS, Row, below, some
from nodecache.directives.log.model import LOGS, LogClass, LogRule


def rows(block: ServerBlock) -> Iterator[Row]:
    """Yields the rows of the directive in ``block``."""
    for number, rule in enumerate(block.of(LOGS)[:MOST_ROWS]):
        yield "" if number else "log", _text(rule)


def _text(rule: LogRule) -> str:
    classes = sorted(log_class.value for log_class in rule.classes)
    what = "all responses" if LogClass.ALL in rule.classes else f"responses of {some(classes)}"
    return f"{what} about {below(rule.zones)}, as {rule.template}"
