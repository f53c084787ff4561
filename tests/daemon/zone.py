"""The zone that all real upstreams serve, and what stubs must be told about it."""

from __future__ import annotations

ORIGIN = "example.test"

MANY = sorted(f"10.1.{i // 200}.{i % 200 + 1}" for i in range(401))
LONG_STRINGS = sorted(f"{i:03}" + "x" * 247 for i in range(230))  # 60,490 octets of records

_PLAIN = """
$TTL 600
@           SOA    ns.example.test. root.example.test. 1 3600 600 86400 60
@           NS     ns
ns          A      192.0.2.53
plain       A      192.0.2.1
ipv6        AAAA   2001:db8::6
dual        A      192.0.2.2
dual        AAAA   2001:db8::2
short   3   A      192.0.2.3
chain1      CNAME  chain2
chain2  90  CNAME  chain3
chain3      CNAME  chain4
chain4      CNAME  plain
dangling    CNAME  nowhere
https       HTTPS  1 . alpn=h2,h3 ipv4hint=192.0.2.7
_dns        SVCB   1 ns alpn=dot
odd         TYPE65280 \\# 4 0A000001
*.wild      A      192.0.2.77
_http._tcp  SRV    10 5 80 plain
mail        MX     10 plain
"""


def zone_text() -> str:
    """Returns the zone file of ``ORIGIN``."""
    many = "".join(f"many A {address}\n" for address in MANY)
    long = "".join(f'long TXT "{text}"\n' for text in LONG_STRINGS)
    return f"$ORIGIN {ORIGIN}.\n{_PLAIN.lstrip()}{many}{long}"


CLUSTER_ZONE = """
$ORIGIN cluster.local.
$TTL 30
@               SOA    ns.dns root 1 7200 1800 86400 30
@               NS     ns.dns
ns.dns          A      10.96.0.10
kube-dns-upstream.kube-system.svc A 10.96.0.53
web.prod.svc    A      10.96.1.2
db.prod.svc     A      10.244.1.7
db.prod.svc     A      10.244.2.9
db.prod.svc     AAAA   fd00::7
"""
