from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nodecache.config.model import Name, ServerBlock
from nodecache.counters import CacheSeries, QuerySeries
from nodecache.resolve.block import BlockState
from nodecache.resolve.zones import ServedZone, Zones
from tests.cache.building import DS, A, name

LABELS = st.sampled_from(["a", "b", "ab", "cluster", "local"])
TEXTS = st.lists(LABELS, max_size=4).map(lambda labels: "".join(f"{each}." for each in labels))


def zones(*texts: str) -> Zones:
    served = []
    for text in texts:
        zone = Name(text or ".", name(text))
        series = QuerySeries("", zone.text, "udp", "1"), CacheSeries("", zone.text)
        served.append(ServedZone(zone, BlockState(ServerBlock((zone,), 53), None), *series))
    return Zones(served, QuerySeries("", "dropped", "udp", "1"))


def find(all_zones: Zones, qname: str, qtype: int = A) -> str | None:
    served = all_zones.find(name(qname), qtype)
    return served.zone.text if served is not None else None


@given(st.lists(TEXTS, max_size=6, unique=True), TEXTS)
def test_longest_zone_that_holds_the_name_wins(texts: list[str], qname: str) -> None:
    holding = [text for text in texts if text == "" or f".{qname}".endswith(f".{text}")]
    expected = (max(holding, key=len) or ".") if holding else None
    assert find(zones(*texts), qname) == expected


def test_zone_matches_at_labels_only() -> None:
    assert find(zones("local."), "xlocal.") is None


def test_rfc4035_section_2_4_ds_belongs_to_the_parent_zone() -> None:
    both = zones("", "cluster.local.")
    assert find(both, "cluster.local.", DS) == "."
    assert find(both, "a.cluster.local.", DS) == "cluster.local."
    assert find(both, "", DS) == "."


def test_ds_stays_with_the_zone_itself_where_no_parent_is_served() -> None:
    assert find(zones("cluster.local."), "cluster.local.", DS) == "cluster.local."
    assert find(zones("cluster.local."), "example.", DS) is None
