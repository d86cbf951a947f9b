"""What the commands share, without Discord: when ComfyUI's lists are read again."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import discord
import pytest

from binder import Defaults
from bot.commands import BotContext, refresh
from bot.permissions import cannot_post
from comfyui.errors import Unreachable
from comfyui.object_info import ComfyOptions
from jobs.catalog import Offer
from jobs.lists import Lists

OPTIONS = ComfyOptions(("a",), ("b",), ("c",))


class Server:
    """What is read, and how often; `answer` may be held up."""

    def __init__(self) -> None:
        self.began: list[float] = []
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.is_away = False

    def read(self) -> ComfyOptions:
        self.began.append(time.monotonic())
        assert self.may_answer.wait(20)
        if self.is_away:
            raise Unreachable("refused")
        return OPTIONS


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as threads:
        yield threads


def done(threads: ThreadPoolExecutor) -> None:
    """Wait for what was planned."""
    threads.shutdown()


def test_lists_that_are_new_enough_are_not_read_again(threads: ThreadPoolExecutor) -> None:
    server = Server()
    before = time.monotonic()
    lists = Lists(server.read, threads)
    lists.read_if_older(before)
    done(threads)
    assert server.began == []


def test_older_lists_are_read_once_however_many_ask(threads: ThreadPoolExecutor) -> None:
    server = Server()
    lists = Lists(server.read, threads)
    absent_since = time.monotonic()
    server.may_answer.clear()
    for _ in range(50):
        lists.read_if_older(absent_since)
    server.may_answer.set()
    assert lists.read() is OPTIONS  # it waits for the one under way, if that has begun
    lists.read_if_older(absent_since)
    done(threads)
    assert len(server.began) <= 2


def test_lists_that_grow_old_again_are_read_again() -> None:
    server = Server()
    with ThreadPoolExecutor(1) as threads:
        lists = Lists(server.read, threads)
        for _ in range(3):
            lists.read_if_older(time.monotonic())
            threads.submit(lambda: None).result()
    assert len(server.began) == 3


def test_one_read_at_a_time(threads: ThreadPoolExecutor) -> None:
    server = Server()
    lists = Lists(server.read, threads)
    server.may_answer.clear()
    reads = [threading.Thread(target=lists.read) for _ in range(3)]
    for read in reads:
        read.start()
    while not server.began:
        time.sleep(0.001)
    assert len(server.began) == 1
    server.may_answer.set()
    for read in reads:
        read.join(20)
    assert len(server.began) == 3


def test_a_failure_is_one_line_however_often_it_is_repeated(
    threads: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server()
    lists = Lists(server.read, threads)
    server.is_away = True
    for _ in range(3):
        assert lists.try_to_read() is None
    assert [record.getMessage() for record in caplog.records] == [
        "ComfyUI's lists cannot be read again: refused"
    ]
    server.is_away = False
    assert lists.read() is OPTIONS
    server.is_away = True
    lists.try_to_read()
    assert len(caplog.records) == 2


def test_whoever_asks_for_them_hears_why_they_cannot_be_read(threads: ThreadPoolExecutor) -> None:
    server = Server()
    server.is_away = True
    with pytest.raises(Unreachable):
        Lists(server.read, threads).read()


def test_what_refresh_has_read_is_as_fresh_as_what_was_read_in_the_background(
    threads: ThreadPoolExecutor,
) -> None:
    server = Server()
    offers = {"flux": Offer(OPTIONS, Defaults(None, None, None, None, None), frozenset())}
    context: Any = SimpleNamespace(comfyui_threads=threads, left_out={})
    context.forms = SimpleNamespace(offers=offers)

    def read() -> dict[str, Offer]:
        server.read()
        return offers

    context.lists = Lists(read, threads)
    said: list[str] = []

    async def send(text: str, **_: object) -> None:
        said.append(text)

    async def defer(**_: object) -> None:
        pass

    interaction: Any = SimpleNamespace(
        guild_id=1,
        permissions=discord.Permissions(manage_guild=True),
        client=SimpleNamespace(context=context),
        response=SimpleNamespace(defer=defer),
        followup=SimpleNamespace(send=send),
    )
    before = time.monotonic()
    answer: Any = refresh.callback
    asyncio.run(answer(interaction))
    context.lists.read_if_older(before)
    done(threads)
    assert len(server.began) == 1
    assert said == ["The lists are fresh: 1 models (0 new, 0 gone), 1 samplers, 1 schedulers."]


def test_why_a_workflow_is_left_out_is_logged_once_and_again_for_another_reason(
    caplog: pytest.LogCaptureFixture,
) -> None:
    left_out: dict[str, str] = {}
    context: Any = SimpleNamespace(left_out={}, forms=SimpleNamespace(), worker=SimpleNamespace())
    context._comfy = SimpleNamespace(object_info=dict)
    context._workflows = SimpleNamespace(offers=lambda info: ({}, dict(left_out)))
    for reason in ("no node 6", "no node 6", "no node 7"):
        left_out["flux"] = reason
        BotContext._read_lists(context)
    assert [record.getMessage() for record in caplog.records] == [
        "the workflow flux is left out: no node 6",
        "the workflow flux is left out: no node 7",
    ]


def test_a_failure_leaves_the_lists_as_old_as_they_were() -> None:
    server = Server()
    server.is_away = True
    with ThreadPoolExecutor(1) as threads:
        lists = Lists(server.read, threads)
        moment = time.monotonic()
        for _ in range(2):
            lists.read_if_older(moment)
            threads.submit(lambda: None).result()
    assert len(server.began) == 2


def test_at_the_end_of_the_bot_nothing_is_read_and_nothing_fails(
    threads: ThreadPoolExecutor,
) -> None:
    server = Server()
    lists = Lists(server.read, threads)
    threads.shutdown()
    lists.read_if_older(time.monotonic())
    assert server.began == []
    assert lists.read() is OPTIONS


def asked(channel: object = None, **granted: bool) -> Any:
    """An interaction where the bot has these permissions."""
    return SimpleNamespace(app_permissions=discord.Permissions(**granted), channel=channel)


IN_CHANNEL = {"view_channel": True, "embed_links": True, "attach_files": True}


@pytest.mark.parametrize(
    ("changes", "lacking"),
    [
        ({}, "Send Messages"),
        ({"send_messages": True}, ""),
        ({"send_messages": True, "attach_files": False}, "Attach Files"),
        (
            {"send_messages": True, "embed_links": False, "attach_files": False},
            "Embed Links, Attach Files",
        ),
        ({"send_messages": True, "view_channel": False}, "View Channel"),
        ({"administrator": True, "view_channel": False}, ""),
    ],
)
def test_what_the_bot_lacks_to_post_is_named(changes: dict[str, bool], lacking: str) -> None:
    sentence = cannot_post(asked(**{**IN_CHANNEL, **changes}))
    assert sentence == (
        f"I may not post pictures in this channel: ask a moderator to allow me {lacking} here."
        " Until then your picture comes as a direct message."
        if lacking
        else ""
    )


def test_in_a_thread_another_permission_counts() -> None:
    thread = discord.Thread.__new__(discord.Thread)
    assert "Send Messages in Threads here" in cannot_post(
        asked(thread, send_messages=True, **IN_CHANNEL)
    )
    assert cannot_post(asked(thread, send_messages_in_threads=True, **IN_CHANNEL)) == ""
