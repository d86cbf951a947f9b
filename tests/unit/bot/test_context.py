"""The double-click guard of the bot's context."""

from __future__ import annotations

import time

import pytest

from bot.context import DOUBLE_CLICK_SECONDS, DoubleClickGuard


def test_a_second_press_within_two_seconds_is_a_repeat_and_a_later_one_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    guard = DoubleClickGuard()
    assert not guard.is_repeat(1, "job")
    assert guard.is_repeat(1, "job")  # on a clock that has not moved on
    now[0] += DOUBLE_CLICK_SECONDS - 0.1
    assert guard.is_repeat(1, "job")
    now[0] += 0.2
    assert not guard.is_repeat(1, "job")
    assert guard.is_repeat(1, "job")


def test_other_people_and_other_jobs_have_presses_of_their_own() -> None:
    guard = DoubleClickGuard()
    assert not guard.is_repeat(1, "job")
    assert not guard.is_repeat(2, "job")
    assert not guard.is_repeat(1, "other job")


def test_a_press_that_came_to_nothing_does_not_count() -> None:
    guard = DoubleClickGuard()
    assert not guard.is_repeat(1, "job")
    guard.forget(1, "job")
    guard.forget(1, "job")
    assert not guard.is_repeat(1, "job")


def test_presses_are_remembered_no_longer_than_they_matter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    guard = DoubleClickGuard()
    for user_id in range(1000):
        guard.is_repeat(user_id, "job")
    now[0] += DOUBLE_CLICK_SECONDS
    guard.is_repeat(1, "job")
    assert len(guard._first) == 1
