"""What files last said that was of use, for as long as they are gone or say nothing.

While nodecache runs, whoever writes a resolv.conf may empty it first, or take it away for a while.
At such a moment the file does not mean that there shall be no upstreams.
"""

from __future__ import annotations

from collections.abc import Mapping


class KeptTexts:
    """The texts behind one configuration, and which of them are of before.

    Args:
        before: ``texts`` of the configuration that is in force; empty at start.

    Attributes:
        texts: Path -> the text that is in force, for files that may be gone for a while. Holds
            only what this configuration asked for, so it does not grow from reload to reload.
        stood_in: Paths whose text is of before, each once.
    """

    def __init__(self, before: Mapping[str, str] | None = None) -> None:
        self.texts: dict[str, str] = {}
        self.stood_in: dict[str, None] = {}
        self._before = before or {}

    def keep(self, path: str, text: str) -> None:
        """Takes note of what a file says now, which is of use."""
        self.texts[path] = text

    def recall(self, path: str) -> str | None:
        """Returns the text of before, None without one."""
        return self._before.get(path)

    def stand_in(self, path: str) -> None:
        """Takes note that the text of before, which there is, goes on to hold."""
        self.texts[path] = self._before[path]
        self.stood_in[path] = None
