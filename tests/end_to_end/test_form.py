"""/gen up to "Queued!", as a person fills it in: menus, modal, drafts, names (M6 to M9)."""

from __future__ import annotations

import signal

import pytest

from tests.end_to_end.common import jobs_of, opened_modal, result_of, typed_in
from tests.harness.house import House
from tests.harness.labels import CORRECT_IT, EDIT, EDIT_PROMPTS, GENERATE
from tests.harness.steps import (
    ask_for,
    chosen,
    fields,
    fill_in,
    generate,
    labels,
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
    assert controls == [*menus, EDIT_PROMPTS, GENERATE, "1 picture"]
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


def test_edit_on_a_picture_leaves_an_unfinished_form_alone(shared: House) -> None:
    person, owner = shared.discord.person(), shared.discord.person("owner")
    ask_for(owner, shared.channel, "the owner's")
    result = result_of(shared, owner)
    form = open_form(person, shared.channel)
    fill_in(person, form, positive_prompt="half a poem", steps="12")
    edited = person.press(result, EDIT)
    edited.wait_message(lambda message: bool(message["embeds"]))
    fill_in(person, edited, positive_prompt="edited")
    queued(person, edited)
    values = typed_in(opened_modal(person, form))
    assert (values["positive_prompt"], values["steps"]) == ("half a poem", "12")
    queued(person, form)
    assert result_of(shared, person, 2)["embeds"][0]["description"] == "half a poem"


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


def test_a_modal_can_be_refused_twice_and_still_be_corrected(shared: House) -> None:
    person = shared.discord.person()
    form = open_form(person, shared.channel)
    refused = fill_in(person, form, positive_prompt="an owl", steps="many", cfg="much")
    assert refused.message is not None
    assert "Steps" in refused.texts[0]
    assert "CFG" in refused.texts[0]
    modal = person.press(refused.message, CORRECT_IT).wait().modal
    assert modal is not None
    again = person.submit(modal, steps="8").wait()
    assert again.message is not None
    assert "Steps" not in text_of(again.message)
    assert "much" in text_of(again.message)
    modal = person.press(again.message, CORRECT_IT).wait().modal
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
    clicks = [person.press(form.message, GENERATE) for _ in range(3)]
    for click in clicks:
        click.wait()
    shared.discord.wait_for_message(
        shared.channel, lambda m: m["content"] == f"<@{person.id}>" and bool(m["attachments"])
    )
    assert jobs_of(shared, person) == 1


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
    answer = person.press(form.message, GENERATE).wait()
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
