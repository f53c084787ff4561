"""What the worker has done to its node, and when; the tool itself is tested in tests/host."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

import pytest

from nodecache.config.model import Config
from nodecache.config.node import NodePlan
from nodecache.counters import Counters
from nodecache.errors import NodeError
from nodecache.host.tool import Report
from nodecache.serving import node as module
from nodecache.serving.node import Node
from tests.loops import run, until

PLAN = NodePlan("nodelocaldns", ("169.254.20.10", "10.96.0.10"))
CONFIG = Config((), node=PLAN)


class Kernel:
    """Stands in for the events of the kernel: a test calls what was registered."""

    def __init__(self) -> None:
        self.on_route: Callable[[], None] = lambda: None
        self.on_rules: Callable[[], None] = lambda: None

    def start(
        self, _loop: object, on_route: Callable[[], None], on_rules: Callable[[], None]
    ) -> None:
        self.on_route, self.on_rules = on_route, on_rules

    def close(self) -> None:
        self.on_route = self.on_rules = lambda: None


@dataclass
class Machine:
    """Stands in for the node and the tool.

    Attributes:
        gaps: What the interface lacks.
        are_rules_in_place: Of the packet filter.
        covered: What they lead elsewhere while nobody beats.
        failing: Actions that fail, with the error.
        actions: What the tool was asked to do.
        is_quick: Whether it does so.
    """

    gaps: list[str] = field(default_factory=list)
    are_rules_in_place: bool = False
    covered: tuple[str, ...] = PLAN.addresses
    failing: dict[str, str] = field(default_factory=dict)
    actions: list[str] = field(default_factory=list)
    kernel: Kernel = field(default_factory=Kernel)
    is_quick: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.is_quick.set()

    async def run_tool(self, action: str, _plan: NodePlan, _within_s: float) -> Report:
        self.actions.append(action)
        await self.is_quick.wait()
        if action in self.failing:
            return Report(ok=False, kind="interface_add", error=self.failing[action])
        if action == "check":
            return Report(ok=self.are_rules_in_place and not self.gaps)
        if action == "interface":
            self.gaps = []
        if action in ("redirect", "withdraw"):
            self.are_rules_in_place = action == "redirect"
        covered = self.covered if action == "redirect" else ()
        return Report(ok=True, notes=(f"{action} is done",), covered=covered)

    async def until(self, *actions: str) -> None:
        """Returns when the tool has done exactly these."""
        await until(lambda: self.actions == list(actions))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine()
    monkeypatch.setattr(module, "run_tool", machine.run_tool)
    monkeypatch.setattr(module, "find_gaps", lambda _plan: machine.gaps)
    monkeypatch.setattr(module, "Events", lambda: machine.kernel)
    monkeypatch.setattr(module, "_RETRY_S", (0.05, 0.1))
    return machine


def live(
    body: Callable[[Node], Awaitable[None]],
    config: Config = CONFIG,
    counters: Counters | None = None,
) -> None:
    async def main() -> None:
        node = Node(config, counters or Counters(), asyncio.get_running_loop())
        try:
            await body(node)
        finally:
            await node.stop()

    run(main())


def test_interface_is_put_up_before_anything_else(machine: Machine) -> None:
    async def body(node: Node) -> None:
        machine.gaps = ["169.254.20.10 is not local"]
        await node.prepare()
        assert machine.actions == ["interface"]
        node.start()
        await node.redirect()
        assert machine.actions == ["interface", "redirect"]
        assert node.has_redirect

    live(body)


def test_start_does_not_wait_for_an_interface_that_is_there(machine: Machine) -> None:
    async def body(node: Node) -> None:
        await node.prepare()
        assert machine.actions == []
        node.start()
        await node.redirect()
        # What else may be wrong with it is looked at afterwards.
        await machine.until("redirect", "interface")

    live(body)


def test_start_fails_when_there_is_nothing_to_serve_on(machine: Machine) -> None:
    async def body(node: Node) -> None:
        machine.gaps = ["169.254.20.10 is not local"]
        machine.failing = {"interface": "the capability NET_ADMIN is missing"}
        with pytest.raises(NodeError, match="NET_ADMIN") as failure:
            await node.prepare()
        assert failure.value.kind == "interface_add"

    live(body)


def test_rules_are_no_concern_before_we_answer(machine: Machine) -> None:
    async def body(node: Node) -> None:
        node.start()
        machine.kernel.on_rules()
        await asyncio.sleep(0.3)
        assert machine.actions == []

    live(body)


def test_lost_address_is_put_back_at_once(machine: Machine) -> None:
    counters = Counters()

    async def body(node: Node) -> None:
        node.start()
        machine.gaps = ["10.96.0.10 is not local"]
        machine.kernel.on_route()
        await machine.until("interface")
        assert counters.events["interface_repaired"] == 1

    live(body, counters=counters)


def test_flushed_rules_are_put_back_at_once(machine: Machine) -> None:
    counters = Counters()

    async def body(node: Node) -> None:
        node.start()
        await node.redirect()
        await machine.until("redirect", "interface")
        machine.are_rules_in_place = False
        machine.kernel.on_rules()
        await machine.until("redirect", "interface", "check", "interface", "redirect")
        assert counters.events["rules_repaired"] == 1

    live(body, counters=counters)


def test_what_cannot_be_repaired_is_tried_again_and_told_once(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    counters = Counters()

    async def body(node: Node) -> None:
        machine.failing = {"redirect": "no nft and no iptables here"}
        with caplog.at_level(logging.INFO, "nodecache"):
            node.start()
            await node.redirect()
            await until(lambda: machine.actions.count("redirect") >= 4)
            assert list(node.faults.values()) == ["no nft and no iptables here"]
            machine.failing = {}
            await until(lambda: node.has_redirect)
        assert node.faults == {}

    live(body, counters=counters)
    assert counters.setup_errors["interface_add"] >= 4
    told = [record.getMessage() for record in caplog.records]
    assert told.count("no nft and no iptables here") == 1


def test_stop_withdraws_before_it_takes_the_interface_down(machine: Machine) -> None:
    async def body(node: Node) -> None:
        machine.covered = ()
        node.start()
        await node.redirect()
        await node.leave()
        assert not node.has_redirect
        await node.take_down()
        assert [a for a in machine.actions if a != "check"] == ["redirect", "withdraw", "remove"]
        machine.gaps = ["gone"]
        machine.kernel.on_route()
        await asyncio.sleep(0.2)
        assert "interface" not in machine.actions

    live(body)


def test_rules_that_lead_elsewhere_by_themselves_stay_at_the_end(machine: Machine) -> None:
    async def body(node: Node) -> None:
        node.start()
        await node.redirect()
        assert node.covered == PLAN.addresses
        await node.leave()
        await node.take_down()
        assert [a for a in machine.actions if a != "check"] == ["redirect", "remove"]

    live(body)


def test_rules_that_were_cut_short_are_finished_before_the_end(machine: Machine) -> None:
    async def body(node: Node) -> None:
        node.start()
        machine.is_quick.clear()
        going = asyncio.ensure_future(node.redirect())
        await machine.until("redirect")
        going.cancel()
        await asyncio.gather(going, return_exceptions=True)
        machine.is_quick.set()
        await node.finish()
        assert machine.actions == ["redirect", "redirect"]
        assert machine.are_rules_in_place
        await node.finish()
        assert machine.actions == ["redirect", "redirect"]

    live(body)


def test_what_the_rules_cover_is_told_each_time_they_are_put_up(machine: Machine) -> None:
    told: list[tuple[str, ...]] = []

    async def body(node: Node) -> None:
        node.on_redirect = lambda: told.append(node.covered)
        node.start()
        await node.redirect()
        machine.covered = ()
        machine.are_rules_in_place = False
        node.doubt_rules()
        await until(lambda: len(told) == 2)

    live(body)
    assert told == [PLAN.addresses, ()]


def test_repair_that_fails_does_not_say_that_nothing_is_covered(machine: Machine) -> None:
    async def body(node: Node) -> None:
        node.start()
        await node.redirect()
        machine.failing = {"redirect": "somebody holds the lock"}
        machine.are_rules_in_place = False
        node.doubt_rules()
        await until(lambda: bool(node.faults))
        assert node.covered == PLAN.addresses

    live(body)


def test_rules_follow_another_configuration(machine: Machine) -> None:
    async def body(node: Node) -> None:
        node.start()
        await node.redirect()
        node.follow(PLAN)
        machine.are_rules_in_place = False  # those that stand are the former plan's
        node.follow(replace(PLAN, cluster_dns=("10.96.0.10",)))
        await until(lambda: machine.actions.count("redirect") == 2)

    live(body)


def test_skipteardown_leaves_the_local_address_alone(machine: Machine) -> None:
    async def body(node: Node) -> None:
        machine.covered = ()
        await node.redirect()
        await node.leave()
        await node.take_down()
        assert machine.actions == ["redirect", "withdraw", "recede"]

    live(body, replace(CONFIG, skip_teardown=True))


@pytest.mark.parametrize("has_interface", [True, False])
def test_what_was_not_asked_for_is_not_touched(machine: Machine, has_interface: bool) -> None:
    plan = replace(PLAN, has_interface=has_interface, has_rules=not has_interface)
    foreign = {"redirect", "withdraw"} if has_interface else {"interface", "remove"}
    counters = Counters()

    async def body(node: Node) -> None:
        machine.gaps = ["169.254.20.10 is not local"]
        await node.prepare()
        node.start()
        await node.redirect()
        await node.leave()
        await node.take_down()
        assert machine.actions
        assert foreign.isdisjoint(machine.actions)

    live(body, replace(CONFIG, node=plan), counters)
    assert ("redirect" in counters.gauges) != has_interface
