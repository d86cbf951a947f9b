"""ComfyUI's lists change under the bot: what moved, what went, when they are read again."""

from __future__ import annotations

from tests.end_to_end.common import (
    jobs_of,
    models_of_comfyui,
    offers,
    refresh,
    result_of,
    until,
)
from tests.harness.house import House
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


def test_again_and_edit_find_a_model_that_moved_and_say_so(shared: House) -> None:
    person = shared.discord.person()
    queued(person, form_with_fox(shared, person, "a fox that moved"))
    result = result_of(shared, person)
    line = r"The model Illustrious/waiIllustrious\_v140 has moved to photo/waiIllustrious\_v140."
    moved = FOX.replace("Illustrious/", "photo/")
    models = [moved if model == FOX else model for model in shared.comfyui.models]
    with models_of_comfyui(shared, models):
        refresh(shared)
        answer = person.press(result, "Again").wait()
        answer.wait_message(lambda m: "Queued!" in m["content"] and line in m["content"])
        form = person.press(result, "Edit").wait()
        form.wait_message(lambda m: m["content"] == line)
        assert form.message is not None
        assert chosen(form.message, "Model") == ["waiIllustrious_v140"]
        result_of(shared, person, 2)
    assert shared.comfyui.posted[-1][1]["152"]["inputs"]["ckpt_name"] == moved


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
        edited = person.press(result, "Edit").wait()
        edited.wait_message(lambda m: m["content"] == line)
        form = person.press(result, "Again").wait()
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
        text = text_of(failure).replace("\\", "")
        assert (
            "The model `waiIllustrious_v140` is not offered by ComfyUI any more; the list is fresh"
            " now: press Edit." in text
        )
        for word in ("152", "ckpt_name", "Value not in list", "Loader"):
            assert word not in text
        line = shared.bots[-1].wait_for_line("failed: node 152")
        assert "input ckpt_name: Value not in list" in line
        edited = person.press(failure, "Edit").wait()
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


def test_after_an_absence_of_comfyui_the_lists_are_read_again_once(shared: House) -> None:
    person = shared.discord.person()
    shared.comfyui.wait_for(lambda c: bool(c.listeners))
    with models_of_comfyui(shared, [*shared.comfyui.models, "new/afterwards.ckpt"]):
        assert not offers(shared, person, "afterwards")
        before = len(shared.comfyui.requests)
        shared.comfyui.hold()
        ask_for(person, shared.channel, "in between")
        shared.comfyui.wait_for(lambda c: bool(c.running))
        shared.comfyui.go_down()
        shared.bots[-1].wait_for_line("ComfyUI does not answer")
        shared.comfyui.come_up()
        until(lambda: offers(shared, person, "afterwards"))
        shared.comfyui.wait_for(lambda c: bool(c.listeners))
        shared.comfyui.release()
        result_of(shared, person)
        asked = [request.path for request in shared.comfyui.requests[before:]]
        assert len([path for path in asked if "object_info" in path]) == 1


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
