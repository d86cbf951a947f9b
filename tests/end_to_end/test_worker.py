"""The way of a job through the queue: order and estimate, its seed, its workflow, its time."""

from __future__ import annotations

import json
import re

from tests.end_to_end.common import result_of
from tests.harness.house import House
from tests.harness.steps import (
    ask_for,
    fields,
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


def test_seeds_of_the_workflow_file_stay_when_asked_for(house: House) -> None:
    house.start(SEED_MODE="workflow")
    ask_for(house.discord.person(), house.channel, "a fox")
    house.comfyui.wait_for(lambda c: len(c.posted) == 1)
    _, workflow = house.comfyui.posted[0]
    own = json.loads(house.installation.workflow.read_text("utf-8"))
    assert workflow["239"]["inputs"]["seed"] == own["239"]["inputs"]["seed"]
