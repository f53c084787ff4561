"""Which server blocks share which listening address, and under which label it is counted. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from nodecache.config.model import Address, ServerBlock

ANY_IPV4 = "0.0.0.0"  # noqa: S104 # a name for what a Corefile says; nothing is bound here
WILDCARDS = (ANY_IPV4, "::")  # what a block without ``bind`` asks for


def group_by_address(
    blocks: Sequence[ServerBlock], *, has_ipv6: bool
) -> tuple[dict[Address, list[int]], dict[Address, str]]:
    """Returns which server blocks, by their place in the order, share which address; its label.

    The labels are CoreDNS's, which shows ``bind`` as it is written: one socket of "::" takes
    IPv4, too, and one of a block without ``bind`` has no host. ``has_ipv6`` says whether the
    machine has such sockets.
    """
    wanted: dict[Address, list[int]] = {}
    labels: dict[Address, str] = {}
    for index, block in enumerate(blocks):
        for host in block.bind or WILDCARDS[: 1 + has_ipv6]:
            address = Address(host, block.port)
            wanted.setdefault(address, []).append(index)
            if not block.bind:
                labels[address] = f"dns://:{block.port}"
            labels.setdefault(address, f"dns://{address}")
    for index, block in enumerate(blocks):
        if "::" in block.bind and ANY_IPV4 not in block.bind:
            address = Address(ANY_IPV4, block.port)
            # In front of others, because a block that names the address itself has it.
            wanted.setdefault(address, []).insert(0, index)
            labels.setdefault(address, f"dns://{Address('::', block.port)}")
    return wanted, labels
