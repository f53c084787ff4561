"""Keeps our rules in chains of our own, by the programs of iptables, variant nft or legacy.

A table changes in one transaction of iptables-restore: own chains are filled anew, the jump to each
is put in front of the others' rules unless it stands, and rules of node-cache are deleted with it.
The legacy variant takes the xtables lock for that, never longer than the deadline; the nft variant
takes none. Base chains that iptables itself makes stay when our rules go.

What the kernel cannot do, or iptables cannot express, is left out and said: see ``_feasible``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from nodecache.config.node import Backend, NodePlan
from nodecache.errors import NodeError
from nodecache.host.chains import (
    KUBE_CHAIN,
    compose_install,
    compose_removal,
    is_complete,
    is_service,
    own_chains,
)
from nodecache.host.flows import VERSIONS, Installed, Version, addresses
from nodecache.host.iptables_save import PrintedTable, parse_table
from nodecache.host.leftovers import MARK
from nodecache.host.own_rules import PREFIX, compose_trial, covered, endpoints, own_rules
from nodecache.host.programs import Deadline, Finished, fault, find, run

VARIANTS = {Backend.IPTABLES_NFT: "nft", Backend.IPTABLES_LEGACY: "legacy"}
# Accepted before untracked, tracked before dropped, and what raw leaves to nat finds it there: no
# packet is in between during a change.
INSTALL_ORDER = ("filter", "nat", "raw")
REMOVE_ORDER = ("raw", "nat", "filter")

_RULES_OF_FILTER = ("-A INPUT ", "-A OUTPUT ")
_DROPS_OF_FILTER = (":INPUT DROP", ":OUTPUT DROP")
_EMPTY_TRIAL = f"*raw\n:{PREFIX}TRIAL - [0:0]\n-X {PREFIX}TRIAL\nCOMMIT\n"
_ATTEMPTS = 2
_RESERVE_S = 0.5
_NAMES = {4: Path("/proc/net/ip_tables_names"), 6: Path("/proc/net/ip6_tables_names")}
_KUBE = {
    "mangle": (":KUBE-IPTABLES-HINT ", ":KUBE-KUBELET-CANARY "),
    "nat": (":KUBE-SERVICES ",),
}


@dataclass(frozen=True, slots=True)
class Tool:
    """The programs of one variant for one family."""

    backend: Backend
    version: Version

    @property
    def name(self) -> str:
        """Returns what people call it, for instance "ip6tables-legacy"."""
        return f"{self._family()}-{VARIANTS[self.backend]}"

    def find(self, action: str, deadline: Deadline) -> str | None:
        """Returns the path of its program for "save" or "restore", or None.

        A program without the variant in its name counts if its version names the variant;
        releases before 1.8 name none and are legacy.
        """
        path = find(f"{self.name}-{action}")
        if path is not None:
            return path
        path = find(f"{self._family()}-{action}")
        if path is None:
            return None
        finished = run([path, "--version"], deadline)
        is_nft = "nf_tables" in finished.stdout + finished.stderr
        return path if is_nft == (self.backend is Backend.IPTABLES_NFT) else None

    def has_table(self, table: str) -> bool:
        """Whether a table may hold rules. To ask the legacy programs would load its module."""
        if self.backend is Backend.IPTABLES_NFT:
            return True
        try:
            return table in _NAMES[self.version].read_text().split()
        except OSError:
            return False

    def _family(self) -> str:
        return "iptables" if self.version == 4 else "ip6tables"


def install(plan: NodePlan, backend: Backend, deadline: Deadline) -> Installed:
    """Makes our chains what the plan asks for, removes node-cache's rules.

    Raises:
        NodeError: A family's programs are missing or failed. Each table is as it was or done.
    """
    removed: tuple[str, ...] = ()
    covers: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    for version in VERSIONS:
        tool = Tool(backend, version)
        if not addresses(plan, version):
            removed += _remove(plan, tool, deadline, has_known=False)
            continue
        done, said = _feasible(plan, tool, deadline)
        for table in INSTALL_ORDER:
            if own_rules(done, version, table) or tool.has_table(table):
                removed += _apply(done, tool, table, deadline, is_wanted=True, has_known=True)
        covers += covered(done, version)
        notes += said
    return Installed(removed, covers, notes)


def remove(
    plan: NodePlan, backend: Backend, deadline: Deadline, has_known: bool
) -> tuple[str, ...]:
    """Removes our chains of both families; returns what was removed.

    Args:
        plan: Whose addresses node-cache's rules are looked for.
        backend: Which variant; one that is not installed or not in use has nothing to remove.
        deadline: Also bounds the wait for the xtables lock.
        has_known: Remove node-cache's rules too.

    Raises:
        NodeError: Something stays; all else was removed.
    """
    removed: tuple[str, ...] = ()
    error: NodeError | None = None
    for version in VERSIONS:
        try:
            removed += _remove(plan, Tool(backend, version), deadline, has_known)
        except NodeError as raised:
            error = error or raised  # a wait for the lock leaves the next family no time
    if error is not None:
        raise error
    return removed


def admit(plan: NodePlan, backend: Backend, deadline: Deadline) -> tuple[str, ...]:
    """Lets our DNS pass a filter that the variant keeps, removes all else; returns what went.

    For rules that another backend keeps: none but its own can overrule a filter's drop.

    Raises:
        NodeError: Something was not done; all else was.
    """
    removed: tuple[str, ...] = ()
    error: NodeError | None = None
    for version in VERSIONS:
        tool = Tool(backend, version)
        try:
            is_wanted = bool(addresses(plan, version)) and _find_filter(tool, deadline) is not None
            if is_wanted:
                removed += _apply(plan, tool, "filter", deadline, is_wanted=True, has_known=True)
            removed += _remove(plan, tool, deadline, has_known=True, but_filter=is_wanted)
        except NodeError as raised:
            error = error or raised
    if error is not None:
        raise error
    return removed


def admits(plan: NodePlan, backend: Backend, deadline: Deadline) -> bool:
    """Whether our DNS passes a filter that the variant keeps, if it keeps one. Raises NodeError."""
    return all(
        printed is None or is_complete(plan, version, "filter", printed)
        for version in VERSIONS
        if addresses(plan, version)
        for printed in (_find_filter(Tool(backend, version), deadline),)
    )


def stands(plan: NodePlan, backend: Backend, deadline: Deadline) -> bool:
    """Whether every table holds our rules, each once, with one jump to each chain."""
    try:
        return all(
            not addresses(plan, version) or _is_standing(plan, Tool(backend, version), deadline)
            for version in VERSIONS
        )
    except NodeError:
        return False


def has_kube_chains(backend: Backend, deadline: Deadline) -> bool:
    """Whether kubelet or kube-proxy keep their chains with this variant."""
    for version in VERSIONS:
        tool = Tool(backend, version)
        for table, marks in _KUBE.items():
            path = tool.find("save", deadline) if tool.has_table(table) else None
            if path is None:
                continue
            finished = run(
                [path, "-t", table], deadline, keep=lambda line: line.startswith(":KUBE")
            )
            if any(line.startswith(marks) for line in finished.stdout.splitlines()):
                return True
    return False


def why_not(plan: NodePlan, backend: Backend, deadline: Deadline) -> str:
    """Returns why a variant cannot serve the plan, or "" if it can."""
    for version in VERSIONS:
        if not addresses(plan, version):
            continue
        tool = Tool(backend, version)
        path = tool.find("save", deadline)
        if path is None or tool.find("restore", deadline) is None:
            return f"{tool.name} is not installed"
        finished = run([path, "-t", "raw"], deadline, keep=_is_ours)
        if not finished.is_good:
            return finished.complaint()
        if error := _try_out(tool, deadline):
            return str(error)
    return ""


def _try_out(tool: Tool, deadline: Deadline) -> NodeError | None:
    """Makes and deletes a chain, or returns why that cannot be done.

    On a kernel whose nf_tables knows no tables, the nft variant prints empty ones and passes its
    own --test: only a change tells. Nothing remains but an empty table, which we are to fill.
    """
    if tool.backend is not Backend.IPTABLES_NFT:
        return None
    return _restore(tool, _EMPTY_TRIAL, deadline)


def _feasible(plan: NodePlan, tool: Tool, deadline: Deadline) -> tuple[NodePlan, tuple[str, ...]]:
    """Returns the plan as far as it can be done here, and a sentence on what cannot and why.

    Raises:
        NodeError: It cannot be found out, because the xtables lock is held.
    """
    if not plan.fails_over:
        return plan, ()
    if endpoints(plan, tool.version):
        plan = _without_services(plan, tool.version, _read(plan, tool, "nat", deadline))
    said: tuple[str, ...] = ()
    if not endpoints(plan, tool.version):
        local = addresses(plan, tool.version)[0]
        text = "name endpoints with -fallback, or use nftables"
        said = (f"iptables cannot lead {local} elsewhere while nobody serves: {text}",)
    if not covered(plan, tool.version):
        return replace(plan, fails_over=False), said
    error = _try_fail_over(plan, tool, deadline)
    if error is None:
        return plan, said
    if error.kind == "iptables_lock":
        raise error
    lacks = "xt_recent or xt_socket" + plan.is_tracked * " or zones of connection tracking"
    text = f"use nftables, or a kernel that has them ({error})"
    said = (f"nothing leads queries elsewhere while nobody serves for want of {lacks}: {text}",)
    return replace(plan, fails_over=False), said


def _without_services(plan: NodePlan, version: Version, nat: PrintedTable) -> NodePlan:
    """Returns the plan without the Services that kube-proxy would have to lead on from there.

    Its chains are not consulted for a flow that ours have led somewhere. IPVS comes later, so the
    Services that it serves are as good as endpoints.
    """
    hosts = endpoints(plan, version)
    return replace(plan, cluster_dns=tuple(host for host in hosts if not is_service(nat, host)))


def _try_fail_over(plan: NodePlan, tool: Tool, deadline: Deadline) -> NodeError | None:
    """Makes and deletes rules of each kind that fail-over needs, or returns why that cannot be."""
    make, drop = compose_trial(plan, tool.version)
    error = _restore(tool, make, deadline)
    _restore(tool, drop, deadline)
    return error


def _is_standing(plan: NodePlan, tool: Tool, deadline: Deadline) -> bool:
    """Whether all rules are there, or at least those that this kernel can have."""
    printed = {
        table: _read(plan, tool, table, deadline)
        for table in INSTALL_ORDER
        if own_rules(plan, tool.version, table) and tool.has_table(table)
    }
    if plan.fails_over and "nat" in printed:
        plan = _without_services(plan, tool.version, printed["nat"])

    def holds(wanted: NodePlan) -> bool:
        return all(
            is_complete(wanted, tool.version, table, printed[table])
            if table in printed
            else not own_rules(wanted, tool.version, table)
            for table in INSTALL_ORDER
        )

    if not plan.fails_over or holds(plan):
        return holds(plan)
    plain = replace(plan, fails_over=False)
    return holds(plain) and _feasible(plan, tool, deadline)[0] == plain


def _find_filter(tool: Tool, deadline: Deadline) -> PrintedTable | None:
    """Returns what filters what the node receives or sends, None if that is nobody but us."""
    path = tool.find("save", deadline) if tool.has_table("filter") else None
    if path is None:
        return None
    finished = run([path, "-t", "filter"], deadline, keep=_is_of_filter)
    if not finished.is_good or all(map(_is_ours, finished.stdout.splitlines())):
        return None
    return parse_table(finished.stdout)


def _is_of_filter(line: str) -> bool:
    return line.startswith((*_RULES_OF_FILTER, *_DROPS_OF_FILTER)) or _is_ours(line)


def _remove(
    plan: NodePlan, tool: Tool, deadline: Deadline, has_known: bool, but_filter: bool = False
) -> tuple[str, ...]:
    """Removes from all tables of one family; does nothing where there can be nothing.

    Where raw and filter have no chain of ours, nat has none: to read the thousands of rules that
    kube-proxy has there takes the nft variant seconds.
    """
    order = [table for table in REMOVE_ORDER if table != "filter" or not but_filter]
    tables = [table for table in order if tool.has_table(table)]
    if not tables or tool.find("save", deadline) is None:
        return ()
    others = [_read(plan, tool, table, deadline, False) for table in tables if table != "nat"]
    removed: tuple[str, ...] = ()
    for table in tables:
        if table != "nat" or any(map(own_chains, others)):
            removed += _apply(plan, tool, table, deadline, is_wanted=False, has_known=has_known)
    return removed


def _apply(
    plan: NodePlan, tool: Tool, table: str, deadline: Deadline, is_wanted: bool, has_known: bool
) -> tuple[str, ...]:
    """Reads a table, composes the change and makes it; returns what it removed.

    A second attempt is for a rule that somebody else deleted between reading and writing, which
    fails the whole transaction.
    """
    for attempt in range(_ATTEMPTS):
        printed = _read(plan, tool, table, deadline, is_wanted)
        if is_wanted:
            change = compose_install(plan, tool.version, table, printed)
        else:
            change = compose_removal(plan, tool.version, table, printed, has_known)
        if not change.script:
            return ()
        error = _restore(tool, change.script, deadline)
        if error is None:
            return tuple(f"{what} of {tool.name}" for what in change.removed)
        if error.kind != "iptables" or attempt == _ATTEMPTS - 1:
            raise error
    raise AssertionError("unreachable")


def _read(
    plan: NodePlan, tool: Tool, table: str, deadline: Deadline, is_wanted: bool = True
) -> PrintedTable:
    """Returns what a table holds of ours, of node-cache's, and of kube-proxy's what matters to us.

    A variant that the kernel does not know holds nothing; where rules are wanted that is an error.
    """
    services = tuple(f"-A {KUBE_CHAIN} -d {host}/" for host in endpoints(plan, tool.version))

    def counts(line: str) -> bool:
        return _is_ours(line) or line.endswith(f"-j {KUBE_CHAIN}") or line.startswith(services)

    finished = run([_program(tool, "save", deadline), "-t", table], deadline, keep=counts)
    if not finished.is_good and (is_wanted or not _is_unknown_to_kernel(finished)):
        raise fault(finished)
    return parse_table(finished.stdout)


def _restore(tool: Tool, script: str, deadline: Deadline) -> NodeError | None:
    """Makes a change, or returns why not."""
    path = _program(tool, "restore", deadline)
    # Releases differ in what no option or 0 means; some wait for ever then.
    wait_s = max(1, int(deadline.remaining_s() - _RESERVE_S))
    finished = run([path, "--noflush", f"--wait={wait_s}"], deadline, script)
    return None if finished.is_good else fault(finished, tool.backend is Backend.IPTABLES_LEGACY)


def _program(tool: Tool, action: str, deadline: Deadline) -> str:
    path = tool.find(action, deadline)
    if path is None:
        text = "install the package iptables, or choose another backend with -rules"
        raise NodeError(f"{tool.name}-{action} is not installed: {text}", "iptables")
    return path


def _is_unknown_to_kernel(finished: Finished) -> bool:
    """Whether a program failed because the kernel lacks the variant, not for want of rights."""
    words = ("not supported", "does not exist", "generation id: Invalid argument")
    return not finished.is_late and any(word in finished.stderr for word in words)


def _is_ours(line: str) -> bool:
    return PREFIX in line or MARK in line
