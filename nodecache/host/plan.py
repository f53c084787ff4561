"""What a node should look like."""

from __future__ import annotations

from nodecache.config.node import Backend, NodePlan

__all__ = ["Backend", "NodePlan"]
