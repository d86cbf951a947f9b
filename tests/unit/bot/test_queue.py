"""What people can do, as far as it needs no Discord."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import discord
import pytest

from bot.blocked import BlockedPrompt
from bot.context import DOUBLE_CLICK_SECONDS, DoubleClickGuard
from bot.form import ControlId
from bot.gen import generate
from bot.permissions import check_may_change
from bot.queue import OTHERS_MENU, queue_message
from jobs.draft import Draft, Stage
from jobs.names import MENU_LIMIT
from store import JobParams, Store
from tests.factories import a_catalog, an_offer
from tests.standins.discord.limits import embed_faults, view_faults
from text import UserError

GUILD, ELSEWHERE, ME = 1, 2, 3


class Queue:
    """/queue, over a real store."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(folder / "jobs.db")

    def ask(self, user_id: int, guild_id: int = GUILD, prompt: str = "x" * 500) -> str:
        """A queued job of this person's; its id."""
        names = dict.fromkeys(("model", "sampler", "scheduler"), "x" * 500)
        ids = {"user_id": str(user_id), "guild_id": str(guild_id), "channel_id": "4"}
        params = JobParams(**ids, **names, positive_prompt=prompt, steps=20, cfg=7.0)
        return self.store.insert(params)

    def menus(self, *, moderator: bool = True) -> list[Any]:
        """The menus that I am shown; all of it is checked against Discord's limits."""

        async def show() -> discord.ui.View:
            embed, view = await queue_message(self.store, somebody(moderator))
            assert embed_faults(embed) == []
            assert view_faults(view) == [] or not view.children
            return view

        return [
            item for item in asyncio.run(show()).children if isinstance(item, discord.ui.Select)
        ]


def somebody(moderator: bool) -> Any:
    """An interaction of mine."""
    permissions = discord.Permissions(manage_messages=moderator)
    user = SimpleNamespace(id=ME)
    return SimpleNamespace(user=user, guild_id=GUILD, permissions=permissions)


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    queue = Queue(tmp_path)
    yield queue
    queue.store.close()


def test_a_moderators_menu_has_the_jobs_of_others_in_this_server_alone(queue: Queue) -> None:
    mine, adas = queue.ask(ME), queue.ask(10)
    queue.ask(11, ELSEWHERE)
    queue.store.start(adas)
    lees = [queue.ask(11), queue.ask(11)]
    (menu,) = queue.menus()
    assert menu.placeholder == OTHERS_MENU
    assert [(option.label, option.value) for option in menu.options] == [
        ("Running", adas),
        ("Number 3", lees[0]),
        ("Number 4", lees[1]),
    ]
    assert mine not in [option.value for option in menu.options]
    assert queue.menus(moderator=False) == []


def test_where_nobody_else_waits_a_moderator_has_no_menu(queue: Queue) -> None:
    queue.ask(ME)
    queue.ask(11, ELSEWHERE)
    assert queue.menus() == []


def test_many_jobs_fit_beside_ones_own_and_the_menu_says_that_there_are_more(queue: Queue) -> None:
    for _ in range(30):
        queue.ask(ME)
        queue.ask(10)
    (menu,) = queue.menus()
    assert menu.placeholder == f"{OTHERS_MENU} (the first 25 of 30)"
    assert len(menu.options) == MENU_LIMIT


def test_a_moderators_menu_shows_the_first_words_of_each_prompt(queue: Queue) -> None:
    queue.ask(10, prompt="a fox\nin the snow")
    queue.ask(11, prompt="word " * 100)
    (menu,) = queue.menus()
    first, second = (option.description for option in menu.options)
    assert first == "a fox in the snow"
    assert second == ("word " * 20)[:99] + "…"


def test_a_moderator_may_change_what_is_of_the_same_server_alone() -> None:
    moderator, member = somebody(True), somebody(False)
    check_may_change(member, str(ME), ELSEWHERE)  # one's own
    check_may_change(moderator, "10", str(GUILD))
    for person, guild_id in ((moderator, ELSEWHERE), (member, GUILD)):
        with pytest.raises(UserError):
            check_may_change(person, "10", str(guild_id))


# Again


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


def test_a_refused_prompt_can_be_corrected_as_soon_as_the_refusal_is_seen() -> None:
    offer = an_offer(params=frozenset())
    draft = Draft.from_file("flux", offer, 150)
    draft.change(positive_prompt="an otter")
    seen = []

    async def send(*_: object, **__: object) -> None:
        seen.append(draft.stage)

    async def refuse(_: object) -> None:
        seen.append(draft.stage)
        raise BlockedPrompt(("otter",))

    async def defer() -> None:
        pass

    interaction: Any = SimpleNamespace(
        user=SimpleNamespace(id=ME),
        guild_id=GUILD,
        channel_id=4,
        response=SimpleNamespace(defer=defer),
        followup=SimpleNamespace(send=send),
    )
    context: Any = SimpleNamespace(
        forms=SimpleNamespace(draft=lambda *_: draft),
        catalog=a_catalog({"flux": offer}),
        check_place=lambda _: None,
        settings=SimpleNamespace(random_seeds=True, max_steps=150),
        accept=refuse,
    )
    asyncio.run(generate(context, interaction, ControlId("form", "generate", "key")))
    assert seen == [Stage.SENDING, Stage.OPEN]
