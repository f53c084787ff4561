"""What commands on this node may see of the running daemon: HTTP pages at a socket in -rundir.

Only our own user reaches it, so what it shows needs no other guard. Nothing waits for it: a daemon
that cannot open it serves all the same.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from nodecache import __version__
from nodecache.errors import SocketError
from nodecache.process.rundir import WINDOW_FILE, listen_at
from nodecache.serving.views import compose_json

if TYPE_CHECKING:
    from nodecache.telemetry.http_server import Page, PageRequest, Response

logger = logging.getLogger("nodecache")


class Window:
    """The pages of one worker, by path.

    Args:
        rundir: Where the socket is; it takes the place of a predecessor's.
        pages: What can be seen beside "/self", which tells how the daemon was started.
        loop: The loop that serves queries; pages run on it, so they must be short.
    """

    def __init__(
        self, rundir: Path, pages: Mapping[str, Page], loop: asyncio.AbstractEventLoop
    ) -> None:
        self._rundir = rundir
        self._pages = {"/self": _show_self, **pages}
        self._loop = loop
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Answers from now on; what hinders that is logged."""
        await self._loop.run_in_executor(None, _import_server)
        from nodecache.telemetry.http_server import (  # noqa: PLC0415 # see above
            ConnectionTable,
            HttpConnection,
        )

        table = ConnectionTable()
        try:
            sock = listen_at(self._rundir / WINDOW_FILE, socket.SOCK_STREAM)
        except SocketError as error:
            logger.warning("commands on this node cannot look at this daemon: %s", error)
            return
        try:
            self._server = await self._loop.create_unix_server(
                lambda: HttpConnection(self._loop, table, self._pages), sock=sock
            )
        except BaseException:  # we are told to end
            sock.close()
            raise

    def close(self) -> None:
        """Answers nobody any more; the file stays, and may be a successor's by now."""
        if self._server is not None:
            self._server.close()


def _import_server() -> None:
    """In a thread: it takes 40 ms that queries do not wait."""
    from nodecache.telemetry import http_server  # noqa: F401, PLC0415 # see above


async def _show_self(_request: PageRequest) -> Response:
    """Tells what somebody needs who reads the same configuration as we do."""
    return compose_json(
        {
            "version": __version__,
            "pid": os.getpid(),
            "words": sys.argv[1:],
            "folder": str(Path.cwd()),
            "environment": dict(os.environ),
        }
    )
