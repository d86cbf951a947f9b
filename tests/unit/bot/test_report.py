"""The report without Discord or ComfyUI: its parts, and `Reporter` between fakes of the two."""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, cast

import aiohttp
import discord
import pytest

from bot import report, reporter
from bot.commands import HANDLERS
from bot.controls import ControlId, job_button, job_view
from bot.messages import may_work_later, nonce
from bot.pictures import Picture, PictureTooLargeForDiscord
from bot.report import (
    FIRST_PART,
    REQUEST_LIMIT,
    ReportPart,
    batches,
    failure_embed,
    job_label,
    missing_note,
    report_parts,
    result_embed,
)
from bot.reporter import MAX_HANGING, Reporter, UploadSlots
from bot.running import running_embed
from comfyui.errors import BadAnswer, PictureGone, Rejected, Unreachable
from comfyui.history import NOUNS
from comfyui.progress import Progress
from job import Job
from store import StoreError
from tests.factories import CHANNEL, ELSEWHERE, JOB_ID, USER, a_catalog, a_job, settings
from tests.harness.fake_discord import (
    LIMIT,
    MIB,
    SMALLEST_LIMIT,
    SOMEBODY,
    NotedStore,
    World,
    http_error,
    quick_world,
)
from tests.standins.comfyui.pictures import draw_png
from tests.standins.discord.limits import embed_faults, view_faults

HOUR_MS = 60 * 60 * 1000
LONG_TEXTS = ["x" * 4000, "[" * 4000, "\\" * 4000, "# \n" * 1333, "`*_" * 1333, "🦊" * 4000]


# What may work later

TOO_LARGE = PictureTooLargeForDiscord("a.png")
TOO_LARGE_LINE = f"{TOO_LARGE.reason}. {TOO_LARGE.advice}"


@pytest.mark.parametrize(
    ("error", "later"),
    [
        *((http_error(status), False) for status in (400, 401, 403, 404, 413)),
        *((http_error(status), True) for status in (429, 500, 502, 503, 520)),
        (discord.RateLimited(9.0), True),
        (aiohttp.ClientError(), True),
        (aiohttp.ServerDisconnectedError(), True),
        (ConnectionResetError(), True),
        (asyncio.TimeoutError(), True),
        (StoreError("locked"), True),
        (Unreachable("refused"), True),
        (BadAnswer("a login page"), True),
        (Rejected("no such node"), False),
        (PictureGone("gone"), False),
        (discord.InvalidData(), False),
        (ValueError("a bug"), False),
    ],
    ids=lambda value: f"{type(value).__name__}-{getattr(value, 'status', '')}",
)
def test_what_may_work_later_is_tried_again_and_nothing_else(error: Exception, later: bool) -> None:
    assert may_work_later(error) is later


# Batches and parts


def split(sizes: Sequence[int]) -> list[list[int]]:
    return [list(sizes[batch]) for batch in batches(sizes)]


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([], [[]]),
        ([5], [[5]]),
        ([1] * 10, [[1] * 10]),
        ([1] * 21, [[1] * 10, [1] * 10, [1]]),
        ([12 * MIB] * 3, [[12 * MIB] * 2, [12 * MIB]]),
        ([12 * MIB, 12 * MIB + 1], [[12 * MIB], [12 * MIB + 1]]),
        ([99 * MIB, 1, 99 * MIB], [[99 * MIB], [1], [99 * MIB]]),
        ([23 * MIB, 2 * MIB, 22 * MIB, 1], [[23 * MIB], [2 * MIB, 22 * MIB], [1]]),
    ],
)
def test_a_message_has_ten_pictures_and_24_mib_at_most(
    sizes: list[int], expected: list[list[int]]
) -> None:
    assert split(sizes) == expected


def test_every_picture_is_in_one_message_and_no_message_could_take_the_next() -> None:
    for sizes in itertools.product([1, 9 * MIB, 13 * MIB, 30 * MIB], repeat=5):
        parts = split(sizes)
        assert [size for part in parts for size in part] == list(sizes)
        assert all(len(part) == 1 or sum(part) <= REQUEST_LIMIT for part in parts)
        for part, following in itertools.pairwise(parts):
            assert sum(part) + following[0] > REQUEST_LIMIT


def pictures(count: int, encoding: str = "") -> list[Picture]:
    return [
        Picture(f"01234567-{number}", b"%d" % number, ".png", encoding)
        for number in range(1, count + 1)
    ]


def parts_of(*arguments: Any, **more: Any) -> list[ReportPart]:
    """The parts of a report, once all have been taken."""

    async def collect() -> list[ReportPart]:  # discord.py makes buttons on a running loop
        return list(report_parts(*arguments, **more))

    return asyncio.run(collect())


def names_in(part: ReportPart) -> list[str]:
    return [file.filename for file in part.message["files"]]


def test_the_first_part_has_the_text_and_the_buttons_and_the_others_only_pictures() -> None:
    first, second, third = parts_of(a_job(), pictures(21), from_start=True, note=" Look.")
    assert [len(names_in(part)) for part in (first, second, third)] == [10, 10, 1]
    assert first.message["content"] == f"<@{USER}> Look."
    children: list[Any] = first.message["view"].children
    assert [child.label for child in children] == ["Again", "Edit", "Delete"]
    assert first.message["embed"].footer.text == "job 01234567"
    for part in (second, third):
        assert part.message.keys() == {"files", "nonce"}


def test_only_the_person_who_asked_is_pinged() -> None:
    first, second = parts_of(a_job(), pictures(11), from_start=True)
    usual = discord.AllowedMentions.none()  # the bot's own, for what a message leaves open
    allowed: Any = usual.merge(first.message["allowed_mentions"]).to_dict()
    assert allowed == {"parse": [], "users": [USER]}
    assert "content" not in second.message


def test_every_part_has_a_nonce_of_its_own_that_discord_takes() -> None:
    nonces = [part.message["nonce"] for part in parts_of(a_job(), pictures(99), from_start=True)]
    assert len(nonces) == 10
    nonces.append(nonce(JOB_ID, "run"))  # of the message that shows its progress
    (failed,) = parts_of(a_job(), [], from_start=True)
    nonces.append(failed.message["nonce"])
    assert len(set(nonces)) == len(nonces)
    assert all(0 < len(text) <= 25 for text in nonces)
    other = [
        part.message["nonce"]
        for part in parts_of(a_job(id="f" * 36), pictures(99), from_start=True)
    ]
    assert set(nonces).isdisjoint(other)


def test_the_same_part_has_the_same_nonce_in_a_later_try() -> None:
    _, second = parts_of(a_job(), pictures(12), from_start=True)
    (later,) = parts_of(a_job(), pictures(12)[10:], from_start=False)
    assert later.message["nonce"] == second.message["nonce"]
    assert later.message.keys() == {"files", "nonce"}


def test_a_part_is_found_by_its_pictures_and_the_first_by_the_job_too() -> None:
    first, second = parts_of(a_job(), pictures(11), from_start=True)
    assert set(first.names) == {*(f"01234567-{n}" for n in range(1, 11)), FIRST_PART}
    assert second.names == ("01234567-11",)
    assert [name.rpartition(".")[0] for name in names_in(second)] == list(second.names)


@pytest.mark.parametrize("prompt", ["a *red* fox\nby night", "x" * 4000, "🦊" * 1025])
def test_a_picture_is_described_by_its_prompt_as_far_as_discord_takes_it(prompt: str) -> None:
    (part,) = parts_of(a_job(positive_prompt=prompt), pictures(2), from_start=True)
    described = prompt if len(prompt) <= 1024 else prompt[:1023] + "…"
    assert [file.description for file in part.message["files"]] == [described] * 2


def test_nothing_is_left_to_post_where_everything_is_posted() -> None:
    assert parts_of(a_job(), [], from_start=False) == []


def test_a_job_without_pictures_is_reported_as_a_failure() -> None:
    (part,) = parts_of(a_job(error_message="It *broke*."), [], from_start=True)
    assert part.message["files"] == []
    assert part.message["embed"].title == "No picture this time"
    assert part.message["embed"].description == r"It \*broke\*."
    assert part.names == (FIRST_PART,)
    assert part.size == 0


def test_a_compressed_picture_is_said_to_be_one() -> None:
    (part,) = parts_of(a_job(), pictures(2, "webp;90"), from_start=True)
    assert part.message["content"].endswith(
        "\nToo big for Discord as it was made, so it is shown compressed."
    )
    (plain,) = parts_of(a_job(), pictures(2), from_start=True)
    assert "compressed" not in plain.message["content"]


def send(part: ReportPart) -> list[bytes]:
    """What discord.py does with the files of a message: it reads them, and gives them back."""
    data = []
    for file in part.message["files"]:
        data.append(file.fp.read())
        file.close()
    return data


def test_the_files_of_a_part_are_open_while_it_is_sent_and_closed_then() -> None:
    async def check() -> None:
        seen: list[discord.File] = []
        for part in report_parts(a_job(), pictures(11), from_start=True):
            assert all(file.fp.closed for file in seen)  # of the part before
            assert all(send(part))
            seen += part.message["files"]
        assert len(seen) == 11
        assert all(file.fp.closed for file in seen)

    asyncio.run(check())


def test_the_files_are_closed_even_where_sending_fails() -> None:
    async def check() -> None:
        files: list[discord.File] = []

        def fail() -> None:
            for part in report_parts(a_job(), pictures(1), from_start=True):
                send(part)
                files.extend(part.message["files"])
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()
        assert [file.fp.closed for file in files] == [True]

    asyncio.run(check())


# The messages


def test_a_jobs_mark_and_its_buttons_name_the_job() -> None:
    async def check() -> None:
        actions = ["cancel", "again", "edit", "delete", "remove", "keep"]
        view = job_view(JOB_ID, *actions)
        children: list[Any] = view.children
        controls = [ControlId.parse(child.custom_id) for child in children]
        assert controls == [ControlId("job", action, JOB_ID) for action in actions]
        assert all((control.area, control.action) in HANDLERS for control in controls)
        assert view_faults(view) == []
        assert view.is_finished()  # discord.py has nothing to remember

    asyncio.run(check())
    assert job_label(JOB_ID) == "job 01234567"


def test_buttons_about_several_jobs_tell_which_is_which() -> None:
    async def check() -> None:
        assert job_button(JOB_ID, "cancel", " number 2").label == "Cancel number 2"

    asyncio.run(check())


def test_a_result_shows_its_settings() -> None:
    embed = result_embed(a_job(cfg=3.5, seed=0))
    assert embed.description == r"a \*red\* fox"
    assert {entry.name: entry.value for entry in embed.fields} == {
        "Model": r"base\_1.0",
        "Sampler": r"dpmpp\_2m",
        "Scheduler": "karras",
        "Steps": "20",
        "CFG": "3.5",
        "Seed": "0",
    }
    assert embed.footer.text == job_label(JOB_ID)
    assert "Seed" not in {entry.name for entry in result_embed(a_job(seed=None)).fields}


@pytest.mark.parametrize(
    ("negative", "shown"),
    [
        ("", None),
        ("the usual", None),
        ("*fog*", r"\*fog\*"),
        ("x" * 4000, "x" * 199 + "…"),
        ("*" * 4000, "\\*" * 199 + "…"),
    ],
)
def test_a_result_shows_a_negative_prompt_that_is_not_the_usual_one(
    negative: str, shown: str | None
) -> None:
    embed = result_embed(a_job(negative_prompt=negative), usual_negative="the usual")
    fields = {entry.name: entry.value for entry in embed.fields}
    assert fields.get("Negative prompt") == shown
    assert len(embed) < 6000


def test_a_failure_shows_why_and_for_which_prompt() -> None:
    embed = failure_embed(a_job(error_message="The GPU is *full*."))
    assert embed.description == r"The GPU is \*full\*."
    assert [(entry.name, entry.value) for entry in embed.fields] == [("Prompt", r"a \*red\* fox")]
    assert embed.footer.text == job_label(JOB_ID)
    assert failure_embed(a_job()).description == "The bot has no record of the reason."


@pytest.mark.parametrize("text", [*LONG_TEXTS, ""])
def test_no_text_makes_an_embed_that_discord_refuses(text: str) -> None:
    job = a_job(
        model=f"folder/{text}.safetensors",
        sampler=text or "euler",
        scheduler=text or "karras",
        positive_prompt=text,
        error_message=text,
        seed=2**64 - 1,
    )
    done = Progress(JOB_ID, {str(number): 1 for number in range(9)})
    done.on_event("executed", {"node": "8"})
    assert embed_faults(result_embed(job)) == []
    assert embed_faults(running_embed(job, done)) == []
    if text:  # a failure's field holds the prompt, which is never empty
        assert embed_faults(failure_embed(job)) == []


# The fakes


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with quick_world(tmp_path, monkeypatch) as world:
        yield world


# The report


def test_a_result_is_posted_with_the_pictures_that_the_worker_has_in_hand(world: World) -> None:
    async def story() -> None:
        job_id = world.completed(["x/a.png", "b.webp"])
        world.reporter.job_ended(job_id, [b"one", b"two"])
        await world.reported(job_id)
        (message,) = world.channel.messages.values()
        mark = job_id[:8]
        assert message.files == {f"{mark}-1.png": b"one", f"{mark}-2.webp": b"two"}
        assert world.comfy.asked == []
        assert world.channel.count("history") == 0  # nothing can be there yet
        assert world.log() == ""

    world.run(story)


@pytest.mark.parametrize("way", ["in hand", "fetched", "re-encoded"])
@pytest.mark.parametrize("keep", [True, False], ids=["kept", "taken-out"])
def test_the_texts_in_a_file_are_posted_unless_the_owner_keeps_them_back(
    world: World, monkeypatch: pytest.MonkeyPatch, keep: bool, way: str
) -> None:
    made = draw_png(b"1", (64, 48), {"prompt": "a secret"}, 0)
    posted = made if keep else draw_png(b"1", (64, 48), {}, 0)
    monkeypatch.setattr(world.comfy, "image", lambda ref, preview="": made)
    client, comfy = cast(Any, world.discord), cast(Any, world.comfy)
    world.reporter = Reporter(
        client,
        settings(keep_metadata=keep),
        world.store,
        comfy,
        a_catalog({}),
        world.threads,
    )
    world.discord.filesize_limit = len(posted)  # what is taken out does not count

    async def story() -> None:
        job_id = world.completed(["a.png"])
        if way == "re-encoded":
            world.channel.fail("send", http_error(413))
        world.reporter.job_ended(job_id, [made] if way == "in hand" else [])
        await world.reported(job_id)
        ((data,),) = (message.files.values() for message in world.channel.messages.values())
        assert data == posted

    world.run(story)


def test_a_failure_is_posted_with_its_sentence(world: World) -> None:
    async def story() -> None:
        job_id = world.failed()
        world.reporter.job_ended(job_id)
        await world.reported(job_id)
        assert world.channel.contents == [f"<@{USER}>"]
        assert "It broke." in world.channel.texts

    world.run(story)


def test_a_report_is_posted_once_however_often_the_end_is_told(world: World) -> None:
    async def story() -> None:
        job_id = world.completed()
        for _ in range(3):
            world.reporter.job_ended(job_id, [b"one"])
        await world.reported(job_id)
        await world.turns()
        assert world.channel.count("send") == 1

    world.run(story)


def test_a_failing_post_is_tried_again_without_the_parts_that_arrived(world: World) -> None:
    async def story() -> None:
        world.channel.forgets_nonces = True
        world.channel.fail("send", None, http_error(503))
        world.channel.fail("history", http_error(503))  # looking may fail as well
        job_id = world.completed([f"{number}.png" for number in range(1, 13)])
        world.reporter.job_ended(job_id, [b"x"] * 12)
        await world.reported(job_id)
        assert world.channel.files == [f"{job_id[:8]}-{number}.png" for number in range(1, 13)]
        assert world.channel.contents == [f"<@{USER}>", ""]
        assert len(world.comfy.asked) == 12  # they were not held in memory until then
        assert "not reported yet, trying again" in world.log()

    world.run(story)


@pytest.mark.parametrize("images", [[], ["a.png", "b.png"]], ids=["failure", "result"])
def test_a_report_whose_answer_was_lost_is_not_posted_twice(
    world: World, images: list[str]
) -> None:
    async def story() -> None:
        world.channel.forgets_nonces = True
        world.channel.lose(aiohttp.ServerDisconnectedError())
        job_id = world.completed(images) if images else world.failed()
        world.reporter.job_ended(job_id, [b"x"] * len(images))
        await world.reported(job_id)
        assert world.channel.contents == [f"<@{USER}>"]
        assert len(world.channel.files) == len(images)
        assert world.channel.count("send") == 1

    world.run(story)


def test_a_report_waits_for_discord_as_long_as_it_takes_and_warns_once(world: World) -> None:
    async def story() -> None:
        errors = [http_error(500), aiohttp.ClientError(), OSError(), asyncio.TimeoutError()]
        world.channel.fail("send", *errors, discord.RateLimited(1.0))
        job_id = world.completed()
        world.reporter.job_ended(job_id, [b"one"])
        await world.reported(job_id)
        assert world.channel.contents == [f"<@{USER}>"]
        assert world.log().count("trying again") == 1
        assert world.log(logging.DEBUG).count("trying again") == 5

    world.run(story)


def test_the_pauses_between_tries_double_up_to_the_longest(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    async def story() -> None:
        monkeypatch.setattr(reporter, "RETRY_PAUSES", (1.0, 5.0))
        world.channel.fail("send", *[http_error(500)] * 5)
        job_id = world.completed()
        with monkeypatch.context() as patch:
            patch.setattr(asyncio, "sleep", sleep)
            world.reporter.job_ended(job_id, [b"one"])
            await world.reported(job_id)
        assert pauses == [1.0, 2.0, 4.0, 5.0, 5.0]

    world.run(story)


def test_a_database_or_a_comfyui_that_is_away_is_waited_for_too(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    get = NotedStore.get
    tries = itertools.count(1)

    def flaky(store: NotedStore, job_id: str) -> Job | None:
        if next(tries) == 1:
            raise StoreError("locked")
        return get(store, job_id)

    async def story() -> None:
        monkeypatch.setattr(NotedStore, "get", flaky)
        world.comfy.failures["a.png"] = [Unreachable("refused"), BadAnswer("a login page")]
        job_id = world.completed()
        world.reporter.job_ended(job_id)
        await world.reported(job_id)
        assert world.channel.files == [f"{job_id[:8]}-1.png"]
        assert world.channel.count("send") == 1

    world.run(story)


def test_an_error_of_our_own_in_a_report_is_logged_and_left_to_the_next_start(
    world: World,
) -> None:
    async def story() -> None:
        world.channel.fail("send", ZeroDivisionError())
        job_id = world.completed()
        world.reporter.job_ended(job_id, [b"one"])
        await world.until(lambda: "cannot be reported" in world.log(logging.ERROR))
        await world.turns()
        assert world.channel.count("send") == 1
        assert world.job(job_id).delivered_at is None
        assert any(record.exc_info for record in world.records)

    world.run(story)


# After a restart


def test_a_job_that_may_be_posted_already_is_looked_for_first(world: World) -> None:
    async def story() -> None:
        world.channel.forgets_nonces = True
        posted, half, fresh = (world.completed(["a.png", "b.png"]) for _ in range(3))
        now = datetime.now(timezone.utc)
        for job_id, names in ((posted, ["1.png", "2.webp"]), (half, [])):
            world.store.report_tried(job_id)
            # This machine's clock may be ahead of Discord's.
            world.post(job_id, *names, created_at=now - timedelta(minutes=30))
        await world.reporter.catch_up()
        await world.reported(posted, half, fresh)
        mentions = [m for m in world.channel.messages.values() if m.content == f"<@{USER}>"]
        assert [list(message.files) for message in mentions] == [
            [f"{fresh[:8]}-1.png", f"{fresh[:8]}-2.png"]
        ]
        files = world.channel.files  # what was missing of the second came without the text
        assert [name for name in files if name.startswith(half[:8])] == [
            f"{half[:8]}-1.png",
            f"{half[:8]}-2.png",
        ]
        assert len([name for name in files if name.startswith(posted[:8])]) == 2

    world.run(story)


def test_a_report_is_found_whatever_was_said_after_it(world: World) -> None:
    async def story() -> None:
        job_id = world.completed()
        world.store.report_tried(job_id)
        for _ in range(2500):
            world.channel.put(author=SOMEBODY)
        world.post(job_id, "1.png")
        for _ in range(2500):
            world.channel.put(author=SOMEBODY)
        await world.reporter.catch_up()
        await world.reported(job_id)
        assert world.channel.count("send") == 0

    world.run(story)


def test_a_report_is_found_hours_later(world: World) -> None:
    async def story() -> None:
        world.channel.forgets_nonces = True
        world.clock.ahead = -6 * HOUR_MS
        job_id = world.completed(["a.png", "b.png"])
        world.store.report_tried(job_id)
        now = datetime.now(timezone.utc)
        world.post(job_id, "1.png", "2.png", created_at=now - timedelta(hours=6))
        for minutes in range(0, 360, 2):
            world.channel.put(author=SOMEBODY, created_at=now - timedelta(minutes=minutes))
        world.clock.ahead = 0
        await world.reporter.catch_up()
        await world.reported(job_id)
        assert world.channel.count("send") == 0

    world.run(story)


def test_a_report_is_found_that_was_posted_by_the_last_of_many_tries(world: World) -> None:
    async def story() -> None:
        world.channel.forgets_nonces = True
        world.clock.ahead = -6 * HOUR_MS
        job_id = world.completed()
        world.store.report_tried(job_id)  # in vain
        world.clock.ahead = 0
        world.channel.lose(aiohttp.ServerDisconnectedError())  # hours later
        await world.reporter.catch_up()
        await world.reported(job_id)
        assert world.channel.count("send") == 1
        assert world.channel.contents == [f"<@{USER}>"]

    world.run(story)


def test_the_messages_of_a_report_are_noted_also_those_of_an_earlier_try(world: World) -> None:
    async def story() -> None:
        job_id = world.completed([f"{number}.png" for number in range(1, 13)])
        world.store.report_tried(job_id)
        world.post(job_id, *(f"{number}.png" for number in range(1, 11)))
        await world.reporter.catch_up()
        await world.reported(job_id)
        assert world.job(job_id).report_message_ids == tuple(map(str, world.channel.messages))
        assert len(world.channel.messages) == 2

    world.run(story)


def test_what_others_post_is_no_report(world: World) -> None:
    async def story() -> None:
        job_id = world.completed()
        world.store.report_tried(job_id)
        forged = world.post(job_id, "1.png", author=SOMEBODY)
        await world.reporter.catch_up()
        await world.reported(job_id)
        assert world.channel.contents == [forged.content, f"<@{USER}>"]

    world.run(story)


@pytest.mark.parametrize("status", [403, 404])
def test_where_the_history_is_closed_the_report_is_posted(world: World, status: int) -> None:
    async def story() -> None:
        world.channel.fail("history", http_error(status))
        job_id = world.completed()
        world.store.report_tried(job_id)
        await world.reporter.catch_up()
        await world.reported(job_id)
        assert world.channel.count("history") == 1
        assert world.channel.contents == [f"<@{USER}>"]

    world.run(story)


def test_a_report_from_before_a_restart_takes_the_jobs_message_away(world: World) -> None:
    async def story() -> None:
        job_id = world.completed()
        world.store.announced(job_id, str(world.channel.put(content="Generating").id))
        await world.reporter.catch_up()
        await world.reported(job_id)
        assert world.channel.contents == [f"<@{USER}>"]

    world.run(story)


def test_a_job_that_ended_days_ago_by_this_machines_clock_is_reported(world: World) -> None:
    async def story() -> None:
        world.clock.ahead = -100 * HOUR_MS
        days_ago = world.completed()
        world.clock.ahead = 0
        await world.reporter.catch_up()
        await world.reported(days_ago)
        assert world.channel.files == [f"{days_ago[:8]}-1.png"]

    world.run(story)


def test_only_jobs_that_ended_and_are_not_reported_are_caught_up_with(world: World) -> None:
    async def story() -> None:
        world.running()
        world.store.delivered(world.completed())
        left = world.completed()
        await world.reporter.catch_up()
        await world.reported(left)
        await world.turns()
        assert world.channel.files == [f"{left[:8]}-1.png"]

    world.run(story)


# Too large


def test_what_discord_finds_too_large_is_sent_again_smaller(world: World) -> None:
    async def story() -> None:
        world.channel.fail("send", http_error(413), http_error(413))
        job_id = world.completed()
        world.reporter.job_ended(job_id, [b"as made"])
        await world.reported(job_id)
        (message,) = world.channel.messages.values()
        assert list(message.files) == [f"{job_id[:8]}-1.jpg"]
        assert "compressed" in message.content
        assert world.comfy.asked == [("a.png", "webp;90"), ("a.png", "jpeg;80")]
        assert world.channel.count("history") == 0  # it is one and the same try

    world.run(story)


def test_only_the_parts_that_are_not_there_yet_are_sent_smaller(world: World) -> None:
    async def story() -> None:
        world.channel.forgets_nonces = True
        world.channel.fail("send", None, http_error(413))
        job_id = world.completed([f"{number}.png" for number in range(1, 12)])
        world.reporter.job_ended(job_id, [b"x"] * 11)
        await world.reported(job_id)
        mark = job_id[:8]
        expected = [f"{mark}-{number}.png" for number in range(1, 11)] + [f"{mark}-11.webp"]
        assert world.channel.files == expected
        assert world.channel.contents == [f"<@{USER}>", ""]

    world.run(story)


def test_what_is_too_large_in_every_form_is_reported_in_words(world: World) -> None:
    async def story() -> None:
        world.channel.fail("send", *[http_error(413)] * 4)
        job_id = world.completed()
        world.reporter.job_ended(job_id, [b"as made"])
        await world.reported(job_id)
        assert world.channel.contents == [f"<@{USER}>"]
        assert world.channel.files == []
        assert TOO_LARGE.user_message in world.channel.texts
        assert world.channel.count("send") == 5

    world.run(story)


def test_what_is_too_large_after_a_part_that_arrived_is_reported_in_words_too(
    world: World,
) -> None:
    async def story() -> None:
        world.channel.fail("send", None, *[http_error(413)] * 4)
        job_id = world.completed([f"{number}.png" for number in range(1, 12)])
        world.reporter.job_ended(job_id, [b"x"] * 11)
        await world.reported(job_id)
        assert len(world.channel.files) == 10
        assert world.channel.contents == [
            f"<@{USER}>\n1 of 11 pictures is missing: {TOO_LARGE_LINE}"
        ]
        assert "No picture" not in world.channel.texts

    world.run(story)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ({"": 101, "webp;90": 100}, ".webp"),
        ({"": 101, "webp;90": 101, "jpeg;80": 100}, ".jpg"),
        ({"": 101, "webp;90": 101, "jpeg;80": 101, "jpeg;60": 100}, ".jpg"),
        ({"": 100}, ".png"),
    ],
)
def test_a_picture_over_the_servers_limit_comes_in_the_first_form_that_fits(
    world: World, sizes: dict[str, int], expected: str
) -> None:
    async def story() -> None:
        world.discord.filesize_limit = 100
        world.comfy.sizes.update(sizes)
        job_id = world.completed()
        await world.reporter.catch_up()
        await world.reported(job_id)
        (message,) = world.channel.messages.values()
        assert list(message.files) == [f"{job_id[:8]}-1{expected}"]
        assert len(message.files[f"{job_id[:8]}-1{expected}"]) == list(sizes.values())[-1]
        assert [encoding for _, encoding in world.comfy.asked] == list(sizes)
        assert ("compressed" in message.content) is (expected != ".png")

    world.run(story)


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("a.png", ["", "webp;90", "jpeg;80", "jpeg;60"]),
        ("a.mp4", [""]),  # never re-encoded: it would be a still
        ("a.GIF", [""]),
    ],
)
@pytest.mark.parametrize("why", ["too large in every form", "ComfyUI cannot re-encode it"])
def test_what_cannot_be_made_small_enough_is_reported_in_words_at_the_first_try(
    world: World, name: str, asked: list[str], why: str
) -> None:
    async def story() -> None:
        world.discord.filesize_limit = SMALLEST_LIMIT
        if why.startswith("too large"):
            world.comfy.too_large.add(name)
        else:
            world.comfy.sizes[""] = SMALLEST_LIMIT + 1
            world.comfy.no_preview_of.add(name)
        job_id = world.running()
        world.start(job_id)
        await world.announced(job_id)
        world.store.complete(job_id, [name])
        world.reporter.job_ended(job_id)
        await world.reported(job_id)
        assert world.channel.contents == [f"<@{USER}>"]  # and "Generating…" is gone
        assert world.channel.files == []
        said = "too large for Discord" if name == "a.png" else "MB that Discord takes here"
        assert said in world.channel.texts
        assert world.comfy.asked == [(name, encoding) for encoding in asked]
        assert world.log() == ""

    world.run(story)


def test_where_some_pictures_fit_those_are_posted_and_the_text_says_how_many_do_not(
    world: World,
) -> None:
    async def story() -> None:
        world.discord.filesize_limit = SMALLEST_LIMIT
        world.comfy.too_large.add("b.mp4")
        job_id = world.completed(["a.png", "b.mp4", "c.gif"])
        world.reporter.job_ended(job_id)
        await world.reported(job_id)
        assert world.channel.files == [f"{job_id[:8]}-1.png", f"{job_id[:8]}-3.gif"]
        (content,) = world.channel.contents
        assert content.startswith(f"<@{USER}>\n1 of 3 pictures is missing: it has ")
        assert content.endswith(f"MB that Discord takes here. {TOO_LARGE.advice}")
        assert "No picture" not in world.channel.texts

    world.run(story)


def test_a_video_that_discord_finds_too_large_is_not_re_encoded_either(world: World) -> None:
    async def story() -> None:
        world.channel.fail("send", http_error(413))
        job_id = world.completed(["a.mp4", "b.png"])
        world.reporter.job_ended(job_id, [b"a video", b"a picture"])
        await world.reported(job_id)
        assert world.channel.files == [f"{job_id[:8]}-2.webp"]
        assert "1 of 2 pictures is missing: it has 0.0 MB" in world.channel.contents[0]
        assert world.comfy.asked == [("b.png", "webp;90")]

    world.run(story)


@pytest.mark.parametrize("name", [f"a{suffix}" for suffix in (*NOUNS, ".webp", ".png")])
def test_a_video_or_an_animation_is_posted_as_it_was_made(world: World, name: str) -> None:
    async def story() -> None:
        job_id = world.completed([f"{name} [temp]", "b.png"])
        world.reporter.job_ended(job_id, [b"moves", b"one"])
        await world.reported(job_id)
        (message,) = world.channel.messages.values()
        assert message.files == {
            f"{job_id[:8]}-1{Path(name).suffix}": b"moves",
            f"{job_id[:8]}-2.png": b"one",
        }

    world.run(story)


# A channel that is closed to the bot


@pytest.mark.parametrize("status", [400, 403, 404])
def test_where_the_channel_is_closed_the_person_gets_it_alone(world: World, status: int) -> None:
    async def story() -> None:
        world.channel.fail("send", http_error(status))
        job_id = world.completed()
        world.reporter.job_ended(job_id, [b"one"])
        await world.reported(job_id)
        assert world.channel.files == []
        assert world.discord.spoken_to == [USER]
        assert world.discord.dm.contents == [
            f"<@{USER}> The bot may not post in <#{CHANNEL}>, so here it is."
        ]
        assert world.discord.dm.files == [f"{job_id[:8]}-1.png"]
        (message,) = world.discord.dm.messages.values()
        assert message.view is not None
        buttons: list[Any] = message.view.children
        assert [button.label for button in buttons] == ["Delete"]  # there are no commands
        assert "its channel is closed" in world.log()

    world.run(story)


@pytest.mark.parametrize("place", ["a DM", "a server that the bot does not know"])
def test_where_nothing_is_known_the_smallest_limit_counts(
    world: World, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    async def story() -> None:
        monkeypatch.setattr(discord.utils, "DEFAULT_FILE_SIZE_LIMIT_BYTES", 100)
        if place == "a DM":
            world.channel.fail("send", http_error(403))
        else:
            world.discord.filesize_limit = None
        world.comfy.sizes["webp;90"] = 100
        job_id = world.completed()
        world.reporter.job_ended(job_id, [b"x" * 101])
        await world.reported(job_id)
        assert world.channel.files + world.discord.dm.files == [f"{job_id[:8]}-1.webp"]

    world.run(story)


def test_what_may_be_in_the_dm_already_is_looked_for_there(world: World) -> None:
    async def story() -> None:
        world.channel.fail("send", *[http_error(403)] * 2)
        world.discord.dm.forgets_nonces = True
        world.discord.dm.lose(aiohttp.ServerDisconnectedError())
        job_id = world.completed()
        world.reporter.job_ended(job_id, [b"one"])
        await world.reported(job_id)
        assert len(world.discord.dm.messages) == 1
        assert world.discord.dm.count("send") == 1

    world.run(story)


def test_a_report_that_nobody_takes_is_given_up(world: World) -> None:
    async def story() -> None:
        world.channel.fail("send", http_error(403))
        world.discord.dm.fail("send", http_error(403))
        job_id = world.completed()
        world.reporter.job_ended(job_id, [b"one"])
        await world.reported(job_id)
        assert "cannot be reported to anybody" in world.log(logging.ERROR)
        assert (world.channel.count("send"), world.discord.dm.count("send")) == (1, 1)

    world.run(story)


def test_a_dm_that_fails_for_a_while_is_tried_again(world: World) -> None:
    async def story() -> None:
        world.channel.fail("send", *[http_error(403)] * 2)
        world.discord.dm.fail("send", http_error(503))
        job_id = world.completed()
        world.reporter.job_ended(job_id, [b"one"])
        await world.reported(job_id)
        assert world.discord.dm.files == [f"{job_id[:8]}-1.png"]

    world.run(story)


# Pictures that are gone


def test_a_job_whose_pictures_are_gone_says_so(world: World) -> None:
    async def story() -> None:
        world.comfy.failures["a.png"] = [PictureGone("404")]
        job_id = world.completed()
        world.reporter.job_ended(job_id)
        await world.reported(job_id)
        assert world.channel.contents == [f"<@{USER}>"]
        assert PictureGone("").user_message in world.channel.texts

    world.run(story)


def test_a_picture_that_is_gone_does_not_take_the_others_with_it(world: World) -> None:
    async def story() -> None:
        world.comfy.failures["a.png"] = [PictureGone("404")]
        job_id = world.completed(["a.png", "b.png"])
        world.reporter.job_ended(job_id)
        await world.reported(job_id)
        assert world.channel.files == [f"{job_id[:8]}-2.png"]
        assert "No picture this time" not in world.channel.texts

    world.run(story)


# One after the other, and what waits holds no pictures


def test_reports_are_posted_one_after_the_other_and_those_that_wait_fetch_their_own(
    world: World,
) -> None:
    async def story() -> None:
        world.channel.is_open.clear()
        first, second = world.completed(["first.png"]), world.completed(["second.png"])
        world.reporter.job_ended(first, [b"one"])
        await world.until(lambda: world.channel.count("begin") == 1)
        world.reporter.job_ended(second, [b"held in memory"])
        await world.turns()
        assert world.channel.count("begin") == 1
        world.channel.is_open.set()
        await world.reported(first, second)
        assert world.channel.files == [f"{first[:8]}-1.png", f"{second[:8]}-1.png"]
        assert world.comfy.asked == [("second.png", "")]

    world.run(story)


def test_a_post_that_hangs_holds_up_nobody_else(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        monkeypatch.setattr(reporter, "HANGING_SECONDS", 0.01)
        world.channel.is_open.clear()
        stuck = world.completed()
        world.reporter.job_ended(stuck, [b"one"])
        await world.until(lambda: world.channel.count("begin") == 1)
        world.channel.is_open = asyncio.Event()  # for the later posts
        world.channel.is_open.set()
        others = [world.completed(channel_id=str(place)) for place in (CHANNEL, ELSEWHERE)]
        for job_id in others:
            world.reporter.job_ended(job_id, [b"one"])
        await world.until(lambda: all(world.job(job_id).delivered_at for job_id in others))
        assert world.channel.files == [f"{others[0][:8]}-1.png"]
        assert world.discord.channels[ELSEWHERE].files == [f"{others[1][:8]}-1.png"]
        assert world.job(stuck).delivered_at is None

    world.run(story)


def test_another_channel_waits_for_no_post_at_all(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        monkeypatch.setattr(reporter, "HANGING_SECONDS", 3600.0)
        world.channel.is_open.clear()
        world.reporter.job_ended(world.completed(), [b"one"])
        await world.until(lambda: world.channel.count("begin") == 1)
        other = world.completed(channel_id=str(ELSEWHERE))
        world.reporter.job_ended(other, [b"one"])
        await world.until(lambda: bool(world.job(other).delivered_at))

    world.run(story)


def test_a_post_that_hangs_is_given_up_and_tried_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        monkeypatch.setattr(report, "TRY_SECONDS", 0.05)
        world.channel.hangs_after = 1
        job_id = world.completed()
        world.reporter.job_ended(job_id, [b"one"])
        await world.reported(job_id)
        assert world.channel.count("send") == 1  # it was found
        assert world.channel.contents == [f"<@{USER}>"]

    world.run(story)


def test_a_large_upload_has_the_time_that_it_takes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[float | None] = []
    wait_for = asyncio.wait_for

    async def noted(work: Any, seconds: float | None) -> Any:
        limits.append(seconds)
        return await wait_for(work, seconds)

    async def story() -> None:
        job_id = world.completed()
        with monkeypatch.context() as patch:
            patch.setattr(asyncio, "wait_for", noted)
            world.reporter.job_ended(job_id, [bytes(5 * MIB)])
            await world.until(lambda: bool(world.job(job_id).delivered_at))
        assert report.TRY_SECONDS + 5 * MIB / report.MIN_UPLOAD_SPEED in limits

    world.run(story)


def upload(count: int, *, hanging: int = 0) -> list[int]:
    """Return the order in which so many uploads into one channel begin, the first of which hang."""
    order: list[int] = []

    async def run() -> None:
        slots, go, never = UploadSlots(), asyncio.Event(), asyncio.Event()

        async def one(number: int) -> None:
            async with slots.slot("channel"):
                order.append(number)
                await (never if number < hanging else go).wait()

        tasks = [asyncio.create_task(one(number)) for number in range(count)]
        await asyncio.sleep(0)
        go.set()
        timeout = 0.3 if hanging > MAX_HANGING else LIMIT
        await asyncio.wait(tasks[hanging:], timeout=timeout)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert slots._hanging == 0
        assert not slots.is_taken("channel")

    asyncio.run(run())
    return order


def test_uploads_into_a_channel_begin_in_the_order_in_which_they_were_asked_for() -> None:
    assert upload(5) == [0, 1, 2, 3, 4]


def test_only_some_uploads_that_hang_give_their_slots_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporter, "HANGING_SECONDS", 0.01)
    assert upload(MAX_HANGING + 2, hanging=MAX_HANGING) == list(range(MAX_HANGING + 2))
    # One more, and the next has to wait: each of those holds its pictures in memory.
    assert upload(MAX_HANGING + 2, hanging=MAX_HANGING + 1) == list(range(MAX_HANGING + 1))


def test_an_upload_that_is_cancelled_while_it_waits_keeps_the_slot_from_nobody() -> None:
    async def run() -> None:
        slots = UploadSlots()

        async def one() -> None:
            async with slots.slot("channel"):
                pass

        async with slots.slot("channel"):
            waiting, called, last = (asyncio.create_task(one()) for _ in range(3))
            await asyncio.sleep(0)
            waiting.cancel()
        called.cancel()  # the slot is its own, and it has not run yet
        await asyncio.wait_for(last, LIMIT)
        assert waiting.cancelled()
        assert called.cancelled()
        assert not slots.is_taken("channel")

    asyncio.run(run())


def test_a_new_result_waits_for_one_of_a_backlog_at_most(world: World) -> None:
    backlog = 10_000

    async def story() -> None:
        world.fill(backlog)
        world.channel.is_open.clear()
        await world.reporter.catch_up()
        await world.until(lambda: world.channel.count("begin") == 1)
        job_id = world.completed()
        world.reporter.job_ended(job_id, [b"one"])
        await world.turns()
        world.channel.is_open.set()
        await world.until(lambda: bool(world.job(job_id).delivered_at))
        place = [bool(message.files) for message in world.channel.messages.values()].index(True)
        assert place <= 1
        assert world.channel.count("begin") < backlog

    world.run(story)


def test_results_are_posted_in_the_order_in_which_their_jobs_ended(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        first, second = world.completed(), world.completed()
        get, is_slow = world.store.get, [True]

        def get_late(job_id: str) -> Job | None:
            if job_id == first and is_slow.pop():
                time.sleep(0.05)
                is_slow.append(False)
            return get(job_id)

        monkeypatch.setattr(world.store, "get", get_late)
        for job_id in (first, second):
            world.reporter.job_ended(job_id, [b"one"])
        await world.reported(first, second)
        assert [name[:8] for name in world.channel.files] == [first[:8], second[:8]]

    world.run(story)


def test_a_result_does_not_pass_one_whose_running_message_is_being_posted(world: World) -> None:
    async def story() -> None:
        first = world.running()
        world.start(first)
        world.channel.is_open.clear()
        await world.until(lambda: world.channel.count("begin") > 0)
        assert world.store.complete(first, ["a.png"])
        second = world.completed()
        for job_id in (first, second):
            world.reporter.job_ended(job_id, [b"one"])
        await world.turns()
        world.channel.is_open.set()
        await world.reported(first, second)
        assert [name[:8] for name in world.channel.files] == [first[:8], second[:8]]

    world.run(story)


def test_a_new_result_waits_for_one_of_those_that_failed_at_most(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        failed = [world.completed() for _ in range(5)]
        world.channel.fail("send", *[http_error(503)] * 10_000)
        monkeypatch.setattr(reporter, "RETRY_PAUSES", (0.0, 0.0))
        monkeypatch.setattr(reporter, "HANGING_SECONDS", 3600.0)
        for job_id in failed:
            world.reporter.job_ended(job_id, [b"one"])
        await world.until(lambda: len(world.reporter._failed) == 5)
        world.channel.is_open.clear()
        world.channel._failures.clear()
        await world.until(lambda: world.channel.count("begin") > world.channel.count("send"))
        posted = len(world.channel.files)
        new = world.completed()
        looks = world.told.count("get")
        world.reporter.job_ended(new, [b"one"])
        await world.until(lambda: world.told.count("get") > looks)  # in a thread, which may be late
        await world.turns()
        world.channel.is_open.set()
        await world.reported(new, *failed)
        assert world.channel.files.index(f"{new[:8]}-1.png") <= posted + 1

    world.run(story)


def test_while_discord_is_away_a_report_waits_and_fetches_its_pictures_again(
    world: World,
) -> None:
    async def story() -> None:
        world.discord.disconnect()
        job_id = world.completed()
        world.reporter.job_ended(job_id, [b"held in memory"])
        await world.turns()
        assert world.channel.acts == []
        world.discord.connect()
        await world.reported(job_id)
        assert world.channel.files == [f"{job_id[:8]}-1.png"]
        assert world.comfy.asked == [("a.png", "")]

    world.run(story)


# The end of the program, and the other thread


def test_a_shutdown_waits_for_the_reports_on_their_way(world: World) -> None:
    async def story() -> None:
        world.channel.is_open.clear()
        job_id = world.completed()
        world.reporter.job_ended(job_id, [b"one"])
        await world.until(lambda: world.channel.count("begin") == 1)
        drained = asyncio.create_task(world.reporter.drain(LIMIT))
        await world.turns()
        assert not drained.done()
        world.channel.is_open.set()
        await asyncio.wait_for(drained, LIMIT)
        assert world.job(job_id).delivered_at is not None

    world.run(story)


def test_a_shutdown_waits_no_longer_than_it_may_and_not_at_all_for_nothing(world: World) -> None:
    async def story() -> None:
        await asyncio.wait_for(world.reporter.drain(3600), LIMIT)
        world.channel.is_open.clear()
        job_id = world.completed()
        world.reporter.job_ended(job_id, [b"one"])
        await world.until(lambda: world.channel.count("begin") == 1)
        await asyncio.wait_for(world.reporter.drain(0.01), LIMIT)
        assert world.job(job_id).delivered_at is None

    world.run(story)


def test_what_is_dropped_is_reported_by_the_next_start(world: World) -> None:
    async def story() -> None:
        world.channel.is_open.clear()
        job_id = world.completed()
        world.reporter.job_ended(job_id, [b"one"])
        await world.until(lambda: world.channel.count("begin") == 1)
        world.reporter.drop()
        await asyncio.wait_for(world.reporter.drain(3600), LIMIT)
        world.channel.is_open.set()
        await world.turns()
        assert world.channel.files == []
        assert world.job(job_id).delivered_at is None
        await world.restarted().catch_up()
        await world.reported(job_id)
        assert world.channel.files == [f"{job_id[:8]}-1.png"]

    world.run(story)


def test_the_workers_thread_tells_of_start_and_end(world: World) -> None:
    def in_thread(act: Callable[..., None], *arguments: Any) -> None:
        errors: list[Exception] = []

        def run() -> None:
            try:
                act(*arguments)
            except Exception as error:
                errors.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join(LIMIT)  # the loop stands still meanwhile: the thread must not wait for it
        assert not thread.is_alive()
        assert errors == []

    async def story() -> None:
        job_id = world.running()
        in_thread(world.reporter.job_started, job_id, Progress(job_id, {}))
        await world.announced(job_id)
        world.store.complete(job_id, ["a.png"])
        in_thread(world.reporter.job_ended, job_id, [b"one"])
        await world.reported(job_id)
        assert world.channel.contents == [f"<@{USER}>"]

    world.run(story)


def test_an_error_of_our_own_in_what_was_handed_over_is_logged(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(reporter: Reporter, work: Coroutine[Any, Any, None]) -> None:
        work.close()
        raise ZeroDivisionError

    async def story() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Reporter, "_start_task", broken)
            for act in (world.reporter.job_ended, world.start):
                world.records.clear()
                act(world.completed())
                await world.until(lambda: bool(world.records))
                (record,) = world.records
                assert record.getMessage() == "background task failed"
                assert record.exc_info is not None
                assert record.exc_info[0] is ZeroDivisionError

    world.run(story)


def test_what_the_end_of_the_loop_cancels_is_no_error(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cancelled: list[str] = []

    def cancel(reporter: Reporter, work: Coroutine[Any, Any, None]) -> None:
        work.close()
        cancelled.append("once")
        raise asyncio.CancelledError

    async def story() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Reporter, "_start_task", cancel)
            world.reporter.job_ended(world.completed())
            await world.turns()
        assert cancelled == ["once"]
        assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []

    world.run(story)


@pytest.mark.parametrize("gone", ["closed", "forgotten"])
def test_after_the_loops_end_the_worker_is_not_disturbed(
    world: World, gone: str, recwarn: pytest.WarningsRecorder
) -> None:
    if gone == "closed":
        world.discord.loop = asyncio.new_event_loop()
        world.discord.loop.close()
    else:  # as it is before the start and after close()
        world.discord.loop = discord.Client(intents=discord.Intents.none()).loop
    job_id = world.completed()
    world.reporter.job_ended(job_id, [b"one"])
    world.start(job_id)
    gc.collect()
    assert world.log().count("Discord is gone already") == 2
    assert [str(w.message) for w in recwarn if "never awaited" in str(w.message)] == []


# Delete


def test_delete_takes_the_messages_of_this_result_and_nothing_else(world: World) -> None:
    async def story() -> None:
        mark = JOB_ID[:8]
        first: Any = world.channel.put(files={f"{mark}-1.png": b""})
        later = [world.channel.put(files={f"{mark}-{n}.png": b""}) for n in (11, 21)]
        kept = [
            world.channel.put(files={"ffffffff-1.png": b""}),
            world.channel.put(files={f"{mark}-11.png": b""}, author=SOMEBODY),
            world.channel.put(content="thanks", author=SOMEBODY),
        ]
        world.channel.fail("delete", http_error(404))  # a moderator was quicker
        await world.reporter.remove(first, JOB_ID, a_job(output_images=("a.png",) * 21))
        assert list(world.channel.messages.values()) == [later[0], *kept]

    world.run(story)


def test_delete_of_a_single_picture_looks_for_no_more(world: World) -> None:
    async def story() -> None:
        first: Any = world.channel.put(files={f"{JOB_ID[:8]}-1.png": b""})
        await world.reporter.remove(first, JOB_ID, a_job())
        assert world.channel.acts == ["delete"]

    world.run(story)


def test_delete_finds_the_parts_by_their_noted_ids_however_late_they_came(world: World) -> None:
    async def story() -> None:
        first: Any = world.channel.put(files={f"{JOB_ID[:8]}-1.png": b""})
        later = world.channel.put(created_at=first.created_at + timedelta(days=2))
        job = a_job(report_message_ids=(str(first.id), str(later.id)))
        await world.reporter.remove(first, JOB_ID, job)
        assert list(world.channel.messages) == []
        assert world.channel.count("history") == 0

    world.run(story)


@pytest.mark.parametrize("job", [None, a_job(output_images=("a.png",) * 21)], ids=["gone", "old"])
def test_delete_looks_for_the_parts_where_no_ids_are_noted(world: World, job: Job | None) -> None:
    """The row was removed by retention, or it is of a version that noted no ids."""

    async def story() -> None:
        posted_at = datetime.now(timezone.utc) - timedelta(days=90)
        first: Any = world.channel.put(files={f"{JOB_ID[:8]}-1.png": b""}, created_at=posted_at)
        others = [
            world.channel.put(author=SOMEBODY, created_at=posted_at + timedelta(seconds=number / 9))
            for number in range(5000)
        ]
        world.channel.put(
            files={f"{JOB_ID[:8]}-11.png": b""}, created_at=posted_at + timedelta(minutes=11)
        )
        await world.reporter.remove(first, JOB_ID, job)
        assert list(world.channel.messages.values()) == others

    world.run(story)


def test_as_long_as_a_picture_of_a_result_is_left_so_is_the_button_that_deletes_it(
    world: World,
) -> None:
    async def story() -> None:
        first: Any = world.channel.put(files={f"{JOB_ID[:8]}-1.png": b""})
        later = world.channel.put()
        job = a_job(report_message_ids=(str(first.id), str(later.id)))
        world.channel.fail("delete", None, http_error(503))
        with pytest.raises(discord.DiscordServerError):
            await world.reporter.remove(first, JOB_ID, job)
        assert list(world.channel.messages.values()) == [first]

    world.run(story)


def test_of_several_missing_pictures_each_reason_is_a_line() -> None:
    gone, large = PictureGone("a.png"), TOO_LARGE
    assert missing_note([large], 2) == f"1 of 2 pictures is missing: {TOO_LARGE_LINE}"
    assert missing_note([large, gone, large], 4) == (
        f"3 of 4 pictures are missing:\n- {TOO_LARGE_LINE}"
        "\n- it is no longer on the image server. Run /gen again."
    )


def test_refused_content_is_told_in_the_channel_where_no_direct_message_can_be_opened(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        refused = http_error(400)
        refused.code = 20009
        world.channel.fail("send", refused)

        async def closed(user: object) -> None:
            raise http_error(403)

        monkeypatch.setattr(world.discord, "create_dm", closed)
        job_id = world.completed()
        world.reporter.job_ended(job_id, [b"one"])
        await world.reported(job_id)
        assert world.channel.files == []
        (said,) = world.channel.contents
        assert "Discord refused to post your picture" in said

    world.run(story)
