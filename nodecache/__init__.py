"""nodecache: the caching DNS proxy that runs on every Kubernetes node."""

__version__ = "0.1.0"
