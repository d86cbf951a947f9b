"""What an owner sets for a server: fair share, most steps, and who may use the bot."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.common import jobs_of, opened_modal, press_generate, result_of, run, typed_in
from tests.harness.house import House
from tests.harness.labels import AGAIN, CANCEL, CORRECT_IT, EDIT
from tests.harness.steps import (
    ask_for,
    delete,
    fields,
    generate,
    open_form,
    queued,
)
from tests.standins.discord.people import Person, Reply
from tests.standins.discord.schema import EPHEMERAL

ROLE = "artists"
REFUSED = "You need a certain role to use {} here. Please ask a moderator."
FULL = re.compile(
    r"You have 2 pictures waiting, and one person may have 2\. Try again in (a minute|about \d+"
    r" (s|min)), when the next of yours is done\. Nothing was lost\."
)


@pytest.fixture(scope="module")
def furnish() -> Callable[[House], None]:
    """Strict rules, and a workflow file that has more steps than they allow."""

    def strictly(house: House) -> None:
        role = house.discord.guild.add_role(ROLE)
        house.settings |= {
            "MAX_WAITING_PER_PERSON": "2",
            "MAX_STEPS": "30",
            "ALLOWED_ROLE_IDS": str(role.id),
        }
        with_steps(house, 50)

    return strictly


def with_steps(house: House, steps: int) -> None:
    """The workflow file asks for so many."""
    path = house.installation.workflow
    workflow = json.loads(path.read_text("utf-8"))
    workflow["239"]["inputs"]["steps"] = steps
    path.write_text(json.dumps(workflow), "utf-8")


def artist(house: House) -> Person:
    """A new person with the role."""
    person = house.discord.person("ada")
    person.roles += [role for role in house.discord.guild.roles if role.name == ROLE]
    return person


def filled_form(house: House, person: Person, prompt: str) -> Reply:
    """A form in which only Generate is left to be pressed."""
    form = person.slash("gen", house.channel, prompt=prompt).wait()
    assert form.message is not None
    return form


def is_full(message: dict[str, Any]) -> bool:
    """Whether it says that the person has as many waiting as one may have."""
    return bool(FULL.fullmatch(message["content"])) and bool(message["flags"] & EPHEMERAL)


# Fair share


def test_whoever_has_as_many_waiting_as_one_may_have_waits_for_one_and_loses_nothing(
    shared: House,
) -> None:
    person, other = artist(shared), artist(shared)
    ask_for(person, shared.channel, "one that is there")
    result = result_of(shared, person)
    shared.comfyui.hold()
    for number in (1, 2):
        queued(person, filled_form(shared, person, f"waits {number}"))
    form = filled_form(shared, person, "one too many")
    for _ in range(2):  # a second press is no way round it
        generate(person, form).wait_message(is_full)
    person.press(result, AGAIN).wait().wait_message(is_full)
    assert jobs_of(shared, person) == 3
    elsewhere = other.slash("gen", shared.spare[0], prompt="somebody else").wait()
    queued(other, elsewhere)
    shared.comfyui.release()
    result_of(shared, person, 3)
    shared.comfyui.hold()
    accepted = [queued(person, form)]
    again = person.press(result, AGAIN).wait()  # at once: what came to nothing is no double tap
    accepted.append(again.wait_shown(lambda m: "Queued!" in m["content"]))
    for message in accepted:
        person.press(message, CANCEL).wait().wait_message(lambda m: m["content"] == "Cancelled.")


# Steps


def test_the_most_steps_are_those_of_the_hint_the_error_and_a_new_form(shared: House) -> None:
    person = artist(shared)
    form = open_form(person, shared.channel)
    assert form.message is not None
    assert fields(form.message)["Steps"] == "30"  # the file has more
    modal = opened_modal(person, form)
    hints = [label["description"] for label in modal["components"]]
    assert any(hint.startswith("A whole number from 1 to 30.") for hint in hints)
    refused = person.submit(modal, positive_prompt="a fox", steps="31").wait()
    assert refused.message is not None
    wrong = "**Steps** is `31`: give a whole number from 1 to 30."
    assert refused.message["content"] == wrong
    modal = opened_modal(person, refused, CORRECT_IT)
    assert typed_in(modal)["steps"] == "31"
    person.submit(modal, steps="30").wait()
    form.wait_message(lambda m: fields(m)["Prompt"] == "a fox")
    queued(person, form)
    assert fields(result_of(shared, person))["Steps"] == "30"


@pytest.mark.parametrize("button", [AGAIN, EDIT])
def test_a_job_from_before_the_limit_comes_back_as_a_form_that_says_so(
    shared: House, button: str
) -> None:
    person = artist(shared)
    ask_for(person, shared.channel, "long ago")
    result = result_of(shared, person)
    shared.settle()
    change = "UPDATE jobs SET steps = 90 WHERE discord_user_id = ?"
    shared.installation.change(change, str(person.id))
    form = person.press(result, button).wait()
    note = "At most 30 steps are allowed now; these were 90."
    asked = "\nNothing is queued yet: choose, and press Generate." if button == AGAIN else ""
    form.wait_message(lambda m: m["content"] == note + asked)
    assert form.message is not None
    assert (fields(form.message)["Steps"], fields(form.message)["Prompt"]) == ("30", "long ago")
    assert jobs_of(shared, person) == 1
    queued(person, form)
    assert fields(result_of(shared, person, 2))["Steps"] == "30"


def test_once_keeps_to_the_most_steps(house: House, tmp_path: Path) -> None:
    with_steps(house, 90)
    limit = {"MAX_STEPS": "9", "DISCORD_TOKEN": "", "ALLOWED_CHANNEL_IDS": ""}
    bot = run(house, "--once", "a fox", "--steps", "10", offline=True, **limit)
    assert bot.process.returncode == 1
    assert "Steps is 10: give a whole number from 1 to 9." in bot.output
    bot = run(house, "--once", "a fox", "--out", str(tmp_path), offline=True, **limit)
    assert bot.process.returncode == 0, bot.output
    assert "9 steps" in bot.output


def test_the_hint_does_not_name_more_steps_than_are_allowed(shared: House) -> None:
    person = artist(shared)  # the file has 50, and 30 are allowed
    modal = opened_modal(person, filled_form(shared, person, "a fox"))
    hints = [label["description"] for label in modal["components"]]
    assert "A whole number from 1 to 30. More: finer and slower" in hints


# Roles


def test_without_the_role_there_are_no_commands(shared: House) -> None:
    person = shared.discord.person()
    for command in ("gen", "queue", "mine"):
        answer = person.slash(command, shared.channel).wait().message
        assert answer is not None
        assert answer["content"] == REFUSED.format(f"/{command}")
        assert answer["flags"] & EPHEMERAL


def test_autocomplete_names_nothing_where_gen_may_not_be_used(shared: House) -> None:
    allowed, stranger = artist(shared), shared.discord.person()
    elsewhere = shared.discord.guild.add_channel("elsewhere")
    for option in ("model", "lora", "workflow"):
        assert allowed.autocomplete("gen", shared.channel, option, "")
        assert stranger.autocomplete("gen", shared.channel, option, "") == []
        assert allowed.autocomplete("gen", elsewhere, option, "") == []


def test_nor_buttons_that_make_pictures_but_those_of_ones_own_jobs_stay(shared: House) -> None:
    person = artist(shared)
    roles = list(person.roles)
    ask_for(person, shared.channel, "with the role")
    result = result_of(shared, person)
    form = filled_form(shared, person, "a form that was open")
    modal = opened_modal(person, form)
    page = person.slash("mine", shared.channel).wait().wait_message(lambda m: bool(m["embeds"]))
    shared.comfyui.hold()
    waiting = queued(person, filled_form(shared, person, "a job that waits"))
    person.roles.clear()

    def refuses(reply: Reply) -> None:
        reply.wait().wait_message(lambda m: m["content"] == REFUSED.format("this button"))

    refuses(generate(person, form))
    for message, button in ((result, AGAIN), (result, EDIT), (page, AGAIN), (page, EDIT)):
        refuses(person.press(message, button))
    typed = person.submit(modal, positive_prompt="a whole poem").wait().message
    assert typed is not None
    assert fields(typed)["Prompt"] == "a whole poem"  # given back
    assert jobs_of(shared, person) == 2
    person.press(waiting, CANCEL).wait().wait_message(lambda m: m["content"] == "Cancelled.")
    delete(person, result).wait_message(lambda m: m["content"] == "Deleted.")
    person.roles += roles
    shared.comfyui.release()
    queued(person, form)
    result_of(shared, person)


def test_the_pages_of_mine_need_the_role_too(shared: House) -> None:
    person = artist(shared)
    ask_for(person, shared.channel, "one of many")
    result_of(shared, person)
    shared.settle()
    for _ in range(10):
        copy_last_job(shared, person)
    page = person.slash("mine", shared.channel).wait().wait_message(lambda m: bool(m["embeds"]))
    person.roles.clear()
    turned = person.press(page, "Older").wait().message
    assert turned is not None
    assert turned["content"] == REFUSED.format("this button")


def copy_last_job(house: House, person: Person) -> None:
    """One more of these in the database."""
    columns = [row[1] for row in house.installation.rows("PRAGMA table_info(jobs)")]
    same = ", ".join(columns[1:])
    house.installation.change(
        f"INSERT INTO jobs (id, {same}) SELECT lower(hex(randomblob(16))), {same} FROM jobs"
        " WHERE discord_user_id = ? ORDER BY rowid DESC LIMIT 1",
        str(person.id),
    )


@pytest.mark.parametrize("who", ["moderator", "manager"])
def test_moderators_and_managers_need_no_role(shared: House, who: str) -> None:
    person = getattr(shared.discord, who)()
    stranger = artist(shared)
    shared.comfyui.hold()
    ask_for(stranger, shared.channel, "what nobody wants")
    queue = person.slash("queue", shared.channel).wait()
    queue.wait_message(lambda m: f"<@{stranger.id}>" in m["embeds"][0]["description"])
    queued(person, filled_form(shared, person, "a moderator's own"))


def test_the_everyone_role_allows_all_and_a_role_that_is_nowhere_is_named(house: House) -> None:
    everyone = str(house.discord.guild.id)
    bot = house.start(ALLOWED_ROLE_IDS=f"{everyone}, 4711")
    text = "no server has role 4711: correct ALLOWED_ROLE_IDS"
    assert "WARNING" in bot.wait_for_line(text)
    person = house.discord.person()
    press_generate(house, person)
    result_of(house, person)
    bot.stop()
    bot = run(house, "--check", ALLOWED_ROLE_IDS=f"{everyone}, 4711")
    (warning,) = [line for line in bot.lines if line.startswith("warning")]
    assert warning.endswith(text)
