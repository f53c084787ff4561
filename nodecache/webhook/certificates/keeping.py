"""Keeps the certificates: looks at both objects, does what is planned, and looks again."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any

from nodecache.errors import ApiError, CertificateError, ConflictError
from nodecache.printing import moment
from nodecache.webhook.certificates.api import ApiClient
from nodecache.webhook.certificates.making import join, make_data
from nodecache.webhook.certificates.model import Held, Leaf, Settings, Trust
from nodecache.webhook.certificates.objects import (
    Asking,
    Seen,
    configuration_of,
    read,
    read_data,
    read_trust,
    secret_of,
    write_bundle,
    write_secret,
)
from nodecache.webhook.certificates.planning import (
    Sighting,
    Step,
    choose_leaf,
    plan_bundle,
    plan_secret,
    sight,
)
from nodecache.webhook.certificates.reading import read_held

_log = logging.getLogger(__name__)

_FIRST_PAUSE_S = 1.0  # after a look that changed something, or failed; doubled each time
_JITTER = 0.25  # so that replicas that start together part

OnPair = Callable[[bytes, bytes], None]


async def keep_certificates(settings: Settings, on_pair: OnPair) -> None:
    """Keeps Secret and caBundle as they should be, until it is cancelled.

    Args:
        settings: What to keep.
        on_pair: Called with chain and key in PEM, each time that what is to be served changes; in
            the loop's thread. It may refuse by CertificateError.
    """
    keeper = Keeper(settings, ApiClient(settings.api), on_pair)
    clock = asyncio.get_running_loop().time
    while True:
        pause_s = await keeper.look(clock())
        await asyncio.sleep(pause_s * random.uniform(1 - _JITTER, 1))  # noqa: S311 - no secret


class Keeper:
    """One replica: what it serves, what it has seen, and what it has complained of.

    Args:
        settings: What to keep.
        api: Whom to ask.
        on_pair: See `keep_certificates`.
    """

    def __init__(self, settings: Settings, api: Asking, on_pair: OnPair) -> None:
        self._settings = settings
        self._api = api
        self._on_pair = on_pair
        self._secret = secret_of(settings)
        self._configuration = configuration_of(settings)
        self._served: Leaf | None = None
        self._sighting: Sighting | None = None
        self._last_trust: Trust | None = None
        self._pause_s = 0.0
        self._told: frozenset[str] = frozenset()
        self._complaints: set[str] = set()

    async def look(self, at: float) -> float:
        """Looks once, and changes each object at most once.

        Args:
            at: Monotonic seconds.

        Returns:
            In how many seconds to look again.
        """
        self._complaints = set()
        is_quiet = await self._look(at)
        self._tell()
        if is_quiet:
            self._pause_s = 0.0
            return self._settings.look_s
        self._pause_s = min(max(_FIRST_PAUSE_S, 2 * self._pause_s), self._settings.look_s)
        return self._pause_s

    async def _look(self, at: float) -> bool:
        """Returns whether everything is as it should be."""
        seen = await self._attempt(read(self._api, self._secret))
        if seen is None:
            return False
        held = read_held(read_data(seen.content))
        found = await self._attempt(read(self._api, self._configuration))
        trust = read_trust(found.content) if found else None
        self._last_trust = trust or self._last_trust
        now = seen.date if seen.date is not None else datetime.now(UTC).timestamp()
        self._sighting = sight(self._sighting, held, trust, now, at)
        known_s = at - self._sighting.since if self._sighting else 0.0
        leaf = choose_leaf(held, self._served, self._last_trust, known_s, now, self._settings)
        self._serve(leaf)
        was_right = await self._mend_secret(seen, held, known_s if trust else 0.0, now)
        if found is None or trust is None:
            return False
        return await self._mend_bundle(found, held, trust, known_s, now) and was_right

    async def _mend_secret(self, seen: Seen, held: Held, known_s: float, now: float) -> bool:
        step = plan_secret(held, known_s, now, self._settings)
        if step is Step.NOTHING:
            return True
        data = make_data(step, held, now, self._settings)
        writing = write_secret(self._api, self._secret, seen.version, data)
        await self._attempt(writing, f"{self._secret.title}: {_DONE[step]}")
        return False

    async def _mend_bundle(
        self, found: Seen, held: Held, trust: Trust, known_s: float, now: float
    ) -> bool:
        if trust.manager:
            step = "take it away, or give the webhook cert-manager's files"
            text = f"{self._configuration.title} has the annotation {trust.manager}: {step}"
            self._complaints.add(text)
        bundle = plan_bundle(held, trust, known_s, now, self._settings)
        if bundle is None:
            return True
        writing = write_bundle(self._api, self._configuration, found.version, trust, join(bundle))
        done = f"{self._configuration.title}: CAs in each caBundle now: {len(bundle)}"
        await self._attempt(writing, done)
        return False

    def _serve(self, leaf: Leaf | None) -> None:
        if leaf is None:
            return
        try:
            self._on_pair(leaf.pair.chain_pem, leaf.pair.key_pem)
        except CertificateError as error:
            self._complaints.add(f"the certificate in {self._secret.title} is refused: {error}")
            return
        self._served = leaf
        _log.info("serves a certificate that ends %s", moment(leaf.until))

    async def _attempt(
        self, request: Coroutine[Any, Any, Seen | None], done: str = ""
    ) -> Seen | None:
        """Returns what a request gives; None if it fails, and then that is a complaint."""
        try:
            seen = await request
        except ConflictError as conflict:
            _log.info("%s: reads it again", conflict)
            return None
        except ApiError as error:
            self._complaints.add(str(error))
            return None
        if done:
            _log.info("%s", done)
        return seen

    def _tell(self) -> None:
        """Says each complaint once, for as long as it goes on."""
        for text in sorted(self._complaints - self._told):
            _log.error("%s", text)
        if self._told and not self._complaints:
            _log.info("certificates are kept again")
        self._told = frozenset(self._complaints)


_DONE = {
    Step.START: "has a new CA and a new certificate",
    Step.ADD_CA: "has a new CA beside the old one",
    Step.RENEW_LEAF: "has a new certificate",
}
