"""/queue without Discord: the moderator's menu, over a real store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import discord
import pytest

from bot.queue import OTHERS_MENU, queue_message
from job import JobParams
from jobs.names import MENU_LIMIT
from store import Store
from tests.standins.discord.limits import embed_faults, view_faults

GUILD, ELSEWHERE, ME = 1, 2, 3


class Queue:
    """/queue, over a real store."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(folder / "jobs.db")
        self.away_since: float | None = None
        self.answering = 1
        self.shown = ""  # above the jobs of one's own

    def number(self, key: str) -> None:
        """Return the number of a server, of which there is one."""

    def ask(self, user_id: int, guild_id: int = GUILD, prompt: str = "x" * 500) -> str:
        """Queue a job of this person's, and return its id."""
        names = dict.fromkeys(("model", "sampler", "scheduler"), "x" * 500)
        ids = {"user_id": str(user_id), "guild_id": str(guild_id), "channel_id": "4"}
        params = JobParams(**ids, **names, positive_prompt=prompt, steps=20, cfg=7.0)
        return self.store.insert(params)

    def menus(self, *, moderator: bool = True) -> list[Any]:
        """Return the menus of my /queue, all of which is checked against Discord's limits."""

        async def show() -> discord.ui.View:
            context: Any = SimpleNamespace(store=self.store, comfy=self)
            embed, view = await queue_message(context, somebody(moderator))
            self.shown = str(embed.description)
            assert embed_faults(embed) == []
            assert view_faults(view) == [] or not view.children
            return view

        return [
            item for item in asyncio.run(show()).children if isinstance(item, discord.ui.Select)
        ]


def somebody(moderator: bool) -> Any:
    """Return an interaction of mine."""
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


def test_its_first_line_says_that_comfyui_is_away(queue: Queue) -> None:
    queue.menus()
    assert queue.shown == "The queue is empty."
    queue.away_since = time.monotonic() - 12 * 60 - 5
    queue.menus()
    assert queue.shown == "ComfyUI has not answered for 12 minutes.\nThe queue is empty."


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
