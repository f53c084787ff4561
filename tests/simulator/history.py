"""A history of a node as plain data: who asks what and when, and what goes wrong meanwhile.

Everything that a run depends on is in here, so that it can be printed, replayed and shortened. All
times are seconds from the beginning.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields


@dataclass(frozen=True, slots=True)
class Place:
    """One upstream address.

    Attributes:
        transport: "tcp" or "udp", as ``forward`` has it; it listens on both.
        rtt_s: There and back.
        backends: Servers behind the address; a connection stays with one of them.
        is_ordered: Answers one connection strictly in order, as CoreDNS does.
        most_connections: ``max_conns`` of the ``forward`` directive; 0 for no limit.
    """

    transport: str = "tcp"
    rtt_s: float = 0.001
    backends: int = 1
    is_ordered: bool = False
    most_connections: int = 0


@dataclass(frozen=True, slots=True)
class Lookup:
    """A program looks a name up, by one of the stub resolvers in stubs.py."""

    at: float
    name: str
    stub: str = "once"


@dataclass(frozen=True, slots=True)
class Fault:
    """Something is wrong with an upstream for a while; faults.py says what the kinds mean.

    Attributes:
        upstream: Its place in the list.
        backend: Which of the servers behind it; -1 for all.
        value: Seconds, a number or a share, as the kind has it.
        names: Only names that begin so are concerned; "" for all.
    """

    kind: str
    at: float
    until: float
    upstream: int = 0
    backend: int = -1
    value: float = 0.0
    names: str = ""


@dataclass(frozen=True, slots=True)
class Blink:
    """``resolv.conf`` names other upstreams for a while: these, or none."""

    at: float
    until: float
    upstreams: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class History:
    """One life of a node.

    Attributes:
        seed: Of what the network and the node leave to chance.
        places: The upstreams, in the order of the ``forward`` directive.
        stale: "off", "immediate" or "verify", for ``serve_stale``.
        selection: ``policy`` of the ``forward``.
        ends_at: No look-up begins later; everything comes to rest then.
    """

    seed: int = 0
    places: tuple[Place, ...] = (Place(),)
    stale: str = "off"
    selection: str = "random"
    ends_at: float = 60.0
    lookups: tuple[Lookup, ...] = ()
    faults: tuple[Fault, ...] = ()
    blinks: tuple[Blink, ...] = field(default=())

    def source(self) -> str:
        """Returns Python that makes this history, to be pasted into a test."""
        lines = ["History("]
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, tuple):
                lines.append(f"    {each.name}=(")
                lines += [f"        {_short(item)}," for item in value]
                lines.append("    ),")
            else:
                lines.append(f"    {each.name}={value!r},")
        return "\n".join([*lines, ")"])


def _short(item: Place | Lookup | Fault | Blink) -> str:
    """Returns the constructor's call without what it would choose itself."""
    arguments = [
        f"{each.name}={getattr(item, each.name)!r}"
        for each in fields(item)
        if getattr(item, each.name) != each.default
    ]
    return f"{type(item).__name__}({', '.join(arguments)})"
