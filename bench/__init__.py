"""Benchmarks of nodecache beside other DNS servers, on one machine in one run.

Nothing here asserts: the figures are printed with their ratios, and the reader judges.
"""
