"""``nodecache top``: who asks what on this node, live."""
