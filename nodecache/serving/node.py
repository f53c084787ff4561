"""The node's interface and rules while we serve: put up, looked after, taken down.

Changes are made by the tool, a process of its own; here is when, and what is said about it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from math import inf
from time import monotonic

from nodecache.config.model import Config
from nodecache.config.node import NodePlan
from nodecache.counters import Counters
from nodecache.errors import NodeError
from nodecache.host.looks import Events, find_gaps
from nodecache.host.tool import Report, run_tool

logger = logging.getLogger("nodecache")

_PUT_UP_S = 10.0
# A stop must not wait longer for each of rules and interface, whoever holds locks.
_TAKE_DOWN_S = 4.0
# Addresses are looked at this often, beside the kernel's own news of them.
_LOOK_S = 0.5
# News come in groups: who changes one thing changes the next.
_GATHER_S = 0.05
# A repair that failed is tried again after this time, twice as long each time up to the last.
_RETRY_S = (1.0, 30.0)


class Node:
    """One node.

    Attributes:
        has_redirect: Whether our rules are in force, as far as we know.
        covered: Addresses that the rules lead to the cluster's DNS while nobody beats; until they
            were put up, they are believed to do as asked.
        on_redirect: Called when rules were put up, or could not be.
        faults: What an operator should know, by what was being done.
    """

    def __init__(self, config: Config, counters: Counters, loop: asyncio.AbstractEventLoop) -> None:
        self.has_redirect = False
        self.covered = config.node.addresses if config.node.wants_beat else ()
        self.on_redirect: Callable[[], None] = lambda: None
        self.faults: dict[str, str] = {}
        self._plan = config.node
        self._sync_s = config.sync_interval_s
        self._skips_teardown = config.skip_teardown
        self._counters = counters
        self._loop = loop
        self._events = Events()
        self._news = asyncio.Event()
        self._are_rules_doubtful = False
        self._was_ensured = False
        self._is_cut_short = False
        # Addresses that are there when we start may lack the rest: that is checked soon.
        self._first_sweep_at = -inf
        self._sweep_at = inf
        self._working = asyncio.Lock()
        self._told: set[str] = set()
        self._watching: asyncio.Task[None] | None = None
        if config.node.has_rules:
            counters.gauges["redirect"] = lambda: int(self.has_redirect)

    @property
    def elsewhere(self) -> tuple[str, ...]:
        """Addresses that lead to the cluster's DNS until our rules stand."""
        return self._plan.redirected if self._plan.has_rules and not self.has_redirect else ()

    async def prepare(self) -> None:
        """Puts the interface up, unless its addresses are there: then that is looked at later.

        Raises:
            NodeError: There is nothing to serve on, and why.
        """
        if not self._plan.has_interface or not find_gaps(self._plan):
            return
        self._was_ensured = True
        report = await self._work("interface")
        if not report.ok and find_gaps(self._plan):
            raise NodeError(report.error, report.kind)
        self._first_sweep_at = monotonic() + self._sync_s

    def start(self) -> None:
        """Looks after the interface from now on."""
        if self._plan.has_interface or self._plan.has_rules:
            self._events.start(self._loop, self._note_route_event, self._note_rules_event)
            self._watching = self._loop.create_task(self._watch())

    async def redirect(self) -> None:
        """Has queries steered here, and looks after that, too."""
        if self._plan.has_rules:
            await self._redirect()
        self._sweep_at = self._first_sweep_at

    async def finish(self) -> None:
        """Looks after the node no more, and has done what was cut short.

        Without our table, or beside rules that node-cache left, queries would be led to nobody
        once we are gone.
        """
        await self.stop()
        if self._is_cut_short:
            await self._redirect(_TAKE_DOWN_S)

    async def leave(self) -> None:
        """Takes away rules that lead here for ever; to be called while we still answer."""
        await self.stop()
        if self._plan.has_rules and not self.covered:
            await self._work("withdraw", _TAKE_DOWN_S)
            self.has_redirect = False

    async def take_down(self) -> None:
        """Takes the interface away; with ``-skipteardown`` all of it but the local address."""
        await self.stop()
        if self._plan.has_interface and not self._skips_teardown:
            await self._work("remove", _TAKE_DOWN_S)
        elif self._plan.has_interface and self._plan.has_rules and self._plan.redirected:
            await self._work("recede", _TAKE_DOWN_S)

    async def stop(self) -> None:
        """Looks after the node no more."""
        watching, self._watching = self._watching, None
        if watching is not None:
            self._events.close()
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching

    def follow(self, plan: NodePlan) -> None:
        """Goes over to what another configuration makes of the rules; the interface stays."""
        if plan != self._plan:
            self._plan = plan
            self.doubt_rules()

    def doubt_rules(self) -> None:
        """Has the rules looked at soon."""
        self._note_rules_event()

    def _note_route_event(self) -> None:
        self._news.set()

    def _note_rules_event(self) -> None:
        self._are_rules_doubtful = True
        self._news.set()

    async def _watch(self) -> None:
        """Repairs at once what is gone, and checks everything now and then; never returns."""
        retry_at, retry_s = -inf, _RETRY_S[0]
        while True:
            now = monotonic()
            if now >= retry_at:
                if await self._look(is_sweep=now >= self._sweep_at):
                    retry_s = _RETRY_S[0]
                else:
                    retry_at, retry_s = monotonic() + retry_s, min(2 * retry_s, _RETRY_S[1])
                if now >= self._sweep_at:
                    self._sweep_at = now + self._sync_s
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), _LOOK_S)
                await asyncio.sleep(_GATHER_S)
            self._news.clear()

    async def _look(self, *, is_sweep: bool) -> bool:
        """Repairs what it finds wrong; returns whether everything stands."""
        gaps = find_gaps(self._plan) if self._plan.has_interface else []
        if gaps:
            logger.warning("the interface is not as it should be: %s", ", ".join(gaps))
            report = await self._work("interface")
            self._counters.count_event("interface_repaired", int(report.ok))
            return report.ok
        if is_sweep and self._plan.has_interface and not self._was_ensured:
            self._was_ensured = True  # finds what was put there by other flags, too
            return (await self._work("interface")).ok
        are_doubtful, self._are_rules_doubtful = self._are_rules_doubtful, False
        if not (are_doubtful or is_sweep) or self._sweep_at == inf:
            return True  # there is no rule to look after before ``redirect``
        report = await self._work("check")
        self._counters.fallback_packets = max(0, report.fallen_back)
        if report.ok:
            return True
        return await self._repair()

    async def _repair(self) -> bool:
        logger.warning("the node is not as it should be: interface and rules are put up again")
        is_well = True
        if self._plan.has_interface:
            is_well = (await self._work("interface")).ok
            self._counters.count_event("interface_repaired", int(is_well))
        if self._plan.has_rules:
            is_well = await self._redirect() and is_well
            self._counters.count_event("rules_repaired", int(self.has_redirect))
        self._are_rules_doubtful = not is_well
        return is_well

    async def _redirect(self, within_s: float = _PUT_UP_S) -> bool:
        self._is_cut_short = True
        report = await self._work("redirect", within_s)
        self._is_cut_short = False
        if report.ok or not self.has_redirect:
            self.covered = report.covered  # else those of before may well stand
        self.has_redirect = report.ok
        self._are_rules_doubtful = not self.has_redirect
        self.on_redirect()
        return self.has_redirect

    async def _work(self, action: str, within_s: float = _PUT_UP_S) -> Report:
        """Has the tool do something, and tells what came of it."""
        async with self._working:
            report = await run_tool(action, self._plan, within_s)
        if action != "check":
            self._tell(action, report)
        return report

    def _tell(self, action: str, report: Report) -> None:
        for text in report.removed:
            logger.info("removed: %s", text)
        for text in report.notes:
            if text not in self._told:
                logger.info("%s", text)
        self._told |= set(report.notes)
        self._tell_failure(action, report)

    def _tell_failure(self, action: str, report: Report) -> None:
        if report.ok:
            self.faults.pop(action, None)
            return
        errors = self._counters.setup_errors
        errors[report.kind] = errors.get(report.kind, 0) + 1
        if self.faults.get(action) != report.error:
            self.faults[action] = report.error
            logger.error("%s", report.error)
