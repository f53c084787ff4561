"""The ``errors`` directive: one line for each failed query, summed up where there are many.

``stacktrace`` has nothing to decide here: an error of our own is always logged with its trace.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from functools import lru_cache, partial

from nodecache.config.model import ErrorRule, ErrorsPolicy
from nodecache.patterns import Expression
from nodecache.wire.text import question_texts

# Lines a second and block; a dead upstream would otherwise write one for every query.
_MOST_LINES = 10
_MOST_MATCHED_CHARACTERS = 1000
_REMEMBERED_TEXTS = 256
# Our own port differs from connection to connection; patterns see it as 0.
_OWN_PORT = re.compile(r":[0-9]{1,5}->")

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
        # There are few texts, and to match one may take milliseconds. No method of ours: that would
        # be a cycle, and outlive its reload.
        self._rule_for = lru_cache(_REMEMBERED_TEXTS)(partial(_find_rule, self._rules))
        self._lines = 0
        self._suppressed = 0

    def note(self, question: bytes, rcode: int, text: str, detail: str = "") -> None:
        """Logs one failure, or counts it where a rule or the bound says so.

        Args:
            question: QNAME, QTYPE and QCLASS in wire format, scanned before.
            rcode: What the client got.
            text: Why, in CoreDNS's words.
            detail: What else we know. A rule may match the text alone, as one that ends with $
                does, or both as they are logged.
        """
        level = logging.ERROR
        whole = f"{text} ({detail})" if detail else text
        rule = self._rule_for(_OWN_PORT.sub(":0->", text), _OWN_PORT.sub(":0->", whole))
        if rule is not None:
            if not rule.count():
                return
            level = rule.level
        if self._lines < _MOST_LINES:
            self._lines += 1
            name, qtype, _ = question_texts(question)
            logger.log(level, "plugin/errors: %d %s %s: %s", rcode, name, qtype, whole)
        else:
            self._suppressed += 1

    def tick(self, now: float) -> None:
        """Writes the sums that are due; to be called once a second, ``now`` monotonic."""
        self._tell_suppressed()
        for rule in self._rules:
            rule.tick(now)

    def finish(self) -> None:
        """Writes the sums that are not due yet; to be called before the block goes."""
        self._tell_suppressed()
        for rule in self._rules:
            rule.tell()

    def _tell_suppressed(self) -> None:
        if self._suppressed:
            logger.error("plugin/errors: %d more errors in the last second", self._suppressed)
        self._lines = self._suppressed = 0


class _Rule:
    """One ``consolidate``: counts what matches, and says so once in its interval."""

    def __init__(self, rule: ErrorRule) -> None:
        self.level = _LEVELS[rule.level]
        self._expression = Expression(rule.pattern)
        self._rule = rule
        self._count = 0
        self._began_at: float | None = None

    def matches(self, text: str) -> bool:
        return self._expression.find_groups(text[:_MOST_MATCHED_CHARACTERS]) is not None

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
            self.tell()

    def tell(self) -> None:
        """Writes the sum, unless there is none or its only error was shown, and begins anew."""
        if self._count > self._rule.show_first:
            logger.log(
                self.level,
                "plugin/errors: %d errors like '%s' occurred in last %s",
                self._count,
                self._rule.pattern,
                duration_text(self._rule.interval_s),
            )
        self._count, self._began_at = 0, None


def _find_rule(rules: Sequence[_Rule], text: str, whole: str) -> _Rule | None:
    return next((r for r in rules if r.matches(text) or r.matches(whole)), None)


def duration_text(seconds: float) -> str:
    """Returns seconds, at least 0, as Go writes a duration: 500ms, 30s, 5m0s, 1h30m0s."""
    if 0 < seconds < 1:
        return f"{seconds * 1000:g}ms"
    minutes, rest_s = divmod(seconds, 60)
    hours, rest_m = divmod(int(minutes), 60)
    text = f"{rest_s:g}s"
    if hours or rest_m:
        text = f"{rest_m}m{text}"
    return f"{hours}h{text}" if hours else text
