"""Decides what to do next, from what the two objects hold: no clock, no key, no API.

A CA is exchanged in three steps, so that whoever is asked for a certificate shows one that the API
servers verify, at each moment and wherever a replica dies:

1. The new CA enters the Secret beside the old one (`Step.ADD_CA`), and then the caBundles.
2. When it has been there for a while, a server certificate of the new CA replaces that of the old
   one (`Step.RENEW_LEAF`).
3. The old CA stays in both until it ends by itself: no certificate that it signed lives longer.

Nothing else is remembered: which step comes next is read from the two objects. So replicas need no
leader. Each writes only to the version that it has read, and who comes second reads again.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from nodecache.webhook.certificates.model import Authority, Held, Leaf, Settings, Trust

# Certificates begin that long before they are made: the clocks of two API servers may differ.
BACKDATE_S = 300.0

# What others have put into a caBundle is carried along up to this many.
_MOST_STRANGERS = 16


class Step(Enum):
    """What the Secret needs next."""

    NOTHING = auto()
    START = auto()  # a new CA, and a server certificate of it
    ADD_CA = auto()  # a new CA, which will sign; the server certificate stays
    RENEW_LEAF = auto()  # a new server certificate of the CA that signs


@dataclass(frozen=True, slots=True)
class Sighting:
    """These CAs were in all caBundles, each time that we looked since then.

    Attributes:
        fingerprints: All that the Secret has and that are valid.
        since: Monotonic seconds.
    """

    fingerprints: frozenset[str]
    since: float


def plan_secret(held: Held, known_s: float, now: float, settings: Settings) -> Step:
    """Returns what the Secret needs.

    Args:
        held: What it holds.
        known_s: Seconds for which all its CAs have been in the caBundles, and are; 0 if that
            cannot be read now.
        now: Unix seconds.
        settings: What it should hold.
    """
    leaf, signer = held.leaf, held.signer
    can_sign = signer is not None and is_valid(signer, now, settings)
    if leaf is None or not is_good(leaf, now, settings):
        return Step.RENEW_LEAF if can_sign else Step.START
    if signer is None or not can_sign or _is_due(signer, now):
        return Step.ADD_CA
    if leaf.issuer != signer.fingerprint:
        return Step.RENEW_LEAF if known_s >= settings.settle_s else Step.NOTHING
    return Step.RENEW_LEAF if _is_due(leaf, now) else Step.NOTHING


def is_good(leaf: Leaf, now: float, settings: Settings) -> bool:
    """Whether API servers that know its CA would accept it, for at least two more looks."""
    return bool(leaf.issuer) and leaf.names >= settings.names and is_valid(leaf, now, settings)


def is_valid(certificate: Authority | Leaf, now: float, settings: Settings) -> bool:
    """Whether its time has begun, and does not end before somebody looks again."""
    return certificate.since <= now < certificate.until - 2 * settings.look_s


def _is_due(certificate: Authority | Leaf, now: float) -> bool:
    """Whether two thirds of its life are over."""
    life_s = certificate.until - certificate.since - BACKDATE_S
    return now >= certificate.until - life_s / 3


def plan_bundle(
    held: Held, trust: Trust, known_s: float, now: float, settings: Settings
) -> tuple[Authority, ...] | None:
    """Returns what each caBundle should be; None if they are to stay as they are.

    What the Secret has is added at once. What others have put there, or an earlier Secret, goes
    when each replica has had the time to show what the Secret has instead (`choose_leaf`).

    Args:
        held: What the Secret holds.
        trust: What the configuration holds.
        known_s: Seconds for which all CAs of the Secret have been in the caBundles.
        now: Unix seconds.
        settings: What certificates are for.
    """
    needed = _current(held.authorities, now)
    if not needed or not trust.entries or trust.manager:
        return None
    wanted = {each.fingerprint for each in needed}
    if not all(trust.has(fingerprint) for fingerprint in wanted):
        return needed + _strangers(trust, wanted, now)
    is_more = any(
        each.fingerprint not in wanted for entry in trust.entries for each in entry.bundle
    )
    return needed if is_more and known_s >= 2 * settings.settle_s else None


def _strangers(trust: Trust, wanted: set[str], now: float) -> tuple[Authority, ...]:
    found = {
        each.fingerprint: each
        for entry in trust.entries
        for each in _current(entry.bundle, now)
        if each.fingerprint not in wanted
    }
    return tuple(found.values())[:_MOST_STRANGERS]


def _current(authorities: tuple[Authority, ...], now: float) -> tuple[Authority, ...]:
    return tuple(each for each in authorities if each.since <= now < each.until)


def choose_leaf(
    held: Held,
    served: Leaf | None,
    trust: Trust | None,
    known_s: float,
    now: float,
    settings: Settings,
) -> Leaf | None:
    """Returns what to serve from now on; None to go on as before.

    A certificate of another CA takes the place of one that API servers verify when all of them know
    that CA, or when that one ends. So a Secret that was emptied or restored costs no handshake.

    Args:
        held: What the Secret holds.
        served: What this replica serves.
        trust: What API servers verify it by, as last read; None if that could never be read.
        known_s: Seconds for which all CAs of the Secret have been in the caBundles.
        now: Unix seconds.
        settings: What certificates are for.
    """
    leaf = held.leaf
    if leaf is None or leaf == served or not is_good(leaf, now, settings):
        return None
    if served is None or trust is None or not is_valid(served, now, settings):
        return leaf
    is_verified = trust.has(served.issuer)
    is_known = leaf.issuer == served.issuer or known_s >= settings.settle_s
    return leaf if is_known or not is_verified else None


def sight(
    before: Sighting | None, held: Held, trust: Trust | None, now: float, at: float
) -> Sighting | None:
    """Returns since when all CAs of the Secret are in the caBundles; None if they are not.

    A look at which the configuration could not be read is no sign that they are gone.

    Args:
        before: What the look before this one returned.
        held: What the Secret holds.
        trust: What the configuration holds; None if that could not be read.
        now: Unix seconds.
        at: Monotonic seconds.
    """
    needed = frozenset(each.fingerprint for each in _current(held.authorities, now))
    before = before if before and before.fingerprints == needed else None
    if trust is None:
        return before
    if not needed or not all(trust.has(each) for each in needed):
        return None
    return before or Sighting(needed, at)
