"""Stands in for kube-proxy in nftables mode: two Services, each of the same two endpoints.

The chains, their hooks and what is masqueraded are kube-proxy's; what it does about ports of nodes,
topology and affinity is not here.
"""

from __future__ import annotations

import subprocess

from tests.daemon.servers import program
from tests.netns.topology import CLUSTER, CLUSTER6, UPSTREAM, UPSTREAM6

SERVICE, SERVICE6 = "10.96.0.53", "fd00:96::53"  # kube-dns-upstream
ENDPOINTS, ENDPOINTS6 = (UPSTREAM, "10.244.0.54"), (UPSTREAM6, "fd00:244::54")

_FAMILIES = (
    ("ip", "10.244.0.0/16", (CLUSTER, SERVICE), ENDPOINTS),
    ("ip6", "fd00:244::/32", (CLUSTER6, SERVICE6), ENDPOINTS6),
)


def _table(family: str, pods: str, services: tuple[str, ...], endpoints: tuple[str, ...]) -> str:
    chains = []
    for number, endpoint in enumerate(endpoints):
        to = f"[{endpoint}]" if family == "ip6" else endpoint
        chains.append(
            f"""
    chain endpoint-{number} {{
        {family} saddr {endpoint} jump mark-for-masquerade
        meta l4proto {{ tcp, udp }} dnat to {to}:53
    }}"""
        )
    choice = ", ".join(f"{number} : goto endpoint-{number}" for number in range(len(endpoints)))
    elements = ", ".join(
        f"{service} . {proto} . 53 : goto service"
        for service in services
        for proto in ("tcp", "udp")
    )
    return f"""
table {family} kube-proxy {{
    map service-ips {{
        type {"ipv4" if family == "ip" else "ipv6"}_addr . inet_proto . inet_service : verdict
        elements = {{ {elements} }}
    }}
    chain mark-for-masquerade {{
        meta mark set meta mark or 0x4000
    }}
    chain masquerading {{
        meta mark & 0x4000 == 0 return
        meta mark set meta mark ^ 0x4000
        masquerade fully-random
    }}{"".join(chains)}
    chain service {{
        {family} saddr != {pods} jump mark-for-masquerade
        numgen random mod {len(endpoints)} vmap {{ {choice} }}
    }}
    chain services {{
        {family} daddr . meta l4proto . th dport vmap @service-ips
    }}
    chain nat-prerouting {{
        type nat hook prerouting priority dstnat; policy accept;
        jump services
    }}
    chain nat-output {{
        type nat hook output priority -100; policy accept;
        jump services
    }}
    chain nat-postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        jump masquerading
    }}
}}
"""


def lead_services() -> None:
    """Leads the Services to their endpoints, in the namespace that this is called in."""
    script = "".join(_table(*family) for family in _FAMILIES)
    subprocess.run([program("nft"), "-f", "-"], input=script, text=True, check=True)
