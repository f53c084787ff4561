"""What search lists cost: NXDOMAIN responses by suffix, in few series, whatever is asked."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodecache.counters import Counters, QuerySeries
from tests.cache.building import name
from tests.strategies import names
from tests.telemetry.test_series import samples_of

ZONE = "cluster.local."
MOST_SERIES = 48


def series(counters: Counters, zone: str = ZONE, proto: str = "udp") -> QuerySeries:
    return counters.query_series("dns://x", zone, proto, "1")


def shown(counters: Counters) -> dict[str, float]:
    found = samples_of(counters, "nodecache_nxdomain_total")
    return {sample.labels["suffix"]: sample.value for sample in found}


@pytest.mark.parametrize(
    ("zone", "host", "suffix"),
    [
        (ZONE, "www.example.com.default.svc.cluster.local", "default.svc.cluster.local."),
        (ZONE, "nope.default.svc.cluster.local", "default.svc.cluster.local."),
        (ZONE, "com.svc.cluster.local", "svc.cluster.local."),
        (ZONE, "com.cluster.local", ZONE),
        (ZONE, "cluster.local", ZONE),
        (".", "www.example.com.eu-west-1.compute.internal", "compute.internal."),
        (".", "example.com", "com."),
        (".", "nosuchtld", "."),
        (".", "", "."),
    ],
)
def test_suffix_is_the_zone_and_two_labels_but_never_the_whole_name(
    zone: str, host: str, suffix: str
) -> None:
    counters = Counters()
    series(counters, zone).count_nxdomain(name(host), 100)
    series(counters, zone).count_nxdomain(name(host))
    assert shown(counters) == ({zone: 101} if suffix == zone else {zone: 100, suffix: 1})


def test_suffix_counts_by_itself_after_a_hundred_responses_and_no_response_is_lost() -> None:
    counters = Counters()
    for n in range(150):
        host = f"host{n}.prod.svc.cluster.local"
        series(counters, proto="tcp" if n % 2 else "udp").count_nxdomain(name(host))
    assert shown(counters) == {ZONE: 100, "prod.svc.cluster.local.": 50}


def test_names_that_come_once_make_no_series_and_hide_no_storm() -> None:
    counters = Counters()
    for n in range(30_000):
        series(counters).count_nxdomain(name(f"x.ns{n}.svc.cluster.local"))
        if n % 10 == 0:
            series(counters).count_nxdomain(name(f"y{n}.prod.svc.cluster.local"))
    found = shown(counters)
    assert found.keys() == {ZONE, "prod.svc.cluster.local."}
    assert found["prod.svc.cluster.local."] > 2000
    assert sum(found.values()) == 33_000


def test_nobody_can_make_more_than_48_series() -> None:
    counters = Counters()
    for n in range(500):
        series(counters).count_nxdomain(name(f"x.ns{n}.svc.cluster.local"), 1000)
    assert len(shown(counters)) == MOST_SERIES + 1
    assert len(counters.nxdomains._candidates) <= 256


def test_odd_labels_are_escaped() -> None:
    counters = Counters()
    odd = b'\1x\5a\n"\\.\3\0\xff \0'
    series(counters, ".").count_nxdomain(odd, 100)
    series(counters, ".").count_nxdomain(odd)
    assert shown(counters) == {".": 100, 'a\\010\\"\\\\\\..\\000\\255\\032.': 1}


@given(asked=st.lists(names(), max_size=20), times=st.integers(1, 300))
def test_any_names_are_counted_once_each(asked: list[bytes], times: int) -> None:
    counters = Counters()
    for each in asked:
        series(counters, ".").count_nxdomain(each.lower(), times)
    assert sum(shown(counters).values()) == len(asked) * times
