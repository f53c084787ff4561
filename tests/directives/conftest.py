"""The fixtures of tests/config, for the directives that have a folder of their own."""

from __future__ import annotations

from tests.config.conftest import block_of, configure, faults_of, find_faults, make_reader

__all__ = ["block_of", "configure", "faults_of", "find_faults", "make_reader"]
