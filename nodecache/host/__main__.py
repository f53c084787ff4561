"""The one-shot tool: ``python -m nodecache.host ACTION PLAN_JSON`` changes or checks one node.

Prints one line of JSON with the fields of ``nodecache.host.tool.Report`` and ends: 0 it is done or
found right, 1 it is not, 2 the words are wrong. A process of its own, because pyroute2 does not run
on the serving loop and takes 14 MB, and because waiting for locks stops nobody here.
"""

from __future__ import annotations

import ipaddress
import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nodecache.config.node import NodePlan
from nodecache.errors import NodeError

if TYPE_CHECKING:
    from nodecache.host.rules import RulesReport

# Imports below stand where they are needed: withdrawing rules does not wait for pyroute2.

_INSTALL_S = 8.0
# Who ends waits 4 s for the rules (serving/node.py); a held xtables lock must not use up more.
_WITHDRAW_S = 1.5
_NAME = re.compile(r"[A-Za-z0-9._-]{1,15}")
_MOST_PORT = 65535
_USAGE = "usage: python -m nodecache.host ACTION PLAN_JSON; ACTION is one of "
_EXIT_GOOD, _EXIT_MACHINE, _EXIT_USAGE = range(3)


@dataclass(slots=True)
class _Result:
    """What is printed, as it comes together; the first error stands for all."""

    kind: str = ""
    error: str = ""
    notes: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    covered: list[str] = field(default_factory=list)
    fallen_back: int = -1

    def fail(self, error: str, kind: str = "") -> None:
        self.kind = self.kind or kind
        self.error = "; ".join(filter(None, (self.error, error)))

    def line(self) -> str:
        fields = {
            "ok": not self.error,
            "kind": self.kind,
            "error": self.error,
            "notes": self.notes,
            "removed": self.removed,
            "covered": self.covered,
            "fallen_back": self.fallen_back,
        }
        return json.dumps(fields) + "\n"


_Step = Callable[[NodePlan, _Result], None]


def _interface(plan: NodePlan, result: _Result) -> None:
    from nodecache.host import interface  # noqa: PLC0415

    report = interface.ensure(plan)
    result.removed += report.removed
    result.notes += report.notes


def _remove(plan: NodePlan, result: _Result) -> None:
    from nodecache.host import interface  # noqa: PLC0415

    report = interface.remove(plan)
    result.removed += report.removed
    result.notes += report.notes


def _recede(plan: NodePlan, result: _Result) -> None:
    from nodecache.host import interface  # noqa: PLC0415

    report = interface.recede(plan)
    result.removed += report.removed


def _redirect(plan: NodePlan, result: _Result) -> None:
    from nodecache.host import rules  # noqa: PLC0415

    _take(rules.install(plan, _INSTALL_S), result)


def _withdraw(plan: NodePlan, result: _Result) -> None:
    from nodecache.host import rules  # noqa: PLC0415

    _take(rules.withdraw(plan, _WITHDRAW_S), result)


def _clean_rules(plan: NodePlan, result: _Result) -> None:
    from nodecache.host import rules  # noqa: PLC0415

    _take(rules.cleanup(plan, _INSTALL_S), result)


def _take(report: RulesReport, result: _Result) -> None:
    result.covered += report.covered
    result.removed += report.removed
    result.notes += report.notes


def _check_interface(plan: NodePlan, _result: _Result) -> None:
    from nodecache.host.looks import find_gaps, find_misplaced  # noqa: PLC0415

    gaps = find_gaps(plan) + find_misplaced(plan) if plan.has_interface else []
    if gaps:
        raise NodeError(", ".join(gaps), "interface_check")


def _check_rules(plan: NodePlan, result: _Result) -> None:
    from nodecache.host import rules  # noqa: PLC0415

    if plan.has_rules:
        result.fallen_back = rules.fallen_back()
    if plan.has_rules and not rules.stands(plan):
        raise NodeError("the rules are missing or changed", "iptables")


# A step that fails does not keep the next from being tried.
_ACTIONS: dict[str, tuple[_Step, ...]] = {
    "interface": (_interface,),
    "redirect": (_redirect,),
    "withdraw": (_withdraw,),
    "check": (_check_interface, _check_rules),
    "remove": (_remove,),
    "recede": (_recede,),
    "cleanup": (_clean_rules, _remove),
}


def main(words: Sequence[str] | None = None) -> int:
    """Runs one action, prints what came of it, and returns the exit code; raises nothing."""
    words = sys.argv[1:] if words is None else words
    result = _Result()
    code = _EXIT_USAGE
    try:
        steps, plan = _read(words)
    except ValueError as error:
        result.fail(str(error))
    else:
        for step in steps:
            _try(step, plan, result)
        code = _EXIT_MACHINE if result.error else _EXIT_GOOD
    sys.stdout.write(result.line())
    return code


def _try(step: _Step, plan: NodePlan, result: _Result) -> None:
    try:
        step(plan, result)
    except NodeError as error:
        result.fail(str(error), error.kind)
    except Exception as error:  # noqa: BLE001 # who waits reads one line, whatever went wrong here
        result.fail(f"a fault of nodecache, please report it: {error!r}")


def _read(words: Sequence[str]) -> tuple[tuple[_Step, ...], NodePlan]:
    """Raises ValueError for anything that is no action and no plan."""
    match words:
        case [action, text] if action in _ACTIONS:
            return _ACTIONS[action], _read_plan(text)
        case _:
            raise ValueError(_USAGE + ", ".join(_ACTIONS))


def _read_plan(text: str) -> NodePlan:
    """Raises ValueError, also for values that ``NodePlan.from_json`` lets through."""
    try:
        plan = NodePlan.from_json(text)
    except RecursionError:
        raise ValueError("a plan is no deeper than a list in an object") from None
    for address in (*plan.addresses, *plan.cluster_dns, *plan.unbound):
        if "%" in str(ipaddress.ip_address(str(address))):
            raise ValueError(f"{address!r:.80} has a zone")
    for value, is_right, what in (
        (plan.interface, _is_name, "name of an interface"),
        (plan.dns_port, _is_port, "port"),
        (plan.health_port, _is_port, "port"),
        (plan.has_interface, _is_truth, "boolean"),
        (plan.has_rules, _is_truth, "boolean"),
        (plan.fails_over, _is_truth, "boolean"),
        (plan.is_tracked, _is_truth, "boolean"),
        (plan.is_wildcard, _is_truth, "boolean"),
        (plan.zone, _is_port, "zone of connection tracking"),
    ):
        if not is_right(value):
            raise ValueError(f"{value!r:.80} is no {what}")
    return plan


def _is_name(value: object) -> bool:
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def _is_port(value: object) -> bool:
    return type(value) is int and 0 < value <= _MOST_PORT


def _is_truth(value: object) -> bool:
    return isinstance(value, bool)


if __name__ == "__main__":
    sys.exit(main())
