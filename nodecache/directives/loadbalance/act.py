"""The ``loadbalance`` directive at work: another order of the addresses in each reply.

Pure: a whole reply in, a whole reply out; random numbers are an argument.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import NamedTuple

from nodecache.config.model import ServerBlock
from nodecache.directives.loadbalance.model import LOADBALANCE, LoadBalance
from nodecache.resolve.before_cache import Directives
from nodecache.wire.const import HEADER, HEADER_OCTETS, RCODE_MASK, RR_FIXED, U16
from nodecache.wire.numbers import (
    NOERROR,
    TYPE_A,
    TYPE_AAAA,
    TYPE_CNAME,
    TYPE_MX,
    TYPE_OPT,
    TYPE_SRV,
)
from nodecache.wire.query import name_end
from nodecache.wire.records import Record, expand_name, walk_records
from nodecache.wire.rrs import read_contents

_ADDRESS_TYPES = (TYPE_A, TYPE_AAAA)
_WEIGHTED_QTYPES = (TYPE_A, TYPE_AAAA, TYPE_SRV)
_LEAST_RECORDS = 2
_POINTER = 0xC0
_POINTER_OCTETS = 2


def before_cache(block: ServerBlock, parts: Directives, random: Callable[[], float]) -> Directives:
    """Returns ``parts`` with the ``loadbalance`` of ``block``."""
    return parts._replace(balancer=Balancer(block.of(LOADBALANCE) or LoadBalance(), random))


class Network(NamedTuple):
    """Addresses that ``prefer`` puts first."""

    octets: int
    mask: int
    value: int

    def holds(self, address: bytes) -> bool:
        """Returns whether the address, 4 or 16 octets, is one of them."""
        number = int.from_bytes(address, "big")
        return len(address) == self.octets and number & self.mask == self.value


class Balancer:
    """The ``loadbalance`` directive of one server block."""

    def __init__(self, policy: LoadBalance, random: Callable[[], float]) -> None:
        """Makes a balancer; ``random`` returns numbers in [0, 1)."""
        self._is_weighted = policy.is_weighted
        self._weights = {name: dict(found) for name, found in policy.weights}
        self._prefer = tuple(_network(text) for text in policy.prefer)
        self._random = random

    def reorder(self, reply: bytes) -> bytes:
        """Returns a whole reply with its addresses and MX records in another order.

        Aliases come first, because some stub resolvers insist. A reply that is no success, or
        has nothing to put into another order, comes back as the same object. Raises nothing.
        """
        sections = _sections(reply)
        if sections is None or not any(map(_is_movable, sections)):
            return reply
        qtype = U16.unpack_from(reply, name_end(reply, HEADER_OCTETS))[0]
        weighs = self._is_weighted and qtype in _WEIGHTED_QTYPES
        if self._is_weighted and not weighs and not self._prefer:
            return reply
        orders = [self._order(reply, records, weighs) for records in sections]
        moved: bytes | None = reply
        for records, order in zip(sections, orders, strict=True):
            moved = _move(moved, records, order) if moved is not None else None
        return moved if moved is not None else _move_apart(reply, orders)

    def _order(self, reply: bytes, records: list[Record], weighs: bool) -> list[int]:
        """Returns the indexes of ``records`` in their new order."""
        if not _is_movable(records):
            return list(range(len(records)))
        aliases, others, addresses, exchanges = _sort_by_type(records)
        if weighs:
            self._put_chosen_first(reply, records, addresses)
        elif not self._is_weighted:
            self._shuffle(addresses)
            self._shuffle(exchanges)
        if not self._prefer:
            return aliases + others + addresses + exchanges
        addresses.sort(key=lambda index: self._rank(_rdata(reply, records[index])))
        return aliases + addresses + exchanges + others

    def _shuffle(self, indexes: list[int]) -> None:
        for index in range(len(indexes) - 1):
            other = index + int(self._random() * (len(indexes) - index))
            indexes[index], indexes[other] = indexes[other], indexes[index]

    def _put_chosen_first(self, reply: bytes, records: list[Record], addresses: list[int]) -> None:
        """Swaps one address, chosen by weight, with the first one."""
        weights = [self._weight(reply, records[index]) for index in addresses]
        rest = int(self._random() * sum(weights))
        for place, weight in enumerate(weights):
            if rest < weight:
                addresses[0], addresses[place] = addresses[place], addresses[0]
                return
            rest -= weight

    def _weight(self, reply: bytes, record: Record) -> int:
        owner = expand_name(reply, record[2])
        weights = self._weights.get(owner.lower()) if owner is not None else None
        return weights.get(_rdata(reply, record), 1) if weights else 1

    def _rank(self, address: bytes) -> int:
        """Returns the position of the first preferred network that holds the address."""
        for rank, network in enumerate(self._prefer):
            if network.holds(address):
                return rank
        return len(self._prefer)


def _network(text: str) -> Network:
    network = ipaddress.ip_network(text)
    octets = len(network.network_address.packed)
    return Network(octets, int(network.netmask), int(network.network_address))


def _sections(reply: bytes) -> list[list[Record]] | None:
    """Returns the records of each section without OPT; None if the reply must stay as it is."""
    if len(reply) < HEADER_OCTETS:
        return None
    _, flags, qdcount, *counts = HEADER.unpack_from(reply)
    end = name_end(reply, HEADER_OCTETS)
    if qdcount != 1 or not end or flags & RCODE_MASK != NOERROR or sum(counts) < _LEAST_RECORDS:
        return None
    records = walk_records(reply, end + 4, sum(counts))
    if records is None:
        return None
    sections, start = [], 0
    for count in counts:
        section = records[start : start + count]
        sections.append([record for record in section if record[0] != TYPE_OPT])
        start += count
    return sections


def _is_movable(records: list[Record]) -> bool:
    """Whether there are two addresses, two MX records, or an address before an alias."""
    addresses = exchanges = 0
    for record in records:
        if record[0] in _ADDRESS_TYPES:
            addresses += 1
        elif record[0] == TYPE_MX:
            exchanges += 1
        elif addresses and record[0] == TYPE_CNAME:
            return True
    return addresses > 1 or exchanges > 1


def _sort_by_type(records: list[Record]) -> tuple[list[int], list[int], list[int], list[int]]:
    """Returns the indexes of aliases, all others, addresses and MX records."""
    aliases: list[int] = []
    others: list[int] = []
    addresses: list[int] = []
    exchanges: list[int] = []
    for index, record in enumerate(records):
        if record[0] in _ADDRESS_TYPES:
            addresses.append(index)
        elif record[0] == TYPE_CNAME:
            aliases.append(index)
        elif record[0] == TYPE_MX:
            exchanges.append(index)
        else:
            others.append(index)
    return aliases, others, addresses, exchanges


def _rdata(reply: bytes, record: Record) -> bytes:
    return reply[record[3] + RR_FIXED.size : record[4]]


def _move(reply: bytes, records: list[Record], order: list[int]) -> bytes | None:
    """Returns the reply with records of one section moved as they stand, and no octet more.

    None if that could break a compressed name: only addresses in a row can be moved so, whose
    owners are pointers to what stands before them all.
    """
    changed = [place for place, index in enumerate(order) if place != index]
    if not changed:
        return reply
    first, behind = changed[0], changed[-1] + 1
    start = position = records[first][2]
    for rtype, _, owner, fixed, end in records[first:behind]:
        target = (reply[owner] & 0x3F) << 8 | reply[owner + 1]
        is_pointer = reply[owner] >= _POINTER and fixed == owner + _POINTER_OCTETS
        if rtype not in _ADDRESS_TYPES or owner != position or not is_pointer or target >= start:
            return None
        position = end
    pieces = [reply[records[index][2] : records[index][4]] for index in order[first:behind]]
    return reply[:start] + b"".join(pieces) + reply[position:]


def _move_apart(reply: bytes, orders: list[list[int]]) -> bytes:
    """Returns the reply composed anew with all records in their new order."""
    contents = read_contents(reply)
    if contents is None:
        return reply
    for section, order in zip(contents.sections, orders, strict=True):
        section[:] = [section[index] for index in order]
    return contents.compose()
