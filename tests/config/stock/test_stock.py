"""What each acting directive makes of its arguments and options."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from nodecache.config.model import (
    ROOT,
    Address,
    CachePolicy,
    Config,
    ErrorRule,
    ErrorsPolicy,
    ForwardPolicy,
    HealthCheck,
    HealthEndpoint,
    HostName,
    Lifetime,
    NamedUpstream,
    Prefetch,
    SelectionPolicy,
    ServerBlock,
    ServeStale,
    StaleMode,
    TlsSettings,
    Transport,
    Upstream,
)
from nodecache.config.names import parse_name

ReadBlock = Callable[..., ServerBlock]
FILES = {"ca.pem": "", "cert.pem": "", "key.pem": ""}


@pytest.fixture
def block_of(configure: Callable[..., Config]) -> ReadBlock:
    """Directives of one block for the root zone -> that block."""

    def read(directives: str, resolv_conf: str = "") -> ServerBlock:
        files = {**FILES, "/etc/resolv.conf": resolv_conf}
        (block,) = configure(f".:53 {{\n{directives}\n}}\n", files).blocks
        return block

    return read


@pytest.fixture
def cache_of(block_of: ReadBlock) -> Callable[[str], CachePolicy]:
    def read(directive: str) -> CachePolicy:
        cache = block_of(directive).cache
        assert cache is not None
        return cache

    return read


@pytest.fixture
def forward_of(block_of: ReadBlock) -> Callable[..., ForwardPolicy]:
    def read(options: str, to: str = "10.0.0.1", resolv_conf: str = "") -> ForwardPolicy:
        directive = f"forward . {to} {{\n{options}\n}}"
        (policy,) = block_of(directive, resolv_conf).forwards
        return policy

    return read


@pytest.fixture
def upstream_of(forward_of: Callable[..., ForwardPolicy]) -> Callable[..., Upstream]:
    def read(options: str, to: str = "10.0.0.1") -> Upstream:
        (upstream,) = forward_of(options, to).upstreams
        return upstream

    return read


def test_block_without_directives_caches_and_forwards_nothing(block_of: ReadBlock) -> None:
    assert block_of("") == ServerBlock((ROOT,), 53, file="Corefile", line=1)


def test_binds_of_several_lines_add_up(block_of: ReadBlock) -> None:
    block = block_of("bind 127.0.0.1 FD00::1\nbind 127.0.0.2 127.0.0.1 {\nexcept FD00::1\n}")
    assert block.bind == ("127.0.0.1", "fd00::1", "127.0.0.2")


def test_bind_except_leaves_addresses_out(block_of: ReadBlock) -> None:
    assert block_of("bind 127.0.0.1 127.0.0.2 {\nexcept 127.0.0.2\n}").bind == ("127.0.0.1",)


def test_errors_without_options(block_of: ReadBlock) -> None:
    assert block_of("errors").errors == block_of("errors stdout").errors == ErrorsPolicy()


def test_errors_with_all_options(block_of: ReadBlock) -> None:
    options = [
        "stacktrace",
        'consolidate 5m ".* i/o timeout$" warning',
        "consolidate 30s ^Failed show_first",
        "consolidate 1m x debug show_first",
    ]
    assert block_of("errors {\n" + "\n".join(options) + "\n}").errors == ErrorsPolicy(
        consolidate=(
            ErrorRule(300.0, ".* i/o timeout$", "warning"),
            ErrorRule(30.0, "^Failed", show_first=True),
            ErrorRule(60.0, "x", "debug", show_first=True),
        ),
    )


def test_cache_defaults_have_no_minimum_ttl_and_refresh_ahead(
    cache_of: Callable[[str], CachePolicy],
) -> None:
    policy = cache_of("cache")
    assert policy.success == Lifetime(capacity=9984, max_ttl_s=3600, min_ttl_s=0)
    assert policy.denial == Lifetime(capacity=9984, max_ttl_s=1800, min_ttl_s=0)
    assert policy.prefetch == Prefetch(amount=2, duration_s=60.0, percentage=10)
    assert policy.servfail_s is None
    assert policy.serve_stale is None


def test_cache_ttl_caps_both_kinds(cache_of: Callable[[str], CachePolicy]) -> None:
    policy = cache_of("cache 30")
    assert (policy.success.max_ttl_s, policy.denial.max_ttl_s) == (30, 30)


def test_cache_zones_follow_the_ttl_or_stand_alone(cache_of: Callable[[str], CachePolicy]) -> None:
    zones = (parse_name("a.example"), parse_name("10.in-addr.arpa"))
    assert cache_of("cache 30 a.example 10.0.0.0/8").zones == zones
    assert cache_of("cache a.example 10.0.0.0/8").zones == zones


def test_success_and_denial_override_the_cap(cache_of: Callable[[str], CachePolicy]) -> None:
    policy = cache_of("cache 30 {\nsuccess 5000 60 5\ndenial 2500\n}")
    assert policy.success == Lifetime(5000, 60, 5)
    assert policy.denial == Lifetime(2500, 30, 0)


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("prefetch 5", Prefetch(5)),
        ("prefetch 5 10m", Prefetch(5, 600.0)),
        ("prefetch 5 10m 20%", Prefetch(5, 600.0, 20)),
        ("prefetch 0", None),
        ("prefetch 0 1m 10%", None),
    ],
)
def test_prefetch(
    option: str, expected: Prefetch | None, cache_of: Callable[[str], CachePolicy]
) -> None:
    assert cache_of(f"cache {{\n{option}\n}}").prefetch == expected


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("serve_stale", ServeStale(3600.0, StaleMode.IMMEDIATE)),
        ("serve_stale 24h", ServeStale(86_400.0, StaleMode.IMMEDIATE)),
        ("serve_stale 1h immediate", ServeStale(3600.0, StaleMode.IMMEDIATE)),
        ("serve_stale 1h Verify", ServeStale(3600.0, StaleMode.VERIFY)),
        ("serve_stale 1h verify 200ms", ServeStale(3600.0, StaleMode.VERIFY, 0.2)),
    ],
)
def test_serve_stale(
    option: str, expected: ServeStale, cache_of: Callable[[str], CachePolicy]
) -> None:
    assert cache_of(f"cache {{\n{option}\n}}").serve_stale == expected


@pytest.mark.parametrize(("option", "seconds"), [("servfail 0", 0.0), ("servfail 5m", 300.0)])
def test_servfail(option: str, seconds: float, cache_of: Callable[[str], CachePolicy]) -> None:
    assert cache_of(f"cache {{\n{option}\n}}").servfail_s == seconds


def test_nxdomain_cut_is_off_unless_zones_are_named(
    cache_of: Callable[[str], CachePolicy],
) -> None:
    assert cache_of("cache").nxdomain_cut == ()
    policy = cache_of(
        "cache {\nnxdomain_cut cluster.LOCAL 10.0.0.0/8\nnxdomain_cut cluster.local\n}"
    )
    zones = (parse_name("cluster.local"), parse_name("10.in-addr.arpa"))
    assert policy.nxdomain_cut == zones


def test_keepttl(cache_of: Callable[[str], CachePolicy]) -> None:
    assert cache_of("cache {\nkeepttl\n}").keep_ttl
    assert not cache_of("cache").keep_ttl


def test_disable_names_zones_or_means_all_of_the_block(
    cache_of: Callable[[str], CachePolicy],
) -> None:
    policy = cache_of("cache {\ndisable success a.example b.example\ndisable denial\n}")
    assert policy.disable_success == (parse_name("a.example"), parse_name("b.example"))
    assert policy.disable_denial == (ROOT,)


def test_disable_without_zones_means_the_zones_of_the_cache(
    cache_of: Callable[[str], CachePolicy],
) -> None:
    assert cache_of("cache a.example {\ndisable denial\n}").disable_denial == (
        parse_name("a.example"),
    )


@pytest.mark.parametrize(
    ("to", "address", "transport"),
    [
        ("10.0.0.1", Address("10.0.0.1", 53), Transport.UDP),
        ("10.0.0.1:5300", Address("10.0.0.1", 5300), Transport.UDP),
        ("dns://10.0.0.1:5300", Address("10.0.0.1", 5300), Transport.UDP),
        ("2001:db8::1", Address("2001:db8::1", 53), Transport.UDP),
        ("[2001:db8::1]:5300", Address("2001:db8::1", 5300), Transport.UDP),
        ("fe80::1%eth0", Address("fe80::1%eth0", 53), Transport.UDP),
        ("tls://9.9.9.9", Address("9.9.9.9", 853), Transport.TLS),
        ("tls://[2620:fe::fe]:8530", Address("2620:fe::fe", 8530), Transport.TLS),
    ],
)
def test_upstream_address(
    to: str, address: Address, transport: Transport, upstream_of: Callable[..., Upstream]
) -> None:
    assert upstream_of("", to) == Upstream(address, transport)


@pytest.mark.parametrize(
    ("to", "address"),
    [
        ("tls://9.9.9.9%dns.quad9.net", Address("9.9.9.9", 853)),
        ("tls://9.9.9.9%dns.quad9.net:8530", Address("9.9.9.9", 8530)),
        ("tls://2620:fe::fe%dns.quad9.net", Address("2620:fe::fe", 853)),
        ("tls://[2620:fe::fe]%dns.quad9.net:8530", Address("2620:fe::fe", 8530)),
        ("tls://[2620:fe::fe%dns.quad9.net]:8530", Address("2620:fe::fe", 8530)),
    ],
)
def test_upstream_with_the_name_in_its_certificate(
    to: str, address: Address, upstream_of: Callable[..., Upstream]
) -> None:
    assert upstream_of("", to) == Upstream(address, Transport.TLS, "dns.quad9.net")


@pytest.mark.parametrize("options", ["force_tcp", "force_tcp\nprefer_udp", "prefer_udp\nforce_tcp"])
def test_force_tcp_wins_over_prefer_udp(options: str, upstream_of: Callable[..., Upstream]) -> None:
    assert upstream_of(options).transport is Transport.TCP


def test_plain_forward_and_prefer_udp_ask_over_udp(upstream_of: Callable[..., Upstream]) -> None:
    assert upstream_of("").transport is upstream_of("prefer_udp").transport is Transport.UDP


def test_force_tcp_leaves_tls_alone(upstream_of: Callable[..., Upstream]) -> None:
    assert upstream_of("force_tcp", "tls://9.9.9.9").transport is Transport.TLS


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("expire 30s", Upstream(Address("10.0.0.1", 53), expire_s=30.0)),
        ("max_age 5m", Upstream(Address("10.0.0.1", 53), max_age_s=300.0)),
        ("max_idle_conns 8", Upstream(Address("10.0.0.1", 53), max_idle_connections=8)),
        ("max_rate 500", Upstream(Address("10.0.0.1", 53), max_rate=500)),
        ("max_conns 20", Upstream(Address("10.0.0.1", 53), max_connections=20)),
        ("max_fails 0", Upstream(Address("10.0.0.1", 53), max_fails=0)),
        (
            "health_check 5s no_rec domain a.example",
            Upstream(
                Address("10.0.0.1", 53),
                health_check=HealthCheck(
                    5.0, recursion_desired=False, name=parse_name("a.example")
                ),
            ),
        ),
    ],
)
def test_option_of_every_upstream(
    option: str, expected: Upstream, upstream_of: Callable[..., Upstream]
) -> None:
    assert upstream_of(option) == expected


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("policy round_robin", ForwardPolicy(ROOT, (), selection=SelectionPolicy.ROUND_ROBIN)),
        ("policy sequential", ForwardPolicy(ROOT, (), selection=SelectionPolicy.SEQUENTIAL)),
        ("max_concurrent 1000", ForwardPolicy(ROOT, (), max_concurrent=1000)),
        ("max_connect_attempts 3", ForwardPolicy(ROOT, (), max_connect_attempts=3)),
        ("read_timeout 500ms", ForwardPolicy(ROOT, (), read_timeout_s=0.5)),
        ("no_edns", ForwardPolicy(ROOT, (), has_edns=False)),
        ("failfast_all_unhealthy_upstreams", ForwardPolicy(ROOT, (), failfast_all_unhealthy=True)),
        ("failover servfail REFUSED", ForwardPolicy(ROOT, (), failover_rcodes=frozenset({2, 5}))),
        ("next NXDOMAIN NOTIMPL", ForwardPolicy(ROOT, (), next_rcodes=frozenset({3, 4}))),
        (
            "except a.example\nexcept b.example a.example",
            ForwardPolicy(
                ROOT, (), except_zones=(parse_name("a.example"), parse_name("b.example"))
            ),
        ),
    ],
)
def test_option_of_the_policy(
    option: str, expected: ForwardPolicy, forward_of: Callable[..., ForwardPolicy]
) -> None:
    policy = forward_of(option)
    assert policy.upstreams == (Upstream(Address("10.0.0.1", 53)),)
    assert policy == ForwardPolicy(
        ROOT,
        policy.upstreams,
        expected.except_zones,
        expected.selection,
        expected.max_concurrent,
        expected.failfast_all_unhealthy,
        expected.failover_rcodes,
        expected.next_rcodes,
        expected.max_connect_attempts,
        expected.read_timeout_s,
        expected.has_edns,
    )


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("tls", TlsSettings()),
        ("tls ca.pem", TlsSettings(ca_file="ca.pem")),
        ("tls cert.pem key.pem", TlsSettings("cert.pem", "key.pem")),
        ("tls cert.pem key.pem ca.pem", TlsSettings("cert.pem", "key.pem", "ca.pem")),
    ],
)
def test_tls_files(
    option: str, expected: TlsSettings, upstream_of: Callable[..., Upstream]
) -> None:
    assert upstream_of(option, "tls://9.9.9.9").tls == expected


def test_tls_servername_is_for_tls_upstreams_only(forward_of: Callable[..., ForwardPolicy]) -> None:
    policy = forward_of("tls_servername dns.quad9.net", "tls://9.9.9.9 10.0.0.1")
    assert [upstream.server_name for upstream in policy.upstreams] == ["dns.quad9.net", ""]


def test_several_forwards_keep_their_order(block_of: ReadBlock) -> None:
    block = block_of("forward a.example 10.0.0.1\nforward . 10.0.0.2")
    assert [policy.origin.text for policy in block.forwards] == ["a.example.", "."]


def test_upstreams_keep_their_order_and_come_once(
    forward_of: Callable[..., ForwardPolicy],
) -> None:
    policy = forward_of("", "10.0.0.2 10.0.0.1 10.0.0.2:53")
    assert [upstream.address.host for upstream in policy.upstreams] == ["10.0.0.2", "10.0.0.1"]


RESOLV_CONF = """\
# comment
domain example.org
nameserver 10.0.0.1
nameserver\t2001:db8::1 ; comment
options ndots:5
nameserver 127.0.0.15
"""


def test_resolv_conf_names_the_upstreams_but_not_this_cache(
    forward_of: Callable[..., ForwardPolicy],
) -> None:
    policy = forward_of("force_tcp", "/etc/resolv.conf", RESOLV_CONF)
    assert policy.upstreams == (
        Upstream(Address("10.0.0.1", 53), Transport.TCP),
        Upstream(Address("2001:db8::1", 53), Transport.TCP),
    )


def test_own_bind_address_of_any_block_is_left_out_of_resolv_conf(
    configure: Callable[..., Config],
) -> None:
    text = ". {\nforward . /etc/resolv.conf\nbind 127.0.0.3\n}\na {\nbind 127.0.0.4\n}\n"
    files = {"/etc/resolv.conf": "nameserver 127.0.0.4\nnameserver 127.0.0.3\nnameserver 10.0.0.1"}
    (policy,) = configure(text, files).blocks[0].forwards
    assert [upstream.address.host for upstream in policy.upstreams] == ["10.0.0.1"]


def test_nameserver_on_our_address_but_another_port_is_kept(
    configure: Callable[..., Config],
) -> None:
    text = ".:5305 {\nforward . /etc/resolv.conf\nbind 127.0.0.3\n}\n"
    (policy,) = configure(text, {"/etc/resolv.conf": "nameserver 127.0.0.3"}).blocks[0].forwards
    assert [upstream.address.host for upstream in policy.upstreams] == ["127.0.0.3"]


def test_resolv_conf_without_other_nameservers_is_a_warning(
    configure: Callable[..., Config],
) -> None:
    text = ".:53 {\n    forward . /etc/resolv.conf\n}\n"
    config = configure(text, {"/etc/resolv.conf": "nameserver 127.0.0.1\nnameserver x\n"})
    assert config.blocks[0].forwards[0].upstreams == ()
    assert config.warnings == (
        "Corefile:2:15: '/etc/resolv.conf' has a nameserver 'x': no IP address",
        (
            "Corefile:2:15: '/etc/resolv.conf' names no nameserver but this cache:"
            " its queries are REFUSED"
        ),
    )


def test_forward_of_several_reverse_zones_takes_the_first_with_a_warning(
    configure: Callable[..., Config],
) -> None:
    config = configure(". {\n    forward 10.0.2.0/23 10.0.0.1\n}\n")
    assert config.blocks[0].forwards[0].origin.text == "2.0.10.in-addr.arpa."
    assert config.warnings == (
        (
            "Corefile:2:5: only 2.0.10.in-addr.arpa. is forwarded:"
            " this address block is several reverse zones"
        ),
    )


@pytest.mark.parametrize(
    ("directive", "address"),
    [
        ("prometheus", Address("127.0.0.1", 9153)),
        ("prometheus :9253", Address("", 9253)),
        ("prometheus 127.0.0.15:9253", Address("127.0.0.15", 9253)),
    ],
)
def test_prometheus(directive: str, address: Address, block_of: ReadBlock) -> None:
    assert block_of(directive).prometheus == address


@pytest.mark.parametrize(
    ("directive", "endpoint"),
    [
        ("health", HealthEndpoint(Address("", 8080))),
        ("health 169.254.20.10:8080", HealthEndpoint(Address("169.254.20.10", 8080))),
        ("health {\nlameduck 5s\n}", HealthEndpoint(Address("", 8080), 5.0)),
    ],
)
def test_health(directive: str, endpoint: HealthEndpoint, block_of: ReadBlock) -> None:
    assert block_of(directive).health == endpoint


def test_block_lists_the_names_of_its_directives_once(block_of: ReadBlock) -> None:
    block = block_of("errors\nloop\nforward a 10.0.0.1\nforward b 10.0.0.1\nreload 2s")
    assert block.directives == ("errors", "loop", "forward", "reload")


def named(text: str, to: Upstream, *servers: Address) -> NamedUpstream:
    return NamedUpstream(HostName(parse_name(text), servers), to)


@pytest.mark.parametrize(
    ("to", "options", "expected"),
    [
        ("my-dns.svc.cluster.local", "", Upstream(Address("", 53))),
        ("my-dns.svc.cluster.local.:5300", "", Upstream(Address("", 5300))),
        ("dns://my-dns.svc.cluster.local", "", Upstream(Address("", 53))),
        ("My-DNS.svc.cluster.local", "force_tcp", Upstream(Address("", 53), Transport.TCP)),
        (
            "tls://my-dns.svc.cluster.local",
            "",
            Upstream(Address("", 853), Transport.TLS, "my-dns.svc.cluster.local."),
        ),
        (
            "tls://my-dns.svc.cluster.local%dns.example:8853",
            "",
            Upstream(Address("", 8853), Transport.TLS, "dns.example"),
        ),
        (
            "tls://my-dns.svc.cluster.local",
            "tls_servername dns.example",
            Upstream(Address("", 853), Transport.TLS, "dns.example"),
        ),
    ],
)
def test_host_name_is_an_upstream_whose_addresses_the_resolver_is_asked_for(
    forward_of: Callable[..., ForwardPolicy], to: str, options: str, expected: Upstream
) -> None:
    policy = forward_of(f"resolver 10.0.0.10 [2001:db8::1]:5353\n{options}", f"10.0.0.1 {to}")
    servers = (Address("10.0.0.10", 53), Address("2001:db8::1", 5353))
    first, second = policy.destinations
    assert isinstance(first, Upstream)
    assert policy.upstreams == (first,)
    assert second == named("my-dns.svc.cluster.local", expected, *servers)


def test_nameservers_of_resolv_conf_are_asked_without_resolver_but_not_we_ourselves(
    forward_of: Callable[..., ForwardPolicy],
) -> None:
    policy = forward_of("", "up.example", "nameserver 127.0.0.15\nnameserver 10.0.0.9\n")
    expected = named("up.example", Upstream(Address("", 53)), Address("10.0.0.9", 53))
    assert policy.destinations == (expected,)
    assert policy.upstreams == ()


def test_nobody_to_ask_for_a_host_is_a_warning(configure: Callable[..., Config]) -> None:
    config = configure(".:53 {\n    forward . up.example\n}\n")
    (warning,) = config.warnings
    assert "nobody can be asked for host names; write 'resolver IP'" in warning


@pytest.mark.parametrize(
    "to", ["10.0.0.300", "1.2.3.4.5", "a..b", "-a.test", "a_b", "<nil>", "x" * 64, "a b", "*.test"]
)
def test_what_can_be_no_host_name_is_a_fault(
    find_faults: Callable[..., list[str]], to: str
) -> None:
    faults = find_faults(f'. {{\n    forward . "{to}"\n}}\n')
    assert len(faults) == 1
    assert "is neither IP[:PORT], nor a file that exists, nor a host name" in faults[0]


def test_resolver_is_an_address(find_faults: Callable[..., list[str]]) -> None:
    (fault,) = find_faults(". {\n    forward . a.test {\n        resolver b.test\n    }\n}\n")
    assert "'b.test' is no IP address; write 'resolver IP[:PORT]...'" in fault


def test_host_of_one_label_is_taken_with_a_warning(configure: Callable[..., Config]) -> None:
    text = ". {\n    forward . kube-dns {\n        resolver 10.0.0.9\n    }\n}\n"
    (warning,) = configure(text).warnings
    assert "the host kube-dns. is looked up as it stands, in no search list" in warning
