"""What is seen of a job before its end, without Discord or ComfyUI: the running message between the
fakes of test_report.py."""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import discord
import pytest

import running
from channel import PATIENCE, job_view
from comfy_client import Preview, Progress
from running import running_embed
from store import Job, JobStatus, StoreError
from tests.standins.discord.limits import embed_faults
from tests.test_report import (
    JOB_ID,
    USER,
    NotedStore,
    Posted,
    World,
    a_job,
    http_error,
    params,
    quick_world,
)

# The text of its progress


def progress_text(progress: Progress) -> str:
    return str(running_embed(a_job(), progress).fields[0].value)


def step_of(progress: Progress, node: str, value: int, most: int) -> str:
    """What is shown once the feed has told of this step."""
    progress.take("progress", {"node": node, "value": value, "max": most})
    return progress_text(progress)


def test_the_progress_is_a_percentage_a_bar_the_pass_and_the_step_once_the_feed_has_told() -> None:
    progress = Progress(JOB_ID, {"239": 10, "52": 30})
    shown = step_of(progress, "239", 5, 10)
    progress.ran_since = 1_600_000_000.9
    assert progress_text(progress) == (
        "12 % `██░░░░░░░░░░░░░░░░░░`, pass 1 of 2, step 5 of 10\nstarted <t:1600000000:R>"
    )
    assert shown.startswith("12 % `██░░░░░░░░░░░░░░░░░░`, pass 1 of 2, step 5 of 10\n")
    progress.take("executed", {"node": "52"})
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
    progress.is_away = True
    assert progress_text(progress) == "ComfyUI does not answer, waiting"


def test_while_no_step_can_be_seen_the_message_says_why() -> None:
    progress = Progress(JOB_ID, {"239": 10})
    progress.runs()  # as ComfyUI's queue says, without a word from the feed
    progress.ran_since = 1_600_000_000.9
    started = "\nstarted <t:1600000000:R>"
    assert progress_text(progress) == "ComfyUI does not tell how far it is" + started
    loads = "Waiting for the first step: ComfyUI loads the model" + started
    progress.take("execution_start", {})
    assert progress_text(progress) == loads
    nodes = {"239": {"state": "running", "value": 0, "max": 1}}  # it has begun: no step is done
    progress.take("progress_state", {"nodes": nodes})
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
            progress.take("progress", {"node": "239", "value": value, "max": 10})
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
        progress.take("progress", {"node": "239", "value": 5, "max": 10})
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
        progress.take("progress", {"node": "239", "value": 5, "max": 10})
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
        monkeypatch.setattr(running, "PATIENCE", 0.01)
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
        progress.take("progress", {"node": "239", "value": 10, "max": 10})
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
        progress.take("progress", {"node": "239", "value": 10, "max": 10})
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
        progress.take("progress", {"node": "239", "value": 10, "max": 10})
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
    """The address of the picture in its embed."""
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
            progress.take("progress", {"node": "239", "value": value, "max": 10})
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
            progress.take("progress", {"node": "239", "value": value, "max": 10})
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
        assert asyncio.get_running_loop().time() - began < PATIENCE
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
        await world.until(lambda: "takes no picture" in world.log())
        progress.preview = preview(b"two")
        progress.take("progress", {"node": "239", "value": 5, "max": 10})
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
        progress.take("progress", {"node": "239", "value": 5, "max": 10})
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
