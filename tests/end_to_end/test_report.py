"""What the channel sees of a job: its progress, its pictures whatever their size, its failure."""

from __future__ import annotations

import contextlib
import itertools
import re
import sqlite3
from typing import Any

import pytest

from tests.end_to_end.common import result_of
from tests.harness.house import House
from tests.harness.labels import CANCEL, DELETE, GENERATE
from tests.harness.steps import ask_for, delete, fields, fill_in, labels, open_form, queued, text_of
from tests.standins.comfyui import prompts
from tests.standins.discord.people import Person


def test_a_person_gets_the_very_picture_that_comfyui_made(shared: House) -> None:
    mira = shared.discord.person("mira")
    form = open_form(mira, shared.channel)
    assert form.message is not None
    model = labels(form.message, "Model")[2]
    mira.select(form.message, "Model", model).wait()
    mira.select(form.message, "Sampler", "euler").wait()
    mira.select(form.message, "Scheduler", "karras").wait()
    prompt = "a red fox in the snow, " + "very detailed, " * 20
    fill_in(mira, form, positive_prompt=prompt, negative_prompt="blurry", steps="12", cfg="6.5")
    queued(mira, form)

    message = shared.discord.wait_for_message(
        shared.channel, lambda m: m["content"] == f"<@{mira.id}>" and bool(m["attachments"])
    )
    (attachment,) = message["attachments"]
    assert shared.discord.attachment_bytes(attachment) in shared.comfyui.pictures.values()
    assert [user["id"] for user in message["mentions"]] == [str(mira.id)]
    shown = fields(message)
    assert (shown["Sampler"], shown["Scheduler"]) == ("euler", "karras")
    assert (shown["Steps"], shown["CFG"]) == ("12", "6.5")
    assert shown["Negative prompt"] == "blurry"
    assert shown["Model"].replace("\\", "") in model
    description = message["embeds"][0]["description"]
    assert description.startswith("a red fox in the snow")
    assert len(description) <= 200
    _, workflow = shared.comfyui.posted[-1]
    assert workflow["268"]["inputs"]["text"] == prompt.strip()
    assert workflow["4"]["inputs"]["text"] == "blurry"
    row = shared.installation.rows(
        "SELECT status, output_images, started_at <= completed_at FROM jobs"
        " WHERE discord_user_id = ?",
        str(mira.id),
    )
    assert row == [("completed", f'["{list(shared.comfyui.pictures)[-1]}"]', 1)]


def test_a_prompt_pings_nobody_and_breaks_no_embed(shared: House) -> None:
    person = shared.discord.person()
    ask_for(
        person, shared.channel, f"@everyone <@{shared.discord.person().id}> **bold** `code` # x"
    )
    message = shared.discord.wait_for_message(
        shared.channel, lambda m: m["content"] == f"<@{person.id}>" and bool(m["attachments"])
    )
    assert [user["id"] for user in message["mentions"]] == [str(person.id)]
    assert not message["mention_everyone"]
    assert r"\*\*bold\*\*" in message["embeds"][0]["description"]
    sent = [r.body for r in shared.discord.requests if f"<@{person.id}>" in str(r.body)]
    assert [body["allowed_mentions"]["users"] for body in sent] == [[person.id]]
    assert all(not body["allowed_mentions"]["parse"] for body in sent)


def test_a_job_that_fails_is_reported_without_the_servers_words_and_the_next_one_runs(
    shared: House,
) -> None:
    shared.comfyui.fail_next(
        "builtins.RuntimeError",
        "Could not detect model type of: /home/owner/ComfyUI/models/x y.ckpt",
    )
    unlucky, lucky = shared.discord.person(), shared.discord.person()
    ask_for(unlucky, shared.channel, "a strange model")
    failure = shared.discord.wait_for_message(
        shared.channel, lambda m: m["content"] == f"<@{unlucky.id}>"
    )
    text = text_of(failure)
    assert "failed in KSampler (Efficient): RuntimeError" in text
    assert "a strange model" in text
    assert "/home" not in text
    assert "owner/" not in text
    assert "Traceback" not in text
    assert [user["id"] for user in failure["mentions"]] == [str(unlucky.id)]
    ask_for(lucky, shared.channel, "a whole model")
    shared.discord.wait_for_message(
        shared.channel, lambda m: m["content"] == f"<@{lucky.id}>" and bool(m["attachments"])
    )
    status = shared.installation.rows(
        "SELECT status, error_message IS NOT NULL FROM jobs WHERE discord_user_id = ?",
        str(unlucky.id),
    )
    assert status == [("failed", 1)]


def failure_of(house: House, person: Person) -> str:
    """What people read of a person's failed job."""
    failure = house.discord.wait_for_message(
        house.channel, lambda m: m["content"] == f"<@{person.id}>"
    )
    return text_of(failure).replace("\\", "")


def test_a_broken_model_file_is_said_without_the_words_of_its_loader(shared: House) -> None:
    person = shared.discord.person()
    broken = "Illustrious/waiIllustrious_v140.safetensors"
    shared.comfyui.broken_models = {broken}
    try:
        queued(person, person.slash("gen", shared.channel, prompt="a fox", model=broken).wait())
        text = failure_of(shared, person)
    finally:
        shared.comfyui.broken_models = set()
    assert "The file of the model `waiIllustrious_v140` is broken" in text
    assert "Choose another model" in text
    for word in ("deserializing", "SafetensorError", "header", "Loader"):
        assert word not in text


HOSTILE = "sub/dir/x.pt at gpu-box.lan, 10.0.0.5:8188, Bearer hf_AbCd1234, api_key=sk-5678"
PRIVATE = ("sub", "dir/", "x.pt", "gpu-box", "10.0", "8188", "hf_", "sk-", "AbCd", "5678")


@pytest.mark.parametrize("kind", ["RuntimeError", HOSTILE, "gpu-box.lan", "hf_AbCd1234", "x.hf_"])
def test_what_an_exception_says_of_the_server_stays_in_the_log(shared: House, kind: str) -> None:
    person, other = shared.discord.person(), shared.discord.person()
    ask_for(other, shared.channel, "one that is made")  # after three failures all would wait
    result_of(shared, other)
    shared.comfyui.fail_next(kind, HOSTILE)
    ask_for(person, shared.channel, "a fox")
    text = failure_of(shared, person)
    assert "The picture failed in KSampler (Efficient)" in text
    assert not [word for word in PRIVATE if word in text]


def test_what_a_refusal_says_of_the_server_stays_in_the_log(
    shared: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    error_entry = prompts.error_entry

    def hostile(kind: str, *_: str, **extra: Any) -> Any:
        extra |= {"received_value": HOSTILE, "input_name": HOSTILE}
        return error_entry(kind, HOSTILE, HOSTILE, **extra)

    monkeypatch.setattr(prompts, "error_entry", hostile)
    models = shared.comfyui.models
    shared.comfyui.models = ["another.safetensors"]
    try:
        person = shared.discord.person()
        ask_for(person, shared.channel, "a fox")
        text = failure_of(shared, person)
    finally:
        shared.comfyui.models = models
    assert "ComfyUI does not accept the bot's workflow. Please tell the bot's owner" in text
    assert not [word for word in PRIVATE if word in text]


@pytest.mark.parametrize(
    "texts",
    [
        {"positive_prompt": "a fox embedding:"},
        {"positive_prompt": "a fox", "negative_prompt": "(" * 2000},
    ],
)
def test_a_prompt_that_comfyui_cannot_read_says_where_to_look(
    shared: House, texts: dict[str, str]
) -> None:
    person = shared.discord.person()
    form = open_form(person, shared.channel)
    fill_in(person, form, **texts)
    queued(person, form)
    text = failure_of(shared, person)
    assert (
        "ComfyUI could not read this prompt: look for unbalanced brackets or an incomplete"
        " `embedding:`" in text
    )
    for word in ("Error", "CLIPTextEncode", "range"):
        assert word not in text


def test_more_than_ten_pictures_come_in_several_messages(shared: House) -> None:
    shared.comfyui.pictures_per_prompt = 12
    person = shared.discord.person()
    ask_for(person, shared.channel, "a dozen foxes")
    first = shared.discord.wait_for_message(
        shared.channel, lambda m: m["content"] == f"<@{person.id}>" and bool(m["attachments"])
    )
    messages = shared.channel.messages
    shared.discord.wait_for(lambda d: len(shared.channel.messages) > messages.index(first) + 1)
    rest = shared.channel.messages[messages.index(first) + 1]
    assert (len(first["attachments"]), len(rest["attachments"])) == (10, 2)
    sent = [
        shared.discord.attachment_bytes(attachment)
        for message in (first, rest)
        for attachment in message["attachments"]
    ]
    assert sent == list(shared.comfyui.pictures.values())[-12:]


def percentages(house: House, message: dict[str, Any]) -> list[int]:
    """What the progress message has shown, edit by edit."""
    shown = []
    for entry in house.channel.history:
        if entry["message"]["id"] == message["id"] and entry["event"] != "delete":
            shown += re.findall(r"(\d+) %", text_of(entry["message"]))
    return [int(text) for text in shown]


@pytest.mark.parametrize("progress_state", [True, False], ids=["newer", "older-server"])
def test_one_message_shows_the_progress_over_all_passes_and_goes_with_the_result(
    shared: House, progress_state: bool
) -> None:
    shared.comfyui.progress_state = progress_state
    shared.comfyui.seconds_per_step = 0.08  # 50 steps in four passes
    person = shared.discord.person()
    ask_for(person, shared.channel, "a slow fox")
    message = shared.discord.wait_for_message(
        shared.channel, lambda m: "Generating for" in m["content"]
    )
    assert message["mentions"] == []
    (stored,) = shared.installation.rows(
        "SELECT discord_message_id FROM jobs WHERE discord_user_id = ?", str(person.id)
    )
    result = result_of(shared, person)
    assert stored in (("",), (message["id"],))  # its post has begun, or its answer is noted
    assert [user["id"] for user in result["mentions"]] == [str(person.id)]
    shared.settle()
    shown = percentages(shared, message)
    assert len(shown) >= 2
    assert shown == sorted(shown)
    edits = [e for e in shared.channel.history if e["message"]["id"] == message["id"]]
    assert any("of 4" in text_of(entry["message"]) for entry in edits)
    assert all("<t:" in text_of(entry["message"]) for entry in edits[:-1])
    times = [entry["time"] for entry in edits if entry["event"] == "edit"]
    assert all(later - earlier > 1.9 for earlier, later in itertools.pairwise(times))
    assert [m["id"] for m in shared.channel.messages] == [result["id"]]


def test_the_message_shows_the_picture_while_it_is_made_and_loses_it_with_a_cancellation(
    shared: House,
) -> None:
    shared.comfyui.seconds_per_step = 0.1
    person = shared.discord.person()
    ask_for(person, shared.channel, "a fox that comes out of the noise")
    message = shared.discord.wait_for_message(
        shared.channel, lambda m: bool(m["embeds"]) and "image" in m["embeds"][0]
    )
    picture = message["embeds"][0]["image"]
    assert shared.discord.attachment_bytes(picture).startswith(b"\xff\xd8\xff")
    assert picture["description"] == "Preview of: a fox that comes out of the noise"
    assert message["attachments"] == []  # it is shown once
    assert re.match(r"\d+ % `█", fields(message)["Progress"])
    assert shared.comfyui.preview_methods[-1] == "latent2rgb"
    assert list(shared.comfyui.feature_flags.values()) == [{"supports_preview_metadata": True}]
    person.press(message, CANCEL).wait()
    shared.settle()
    assert message["content"].startswith("Cancelled")
    assert message["attachments"] == []
    (embed,) = message["embeds"]
    assert embed["description"] == "a fox that comes out of the noise"
    assert "image" not in embed
    assert "fields" not in embed


def test_an_owner_who_turns_previews_off_has_none_asked_for(house: House) -> None:
    house.start(PREVIEWS="off")
    person = house.discord.person()
    ask_for(person, house.channel, "in secret")
    assert result_of(house, person)["attachments"]
    assert house.comfyui.preview_methods == [None]
    assert house.comfyui.feature_flags == {}


def test_before_the_first_step_the_message_says_what_it_waits_for(shared: House) -> None:
    shared.comfyui.seconds_per_step = 30.0
    person = shared.discord.person()
    ask_for(person, shared.channel, "slow to begin")
    message = shared.discord.wait_for_message(
        shared.channel, lambda m: "Generating for" in m["content"]
    )
    assert "Waiting for the first step: ComfyUI loads the model" in text_of(message)
    assert "%" not in text_of(message)
    person.press(message, CANCEL).wait()


def test_a_picture_is_described_by_its_prompt(shared: House) -> None:
    person = shared.discord.person()
    prompt = "a *red* fox, " + "very detailed, " * 100
    ask_for(person, shared.channel, prompt)
    (attachment,) = result_of(shared, person)["attachments"]
    assert attachment["description"] == prompt[:1023] + "…"


def test_the_queued_answer_follows_the_queue_until_the_picture_is_there(shared: House) -> None:
    shared.comfyui.hold()
    first, second, third, fourth = (shared.discord.person() for _ in range(4))
    asked = [ask_for(who, shared.channel, "in line") for who in (first, second, third, fourth)]
    for message in asked:
        told = shared.discord.states(message)[0]["message"]["content"]
        assert re.match(r"Queued! You are position \*\*\d\*\* in the queue", told)

    def now(number: int) -> Any:
        return shared.discord.states(asked[number])[-1]["message"]

    def says(number: int, text: str) -> None:
        shared.discord.wait_for(lambda _: text in now(number)["content"])

    says(0, "It is being made now.")
    says(1, "You are next")
    says(2, "You are position **2** in the queue")
    fourth.press(asked[3], CANCEL).wait()
    says(3, "Cancelled.")
    second.press(asked[1], CANCEL).wait()
    says(2, "You are next")
    shared.comfyui.release()
    for number in (0, 2):
        says(number, "Done: see the channel.")
        assert now(number)["components"] == []


def test_an_answer_whose_token_has_expired_is_left_as_it_is(shared: House) -> None:
    shared.comfyui.hold()
    first, second = shared.discord.person(), shared.discord.person()
    ask_for(first, shared.channel, "in work")
    form = open_form(second, shared.channel)
    fill_in(second, form, positive_prompt="much later")
    assert form.message is not None
    reply = second.press(form.message, GENERATE).wait()
    reply.wait_message(lambda m: "You are next" in m["content"])
    reply.expire()
    shared.comfyui.release()
    assert result_of(shared, second)["attachments"]


def test_without_a_feed_the_message_shows_the_time_and_the_job_completes(shared: House) -> None:
    shared.comfyui.fault("WS /ws", "404", None)
    shared.comfyui.go_down()
    shared.comfyui.come_up()
    shared.comfyui.hold()
    person = shared.discord.person()
    ask_for(person, shared.channel, "no feed")
    message = shared.discord.wait_for_message(
        shared.channel, lambda m: "Generating for" in m["content"]
    )
    assert re.search(r"<t:\d{10}:R>", text_of(message))
    assert "%" not in text_of(message)
    shared.comfyui.release()
    assert result_of(shared, person)["attachments"]


def test_the_message_says_that_a_job_waits_behind_somebody_elses_prompt(shared: House) -> None:
    shared.comfyui.hold()
    foreign = shared.comfyui.submit_foreign()
    shared.comfyui.wait_for(lambda c: c.held == foreign)
    person = shared.discord.person()
    ask_for(person, shared.channel, "waits")
    message = shared.discord.wait_for_message(
        shared.channel, lambda m: "Waiting: 1 other prompt is before it" in text_of(m)
    )
    assert "started" not in text_of(message)
    shared.comfyui.release()
    assert result_of(shared, person)["attachments"]


def test_cancelling_a_queued_job_leaves_the_running_ones_message_alone(shared: House) -> None:
    shared.comfyui.seconds_per_step = 0.07
    runner, waiter = shared.discord.person(), shared.discord.person()
    ask_for(runner, shared.channel, "in work")
    message = shared.discord.wait_for_message(
        shared.channel, lambda m: "Generating for" in m["content"]
    )
    waiting = ask_for(waiter, shared.channel, "changed my mind")
    waiter.press(waiting, CANCEL).wait()
    shared.discord.wait_for(lambda _: len(percentages(shared, message)) >= 2)
    assert result_of(shared, runner)["attachments"]


def test_a_picture_over_the_limit_is_re_encoded_and_the_message_says_so(shared: House) -> None:
    shared.comfyui.picture_bytes = 12 * 2**20
    person = shared.discord.person()
    ask_for(person, shared.channel, "huge")
    result = result_of(shared, person)
    assert "compressed" in result["content"]
    (attachment,) = result["attachments"]
    assert attachment["filename"].endswith(".webp")
    assert attachment["size"] <= 10 * 2**20


def test_a_413_all_the_same_is_answered_with_the_next_smaller_step(shared: House) -> None:
    shared.discord.fault("POST", rf"/channels/{shared.channel.id}/messages$", 413, 2)
    person = shared.discord.person()
    ask_for(person, shared.channel, "refused twice")
    result = result_of(shared, person)
    assert result["attachments"][0]["filename"].endswith(".jpg")
    assert "compressed" in result["content"]


def test_ten_large_pictures_come_as_they_were_made_in_as_many_messages_as_it_takes(
    shared: House,
) -> None:
    shared.comfyui.pictures_per_prompt = 10
    shared.comfyui.picture_bytes = 5 * 2**20
    person = shared.discord.person()
    ask_for(person, shared.channel, "ten large ones")
    result_of(shared, person)
    shared.settle()
    files = [a for message in shared.channel.messages for a in message["attachments"]]
    assert [file["filename"].rpartition("-")[2] for file in files] == [
        f"{number}.png" for number in range(1, 11)
    ]
    assert len(shared.channel.messages) == 3


def test_a_picture_that_cannot_be_re_encoded_is_reported_in_words(shared: House) -> None:
    shared.comfyui.picture_bytes = 12 * 2**20
    shared.comfyui.hold()  # long enough for the message that shows the progress
    person = shared.discord.person()
    ask_for(person, shared.channel, "too large for every format")
    shared.discord.wait_for_message(shared.channel, lambda m: "Generating for" in m["content"])
    before = len(shared.comfyui.requests)
    # The picture as it was made comes, and nothing smaller.
    shared.comfyui.after("GET /view", lambda _: shared.comfyui.fault("GET /view", "500", None))
    shared.comfyui.release()
    assert "too large for Discord" in text_of(result_of(shared, person))
    shared.settle()
    assert [m["content"] for m in shared.channel.messages] == [f"<@{person.id}>"]
    fetched = [r for r in shared.comfyui.requests[before:] if r.matches("GET /view")]
    assert ["preview" in request.query for request in fetched] == [False, True, True, True]


def test_a_video_is_posted_as_it_was_made(shared: House) -> None:
    shared.comfyui.saved_as = ("gifs", ".mp4")
    person = shared.discord.person()
    ask_for(person, shared.channel, "a fox that runs")
    (attachment,) = result_of(shared, person)["attachments"]
    assert attachment["filename"].endswith("-1.mp4")
    (name, video) = list(shared.comfyui.pictures.items())[-1]
    assert name.endswith(".mp4")
    assert shared.discord.attachment_bytes(attachment) == video


def test_delete_takes_every_message_of_a_result_whatever_was_said_in_between(
    shared: House,
) -> None:
    """Also if the daily clean-up has removed its row."""
    owner, other = shared.discord.person("owner"), shared.discord.person("other")
    moderator = shared.discord.person("mod", permissions=other.permissions | 1 << 13)
    for who, pictures, has_row in ((owner, 12, True), (owner, 12, False), (moderator, 1, False)):
        shared.channel = shared.spare.pop()  # so that no rate limit is reached
        shared.comfyui.pictures_per_prompt = pictures
        shared.discord.after(  # between the two messages, or after the only one
            "POST",
            rf"/channels/{shared.channel.id}/messages$",
            lambda: other.say(shared.channel, times=200),
        )
        ask_for(owner, shared.channel, "delete me")
        result = result_of(shared, owner)
        shared.settle()
        if not has_row:
            database = sqlite3.connect(shared.installation.database)
            with contextlib.closing(database), database:
                database.execute("DELETE FROM jobs WHERE discord_user_id = ?", (str(owner.id),))
        refused = other.press(result, DELETE).wait()
        refused.wait_message(lambda m: "Only the person" in m["content"])
        assert files_in(shared) == pictures
        delete(who, result)
        shared.discord.wait_for(lambda _: not posted_by_the_bot(shared))
        assert len(shared.channel.messages) == 200


def posted_by_the_bot(house: House) -> list[dict[str, Any]]:
    """Its messages in the channel."""
    own = str(house.discord.bot_user_id)
    return [m for m in house.channel.messages if m["author"]["id"] == own]


def files_in(house: House) -> int:
    """How many pictures the channel shows."""
    return sum(len(message["attachments"]) for message in house.channel.messages)
