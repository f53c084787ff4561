"""What the search list of resolv.conf makes of one look-up: told from the names that were asked.

A stub with ndots:5 asks for api.example.com as api.example.com.NS.svc.cluster.local first, then as
api.example.com.svc.cluster.local and api.example.com.cluster.local, and then for the name itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Search:
    """One name with what was asked for it in vain.

    Attributes:
        name: What was meant, with final dot.
        asked: Queries for the name itself.
        in_vain: Queries for it with something of a search list behind it, all denied.
    """

    name: str
    asked: int
    in_vain: int

    @property
    def share(self) -> float:
        """The part of all queries for it that came to nothing."""
        return self.in_vain / (self.asked + self.in_vain)


def find_searches(
    asked: Mapping[str, int], denied: Mapping[str, int], domain: str
) -> Sequence[Search]:
    """Returns what search lists cost, the dearest first.

    Args:
        asked: Name with final dot -> queries, over all types.
        denied: The same -> those of them that were NXDOMAIN.
        domain: Of the cluster, "cluster.local.".
    """
    in_vain: dict[str, int] = {}
    for name, count in denied.items():
        meant = _meant_by(name, asked, domain) if count else ""
        if meant:
            in_vain[meant] = in_vain.get(meant, 0) + count
    found = [Search(name, asked.get(name, 0), count) for name, count in in_vain.items()]
    return sorted(found, key=lambda search: search.in_vain, reverse=True)


def _meant_by(name: str, asked: Mapping[str, int], domain: str) -> str:
    """Returns the name that ``name`` is with a search list behind it, "" if it looks like none."""
    if not name.endswith(f".{domain}"):
        return ""
    labels = name[: -len(domain) - 1].split(".")
    if labels[-1] != "svc":
        meant = ".".join(labels) + "."
        return meant if len(labels) > 1 or meant in asked else ""
    # NAME.svc or NAME.NAMESPACE.svc: the one that was asked for by itself tells which.
    whole, without_namespace = ".".join(labels[:-1]) + ".", ".".join(labels[:-2]) + "."
    if whole in asked:
        return whole
    if without_namespace in asked:
        return without_namespace
    return without_namespace if len(labels) > 3 else ""  # x.y.NAMESPACE.svc
