"""ComfyUI's lists change under the bot: what moved, what went, when they are read again."""

from __future__ import annotations

import pytest

from tests.end_to_end.common import (
    jobs_of,
    models_of_comfyui,
    offers,
    refresh,
    result_of,
    until,
)
from tests.harness.house import House
from tests.harness.labels import AGAIN, EDIT
from tests.harness.steps import (
    ask_for,
    chosen,
    fields,
    open_form,
    queued,
    text_of,
)
from tests.standins.discord.people import Person, Reply
from tests.standins.discord.schema import EPHEMERAL

FOX = "Illustrious/waiIllustrious_v140.safetensors"


def form_with_fox(house: House, person: Person, prompt: str) -> Reply:
    """/gen with that model, filled in."""
    form = person.slash("gen", house.channel, prompt=prompt, model=FOX, seed="42").wait()
    assert form.message is not None
    assert fields(form.message)["Model"] == r"waiIllustrious\_v140"
    return form


def test_again_edit_and_an_open_form_find_a_model_that_moved_and_say_so(shared: House) -> None:
    person = shared.discord.person()
    queued(person, form_with_fox(shared, person, "a fox that moved"))
    result = result_of(shared, person)
    opened_before = form_with_fox(shared, person, "a fox that moved, too")
    line = r"The model Illustrious/waiIllustrious\_v140 has moved to photo/waiIllustrious\_v140."
    moved = FOX.replace("Illustrious/", "photo/")
    models = [moved if model == FOX else model for model in shared.comfyui.models]
    with models_of_comfyui(shared, models):
        refresh(shared)
        answer = person.press(result, AGAIN).wait()
        answer.wait_shown(lambda m: "Queued!" in m["content"] and line in m["content"])
        assert line in queued(person, opened_before)["content"]
        form = person.press(result, EDIT).wait()
        form.wait_message(lambda m: m["content"] == line)
        assert form.message is not None
        assert chosen(form.message, "Model") == ["waiIllustrious_v140"]
        result_of(shared, person, 3)
    used = [workflow["152"]["inputs"]["ckpt_name"] for _, workflow in shared.comfyui.posted[-2:]]
    assert used == [moved, moved]


def test_again_asks_and_edit_says_what_stands_there_where_the_model_is_gone(shared: House) -> None:
    person = shared.discord.person()
    queued(person, form_with_fox(shared, person, "a fox that went"))
    result = result_of(shared, person)
    line = (
        "The model `waiIllustrious_v140` is not offered any more: `sd_xl_base_1.0` stands in the"
        " form instead."
    )
    with models_of_comfyui(shared, [m for m in shared.comfyui.models if m != FOX]):
        refresh(shared)
        edited = person.press(result, EDIT).wait()
        edited.wait_message(lambda m: m["content"] == line)
        form = person.press(result, AGAIN).wait()
        note = "Nothing is queued yet: choose, and press Generate."
        form.wait_message(lambda m: m["content"] == f"{line}\n{note}")
        assert form.message is not None
        assert form.message["flags"] & EPHEMERAL
        shown = fields(form.message)
        assert (shown["Model"], shown["Prompt"]) == (r"sd\_xl\_base\_1.0", "a fox that went")
        assert shown["Seed"] == "random"  # Again makes another picture
        assert jobs_of(shared, person) == 1
        queued(person, form)
        result_of(shared, person, 2)


def test_a_refused_model_has_the_lists_read_again_and_edit_offers_what_there_is(
    shared: House,
) -> None:
    person = shared.discord.person()
    form = form_with_fox(shared, person, "a fox that vanished")
    others = [model for model in shared.comfyui.models if model != FOX]
    with models_of_comfyui(shared, [*others, "new/brandnew.ckpt"]):
        queued(person, form)
        failure = shared.discord.wait_for_message(
            shared.channel, lambda m: m["content"] == f"<@{person.id}>"
        )
        assert failure["embeds"][0]["description"].replace("\\", "") == (
            "The model `waiIllustrious_v140` is not offered by ComfyUI any more. The list has"
            " been refreshed: press Edit."
        )
        line = shared.bots[-1].wait_for_line("failed: node 152")
        assert "input ckpt_name: Value not in list" in line
        edited = person.press(failure, EDIT).wait()
        edited.wait_message(lambda m: "is not offered any more" in m["content"])
        assert edited.message is not None
        assert fields(edited.message)["Prompt"] == "a fox that vanished"
        assert offers(shared, person, "brandnew")


def test_a_refusal_of_the_workflow_itself_sends_people_to_the_owner(shared: House) -> None:
    person = shared.discord.person()
    saver = shared.comfyui.object_info.pop("SaveImage")
    try:
        ask_for(person, shared.channel, "nowhere to be saved")
        failure = shared.discord.wait_for_message(
            shared.channel, lambda m: m["content"] == f"<@{person.id}>"
        )
    finally:
        shared.comfyui.object_info["SaveImage"] = saver
    text = text_of(failure)
    assert "ComfyUI lacks a node that the bot's workflow needs. Please tell the bot's owner" in text
    assert "SaveImage" not in text
    shared.bots[-1].wait_for_line("SaveImage does not exist")


@pytest.mark.parametrize("feed_goes_on", [False, True])
def test_after_an_absence_that_a_job_notices_the_lists_are_read_again_once(
    shared: House, feed_goes_on: bool
) -> None:
    person = shared.discord.person()
    with models_of_comfyui(shared, [*shared.comfyui.models, "new/afterwards.ckpt"]):
        assert not offers(shared, person, "afterwards")
        before = len(shared.comfyui.requests)
        shared.comfyui.hold()
        ask_for(person, shared.channel, "in between")
        shared.comfyui.wait_for(lambda c: bool(c.running))
        if feed_goes_on:  # a proxy whose ComfyUI hangs, say
            shared.comfyui.fault("*", "502", 3)
        else:
            shared.comfyui.go_down()
            shared.bots[-1].wait_for_line("ComfyUI does not answer")
            shared.comfyui.come_up()
        until(lambda: offers(shared, person, "afterwards"))
        shared.comfyui.wait_for(lambda c: bool(c.listeners))
        shared.comfyui.release()
        result_of(shared, person)
        assert reads_since(shared, before) == 1


def test_so_they_are_after_one_that_only_the_feed_notices(shared: House) -> None:
    person = shared.discord.person()
    with models_of_comfyui(shared, [*shared.comfyui.models, "new/restarted.ckpt"]):
        before = len(shared.comfyui.requests)
        shared.comfyui.restart()
        until(lambda: offers(shared, person, "restarted"))
        assert reads_since(shared, before) == 1


def reads_since(house: House, number: int) -> int:
    """How often the lists were read after so many requests."""
    asked = [request.path for request in house.comfyui.requests[number:]]
    return len([path for path in asked if "object_info" in path])


def test_lists_that_are_old_are_read_at_a_gen_which_does_not_wait_for_them(house: House) -> None:
    house.installation.configure(house.settings)
    house.run(environment={"LISTS_AGE": "0"})
    person = house.discord.person()
    with models_of_comfyui(house, [*house.comfyui.models, "new/tenminutes.ckpt"]):
        house.comfyui.fault("GET /object_info", "hang", 1)
        form = open_form(person, house.channel).message  # answered with the lists as they were
        assert form is not None
        assert not offers(house, person, "tenminutes")
        house.comfyui.clear_faults()
        until(lambda: offers(house, person, "tenminutes"))
