"""What is left out on kernels that cannot do it, and said; programs only pretend to run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from nodecache.config.node import Backend, NodePlan
from nodecache.errors import NodeError
from nodecache.host import iptables
from nodecache.host.flows import Installed
from nodecache.host.programs import Deadline, Finished
from tests.host.test_chains import after

PLAN = NodePlan("nodelocaldns", ("169.254.20.10", "10.96.0.10"), cluster_dns=("10.244.0.2",))
SERVICE = "-A KUBE-SERVICES -d 10.244.0.2/32 -p udp -m udp --dport 53 -j KUBE-SVC-X"


class Kernel:
    """Stands for the programs of iptables-legacy, and the tables that they change."""

    def __init__(self) -> None:
        self.tables = dict.fromkeys(("raw", "nat", "filter"), "")
        self._lacks, self._says = "nothing of the kind", ""

    def lack(self, words: str, says: str = "No chain/target/match by that name.") -> None:
        """Fails from now on where a script has these words."""
        self._lacks, self._says = words, says

    def run(
        self, command: Sequence[str], _deadline: Deadline, stdin: str = "",
        keep: Callable[[str], bool] = lambda _: True,
    ) -> Finished:  # fmt: skip
        """Runs a program; of IPv6 there is nothing here."""
        if command[0].startswith("ip6"):
            return Finished(command[0], 0)
        if command[0].endswith("-save"):
            lines = self.tables[command[2]].splitlines()
            return Finished(command[0], 0, "\n".join(line for line in lines if keep(line)))
        if self._lacks in stdin:
            return Finished(command[0], 1, stderr=self._says)
        for script in stdin.split("COMMIT\n"):
            table, _, rest = script.removeprefix("*").partition("\n")
            if table:
                self.tables[table] = after(rest, self.tables[table])
        return Finished(command[0], 0)


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    kernel = Kernel()
    monkeypatch.setattr(iptables, "run", kernel.run)
    monkeypatch.setattr(iptables, "find", lambda name: name)
    names = tmp_path / "names"
    names.write_text("\n".join(kernel.tables))
    monkeypatch.setattr(iptables, "_NAMES", {4: names, 6: names})
    return kernel


def install(plan: NodePlan = PLAN) -> Installed:
    return iptables.install(plan, Backend.IPTABLES_LEGACY, Deadline.within(20))


def stands(plan: NodePlan = PLAN) -> bool:
    return iptables.stands(plan, Backend.IPTABLES_LEGACY, Deadline.within(20))


def test_kernel_that_has_all_covers_all(kernel: Kernel) -> None:
    assert install() == Installed(covered=PLAN.addresses)
    assert "--rcheck" in kernel.tables["raw"]
    assert "MASQUERADE" in kernel.tables["nat"]
    assert stands()


@pytest.mark.parametrize(
    ("words", "is_tracked"), [("-m recent", False), ("-m socket", False), ("--zone-orig", True)]
)
def test_kernel_that_lacks_a_match_gets_the_plain_rules_and_a_sentence(
    kernel: Kernel, words: str, is_tracked: bool
) -> None:
    plan = replace(PLAN, is_tracked=is_tracked)
    kernel.lack(words)
    done = install(plan)
    assert done.covered == ()
    [note] = done.notes
    assert note.startswith("nothing leads queries elsewhere while nobody serves")
    assert "for want of xt_recent or xt_socket" in note
    assert ("zones" in note) == is_tracked
    assert "recent" not in kernel.tables["raw"] + kernel.tables["nat"]
    assert ("NOTRACK" in kernel.tables["raw"]) == (not is_tracked)
    assert ("DNAT" in kernel.tables["nat"]) == is_tracked
    assert stands(plan)
    kernel.lack("nothing any more")
    assert not stands(plan)
    assert install(plan).covered == PLAN.addresses


def test_held_lock_is_no_lack(kernel: Kernel) -> None:
    kernel.lack("-m recent", "Another app is currently holding the xtables lock.")
    with pytest.raises(NodeError) as caught:
        install()
    assert caught.value.kind == "iptables_lock"
    assert "NODECACHE" not in kernel.tables["raw"]


def test_service_of_kube_proxy_is_no_endpoint(kernel: Kernel) -> None:
    kernel.tables["nat"] = SERVICE
    done = install()
    assert done.covered == ("10.96.0.10",)
    assert [note for note in done.notes if "cannot lead 169.254.20.10 elsewhere" in note]


def test_nothing_to_cover_needs_nothing_of_the_kernel(kernel: Kernel) -> None:
    kernel.lack("-m recent")
    plan = replace(PLAN, addresses=("169.254.20.10",), cluster_dns=())
    done = install(plan)
    assert done.covered == ()
    assert len(done.notes) == 1
    assert "NOTRACK" in kernel.tables["raw"]
    assert stands(plan)
