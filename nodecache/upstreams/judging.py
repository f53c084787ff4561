"""Responses that may not be the answer: an RCODE or TC is set, or something went wrong before."""

from __future__ import annotations

from nodecache.counters import Counters
from nodecache.upstreams.asking import Asker
from nodecache.upstreams.connection import Connection, Pool
from nodecache.upstreams.exchange import Attempt, Exchange, Failure
from nodecache.upstreams.forms import Form, extended_rcode, has_opt, is_about_edns
from nodecache.upstreams.rescue import Rescue
from nodecache.upstreams.second_opinion import SecondOpinions
from nodecache.upstreams.truncated import Truncated
from nodecache.wire.const import TC
from nodecache.wire.numbers import NOERROR, NXDOMAIN

MAX_MALFORMED = 3  # responses; a fourth would be no better


class Judge:
    """Of the responses to all exchanges."""

    __slots__ = ("_asker", "_counters", "_opinions", "_rescue", "_truncated")

    def __init__(
        self, asker: Asker, truncated: Truncated, rescue: Rescue, counters: Counters
    ) -> None:
        self._asker = asker
        self._truncated = truncated
        self._rescue = rescue
        self._counters = counters
        self._opinions = SecondOpinions(asker, counters)

    def judge(self, connection: Connection, attempt: Attempt, message: bytes, now: float) -> None:
        """Decides about a response, to an exchange that may be done."""
        exchange, pool = attempt.exchange, connection.pool
        if exchange.is_done:
            _hand_in_late(attempt, message, now)
            return
        if not (message[3] & 0xF or message[2] & TC >> 8):
            self._learn(pool, attempt, message, now)
            self._offer(connection, attempt, message, now)
            return
        is_bare = message[4:6] == b"\0\0"
        if is_bare:
            message = message[:4] + b"\0\1\0\0\0\0\0\0" + exchange.question
        if self._ask_without_edns(pool, attempt, message, now):
            return
        self._learn(pool, attempt, message, now)
        if message[2] & TC >> 8 and not pool.is_stream:
            self._truncated.ask_whole(exchange, pool, message, now)
        elif is_bare or message[3] & 0xF in exchange.policy.failover_rcodes:
            self._asker.pass_over(exchange, message, now)
        elif not self._opinions.seek(exchange, connection, message, now):
            self._offer(connection, attempt, message, now)

    def _offer(self, connection: Connection, attempt: Attempt, message: bytes, now: float) -> None:
        """Ends the exchange with a response; asks elsewhere if that is refused as malformed."""
        if attempt.exchange.answer(attempt, message, now):
            self._opinions.learn(attempt.exchange, connection.pool, message, now)
        else:
            self.refused(connection, attempt, message, now)

    def refused(self, connection: Connection, attempt: Attempt, message: bytes, now: float) -> None:
        """Asks again after a malformed response, in another form or another way."""
        self._counters.count_event("upstream_malformed")
        exchange, pool = attempt.exchange, connection.pool
        setbacks = exchange.setback()
        setbacks.malformed += 1
        if is_about_edns(message) and self._ask_without_edns(pool, attempt, message, now):
            return
        if not pool.is_stream:
            setbacks.needs_stream = True
        elif not pool.forms.knows_edns:
            setbacks.form, setbacks.plain_for = Form.PLAIN, setbacks.plain_for or pool
        pool.distrust(connection)  # what talks nonsense gets no more queries
        if setbacks.malformed >= MAX_MALFORMED:
            self._asker.pass_over(exchange, None, now, Failure.MALFORMED)
        else:
            self._rescue.move(exchange, pool, now)

    # EDNS.

    def _ask_without_edns(self, pool: Pool, attempt: Attempt, message: bytes, now: float) -> bool:
        """Asks again without OPT, once, if an error may be about that (RFC 6891 section 7)."""
        exchange, forms = attempt.exchange, pool.forms
        setbacks = exchange.setback()
        if attempt.form is Form.PLAIN or setbacks.plain_for is not None:
            return False
        if not has_opt(exchange.query):
            return False
        if not is_about_edns(message) and not (
            forms.may_blame_edns(message)
            and (not forms.is_cleared(now) or self._opinions.budget.take(self._asker.submitted))
        ):
            return False
        setbacks.plain_for = pool
        setbacks.form = Form.PLAIN
        setbacks.response = setbacks.response or message
        return pool.ask(exchange, now) is None

    def _learn(self, pool: Pool, attempt: Attempt, message: bytes, now: float) -> None:
        """Remembers in which form a question with setbacks was answered."""
        exchange, forms = attempt.exchange, pool.forms
        is_good = extended_rcode(message) in (NOERROR, NXDOMAIN)
        is_news = False
        if exchange.setback().plain_for is pool:
            if attempt.form is Form.PLAIN:
                is_news = forms.note_plain(is_good, now)
        elif is_good and attempt.form is Form.PLAIN and not forms.is_plain(now):
            is_news = exchange.is_pending_at(pool) and forms.note_silence(now)
        elif is_good and pool.is_stream:
            _learn_of_datagrams(pool, exchange, now)
        if is_news:
            self._counters.count_event("upstream_edns_off")


def _learn_of_datagrams(pool: Pool, exchange: Exchange, now: float) -> None:
    """Remembers which datagrams do not arrive, after an answer over TCP."""
    forms = pool.forms
    datagrams = [attempt for attempt in exchange.attempts if not attempt.pool.is_stream]
    lost = {attempt.form for attempt in datagrams if attempt.is_live}
    if lost == {Form.WHOLE} or (datagrams and exchange.setback().malformed):
        forms.note_small(now)
    elif lost:
        forms.note_loss(max(each.pool.patience.answered_at for each in datagrams), now)


def _hand_in_late(attempt: Attempt, message: bytes, now: float) -> None:
    """Lets the owner have what came after its exchange had failed, if it is an answer."""
    exchange = attempt.exchange
    is_half = message[2] & TC >> 8 and not attempt.pool.is_stream
    is_good = message[3] & 0xF in (NOERROR, NXDOMAIN) and not is_half
    if is_good and not exchange.is_answered and exchange.on_late is not None:
        exchange.is_answered = True
        exchange.on_late(exchange, message, now)
