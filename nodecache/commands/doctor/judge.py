"""Judges what was seen: pure, so that a table of cases can hold it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from nodecache.commands.doctor.catalogue import BY_NAME, RANK, Kind, Severity
from nodecache.commands.doctor.resolvconf import MOST_SEARCH, MOST_SERVERS
from nodecache.commands.doctor.seen import (
    Answer,
    AskedUpstream,
    By,
    Daemon,
    ForeignRule,
    Pod,
    Rules,
    Seen,
)
from nodecache.config.wording import some
from nodecache.wire.numbers import RCODE_NAMES

_NEAR = 0.9
_SLOW_S = 0.5
_MANY_QUERIES = 8
_MOST_NAMED = 4
_UNPRIVILEGED = 1024
_NET_BIND_SERVICE, _NET_ADMIN = 10, 12  # capabilities(7)
_GOOD_RCODES = frozenset((0, 3))  # NOERROR, NXDOMAIN


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong; ``why`` says by what that is known here."""

    kind: Kind
    why: str


def judge(seen: Seen) -> tuple[Finding, ...]:
    """Returns what is wrong: broken before doubtful, causes before what follows from them."""
    found = [finding for look in _JUDGES for finding in look(seen)]
    broken = Severity.BROKEN
    found.sort(key=lambda each: (each.kind.severity is not broken, RANK[each.kind.name]))
    return tuple(found)


def _finding(name: str, *whys: str) -> Finding:
    rest = f" and {len(whys) - _MOST_NAMED} more" if len(whys) > _MOST_NAMED else ""
    return Finding(BY_NAME[name], "; ".join(whys[:_MOST_NAMED]) + rest)


def _judge_daemon(seen: Seen) -> Iterator[Finding]:
    daemon = seen.daemon
    if daemon is None:
        if seen.faults:
            yield _finding("configuration-wrong", *seen.faults)
        yield _finding("daemon-absent", _nobody_text(seen))
        return
    yield from _judge_capabilities(seen, daemon)
    stopped = [process for process in daemon.processes if process.is_stopped]
    if stopped:
        pids = some(str(process.pid) for process in stopped)
        yield _finding("daemon-stopped", f"the kernel calls it stopped: process {pids}")
    elif daemon.state is None:
        yield _finding("daemon-hangs", daemon.complaint)
    yield from _judge_files(daemon)
    if daemon.version and daemon.version != seen.version:
        yield _finding("versions-differ", f"it is {daemon.version}, this is {seen.version}")


def _nobody_text(seen: Seen) -> str:
    text = "no process of it in this network, and no answer at its -rundir"
    if seen.rules is None or not seen.rules.has_table:
        return text
    return f"{text}; its rules stand, and lead queries to the cluster's DNS"


def _judge_capabilities(seen: Seen, daemon: Daemon) -> Iterator[Finding]:
    if not daemon.processes:
        return
    has = daemon.processes[-1].capabilities
    plan, lacking = seen.plan, []
    if (plan.has_rules or plan.has_interface) and not has >> _NET_ADMIN & 1:
        lacking.append("NET_ADMIN, for -setupinterface and -setupiptables")
    if plan.dns_port < _UNPRIVILEGED and not has >> _NET_BIND_SERVICE & 1 and not _serves(seen):
        lacking.append(f"NET_BIND_SERVICE, for port {plan.dns_port}")
    if lacking:
        yield _finding("capability-missing", *lacking)


def _judge_files(daemon: Daemon) -> Iterator[Finding]:
    for process in daemon.processes:
        if 0 < process.most_files * _NEAR <= process.files:
            text = f"process {process.pid} has {process.files} of {process.most_files}"
            yield _finding("descriptors-near", text)


def _serves(seen: Seen) -> bool:
    """Whether some address of ours is answered by the daemon."""
    return any(asked.direct.by is By.DAEMON for asked in seen.asked_here)


def _judge_state(seen: Seen) -> Iterator[Finding]:
    state = seen.daemon.state if seen.daemon else None
    if state is None:
        return
    if state.is_last_good:
        yield _finding("last-good", state.refusal)
    elif state.refusal:
        yield _finding("configuration-refused", state.refusal)
    told = [text for text in state.details if state.refusal not in text or not state.refusal]
    others = [text for text in told if "led to the cluster's DNS at present" not in text]
    if others:
        yield _finding("details", *others)


def _judge_holders(seen: Seen) -> Iterator[Finding]:
    if seen.holders and not _serves(seen):
        texts = [f"{holder.who} has {holder.place}" for holder in seen.holders]
        yield _finding("port-taken", *texts)


def _judge_addresses(seen: Seen) -> Iterator[Finding]:
    if seen.missing:
        yield _finding("address-missing", *(f"{host} is not local" for host in seen.missing))
    if seen.wanted and seen.daemon is not None and seen.wanted != seen.plan.addresses:
        text = f"the daemon has {some(seen.plan.addresses)}, this was given {some(seen.wanted)}"
        yield _finding("localip-differs", text)
        return
    services = seen.plan.redirected
    missed = [host for host in seen.cluster_dns if host not in seen.plan.addresses]
    if services and missed:
        text = f"the cluster's DNS is {some(missed)}, and -localip names {some(services)}"
        yield _finding("localip-differs", text)


def _judge_rules(seen: Seen) -> Iterator[Finding]:
    rules, plan = seen.rules, seen.plan
    if rules is None:
        return
    if plan.has_rules and not rules.stands and seen.daemon is not None:
        part = "a part of them is missing or changed" if rules.has_table else "there are none"
        yield _finding("rules-missing", part)
    if rules.leftovers:
        kind = "leftovers" if _serves(seen) else "leftovers-harm"
        yield _finding(kind, *rules.leftovers)
    if rules.proxy == "ipvs" and plan.redirected:
        yield _finding("ipvs-has-address", f"-localip has {some(plan.redirected)}, too")
    yield from _judge_foreign(seen, rules)


def _judge_foreign(seen: Seen, rules: Rules) -> Iterator[Finding]:
    is_silent = any(answer.by is By.NOBODY for answer in _all_asked(seen))
    drops = [
        _text_of(rule) for rule in rules.foreign if rule.is_drop and (rule.is_certain or is_silent)
    ]
    if drops:
        yield _finding("dns-dropped", *drops)
    # Of what goes to a Service's address kube-proxy is the usual translator.
    leads = [
        _text_of(rule)
        for rule in rules.foreign
        if not rule.is_drop and rule.concerns not in seen.plan.redirected
    ]
    if leads:
        # Who leads queries away without tracking them has their replies come from a stranger.
        is_caught = seen.daemon is not None and any(
            answer.by is not By.DAEMON for answer in _all_asked(seen)
        )
        yield _finding("dns-stolen" if is_caught else "redirect-by-others", *leads)


def _text_of(rule: ForeignRule) -> str:
    return f"{rule.where}: {rule.text}"


def _all_asked(seen: Seen) -> Iterator[Answer]:
    """Yields what came of questions to addresses of ours, on the ways that rules may change."""
    yield from (asked.led for asked in seen.asked_here)
    ours = seen.plan.addresses
    for answer in seen.pod.answers if seen.pod else ():
        if answer.server in ours:
            yield answer


def _judge_answers(seen: Seen) -> Iterator[Finding]:
    """Says nothing of what a daemon that is absent, stopped or hangs explains."""
    state = seen.daemon.state if seen.daemon else None
    if state is None:
        return
    silent = [
        f"{asked.host} over {asked.transport}: {asked.led.error}"
        for asked in seen.asked_here
        if asked.led.by is By.NOBODY and asked.host not in seen.missing
    ]
    if silent:
        yield _finding("address-silent", *silent)
    elsewhere = [answer for answer in _all_asked(seen) if answer.by is By.ANOTHER]
    if not elsewhere:
        return
    texts = {f"{answer.server} over {answer.transport}" for answer in elsewhere}
    is_fall_back = state.has_redirect and not state.is_beat_heard
    yield _finding("beat-unheard" if is_fall_back else "address-elsewhere", *sorted(texts))


def _judge_upstreams(seen: Seen) -> Iterator[Finding]:
    for asked in seen.asked_upstreams:
        yield from _judge_reach(asked)
        yield from _judge_quality(asked)


def _judge_reach(asked: AskedUpstream) -> Iterator[Finding]:
    name = f"{asked.server}, for {asked.zone}"
    udp, tcp = asked.udp, asked.tcp
    has_tcp = tcp.by is not By.NOBODY
    has_udp = udp is not None and udp.by is not By.NOBODY
    if not has_tcp and not has_udp:
        is_refused = tcp.is_refused and (udp is None or udp.is_refused)
        kind = "upstream-refuses" if is_refused else "upstream-silent"
        yield _finding(kind, f"{name}: {tcp.error}")
    elif asked.transport != "udp" and not has_tcp:
        yield _finding("upstream-no-tcp", f"{name}: over TCP {tcp.error}")
    elif asked.transport == "udp" and udp is not None and not has_udp:
        yield _finding("upstream-no-udp", f"{name}: over UDP {udp.error}")


def _judge_quality(asked: AskedUpstream) -> Iterator[Finding]:
    name = f"{asked.server}, for {asked.zone}"
    answers = [each for each in (asked.udp, asked.tcp) if each and each.by is not By.NOBODY]
    bad = {each.rcode for each in answers if each.rcode >= 0} - _GOOD_RCODES
    if bad:
        codes = some(RCODE_NAMES.get(code, str(code)) for code in sorted(bad))
        yield _finding("upstream-errors", f"{name}: {codes}")
    slowest_s = max((each.took_s for each in answers), default=0.0)
    if slowest_s >= _SLOW_S:
        yield _finding("upstream-slow", f"{name}: {slowest_s:.1f} s")
    large, udp = asked.large, asked.udp
    if large and large.by is By.NOBODY and udp and udp.by is not By.NOBODY:
        yield _finding("upstream-large-lost", f"{name}: {large.error}")


def _judge_kernel(seen: Seen) -> Iterator[Finding]:
    kernel = seen.kernel
    if 0 < kernel.most_tracked * _NEAR <= kernel.tracked:
        kind = "tracking-near-full" if kernel.tracked < kernel.most_tracked else "tracking-full"
        yield _finding(kind, f"{kernel.tracked} of {kernel.most_tracked} entries")
    if kernel.queue_drops > 0:
        yield _finding("queue-drops", f"{kernel.queue_drops} while this command looked")
    if 0 < kernel.most_memory * _NEAR <= kernel.memory:
        figures = f"{kernel.memory >> 20} of {kernel.most_memory >> 20} MiB"
        yield _finding("memory-near", figures)
    if kernel.clock_behind_s > 0 and any(a.transport == "tls" for a in seen.asked_upstreams):
        yield _finding("clock-behind", f"by {kernel.clock_behind_s / 86400:.0f} days")


def _judge_pod(seen: Seen) -> Iterator[Finding]:
    pod = seen.pod
    if pod is None:
        return
    if not pod.resolvconf.servers:
        yield _finding("pod-no-server", pod.path)
    yield from _judge_servers(seen, pod)
    yield from _judge_search(pod)
    if pod.resolvconf.unknown:
        yield _finding("pod-options", some(pod.resolvconf.unknown))


def _judge_servers(seen: Seen, pod: Pod) -> Iterator[Finding]:
    known = {*seen.plan.addresses, *seen.wanted, *seen.cluster_dns, *seen.plan.cluster_dns}
    strangers = [host for host in pod.resolvconf.servers if known and host not in known]
    told = [f"{host} in {pod.path}" for host in strangers]
    told += [f"{word!r} in {pod.path} is no address" for word in pod.resolvconf.others]
    if told:
        yield _finding("pod-stranger", *told)
    silent = [
        f"{answer.server} over {answer.transport}: {answer.error}"
        for answer in pod.answers
        if answer.by is By.NOBODY
    ]
    if silent:
        yield _finding("pod-cannot-reach", *silent)


def _judge_search(pod: Pod) -> Iterator[Finding]:
    found, too_many = pod.resolvconf, []
    if len(found.servers) > MOST_SERVERS:
        too_many.append(f"{len(found.servers)} servers: those behind the third are never asked")
    if len(found.search) > MOST_SEARCH:
        too_many.append(f"{len(found.search)} search domains")
    if too_many:
        yield _finding("pod-too-much", *too_many)
    if found.queries_outside > _MANY_QUERIES:
        text = f"ndots:{found.ndots} and {len(found.search)} search domains"
        what = f"{found.queries_outside} queries for one look-up of www.example.com"
        yield _finding("pod-ndots", f"{text}: {what}")


_JUDGES: Iterable[Callable[[Seen], Iterator[Finding]]] = (
    _judge_daemon,
    _judge_state,
    _judge_holders,
    _judge_addresses,
    _judge_rules,
    _judge_answers,
    _judge_upstreams,
    _judge_kernel,
    _judge_pod,
)
