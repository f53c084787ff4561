"""Composes what iptables-restore is to do with one table: chains of our own and jumps to them.

It runs nothing: the printed table goes in, a script comes out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_network

from nodecache.config.node import NodePlan
from nodecache.host.flows import Version
from nodecache.host.iptables_save import PrintedRule, PrintedTable, parse_rule
from nodecache.host.leftovers import find_leftovers
from nodecache.host.own_rules import JUMPS, PREFIX, own_rules

KUBE_CHAIN = "KUBE-SERVICES"


@dataclass(frozen=True, slots=True)
class Change:
    """What one transaction on one table does.

    Attributes:
        script: Lines for iptables-restore, "" if there is nothing to do.
        removed: What it removes, one sentence each.
    """

    script: str
    removed: tuple[str, ...] = ()


def compose_install(plan: NodePlan, version: Version, table: str, printed: PrintedTable) -> Change:
    """Returns the change that brings a table to what the plan asks for."""
    known = find_leftovers(plan, version, table, printed)
    lines = [_delete(line) for line in known]
    if not is_complete(plan, version, table, printed):
        rules = own_rules(plan, version, table)
        wanted, former = _chains(rules), own_chains(printed)
        lines += [f":{chain} - [0:0]" for chain in sorted(wanted | former)]
        lines += [_delete(line) for line in _jumps(printed)]
        lines += [_jump(base, chain, "-I") for base, chain in _hooked(table, wanted)]
        lines += [*rules, *(f"-X {chain}" for chain in sorted(former - wanted))]
    return Change(_script(table, lines), _say_known(known, table))


def compose_removal(
    plan: NodePlan, version: Version, table: str, printed: PrintedTable, has_known: bool
) -> Change:
    """Returns the change that takes our chains, and maybe node-cache's rules, out of a table."""
    known = find_leftovers(plan, version, table, printed) if has_known else []
    own = sorted(own_chains(printed))
    lines = [f":{chain} - [0:0]" for chain in own]
    lines += [_delete(line) for line in [*_jumps(printed), *known]]
    lines += [f"-X {chain}" for chain in own]
    removed = (f"chains {', '.join(own)} of table {table}",) if own else ()
    return Change(_script(table, lines), removed + _say_known(known, table))


def is_complete(plan: NodePlan, version: Version, table: str, printed: PrintedTable) -> bool:
    """Whether a table holds just our rules in our chains, and one jump to each that is hooked in.

    The order within a chain counts, and where flows are to keep their address, too, that we are
    asked before kube-proxy.
    """
    wanted = own_rules(plan, version, table)
    own = _chains(wanted)
    jumps = map(_parse, _jumps(printed))
    rules = [rule for rule, _ in printed.rules if rule.chain.startswith(PREFIX)]
    return (
        own == own_chains(printed)
        and _sorted(jumps) == _sorted(_parse(_jump(*hook, "-A")) for hook in _hooked(table, own))
        and _by_chain(rules) == _by_chain(map(_parse, wanted))
        and not (table == "nat" and plan.is_tracked and _is_behind(printed))
    )


def is_service(printed: PrintedTable, host: str) -> bool:
    """Whether kube-proxy leads an address, in canonical form, on from its table nat."""
    option = ("-d", str(ip_network(host)))
    return any(rule.chain == KUBE_CHAIN and option in rule.options for rule, _ in printed.rules)


def own_chains(printed: PrintedTable) -> set[str]:
    """Returns the chains of ours that a table has, of whichever form."""
    return {chain for chain in printed.chains if chain.startswith(PREFIX)}


def _chains(lines: list[str]) -> set[str]:
    return {_parse(line).chain for line in lines}


def _hooked(table: str, chains: set[str]) -> list[tuple[str, str]]:
    return [(base, chain) for base, chain in JUMPS[table].items() if chain in chains]


def _jumps(printed: PrintedTable) -> list[str]:
    """Returns the lines by which chains of others lead to ours."""
    return [
        line
        for rule, line in printed.rules
        if rule.target().startswith(PREFIX) and not rule.chain.startswith(PREFIX)
    ]


def _is_behind(printed: PrintedTable) -> bool:
    """Whether a chain leads to kube-proxy's before it leads to ours."""
    seen = set()
    for rule, _ in printed.rules:
        if rule.target() == KUBE_CHAIN:
            seen.add(rule.chain)
        elif rule.target().startswith(PREFIX) and rule.chain in seen:
            return True
    return False


def _jump(base: str, chain: str, action: str) -> str:
    comment = "nodecache: DNS of this node"
    return f'{action} {base} -m comment --comment "{comment}" -j {chain}'


def _delete(line: str) -> str:
    return f"-D{line.removeprefix('-A')}"


def _script(table: str, lines: list[str]) -> str:
    return "\n".join([f"*{table}", *lines, "COMMIT", ""]) if lines else ""


def _say_known(known: list[str], table: str) -> tuple[str, ...]:
    return (f"{len(known)} rules of node-cache in table {table}",) if known else ()


def _parse(line: str) -> PrintedRule:
    rule = parse_rule(line)
    assert rule is not None  # noqa: S101 # composed by us, or parsed before
    return rule


def _sorted(rules: Iterable[PrintedRule]) -> list[PrintedRule]:
    return sorted(rules, key=lambda rule: (rule.chain, rule.options))


def _by_chain(rules: Iterable[PrintedRule]) -> list[PrintedRule]:
    return sorted(rules, key=lambda rule: rule.chain)
