"""Who holds the sockets, without a process: the rows are facts, and all stories are told."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import pytest

from nodecache.process.keeper.acting import Acting
from nodecache.process.keeper.holding import (
    BEGIN,
    ENDS,
    IGNORED,
    QUERIES,
    SIGNALS,
    WORDS,
    WORKER,
    Action,
    Event,
    Phase,
    Queries,
    State,
    end_of,
    is_refusing,
    step,
)
from nodecache.process.keeper.log import Log


def in_order(events: Iterable[Event]) -> list[Event]:
    return sorted(events, key=lambda event: event.value)


OF_QUERIES_ALONE = {Event.SILENT, Event.HEARD, Event.CLOSING}
WITHOUT_WORKER = {Phase.RESTING, Phase.AWAITING_FILES, Phase.STANDING_BY, Phase.ENDED}
STARTS = {Event.STARTED, Event.NOT_STARTED}
# Nobody speaks or ends who does not run, and nobody starts beside one who does.
IMPOSSIBLE = {
    phase: (WORDS | ENDS | {Event.STUCK}) if phase in WITHOUT_WORKER else STARTS for phase in Phase
}
for phase in set(Phase) - {Phase.STANDING_BY}:
    IMPOSSIBLE[phase] = IMPOSSIBLE[phase] | {Event.DESERTED}
for phase in (Phase.STANDING_BY, Phase.ENDED):
    IMPOSSIBLE[phase] = IMPOSSIBLE[phase] | STARTS


def after(
    *events: Event, state: State = BEGIN, stays_by: bool = False
) -> tuple[State, tuple[Action, ...]]:
    """Returns where a story leads, and what is done at its last event."""
    actions: tuple[Action, ...] = ()
    for event in events:
        assert event not in IMPOSSIBLE[state[0]], (state, event)
        state, actions = step(state, event, stays_by=stays_by)
    return state, actions


SERVING = (Event.STARTED, Event.SERVES)


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("event", in_order(set(Event) - OF_QUERIES_ALONE))
def test_each_pair_has_one_row_or_is_ignored_or_impossible(phase: Phase, event: Event) -> None:
    places = (WORKER[phase], IGNORED.get(phase, ()), IMPOSSIBLE[phase])
    assert sum(event in place for place in places) == 1


@pytest.mark.parametrize("queries", Queries)
def test_queries_hear_of_nothing_that_the_worker_cannot_do(queries: Queries) -> None:
    assert set(QUERIES[queries]) <= WORDS | ENDS | OF_QUERIES_ALONE


def test_each_action_can_be_carried_out() -> None:
    acting = Acting(Log())  # raises AttributeError for want of a method
    acting.held.close()
    done = {action for rows in WORKER.values() for _, more in rows.values() for action in more}
    done |= {action for rows in QUERIES.values() for _, more in rows.values() for action in more}
    assert done == set(Action)


def test_worker_that_crashes_is_followed_by_another_and_said_goodbye_for() -> None:
    state, actions = after(*SERVING, Event.CRASHED)
    assert state == (Phase.RESTING, Queries.WAITING)
    assert Action.SAY_GOODBYE in actions
    assert actions[-1] is Action.START_LATER


def test_queries_of_a_worker_that_ended_wait_before_they_are_refused() -> None:
    state, _ = after(*SERVING, Event.CRASHED, Event.HEARD)
    assert not is_refusing(state)
    state, actions = after(Event.SILENT, state=state)
    assert is_refusing(state)
    assert actions == (Action.REFUSE_ONCE, Action.TELL_NOBODY)


def test_crash_loop_is_one_silence() -> None:
    state, _ = after(*SERVING, Event.CRASHED, Event.SILENT)
    state, actions = after(Event.STARTED, Event.SILENT, Event.CRASHED, state=state)
    assert is_refusing(state)
    assert not {Action.TELL_NOBODY, Action.REFUSE_ONCE, Action.COUNT_SILENCE} & set(actions)


def test_silent_worker_is_said_goodbye_for_before_what_came_is_refused() -> None:
    state, actions = after(*SERVING, Event.SILENT)
    assert is_refusing(state)
    assert actions == (Action.SAY_GOODBYE, Action.REFUSE_ONCE, Action.TELL_SILENT)
    assert after(Event.SILENT, state=state) == (state, ())


@pytest.mark.parametrize("event", [Event.HEARD, Event.SERVES])
def test_worker_that_answers_again_ends_the_refusals(event: Event) -> None:
    state, actions = after(*SERVING, Event.SILENT, event)
    assert state == (Phase.RUNNING, Queries.ANSWERED)
    assert Action.TELL_ANSWERED in actions


def test_nothing_is_refused_before_a_worker_of_ours_has_served() -> None:
    state, actions = after(
        Event.STARTED, Event.SILENT, Event.CRASHED, Event.SILENT, Event.STARTED, Event.SILENT
    )
    assert state == (Phase.RUNNING, Queries.NOT_OURS)
    assert actions == ()


def test_worker_that_leaves_sees_to_queries_itself() -> None:
    state, actions = after(*SERVING, Event.LEAVES)
    assert actions == (Action.ASK_NO_MORE,)
    state, actions = after(Event.SILENT, state=state)
    assert not is_refusing(state)
    _, actions = after(Event.DONE, state=state)
    assert Action.SAY_GOODBYE not in actions
    assert Action.END in actions


def test_what_still_waits_at_the_end_is_refused() -> None:
    _, actions = after(*SERVING, Event.TOLD, Event.LEAVES, Event.DONE, Event.CLOSING)
    assert actions == (Action.REFUSE_ALL,)
    _, actions = after(Event.STARTED, Event.TOLD, Event.DONE, Event.CLOSING)
    assert actions == ()  # they may be a predecessor's


@pytest.mark.parametrize("end", in_order(ENDS))
@pytest.mark.parametrize("before", [(Event.TOLD,), (Event.LEAVES,), (Event.TOLD, Event.LEAVES)])
def test_keeper_goes_with_a_worker_that_was_to_end(before: tuple[Event, ...], end: Event) -> None:
    state, actions = after(*SERVING, *before, end)
    assert state[0] is Phase.ENDED
    assert Action.END in actions
    assert (Action.TELL_CUT_SHORT in actions) == (end is not Event.DONE)


def test_signal_is_the_workers_unless_none_runs() -> None:
    for event in SIGNALS:
        assert after(*SERVING, event)[1] == (Action.FORWARD,)
    state, actions = after(Event.TOLD)
    assert state[0] is Phase.ENDED
    assert actions == (Action.TELL_IDLE, Action.END)


def test_reload_starts_a_worker_at_once_if_the_last_one_was_misconfigured() -> None:
    assert after(*SERVING, Event.MISCONFIGURED, Event.RELOAD)[1] == (Action.START_NOW,)
    assert after(*SERVING, Event.CRASHED, Event.RELOAD)[1] == ()


def test_stuck_worker_is_killed_unless_it_leaves() -> None:
    assert after(*SERVING, Event.STUCK)[1] == (Action.KILL,)
    assert after(*SERVING, Event.TOLD, Event.STUCK)[1] == (Action.KILL,)
    assert after(*SERVING, Event.LEAVES, Event.STUCK)[1] == ()
    assert after(*SERVING, Event.HANDED_OVER, Event.STUCK)[1] == ()


@pytest.mark.parametrize("leaves", [(), (Event.LEAVES,), (Event.TOLD,)])
def test_sockets_are_forgotten_as_soon_as_a_successor_serves(leaves: tuple[Event, ...]) -> None:
    state, actions = after(*SERVING, *leaves, Event.HANDED_OVER)
    assert Action.FORGET in actions
    for event in (Event.OFFERED, Event.SERVES, Event.SILENT):
        assert after(event, state=state) == (state, ())
    assert after(Event.CRASHED, state=state)[0][0] is Phase.ENDED


@pytest.mark.parametrize("leaves", [(), (Event.LEAVES,)])
def test_keeper_that_stays_by_serves_again_when_its_successor_is_gone(
    leaves: tuple[Event, ...],
) -> None:
    story = (*SERVING, *leaves, Event.HANDED_OVER, Event.DONE)
    state, actions = after(*story, stays_by=True)
    assert state == (Phase.STANDING_BY, Queries.NOT_OURS)
    assert Action.ASK_SUCCESSOR in actions
    state, actions = after(Event.SILENT, Event.DESERTED, state=state, stays_by=True)
    assert state == BEGIN
    assert actions == (Action.TELL_DESERTED, Action.FORGET, Action.START_NOW)


@pytest.mark.parametrize(
    "story",
    [(Event.TOLD, Event.HANDED_OVER), (Event.HANDED_OVER, Event.TOLD),
     (Event.LEAVES, Event.TOLD, Event.HANDED_OVER)],
)  # fmt: skip
def test_keeper_that_was_told_to_end_does_not_stand_by(story: tuple[Event, ...]) -> None:
    assert after(*SERVING, *story, Event.DONE, stays_by=True)[0][0] is Phase.ENDED


@pytest.mark.parametrize(
    ("code", "queries", "in_vain", "event"),
    [
        (0, Queries.NOT_OURS, 9, Event.DONE),
        (1, Queries.NOT_OURS, 0, Event.REFUSED),
        (2, Queries.NOT_OURS, 0, Event.REFUSED),
        (1, Queries.ANSWERED, 0, Event.CRASHED),
        (2, Queries.REFUSED, 9, Event.MISCONFIGURED),
        (7, Queries.NOT_OURS, 3, Event.CRASHED),
        (-9, Queries.NOT_OURS, 4, Event.HOPELESS),
        (-9, Queries.WAITING, 4, Event.CRASHED),
    ],
)
def test_exit_code_means_what_it_does(
    code: int, queries: Queries, in_vain: int, event: Event
) -> None:
    assert end_of(code, queries, in_vain) is event


HAS_SERVED = (Queries.ANSWERED, Queries.SILENT)


class World:
    """What is true outside, whatever happens: the tables are to do right by it."""

    def __init__(self, stays_by: bool) -> None:
        self.stays_by = stays_by
        self.state = BEGIN
        self.runs = False
        self.may_start = True
        self.is_answering = False
        self.have_others = True  # somebody else may serve, or a successor does
        self.may_end = False
        self.has_ended = False

    def key(self) -> tuple[object, ...]:
        return tuple(vars(self).values())

    def possible(self) -> list[Event]:
        """Returns what can come next."""
        if self.has_ended:
            return [Event.CLOSING]
        events = set(Event) - IMPOSSIBLE[self.state[0]] - {Event.CLOSING}
        if not self.may_start:
            events -= STARTS
        if self.state[1] is Queries.REFUSED:
            events -= {Event.HEARD}  # for this silence lasts until a worker serves
        return in_order(events)

    def happens(self, event: Event) -> None:
        self.note(event)
        before = self.state
        self.state, actions = step(before, event, stays_by=self.stays_by)
        for action in actions:
            self.check(action, event, before)

    def check_all(self) -> None:
        """Sees whether the state fits what is true."""
        phase = self.state[0]
        assert self.has_ended == (phase is Phase.ENDED)
        assert self.runs == (phase not in WITHOUT_WORKER)
        if phase in (Phase.RESTING, Phase.AWAITING_FILES):
            assert self.may_start, "nobody waits for ever"
        if is_refusing(self.state) and not self.has_ended:
            assert not self.is_answering
            assert not self.have_others

    def note(self, event: Event) -> None:
        """Has the event be so."""
        if event is Event.STARTED:
            assert not self.runs, "two workers"
            self.runs, self.may_start = True, False
        elif event in ENDS:
            self.runs = self.is_answering = False
            self.may_end |= event in (Event.DONE, Event.REFUSED, Event.HOPELESS)
        elif event in (Event.SILENT, Event.STUCK):
            self.is_answering = False
        elif event in (Event.SERVES, Event.HEARD) and self.runs:
            self.note_answer(event)
        elif event is Event.HANDED_OVER:
            self.is_answering, self.have_others = False, True
            self.may_end |= not self.stays_by
        elif event in (Event.TOLD, Event.LEAVES):
            self.may_end = True

    def note_answer(self, event: Event) -> None:
        if self.state[0] in (Phase.RUNNING, Phase.TOLD):
            self.is_answering = event is Event.SERVES or self.state[1] in HAS_SERVED
            self.have_others &= event is not Event.SERVES

    def check(self, action: Action, event: Event, before: State) -> None:
        match action:
            case Action.START_NOW | Action.START_LATER | Action.START_WITH_FILES:
                assert not self.runs
                self.may_start = True
            case Action.FORGET:
                assert event in (Event.HANDED_OVER, Event.DESERTED)
                assert self.have_others
            case Action.REFUSE_ONCE | Action.REFUSE_ALL | Action.SAY_GOODBYE:
                assert not self.is_answering
                assert not self.have_others
            case Action.KILL | Action.FORWARD:
                assert self.runs
            case Action.HOLD:
                assert before[0] not in (Phase.RELIEVED, Phase.SUCCEEDED)
            case Action.END:
                assert self.may_end
                self.has_ended = True


@pytest.mark.parametrize("stays_by", [False, True])
def test_whatever_happens_there_is_one_worker_and_sockets_stay_until_others_have_them(
    stays_by: bool,
) -> None:
    begin = World(stays_by)
    seen, to_see = {begin.key()}, [begin]
    states = {begin.state}
    while to_see:
        world = to_see.pop()
        for event in world.possible():
            following = copy.copy(world)
            following.happens(event)
            following.check_all()
            if following.key() not in seen:
                seen.add(following.key())
                states.add(following.state)
                to_see.append(following)
    never = set() if stays_by else {Phase.SUCCEEDED, Phase.STANDING_BY}
    assert {phase for phase, _ in states} == set(Phase) - never
    print(f"\n{len(seen)} worlds with {len(states)} states")
