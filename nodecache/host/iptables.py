"""Keeps our rules in chains of our own, by the programs of iptables, variant nft or legacy.

A table changes in one transaction of iptables-restore: own chains are filled anew, the jump to each
is put in front of the others' rules unless it stands, and rules of node-cache are deleted with it.
The legacy variant takes the xtables lock for that, never longer than the deadline; the nft variant
takes none. Base chains that iptables itself makes stay when our rules go.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nodecache.config.node import Backend, NodePlan
from nodecache.errors import NodeError
from nodecache.host.chains import PREFIX, compose_install, compose_removal, is_complete
from nodecache.host.flows import VERSIONS, Version, addresses
from nodecache.host.leftovers import MARK
from nodecache.host.programs import Deadline, Finished, fault, find, run
from nodecache.host.saved import SavedTable, parse_table

VARIANTS = {Backend.IPTABLES_NFT: "nft", Backend.IPTABLES_LEGACY: "legacy"}
# Accepted before untracked, tracked before dropped: no packet is in between during a change.
INSTALL_ORDER = ("filter", "raw")
REMOVE_ORDER = ("raw", "filter")

_TRIAL = f"{PREFIX}TRIAL"
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
        printed = run([path, "--version"], deadline)
        is_nft = "nf_tables" in printed.stdout + printed.stderr
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


def install(plan: NodePlan, backend: Backend, deadline: Deadline) -> tuple[str, ...]:
    """Makes our chains what the plan asks for, removes node-cache's rules; returns what went.

    Raises:
        NodeError: A family's programs are missing or failed. Each table is as it was or done.
    """
    removed: tuple[str, ...] = ()
    for version in VERSIONS:
        tool = Tool(backend, version)
        if not addresses(plan, version):
            removed += _remove(plan, tool, deadline, has_known=False)
            continue
        for table in INSTALL_ORDER:
            removed += _apply(plan, tool, table, deadline, is_wanted=True, has_known=True)
    return removed


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
            printed = run([path, "-t", table], deadline, keep=lambda line: line.startswith(":KUBE"))
            if any(line.startswith(marks) for line in printed.stdout.splitlines()):
                return True
    return False


def probe(plan: NodePlan, backend: Backend, deadline: Deadline) -> str:
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
    return _restore(tool, f"*raw\n:{_TRIAL} - [0:0]\n-X {_TRIAL}\nCOMMIT\n", deadline)


def _is_standing(plan: NodePlan, tool: Tool, deadline: Deadline) -> bool:
    return all(
        tool.has_table(table)
        and is_complete(plan, tool.version, table, _read(tool, table, deadline))
        for table in INSTALL_ORDER
    )


def _remove(plan: NodePlan, tool: Tool, deadline: Deadline, has_known: bool) -> tuple[str, ...]:
    """Removes from all tables of one family; does nothing where there can be nothing."""
    removed: tuple[str, ...] = ()
    for table in REMOVE_ORDER:
        if tool.has_table(table) and tool.find("save", deadline) is not None:
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
        saved = _read(tool, table, deadline, is_wanted)
        if is_wanted:
            change = compose_install(plan, tool.version, table, saved)
        else:
            change = compose_removal(plan, tool.version, table, saved, has_known)
        if not change.script:
            return ()
        error = _restore(tool, change.script, deadline)
        if error is None:
            return tuple(f"{what} of {tool.name}" for what in change.removed)
        if error.kind != "iptables" or attempt == _ATTEMPTS - 1:
            raise error
    raise AssertionError("unreachable")


def _read(tool: Tool, table: str, deadline: Deadline, is_wanted: bool = True) -> SavedTable:
    """Returns what a table holds of ours and of node-cache's.

    A variant that the kernel does not know holds nothing; where rules are wanted that is an error.
    """
    finished = run([_program(tool, "save", deadline), "-t", table], deadline, keep=_is_ours)
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
