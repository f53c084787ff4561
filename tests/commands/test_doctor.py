"""``nodecache doctor`` without a node: judgements, the report, the words, a resolv.conf.

On nodes that are really broken: tests/netns/test_doctor.py.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from nodecache.cli import main
from nodecache.commands.doctor.catalogue import BY_NAME, KINDS, Severity
from nodecache.commands.doctor.judge import judge
from nodecache.commands.doctor.report import exit_code, to_json, to_text
from nodecache.commands.doctor.resolvconf import ResolvConf, parse
from nodecache.commands.doctor.seen import (
    Answer,
    AskedHere,
    AskedUpstream,
    By,
    Daemon,
    ForeignRule,
    Holder,
    Kernel,
    Pod,
    Process,
    Rules,
    Seen,
    Skipped,
    State,
)
from nodecache.config.node import NodePlan

LOCAL, CLUSTER, UPSTREAM = "169.254.20.10", "10.96.0.10", "10.96.0.11:53"
ALL_CAPABILITIES = (1 << 41) - 1
PLAN = NodePlan("nodelocaldns", (LOCAL, CLUSTER), cluster_dns=(CLUSTER,))


def answer(by: By = By.DAEMON, server: str = LOCAL, **more: object) -> Answer:
    found = Answer(server, "udp", by, rcode=-1 if by is By.NOBODY else 0, took_s=0.001)
    return replace(found, **more)  # type: ignore[arg-type]


SILENT = answer(By.NOBODY, error="no answer within 2 s")
REFUSED = answer(By.NOBODY, error="connection refused", is_refused=True)
GOOD = answer(By.ANOTHER, UPSTREAM)
STATE = State(b"m" * 16, PLAN, has_redirect=True, is_beat_heard=True)
DAEMON = Daemon("1.0", state=STATE, processes=(Process(7, capabilities=ALL_CAPABILITIES),))
HEALTHY = Seen(
    "1.0",
    PLAN,
    cluster_dns=(CLUSTER,),
    holders=(),
    daemon=DAEMON,
    asked_here=tuple(
        AskedHere(host, way, answer(), answer(server=host))
        for host in (LOCAL, CLUSTER)
        for way in ("udp", "tcp")
    ),
    asked_upstreams=(AskedUpstream(UPSTREAM, "cluster.local.", "tcp", GOOD, GOOD),),
    rules=Rules(stands=True, has_table=True, proxy="nftables"),
    kernel=Kernel(tracked=10, most_tracked=1000, insert_failed=0, queue_drops=0),
)


def here(led: Answer, direct: Answer | None = None) -> Seen:
    asked = (AskedHere(LOCAL, "udp", direct or answer(), led),)
    return replace(HEALTHY, asked_here=asked)


def with_state(**more: object) -> Seen:
    state = replace(STATE, **more)  # type: ignore[arg-type]
    return replace(HEALTHY, daemon=replace(DAEMON, state=state))


def with_upstream(udp: Answer | None, tcp: Answer, transport: str = "tcp", **more: Answer) -> Seen:
    asked = AskedUpstream(UPSTREAM, ".", transport, udp, tcp, **more)
    return replace(HEALTHY, asked_upstreams=(asked,))


def with_rules(**more: object) -> Seen:
    rules = replace(HEALTHY.rules or Rules(True, True), **more)  # type: ignore[arg-type]
    return replace(HEALTHY, rules=rules)


def with_kernel(**more: float) -> Seen:
    return replace(HEALTHY, kernel=replace(HEALTHY.kernel, **more))  # type: ignore[arg-type]


def with_pod(text: str, *answers: Answer) -> Seen:
    return replace(HEALTHY, pod=Pod("/etc/resolv.conf", parse(text), answers))


def with_process(**more: object) -> Seen:
    process = replace(DAEMON.processes[0], **more)  # type: ignore[arg-type]
    return replace(HEALTHY, daemon=replace(DAEMON, processes=(process,)))


NO_DAEMON = replace(HEALTHY, daemon=None, asked_here=())
THIEF = ForeignRule("nft table inet thief", "udp dport 53 dnat to 192.0.2.1", is_drop=False)
WALL = ForeignRule("nft table inet wall", "udp dport 53 drop", is_drop=True)
LOOSE = replace(WALL, is_certain=False)
SEARCH = "search a. b. c. d. e.\noptions ndots:5\n"

CASES: tuple[tuple[Seen, list[str]], ...] = (
    (HEALTHY, []),
    (NO_DAEMON, ["daemon-absent"]),
    (replace(NO_DAEMON, faults=("Corefile:3: no",)), ["configuration-wrong", "daemon-absent"]),
    (with_process(capabilities=0), ["capability-missing"]),
    (with_process(is_stopped=True), ["daemon-stopped"]),
    (with_process(files=950, most_files=1000), ["descriptors-near"]),
    (replace(HEALTHY, daemon=replace(DAEMON, state=None, complaint="late")), ["daemon-hangs"]),
    (replace(HEALTHY, version="2.0"), ["versions-differ"]),
    (with_state(refusal="Corefile:3: no"), ["configuration-refused"]),
    (with_state(refusal="Corefile:3: no", is_last_good=True), ["last-good"]),
    (with_state(details=("a loop",)), ["details"]),
    (
        replace(here(SILENT, SILENT), holders=(Holder(f"udp {LOCAL}:53", "dnsmasq (pid 8)"),)),
        ["port-taken", "address-silent"],
    ),
    # Somebody beside us, who takes nothing from us.
    (replace(HEALTHY, holders=(Holder(f"udp {LOCAL}:53", "dnsmasq (pid 8)"),)), []),
    (replace(HEALTHY, missing=(LOCAL,)), ["address-missing"]),
    (replace(HEALTHY, wanted=("169.254.20.11",)), ["localip-differs"]),
    (replace(HEALTHY, cluster_dns=("10.0.0.10",)), ["localip-differs"]),
    (with_rules(stands=False), ["rules-missing"]),
    (with_rules(leftovers=("-A PREROUTING ... NOTRACK",)), ["leftovers"]),
    (
        replace(NO_DAEMON, rules=Rules(False, False, leftovers=("-A ... NOTRACK",))),
        ["daemon-absent", "leftovers-harm"],
    ),
    (with_rules(proxy="ipvs"), ["ipvs-has-address"]),
    (with_rules(foreign=(WALL,)), ["dns-dropped"]),
    (with_rules(foreign=(LOOSE,)), []),
    (
        replace(here(SILENT), rules=replace(HEALTHY.rules or Rules(True, True), foreign=(LOOSE,))),
        ["dns-dropped", "address-silent"],
    ),
    (with_rules(foreign=(THIEF,)), ["redirect-by-others"]),
    (
        replace(
            here(answer(By.ANOTHER)),
            rules=replace(HEALTHY.rules or Rules(True, True), foreign=(THIEF,)),
        ),
        ["dns-stolen", "address-elsewhere"],
    ),
    (
        replace(here(SILENT), rules=replace(HEALTHY.rules or Rules(True, True), foreign=(THIEF,))),
        ["dns-stolen", "address-silent"],
    ),
    # What kube-proxy does with a Service's address is no theft.
    (with_rules(foreign=(replace(THIEF, concerns=CLUSTER),)), []),
    (here(SILENT), ["address-silent"]),
    (here(answer(By.ANOTHER)), ["address-elsewhere"]),
    (
        replace(here(answer(By.ANOTHER)), daemon=with_state(is_beat_heard=False).daemon),
        ["beat-unheard"],
    ),
    (with_upstream(SILENT, SILENT), ["upstream-silent"]),
    (with_upstream(REFUSED, REFUSED), ["upstream-refuses"]),
    (with_upstream(GOOD, SILENT), ["upstream-no-tcp"]),
    (with_upstream(GOOD, SILENT, "udp"), []),
    (with_upstream(SILENT, GOOD, "udp"), ["upstream-no-udp"]),
    (with_upstream(SILENT, GOOD), []),
    (with_upstream(None, GOOD, "tls"), []),
    (with_upstream(None, REFUSED, "tls"), ["upstream-refuses"]),
    (with_upstream(replace(GOOD, rcode=2), GOOD), ["upstream-errors"]),
    (with_upstream(replace(GOOD, rcode=3), GOOD), []),
    (with_upstream(GOOD, replace(GOOD, took_s=0.8)), ["upstream-slow"]),
    (with_upstream(GOOD, GOOD, large=SILENT), ["upstream-large-lost"]),
    (with_kernel(tracked=950), ["tracking-near-full"]),
    (with_kernel(tracked=1000), ["tracking-full"]),
    (with_kernel(queue_drops=4), ["queue-drops"]),
    (with_kernel(memory=95, most_memory=100), ["memory-near"]),
    (with_kernel(clock_behind_s=9e6), []),
    (
        replace(with_upstream(None, GOOD, "tls"), kernel=Kernel(clock_behind_s=9e6)),
        ["clock-behind"],
    ),
    (with_pod(f"nameserver {LOCAL}\n"), []),
    (with_pod("search a.\n"), ["pod-no-server"]),
    (with_pod("nameserver 192.0.2.9\n"), ["pod-stranger"]),
    (with_pod(f"nameserver {LOCAL}\nnameserver dns.example\n"), ["pod-stranger"]),
    (with_pod(f"nameserver {LOCAL}\n", SILENT), ["pod-cannot-reach"]),
    (with_pod(f"nameserver {LOCAL}\nsearch {'a. ' * 33}\n"), ["pod-too-much"]),
    (with_pod(f"nameserver {LOCAL}\n{SEARCH}"), ["pod-ndots"]),
    (with_pod(f"nameserver {LOCAL}\noptions fast\n"), ["pod-options"]),
)


@pytest.mark.parametrize(("seen", "names"), CASES, ids=lambda case: str(case)[:60])
def test_what_is_seen_has_these_findings_the_cause_first(seen: Seen, names: list[str]) -> None:
    assert [finding.kind.name for finding in judge(seen)] == names


def test_each_finding_is_found_in_some_case() -> None:
    found = {name for _, names in CASES for name in names}
    assert BY_NAME.keys() - found == set()


def test_what_is_broken_stands_before_what_is_doubtful() -> None:
    seen = replace(with_upstream(SILENT, SILENT), version="2.0")
    findings = judge(seen)
    assert [each.kind.name for each in findings] == ["upstream-silent", "versions-differ"]
    assert exit_code(findings) == 3
    assert exit_code(findings[1:]) == 4
    assert exit_code(()) == 0


def test_names_are_one_for_each_and_each_says_the_next_step() -> None:
    assert len(BY_NAME) == len(KINDS)
    for kind in KINDS:
        assert kind.step
        assert not kind.step.endswith(".")
        assert not kind.what.endswith(".")


def test_report_for_people_has_finding_next_step_and_what_was_not_looked_at() -> None:
    seen = replace(with_upstream(SILENT, SILENT), skipped=(Skipped("sockets", "no /proc"),))
    text = to_text(seen, judge(seen))
    assert text.startswith("broken: 1 finding\n\nbroken upstream-silent: ")
    assert "Does it run, and does the node reach it?" in text
    assert "docs/runbooks.md#nodecacheupstreamsdown" in text
    assert "not looked at\n  sockets       no /proc\n" in text
    assert "10.96.0.11:53 for .: UDP no answer within 2 s" in text
    assert to_text(HEALTHY, ()).startswith("healthy: nothing wrong was found\n")


def test_report_for_scripts_has_stable_keys() -> None:
    seen = with_upstream(SILENT, SILENT)
    report = json.loads(to_json(seen, judge(seen)))
    assert report["verdict"] == "broken"
    (finding,) = report["findings"]
    assert finding.keys() == {"name", "severity", "what", "why", "step", "more"}
    assert (finding["name"], finding["severity"]) == ("upstream-silent", Severity.BROKEN.value)
    assert {row["what"] for row in report["seen"]} >= {"daemon", "asked", "rules", "upstream"}
    assert report["not_looked_at"] == []


def test_nothing_seen_can_act_on_a_terminal() -> None:
    seen = with_pod("nameserver \x1b[2J\nsearch \x1b[2J\n")
    assert "\x1b" not in to_text(seen, judge(seen))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", ResolvConf()),
        ("nameserver 10.0.0.1 # no\n;nameserver 10.0.0.2\n", ResolvConf(("10.0.0.1",))),
        ("search a b\ndomain c\n", ResolvConf(search=("c",))),
        ("options ndots:9999 rotate\n", ResolvConf(ndots=15)),
        ("options ndots:x\n", ResolvConf()),
        ("options quick ndots:2\n", ResolvConf(ndots=2, unknown=("quick",))),
    ],
)
def test_resolv_conf_is_read_as_stub_resolvers_read_it(text: str, found: ResolvConf) -> None:
    assert parse(text) == found


@pytest.mark.parametrize(
    ("ndots", "search", "queries"),
    [(1, ("a",), 2), (5, (), 2), (5, ("a", "b", "c"), 8), (3, ("a",), 4), (2, ("a",), 2)],
)
def test_a_look_up_outside_costs_two_queries_for_each_domain_that_is_tried(
    ndots: int, search: tuple[str, ...], queries: int
) -> None:
    assert ResolvConf(ndots=ndots, search=search).queries_outside == queries


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-pid", "x"], "-pid takes the number of a process"),
        (["-resolvconf"], "-resolvconf takes a file"),
        (["-pid", "1", "-resolvconf", "f"], "give one of them"),
        (["-nonsense"], "nonsense"),
    ],
)
def test_words_that_are_not_understood_are_refused(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", *words]) == 2
    assert said in capsys.readouterr().err


def test_a_file_that_cannot_be_read_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "-resolvconf", str(tmp_path / "none")]) == 1
    assert "no such file" in capsys.readouterr().err


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "-help"]) == 0
    assert "kubectl -n kube-system exec POD -- nodecache doctor" in capsys.readouterr().out
