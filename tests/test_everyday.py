"""What a person expects every day: progress, queue, seeds, Again, Edit, Delete, names, sizes."""

from __future__ import annotations

import itertools
import re
import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest

from tests.harness.house import House
from tests.harness.steps import (
    ask_for,
    fields,
    fill_in,
    generate,
    labels,
    menu,
    open_form,
    queued,
    text_of,
)
from tests.standins.discord.people import Person

MANAGE_GUILD = 1 << 5
MANAGE_MESSAGES = 1 << 13


@pytest.fixture
def house(shared_house: House) -> Iterator[House]:
    shared_house.channel = shared_house.spare.pop()
    yield shared_house
    comfyui = shared_house.comfyui
    comfyui.release()
    comfyui.clear_faults()
    comfyui.seconds_per_step = 0.0
    comfyui.picture_bytes = 0
    comfyui.pictures_per_prompt = None
    comfyui.progress_state = True
    shared_house.settle()


def result_of(house: House, person: Person, number: int = 1) -> dict[str, Any]:
    """A person's result in the channel, once it is there."""

    def mine() -> list[dict[str, Any]]:
        start = f"<@{person.id}>"
        return [m for m in house.channel.messages if m["content"].startswith(start)]

    house.discord.wait_for(lambda _: len(mine()) >= number)
    return mine()[number - 1]


def percentages(house: House, message: dict[str, Any]) -> list[int]:
    """What the progress message has shown, edit by edit."""
    shown = []
    for entry in house.channel.history:
        if entry["message"]["id"] == message["id"] and entry["event"] != "delete":
            shown += re.findall(r"(\d+)%", text_of(entry["message"]))
    return [int(text) for text in shown]


@pytest.mark.parametrize("progress_state", [True, False], ids=["newer", "older-server"])
def test_one_message_shows_the_progress_over_all_passes_and_goes_with_the_result(
    house: House, progress_state: bool
) -> None:
    house.comfyui.progress_state = progress_state
    house.comfyui.seconds_per_step = 0.12  # 50 steps in four passes
    person = house.discord.person()
    ask_for(person, house.channel, "a slow fox")
    message = house.discord.wait_for_message(
        house.channel, lambda m: "Generating for" in m["content"]
    )
    assert message["mentions"] == []
    (stored,) = house.installation.rows(
        "SELECT discord_message_id FROM jobs WHERE discord_user_id = ?", str(person.id)
    )
    result = result_of(house, person)
    assert stored in ((None,), (message["id"],))
    assert [user["id"] for user in result["mentions"]] == [str(person.id)]
    house.settle()
    shown = percentages(house, message)
    assert len(shown) >= 2
    assert shown == sorted(shown)
    edits = [e for e in house.channel.history if e["message"]["id"] == message["id"]]
    assert any("of 4" in text_of(entry["message"]) for entry in edits)
    assert all("<t:" in text_of(entry["message"]) for entry in edits[:-1])
    times = [entry["time"] for entry in edits if entry["event"] == "edit"]
    assert all(later - earlier > 1.9 for earlier, later in itertools.pairwise(times))
    assert [m["id"] for m in house.channel.messages] == [result["id"]]


def test_without_a_feed_the_message_shows_the_time_and_the_job_completes(house: House) -> None:
    house.comfyui.fault("WS /ws", "404", None)
    house.comfyui.go_down()
    house.comfyui.come_up()
    house.comfyui.hold()
    person = house.discord.person()
    ask_for(person, house.channel, "no feed")
    message = house.discord.wait_for_message(
        house.channel, lambda m: "Generating for" in m["content"]
    )
    assert re.search(r"<t:\d{10}:R>", text_of(message))
    assert "%" not in text_of(message)
    house.comfyui.release()
    assert result_of(house, person)["attachments"]


def test_cancelling_a_queued_job_leaves_the_running_ones_message_alone(house: House) -> None:
    house.comfyui.seconds_per_step = 0.1
    runner, waiter = house.discord.person(), house.discord.person()
    ask_for(runner, house.channel, "in work")
    message = house.discord.wait_for_message(
        house.channel, lambda m: "Generating for" in m["content"]
    )
    waiting = ask_for(waiter, house.channel, "changed my mind")
    waiter.press(waiting, "Cancel").wait()
    house.discord.wait_for(lambda _: len(percentages(house, message)) >= 2)
    assert result_of(house, runner)["attachments"]


def test_queued_tells_the_position_and_an_estimate(house: House) -> None:
    person = house.discord.person()
    ask_for(person, house.channel, "one to measure by")
    house.settle()
    text = ask_for(person, house.channel, "and another")["content"]
    assert re.fullmatch(r"Queued! You are position \*\*1\*\* in the queue \(about \d+ s\)\.", text)


def test_queue_shows_what_runs_who_waits_and_ones_own_jobs_with_cancel(house: House) -> None:
    house.comfyui.hold()
    first, second = house.discord.person("first"), house.discord.person("second")
    before = len(house.comfyui.posted)
    ask_for(first, house.channel, "in work")
    house.comfyui.wait_for(lambda c: len(c.posted) == before + 1)
    for number in range(2):
        ask_for(second, house.channel, f"waiting {number}")
    reply = second.slash("queue", house.channel).wait()
    shown = reply.wait_message(lambda m: bool(m["embeds"]))
    assert shown["flags"] & 64
    text = text_of(shown)
    assert f"**now** <@{first.id}>" in text
    assert f"**1** <@{second.id}>" in text
    assert f"**2** <@{second.id}>" in text
    assert "waiting 0" in text
    assert "in work" not in text
    second.press(shown, "Cancel number 2").wait()
    house.discord.wait_for(
        lambda _: (
            house.installation.rows("SELECT status FROM jobs WHERE positive_prompt = 'waiting 1'")
            == [("cancelled",)]
        )
    )
    shown = reply.wait_message(lambda m: "Cancelled" in m["content"])
    assert "waiting 0" in text_of(shown)
    assert "waiting 1" not in text_of(shown)
    empty = house.discord.person().slash("queue", house.channel).wait()
    other = empty.wait_message(lambda m: bool(m["embeds"]))
    assert other["components"] == []


def test_the_same_seed_and_settings_give_the_same_picture(house: House) -> None:
    person = house.discord.person()
    pictures = []
    for number, seed in enumerate(["18446744073709551615", "18446744073709551615", "5"], 1):
        ask_for(person, house.channel, "seeded", seed=seed)
        result = result_of(house, person, number)
        assert fields(result)["Seed"] == seed
        pictures.append(house.discord.attachment_bytes(result["attachments"][0]))
    assert pictures[0] == pictures[1] != pictures[2]


@pytest.mark.parametrize("typed", ["18446744073709551616", "-1", "1.5", "abc", "１"])  # noqa: RUF001
def test_a_wrong_seed_is_refused_and_kept(house: House, typed: str) -> None:
    person = house.discord.person()
    form = open_form(person, house.channel)
    refused = fill_in(person, form, positive_prompt="a fox", seed=typed)
    assert "Seed" in refused.texts[0]
    assert "18446744073709551615" in refused.texts[0]
    assert refused.message is not None
    modal = person.press(refused.message, "Correct it").wait().modal
    assert modal is not None
    values = [label["component"].get("value") for label in modal["components"]]
    assert values[-1] == typed


def test_again_is_anyones_and_has_the_same_settings_with_a_new_seed(house: House) -> None:
    owner, other = house.discord.person("owner"), house.discord.person("other")
    ask_for(owner, house.channel, "again please", steps="17", cfg="3.5", seed="42")
    first = result_of(house, owner)
    other.press(first, "Again").wait().wait_message(lambda m: "Queued!" in m["content"])
    second = result_of(house, other)
    expected = {**fields(first), "Seed": fields(second)["Seed"]}
    assert fields(second) == expected
    assert fields(second)["Seed"] != "42"
    assert second["embeds"][0]["description"] == "again please"


def test_edit_opens_the_form_filled_from_that_job(house: House) -> None:
    owner, other = house.discord.person("owner"), house.discord.person("other")
    ask_for(owner, house.channel, "edit me", steps="17", cfg="3.5", negative_prompt="fog")
    form = other.press(result_of(house, owner), "Edit")
    form.wait_message(lambda message: bool(message["embeds"]))
    assert form.message is not None
    assert form.message["flags"] & 64
    shown = fields(form.message)
    assert (shown["Steps"], shown["CFG"], shown["Prompt"]) == ("17", "3.5", "edit me")
    assert shown["Negative prompt"] == "fog"
    fill_in(other, form, positive_prompt="edited")
    queued(other, form)
    assert result_of(house, other)["embeds"][0]["description"] == "edited"


def test_delete_is_for_the_person_who_asked_and_moderators(house: House) -> None:
    owner, other = house.discord.person("owner"), house.discord.person("other")
    house.comfyui.pictures_per_prompt = 12
    ask_for(owner, house.channel, "delete me")
    result = result_of(house, owner)
    house.discord.wait_for(lambda _: len(house.channel.messages) == 2)
    other.press(result, "Delete").wait().wait_message(lambda m: "Only the person" in m["content"])
    assert len(house.channel.messages) == 2
    owner.press(result, "Delete").wait()
    house.discord.wait_for(lambda _: house.channel.messages == [])
    house.comfyui.pictures_per_prompt = None
    ask_for(owner, house.channel, "delete me too")
    moderator = house.discord.person("mod", permissions=other.permissions | MANAGE_MESSAGES)
    moderator.press(result_of(house, owner), "Delete").wait()
    house.discord.wait_for(lambda _: house.channel.messages == [])


def test_gen_takes_prompt_model_and_seed(house: House) -> None:
    person = house.discord.person()
    wanted = next(model for model in house.comfyui.models if len(model) > 100)
    part = wanted[5:15].upper()
    choices = person.autocomplete("gen", house.channel, "model", part)
    assert all(
        part.lower() in choice["name"].lower() or "…" in choice["name"] for choice in choices
    )
    choice = next(choice for choice in choices if choice["name"][:40] == wanted[:40])
    form = person.slash("gen", house.channel, prompt="a fox", model=choice["value"], seed="7")
    message = form.wait().message
    assert message is not None
    assert (fields(message)["Prompt"], fields(message)["Seed"]) == ("a fox", "7")
    queued(person, form)
    result_of(house, person)
    _, workflow = house.comfyui.posted[-1]
    assert workflow["152"]["inputs"]["ckpt_name"] == wanted
    assert workflow["239"]["inputs"]["seed"] == 7


def test_a_model_that_does_not_exist_is_answered_with_the_nearest(house: House) -> None:
    person = house.discord.person()
    reply = person.slash("gen", house.channel, model="sd_xl_bass_1.0").wait()
    assert "sd\\_xl\\_base\\_1.0" in reply.texts[0]


def test_the_form_remembers_the_last_settings_but_not_the_prompt_it_has_sent(
    house: House,
) -> None:
    person = house.discord.person()
    form = open_form(person, house.channel)
    assert form.message is not None
    person.select(form.message, "Sampler", "heun").wait()
    fill_in(person, form, positive_prompt="a fox", steps="11", negative_prompt="rain")
    unsent = open_form(person, house.channel)
    assert unsent.message is not None
    assert fields(unsent.message)["Prompt"] == "a fox"
    queued(person, unsent)
    result_of(house, person)
    fresh = open_form(person, house.channel).message
    assert fresh is not None
    shown = fields(fresh)
    assert (shown["Sampler"], shown["Steps"], shown["Negative prompt"]) == ("heun", "11", "rain")
    assert "a fox" not in shown["Prompt"]


def test_the_form_starts_with_the_workflow_files_own_values(house: House) -> None:
    message = open_form(house.discord.person(), house.channel).message
    assert message is not None
    shown = {name: value.replace("\\", "") for name, value in fields(message).items()}
    assert shown["Model"] == "sd_xl_base_1.0"
    assert (shown["Sampler"], shown["Scheduler"]) == ("dpmpp_2m", "karras")


def test_models_have_short_names_and_their_path_as_description(house: House) -> None:
    message = open_form(house.discord.person(), house.channel).message
    assert message is not None
    options = menu(message, "Model")["options"]
    paths = [option["description"] for option in options if option["value"].startswith("index")]
    assert "Flux/flux1-dev-fp8.safetensors" in paths
    assert "flux1-dev-fp8" in labels(message, "Model")


def test_a_picture_over_the_limit_is_re_encoded_and_the_message_says_so(house: House) -> None:
    house.comfyui.picture_bytes = 12 * 2**20
    person = house.discord.person()
    ask_for(person, house.channel, "huge")
    result = result_of(house, person)
    assert "compressed" in result["content"]
    (attachment,) = result["attachments"]
    assert attachment["filename"].endswith(".webp")
    assert attachment["size"] <= 10 * 2**20


def test_a_413_all_the_same_is_answered_with_the_next_smaller_step(house: House) -> None:
    house.discord.fault("POST", rf"/channels/{house.channel.id}/messages$", 413, 2)
    person = house.discord.person()
    ask_for(person, house.channel, "refused twice")
    result = result_of(house, person)
    assert result["attachments"][0]["filename"].endswith(".jpg")
    assert "compressed" in result["content"]


def test_a_picture_too_large_in_every_form_is_still_reported(house: House) -> None:
    house.discord.fault("POST", rf"/channels/{house.channel.id}/messages$", 413, 4)
    person = house.discord.person()
    ask_for(person, house.channel, "much too large")
    assert "too large for Discord" in text_of(result_of(house, person))


def test_refresh_reads_the_lists_again_and_what_vanished_is_caught_at_generate(
    house: House,
) -> None:
    person = house.discord.person()
    form = open_form(person, house.channel)
    assert form.message is not None
    fill_in(person, form, positive_prompt="a fox")
    models = list(house.comfyui.models)
    with pytest.raises(AssertionError):  # a member is not even offered the command
        person.slash("refresh", house.channel)
    owner = house.discord.person("owner", permissions=person.permissions | MANAGE_GUILD)
    try:
        house.comfyui.models = [m for m in models if m != "sd_xl_base_1.0.safetensors"]
        done = owner.slash("refresh", house.channel).wait()
        done.wait_message(lambda m: "1 gone" in m["content"])
        answer = generate(person, form)
        answer.wait_message(lambda m: "not offered any more" in m["content"])
        assert any("The nearest" in text for text in answer.texts)
    finally:
        house.comfyui.models = models
        owner.slash("refresh", house.channel).wait().wait_message(lambda m: "1 new" in m["content"])
    queued(person, form)


def test_refresh_is_refused_to_members_whose_server_shows_them_the_command_all_the_same(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = house.discord.person()
    for commands in house.discord.commands.values():
        for command in commands:
            if command["name"] == "refresh":  # as an admin does it, in the server's settings
                monkeypatch.setitem(command, "default_member_permissions", None)
    before = len(house.comfyui.requests)
    answer = member.slash("refresh", house.channel).wait()
    assert answer.texts == ["Only members who may manage the server can do that."]
    assert answer.message is not None
    assert answer.message["flags"] & 64
    house.settle()
    asked = [request.path for request in house.comfyui.requests[before:]]
    assert not [path for path in asked if "object_info" in path]


def test_buttons_work_after_a_restart_and_say_so_when_the_job_is_gone(
    house: House, tmp_path: Any
) -> None:
    person = house.discord.person()
    ask_for(person, house.channel, "before the restart")
    result = result_of(house, person)
    house.settle()
    house.bots[-1].stop()
    house.run()
    person.press(result, "Again").wait().wait_message(lambda m: "Queued!" in m["content"])
    result_of(house, person, 2)
    house.settle()
    connection = sqlite3.connect(house.installation.database)
    with connection:
        connection.execute("DELETE FROM jobs WHERE discord_user_id = ?", (str(person.id),))
    connection.close()
    gone = person.press(result, "Again").wait()
    gone.wait_message(lambda m: "does not know it any more" in m["content"])


def test_ten_large_pictures_come_as_they_were_made_in_as_many_messages_as_it_takes(
    house: House,
) -> None:
    house.comfyui.pictures_per_prompt = 10
    house.comfyui.picture_bytes = 5 * 2**20
    person = house.discord.person()
    ask_for(person, house.channel, "ten large ones")
    result_of(house, person)
    house.settle()
    files = [a for message in house.channel.messages for a in message["attachments"]]
    assert [file["filename"].rpartition("-")[2] for file in files] == [
        f"{number}.png" for number in range(1, 11)
    ]
    assert len(house.channel.messages) == 3


def test_what_was_refused_in_a_modal_is_still_there_in_a_new_form(house: House) -> None:
    person = house.discord.person()
    fill_in(person, open_form(person, house.channel), positive_prompt="a long poem", steps="abc")
    form = open_form(person, house.channel)
    assert form.message is not None
    modal = person.press(form.message, "Edit Prompts & Settings").wait().modal
    assert modal is not None
    values = [label["component"].get("value") for label in modal["components"]]
    assert (values[0], values[2]) == ("a long poem", "abc")


def test_a_lost_answer_to_queued_does_not_make_a_person_press_again(house: House) -> None:
    person = house.discord.person()
    form = open_form(person, house.channel)
    assert form.message is not None
    fill_in(person, form, positive_prompt="only once")
    house.discord.fault("POST", r"/webhooks/\d+/[^/]+$", "reset", 2)
    reply = generate(person, form)
    form.wait_message(lambda message: not message["components"])
    assert not any("try again" in text for text in reply.texts)
    assert result_of(house, person)["attachments"]


def test_a_prompt_of_brackets_holds_nobody_up(house: House) -> None:
    rude, other = house.discord.person(), house.discord.person()
    brackets = "[" * 1330 + "](" * 1330
    fill_in(rude, open_form(rude, house.channel), positive_prompt=brackets[:4000])
    reply = open_form(other, house.channel)
    assert reply.acknowledged_after is not None
    assert reply.acknowledged_after < 2.5
