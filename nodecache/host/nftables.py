"""Keeps our rules as one nftables table, ``inet nodecache``, which nobody else has a hand in.

nft replaces the whole table in one transaction of the kernel. Its chains cannot let a packet pass
that a base chain of another table drops: a verdict accept ends one base chain, never those that
follow (nft(8), "VERDICT STATEMENTS"). Where the node has a filter of iptables, our DNS is admitted
there (``nodecache.host.iptables.admit``). A filter of nftables needs a rule of its own; if it drops
replies because they are untracked, what we serve can be tracked (-rules-conntrack).
"""

from __future__ import annotations

from nodecache.config.node import NodePlan
from nodecache.errors import NodeError
from nodecache.host.flows import Installed
from nodecache.host.programs import Deadline, Finished, fault, find, run
from nodecache.host.table import TABLE, compose, count_unserved, covered, is_complete

_NO_SOCKETS = (
    "the kernel cannot look for a packet's socket (nft_socket): should the daemon die, queries"
    " are lost for up to a second"
)


def install(plan: NodePlan, deadline: Deadline) -> Installed:
    """Makes our table what the plan asks for, unless it is that already.

    Raises:
        NodeError: The kernel takes no form of it; nothing was changed.
    """
    form = _standing(plan, deadline)
    if form is None:
        finished, form = _try_out(plan, deadline)
        if finished.is_good:
            finished = _nft(["-f", "-"], deadline, compose(plan, form))
        if not finished.is_good:
            raise fault(finished)
    notes = () if form else (_NO_SOCKETS,)
    return Installed(covered=covered(plan), notes=notes)


def remove(deadline: Deadline) -> tuple[str, ...]:
    """Deletes our table, if there is one; returns what was removed. Raises NodeError."""
    if find("nft") is None or TABLE not in tables(deadline):
        return ()
    finished = _nft(["-f", "-"], deadline, f"add table {TABLE}\ndelete table {TABLE}\n")
    if not finished.is_good:
        raise fault(finished)
    return (f"table {TABLE} of nftables",)


def stands(plan: NodePlan, deadline: Deadline) -> bool:
    """Whether the kernel has our table just as ``install`` makes it."""
    return _standing(plan, deadline) is not None


def unserved(deadline: Deadline) -> int | None:
    """Returns how many packets the standing table led to the cluster's DNS, None if unknown.

    Raises:
        NodeError: nft is not installed.
    """
    return count_unserved(_list(deadline))


def tables(deadline: Deadline) -> frozenset[str]:
    """Returns family and name of every table in the kernel, none if it has no nf_tables.

    Raises:
        NodeError: We are not allowed to ask, or get no answer.
    """
    finished = _nft(["list", "tables"], deadline)
    _insist(finished)
    lines = finished.stdout.splitlines()
    return frozenset(line.removeprefix("table ") for line in lines if line.startswith("table "))


def why_not(plan: NodePlan, deadline: Deadline) -> str:
    """Returns why our table cannot be made here, or "" if the kernel would take it.

    Raises:
        NodeError: We are not allowed to ask, or get no answer.
    """
    if find("nft") is None:
        return "nft is not installed"
    finished, _ = _try_out(plan, deadline)
    _insist(finished)
    return "" if finished.is_good else finished.complaint()


def _insist(finished: Finished) -> None:
    """Raises NodeError where no other backend would fare better."""
    if not finished.is_good:
        error = fault(finished)
        if finished.is_late or "NET_ADMIN" in str(error):
            raise error


def _try_out(plan: NodePlan, deadline: Deadline) -> tuple[Finished, bool]:
    """Returns what the kernel says to our table, and whether to the form that finds sockets."""
    full = _nft(["--check", "-f", "-"], deadline, compose(plan))
    if full.is_good or not covered(plan):
        return full, True
    lesser = _nft(["--check", "-f", "-"], deadline, compose(plan, has_socket=False))
    return (lesser, False) if lesser.is_good else (full, True)


def _standing(plan: NodePlan, deadline: Deadline) -> bool | None:
    """Returns whether the table that stands finds sockets, None if it is not the plan's."""
    if find("nft") is None:
        return None
    listing = _list(deadline)
    return next((form for form in (True, False) if is_complete(plan, listing, form)), None)


def _list(deadline: Deadline) -> str:
    """Returns the listing of our table, "" if there is none or it is too long to be ours."""
    finished = _nft(["list", "table", *TABLE.split()], deadline)
    return finished.stdout if finished.is_good and not finished.is_cut else ""


def _nft(arguments: list[str], deadline: Deadline, stdin: str = "") -> Finished:
    """Runs nft. Raises NodeError if it is not installed."""
    path = find("nft")
    if path is None:
        text = "nft is not installed: install the package nftables, or say -rules=auto"
        raise NodeError(text, "iptables")
    return run([path, *arguments], deadline, stdin)
