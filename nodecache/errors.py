"""Every exception type of nodecache.

NodecacheError
├── ConfigError      the operator's: a fault in flags, Corefile or ConfigMap (carries all faults)
├── SocketError      the machine's: an address that cannot be bound, with the next step
├── NodeError        the machine's: an interface or rules that cannot be set up, with the next step
├── HandoverError    a predecessor that gives nothing: the start is cold, nothing else
│   └── RefusedError     it goes on serving, and keeps its -rundir
├── NotRunningError  a command finds no daemon to look at, or one that it does not understand
├── SnapshotError    a kept cache that cannot be taken over: the start is cold, nothing else
├── CertificateError a certificate or key that the webhook cannot serve with; the former one stays
└── ApiError         an object that the API server does not give or change, with the next step
    └── ConflictError    somebody else was faster: read again

What peers send is never an exception: wire and cache return verdicts, and each drop has a counter.
"""

from __future__ import annotations

from dataclasses import dataclass


class NodecacheError(Exception):
    """Base of all errors that nodecache raises on purpose."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault in the configuration, and what to do about it.

    Attributes:
        file: Path as the user gave it, or "command line".
        line: Line number from 1, or 0 when the fault has no line (flags).
        column: Column number from 1 in characters, or 0.
        text: What is wrong and the next step, one sentence, no final full stop.
    """

    file: str
    line: int
    column: int
    text: str

    def __str__(self) -> str:
        """Returns ``file:line:column: text``, without the parts that are 0."""
        place = ":".join([self.file, *(str(n) for n in (self.line, self.column) if n)])
        return f"{place}: {self.text}"


class ConfigError(NodecacheError):
    """The configuration is refused.

    ``faults`` holds every fault found, in file order; ``warnings`` what else is to be said of it.
    """

    def __init__(self, faults: list[Fault], warnings: tuple[str, ...] = ()) -> None:
        super().__init__("\n".join(str(fault) for fault in faults))
        self.faults = faults
        self.warnings = warnings


class SocketError(NodecacheError):
    """An address cannot be used; the message names it and says what to do."""


class NodeError(NodecacheError):
    """The node's interface or rules cannot be changed; the message says what to do.

    ``kind`` is the label of coredns_nodecache_setup_errors_total that it counts for.
    """

    def __init__(self, text: str, kind: str) -> None:
        super().__init__(text)
        self.kind = kind


class HandoverError(NodecacheError):
    """A predecessor was found and hands nothing over; the message says why."""


class RefusedError(HandoverError):
    """It goes on serving, as it should: -rundir is its own."""


class NotRunningError(NodecacheError):
    """No daemon lets itself be looked at where one was looked for; the message says where."""


class SnapshotError(NodecacheError):
    """Octets are no snapshot of a message cache that may be used; the message says why not."""


class CertificateError(NodecacheError):
    """A certificate or its private key is of no use to a server; the message says why."""


class ApiError(NodecacheError):
    """The API server did not do what it was asked; the message says what to do about that."""


class ConflictError(ApiError):
    """The object has changed since it was read."""
