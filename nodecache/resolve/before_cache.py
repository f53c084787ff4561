"""What stands before the cache of a server block: ``dns64``, ``loadbalance`` and ``log``.

A BeforeCache takes a query from one listener, has it resolved for an inner listener, and works on
the reply. Blocks without these directives have none, and only they use the packet cache.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from nodecache.resolve.listener import Listener
from nodecache.resolve.logged import LoggedQuery
from nodecache.resolve.waiter import Waiter, identity_for, most_octets
from nodecache.resolve.zones import ServedZone
from nodecache.wire.numbers import TYPE_A
from nodecache.wire.query import Query
from nodecache.wire.reply import compose_reply


class Asked(NamedTuple):
    """A query on its way through a BeforeCache; the client of the inner listener.

    ``ipv6_reply`` is the reply to the AAAA query while the A query of DNS64 is under way.
    """

    query: Query
    client: Any
    since: float
    ipv6_reply: bytes = b""


class Synthesizer(Protocol):
    """The ``dns64`` directive of one server block."""

    def wants(self, query: Query, family: str) -> bool:
        """Returns whether the reply to ``query`` may be translated."""

    def needs(self, reply: bytes) -> bool:
        """Returns whether the A records are needed, given the whole reply to the AAAA query."""

    def address_query(self, octets: bytes, question_end: int) -> bytes:
        """Returns the query for the A records."""

    def synthesize(self, aaaa_reply: bytes, a_reply: bytes) -> bytes:
        """Returns the reply made of both; ``aaaa_reply`` itself where nothing can be made."""


class Balancer(Protocol):
    """The ``loadbalance`` directive of one server block."""

    def reorder(self, reply: bytes) -> bytes:
        """Returns the whole reply with its addresses in another order."""


class Directives(NamedTuple):
    """What a BeforeCache does, None for each thing that it does not."""

    dns64: Synthesizer | None = None
    balancer: Balancer | None = None
    log: Callable[[LoggedQuery], None] | None = None


class Resolves(Protocol):
    """The resolver, as far as it is needed here."""

    def resolve(self, waiter: Waiter, now: float) -> bytes | None:
        """Returns the whole reply, None if it is delivered later."""


class BeforeCache:
    """One zone of a server block at one listener.

    Args:
        directives: What to do.
        resolver: Answers what is asked.
        listener: Where the queries come from.
        served: The zone, with nothing before its cache; its series count what goes through.
        later: Takes replies that were not ready at once.
        note_synthesis: Called for each reply that DNS64 made.
    """

    def __init__(
        self,
        directives: Directives,
        resolver: Resolves,
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
        self._served = served
        self._state = served.state
        self._later = later
        self._note_synthesis = note_synthesis
        self._is_shaping = self._dns64 is not None or self._balancer is not None
        # What is to be changed must come whole; it is cut afterwards.
        proto = "tcp" if self._is_shaping else listener.proto
        self._inner = Listener(listener.server, proto, listener.family, listener.zones, _never)
        self._inner.locate = self._locate
        self._inner.before_cache = self

    def query(self, query: Query, client: Any, now: float) -> bytes | None:
        """Returns the whole reply, None if it is delivered later."""
        return self._ask(query, Asked(query, client, now), now)

    def deliver(self, client: Any, reply: bytes, now: float, upstream: str) -> None:
        """Takes a reply of the resolver that came later, for the Asked it belongs to."""
        final = self._finish(client, reply, now, upstream)
        if final is not None:
            self._later(self._listener, client.client, final)

    def _ask(self, query: Query, asked: Asked, now: float) -> bytes | None:
        waiter = Waiter(self._inner, asked, query, self._served, now)
        reply = self._resolver.resolve(waiter, now)
        return None if reply is None else self._finish(asked, reply, now)

    def _finish(self, asked: Asked, reply: bytes, now: float, upstream: str = "") -> bytes | None:
        """Returns what the client gets; None while another question must be asked first."""
        query, dns64 = asked.query, self._dns64
        if dns64 is not None and asked.ipv6_reply:
            whole = dns64.synthesize(asked.ipv6_reply, reply)
            if whole is not asked.ipv6_reply:
                self._note_synthesis()
            reply = whole
        elif dns64 is not None and dns64.wants(query, self._listener.family) and dns64.needs(reply):
            address_query = _address_query(query, dns64)
            return self._ask(address_query, asked._replace(ipv6_reply=reply), now)
        if self._balancer is not None:
            reply = self._balancer.reorder(reply)
        limit = most_octets(query, self._listener, self._state)
        if self._is_shaping and len(reply) > limit:
            flags = reply[2] << 8 | reply[3]
            counts = (reply[6] << 8 | reply[7], reply[8] << 8 | reply[9], 0)
            records = reply[query.question_end :]  # and what follows, which does not fit anyhow
            options = identity_for(query, self._state) if self._state.nsid else b""
            reply = reply[:2] + compose_reply(query, flags, counts, records, limit, options)
        if self._log is not None:
            self._log(self._logged(asked, reply, now, upstream))
        return reply

    def _logged(self, asked: Asked, reply: bytes, now: float, upstream: str) -> LoggedQuery:
        listener, octets = self._listener, asked.query.octets
        remote = listener.locate(asked.client)
        server, proto = listener.server, listener.proto
        duration_s = now - asked.since
        return LoggedQuery(octets, reply, remote, server, proto, duration_s, upstream)

    def _locate(self, client: Any) -> Any:
        return self._listener.locate(client.client)


def _address_query(query: Query, dns64: Synthesizer) -> Query:
    """Returns the A query of DNS64: ``query`` with another QTYPE, and all else as it is."""
    octets = dns64.address_query(query.octets, query.question_end)
    other = Query(octets, query.flags, query.qname, TYPE_A, query.qclass, query.question_end)
    other.has_edns, other.dnssec_ok = query.has_edns, query.dnssec_ok
    other.payload_size, other.is_personal = query.payload_size, query.is_personal
    return other


def _never(_client: object, _reply: bytes) -> None:
    """Stands where a socket would deliver; replies of an inner listener go to its before_cache."""
