"""What one configuration was read from, so that it can be read again when the files are wrong."""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from nodecache.config.corefile import encode_text

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Recording:
    """A Reader (see corefile.py) that says what another one said.

    Attributes:
        texts: Path -> text, of all files that could be read.
        globs: Pattern -> the paths that matched.
        existing: Paths that there were.
    """

    texts: Mapping[str, str]
    globs: Mapping[str, Sequence[str]]
    existing: Sequence[str]

    def read_text(self, path: str) -> str:
        """Returns the whole text; raises OSError for what was not read then."""
        if path not in self.texts:
            raise FileNotFoundError(errno.ENOENT, "it was not there", path)
        return self.texts[path]

    def glob(self, pattern: str) -> list[str]:
        """Returns the paths that matched then."""
        return list(self.globs.get(pattern, ()))

    def exists(self, path: str) -> bool:
        """Returns whether there was such a file or directory."""
        return path in self.texts or path in self.existing

    def to_json(self) -> str:
        """Returns what ``from_json`` reads."""
        return json.dumps({"format": _FORMAT, **asdict(self)}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Recording:
        """Returns the recording that ``to_json`` wrote. Raises ValueError for anything else."""
        try:
            fields = json.loads(text)
        except RecursionError as error:
            raise ValueError("it is nested too deeply") from error
        if not isinstance(fields, dict) or fields.pop("format", None) != _FORMAT:
            raise ValueError("it has another format")
        if fields.keys() != {"texts", "globs", "existing"}:
            raise ValueError("it has other fields")
        texts, globs, existing = fields["texts"], fields["globs"], fields["existing"]
        if not isinstance(texts, dict) or not isinstance(globs, dict):
            raise ValueError("texts and patterns by name are wanted")
        _check_texts([*texts.values()], [*texts], [*globs], *globs.values(), existing)
        return cls(texts, globs, existing)


def _check_texts(*lists: object) -> None:
    """Raises ValueError unless these are lists of what ``decode_text`` can have returned."""
    for texts in lists:
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise ValueError("lists of texts are wanted")
        for text in texts:
            encode_text(text)
