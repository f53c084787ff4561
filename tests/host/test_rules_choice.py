"""Who keeps the rules, decided with programs that only pretend."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from nodecache.config.node import Backend, NodePlan
from nodecache.errors import NodeError
from nodecache.host import iptables, programs, rules
from nodecache.host.programs import Deadline, Finished, fault, run

PLAN = NodePlan("nodelocaldns", ("169.254.20.10",), cluster_dns=("10.96.0.10",))
BROKEN = 'echo "Operation not supported" >&2; exit 1'


class Pretence:
    """A folder with the only programs there are."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, name: str, script: str = "") -> str:
        path = self.folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return str(path)

    def add_iptables(self, variant: str, script: str = "") -> None:
        for action in ("save", "restore"):
            self.add(f"iptables-{variant}-{action}", script)


@pytest.fixture
def pretence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pretence:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(programs, "SYSTEM_FOLDERS", "")
    names = tmp_path / "names"
    names.write_text("raw\nfilter\nmangle\nnat\n")
    monkeypatch.setattr(iptables, "_NAMES", {4: names, 6: names})
    return Pretence(tmp_path)


def chosen() -> tuple[Backend, str]:
    return rules.choose(PLAN, Deadline.within(20))


def test_nftables_is_the_first_that_works(pretence: Pretence) -> None:
    pretence.add("nft")
    pretence.add_iptables("nft")
    assert chosen()[0] is Backend.NFTABLES


def test_nftables_goes_before_the_chains_of_kubernetes(pretence: Pretence) -> None:
    pretence.add("nft")
    pretence.add_iptables("nft", 'echo ":KUBE-KUBELET-CANARY - [0:0]"')
    assert chosen() == (Backend.NFTABLES, "the kernel takes our table")


@pytest.mark.parametrize(
    ("variant", "table", "chain"),
    [
        ("nft", "mangle", "KUBE-IPTABLES-HINT"),
        ("nft", "nat", "KUBE-SERVICES"),
        ("legacy", "mangle", "KUBE-KUBELET-CANARY"),
        ("legacy", "nat", "KUBE-SERVICES"),
    ],
)
def test_variant_with_the_chains_of_kubernetes_decides(
    pretence: Pretence, variant: str, table: str, chain: str
) -> None:
    pretence.add("nft", BROKEN)
    for name in ("nft", "legacy"):
        has_chain = f'[ "$2" = {table} ] && echo ":{chain} - [0:0]"' if name == variant else ""
        pretence.add_iptables(name, has_chain)
    backend, reason = chosen()
    assert backend is Backend(f"iptables-{variant}")
    assert "nftables: Operation not supported" in reason


def test_kernel_without_nf_tables_leads_to_legacy_and_says_why(pretence: Pretence) -> None:
    pretence.add("nft", BROKEN)
    pretence.add_iptables("nft", BROKEN)
    pretence.add_iptables("legacy")
    backend, reason = chosen()
    assert backend is Backend.IPTABLES_LEGACY
    assert "nftables: Operation not supported" in reason


def test_kernel_without_sockets_in_rules_gets_the_lesser_table(pretence: Pretence) -> None:
    written = pretence.folder / "written"
    script = f'[ "$1" = list ] && exit 1; text=$(/bin/cat); echo "$text" > {written}; '
    pretence.add("nft", script + 'case "$text" in *"socket wildcard"*) exit 1; esac; exit 0')
    report = rules.install(PLAN, 20)
    assert report.backend is Backend.NFTABLES
    assert report.covered == ("169.254.20.10",)
    assert any("nft_socket" in note for note in report.notes)
    assert "@beat" in written.read_text()
    pretence.add("nft", script + "exit 0")
    assert not any("nft_socket" in note for note in rules.install(PLAN, 20).notes)
    assert "socket wildcard" in written.read_text()


@pytest.mark.parametrize(
    ("version", "backend"),
    [
        ("iptables v1.8.9 (nf_tables)", Backend.IPTABLES_NFT),
        ("iptables v1.8.9 (legacy)", Backend.IPTABLES_LEGACY),
        ("iptables v1.6.1", Backend.IPTABLES_LEGACY),
    ],
)
def test_plain_program_is_the_variant_that_its_version_says(
    pretence: Pretence, version: str, backend: Backend
) -> None:
    for action in ("save", "restore"):
        pretence.add(f"iptables-{action}", f'[ "$1" = --version ] && echo "{version}"; exit 0')
    assert chosen()[0] is backend


def test_flag_overrides_everything(pretence: Pretence) -> None:
    pretence.add("nft", 'echo "table ip kube-proxy"')
    plan = replace(PLAN, backend=Backend.IPTABLES_LEGACY)
    assert rules.choose(plan, Deadline.within(20))[0] is Backend.IPTABLES_LEGACY


@pytest.mark.usefixtures("pretence")
def test_without_any_program_the_error_names_what_to_install() -> None:
    with pytest.raises(NodeError, match="install nftables or iptables") as caught:
        rules.install(PLAN, 20)
    assert caught.value.kind == "iptables"
    assert not rules.stands(PLAN)
    assert rules.withdraw(PLAN, 20) == rules.RulesReport(None)


@pytest.mark.parametrize("backend", [Backend.NFTABLES, Backend.IPTABLES_NFT])
@pytest.mark.usefixtures("pretence")
def test_missing_program_of_the_flag_is_named(backend: Backend) -> None:
    plan = replace(PLAN, backend=backend)
    with pytest.raises(NodeError, match=r"is not installed: install the package"):
        rules.install(plan, 20)


def test_without_rights_the_capability_is_named(pretence: Pretence) -> None:
    pretence.add("nft", 'echo "Error: Operation not permitted (you must be root)" >&2; exit 1')
    for act in (rules.install, rules.withdraw):
        with pytest.raises(NodeError, match="NET_ADMIN") as caught:
            act(PLAN, 20)
        assert caught.value.kind == "iptables"


def test_legacy_is_not_asked_where_the_kernel_has_no_legacy_tables(
    pretence: Pretence, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretence.add("nft", '[ "$1" = list ] && exit 1; exit 0')
    asked = pretence.folder / "asked"
    pretence.add_iptables("legacy", f"echo asked > {asked}")
    for names in ("", None):
        if names is None:
            (pretence.folder / "names").unlink()
        else:
            (pretence.folder / "names").write_text(names)
        assert rules.install(PLAN, 20).backend is Backend.NFTABLES
        rules.cleanup(PLAN, 20)
        assert not asked.exists()


def test_plan_without_addresses_needs_no_program(pretence: Pretence) -> None:
    assert pretence.folder.is_dir()
    assert rules.install(NodePlan("nodelocaldns", ()), 20).backend is None


def test_program_that_never_ends_is_killed(pretence: Pretence) -> None:
    path = pretence.add("slow", "echo started\nexec /bin/sleep 60")
    began = time.monotonic()
    finished = run([path], Deadline.within(1))
    assert time.monotonic() - began < 20
    assert finished.is_late
    assert not finished.is_good
    assert finished.stdout.strip() == "started"


def test_output_beyond_the_bound_is_cut(
    pretence: Pretence, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "STDOUT_OCTETS", 1000)
    path = pretence.add("loud", 'i=0; while [ $i -lt 500 ]; do echo "line $i"; i=$((i+1)); done')
    finished = run([path], Deadline.within(60))
    assert finished.is_good
    assert finished.is_cut
    assert len(finished.stdout) <= 1000
    wanted = run([path], Deadline.within(60), keep=lambda line: line == "line 499")
    assert (wanted.stdout, wanted.is_cut) == ("line 499", False)


def test_line_without_an_end_uses_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "STDOUT_OCTETS", 1000)
    finished = run(["/bin/sh", "-c", "printf '%0200000d' 0"], Deadline.within(60))
    assert finished.is_cut
    assert len(finished.stdout) <= 1000


def test_program_reads_its_input_and_speaks_the_c_locale(pretence: Pretence) -> None:
    path = pretence.add("cat", 'echo "$LC_ALL"; while read -r line; do echo "$line"; done')
    finished = run([path], Deadline.within(60), "one\ntwo\n")
    assert finished.stdout.split() == ["C", "one", "two"]


def test_program_that_cannot_start_has_code_127(tmp_path: Path) -> None:
    assert run([str(tmp_path / "absent")], Deadline.within(5)).code == 127


@pytest.mark.parametrize(
    "stderr",
    [
        "Another app is currently holding the xtables lock. Perhaps you want to use the -w option?",
        "Fatal: can't open lock file /run/xtables.lock: Read-only file system",
    ],
)
def test_lock_is_told_from_other_failures(stderr: str) -> None:
    error = fault(Finished("iptables-legacy-restore", 4, stderr=stderr))
    assert error.kind == "iptables_lock"
    assert "fuser" in str(error)
    assert fault(Finished("iptables-legacy-restore", 4, stderr="else")).kind == "iptables"


def test_program_that_waits_for_the_lock_in_silence_is_told_too() -> None:
    late = Finished("iptables-legacy-restore", -9, is_late=True)
    assert fault(late, may_lock=True).kind == "iptables_lock"
    assert fault(late).kind == "iptables"
    assert "did not end in time" in str(fault(late))
