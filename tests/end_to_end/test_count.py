"""How many pictures a job makes, and how many frames a video has."""

from __future__ import annotations

import copy
import json
import sqlite3
from contextlib import closing

import pytest

from tests.end_to_end.common import opened_modal, result_of, run, seconds_to_stop
from tests.harness.house import House
from tests.harness.labels import AGAIN, CORRECT_IT, EDIT
from tests.harness.steps import (
    ask_for,
    fields,
    fill_in,
    generate,
    open_form,
    queued,
    text_of,
)
from tests.standins.comfyui import execution
from tests.standins.comfyui.media import mp4
from tests.standins.comfyui.nodes import simple_workflow
from tests.standins.discord.people import Person, Reply

LATENT = "5"  # the node with the number of pictures, of the shipped workflow and of `video()`


def counts(house: House) -> list[int]:
    """The number of pictures in each prompt that ComfyUI was given."""
    return [workflow[LATENT]["inputs"]["batch_size"] for _, workflow in house.comfyui.posted]


def press_until(person: Person, form: Reply, label: str) -> None:
    """Press the button with the number of pictures until it says so."""
    assert form.message is not None
    for shown in ("1 picture", "2 pictures", "3 pictures", "4 pictures"):
        if shown == label:
            return
        person.press(form.message, shown).wait()


def test_four_pictures_come_as_one_message_and_again_keeps_the_number(house: House) -> None:
    house.start()
    person = house.discord.person()
    form = open_form(person, house.channel)
    fill_in(person, form, positive_prompt="four foxes")
    press_until(person, form, "4 pictures")
    queued(person, form)
    result = result_of(house, person)
    assert len(result["attachments"]) == 4
    person.press(result, AGAIN).wait_shown(lambda m: "Queued!" in m["content"])
    assert len(result_of(house, person, 2)["attachments"]) == 4
    assert counts(house) == [4, 4]
    edited = person.press(result, EDIT).wait_message(lambda m: bool(m["embeds"]))
    assert "4 pictures" in str(edited["components"])


def test_after_the_largest_number_comes_one_which_changes_nothing_in_the_prompt(
    house: House,
) -> None:
    house.start(MAX_COUNT="2")
    person = house.discord.person()
    form = open_form(person, house.channel)
    assert form.message is not None
    fill_in(person, form, positive_prompt="a fox", seed="7")
    queued(person, form)
    result_of(house, person)
    form = open_form(person, house.channel)
    assert form.message is not None
    fill_in(person, form, positive_prompt="a fox", seed="7")
    person.press(form.message, "1 picture").wait()
    person.press(form.message, "2 pictures").wait()
    queued(person, form)
    result_of(house, person, 2)
    first, second = (workflow for _, workflow in house.comfyui.posted)
    assert first == second


def test_the_option_of_gen_and_its_limit(house: House) -> None:
    house.start(MAX_COUNT="3")
    person = house.discord.person()
    form = person.slash("gen", house.channel, prompt="foxes", count=3).wait()
    queued(person, form)
    assert len(result_of(house, person)["attachments"]) == 3
    refused = person.slash("gen", house.channel, prompt="foxes", count=5).wait()
    assert "there may be 1 to 3 pictures" in refused.texts[0]


def test_with_a_limit_of_one_the_form_does_not_ask(house: House) -> None:
    house.start(MAX_COUNT="1")
    form = open_form(house.discord.person(), house.channel)
    assert form.message is not None
    assert "picture" not in str(form.message["components"])


def set_in_file(house: House, value: object) -> None:
    """Write another number of pictures into the shipped workflow's file."""
    workflow = json.loads(house.installation.workflow.read_text("utf-8"))
    workflow[LATENT]["inputs"]["batch_size"] = value
    house.installation.workflow.write_text(json.dumps(workflow), "utf-8")


def test_with_a_limit_of_one_the_file_alone_says_how_many(house: House) -> None:
    house.start(MAX_COUNT="1")
    person = house.discord.person()
    for number, in_file in enumerate((3, 3, 2), start=1):
        set_in_file(house, in_file)
        form = open_form(person, house.channel)
        fill_in(person, form, positive_prompt="foxes")
        queued(person, form)
        assert len(result_of(house, person, number)["attachments"]) == in_file
    assert counts(house) == [3, 3, 2]


def test_more_pictures_in_the_file_than_the_limit_stay(house: House) -> None:
    set_in_file(house, 6)
    house.start(MAX_COUNT="2")
    person = house.discord.person()
    ask_for(person, house.channel, "foxes")
    ask_for(person, house.channel, "foxes")
    result_of(house, person, 2)
    assert counts(house) == [6, 6]


def test_a_number_that_cannot_be_chosen_any_more_is_told(house: House) -> None:
    house.start()
    person = house.discord.person()
    form = open_form(person, house.channel)
    fill_in(person, form, positive_prompt="foxes")
    press_until(person, form, "2 pictures")
    house.comfyui.hold()
    queued(person, form)
    waiting = open_form(person, house.channel)
    fill_in(person, waiting, positive_prompt="wolves")
    queued(person, waiting)
    third = open_form(person, house.channel)
    fill_in(person, third, positive_prompt="hares")
    set_in_file(house, "none")
    told = generate(person, third).wait_shown(lambda m: "file has changed" in m["content"])
    assert "the number of pictures cannot be set any more" in told["content"]
    house.comfyui.release()
    made = result_of(house, person)
    failed = result_of(house, person, 2)
    assert "does not let the number of pictures be chosen any more" in text_of(failed)
    again = person.press(made, AGAIN).wait_shown(lambda m: bool(m["embeds"]))
    assert "number of pictures cannot be chosen with this workflow any more" in again["content"]


def test_again_after_the_limit_was_lowered_says_why_a_form_opens(house: House) -> None:
    bot = house.start()
    person = house.discord.person()
    form = open_form(person, house.channel)
    fill_in(person, form, positive_prompt="foxes")
    press_until(person, form, "4 pictures")
    queued(person, form)
    result = result_of(house, person)
    bot.kill()
    house.start(MAX_COUNT="2")
    again = person.press(result, AGAIN).wait_shown(lambda m: bool(m["embeds"]))
    assert "`4` pictures cannot be made at a time: there may be 1 to 2" in again["content"]
    assert "1 picture" in str(again["components"])


def test_the_number_holds_over_a_restart(house: House) -> None:
    bot = house.start()
    person = house.discord.person()
    house.comfyui.hold()
    form = open_form(person, house.channel)
    fill_in(person, form, positive_prompt="foxes")
    press_until(person, form, "2 pictures")
    queued(person, form)
    bot.kill()
    house.comfyui.release()
    house.start()
    assert len(result_of(house, person)["attachments"]) == 2


# A video

BINDINGS = {
    "model": ["4.ckpt_name"],
    "positive": ["6.text"],
    "steps": ["3.steps"],
    "cfg": ["3.cfg"],
    "seed": ["3.seed"],
    "length": ["5.length"],
}


@pytest.fixture
def films(house: House, monkeypatch: pytest.MonkeyPatch) -> House:
    """A workflow that makes 81 frames."""
    info = copy.deepcopy(house.comfyui.object_info["EmptyLatentImage"])
    info["input"]["required"]["length"] = ["INT", {"default": 97, "min": 1, "max": 16384}]
    house.comfyui.object_info = {**house.comfyui.object_info, "EmptyLatentVideo": info}
    workflow = simple_workflow(steps=3)
    workflow[LATENT]["class_type"] = "EmptyLatentVideo"
    workflow[LATENT]["inputs"]["length"] = 81
    house.installation.add_workflow("film", workflow, BINDINGS)
    monkeypatch.setattr(execution, "png_of", lambda *_: mp4(b"frames"))
    house.comfyui.saved_as = ("gifs", ".mp4")
    house.start()
    return house


def lengths(house: House) -> list[int]:
    return [workflow[LATENT]["inputs"]["length"] for _, workflow in house.comfyui.posted]


def test_the_length_of_a_video_is_typed_like_steps(films: House) -> None:
    person = films.discord.person()
    form = person.slash("gen", films.channel, prompt="a fox runs", workflow="film").wait()
    assert form.message is not None
    modal = person.press(form.message, "81 frames").wait().modal
    assert modal is not None
    assert "Frames, from 25 to 121; this workflow's own is 81" in str(modal)
    complaint = person.submit(modal, length="500").wait()
    assert "**Length** is `500`: give a whole number of frames from 25 to 121" in complaint.texts[0]
    again = opened_modal(person, complaint, CORRECT_IT)
    person.submit(again, length="50").wait()
    form.wait_message(lambda m: "49 frames" in str(m["components"]))
    queued(person, form)
    result = result_of(films, person)
    assert fields(result)["Length"] == "49 frames"
    assert result["attachments"][0]["filename"].endswith(".mp4")
    person.press(result, AGAIN).wait_shown(lambda m: "Queued!" in m["content"])
    result_of(films, person, 2)
    assert lengths(films) == [49, 49]


def test_once_takes_a_number_and_a_length(films: House) -> None:
    seconds_to_stop(films.bots[-1])
    out = str(films.installation.folder / "out")
    bot = run(
        films, "--once", "a fox", "--workflow", "film", "--length", "25", "--out", out, offline=True
    )
    assert bot.process.returncode == 0, bot.output
    assert lengths(films) == [25]
    bot = run(films, "--once", "a fox", "--count", "2", "--out", out, offline=True)
    assert counts(films)[-1] == 2, bot.output
    bot = run(films, "--once", "a fox", "--count", "5", offline=True)
    assert "there may be 1 to 4 pictures" in bot.output


def test_a_row_from_before_there_were_numbers_is_made_as_in_the_file(house: House) -> None:
    bot = house.start()
    person = house.discord.person()
    house.comfyui.hold()
    form = open_form(person, house.channel)
    fill_in(person, form, positive_prompt="foxes")
    press_until(person, form, "2 pictures")
    queued(person, form)
    bot.kill()
    with closing(sqlite3.connect(house.installation.database)) as database:
        database.execute("UPDATE jobs SET count = 0, status = 'queued'")
        database.commit()
    house.comfyui.restart()
    house.comfyui.release()
    house.start()
    assert len(result_of(house, person)["attachments"]) == 1
    assert "foxes" in text_of(result_of(house, person))


def test_a_new_length_does_not_lose_the_refused_texts_of_the_other_modal(films: House) -> None:
    person = films.discord.person()
    form = person.slash("gen", films.channel, prompt="a fox runs", workflow="film").wait()
    assert form.message is not None
    fill_in(person, form, positive_prompt="a wolf at night", steps="9999")
    modal = opened_modal(person, form, "81 frames")
    person.submit(modal, length="49").wait()
    form.wait_message(lambda m: "49 frames" in str(m["components"]))
    wrong = person.submit(opened_modal(person, form, "49 frames"), length="x").wait()
    assert "'x'" in str(opened_modal(person, wrong, CORRECT_IT))
    films.bots[-1].kill()
    films.run()
    assert "a wolf at night" in str(opened_modal(person, form))
