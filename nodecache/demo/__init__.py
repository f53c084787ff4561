"""Tries nodecache without a cluster; the daemon knows nothing of it."""
