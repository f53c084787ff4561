"""The process that users start: decides whether a keeper is wanted, and answers ``probe``.

Until a command or a worker wants more, nothing is imported but modules of the standard library
that are small: what is imported here stays in memory on every node, and a probe is a whole process
each time.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

# What Go's flag package takes; see config/flags.py, which gives the faults.
_TRUE = ("1", "t", "T", "true", "TRUE", "True")
_FALSE = ("0", "f", "F", "false", "FALSE", "False")
# ACK's chart runs its image's program by this name, which our image has, too.
_WEBHOOK = "node-local-dns-admission-controller"
_INFORMATION = ("h", "help", "plugins", "version")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs nodecache with the given words, or those of the process; returns the exit code.

    Commands, flags that only show something and ``-keeper=false`` run in this process.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if argv is None and sys.argv[0].rpartition("/")[2] == _WEBHOOK:
        words.insert(0, "webhook")
    if words[:1] == ["probe"]:
        from nodecache.process.keeper.probe import probe  # noqa: PLC0415 # only here

        return probe(words[1:])
    if not _wants_keeper(words):
        from nodecache.cli import main as run  # noqa: PLC0415 # the keeper does without

        return run(words)
    return _keep(words)


def _wants_keeper(words: Sequence[str]) -> bool:
    if not sys.platform.startswith("linux") or (words and not words[0].startswith("-")):
        return False
    values = {"keeper": "true"}
    for word in words:
        if word.startswith("-"):
            name, equals, value = word.removeprefix("-").removeprefix("-").partition("=")
            values[name] = value if equals else "true"
    if any(values.get(name, "false") not in _FALSE for name in _INFORMATION):
        return False
    return values["keeper"] in _TRUE


def _keep(words: list[str]) -> int:
    from nodecache.process.channel import KeeperLink  # noqa: PLC0415 # a probe does without
    from nodecache.process.keeper.log import Log, wants_json  # noqa: PLC0415
    from nodecache.process.keeper.supervise import supervise  # noqa: PLC0415

    def run_worker(link: KeeperLink) -> int:
        from nodecache.cli import main as run  # noqa: PLC0415 # in the worker only

        return run(words, link)

    return supervise(run_worker, Log(is_json=wants_json(words)))


if __name__ == "__main__":
    sys.exit(main())
