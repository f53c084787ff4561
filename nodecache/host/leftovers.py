"""Recognises the rules that node-cache leaves on a node, and nothing else.

node-cache prepends twelve rules for each of its addresses to the chains of raw and filter. A rule
that differs from these in anything is somebody else's.
"""

from __future__ import annotations

from nodecache.config.node import NodePlan
from nodecache.host.flows import Flow, Version, addresses, flows
from nodecache.host.iptables_save import PrintedRule, PrintedTable, parse_rule

MARK = "NodeLocal DNS Cache: "

_RAW_CHAINS = {"prerouting": "PREROUTING", "output": "OUTPUT"}
_FILTER_CHAINS = {"prerouting": "INPUT", "output": "OUTPUT"}


def compose_rule(
    chain: str, flow: Flow, address: str, target: str, comment: str, is_local_only: bool = False
) -> str:
    """Returns the line that appends a rule, as iptables-save prints it.

    Args:
        chain: The chain to append to.
        flow: The packets it matches.
        address: Our address, in canonical form.
        target: What becomes of the packets.
        comment: Its comment; no quotes or backslashes.
        is_local_only: Match only while the address belongs to this host.
    """
    option, bits = ("-s" if flow.end == "src" else "-d"), (128 if ":" in address else 32)
    local = f" -m addrtype --{flow.end}-type LOCAL" if is_local_only else ""
    return (
        f"-A {chain} {option} {address}/{bits} -p {flow.transport}{local}"
        f" -m {flow.transport} --{flow.end[0]}port {flow.port}"
        f' -m comment --comment "{comment}" -j {target}'
    )


def known_rules(plan: NodePlan, version: Version, table: str) -> frozenset[PrintedRule]:
    """Returns the rules that node-cache would make for the plan's addresses of one family.

    Args:
        plan: Whose addresses and ports count.
        version: 4 or 6.
        table: "raw" or "filter"; it has none elsewhere.
    """
    lines = []
    for address in addresses(plan, version):
        for flow in flows(plan):
            if table == "raw":
                chain, comment = _RAW_CHAINS[flow.hook], f"{MARK}skip conntrack"
                lines.append(compose_rule(chain, flow, address, "NOTRACK", comment))
            elif table == "filter" and flow.is_accepted:
                chain, comment = _FILTER_CHAINS[flow.hook], f"{MARK}allow DNS traffic"
                lines.append(compose_rule(chain, flow, address, "ACCEPT", comment))
    return frozenset(rule for rule in map(parse_rule, lines) if rule is not None)


def find_leftovers(
    plan: NodePlan, version: Version, table: str, printed: PrintedTable
) -> list[str]:
    """Returns the lines of node-cache's rules in a table, each as often as it stands there."""
    known = known_rules(plan, version, table)
    return [line for rule, line in printed.rules if rule in known]
