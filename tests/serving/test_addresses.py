"""Which blocks share which address, and CoreDNS's label for it."""

from __future__ import annotations

from nodecache.config.model import ROOT, Address, ServerBlock
from nodecache.serving.addresses import group_by_address


def block(*bind: str, port: int = 53) -> ServerBlock:
    return ServerBlock((ROOT,), port, bind=bind)


def test_blocks_of_one_address_share_it_in_the_order_of_the_corefile() -> None:
    wanted, labels = group_by_address(
        [block("10.0.0.1"), block("10.0.0.1", "10.0.0.2")], has_ipv6=True
    )
    assert wanted == {Address("10.0.0.1", 53): [0, 1], Address("10.0.0.2", 53): [1]}
    assert labels == {address: f"dns://{address}" for address in wanted}


def test_block_without_bind_has_both_families_and_a_label_without_host() -> None:
    wanted, labels = group_by_address([block(port=5300)], has_ipv6=True)
    assert wanted == {Address("0.0.0.0", 5300): [0], Address("::", 5300): [0]}
    assert set(labels.values()) == {"dns://:5300"}


def test_machine_without_ipv6_is_not_asked_for_it() -> None:
    wanted, _ = group_by_address([block()], has_ipv6=False)
    assert list(wanted) == [Address("0.0.0.0", 53)]


def test_one_socket_of_all_ipv6_addresses_takes_ipv4_under_its_label() -> None:
    wanted, labels = group_by_address([block("::")], has_ipv6=True)
    assert wanted == {Address("::", 53): [0], Address("0.0.0.0", 53): [0]}
    assert set(labels.values()) == {"dns://[::]:53"}


def test_block_that_names_the_ipv4_wildcard_itself_comes_last_and_so_has_its_zones() -> None:
    wanted, labels = group_by_address([block("0.0.0.0"), block("::")], has_ipv6=True)
    assert wanted[Address("0.0.0.0", 53)] == [1, 0]
    assert labels[Address("0.0.0.0", 53)] == "dns://0.0.0.0:53"
