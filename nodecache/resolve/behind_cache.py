"""What stands between the cache and the upstreams of a server block, in CoreDNS's order.

First ``rewrite`` may change the question, then ``template`` and ``hosts`` may answer it; what
neither takes goes to ``forward``. Blocks without these directives have no chain at all.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol


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
        is_illegal: The rules make a name that cannot be asked for; ``rewrite_response`` makes an
            error of whatever it is given.
    """

    question: bytes
    options: bytes
    is_illegal: bool

    def rewrite_response(self, response: bytes) -> bytes | None:
        """Returns the response to the original question; None if ``response`` is broken."""


class Rewriter(Protocol):
    """The ``rewrite`` directives of one block."""

    def rewrite(self, question: bytes) -> Rewritten | None:
        """Returns what to ask instead, None if no rule applies. Raises nothing."""


class Plan(NamedTuple):
    """What the chain makes of one question.

    Attributes:
        question: What is to be asked.
        rewritten: How it was changed, None if it was not.
        response: What was answered here, None if ``forward`` is to be asked.
        plugin: Who answers.
        speaks_for_name: What an upstream denies does not exist for any type: nothing here changed
            the question, or could answer another type of it.
    """

    question: bytes
    rewritten: Rewritten | None
    response: bytes | None
    plugin: str
    speaks_for_name: bool = False

    def rewrite_response(self, response: bytes) -> bytes | None:
        """Returns the response to the original question; None if ``response`` is broken."""
        return response if self.rewritten is None else self.rewritten.rewrite_response(response)


class BehindCache:
    """The chain of one server block."""

    def __init__(self, rewriter: Rewriter | None, responders: tuple[Responder, ...]) -> None:
        self._rewriter = rewriter
        self._responders = responders

    def plan(self, question: bytes) -> Plan:
        """Returns what becomes of ``question`` (QNAME in lower case, QTYPE, QCLASS)."""
        rewritten = self._rewriter.rewrite(question) if self._rewriter is not None else None
        if rewritten is not None:
            question = rewritten.question
            if rewritten.is_illegal:
                return Plan(question, rewritten, b"", "rewrite")
        for responder in self._responders:
            response = responder.respond(question)
            if response is not None:
                return Plan(question, rewritten, response, responder.name)
        speaks_for_name = rewritten is None and not self._responders
        return Plan(question, rewritten, None, "forward", speaks_for_name)
