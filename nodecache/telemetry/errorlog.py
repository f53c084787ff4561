"""The ``errors`` directive: one line for each failed query, summed up where there are many."""

from __future__ import annotations

import logging
import re

from nodecache.config.model import ErrorRule, ErrorsPolicy

# Lines a second and block; a dead upstream would otherwise write one for every query.
_MOST_LINES = 10

_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}

logger = logging.getLogger("nodecache")


class ErrorLog:
    """Failures of one server block, as its ``errors`` directive wants them."""

    def __init__(self, policy: ErrorsPolicy) -> None:
        self._rules = [_Rule(rule) for rule in policy.consolidate]
        self._lines = 0
        self._suppressed = 0

    def note(self, question: bytes, text: str) -> None:
        """Logs one failure, or counts it where a rule or the bound says so.

        Args:
            question: QNAME, QTYPE and QCLASS in wire format.
            text: Why.
        """
        line = f"plugin/errors: 2 {readable(question)}: {text}"
        rule = next((rule for rule in self._rules if rule.matches(line)), None)
        if rule is not None and not rule.count():
            return
        if self._lines < _MOST_LINES:
            self._lines += 1
            logger.error("%s", line)
        else:
            self._suppressed += 1

    def tick(self, now: float) -> None:
        """Writes the sums that are due; to be called once a second."""
        if self._suppressed:
            logger.error("plugin/errors: %d more errors in the last second", self._suppressed)
        self._lines = self._suppressed = 0
        for rule in self._rules:
            rule.tick(now)


class _Rule:
    """One ``consolidate``: counts what matches, and says so once in its interval."""

    def __init__(self, rule: ErrorRule) -> None:
        self._pattern = re.compile(rule.pattern)
        self._rule = rule
        self._count = 0
        self._began_at: float | None = None

    def matches(self, line: str) -> bool:
        return self._pattern.search(line) is not None

    def count(self) -> bool:
        """Counts one; returns whether it is shown all the same, as the first of its interval."""
        self._count += 1
        return self._rule.show_first and self._count == 1

    def tick(self, now: float) -> None:
        if not self._count:
            return
        if self._began_at is None:
            self._began_at = now
        elif now - self._began_at >= self._rule.interval_s:
            logger.log(
                _LEVELS[self._rule.level],
                "plugin/errors: %d errors like '%s' occurred in last %gs",
                self._count,
                self._rule.pattern,
                self._rule.interval_s,
            )
            self._count, self._began_at = 0, None


def readable(question: bytes) -> str:
    """Returns "name. TYPE" of a question in wire format that was scanned before.

    Whatever a log or its reader could misunderstand is escaped as RFC 4343 section 2.1 shows it.
    """
    # Imported at the first failure: 40 ms and 3 MB that most daemons never need.
    from dnslib import QTYPE  # noqa: PLC0415

    labels = []
    position = 0
    while question[position]:
        end = position + 1 + question[position]
        labels.append("".join(map(_readable_octet, question[position + 1 : end])))
        position = end
    qtype = int.from_bytes(question[-4:-2], "big")
    mnemonic = QTYPE.forward.get(qtype, f"TYPE{qtype}")  # RFC 3597 section 5
    return f"{'.'.join(labels)}. {mnemonic}"


def _readable_octet(octet: int) -> str:
    character = chr(octet)
    if character in '."\\':
        return f"\\{character}"
    return character if "!" <= character <= "~" else f"\\{octet:03}"
