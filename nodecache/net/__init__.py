"""Sockets: the only place that reads from or writes to the network."""
