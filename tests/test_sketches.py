"""What Space-Saving promises, against an exact count."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from nodecache.sketches import SpaceSaving

KEYS = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 9)), max_size=300)


@given(KEYS, st.integers(1, 12))
def test_the_truth_lies_between_what_is_said_and_that_less_the_error(
    stream: list[tuple[int, int]], places: int
) -> None:
    sketch: SpaceSaving[int] = SpaceSaving(places)
    truth: Counter[int] = Counter()
    for key, weight in stream:
        sketch.add(key, weight)
        truth[key] += weight
    assert sketch.total == sum(truth.values())
    assert len(sketch) == min(places, len(truth))
    for key, estimate in sketch.heaviest(places):
        assert estimate.weight - estimate.error <= truth[key] <= estimate.weight
        assert estimate.error <= sketch.total / places


@given(KEYS, st.integers(1, 12))
def test_who_is_heavier_than_his_share_of_the_places_has_one(
    stream: list[tuple[int, int]], places: int
) -> None:
    sketch: SpaceSaving[int] = SpaceSaving(places)
    truth: Counter[int] = Counter()
    for key, weight in stream:
        sketch.add(key, weight)
        truth[key] += weight
    for key, weight in truth.items():
        if weight > sketch.total / places:
            assert key in sketch


@given(KEYS, st.integers(1, 12))
def test_who_loses_a_place_is_told_once(stream: list[tuple[int, int]], places: int) -> None:
    sketch: SpaceSaving[int] = SpaceSaving(places)
    present: set[int] = set()
    for key, weight in stream:
        lost = sketch.add(key, weight)
        present.add(key)
        if lost is not None:
            present.remove(lost)
    assert present == {key for key, _ in sketch.heaviest(places)}


def test_the_heaviest_come_first_and_few_keys_are_counted_exactly() -> None:
    sketch: SpaceSaving[str] = SpaceSaving(4)
    for key in "abacada":
        sketch.add(key)
    assert [key for key, _ in sketch.heaviest(1)] == ["a"]
    assert dict(sketch.heaviest(9)) == {"a": (4, 0), "b": (1, 0), "c": (1, 0), "d": (1, 0)}
