"""Which packets the rules are about: the same for every backend, and for node-cache's rules."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Literal

from nodecache.config.node import NodePlan
from nodecache.errors import NodeError

Version = Literal[4, 6]
VERSIONS: tuple[Version, ...] = (4, 6)


@dataclass(frozen=True, slots=True)
class Flow:
    """One kind of packet from or to one of our addresses.

    Attributes:
        hook: Where such packets are met.
        transport: "tcp" or "udp".
        end: Which address and port of the packet are ours.
        port: Our port.
        is_accepted: A filter has to let it pass: it is DNS with the world, and connection
            tracking, which filters rely on for replies, does not know it.
    """

    hook: Literal["prerouting", "output"]
    transport: Literal["tcp", "udp"]
    end: Literal["src", "dst"]
    port: int
    is_accepted: bool = False


@dataclass(frozen=True, slots=True)
class Installed:
    """What a backend did.

    Attributes:
        removed: What was removed, one sentence each.
        covered: Addresses that lead to the cluster's DNS while nobody says that he serves (see
            ``nodecache.host.beat``); empty if the rules do not listen for that.
        notes: What an operator should know, one sentence each.
    """

    removed: tuple[str, ...] = ()
    covered: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def flows(plan: NodePlan) -> tuple[Flow, ...]:
    """Returns what connection tracking is to leave alone, for each address.

    Queries of pods come in by prerouting, those of the host's own processes by output; replies go
    out by output. Of the health port only the host's own (the kubelet's) packets matter.
    """
    dns, health = plan.dns_port, plan.health_port
    return (
        Flow("prerouting", "tcp", "dst", dns, is_accepted=True),
        Flow("prerouting", "udp", "dst", dns, is_accepted=True),
        Flow("output", "tcp", "src", dns, is_accepted=True),
        Flow("output", "udp", "src", dns, is_accepted=True),
        Flow("output", "tcp", "dst", dns),
        Flow("output", "udp", "dst", dns),
        Flow("output", "tcp", "dst", health),
        Flow("output", "tcp", "src", health),
    )


def addresses(plan: NodePlan, version: Version) -> tuple[str, ...]:
    """Returns the addresses that the rules are about, of one family, canonical, each once.

    Raises:
        NodeError: An address is none, or has a zone, which rules cannot express.
    """
    unbound = _canonical(plan.unbound, version)
    return tuple(each for each in _canonical(plan.addresses, version) if each not in unbound)


def cluster_dns(plan: NodePlan, version: Version) -> tuple[str, ...]:
    """Returns the plan's servers of the cluster's DNS as ``addresses`` does its addresses."""
    return _canonical(plan.cluster_dns, version)


def _canonical(literals: tuple[str, ...], version: Version) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for literal in literals:
        try:
            address = ipaddress.ip_address(literal)
        except ValueError:
            raise _refusal(literal) from None
        if "%" in str(address):
            raise _refusal(literal)
        if address.version == version:
            found[str(address)] = None
    return tuple(found)


def _refusal(literal: str) -> NodeError:
    text = "name addresses without a zone in -localip and -fallback, or say -setupiptables=false"
    return NodeError(f"{literal!r} cannot be put into packet filter rules: {text}", "iptables")
