"""The rules in our chains of iptables, as text: what they do with which packet.

With fail-over, table raw decides for each packet whether we serve: a beat of the last second (see
``nodecache.host.beat``), kept by xt_recent, and a socket that takes the packet, by xt_socket. What
we serve skips connection tracking, or is tracked apart from the rest. All else is left to
kube-proxy, who leads the addresses of Services to the cluster's DNS; what asks the local address
is led there by table nat, if endpoints are known. Nothing in iptables rewrites a packet but table
nat, once a flow and one chain only: so that can be led to no Service.
"""

from __future__ import annotations

import math

from nodecache.config.node import SELF_CHECK_SOURCES, NodePlan
from nodecache.host.beat import BEAT_PORT, GOODBYE_PORT, LIFE_S
from nodecache.host.flows import Version, addresses, cluster_dns, flows
from nodecache.host.leftovers import compose_rule

PREFIX = "NODECACHE-"
PRE, OUT, IN = f"{PREFIX}PRE", f"{PREFIX}OUT", f"{PREFIX}IN"
DNS, SRC = f"{PREFIX}DNS", f"{PREFIX}SRC"
JUMPS = {
    "raw": {"PREROUTING": PRE, "OUTPUT": OUT},
    "nat": {"PREROUTING": DNS, "OUTPUT": DNS, "POSTROUTING": SRC},
    "filter": {"INPUT": IN, "OUTPUT": OUT},
}

_QUERY, _SERVED, _OURS = f"{PREFIX}QUERY", f"{PREFIX}SERVED", f"{PREFIX}OURS"
_ASK, _REPLY, _GOODBYE = f"{PREFIX}ASK", f"{PREFIX}REPLY", f"{PREFIX}GOODBYE"
_TRIAL = f"{PREFIX}TRIAL"
_TRANSPORTS = ("udp", "tcp")
_CLUSTER_PORT = 53


def own_rules(plan: NodePlan, version: Version, table: str) -> list[str]:
    """Returns the lines that fill our chains in a table: they match only while we are local."""
    if not addresses(plan, version):
        return []
    if table == "filter":
        return _plain(plan, version, table)
    if table == "nat":
        return _nat(plan, version)
    if plan.fails_over:
        return _raw(plan, version)
    return [] if plan.is_tracked else _plain(plan, version, table)


def covered(plan: NodePlan, version: Version) -> tuple[str, ...]:
    """Returns the addresses of one family that the rules lead elsewhere while nobody serves."""
    if not plan.fails_over:
        return ()
    ours = addresses(plan, version)
    return ours if endpoints(plan, version) else ours[1:]


def endpoints(plan: NodePlan, version: Version) -> tuple[str, ...]:
    """Returns where queries for the local address can be led: not to a Service of ours."""
    ours = addresses(plan, version)
    return tuple(host for host in cluster_dns(plan, version) if host not in ours)


def compose_trial(plan: NodePlan, version: Version) -> tuple[str, str]:
    """Returns scripts that make, and remove, rules that ask the kernel for all we need of it."""
    rules = [_rule(_TRIAL, f"{_beats(version)} -m socket", _target(plan), "trial")]
    make = ["*raw", f":{_TRIAL} - [0:0]", *rules, "COMMIT"]
    make += ["*nat", f":{_TRIAL} - [0:0]", f"-A {_TRIAL} -j MASQUERADE", "COMMIT"]
    drop = [f"*{table}\n:{_TRIAL} - [0:0]\n-X {_TRIAL}\nCOMMIT" for table in ("raw", "nat")]
    return "\n".join([*make, ""]), "\n".join([*drop, ""])


def _plain(plan: NodePlan, version: Version, table: str) -> list[str]:
    """Returns the rules that ask for no beat, one for each flow."""
    lines = []
    for address in addresses(plan, version):
        for flow in flows(plan):
            is_inbound = flow.hook == "prerouting"
            if table == "raw":
                what = "NOTRACK", "nodecache: skip connection tracking"
                chain = PRE if is_inbound else OUT
                lines.append(compose_rule(chain, flow, address, *what, is_local_only=True))
            elif flow.is_accepted:
                what = "ACCEPT", "nodecache: allow DNS"
                chain = IN if is_inbound else OUT
                lines.append(compose_rule(chain, flow, address, *what, is_local_only=True))
    return lines


def _raw(plan: NodePlan, version: Version) -> list[str]:
    port, lines = plan.dns_port, []
    for transport in _TRANSPORTS:
        to, of = (f"-p {transport} -m {transport} --{end}port {port}" for end in ("d", "s"))
        lines.append(_rule(PRE, to, f"-j {_QUERY}", "DNS"))
        lines += [_rule(OUT, of, f"-j {_REPLY}", "DNS"), _rule(OUT, to, f"-j {_ASK}", "DNS")]
    lines += _beat_rules(plan, version)
    for address in addresses(plan, version):
        lines += _query_rules(plan, version, address)
        lines += _reply_rules(plan, version, address)
    # Once the socket is gone the beat is void; what goes to OURS does not come back here.
    wildcard = " --nowildcard" if plan.is_wildcard else ""  # it means: with these, too
    lines.append(_rule(_SERVED, f"-m socket{wildcard}", f"-g {_OURS}", "we serve"))
    lines.append(_rule(_SERVED, f"-m recent --remove {_list(version)}", "", "nobody there"))
    lines.append(_rule(_OURS, "", _target(plan), "we serve"))
    return lines


def _beat_rules(plan: NodePlan, version: Version) -> list[str]:
    beat, gone = f"-m recent --set {_list(version)}", f"-m recent --remove {_list(version)}"
    lines = []
    for address in addresses(plan, version):
        to_itself = f"{_both(address)} -p udp -m udp --dport"
        lines.append(_rule(_REPLY, f"{to_itself} {BEAT_PORT} {beat}", "-j DROP", "beat"))
        lines.append(_rule(_REPLY, f"{to_itself} {GOODBYE_PORT}", f"-j {_GOODBYE}", "goodbye"))
    # To remove what is not there does not match.
    return [*lines, _rule(_GOODBYE, gone, "", "goodbye"), _rule(_GOODBYE, "", "-j DROP", "goodbye")]


def _query_rules(plan: NodePlan, version: Version, address: str) -> list[str]:
    to_us = f"-d {_host(address)} -m addrtype --dst-type LOCAL"
    ours = f"-s {_askers(version)} -d {_host(address)}"
    lines = [_rule(_ASK, ours, "-j NOTRACK", "our own probe")]
    if address in covered(plan, version):
        beats = f"{to_us} {_beats(version)}"
        lines.append(_rule(_QUERY, beats, f"-j {_SERVED}", "is somebody there"))
        lines.append(_rule(_ASK, beats, f"-j {_OURS}", "we serve"))
    elif not plan.is_tracked:
        why = "nowhere else to go"
        lines += [_rule(chain, to_us, "-j NOTRACK", why) for chain in (_QUERY, _ASK)]
    return lines


def _reply_rules(plan: NodePlan, version: Version, address: str) -> list[str]:
    if plan.is_tracked:
        why, to_itself = "our own probe", f"{_both(address)} -p udp -m udp --dport {plan.dns_port}"
        to_asker = f"-s {_host(address)} -d {_askers(version)}"
        return [_rule(_REPLY, match, "-j NOTRACK", why) for match in (to_itself, to_asker)]
    lines = [_rule(_REPLY, f"-s {_host(address)} -m addrtype --src-type LOCAL", "-j NOTRACK", "we")]
    health = [flow for flow in flows(plan) if flow.port == plan.health_port]
    what = "NOTRACK", "nodecache: skip connection tracking"
    return lines + [compose_rule(OUT, flow, address, *what, is_local_only=True) for flow in health]


def _nat(plan: NodePlan, version: Version) -> list[str]:
    lines = []
    ours = covered(plan, version) if plan.fails_over else addresses(plan, version)
    for transport in _TRANSPORTS:
        if plan.is_tracked:
            lines += [_keep(plan, version, transport, address) for address in ours]
        lines += _lead(plan, version, transport)
    for address in covered(plan, version):
        # The node's own query bears the address that it was sent to.
        match = f"-s {_host(address)} ! -o lo -m addrtype --src-type LOCAL"
        lines.append(_rule(SRC, match, "-j MASQUERADE", "asked elsewhere"))
    return lines


def _keep(plan: NodePlan, version: Version, transport: str, address: str) -> str:
    """Settles that a flow keeps its address, in whosever chain that would come up later."""
    beats = f" {_beats(version)}" if plan.fails_over else ""
    match = f"{_to(plan, transport, address)}{beats}"
    return _rule(DNS, match, f"-j DNAT --to-destination {address}", "we serve")


def _lead(plan: NodePlan, version: Version, transport: str) -> list[str]:
    """Leads the flows of the local address that are still undecided to the endpoints by turns."""
    found = endpoints(plan, version) if plan.fails_over else ()
    lines = []
    for place, host in enumerate(found):
        rest = len(found) - place
        turns = f" -m statistic --mode nth --every {rest} --packet 0" if rest > 1 else ""
        match = f"{_to(plan, transport, addresses(plan, version)[0])}{turns}"
        end = f"[{host}]:{_CLUSTER_PORT}" if version == 6 else f"{host}:{_CLUSTER_PORT}"
        lines.append(_rule(DNS, match, f"-j DNAT --to-destination {end}", "nobody serves"))
    return lines


def _to(plan: NodePlan, transport: str, address: str) -> str:
    ports = f"-p {transport} -m {transport} --dport {plan.dns_port}"
    return f"-d {_host(address)} {ports} -m addrtype --dst-type LOCAL"


def _target(plan: NodePlan) -> str:
    """Returns what becomes of packets that we serve.

    Where they are tracked, then in a zone of their own: a flow that begins while we serve is no
    flow of kube-proxy's, and its next packet is another's when we do not. Only the direction of
    the query is in the zone, so that an answer is known wherever it comes from.
    """
    return f"-j CT --zone-orig {plan.zone}" if plan.is_tracked else "-j NOTRACK"


def _beats(version: Version) -> str:
    return f"-m recent --rcheck --seconds {math.ceil(LIFE_S)} {_list(version)}"


def _list(version: Version) -> str:
    """Returns where beats are kept: one entry for a family, whatever address it is from."""
    mask = "0.0.0.0" if version == 4 else "::"  # noqa: S104 # not bound to
    return f"--name NODECACHE --mask {mask} --rsource"


def _both(address: str) -> str:
    return f"-s {_host(address)} -d {_host(address)}"


def _askers(version: Version) -> str:
    return _host(SELF_CHECK_SOURCES[version == 6])


def _host(address: str) -> str:
    return f"{address}/{128 if ':' in address else 32}"


def _rule(chain: str, match: str, target: str, why: str) -> str:
    words = [f"-A {chain}", match, f'-m comment --comment "nodecache: {why}"', target]
    return " ".join(word for word in words if word)
