"""Pictures of people: each way into a form, through the workflows that come with the program."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from bot.permissions import NO_COMMANDS
from tests.end_to_end.common import result_of
from tests.harness.house import House
from tests.harness.labels import AGAIN, EDIT, EDIT_PROMPTS, GENERATE, PICTURE, USE
from tests.harness.steps import (
    ask_for,
    chosen,
    fields,
    fill_in,
    labels,
    queued,
    text_of,
)
from tests.standins.comfyui.pictures import draw_png
from tests.standins.discord.people import File, Person, Reply
from tests.standins.discord.schema import USE_APPLICATION_COMMANDS

PHOTO = draw_png(b"a photo", (40, 24), {}, 0)
OTHER = draw_png(b"another", (30, 30), {}, 0)
LARGE = draw_png(b"large", (2000, 1500), {}, 0)
APP = "Use this picture"


@pytest.fixture(scope="module")
def furnish() -> Callable[[House], None]:
    """The workflows that come with the program, all of them."""
    return with_shipped


def with_shipped(house: House) -> None:
    house.installation.add_shipped()


def shown(reply: Reply) -> dict[str, Any]:
    """The form, once it is there."""
    return reply.wait_message(lambda m: any(e.get("title") == "Your picture" for e in m["embeds"]))


def controls(message: dict[str, Any]) -> list[str]:
    """The names of its menus and buttons."""
    parts = [control for row in message["components"] for control in row["components"]]
    return [control.get("placeholder") or control["label"] for control in parts]


def gen(house: House, person: Person, **options: Any) -> Reply:
    return person.slash("gen", house.channel, **options).wait()


def photo(data: bytes = PHOTO, name: str = "photo.png") -> File:
    return File(name, data)


def loaded(house: House, prompt: dict[str, Any]) -> bytes:
    """The picture that a posted prompt works on."""
    (name,) = [n["inputs"]["image"] for n in prompt.values() if n["class_type"] == "LoadImage"]
    return house.comfyui.uploads[name]


def last_prompt(house: House) -> dict[str, Any]:
    return dict(house.comfyui.posted[-1][1])


# ---------------------------------------------------------------------------------------------
# /gen image:


def test_gen_with_a_picture_opens_a_form_over_a_workflow_that_takes_it(shared: House) -> None:
    person = shared.discord.person()
    form = gen(shared, person, image=photo(), prompt="in oil")
    message = shown(form)
    assert fields(message)["Workflow"] == "edit"
    assert fields(message)["Picture"] == "40 x 24"
    assert shared.discord.attachment_bytes(message["embeds"][0]["thumbnail"]) == PHOTO
    buttons = [EDIT_PROMPTS, PICTURE, GENERATE]
    assert controls(message) == ["Workflow", "Model", "Sampler", "Strength", *buttons]
    assert chosen(message, "Workflow") == ["edit"]
    assert labels(message, "Strength") == [
        "as in the workflow (0.6)",
        "Light (0.3)",
        "Medium (0.5)",
        "Strong (0.7)",
        "All (1)",
    ]
    person.select(message, "Strength", "Strong (0.7)").wait()
    person.select(message, "Model", labels(message, "Model")[0]).wait()
    queued(person, form)
    result = result_of(shared, person)
    prompt = last_prompt(shared)
    assert loaded(shared, prompt) == PHOTO
    assert prompt["6"]["inputs"]["denoise"] == 0.7
    assert prompt["3"]["inputs"]["text"] == "in oil"
    assert fields(result)["Strength"] == "strong (0.7)"
    assert fields(result)["Made from"] == "40 x 24"


def test_a_picture_is_enlarged_without_a_prompt(shared: House) -> None:
    person = shared.discord.person()
    form = gen(shared, person, image=photo())
    person.select(shown(form), "Workflow", "upscale").wait()
    message = shown(form)
    assert controls(message) == ["Workflow", "Model", PICTURE, GENERATE]
    assert "Prompt" not in fields(message)
    if not chosen(message, "Model"):
        person.select(message, "Model", labels(message, "Model")[0]).wait()
    queued(person, form)
    result = result_of(shared, person)
    assert loaded(shared, last_prompt(shared)) == PHOTO
    assert "(upscale, without a prompt)" in text_of(result)
    assert "Strength" not in fields(result)


def test_a_job_without_a_prompt_has_a_name_in_the_lists(shared: House) -> None:
    person, name = shared.discord.person(), "(upscale, without a prompt)"
    form = gen(shared, person, image=photo(), workflow="upscale")
    shown(form)
    shared.comfyui.hold()
    queued(person, form)
    shared.comfyui.wait_for(lambda c: c.posted and loaded(shared, c.posted[-1][1]) == PHOTO)
    queue = person.slash("queue", shared.channel).wait()
    assert name in text_of(queue.wait_message(lambda m: bool(m["embeds"])))
    shared.discord.wait_for_message(shared.channel, lambda m: name in text_of(m))
    shared.comfyui.release()
    result_of(shared, person)
    mine = person.slash("mine", shared.channel).wait()
    assert name in text_of(mine.wait_message(lambda m: bool(m["embeds"])))


def test_gen_without_a_picture_begins_with_a_workflow_that_needs_none(shared: House) -> None:
    person = shared.discord.person()
    form = gen(shared, person, image=photo(), prompt="in oil")
    person.select(shown(form), "Model", labels(shown(form), "Model")[0]).wait()
    queued(person, form)
    result_of(shared, person)
    message = shown(gen(shared, person))
    assert fields(message)["Workflow"] == "multisampler"
    assert "Picture" not in fields(message)


def test_a_workflow_that_takes_a_picture_makes_nothing_without_one(shared: House) -> None:
    person = shared.discord.person()
    before = len(shared.comfyui.posted)
    form = gen(shared, person, workflow="edit", prompt="in oil")
    message = shown(form)
    assert "This workflow works on a picture: press Picture" in text_of(message)
    person.select(message, "Model", labels(message, "Model")[0]).wait()
    answer = person.press(message, GENERATE).wait()
    assert "Still missing: a picture" in answer.texts[0]
    shared.settle()
    assert len(shared.comfyui.posted) == before
    assert shared.installation.rows(
        "SELECT count(*) FROM jobs WHERE discord_user_id = ?", str(person.id)
    ) == [(0,)]


def test_a_workflow_that_takes_none_is_not_used_for_a_picture(shared: House) -> None:
    person = shared.discord.person()
    message = shown(gen(shared, person, workflow="multisampler", image=photo()))
    assert fields(message)["Workflow"] == "edit"
    assert "The workflow `multisampler` takes no picture." in text_of(message)


def test_a_large_picture_is_scaled_down_and_the_result_says_so(shared: House) -> None:
    person = shared.discord.person()
    form = gen(shared, person, image=photo(LARGE), prompt="in oil")
    says = "2000 x 1500, scaled down to 2 megapixels"
    assert fields(shown(form))["Picture"] == says
    person.select(shown(form), "Model", labels(shown(form), "Model")[0]).wait()
    queued(person, form)
    assert fields(result_of(shared, person))["Made from"] == says
    assert "ImageScaleToTotalPixels" in json.dumps(last_prompt(shared))


def test_again_and_edit_keep_the_picture_and_its_strength(shared: House) -> None:
    person = shared.discord.person()
    form = gen(shared, person, image=photo(), prompt="in oil")
    person.select(shown(form), "Strength", "Light (0.3)").wait()
    person.select(shown(form), "Model", labels(shown(form), "Model")[0]).wait()
    queued(person, form)
    result = result_of(shared, person)
    other = shared.discord.person("other")
    other.press(result, AGAIN).wait_message(lambda m: "Queued!" in m["content"])
    result_of(shared, other)
    prompt = last_prompt(shared)
    assert (loaded(shared, prompt), prompt["6"]["inputs"]["denoise"]) == (PHOTO, 0.3)
    edited = other.press(result, EDIT)
    message = shown(edited)
    assert fields(message)["Picture"] == "40 x 24"
    assert fields(message)["Strength"] == "light (0.3)"
    fill_in(other, edited, positive_prompt="in chalk")
    queued(other, edited)
    result_of(shared, other, 2)
    prompt = last_prompt(shared)
    assert (loaded(shared, prompt), prompt["3"]["inputs"]["text"]) == (PHOTO, "in chalk")


# ---------------------------------------------------------------------------------------------
# Apps > Use this picture, and the button Use…


def choose_model(person: Person, reply: Reply) -> None:
    message = shown(reply)
    person.select(message, "Model", labels(message, "Model")[0]).wait()


def test_a_picture_of_anybody_is_used_by_the_menu_of_its_message(shared: House) -> None:
    other, person = shared.discord.person("other"), shared.discord.person()
    message = other.post(shared.channel, "my cat", photo())
    form = person.use_app(APP, message)
    assert fields(shown(form))["Picture"] == "40 x 24"
    choose_model(person, form)
    fill_in(person, form, positive_prompt="in oil")
    queued(person, form)
    result_of(shared, person)
    assert loaded(shared, last_prompt(shared)) == PHOTO
    again = person.use_app(APP, message)
    assert fields(shown(again))["Picture"] == "40 x 24"


def test_of_several_pictures_one_is_chosen_in_the_form(shared: House) -> None:
    person = shared.discord.person()
    files = (photo(), File("notes.txt", b"no picture"), photo(OTHER, "other.png"))
    form = person.use_app(APP, person.post(shared.channel, "two", *files))
    message = shown(form)
    assert len(message["components"]) == 5
    assert controls(message)[:4] == ["Picture", "Workflow", "Model", "Strength"]
    assert [o["label"] for o in message["components"][0]["components"][0]["options"]] == [
        "Picture 1: photo.png",
        "2: other.png",
    ]
    person.select(message, "Picture", "2: other.png").wait()
    shared.discord.wait_for(lambda _: fields(shown(form))["Picture"] == "30 x 30")
    choose_model(person, form)
    fill_in(person, form, positive_prompt="in oil")
    queued(person, form)
    result_of(shared, person)
    assert loaded(shared, last_prompt(shared)) == OTHER


def test_a_picture_that_an_embed_shows_is_used_from_discords_copy_alone(shared: House) -> None:
    person = shared.discord.person()
    lent = shared.discord._uploaded(7, "linked.png", OTHER)
    image = {"url": "http://127.0.0.1:1/secret.png", "proxy_url": lent["url"]}
    embed = {"type": "image", "url": image["url"], "thumbnail": image}
    form = person.use_app(APP, person.post(shared.channel, image["url"], embeds=[embed]))
    assert fields(shown(form))["Picture"] == "30 x 30"
    video = {"type": "video", "url": image["url"], "thumbnail": image}
    answer = person.use_app(APP, person.post(shared.channel, "a video", embeds=[video])).wait()
    assert "There is no picture in this message." in answer.texts[0]


def test_a_result_goes_on_by_use_and_twice(shared: House) -> None:
    person, other = shared.discord.person(), shared.discord.person("other")
    ask_for(person, shared.channel, "a fox")
    result = result_of(shared, person)
    assert [c["label"] for c in result["components"][0]["components"]] == [
        AGAIN,
        EDIT,
        USE,
        "Delete",
    ]
    first, second = other.press(result, USE), other.press(result, USE)
    for number, form in enumerate((first, second), 1):
        if chosen(shown(form), "Workflow") != ["upscale"]:
            other.select(shown(form), "Workflow", "upscale").wait()
        choose_model(other, form)
        queued(other, form)
        result_of(shared, other, number)
    picture = shared.discord.attachment_bytes(result["attachments"][0])
    prompts = [p for _, p in shared.comfyui.posted[-2:]]
    assert [loaded(shared, prompt)[-40:] for prompt in prompts] == [picture[-40:]] * 2
    assert other.press(result_of(shared, other), USE).wait_message(
        lambda m: "Your picture" in text_of(m)
    )


# ---------------------------------------------------------------------------------------------
# The window


def window(person: Person, form: Reply) -> Any:
    modal = person.press(shown(form), PICTURE).wait().modal
    assert modal is not None
    return modal


def test_a_picture_is_sent_in_a_window_and_the_text_stays(shared: House) -> None:
    person = shared.discord.person()
    form = gen(shared, person, prompt="in oil")
    assert fields(shown(form))["Workflow"] == "multisampler"
    person.submit(window(person, form), photo()).wait()
    shared.discord.wait_for(lambda _: fields(shown(form)).get("Picture") == "40 x 24")
    assert (fields(shown(form))["Workflow"], fields(shown(form))["Prompt"]) == ("edit", "in oil")
    person.submit(window(person, form), photo(OTHER)).wait()
    shared.discord.wait_for(lambda _: fields(shown(form)).get("Picture") == "30 x 30")
    choose_model(person, form)
    queued(person, form)
    result_of(shared, person)
    assert loaded(shared, last_prompt(shared)) == OTHER


def test_a_window_of_a_form_that_was_sent_opens_a_new_one(shared: House) -> None:
    person = shared.discord.person()
    form = gen(shared, person, image=photo(), prompt="in oil")
    choose_model(person, form)
    modal = window(person, form)
    queued(person, form)
    reply = person.submit(modal, photo(OTHER))
    message = shown(reply)
    assert "That form was sent already, so here is a new one." in text_of(message)
    assert fields(message)["Picture"] == "30 x 30"
    result_of(shared, person)


def test_a_refused_picture_is_not_replaced_by_that_of_a_form_that_was_left(shared: House) -> None:
    person = shared.discord.person()
    shown(gen(shared, person, image=photo(), prompt="in oil"))
    message = shown(gen(shared, person, image=File("a.heic", b"\0\0\0\x18ftypheic" + bytes(40))))
    assert "This file is an HEIC photo." in text_of(message)
    assert fields(message)["Picture"] == "not given yet: press Picture"
    assert fields(message)["Prompt"] == "in oil"


def test_the_picture_of_a_form_that_was_left_is_in_no_job_that_takes_none(shared: House) -> None:
    person = shared.discord.person()
    form = gen(shared, person, image=photo(), prompt="in oil")
    person.select(shown(form), "Workflow", "upscale").wait()
    plain = gen(shared, person, prompt="a fox")
    message = shown(plain)
    assert fields(message)["Workflow"] == "multisampler"
    assert "thumbnail" not in message["embeds"][0]
    if not chosen(message, "Model"):
        choose_model(person, plain)
    queued(person, plain)
    result = result_of(shared, person)
    assert "Made from" not in fields(result)
    query = "SELECT image, strength FROM jobs WHERE discord_user_id = ?"
    assert shared.installation.rows(query, str(person.id)) == [("", 0.0)]
    person.press(result, AGAIN).wait_message(lambda m: "Queued!" in m["content"])
    result_of(shared, person, 2)
    assert "Picture" not in fields(shown(person.press(result, EDIT)))


def test_a_web_page_and_an_empty_file_are_refused(shared: House) -> None:
    person = shared.discord.person()
    for data, what in ((b"<!DOCTYPE html><html>", "a web page"), (b"", "no picture that")):
        form = gen(shared, person, image=File("a.png", data), prompt="in oil")
        assert f"This file is {what}" in text_of(shown(form))
        assert fields(shown(form))["Prompt"] == "in oil"


def test_a_form_that_was_sent_while_its_new_picture_was_read_stays_sent(
    shared: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    person = shared.discord.person()
    form = gen(shared, person, image=photo(), prompt="in oil")
    choose_model(person, form)
    modal = window(person, form)
    asked, sent = threading.Event(), threading.Event()

    async def slowly() -> AsyncIterator[bytes]:
        asked.set()
        await asyncio.to_thread(sent.wait, 20)
        yield OTHER

    upload = shared.discord._uploaded

    def slow_upload(*given: Any) -> dict[str, Any]:
        file = upload(*given)
        shared.discord._bytes[file["url"]] = slowly()  # type: ignore[assignment]
        return file

    with monkeypatch.context() as patch:
        patch.setattr(shared.discord, "_uploaded", slow_upload)
        person.submit(modal, photo(OTHER))
        assert asked.wait(20)
    queued(person, form)
    sent.set()
    form.wait_message(lambda m: "This form has been sent already." in m["content"])
    assert not shown(form)["components"]
    result_of(shared, person)
    assert loaded(shared, last_prompt(shared)) == PHOTO


# ---------------------------------------------------------------------------------------------
# What is refused


REFUSED = {
    "a.heic": (b"\0\0\0\x18ftypheic" + bytes(40), "This file is an HEIC photo. Send a PNG,"),
    "a.png": (PHOTO[:40], "This PNG picture is broken or not complete. Send a PNG,"),
    "big.png": (PHOTO + bytes(21 * 2**20), "This file has 21.0 MB; at most 20 MB can be used."),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_said_in_each_way_and_the_form_keeps_its_text(
    shared: House, name: str
) -> None:
    person = shared.discord.person()
    data, sentence = REFUSED[name]
    before = len(shared.comfyui.posted)
    form = gen(shared, person, image=File(name, data), prompt="in oil")
    message = shown(form)
    assert sentence in text_of(message)
    assert fields(message)["Prompt"] == "in oil"
    assert fields(message)["Picture"] == "not given yet: press Picture"
    person.submit(window(person, form), File(name, data)).wait()
    form.wait_message(lambda m: sentence in text_of(m) and "in oil" in text_of(m))
    reply = person.use_app(APP, person.post(shared.channel, "look", File(name, data)))
    reply.wait_message(lambda m: sentence in m["content"])
    assert len(shared.comfyui.posted) == before
    person.submit(window(person, form), photo()).wait()
    shared.discord.wait_for(lambda _: fields(shown(form)).get("Picture") == "40 x 24")
    person.submit(window(person, form), File(name, data)).wait()
    form.wait_message(lambda m: sentence in text_of(m))
    assert fields(shown(form))["Picture"] == "40 x 24"  # the one from before stays


def test_a_picture_that_discord_no_longer_has_is_asked_for_again(shared: House) -> None:
    person = shared.discord.person()
    message = person.post(shared.channel, "look", photo())
    shared.discord.forget_file(message["attachments"][0])
    reply = person.use_app(APP, message)
    gone = "Discord no longer has that picture: send it again."
    reply.wait_message(lambda m: m["content"] == gone)


def test_a_message_without_a_picture_says_so(shared: House) -> None:
    person = shared.discord.person()
    message = person.post(shared.channel, "look", File("a.pdf", b"%PDF"))
    answer = person.use_app(APP, message).wait()
    assert "There is no picture in this message." in answer.texts[0]


def test_a_message_that_is_deleted_after_its_picture_was_read_does_not_matter(
    shared: House,
) -> None:
    person = shared.discord.person()
    message = person.post(shared.channel, "look", photo())
    form = person.use_app(APP, message)
    choose_model(person, form)
    shared.discord.forget_file(message["attachments"][0])
    person.delete(message)
    fill_in(person, form, positive_prompt="in oil")
    queued(person, form)
    result_of(shared, person)
    assert loaded(shared, last_prompt(shared)) == PHOTO


def test_a_picture_that_is_no_longer_kept_is_asked_for_once_more(shared: House) -> None:
    person = shared.discord.person()
    form = gen(shared, person, image=photo(), prompt="in oil")
    choose_model(person, form)
    queued(person, form)
    result = result_of(shared, person)
    with_database(shared, "DELETE FROM pictures")
    for label in (AGAIN, EDIT):
        form = person.press(result, label)
        message = shown(form)
        assert "no longer kept: send it once more" in text_of(message)
        assert fields(message)["Prompt"] == "in oil"
        assert "Still missing: a picture" in person.press(message, GENERATE).wait().texts[0]
    person.submit(window(person, form), photo(OTHER)).wait()
    shared.discord.wait_for(lambda _: fields(shown(form)).get("Picture") == "30 x 30")
    queued(person, form)
    result_of(shared, person, 2)
    assert loaded(shared, last_prompt(shared)) == OTHER


def with_database(house: House, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(house.installation.database, timeout=20)) as base, base:
        base.execute(statement)


def test_nobody_uses_a_picture_who_may_not_use_gen(shared: House) -> None:
    person = shared.discord.person()
    elsewhere = shared.discord.guild.add_channel("elsewhere")
    reply = person.use_app(APP, person.post(elsewhere, "look", photo())).wait()
    assert f"“{APP}” is not available in this channel." in reply.texts[0]
    ask_for(person, shared.channel, "a fox")
    result = result_of(shared, person)
    form = gen(shared, person)
    modal = window(person, form)
    person.deny(shared.channel, USE_APPLICATION_COMMANDS)
    try:
        assert NO_COMMANDS in person.press(result, USE).wait().texts[0]
        assert NO_COMMANDS in person.press(shown(form), PICTURE).wait().texts[0]
        assert NO_COMMANDS in person.submit(modal, photo()).wait().texts[0]
    finally:
        person.deny(shared.channel, 0)


# ---------------------------------------------------------------------------------------------
# A bot of its own


def test_after_a_restart_each_way_works_or_says_what_to_do(house: House) -> None:
    with_shipped(house)
    bot = house.start()
    person = house.discord.person()
    message = person.post(house.channel, "two", photo(), photo(OTHER, "other.png"))
    form = person.use_app(APP, message)
    many = shown(form)
    modal = window(person, form)
    ask_for(person, house.channel, "a fox")
    result = result_of(house, person)
    assert bot.stop() == 0
    house.start()
    reply = person.submit(modal, photo())
    reply.wait_message(lambda m: "no longer had that form, so here is a new one." in text_of(m))
    assert fields(shown(reply))["Picture"] == "40 x 24"
    assert shown(person.press(result, USE))
    assert shown(person.use_app(APP, message))
    with pytest.raises(AssertionError, match="one menu 'Picture' wanted"):
        person.select(shown(reply), "Picture", "2: other.png")
    assert many["id"] == shown(reply)["id"]  # it stands where the old one stood


def test_where_no_workflow_takes_a_picture_none_is_asked_for(house: House) -> None:
    house.start()
    person = house.discord.person()
    assert PICTURE not in controls(shown(gen(house, person)))
    sentence = "No workflow of this bot works on pictures."
    form = gen(house, person, image=photo(), prompt="in oil")
    assert sentence in text_of(shown(form))
    assert fields(shown(form))["Prompt"] == "in oil"
    message = person.post(house.channel, "look", photo())
    assert sentence in person.use_app(APP, message).wait().texts[0]
    ask_for(person, house.channel, "a fox")
    result = result_of(house, person)
    assert USE not in controls(result)


def test_a_blocked_prompt_is_blocked_with_a_picture_too(house: House) -> None:
    with_shipped(house)
    house.start()
    manager, person = house.discord.manager(), house.discord.person()
    manager.slash("blocked add", house.channel, term="gore").wait()
    form = gen(house, person, image=photo(), prompt="gore")
    choose_model(person, form)
    answer = person.press(shown(form), GENERATE).wait()
    answer.wait_message(lambda m: "gore" in text_of(m))
    assert house.installation.rows("SELECT count(*) FROM jobs") == [(0,)]


def test_what_the_server_has_no_models_for_is_left_out_with_a_line_in_the_log(house: House) -> None:
    with_shipped(house)
    house.comfyui.offer("model_name", [])
    bot = house.start()
    person = house.discord.person()
    form = gen(house, person, image=photo())
    assert "Workflow" not in controls(shown(form))
    assert fields(shown(form))["Workflow"] == "edit"
    assert "upscale" in bot.output


def test_twenty_five_workflows_and_three_hundred_models_fit_into_a_form(house: House) -> None:
    with_shipped(house)
    house.comfyui.models = [
        f"{'very long folder/' * 5}{n:03} model.safetensors" for n in range(300)
    ]
    edit = house.installation.folder / "workflows" / "edit"
    for number in range(30):
        shutil.copytree(edit, edit.with_name(f"edit {number:02} {'with a long name ' * 6}"))
    house.start()
    person = house.discord.person()
    form = gen(house, person, image=photo(), prompt="x" * 1500)
    message = shown(form)
    assert len(labels(message, "Workflow")) == 25
    person.select(message, "Workflow", labels(message, "Workflow")[20]).wait()
    choose_model(person, form)
    queued(person, form)
    result_of(house, person)


def test_a_workflow_that_takes_a_picture_as_the_only_one_left_asks_for_it(house: House) -> None:
    with_shipped(house)
    house.start(WORKFLOW_PATH="workflows/upscale/base.json")
    person = house.discord.person()
    message = shown(gen(house, person, workflow="upscale"))
    assert fields(message)["Picture"] == "not given yet: press Picture"
    assert fields(shown(gen(house, person)))["Workflow"] != "upscale"


def test_a_moderators_cancel_during_the_upload_publishes_no_picture(house: House) -> None:
    with_shipped(house)
    bot = house.start()
    person, moderator = house.discord.person(), house.discord.moderator()
    form = gen(house, person, image=photo(), prompt="in oil")
    choose_model(person, form)
    house.comfyui.fault("POST /upload/image", "hang")
    queued(person, form)
    shown_job = house.discord.wait_for_message(
        house.channel, lambda m: "Cancel" in controls(m) and "in oil" in text_of(m)
    )
    moderator.press(shown_job, "Cancel").wait()
    house.comfyui.clear_faults()
    house.settle()
    query = "SELECT status, image, interaction_id FROM jobs"
    ((status, image, _),) = house.installation.rows(query)
    assert (status, len(image)) == ("cancelled", 64)
    assert not [m for m in house.channel.messages if m["attachments"]]
    assert house.comfyui.running is None
    assert not house.comfyui.pending
    assert "attachments/" not in bot.output
    dump = "\n".join(str(row) for row in house.installation.rows("SELECT * FROM jobs"))
    assert "http" not in dump


def test_one_person_has_no_more_jobs_with_pictures_waiting_than_others(house: House) -> None:
    with_shipped(house)
    house.start(MAX_WAITING_PER_PERSON="1")
    person = house.discord.person()
    house.comfyui.hold()
    form = gen(house, person, image=photo(), workflow="upscale")
    choose_model(person, form)
    queued(person, form)
    more = gen(house, person, image=photo(OTHER), workflow="upscale")
    answer = person.press(shown(more), GENERATE).wait()
    answer.wait_message(lambda m: "one person may have 1" in text_of(m))
    assert fields(shown(more))["Picture"] == "30 x 30"
    house.comfyui.release()
    result_of(house, person)


def test_after_a_restart_a_form_with_a_picture_makes_nothing_and_says_so(house: House) -> None:
    with_shipped(house)
    bot = house.start(IMAGE_RETENTION_DAYS="0")
    person = house.discord.person()
    form = gen(house, person, image=photo(), prompt="in oil")
    choose_model(person, form)
    message = shown(form)
    assert bot.stop() == 0
    house.start(IMAGE_RETENTION_DAYS="0")
    answer = person.press(message, GENERATE).wait()
    answer.wait_message(lambda m: "Please run /gen again." in m["content"])
    assert fields(shown(gen(house, person)))["Workflow"] == "multisampler"
    assert house.installation.rows("SELECT count(*) FROM jobs") == [(0,)]
    assert house.installation.rows("SELECT count(*) FROM pictures") == [(1,)]
