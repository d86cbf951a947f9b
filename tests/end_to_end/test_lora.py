"""LoRAs, from a tag in the prompt to the nodes that ComfyUI runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.end_to_end.common import refresh, result_of
from tests.end_to_end.three_workflows import OWN_NEGATIVES, failure_of, furnish_with_three, written
from tests.harness.house import House
from tests.harness.labels import AGAIN, CORRECT_IT, EDIT, EDIT_PROMPTS
from tests.harness.steps import fields, fill_in, generate, open_form, queued, text_of
from tests.standins.comfyui.nodes import LORAS
from tests.standins.discord.people import Modal, Person, Reply

INK, DETAIL = "SDXL/style/inkSketch_v2.safetensors", "SDXL/add-detail-xl.safetensors"
TAGGED = "a fox, <lora:inkSketch_v2:0,8>, in <LORA:add-detail-xl> snow"
NAMED = "a fox, <lora:SDXL/style/inkSketch_v2:0,8>, in <LORA:SDXL/add-detail-xl> snow"
ESCAPED = r"a fox, \<lora\:SDXL/style/inkSketch\_v2:0,8>, in \<LORA:SDXL/add-detail-xl> snow"
INK_TAG = "<lora:SDXL/style/inkSketch_v2:1>"
GONE = "There is no LoRA `SDXL/style/inkSketch_v2`. The nearest: ink"


@pytest.fixture(scope="module")
def furnish() -> Callable[[House], None]:
    return furnish_with_three


@contextmanager
def loras_of_comfyui(house: House, loras: list[str], *, told: bool = True) -> Iterator[None]:
    """ComfyUI offers these LoRAs, and the bot knows if it was `told`. Later all is as it was."""
    before = house.comfyui.loras
    house.comfyui.loras = loras
    try:
        if told:
            refresh(house)
        yield
    finally:
        house.settle()
        house.comfyui.loras = before
        refresh(house)


def gen(house: House, person: Person, **options: str) -> tuple[Reply, dict[str, Any]]:
    """/gen, and the form as it opens."""
    reply = person.slash("gen", house.channel, **options).wait()
    assert reply.message is not None
    return reply, reply.message


def typed_in(modal: Modal | None) -> dict[str, Any]:
    """What stands in a modal."""
    assert modal is not None
    inputs = [label["component"] for label in modal["components"]]
    return {given["custom_id"]: given.get("value") for given in inputs}


def prompt_in(person: Person, message: dict[str, Any]) -> str:
    """The prompt in the modal of a form."""
    modal = person.press(message, EDIT_PROMPTS).wait().modal
    return str(typed_in(modal)["positive_prompt"])


def with_nodes(name: str, workflow: dict[str, Any]) -> dict[str, Any]:
    """The workflow with the two LoRAs of TAGGED between its model and who uses it."""
    first, second = ("lora-2", "lora-3") if name == "styled" else ("lora-1", "lora-2")
    model = {"multisampler": "152", "flux": "12", "styled": "4"}[name]
    slots = (0,) if name == "flux" else (0, 1)
    for entry in workflow.values():
        for field, value in entry["inputs"].items():
            if value in [[model, slot] for slot in slots]:
                entry["inputs"][field] = [second, value[1]]
    for node, source, lora, strength in (
        (first, model, INK, 0.8),
        (second, first, DETAIL, 1.0),
    ):
        links = dict(zip(("model", "clip"), ([source, slot] for slot in slots), strict=False))
        strengths = {f"strength_{link}": strength for link in links}
        kind = "LoraLoaderModelOnly" if name == "flux" else "LoraLoader"
        inputs = {**links, "lora_name": lora, **strengths}
        workflow[node] = {"class_type": kind, "inputs": inputs}
    return workflow


@pytest.mark.parametrize("workflow", ["multisampler", "flux", "styled"])
def test_tags_become_nodes_and_stay_in_what_people_read(shared: House, workflow: str) -> None:
    person = shared.discord.person()
    form, message = gen(shared, person, prompt=TAGGED, workflow=workflow, seed="7")
    assert message["content"] == ""
    assert fields(message)["Prompt"] == ESCAPED
    queued(person, form)
    result = result_of(shared, person)
    assert result["embeds"][0]["description"] == ESCAPED
    values = {"positive": "a fox, in snow", "negative": OWN_NEGATIVES.get(workflow, ""), "seed": 7}
    expected = with_nodes(workflow, written(workflow, **values))
    _, posted = shared.comfyui.posted[-1]
    assert posted == expected
    assert list(posted) == list(expected)  # the new ones last

    person.press(result, AGAIN).wait_shown(lambda m: "Queued!" in m["content"])
    result = result_of(shared, person, 2)
    assert result["embeds"][0]["description"] == ESCAPED
    _, again = shared.comfyui.posted[-1]
    assert {node: entry["class_type"] for node, entry in again.items()} == {
        node: entry["class_type"] for node, entry in expected.items()
    }
    edited = person.press(result, EDIT)
    assert fields(edited.wait_message(lambda m: bool(m["embeds"])))["Prompt"] == ESCAPED
    assert edited.message is not None
    assert prompt_in(person, edited.message) == NAMED
    fill_in(person, edited, positive_prompt="a fox, in snow", seed="7")
    queued(person, edited)
    result_of(shared, person, 3)
    assert json.dumps(shared.comfyui.posted[-1][1]) == json.dumps(written(workflow, **values))


def test_the_progress_of_a_job_with_loras_is_as_of_any(shared: House) -> None:
    person = shared.discord.person()
    shared.comfyui.hold()
    queued(person, gen(shared, person, prompt=TAGGED, seed="7")[0])
    running = shared.discord.wait_for_message(
        shared.channel, lambda m: "Generating for" in m["content"]
    )
    assert ESCAPED in text_of(running)
    shared.discord.wait_for(lambda _: "pass 4 of 4" in text_of(running))
    shared.comfyui.release()
    result_of(shared, person)


def test_a_modal_with_tags_that_make_no_sense_comes_back_with_all_that_was_typed(
    shared: House,
) -> None:
    person = shared.discord.person()
    form = open_form(person, shared.channel)
    texts = {
        "positive_prompt": "a fox <lora:inkScetch_v2:0.8> <lora:add-detail:3> <lora:fox>",
        "negative_prompt": "<lora:ink>",
        "steps": "9",
        "cfg": "3",
        "seed": "7",
    }
    refused = fill_in(person, form, **texts)
    assert refused.message is not None
    assert refused.message["content"].splitlines() == [
        r"There is no LoRA `inkScetch_v2`. The nearest: inkSketch\_v2,"
        r" inkSketch\_v1\_epoch-000012.",
        "The strength of the LoRA `add-detail` is `3`: give a number from -2 to 2, as in"
        " `<lora:add-detail:0.8>`.",
        "`<lora:fox>` fits several LoRAs: Illustrious/characters/fox girl (v3),"
        " SDXL/characters/fox girl (v3). Write the one you mean.",
        "`<lora:ink>` does nothing in the negative prompt: move it to the prompt, or take it out.",
    ]
    modal = person.press(refused.message, CORRECT_IT).wait().modal
    assert typed_in(modal) == texts
    assert modal is not None
    person.submit(modal, positive_prompt=TAGGED, negative_prompt="").wait()
    form.wait_message(lambda message: fields(message)["Prompt"] == ESCAPED)
    queued(person, form)
    result_of(shared, person)


def test_gen_completes_a_loras_name_and_adds_its_tag(shared: House) -> None:
    person = shared.discord.person()
    (choice,) = person.autocomplete("gen", shared.channel, "lora", "detail add")
    assert choice == {"name": "add-detail-xl (SDXL)", "value": DETAIL}
    assert len(person.autocomplete("gen", shared.channel, "lora", "")) == len(LORAS)
    form, message = gen(shared, person, prompt="a fox", lora=choice["value"])
    assert fields(message)["Prompt"] == r"a fox \<lora\:SDXL/add-detail-xl:1>"
    _, message = gen(shared, person, lora="inksketch_v2")  # the unsent prompt is taken over
    assert prompt_in(person, message) == f"a fox <lora:SDXL/add-detail-xl:1> {INK_TAG}"
    form, message = gen(shared, person, lora=INK)
    assert prompt_in(person, message) == f"a fox <lora:SDXL/add-detail-xl:1> {INK_TAG}"
    queued(person, form)
    result_of(shared, person)
    _, posted = shared.comfyui.posted[-1]
    assert [posted[f"lora-{n}"]["inputs"]["lora_name"] for n in (1, 2)] == [DETAIL, INK]

    form, message = gen(shared, person, lora=INK)  # nothing else was typed
    assert fields(message)["Prompt"] == r"\<lora\:SDXL/style/inkSketch\_v2:1>"
    assert any("a prompt" in text for text in generate(person, form).texts)
    _, message = gen(shared, person, lora="inkScetch_v2")
    assert message["content"].startswith("There is no LoRA `inkScetch_v2`. The nearest: ink")
    assert prompt_in(person, message) == INK_TAG


def test_more_is_wrong_than_a_message_holds_and_nothing_is_lost(shared: House) -> None:
    person = shared.discord.person()
    name = f"detail{'_x' * 38}"
    prompt = "a fox " + " ".join(f"<lora:{name}_b{number}:1>" for number in range(5))
    with loras_of_comfyui(shared, [f"{name}_a{number}.pt" for number in range(5)]):
        _, form = gen(shared, person, prompt=prompt)
        assert 1900 < len(form["content"]) <= 2000
        assert prompt_in(person, form) == prompt
        complaint = fill_in(person, open_form(person, shared.channel), positive_prompt=prompt)
        assert complaint.message is not None
        assert 1900 < len(complaint.message["content"]) <= 2000
        modal = person.press(complaint.message, CORRECT_IT).wait().modal
        assert typed_in(modal)["positive_prompt"] == prompt


def test_a_lora_that_went_before_generate_is_said_in_the_form_which_keeps_all(
    shared: House,
) -> None:
    person = shared.discord.person()
    form, message = gen(shared, person, prompt=TAGGED, seed="7", shape="tall")
    with loras_of_comfyui(shared, [name for name in LORAS if name != INK]):
        generate(person, form)
        assert message["content"].startswith(GONE)
        assert (fields(message)["Seed"], fields(message)["Shape"]) == ("7", "tall (768 x 1344)")
        assert prompt_in(person, message) == NAMED
        fill_in(person, form, positive_prompt="a fox <lora:add-detail>")
        queued(person, form)
        result_of(shared, person)


@pytest.mark.parametrize("told", [True, False])
def test_a_lora_that_went_before_the_run_is_said_in_the_failure_and_by_edit_and_again(
    shared: House, told: bool
) -> None:
    person = shared.discord.person()
    shared.comfyui.hold()
    queued(person, gen(shared, person, prompt="in the way")[0])
    shared.comfyui.wait_for(lambda comfyui: bool(comfyui.running))
    queued(person, gen(shared, person, prompt=TAGGED)[0])
    with loras_of_comfyui(shared, [name for name in LORAS if name != INK], told=told):
        shared.comfyui.release()
        failure = failure_of(shared, person)
        said = failure["embeds"][0]["description"].replace("\\", "")
        if told:
            assert said.startswith(GONE)
        else:
            assert said == (
                "The LoRA `inkSketch_v2` is not offered by ComfyUI any more. The list has"
                " been refreshed: press Edit."
            )
        assert fields(failure)["Prompt"] == ESCAPED
        for button, note in ((EDIT, ""), (AGAIN, "Nothing is queued yet: choose")):
            form = person.press(failure, button)
            message = form.wait_message(lambda m: GONE in m["content"])
            assert note in message["content"]
            assert prompt_in(person, message) == NAMED


def test_a_server_without_loras_says_so(shared: House) -> None:
    person = shared.discord.person()
    with loras_of_comfyui(shared, []):
        assert person.autocomplete("gen", shared.channel, "lora", "") == []
        form, message = gen(shared, person, prompt="a fox", lora="ink")
        assert message["content"] == "There are no LoRAs here."
        (text,) = fill_in(person, form, positive_prompt="a fox <lora:ink:0.5>").texts
        assert text == "There are no LoRAs here: take `<lora:ink:0.5>` out."
        queued(person, form)
        result_of(shared, person)


def test_shape_and_loras_of_a_waiting_job_survive_a_restart(house: House) -> None:
    furnish_with_three(house)
    house.comfyui.hold()
    bot = house.start()
    person = house.discord.person()
    queued(person, gen(house, person, prompt="in the way")[0])
    house.comfyui.wait_for(lambda comfyui: bool(comfyui.running))
    queued(person, gen(house, person, prompt=TAGGED, shape="portrait", seed="7")[0])
    bot.kill()
    house.comfyui.release()
    house.start()
    result = result_of(house, person, 2)
    assert result["embeds"][0]["description"] == ESCAPED
    assert fields(result)["Shape"] == "portrait (832 x 1216)"
    values = {"positive": "a fox, in snow", "seed": 7, "width": 832, "height": 1216}
    assert house.comfyui.posted[-1][1] == with_nodes(
        "multisampler", written("multisampler", **values)
    )


INKS = ["styles/ink_wash.safetensors", "ink_line.safetensors", "s.safetensors"]


def test_a_tag_that_fits_several_is_asked_for_and_none_is_taken(shared: House) -> None:
    person = shared.discord.person()
    asked = r"fits several LoRAs: ink\_wash, ink\_line. Write the one you mean."
    with loras_of_comfyui(shared, INKS):
        before = len(shared.comfyui.posted)
        form, message = gen(shared, person, prompt="a fox <lora:ink:0.8>")
        assert message["content"] == f"`<lora:ink>` {asked}"
        assert any(f"`<lora:ink>` {asked}" in text for text in generate(person, form).texts)
        refused = fill_in(person, form, positive_prompt="a fox <lora:ink>, <lora:safetensors>")
        assert refused.message is not None
        assert refused.message["content"].splitlines() == [
            f"`<lora:ink>` {asked}",
            "There is no LoRA `safetensors`.",
        ]
        _, message = gen(shared, person, prompt="a hare", lora="ink")  # typed, not chosen
        assert message["content"] == f"`ink` {asked}"
        assert fields(message)["Prompt"] == "a hare"
        assert len(shared.comfyui.posted) == before
        form, message = gen(shared, person, prompt="a fox <lora:s>")
        assert message["content"] == ""
        assert prompt_in(person, message) == "a fox <lora:s>"
        queued(person, form)
        result_of(shared, person)
        assert shared.comfyui.posted[-1][1]["lora-1"]["inputs"]["lora_name"] == INKS[2]


def test_again_uses_the_same_lora_whatever_is_added(shared: House) -> None:
    person = shared.discord.person()
    named = "a fox,  <lora:styles/ink_wash:.80> in snow"
    with loras_of_comfyui(shared, [rf"styles\{INKS[0][7:]}"]):
        form = open_form(person, shared.channel)
        fill_in(person, form, positive_prompt="a fox,  <lora:ink:.80> in snow")
        assert form.message is not None
        assert fields(form.message)["Prompt"].replace("\\", "") == named
        assert prompt_in(person, form.message) == named
        queued(person, form)
        result = result_of(shared, person)
        assert result["embeds"][0]["description"].replace("\\", "") == named
    more = [rf"styles\{INKS[0][7:]}", "ink.safetensors", "ink_wash.safetensors", "a/styles/ink.pt"]
    with loras_of_comfyui(shared, more):
        note = person.press(result, AGAIN).wait_shown(lambda m: "Queued!" in m["content"])
        assert "is now" not in note["content"]
        again = result_of(shared, person, 2)
        assert again["embeds"][0]["description"].replace("\\", "") == named
        posted = shared.comfyui.posted[-1][1]["lora-1"]["inputs"]
        assert (posted["lora_name"], posted["strength_model"]) == (more[0], 0.8)
    query = "SELECT DISTINCT positive_prompt FROM jobs WHERE discord_user_id = ?"
    assert shared.installation.rows(query, str(person.id)) == [(named,)]


def test_again_of_a_row_without_full_names_says_which_lora_it_uses(shared: House) -> None:
    person = shared.discord.person()
    form, _ = gen(shared, person, prompt="a fox <lora:pixel:0.5>")
    queued(person, form)
    result = result_of(shared, person)
    change = "UPDATE jobs SET positive_prompt = ? WHERE discord_user_id = ?"
    shared.installation.change(change, "a fox <lora:pixel:0.5>", str(person.id))
    note = person.press(result, AGAIN).wait_shown(lambda m: "Queued!" in m["content"])
    assert "`<lora:pixel:0.5>` is now `<lora:pixel-art-xl:0.5>`." in note["content"]
    again = result_of(shared, person, 2)
    assert again["embeds"][0]["description"].replace("\\", "") == "a fox <lora:pixel-art-xl:0.5>"


def test_a_slip_in_a_tag_is_told_and_nothing_is_painted(shared: House) -> None:
    person = shared.discord.person()
    before = len(shared.comfyui.posted)
    for slip in (
        "<lora:detail:0.8",
        "<lora detail:0.8>",
        "lora:detail:0.8>",
        "\uff1clora\uff1adetail\uff1a0.8\uff1e",
        "&lt;lora:detail:0.8&gt;",
        "(lora:detail:0.8)",
        "[lora:detail:1]",
        "<lyco:detail:1>",
        "<hypernet:detail:1>",
    ):
        told = (
            f"`{slip}` would be painted as text: only LoRA tags like `<lora:name:0.8>` work here."
        )
        form, message = gen(shared, person, prompt=f"a fox {slip}")
        assert message["content"] == told
        assert any(told in text for text in generate(person, form).texts)
        refused = fill_in(person, form, positive_prompt=f"a hare {slip}", negative_prompt=slip)
        assert refused.message is not None
        assert refused.message["content"].splitlines() == [
            told,
            f"`{slip}` does nothing in the negative prompt: move it to the prompt, or take it out.",
        ]
    assert len(shared.comfyui.posted) == before
    form, message = gen(shared, person, prompt="a girl named Lora, lora, (Lora:1.2)")
    assert message["content"] == ""
    queued(person, form)
    result_of(shared, person)


DECOMPOSED = [
    "caf\u0065\u0301 noir.safetensors",
    "\u1112\u1161\u11ab\u1100\u116e\u11a8\u1112\u116a/\u30ab\u3099\u30e9\u30b9.safetensors",
    "fox \U0001f98a.safetensors",
]


def test_names_are_found_in_any_unicode_form_and_sent_as_listed(shared: House) -> None:
    person = shared.discord.person()
    with loras_of_comfyui(shared, [*DECOMPOSED, "other.safetensors"]):
        for typed, value in (
            ("caf\xe9", DECOMPOSED[0]),
            ("한국화", DECOMPOSED[1]),
            ("ガラス", DECOMPOSED[1]),
            ("\U0001f98a", DECOMPOSED[2]),
        ):
            choices = person.autocomplete("gen", shared.channel, "lora", typed)
            assert [choice["value"] for choice in choices] == [value]
        form, message = gen(shared, person, prompt="a fox <lora:CAF\xc9> <lora:ガラス:0.5>")
        assert message["content"] == ""
        queued(person, form)
        result_of(shared, person)
        posted = shared.comfyui.posted[-1][1]
        assert [posted[f"lora-{n}"]["inputs"]["lora_name"] for n in (1, 2)] == DECOMPOSED[:2]
