from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nodecache.cache.message import Message
from nodecache.cache.partition import Partition
from tests.cache.building import key, message


class Evicted(list[bytes]):
    """The keys that a partition gave up for want of room, in order."""

    def note(self, message: Message) -> None:
        self.append(message.key)


def filled(capacity: int, *messages: Message) -> tuple[Partition, Evicted]:
    evicted = Evicted()
    partition = Partition(capacity, evicted.note)
    for each in messages:
        partition.add(each)
    return partition, evicted


def named(count: int) -> list[Message]:
    return [message(key(f"n{number}.example")) for number in range(count)]


def empty(partition: Partition) -> None:
    while len(partition):
        partition.evict()


def test_first_come_goes_first_and_what_was_hit_goes_last() -> None:
    first, second, third, fourth = messages = named(4)
    partition, evicted = filled(10, *messages)
    partition.touch(second)
    partition.touch(first)
    assert partition.probation_count == 2
    empty(partition)
    assert evicted == [third.key, fourth.key, second.key, first.key]
    assert partition.evictions == 4


def test_only_four_fifths_are_protected_and_the_longest_unused_makes_place() -> None:
    messages = named(10)
    partition, evicted = filled(10, *messages)
    for each in messages[:9]:
        partition.touch(each)
    assert repr(partition).startswith("2 on probation, 8 protected, ")
    assert not messages[0].is_protected
    partition.evict()
    assert evicted == [messages[9].key]


def test_removed_message_counts_no_more_and_is_no_eviction() -> None:
    one, other = named(2)
    partition, evicted = filled(10, one, other)
    partition.touch(one)
    for each in (one, other):
        partition.remove(each)
        assert each.partition is None
    assert (len(partition), partition.octets, partition.evictions) == (0, 0, 0)
    assert evicted == []


@given(st.integers(1, 12), st.lists(st.integers(0, 11), max_size=60))
def test_counts_and_octets_are_those_of_what_is_inside(capacity: int, hits: list[int]) -> None:
    messages = named(capacity)
    partition, evicted = filled(capacity, *messages)
    for number in hits:
        hit = messages[number % capacity]
        if hit.partition is not None:
            partition.touch(hit)
        if number == 11:
            partition.evict()
            if not len(partition):
                break
        inside = [each for each in messages if each.partition is partition]
        protected = [each for each in inside if each.is_protected]
        assert len(partition) == len(inside) == capacity - len(evicted)
        assert partition.octets == sum(each.size_octets for each in inside)
        assert len(protected) == len(partition) - partition.probation_count <= capacity * 4 // 5
