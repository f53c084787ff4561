"""What one upstream was seen to do with connections: so many queries on each, so many at once.

Some servers end a connection after an answer or a few, some take only two from each client. No
server says so; it shows when connections end. Both are believed for a while only, because a
server that is replaced looks the same for a moment.
"""

from __future__ import annotations

from math import inf

MOST_QUERIES = 100  # on one connection; what ends after more is no habit that would matter
QUERIES_REMEMBERED_S = 30.0
CONNECTIONS_REMEMBERED_S = 5.0
# A server that ends a connection after an answer does so at once.
AT_ONCE_S = 0.1


class Habits:
    """Of one pool of streams.

    Attributes:
        most_queries: On one connection, from its beginning to its end; infinity if not known.
        most_open: Connections at once, while ``is_crowded``.
    """

    __slots__ = (
        "_ended_after",
        "_open_until",
        "_queries_until",
        "_refusals",
        "most_open",
        "most_queries",
    )

    def __init__(self) -> None:
        self.most_queries = inf
        self._queries_until = 0.0
        self._ended_after = 0
        self.most_open = 0
        self._open_until = 0.0
        self._refusals = 0

    def note_end(self, answers: int, now: float) -> None:
        """Takes note of a connection that the server ended just after its ``answers``th answer.

        Two that end after equally many show a habit.
        """
        if 0 < answers <= MOST_QUERIES and answers == self._ended_after:
            self.most_queries = min(answers, self.most_queries)
            self._queries_until = now + QUERIES_REMEMBERED_S
        self._ended_after = answers

    def note_refusal(self, others: int, now: float) -> None:
        """Takes note of a new connection that failed while ``others`` were well."""
        self._refusals += 1
        if self._refusals > 1:
            self.most_open = others
            self._open_until = now + CONNECTIONS_REMEMBERED_S

    def note_success(self) -> None:
        """Takes note of a connection's first answer."""
        self._refusals = 0

    def is_crowded(self, now: float) -> bool:
        """Whether a connection beyond ``most_open`` has no chance at present."""
        return now < self._open_until

    def forget(self, now: float) -> None:
        """Lets go of what was seen too long ago."""
        if now >= self._queries_until:
            self.most_queries = inf
