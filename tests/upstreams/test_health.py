from __future__ import annotations

from nodecache.upstreams.health import Health


def fail_dials(health: Health, times: list[float]) -> None:
    for now in times:
        health.count_dial_failure(now, now)


def test_more_failures_than_max_fails_mean_down() -> None:
    health = Health(max_fails=2)
    for _ in range(2):
        health.count_failure()
    assert repr(health) == "up, 2 fails"
    health.count_failure()
    assert repr(health) == "down, 3 fails"


def test_max_fails_0_is_never_down_and_never_probed() -> None:
    health = Health(max_fails=0)
    for _ in range(100):
        health.count_failure()
    assert not health.is_down
    assert not health.wants_probes


def test_one_response_forgets_all_failures() -> None:
    health = Health(max_fails=0)
    fail_dials(health, [10.0, 10.1, 10.3, 10.7])
    health.recover()
    assert repr(health) == "up, 0 fails"
    assert not health.has_trouble
    assert not health.is_dead(10.7)
    assert health.dial_at <= 10.7


def test_dials_that_fail_are_50_ms_apart() -> None:
    health = Health(max_fails=2)
    now, pauses = 100.0, []
    for _ in range(8):
        health.count_dial_failure(now, now)
        pauses.append(round(health.dial_at - now, 3))
        now = health.dial_at
    assert pauses == [0.05] * 8


def test_dials_that_fail_together_count_once() -> None:
    health = Health(max_fails=2)
    fail_dials(health, [100.0] * 8)
    assert health.dial_at == 100.05


def test_one_refusal_is_not_death() -> None:
    health = Health(max_fails=2)
    health.count_dial_failure(100.0, 100.0)
    assert not health.is_dead(100.0)


def test_one_connect_time_out_is_not_death() -> None:
    health = Health(max_fails=2)
    health.count_dial_failure(100.0, 100.4)
    assert not health.is_dead(100.4)


def test_refusals_over_a_third_of_a_second_are_death() -> None:
    health = Health(max_fails=2)
    fail_dials(health, [100.0, 100.05, 100.15])
    assert not health.is_dead(100.15)
    health.count_dial_failure(100.35, 100.35)
    assert health.is_dead(100.35)


def test_a_failure_long_after_the_last_begins_a_new_story() -> None:
    health = Health(max_fails=2)
    fail_dials(health, [100.0, 100.05, 100.15, 100.35])
    assert not health.is_dead(110.0)
    health.count_dial_failure(110.0, 110.0)
    assert not health.is_dead(110.0)
    assert round(health.dial_at - 110.0, 3) == 0.05
