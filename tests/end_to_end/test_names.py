"""How models and prompts are shown, and how a model is found, from /gen to the result."""

from __future__ import annotations

from tests.end_to_end.common import models_of_comfyui, refresh, result_of
from tests.harness.house import House
from tests.harness.steps import fields, fill_in, labels, open_form, queued
from tests.standins.discord.markdown import read

PROMPT = (
    "# <@1> <@&2> <#3> <t:1:R> </gen:4> <:fox:5> @everyone *a*\n"
    "> https://a.b/c_d [e](http://f.g) :fox:\n- ||h||\n1. ```i```"
)
TWIN = "realvisxlV50_v50LightningBakedvae"


def test_models_of_the_same_name_are_told_apart_from_the_menu_to_the_result(shared: House) -> None:
    person = shared.discord.person()
    form = open_form(person, shared.channel)
    assert form.message is not None
    twins = [label for label in labels(form.message, "Model") if label.endswith(TWIN)]
    assert len(set(twins)) == len(twins) == 2
    person.select(form.message, "Model", f"SDXL/{TWIN}").wait()
    assert read(fields(form.message)["Model"]) == (f"SDXL/{TWIN}", [])
    fill_in(person, form, positive_prompt="a fox")
    queued(person, form)
    result = result_of(shared, person)
    assert read(fields(result)["Model"]) == (f"SDXL/{TWIN}", [])
    _, workflow = shared.comfyui.posted[-1]
    assert workflow["152"]["inputs"]["ckpt_name"] == f"SDXL/{TWIN}.safetensors"


def test_a_model_with_a_decomposed_name_is_found_and_sent_as_comfyui_lists_it(
    shared: House,
) -> None:
    person = shared.discord.person()
    models = [*shared.comfyui.models, "sd/cafe\u0301 \u30ab\u3099.safetensors"]
    with models_of_comfyui(shared, models):
        refresh(shared)
        (choice,) = person.autocomplete("gen", shared.channel, "model", "\u30ac caf\xe9")
        assert choice["value"] == models[-1]
        form = person.slash("gen", shared.channel, model="CAF\xc9", prompt="a fox").wait()
        queued(person, form)
        result_of(shared, person)
        assert shared.comfyui.posted[-1][1]["152"]["inputs"]["ckpt_name"] == models[-1]


def test_a_prompt_is_read_as_typed_wherever_it_is_quoted(shared: House) -> None:
    person = shared.discord.person()
    form = open_form(person, shared.channel)
    fill_in(person, form, positive_prompt=PROMPT, negative_prompt=PROMPT)
    assert form.message is not None
    shown = fields(form.message)
    assert read(shown["Prompt"]) == read(shown["Negative prompt"]) == (PROMPT, [])
    shared.comfyui.hold()
    queued(person, form)
    shared.comfyui.wait_for(lambda c: bool(c.running))
    queue = person.slash("queue", shared.channel).wait_message(lambda m: bool(m["embeds"]))
    (quote,) = (value for name, value in fields(queue).items() if name.startswith("Yours"))
    assert read(quote) == (f"{PROMPT[:99]}…", [])
    shared.comfyui.release()
    result = result_of(shared, person)
    assert read(result["embeds"][0]["description"]) == (PROMPT, [])
    assert [mention["id"] for mention in result["mentions"]] == [str(person.id)]


def test_a_wrong_option_is_quoted_as_typed(shared: House) -> None:
    person = shared.discord.person()
    reply = person.slash("gen", shared.channel, seed="<@1> `#` http://a.b").wait()
    text = next(text for text in reply.texts if "whole number" in text)
    assert '"<@1> `#` http://a.b"' in read(text)[0]
    assert read(text)[1] == []
