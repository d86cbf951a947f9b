"""Several workflows beside each other, from /gen to the result, over all that may change."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from settings import EXIT_CONFIG
from tests.end_to_end.common import MANAGE_GUILD, jobs_of, refresh, result_of, run
from tests.harness.house import House
from tests.harness.labels import AGAIN, EDIT, EDIT_PROMPTS, GENERATE
from tests.harness.steps import fields, fill_in, generate, labels, menu, open_form, queued, text_of
from tests.standins.comfyui.nodes import UNETS, VAES, flux_workflow, simple_workflow
from tests.standins.discord.people import Person, Reply

DEFAULT = "multisampler"  # the shipped one, which stays locked
FLUX = flux_workflow(steps=8)
BARE = simple_workflow() | {"30": {"class_type": "PrimitiveInt", "inputs": {"value": 4}}}
BARE["3"]["inputs"]["seed"] = ["30", 0]
FLUX_BINDINGS = {
    "model": ["12.unet_name"],
    "positive": ["41.value"],
    "negative": [],
    "sampler": ["16.sampler_name"],
    "scheduler": ["17.scheduler"],
    "steps": ["17.steps"],
    "cfg": ["26.guidance"],
    "seed": ["25.noise_seed"],
    "width": ["40.value"],
    "height": ["27.height"],
    "batch": ["27.batch_size"],
}
BARE_BINDINGS = {"positive": ["6.text"], "seed": ["30.value"]}
LOCKED_TABLE = {  # architecture.md §5
    "model": ["152.ckpt_name"],
    "positive": ["268.text"],
    "negative": ["4.text"],
    "sampler": ["239.sampler_name", "249.sampler_name", "52.sampler_name", "118.sampler_name"],
    "scheduler": ["239.scheduler", "249.scheduler", "52.scheduler", "118.scheduler"],
    "steps": ["239.steps"],
    "cfg": ["239.cfg"],
}


def furnished(house: House) -> None:
    house.installation.add_workflow("flux", FLUX, FLUX_BINDINGS)
    house.installation.add_workflow("bare", BARE, BARE_BINDINGS)


@pytest.fixture(scope="module")
def furnish() -> Callable[[House], None]:
    """The default, and two of other params beside it."""
    return furnished


def written(workflow: dict[str, Any], bindings: dict[str, list[str]], **values: Any) -> Any:
    """The workflow with these values where the params have their places."""
    expected = copy.deepcopy(workflow)
    for param, value in values.items():
        for entry in bindings[param]:
            node, _, name = entry.partition(".")
            expected[node]["inputs"][name] = value
    return expected


def posted_with(house: House, prompt: str) -> dict[str, Any]:
    """The only workflow that ComfyUI was given with this prompt in it."""
    (found,) = [w for _, w in house.comfyui.posted if json.dumps(prompt) in json.dumps(w)]
    return found


def gen(house: House, person: Person, **options: str) -> Reply:
    """/gen with options, up to the form."""
    return person.slash("gen", house.channel, **options).wait()


def form_of(reply: Reply) -> dict[str, Any]:
    """The message that the form is."""
    assert reply.message is not None
    return reply.message


def controls(message: dict[str, Any]) -> list[str]:
    """The names of its menus and buttons."""
    return [
        control.get("placeholder") or control["label"]
        for row in message["components"]
        for control in row["components"]
    ]


def asked_for(house: House, person: Person, reply: Reply) -> set[str]:
    """What the modal of a form asks for."""
    modal = person.press(form_of(reply), EDIT_PROMPTS).wait().modal
    assert modal is not None
    return {label["label"] for label in modal["components"]}


def failure_of(house: House, person: Person) -> str:
    """What a person reads of the job that failed."""
    message = house.discord.wait_for_message(
        house.channel, lambda m: m["content"] == f"<@{person.id}>" and not m["attachments"]
    )
    return str(message["embeds"][0]["description"]).replace("\\", "")


@contextmanager
def workflow(
    house: House, name: str, graph: object, bindings: dict[str, list[str]] | None = None
) -> Iterator[None]:
    """One more folder, which the bot has read; later it is gone again."""
    folder = house.installation.add_workflow(name, graph, bindings)
    try:
        refresh(house)
        yield
    finally:
        house.settle()
        shutil.rmtree(folder, ignore_errors=True)
        refresh(house)


@contextmanager
def flux_bound(house: House, bindings: dict[str, list[str]]) -> Iterator[None]:
    """The workflow `flux` has other bindings; the bot does not know yet. Later all is as it was."""
    house.installation.add_workflow("flux", FLUX, bindings)
    try:
        yield
    finally:
        house.settle()
        furnished(house)
        refresh(house)


# ---------------------------------------------------------------------------------------------
# The form


def test_gen_finds_workflows_by_autocomplete_the_default_first(shared: House) -> None:
    person = shared.discord.person()
    choices = person.autocomplete("gen", shared.channel, "workflow", "")
    assert [choice["name"] for choice in choices] == [DEFAULT, "bare", "flux"]
    (found,) = person.autocomplete("gen", shared.channel, "workflow", "flu")
    assert found["value"] == "flux"


def test_gen_finds_the_models_of_the_workflow_that_is_named(shared: House) -> None:
    person = shared.discord.person()
    found = person.autocomplete("gen", shared.channel, "model", "schnell", workflow="flux")
    assert [choice["name"] for choice in found] == ["flux1-schnell-fp8 (Flux)"]
    assert person.autocomplete("gen", shared.channel, "model", "", workflow="bare") == []


def test_a_form_has_the_controls_fields_and_values_of_its_workflow(shared: House) -> None:
    person = shared.discord.person()
    form = gen(shared, person, workflow="flux")
    buttons = [EDIT_PROMPTS, GENERATE]
    menus = ["Model", "Sampler", "Scheduler", "Shape"]
    assert controls(form_of(form)) == [*menus, *buttons, "1 picture"]
    assert asked_for(shared, person, form) == {"Prompt", "Steps", "CFG", "Seed"}
    shown = fields(form_of(form))
    assert "Negative prompt" not in shown
    values = (shown["Workflow"], shown["Sampler"], shown["Scheduler"], shown["Steps"], shown["CFG"])
    assert values == ("flux", "euler", "simple", "8", "3.5")
    assert labels(form_of(form), "Model")[:2] == ["flux1-dev", "flux1-schnell-fp8"]

    form = gen(shared, person, workflow="bare")
    assert controls(form_of(form)) == buttons
    assert asked_for(shared, person, form) == {"Prompt", "Seed"}
    assert list(fields(form_of(form))) == ["Prompt", "Workflow", "Seed"]


def test_a_form_without_the_option_is_over_the_persons_last_workflow(shared: House) -> None:
    person = shared.discord.person()
    assert fields(form_of(open_form(person, shared.channel)))["Workflow"] == DEFAULT
    gen(shared, person, workflow="flux")
    assert fields(form_of(open_form(person, shared.channel)))["Workflow"] == "flux"
    other = shared.discord.person()
    assert fields(form_of(open_form(other, shared.channel)))["Workflow"] == DEFAULT


def test_each_workflow_keeps_its_own_settings_and_what_was_typed_goes_with_the_person(
    shared: House,
) -> None:
    person = shared.discord.person()
    form = gen(shared, person, workflow="flux")
    fill_in(person, form, positive_prompt="a fox", steps="9", cfg="2")
    person.select(form_of(form), "Sampler", "heun").wait()
    shown = fields(form_of(gen(shared, person, workflow=DEFAULT)))
    assert (shown["Prompt"], shown["Steps"], shown["CFG"]) == ("a fox", "20", "7")
    assert shown["Sampler"] == r"dpmpp\_2m"
    shown = fields(form_of(gen(shared, person, workflow="flux")))
    assert (shown["Steps"], shown["CFG"], shown["Sampler"]) == ("9", "2", "heun")


def test_what_was_refused_in_one_workflow_is_no_trouble_in_another(shared: House) -> None:
    person = shared.discord.person()
    form = gen(shared, person, workflow="flux")
    fill_in(person, form, positive_prompt="a careful fox", steps="8", cfg="warm")
    form = gen(shared, person, workflow=DEFAULT)
    modal = person.press(form_of(form), EDIT_PROMPTS).wait().modal
    assert modal is not None
    texts = [label["component"].get("value") for label in modal["components"]]
    assert texts == ["a careful fox", None, "20", "7", None]
    assert fields(form_of(form))["Prompt"] == "a careful fox"


def test_options_that_the_workflow_does_not_have_are_said_and_the_form_is_usable(
    shared: House,
) -> None:
    person = shared.discord.person()
    form = gen(shared, person, workflow="bare", prompt="a fox", model="flux1")
    assert "The workflow `bare` has no model to choose." in form_of(form)["content"]
    form = gen(shared, person, workflow="flu", model="schnell")  # what is typed need not be whole
    assert fields(form_of(form))["Model"] == "flux1-schnell-fp8"
    form = gen(shared, person, workflow="fluxx")
    assert form_of(form)["content"] == "There is no workflow `fluxx`. The nearest: flux."


def test_a_model_list_of_300_is_paged_and_searched(shared: House) -> None:
    person = shared.discord.person()
    names = [f"unets/model-{number:03}.gguf" for number in range(300)]
    shared.comfyui.offer("unet_name", names)
    try:
        refresh(shared)
        form = gen(shared, person, workflow="flux")
        assert fields(form_of(form))["Model"] == "not chosen"  # the file's is not there
        assert "300 models" in text_of(form_of(form))
        person.select(form_of(form), "Model", "More…").wait()
        assert len(menu(form_of(form), "Model")["options"]) <= 25
        fill_in(person, form, positive_prompt="one of many")
        assert "Still missing: a model" in text_of(
            form_of(person.press(form_of(form), GENERATE).wait())
        )
        form = gen(shared, person, model="model 271")
        queued(person, form)
        result_of(shared, person)
        assert posted_with(shared, "one of many")["12"]["inputs"]["unet_name"] == names[271]
    finally:
        shared.settle()
        shared.comfyui.offer("unet_name", UNETS)
        refresh(shared)


# ---------------------------------------------------------------------------------------------
# The job


def test_a_job_reaches_comfyui_with_its_values_in_the_bound_places_and_nothing_else_changed(
    shared: House,
) -> None:
    person = shared.discord.person()
    form = gen(shared, person, workflow="flux", prompt="a glass fox", seed="77")
    person.select(form_of(form), "Model", "flux1-schnell-fp8").wait()
    person.select(form_of(form), "Sampler", "heun").wait()
    person.select(form_of(form), "Scheduler", "beta").wait()
    fill_in(person, form, steps="11", cfg="2.5")
    queued(person, form)
    shown = fields(result_of(shared, person))
    assert posted_with(shared, "a glass fox") == written(
        FLUX,
        FLUX_BINDINGS,
        model=UNETS[1],
        positive="a glass fox",
        sampler="heun",
        scheduler="beta",
        steps=11,
        cfg=2.5,
        seed=77,
    )
    assert shown == {
        "Workflow": "flux",
        "Model": "flux1-schnell-fp8",
        "Sampler": "heun",
        "Scheduler": "beta",
        "Steps": "11",
        "CFG": "2.5",
        "Seed": "77",
    }


def test_a_workflow_with_hardly_any_param_takes_just_these_again_and_edit_too(
    shared: House,
) -> None:
    person = shared.discord.person()
    queued(person, gen(shared, person, workflow="bare", prompt="a bare fox", seed="5"))
    result = result_of(shared, person)
    assert fields(result) == {"Workflow": "bare", "Seed": "5"}
    expected = written(BARE, BARE_BINDINGS, positive="a bare fox", seed=5)
    assert posted_with(shared, "a bare fox") == expected

    person.press(result, AGAIN).wait_shown(lambda m: "Queued!" in m["content"])
    shown = fields(result_of(shared, person, 2))
    assert list(shown) == ["Workflow", "Seed"]
    *_, (_, again) = shared.comfyui.posted
    assert again == written(BARE, BARE_BINDINGS, positive="a bare fox", seed=int(shown["Seed"]))

    form = person.press(result, EDIT).wait()
    form.wait_message(lambda m: bool(m["embeds"]))
    assert fields(form_of(form)) == {"Prompt": "a bare fox", "Workflow": "bare", "Seed": "5"}


def test_without_a_seed_or_a_list_of_models_these_stay_as_in_the_file_again_too(
    shared: House,
) -> None:
    person = shared.discord.person()
    bindings = {"positive": ["6.text"], "model": ["9.filename_prefix"]}  # which is a free text
    with workflow(shared, "still", BARE, bindings):
        form = gen(shared, person, workflow="still", prompt="a still fox", seed="lucky")
        assert form_of(form)["content"] == "The workflow `still` has no seed to choose."
        queued(person, form)
        result = result_of(shared, person)
        person.press(result, AGAIN).wait_shown(lambda m: "Queued!" in m["content"])
        assert fields(result_of(shared, person, 2)) == fields(result) == {"Workflow": "still"}
        posted = [graph for _, graph in shared.comfyui.posted[-2:]]
        assert posted == [written(BARE, bindings, positive="a still fox")] * 2


def test_edit_of_a_job_without_a_negative_prompt_leaves_the_persons_own_alone(
    shared: House,
) -> None:
    person = shared.discord.person()
    form = open_form(person, shared.channel)
    fill_in(person, form, positive_prompt="a fox", negative_prompt="fog")
    queued(person, gen(shared, person, workflow="bare"))
    edited = person.press(result_of(shared, person), EDIT).wait()
    edited.wait_message(lambda m: bool(m["embeds"]))
    shown = fields(form_of(gen(shared, person, workflow=DEFAULT)))
    assert shown["Negative prompt"] == "fog"


def test_the_locked_workflow_posts_what_its_table_says_and_new_seeds_beside_others(
    shared: House,
) -> None:
    person = shared.discord.person()
    form = gen(shared, person, workflow=DEFAULT, prompt="a locked fox", seed="5000")
    fill_in(person, form, negative_prompt="fog", steps="9", cfg="4.5")
    queued(person, form)
    assert fields(result_of(shared, person))["Workflow"] == DEFAULT
    file = json.loads(shared.installation.workflow.read_text("utf-8"))
    expected = written(
        file,
        LOCKED_TABLE,
        model=file["152"]["inputs"]["ckpt_name"],
        positive="a locked fox",
        negative="fog",
        sampler="dpmpp_2m",
        scheduler="karras",
        steps=9,
        cfg=4.5,
    )
    for node in ("239", "249", "52", "118"):  # the others keep their distance to the base pass's
        distance = file[node]["inputs"]["seed"] - file["239"]["inputs"]["seed"]
        expected[node]["inputs"]["seed"] = 5000 + distance
    assert json.dumps(posted_with(shared, "a locked fox")) == json.dumps(expected)


# ---------------------------------------------------------------------------------------------
# What an owner changes meanwhile


def test_a_new_folder_is_offered_after_refresh_and_a_removed_one_no_more(shared: House) -> None:
    person = shared.discord.person()
    with workflow(shared, "late", BARE, BARE_BINDINGS):
        assert fields(form_of(gen(shared, person, workflow="late")))["Workflow"] == "late"
    form = gen(shared, person, workflow="late")
    assert form_of(form)["content"].startswith("There is no workflow `late`.")
    assert fields(form_of(form))["Workflow"] == DEFAULT


def test_a_broken_workflow_is_left_out_with_a_warning_and_the_others_work(shared: House) -> None:
    person = shared.discord.person()
    with workflow(shared, "misspelt", BARE, {"positive": ["6.txet"]}):
        line = shared.bots[-1].wait_for_line("the workflow misspelt is left out")
        assert "WARNING" in line
        assert "node 6 of the workflow has no value for its input txet" in line
        choices = person.autocomplete("gen", shared.channel, "workflow", "")
        assert [choice["name"] for choice in choices] == [DEFAULT, "bare", "flux"]
        queued(person, gen(shared, person, workflow="bare", prompt="all the same"))
        result_of(shared, person)


def test_refresh_names_the_workflows_that_are_left_out(shared: House) -> None:
    with workflow(shared, "broken", [], {}):
        permissions = shared.discord.person().permissions | MANAGE_GUILD
        owner = shared.discord.person("owner", permissions=permissions)
        answer = owner.slash("refresh", shared.channel).wait()
        message = answer.wait_message(lambda m: "Lists refreshed" in m["content"])
        assert "3 workflows." in message["content"]
        said = "The bot's log says why these workflows are left out: `broken`."
        assert said in message["content"]


@pytest.mark.parametrize(
    "name", ["`@everyone` **x**", "x\nERROR", "\udcff", "\u202eback", ".hidden"]
)
def test_a_hostile_name_of_a_folder_does_no_harm(shared: House, name: str) -> None:
    person = shared.discord.person()
    with workflow(shared, name, BARE, BARE_BINDINGS):
        choices = person.autocomplete("gen", shared.channel, "workflow", "")
        named = [choice["name"] for choice in choices]
        if name.isprintable() and not name.startswith("."):
            assert name in named
            form = gen(shared, person, workflow=name, prompt="an odd fox")
            assert fields(form_of(form))["Workflow"] == r"\`\@everyone\` \*\*x\*\*"
            queued(person, form)
            result = result_of(shared, person)
            assert fields(result)["Workflow"] == r"\`\@everyone\` \*\*x\*\*"
        else:
            assert named == [DEFAULT, "bare", "flux"]
    assert not any(line.startswith("ERROR") for line in shared.bots[-1].lines)


def test_a_job_whose_workflow_is_removed_while_it_waits_fails_with_a_sentence(
    shared: House,
) -> None:
    first, person = shared.discord.person(), shared.discord.person()
    with workflow(shared, "doomed", BARE, BARE_BINDINGS):
        shared.comfyui.hold()
        queued(first, gen(shared, first, workflow="bare", prompt="the one before"))
        form = gen(shared, person, workflow="doomed", prompt="a doomed fox")
        queued(person, form)
        shutil.rmtree(shared.installation.folder / "workflows/doomed")
        shared.comfyui.release()
        assert failure_of(shared, person) == (
            "The bot's workflow cannot be used: there is no workflow doomed any more."
        )
        result_of(shared, first)


def test_again_and_edit_of_a_job_whose_workflow_is_gone_open_a_form_with_its_prompt(
    shared: House,
) -> None:
    person = shared.discord.person()
    with workflow(shared, "brief", BARE, BARE_BINDINGS):
        queued(person, gen(shared, person, workflow="brief", prompt="a brief fox"))
        result = result_of(shared, person)
    gone = f"The workflow `brief` is not offered any more: `{DEFAULT}` stands in the form instead."
    edited = person.press(result, EDIT).wait()
    edited.wait_message(lambda m: m["content"] == gone)
    form = person.press(result, AGAIN).wait()
    form.wait_message(lambda m: m["content"].startswith(f"{gone}\nNothing is queued yet"))
    assert fields(form_of(form))["Prompt"] == "a brief fox"
    assert jobs_of(shared, person) == 1
    queued(person, form)
    result_of(shared, person, 2)
    *_, (_, posted) = shared.comfyui.posted
    assert posted["268"]["inputs"]["text"] == "a brief fox"


def test_a_form_whose_workflow_is_gone_becomes_one_of_the_default_with_all_that_was_typed(
    shared: House,
) -> None:
    person = shared.discord.person()
    with workflow(shared, "fleeting", BARE, BARE_BINDINGS):
        form = gen(shared, person, workflow="fleeting", prompt="a fleeting fox", seed="3")
    person.press(form_of(form), GENERATE).wait()
    form.wait_message(lambda m: "is not offered any more" in m["content"])
    shown = fields(form_of(form))
    assert (shown["Workflow"], shown["Prompt"], shown["Seed"]) == (DEFAULT, "a fleeting fox", "3")
    assert (shown["Steps"], shown["Sampler"]) == ("20", r"dpmpp\_2m")
    queued(person, form)
    assert fields(result_of(shared, person))["Workflow"] == DEFAULT


def test_bindings_that_gain_a_param_are_told_and_leave_that_as_in_the_file(
    shared: House,
) -> None:
    person = shared.discord.person()
    few = {param: FLUX_BINDINGS[param] for param in ("positive", "seed")}
    with flux_bound(shared, few):
        refresh(shared)
        form = gen(shared, person, workflow="flux", prompt="few params", seed="1")
        furnished(shared)
        refresh(shared)
        generate(person, form)
        assert (
            "the sampler, the scheduler, the shape, the steps can be set now"
            in (form_of(form)["content"])
        )
        queued(person, form)
        shown = fields(result_of(shared, person))
        assert posted_with(shared, "few params") == written(
            FLUX, FLUX_BINDINGS, positive="few params", seed=1
        )
        assert (shown["Seed"], shown["Steps"]) == ("1", str(FLUX["17"]["inputs"]["steps"]))
        result = result_of(shared, person)
        person.press(result, AGAIN).wait_shown(lambda m: "Queued!" in m["content"])
        result_of(shared, person, 2)


def test_bindings_that_lose_a_param_while_a_form_is_open_do_not_get_it(shared: House) -> None:
    person = shared.discord.person()
    few = {param: FLUX_BINDINGS[param] for param in ("positive", "model", "seed")}
    form = gen(shared, person, workflow="flux", prompt="lost params", seed="1")
    fill_in(person, form, steps="12")
    with flux_bound(shared, few):
        refresh(shared)
        generate(person, form)
        lost = "the CFG, the number of pictures, the sampler, the scheduler, the shape, the steps"
        assert f"{lost} cannot be set any more" in form_of(form)["content"]
        queued(person, form)
        shown = fields(result_of(shared, person))
        assert posted_with(shared, "lost params") == written(
            FLUX, FLUX_BINDINGS, positive="lost params", seed=1
        )
        assert list(shown) == ["Workflow", "Model", "Seed"]


def test_bindings_that_broke_while_a_form_is_open_queue_nothing_and_lose_nothing(
    shared: House,
) -> None:
    person = shared.discord.person()
    form = gen(shared, person, workflow="flux", prompt="a patient fox")
    with flux_bound(shared, {"positive": ["41.values"]}):
        answer = person.press(form_of(form), GENERATE).wait()
        message = answer.wait_message(lambda m: "Nothing was queued" in m["content"])
        assert "node 41" not in message["content"]
        shared.bots[-1].wait_for_line("node 41 of the workflow has no value for its input values")
    queued(person, form)
    result_of(shared, person)


# ---------------------------------------------------------------------------------------------
# Refusals, in the words of the params


def test_a_refused_value_is_called_by_its_param_whatever_the_input_is_called(shared: House) -> None:
    person = shared.discord.person()
    with workflow(shared, "odd", FLUX, {**FLUX_BINDINGS, "model": ["10.vae_name"]}):
        form = gen(shared, person, workflow="odd", prompt="a fox without a net")
        person.select(form_of(form), "Model", "qwen_image_vae").wait()
        shared.comfyui.offer("vae_name", VAES[:1])
        try:
            queued(person, form)
            assert failure_of(shared, person) == (
                "The model `qwen_image_vae` is not offered by ComfyUI any more. The list has"
                " been refreshed: press Edit."
            )
        finally:
            shared.settle()
            shared.comfyui.offer("vae_name", VAES)


def test_a_refused_value_of_the_files_own_sends_people_to_the_owner(shared: House) -> None:
    person = shared.discord.person()
    graph = flux_workflow("Flux/absent.safetensors")
    with workflow(shared, "old", graph, BARE_BINDINGS | {"positive": ["41.value"], "seed": []}):
        queued(person, gen(shared, person, workflow="old", prompt="a fox of old"))
        assert failure_of(shared, person) == (
            "ComfyUI does not offer the unet `absent`. Please tell the bot's owner."
        )


# ---------------------------------------------------------------------------------------------
# Starts


def test_after_a_restart_a_waiting_job_is_made_with_its_workflow_and_edit_knows_it(
    house: House,
) -> None:
    furnished(house)
    bot = house.start()
    person, other = house.discord.person(), house.discord.person()
    house.comfyui.hold()
    form = gen(house, person, workflow="bare", prompt="before the stop")
    modal = person.press(form_of(form), EDIT_PROMPTS).wait().modal
    assert modal is not None
    queued(person, form)
    queued(other, gen(house, other, workflow="flux", prompt="after the stop", seed="4"))
    bot.kill()
    house.comfyui.release()
    house.run()
    result = result_of(house, other)
    file = written(FLUX, FLUX_BINDINGS, positive="after the stop", seed=4)
    assert posted_with(house, "after the stop") == file
    edited = other.press(result, EDIT).wait()
    edited.wait_message(lambda m: bool(m["embeds"]))
    assert fields(form_of(edited))["Workflow"] == "flux"
    # A modal from before asks for less than the default workflow, whose form it becomes.
    answer = form_of(person.submit(modal, positive_prompt="typed before").wait())
    assert answer["content"].endswith("so here is a new one with what you typed.")
    assert fields(answer)["Prompt"] == "typed before"
    house.settle()


def test_with_one_workflow_alone_nobody_reads_of_workflows(house: House) -> None:
    house.start()
    person = house.discord.person()
    form = gen(house, person, prompt="alone")
    assert "Workflow" not in fields(form_of(form))
    queued(person, form)
    assert "Workflow" not in fields(result_of(house, person))


def test_check_covers_every_workflow(house: House) -> None:
    furnished(house)
    house.installation.add_workflow("broken", [], BARE_BINDINGS)
    graph = flux_workflow("Flux/absent.safetensors")
    graph["12"]["class_type"] = "UnetLoaderGGUF"
    house.installation.add_workflow("gguf", graph, FLUX_BINDINGS)
    bot = run(house, "--check", "--offline")
    assert bot.process.returncode == 0, bot.output
    lines = [line.split(maxsplit=2) for line in bot.lines]
    workflows = [(state, text) for state, area, text in lines if area == "workflow"]
    assert ("ok", "flux: all bound nodes and inputs are there") in workflows
    assert ("ok", "bare: all bound nodes and inputs are there") in workflows
    assert ("warning", "broken is left out: the workflow is not a JSON object") in workflows
    gguf = [text for state, text in workflows if state == "warning" and text.startswith("gguf is")]
    assert "left out: ComfyUI does not know UnetLoaderGGUF" in "".join(gguf)
    assert not any(state == "ok" and "gguf" in text for state, text in workflows)


def test_the_default_may_be_one_with_bindings_and_the_shipped_one_go_without_its_packs(
    house: House,
) -> None:
    furnished(house)
    loader = "Checkpoint Loader Simple Mikey"
    del house.comfyui.object_info[loader]
    bot = house.start(WORKFLOW_PATH="./workflows/flux/base.json")
    bot.wait_for_line(f"multisampler is left out: ComfyUI does not know {loader}")
    person = house.discord.person()
    choices = person.autocomplete("gen", house.channel, "workflow", "")
    assert [choice["name"] for choice in choices] == ["flux", "bare"]
    queued(person, gen(house, person, prompt="by default"))
    assert fields(result_of(house, person))["Workflow"] == "flux"


def test_a_default_whose_nodes_are_missing_refuses_the_start_and_says_so(house: House) -> None:
    furnished(house)
    del house.comfyui.object_info["UNETLoader"]
    bot = house.start(ready=False, WORKFLOW_PATH="./workflows/flux/base.json")
    assert bot.wait() == EXIT_CONFIG
    (line,) = [line for line in bot.lines if " CRITICAL " in line]
    assert "check: workflow: flux: ComfyUI does not know UNETLoader" in line


def test_once_takes_any_workflow_by_a_part_of_its_name(house: House, tmp_path: Any) -> None:
    furnished(house)
    bot = run(house, "--once", "a red fox", "--workflow", "flu", "--seed", "7", "--steps", "5",
              "--model", "schnell", "--out", str(tmp_path), offline=True)  # fmt: skip
    assert bot.process.returncode == 0, bot.output
    ((_, posted),) = house.comfyui.posted
    assert posted == written(
        FLUX, FLUX_BINDINGS, positive="a red fox", seed=7, steps=5, model=UNETS[1]
    )
    bot = run(house, "--once", "a fox", "--workflow", "bare", "--cfg", "3", offline=True)
    assert bot.process.returncode == 1
    assert "The workflow bare has no cfg to set." in bot.output
    bot = run(house, "--once", "a fox", "--workflow", "nope", offline=True)
    assert bot.process.returncode == 1
    assert "There is no workflow nope. There are: multisampler, bare, flux." in bot.output
