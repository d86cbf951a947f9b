"""What people can do, as far as it needs no Discord."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import discord
import pytest

from bot import queue as waiting
from bot.blocked import BlockedPrompt
from bot.commands import DOUBLE_TAP, DoubleClickGuard, generate
from bot.form import ControlId
from bot.permissions import check_may_change
from bot.queue import OTHERS_MENU, Waiting
from jobs.draft import Draft, Stage
from jobs.names import MENU_LIMIT
from store import JobParams, Store
from tests.factories import a_catalog, an_offer
from tests.standins.discord.limits import embed_faults, view_faults
from text import UserError

GUILD, ELSEWHERE, ME = 1, 2, 3


class FakeGuild:
    """`discord.Guild`, as far as names of members go."""

    def __init__(self, names: dict[int, str]) -> None:
        self.id = GUILD
        self.names = names
        self.asked: list[int] = []
        self.hangs = False

    async def fetch_member(self, user_id: int) -> Any:
        self.asked.append(user_id)
        if self.hangs:
            await asyncio.Event().wait()
        if user_id not in self.names:
            response: Any = SimpleNamespace(status=404, reason="Unknown Member")
            raise discord.NotFound(response, "Unknown Member")
        return SimpleNamespace(display_name=self.names[user_id])


class Queue:
    """/queue, over a real store."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(folder / "jobs.db")
        self.guild = FakeGuild({10: "Ada", 11: "Lee"})
        self.waiting = Waiting(self.store)

    def ask(self, user_id: int, guild_id: int = GUILD) -> str:
        """A queued job of this person's; its id."""
        names = dict.fromkeys(("model", "sampler", "scheduler", "positive_prompt"), "x" * 500)
        ids = {"user_id": str(user_id), "guild_id": str(guild_id), "channel_id": "4"}
        return self.store.insert(JobParams(**ids, **names, steps=20, cfg=7.0))

    def menus(self, *, moderator: bool = True) -> list[Any]:
        """The menus that I am shown; all of it is checked against Discord's limits."""

        async def show() -> discord.ui.View:
            embed, view = await self.waiting.message(somebody(self.guild, moderator))
            assert embed_faults(embed) == []
            assert view_faults(view) == [] or not view.children
            return view

        return [
            item for item in asyncio.run(show()).children if isinstance(item, discord.ui.Select)
        ]

    def labels(self) -> list[str]:
        """What the menu for a moderator shows."""
        (menu,) = self.menus()
        return [option.label for option in menu.options]


def somebody(guild: FakeGuild, moderator: bool) -> Any:
    """An interaction of mine."""
    permissions = discord.Permissions(manage_messages=moderator)
    user = SimpleNamespace(id=ME)
    return SimpleNamespace(user=user, guild=guild, guild_id=guild.id, permissions=permissions)


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
        ("The one now: Ada", adas),
        ("Number 3: Lee", lees[0]),
        ("Number 4: Lee", lees[1]),
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
    assert queue.guild.asked == [10]


def test_a_name_that_discord_does_not_tell_is_left_away(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "NAME_SECONDS", 0.0)
    queue.ask(10)
    queue.ask(77)  # has left the server
    queue.guild.hangs = True
    assert queue.labels() == ["Number 1", "Number 2"]
    queue.guild.hangs = False
    monkeypatch.setattr(waiting, "NAME_SECONDS", 10.0)
    assert queue.labels() == ["Number 1: Ada", "Number 2"]
    queue.guild.names = {}
    assert queue.labels() == ["Number 1: Ada", "Number 2"]  # it is asked for once


def test_a_moderator_may_change_what_is_of_the_same_server_alone() -> None:
    guild = FakeGuild({})
    moderator, member = somebody(guild, True), somebody(guild, False)
    check_may_change(member, str(ME), ELSEWHERE)  # one's own
    check_may_change(moderator, "10", str(GUILD))
    for person, guild_id in ((moderator, ELSEWHERE), (member, GUILD)):
        with pytest.raises(UserError):
            check_may_change(person, "10", str(guild_id))


# Again


def test_a_second_press_within_two_seconds_is_of_the_same_tap_and_a_later_one_counts() -> None:
    now = [100.0]
    taps = DoubleClickGuard(lambda: now[0])
    assert not taps.is_second(1, "job")
    assert taps.is_second(1, "job")  # on a clock that has not moved on
    now[0] += DOUBLE_TAP - 0.1
    assert taps.is_second(1, "job")
    now[0] += 0.2
    assert not taps.is_second(1, "job")
    assert taps.is_second(1, "job")


def test_other_people_and_other_jobs_have_presses_of_their_own() -> None:
    taps = DoubleClickGuard(lambda: 100.0)
    assert not taps.is_second(1, "job")
    assert not taps.is_second(2, "job")
    assert not taps.is_second(1, "other job")


def test_a_press_that_came_to_nothing_does_not_count() -> None:
    taps = DoubleClickGuard(lambda: 100.0)
    assert not taps.is_second(1, "job")
    taps.forget(1, "job")
    taps.forget(1, "job")
    assert not taps.is_second(1, "job")


def test_presses_are_remembered_no_longer_than_they_matter() -> None:
    now = [100.0]
    taps = DoubleClickGuard(lambda: now[0])
    for user_id in range(1000):
        taps.is_second(user_id, "job")
    now[0] += DOUBLE_TAP
    taps.is_second(1, "job")
    assert len(taps._first) == 1


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
