"""What stands between the cache and the upstreams of a server block, in CoreDNS's order.

First ``rewrite`` may change the question, then ``template`` and ``hosts`` may answer it; what
neither takes goes to ``forward``. Blocks without these directives have no chain at all.
"""

from __future__ import annotations

from typing import Protocol


class Responder(Protocol):
    """A directive that answers questions itself.

    Attributes:
        name: The directive's name, the label of what it answers.
    """

    name: str

    def respond(self, question: bytes) -> bytes | None:
        """Returns a whole response with ID 0, as an upstream would send it, or None to pass.

        Args:
            question: QNAME in lower case, QTYPE and QCLASS in wire format.

        Raises nothing.
        """


class Rewritten(Protocol):
    """A question that was changed, and the way back.

    Attributes:
        question: What is asked instead: QNAME in lower case, QTYPE and QCLASS.
        options: EDNS options to send along to the upstream, in wire format.
    """

    question: bytes
    options: bytes

    def restore(self, response: bytes) -> bytes | None:
        """Returns the response to the original question; None if ``response`` is broken."""


class Rewriter(Protocol):
    """The ``rewrite`` directives of one block."""

    def rewrite(self, question: bytes) -> Rewritten | None:
        """Returns what to ask instead, None if no rule applies. Raises nothing."""
