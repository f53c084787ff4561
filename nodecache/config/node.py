"""What a node should look like: one value, which travels to the tool as JSON."""

from __future__ import annotations

import enum
import json
from dataclasses import asdict, dataclass
from typing import Any

# Where our own questions whether we answer come from, over IPv4 and IPv6: the rules lead nothing
# elsewhere that comes from there. process/keeper/silence.py says the same, to import nothing.
SELF_CHECK_SOURCES = ("127.0.0.1", "::1")


class Backend(enum.Enum):
    """Who keeps the packet filter rules; the values are those of ``-rules``."""

    AUTO = "auto"
    NFTABLES = "nftables"
    IPTABLES_NFT = "iptables-nft"
    IPTABLES_LEGACY = "iptables-legacy"


@dataclass(frozen=True, slots=True)
class NodePlan:
    """The interface and the rules that one nodecache wants.

    Attributes:
        interface: Name of the link, at most 15 octets.
        addresses: Literals of both families, without a zone, in the order of ``-localip``.
        dns_port: Port of DNS in the rules.
        health_port: Port of /health in the rules.
        backend: Who keeps the rules.
        has_interface: ``-setupinterface``.
        has_rules: ``-setupiptables``.
        fails_over: The rules lead to us only while we serve (``-fallback`` is not "off").
        cluster_dns: Where queries for addresses of ours that lead nowhere else go meanwhile: the
            cluster's DNS, the first of each family, or with iptables its endpoints. Empty if
            nobody knows.
        is_tracked: Connection tracking sees what we serve (``-rules-conntrack``).
        unbound: Those of ``addresses`` that no listener of ours is bound to: the rules leave them
            to kube-proxy, since a packet that finds no socket says that nobody serves.
        is_wildcard: Some listener of ours is bound to no address.
        zone: Zone of connection tracking in which queries are that were led elsewhere.
    """

    interface: str
    addresses: tuple[str, ...]
    dns_port: int = 53
    health_port: int = 8080
    backend: Backend = Backend.AUTO
    has_interface: bool = True
    has_rules: bool = True
    fails_over: bool = True
    cluster_dns: tuple[str, ...] = ()
    is_tracked: bool = False
    is_wildcard: bool = False
    unbound: tuple[str, ...] = ()
    zone: int = 53

    @property
    def wants_beat(self) -> bool:
        """Whether there are to be rules that lead here only while we say that we serve."""
        return self.has_rules and self.fails_over

    @property
    def redirected(self) -> tuple[str, ...]:
        """The addresses behind the first of each family: Services', where ``-localip`` has them."""
        families = [":" in address for address in self.addresses]
        return tuple(
            address
            for place, address in enumerate(self.addresses)
            if families[place] in families[:place]
        )

    def to_json(self) -> str:
        """Returns what ``from_json`` reads."""
        return json.dumps({**asdict(self), "backend": self.backend.value})

    @classmethod
    def from_json(cls, text: str) -> NodePlan:
        """Returns the plan that ``to_json`` wrote. Raises ValueError for anything else."""
        fields: Any = json.loads(text)
        if not isinstance(fields, dict):
            raise ValueError("a plan is a JSON object")
        try:
            return cls(
                **{
                    **fields,
                    "addresses": tuple(fields["addresses"]),
                    "cluster_dns": tuple(fields["cluster_dns"]),
                    "unbound": tuple(fields["unbound"]),
                    "backend": Backend(fields["backend"]),
                }
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"a plan with other fields: {error}") from error


NO_NODE = NodePlan("nodelocaldns", (), has_interface=False, has_rules=False)
