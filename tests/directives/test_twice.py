"""Equal directives of a block, and equal options of a directive: what counts, as in node-cache."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from nodecache.config.model import (
    ROOT,
    Address,
    Config,
    HealthCheck,
    Lifetime,
    Name,
    Prefetch,
    SelectionPolicy,
    ServerBlock,
    ServeStale,
    StaleMode,
    Timeouts,
    Transport,
)
from nodecache.config.names import parse_name
from nodecache.config.reading import Twice
from nodecache.directives.dns64.model import DNS64, Dns64
from nodecache.directives.hosts.model import HOSTS
from nodecache.directives.loadbalance.model import LOADBALANCE, LoadBalance
from nodecache.directives.log.model import LOGS
from nodecache.directives.rewrite.model import REWRITES
from nodecache.directives.table import PLUGINS
from nodecache.directives.template.model import TEMPLATES

Read = Callable[[str], tuple[ServerBlock, list[str]]]
A, B = parse_name("a.example"), parse_name("b.example")


@pytest.fixture
def read(configure: Callable[..., Config]) -> Read:
    """Lines of one block -> what they come to, and the sentences of the warnings."""

    def read_lines(lines: str) -> tuple[ServerBlock, list[str]]:
        config = configure(f". {{\n{lines}\n}}\n", {"w": "a.example\n10.0.0.1 3"})
        return config.blocks[0], [text.split(": ", 1)[1] for text in config.warnings]

    return read_lines


def of_the_two(name: str, line: int, which: str = "last") -> str:
    return f"{name!r} already stands in line {line}: the {which} one counts; keep one of the two"


@pytest.mark.parametrize("name", ["cache", "errors", "hosts", "loop", "pprof", "prometheus"])
def test_directive_that_coredns_refuses_twice_is_a_fault(
    name: str, find_faults: Callable[..., list[str]]
) -> None:
    assert find_faults(f". {{\n{name}\n{name}\n}}\n") == [
        f"Corefile:3:1: {name!r} already stands in line 2: keep one of the two"
    ]


def test_first_bufsize_counts_whatever_the_second_says(read: Read) -> None:
    block, warnings = read("bufsize 600\nbufsize 9")
    assert block.bufsize == 600
    assert warnings == [of_the_two("bufsize", 2, "first")]


def test_reload_twice_is_a_warning(read: Read) -> None:
    assert read("reload\nreload x")[1] == [of_the_two("reload", 2, "first")]


@pytest.mark.parametrize("name", ["debug", "whoami"])
def test_directive_without_arguments_may_stand_twice(name: str, read: Read) -> None:
    assert read(f"{name}\n{name}")[1] == [of_the_two(name, 2)]


def test_last_health_counts_with_what_it_does_not_say(read: Read) -> None:
    block, warnings = read("health :81 {\nlameduck 3s\nlameduck 5s\n}\nhealth\nhealth :82")
    assert block.health is not None
    assert (block.health.address, block.health.lameduck_s) == (Address("", 82), 5.0)
    assert of_the_two("health", 2) in warnings
    assert of_the_two("lameduck", 3) in warnings


def test_last_timeouts_count_each(read: Read) -> None:
    block, _ = read("timeouts {\nread 3s\nidle 5s\nidle 6s\n}\ntimeouts {\nread 4s\n}")
    assert block.timeouts == Timeouts(read_s=4.0, idle_s=6.0)


def test_last_dns64_counts_with_what_it_does_not_say(read: Read) -> None:
    block, _ = read(
        "dns64 {\ntranslate_all\n}\ndns64 {\nprefix 64:ff9c::/96\nprefix 64:ff9b::/64\n}"
    )
    assert block.of(DNS64) == Dns64("64:ff9b::/64", translate_all=True)


def test_last_loadbalance_counts(read: Read) -> None:
    weights, prefer = "loadbalance weighted w", "loadbalance {\nprefer 10.0.0.0/8\n}"
    assert read(f"{weights}\n{prefer}")[0].of(LOADBALANCE) == LoadBalance(prefer=("10.0.0.0/8",))
    assert read(f"{prefer}\nloadbalance")[0].of(LOADBALANCE) == LoadBalance(prefer=("10.0.0.0/8",))
    block, warnings = read(f"{prefer}\n{weights}")
    policy = block.of(LOADBALANCE)
    assert policy is not None
    assert (policy.is_weighted, policy.prefer) == (True, ())
    assert warnings == [of_the_two("loadbalance", 2)]


def test_all_of_bind_log_forward_rewrite_and_template_count(read: Read) -> None:
    lines = [
        "bind 127.0.0.1", "bind ::1", "log a.example", "log b.example",
        "forward a.example 10.0.0.1", "forward . 10.0.0.2",
        "rewrite type ANY A", "rewrite type MX A",
        "template ANY A {\nrcode REFUSED\n}", "template ANY MX {\nrcode NXDOMAIN\n}",
    ]  # fmt: skip
    block, warnings = read("\n".join(lines))
    assert block.bind == ("127.0.0.1", "::1")
    counts = [block.of(LOGS), block.forwards, block.of(REWRITES), block.of(TEMPLATES)]
    assert [len(each) for each in counts] == [2, 2, 2, 2]
    assert warnings == []


def test_every_directive_says_what_counts_of_two() -> None:
    names = {each: [name for name in PLUGINS if PLUGINS[name].twice is each] for each in Twice}
    assert names == {
        Twice.REFUSED: [
            "metadata", "nsid", "ready", "pprof", "prometheus", "errors", "cache", "hosts",
            "loop",
        ],
        Twice.FIRST: ["reload", "bufsize"],
        Twice.LAST: ["timeouts", "debug", "health", "dns64", "loadbalance", "whoami"],
        Twice.BOTH: ["bind", "trace", "log", "dnstap", "rewrite", "template", "forward"],
    }  # fmt: skip


def test_last_except_of_a_bind_counts(read: Read) -> None:
    block, warnings = read("bind 127.0.0.1 127.0.0.2 ::1 {\nexcept 127.0.0.1\nexcept ::1\n}")
    assert block.bind == ("127.0.0.1", "127.0.0.2")
    assert warnings == [of_the_two("except", 3)]


def test_last_options_of_a_cache_count_with_what_they_do_not_say(read: Read) -> None:
    lines = [
        "success 100 7 1", "success 200", "denial 100 7", "denial 100 8", "prefetch 3 1m 20%",
        "prefetch 5", "serve_stale 2h verify", "serve_stale", "servfail 0", "servfail 2s",
        "keepttl", "keepttl", "disable denial a.example", "disable denial b.example",
        "disable success a.example",
    ]  # fmt: skip
    block, warnings = read("cache {\n" + "\n".join(lines) + "\n}")
    policy = block.cache
    assert policy is not None
    assert policy.success == Lifetime(200, 7, 1)
    assert policy.denial == Lifetime(100, 8)
    assert policy.prefetch == Prefetch(5, 60.0, 20)
    assert policy.serve_stale == ServeStale(3600.0, StaleMode.IMMEDIATE)
    assert (policy.servfail_s, policy.keep_ttl) == (2.0, True)
    assert (policy.disable_success, policy.disable_denial) == ((A,), (B,))
    assert warnings[-1] == "a second 'disable denial' replaces the first: name all ZONES in one"
    assert len(warnings) == 7


def test_options_of_a_forward_add_up_or_the_last_counts(read: Read) -> None:
    lines = [
        "except a.example", "except b.example", "failover SERVFAIL", "failover REFUSED",
        "next NXDOMAIN", "next NOERROR", "force_tcp", "force_tcp", "max_fails 1", "max_fails 4",
        "policy random", "policy sequential", "max_concurrent 1", "max_concurrent 9",
        "health_check 1s no_rec domain a.example", "health_check 2s",
    ]  # fmt: skip
    block, warnings = read("forward . 10.0.0.1 {\n" + "\n".join(lines) + "\n}")
    (policy,) = block.forwards
    (upstream,) = policy.upstreams
    assert policy.except_zones == (A, B)
    assert policy.failover_rcodes == frozenset((2, 5))
    assert policy.next_rcodes == frozenset((0, 3))
    assert (upstream.transport, upstream.max_fails) == (Transport.TCP, 4)
    assert (policy.selection, policy.max_concurrent) == (SelectionPolicy.SEQUENTIAL, 9)
    assert upstream.health_check == HealthCheck(2.0, recursion_desired=False, name=ROOT)
    assert len(warnings) == 5


def test_last_options_of_hosts_and_template_count(read: Read) -> None:
    block, warnings = read(
        "hosts {\n10.0.0.1 a.example\nttl 5\nttl 6\n"
        "fallthrough a.example\nfallthrough b.example\n}\n"
        "template ANY A {\nrcode NXDOMAIN\nrcode REFUSED\nederror 1\nederror 2 x\n"
        "fallthrough a.example\nfallthrough\n}"
    )
    table = block.of(HOSTS)
    assert table is not None
    assert (table.ttl_s, table.fallthrough) == (6, (B,))
    (template,) = block.of(TEMPLATES)
    root: tuple[Name, ...] = (ROOT,)
    assert (template.rcode, template.extended_error, template.fallthrough) == (5, (2, "x"), root)
    assert len(warnings) == 5


def test_all_patterns_and_classes_count(read: Read) -> None:
    block, warnings = read(
        "errors {\nconsolidate 1m x\nconsolidate 1m y\n}\nlog {\nclass denial\nclass error\n}"
    )
    assert block.errors is not None
    assert len(block.errors.consolidate) == 2
    assert len(block.of(LOGS)[0].classes) == 2
    assert warnings == []


def test_place_of_the_first_one_names_its_file(configure: Callable[..., Config]) -> None:
    text = ". {\nbufsize 600\nimport more\n}\n"
    (warning,) = configure(text, {"more": "bufsize 700"}).warnings
    assert warning.startswith("more:1:1: 'bufsize' already stands in Corefile:2: the first one")


@pytest.mark.parametrize("kind", ["success", "denial"])
@pytest.mark.parametrize("capacity", ["0", "-1"])
def test_no_capacity_is_the_least_of_node_cache(kind: str, capacity: str, read: Read) -> None:
    block, warnings = read(f"cache {{\n{kind} {capacity} 30\n}}")
    assert getattr(block.cache, kind) == Lifetime(1024, 30)
    assert warnings == [f"'{kind} 0' keeps 1024, as in node-cache; 'disable {kind}' keeps none"]


def test_what_stands_behind_the_least_ttl_has_no_effect(read: Read) -> None:
    block, warnings = read("cache {\nsuccess 5 6 7 8\n}")
    assert block.cache is not None
    assert block.cache.success == Lifetime(5, 6, 7)
    assert warnings == ["'8' has no effect: write 'success CAPACITY [TTL] [MINTTL]'"]


def test_metadata_has_no_effect_and_dnstap_is_refused_with_the_truth(
    read: Read, find_faults: Callable[..., list[str]]
) -> None:
    block, warnings = read("metadata a.example")
    assert block.directives == ("metadata",)
    assert warnings == [
        "'metadata' has no effect: what 'log' can show of a query it shows without; remove it"
    ]
    faults = find_faults(". {\ndnstap /run/tap.sock full {\nidentity x\n}\nmetadata {\nx\n}\n}\n")
    assert faults[0].startswith("Corefile:2:1: 'dnstap' would send each query to a collector")
    assert "node-cache" in faults[0]
    assert len(faults) == 2
