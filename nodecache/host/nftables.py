"""Keeps our rules as one nftables table, ``inet nodecache``, which nobody else has a hand in.

nft replaces the whole table in one transaction of the kernel. Its chains only take packets out of
connection tracking. They cannot let a packet pass that a base chain of another table drops: a
verdict accept ends one base chain, never those that follow (nft(8), "VERDICT STATEMENTS"). Where a
filter of the host drops untracked DNS, either it needs a rule of its own, or the rules have to be
kept by the iptables variant that keeps that filter (-rules).
"""

from __future__ import annotations

import ipaddress
import re

from nodecache.config.node import NodePlan
from nodecache.errors import NodeError
from nodecache.host.flows import VERSIONS, Flow, Version, addresses, flows
from nodecache.host.programs import Deadline, Finished, fault, find, run

TABLE = "inet nodecache"
KUBE_PROXY = frozenset({"ip kube-proxy", "ip6 kube-proxy"})

_HOOKS = ("prerouting", "output")
_SET = re.compile(r"\bset (\w+) \{[^{}]*\belements = \{([^{}]*)\}")
_CHAIN = re.compile(
    r"\bchain (\w+) \{\s*type filter hook (\w+) priority (?:raw|-300); policy accept;([^{}]*)\}"
)
_COMMENT = re.compile(r' notrack comment "([^"]*)"$')


def compose(plan: NodePlan) -> str:
    """Returns the script that replaces our table, whether or not there is one.

    Raises:
        NodeError: An address cannot be expressed.
    """
    versions = [version for version in VERSIONS if addresses(plan, version)]
    parts = [f"add table {TABLE}", f"delete table {TABLE}", f"table {TABLE} {{"]
    for version in versions:
        elements = ", ".join(addresses(plan, version))
        kind = f"ipv{version}_addr"
        parts.append(f"  set addresses{version} {{ type {kind}; elements = {{ {elements} }}; }}")
    for hook in _HOOKS:
        parts.append(f"  chain {hook} {{")
        parts.append(f"    type filter hook {hook} priority -300; policy accept;")
        for flow, version in _rules(plan, hook):
            parts.append(f"    {_match(flow, version)} notrack {_comment(flow, version)}")
        parts.append("  }")
    return "\n".join([*parts, "}", ""])


def install(plan: NodePlan, deadline: Deadline) -> tuple[str, ...]:
    """Makes our table what the plan asks for. Raises NodeError; then nothing was changed."""
    if not stands(plan, deadline):
        finished = _nft(["-f", "-"], deadline, compose(plan))
        if not finished.is_good:
            raise fault(finished)
    return ()


def remove(deadline: Deadline) -> tuple[str, ...]:
    """Deletes our table, if there is one; returns what was removed. Raises NodeError."""
    if find("nft") is None or TABLE not in tables(deadline):
        return ()
    finished = _nft(["-f", "-"], deadline, f"add table {TABLE}\ndelete table {TABLE}\n")
    if not finished.is_good:
        raise fault(finished)
    return (f"table {TABLE} of nftables",)


def stands(plan: NodePlan, deadline: Deadline) -> bool:
    """Whether the kernel has our table just as ``compose`` makes it."""
    if find("nft") is None:
        return False
    finished = _nft(["list", "table", *TABLE.split()], deadline)
    return finished.is_good and not finished.is_cut and is_complete(plan, finished.stdout)


def is_complete(plan: NodePlan, listing: str) -> bool:
    """Whether a listing of our table holds the plan's sets and rules, in order, and no others.

    A rule is known by its comment: releases of nft print matches differently, and nft has no way
    to change a rule but to replace it together with its comment.
    """
    sets = {name: _elements(text) for name, text in _SET.findall(listing)}
    wanted_sets = {
        f"addresses{version}": frozenset(addresses(plan, version))
        for version in VERSIONS
        if addresses(plan, version)
    }
    chains = {(name, hook): _comments(text) for name, hook, text in _CHAIN.findall(listing)}
    wanted_chains = {
        (hook, hook): [_comment(*rule).split('"')[1] for rule in _rules(plan, hook)]
        for hook in _HOOKS
    }
    return sets == wanted_sets and chains == wanted_chains and "dormant" not in listing


def tables(deadline: Deadline) -> frozenset[str]:
    """Returns family and name of every table in the kernel, none if it has no nf_tables.

    Raises:
        NodeError: We are not allowed to ask, or get no answer.
    """
    finished = _nft(["list", "tables"], deadline)
    if not finished.is_good:
        error = fault(finished)
        if finished.is_late or "NET_ADMIN" in str(error):
            raise error
    lines = finished.stdout.splitlines()
    return frozenset(line.removeprefix("table ") for line in lines if line.startswith("table "))


def probe(plan: NodePlan, deadline: Deadline) -> str:
    """Returns why our table cannot be made here, or "" if the kernel would take it."""
    if find("nft") is None:
        return "nft is not installed"
    finished = _nft(["--check", "-f", "-"], deadline, compose(plan))
    return "" if finished.is_good else finished.complaint()


def _nft(arguments: list[str], deadline: Deadline, stdin: str = "") -> Finished:
    """Runs nft. Raises NodeError if it is not installed."""
    path = find("nft")
    if path is None:
        text = "nft is not installed: install the package nftables, or say -rules=auto"
        raise NodeError(text, "iptables")
    return run([path, *arguments], deadline, stdin)


def _rules(plan: NodePlan, hook: str) -> list[tuple[Flow, Version]]:
    return [
        (flow, version)
        for version in VERSIONS
        if addresses(plan, version)
        for flow in flows(plan)
        if flow.hook == hook
    ]


def _match(flow: Flow, version: Version) -> str:
    """Returns the matches: the port first, which most packets fail; the look-up of routes last."""
    end, family = flow.end[0], ("ip" if version == 4 else "ip6")
    return (
        f"{flow.transport} {end}port {flow.port} {family} {end}addr @addresses{version}"
        f" fib {end}addr type local"
    )


def _comment(flow: Flow, version: Version) -> str:
    what = "to" if flow.end == "dst" else "from"
    return f'comment "nodecache: {flow.transport} {what} port {flow.port} of addresses{version}"'


def _elements(text: str) -> frozenset[str]:
    try:
        return frozenset(str(ipaddress.ip_address(part.strip())) for part in text.split(","))
    except ValueError:
        return frozenset()


def _comments(text: str) -> list[str]:
    """Returns the comments of the rules in a chain; a rule that is none of ours is ""."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return [found.group(1) if (found := _COMMENT.search(line)) else "" for line in lines]
