"""Composes what iptables-restore is to do with one table: chains of our own and jumps to them.

It runs nothing: the saved table goes in, a script comes out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from nodecache.config.node import NodePlan
from nodecache.host.flows import Version, addresses, flows
from nodecache.host.leftovers import compose_rule, find_leftovers
from nodecache.host.saved import SavedRule, SavedTable, parse_rule

PREFIX = "NODECACHE-"
JUMPS = {
    "raw": {"PREROUTING": "NODECACHE-PRE", "OUTPUT": "NODECACHE-OUT"},
    "filter": {"INPUT": "NODECACHE-IN", "OUTPUT": "NODECACHE-OUT"},
}


@dataclass(frozen=True, slots=True)
class Change:
    """What one transaction on one table does.

    Attributes:
        script: Lines for iptables-restore, "" if there is nothing to do.
        removed: What it removes, one sentence each.
    """

    script: str
    removed: tuple[str, ...] = ()


def compose_install(plan: NodePlan, version: Version, table: str, saved: SavedTable) -> Change:
    """Returns the change that brings a table to what the plan asks for."""
    known = find_leftovers(plan, version, table, saved)
    lines = [_delete(line) for line in known]
    if not is_complete(plan, version, table, saved):
        lines += [f":{chain} - [0:0]" for chain in JUMPS[table].values()]
        lines += [_delete(line) for line in _jumps(table, saved)]
        lines += [_jump(table, base, chain, "-I") for base, chain in JUMPS[table].items()]
        lines += own_rules(plan, version, table)
    return Change(_script(table, lines), _say_known(known, table))


def compose_removal(
    plan: NodePlan, version: Version, table: str, saved: SavedTable, has_known: bool
) -> Change:
    """Returns the change that takes our chains, and maybe node-cache's rules, out of a table."""
    known = find_leftovers(plan, version, table, saved) if has_known else []
    own = sorted(saved.chains & set(JUMPS[table].values()))
    lines = [f":{chain} - [0:0]" for chain in own]
    lines += [_delete(line) for line in [*_jumps(table, saved), *known]]
    lines += [f"-X {chain}" for chain in own]
    removed = (f"chains {', '.join(own)} of table {table}",) if own else ()
    return Change(_script(table, lines), removed + _say_known(known, table))


def is_complete(plan: NodePlan, version: Version, table: str, saved: SavedTable) -> bool:
    """Whether a table holds just our rules in our chains, and one jump to each of these."""
    own = frozenset(JUMPS[table].values())
    wanted = [_jump(table, base, chain, "-A") for base, chain in JUMPS[table].items()]
    jumps = [rule for rule, _ in saved.rules if rule.target() in own]
    rules = [rule for rule, _ in saved.rules if rule.chain in own]
    return (
        own <= saved.chains
        and _sorted(jumps) == _sorted(map(_parse, wanted))
        and _sorted(rules) == _sorted(map(_parse, own_rules(plan, version, table)))
    )


def own_rules(plan: NodePlan, version: Version, table: str) -> list[str]:
    """Returns the lines that fill our chains in a table: they match only while we are local."""
    raw, filters = JUMPS["raw"], JUMPS["filter"]
    lines = []
    for address in addresses(plan, version):
        for flow in flows(plan):
            is_inbound = flow.hook == "prerouting"
            if table == "raw":
                chain = raw["PREROUTING" if is_inbound else "OUTPUT"]
                what = "NOTRACK", "nodecache: skip connection tracking"
                lines.append(compose_rule(chain, flow, address, *what, is_local_only=True))
            elif flow.is_accepted:
                chain = filters["INPUT" if is_inbound else "OUTPUT"]
                what = "ACCEPT", "nodecache: allow DNS"
                lines.append(compose_rule(chain, flow, address, *what, is_local_only=True))
    return lines


def _jumps(table: str, saved: SavedTable) -> list[str]:
    own = frozenset(JUMPS[table].values())
    return [line for rule, line in saved.rules if rule.target() in own and rule.chain not in own]


def _jump(table: str, base: str, chain: str, action: str) -> str:
    comment = "nodecache: DNS of this node"
    return f'{action} {base} -m comment --comment "{comment}" -j {chain}'


def _delete(line: str) -> str:
    return f"-D{line.removeprefix('-A')}"


def _script(table: str, lines: list[str]) -> str:
    return "\n".join([f"*{table}", *lines, "COMMIT", ""]) if lines else ""


def _say_known(known: list[str], table: str) -> tuple[str, ...]:
    return (f"{len(known)} rules of node-cache in table {table}",) if known else ()


def _parse(line: str) -> SavedRule:
    rule = parse_rule(line)
    assert rule is not None  # noqa: S101 # composed in this file
    return rule


def _sorted(rules: Iterable[SavedRule]) -> list[SavedRule]:
    return sorted(rules, key=lambda rule: (rule.chain, rule.options))
