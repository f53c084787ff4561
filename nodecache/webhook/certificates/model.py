"""What is kept, and what is known of it: values that the other files pass to each other.

All times of certificates are Unix seconds by the API server's clock, which is the one that counts:
the API server is who verifies.
"""

from __future__ import annotations

from dataclasses import dataclass, field

_MINUTE_S = 60.0
_DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class ApiServer:
    """Where the API server is, and the files that a pod reaches it with.

    Attributes:
        host: An address (IPv6 without brackets) or a name.
        port: Its TCP port.
        token_file: The ServiceAccount's token; kubelet replaces it each hour.
        ca_file: The CA that the API server's own certificate is verified by.
    """

    host: str
    port: int
    token_file: str
    ca_file: str


@dataclass(frozen=True, slots=True)
class Settings:
    """What certificates are for, where they are kept, and for how long.

    Attributes:
        api: The API server.
        service: Name of the Service that API servers ask.
        namespace: Of the Service, and of the Secret.
        domain: The cluster's domain, as "cluster.local".
        secret: Name of the Secret that the replicas share.
        configuration: Name of the MutatingWebhookConfiguration.
        leaf_life_s: Seconds from a server certificate's making to its end.
        ca_life_s: The same of a CA; at least twice ``leaf_life_s``.
        look_s: Seconds from one look at both objects to the next; at most a tenth of the above.
        settle_s: Seconds that a change of caBundle has until it is taken for known to every API
            server, and a change of the Secret to every replica; some times ``look_s``.
    """

    api: ApiServer
    service: str
    namespace: str
    domain: str
    secret: str
    configuration: str
    leaf_life_s: float = 90 * _DAY_S
    ca_life_s: float = 365 * _DAY_S
    look_s: float = _MINUTE_S
    settle_s: float = 5 * _MINUTE_S

    @property
    def names(self) -> frozenset[str]:
        """The DNS names that a server certificate has; API servers use that which ends in .svc."""
        short = f"{self.service}.{self.namespace}"
        return frozenset({short, f"{short}.svc", f"{short}.svc.{self.domain}"})


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate in PEM, as it is shown in handshakes, and its private key."""

    chain_pem: bytes
    key_pem: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate that others are verified by.

    Attributes:
        fingerprint: SHA-256 in hexadecimal; two of the same are one.
        pem: Itself.
        since: When it begins to be valid.
        until: When it ends.
    """

    fingerprint: str
    pem: bytes
    since: float
    until: float


@dataclass(frozen=True, slots=True)
class Leaf:
    """A server certificate whose key fits.

    Attributes:
        pair: Itself and its key.
        names: The DNS names that it is for.
        issuer: Fingerprint of the CA in the Secret that signed it; "" if none did.
        since: When it begins to be valid.
        until: When it ends.
    """

    pair: Pair
    names: frozenset[str]
    issuer: str
    since: float
    until: float


@dataclass(frozen=True, slots=True)
class Held:
    """What the Secret holds, as far as it is of any use.

    Attributes:
        authorities: Its CAs, the newest first: the one that signs, and those before it.
        signer: The CA whose key is there, too; None if there is none.
        signer_key_pem: That key.
        leaf: What is served; None if there is none, or its key does not fit.
    """

    authorities: tuple[Authority, ...] = ()
    signer: Authority | None = None
    signer_key_pem: bytes = field(default=b"", repr=False)
    leaf: Leaf | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One webhook of the configuration: its name, and the certificates in its caBundle."""

    name: str
    bundle: tuple[Authority, ...]


@dataclass(frozen=True, slots=True)
class Trust:
    """By which certificates API servers verify us.

    Attributes:
        entries: All webhooks of the configuration.
        manager: The annotation by which somebody else keeps the caBundle, or "".
    """

    entries: tuple[Entry, ...]
    manager: str = ""

    def has(self, fingerprint: str) -> bool:
        """Whether each entry has this certificate."""
        return all(
            any(each.fingerprint == fingerprint for each in entry.bundle) for entry in self.entries
        )
