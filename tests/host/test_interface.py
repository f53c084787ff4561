"""What is asked of the kernel, in which order, and what is said; the kernel is a list here."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from ipaddress import ip_address

import pytest

from nodecache.config.node import NodePlan
from nodecache.errors import NodeError
from nodecache.host import interface
from nodecache.host.interface import InterfaceReport, ensure, remove
from nodecache.host.links import IpAddress, Link, Standing

LOCAL_IP, CLUSTER_IP, LOCAL_IP6 = "169.254.20.10", "10.96.0.10", "fd00::10"
PLAN = NodePlan("nodelocaldns", (LOCAL_IP, CLUSTER_IP, LOCAL_IP6))
ALL = [ip_address(address) for address in PLAN.addresses]


@dataclass
class Kernel:
    """Stands for ``Links`` and for the kernel behind it.

    Attributes:
        errors: (method, argument) or method -> errno that it ends with.
        unusable: Addresses that are there and not local.
        calls: What changed something, in order.
    """

    links: list[Link] = field(default_factory=lambda: [Link(1, "lo", "", True)])
    standing: list[Standing] = field(default_factory=list)
    errors: dict[object, int] = field(default_factory=dict)
    unusable: set[IpAddress] = field(default_factory=set)
    calls: list[str] = field(default_factory=list)

    def _do(self, method: str, what: object) -> None:
        number = self.errors.get((method, str(what)), self.errors.get(method))
        if number is not None:
            raise OSError(number, os.strerror(number))
        self.calls.append(f"{method} {what}")

    async def find(self, name: str) -> Link | None:
        return next((link for link in self.links if link.name == name), None)

    async def name_of(self, index: int) -> str:
        return next(link.name for link in self.links if link.index == index)

    async def addresses(self) -> list[Standing]:
        return list(self.standing)

    async def add_dummy(self, name: str) -> None:
        self._do("add_dummy", name)
        self.links.append(Link(7, name, "dummy", is_up=False))

    async def quieten(self, link: Link) -> None:
        self._do("quieten", link.name)

    async def set_up(self, link: Link) -> None:
        self._do("set_up", link.name)
        self.links[self.links.index(link)] = replace(link, is_up=True)

    async def delete(self, link: Link) -> None:
        self._do("delete", link.name)
        self.links.remove(link)

    async def add_address(self, address: IpAddress, link: Link) -> None:
        self._do("add_address", address)
        self.unusable.discard(address)
        self.standing.append(Standing(address, address.max_prefixlen, link.index))

    async def delete_address(self, standing: Standing) -> None:
        self._do("delete_address", standing.address)
        self.standing.remove(standing)

    def is_local(self, address: str) -> bool:
        wanted = ip_address(address)
        return wanted not in self.unusable and any(s.address == wanted for s in self.standing)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    kernel = Kernel()

    @asynccontextmanager
    async def open_kernel() -> AsyncIterator[Kernel]:
        yield kernel

    monkeypatch.setattr(interface, "open_links", open_kernel)
    monkeypatch.setattr(interface, "is_local", kernel.is_local)
    return kernel


def refused(act: Callable[[NodePlan], InterfaceReport]) -> NodeError:
    with pytest.raises(NodeError) as caught:
        act(PLAN)
    return caught.value


def test_dummy_is_made_quiet_before_it_is_up_and_addressed_after(kernel: Kernel) -> None:
    report = ensure(PLAN)
    assert kernel.calls == [
        "add_dummy nodelocaldns",
        "quieten nodelocaldns",
        "set_up nodelocaldns",
        *(f"add_address {address}" for address in ALL),
    ]
    assert report.notes[:2] == ("interface nodelocaldns made", "interface nodelocaldns brought up")


def test_second_run_changes_nothing_and_says_nothing(kernel: Kernel) -> None:
    ensure(PLAN)
    kernel.calls.clear()
    assert ensure(PLAN) == InterfaceReport()
    assert kernel.calls == ["quieten nodelocaldns"]


def test_link_that_another_made_meanwhile_is_adopted(kernel: Kernel) -> None:
    async def add_dummy(name: str) -> None:
        kernel.links.append(Link(7, name, "dummy", is_up=False))
        raise OSError(errno.EEXIST, "File exists")

    kernel.add_dummy = add_dummy  # type: ignore[method-assign]
    ensure(PLAN)
    assert [found.index for found in kernel.standing] == [7] * 3


def test_link_of_another_kind_is_used_and_its_flags_are_left_alone(kernel: Kernel) -> None:
    kernel.links.append(Link(4, "nodelocaldns", "bridge", is_up=False))
    report = ensure(PLAN)
    assert "quieten nodelocaldns" not in kernel.calls
    assert "set_up nodelocaldns" in kernel.calls
    assert sum("no dummy link" in note for note in report.notes) == 1


def test_kernel_without_the_driver_gets_the_addresses_on_lo(kernel: Kernel) -> None:
    kernel.errors["add_dummy"] = errno.EOPNOTSUPP
    kernel.links[0] = Link(1, "lo", "", is_up=False)
    report = ensure(PLAN)
    assert {found.index for found in kernel.standing} == {1}
    assert "set_up lo" in kernel.calls
    assert sum("module dummy is missing" in note for note in report.notes) == 1
    assert ensure(PLAN) == InterfaceReport()


@pytest.mark.parametrize("method", ["add_dummy", "quieten", "set_up", "add_address"])
def test_missing_capability_is_named(kernel: Kernel, method: str) -> None:
    kernel.errors[method] = errno.EPERM
    error = refused(ensure)
    assert error.kind == "interface_add"
    assert "CAP_NET_ADMIN is missing" in str(error)
    assert "-setupinterface=false" in str(error)


def test_ipv6_that_is_switched_off_does_not_keep_ipv4_from_coming(kernel: Kernel) -> None:
    kernel.errors["quieten"] = errno.EAFNOSUPPORT
    kernel.errors["add_address", LOCAL_IP6] = errno.EACCES
    error = refused(ensure)
    assert "net.ipv6.conf.nodelocaldns.disable_ipv6" in str(error)
    assert "CAP_NET_ADMIN" not in str(error)
    assert {str(found.address) for found in kernel.standing} == {LOCAL_IP, CLUSTER_IP}


def test_kernel_without_ipv6_and_dummy_is_told_both(kernel: Kernel) -> None:
    kernel.errors["add_dummy"] = kernel.errors["add_address", LOCAL_IP6] = errno.EOPNOTSUPP
    text = str(refused(ensure))
    assert "module ipv6" in text
    assert "module dummy is missing" in text


def test_address_that_is_not_local_although_it_is_there_is_added_anew(kernel: Kernel) -> None:
    ensure(PLAN)
    kernel.calls.clear()
    kernel.unusable.add(ALL[2])
    ensure(PLAN)
    assert kernel.calls[1:] == [f"delete_address {LOCAL_IP6}", f"add_address {LOCAL_IP6}"]


def test_address_that_stays_unusable_is_an_error(kernel: Kernel) -> None:
    async def add_address(address: IpAddress, link: Link) -> None:
        kernel.calls.append(f"{address} {link}")

    kernel.add_address = add_address  # type: ignore[method-assign]
    assert "added, but not local" in str(refused(ensure))


def test_address_of_another_link_stays_there_and_is_told(kernel: Kernel) -> None:
    kernel.links.append(Link(3, "kube-ipvs0", "dummy", is_up=False))
    kernel.standing.append(Standing(ALL[1], 32, 3))
    report = ensure(PLAN)
    assert f"add_address {CLUSTER_IP}" not in kernel.calls
    (note,) = [note for note in report.notes if "kube-ipvs0" in note]
    assert "IPVS mode" in note
    assert "not to this cache" in note


def test_address_of_another_link_that_is_not_local_is_added(kernel: Kernel) -> None:
    kernel.links.append(Link(3, "eth9", "", is_up=False))
    kernel.standing.append(Standing(ALL[2], 128, 3))
    kernel.unusable.add(ALL[2])
    ensure(PLAN)
    assert f"add_address {LOCAL_IP6}" in kernel.calls
    assert f"delete_address {LOCAL_IP6}" not in kernel.calls


def test_kernel_that_does_not_answer_is_given_up(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def find(self: Kernel, name: str) -> Link | None:
        await asyncio.sleep(60)
        return self.links[0] if name else None

    monkeypatch.setattr(Kernel, "find", find)
    monkeypatch.setattr(interface, "_LIMIT_S", 0.01)
    assert "did not answer" in str(refused(ensure))
    assert refused(remove).kind == "interface_check"


def test_dummy_is_deleted_with_all_that_is_on_it(kernel: Kernel) -> None:
    ensure(PLAN)
    kernel.calls.clear()
    assert remove(PLAN).removed == ("interface nodelocaldns",)
    assert kernel.calls == ["delete nodelocaldns"]


@pytest.mark.parametrize("name", ["lo", "nodelocaldns"])
def test_only_planned_host_prefixes_leave_a_link_of_others(kernel: Kernel, name: str) -> None:
    if name != "lo":
        kernel.links.append(Link(4, name, "veth", is_up=True))
    index = kernel.links[-1].index
    kept = [
        Standing(ALL[0], 16, index),  # no prefix of ours
        Standing(ALL[0], 32, 9),  # another link
        Standing(ip_address("127.0.0.1"), 8, index),
        Standing(ip_address("10.96.0.11"), 32, index),
    ]
    ours = [Standing(ALL[1], 32, index), Standing(ALL[2], 128, index)]
    kernel.standing += kept + ours
    report = remove(PLAN)
    assert kernel.standing == kept
    assert report.removed == tuple(f"address {address} of {name}" for address in ALL[1:])
    assert remove(PLAN) == InterfaceReport()


def test_address_that_another_removes_meanwhile_is_no_error(kernel: Kernel) -> None:
    kernel.standing.append(Standing(ALL[1], 32, 1))
    kernel.errors["delete_address"] = errno.EADDRNOTAVAIL
    assert remove(PLAN) == InterfaceReport()


def test_what_went_to_lo_moves_once_there_is_a_link(kernel: Kernel) -> None:
    kernel.errors["add_dummy"] = errno.EOPNOTSUPP
    ensure(PLAN)
    assert {found.index for found in kernel.standing} == {1}
    kernel.standing.append(Standing(ip_address("127.0.0.1"), 8, 1))
    kernel.links.append(Link(7, "nodelocaldns", "dummy", is_up=True))
    kernel.calls.clear()
    report = ensure(PLAN)
    assert report.removed == tuple(f"address {address} of lo" for address in ALL)
    pairs = [(f"add_address {address}", f"delete_address {address}") for address in ALL]
    assert kernel.calls == ["quieten nodelocaldns", *(call for pair in pairs for call in pair)]
    assert {found.index for found in kernel.standing if found.is_host} == {7}
    assert ensure(PLAN) == InterfaceReport()


def test_what_cannot_move_stays_on_lo_and_serves(kernel: Kernel) -> None:
    kernel.standing += [Standing(address, address.max_prefixlen, 1) for address in ALL]
    kernel.errors["add_address", LOCAL_IP6] = errno.EACCES
    report = ensure(PLAN)
    assert len(report.removed) == 2
    [note] = [note for note in report.notes if "stays on lo" in note]
    assert LOCAL_IP6 in note
    assert kernel.is_local(LOCAL_IP6)


def test_move_that_was_cut_short_is_finished(kernel: Kernel) -> None:
    ensure(PLAN)
    kernel.standing.append(Standing(ALL[0], 32, 1))
    assert ensure(PLAN) == InterfaceReport((f"address {LOCAL_IP} of lo",))


def test_wider_prefix_on_lo_is_somebody_elses(kernel: Kernel) -> None:
    kernel.standing.append(Standing(ALL[0], 16, 1))
    report = ensure(PLAN)
    assert report.removed == ()
    assert f"{LOCAL_IP} is on lo already and stays there" in report.notes


def test_address_of_other_flags_leaves_our_link(kernel: Kernel) -> None:
    ensure(PLAN)
    kept = [Standing(ip_address("192.0.2.1"), 24, 7), Standing(ip_address("fe80::1"), 128, 7)]
    kernel.standing += [*kept, Standing(ip_address("10.96.0.11"), 32, 1)]
    report = ensure(NodePlan("nodelocaldns", (LOCAL_IP,)))
    assert report.removed == (
        f"address {CLUSTER_IP} of nodelocaldns",
        f"address {LOCAL_IP6} of nodelocaldns",
    )
    assert [found for found in kernel.standing if found.index == 7] == [
        Standing(ALL[0], 32, 7),
        *kept,
    ]
    assert Standing(ip_address("10.96.0.11"), 32, 1) in kernel.standing


def test_address_of_other_flags_stays_on_links_of_others(kernel: Kernel) -> None:
    kernel.links.append(Link(4, "nodelocaldns", "bridge", is_up=True))
    other = Standing(ip_address("10.96.0.11"), 32, 4)
    kernel.standing.append(other)
    assert ensure(PLAN).removed == ()
    assert other in kernel.standing
