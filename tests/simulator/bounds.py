"""No table grows beyond its bound, and all is empty in the end."""

from __future__ import annotations

from nodecache.resolve.block import MOST_AHEAD, MOST_WAITERS
from nodecache.upstreams.connection import Connection, State
from nodecache.upstreams.datagrams import MAX_SOCKETS
from nodecache.upstreams.pool import MAX_WAITING
from nodecache.upstreams.room import MAX_CONNECTIONS
from nodecache.upstreams.roster import MAX_DEPTH
from tests.simulator.node import MOST_PENDING, Node


def excess_of_all(node: Node) -> str:
    """Returns what is too much at any moment, or nothing; cheap."""
    found = (
        (node.resolver.pending_count, MOST_PENDING, "exchanges"),
        (node.state.asked_ahead, MOST_AHEAD, "exchanges that nobody waits for"),
        (len(node.network.datagrams), MAX_SOCKETS, "UDP sockets"),
    )
    return _first_excess(found)


def excess_of_tables(node: Node) -> str:
    """Returns what else is too much, or nothing; not so cheap."""
    waiters = (len(pending.waiters) for pending in node.state.pending.values())
    found = (
        (max(waiters, default=0), MOST_WAITERS, "waiters for one question"),
        (max(len(pool.waiting) for pool in node.pools()), MAX_WAITING, "waiting exchanges"),
    )
    return _first_excess(found)


def excess_of_place(node: Node, place: int, most: int) -> str:
    """Returns whether there are too many connections to one upstream.

    ``most`` is the limit that the configuration has for it, of all that are open; 0 for none.
    """
    streams = node.network.streams.items()
    there = [each for each, stream in streams if stream.place == place]
    is_open = sum(each.state is not State.CLOSED for each in there)
    found = (
        (sum(map(_takes_queries, there)), MAX_CONNECTIONS, "connections to one upstream"),
        (is_open, most or len(there), "connections to one upstream that are open"),
    )
    return _first_excess(found)


def excess_of_connection(connection: Connection) -> str:
    """Returns whether one connection carries too many queries."""
    return _first_excess(((len(connection.pending), MAX_DEPTH, "queries on one connection"),))


def _first_excess(found: tuple[tuple[int, int, str], ...]) -> str:
    for count, most, what in found:
        if count > most:
            return f"{count} {what}, {most} at most"
    return ""


def _takes_queries(connection: Connection) -> bool:
    is_over = connection.state in (State.DRAINING, State.CLOSED)
    return not is_over and not connection.is_probe


def left_over(node: Node) -> str:
    """Returns what is left when everything should be over, or nothing."""
    found = {
        "exchanges": node.resolver.pending_count + len(node.state.pending),
        "exchanges ahead": node.state.asked_ahead,
        "connections": len(node.network.streams),
        "sockets": len(node.network.datagrams),
        "exchanges waiting for a connection": sum(len(pool.waiting) for pool in node.pools()),
        "timers of the forwarder": int(node.forwarder.next_timer() is not None),
    }
    return ", ".join(f"{count} {what}" for what, count in found.items() if count)
