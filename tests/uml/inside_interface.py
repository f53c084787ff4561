"""The interface on a kernel that has dummy devices, and on one that has none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.uml.stage import ADDRESSES, LINK, LOCAL_IP, PLAN, done, link, prefixes, run, tool

HOST_PREFIXES = {(address, 128 if ":" in address else 32) for address in ADDRESSES}
BARE = replace(PLAN, has_rules=False)


@pytest.fixture(autouse=True)
def _no_link() -> Iterator[None]:
    yield
    run("ip", "link", "del", LINK, is_checked=False)


@contextmanager
def no_dummy_driver() -> Iterator[None]:
    """Has the kernel know no dummy device, as long as the block runs."""
    helper = Path("/proc/sys/kernel/modprobe")
    usual = helper.read_text()
    run("modprobe", "-r", "dummy")
    helper.write_text("/bin/false")
    try:
        yield
    finally:
        helper.write_text(usual)


def test_the_link_is_a_dummy_that_is_up_and_asks_no_neighbours() -> None:
    ran = done("interface", BARE)
    print(f"put up in {ran.took_s:.2f} s")
    found = link()
    assert found is not None
    assert found["linkinfo"]["info_kind"] == "dummy"
    assert {"UP", "NOARP"} <= set(found["flags"])


def test_addresses_are_host_prefixes_and_no_other_is_there() -> None:
    done("interface", BARE)
    assert prefixes() == HOST_PREFIXES


def test_addresses_can_be_bound_at_once() -> None:
    done("interface", BARE)
    found = link()
    assert found is not None
    for address in found["addr_info"]:
        assert not address.get("tentative"), address
        assert not address.get("dadfailed"), address


def test_a_second_time_changes_nothing() -> None:
    done("interface", BARE)
    first = link()
    done("interface", BARE)
    assert link() == first


def test_check_is_content_with_what_interface_made() -> None:
    done("interface", BARE)
    done("check", BARE)


@pytest.mark.parametrize("address", ADDRESSES)
def test_check_misses_an_address_and_interface_brings_it_back(address: str) -> None:
    done("interface", BARE)
    run("ip", "address", "del", f"{address}/{128 if ':' in address else 32}", "dev", LINK)
    assert tool("check", BARE).report["ok"] is False
    done("interface", BARE)
    assert prefixes() == HOST_PREFIXES


def test_what_node_cache_left_down_with_some_addresses_is_adopted() -> None:
    run("ip", "link", "add", LINK, "type", "dummy")
    run("ip", "address", "add", f"{LOCAL_IP}/32", "dev", LINK)
    left = link()
    done("interface", BARE)
    found = link()
    assert left is not None
    assert found is not None
    assert found["ifindex"] == left["ifindex"]
    assert {"UP", "NOARP"} <= set(found["flags"])
    assert prefixes() == HOST_PREFIXES


def test_remove_takes_the_link_away_and_may_be_repeated() -> None:
    done("interface", BARE)
    done("remove", BARE)
    assert link() is None
    done("remove", BARE)


def test_cleanup_takes_the_link_away_and_says_so() -> None:
    done("interface", BARE)
    assert LINK in done("cleanup", BARE).said
    assert link() is None


def test_without_the_right_the_error_names_the_capability() -> None:
    ran = tool("interface", BARE, ["setpriv", "--bounding-set=-net_admin"])
    assert ran.report["ok"] is False
    assert ran.report["kind"] == "interface_add"
    assert "NET_ADMIN" in ran.said


def test_without_a_dummy_driver_the_addresses_go_on_lo() -> None:
    usual = prefixes("lo")
    with no_dummy_driver():
        ran = done("interface", BARE)
        notes = [note for note in ran.report["notes"] if "dummy" in note]
        print(notes)
        assert len(notes) == 1
        assert link() is None
        assert prefixes("lo") == usual | HOST_PREFIXES
        done("check", BARE)
        assert "dummy" not in done("interface", BARE).said
        assert prefixes("lo") == usual | HOST_PREFIXES
        done("remove", BARE)
        assert prefixes("lo") == usual


def test_without_a_dummy_driver_a_link_of_that_name_will_do() -> None:
    run("ip", "link", "add", LINK, "type", "veth", "peer", "nodecache-peer")
    with no_dummy_driver():
        done("interface", BARE)
        assert prefixes() >= HOST_PREFIXES


def test_addresses_move_from_lo_to_a_dummy_once_the_kernel_has_one() -> None:
    usual = prefixes("lo")
    with no_dummy_driver():
        done("interface", BARE)
        assert prefixes("lo") == usual | HOST_PREFIXES
    ran = done("interface", BARE)
    assert len(ran.report["removed"]) == len(ADDRESSES)
    assert prefixes("lo") == usual
    assert prefixes() == HOST_PREFIXES
    done("check", BARE)


def test_address_of_other_flags_leaves_the_dummy() -> None:
    done("interface", BARE)
    ran = done("interface", replace(BARE, addresses=(LOCAL_IP,)))
    assert len(ran.report["removed"]) == len(ADDRESSES) - 1
    assert prefixes() == {(LOCAL_IP, 32)}
    done("interface", BARE)
    assert prefixes() == HOST_PREFIXES
