"""analysis.py on graphs of our own: each param, and any JSON at all."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

import pytest

from adopt.analysis import analyse
from binder import PARAMS
from comfyui.object_info import ObjectInfo
from tests.graphs import (
    PLAIN,
    Nodes,
    custom,
    doubted,
    entries,
    found,
    from_picture,
    node,
    plain,
    refused,
    sampler,
    two_stages,
)


def test_a_plain_workflow_is_understood_and_nothing_of_it_is_in_doubt() -> None:
    adoption = analyse(plain())
    assert adoption.bindings == PLAIN
    assert (adoption.not_sure, adoption.refused) == ({}, None)
    assert tuple(finding.param for finding in adoption.findings) == PARAMS
    positive = adoption.findings[1]
    assert positive.why == "text of CLIPTextEncode pos, which KSampler sampler takes as positive"


@pytest.mark.parametrize(
    "wrapped",
    [
        {"prompt": plain()},
        {"input": {"workflow": plain()}},
        {"output": plain(), "workflow": {"nodes": [], "links": []}},
        {**plain(), "_comment": "mine", "version": 3, "extra": {"a": 1}},
    ],
    ids=["prompt", "input", "page beside it", "keys beside it"],
)
def test_what_stands_around_the_nodes_is_taken_off(wrapped: object) -> None:
    adoption = analyse(wrapped)
    assert adoption.bindings == PLAIN
    assert adoption.workflow == plain()


def test_nothing_given_is_modified() -> None:
    document = {"prompt": plain(), "extra": 1}
    before = copy.deepcopy(document)
    analyse(document)
    assert document == before


def test_ids_may_hold_colons() -> None:
    text = json.dumps(plain()).replace('"sampler"', '"57:3"').replace('"empty"', '"57:13"')
    assert entries(analyse(json.loads(text)), "seed", "width") == {
        "seed": ["57:3.seed"],
        "width": ["57:13.width"],
    }


# Loaders, pipes, and samplers that are not KSampler.


def test_a_loader_with_everything_in_it_is_bound() -> None:
    loader = node(
        "Efficient Loader",
        ckpt_name="a.safetensors",
        vae_name="Baked VAE",
        lora_name="None",
        positive="a fox",
        negative="dull",
        token_normalization="none",
        empty_latent_width=512,
        empty_latent_height=768,
        batch_size=1,
    )
    nodes = {
        "loader": loader,
        "sampler": sampler(
            "KSampler (Efficient)",
            positive="loader@1",
            negative="loader@2",
            latent_image="loader@3",
            preview_method="auto",
            vae_decode="true",
        ),
        "save": node("SaveImage", images="sampler@5", filename_prefix="fox"),
    }
    assert analyse(nodes).bindings == {
        **PLAIN,
        "positive": ["loader.positive"],
        "negative": ["loader.negative"],
        "width": ["loader.empty_latent_width"],
        "height": ["loader.empty_latent_height"],
        "batch": ["loader.batch_size"],
        "length": [],
        "image": [],
    }
    assert analyse(nodes).not_sure == {}


def test_a_pipe_is_followed_to_what_it_carries() -> None:
    nodes = {
        "loader": node(
            "easy fullLoader",
            ckpt_name="a.safetensors",
            resolution="custom x custom",
            empty_latent_width=512,
            empty_latent_height=768,
            positive="a fox",
            negative="dull",
            batch_size=1,
        ),
        "sampler": node(
            "easy preSampling",
            pipe="loader@0",
            seed=5,
            steps=20,
            cfg=7,
            sampler_name="euler",
            scheduler="normal",
            denoise=1,
        ),
        "run": node("easy kSampler", pipe="sampler@0", image_output="Preview", save_prefix="x"),
        "save": node("SaveImage", images="run@1", filename_prefix="fox"),
    }
    assert analyse(nodes).bindings == {
        **PLAIN,
        "positive": ["loader.positive"],
        "negative": ["loader.negative"],
        "width": ["loader.empty_latent_width"],
        "height": ["loader.empty_latent_height"],
        "batch": ["loader.batch_size"],
        "length": [],
        "image": [],
    }


def test_a_pipe_that_is_packed_from_plain_nodes_is_followed() -> None:
    nodes = plain(
        pipe=node("ToBasicPipe", model="loader@0", clip="loader@1", vae="loader@2",
                  positive="pos@0", negative="neg@0"),
        sampler=sampler("ImpactKSamplerBasicPipe", model=None, positive=None, negative=None,
                        basic_pipe="pipe@0"),
    )  # fmt: skip
    assert analyse(nodes).bindings == PLAIN


def test_an_sdxl_tuple_is_followed() -> None:
    nodes = plain(
        tuple=node("Pack SDXL Tuple", base_model="loader@0", base_clip="loader@1",
                   base_positive="pos@0", base_negative="neg@0"),
        sampler=sampler("KSampler SDXL (Eff.)", model=None, positive=None, negative=None,
                        sdxl_tuple="tuple@0"),
    )  # fmt: skip
    assert analyse(nodes).bindings == PLAIN


def test_the_nodes_of_a_custom_sampler_are_bound_and_the_guidance_is_the_cfg() -> None:
    adoption = analyse(custom())
    assert adoption.not_sure == {}
    assert adoption.bindings == {
        "model": ["unet.unet_name"],
        "positive": ["pos.text"],
        "negative": [],
        "sampler": ["select.sampler_name"],
        "scheduler": ["sigmas.scheduler"],
        "steps": ["sigmas.steps"],
        "cfg": ["guidance.guidance"],
        "seed": ["noise.noise_seed"],
        "width": ["empty.width"],
        "height": ["empty.height"],
        "batch": ["empty.batch_size"],
        "length": [],
        "image": [],
    }


def test_a_guider_with_a_real_cfg_has_both_texts() -> None:
    nodes = custom(
        guider=node("CFGGuider", model="shift@0", positive="pos@0", negative="neg@0", cfg=5.0),
        neg=node("CLIPTextEncode", text="blurry", clip="clips@0"),
    )
    assert found(nodes, "cfg") == ["guider.cfg"]
    assert found(nodes, "negative") == ["neg.text"]


def test_where_cfg_is_off_the_guidance_is_bound_and_no_negative() -> None:
    nodes = plain(
        sampler=sampler(cfg=1.0, positive="guidance@0"),
        guidance=node("FluxGuidance", guidance=3.5, conditioning="pos@0"),
    )
    assert found(nodes, "cfg") == ["guidance.guidance"]
    assert found(nodes, "negative") == []
    nodes["sampler"]["inputs"]["cfg"] = 1.5
    assert found(nodes, "negative") == ["neg.text"]
    assert analyse(nodes).bindings["cfg"] == ["sampler.cfg"]
    assert doubted(nodes, "cfg") == ["sampler.cfg", "guidance.guidance"]


def test_a_scheduler_without_a_name_leaves_the_param_empty() -> None:
    nodes = custom(sigmas=node("Flux2Scheduler", steps=20, width=1024, height=1024))
    assert found(nodes, "scheduler") == []
    assert found(nodes, "steps") == ["sigmas.steps"]


def test_a_sampler_without_a_name_leaves_the_param_empty() -> None:
    nodes = custom(select=node("SamplerDPMPP_2M_SDE", solver_type="midpoint", eta=1.0, s_noise=1.0))
    assert found(nodes, "sampler") == []


def test_a_schedule_from_elsewhere_has_the_steps_and_the_owner_is_told() -> None:
    nodes = plain(
        sampler=sampler("ClownsharKSampler_Beta", sigmas="sigmas@0"),
        sigmas=node("BetaSamplingScheduler", model="loader@0", steps=20, alpha=0.4, beta=0.4),
    )
    assert analyse(nodes).bindings["steps"] == ["sigmas.steps"]
    assert doubted(nodes, "steps") == ["sigmas.steps", "sampler.steps"]
    assert doubted(nodes, "scheduler") == ["sampler.scheduler"]


def test_a_sampler_that_is_wrapped_is_found() -> None:
    nodes = custom(
        sampler=node("SamplerCustomAdvanced", noise="noise@0", guider="guider@0",
                     sampler="detail@0", sigmas="split@1", latent_image="empty@0"),
        detail=node("DetailDaemonSamplerNode", sampler="select@0", detail_amount=0.2, start=0.2),
        split=node("SplitSigmas", sigmas="sigmas@0", step=0),
    )  # fmt: skip
    assert found(nodes, "sampler") == ["select.sampler_name"]
    assert found(nodes, "scheduler") == ["sigmas.scheduler"]


def test_an_all_in_one_node_is_bound_by_the_names_of_its_inputs() -> None:
    nodes = {
        "all": node("SomethingGenerate", prompt="a fox", negative_prompt="dull", width=512,
                    height=768, num_inference_steps=30, guidance_scale=4.5, seed=5,
                    num_images=1, model_name="a.safetensors"),
        "save": node("SaveImage", images="all@0", filename_prefix="fox"),
    }  # fmt: skip
    assert analyse(nodes).bindings == {
        "model": ["all.model_name"],
        "positive": ["all.prompt"],
        "negative": ["all.negative_prompt"],
        "sampler": [],
        "scheduler": [],
        "steps": ["all.num_inference_steps"],
        "cfg": ["all.guidance_scale"],
        "seed": ["all.seed"],
        "width": ["all.width"],
        "height": ["all.height"],
        "batch": ["all.num_images"],
        "length": [],
        "image": [],
    }


# Any JSON.


def mutations(seed: int) -> Iterator[object]:
    """Workflows in which something, anywhere, is something else."""
    rng = random.Random(seed)
    odd: list[Any] = [None, True, -1, 1e400, "", "x", [], {}, ["sampler", 0], ["nowhere", 0],
                      ["sampler"], [["a"], 0], ["sampler", "0"], [1, 2, 3], {"a": []},
                      ["sampler", float("nan")], ["sampler", 2**70], ["sampler", -1]]  # fmt: skip
    for base in (plain(), custom(), two_stages(), from_picture()):
        for _ in range(60):
            document: Any = copy.deepcopy(base)
            for _ in range(rng.randint(1, 6)):
                target: Any = document
                while isinstance(target, dict) and target and rng.random() < 0.75:
                    key = rng.choice(list(target))
                    if not isinstance(target[key], dict) or not target[key]:
                        break
                    target = target[key]
                if isinstance(target, dict) and target:
                    key = rng.choice(list(target))
                    target[key] = rng.choice([*odd, [rng.choice(list(base)), rng.randint(0, 3)]])
            yield document


@pytest.mark.parametrize("seed", range(3))
def test_any_json_is_answered(seed: int) -> None:
    for document in mutations(seed):
        adoption = analyse(document)
        assert set(adoption.bindings) == set(PARAMS)
        for entry in (entry for param in PARAMS for entry in adoption.bindings[param]):
            node_id, name = entry.split(".", 1)
            assert not isinstance(adoption.workflow[node_id]["inputs"][name], list)


@pytest.mark.parametrize("document", [None, 1, "x", [], [{}], {"prompt": None}, {"1": None}])
def test_what_is_no_workflow_is_refused(document: object) -> None:
    assert analyse(document).refused is not None


def test_nodes_in_a_circle_are_refused() -> None:
    assert refused(plain(sampler=sampler(latent_image="decode@0")))


def test_thousands_of_nodes_are_no_problem() -> None:
    chain = {
        f"lora{i}": node("LoraLoaderModelOnly", model=f"lora{i + 1}@0", lora_name="x", strength=1)
        for i in range(3000)
    }
    chain["lora3000"] = node("UNETLoader", unet_name="a.safetensors")
    texts = {f"text{i}": node("Reroute", value=f"text{i + 1}@0") for i in range(3000)}
    nodes = plain(
        sampler=sampler(model="lora0@0"),
        pos=node("CLIPTextEncode", text="text0@0", clip="loader@1"),
        **chain,
        **texts,
    )
    analyse(nodes)


# With what the server declares.


def declared(**classes: dict[str, Any]) -> ObjectInfo:
    return ObjectInfo(classes)


def test_the_server_says_which_texts_are_choices_from_a_list() -> None:
    inputs = {"required": {"text": ["STRING", {}], "prompt_kind": [["a", "b"], {}]}}
    info = declared(Encode={"input": inputs, "output": ["CONDITIONING"]})
    nodes = plain(pos=node("Encode", text="a fox", prompt_kind="a", clip="loader@1"))
    assert analyse(nodes, info).bindings["positive"] == ["pos.text"]


def test_the_server_says_at_which_slots_both_kinds_of_conditioning_are() -> None:
    info = declared(Both={"output": ["MODEL", "CONDITIONING", "CONDITIONING"]})
    nodes = plain(
        both=node("Both", model="loader@0", positive="pos@0", negative="neg@0"),
        sampler=sampler(positive="both@2", negative="other@0"),
        other=node("CLIPTextEncode", text="dull", clip="loader@1"),
    )
    adoption = analyse(nodes, info)
    assert adoption.bindings["positive"] == ["neg.text"]
    assert adoption.bindings["negative"] == ["other.text"]


def test_the_server_says_what_is_no_output() -> None:
    info = declared(ExportSettings={"output_node": False})
    nodes = plain(save=node("ExportSettings", images="decode@0", path="x"))
    assert analyse(nodes).refused is None
    assert "saves no picture" in str(analyse(nodes, info).refused)


# What is right by chance only is in doubt.


def test_a_number_that_a_node_calculates_with_is_in_doubt() -> None:
    double = node("MathExpression", expression="a * 2", a=10)
    assert doubted(plain(sampler=sampler(steps="double@0"), double=double), "steps")


def test_the_models_of_two_stages_that_are_no_refiner_are_in_doubt() -> None:
    nodes = two_stages(refiner=node("UNETLoader", unet_name="low_noise.safetensors"))
    assert analyse(nodes).bindings["model"] == ["loader.ckpt_name"]
    assert doubted(nodes, "model") == ["loader.ckpt_name", "refiner.unet_name"]


def test_stages_with_different_texts_are_in_doubt() -> None:
    nodes = two_stages(pos2=node("CLIPTextEncode", text="fur, whiskers", clip="refiner@1"))
    assert analyse(nodes).bindings["positive"] == ["pos.text", "pos2.text"]
    assert doubted(nodes, "positive") == ["pos.text", "pos2.text"]
    nodes["pos2"]["inputs"]["text"] = ""
    assert doubted(nodes, "positive") == ["pos.text", "pos2.text"]


def test_tags_beside_the_prompt_are_in_doubt() -> None:
    nodes = plain(
        pos=node("CLIPTextEncode", text="tipo@0", clip="loader@1"),
        tipo=node("TIPO", tags="1girl, solo", nl_prompt="", ban_tags="text", seed=5),
    )
    assert sorted(doubted(nodes, "positive")) == ["tipo.nl_prompt", "tipo.tags"]


def test_a_latent_from_a_file_is_no_empty_one() -> None:
    nodes = plain(empty=node("LoadLatent", latent="mine.latent"))
    assert "works on the picture of LoadLatent empty" in refused(nodes)


def test_texts_that_are_joined_over_and_over_are_no_problem() -> None:
    joined = {
        f"text{i}": node("Join", text_a=f"text{i + 1}@0", text_b=f"text{i + 1}@0")
        for i in range(60)
    }
    joined["text60"] = node("String", string="a red fox")
    merged = {
        f"model{i}": node("Merge", model1=f"model{i + 1}@0", model2=f"model{i + 1}@0")
        for i in range(60)
    }
    merged["model60"] = node("UNETLoader", unet_name="a.safetensors")
    pos = node("CLIPTextEncode", text="text0@0", clip="loader@1")
    nodes = plain(pos=pos, sampler=sampler(model="model0@0"), **joined, **merged)
    assert found(nodes, "positive") == ["text60.string"]
    assert found(nodes, "model") == ["model60.unet_name"]


def test_texts_that_are_joined_in_a_circle_are_no_problem() -> None:
    nodes = plain(
        pos=node("CLIPTextEncode", text="a@0", clip="loader@1"),
        a=node("Join", text_a="b@0", text_b="b@0", text_c="mine@0"),
        b=node("Join", text_a="a@0", text_b="a@0"),
        mine=node("String", string="a red fox"),
    )
    assert found(nodes, "positive") == ["mine.string"]


def test_the_server_says_which_input_is_a_text_whatever_its_name() -> None:
    inputs = {"required": {"was_du_willst": ["STRING", {"multiline": True}]}}
    info = declared(Schreiber={"input": inputs, "output": ["CONDITIONING"]})
    nodes = plain(pos=node("Schreiber", was_du_willst="a fox", clip="loader@1"))
    adoption = analyse(nodes, info)
    assert adoption.bindings["positive"] == ["pos.was_du_willst"]
    assert adoption.not_sure == {}


@pytest.mark.parametrize("param", ["model_negative", "model2", "low_noise_model"])
def test_a_second_model_that_the_guider_takes_is_in_doubt(param: str) -> None:
    nodes = custom(
        guider=node("DualModelGuider", model="shift@0", positive="pos@0", cfg=7.0,
                    **{param: "unet2@0"}),
        unet2=node("UNETLoader", unet_name="unconditional.safetensors", weight_dtype="default"),
    )  # fmt: skip
    assert analyse(nodes).bindings["model"] == ["unet.unet_name"]
    assert doubted(nodes, "model") == ["unet.unet_name", "unet2.unet_name"]


def test_a_model_of_its_own_in_a_later_pass_is_in_doubt_unless_it_is_a_refiner() -> None:
    def nodes(name: str) -> Nodes:
        return plain(
            second=sampler(latent_image="sampler@0", model="other@0", denoise=0.5),
            other=node("CheckpointLoaderSimple", ckpt_name=name),
            decode=node("VAEDecode", samples="second@0", vae="loader@2"),
        )

    assert doubted(nodes("b.safetensors"), "model") == ["loader.ckpt_name", "other.ckpt_name"]
    assert found(nodes("xl_refiner.safetensors"), "model") == ["loader.ckpt_name"]


def test_two_inputs_of_a_node_for_the_same_thing_are_in_doubt() -> None:
    nodes = plain(sampler=sampler(guidance_scale=3.5))
    assert analyse(nodes).bindings["cfg"] == ["sampler.cfg"]
    assert doubted(nodes, "cfg") == ["sampler.cfg", "sampler.guidance_scale"]


def test_a_negative_that_holds_no_text_that_could_be_found_is_in_doubt() -> None:
    nodes = plain(neg=node("LoadConditioning", file="kept.pt"))
    assert analyse(nodes).bindings["negative"] == []
    assert doubted(nodes, "negative") == ["sampler.negative"]


def test_a_model_that_nobody_finds_is_in_doubt() -> None:
    nodes = plain(sampler=sampler(model="odd@0"), odd=node("ModelOfTheDay", day=3))
    assert doubted(nodes, "model") == ["sampler.model"]
