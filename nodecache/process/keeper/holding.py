"""Who holds the sockets, and who answers what comes to them: two tables, and nothing else.

One says what becomes of the worker's process, the other who answers queries meanwhile: a worker may
run and be silent, and queries may be refused with a worker or without. Both hear of every event.
States, events and actions are plain values: here is what is decided, ``supervise`` carries it out.
"""

from __future__ import annotations

from enum import Enum, auto


class Phase(Enum):
    """What becomes of the worker."""

    RESTING = auto()  # none runs, one is to be started
    AWAITING_FILES = auto()  # none runs, since the last one refused its configuration
    RUNNING = auto()
    TOLD = auto()  # it runs, and was told to end
    LEAVING = auto()  # it ends by itself, and takes down by itself what it set up
    LEAVING_AS_TOLD = auto()
    RELIEVED = auto()  # a successor serves: the worker ends, and so does the keeper
    SUCCEEDED = auto()  # a successor serves: the worker ends, and the keeper does not
    STANDING_BY = auto()  # none runs, since a successor serves: that is looked after
    ENDED = auto()  # none runs, and none will


class Queries(Enum):
    """Who answers what comes to the sockets."""

    NOT_OURS = auto()  # no worker has served yet, or a successor does: perhaps somebody else
    ANSWERED = auto()  # the worker
    SILENT = auto()  # nobody, though the worker runs: they are refused
    WAITING = auto()  # nobody since a moment ago: the next worker may be quicker than a refusal
    REFUSED = auto()  # nobody, for longer than that: they are refused
    LEFT = auto()  # the worker, in its own way, until its end


class Event(Enum):
    """What can happen."""

    STARTED = auto()
    NOT_STARTED = auto()  # for want of a process or descriptor
    # What the worker says.
    OFFERED = auto()  # a socket to hold
    SERVES = auto()  # it answers, at these addresses
    LEAVES = auto()
    HANDED_OVER = auto()
    # How it ended, see ``end_of``.
    DONE = auto()
    REFUSED = auto()
    HOPELESS = auto()
    MISCONFIGURED = auto()
    CRASHED = auto()
    # What signals want.
    TOLD = auto()  # an end
    RELOAD = auto()
    SIGNALLED = auto()  # something that is the worker's business
    # What silence tells.
    SILENT = auto()  # nobody has answered for half a second
    HEARD = auto()  # that is not so
    STUCK = auto()  # the worker will never answer again, nor heed a signal
    DESERTED = auto()  # the successor does not answer, and nobody sees to that
    CLOSING = auto()  # the keeper is about to end


class Action(Enum):
    """What is to be done."""

    FORWARD = auto()  # the signal to the worker
    KILL = auto()
    START_NOW = auto()
    START_LATER = auto()
    START_WITH_FILES = auto()  # after a longer while, or at a signal
    TRY_AGAIN = auto()
    END = auto()  # with the worker's exit code, 0 without a worker
    HOLD = auto()  # the socket that was offered
    FORGET = auto()  # everything that is a successor's now
    NOTE_SERVING = auto()
    ASK = auto()  # at the addresses that were said, whether somebody answers
    ASK_SUCCESSOR = auto()
    ASK_NO_MORE = auto()
    COUNT_SILENCE = auto()  # from the last answer on, until a worker serves
    SAY_GOODBYE = auto()  # for the worker, to the rules
    REFUSE_ONCE = auto()  # what came before the goodbye
    REFUSE_ALL = auto()  # what waits in the sockets, wherever that is
    TELL_SILENT = auto()
    TELL_NOBODY = auto()
    TELL_ANSWERED = auto()
    TELL_CUT_SHORT = auto()
    TELL_HOPELESS = auto()
    TELL_IDLE = auto()
    TELL_STANDING_BY = auto()
    TELL_DESERTED = auto()


State = tuple[Phase, Queries]
BEGIN: State = (Phase.RESTING, Queries.NOT_OURS)

ENDS = frozenset((Event.DONE, Event.REFUSED, Event.HOPELESS, Event.MISCONFIGURED, Event.CRASHED))
WORDS = frozenset((Event.OFFERED, Event.SERVES, Event.LEAVES, Event.HANDED_OVER))
SIGNALS = frozenset((Event.TOLD, Event.RELOAD, Event.SIGNALLED))
# After so many restarts of workers that never served, the next one will not either.
RESTARTS_IN_VAIN = 4
EXIT_GOOD, EXIT_MACHINE, EXIT_CONFIGURATION = 0, 1, 2


def end_of(code: int, queries: Queries, in_vain: int) -> Event:
    """Returns what the end of a worker means.

    Args:
        code: Its exit code, negative for the signal that killed it.
        queries: Who answered them; NOT_OURS if no worker of ours has served.
        in_vain: Workers in a row, before this one, that ended before they served.
    """
    if code == EXIT_GOOD:
        return Event.DONE
    if queries is Queries.NOT_OURS:
        if code in (EXIT_MACHINE, EXIT_CONFIGURATION):
            return Event.REFUSED
        if in_vain >= RESTARTS_IN_VAIN:
            return Event.HOPELESS
    return Event.MISCONFIGURED if code == EXIT_CONFIGURATION else Event.CRASHED


def step(state: State, event: Event, *, stays_by: bool) -> tuple[State, tuple[Action, ...]]:
    """Returns what an event leads to, and what is to be done, in this order.

    Args:
        state: Of before.
        event: What happened. One that is impossible then, or comes too late, changes nothing.
        stays_by: Whether the keeper is to stay when a successor has taken over.
    """
    phase, queries = state
    if event in IGNORED.get(phase, ()):
        return state, ()
    of_worker = _STAYING.get((phase, event)) if stays_by else None
    next_phase, actions = of_worker or WORKER[phase].get(event, (phase, ()))
    next_queries, more = QUERIES[queries].get(event, (queries, ()))
    return (next_phase, next_queries), (*more, *actions)


def is_refusing(state: State) -> bool:
    """Whether queries are refused from now on, until something else happens."""
    return state[1] in (Queries.SILENT, Queries.REFUSED)


_WorkerRow = tuple[Phase, tuple[Action, ...]]
_QueriesRow = tuple[Queries, tuple[Action, ...]]


def _to(phase: Phase, *actions: Action) -> _WorkerRow:
    return phase, actions


def _now(queries: Queries, *actions: Action) -> _QueriesRow:
    return queries, actions


def _at_end(phase: Phase, *actions: Action) -> dict[Event, _WorkerRow]:
    """Returns the rows of a worker that ends, however that be."""
    return dict.fromkeys(ENDS, (phase, actions))


def _as_last(queries: Queries, *actions: Action) -> dict[Event, _QueriesRow]:
    return dict.fromkeys(ENDS, (queries, actions))


# The keeper goes with a worker that was told to end, or ended by itself.
_GOES_ALONG = {
    **_at_end(Phase.ENDED, Action.TELL_CUT_SHORT, Action.END),
    Event.DONE: _to(Phase.ENDED, Action.END),
}


def _forwards(phase: Phase, told: Phase) -> dict[Event, _WorkerRow]:
    rows = dict.fromkeys(SIGNALS, (phase, (Action.FORWARD,)))
    return {**rows, Event.TOLD: (told, (Action.FORWARD,))}


WORKER: dict[Phase, dict[Event, _WorkerRow]] = {
    Phase.RESTING: {
        Event.STARTED: _to(Phase.RUNNING),
        Event.NOT_STARTED: _to(Phase.RESTING, Action.TRY_AGAIN),
        Event.TOLD: _to(Phase.ENDED, Action.TELL_IDLE, Action.END),
    },
    Phase.AWAITING_FILES: {
        Event.STARTED: _to(Phase.RUNNING),
        Event.NOT_STARTED: _to(Phase.AWAITING_FILES, Action.TRY_AGAIN),
        Event.TOLD: _to(Phase.ENDED, Action.TELL_IDLE, Action.END),
        Event.RELOAD: _to(Phase.AWAITING_FILES, Action.START_NOW),
    },
    Phase.RUNNING: {
        **_forwards(Phase.RUNNING, told=Phase.TOLD),
        Event.OFFERED: _to(Phase.RUNNING, Action.HOLD),
        Event.SERVES: _to(Phase.RUNNING, Action.NOTE_SERVING),
        Event.LEAVES: _to(Phase.LEAVING),
        Event.HANDED_OVER: _to(Phase.RELIEVED),
        Event.STUCK: _to(Phase.RUNNING, Action.KILL),
        Event.DONE: _to(Phase.ENDED, Action.END),
        Event.REFUSED: _to(Phase.ENDED, Action.END),
        Event.HOPELESS: _to(Phase.ENDED, Action.TELL_HOPELESS, Action.END),
        Event.MISCONFIGURED: _to(Phase.AWAITING_FILES, Action.START_WITH_FILES),
        Event.CRASHED: _to(Phase.RESTING, Action.START_LATER),
    },
    Phase.TOLD: {
        **_forwards(Phase.TOLD, told=Phase.TOLD),
        **_GOES_ALONG,
        Event.OFFERED: _to(Phase.TOLD, Action.HOLD),
        Event.SERVES: _to(Phase.TOLD, Action.NOTE_SERVING),
        Event.LEAVES: _to(Phase.LEAVING_AS_TOLD),
        Event.HANDED_OVER: _to(Phase.RELIEVED),
        Event.STUCK: _to(Phase.TOLD, Action.KILL),
    },
    Phase.LEAVING: {
        **_forwards(Phase.LEAVING, told=Phase.LEAVING_AS_TOLD),
        **_GOES_ALONG,
        Event.OFFERED: _to(Phase.LEAVING, Action.HOLD),
        Event.HANDED_OVER: _to(Phase.RELIEVED),
    },
    Phase.LEAVING_AS_TOLD: {
        **_forwards(Phase.LEAVING_AS_TOLD, told=Phase.LEAVING_AS_TOLD),
        **_GOES_ALONG,
        Event.OFFERED: _to(Phase.LEAVING_AS_TOLD, Action.HOLD),
        Event.HANDED_OVER: _to(Phase.RELIEVED),
    },
    Phase.RELIEVED: {
        **_forwards(Phase.RELIEVED, told=Phase.RELIEVED),
        **_at_end(Phase.ENDED, Action.END),
    },
    Phase.SUCCEEDED: {
        **_forwards(Phase.SUCCEEDED, told=Phase.RELIEVED),
        **_at_end(Phase.STANDING_BY, Action.TELL_STANDING_BY, Action.ASK_SUCCESSOR),
    },
    Phase.STANDING_BY: {
        Event.TOLD: _to(Phase.ENDED, Action.TELL_IDLE, Action.END),
        Event.DESERTED: _to(
            Phase.RESTING, Action.TELL_DESERTED, Action.FORGET, Action.START_NOW
        ),
    },
    Phase.ENDED: {},
}  # fmt: skip

# As PID 1: see ``supervise``.
_STAYING: dict[tuple[Phase, Event], _WorkerRow] = {
    (Phase.RUNNING, Event.HANDED_OVER): _to(Phase.SUCCEEDED),
    (Phase.LEAVING, Event.HANDED_OVER): _to(Phase.SUCCEEDED),
}

QUERIES: dict[Queries, dict[Event, _QueriesRow]] = {
    Queries.NOT_OURS: {
        Event.SERVES: _now(Queries.ANSWERED, Action.ASK),
        Event.HANDED_OVER: _now(Queries.NOT_OURS, Action.FORGET),
    },
    Queries.ANSWERED: {
        Event.SERVES: _now(Queries.ANSWERED, Action.ASK),
        Event.SILENT: _now(
            Queries.SILENT, Action.SAY_GOODBYE, Action.REFUSE_ONCE, Action.TELL_SILENT
        ),
        Event.LEAVES: _now(Queries.LEFT, Action.ASK_NO_MORE),
        Event.HANDED_OVER: _now(Queries.NOT_OURS, Action.FORGET),
        **_as_last(
            Queries.WAITING, Action.SAY_GOODBYE, Action.COUNT_SILENCE, Action.ASK_NO_MORE
        ),
    },
    Queries.SILENT: {
        Event.SERVES: _now(Queries.ANSWERED, Action.ASK, Action.TELL_ANSWERED),
        Event.HEARD: _now(Queries.ANSWERED, Action.TELL_ANSWERED),
        Event.LEAVES: _now(Queries.LEFT, Action.ASK_NO_MORE),
        Event.HANDED_OVER: _now(Queries.NOT_OURS, Action.FORGET),
        **_as_last(
            Queries.REFUSED, Action.SAY_GOODBYE, Action.COUNT_SILENCE, Action.ASK_NO_MORE
        ),
    },
    Queries.WAITING: {
        Event.SERVES: _now(Queries.ANSWERED, Action.ASK),
        Event.SILENT: _now(Queries.REFUSED, Action.REFUSE_ONCE, Action.TELL_NOBODY),
        Event.LEAVES: _now(Queries.LEFT),
        Event.HANDED_OVER: _now(Queries.NOT_OURS, Action.FORGET),
        **_as_last(Queries.WAITING, Action.SAY_GOODBYE),
        Event.CLOSING: _now(Queries.WAITING, Action.REFUSE_ALL),
    },
    Queries.REFUSED: {
        Event.SERVES: _now(Queries.ANSWERED, Action.ASK, Action.TELL_ANSWERED),
        Event.LEAVES: _now(Queries.LEFT),
        Event.HANDED_OVER: _now(Queries.NOT_OURS, Action.FORGET),
        **_as_last(Queries.REFUSED, Action.SAY_GOODBYE),
        Event.CLOSING: _now(Queries.REFUSED, Action.REFUSE_ALL),
    },
    Queries.LEFT: {
        Event.HANDED_OVER: _now(Queries.NOT_OURS, Action.FORGET),
        **_as_last(Queries.WAITING, Action.COUNT_SILENCE),
    },
}  # fmt: skip

# What comes too late, or is no business of ours then. Neither table hears of it.
IGNORED: dict[Phase, frozenset[Event]] = {
    Phase.RESTING: frozenset((Event.RELOAD, Event.SIGNALLED)),
    Phase.AWAITING_FILES: frozenset((Event.SIGNALLED,)),
    Phase.LEAVING: frozenset((Event.SERVES, Event.LEAVES, Event.STUCK)),
    Phase.LEAVING_AS_TOLD: frozenset((Event.SERVES, Event.LEAVES, Event.STUCK)),
    Phase.RELIEVED: WORDS | {Event.STUCK},
    Phase.SUCCEEDED: WORDS | {Event.STUCK},
    Phase.STANDING_BY: frozenset((Event.RELOAD, Event.SIGNALLED)),
    Phase.ENDED: SIGNALS,
}
