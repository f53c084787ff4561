"""From flags, environment and files to one Config."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import replace

import pytest

from nodecache.config.assemble import assemble, read_template
from nodecache.config.corefile import Reader
from nodecache.config.flags import Flags, parse_flags
from nodecache.config.model import (
    CLUSTER_DOMAIN,
    ROOT,
    Address,
    CachePolicy,
    Config,
    ErrorsPolicy,
    ForwardPolicy,
    HealthEndpoint,
    Lifetime,
    NxdomainScope,
    ServerBlock,
    Transport,
    Upstream,
)
from nodecache.config.names import parse_name
from nodecache.errors import ConfigError

COMMON = """\
    errors
    {cache}
    reload
    loop
    bind 169.254.20.10 10.96.0.10
    forward . {upstream}
    prometheus :9253
"""
CLUSTER_FORWARD = "__PILLAR__CLUSTER__DNS__ {\n        force_tcp\n    }"
CLUSTER_CACHE = "cache {\n        success 9984 30\n        denial 9984 5\n    }"


def stock_block(zone: str, cache: str, upstream: str, extra: str = "") -> str:
    return f"{zone}:53 {{\n" + COMMON.format(cache=cache, upstream=upstream) + extra + "}\n"


# The four blocks of the manifest after its sed step for iptables mode.
STOCK = (
    stock_block("cluster.local", CLUSTER_CACHE, CLUSTER_FORWARD, "    health 169.254.20.10:8080\n")
    + stock_block("in-addr.arpa", "cache 30", CLUSTER_FORWARD)
    + stock_block("ip6.arpa", "cache 30", CLUSTER_FORWARD)
    + stock_block(".", "cache 30", "__PILLAR__UPSTREAM__SERVERS__")
)
STOCK_ARGUMENTS = (
    "-localip 169.254.20.10,10.96.0.10 -conf /etc/Corefile -upstreamsvc kube-dns-upstream"
    " -pidfile /run/node-cache.pid -setupinterface=false -setupiptables=false"
)
STOCK_ENVIRONMENT = {"KUBE_DNS_UPSTREAM_SERVICE_HOST": "10.103.7.7"}
RESOLV_CONF = "nameserver 169.254.20.10\nnameserver 192.0.2.53\n"

CAP_30 = CachePolicy(success=Lifetime(9984, 30), denial=Lifetime(9984, 30))
CLUSTER = ForwardPolicy(ROOT, (Upstream(Address("10.103.7.7", 53), Transport.TCP),))


def expected_block(
    zone: str, line: int, cache: CachePolicy, forward: ForwardPolicy, *more: str
) -> ServerBlock:
    return ServerBlock(
        zones=(parse_name(zone),),
        port=53,
        bind=("169.254.20.10", "10.96.0.10"),
        errors=ErrorsPolicy(),
        cache=cache,
        forwards=(forward,),
        prometheus=Address("", 9253),
        directives=("errors", "cache", "reload", "loop", "bind", "forward", "prometheus", *more),
        file="/etc/coredns/Corefile.base",
        line=line,
    )


@pytest.fixture
def stock(make_reader: Callable[..., Reader]) -> Config:
    flags, faults = parse_flags(STOCK_ARGUMENTS.split())
    assert faults == []
    files = {"/etc/coredns/Corefile.base": STOCK, "/etc/resolv.conf": RESOLV_CONF}
    return assemble(flags, STOCK_ENVIRONMENT, make_reader(files))


def test_stock_corefile_becomes_its_four_blocks(stock: Config) -> None:
    cluster_cache = CachePolicy(success=Lifetime(9984, 30), denial=Lifetime(9984, 5))
    outside = ForwardPolicy(ROOT, (Upstream(Address("192.0.2.53", 53)),))
    assert stock.blocks == (
        replace(
            expected_block("cluster.local", 1, cluster_cache, CLUSTER, "health"),
            health=HealthEndpoint(Address("169.254.20.10", 8080)),
        ),
        expected_block("in-addr.arpa", 16, CAP_30, CLUSTER),
        expected_block("ip6.arpa", 27, CAP_30, CLUSTER),
        expected_block(".", 38, CAP_30, outside),
    )


def test_stock_command_line_sets_the_rest(stock: Config) -> None:
    assert stock == Config(
        stock.blocks, setup_metrics=Address("0.0.0.0", 9353), pidfile="/run/node-cache.pid"
    )


def test_stock_corefile_warns_once_for_each_directive_without_effect(stock: Config) -> None:
    places = [
        ", ".join(f"/etc/coredns/Corefile.base:{line}" for line in lines)
        for lines in ([7, 19, 30, 41], [8, 20, 31, 42])
    ]
    assert stock.warnings == (
        f"'reload' is recognised and has no effect in this release ({places[0]})",
        f"'loop' is recognised and has no effect in this release ({places[1]})",
    )


def test_command_line_without_root_and_its_corefile(make_reader: Callable[..., Reader]) -> None:
    arguments = (
        "-localip 127.0.0.15 -setupinterface=false -setupiptables=false -conf Corefile"
        " -basecorefile Corefile -metrics-listen-address 127.0.0.15:9353"
    )
    text = """\
.:5305 {
    bind 127.0.0.15
    cache 300
    forward . 127.0.0.53:5300 {
        force_tcp
    }
    prometheus 127.0.0.15:9253
}
"""
    flags, faults = parse_flags(shlex.split(arguments))
    assert faults == []
    config = assemble(flags, {}, make_reader({"Corefile": text}))
    upstream = Upstream(Address("127.0.0.53", 5300), Transport.TCP)
    assert config == Config(
        blocks=(
            ServerBlock(
                zones=(ROOT,),
                port=5305,
                bind=("127.0.0.15",),
                cache=CachePolicy(success=Lifetime(9984, 300), denial=Lifetime(9984, 300)),
                forwards=(ForwardPolicy(ROOT, (upstream,)),),
                prometheus=Address("127.0.0.15", 9253),
                directives=("bind", "cache", "forward", "prometheus"),
                file="Corefile",
                line=1,
            ),
        ),
        setup_metrics=Address("127.0.0.15", 9353),
    )


FLAGS = Flags(localip=("169.254.20.10", "10.96.0.10"), basecorefile="Corefile")


def fill(
    text: str,
    make_reader: Callable[..., Reader],
    flags: Flags = FLAGS,
    environ: dict[str, str] | None = None,
) -> tuple[str, list[str]]:
    template = read_template(flags, environ or {}, make_reader({"Corefile": text}))
    return template.text, [str(fault) for fault in template.faults]


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("bind __PILLAR__LOCAL__DNS__ __PILLAR__DNS__SERVER__", "bind 169.254.20.10 10.96.0.10 "),
        ("health __PILLAR__LOCAL__DNS__:8080", "health 169.254.20.10:8080"),
        ("__PILLAR__DNS__DOMAIN__:53 {", "cluster.local:53 {"),
        ("forward . __PILLAR__UPSTREAM__SERVERS__", "forward . /etc/resolv.conf"),
        ("prometheus __PROMETHEUS__ENDPOINT__", "prometheus :9253"),
        ("# __PILLAR__CLUSTER__DNS__ __PILLAR__X__", "# __PILLAR__CLUSTER__DNS__ __PILLAR__X__"),
    ],
)
def test_variables_of_the_template(
    text: str, filled: str, make_reader: Callable[..., Reader]
) -> None:
    assert fill(text, make_reader) == (filled, [])


def test_local_address_before_a_port_is_bracketed_for_ipv6(
    make_reader: Callable[..., Reader],
) -> None:
    flags = replace(FLAGS, localip=("fd00::10",))
    assert fill("health __PILLAR__LOCAL__DNS__:8080", make_reader, flags)[0] == (
        "health [fd00::10]:8080"
    )


def test_cluster_dns_comes_from_the_named_service(make_reader: Callable[..., Reader]) -> None:
    flags = replace(FLAGS, upstreamsvc="my-dns")
    environ = {"MY_DNS_SERVICE_HOST": "FD00::A", "KUBE_DNS_SERVICE_HOST": "10.0.0.1"}
    text = "forward . __PILLAR__CLUSTER__DNS__"
    assert fill(text, make_reader, flags, environ) == ("forward . fd00::a", [])


def test_headless_service_is_a_fault_that_says_so(make_reader: Callable[..., Reader]) -> None:
    _, faults = fill(
        "\nforward . __PILLAR__CLUSTER__DNS__",
        make_reader,
        environ={"KUBE_DNS_SERVICE_HOST": "None"},
    )
    assert faults == [
        (
            "Corefile:2:11: __PILLAR__CLUSTER__DNS__ needs the environment variable"
            " KUBE_DNS_SERVICE_HOST, which is 'None', no IP address: create the Service 'kube-dns'"
            " with a ClusterIP before this pod, name another one with -upstreamsvc, or write the"
            " address here"
        )
    ]


def test_conf_is_read_when_the_template_does_not_exist(make_reader: Callable[..., Reader]) -> None:
    flags = replace(FLAGS, basecorefile="missing", conf="written")
    template = read_template(flags, {}, make_reader({"written": ".:53 {\n}\n"}))
    assert (template.path, template.text, template.faults) == ("written", ".:53 {\n}\n", ())


@pytest.mark.parametrize(
    ("files", "fault"),
    [
        ({}, "Corefile: cannot read the Corefile: No such file or directory;"),
        ({"Corefile": PermissionError(13, "Permission denied")}, "Corefile: cannot read"),
        (
            {"Corefile": UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid")},
            "Corefile: cannot read the Corefile: it is not UTF-8 text;",
        ),
    ],
)
def test_unreadable_corefile_is_one_fault(
    files: dict[str, str | Exception], fault: str, make_reader: Callable[..., Reader]
) -> None:
    with pytest.raises(ConfigError) as caught:
        assemble(FLAGS, {}, make_reader(files))
    (only,) = caught.value.faults
    assert str(only).startswith(fault)
    assert "-basecorefile" in only.text


@pytest.mark.parametrize("folder", ["", "/etc/kube-dns"])
def test_kube_dns_configmap_is_refused(folder: str, find_faults: Callable[..., list[str]]) -> None:
    flags = replace(FLAGS, kubednscm=folder)
    (fault,) = find_faults(". {\n}\n", {"/etc/kube-dns/stubDomains": "{}"}, flags=flags)
    assert fault.startswith("command line: the kube-dns ConfigMap in '/etc/kube-dns' is not read")


def test_missing_or_empty_kube_dns_configmap_is_fine(configure: Callable[..., Config]) -> None:
    flags = replace(FLAGS, kubednscm="/elsewhere")
    assert configure(". {\n}\n", {"/etc/kube-dns/stubDomains": "{}"}, flags=flags).blocks


def test_keys_with_several_ports_become_several_blocks(configure: Callable[..., Config]) -> None:
    text = "a.example:54 b.example 10.0.0.0/8 dns://c.example:54 {\n    cache 30\n}\n"
    blocks = configure(text).blocks
    assert [(block.port, [zone.text for zone in block.zones]) for block in blocks] == [
        (54, ["a.example.", "c.example."]),
        (53, ["b.example.", "10.in-addr.arpa."]),
    ]
    assert all(block.cache == CAP_30 for block in blocks)


def test_block_without_key_serves_the_root_zone(configure: Callable[..., Config]) -> None:
    (block,) = configure("{\n    errors\n}\n").blocks
    assert (block.zones, block.port) == ((ROOT,), 53)


def test_port_alone_serves_the_root_zone(configure: Callable[..., Config]) -> None:
    (block,) = configure(":5353 {\n}\n").blocks
    assert (block.zones, block.port) == ((ROOT,), 5353)


def test_default_port_is_the_flag(configure: Callable[..., Config]) -> None:
    blocks = configure("a {\n}\nb:54 {\n}\n", flags=replace(FLAGS, dns_port=5353)).blocks
    assert [block.port for block in blocks] == [5353, 54]


def test_same_zone_on_different_addresses_or_ports_is_no_overlap(
    configure: Callable[..., Config],
) -> None:
    text = (
        ". {\n bind 127.0.0.1\n}\n. {\n bind 127.0.0.2\n}\n"
        ".:54 {\n bind 127.0.0.1\n}\na. {\n bind 127.0.0.1\n}\n"
    )
    assert len(configure(text).blocks) == 4


@pytest.mark.parametrize(
    ("first", "second"),
    [("", ""), ("", "bind 127.0.0.1"), ("bind 127.0.0.1", ""), ("bind ::1 ::2", "bind ::3 ::2")],
)
def test_same_zone_on_a_shared_address_is_an_overlap(
    first: str, second: str, find_faults: Callable[..., list[str]]
) -> None:
    (fault,) = find_faults(f"a b {{\n{first}\n}}\nc a {{\n{second}\n}}\n")
    assert fault == (
        "Corefile:4:3: zone a. on port 53 is already served by the block in Corefile:1:"
        " merge the two, or bind different addresses"
    )


def test_interface_names_are_resolved_where_that_is_possible(
    make_reader: Callable[..., Reader],
) -> None:
    def resolve(name: str) -> tuple[str, ...]:
        return ("127.0.0.7", "fd00::7") if name == "eth0" else ()

    reader = make_reader({"Corefile": ". {\n    bind eth0 eth1\n}\n"})
    with pytest.raises(ConfigError, match="'eth1' is no IP address, and no interface that has one"):
        assemble(FLAGS, {}, reader, resolve_interface=resolve)
    reader = make_reader({"Corefile": ". {\n    bind eth0 {\n        except fd00::7\n    }\n}\n"})
    (block,) = assemble(FLAGS, {}, reader, resolve_interface=resolve).blocks
    assert block.bind == ("127.0.0.7",)


def test_flags_reach_the_configuration(configure: Callable[..., Config]) -> None:
    flags = replace(
        FLAGS,
        metrics_listen=None,
        cache_octets=64 * 1024 * 1024,
        cluster_domain=parse_name("k8s.example"),
        nxdomain_scope=NxdomainScope.ALL,
        max_inflight=7,
        quiet=True,
        pidfile="/run/x.pid",
    )
    config = configure("__PILLAR__DNS__DOMAIN__ {\n}\n", flags=flags)
    assert config == Config(
        config.blocks,
        None,
        64 * 1024 * 1024,
        parse_name("k8s.example"),
        NxdomainScope.ALL,
        7,
        quiet=True,
        pidfile="/run/x.pid",
    )
    assert config.blocks[0].zones == (parse_name("k8s.example"),)
    assert config.cluster_domain != CLUSTER_DOMAIN


def test_no_more_than_a_hundred_faults_of_a_template_are_kept(
    make_reader: Callable[..., Reader],
) -> None:
    _, faults = fill("forward . __PILLAR__NOTHING__\n" * 500, make_reader)
    assert len(faults) == 100


def test_address_prints_with_brackets_only_where_needed() -> None:
    assert [str(Address("10.0.0.1", 53)), str(Address("::1", 53))] == ["10.0.0.1:53", "[::1]:53"]
