"""``nodecache webhook``: makes new pods ask the cache on their node."""

from __future__ import annotations

import os
from collections.abc import Sequence

from nodecache.commands.output import (
    EXIT_CONFIGURATION,
    EXIT_GOOD,
    EXIT_MACHINE,
    write,
    write_error,
)
from nodecache.errors import ApiError, SocketError
from nodecache.printing import printable
from nodecache.webhook.flags import help_text, parse_webhook_flags


def webhook(words: Sequence[str]) -> int:
    """Runs ``nodecache webhook`` with the words behind it; returns the exit code."""
    flags, faults = parse_webhook_flags(words, os.environ)
    if flags.help:
        write(help_text())
        return EXIT_GOOD
    if faults:
        write_error("".join(f"{printable(str(fault))}\n" for fault in faults))
        return EXIT_CONFIGURATION
    try:
        from nodecache.webhook.service import run  # noqa: PLC0415 # flags need no packages

        run(flags, os.environ)
    except ModuleNotFoundError as error:
        step = "take the image, or pip install 'nodecache[webhook]'"
        write_error(f"nodecache: the webhook needs the package {error.name}: {step}\n")
        return EXIT_MACHINE
    except (SocketError, ApiError) as error:
        write_error(f"nodecache: {printable(str(error))}\n")
        return EXIT_MACHINE
    return EXIT_GOOD
