"""From flags, environment and files to one Config."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import replace

import pytest

from nodecache.config.assemble import assemble, read_template
from nodecache.config.corefile import Reader, decode_text
from nodecache.config.flags import Flags, parse_flags
from nodecache.config.kubedns import is_in_kubedns
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
    LogFormat,
    MissingService,
    NxdomainScope,
    ServerBlock,
    Transport,
    Upstream,
)
from nodecache.config.names import parse_name
from nodecache.config.node import Backend, NodePlan
from nodecache.directives.hosts.model import HOSTS
from nodecache.directives.loop.model import LOOP
from nodecache.directives.table import PLUGINS
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
        settings=((LOOP.name, True),),
        takes_queries=True,
        directives=("errors", "cache", "reload", "loop", "bind", "forward", "prometheus", *more),
        file="/etc/coredns/Corefile.base",
        line=line,
    )


@pytest.fixture
def stock(make_reader: Callable[..., Reader]) -> Config:
    flags, faults = parse_flags(STOCK_ARGUMENTS.split())
    assert faults == []
    files = {"/etc/coredns/Corefile.base": STOCK, "/etc/resolv.conf": RESOLV_CONF}
    return assemble(flags, STOCK_ENVIRONMENT, make_reader(files), PLUGINS)


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
        stock.blocks,
        setup_metrics=Address("0.0.0.0", 9353),
        node=NodePlan(
            "nodelocaldns",
            ("169.254.20.10", "10.96.0.10"),
            has_interface=False,
            has_rules=False,
            cluster_dns=("10.96.0.10",),
        ),
        rundir="/run/nodecache",
        pidfile="/run/node-cache.pid",
    )


def test_stock_corefile_warns_of_nothing(stock: Config) -> None:
    assert stock.warnings == ()


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
    config = assemble(flags, {}, make_reader({"Corefile": text}), PLUGINS)
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
                takes_queries=True,
                directives=("bind", "cache", "forward", "prometheus"),
                file="Corefile",
                line=1,
            ),
        ),
        setup_metrics=Address("127.0.0.15", 9353),
        node=NodePlan(
            "nodelocaldns",
            ("127.0.0.15",),
            has_interface=False,
            has_rules=False,
            unbound=("127.0.0.15",),
        ),
        rundir="/run/nodecache",
    )


FLAGS = Flags(localip=("169.254.20.10", "10.96.0.10"), basecorefile="Corefile")


def test_conf_is_read_when_the_template_does_not_exist(make_reader: Callable[..., Reader]) -> None:
    flags = replace(FLAGS, basecorefile="missing", conf="written")
    template = read_template(flags, {}, make_reader({"written": ".:53 {\n}\n"}))
    assert (template.path, template.source, template.faults) == ("written", ".:53 {\n}\n", ())


@pytest.mark.parametrize(
    ("files", "fault"),
    [
        ({}, "Corefile: cannot read the Corefile: No such file or directory;"),
        ({"Corefile": PermissionError(13, "Permission denied")}, "Corefile: cannot read"),
    ],
)
def test_unreadable_corefile_is_one_fault(
    files: dict[str, str | Exception], fault: str, make_reader: Callable[..., Reader]
) -> None:
    with pytest.raises(ConfigError) as caught:
        assemble(FLAGS, {}, make_reader(files), PLUGINS)
    (only,) = caught.value.faults
    assert str(only).startswith(fault)
    assert "-basecorefile" in only.text


# What the manifest holds before any sed step.
TEMPLATE = (
    STOCK.replace("10.96.0.10", "__PILLAR__DNS__SERVER__")
    .replace("169.254.20.10", "__PILLAR__LOCAL__DNS__")
    .replace("cluster.local", "__PILLAR__DNS__DOMAIN__")
)
BASE = {
    "__PILLAR__LOCAL__DNS__": "169.254.20.10",
    "__PILLAR__DNS__DOMAIN__": "cluster.local",
}
SED_IPTABLES = {**BASE, "__PILLAR__DNS__SERVER__": "10.96.0.10"}
SED_IPVS = {**BASE, " __PILLAR__DNS__SERVER__": "", "__PILLAR__CLUSTER__DNS__": "10.96.0.10"}
SED_IPVS_OLD = {**BASE, "__PILLAR__CLUSTER__DNS__": "10.96.0.10"}


def configure_stock(
    steps: dict[str, str], localip: str, environ: dict[str, str], make_reader: Callable[..., Reader]
) -> Config:
    text = TEMPLATE
    for variable, value in steps.items():
        text = text.replace(variable, value)
    flags = Flags(localip=tuple(localip.split(",")), upstreamsvc="kube-dns-upstream")
    files = {"/etc/coredns/Corefile.base": text, "/etc/resolv.conf": RESOLV_CONF}
    return assemble(flags, environ, make_reader(files), PLUGINS)


@pytest.mark.parametrize("steps", [SED_IPTABLES, {}], ids=["sed", "no sed"])
def test_template_of_iptables_mode(
    steps: dict[str, str], stock: Config, make_reader: Callable[..., Reader]
) -> None:
    config = configure_stock(steps, "169.254.20.10,10.96.0.10", STOCK_ENVIRONMENT, make_reader)
    assert config.blocks == stock.blocks


@pytest.mark.parametrize("steps", [SED_IPVS, SED_IPVS_OLD], ids=["new recipe", "old recipe"])
def test_template_of_ipvs_mode(
    steps: dict[str, str], stock: Config, make_reader: Callable[..., Reader]
) -> None:
    config = configure_stock(steps, "169.254.20.10", {}, make_reader)
    cluster = ForwardPolicy(ROOT, (Upstream(Address("10.96.0.10", 53), Transport.TCP),))
    assert [block.bind for block in config.blocks] == [("169.254.20.10",)] * 4
    assert [block.forwards for block in config.blocks] == [
        *[(cluster,)] * 3,
        stock.blocks[3].forwards,
    ]
    assert config.missing_service is None


def test_missing_service_is_a_state_and_heals(
    stock: Config, make_reader: Callable[..., Reader]
) -> None:
    localip = "169.254.20.10,10.96.0.10"
    environ = {"KUBE_DNS_SERVICE_HOST": "10.96.0.10"}
    config = configure_stock(SED_IPTABLES, localip, environ, make_reader)
    assert [len(block.forwards[0].upstreams) for block in config.blocks] == [0, 0, 0, 1]
    servers = tuple(Address(h, 53) for h in ("10.96.0.10", "169.254.20.10", "192.0.2.53"))
    assert config.missing_service == MissingService(
        "kube-dns-upstream", "kube-system", "KUBE_DNS_UPSTREAM_SERVICE_HOST", servers
    )
    assert [text for text in config.warnings if "SERVICE_HOST" in text] == [
        (
            "/etc/coredns/Corefile.base:10:15: the Service 'kube-dns-upstream' has no address:"
            " KUBE_DNS_UPSTREAM_SERVICE_HOST is not set; until it is found, queries for it are"
            " REFUSED: create it with a ClusterIP, name another one with -upstreamsvc, or write"
            " the address here"
        )
    ]
    healed = configure_stock(SED_IPTABLES, localip, {**environ, **STOCK_ENVIRONMENT}, make_reader)
    assert healed.blocks == stock.blocks
    assert healed.missing_service is None


def test_other_upstreams_of_a_forward_serve_while_the_service_is_missing(
    configure: Callable[..., Config],
) -> None:
    text = ".:53 {\n    forward . __PILLAR__CLUSTER__DNS__:53 10.0.0.9\n}\n"
    config = configure(text)
    assert config.blocks[0].forwards[0].upstreams == (Upstream(Address("10.0.0.9", 53)),)
    assert config.missing_service is not None


def test_place_of_a_fault_is_the_one_in_the_file_that_was_written(
    find_faults: Callable[..., list[str]],
) -> None:
    text = ".:53 {\n    bind __PILLAR__LOCAL__DNS__ x __PILLAR__DNS__SERVER__ y\n}\n"
    flags = replace(FLAGS, localip=("2001:db8:0:1::1234", "2001:db8:0:1::5678"))
    places = [fault.partition(": ")[0] for fault in find_faults(text, flags=flags)]
    assert places == ["Corefile:2:33", "Corefile:2:59"]


def test_fault_in_a_value_stands_at_its_variable(find_faults: Callable[..., list[str]]) -> None:
    text = ".:53 {\n    errors __PILLAR__LOCAL__DNS__\n}\n"
    places = [fault.partition(": ")[0] for fault in find_faults(text, flags=FLAGS)]
    assert places == ["Corefile:2:12"] * len(places)
    assert places


def test_place_of_a_warning_is_the_one_in_the_file_that_was_written(
    configure: Callable[..., Config],
) -> None:
    text = ".:53 {\n    bind __PILLAR__LOCAL__DNS__ {$NOWHERE}127.0.0.9\n}\n"
    (warning,) = configure(text, flags=FLAGS).warnings
    assert warning.startswith("Corefile:2:33: environment variable 'NOWHERE' is not set")


STUBS = '{\n  "acme.local": ["10.1.0.1", "[fd00::5]:5353"],\n  "B.Example.": ["10.1.0.2:54"]\n}'
UPSTREAMS = '["10.2.0.1", "10.2.0.2:5353"]'
WITH_UPSTREAMS = ".:53 {\n    bind 127.0.0.15\n    forward . __PILLAR__UPSTREAM__SERVERS__ {\n"
FORCED = WITH_UPSTREAMS + "\t  force_tcp\n        max_fails 3\n    }\n}\n"
CONFIGMAP = {
    "/etc/kube-dns/stubDomains": STUBS,
    "/etc/kube-dns/upstreamNameservers": UPSTREAMS,
    "/etc/kube-dns/federations": "no JSON at all",
}


def test_stub_domains_become_server_blocks(configure: Callable[..., Config]) -> None:
    flags = replace(FLAGS, dns_port=5353, localip=("127.0.0.15", "::1"))
    config = configure(". {\n    bind 127.0.0.15\n}\n", CONFIGMAP, flags=flags)

    def block(zone: str, line: int, *addresses: Address) -> ServerBlock:
        return ServerBlock(
            zones=(parse_name(zone),),
            port=5353,
            bind=("127.0.0.15", "::1"),
            errors=ErrorsPolicy(),
            cache=CAP_30,
            forwards=(ForwardPolicy(ROOT, tuple(map(Upstream, addresses))),),
            takes_queries=True,
            directives=("errors", "cache", "bind", "forward"),
            file="/etc/kube-dns/stubDomains",
            line=line,
        )

    assert config.blocks[1:] == (
        block("acme.local", 2, Address("10.1.0.1", 53), Address("fd00::5", 5353)),
        block("b.example", 3, Address("10.1.0.2", 54)),
    )
    assert config.warnings == ()


@pytest.mark.parametrize("folder", ["/else/where", "/else/where/"])
def test_configmap_is_read_from_the_folder_of_the_flag_alone(
    folder: str, configure: Callable[..., Config]
) -> None:
    files = {"/else/where/stubDomains": '{"other.local": ["10.1.0.1"]}', **CONFIGMAP}
    blocks = configure(". {\n}\n", files, flags=replace(FLAGS, kubednscm=folder)).blocks
    assert [block.zones[0].text for block in blocks] == [".", "other.local."]


def test_upstream_nameservers_replace_the_resolv_conf_and_are_asked_over_udp(
    configure: Callable[..., Config],
) -> None:
    (forward,) = configure(FORCED, CONFIGMAP).blocks[0].forwards
    assert forward.upstreams == (
        Upstream(Address("10.2.0.1", 53), Transport.UDP, max_fails=3),
        Upstream(Address("10.2.0.2", 5353), Transport.UDP, max_fails=3),
    )


def test_force_tcp_stays_without_upstream_nameservers(configure: Callable[..., Config]) -> None:
    (forward,) = configure(FORCED, {"/etc/resolv.conf": RESOLV_CONF}).blocks[0].forwards
    assert {upstream.transport for upstream in forward.upstreams} == {Transport.TCP}


@pytest.mark.parametrize("text", [FORCED, FORCED.rstrip("\n"), TEMPLATE])
def test_text_for_conf_holds_everything_that_is_in_force(
    text: str, make_reader: Callable[..., Reader]
) -> None:
    files = {"Corefile": text, **CONFIGMAP}
    template = read_template(FLAGS, STOCK_ENVIRONMENT, make_reader(files))
    config = assemble(FLAGS, STOCK_ENVIRONMENT, make_reader(files), PLUGINS, template=template)
    written = template.text_for(config)
    assert "__PILLAR__" not in written
    again = assemble(FLAGS, {}, make_reader({"Corefile": written}), PLUGINS)
    assert [replace(block, file="", line=0) for block in again.blocks] == [
        replace(block, file="", line=0) for block in config.blocks
    ]


def test_text_for_conf_names_a_missing_service_and_can_be_read_again(
    make_reader: Callable[..., Reader],
) -> None:
    template = read_template(FLAGS, {}, make_reader({"Corefile": TEMPLATE}))
    text = template.text_for(assemble(FLAGS, {}, make_reader({}), PLUGINS, template=template))
    assert text.count("forward . missing-service://kube-dns {") == 3
    environ = {"KUBE_DNS_SERVICE_HOST": "10.0.0.1"}
    again = assemble(FLAGS, environ, make_reader({"Corefile": text}), PLUGINS)
    assert again.blocks[0].forwards[0].upstreams[0].address == Address("10.0.0.1", 53)


def test_stub_domain_of_a_zone_in_the_corefile_is_left_out_alone(
    make_reader: Callable[..., Reader],
) -> None:
    text = ". {\n}\nACME.local:53 {\n    bind 169.254.20.10\n}\n"
    reader = make_reader({"Corefile": text, **CONFIGMAP})
    template = read_template(FLAGS, {}, reader)
    config = assemble(FLAGS, {}, reader, PLUGINS, template=template)
    assert [block.zones[0].text for block in config.blocks] == [".", "acme.local.", "b.example."]
    assert config.warnings == (
        (
            "/etc/kube-dns/stubDomains:2:3: zone acme.local. on port 53 is already served by the"
            " block in Corefile:3: this stub domain is left out"
        ),
    )
    assert template.has_left_out(config)
    assert "acme.local:53" not in template.text_for(config)
    assert "b.example:53" in template.text_for(config)


def test_broken_configmap_can_be_told_apart_and_left_out(
    make_reader: Callable[..., Reader],
) -> None:
    reader = make_reader({"Corefile": FORCED, **CONFIGMAP, "/etc/kube-dns/stubDomains": "{"})
    with pytest.raises(ConfigError) as caught:
        assemble(FLAGS, {}, reader, PLUGINS)
    assert all(map(is_in_kubedns, caught.value.faults))
    (block,) = assemble(FLAGS, {}, reader, PLUGINS, with_kubedns=False).blocks
    assert block.forwards[0].upstreams == ()
    template = read_template(FLAGS, {}, reader, with_kubedns=False)
    assert assemble(FLAGS, {}, reader, PLUGINS, template=template).blocks == (block,)


def test_faults_of_corefile_and_configmap_come_together(
    find_faults: Callable[..., list[str]],
) -> None:
    faults = find_faults(". {\n    bnd\n}\n", {"/etc/kube-dns/stubDomains": "[]"})
    assert [fault.partition(": ")[0] for fault in faults] == [
        "Corefile:2:5",
        "/etc/kube-dns/stubDomains:1:1",
    ]
    faults = find_faults("", {"/etc/kube-dns/stubDomains": STUBS})
    assert faults == ["Corefile: no server block: begin with a line such as '.:53 {'"]


def test_unreadable_corefile_and_broken_configmap_come_together(
    make_reader: Callable[..., Reader],
) -> None:
    reader = make_reader({"/etc/kube-dns/stubDomains": "["})
    assert len(read_template(FLAGS, {}, reader).faults) == 2


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
    with pytest.raises(
        ConfigError, match="'eth1' is neither an IP address nor an interface that has one"
    ):
        assemble(FLAGS, {}, reader, PLUGINS, resolve_interface=resolve)
    reader = make_reader({"Corefile": ". {\n    bind eth0 {\n        except fd00::7\n    }\n}\n"})
    (block,) = assemble(FLAGS, {}, reader, PLUGINS, resolve_interface=resolve).blocks
    assert block.bind == ("127.0.0.7",)


def test_flags_reach_the_configuration(configure: Callable[..., Config]) -> None:
    flags = replace(
        FLAGS,
        metrics_listen=None,
        cache_octets=64 * 1024 * 1024,
        cluster_domain=parse_name("k8s.example"),
        nxdomain_scope=NxdomainScope.ALL,
        max_inflight=7,
        client_share=30,
        quiet=True,
        pidfile="/run/x.pid",
        log_format=LogFormat.JSON,
        legacy_metrics=True,
        watch=False,
        interface_name="dns0",
        setup_iptables=False,
        rules=Backend.NFTABLES,
        fallback=None,
        rules_conntrack=True,
        stuck_after_s=0.0,
        leave_wait_s=2.0,
        sync_interval_s=5.0,
        skip_teardown=True,
        health_port=8081,
        rundir="/run/x",
    )
    config = configure("__PILLAR__DNS__DOMAIN__ {\n}\n", flags=flags)
    assert config == Config(
        config.blocks,
        None,
        64 * 1024 * 1024,
        parse_name("k8s.example"),
        NxdomainScope.ALL,
        7,
        30,
        node=NodePlan(
            "dns0",
            FLAGS.localip,
            53,
            8081,
            Backend.NFTABLES,
            has_interface=True,
            has_rules=False,
            fails_over=False,
            is_tracked=True,
            is_wildcard=True,
        ),
        stuck_after_s=0.0,
        leave_wait_s=2.0,
        sync_interval_s=5.0,
        skip_teardown=True,
        rundir="/run/x",
        quiet=True,
        pidfile="/run/x.pid",
        log_format=LogFormat.JSON,
        legacy_metrics=True,
        is_watched=False,
    )
    assert config.blocks[0].zones == (parse_name("k8s.example"),)
    assert config.cluster_domain != CLUSTER_DOMAIN


@pytest.mark.parametrize(
    ("localip", "environ", "flag", "found"),
    [
        (("169.254.20.10", "10.96.0.10"), {}, (), ("10.96.0.10",)),
        (("169.254.20.10", "10.96.0.10"), {}, ("10.0.0.9",), ("10.0.0.9",)),
        (("169.254.20.10", "10.96.0.10"), {}, None, ()),
        (
            ("169.254.20.10", "10.96.0.10", "fd00::a", "fd96::10"),
            {},
            (),
            ("10.96.0.10", "fd96::10"),
        ),
        (("169.254.20.10",), {"KUBE_DNS_SERVICE_HOST": "10.96.0.10"}, (), ("10.96.0.10",)),
        (("169.254.20.10",), {"KUBE_DNS_SERVICE_HOST": "None"}, (), ("10.9.9.9",)),
        (("169.254.20.10",), {"KUBE_DNS_SERVICE_HOST": "169.254.20.10"}, (), ("10.9.9.9",)),
        (("fd00::a",), {}, (), ("10.9.9.9",)),
    ],
)
def test_cluster_dns_is_found_where_the_user_or_kubernetes_names_it(
    configure: Callable[..., Config],
    localip: tuple[str, ...],
    environ: dict[str, str],
    flag: tuple[str, ...] | None,
    found: tuple[str, ...],
) -> None:
    flags = replace(FLAGS, localip=localip, fallback=flag)
    text = "cluster.local {\n bind 169.254.20.10\n forward . 10.9.9.9 {\n force_tcp\n}\n}\n"
    config = configure(text, flags=flags, environ=environ)
    assert config.node.cluster_dns == found
    assert not config.node.is_wildcard


@pytest.mark.parametrize(
    ("bind", "unbound"),
    [
        ("bind 169.254.20.10 10.96.0.10", ()),
        ("bind 169.254.20.10", ("10.96.0.10",)),
        ("", ()),
        ("bind 0.0.0.0", ()),
    ],
)
def test_rules_leave_alone_what_no_listener_is_bound_to(
    configure: Callable[..., Config], bind: str, unbound: tuple[str, ...]
) -> None:
    config = configure(f".:53 {{\n{bind}\nwhoami\n}}\n", flags=FLAGS)
    assert config.node.unbound == unbound


def test_successor_is_waited_for_in_a_pod_only(configure: Callable[..., Config]) -> None:
    text = ".:53 {\n whoami\n}\n"
    assert configure(text).leave_wait_s == 0
    assert configure(text, environ={"KUBERNETES_SERVICE_HOST": "10.96.0.1"}).leave_wait_s == 10


def test_address_prints_with_brackets_only_where_needed() -> None:
    assert [str(Address("10.0.0.1", 53)), str(Address("::1", 53))] == ["10.0.0.1:53", "[::1]:53"]


@pytest.mark.parametrize("scheme", ["tls", "https", "https3", "grpc", "quic"])
def test_block_of_another_transport_is_left_out_and_the_rest_is_served(
    scheme: str, configure: Callable[..., Config]
) -> None:
    text = f"{scheme}://a.example {{\n    tls cert key\n    nonsense\n}}\n. {{\n    errors\n}}\n"
    config = configure(text)
    assert [(block.zones, block.port) for block in config.blocks] == [((ROOT,), 53)]
    assert config.warnings == (
        (
            f"Corefile:1:1: '{scheme}://a.example' is left out with its whole block: nodecache"
            " serves DNS over UDP and TCP only"
        ),
    )


def test_zone_of_another_transport_is_left_out_of_its_block(
    configure: Callable[..., Config],
) -> None:
    config = configure("a.example, tls://b.example:853 {\n    errors\n}\n")
    assert [[zone.text for zone in block.zones] for block in config.blocks] == [["a.example."]]
    assert config.warnings == (
        (
            "Corefile:1:12: 'tls://b.example:853' is left out: nodecache serves DNS over UDP and"
            " TCP only"
        ),
    )


def test_nothing_but_other_transports_is_a_fault(find_faults: Callable[..., list[str]]) -> None:
    assert find_faults("tls://. {\n}\n") == [
        "Corefile: no server block is left: begin with a line such as '.:53 {'"
    ]


def test_imports_begin_at_the_folder_of_conf_and_other_files_at_the_working_directory(
    configure: Callable[..., Config],
) -> None:
    files = {
        "/etc/custom/a.server": "a.example {\n}\n",
        "/base/custom/b.server": "b.example {\n}\n",
        "site.hosts": "10.0.0.1 a.example",
        "/base/site.hosts": "10.0.0.2 a.example",
        "/etc/site.hosts": "10.0.0.3 a.example",
    }
    text = ". {\n    hosts site.hosts\n}\nimport custom/*.server\n"
    flags = Flags(localip=("127.0.0.15",), basecorefile="/base/Corefile", conf="/etc/Corefile")
    config = configure("", {"/base/Corefile": text, **files}, flags=flags)
    assert [block.zones[0].text for block in config.blocks] == [".", "a.example."]
    table = config.blocks[0].of(HOSTS)
    assert table is not None
    assert table.addresses[0][1] == (bytes((10, 0, 0, 1)),)
    config = configure("", {"/base/Corefile": text, **files}, flags=replace(flags, conf=""))
    assert [block.zones[0].text for block in config.blocks] == [".", "b.example."]


def test_byte_order_marks_and_octets_that_are_no_utf8_in_any_file_mean_nothing(
    configure: Callable[..., Config],
) -> None:
    def text(octets: bytes) -> str:
        return decode_text(octets)

    bom = b"\xef\xbb\xbf"
    files = {
        "/etc/resolv.conf": text(bom + b"# caf\xe9\r\nnameserver 10.0.0.9\r\n" + bom),
        "site.hosts": text(bom + b"10.0.0.1 a.example # caf\xe9\n10.0.0.2 caf\xe9.example"),
        "more": text(bom + b"# \xff\nhosts site.hosts"),
        "/etc/kube-dns/stubDomains": text(
            bom + b'{"b.example": ["10.0.0.3"], "\xe9": ["10.0.0.4"]}'
        ),
    }
    config = configure(text(b"# \xfe\n. {\nforward . /etc/resolv.conf\nimport more\n}"), files)
    first, stub = config.blocks
    assert first.forwards[0].upstreams == (Upstream(Address("10.0.0.9", 53)),)
    table = first.of(HOSTS)
    assert table is not None
    assert [name for name, _ in table.addresses] == [parse_name("a.example").wire]
    assert stub.zones == (parse_name("b.example"),)
    assert [warning.split("; ")[0] for warning in config.warnings] == [
        "/etc/kube-dns/stubDomains:1:29: '?' is no domain name: left out",
        (
            "site.hosts:2:1: 'caf\\xe9.example' cannot be meant: write an international domain"
            " name in its xn-- form: it is skipped"
        ),
    ]
