"""The packet filter rules of a node: chooses who keeps them, installs, checks and removes them.

The rules keep DNS with our addresses away from kube-proxy's address translation, most simply by
keeping it out of connection tracking: that is what brings queries for the cluster DNS address to
our sockets. They do so while we say that we serve, and while the address belongs to the host;
else they lead queries to the cluster's DNS. So rules may outlive us. Where a filter drops DNS, see
``nodecache.host.nftables``.
"""

from __future__ import annotations

from dataclasses import dataclass

from nodecache.config.node import Backend, NodePlan
from nodecache.errors import NodeError
from nodecache.host import iptables, nftables
from nodecache.host.flows import VERSIONS, addresses
from nodecache.host.programs import Deadline

CHECK_LIMIT_S = 5.0
BACKENDS = (Backend.NFTABLES, Backend.IPTABLES_NFT, Backend.IPTABLES_LEGACY)


@dataclass(frozen=True, slots=True)
class RulesReport:
    """What was done.

    Attributes:
        backend: Who keeps the rules now, None if nobody does.
        removed: What was removed, one sentence each.
        notes: What else is to be said: the choice and its reason, what could not be removed.
        covered: Addresses that lead to the cluster's DNS while nobody says that he serves (see
            ``nodecache.host.beat``); empty if the rules do not listen for that.
    """

    backend: Backend | None
    removed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    covered: tuple[str, ...] = ()


_NFT = Backend.NFTABLES


def install(plan: NodePlan, deadline_s: float) -> RulesReport:
    """Makes the rules what the plan asks for, then removes leftovers; changes nothing twice.

    Leftovers are node-cache's rules for the same addresses, and ours under another backend. They
    go after the new rules stand, so that no packet is tracked in between. Those that cannot be
    removed are a note: while we serve they do no harm, but they defeat the fall-back.

    Args:
        plan: Addresses, ports and backend.
        deadline_s: Seconds after which nothing is waited for, the xtables lock included.

    Raises:
        NodeError: The rules do not stand; kind "iptables" or "iptables_lock".
    """
    deadline = Deadline.within(deadline_s)
    if not any(addresses(plan, version) for version in VERSIONS):
        return RulesReport(None, notes=("no address, no rules",))
    backend, reason = choose(plan, deadline)
    if backend is Backend.NFTABLES:
        done = nftables.install(plan, deadline)
    else:
        done = iptables.install(plan, backend, deadline)
    others = [other for other in BACKENDS if other is not backend]
    gone, errors = _remove(plan, others, deadline, has_known=True, admits=backend is _NFT)
    notes = (f"rules kept by {backend.value}: {reason}", *done.notes)
    kept = tuple(f"leftovers may remain: {error}" for error in errors)
    return RulesReport(backend, done.removed + gone, notes + kept, done.covered)


def withdraw(plan: NodePlan, deadline_s: float) -> RulesReport:
    """Removes all rules of ours, whoever keeps them; those that cover an address may better stay.

    Raises:
        NodeError: Some rules stay, all others are gone; kind "iptables_lock" if another program
            held the xtables lock until the deadline.
    """
    return _clear(plan, deadline_s, has_known=False)


def cleanup(plan: NodePlan, deadline_s: float) -> RulesReport:
    """Does what ``withdraw`` does, and removes node-cache's rules for the plan's addresses."""
    return _clear(plan, deadline_s, has_known=True)


def stands(plan: NodePlan) -> bool:
    """Whether the rules are there as ``install`` makes them: complete, once and hooked in.

    With ``Backend.AUTO`` any one backend will do. Raises nothing for what programs do; takes at
    most ``CHECK_LIMIT_S`` seconds.
    """
    deadline = Deadline.within(CHECK_LIMIT_S)
    backends = BACKENDS if plan.backend is Backend.AUTO else (plan.backend,)
    try:
        return any(_stands(plan, backend, deadline) for backend in backends)
    except NodeError:
        return False


def fallen_back() -> int:
    """Returns how many packets the rules led to the cluster's DNS since they were made.

    -1 if nobody knows: only nftables counts. Raises nothing for what programs do; takes at most
    ``CHECK_LIMIT_S`` seconds.
    """
    try:
        found = nftables.unserved(Deadline.within(CHECK_LIMIT_S))
    except NodeError:
        return -1
    return -1 if found is None else found


def choose(plan: NodePlan, deadline: Deadline) -> tuple[Backend, str]:
    """Returns who is to keep the rules, and why.

    nftables wherever the kernel takes our table, whatever kube-proxy uses: it alone can change a
    packet's destination without somebody to keep endpoints. Else the variant of iptables in which
    kube-proxy or kubelet keep their chains: its programs and kernel modules work, and rules that
    accept packets must stand in the same filter to have a say. Else the first that works.

    Raises:
        NodeError: None works; the message says what to install.
    """
    if plan.backend is not Backend.AUTO:
        return plan.backend, "-rules says so"
    reason = nftables.why_not(plan, deadline)
    if not reason:
        return Backend.NFTABLES, "the kernel takes our table"
    reasons = [f"{Backend.NFTABLES.value}: {reason}"]
    for backend in iptables.VARIANTS:
        if iptables.has_kube_chains(backend, deadline):
            text = "kubelet or kube-proxy keep their chains there"
            return backend, "; ".join([text, *reasons])
    for backend in iptables.VARIANTS:
        reason = iptables.why_not(plan, backend, deadline)
        if not reason:
            return backend, "; ".join(["the first that works here", *reasons])
        reasons.append(f"{backend.value}: {reason}")
    text = "install nftables or iptables in the image, load nf_tables or ip_tables on the host"
    text += ", or say -setupiptables=false"
    raise NodeError(
        f"no program can keep packet filter rules ({'; '.join(reasons)}): {text}", "iptables"
    )


def _stands(plan: NodePlan, backend: Backend, deadline: Deadline) -> bool:
    if backend is Backend.NFTABLES:
        return nftables.stands(plan, deadline) and all(
            iptables.admits(plan, variant, deadline) for variant in iptables.VARIANTS
        )
    return iptables.stands(plan, backend, deadline)


def _clear(plan: NodePlan, deadline_s: float, has_known: bool) -> RulesReport:
    removed, errors = _remove(plan, list(BACKENDS), Deadline.within(deadline_s), has_known)
    if errors:
        locked = [error for error in errors if error.kind == "iptables_lock"]
        text = "; ".join(str(error) for error in errors)
        raise NodeError(f"rules remain: {text}", (locked or errors)[0].kind)
    return RulesReport(None, removed)


def _remove(
    plan: NodePlan,
    backends: list[Backend],
    deadline: Deadline,
    has_known: bool,
    admits: bool = False,
) -> tuple[tuple[str, ...], list[NodeError]]:
    """Removes from each backend, in an order that leaves the lock for last.

    With ``admits`` what lets our DNS pass a filter of iptables stays, or is put there.
    """
    removed: tuple[str, ...] = ()
    errors = []
    for backend in backends:
        try:
            if backend is Backend.NFTABLES:
                removed += nftables.remove(deadline)
            elif admits:
                removed += iptables.admit(plan, backend, deadline)
            else:
                removed += iptables.remove(plan, backend, deadline, has_known)
        except NodeError as error:
            errors.append(error)
    return removed, errors
