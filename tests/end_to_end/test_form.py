"""/gen up to "Queued!", as a person fills it in: menus, modal, drafts, names (M6 to M9)."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from tests.end_to_end.common import jobs_of, opened_modal, result_of, typed_in
from tests.harness.house import House
from tests.harness.steps import (
    ask_for,
    chosen,
    fields,
    fill_in,
    generate,
    labels,
    menu,
    open_form,
    queued,
    text_of,
)
from tests.standins.discord.schema import ATTACH_FILES, EPHEMERAL, SEND_MESSAGES_IN_THREADS

TYPED = {
    "positive_prompt": "a whole poem",
    "negative_prompt": "prose",
    "steps": "31",
    "cfg": "3.5",
    "seed": "7",
}
WRONG_STEPS = ["1_0", "nan", "１２", " ", "20.0", "0", "151", "-5", "1e1", "1,000", "x"]  # noqa: RUF001
WRONG_CFG = ["nan", "inf", "0.9", "30.5", "７", "1_0", "7,", " ", "+-7", "7."]  # noqa: RUF001


def styles_of(message: dict[str, Any]) -> dict[str, int]:
    """The colours of a message's buttons: 1 blurple, 2 grey, 3 green."""
    controls = [component for row in message["components"] for component in row["components"]]
    return {control["label"]: control["style"] for control in controls if "style" in control}


def test_the_form_is_for_its_person_alone_and_has_all_controls(shared: House) -> None:
    form = open_form(shared.discord.person(), shared.channel)
    assert form.message is not None
    assert form.message["flags"] & EPHEMERAL
    controls = [
        component.get("placeholder") or component.get("label")
        for row in form.message["components"]
        for component in row["components"]
    ]
    menus = ["Model", "Sampler", "Scheduler", "Shape"]
    assert controls == [*menus, "Edit Prompts & Settings", "Generate"]
    shown = fields(form.message)
    assert {"Model", "Sampler", "Scheduler", "Steps", "CFG"} <= shown.keys()
    assert (shown["Steps"], shown["CFG"]) == ("20", "7")


def test_a_choice_shows_in_the_form_at_once(shared: House) -> None:
    person = shared.discord.person()
    form = open_form(person, shared.channel)
    assert form.message is not None
    person.select(form.message, "Sampler", "heun").wait()
    assert fields(form.message)["Sampler"] == "heun"
    assert chosen(form.message, "Sampler") == ["heun"]


def test_selecting_a_sampler_resets_the_scheduler(shared: House) -> None:
    person = shared.discord.person()
    form = open_form(person, shared.channel)
    assert form.message is not None
    first, *_, last = labels(form.message, "Scheduler")
    person.select(form.message, "Scheduler", last).wait()
    assert fields(form.message)["Scheduler"] == last
    person.select(form.message, "Sampler", "heun").wait()
    assert fields(form.message)["Scheduler"] == first
    assert f"Scheduler was set to {first} with this sampler." in text_of(form.message)
    person.select(form.message, "Sampler", "lms").wait()
    assert "was set to" not in text_of(form.message)


def test_a_closed_menu_says_which_one_it_is(shared: House) -> None:
    person = shared.discord.person()
    form = open_form(person, shared.channel)
    assert form.message is not None
    person.select(form.message, "Sampler", "More…").wait()
    person.select(form.message, "Sampler", "Back").wait()
    for name in ("Model", "Sampler", "Scheduler"):
        options = menu(form.message, name)["options"]
        (shown,) = [option["label"] for option in options if option.get("default")]
        assert shown == f"{name}: {fields(form.message)[name]}".replace("\\", "")


def test_the_button_that_is_needed_next_has_the_colour_and_the_other_works_too(
    shared: House,
) -> None:
    person = shared.discord.person()
    form = open_form(person, shared.channel)
    assert form.message is not None
    assert styles_of(form.message) == {"Edit Prompts & Settings": 1, "Generate": 2}
    assert "Only the prompt is required" in text_of(form.message)
    assert any("a prompt" in text for text in generate(person, form).texts)
    fill_in(person, form, positive_prompt="a fox")
    assert styles_of(form.message) == {"Edit Prompts & Settings": 2, "Generate": 3}
    assert "Only the prompt is required" not in text_of(form.message)


def test_the_modal_names_usual_values_and_what_they_do(shared: House) -> None:
    person = shared.discord.person()
    modal = opened_modal(person, open_form(person, shared.channel))
    hints = {label["label"]: label["description"] for label in modal["components"]}
    assert "20 to 30 is usual" in hints["Steps"]
    assert "finer and slower" in hints["Steps"]
    assert "4 to 8 is usual" in hints["CFG"]
    assert "closer to the prompt" in hints["CFG"]
    assert all(label["component"]["placeholder"] for label in modal["components"])


def test_a_long_model_list_says_that_gen_searches_it(shared: House) -> None:
    form = open_form(shared.discord.person(), shared.channel)
    assert form.message is not None
    count = len(shared.comfyui.models)
    assert count > 25
    assert f"{count} models: `/gen model:` searches them." in text_of(form.message)


def test_what_was_not_taken_is_said_in_the_form_until_it_is_corrected(shared: House) -> None:
    person = shared.discord.person()
    form = person.slash("gen", shared.channel, prompt="a fox", seed="lucky").wait()
    assert form.message is not None
    person.select(form.message, "Sampler", "heun").wait()
    assert "was not accepted" in text_of(form.message)
    person.submit(opened_modal(person, form), seed="").wait()
    assert "was not accepted" not in text_of(form.message)


def test_every_entry_of_a_long_list_can_be_reached_and_the_chosen_one_is_always_shown(
    shared: House,
) -> None:
    person = shared.discord.person()
    form = open_form(person, shared.channel)
    assert form.message is not None
    samplers = shared.comfyui.object_info["KSampler (Efficient)"]["input"]["required"]
    wanted = samplers["sampler_name"][0]
    assert len(wanted) > 25
    person.select(form.message, "Sampler", wanted[0]).wait()
    seen: list[str] = []
    while True:
        page = labels(form.message, "Sampler")
        assert len(page) <= 25
        assert chosen(form.message, "Sampler") == [wanted[0]]
        seen += [label for label in page if label not in ("Back", "More…")]
        if page[-1] != "More…":
            break
        person.select(form.message, "Sampler", "More…").wait()
    assert page[0] == "Back"
    assert list(dict.fromkeys(seen)) == wanted
    person.select(form.message, "Sampler", wanted[-1]).wait()
    assert fields(form.message)["Sampler"].replace("\\", "") == wanted[-1]
    person.select(form.message, "Sampler", "Back").wait()
    assert wanted[-1] in chosen(form.message, "Sampler")


def test_two_people_fill_in_two_forms(shared: House) -> None:
    mira, noor = shared.discord.person("mira"), shared.discord.person("noor")
    miras, noors = open_form(mira, shared.channel), open_form(noor, shared.channel)
    assert miras.message is not None
    assert noors.message is not None
    mira.select(miras.message, "Sampler", "heun").wait()
    noor.select(noors.message, "Sampler", "lms").wait()
    fill_in(noor, noors, positive_prompt="noor's")
    mira.select(miras.message, "Scheduler", "beta").wait()
    assert fields(miras.message)["Sampler"] == "heun"
    assert "noor's" not in text_of(miras.message)
    assert fields(noors.message)["Sampler"] == "lms"


def test_every_open_form_of_a_person_goes_on_working_with_its_own_draft(shared: House) -> None:
    person = shared.discord.person()
    older = open_form(person, shared.channel)
    newer = open_form(person, shared.channel)
    assert older.message is not None
    assert newer.message is not None
    person.select(newer.message, "Sampler", "lms").wait()
    fill_in(person, newer, positive_prompt="an otter")
    person.select(older.message, "Sampler", "heun").wait()
    fill_in(person, older, positive_prompt="a heron")
    for _ in range(2):  # the second press is too late, and is about this form alone
        generate(person, newer)
    assert fields(older.message)["Sampler"] == "heun"
    queued(person, older)
    prompts = [result_of(shared, person, n)["embeds"][0]["description"] for n in (1, 2)]
    assert prompts == ["an otter", "a heron"]


def test_an_eleventh_form_takes_the_place_of_the_first_one(shared: House) -> None:
    person = shared.discord.person()
    first = open_form(person, shared.channel)
    assert first.message is not None
    second = open_form(person, shared.channel)
    modal = opened_modal(person, first)
    for _ in range(9):
        open_form(person, shared.channel)
    assert second.message is not None
    person.select(second.message, "Sampler", "heun").wait()
    assert fields(second.message)["Sampler"] == "heun"
    answer = person.submit(modal, **TYPED).wait()
    assert answer.message is not None
    assert "The bot no longer had that form" in answer.texts[0]
    assert typed_in(opened_modal(person, answer)) == TYPED
    pressed = person.press(second.message, "Generate").wait()  # the new one has pushed it out
    assert "The bot no longer has this form" in pressed.texts[0]
    assert not second.message["components"]


def test_edit_on_a_picture_leaves_an_unfinished_form_alone(shared: House) -> None:
    person, owner = shared.discord.person(), shared.discord.person("owner")
    ask_for(owner, shared.channel, "the owner's")
    result = result_of(shared, owner)
    form = open_form(person, shared.channel)
    fill_in(person, form, positive_prompt="half a poem", steps="12")
    edited = person.press(result, "Edit")
    edited.wait_message(lambda message: bool(message["embeds"]))
    fill_in(person, edited, positive_prompt="edited")
    queued(person, edited)
    values = typed_in(opened_modal(person, form))
    assert (values["positive_prompt"], values["steps"]) == ("half a poem", "12")
    queued(person, form)
    assert result_of(shared, person, 2)["embeds"][0]["description"] == "half a poem"


@pytest.mark.parametrize("steps", ["31", "abc"])
def test_a_modal_that_comes_after_generate_opens_a_form_with_everything_in_it(
    shared: House, steps: str
) -> None:
    person = shared.discord.person()
    form = person.slash("gen", shared.channel, prompt="a fox").wait()
    modal = opened_modal(person, form)
    queued(person, form)
    form.wait_message(lambda message: not message["components"])
    typed = {**TYPED, "steps": steps}
    answer = person.submit(modal, **typed).wait()
    assert answer.message is not None
    assert answer.message["flags"] & EPHEMERAL
    assert "sent already" in answer.texts[0]
    assert ("**Steps** is `abc`" in answer.texts[0]) == (steps == "abc")
    assert typed_in(opened_modal(person, answer)) == typed
    assert form.message is not None
    assert "a fox" in text_of(form.message)


def test_two_modals_of_a_form_at_once_lose_nothing_and_one_sent_twice_changes_nothing(
    shared: House,
) -> None:
    person = shared.discord.person()
    form = open_form(person, shared.channel)
    at_the_desk, on_the_phone = opened_modal(person, form), opened_modal(person, form)
    for _ in range(2):
        person.submit(at_the_desk, **TYPED).wait()
        assert form.message is not None
        assert "a whole poem" in text_of(form.message)
        assert form.message["content"] == ""
    answer = person.submit(on_the_phone, positive_prompt="a fox").wait()
    assert "changed in the meantime" in answer.texts[0]
    assert typed_in(opened_modal(person, answer))["positive_prompt"] == "a fox"
    assert typed_in(opened_modal(person, form)) == TYPED


@pytest.mark.parametrize("size", [12, 4000])
def test_a_modal_while_the_bot_stops_gives_all_five_texts_back(house: House, size: int) -> None:
    house.comfyui.hold()
    bot = house.start()
    person = house.discord.person()
    modal = opened_modal(person, open_form(person, house.channel))
    ask_for(person, house.channel, "in work")
    house.comfyui.wait_for(lambda c: len(c.posted) == 1)
    bot.signal(signal.SIGTERM)
    bot.wait_for_line("shutting down")
    typed = {**TYPED, "positive_prompt": "*" * size, "negative_prompt": "#" * size}
    answer = person.submit(modal, **typed).wait().message
    house.comfyui.release()
    assert answer is not None
    assert answer["flags"] & EPHEMERAL
    assert "restarting" in answer["content"]
    if size == 12:
        assert {**fields(answer), "Steps": "31"} == {
            "Prompt": r"\*" * size,
            "Negative prompt": "\\" + "#" * size,
            "Steps": "31",
            "CFG": "3.5",
            "Seed": "7",
        }
    else:
        (attachment,) = answer["attachments"]
        whole = house.discord.attachment_bytes(attachment).decode()
        assert [text in whole for text in typed.values()] == [True] * 5
    assert bot.wait() == 0


def test_the_modal_holds_what_the_form_holds(shared: House) -> None:
    person = shared.discord.person()
    form = open_form(person, shared.channel)
    long = "a fox " * 600
    fill_in(person, form, positive_prompt=long, negative_prompt="cats", steps="33", cfg="4.5")
    assert form.message is not None
    assert fields(form.message)["Steps"] == "33"
    assert fields(form.message)["CFG"] == "4.5"
    modal = person.press(form.message, "Edit Prompts & Settings").wait().modal
    assert modal is not None
    values = {
        label["component"]["custom_id"]: label["component"].get("value")
        for label in modal["components"]
    }
    assert values == {
        "positive_prompt": long.strip(),
        "negative_prompt": "cats",
        "steps": "33",
        "cfg": "4.5",
        "seed": None,
    }


@pytest.mark.parametrize(
    ("name", "typed"),
    [*(("steps", text) for text in WRONG_STEPS), *(("cfg", text) for text in WRONG_CFG)],
)
def test_a_wrong_number_is_named_with_its_range_and_nothing_typed_is_lost(
    shared: House, name: str, typed: str
) -> None:
    person = shared.discord.person()
    form = open_form(person, shared.channel)
    texts = {"positive_prompt": "a heron", "negative_prompt": "fog", "steps": "9", "cfg": "3"}
    refused = fill_in(person, form, **{**texts, name: typed})
    assert refused.message is not None
    assert refused.message["flags"] & EPHEMERAL
    (text,) = refused.texts
    low, high = {"steps": ("1", "150"), "cfg": ("1", "30")}[name]
    assert name in text.lower()
    assert low in text
    assert high in text
    assert typed.strip() in text
    assert form.message is not None
    assert "a heron" not in text_of(form.message)

    reopened = person.press(refused.message, "Correct it").wait()
    assert reopened.modal is not None
    values = {
        label["component"]["custom_id"]: label["component"].get("value")
        for label in reopened.modal["components"]
    }
    assert values == {**texts, "seed": None, name: typed}
    person.submit(reopened.modal, **{name: "5"}).wait()
    form.wait_message(lambda message: "a heron" in text_of(message))
    assert fields(form.message)[name.capitalize() if name == "steps" else "CFG"] == "5"


def test_a_modal_can_be_refused_twice_and_still_be_corrected(shared: House) -> None:
    person = shared.discord.person()
    form = open_form(person, shared.channel)
    refused = fill_in(person, form, positive_prompt="an owl", steps="many", cfg="much")
    assert refused.message is not None
    assert "Steps" in refused.texts[0]
    assert "CFG" in refused.texts[0]
    modal = person.press(refused.message, "Correct it").wait().modal
    assert modal is not None
    again = person.submit(modal, steps="8").wait()
    assert again.message is not None
    assert "Steps" not in text_of(again.message)
    assert "much" in text_of(again.message)
    modal = person.press(again.message, "Correct it").wait().modal
    assert modal is not None
    person.submit(modal, cfg="8").wait()
    form.wait_message(lambda message: "an owl" in text_of(message))


def test_generate_says_what_is_missing_and_queues_nothing(shared: House) -> None:
    person = shared.discord.person()
    form = open_form(person, shared.channel)
    answer = generate(person, form)
    assert any("Still missing" in text and "a prompt" in text for text in answer.texts)
    assert jobs_of(shared, person) == 0
    fill_in(person, form, positive_prompt="a hare")
    assert form.message is not None
    person.select(form.message, "Model", labels(form.message, "Model")[0]).wait()
    queued(person, form)


def test_the_form_is_read_only_after_generate(shared: House) -> None:
    person = shared.discord.person()
    form = open_form(person, shared.channel)
    assert form.message is not None
    person.select(form.message, "Model", labels(form.message, "Model")[0]).wait()
    fill_in(person, form, positive_prompt="a lynx")
    queued(person, form)
    form.wait_message(lambda message: not message["components"])
    assert "a lynx" in text_of(form.message)


@pytest.mark.parametrize("in_thread", [False, True])
def test_where_the_bot_may_not_post_the_form_and_queued_say_so_and_the_picture_comes(
    shared: House, in_thread: bool
) -> None:
    person = shared.discord.person()
    channel = shared.channel
    if in_thread:
        channel.bot_permissions &= ~SEND_MESSAGES_IN_THREADS
        channel = shared.discord.guild.add_thread(channel)
    else:
        channel.bot_permissions &= ~ATTACH_FILES
    form = open_form(person, channel)
    assert form.message is not None
    lacking = "Send Messages in Threads" if in_thread else "Attach Files"
    warning = f"I may not post pictures in this channel: ask a moderator to allow me {lacking} here"
    assert warning in text_of(form.message)
    fill_in(person, form, positive_prompt="a secret fox")
    assert warning in text_of(form.message)
    assert warning in queued(person, form)["content"]
    shared.discord.wait_for(lambda _: bool(person.dms))
    assert person.dms[0]["attachments"]


def test_a_double_click_on_generate_queues_one_job(shared: House) -> None:
    person = shared.discord.person()
    form = open_form(person, shared.channel)
    assert form.message is not None
    person.select(form.message, "Model", labels(form.message, "Model")[0]).wait()
    fill_in(person, form, positive_prompt="a stoat")
    clicks = [person.press(form.message, "Generate") for _ in range(3)]
    for click in clicks:
        click.wait()
    shared.discord.wait_for_message(
        shared.channel, lambda m: m["content"] == f"<@{person.id}>" and bool(m["attachments"])
    )
    assert jobs_of(shared, person) == 1


def test_menus_never_use_a_name_as_a_value(shared: House) -> None:
    form = open_form(shared.discord.person(), shared.channel)
    assert form.message is not None
    values = [option["value"] for option in menu(form.message, "Model")["options"]]
    assert not set(values) & set(shared.comfyui.models)


@pytest.mark.parametrize("typed", ["18446744073709551616", "-1", "1.5", "abc", "１"])  # noqa: RUF001
def test_a_wrong_seed_is_refused_and_kept(shared: House, typed: str) -> None:
    person = shared.discord.person()
    form = open_form(person, shared.channel)
    refused = fill_in(person, form, positive_prompt="a fox", seed=typed)
    assert "Seed" in refused.texts[0]
    assert "18446744073709551615" in refused.texts[0]
    assert refused.message is not None
    modal = person.press(refused.message, "Correct it").wait().modal
    assert modal is not None
    values = [label["component"].get("value") for label in modal["components"]]
    assert values[-1] == typed


def test_gen_takes_prompt_model_and_seed(shared: House) -> None:
    person = shared.discord.person()
    wanted = next(model for model in shared.comfyui.models if len(model) > 100)
    part = wanted[5:15].upper()
    choices = person.autocomplete("gen", shared.channel, "model", part)
    assert all(
        part.lower() in choice["name"].lower() or "…" in choice["name"] for choice in choices
    )
    name = wanted.rpartition("/")[2].removesuffix(".safetensors")
    choice = next(choice for choice in choices if choice["name"].startswith(name))
    form = person.slash("gen", shared.channel, prompt="a fox", model=choice["value"], seed="7")
    message = form.wait().message
    assert message is not None
    assert (fields(message)["Prompt"], fields(message)["Seed"]) == ("a fox", "7")
    queued(person, form)
    result_of(shared, person)
    _, workflow = shared.comfyui.posted[-1]
    assert workflow["152"]["inputs"]["ckpt_name"] == wanted
    assert workflow["239"]["inputs"]["seed"] == 7


def test_wrong_options_of_gen_are_said_above_a_form_with_the_prompt_in_it(shared: House) -> None:
    person = shared.discord.person()
    form = person.slash(
        "gen", shared.channel, prompt="a poem", model="sd_xl_bass_1.0", seed="lucky"
    ).wait()
    assert form.message is not None
    assert form.message["flags"] & EPHEMERAL
    about_the_model, about_the_seed = form.message["content"].splitlines()
    assert "no model `sd_xl_bass_1.0`. The nearest: SDXL/sd\\_xl\\_base\\_1.0" in about_the_model
    assert "`lucky` is not a whole number from 0 to 18446744073709551615" in about_the_seed
    assert fields(form.message)["Prompt"] == "a poem"
    modal = opened_modal(person, form)
    assert typed_in(modal)["seed"] == "lucky"
    person.submit(modal, seed="7").wait()
    assert fields(form.message)["Seed"] == "7"
    queued(person, form)


def test_the_form_remembers_the_last_settings_but_not_the_prompt_it_has_sent(
    shared: House,
) -> None:
    person = shared.discord.person()
    form = open_form(person, shared.channel)
    assert form.message is not None
    person.select(form.message, "Sampler", "heun").wait()
    fill_in(person, form, positive_prompt="a fox", steps="11", negative_prompt="rain")
    unsent = open_form(person, shared.channel)
    assert unsent.message is not None
    assert fields(unsent.message)["Prompt"] == "a fox"
    queued(person, unsent)
    result_of(shared, person)
    fresh = open_form(person, shared.channel).message
    assert fresh is not None
    shown = fields(fresh)
    assert (shown["Sampler"], shown["Steps"], shown["Negative prompt"]) == ("heun", "11", "rain")
    assert "a fox" not in shown["Prompt"]


def test_the_form_starts_with_the_workflow_files_own_values(shared: House) -> None:
    message = open_form(shared.discord.person(), shared.channel).message
    assert message is not None
    shown = {name: value.replace("\\", "") for name, value in fields(message).items()}
    assert shown["Model"] == "sd_xl_base_1.0"
    assert (shown["Sampler"], shown["Scheduler"]) == ("dpmpp_2m", "karras")


def test_models_have_short_names_and_their_path_as_description(shared: House) -> None:
    message = open_form(shared.discord.person(), shared.channel).message
    assert message is not None
    options = menu(message, "Model")["options"]
    paths = [option["description"] for option in options if option["value"].startswith("index")]
    assert "Flux/flux1-dev-fp8.safetensors" in paths
    assert "flux1-dev-fp8" in labels(message, "Model")


def test_what_was_refused_in_a_modal_is_still_there_in_a_new_form(shared: House) -> None:
    person = shared.discord.person()
    fill_in(person, open_form(person, shared.channel), positive_prompt="a long poem", steps="abc")
    form = open_form(person, shared.channel)
    assert form.message is not None
    modal = person.press(form.message, "Edit Prompts & Settings").wait().modal
    assert modal is not None
    values = [label["component"].get("value") for label in modal["components"]]
    assert (values[0], values[2]) == ("a long poem", "abc")


def test_a_prompt_of_brackets_holds_nobody_up(shared: House) -> None:
    rude, other = shared.discord.person(), shared.discord.person()
    brackets = "[" * 1330 + "](" * 1330
    fill_in(rude, open_form(rude, shared.channel), positive_prompt=brackets[:4000])
    reply = open_form(other, shared.channel)
    assert reply.acknowledged_after is not None
    assert reply.acknowledged_after < 2.5


def test_a_form_from_before_a_restart_says_run_gen_again(house: House) -> None:
    bot = house.start()
    person = house.discord.person()
    form = open_form(person, house.channel)
    assert form.message is not None
    bot.stop()
    house.start()
    assert "run /gen again" not in text_of(form.message)
    answer = person.press(form.message, "Generate").wait()
    assert any("run /gen again" in text for text in answer.texts)
    assert not form.message["components"]


def test_what_was_typed_into_a_modal_survives_a_restart(house: House) -> None:
    bot = house.start()
    person = house.discord.person()
    form = open_form(person, house.channel)
    modal = opened_modal(person, form)
    bot.stop()
    house.start()
    answer = person.submit(modal, **TYPED).wait()
    assert "The bot no longer had that form" in answer.texts[0]
    assert typed_in(opened_modal(person, answer)) == TYPED
    assert form.message is not None
    person.select(form.message, "Model", labels(form.message, "Model")[0]).wait()
    queued(person, form)
    house.discord.wait_for_message(house.channel, lambda m: bool(m["attachments"]))


def test_the_default_negative_prompt_stands_in_the_form(house: House) -> None:
    house.start(DEFAULT_NEGATIVE_PROMPT="blurry, low quality")
    person = house.discord.person()
    form = open_form(person, house.channel)
    assert form.message is not None
    assert "blurry, low quality" in text_of(form.message)
    fill_in(person, form, positive_prompt="a fox")
    assert "blurry, low quality" in text_of(form.message)
