"""When the catalog is refreshed: one refresh at a time, and in the background where none waits."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import discord
import pytest

from bot.commands import refresh
from comfyui.errors import Unreachable
from comfyui.object_info import ObjectInfo
from jobs.catalog import Catalog, Offer, Workflows
from jobs.names import NamesByList
from tests.factories import an_offer

OFFERS = {"flux": an_offer(("a",), ("b",), ("c",))}


class Server:
    """ComfyUI and the owner's workflows: how often it was asked, and what is found; the answer may
    be held up."""

    def __init__(self) -> None:
        self.began: list[float] = []
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.is_away = False
        self.left_out: dict[str, str] = {}
        self.bug: Exception | None = None
        self.catalog = Catalog(cast(Any, self), cast(Any, self))

    def object_info(self) -> ObjectInfo:
        self.began.append(time.monotonic())
        assert self.may_answer.wait(20)
        if self.is_away:
            raise Unreachable("refused")
        if self.bug is not None:
            raise self.bug
        return ObjectInfo({})

    def offers(
        self, info: ObjectInfo, names: NamesByList
    ) -> tuple[Mapping[str, Offer], dict[str, str]]:
        return OFFERS, dict(self.left_out)


@pytest.fixture
def server() -> Server:
    return Server()


def done(catalog: Catalog) -> None:
    """Wait for what was planned."""
    with catalog._planned:
        pass


def test_a_catalog_that_is_new_enough_is_not_refreshed(server: Server) -> None:
    before = time.monotonic() - 1
    server.catalog.refresh_if_older(before)
    done(server.catalog)
    assert server.began == []


def test_an_older_catalog_is_refreshed_once_however_many_ask(server: Server) -> None:
    catalog = server.catalog
    absent_since = time.monotonic()
    server.may_answer.clear()
    for _ in range(50):
        catalog.refresh_if_older(absent_since)
    server.may_answer.set()
    assert catalog.refresh() is OFFERS  # it waits for the one under way, if that has begun
    catalog.refresh_if_older(absent_since)
    done(catalog)
    assert len(server.began) <= 2


def test_a_catalog_that_grows_old_again_is_refreshed_again(server: Server) -> None:
    for _ in range(3):
        server.catalog.refresh_if_older(time.monotonic())
        done(server.catalog)
    assert len(server.began) == 3


def test_one_refresh_at_a_time(server: Server) -> None:
    server.may_answer.clear()
    threads = [threading.Thread(target=server.catalog.refresh) for _ in range(3)]
    for thread in threads:
        thread.start()
    while not server.began:
        time.sleep(0.001)
    assert len(server.began) == 1
    server.may_answer.set()
    for thread in threads:
        thread.join(20)
    assert len(server.began) == 3


def test_a_failure_is_one_line_however_often_it_is_repeated(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    server.is_away = True
    for _ in range(3):
        assert not server.catalog.try_refresh()
    assert [record.getMessage() for record in caplog.records] == [
        "ComfyUI's lists cannot be read again: refused"
    ]
    server.is_away = False
    assert server.catalog.refresh() is OFFERS
    server.is_away = True
    server.catalog.try_refresh()
    assert len(caplog.records) == 2


def test_who_asks_for_a_refresh_reads_why_it_failed(server: Server) -> None:
    server.is_away = True
    with pytest.raises(Unreachable):
        server.catalog.refresh()


def test_an_error_of_our_own_in_the_background_is_logged_and_the_next_refresh_works(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    server.bug = KeyError("a bug")
    server.catalog.refresh_if_older(time.monotonic())
    done(server.catalog)
    assert any(record.exc_info for record in caplog.records)
    server.bug = None
    server.catalog.refresh_if_older(time.monotonic())
    done(server.catalog)
    assert server.catalog.offers is OFFERS


def test_what_the_command_has_read_is_as_fresh_as_what_was_read_in_the_background(
    server: Server,
) -> None:
    catalog = server.catalog
    catalog.offers = OFFERS
    said: list[str] = []

    async def send(text: str, **_: object) -> None:
        said.append(text)

    async def defer(**_: object) -> None:
        pass

    with ThreadPoolExecutor(2) as threads:
        interaction: Any = SimpleNamespace(
            guild_id=1,
            permissions=discord.Permissions(manage_guild=True),
            client=SimpleNamespace(
                context=SimpleNamespace(comfyui_threads=threads, catalog=catalog)
            ),
            response=SimpleNamespace(defer=defer),
            followup=SimpleNamespace(send=send),
        )
        before = time.monotonic()
        answer: Any = refresh.callback
        asyncio.run(answer(interaction))
    catalog.refresh_if_older(before)
    done(catalog)
    assert len(server.began) == 1
    assert said == ["Lists refreshed: 1 models (0 new, 0 gone), 1 samplers, 1 schedulers."]


def test_why_a_workflow_is_left_out_is_logged_once_and_again_for_another_reason(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    for reason in ("no node 6", "no node 6", "no node 7"):
        server.left_out["flux"] = reason
        server.catalog.refresh()
    assert [record.getMessage() for record in caplog.records] == [
        "the workflow flux is left out: no node 6",
        "the workflow flux is left out: no node 7",
    ]


def test_a_failure_leaves_the_catalog_as_old_as_it_was(server: Server) -> None:
    server.is_away = True
    moment = time.monotonic()
    for _ in range(2):
        server.catalog.refresh_if_older(moment)
        done(server.catalog)
    assert len(server.began) == 2


def test_the_catalog_of_one_picture_is_never_refreshed(server: Server) -> None:
    catalog = Catalog(cast(Any, server), Workflows(Path("main/base.json")), can_refresh=False)
    catalog.refresh_if_older(time.monotonic() + 1)
    assert not catalog.try_refresh()
    assert server.began == []
