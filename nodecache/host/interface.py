"""The interface that carries our addresses: put up, adopted, taken down.

A dummy link of our own where the kernel can make one; else a link of that name that somebody else
made, or ``lo``. Addresses that the node already has elsewhere are left where they are, but for
those that went to ``lo`` before there was a link. Runs inside the one-shot tool, since pyroute2
needs asyncio's own loop.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from ipaddress import ip_address

from nodecache.config.node import NodePlan
from nodecache.errors import NodeError
from nodecache.host.links import DUMMY, IpAddress, Link, Links, Standing, open_links
from nodecache.host.looks import is_local

_LOOPBACK = "lo"
_LIMIT_S = 5.0
_IPVS = "kube-ipvs0"
_NO_RIGHT = frozenset((errno.EPERM, errno.EACCES))
_GONE = frozenset((errno.EADDRNOTAVAIL, errno.ENODEV))


@dataclass(frozen=True, slots=True)
class InterfaceReport:
    """What was done.

    Attributes:
        removed: What was removed, a phrase each.
        notes: What was put up, and what an operator should know; a sentence each.
    """

    removed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class _Work:
    """One run over the kernel's connection; collects what is to be said."""

    links: Links
    plan: NodePlan
    removed: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def report(self) -> InterfaceReport:
        return InterfaceReport(tuple(self.removed), tuple(self.notes))


def ensure(plan: NodePlan) -> InterfaceReport:
    """Puts the interface up with all addresses; changes nothing that is as it should be.

    What the plan no longer names leaves a dummy link, which is ours alone, and no other.

    Raises:
        NodeError: Kind "interface_add"; what could be done is done all the same.
    """
    return _run(plan, _ensure, "interface_add")


def remove(plan: NodePlan) -> InterfaceReport:
    """Takes down what ``ensure`` put up: our link, or only our addresses on one of others.

    Raises:
        NodeError: Kind "interface_check".
    """
    return _run(plan, _remove, "interface_check")


def recede(plan: NodePlan) -> InterfaceReport:
    """Leaves the local address alone on our link, for pods that name it, and takes Services' off.

    Without rules a Service's address must not stay: processes of the node that ask that Service
    would send from it, and some kube-proxies let that pass unmasked.

    Raises:
        NodeError: Kind "interface_check".
    """
    return _run(plan, _recede, "interface_check")


def _run(
    plan: NodePlan, work: Callable[[_Work], Awaitable[InterfaceReport]], kind: str
) -> InterfaceReport:
    async def within_limit() -> InterfaceReport:
        async with asyncio.timeout(_LIMIT_S), open_links() as links:
            return await work(_Work(links, plan))

    try:
        return asyncio.run(within_limit())
    except TimeoutError:
        text = f"the kernel did not answer about links within {_LIMIT_S:g} s: look at dmesg"
        raise NodeError(text, kind) from None
    except OSError as error:
        raise NodeError(_explain(plan.interface, error), kind) from error


def _explain(what: str, error: OSError) -> str:
    """The kernel's reason and the next step."""
    reason = (error.strerror or str(error)).lower()
    step = "look at dmesg, or add -setupinterface=false and set the interface up by other means"
    if error.errno in _NO_RIGHT:
        step = (
            "CAP_NET_ADMIN is missing: add NET_ADMIN to the capabilities of the container, run"
            " as root, or add -setupinterface=false"
        )
    return f"cannot set up {what}: {reason}: {step}"


async def _ensure(work: _Work) -> InterfaceReport:
    link, why = await _find_or_make(work)
    if not link.is_up:
        await work.links.set_up(link)
        work.notes.append(f"interface {link.name} brought up")
    everywhere = await work.links.addresses()
    on_loopback = await _find_on_loopback(work, link, everywhere)
    errors, is_said = [], False
    for address in dict.fromkeys(map(ip_address, work.plan.addresses)):
        standing = [found for found in everywhere if found.address == address]
        try:
            if await _ensure_address(work, link, standing, on_loopback, address):
                work.notes += [why] * bool(why and not is_said)
                is_said = True
        except OSError as error:
            errors.append(_explain_address(link, address, error))
    if errors:
        raise NodeError("; ".join(filter(None, [*errors, why])), "interface_add")
    if link.kind == DUMMY:
        await _remove_strays(work, link, everywhere)
    return work.report()


async def _find_on_loopback(work: _Work, link: Link, everywhere: list[Standing]) -> list[Standing]:
    """Returns our addresses that are on lo for want of the link that there is now."""
    loopback = None if link.name == _LOOPBACK else await work.links.find(_LOOPBACK)
    ours = set(map(ip_address, work.plan.addresses))
    return [
        found
        for found in everywhere
        if loopback and found.index == loopback.index and found.is_host and found.address in ours
    ]


async def _remove_strays(work: _Work, link: Link, everywhere: list[Standing]) -> None:
    """Takes off our link what it carried for other flags, and nothing of the kernel's own."""
    ours = set(map(ip_address, work.plan.addresses))
    for found in everywhere:
        is_kernels = found.address.version == 6 and found.address.is_link_local
        is_stray = found.is_host and found.address not in ours and not is_kernels
        if found.index == link.index and is_stray:
            await _remove_address(work, link.name, found)


async def _find_or_make(work: _Work) -> tuple[Link, str]:
    """Returns the link to use, and what is to be said if addresses have to go there."""
    name, links = work.plan.interface, work.links
    link = await links.find(name)
    if link is None:
        try:
            await links.add_dummy(name)
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP:  # "Unknown device type"
                return await _find_loopback(links), _without_driver(name)
            if error.errno != errno.EEXIST:
                raise
        else:
            work.notes.append(f"interface {name} made")
        link = await links.find(name)
    if link is None:
        raise OSError(errno.ENODEV, "somebody else deletes it")
    if link.kind == DUMMY:
        await _quieten(links, link)
        return link, ""
    return link, f"{name} is no dummy link but somebody else's: it is used as it is"


async def _quieten(links: Links, link: Link) -> None:
    try:
        await links.quieten(link)
    except OSError as error:
        # IPv6 is switched off, or the kernel is too old: then there is a link-local address more.
        if error.errno in _NO_RIGHT:
            raise


async def _find_loopback(links: Links) -> Link:
    link = await links.find(_LOOPBACK)
    if link is None:
        raise OSError(errno.ENODEV, f"no dummy driver, and no {_LOOPBACK} either")
    return link


def _without_driver(name: str) -> str:
    return (
        f"this kernel cannot make dummy links (module dummy is missing), so there is no interface"
        f" {name}: the addresses are on {_LOOPBACK} instead, which serves pods and node alike"
    )


async def _ensure_address(
    work: _Work,
    link: Link,
    standing: list[Standing],
    on_loopback: list[Standing],
    address: IpAddress,
) -> bool:
    """Makes the node's own what is not; returns whether that took an addition to ``link``."""
    here = [found for found in standing if found.index == link.index]
    provisional = [found for found in standing if found in on_loopback]
    lasting = [found for found in standing if found not in provisional]
    is_usable = is_local(str(address))
    if not (lasting and is_usable):
        try:
            await _add(work, link, address, here)
        except OSError as error:
            if not (provisional and is_usable):
                raise
            text = f"{address} stays on {_LOOPBACK}: {_explain_address(link, address, error)}"
            work.notes.append(text)
            return False
    elif not here:
        other = await work.links.name_of(lasting[0].index)
        work.notes.append(_elsewhere(address, other))
    for found in provisional:
        await _remove_address(work, _LOOPBACK, found)
    return not (lasting and is_usable)


async def _add(work: _Work, link: Link, address: IpAddress, here: list[Standing]) -> None:
    for useless in here:  # its uniqueness is in doubt, or it was added while the link was down
        await work.links.delete_address(useless)
    try:
        await work.links.add_address(address, link)
    except OSError as error:
        if error.errno != errno.EEXIST:
            raise
    if not is_local(str(address)):
        raise OSError(errno.EADDRNOTAVAIL, "added, but not local")
    work.notes.append(f"address {address} added to {link.name}")


def _elsewhere(address: IpAddress, other: str) -> str:
    reason = f"{address} is on {other} already and stays there"
    if other == _IPVS:
        return (
            f"{reason}: kube-proxy in IPVS mode holds the addresses of Services, so queries to"
            " this one go through IPVS to the cluster DNS, not to this cache"
        )
    return reason


def _explain_address(link: Link, address: IpAddress, error: OSError) -> str:
    steps = {
        errno.EACCES: f"set the sysctl net.ipv6.conf.{link.name}.disable_ipv6 to 0",
        errno.EOPNOTSUPP: "load the kernel's module ipv6",
    }
    if address.version == 4 or error.errno not in steps:
        return _explain(f"{address} on {link.name}", error)
    return (
        f"cannot add {address} to {link.name}, where IPv6 is switched off:"
        f" {steps[error.errno]}, or leave {address} out of -localip"
    )


async def _remove(work: _Work) -> InterfaceReport:
    link = await work.links.find(work.plan.interface)
    if link is not None and link.kind == DUMMY:
        await work.links.delete(link)
        work.removed.append(f"interface {link.name}")
        return work.report()
    return await _take_off(work, link, work.plan.addresses)


async def _recede(work: _Work) -> InterfaceReport:
    link = await work.links.find(work.plan.interface)
    return await _take_off(work, link, work.plan.redirected)


async def _take_off(work: _Work, link: Link | None, addresses: tuple[str, ...]) -> InterfaceReport:
    """Takes addresses off a link, or off lo where there is none."""
    link = link or await work.links.find(_LOOPBACK)
    if link is None:
        return work.report()
    wanted = set(map(ip_address, addresses))
    for found in await work.links.addresses():
        if found.index == link.index and found.address in wanted and found.is_host:
            await _remove_address(work, link.name, found)
    return work.report()


async def _remove_address(work: _Work, link: str, found: Standing) -> None:
    try:
        await work.links.delete_address(found)
    except OSError as error:
        if error.errno not in _GONE:
            raise
    else:
        work.removed.append(f"address {found.address} of {link}")
