"""A path that drops UDP above 1,500 octets: 70 addresses arrive over TCP, and only so."""

from __future__ import annotations

from pathlib import Path

import dns.exception
import dns.flags
import dns.message
import dns.query
import pytest

from tests.netns.topology import inside
from tests.scenarios.bed import LOCAL, VIRTUAL, bed_of
from tests.scenarios.names import BIG_RECORDS, LOAD_BALANCER_OCTETS, is_right
from tests.scenarios.resolvers import Resolver

pytestmark = [pytest.mark.root, pytest.mark.netns]


def test_seventy_addresses_arrive_where_big_datagrams_vanish(tmp_path: Path) -> None:
    small = dns.message.make_query("small.test", "AAAA", use_edns=0, payload=4096)
    big = dns.message.make_query("big.test", "AAAA", use_edns=0, payload=4096)
    with bed_of(1, 30, 0.0) as bed, inside(bed.node):
        assert is_right(dns.query.udp(big, VIRTUAL, 5).to_wire())
        bed.drop_big_datagrams()
        assert is_right(dns.query.udp(small, VIRTUAL, 5).to_wire())
        with pytest.raises(dns.exception.Timeout):
            dns.query.udp(big, VIRTUAL, 2)
        resolver = Resolver("nodecache", bed, tmp_path, ())
        try:
            resolver.wait_until_serving()
            for _ in range(3):
                reply = dns.query.udp(big, LOCAL, 5)
                octets = reply.to_wire()
                assert len(reply.answer[0]) == BIG_RECORDS
                assert not reply.flags & dns.flags.TC
                assert len(octets) > LOAD_BALANCER_OCTETS
        finally:
            resolver.stop()
    print(f"FIGURE {len(octets)} octets: none over UDP, {BIG_RECORDS} addresses through nodecache")
