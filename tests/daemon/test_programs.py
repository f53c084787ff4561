"""The programs that people and languages ask with: dig, kdig, Node's resolver."""

from __future__ import annotations

import json
import re

import pytest

from tests.daemon.conftest import Houses, StartDaemon
from tests.daemon.processes import Daemon
from tests.daemon.servers import Upstream
from tests.daemon.stubs import dig, kdig, run
from tests.daemon.zone import MANY, ORIGIN

PLAIN = f"plain.{ORIGIN}"


@pytest.fixture
def daemon(houses: Houses) -> Daemon:
    """A daemon before Knot DNS."""
    return houses.daemon("knot")


def status_of(printed: str) -> str:
    found = re.search(r"status: (\w+)", printed)
    assert found, printed
    return found[1]


def test_dig_takes_answers_over_udp_and_tcp(daemon: Daemon) -> None:
    for arguments in ((PLAIN,), (PLAIN, "+tcp"), (PLAIN, "+noedns"), (PLAIN, "+bufsize=512")):
        printed = dig(daemon, *arguments)
        assert status_of(printed) == "NOERROR"
        assert "192.0.2.1" in printed
        assert "WARNING: Message has" not in printed  # octets left over
        assert "Warning" not in printed


def test_dig_follows_tc_to_tcp_unless_told_to_ignore_it(daemon: Daemon) -> None:
    followed = dig(daemon, f"many.{ORIGIN}")
    assert "retrying in TCP mode" in followed
    assert "ANSWER: 401," in followed
    ignored = dig(daemon, f"many.{ORIGIN}", "+ignore")
    assert re.search(r"flags: qr[^;]* tc[ ;]", ignored)
    assert "ANSWER: 74," in ignored  # what 1,232 octets hold


def test_dig_sees_our_opt_only_when_it_sent_one(daemon: Daemon) -> None:
    for _ in range(3):
        assert "OPT PSEUDOSECTION" in dig(daemon, PLAIN, "+nocookie")
        assert "OPT PSEUDOSECTION" not in dig(daemon, PLAIN, "+noedns")


def test_our_own_payload_size_is_1232(daemon: Daemon) -> None:
    assert "udp: 1232" in dig(daemon, PLAIN, "+bufsize=4096")


def test_do_is_mirrored(daemon: Daemon) -> None:
    assert re.search(r"flags: do; udp: 1232", dig(daemon, PLAIN, "+dnssec"))
    assert re.search(r"flags:; udp: 1232", dig(daemon, PLAIN, "+nodnssec"))


def test_cd_and_rd_are_mirrored(daemon: Daemon) -> None:
    assert re.search(r"flags: qr[^;]* rd[^;]* cd", dig(daemon, PLAIN, "+cd"))
    assert not re.search(r"flags: qr[^;]* cd", dig(daemon, PLAIN, "+nocd"))
    assert not re.search(r"flags: qr[^;]* rd", dig(daemon, PLAIN, "+norec"))


def test_a_cookie_or_a_client_subnet_changes_nothing_in_the_answer(daemon: Daemon) -> None:
    for option in ("+cookie", "+subnet=192.0.2.0/24", "+nsid", "+padding=128", "+ednsopt=65001:00"):
        printed = dig(daemon, PLAIN, option)
        assert "192.0.2.1" in printed
        assert "CLIENT-SUBNET" not in printed


def test_an_edns_version_of_the_future_is_badvers(daemon: Daemon) -> None:
    assert status_of(dig(daemon, PLAIN, "+edns=1", "+noednsneg")) == "BADVERS"


def test_unknown_edns_flags_are_ignored(daemon: Daemon) -> None:
    printed = dig(daemon, PLAIN, "+ednsflags=0x1234")
    assert status_of(printed) == "NOERROR"
    assert "MBZ" not in printed


def test_another_opcode_is_notimp(daemon: Daemon) -> None:
    assert status_of(dig(daemon, PLAIN, "+opcode=status")) == "NOTIMP"
    assert status_of(dig(daemon, PLAIN, "+opcode=notify")) == "NOTIMP"


@pytest.mark.parametrize("rdtype", ["AXFR", "IXFR=1"])
def test_a_zone_transfer_is_refused(daemon: Daemon, rdtype: str) -> None:
    printed = dig(daemon, ORIGIN, rdtype, "+tcp", "+noall", "+comments", "+answer")
    assert "192.0.2.1" not in printed
    assert "Transfer failed" in printed or "REFUSED" in printed


def test_the_class_chaos_goes_to_the_upstream_and_back(daemon: Daemon) -> None:
    asked_directly = status_of(dig(daemon, "version.bind", "TXT", "-c", "CH"))
    assert asked_directly in ("NOERROR", "REFUSED", "NOTIMP", "NOTAUTH", "NXDOMAIN")


def test_an_unknown_type_is_printed_as_opaque_octets(daemon: Daemon) -> None:
    assert "\\# 4 0A000001" in dig(daemon, f"odd.{ORIGIN}", "TYPE65280")


def test_queries_with_one_label_only_and_the_root_are_answered(daemon: Daemon) -> None:
    assert status_of(dig(daemon, ".", "NS")) == "REFUSED"
    assert status_of(dig(daemon, "localhost")) == "REFUSED"


def test_kdig_keeps_one_connection_for_all_its_queries(
    knot: Upstream, daemon_for: StartDaemon
) -> None:
    daemon = daemon_for(knot)
    names = [PLAIN, f"dual.{ORIGIN}", f"many.{ORIGIN}", f"short.{ORIGIN}", PLAIN]
    printed = kdig(daemon, "+tcp", "+keepopen", *names)
    assert printed.count("status: NOERROR") == len(names)
    assert "ANSWER: 401" in printed
    assert "WARNING" not in printed
    ports = set(re.findall(r"From \S+?\(TCP\)", printed))
    assert len(ports) == 1


def test_kdig_retries_over_tcp_after_tc(daemon: Daemon) -> None:
    printed = kdig(daemon, f"many.{ORIGIN}", "+retry=1")
    assert "ANSWER: 401" in printed
    assert "(TCP)" in printed


def test_kdig_understands_padding_and_alignment(daemon: Daemon) -> None:
    printed = kdig(daemon, PLAIN, "+edns", "+padding=64", "+nsid")
    assert "status: NOERROR" in printed
    assert "192.0.2.1" in printed


NODE = """
const { Resolver } = require('node:dns').promises;
const resolver = new Resolver({ timeout: 5000, tries: 2 });
resolver.setServers([process.argv[1]]);
const origin = process.argv[2];
const failure = (error) => error.code;
(async () => {
  const answers = {
    plain: await resolver.resolve4('plain.' + origin, { ttl: true }),
    many: (await resolver.resolve4('many.' + origin)).length,
    ipv6: await resolver.resolve6('ipv6.' + origin),
    chain: await resolver.resolve4('chain1.' + origin),
    srv: await resolver.resolveSrv('_http._tcp.' + origin),
    nxdomain: await resolver.resolve4('nowhere.' + origin).catch(failure),
    nodata: await resolver.resolve4('ipv6.' + origin).catch(failure),
    parallel: (await Promise.all(Array.from({ length: 50 }, (_, i) =>
      resolver.resolve4('n' + i + '.wild.' + origin)))).flat(),
  };
  console.log(JSON.stringify(answers));
})();
"""


def test_node_resolves_what_it_asks_for(daemon: Daemon) -> None:
    printed = run("node", "-e", NODE, f"{daemon.host}:{daemon.port}", ORIGIN)
    answers = json.loads(printed)
    [plain] = answers["plain"]
    assert plain["address"] == "192.0.2.1"
    assert 0 < plain["ttl"] <= 300
    assert answers["many"] == len(MANY)
    assert answers["ipv6"] == ["2001:db8::6"]
    assert answers["chain"] == ["192.0.2.1"]
    assert answers["srv"] == [{"name": PLAIN, "port": 80, "priority": 10, "weight": 5}]
    assert answers["nxdomain"] == "ENOTFOUND"
    assert answers["nodata"] == "ENODATA"
    assert answers["parallel"] == ["192.0.2.77"] * 50
