"""--adopt: an exported workflow becomes one that /gen drives, as an owner does it."""

from __future__ import annotations

import copy
import json
import os
import re
import select
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from binder import PARAMS
from tests.end_to_end.common import result_of
from tests.harness.bot import SETTINGS, Bot
from tests.harness.forks import ForkServer
from tests.harness.house import House
from tests.harness.steps import fields, queued
from tests.standins.comfyui import execution
from tests.standins.comfyui.media import webm
from tests.standins.comfyui.nodes import MODELS, flux_workflow, simple_workflow
from tests.standins.comfyui.server import ComfyUIStandIn
from tests.standins.discord.server import DiscordStandIn

Graph = dict[str, Any]

SIMPLE = {
    "model": ["4.ckpt_name"],
    "positive": ["6.text"],
    "negative": ["7.text"],
    "sampler": ["3.sampler_name"],
    "scheduler": ["3.scheduler"],
    "steps": ["3.steps"],
    "cfg": ["3.cfg"],
    "seed": ["3.seed"],
    "width": ["5.width"],
    "height": ["5.height"],
    "batch": ["5.batch_size"],
    "length": [],
    "image": [],
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, forks: ForkServer | None) -> Iterator[House]:
    """An installation beside a ComfyUI, without a bot."""
    with DiscordStandIn() as discord, ComfyUIStandIn() as comfyui:
        house = House(tmp_path_factory.mktemp("house") / "comfygen", discord, comfyui, forks)
        yield house
        house.check()


@pytest.fixture
def owner(home: House) -> Iterator[House]:
    """The same, with the workflows as they were at first."""
    folder = home.installation.folder / "workflows"
    home.comfyui.posted.clear()
    yield home
    for path in folder.iterdir():
        if path.name != "multisampler":
            shutil.rmtree(path)


def export(house: House, document: object, name: str = "fox.json") -> str:
    """A file as ComfyUI's page saves it; its path."""
    path = house.installation.folder.parent / name
    path.write_text(document if isinstance(document, str) else json.dumps(document), "utf-8")
    return str(path)


def comfygen(house: House, *arguments: str, **changes: str) -> Bot:
    """`python comfygen.py` with these arguments, to its end, without a token for Discord."""
    house.installation.configure({"COMFY_BASE_URL": house.comfyui.url, **changes})
    bot = house.run(ready=False, offline=True, arguments=arguments)
    bot.wait(60)
    return bot


def workflows_of(house: House) -> list[str]:
    return sorted(path.name for path in (house.installation.folder / "workflows").iterdir())


def written(house: House, name: str) -> tuple[Any, Any]:
    """The two files of a workflow."""
    folder = house.installation.folder / "workflows" / name
    assert sorted(path.name for path in folder.iterdir()) == ["base.json", "bindings.json"]
    texts = ((folder / file).read_text("utf-8") for file in ("base.json", "bindings.json"))
    graph, bindings = map(json.loads, texts)
    return graph, bindings


def with_guidance() -> Graph:
    """A workflow with two numbers that cfg could be."""
    graph = simple_workflow()
    graph["10"] = {
        "class_type": "FluxGuidance",
        "inputs": {"conditioning": ["6", 0], "guidance": 3.5},
    }
    graph["3"]["inputs"] |= {"positive": ["10", 0], "cfg": 2}
    return graph


def in_a_subgraph(graph: Graph) -> Graph:
    """The same with ids as ComfyUI gives them inside of a subgraph."""
    ids = {node: f"57:{node}" for node in graph}
    renamed = copy.deepcopy(graph)
    for node in renamed.values():
        for name, value in node["inputs"].items():
            if isinstance(value, list):
                node["inputs"][name] = [ids[value[0]], value[1]]
    return {ids[node]: entry for node, entry in renamed.items()}


def test_what_is_sure_is_written_with_a_line_for_each_param_and_how_to_try_it(
    owner: House,
) -> None:
    bot = comfygen(owner, "--adopt", export(owner, simple_workflow(), "My fox_api.json"))
    assert bot.process.returncode == 0, bot.output
    assert written(owner, "My-fox") == (simple_workflow(), SIMPLE)
    assert [line.split()[0] for line in bot.lines[: len(PARAMS)]] == list(PARAMS)
    assert bot.lines[0] == "model      4.ckpt_name: the model that KSampler 3 samples with"
    (line,) = [line for line in bot.lines if "--once" in line]
    python = r'("[^"]*python[^"]*"|\S*python\S*)'  # quoted, if a folder has a space in its name
    once = '--once "a red fox" --workflow My-fox --out pictures'
    assert re.fullmatch(rf"  {python} \S*comfygen.py {once}", line)
    assert not any(line.startswith(("not sure", "warning")) for line in bot.lines)


def test_what_was_adopted_makes_a_picture_and_a_start_offers_it(
    house: House, tmp_path: Path
) -> None:
    """From the file to the person who uses it."""
    bot = comfygen(house, "--adopt", export(house, flux_workflow()), "--name", "Krea (dev)")
    assert bot.process.returncode == 0, bot.output
    assert '--workflow "Krea (dev)"' in bot.output
    once = ("--once", "a red fox", "--workflow", "Krea (dev)", "--out", str(tmp_path / "out"))
    bot = comfygen(house, *once)
    assert bot.process.returncode == 0, bot.output
    (picture,) = (tmp_path / "out").iterdir()
    assert picture.read_bytes() in house.comfyui.pictures.values()
    ((_, posted),) = house.comfyui.posted
    assert posted["41"]["inputs"]["value"] == "a red fox"

    house.start()
    person = house.discord.person()
    (found,) = person.autocomplete("gen", house.channel, "workflow", "krea")
    options = {"workflow": found["value"], "prompt": "a blue fox"}
    form = person.slash("gen", house.channel, **options).wait()
    queued(person, form)
    assert fields(result_of(house, person))["Workflow"] == "Krea (dev)"


def test_what_is_not_sure_is_written_too_and_names_the_candidates(owner: House) -> None:
    bot = comfygen(owner, "--adopt", export(owner, with_guidance()))
    assert bot.process.returncode == 2, bot.output
    (line,) = [line for line in bot.lines if line.startswith("not sure")]
    assert line.startswith("not sure   cfg: it could be ")
    assert "10.guidance" in line
    assert "3.cfg" in line
    assert written(owner, "fox")[1]["cfg"] in (["10.guidance"], ["3.cfg"])


def test_a_folder_is_never_overwritten(owner: House) -> None:
    assert comfygen(owner, "--adopt", export(owner, simple_workflow())).process.returncode == 0
    changed = owner.installation.folder / "workflows/fox/bindings.json"
    changed.write_text('{"positive": ["6.text"]}', "utf-8")
    for name in ("fox", "multisampler"):
        bot = comfygen(owner, "--adopt", export(owner, flux_workflow()), "--name", name)
        assert bot.process.returncode == 1
        assert f"refused: there is a workflow {name} already: give another --name" in bot.output
    assert written(owner, "fox") == (simple_workflow(), {"positive": ["6.text"]})
    assert [path.name for path in owner.installation.workflow.parent.iterdir()] == ["base.json"]


def test_a_workflow_whose_bindings_are_spoilt_can_be_adopted_anew(owner: House) -> None:
    folder = owner.installation.add_workflow("spoilt", simple_workflow())
    (folder / "bindings.json").write_text("{,", "utf-8")
    bot = comfygen(owner, "--adopt", str(folder / "base.json"), "--name", "mended")
    assert bot.process.returncode == 0, bot.output
    assert written(owner, "mended") == (simple_workflow(), SIMPLE)


def test_json_alone_is_printed_and_nothing_written(owner: House) -> None:
    before = workflows_of(owner)
    sure = comfygen(owner, "--adopt", export(owner, simple_workflow()), "--json")
    assert sure.process.returncode == 0
    assert json.loads(sure.output) == {"bindings": SIMPLE, "not_sure": {}, "refused": None}
    unsure = comfygen(owner, "--adopt", export(owner, with_guidance()), "--json")
    assert unsure.process.returncode == 2
    answer = json.loads(unsure.output)
    assert set(answer["not_sure"]) == {"cfg"}
    assert set(answer["not_sure"]["cfg"]) == {"10.guidance", "3.cfg"}
    refused = comfygen(owner, "--adopt", export(owner, {"nodes": []}), "--json")
    assert refused.process.returncode == 1
    answer = json.loads("".join(line for line in refused.lines if not line.startswith("refused:")))
    assert "Export (API)" in answer["refused"]
    assert workflows_of(owner) == before


@pytest.mark.parametrize(
    "document",
    [
        {"prompt": simple_workflow(), "client_id": "x", "extra_data": {"extra_pnginfo": {}}},
        "\ufeff" + json.dumps(simple_workflow()),
    ],
)
def test_what_stands_around_the_nodes_is_left_behind(owner: House, document: object) -> None:
    bot = comfygen(owner, "--adopt", export(owner, document))
    assert bot.process.returncode == 0, bot.output
    assert written(owner, "fox") == (simple_workflow(), SIMPLE)


def test_ids_may_hold_colons(owner: House, tmp_path: Path) -> None:
    graph = in_a_subgraph(simple_workflow())
    assert comfygen(owner, "--adopt", export(owner, graph)).process.returncode == 0
    expected = {param: [f"57:{entry}" for entry in entries] for param, entries in SIMPLE.items()}
    assert written(owner, "fox") == (graph, expected)
    once = ("--once", "a red fox", "--seed", "3", "--workflow", "fox", "--out", str(tmp_path))
    assert comfygen(owner, *once).process.returncode == 0
    ((_, posted),) = owner.comfyui.posted
    assert posted["57:6"]["inputs"]["text"] == "a red fox"
    assert posted["57:3"]["inputs"]["seed"] == 3


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ('{"nodes": [], "links": []}', "this is the format of ComfyUI's page"),
        ("[1]", "there is no node in it"),
        ({"3": simple_workflow()["3"]}, "it saves no picture"),
    ],
)
def test_a_refusal_says_why_and_what_to_do_and_writes_nothing(
    owner: House, document: object, said: str
) -> None:
    before = workflows_of(owner)
    bot = comfygen(owner, "--adopt", export(owner, document))
    assert bot.process.returncode == 1
    (line,) = bot.lines
    assert line.startswith("refused: ")
    assert said in line
    assert "export" in line.lower()
    assert workflows_of(owner) == before


def test_a_file_that_cannot_be_read_and_a_name_for_no_folder_are_refused(owner: House) -> None:
    before = workflows_of(owner)
    for path, said in (("nowhere.json", "does not exist"), (".", "cannot be read")):
        bot = comfygen(owner, "--adopt", str(owner.installation.folder / path))
        assert bot.process.returncode == 1
        assert said in bot.output
    for name in ("../fox", "con"):
        bot = comfygen(owner, "--adopt", export(owner, simple_workflow()), "--name", name)
        assert bot.process.returncode == 1
        assert "give another with --name" in bot.output
    assert workflows_of(owner) == before


def test_without_comfyui_it_is_adopted_all_the_same(owner: House) -> None:
    nowhere = "http://127.0.0.1:9"
    arguments = ("--adopt", export(owner, simple_workflow()))
    bot = comfygen(owner, *arguments, COMFY_BASE_URL=nowhere)
    assert bot.process.returncode == 0, bot.output
    assert "ComfyUI does not answer: what it has of this workflow, --check tells later" in bot.lines
    assert written(owner, "fox") == (simple_workflow(), SIMPLE)


def test_what_the_server_does_not_have_is_told_and_once_says_what_to_choose(owner: House) -> None:
    graph = flux_workflow("Flux/absent.safetensors")
    graph["17"]["inputs"]["scheduler"] = "nowhere"
    graph["10"]["inputs"]["vae_name"] = "absent.vae"
    graph["50"] = {"class_type": "ttN text", "inputs": {}}
    bot = comfygen(owner, "--adopt", export(owner, graph))
    warnings = [line for line in bot.lines if line.startswith("warning ")]
    for said in (
        "class 'ttN text' of node 50",
        "node 10, vae_name: 'absent.vae' is not offered by ComfyUI, which will refuse every job",
    ):
        assert any(said in line for line in warnings), bot.output
    assert len(warnings) == 2  # what people choose in the form may be missing
    bot = comfygen(owner, "--once", "a fox", "--workflow", "fox")
    assert bot.process.returncode == 1
    assert bot.lines == ["ComfyUI does not know ttN text: install what is missing there"]


def test_a_model_that_is_not_there_is_chosen_by_the_first_try(owner: House, tmp_path: Path) -> None:
    graph = simple_workflow("absent.safetensors")
    assert comfygen(owner, "--adopt", export(owner, graph)).process.returncode == 0
    once = ("--once", "a fox", "--workflow", "fox", "--out", str(tmp_path))
    bot = comfygen(owner, *once)
    assert bot.process.returncode == 1
    assert "Choose one with --model: " in bot.output
    assert comfygen(owner, *once, "--model", MODELS[-1]).process.returncode == 0
    ((_, posted),) = owner.comfyui.posted
    assert posted["4"]["inputs"]["ckpt_name"] == MODELS[-1]


@pytest.mark.skipif(sys.platform == "win32", reason="the shell's limit is not there")
def test_a_full_disk_leaves_no_half_of_a_folder(owner: House) -> None:
    owner.installation.configure(owner.settings)
    file, folder = export(owner, simple_workflow()), owner.installation.folder
    program = f'"{sys.executable}" comfygen.py --adopt "{file}" --name fox'
    limited = subprocess.run(
        ["bash", "-c", f"ulimit -f 1; {program}"],
        cwd=folder,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert limited.returncode == 1
    assert "cannot be written: File too large" in limited.stderr
    assert not (folder / "workflows/fox").exists()


def test_the_next_step_is_one_that_works_for_whoever_needs_sudo(
    owner: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUDO_USER", "anna")
    bot = comfygen(owner, "--adopt", export(owner, simple_workflow()))
    assert bot.wait_for_line("--once").startswith("  sudo ")


def enlarged(graph: Graph, upscaler: str = "LatentUpscale") -> Graph:
    """The same with a second pass over a latent that is enlarged to fixed numbers."""
    scale = {"upscale_method": "bislerp", "width": 768, "height": 768, "crop": "disabled"}
    graph["10"] = {"class_type": upscaler, "inputs": {**scale, "samples": ["3", 0]}}
    second = {**graph["3"]["inputs"], "seed": 2, "steps": 3, "denoise": 0.5}
    graph["11"] = {"class_type": "KSampler", "inputs": {**second, "latent_image": ["10", 0]}}
    graph["8"]["inputs"]["samples"] = ["11", 0]
    return graph


COMFYUI = pytest.mark.parametrize("comfyui", [True, False], ids=["ComfyUI", "no ComfyUI"])


def adopt(owner: House, document: object, *, comfyui: bool = True) -> Bot:
    """`--adopt` of a document, with a ComfyUI that answers or without."""
    away = {} if comfyui else {"COMFY_BASE_URL": "http://127.0.0.1:9"}
    return comfygen(owner, "--adopt", export(owner, document), **away)


def once(owner: House, folder: Path, *arguments: str) -> Graph:
    """The prompt that `--once` posts for the adopted workflow."""
    owner.comfyui.posted.clear()
    bot = comfygen(owner, "--once", "a fox", "--workflow", "fox", "--out", str(folder), *arguments)
    assert bot.process.returncode == 0, bot.output
    ((_, posted),) = owner.comfyui.posted
    return dict(posted)


@COMFYUI
def test_a_later_size_and_a_second_count_of_steps_follow(
    owner: House, tmp_path: Path, comfyui: bool
) -> None:
    bot = adopt(owner, enlarged(simple_workflow()), comfyui=comfyui)
    assert bot.process.returncode == 0, bot.output
    assert (
        "later_width 10.width: width of LatentUpscale 10: in proportion to the width" in bot.lines
    )
    posted = once(owner, tmp_path, "--shape", "wide", "--steps", "30")
    assert posted["5"]["inputs"] == {"width": 704, "height": 384, "batch_size": 1}
    assert (posted["10"]["inputs"]["width"], posted["10"]["inputs"]["height"]) == (1056, 576)
    assert posted["11"]["inputs"]["steps"] == 3
    as_in_the_file = once(owner, tmp_path)
    assert as_in_the_file["10"] == enlarged(simple_workflow())["10"]


@COMFYUI
def test_numbers_kept_as_text_are_written_as_text(
    owner: House, tmp_path: Path, comfyui: bool
) -> None:
    graph = simple_workflow()
    graph["3"]["inputs"] |= {"steps": "24", "cfg": "5.5", "seed": "7"}
    assert adopt(owner, graph, comfyui=comfyui).process.returncode == 0
    inputs = once(owner, tmp_path, "--steps", "30", "--seed", "9")["3"]["inputs"]
    assert (inputs["steps"], inputs["cfg"], inputs["seed"]) == ("30", "5.5", "9")


def test_a_node_that_refuses_an_unusual_job_is_named_with_the_param(owner: House) -> None:
    limits = owner.comfyui.object_info["EmptyLatentImage"]["input"]["required"]["width"][1]
    before = workflows_of(owner)
    usual, limits["max"] = limits["max"], 512
    try:
        bot = adopt(owner, simple_workflow())
    finally:
        limits["max"] = usual
    assert bot.process.returncode == 1
    (line,) = bot.lines
    said = "refused: width: EmptyLatentImage 5 takes at most 512 as width, and a job may"
    assert line.startswith(said)
    assert workflows_of(owner) == before
    assert adopt(owner, simple_workflow()).process.returncode == 0


def test_a_node_that_takes_few_steps_keeps_its_own_and_more_are_never_posted(
    owner: House, tmp_path: Path
) -> None:
    limits = owner.comfyui.object_info["KSampler"]["input"]["required"]["steps"][1]
    usual, limits["max"] = limits["max"], 10
    graph = simple_workflow()
    graph["3"]["inputs"]["steps"] = 4
    try:
        bot = adopt(owner, graph)
        assert bot.process.returncode == 0, bot.output
        assert once(owner, tmp_path)["3"]["inputs"]["steps"] == 4
    finally:
        limits["max"] = usual
    assert "steps      -: KSampler 3 takes at most 10: they stay as in the file" in bot.lines
    bot = comfygen(owner, "--once", "a fox", "--workflow", "fox", "--steps", "30")
    assert bot.process.returncode == 1, bot.output


def test_the_base_seed_stays_within_what_its_node_takes(owner: House, tmp_path: Path) -> None:
    limits = owner.comfyui.object_info["KSampler"]["input"]["required"]["seed"][1]
    usual, limits["max"] = limits["max"], 2**31 - 1
    try:
        assert adopt(owner, simple_workflow()).process.returncode == 0
        posted = once(owner, tmp_path, "--seed", str(2**32 - 1))
    finally:
        limits["max"] = usual
    assert posted["3"]["inputs"]["seed"] == 2**31 - 1


@COMFYUI
def test_a_preview_is_saved_and_the_owner_reads_so(
    owner: House, tmp_path: Path, comfyui: bool
) -> None:
    graph = simple_workflow()
    graph["9"] = {"class_type": "PreviewImage", "inputs": {"images": ["8", 0]}}
    bot = adopt(owner, graph, comfyui=comfyui)
    assert bot.process.returncode == 0, bot.output
    changed = (
        "changed    SaveImage now stands in the place of PreviewImage 9, which keeps no picture"
    )
    assert changed in bot.lines
    assert once(owner, tmp_path)["9"]["class_type"] == "SaveImage"


def video_workflow() -> Graph:
    graph = simple_workflow()
    graph["5"] = {
        "class_type": "EmptyHunyuanLatentVideo",
        "inputs": {"width": 848, "height": 480, "length": 25, "batch_size": 1},
    }
    save = {"images": ["8", 0], "filename_prefix": "fox", "fps": 24.0}
    graph["9"] = {"class_type": "SaveWEBM", "inputs": save}
    return graph


@COMFYUI
def test_a_video_out_of_words_is_adopted_and_made(
    owner: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, comfyui: bool
) -> None:
    made = webm(b"a fox that runs")
    monkeypatch.setattr(execution, "png_of", lambda *_: made)
    monkeypatch.setattr(owner.comfyui, "saved_as", ("images", ".webm"))
    bot = adopt(owner, video_workflow(), comfyui=comfyui)
    assert bot.process.returncode == 0, bot.output
    assert "length     5.length: length of EmptyHunyuanLatentVideo 5: so many frames" in bot.lines
    posted = once(owner, tmp_path)
    assert posted["5"]["inputs"]["length"] == 25
    (video,) = tmp_path.glob("*.webm")
    assert video.read_bytes() == made


def image_workflow() -> Graph:
    graph = simple_workflow()
    graph["5"] = {"class_type": "VAEEncode", "inputs": {"pixels": ["10", 0], "vae": ["4", 2]}}
    graph["10"] = {"class_type": "LoadImage", "inputs": {"image": "example.png"}}
    return graph


def upscaler() -> Graph:
    model = {"model_name": "2x.safetensors"}
    up = {"upscale_model": ["2", 0], "image": ["10", 0]}
    return {
        "2": {"class_type": "UpscaleModelLoader", "inputs": model},
        "3": {"class_type": "ImageUpscaleWithModel", "inputs": up},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "up"}},
        "10": {"class_type": "LoadImage", "inputs": {"image": "example.png"}},
    }


@COMFYUI
@pytest.mark.parametrize("graph", [image_workflow(), upscaler()], ids=["restyle", "upscale"])
def test_a_workflow_that_works_on_a_picture_is_adopted(
    owner: House, graph: Graph, comfyui: bool
) -> None:
    bot = adopt(owner, graph, comfyui=comfyui)
    assert bot.process.returncode == 0, bot.output
    written_graph, bindings = written(owner, "fox")
    assert (written_graph, bindings["image"]) == (graph, ["10.image"])
    assert bindings["positive"] == (["6.text"] if "6" in graph else [])
    (line,) = [line for line in bot.lines if "--once" in line]
    assert "--image photo.jpg --workflow fox" in line


@COMFYUI
def test_a_mask_to_paint_is_refused(owner: House, comfyui: bool) -> None:
    graph = image_workflow()
    graph["5"]["class_type"] = "VAEEncodeForInpaint"
    graph["5"]["inputs"]["mask"] = ["10", 1]
    bot = adopt(owner, graph, comfyui=comfyui)
    assert bot.process.returncode == 1
    assert "repaints what the mask of LoadImage 10 marks, and people can give a" in bot.output


@COMFYUI
@pytest.mark.parametrize(
    ("node", "changes", "said"),
    [
        ("9", {"class_type": "ETN_KritaOutput"}, "ETN_KritaOutput 9 hands the picture to another"),
        ("3", {"steps": "{{steps}}"}, "it has the marks {{steps}} in steps of KSampler 3; put"),
        ("4", {"ckpt_name": "%model%"}, "%model% in ckpt_name of CheckpointLoaderSimple 4"),
    ],
)
def test_what_the_bot_cannot_fetch_and_templates_are_refused(
    owner: House, node: str, changes: dict[str, str], said: str, comfyui: bool
) -> None:
    graph = simple_workflow()
    graph[node]["class_type"] = changes.get("class_type", graph[node]["class_type"])
    graph[node]["inputs"].update(changes)
    before = workflows_of(owner)
    bot = adopt(owner, graph, comfyui=comfyui)
    assert bot.process.returncode == 1
    assert said in bot.output
    assert workflows_of(owner) == before


@COMFYUI
def test_flux_with_a_cfg_of_1_is_no_question_and_has_no_negative(
    owner: House, comfyui: bool
) -> None:
    graph = with_guidance()
    graph["3"]["inputs"]["cfg"] = 1
    bot = adopt(owner, graph, comfyui=comfyui)
    assert bot.process.returncode == 0, bot.output
    bindings = written(owner, "fox")[1]
    assert (bindings["cfg"], bindings["negative"]) == (["10.guidance"], [])


@COMFYUI
def test_passes_between_which_the_owner_must_decide_are_one_question(
    owner: House, comfyui: bool
) -> None:
    graph = simple_workflow()
    again = {**graph["3"]["inputs"], "seed": 2, "steps": 9, "cfg": 3, "latent_image": ["3", 0]}
    graph["10"] = {"class_type": "KSampler", "inputs": again}
    graph["11"] = {"class_type": "VAEDecode", "inputs": {"samples": ["10", 0], "vae": ["4", 2]}}
    images = {"images": ["11", 0], "filename_prefix": "two"}
    graph["12"] = {"class_type": "SaveImage", "inputs": images}
    bot = adopt(owner, graph, comfyui=comfyui)
    assert bot.process.returncode == 2
    (line,) = [line for line in bot.lines if line.startswith("not sure")]
    assert line.startswith("not sure   steps, cfg, seed: it could be 3.steps, 10.steps; 3.cfg, ")


@COMFYUI
def test_an_input_is_never_written_by_two_params(
    owner: House, tmp_path: Path, comfyui: bool
) -> None:
    graph = simple_workflow()
    graph["10"] = {"class_type": "PrimitiveInt", "inputs": {"value": 12}}
    graph["3"]["inputs"] |= {"steps": ["10", 0], "seed": ["10", 0]}
    assert adopt(owner, graph, comfyui=comfyui).process.returncode == 0
    bindings = written(owner, "fox")[1]
    assert (bindings["steps"], bindings["seed"]) == (["10.value"], [])
    assert once(owner, tmp_path, "--steps", "30")["10"]["inputs"]["value"] == 30


# In a terminal.


@pytest.fixture
def pty() -> Any:
    """Python's pseudo-terminals; there are none on Windows."""
    return pytest.importorskip("pty")


def at_terminal(pty: Any, house: House, keys: str, *arguments: str) -> tuple[int, str]:
    """What `comfygen.py` says in a terminal in which somebody types these keys; its exit code."""
    house.installation.configure({"COMFY_BASE_URL": house.comfyui.url})
    mine, its = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    folder = house.installation.folder
    command = [sys.executable, str(folder / "comfygen.py"), *arguments]
    process = subprocess.Popen(
        command, stdin=its, stdout=its, stderr=its, cwd=folder, env=environment
    )
    os.write(mine, keys.encode())
    screen = b""
    while process.poll() is None or select.select([mine], [], [], 0)[0]:
        if select.select([mine], [], [], 0.05)[0]:
            screen += os.read(mine, 4096)
    os.close(its)
    os.close(mine)
    return process.wait(30), screen.decode("utf-8", "replace").replace("\r\n", "\n")


@pytest.mark.parametrize(
    ("keys", "cfg"),
    [
        ("\n", ["3.cfg"]),
        ("7\n2\n", ["10.guidance"]),
        ("3\n", []),
    ],
    ids=["the guess", "the other, after a slip", "none"],
)
def test_in_a_terminal_the_owner_answers_by_number(
    owner: House, pty: Any, keys: str, cfg: list[str]
) -> None:
    code, screen = at_terminal(pty, owner, keys, "--adopt", export(owner, with_guidance()))
    assert code == 0, screen
    assert "1  cfg of KSampler 3: 2\n" in screen
    assert "2  guidance of FluxGuidance 10: 3.5\n" in screen
    assert "3  none of them\n" in screen
    assert ("Please type a number from 1 to 3." in screen) == keys.startswith("7")
    assert written(owner, "fox")[1]["cfg"] == cfg
    assert "not sure" not in screen
    assert screen.index("Number, or Enter for 1:") < screen.index("--once")


def test_with_yes_nothing_is_asked_in_a_terminal(owner: House, pty: Any) -> None:
    file = export(owner, with_guidance())
    code, screen = at_terminal(pty, owner, "", "--adopt", file, "--yes")
    assert code == 2, screen
    assert "not sure   cfg" in screen
    assert written(owner, "fox")[1]["cfg"] == ["3.cfg"]


def test_passes_between_which_the_owner_must_decide_are_chosen_at_once(
    owner: House, pty: Any
) -> None:
    graph = enlarged(simple_workflow())
    graph["11"]["inputs"] |= {"denoise": 1}
    code, screen = at_terminal(pty, owner, "2\n", "--adopt", export(owner, graph))
    assert code == 0, screen
    bindings = written(owner, "fox")[1]
    chosen = [bindings[param] for param in ("steps", "cfg", "seed")]
    assert chosen == [["11.steps"], ["11.cfg"], ["11.seed"]]
