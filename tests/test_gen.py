"""/gen from the first word to the picture: the unmodified bot between the two stand-ins.

One bot serves all tests of this module; each test brings a person of its own (architecture.md
§3, M6 to M9).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

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

EPHEMERAL = 64


@pytest.fixture
def house(shared_house: House) -> Iterator[House]:
    shared_house.channel = shared_house.spare.pop()
    yield shared_house
    shared_house.comfyui.release()
    shared_house.comfyui.clear_faults()
    shared_house.comfyui.pictures_per_prompt = None
    shared_house.settle()


def jobs_of(house: House, person: object) -> int:
    """How many rows a person has."""
    query = "SELECT count(*) FROM jobs WHERE discord_user_id = ?"
    return int(house.installation.rows(query, str(person.id))[0][0])  # type: ignore[attr-defined]


def test_a_person_gets_the_very_picture_that_comfyui_made(house: House) -> None:
    mira = house.discord.person("mira")
    form = open_form(mira, house.channel)
    assert form.message is not None
    model = labels(form.message, "Model")[2]
    mira.select(form.message, "Model", model).wait()
    mira.select(form.message, "Sampler", "euler").wait()
    mira.select(form.message, "Scheduler", "karras").wait()
    prompt = "a red fox in the snow, " + "very detailed, " * 20
    fill_in(mira, form, positive_prompt=prompt, negative_prompt="blurry", steps="12", cfg="6.5")
    queued(mira, form)

    message = house.discord.wait_for_message(
        house.channel, lambda m: m["content"] == f"<@{mira.id}>" and bool(m["attachments"])
    )
    (attachment,) = message["attachments"]
    assert house.discord.attachment_bytes(attachment) in house.comfyui.pictures.values()
    assert [user["id"] for user in message["mentions"]] == [str(mira.id)]
    shown = fields(message)
    assert (shown["Sampler"], shown["Scheduler"]) == ("euler", "karras")
    assert (shown["Steps"], shown["CFG"]) == ("12", "6.5")
    assert shown["Model"].replace("\\", "") in model
    description = message["embeds"][0]["description"]
    assert description.startswith("a red fox in the snow")
    assert len(description) <= 200
    _, workflow = house.comfyui.posted[-1]
    assert workflow["268"]["inputs"]["text"] == prompt.strip()
    assert workflow["4"]["inputs"]["text"] == "blurry"
    row = house.installation.rows(
        "SELECT status, output_images, started_at <= completed_at FROM jobs"
        " WHERE discord_user_id = ?",
        str(mira.id),
    )
    assert row == [("completed", f'["{list(house.comfyui.pictures)[-1]}"]', 1)]


def test_the_form_is_for_its_person_alone_and_has_all_controls(house: House) -> None:
    form = open_form(house.discord.person(), house.channel)
    assert form.message is not None
    assert form.message["flags"] & EPHEMERAL
    controls = [
        component.get("placeholder") or component.get("label")
        for row in form.message["components"]
        for component in row["components"]
    ]
    assert controls == ["Model", "Sampler", "Scheduler", "Edit Prompts & Settings", "Generate"]
    shown = fields(form.message)
    assert {"Model", "Sampler", "Scheduler", "Steps", "CFG"} <= shown.keys()
    assert (shown["Steps"], shown["CFG"]) == ("20", "7")


def test_a_choice_shows_in_the_form_at_once(house: House) -> None:
    person = house.discord.person()
    form = open_form(person, house.channel)
    assert form.message is not None
    person.select(form.message, "Sampler", "heun").wait()
    assert fields(form.message)["Sampler"] == "heun"
    assert chosen(form.message, "Sampler") == ["heun"]


def test_selecting_a_sampler_resets_the_scheduler(house: House) -> None:
    person = house.discord.person()
    form = open_form(person, house.channel)
    assert form.message is not None
    first, *_, last = labels(form.message, "Scheduler")
    person.select(form.message, "Scheduler", last).wait()
    assert fields(form.message)["Scheduler"] == last
    person.select(form.message, "Sampler", "heun").wait()
    assert fields(form.message)["Scheduler"] == first


def test_every_entry_of_a_long_list_can_be_reached_and_the_chosen_one_is_always_shown(
    house: House,
) -> None:
    person = house.discord.person()
    form = open_form(person, house.channel)
    assert form.message is not None
    samplers = house.comfyui.object_info["KSampler (Efficient)"]["input"]["required"]
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


def test_two_people_fill_in_two_forms(house: House) -> None:
    mira, noor = house.discord.person("mira"), house.discord.person("noor")
    miras, noors = open_form(mira, house.channel), open_form(noor, house.channel)
    assert miras.message is not None
    assert noors.message is not None
    mira.select(miras.message, "Sampler", "heun").wait()
    noor.select(noors.message, "Sampler", "lms").wait()
    fill_in(noor, noors, positive_prompt="noor's")
    mira.select(miras.message, "Scheduler", "beta").wait()
    assert fields(miras.message)["Sampler"] == "heun"
    assert "noor's" not in text_of(miras.message)
    assert fields(noors.message)["Sampler"] == "lms"


def test_a_newer_form_takes_over_and_the_older_one_says_so(house: House) -> None:
    person = house.discord.person()
    older = open_form(person, house.channel)
    newer = open_form(person, house.channel)
    assert older.message is not None
    assert newer.message is not None
    person.select(newer.message, "Sampler", "lms").wait()
    answer = person.select(older.message, "Sampler", "heun").wait()
    assert any("newer form" in text for text in answer.texts)
    person.select(newer.message, "Scheduler", "beta").wait()
    assert fields(newer.message)["Sampler"] == "lms"


def test_the_modal_holds_what_the_form_holds(house: House) -> None:
    person = house.discord.person()
    form = open_form(person, house.channel)
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


WRONG_STEPS = ["1_0", "nan", "１２", " ", "20.0", "0", "151", "-5", "1e1", "x"]  # noqa: RUF001
WRONG_CFG = ["nan", "inf", "0.9", "30.5", "７", "1_0", "7,5", " ", "+7", "7."]  # noqa: RUF001


@pytest.mark.parametrize(
    ("name", "typed"),
    [*(("steps", text) for text in WRONG_STEPS), *(("cfg", text) for text in WRONG_CFG)],
)
def test_a_wrong_number_is_named_with_its_range_and_nothing_typed_is_lost(
    house: House, name: str, typed: str
) -> None:
    person = house.discord.person()
    form = open_form(person, house.channel)
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


def test_a_modal_can_be_refused_twice_and_still_be_corrected(house: House) -> None:
    person = house.discord.person()
    form = open_form(person, house.channel)
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


def test_generate_says_what_is_missing_and_queues_nothing(house: House) -> None:
    person = house.discord.person()
    form = open_form(person, house.channel)
    answer = generate(person, form)
    assert any("Still missing" in text and "a prompt" in text for text in answer.texts)
    assert jobs_of(house, person) == 0
    fill_in(person, form, positive_prompt="a hare")
    assert form.message is not None
    person.select(form.message, "Model", labels(form.message, "Model")[0]).wait()
    queued(person, form)


def test_the_position_counts_the_queued_jobs_before(house: House) -> None:
    house.comfyui.hold()
    person = house.discord.person()
    before = len(house.comfyui.posted)
    ask_for(person, house.channel, "the one that runs")
    house.comfyui.wait_for(lambda c: len(c.posted) == before + 1)
    positions = []
    for number in range(3):
        message = ask_for(house.discord.person(), house.channel, f"waiting {number}")
        positions += re.findall(r"You are position \*\*(\d+)\*\* in the queue", message["content"])
    assert positions == ["1", "2", "3"]
    assert len(house.comfyui.posted) == before + 1
    house.comfyui.release()
    house.comfyui.wait_for(lambda c: len(c.executed) >= before + 4)


def test_the_form_is_read_only_after_generate(house: House) -> None:
    person = house.discord.person()
    form = open_form(person, house.channel)
    assert form.message is not None
    person.select(form.message, "Model", labels(form.message, "Model")[0]).wait()
    fill_in(person, form, positive_prompt="a lynx")
    queued(person, form)
    form.wait_message(lambda message: not message["components"])
    assert "a lynx" in text_of(form.message)


def test_a_double_click_on_generate_queues_one_job(house: House) -> None:
    person = house.discord.person()
    form = open_form(person, house.channel)
    assert form.message is not None
    person.select(form.message, "Model", labels(form.message, "Model")[0]).wait()
    fill_in(person, form, positive_prompt="a stoat")
    clicks = [person.press(form.message, "Generate") for _ in range(3)]
    for click in clicks:
        click.wait()
    house.discord.wait_for_message(
        house.channel, lambda m: m["content"] == f"<@{person.id}>" and bool(m["attachments"])
    )
    assert jobs_of(house, person) == 1


def test_another_channel_is_refused_and_the_right_one_named(house: House) -> None:
    elsewhere = house.discord.guild.add_channel("elsewhere")
    person = house.discord.person()
    reply = person.slash("gen", elsewhere).wait()
    assert reply.message is not None
    assert reply.message["flags"] & EPHEMERAL
    assert "<#" in reply.texts[0]
    assert not reply.message["components"]


def test_a_direct_message_is_refused_politely(house: House) -> None:
    reply = house.discord.person().slash("gen", None).wait()
    assert "direct messages" in reply.texts[0]


def test_a_thread_of_an_allowed_channel_counts_as_that_channel(house: House) -> None:
    thread = house.discord.guild.add_thread(house.channel, "foxes")
    person = house.discord.person()
    ask_for(person, thread, "a fox in a thread")
    message = house.discord.wait_for_message(thread, lambda m: bool(m["attachments"]))
    assert message["content"] == f"<@{person.id}>"


def test_a_prompt_pings_nobody_and_breaks_no_embed(house: House) -> None:
    person = house.discord.person()
    ask_for(person, house.channel, f"@everyone <@{house.discord.person().id}> **bold** `code` # x")
    message = house.discord.wait_for_message(
        house.channel, lambda m: m["content"] == f"<@{person.id}>" and bool(m["attachments"])
    )
    assert [user["id"] for user in message["mentions"]] == [str(person.id)]
    assert not message["mention_everyone"]
    assert r"\*\*bold\*\*" in message["embeds"][0]["description"]
    sent = [r.body for r in house.discord.requests if f"<@{person.id}>" in str(r.body)]
    assert [body["allowed_mentions"]["users"] for body in sent] == [[person.id]]
    assert all(not body["allowed_mentions"]["parse"] for body in sent)


def test_the_longest_prompts_fit(house: House) -> None:
    person = house.discord.person()
    ask_for(person, house.channel, "*" * 4000, negative_prompt="_" * 4000)
    house.discord.wait_for_message(
        house.channel, lambda m: m["content"] == f"<@{person.id}>" and bool(m["attachments"])
    )


def test_a_job_that_fails_is_reported_without_a_path_and_the_next_one_runs(house: House) -> None:
    house.comfyui.fail_next(
        "safetensors_rust.SafetensorError",
        "Error while deserializing header: header too large in /home/owner/ComfyUI/models/x y.ckpt",
    )
    unlucky, lucky = house.discord.person(), house.discord.person()
    ask_for(unlucky, house.channel, "a broken model")
    failure = house.discord.wait_for_message(
        house.channel, lambda m: m["content"] == f"<@{unlucky.id}>"
    )
    text = text_of(failure)
    assert "Error while deserializing header" in text
    assert "a broken model" in text
    assert "/home" not in text
    assert "owner/" not in text
    assert "Traceback" not in text
    assert [user["id"] for user in failure["mentions"]] == [str(unlucky.id)]
    ask_for(lucky, house.channel, "a whole model")
    house.discord.wait_for_message(
        house.channel, lambda m: m["content"] == f"<@{lucky.id}>" and bool(m["attachments"])
    )
    status = house.installation.rows(
        "SELECT status, error_message IS NOT NULL FROM jobs WHERE discord_user_id = ?",
        str(unlucky.id),
    )
    assert status == [("failed", 1)]


def test_out_of_memory_is_said_in_plain_words(house: House) -> None:
    house.comfyui.fail_next("torch.OutOfMemoryError", "Allocation on device 0 would exceed…")
    person = house.discord.person()
    ask_for(person, house.channel, "something huge")
    failure = house.discord.wait_for_message(
        house.channel, lambda m: m["content"] == f"<@{person.id}>"
    )
    assert "too big for the GPU" in text_of(failure)


def test_a_refused_workflow_names_node_input_and_value(house: House) -> None:
    person = house.discord.person()
    models = list(house.comfyui.models)
    vanished = "sd_xl_base_1.0.safetensors"  # the workflow file's own, chosen from the start
    house.comfyui.models = [model for model in models if model != vanished]
    try:
        ask_for(person, house.channel, "a model that vanished")
        failure = house.discord.wait_for_message(
            house.channel, lambda m: m["content"] == f"<@{person.id}>"
        )
    finally:
        house.comfyui.models = models
    text = text_of(failure)
    assert "152" in text
    assert "ckpt\\_name" in text
    assert vanished in text.replace("\\", "")


def test_more_than_ten_pictures_come_in_several_messages(house: House) -> None:
    house.comfyui.pictures_per_prompt = 12
    person = house.discord.person()
    ask_for(person, house.channel, "a dozen foxes")
    first = house.discord.wait_for_message(
        house.channel, lambda m: m["content"] == f"<@{person.id}>" and bool(m["attachments"])
    )
    messages = house.channel.messages
    house.discord.wait_for(lambda d: len(house.channel.messages) > messages.index(first) + 1)
    rest = house.channel.messages[messages.index(first) + 1]
    assert (len(first["attachments"]), len(rest["attachments"])) == (10, 2)
    sent = [
        house.discord.attachment_bytes(attachment)
        for message in (first, rest)
        for attachment in message["attachments"]
    ]
    assert sent == list(house.comfyui.pictures.values())[-12:]


def test_a_workflow_that_breaks_while_the_bot_runs_is_refused_before_the_queue(
    house: House,
) -> None:
    person = house.discord.person()
    workflow = house.installation.workflow
    whole = workflow.read_text("utf-8")
    form = open_form(person, house.channel)
    assert form.message is not None
    person.select(form.message, "Model", labels(form.message, "Model")[0]).wait()
    fill_in(person, form, positive_prompt="a mole")
    workflow.write_text(whole.replace('"249"', '"250249"', 1), "utf-8")
    try:
        answer = generate(person, form)
        answer.wait_message(lambda message: "249" in message["content"])
    finally:
        workflow.write_text(whole, "utf-8")
    assert jobs_of(house, person) == 0
    queued(person, form)  # and the form still works


def test_the_same_settings_give_two_different_pictures(house: House) -> None:
    person = house.discord.person()
    for _ in range(2):
        ask_for(person, house.channel, "the same again")
    house.discord.wait_for(
        lambda d: len([m for m in house.channel.messages if m["content"] == f"<@{person.id}>"]) == 2
    )
    first, second = (
        house.discord.attachment_bytes(message["attachments"][0])
        for message in house.channel.messages
        if message["content"] == f"<@{person.id}>"
    )
    assert first != second


def test_menus_never_use_a_name_as_a_value(house: House) -> None:
    form = open_form(house.discord.person(), house.channel)
    assert form.message is not None
    values = [option["value"] for option in menu(form.message, "Model")["options"]]
    assert not set(values) & set(house.comfyui.models)
