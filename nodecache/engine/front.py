"""What stands before the cache of a server block: ``dns64``, ``loadbalance`` and ``log``.

A Front takes a query from one listener, asks the resolver as an inner listener would, and works
on the reply. Blocks without these directives have none, and only they use the packet cache.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from nodecache.engine.directives.balance import Balancer
from nodecache.engine.directives.dns64 import Synthesizer
from nodecache.engine.listener import Answers, Listener
from nodecache.engine.logged import LoggedQuery
from nodecache.engine.waiter import most_octets
from nodecache.engine.zones import ServedZone, Zones
from nodecache.wire.query import Query
from nodecache.wire.reply import compose_reply


class Asked(NamedTuple):
    """A query on its way through a Front; the client of the inner listener.

    ``ipv6_reply`` is the reply to the AAAA query while the A query of DNS64 is under way.
    """

    query: Query
    client: Any
    since: float
    ipv6_reply: bytes = b""


class Directives(NamedTuple):
    """What a Front does, None for each thing that it does not."""

    dns64: Synthesizer | None = None
    balancer: Balancer | None = None
    log: Callable[[LoggedQuery], None] | None = None


class Front:
    """One zone of a server block at one listener.

    Args:
        directives: What to do.
        resolver: Answers what is asked.
        listener: Where the queries come from.
        served: The zone, without a front; its series count what goes through.
        later: Takes replies that were not ready at once.
        note_synthesis: Called for each reply that DNS64 made.
    """

    def __init__(
        self,
        directives: Directives,
        resolver: Answers,
        listener: Listener,
        served: ServedZone,
        later: Callable[[Listener, Any, bytes], None],
        note_synthesis: Callable[[], None],
    ) -> None:
        self._dns64 = directives.dns64
        self._balancer = directives.balancer
        self._log = directives.log
        self._resolver = resolver
        self._listener = listener
        self._state = served.state
        self._later = later
        self._note_synthesis = note_synthesis
        self._is_shaping = self._dns64 is not None or self._balancer is not None
        # What is to be changed must come whole; it is cut afterwards.
        proto = "tcp" if self._is_shaping else listener.proto
        zones = Zones([served], listener.zones.unserved)
        self._inner = Listener(listener.server, proto, listener.family, zones, _never)
        self._inner.locate = self._locate
        self._inner.front = self

    def query(self, query: Query, client: Any, now: float) -> bytes | None:
        """Returns the whole reply, None if it is delivered later."""
        return self._ask(query.octets, Asked(query, client, now), now)

    def deliver(self, client: Any, reply: bytes, now: float) -> None:
        """Takes a reply of the resolver that came later, for the Asked it belongs to."""
        final = self._finish(client, reply, now)
        if final is not None:
            self._later(self._listener, client.client, final)

    def _ask(self, octets: bytes, asked: Asked, now: float) -> bytes | None:
        reply = self._resolver.query(octets, self._inner, asked, now)
        return None if reply is None else self._finish(asked, reply, now)

    def _finish(self, asked: Asked, reply: bytes, now: float) -> bytes | None:
        """Returns what the client gets; None while another question must be asked first."""
        query, dns64 = asked.query, self._dns64
        if dns64 is not None and asked.ipv6_reply:
            whole = dns64.synthesize(asked.ipv6_reply, reply)
            if whole is not asked.ipv6_reply:
                self._note_synthesis()
            reply = whole
        elif dns64 is not None and dns64.wants(query, self._listener.family) and dns64.needs(reply):
            octets = dns64.address_query(query.octets, query.question_end)
            return self._ask(octets, asked._replace(ipv6_reply=reply), now)
        if self._balancer is not None:
            reply = self._balancer.reorder(reply)
        limit = most_octets(query, self._listener, self._state)
        if self._is_shaping and len(reply) > limit:
            flags, counts = reply[2] << 8 | reply[3], (reply[6] << 8 | reply[7], 0, 0)
            records = reply[query.question_end :]  # and what follows, which does not fit anyhow
            reply = reply[:2] + compose_reply(query, flags, counts, records, limit)
        if self._log is not None:
            self._log(self._logged(asked, reply, now))
        return reply

    def _logged(self, asked: Asked, reply: bytes, now: float) -> LoggedQuery:
        listener = self._listener
        remote = listener.locate(asked.client)
        server, proto = listener.server, listener.proto
        return LoggedQuery(asked.query.octets, reply, remote, server, proto, now - asked.since)

    def _locate(self, client: Any) -> Any:
        return self._listener.locate(client.client)


def _never(_client: object, _reply: bytes) -> None:
    """Stands where a socket would deliver; replies of an inner listener go to its front."""
