"""The same Corefile, the same questions: node-cache and nodecache side by side.

Needs a node-cache: NODE_CACHE=/path/to/node-cache make test. Where the two differ on purpose, the
difference is taken out before comparing, and named here; docs/compatibility.md says why.
"""

from __future__ import annotations

import os
import shutil
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.daemon.processes import HOST, Child, daemon_command, free_port, wait_until
from tests.daemon.servers import Upstream
from tests.daemon.stubs import make_query
from tests.daemon.zone import ORIGIN

NODE_CACHE = shutil.which(os.environ.get("NODE_CACHE", "")) or ""
pytestmark = pytest.mark.skipif(
    not NODE_CACHE, reason="no node-cache to compare with: name one in NODE_CACHE"
)

DOTS = ORIGIN.replace(".", r"\.")
Questions = tuple[tuple[str, str], ...]

HOSTS = """
    hosts HOSTS_FILE {
        ttl 17
        192.0.2.9 inline.test
        fallthrough
    }
"""
REGEX = rf"""
    rewrite stop {{
        name regex (.*)\.web\.{DOTS} {{1}}.{ORIGIN}
        answer name (.*)\.{DOTS} {{1}}.web.{ORIGIN}
        answer value (.*)\.{DOTS} {{1}}.val.{ORIGIN}
    }}
"""
TTL = f"""
    rewrite ttl exact plain.{ORIGIN} 11
    rewrite ttl suffix .{ORIGIN} 20-25
"""
TEMPLATES = r"""
    template IN A {
        match ^ip-(?P<a>[0-9]+)-(?P<b>[0-9]+)[.]made[.]test[.]$
        answer "{{ .Name }} 60 IN A 10.0.{{ .Group.a }}.{{ index .Match 2 }}"
        fallthrough
    }
    template IN ANY none.test {
        rcode NXDOMAIN
        authority "{{ .Zone }} 60 IN SOA ns.{{ .Zone }} root.{{ .Zone }} (1 60 60 60 60)"
    }
    template IN MX mail.test {
        answer "{{ .Name }} 60 {{ .Class }} {{ .Type }} 10 mx.{{ .Zone }}"
        additional "mx.{{ .Zone }} 60 IN A 192.0.2.4"
    }
    template IN A alias.test {
        answer "{{ .Name }} 60 IN CNAME plain.example.test."
    }
"""
DNS64 = """
    dns64 {
        allow_ipv4
    }
"""


def each(names: str, qtypes: str) -> Questions:
    """Every name with every type; a name with a final dot is whole, others are below ORIGIN."""
    return tuple((name, qtype) for name in names.split() for qtype in qtypes.split())


# Name -> directives beside errors, cache and forward, and questions.
CASES: dict[str, tuple[str, Questions]] = {
    "forward": (
        "",
        each("plain nowhere chain1 dangling many x.wild refused.invalid.", "A")
        + each("plain dual ipv6", "AAAA")
        + each("plain", "ANY DS")
        + each("mail", "MX")
        + each("_http._tcp", "SRV")
        + each("https", "HTTPS"),
    ),
    "hosts": (
        HOSTS,
        each("one.test. two.test.", "A AAAA MX")
        + each("inline.test. plain", "A")
        + each("1.2.0.192.in-addr.arpa.", "PTR"),
    ),
    "rewrite exact": (f"rewrite name exact old.{ORIGIN} plain.{ORIGIN}", each("old", "A")),
    "rewrite suffix": (
        f"rewrite name suffix .svc.other. .{ORIGIN}. answer auto",
        each("plain.svc.other. chain1.svc.other. no.svc.other.", "A MX"),
    ),
    "rewrite prefix": ("rewrite name prefix x- ch", each("x-ain1 x-", "A")),
    "rewrite substring": ("rewrite name substring foo lain", each("pfoo", "A")),
    "rewrite regex": (
        REGEX,
        each("plain.web chain1.web", "A") + each("mail.web", "MX") + each("_http._tcp.web", "SRV"),
    ),
    "rewrite ttl": (TTL, each("plain chain1 short", "A")),
    "rewrite type": ("rewrite type ANY HINFO", each("plain", "ANY A")),
    "template": (
        TEMPLATES,
        each("ip-3-4.made.test.", "A AAAA")
        + each("x.none.test.", "A TXT")
        + each("a.mail.test.", "MX A")
        + each("z.alias.test.", "A"),
    ),
    "dns64": (DNS64, each("plain dual chain1 nowhere", "AAAA")),
    "bufsize": ("bufsize 600", each("many", "A")),
}


def corefile(port: int, metrics_port: int, upstream: Upstream, directives: str) -> str:
    # The floor of 5 s is node-cache's own. Equal caps, because an alias whose end has no data is a
    # success for it, and a denial here (RFC 2308 section 2.2).
    return f""".:{port} {{
    bind {HOST}
    errors
    cache {{
        success 9984 30 5
        denial 9984 30 5
    }}
{directives}
    forward . {upstream.host}:{upstream.port} {{
        force_tcp
    }}
    prometheus {HOST}:{metrics_port}
}}
"""


@contextmanager
def serving(
    folder: Path, program: str, directives: str, upstream: Upstream
) -> Iterator[tuple[int, int]]:
    """Ports for DNS and metrics of a server that answers."""
    port, metrics_port, setup_port = free_port(), free_port(), free_port()
    path = folder / f"Corefile.{port}"
    path.write_text(corefile(port, metrics_port, upstream, directives))
    command = daemon_command(path, HOST, setup_port)
    if program:
        ours = ("-keeper=false", "-rundir=")
        command = [program, *(word for word in command[3:] if word not in ours)]
        command[command.index("-conf") + 1] = str(folder / f"conf.{port}")
    with Child(command, folder / f"log.{port}") as child:

        def answers() -> bool:
            assert child.process.poll() is None, child.log()
            try:
                dns.query.udp(make_query("up.invalid", "NS"), HOST, 0.5, port)
            except (OSError, dns.exception.Timeout):
                return False
            return True

        wait_until(answers, child.log)
        yield port, metrics_port


def described(reply: dns.message.Message, case: str) -> list[str]:
    """What must be alike, as lines."""
    flags = reply.flags
    if case in ("template", "dns64"):
        flags &= ~(dns.flags.RA | dns.flags.AA)  # see docs/compatibility.md
    lines = [dns.rcode.to_text(reply.rcode()), dns.flags.to_text(flags), f"EDNS {reply.edns}"]
    for section in (reply.answer, reply.authority, reply.additional):
        lines += sorted(
            f"{rrset.name} {rrset.ttl} {dns.rdatatype.to_text(rrset.rdtype)} {rdata}"
            for rrset in section
            for rdata in rrset
        )
        lines.append("--")
    if len(lines) > 40:  # the order of so many changes from response to response
        lines = [*lines[:3], f"{len(lines)} lines"]
    return lines


@pytest.mark.parametrize("case", CASES)
def test_answers_are_alike(case: str, tmp_path: Path, knot: Upstream) -> None:
    directives, questions = CASES[case]
    hosts = tmp_path / "hosts"
    hosts.write_text("192.0.2.1 one.test\n192.0.2.2 two.test\n2001:db8::2 two.test\n")
    directives = directives.replace("HOSTS_FILE", str(hosts))
    differences = []
    with (
        serving(tmp_path, NODE_CACHE, directives, knot) as (old, _),
        serving(tmp_path, "", directives, knot) as (new, _),
    ):
        for name, qtype in questions:
            qname = name if name.endswith(".") else f"{name}.{ORIGIN}"
            for ask, payload in ((dns.query.udp, 0), (dns.query.udp, 1232), (dns.query.tcp, 0)):
                for _ in range(2):  # a miss, then a hit
                    replies = [
                        ask(make_query(qname, qtype, payload=payload), HOST, 9, port)
                        for port in (old, new)
                    ]
                    was, now = (described(reply, case) for reply in replies)
                    if was != now:
                        differences.append((qname, qtype, payload, was, now))
    assert differences == []


def families(port: int) -> dict[str, tuple[str, set[tuple[str, ...]], set[str]]]:
    """Name of each family on a page of metrics -> type, sets of label names, bounds of buckets."""
    with urllib.request.urlopen(f"http://{HOST}:{port}/metrics", timeout=10) as page:
        text = page.read().decode()
    found: dict[str, tuple[str, set[tuple[str, ...]], set[str]]] = {}
    for family in text_string_to_metric_families(text):
        if not family.name.startswith(("go_", "process_", "promhttp_")):
            _, labels, bounds = found.setdefault(family.name, (family.type, set(), set()))
            for sample in family.samples:
                labels.add(tuple(sorted(sample.labels.keys() - {"le"})))
                bounds |= {sample.labels["le"]} if "le" in sample.labels else set()
    return found


def test_each_series_of_node_cache_has_its_twin(tmp_path: Path, knot: Upstream) -> None:
    pages = []
    for program in (NODE_CACHE, ""):
        with serving(tmp_path, program, "    loop\n    reload\n    log", knot) as (port, metrics):
            for name in ("plain", "plain", "nowhere"):
                dns.query.udp(make_query(f"{name}.{ORIGIN}", payload=1232), HOST, 9, port)
            time.sleep(1.0)
            pages.append(families(metrics))
    old, new = pages
    # The set-up series stand on their own page here.
    assert old.keys() - new.keys() == {"coredns_nodecache_setup_errors"}
    assert {name: old[name] for name in old.keys() & new.keys()} == {
        name: new[name] for name in old.keys() & new.keys()
    }
