"""What ``nodecache doctor`` prints: the first finding is the one to act on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from nodecache.commands.doctor.catalogue import Severity
from nodecache.commands.doctor.judge import Finding
from nodecache.commands.doctor.seen import AskedUpstream, By, Seen
from nodecache.commands.layout import lay_out
from nodecache.commands.output import counted
from nodecache.config.wording import Row, some

EXIT_BROKEN = 3
EXIT_DOUBTFUL = 4
_MILLI = 1000


def exit_code(findings: Sequence[Finding]) -> int:
    """Returns 0 for nothing wrong, 3 if something is broken, 4 if all is but doubtful."""
    if not findings:
        return 0
    is_broken = any(finding.kind.severity is Severity.BROKEN for finding in findings)
    return EXIT_BROKEN if is_broken else EXIT_DOUBTFUL


def verdict(findings: Sequence[Finding]) -> str:
    """Returns "healthy", "broken" or "doubtful"."""
    return {0: "healthy", EXIT_BROKEN: "broken", EXIT_DOUBTFUL: "doubtful"}[exit_code(findings)]


def to_text(seen: Seen, findings: Sequence[Finding]) -> str:
    """Returns the report for people."""
    count = counted(len(findings), "finding")
    head = f"{verdict(findings)}: {count}, the likeliest cause first" if len(findings) > 1 else ""
    parts = [head or f"{verdict(findings)}: {count if findings else 'nothing wrong was found'}"]
    parts[0] += "\n"
    parts += [lay_out(_title(finding), _finding_rows(finding)) for finding in findings]
    parts.append(lay_out("seen", _seen_rows(seen)))
    if seen.skipped:
        rows = [(each.what, each.why) for each in seen.skipped]
        parts.append(lay_out("not looked at", rows))
    return "\n".join(parts)


def to_json(seen: Seen, findings: Sequence[Finding]) -> str:
    """Returns the report for scripts, one line; docs/doctor.md has its keys."""
    fields: dict[str, Any] = {
        "verdict": verdict(findings),
        "findings": [
            {
                "name": finding.kind.name,
                "severity": finding.kind.severity.value,
                "what": finding.kind.what,
                "why": finding.why,
                "step": finding.kind.step,
                "more": finding.kind.more,
            }
            for finding in findings
        ],
        "seen": [{"what": what, "text": text} for what, text in _seen_rows(seen)],
        "not_looked_at": [{"what": each.what, "why": each.why} for each in seen.skipped],
    }
    return json.dumps(fields) + "\n"


def _title(finding: Finding) -> str:
    return f"{finding.kind.severity.value} {finding.kind.name}: {finding.kind.what}"


def _finding_rows(finding: Finding) -> Iterator[Row]:
    yield "seen", finding.why
    yield "next", finding.kind.step
    yield "more", f"docs/{finding.kind.more}"


def _seen_rows(seen: Seen) -> Iterator[Row]:
    yield "daemon", _daemon_text(seen)
    if seen.plan.addresses:
        yield "addresses", some(seen.plan.addresses)
    for asked in seen.asked_here:
        place = f"{asked.host} over {asked.transport.upper()}"
        yield "asked", f"{place}: answered by {asked.led.by.value}"
    if seen.rules is not None:
        stands = "stand" if seen.rules.stands else "do not stand"
        proxy = seen.rules.proxy or "not seen"
        yield "rules", f"ours {stands}; kube-proxy: {proxy}"
    for upstream in seen.asked_upstreams:
        yield "upstream", _upstream_text(upstream)
    if seen.kernel.most_tracked > 0:
        yield "tracking", _tracking_text(seen)
    if seen.pod is not None:
        yield "resolv.conf", _pod_text(seen)


def _daemon_text(seen: Seen) -> str:
    daemon = seen.daemon
    if daemon is None:
        return "none"
    pids = some(str(process.pid) for process in daemon.processes)
    where = f", processes {pids}" if pids else ""
    return f"nodecache {daemon.version or 'of unknown version'}{where}"


def _upstream_text(asked: AskedUpstream) -> str:
    ways = []
    for name, answer in (("UDP", asked.udp), ("TCP", asked.tcp), ("large", asked.large)):
        if answer is None:
            continue
        is_there = answer.by is not By.NOBODY
        figures = f"{answer.took_s * _MILLI:.0f} ms"
        size = f", {answer.octets} octets" if name == "large" else ""
        ways.append(f"{name} {figures}{size}" if is_there else f"{name} {answer.error}")
    return f"{asked.server} for {asked.zone}: {'; '.join(ways)}"


def _tracking_text(seen: Seen) -> str:
    kernel = seen.kernel
    text = f"{kernel.tracked} of {kernel.most_tracked} entries"
    lost = f", {kernel.insert_failed} lost in races" if kernel.insert_failed >= 0 else ""
    return text + lost


def _pod_text(seen: Seen) -> str:
    assert seen.pod is not None  # noqa: S101 # see _seen_rows
    found = seen.pod.resolvconf
    domains = counted(len(found.search), "search domain")
    return f"{seen.pod.path}: {some(found.servers)}; ndots:{found.ndots}, {domains}"
