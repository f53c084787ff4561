"""Looks at the packet filter by its own programs: our rules, node-cache's, those of others."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress

from nodecache.commands.doctor.foreign import is_of_interest, read_nft, read_saved
from nodecache.commands.doctor.seen import ForeignRule, Rules
from nodecache.config.node import NodePlan
from nodecache.errors import NodeError
from nodecache.host import nftables, rules
from nodecache.host.flows import VERSIONS, Version
from nodecache.host.iptables import VARIANTS, Tool
from nodecache.host.iptables_save import parse_table
from nodecache.host.leftovers import MARK, find_leftovers
from nodecache.host.own_rules import PREFIX
from nodecache.host.programs import Deadline, Finished, fault, find, run
from nodecache.host.table import TABLE

_LIMIT_S = 5.0
_TABLES = ("raw", "mangle", "nat", "filter")
_IPVS_LINK = "kube-ipvs0"
_KUBE_TABLE = "ip kube-proxy"
_KUBE_CHAIN = ":KUBE-SERVICES "


def look_at_rules(plan: NodePlan) -> Rules:
    """Returns what there is of rules; takes ``_LIMIT_S`` twice at most.

    Raises:
        NodeError: No program can be asked, or none has the right to.
    """
    deadline = Deadline.within(_LIMIT_S)
    tables = nftables.tables(deadline) if find("nft") else frozenset()
    foreign = list(_list_nft(plan, deadline)) if tables else []
    saved = _save_all(deadline)
    if not find("nft") and not saved:
        text = "neither nft nor iptables-save is installed here: run this in nodecache's own image"
        raise NodeError(text, "iptables")
    leftovers: list[str] = []
    for tool, version, table, lines in saved:
        foreign += read_saved([f"*{table}", *lines], tool, plan.addresses)
        leftovers += find_leftovers(plan, version, table, parse_table("\n".join(lines)))
    everything = [line for *_, lines in saved for line in lines]
    return Rules(
        stands=rules.stands(plan),
        has_table=TABLE in tables or any(line.startswith(f":{PREFIX}") for line in everything),
        proxy=_proxy(tables, everything),
        leftovers=tuple(dict.fromkeys(leftovers)),
        foreign=tuple(dict.fromkeys(foreign)),
    )


def _list_nft(plan: NodePlan, deadline: Deadline) -> tuple[ForeignRule, ...]:
    finished = _run(["nft", "list", "ruleset"], deadline, is_of_interest)
    return read_nft(finished.stdout.splitlines(), plan.addresses)


def _save_all(deadline: Deadline) -> list[tuple[str, Version, str, list[str]]]:
    """Returns tool, family, table and those of its lines that matter."""
    found: list[tuple[str, Version, str, list[str]]] = []
    for tool in (Tool(backend, version) for backend in VARIANTS for version in VERSIONS):
        path = tool.find("save", deadline) if any(map(tool.has_table, _TABLES)) else None
        for table in filter(tool.has_table, _TABLES) if path else ():
            with suppress(NodeError):
                finished = _run([path or "", "-t", table], deadline, _matters)
                found.append((tool.name, tool.version, table, finished.stdout.splitlines()))
    return found


def _matters(line: str) -> bool:
    return is_of_interest(line) or MARK in line or line.startswith(_KUBE_CHAIN)


def _run(command: list[str], deadline: Deadline, keep: Callable[[str], bool]) -> Finished:
    finished = run([find(command[0]) or command[0], *command[1:]], deadline, keep=keep)
    if not finished.is_good:
        raise fault(finished)
    return finished


def _proxy(tables: frozenset[str], saved: list[str]) -> str:
    if any(name == _IPVS_LINK for _, name in socket.if_nameindex()):
        return "ipvs"
    if _KUBE_TABLE in tables:
        return "nftables"
    return "iptables" if any(line.startswith(_KUBE_CHAIN) for line in saved) else ""
