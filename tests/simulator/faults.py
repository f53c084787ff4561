"""The kinds of faults: what each means, and whom an upstream that has it still serves.

``serves`` says whether a node that does its best gets the answer for a question from such an
upstream within the patience of a stub: then no look-up may fail because of the fault.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.simulator.history import Fault, Place


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of fault.

    Attributes:
        meaning: In a few words, for people.
        serves: Whether an upstream with this fault answers a question that the fault is about.
        values: What ``Fault.value`` may be.
        needs: "tcp" or "udp" if only upstreams asked so have it; "" for all.
        is_named: Is about some names only.
        of_one: Is about one of several servers behind an address.
    """

    meaning: str
    serves: Callable[[Fault, Place], bool]
    values: tuple[float, ...] = (0.0,)
    needs: str = ""
    is_named: bool = False
    of_one: bool = False


def _always(_fault: Fault, _place: Place) -> bool:
    return True


def _never(_fault: Fault, _place: Place) -> bool:
    return False


def _if_quick(fault: Fault, place: Place) -> bool:
    """In order means that slow answers queue behind each other."""
    return fault.value <= (1.0 if place.is_ordered else 3.0)


def _if_tolerable(fault: Fault, _place: Place) -> bool:
    return fault.value < 0.2


KINDS = {
    # How long it takes.
    "slow": Kind("answers after VALUE s", _if_quick, (0.3, 0.7, 1.2, 1.5, 2.5, 3.0, 4.0, 6.0)),
    "slow_names": Kind(
        "some names take VALUE s", _if_quick, (1.2, 1.5, 2.5, 3.0, 4.0, 6.0), is_named=True
    ),
    "silent_names": Kind("no answer for some names", _never, is_named=True),
    "hangs": Kind("the server stands still; its kernel acknowledges", _never, of_one=True),
    "drips": Kind("one octet each VALUE s", _never, (0.001, 0.01, 0.1), "tcp"),
    # Connections.
    "closes": Kind("FIN after VALUE answers", _always, (1, 2, 3), "tcp"),
    "resets": Kind("RST after VALUE answers", _always, (1, 2, 3), "tcp"),
    "few": Kind("VALUE connections, more are hung up on", _always, (1, 2, 4), "tcp"),
    "poison": Kind("hangs up in the answer to some names", _never, needs="tcp", is_named=True),
    "refuses": Kind("nothing listens", _never, of_one=True),
    "syn_lost": Kind("a share of the SYNs is lost", _if_tolerable, (0.1, 0.5, 1.0)),
    "black_hole": Kind("nothing gets through, nothing comes back", _never, of_one=True),
    "dies": Kind("killed: RST; the others take over", _never, of_one=True),
    # Wrong answers.
    "servfail": Kind("SERVFAIL to everything", _never, of_one=True),
    "servfail_names": Kind("SERVFAIL for some names", _never, is_named=True),
    "refused": Kind("REFUSED to everything", _never, of_one=True),
    "wrong_id": Kind("a wrong ID first", _always),
    "wrong_question": Kind("another question's answer first", _always),
    "other_opcode": Kind("a message of another opcode first", _always),
    "only_wrong_id": Kind("wrong IDs only", _never),
    "malformed": Kind("records that do not parse", _never),
    "malformed_udp": Kind("over UDP records that do not parse", _always, needs="udp"),
    "cut": Kind("over UDP cut without TC", _always, needs="udp"),
    "tc": Kind("over UDP always TC", _always, needs="udp"),
    "tc_no_tcp": Kind("TC, and TCP hangs (0) or is refused (1)", _never, (0, 1), "udp"),
    "trailing": Kind("octets behind the records", _always),
    # EDNS that is not tolerated: until asked without.
    "edns_formerr": Kind("FORMERR to EDNS", _always),
    "edns_formerr_bare": Kind("a header with FORMERR to EDNS", _always),
    "edns_echo": Kind("FORMERR with the OPT record to EDNS", _always),
    "edns_notimp": Kind("NOTIMP to EDNS", _always),
    "edns_refused": Kind("REFUSED to EDNS", _always),
    "edns_servfail": Kind("SERVFAIL to EDNS", _always),
    "edns_badvers": Kind("BADVERS to EDNS", _always),
    "edns_silent": Kind("silence to EDNS", _always),
    # Datagrams on the way.
    "udp_limit": Kind("datagrams above VALUE octets are lost", _always, (512,), "udp"),
    "udp_lost": Kind("a share of the datagrams is lost", _always, (0.1, 0.5, 1.0), "udp"),
}


def concerns(fault: Fault, label: str) -> bool:
    """Whether ``fault`` is about the name that begins with ``label``."""
    return label.startswith(fault.names)


def serves(fault: Fault, label: str, place: Place) -> bool:
    """Whether an upstream with ``fault`` answers for the name that begins with ``label``.

    Where one of at least three servers is ill, the others must do.
    """
    if not concerns(fault, label):
        return True
    if fault.kind == "dies" and fault.backend >= 0 and place.backends > 1:
        return True
    return KINDS[fault.kind].serves(fault, place)
