"""The way of a job through the queue: order and estimate, its seed, its workflow, its time."""

from __future__ import annotations

import json
import re

from tests.end_to_end.common import jobs_of, result_of
from tests.harness.house import House
from tests.harness.steps import (
    ask_for,
    fields,
    fill_in,
    generate,
    labels,
    open_form,
    queued,
    text_of,
)


def test_the_position_counts_the_queued_jobs_before(shared: House) -> None:
    shared.comfyui.hold()
    person = shared.discord.person()
    before, ran_before = len(shared.comfyui.posted), len(shared.comfyui.executed)
    ask_for(person, shared.channel, "the one that runs")
    shared.comfyui.wait_for(lambda c: len(c.posted) == before + 1)
    positions = []
    for number in range(3):
        message = ask_for(shared.discord.person(), shared.channel, f"waiting {number}")
        positions += re.findall(r"You are position \*\*(\d+)\*\* in the queue", message["content"])
    assert positions == ["1", "2", "3"]
    assert len(shared.comfyui.posted) == before + 1
    shared.comfyui.release()
    shared.comfyui.wait_for(lambda c: len(c.executed) >= ran_before + 4)


def test_a_workflow_that_breaks_while_the_bot_runs_is_refused_before_the_queue(
    shared: House,
) -> None:
    person = shared.discord.person()
    workflow = shared.installation.workflow
    whole = workflow.read_text("utf-8")
    form = open_form(person, shared.channel)
    assert form.message is not None
    person.select(form.message, "Model", labels(form.message, "Model")[0]).wait()
    fill_in(person, form, positive_prompt="a mole")
    workflow.write_text(whole.replace('"249"', '"250249"', 1), "utf-8")
    try:
        answer = generate(person, form)
        answer.wait_message(lambda message: "249" in message["content"])
    finally:
        workflow.write_text(whole, "utf-8")
    assert jobs_of(shared, person) == 0
    queued(person, form)  # and the form still works


def test_the_same_settings_give_two_different_pictures(shared: House) -> None:
    person = shared.discord.person()
    for _ in range(2):
        ask_for(person, shared.channel, "the same again")
    shared.discord.wait_for(
        lambda d: (
            len([m for m in shared.channel.messages if m["content"] == f"<@{person.id}>"]) == 2
        )
    )
    first, second = (
        shared.discord.attachment_bytes(message["attachments"][0])
        for message in shared.channel.messages
        if message["content"] == f"<@{person.id}>"
    )
    assert first != second


def test_queued_tells_the_position_and_an_estimate(shared: House) -> None:
    person = shared.discord.person()
    ask_for(person, shared.channel, "one to measure by")
    shared.settle()
    text = ask_for(person, shared.channel, "and another")["content"]
    assert re.fullmatch(r"Queued! You are position \*\*1\*\* in the queue \(about \d+ s\)\.", text)


def test_the_same_seed_and_settings_give_the_same_picture(shared: House) -> None:
    person = shared.discord.person()
    pictures = []
    for number, seed in enumerate(["18446744073709551615", "18446744073709551615", "5"], 1):
        ask_for(person, shared.channel, "seeded", seed=seed)
        result = result_of(shared, person, number)
        assert fields(result)["Seed"] == seed
        pictures.append(shared.discord.attachment_bytes(result["attachments"][0]))
    assert pictures[0] == pictures[1] != pictures[2]


def test_a_job_over_its_time_is_stopped_reported_and_followed_by_the_next(house: House) -> None:
    house.start(COMFY_TIMEOUT_MS="1500")
    house.comfyui.hold()
    person = house.discord.person()
    ask_for(person, house.channel, "too slow")
    house.discord.wait_for_message(house.channel, lambda m: "took too long" in text_of(m))
    house.comfyui.wait_for(lambda c: len(c.interrupted) == 1)
    house.comfyui.release()
    ask_for(person, house.channel, "quick")
    house.discord.wait_for_message(house.channel, lambda m: bool(m["attachments"]))


def test_seeds_of_the_workflow_file_stay_when_asked_for(house: House) -> None:
    house.start(SEED_MODE="workflow")
    ask_for(house.discord.person(), house.channel, "a fox")
    house.comfyui.wait_for(lambda c: len(c.posted) == 1)
    _, workflow = house.comfyui.posted[0]
    own = json.loads(house.installation.workflow.read_text("utf-8"))
    assert workflow["239"]["inputs"]["seed"] == own["239"]["inputs"]["seed"]
