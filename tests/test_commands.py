"""What people can do, as far as it needs no Discord."""

from __future__ import annotations

from commands import DOUBLE_TAP, Taps


def test_a_second_press_within_two_seconds_is_of_the_same_tap_and_a_later_one_counts() -> None:
    now = [100.0]
    taps = Taps(lambda: now[0])
    assert not taps.is_second(1, "job")
    assert taps.is_second(1, "job")  # on a clock that has not moved on
    now[0] += DOUBLE_TAP - 0.1
    assert taps.is_second(1, "job")
    now[0] += 0.2
    assert not taps.is_second(1, "job")
    assert taps.is_second(1, "job")


def test_other_people_and_other_jobs_have_presses_of_their_own() -> None:
    taps = Taps(lambda: 100.0)
    assert not taps.is_second(1, "job")
    assert not taps.is_second(2, "job")
    assert not taps.is_second(1, "other job")


def test_a_press_that_came_to_nothing_does_not_count() -> None:
    taps = Taps(lambda: 100.0)
    assert not taps.is_second(1, "job")
    taps.forget(1, "job")
    taps.forget(1, "job")
    assert not taps.is_second(1, "job")


def test_presses_are_remembered_no_longer_than_they_matter() -> None:
    now = [100.0]
    taps = Taps(lambda: now[0])
    for user_id in range(1000):
        taps.is_second(user_id, "job")
    now[0] += DOUBLE_TAP
    taps.is_second(1, "job")
    assert len(taps._first) == 1
