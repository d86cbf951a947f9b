"""A form and what changes under it: the workflow's file, ComfyUI's lists, a restart, a second
window; and what its workflow brings along."""

from __future__ import annotations

import contextlib
import copy
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.common import (
    jobs_of,
    models_of_comfyui,
    opened_modal,
    refresh,
    result_of,
    run,
    typed_in,
    until,
)
from tests.end_to_end.test_lists import FOX
from tests.end_to_end.test_shape import gen, size_in
from tests.end_to_end.three_workflows import (
    OWN_NEGATIVES,
    STYLED,
    STYLED_BINDINGS,
    furnish_with_three,
)
from tests.harness.house import House
from tests.harness.labels import AGAIN, CORRECT_IT, EDIT, GENERATE
from tests.harness.steps import (
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
from tests.standins.discord.people import Person, Reply

CHANGED = "The workflow's file has changed since"


@pytest.fixture
def three(house: House) -> House:
    furnish_with_three(house)
    return house


def posted(house: House, node: str, name: str) -> Any:
    """What stands in the newest prompt."""
    return house.comfyui.posted[-1][1][node]["inputs"][name]


def with_size(house: House, side: int, **changes: list[str]) -> None:
    """The owner has changed the size in the file of "styled"."""
    workflow = copy.deepcopy(STYLED)
    workflow["5"]["inputs"].update(width=side, height=side)
    house.installation.add_workflow("styled", workflow, {**STYLED_BINDINGS, **changes})


def choose_earlier(person: Person, message: dict[str, Any], name: str, value: str) -> Reply:
    """Choose in a menu that was open already: Discord sends the value that stood in it then."""
    return person._use_component(person._seen(message), menu(message, name), {"values": [value]})


# The workflow's own negative prompt and seeds


def test_an_adopted_workflow_starts_with_its_own_negative_prompt(three: House) -> None:
    three.start(DEFAULT_NEGATIVE_PROMPT="blurry")
    person = three.discord.person()
    _, message = gen(three, person, prompt="a fox")
    assert fields(message)["Negative prompt"] == "blurry"
    form, message = gen(three, person, prompt="a fox", workflow="styled")
    assert fields(message)["Negative prompt"] == OWN_NEGATIVES["styled"]
    fill_in(person, form, negative_prompt="rain")
    queued(person, form)
    result_of(three, person)
    assert posted(three, "7", "text") == "rain"
    _, message = gen(three, person, workflow="styled")
    assert fields(message)["Negative prompt"] == "rain"


def test_once_starts_with_the_workflows_own_negative_prompt(three: House, tmp_path: Path) -> None:
    bot = run(
        three, "--once", "a fox", "--workflow", "styled", "--out", str(tmp_path), offline=True
    )
    assert bot.process.returncode == 0, bot.output
    assert posted(three, "7", "text") == OWN_NEGATIVES["styled"]


def test_where_seeds_stay_as_in_the_workflow_form_and_modal_say_so(house: House) -> None:
    house.start(SEED_MODE="workflow")
    person = house.discord.person()
    form = open_form(person, house.channel)
    assert form.message is not None
    assert fields(form.message)["Seed"] == "as in the workflow"
    modal = opened_modal(person, form)
    assert "random" not in json.dumps(modal)
    (seed,) = [part for part in modal["components"] if part["label"] == "Seed"]
    assert seed["description"].startswith("Empty: as in the workflow.")
    assert seed["component"]["placeholder"] == "as in the workflow"


# The size


def test_the_size_that_the_form_has_shown_is_made_though_the_file_has_changed(three: House) -> None:
    three.start()
    person, other = three.discord.person(), three.discord.person()
    three.comfyui.hold()
    queued(other, gen(three, other, prompt="in the way")[0])
    three.comfyui.wait_for(lambda comfyui: bool(comfyui.running))
    queued(person, gen(three, person, prompt="a fox", workflow="styled", shape="portrait")[0])
    queued(person, gen(three, person, prompt="a hare", workflow="styled")[0])
    with_size(three, 1024)
    three.comfyui.release()
    first = result_of(three, person)
    assert size_in(three, first) == (448, 640)
    assert fields(first)["Shape"] == "portrait (448 x 640)"
    rows = three.installation.rows("SELECT size FROM jobs WHERE workflow = 'styled'")
    assert rows == [("448x640",), ("448x640",)]  # the form remembers the shape

    refresh(three)
    again = person.press(first, AGAIN)
    again.wait_shown(lambda m: "Queued!" in m["content"])
    assert size_in(three, result_of(three, person, 3)) == (448, 640)
    edited = person.press(first, EDIT).wait_message(lambda m: bool(m["embeds"]))
    assert fields(edited)["Shape"] == "portrait (832 x 1216)"


def test_a_size_as_in_the_workflow_is_that_of_the_form_too(three: House) -> None:
    three.start()
    person = three.discord.person()
    form, message = gen(three, person, prompt="a fox", workflow="styled")
    assert fields(message)["Shape"] == "as in the workflow (512 x 512)"
    three.comfyui.hold()
    other = three.discord.person()
    queued(other, gen(three, other, prompt="in the way")[0])
    three.comfyui.wait_for(lambda comfyui: bool(comfyui.running))
    queued(person, form)
    with_size(three, 1024)
    three.comfyui.release()
    assert size_in(three, result_of(three, person)) == (512, 512)


def test_generate_says_what_the_workflows_file_has_changed_of_the_form(three: House) -> None:
    three.start()
    person = three.discord.person()
    form, message = gen(three, person, prompt="a fox", workflow="styled")
    with_size(three, 1024, negative=[])
    generate(person, form)
    assert message["content"] == (
        f"{CHANGED}: the negative prompt cannot be set any more; the picture's size is 1024 x 1024"
        " now, it was 512 x 512. Look it over and press Generate again."
    )
    assert fields(message)["Shape"] == "as in the workflow (1024 x 1024)"
    assert "Negative prompt" not in fields(message)
    assert jobs_of(three, person) == 0
    queued(person, form)
    assert size_in(three, result_of(three, person)) == (1024, 1024)


# The menus


def test_an_open_menu_of_an_earlier_list_chooses_nothing_and_the_form_says_so(
    shared: House,
) -> None:
    person = shared.discord.person()
    form, message = gen(shared, person, prompt="a fox", model=FOX)
    before = menu(message, "Model")["options"]
    with models_of_comfyui(shared, [m for m in shared.comfyui.models if m != FOX]):
        refresh(shared)
        generate(person, form)  # shows the form anew, with the list of now
        assert "not offered any more" in message["content"]
        left = chosen(message, "Model")
        for value in (before[3]["value"], before[-1]["value"], "index:5", "page:9", "model"):
            choose_earlier(person, message, "Model", value).wait()
            assert message["content"] == (
                "That list has changed since, so nothing was chosen. Please choose again."
            )
            assert chosen(message, "Model") == left
        person.select(message, "Model", labels(message, "Model")[2]).wait()
        assert message["content"] == ""
        queued(person, form)
        result_of(shared, person)


@contextlib.contextmanager
def busy_database(house: House) -> Iterator[None]:
    """Another program writes into the database: Generate waits for its end."""
    with contextlib.closing(sqlite3.connect(house.installation.database)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


def test_a_menu_while_generate_is_being_worked_on_changes_nothing(shared: House) -> None:
    person = shared.discord.person()
    form = open_form(person, shared.channel)
    assert form.message is not None
    fill_in(person, form, positive_prompt="a fox")
    sampler = fields(form.message)["Sampler"]
    with busy_database(shared):
        press = person.press(form.message, GENERATE)
        person.select(form.message, "Sampler", "heun").wait()
        assert fields(form.message)["Sampler"] == sampler
    press.wait_shown(lambda m: "Queued!" in m["content"])
    result = result_of(shared, person)
    form.wait_message(lambda m: not m["components"])
    assert fields(form.message)["Sampler"] == fields(result)["Sampler"] == sampler
    message = open_form(person, shared.channel).message
    assert message is not None
    assert fields(message)["Sampler"] == sampler


def test_a_form_whose_generate_is_refused_shows_what_it_has(house: House) -> None:
    house.start(MAX_WAITING_PER_PERSON="1")
    house.comfyui.hold()
    person = house.discord.person()
    queued(person, gen(house, person, prompt="in the way")[0])
    form, message = gen(house, person, prompt="a fox")
    sampler, shown_at = fields(message)["Sampler"], message["edited_timestamp"]
    refused = generate(person, form)
    refused.wait_shown(lambda m: "You have 1 picture waiting" in m["content"])
    house.discord.wait_for(lambda _: message["edited_timestamp"] != shown_at)
    assert fields(message)["Sampler"] == sampler
    assert labels(message, "Sampler")
    house.comfyui.release()
    result_of(house, person)
    queued(person, form)


# What was typed


TYPED = {
    "positive_prompt": "a poem",
    "steps": "many",
    "negative_prompt": "prose",
    "seed": "7",
}


def test_what_was_refused_survives_a_restart_until_it_is_corrected(house: House) -> None:
    bot = house.start()
    person, other = house.discord.person(), house.discord.person()
    form = open_form(person, house.channel)
    assert form.message is not None
    person.select(form.message, "Sampler", "heun").wait()
    complaint = fill_in(person, form, **TYPED)
    assert "Steps" in complaint.texts[0]
    until(lambda: house.installation.rows("SELECT * FROM typed_texts"))
    bot.stop()
    house.start()
    modal = opened_modal(person, complaint, CORRECT_IT)
    assert TYPED.items() <= typed_in(modal).items()
    person.submit(modal, steps="9").wait()
    shown = fields(complaint.wait_message(lambda m: bool(m["embeds"])))
    assert (shown["Prompt"], shown["Sampler"], shown["Steps"]) == ("a poem", "heun", "9")
    until(lambda: not house.installation.rows("SELECT * FROM typed_texts"))
    queued(person, complaint)
    assert fields(result_of(house, person))["Sampler"] == "heun"
    assert jobs_of(house, other) == 0


def test_a_blocked_prompt_survives_a_restart_with_all_that_was_chosen(house: House) -> None:
    bot = house.start()
    manager = house.discord.manager()
    manager.slash("blocked add", house.channel, term="poem").wait().wait_message()
    person = house.discord.person()
    form = open_form(person, house.channel)
    assert form.message is not None
    person.select(form.message, "Sampler", "heun").wait()
    fill_in(person, form, positive_prompt="a whole poem", steps="9")
    complaint = generate(person, form)
    message = complaint.wait_message(lambda m: "do not allow" in m["content"])
    bot.stop()
    house.start()
    modal = person.press(message, CORRECT_IT).wait().modal
    assert modal is not None
    assert typed_in(modal)["positive_prompt"] == "a whole poem"
    answer = person.submit(modal, positive_prompt="a fox").wait()
    shown = fields(answer.wait_message(lambda m: bool(m["embeds"])))
    assert (shown["Prompt"], shown["Sampler"], shown["Steps"]) == ("a fox", "heun", "9")
    queued(person, answer)
    result_of(house, person)


def test_two_windows_behind_one_correct_it_both_keep_their_text(shared: House) -> None:
    person = shared.discord.person()
    form = open_form(person, shared.channel)
    complaint = fill_in(person, form, **TYPED)
    desk, phone = (opened_modal(person, complaint, CORRECT_IT) for _ in range(2))
    person.submit(desk, positive_prompt="a fox", steps="9").wait()
    form.wait_message(lambda m: "a fox" in text_of(m))
    shared.discord.wait_for(lambda _: complaint.message is None)
    answer = person.submit(phone, positive_prompt="a hare", steps="8").wait()
    assert "changed in the meantime" in answer.texts[0]
    assert answer.message is not None
    assert (fields(answer.message)["Prompt"], fields(answer.message)["Steps"]) == ("a hare", "8")
    assert form.message is not None
    assert fields(form.message)["Prompt"] == "a fox"
    queued(person, form)
    queued(person, answer)
    shown = [result_of(shared, person, n)["embeds"][0]["description"] for n in (1, 2)]
    assert sorted(shown) == ["a fox", "a hare"]
