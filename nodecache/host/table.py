"""Composes our nftables table, ``inet nodecache``, and knows it again in a listing of nft.

The table serves while somebody says that he serves (``nodecache.host.beat``): what it heard is an
element of a set that lives for a second. Packets that find the element, and a socket behind it, go
there past connection tracking, and with it past kube-proxy's address translation. A packet that
finds no socket takes the element away. All others go to the cluster's DNS: those for its own
address by kube-proxy alone, those for other addresses of ours with another destination, in a zone
of connection tracking by which their replies are known. A zone, not a mark: one socket may ask two
addresses of ours from one port.

It runs nothing. It uses neither named sets of addresses nor maps: nft 1.0.6 crashes when it lists
those that 1.1.3 wrote, and with it kube-proxy.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from ipaddress import IPv6Address
from typing import Literal

from nodecache.config.node import SELF_CHECK_SOURCES, NodePlan
from nodecache.host.beat import BEAT_PORT, GOODBYE_PORT, LIFE_S
from nodecache.host.flows import VERSIONS, Flow, Version, addresses, cluster_dns, flows

TABLE = "inet nodecache"

# The element is deleted in the packet path, which frees its place only when the kernel collects.
_BEAT_SET = f"typeof udp dport; size 1024; flags dynamic,timeout; timeout {LIFE_S:.0f}s;"
_BEAT_LISTING = ("typeof udp dport", f"timeout {LIFE_S:.0f}s", "size 1024")

# Before connection tracking; behind its translation back; before kube-proxy's translation. None is
# near a priority that has a name (100, -100): nft 1.0.6 refuses what 1.1.3 prints of those.
_RAW, _BEHIND_NAT, _BEFORE_SNAT, _BEFORE_DNAT = -300, 111, 89, -111
_PRIORITIES = {"raw": -300, "mangle": -150, "dstnat": -100, "filter": 0, "srcnat": 100}

_BLOCK = re.compile(r"^\t(\w+) (\w+) \{\n(.*?)^\t\}$", re.MULTILINE | re.DOTALL)
_BASE = re.compile(r"type (\w+) hook (\w+) priority ([a-z]*) ?([+-]? ?\d*); policy (\w+);")
_COMMENT = re.compile(r' comment "(nodecache: [^"]*)"$')
_COUNTED = re.compile(r'\bcounter packets (\d+) bytes \d+ comment "nodecache: not served here ')


@dataclass(frozen=True, slots=True)
class _Rule:
    """A rule, and what it is for in a few words."""

    text: str
    words: str

    def comment(self) -> str:
        """Returns what the rule is known by, whichever way a release of nft prints it.

        nft has no way to change a rule but to replace it together with its comment.
        """
        return f"nodecache: {self.words} ({sha256(self.text.encode()).hexdigest()[:12]})"


@dataclass(frozen=True, slots=True)
class _Chain:
    """A chain; ``base`` is type, hook, priority and policy, None where others jump to it."""

    name: str
    rules: tuple[_Rule, ...]
    base: tuple[str, str, int, str] | None = None


@dataclass(frozen=True, slots=True)
class _Family:
    """One family's part of the plan: nft's name of it, our addresses, whom to ask instead."""

    ip: Literal["ip", "ip6"]
    askers: str  # where our own questions come from
    ours: tuple[str, ...]
    zones: tuple[tuple[str, int], ...]  # addresses that are rewritten, each with its zone
    target: str

    def match(self, end: str) -> str:
        """Matches packets with an address of ours at one end, "saddr" or "daddr"."""
        return f"{self.ip} {end} {{ {', '.join(self.ours)} }}"


def compose(plan: NodePlan, has_socket: bool = True) -> str:
    """Returns the script that replaces our table, whether or not there is one.

    Args:
        plan: What the table is for.
        has_socket: The kernel can look for the socket of a packet (nft_socket). Where it cannot,
            whoever dies is served until his last word is too old.

    Raises:
        NodeError: An address cannot be expressed.
    """
    parts = [f"add table {TABLE}", f"delete table {TABLE}", f"table {TABLE} {{"]
    if covered(plan):
        parts.append(f"  set beat {{ {_BEAT_SET} }}")
    for chain in _chains(plan, has_socket):
        parts.append(f"  chain {chain.name} {{")
        if chain.base is not None:
            kind, hook, priority, policy = chain.base
            parts.append(f"    type {kind} hook {hook} priority {priority}; policy {policy};")
        parts += [f'    {rule.text} comment "{rule.comment()}"' for rule in chain.rules]
        parts.append("  }")
    return "\n".join([*parts, "}", ""])


def is_complete(plan: NodePlan, listing: str, has_socket: bool = True) -> bool:
    """Whether a listing is the table that ``compose`` makes: all of it, in order, and no more.

    What the set holds and the counter has counted does not matter.
    """
    wanted = {
        ("chain", chain.name): (chain.base, [rule.comment() for rule in chain.rules])
        for chain in _chains(plan, has_socket)
    }
    found: dict[tuple[str, str], object] = {}
    has_beat = False
    for kind, name, body in _BLOCK.findall(listing):
        if (kind, name) == ("set", "beat"):
            has_beat = all(f"\t\t{words}\n" in body for words in _BEAT_LISTING)
        else:
            found[kind, name] = _read_chain(body)
    return found == wanted and has_beat == bool(covered(plan)) and "dormant" not in listing


def covered(plan: NodePlan) -> tuple[str, ...]:
    """Returns the addresses that the table leads to the cluster's DNS while nobody serves.

    Raises:
        NodeError: An address cannot be expressed.
    """
    if not plan.fails_over:
        return ()
    return tuple(
        address
        for version in VERSIONS
        if cluster_dns(plan, version)
        for address in addresses(plan, version)
    )


def count_unserved(listing: str) -> int | None:
    """Returns how many packets a listing says nobody here served, None if it does not say."""
    found = _COUNTED.search(listing)
    return int(found[1]) if found is not None else None


def _chains(plan: NodePlan, has_socket: bool) -> list[_Chain]:
    """Returns all chains; each stands behind those that it leads to."""
    families = [_family(plan, version) for version in VERSIONS if addresses(plan, version)]
    if not covered(plan):
        return _plain(plan, families)
    port, served = plan.dns_port, plan.zone + max(len(family.zones) for family in families)
    keep = f"ct original zone set {served}" if plan.is_tracked else "notrack"
    chains = [
        _Chain("rewrite", tuple(_rewrite(families))),
        _Chain("served", tuple(_served(plan, f" {keep}", has_socket))),
        _Chain("own", tuple(_own(plan, served, has_socket))),
        _Chain("query", tuple(_query())),
        _Chain("inbound", tuple(_ours(families, "daddr", "query", "queries"))),
        _Chain("prerouting", (_Rule(f"th dport {port} goto inbound", "DNS"),), _raw("prerouting")),
        _Chain("said", tuple(_said(families))),
        _Chain("reply", tuple(_reply(plan, families))),
        _Chain("replies", tuple(_ours(families, "saddr", "reply", "replies"))),
        _Chain("ask", tuple(_ask(families, keep))),
        _Chain("queries", tuple(_ours(families, "daddr", "ask", "queries"))),
        _Chain("output", tuple(_output(plan, families)), ("route", "output", _RAW, "accept")),
    ]
    if served > plan.zone:
        zones = "-".join(map(str, sorted({plan.zone, served - 1})))
        fell = f"ct original zone {zones} ct direction reply"
        for hook in ("postrouting", "input"):
            back = tuple(_back(families, hook))
            jump = _Rule(f"{fell} goto back_{hook}", "replies of the cluster's DNS")
            base = ("filter", hook, _BEHIND_NAT, "accept")
            chains += [_Chain(f"back_{hook}", back), _Chain(hook, (jump,), base)]
    base = ("nat", "postrouting", _BEFORE_SNAT, "accept")
    chains.append(_Chain("source", tuple(_source(families)), base))
    if plan.is_tracked:
        stay = tuple(_stay(families, f"ct original zone {served}"))
        chains += _stay_chains(stay)
    return chains


def _raw(hook: str) -> tuple[str, str, int, str]:
    return ("filter", hook, _RAW, "accept")


def _rewrite(families: list[_Family]) -> Iterator[_Rule]:
    """Whoever comes here finds nobody: counted, and led to the cluster's DNS."""
    yield _Rule("counter", "not served here")
    for family in families:
        for address, zone in family.zones:
            yield _Rule(
                f"{family.ip} daddr {address} ct original zone set {zone}"
                f" {family.ip} daddr set {family.target}",
                f"{address} to the cluster's DNS",
            )


def _back(families: list[_Family], hook: str) -> Iterator[_Rule]:
    for family in families:
        for address, zone in family.zones:
            reply = f"ct original zone {zone} {family.ip} saddr {family.target}"
            if family.ip == "ip6" and hook == "input":
                # Linux counts a change of an IPv6 address twice in what it knows of a packet's
                # checksum (nft_payload.c), and UDP drops the packet. So the change is not told.
                bits = f"0x{int(IPv6Address(address)):032x}"
                set_silently = f"{reply} meta l4proto udp @nh,64,128 set {bits}"
                yield _Rule(set_silently, f"datagrams of {address}")
            yield _Rule(f"{reply} {family.ip} saddr set {address}", f"replies of {address}")


def _served(plan: NodePlan, keep: str, has_socket: bool) -> Iterator[_Rule]:
    """Accepts what finds a socket of ours; for all else nobody serves any more.

    A handshake's third packet and what comes after a connection find sockets that are bound to
    nothing: they pass by the rule for TCP.
    """
    forget = "delete @beat { th dport }"
    if not has_socket:
        yield _Rule(f"{keep} accept".strip(), "served")
        return
    if plan.is_wildcard:
        yield _Rule(f"socket transparent 0{keep} accept", "served")
    else:
        yield _Rule(f"socket wildcard 0{keep} accept", "served")
        yield _Rule(f"socket wildcard 1 {forget} return", "another's socket")
        yield _Rule(f"meta l4proto tcp socket transparent 0{keep} accept", "connections")
    yield _Rule(forget, "no socket")


def _own(plan: NodePlan, served: int, has_socket: bool) -> Iterator[_Rule]:
    """What comes from the node itself was judged on its way out."""
    elsewhere = "ct state != untracked"
    if plan.is_tracked:
        elsewhere += f" ct original zone != {served}"
    yield _Rule(f"{elsewhere} accept", "led elsewhere")
    yield from _served(plan, "", has_socket)


def _query() -> Iterator[_Rule]:
    yield _Rule("iif lo goto own", "from the node itself")
    yield _Rule("fib daddr type local th dport @beat jump served", "somebody serves")
    yield _Rule("goto rewrite", "nobody serves")


def _ask(families: list[_Family], keep: str) -> Iterator[_Rule]:
    """Our own questions whether we answer must reach us and no other (``nodecache.host.beat``)."""
    for family in families:
        yield _Rule(f"{family.ip} saddr {family.askers} notrack accept", "our own questions")
    yield _Rule(f"fib daddr type local th dport @beat {keep} accept", "somebody serves")
    yield _Rule("goto rewrite", "nobody serves")


def _said(families: list[_Family]) -> Iterator[_Rule]:
    for family in families:
        to = family.match("daddr")
        beat = f"{to} update @beat {{ udp sport timeout {LIFE_S:.0f}s }} drop"
        yield _Rule(f"udp dport {BEAT_PORT} {beat}", "somebody serves")
        yield _Rule(f"udp dport {GOODBYE_PORT} {to} delete @beat {{ udp sport }} drop", "goodbye")


def _reply(plan: NodePlan, families: list[_Family]) -> Iterator[_Rule]:
    """What a socket of ours asks itself is let through, too: to see whether it answers."""
    yield _Rule(f"th dport {BEAT_PORT}-{GOODBYE_PORT} jump said", "words about us")
    if not plan.is_tracked:
        yield _Rule("notrack accept", "replies")
        return
    for family in families:
        yield _Rule(f"{family.ip} daddr {family.askers} notrack", "replies to ourselves")
        to = family.match("daddr")
        yield _Rule(f"th dport {plan.dns_port} {to} notrack", "we ask ourselves")
    yield _Rule("accept", "replies")


def _ours(families: list[_Family], end: str, chain: str, words: str) -> Iterator[_Rule]:
    """Their port was looked at before, where all packets pass; here, that it is one at all."""
    for family in families:
        yield _Rule(f"meta l4proto {{ tcp, udp }} {family.match(end)} goto {chain}", words)


def _output(plan: NodePlan, families: list[_Family]) -> Iterator[_Rule]:
    yield _Rule(f"th sport {plan.dns_port} jump replies", "DNS")
    yield _Rule(f"th dport {plan.dns_port} goto queries", "DNS")
    if not plan.is_tracked:
        health = [flow for flow in flows(plan) if flow.port == plan.health_port]
        yield from _untracked(families, health)


def _untracked(families: list[_Family], packets: list[Flow]) -> Iterator[_Rule]:
    """The look-up of routes comes last: it costs most."""
    for family in families:
        for flow in packets:
            end = flow.end[0]
            yield _Rule(
                f"{flow.transport} {end}port {flow.port} {family.match(end + 'addr')}"
                f" fib {end}addr type local notrack",
                f"{flow.transport} {'to' if flow.end == 'dst' else 'from'} port {flow.port}",
            )


def _source(families: list[_Family]) -> Iterator[_Rule]:
    """A process of the node asks our address from our address, where no reply finds back to."""
    for family in families:
        yield _Rule(f"{family.match('saddr')} oif != lo masquerade", "the node's own queries")


def _stay(families: list[_Family], match: str) -> Iterator[_Rule]:
    """A translation to what the address is already decides it for kube-proxy's chains."""
    for family in families:
        for address in family.ours:
            to = f"{family.ip} daddr {address} dnat {family.ip} to {address}"
            yield _Rule(f"{match} {to}", f"{address} stays")


def _stay_chains(stay: tuple[_Rule, ...]) -> list[_Chain]:
    return [
        _Chain(f"stay_{hook}", stay, ("nat", hook, _BEFORE_DNAT, "accept"))
        for hook in ("prerouting", "output")
    ]


def _plain(plan: NodePlan, families: list[_Family]) -> list[_Chain]:
    """Leads to us whatever happens, while the node has the address."""
    if plan.is_tracked:
        match = f"meta l4proto {{ tcp, udp }} th dport {plan.dns_port} fib daddr type local"
        return _stay_chains(tuple(_stay(families, match)))
    return [
        _Chain(hook, tuple(_untracked(families, found)), _raw(hook))
        for hook in ("prerouting", "output")
        if (found := [flow for flow in flows(plan) if flow.hook == hook])
    ]


def _family(plan: NodePlan, version: Version) -> _Family:
    servers = cluster_dns(plan, version)
    led = [address for address in addresses(plan, version) if address not in servers]
    zones = tuple(
        (address, plan.zone + place) for place, address in enumerate(led if servers else [])
    )
    ours, to = addresses(plan, version), "".join(servers[:1])
    if version == 4:
        return _Family("ip", SELF_CHECK_SOURCES[0], ours, zones, to)
    return _Family("ip6", SELF_CHECK_SOURCES[1], ours, zones, to)


def _read_chain(body: str) -> tuple[tuple[str, str, int, str] | None, list[str]]:
    """Returns a listed chain's base and its rules' comments; a rule that is none of ours is ""."""
    lines = [line.strip() for line in body.splitlines() if line.strip()]
    base = _BASE.fullmatch(lines[0]) if lines else None
    rules = lines[1:] if base is not None else lines
    comments = [found[1] if (found := _COMMENT.search(line)) else "" for line in rules]
    return (None if base is None else _read_base(base)), comments


def _read_base(base: re.Match[str]) -> tuple[str, str, int, str]:
    """Returns what a base chain's line says; releases print a priority by number or by name."""
    kind, hook, name, number, policy = base.groups()
    priority = _PRIORITIES.get(name, 0) + int(number.replace(" ", "") or 0)
    return kind, hook, priority, policy
