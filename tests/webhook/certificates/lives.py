"""Years of a few replicas in invented time: calls that fail, are lost, or kill who makes them.

The keepers are real, and so are certificates and keys. The API server is two objects in JSON;
between any two calls a replica may die, another may write, and whole days may pass without an API.
After each event `World.complaints` has what API servers would have refused.
"""

from __future__ import annotations

import base64
import copy
import heapq
import json
import random
from collections.abc import Callable, Coroutine, Generator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import count
from typing import Any

from nodecache.errors import ApiError
from nodecache.webhook.certificates.api import Reply
from nodecache.webhook.certificates.keeping import Keeper
from nodecache.webhook.certificates.model import ApiServer, Held, Leaf, Settings
from nodecache.webhook.certificates.reading import read_bundle, read_held

HOUR = 3600.0
DAY = 24 * HOUR
BEGIN = 1_800_000_000.0
SETTINGS = Settings(
    api=ApiServer("192.0.2.1", 443, "/token", "/ca.crt"),
    service="nodecache-webhook",
    namespace="kube-system",
    domain="cluster.local",
    secret="nodecache-webhook-tls",
    configuration="nodecache-webhook",
    look_s=6 * HOUR,
    settle_s=DAY,
)

# Years have thousands of looks at the same few certificates.
bundle_of = lru_cache(maxsize=64)(read_bundle)
_held_of = lru_cache(maxsize=256)(lambda *items: read_held(dict(items)))


def held_of(data: Mapping[str, bytes]) -> Held:
    """Does what `read_held` does."""
    return _held_of(*data.items())


def leaf_of(chain: bytes, key: bytes, bundle: bytes) -> Leaf | None:
    """Returns what a handshake shows, as who knows these CAs judges it."""
    return held_of({"tls.crt": chain, "tls.key": key, "ca.crt": bundle}).leaf


@dataclass(frozen=True, slots=True)
class Faults:
    """How often what goes wrong; each is a probability per call, unless it says otherwise.

    Attributes:
        fails: The call is not carried out.
        is_lost: It is, but the answer never comes.
        kills: The replica dies, before or after.
        stalls: It takes hours instead of a second.
        cuts: Per look: the replica has no API server for some days.
        skew_s: The most by which the clocks of API servers differ.
        lag_s: Until each API server knows a new caBundle.
    """

    fails: float = 0.0
    is_lost: float = 0.0
    kills: float = 0.0
    stalls: float = 0.0
    cuts: float = 0.0
    skew_s: float = 0.0
    lag_s: float = 60.0


class Call:
    """A request that waits for the world to carry it out."""

    def __init__(self, method: str, path: str, body: bytes) -> None:
        self.method, self.path, self.body = method, path, body

    def __await__(self) -> Generator[Call, Reply, Reply]:
        return (yield self)


class Wire:
    """Gives each request to the world."""

    async def get(self, path: str) -> Reply:
        return await Call("GET", path, b"")

    async def patch(self, path: str, media_type: str, body: bytes) -> Reply:
        return await Call(media_type, path, body)


class Replica:
    """One replica and what it serves."""

    def __init__(self) -> None:
        self.keeper: Keeper | None = None
        self.look: Coroutine[Any, Any, float] | None = None
        self.shown: tuple[bytes, bytes] | None = None
        self.cut_until = 0.0

    def start(self) -> None:
        self.keeper = Keeper(SETTINGS, Wire(), self.show)

    def show(self, chain: bytes, key: bytes) -> None:
        self.shown = chain, key

    def die(self) -> None:
        if self.look is not None:
            self.look.close()
        self.keeper = self.look = self.shown = None


class World:
    """All of it; ``run`` lets time pass."""

    def __init__(self, replicas: int, faults: Faults, seed: int) -> None:
        self.now = BEGIN
        self.faults = faults
        self.random = random.Random(seed)
        self.secret: dict[str, Any] = {"metadata": {"resourceVersion": "1"}}
        entries: list[dict[str, Any]] = [
            {"name": name, "clientConfig": {"service": {}}} for name in ("a.x", "b.x")
        ]
        self.configuration: dict[str, Any] = {
            "metadata": {"resourceVersion": "2"},
            "webhooks": entries,
        }
        self.replicas = [Replica() for _ in range(replicas)]
        self.complaints: list[str] = []
        self.leaves: list[bytes] = []  # each that was ever in the Secret
        self.conflicts = 0
        self.deaths = 0
        self._versions = count(3)
        self._order = count()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._bundles: list[tuple[float, tuple[bytes, ...]]] = []  # since when each is in force
        self._checked: list[object] = []
        self._checked_at = 0.0
        self._note()
        for replica in self.replicas:
            self.later(self.random.uniform(0, 60), partial(self._start, replica))

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._order), action))

    def run(self, days: float) -> None:
        end = self.now + days * DAY
        while self._events and self._events[0][0] <= end:
            self.now, _, action = heapq.heappop(self._events)
            action()
            self._check()
        self.now = end

    def change(self, thing: dict[str, Any], **members: Any) -> None:
        """Does what people and other programs do to the objects."""
        thing.update(members)
        thing["metadata"]["resourceVersion"] = str(next(self._versions))
        self._note()

    def bundles(self) -> tuple[bytes, ...]:
        """Returns what each entry of the configuration has."""
        found = (each["clientConfig"] for each in self.configuration["webhooks"])
        return tuple(base64.b64decode(each.get("caBundle", "")) for each in found)

    def data(self, name: str) -> bytes:
        return base64.b64decode(self.secret.get("data", {}).get(name, ""))

    def cas(self) -> int:
        """Returns how many CAs API servers know."""
        return len(bundle_of(self.bundles()[0]))

    def restart(self, replica: Replica) -> None:
        """Does what kubelet does to a pod."""
        replica.die()
        self._start(replica)

    # What replicas do.

    def _start(self, replica: Replica) -> None:
        replica.start()
        self._begin(replica)

    def _begin(self, replica: Replica) -> None:
        if replica.keeper is None:
            return
        if self._happens(self.faults.cuts) and self.now >= replica.cut_until:
            replica.cut_until = self.now + self.random.uniform(1, 12) * DAY
        replica.look = replica.keeper.look(self.now)
        self._go_on(replica, lambda look: look.send(None))

    def _go_on(self, replica: Replica, step: Callable[[Any], Call]) -> None:
        look = replica.look
        assert look is not None
        try:
            call = step(look)
        except StopIteration as stop:
            replica.look = None
            pause_s = stop.value * self.random.uniform(0.75, 1)
            self.later(pause_s, partial(self._again, replica, replica.keeper))
            return
        wait_s = self.random.uniform(0.1, 2)
        if self._happens(self.faults.stalls):
            wait_s = self.random.uniform(0, 8) * HOUR
        self.later(wait_s, lambda: self._carry_out(replica, look, call))

    def _again(self, replica: Replica, keeper: Keeper | None) -> None:
        if replica.keeper is keeper:
            self._begin(replica)

    def _carry_out(self, replica: Replica, look: object, call: Call) -> None:
        if replica.look is not look:  # it has died meanwhile
            return
        if self._happens(self.faults.kills):
            self._kill(replica)
            return
        if self.now < replica.cut_until or self._happens(self.faults.fails):
            self._go_on(replica, lambda look: look.throw(ApiError("away")))
            return
        reply = self.answer(call)
        if self._happens(self.faults.kills):
            self._kill(replica)
        elif self._happens(self.faults.is_lost):
            self._go_on(replica, lambda look: look.throw(ApiError("lost")))
        else:
            self._go_on(replica, lambda look: look.send(reply))

    def _kill(self, replica: Replica) -> None:
        self.deaths += 1
        replica.die()
        self.later(self.random.uniform(0.01, 3) * HOUR, lambda: self._start(replica))

    def _happens(self, probability: float) -> bool:
        return probability > 0 and self.random.random() < probability

    # What the API server does.

    def answer(self, call: Call) -> Reply:
        thing = self.secret if "/secrets/" in call.path else self.configuration
        date = self.now + self.random.choice((-0.5, 0.5)) * self.faults.skew_s
        if call.method == "GET":
            return Reply(200, json.dumps(thing).encode(), date)
        patch = json.loads(call.body)
        if patch["metadata"]["resourceVersion"] != thing["metadata"]["resourceVersion"]:
            self.conflicts += 1
            return Reply(409, b"{}", date)
        if thing is self.secret:
            self.change(thing, data=thing.get("data", {}) | patch["data"])
        else:
            changed = {each["name"]: each["clientConfig"] for each in patch["webhooks"]}
            webhooks = copy.deepcopy(thing["webhooks"])
            for each in webhooks:
                each["clientConfig"] |= changed[each["name"]]
            self.change(thing, webhooks=webhooks)
        return Reply(200, b"{}", date)

    def _note(self) -> None:
        if (leaf := self.data("tls.crt")) and leaf not in self.leaves:
            self.leaves.append(leaf)
        if not self._bundles or self._bundles[-1][1] != self.bundles():
            self._bundles.append((self.now, self.bundles()))

    # What must hold.

    def _check(self) -> None:
        while len(self._bundles) > 1 and self._bundles[1][0] <= self.now - self.faults.lag_s:
            self._bundles.pop(0)  # every API server knows what came after it
        if not all(self._bundles[0][1]):
            return  # the first one is still on its way
        state: list[object] = [*self._bundles, *(each.shown for each in self.replicas)]
        if state == self._checked and self.now < self._checked_at + HOUR:
            return
        self._checked, self._checked_at = state, self.now
        for number, replica in enumerate(self.replicas):
            shown = replica.shown
            for bundle in {each for _, bundles in self._bundles for each in bundles}:
                if shown is not None:
                    self._verify(number, leaf_of(*shown, bundle), bundle)

    def _verify(self, number: int, leaf: Leaf | None, bundle: bytes) -> None:
        day = (self.now - BEGIN) / DAY
        who = f"day {day:.3f}: replica {number}"
        if leaf is None or not leaf.issuer:
            self.complaints.append(f"{who} shows a certificate that no CA in a caBundle signed")
            return
        issuer = next(each for each in bundle_of(bundle) if each.fingerprint == leaf.issuer)
        for clock in (self.now - self.faults.skew_s / 2, self.now + self.faults.skew_s / 2):
            if not all(each.since <= clock < each.until for each in (leaf, issuer)):
                self.complaints.append(f"{who} shows a certificate out of its time")
        if SETTINGS.names - leaf.names:
            self.complaints.append(f"{who} shows a certificate without its names")
