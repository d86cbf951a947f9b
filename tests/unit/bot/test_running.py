"""The messages about a job in progress, without Discord or ComfyUI: the "Generating…" message and
the "Queued!" replies, between the harness's fakes."""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import discord
import pytest

from bot import running
from bot.controls import job_view
from bot.messages import HANGING_SECONDS
from bot.running import QueuedReplies, absence, place_in_queue, running_embed
from comfyui.progress import Preview, Progress
from job import Job, JobStatus
from store import StoreError
from tests.factories import JOB_ID, USER, a_job, params
from tests.harness.fake_discord import LIMIT, NotedStore, Posted, World, http_error, quick_world
from tests.standins.discord.limits import embed_faults
from text import duration

# The text of its progress


def progress_text(progress: Progress) -> str:
    return str(running_embed(a_job(), progress).fields[0].value)


def step_of(progress: Progress, node: str, value: int, most: int) -> str:
    """Return what is shown once the feed has reported this step."""
    progress.on_event("progress", {"node": node, "value": value, "max": most})
    return progress_text(progress)


def test_the_progress_is_a_percentage_a_bar_the_pass_and_the_step_once_the_feed_has_told() -> None:
    progress = Progress(JOB_ID, {"239": 10, "52": 30})
    shown = step_of(progress, "239", 5, 10)
    progress.ran_since = 1_600_000_000.9
    assert progress_text(progress) == (
        "12 % `██░░░░░░░░░░░░░░░░░░`, pass 1 of 2, step 5 of 10\nstarted <t:1600000000:R>"
    )
    assert shown.startswith("12 % `██░░░░░░░░░░░░░░░░░░`, pass 1 of 2, step 5 of 10\n")
    progress.on_event("executed", {"node": "52"})
    assert progress_text(progress).startswith("100 % `████████████████████`, pass 2 of 2")


def test_each_step_shows_also_where_the_bar_does_not_grow() -> None:
    progress = Progress(JOB_ID, {"239": 1, "face": 20})
    assert "step 7 of 20" in step_of(progress, "face", 7, 20)
    full = "100 % `████████████████████`, pass 2 of 2"
    assert f"{full}, step 20 of 20\n" in step_of(progress, "face", 20, 20)
    # The second face: all the steps again.
    assert f"{full}, step 1 of 20, round 2\n" in step_of(progress, "face", 1, 20)
    assert f"{full}, step 2 of 20, round 2\n" in step_of(progress, "face", 2, 20)
    assert "step 1 of 20, round 3\n" in step_of(progress, "face", 1, 20)


@pytest.mark.parametrize(
    ("before", "text"),
    [
        (2, "Waiting: 2 other prompts are before it in ComfyUI"),
        (1, "Waiting: 1 other prompt is before it in ComfyUI"),
        (None, "Waiting for ComfyUI to begin"),
    ],
)
def test_what_a_job_waits_for_is_shown_in_place_of_its_progress(
    before: int | None, text: str
) -> None:
    progress = Progress(JOB_ID, {"239": 10})
    progress.before = before
    assert progress_text(progress) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "ComfyUI does not answer"),
        (59, "ComfyUI does not answer"),
        (60, "ComfyUI has not answered for 1 minute"),
        (12 * 60 + 59, "ComfyUI has not answered for 12 minutes"),
        (119 * 60 + 59, "ComfyUI has not answered for 119 minutes"),
        (23.5 * 3600, "ComfyUI has not answered for 23 hours"),
    ],
)
def test_an_absence_of_comfyui_is_shown_in_place_of_all_else(seconds: float, text: str) -> None:
    progress = Progress(JOB_ID, {"239": 10})
    progress.set_running()
    progress.away_since = time.monotonic() - seconds
    assert absence(progress.away_since) == text
    assert progress_text(progress) == f"{text}; your picture waits"


@pytest.mark.parametrize(
    ("seconds", "when"), [(-1, "1 minute"), (60, "1 minute"), (240, "4 minutes")]
)
def test_a_job_that_waits_as_comfyui_fails_everything_says_when_it_is_tried(
    seconds: float, when: str
) -> None:
    progress = Progress(JOB_ID, {"239": 10})
    progress.held_until = time.monotonic() + seconds
    assert progress_text(progress) == (
        f"ComfyUI has failed the last pictures; trying again in {when}; your picture waits"
    )


def test_while_no_step_can_be_seen_the_message_says_why() -> None:
    progress = Progress(JOB_ID, {"239": 10})
    progress.set_running()  # as ComfyUI's queue says, without a word from the feed
    progress.ran_since = 1_600_000_000.9
    started = "\nstarted <t:1600000000:R>"
    assert progress_text(progress) == "ComfyUI does not report progress" + started
    loads = "Waiting for the first step: ComfyUI loads the model" + started
    progress.on_event("execution_start", {})
    assert progress_text(progress) == loads
    nodes = {"239": {"state": "running", "value": 0, "max": 1}}  # it has begun: no step is done
    progress.on_event("progress_state", {"nodes": nodes})
    assert progress_text(progress) == loads
    assert step_of(progress, "239", 1, 10).startswith("10 % `")


def test_after_a_restart_of_comfyui_the_bar_goes_back() -> None:
    progress = Progress(JOB_ID, {"239": 10})
    assert "100 %" in step_of(progress, "239", 10, 10)
    progress.restart()
    assert progress_text(progress) == "Waiting for ComfyUI to begin"
    assert "10 %" in step_of(progress, "239", 1, 10)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with quick_world(tmp_path, monkeypatch) as world:
        yield world


# The "Generating…" message


def test_a_quick_job_needs_no_message(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        monkeypatch.setattr(running, "ANNOUNCE_AFTER", 3600.0)
        job_id = world.running()
        world.start(job_id)
        await world.turns()
        assert world.channel.acts == []
        world.store.complete(job_id, ["a.png"])
        world.reporter.job_ended(job_id, [b"one"])
        await world.reported(job_id)
        assert world.channel.contents == [f"<@{USER}>"]
        assert world.channel.count("send") == 1

    world.run(story)


def test_a_slow_jobs_message_is_posted_once_and_goes_with_the_result(world: World) -> None:
    async def story() -> None:
        job_id = world.running()
        world.start(job_id)
        message = await world.announced(job_id)
        assert message.content == f"Generating for <@{USER}>"
        assert message.allowed_mentions is None  # the client's own default pings nobody
        buttons: list[Any] = message.view.children if message.view else []
        assert [button.custom_id for button in buttons] == [f"job:cancel:{job_id}"]
        world.store.complete(job_id, ["a.png"])
        world.reporter.job_ended(job_id, [b"one"])
        await world.reported(job_id)
        assert world.channel.contents == [f"<@{USER}>"]
        assert (world.channel.count("send"), world.channel.count("delete")) == (2, 1)

    world.run(story)


def test_where_nothing_changes_there_is_nothing_to_edit(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0

    def look(job: Job, progress: Progress) -> discord.Embed:
        nonlocal looks
        looks += 1
        world.changed()
        return running_embed(job, progress)

    async def looked(times: int) -> None:
        before = looks
        await world.until(lambda: looks >= before + times)

    async def story() -> None:
        monkeypatch.setattr(running, "running_embed", look)
        job_id = world.running()
        progress = world.start(job_id)
        message = await world.announced(job_id)
        await looked(10)
        assert world.channel.count("edit") == 0
        assert "%" not in str(message.embeds[0].fields[0].value)
        for value, shown in ((5, "25 %"), (10, "50 %")):
            before = world.channel.count("edit")
            progress.on_event("progress", {"node": "239", "value": value, "max": 10})
            await world.until(lambda: world.channel.count("edit") > before)  # noqa: B023
            await looked(10)
            assert world.channel.count("edit") == before + 1
            assert shown in str(message.embeds[0].fields[0].value)

    world.run(story)


def test_an_edit_that_fails_for_a_while_is_made_up_for(world: World) -> None:
    async def story() -> None:
        world.channel.fail("edit", http_error(503), aiohttp.ClientError())
        job_id = world.running()
        progress = world.start(job_id)
        message = await world.announced(job_id)
        progress.on_event("progress", {"node": "239", "value": 5, "max": 10})
        await world.until(lambda: "25 %" in str(message.embeds[0].to_dict()))
        assert world.channel.count("edit") == 3
        assert world.log() == ""

    world.run(story)


def test_a_message_that_a_moderator_deleted_is_left_alone_and_the_job_is_reported(
    world: World,
) -> None:
    async def story() -> None:
        job_id = world.running()
        progress = world.start(job_id)
        message = await world.announced(job_id)
        del world.channel.messages[message.id]
        progress.on_event("progress", {"node": "239", "value": 5, "max": 10})
        await world.until(lambda: "its progress cannot be shown" in world.log())
        world.store.complete(job_id, ["a.png"])
        world.reporter.job_ended(job_id, [b"one"])
        await world.reported(job_id)
        assert world.channel.contents == [f"<@{USER}>"]
        assert world.channel.count("edit") == 1

    world.run(story)


def test_a_message_whose_answer_was_lost_is_not_posted_twice(world: World) -> None:
    async def story() -> None:
        world.channel.lose(aiohttp.ServerDisconnectedError())
        job_id = world.running()
        world.start(job_id)
        await world.announced(job_id)
        assert world.channel.count("send") == 2
        assert world.channel.contents == [f"Generating for <@{USER}>"]

    world.run(story)


@pytest.mark.parametrize("is_forgotten", [False, True], ids=["nonce-known", "nonce-forgotten"])
@pytest.mark.parametrize("error", [aiohttp.ServerDisconnectedError(), http_error(503)], ids=str)
def test_a_message_that_was_posted_without_an_answer_goes_with_the_result(
    world: World, error: Exception, is_forgotten: bool
) -> None:
    async def story() -> None:
        world.channel.forgets_nonces = is_forgotten  # then there are several for a while
        world.channel.lose(*[error] * 3)
        job_id = world.running()
        world.start(job_id)
        await world.announced(job_id)
        assert len(world.channel.messages) == (4 if is_forgotten else 1)
        world.store.complete(job_id, ["a.png"])
        world.reporter.job_ended(job_id, [b"one"])
        await world.reported(job_id)
        assert world.channel.contents == [f"<@{USER}>"]

    world.run(story)


def test_a_post_that_hangs_when_the_job_ends_is_looked_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        monkeypatch.setattr(running, "HANGING_SECONDS", 0.01)
        world.channel.hangs_after = 1  # it is posted, and its answer never comes
        job_id = world.running()
        world.start(job_id)
        await world.until(lambda: len(world.channel.messages) == 1)
        world.store.complete(job_id, ["a.png"])
        world.reporter.job_ended(job_id, [b"one"])
        await world.reported(job_id)
        assert world.channel.contents == [f"<@{USER}>"]

    world.run(story)


def test_a_message_whose_post_or_edit_hangs_is_tried_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        monkeypatch.setattr(running, "TRY_SECONDS", 0.05)
        world.channel.hangs_after = 1
        job_id = world.running()
        progress = world.start(job_id)
        message = await world.announced(job_id)
        assert list(world.channel.messages.values()) == [message]
        world.channel.hanging_edits = 1
        progress.on_event("progress", {"node": "239", "value": 10, "max": 10})
        await world.until(lambda: "50 %" in world.channel.texts)
        assert world.log() == ""

    world.run(story)


@pytest.mark.parametrize("ended", [JobStatus.COMPLETED, JobStatus.CANCELLED])
def test_of_several_messages_of_an_earlier_run_none_is_left_behind(
    world: World, ended: JobStatus
) -> None:
    async def story() -> None:
        job_id = world.running()
        world.store.announced(job_id, "")  # it began a post, and heard no more
        for _ in range(2):
            world.channel.put(content="Generating", view=job_view(job_id, "cancel"))
        other = world.channel.put(content="Generating", view=job_view(JOB_ID, "cancel"))
        if ended is JobStatus.COMPLETED:
            world.store.complete(job_id, ["a.png"])
        else:
            world.store.cancel(job_id, JobStatus.RUNNING)
        await world.reporter.catch_up()
        await world.reported(job_id)
        del world.channel.messages[other.id]  # KeyError if it went, too
        expected = {
            JobStatus.COMPLETED: f"<@{USER}>",
            JobStatus.CANCELLED: f"Cancelled: the picture for <@{USER}>",
        }
        assert world.channel.contents == [expected[ended]]

    world.run(story)


@pytest.mark.parametrize("noting", ["", "its id"], ids=["begin-of-the-post", "id"])
def test_a_database_that_is_locked_at_that_moment_neither_doubles_nor_orphans_the_message(
    world: World, monkeypatch: pytest.MonkeyPatch, noting: str
) -> None:
    announced = NotedStore.announced
    failures = itertools.count(1)

    def flaky(store: NotedStore, job_id: str, message_id: str) -> bool:
        if bool(message_id) == bool(noting) and next(failures) <= 2:
            raise StoreError("locked")
        return announced(store, job_id, message_id)

    async def story() -> None:
        monkeypatch.setattr(NotedStore, "announced", flaky)
        job_id = world.running()
        progress = world.start(job_id)
        await world.until(lambda: len(world.channel.messages) == 1)
        progress.on_event("progress", {"node": "239", "value": 10, "max": 10})
        await world.until(lambda: "50 %" in world.channel.texts)
        assert world.channel.count("send") == 1
        world.store.complete(job_id, ["a.png"])
        world.reporter.job_ended(job_id, [b"one"])
        await world.reported(job_id)
        assert world.channel.contents == [f"<@{USER}>"]

    world.run(story)


def test_a_message_whose_id_could_never_be_noted_is_found_by_the_next_run(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    announced = NotedStore.announced

    def locked(store: NotedStore, job_id: str, message_id: str) -> bool:
        if message_id:
            raise StoreError("locked")
        return announced(store, job_id, message_id)

    async def story() -> None:
        world.channel.forgets_nonces = True
        job_id = world.running()
        with monkeypatch.context() as patch:
            patch.setattr(NotedStore, "announced", locked)
            world.start(job_id)
            await world.until(lambda: "its progress was not shown" in world.log(logging.DEBUG))
            await world.killed()
        world.restarted()
        world.start(job_id)
        message = await world.announced(job_id)
        assert list(world.channel.messages.values()) == [message]
        assert world.channel.count("send") == 1

    world.run(story)


@pytest.mark.parametrize("is_noted", [True, False], ids=["noted", "answer-lost"])
def test_the_message_of_an_earlier_run_shows_the_progress_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch, is_noted: bool
) -> None:
    async def story() -> None:
        monkeypatch.setattr(running, "EDIT_EVERY", 3600.0)
        world.channel.forgets_nonces = True
        job_id = world.running()
        earlier = world.channel.put(content="Generating", view=job_view(job_id, "cancel"))
        world.store.announced(job_id, str(earlier.id) if is_noted else "")
        progress = Progress(job_id, {"239": 10, "52": 10})
        progress.on_event("progress", {"node": "239", "value": 10, "max": 10})
        world.reporter.job_started(job_id, progress)
        await world.until(lambda: "50 %" in world.channel.texts)
        assert list(world.channel.messages.values()) == [earlier]
        assert world.channel.count("send") == 0
        assert (await world.announced(job_id)) is earlier

    world.run(story)


def test_a_message_that_cannot_be_posted_does_not_keep_the_result_away(world: World) -> None:
    async def story() -> None:
        world.channel.fail("send", http_error(403))
        job_id = world.running()
        world.start(job_id)
        await world.until(lambda: "its progress cannot be shown" in world.log())
        world.store.complete(job_id, ["a.png"])
        world.reporter.job_ended(job_id, [b"one"])
        await world.reported(job_id)
        assert world.channel.contents == [f"<@{USER}>"]

    world.run(story)


def test_a_job_that_ended_meanwhile_is_not_announced(world: World) -> None:
    async def story() -> None:
        job_id = world.completed()
        world.start(job_id)
        await world.until(lambda: "get" in world.told)
        await world.turns()
        assert world.channel.acts == []

    world.run(story)


def test_a_cancelled_jobs_message_says_so_and_there_is_no_report(world: World) -> None:
    async def story() -> None:
        job_id = world.running()
        world.start(job_id)
        message = await world.announced(job_id)
        world.store.cancel(job_id, JobStatus.RUNNING)
        world.reporter.job_ended(job_id)
        await world.reported(job_id)
        assert world.channel.contents == [f"Cancelled: the picture for <@{USER}>"]
        assert message.view is None  # nothing is left to press
        assert world.channel.count("send") == 1

    world.run(story)


def test_a_job_that_somebody_else_took_out_of_the_queue_is_told_to_the_person(
    world: World,
) -> None:
    async def story() -> None:
        job_id = world.running()
        world.start(job_id)
        message = await world.announced(job_id)
        world.store.cancel(job_id, JobStatus.RUNNING, "The owner removed it.")
        world.reporter.job_ended(job_id)
        await world.reported(job_id)
        assert message.content == f"Cancelled: the picture for <@{USER}>"
        told = list(world.channel.messages.values())[-1]
        assert told.content == f"<@{USER}>"
        assert told.allowed_mentions is not None
        assert told.allowed_mentions.to_dict()["users"] == [USER]
        assert "The owner removed it." in world.channel.texts

    world.run(story)


def test_a_job_cancelled_while_it_waited_needs_no_word_in_the_channel(world: World) -> None:
    async def story() -> None:
        job_id = world.store.insert(params())
        world.store.cancel(job_id, JobStatus.QUEUED)
        world.reporter.job_ended(job_id)
        await world.reported(job_id)
        assert world.channel.acts == []

    world.run(story)


def test_the_message_is_posted_before_the_report_is(world: World) -> None:
    async def story() -> None:
        world.channel.is_open.clear()
        job_id = world.running()
        world.start(job_id)
        await world.until(lambda: world.channel.count("begin") == 1)
        world.store.complete(job_id, ["a.png"])
        world.reporter.job_ended(job_id, [b"one"])
        await world.turns()
        assert world.channel.count("begin") == 1  # else the message would come after, and stay
        world.channel.is_open.set()
        await world.reported(job_id)
        assert world.channel.contents == [f"<@{USER}>"]

    world.run(story)


# The picture in it


def preview(data: bytes, suffix: str = ".jpg") -> Preview:
    return Preview(data, suffix, None)


def shown_picture(message: Posted) -> str | None:
    """Return the URL of the picture in its embed."""
    return message.embeds[0].image.url


def test_the_message_shows_the_newest_picture_with_a_description(world: World) -> None:
    async def story() -> None:
        job_id = world.running(positive_prompt="*" * 2000)
        progress = world.start(job_id)
        message = await world.announced(job_id)
        assert shown_picture(message) is None
        for name, data in (("preview.jpg", b"one"), ("preview.png", b"two")):
            progress.preview = preview(data, name[-4:])
            await world.until(lambda: message.files == {name: data})  # noqa: B023
            assert shown_picture(message) == f"attachment://{name}"
            (described,) = message.descriptions
            assert described == "Preview of: " + "*" * 1011 + "…"
        await world.turns()
        assert all(file.fp.closed for file in world.channel.uploads)
        assert embed_faults(message.embeds[0]) == []

    world.run(story)


def test_a_picture_goes_up_again_only_if_it_has_changed(world: World) -> None:
    async def story() -> None:
        job_id = world.running()
        progress = world.start(job_id)
        message = await world.announced(job_id)
        progress.preview = preview(b"one")
        await world.until(lambda: bool(message.files))
        progress.preview = preview(b"one")  # once more from the server
        for value in (1, 2, 3):  # the text goes on, and keeps the picture
            progress.on_event("progress", {"node": "239", "value": value, "max": 10})
            await world.until(lambda: f"step {value} of 10" in world.channel.texts)  # noqa: B023
            assert shown_picture(message) == "attachment://preview.jpg"
        assert world.channel.pictures == [b"one"]
        assert message.files == {"preview.jpg": b"one"}
        assert world.channel.count("edit") == 4

    world.run(story)


def test_a_new_picture_waits_its_time_and_the_text_does_not(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        monkeypatch.setattr(running, "PICTURE_EVERY", 3600.0)
        job_id = world.running()
        progress = world.start(job_id)
        message = await world.announced(job_id)
        progress.preview = preview(b"the first comes at once")
        await world.until(lambda: bool(message.files))
        for value in (1, 2):
            progress.preview = preview(b"%d" % value)
            progress.on_event("progress", {"node": "239", "value": value, "max": 10})
            await world.until(lambda: f"step {value} of 10" in world.channel.texts)  # noqa: B023
        assert shown_picture(message) == "attachment://preview.jpg"
        monkeypatch.setattr(running, "PICTURE_EVERY", 0.0)
        await world.until(lambda: len(world.channel.pictures) == 2)
        assert world.channel.pictures == [b"the first comes at once", b"2"]

    world.run(story)


def test_an_upload_that_hangs_delays_no_result(world: World) -> None:
    async def story() -> None:
        job_id = world.running()
        progress = world.start(job_id)
        message = await world.announced(job_id)
        world.channel.hanging_edits = 1
        progress.preview = preview(b"one")
        await world.until(lambda: world.channel.hanging_edits == 0)
        world.store.complete(job_id, ["a.png"])
        world.reporter.job_ended(job_id, [b"one"])
        began = asyncio.get_running_loop().time()
        await world.reported(job_id)
        assert asyncio.get_running_loop().time() - began < HANGING_SECONDS
        assert world.channel.contents == [f"<@{USER}>"]
        assert message.files == {}

    world.run(story)


def test_an_upload_that_fails_for_a_while_is_made_up_for(world: World) -> None:
    async def story() -> None:
        job_id = world.running()
        progress = world.start(job_id)
        message = await world.announced(job_id)
        world.channel.fail("edit", http_error(503), aiohttp.ClientError(), asyncio.TimeoutError())
        progress.preview = preview(b"one")
        await world.until(lambda: message.files == {"preview.jpg": b"one"})
        assert world.log() == ""

    world.run(story)


@pytest.mark.parametrize("status", [400, 403, 413])
def test_where_pictures_are_refused_the_text_goes_on(world: World, status: int) -> None:
    async def story() -> None:
        job_id = world.running()
        progress = world.start(job_id)
        message = await world.announced(job_id)
        world.channel.fail("edit", http_error(status))
        progress.preview = preview(b"one")
        await world.until(lambda: "refuses a picture" in world.log())
        progress.preview = preview(b"two")
        progress.on_event("progress", {"node": "239", "value": 5, "max": 10})
        await world.until(lambda: "25 %" in world.channel.texts)
        assert shown_picture(message) is None
        assert world.channel.pictures == []
        assert world.log().count("\n") == 0

    world.run(story)


@pytest.mark.parametrize("has_picture", [False, True])
def test_the_message_of_an_earlier_run_shows_no_picture_but_the_newest(
    world: World, has_picture: bool
) -> None:
    async def story() -> None:
        job_id = world.running()
        old = {"preview.png": b"of the earlier run"}
        earlier = world.channel.put(view=job_view(job_id, "cancel"), files=old)
        world.store.announced(job_id, str(earlier.id))
        progress = Progress(job_id, {"239": 10})
        progress.preview = preview(b"new") if has_picture else None
        world.reporter.job_started(job_id, progress)
        await world.until(lambda: earlier.files != old)
        assert earlier.files == ({"preview.jpg": b"new"} if has_picture else {})
        assert shown_picture(earlier) == ("attachment://preview.jpg" if has_picture else None)
        await world.turns()
        assert world.channel.count("edit") == 1

    world.run(story)


def test_after_a_restart_of_comfyui_the_picture_of_what_is_lost_goes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "PICTURE_EVERY", 3600.0)  # it need not wait for its time

    async def story() -> None:
        job_id = world.running()
        progress = world.start(job_id)
        message = await world.announced(job_id)
        progress.preview = preview(b"one")
        await world.until(lambda: bool(message.files))
        progress.restart()
        await world.until(lambda: not message.files)
        assert shown_picture(message) is None

    world.run(story)


def test_a_cancelled_jobs_message_loses_its_picture_and_its_bar(world: World) -> None:
    async def story() -> None:
        job_id = world.running()
        progress = world.start(job_id)
        message = await world.announced(job_id)
        progress.on_event("progress", {"node": "239", "value": 5, "max": 10})
        progress.preview = preview(b"one")
        await world.until(lambda: bool(message.files))
        world.store.cancel(job_id, JobStatus.RUNNING)
        world.reporter.job_ended(job_id)
        await world.reported(job_id)
        assert world.channel.contents == [f"Cancelled: the picture for <@{USER}>"]
        assert message.files == {}
        assert shown_picture(message) is None
        assert message.embeds[0].fields == []

    world.run(story)


def test_once_a_job_has_ended_no_picture_of_it_is_held_while_its_report_waits(
    world: World,
) -> None:
    async def story() -> None:
        job_id = world.running()
        progress = world.start(job_id)
        message = await world.announced(job_id)
        progress.preview = preview(b"a picture of a job that has ended")
        await world.until(lambda: bool(message.files))
        world.channel.is_open.clear()
        world.store.complete(job_id, ["a.png"])
        world.reporter.job_ended(job_id, [b"one"])
        await world.until(lambda: world.channel.count("begin") == 2)
        assert progress.preview is None
        gc.collect()
        assert not [held for held in gc.get_objects() if isinstance(held, Preview)]
        world.channel.is_open.set()
        await world.reported(job_id)

    world.run(story)


# The "Queued!" reply


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(1, "5 s"), (42, "40 s"), (54, "55 s"), (55, "1 min"), (185, "3 min"), (7300, "2 h")],
)
def test_a_time_is_said_in_few_words(seconds: float, text: str) -> None:
    assert duration(seconds) == text
    assert place_in_queue(2, seconds) == f"You are position **2** in the queue (about {text})."


class FakeWebhook:
    """A webhook that keeps what each of one person's replies says, edit by edit."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._failures: list[Exception] = []
        self.hanging: set[int] = set()  # the next edits of these are never confirmed
        self.edits: list[tuple[int, str]] = []
        self.without_buttons: list[int] = []

    def fail(self, *errors: Exception) -> None:
        """Have the next edits raise these errors."""
        self._failures += errors

    async def edit_message(self, message_id: int, **changes: Any) -> None:
        self._world.changed()
        if self._failures:
            raise self._failures.pop(0)
        if message_id in self.hanging:
            self.hanging.remove(message_id)
            await asyncio.Event().wait()
        self.edits.append((message_id, changes["content"]))
        if "view" in changes:
            assert changes["view"] is None
            self.without_buttons.append(message_id)

    def texts(self, message_id: int) -> list[str]:
        return [text for name, text in self.edits if name == message_id]


class Line:
    """A queue, and a reply for each job in it, numbered from 0."""

    def __init__(self, world: World, length: int) -> None:
        self.world = world
        self.webhook = FakeWebhook(world)
        self.seconds: float | None = 20.0  # that a job takes, as far as anybody can tell
        self.comfy: Any = SimpleNamespace(away_since=None, answering=1)
        self.replies = QueuedReplies(world.store, self.comfy)
        vars(world.store)["estimate"] = self.estimate
        world.reporter.replies = self.replies
        self.jobs = [world.store.insert(params()) for _ in range(length)]
        for number in range(length):
            self.follow(number)

    def estimate(self, position: int, servers: int) -> float | None:
        return self.seconds and position * self.seconds

    def follow(self, number: int) -> None:
        webhook: Any = self.webhook
        first = place_in_queue(number + 1, self.estimate(number + 1, 1))
        self.replies.follow(self.jobs[number], webhook, number, first, "")

    def begin(self, number: int) -> None:
        """Start a job as the worker does."""
        assert self.world.store.start(self.jobs[number])
        self.world.start(self.jobs[number])

    async def end(self, number: int) -> None:
        """Complete a job, and return once its picture is posted."""
        self.world.store.complete(self.jobs[number], ["a.png"])
        self.world.reporter.job_ended(self.jobs[number], [b"one"])
        await self.world.until(lambda: bool(self.world.job(self.jobs[number]).delivered_at))

    async def says(self, number: int, text: str) -> None:
        """Return once the reply has this text."""
        await self.world.until(lambda: self.webhook.texts(number)[-1:] == [text])

    async def at_rest(self) -> None:
        """Return once a round has found nothing to edit."""
        edits = -1
        while len(self.webhook.edits) > edits:
            edits, rounds = len(self.webhook.edits), self.rounds
            self.replies.queue_changed()
            await self.world.until(lambda: self.rounds > rounds)  # noqa: B023
            await self.world.turns()

    @property
    def rounds(self) -> int:
        """Return how many rounds have been made."""
        return self.world.told.count("standings")


def in_line(world: World, length: int, story: Callable[[Line], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        line = Line(world, length)
        try:
            await story(line)
        finally:
            line.replies.stop()

    world.run(run)


def test_a_reply_counts_down_until_its_picture_is_there(world: World) -> None:
    async def story(line: Line) -> None:
        line.begin(0)
        await line.says(0, "It is being made now.")
        await line.says(2, "You are position **2** in the queue (about 40 s).")
        await line.end(0)
        await line.says(0, "Done: see the channel.")
        line.begin(1)
        await line.says(1, "It is being made now.")
        await line.says(2, "You are next (about 20 s).")
        await line.end(1)
        await line.says(1, "Done: see the channel.")
        line.begin(2)
        await line.says(2, "It is being made now.")
        assert line.webhook.without_buttons == [0, 1]
        await line.end(2)
        await line.says(2, "Done: see the channel.")
        assert line.webhook.texts(2) == [
            "You are position **2** in the queue (about 40 s).",
            "You are next (about 20 s).",
            "It is being made now.",
            "Done: see the channel.",
        ]
        assert line.replies._task is not None
        await asyncio.wait_for(line.replies._task, LIMIT)  # nothing is left to do

    in_line(world, 3, story)


def test_a_reply_says_that_comfyui_is_away_until_it_is_back(world: World) -> None:
    async def story(line: Line) -> None:
        line.begin(0)
        await line.says(0, "It is being made now.")
        line.comfy.away_since = time.monotonic() - 121
        line.replies.queue_changed()
        wait = "ComfyUI has not answered for 2 minutes; your picture waits for it."
        await line.says(0, wait)
        await line.says(1, f"You are next (about 20 s). {wait}")
        line.comfy.away_since = None
        line.replies.queue_changed()
        await line.says(0, "It is being made now.")
        await line.says(1, "You are next (about 20 s).")

    in_line(world, 2, story)


def test_a_reply_is_edited_only_if_what_it_says_has_changed(world: World) -> None:
    async def story(line: Line) -> None:
        await line.at_rest()
        assert line.webhook.edits == [(0, "You are next (about 20 s).")]
        await line.at_rest()
        assert len(line.webhook.edits) == 1
        line.seconds = None
        await line.at_rest()
        assert sorted(line.webhook.edits[1:]) == [
            (0, "You are next."),
            (1, "You are position **2** in the queue."),
        ]

    in_line(world, 2, story)


def test_a_reply_that_is_taken_over_in_the_middle_of_a_round_is_left_alone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(line: Line) -> None:
        line.replies.stop()  # a round of our own, with all of them due
        for reply in line.replies._replies.values():
            reply.since = 0.0
        line.seconds = None
        edit = line.webhook.edit_message

        def first_edit(message_id: int, **changes: Any) -> Coroutine[Any, Any, None]:
            for job_id in line.jobs[:message_id] + line.jobs[message_id + 1 :]:
                line.replies.forget(job_id)  # Cancel was pressed
            return edit(message_id, **changes)

        monkeypatch.setattr(line.webhook, "edit_message", first_edit)
        await line.replies._round()
        assert len(line.webhook.edits) == 1

    in_line(world, 2, story)


def test_a_job_whose_report_is_on_its_way_is_not_called_done(world: World) -> None:
    async def story(line: Line) -> None:
        line.begin(0)
        await line.says(0, "It is being made now.")
        world.channel.is_open.clear()
        world.store.complete(line.jobs[0], ["a.png"])
        world.reporter.job_ended(line.jobs[0], [b"one"])
        await line.at_rest()
        assert line.webhook.texts(0) == ["It is being made now."]
        world.channel.is_open.set()
        await line.says(0, "Done: see the channel.")

    in_line(world, 1, story)


def test_the_reply_of_a_job_that_failed_or_was_cancelled_says_so_and_has_no_button(
    world: World,
) -> None:
    async def story(line: Line) -> None:
        line.begin(0)
        world.store.fail(line.jobs[0], "It broke.")
        world.store.cancel(line.jobs[1], JobStatus.QUEUED)
        for job_id in line.jobs[:2]:
            world.reporter.job_ended(job_id)
        await line.says(0, "No picture this time: see the channel.")
        await line.says(1, "Cancelled.")
        await line.says(2, "You are next (about 20 s).")
        assert sorted(line.webhook.without_buttons) == [0, 1]

    in_line(world, 3, story)


def test_only_the_next_ten_replies_count_down(world: World) -> None:
    async def story(line: Line) -> None:
        line.begin(0)
        await line.at_rest()
        assert {number for number, _ in line.webhook.edits} == set(range(11))
        assert line.webhook.texts(10) == ["You are position **10** in the queue (about 3 min)."]
        world.store.cancel(line.jobs[1], JobStatus.QUEUED)
        world.reporter.job_ended(line.jobs[1])
        await line.says(11, "You are position **10** in the queue (about 3 min).")
        assert line.webhook.texts(12) == []

    in_line(world, 13, story)


def test_a_round_edits_ten_replies_and_those_of_ended_jobs_first(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(line: Line) -> None:
        line.replies.stop()
        for job_id in line.jobs[3:]:
            world.store.cancel(job_id, JobStatus.QUEUED)
            world.store.delivered(job_id)
        line.replies._changed.clear()
        await line.replies._round()
        assert [text for _, text in line.webhook.edits] == ["Cancelled."] * 10
        assert line.replies._changed.is_set()  # the rest has its turn in the next round
        await line.replies._round()
        assert len(line.webhook.without_buttons) == 12
        assert line.webhook.texts(0) == ["You are next (about 20 s)."]

    in_line(world, 15, story)


def test_between_two_rounds_is_a_pause(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(line: Line) -> None:
        await line.says(0, "You are next (about 20 s).")
        monkeypatch.setattr(running, "ROUND_EVERY", 3600.0)
        for seconds in (25.0, 30.0, 35.0):
            line.seconds = seconds
            line.replies.queue_changed()
            await world.turns()
        assert len(line.webhook.edits) <= 2  # a pause may have been over already

    in_line(world, 1, story)


def test_the_time_is_worked_out_again_also_while_nothing_else_changes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "LOOK_EVERY", 0.001)

    async def story(line: Line) -> None:
        await line.says(0, "You are next (about 20 s).")
        line.seconds = 10.0
        line.replies.queue_changed()
        await line.says(0, "You are next (about 10 s).")

    in_line(world, 1, story)


def test_a_reply_whose_token_is_about_to_expire_is_let_go(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "TOKEN_SECONDS", -1.0)

    async def story(line: Line) -> None:
        await world.until(lambda: not line.replies._replies)
        line.begin(0)
        await world.turns()
        assert line.webhook.edits == []

    in_line(world, 2, story)


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_a_reply_that_the_person_has_dismissed_is_let_go(world: World, status: int) -> None:
    async def story(line: Line) -> None:
        line.webhook.fail(http_error(status))
        await world.until(lambda: len(line.replies._replies) == 1)
        line.begin(0)
        await line.says(1, "You are next (about 20 s).")
        assert line.webhook.texts(0) == []
        assert world.log() == ""  # not worth a line

    in_line(world, 2, story)


@pytest.mark.parametrize(
    "error", [http_error(503), http_error(429), aiohttp.ClientError()], ids=str
)
def test_an_edit_of_a_reply_that_fails_is_made_up_for_in_a_later_round(
    world: World, error: Exception
) -> None:
    async def story(line: Line) -> None:
        line.webhook.fail(error)
        await line.at_rest()
        line.replies.queue_changed()
        await line.says(0, "You are next (about 20 s).")
        assert world.log() == ""

    in_line(world, 1, story)


def test_an_edit_of_a_reply_that_hangs_holds_up_the_others_for_a_while_only(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "HANGING_SECONDS", 0.05)

    async def story(line: Line) -> None:
        line.webhook.hanging.add(0)
        line.begin(0)
        await line.says(1, "You are next (about 20 s).")
        await line.end(0)
        await line.says(0, "Done: see the channel.")

    in_line(world, 2, story)


def test_while_the_database_is_locked_the_replies_stay_as_they_are(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def locked(*_: object) -> Any:
        world.note("locked")
        raise StoreError("locked")

    async def story(line: Line) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(NotedStore, "standings", locked)
            await world.until(lambda: "locked" in world.told)
        line.replies.queue_changed()
        await line.says(0, "You are next (about 20 s).")
        assert world.log() == ""

    in_line(world, 1, story)


def test_of_too_many_replies_those_of_the_next_jobs_are_kept(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "REPLIES_KEPT", 3)

    async def story(line: Line) -> None:
        assert list(line.replies._replies) == line.jobs[:3]
        await line.at_rest()
        assert {number for number, _ in line.webhook.edits} <= {0, 1, 2}

    in_line(world, 5, story)


def test_a_reply_that_somebody_else_edits_is_left_alone(world: World) -> None:
    async def story(line: Line) -> None:
        await line.at_rest()
        world.store.cancel(line.jobs[1], JobStatus.QUEUED)
        line.replies.forget(line.jobs[1])
        world.reporter.job_ended(line.jobs[1])
        await world.reported(line.jobs[1])
        await line.at_rest()
        assert line.webhook.texts(1) == []

    in_line(world, 2, story)


def test_a_reply_of_a_job_that_ended_before_it_is_up_to_date_at_once(world: World) -> None:
    async def story(line: Line) -> None:
        job_id = world.completed()
        world.reporter.job_ended(job_id, [b"one"])
        await world.reported(job_id)
        line.jobs.append(job_id)
        line.follow(0)
        await line.says(0, "Done: see the channel.")

    in_line(world, 0, story)
