"""A file in memory as a predecessor gives it."""

from __future__ import annotations

import os

from nodecache.process.descriptors import open_memfd, seal_memfd


def sealed(octets: bytes) -> int:
    """Returns a sealed file with these octets; the caller closes it."""
    descriptor = open_memfd()
    with open(descriptor, "wb", closefd=False) as file:
        file.write(octets)
    os.lseek(descriptor, 0, os.SEEK_SET)
    seal_memfd(descriptor)
    return descriptor
