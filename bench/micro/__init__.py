"""Benchmarks below the socket: contenders for one loop, side by side."""
