"""roles.py on graphs of our own: each rule of what goes where, and what cannot be driven."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from binder import ROLES
from object_info import ObjectInfo
from roles import Adoption, analyse, analyse_file

Nodes = dict[str, dict[str, Any]]


def node(class_type: str, title: str = "", **inputs: Any) -> dict[str, Any]:
    """A node; an input given as "id@slot" is a link."""
    linked = {name: _link(value) for name, value in inputs.items()}
    return {
        "class_type": class_type,
        "inputs": linked,
        **({"_meta": {"title": title}} if title else {}),
    }


def _link(value: Any) -> Any:
    if isinstance(value, str) and "@" in value:
        source, slot = value.split("@")
        return [source, int(slot)]
    return value


def plain(**changed: dict[str, Any] | None) -> Nodes:
    """A plain text-to-image workflow, by names: those of `changed` replaced, added or taken out."""
    nodes: dict[str, dict[str, Any] | None] = {
        "loader": node("CheckpointLoaderSimple", ckpt_name="a.safetensors"),
        "empty": node("EmptyLatentImage", width=512, height=768, batch_size=1),
        "pos": node("CLIPTextEncode", text="a red fox in the snow", clip="loader@1"),
        "neg": node("CLIPTextEncode", text="blurry", clip="loader@1"),
        "sampler": sampler(),
        "decode": node("VAEDecode", samples="sampler@0", vae="loader@2"),
        "save": node("SaveImage", images="decode@0", filename_prefix="fox"),
    }
    nodes.update(changed)
    return {name: entry for name, entry in nodes.items() if entry is not None}


def sampler(class_type: str = "KSampler", **changed: Any) -> dict[str, Any]:
    inputs: dict[str, Any] = {
        "model": "loader@0",
        "positive": "pos@0",
        "negative": "neg@0",
        "latent_image": "empty@0",
        "seed": 5,
        "steps": 20,
        "cfg": 7.5,
        "sampler_name": "euler",
        "scheduler": "normal",
        "denoise": 1,
    }
    inputs.update(changed)
    return node(class_type, **{name: value for name, value in inputs.items() if value is not None})


def custom(**changed: dict[str, Any] | None) -> Nodes:
    """The workflow that Flux is used with: everything in a node of its own."""
    nodes: dict[str, dict[str, Any] | None] = {
        "loader": None,
        "neg": None,
        "unet": node("UNETLoader", unet_name="flux.safetensors", weight_dtype="default"),
        "clips": node("DualCLIPLoader", clip_name1="t5.safetensors", clip_name2="l.safetensors"),
        "pos": node("CLIPTextEncode", text="a red fox in the snow", clip="clips@0"),
        "guidance": node("FluxGuidance", guidance=3.5, conditioning="pos@0"),
        "guider": node("BasicGuider", model="shift@0", conditioning="guidance@0"),
        "shift": node("ModelSamplingFlux", model="unet@0", max_shift=1.15, width=1024, height=1024),
        "noise": node("RandomNoise", noise_seed=9),
        "select": node("KSamplerSelect", sampler_name="euler"),
        "sigmas": node("BasicScheduler", model="shift@0", scheduler="simple", steps=25, denoise=1),
        "sampler": node(
            "SamplerCustomAdvanced",
            noise="noise@0",
            guider="guider@0",
            sampler="select@0",
            sigmas="sigmas@0",
            latent_image="empty@0",
        ),
    }
    nodes.update(changed)
    return plain(**nodes)


def entries(adoption: Adoption, *roles: str) -> dict[str, list[str]]:
    assert adoption.refused is None, adoption.refused
    return {role: adoption.bindings[role] for role in roles}


def found(document: object, role: str) -> list[str]:
    """What is found for a role, and for sure."""
    adoption = analyse(document)
    assert adoption.refused is None, adoption.refused
    assert role not in adoption.not_sure, adoption.not_sure
    return adoption.bindings[role]


def doubted(document: object, role: str) -> list[str]:
    adoption = analyse(document)
    assert adoption.refused is None, adoption.refused
    return adoption.not_sure.get(role, [])


def refused(document: object) -> str:
    reason = analyse(document).refused
    assert reason is not None, analyse(document).bindings
    return reason


PLAIN = {
    "model": ["loader.ckpt_name"],
    "positive": ["pos.text"],
    "negative": ["neg.text"],
    "sampler": ["sampler.sampler_name"],
    "scheduler": ["sampler.scheduler"],
    "steps": ["sampler.steps"],
    "cfg": ["sampler.cfg"],
    "seed": ["sampler.seed"],
    "width": ["empty.width"],
    "height": ["empty.height"],
    "batch": ["empty.batch_size"],
}


def test_a_plain_workflow_is_understood_and_nothing_of_it_is_in_doubt() -> None:
    adoption = analyse(plain())
    assert adoption.bindings == PLAIN
    assert (adoption.not_sure, adoption.refused) == ({}, None)
    assert tuple(finding.role for finding in adoption.findings) == ROLES
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


# What reaches an output.


def test_a_decoy_that_reaches_no_output_is_not_bound_whatever_its_title() -> None:
    decoy = node("CLIPTextEncode", "POSITIVE PROMPT", text="{prompt}", clip="loader@1")
    nodes = {"decoy": decoy, "other": sampler(positive="decoy@0"), **plain()}
    assert analyse(nodes).bindings == PLAIN


def test_text_that_a_saving_node_writes_into_the_file_is_no_prompt() -> None:
    save = node(
        "Image Saver",
        images="decode@0",
        filename="fox",
        positive="a text for the file",
        seed_value="sampler@0",
        steps=99,
        sampler_name="euler",
    )
    assert analyse(plain(save=save)).bindings == PLAIN


def test_a_node_that_only_tells_the_saving_node_about_the_picture_is_no_pass() -> None:
    about = node("Metadata", positive="pos@0", sampler_name="ddim", scheduler="simple", steps=3)
    save = node("SaveImageExtended", images="decode@0", metadata="about@0", filename_prefix="x")
    assert analyse(plain(about=about, save=save)).bindings == PLAIN


def test_a_node_that_shows_and_saves_saves() -> None:
    save = node("PreviewAndStore", images="decode@0", filename_prefix="x")
    assert analyse(plain(save=save)).bindings == PLAIN


# The text.


def test_the_text_is_where_the_encoder_takes_it_from() -> None:
    nodes = plain(
        pos=node("CLIPTextEncode", text="show@0", clip="loader@1"),
        show=node("ShowText|pysssss", text="mine@0", text_0="what was shown last"),
        mine=node("PrimitiveStringMultiline", value="a red fox"),
    )
    assert found(nodes, "positive") == ["mine.value"]


def test_the_text_encoder_itself_is_no_text() -> None:
    nodes = plain(
        pos=node("T5TextEncode", text="mine@0", T5="t5@0"),
        t5=node("T5Loader", t5_name="t5.safetensors", t5_ver="xxl"),
        mine=node("CR Text", text="a red fox"),
    )
    assert found(nodes, "positive") == ["mine.text"]


def test_fixed_text_beside_the_prompt_stays() -> None:
    nodes = plain(
        pos=node("CLIPTextEncode", text="join@0", clip="loader@1"),
        join=node(
            "StringConcatenate",
            string_a="mine@0",
            string_b="masterpiece, best quality, highly detailed, 8k",
            delimiter=", ",
        ),
        mine=node("String Literal", "Prompt", string="a red fox in the snow at night"),
    )
    assert found(nodes, "positive") == ["mine.string"]


def test_words_of_praise_are_not_the_prompt_wherever_they_stand() -> None:
    nodes = plain(
        pos=node("CLIPTextEncode", text="join@0", clip="loader@1"),
        join=node("Text Concatenate", text_a="a@0", text_b="b@0", delimiter=" "),
        a=node("Text Multiline", text="masterpiece, best quality, highly detailed, sharp focus"),
        b=node("Text Multiline", text="a red fox in the snow"),
    )
    assert found(nodes, "positive") == ["b.text"]


def test_a_node_with_several_texts_gives_them_by_slot() -> None:
    nodes = plain(
        texts=node("Text String", text="a red fox", text_b="a blue fox", text_c="a green fox"),
        pos=node("CLIPTextEncode", text="texts@1", clip="loader@1"),
        neg=node("CLIPTextEncode", text="texts@2", clip="loader@1"),
    )
    assert found(nodes, "positive") == ["texts.text_b"]
    assert found(nodes, "negative") == ["texts.text_c"]


def test_a_node_made_for_the_other_kind_of_text_may_hold_this_one() -> None:
    nodes = plain(
        neg=node("CLIPTextEncode", text="mine@0", clip="loader@1"),
        mine=node("easy positive", positive="dull, blurry"),
    )
    assert found(nodes, "negative") == ["mine.positive"]


def test_an_empty_text_under_the_title_of_the_prompt_is_the_prompt() -> None:
    nodes = plain(
        neg=node("ConcatConditionings", conditioning1="mine@0", conditioning2="fixed@0"),
        mine=node("CLIPTextEncode", "NEGATIVE PROMPT", text="", clip="loader@1"),
        fixed=node("CLIPTextEncode", "NEGATIVE CONSTANT", text="ugly hands", clip="loader@1"),
    )
    assert found(nodes, "negative") == ["mine.text"]


def test_an_empty_text_beside_a_full_one_is_not_the_prompt() -> None:
    nodes = plain(
        pos=node("CLIPTextEncode", text="join@0", clip="loader@1"),
        join=node("CR Text Concatenate", text1="a soldier on the field", text2="style@0"),
        style=node("SDXLPromptStyler", "SDXL Prompt Styler", text_positive="", text_negative="",
                   style="photograph"),
    )  # fmt: skip
    assert found(nodes, "positive") == ["join.text1"]


def test_a_placeholder_says_which_text_is_the_persons() -> None:
    nodes = plain(
        pos=node("CLIPTextEncode", text="join@0", clip="loader@1"),
        join=node("Text Concatenate", text_a="a@0", text_b="b@0", delimiter=" "),
        a=node("Text Multiline", text="a long description of the style that every picture has"),
        b=node("Text Multiline", text="{prompt}"),
    )
    assert found(nodes, "positive") == ["b.text"]


def test_two_texts_that_could_both_be_the_prompt_are_in_doubt() -> None:
    nodes = plain(
        pos=node("CLIPTextEncode", text="join@0", clip="loader@1"),
        join=node("Text Concatenate", text_a="a@0", text_b="b@0", delimiter=" "),
        a=node("Text Multiline", text="a red fox in the snow"),
        b=node("Text Multiline", text="a dark forest in the night"),
    )
    assert sorted(doubted(nodes, "positive")) == ["a.text", "b.text"]


@pytest.mark.parametrize(
    "inputs",
    [
        {"text_g": "a fox", "text_l": "a fox", "width": 1024, "target_width": 1024},
        {"clip_l": "", "t5xxl": "a fox", "guidance": 3.5},
        {"clip_l": "a fox", "clip_g": "a fox", "t5xxl": "a fox", "empty_padding": "none"},
    ],
)
def test_an_encoder_with_several_texts_gets_the_prompt_in_each(inputs: dict[str, Any]) -> None:
    encoder = node("CLIPTextEncodeMany", clip="loader@1", **inputs)
    texts = [f"pos.{name}" for name in inputs if name.split("_")[0] in ("text", "clip", "t5xxl")]
    assert found(plain(pos=encoder), "positive") == texts


def test_one_text_for_both_inputs_of_an_encoder_is_bound_once() -> None:
    nodes = plain(
        pos=node("CLIPTextEncodeSDXL", text_g="mine@0", text_l="mine@0", clip="loader@1"),
        mine=node("PrimitiveString", value="a red fox"),
    )
    assert found(nodes, "positive") == ["mine.value"]


def test_texts_of_their_own_for_the_inputs_of_an_encoder_are_in_doubt() -> None:
    nodes = plain(
        pos=node("CLIPTextEncodeSDXL", text_g="g@0", text_l="l@0", clip="loader@1"),
        g=node("PrimitiveString", value="a red fox in the snow"),
        l=node("PrimitiveString", value="oil painting"),
    )
    assert analyse(nodes).bindings["positive"] == ["g.value", "l.value"]
    assert doubted(nodes, "positive") == ["g.value", "l.value"]


def test_conditioning_is_followed_by_slot_where_both_kinds_pass_through() -> None:
    nodes = plain(
        control=node(
            "ControlNetApplyAdvanced",
            positive="pos@0",
            negative="neg@0",
            control_net="net@0",
            image="picture@0",
            strength=0.5,
        ),
        net=node("ControlNetLoader", control_net_name="net.safetensors"),
        picture=node("LoadImage", image="pose.png"),
        sampler=sampler(positive="control@1", negative="control@0"),
    )
    assert entries(analyse(nodes), "positive", "negative") == {
        "positive": ["neg.text"],
        "negative": ["pos.text"],
    }


@pytest.mark.parametrize("class_type", ["ConditioningZeroOut", "Zero Out Anything"])
def test_a_zeroed_conditioning_is_no_negative(class_type: str) -> None:
    nodes = plain(neg=node(class_type, conditioning="pos@0"))
    assert found(nodes, "negative") == []


def test_a_zeroed_text_of_its_own_is_no_negative_either() -> None:
    nodes = plain(
        neg=node("ConditioningZeroOut", conditioning="dull@0"),
        dull=node("CLIPTextEncode", text="dull", clip="loader@1"),
    )
    assert found(nodes, "negative") == []


def test_the_prompt_itself_taken_as_negative_is_no_negative() -> None:
    assert found(plain(sampler=sampler(negative="pos@0")), "negative") == []


def test_a_styler_gives_both_texts_by_slot() -> None:
    nodes = plain(
        styler=node("SDXLPromptStyler", text_positive="a fox", text_negative="dull", style="none"),
        pos=node("CLIPTextEncode", text="styler@0", clip="loader@1"),
        neg=node("CLIPTextEncode", text="styler@1", clip="loader@1"),
    )
    assert found(nodes, "positive") == ["styler.text_positive"]
    assert found(nodes, "negative") == ["styler.text_negative"]


def test_a_text_put_into_another_is_the_prompt() -> None:
    nodes = plain(
        pos=node("CLIPTextEncode", text="into@0", clip="loader@1"),
        into=node("StringReplace", string="a photo of {}, on film", find="{}", replace="mine@0"),
        mine=node("PrimitiveString", value="a red fox"),
    )
    assert found(nodes, "positive") == ["mine.value"]


def test_a_switch_lets_through_what_it_is_set_to() -> None:
    nodes = plain(
        pos=node("CLIPTextEncode", text="switch@0", clip="loader@1"),
        switch=node("ImpactSwitch", select=2, input1="a@0", input2="b@0"),
        a=node("PrimitiveString", value="a red fox"),
        b=node("PrimitiveString", value="a blue fox"),
    )
    assert found(nodes, "positive") == ["b.value"]


def test_a_switch_may_be_set_by_another_node() -> None:
    nodes = plain(
        pos=node("CLIPTextEncode", text="switch@0", clip="loader@1"),
        switch=node("ComfySwitchNode", switch="on@0", on_false="a@0", on_true="b@0"),
        on=node("PrimitiveBoolean", value=False),
        a=node("PrimitiveString", value="a red fox"),
        b=node("PrimitiveString", value="a blue fox"),
    )
    assert found(nodes, "positive") == ["a.value"]


def test_a_wildcard_node_gets_the_prompt_in_both_texts_and_the_owner_is_told() -> None:
    nodes = plain(
        pos=node("CLIPTextEncode", text="wild@0", clip="loader@1"),
        wild=node("ImpactWildcardProcessor", wildcard_text="a __cat__", populated_text="a red cat",
                  mode="populate", seed=3),
    )  # fmt: skip
    both = ["wild.wildcard_text", "wild.populated_text"]
    assert analyse(nodes).bindings["positive"] == both
    assert doubted(nodes, "positive") == both


def test_empty_texts_beside_the_text_of_an_encoder_stay_empty() -> None:
    encoder = node("Encode++", text="a fox", text_g="", text_l="", clip="loader@1")
    assert found(plain(pos=encoder), "positive") == ["pos.text"]


def test_a_text_under_a_name_that_nobody_knows_is_in_doubt() -> None:
    nodes = plain(pos=node("Editor", clip="loader@1", editor_state="[a fox]"))
    assert analyse(nodes).bindings["positive"] == ["pos.editor_state"]
    assert doubted(nodes, "positive") == ["pos.editor_state"]


@pytest.mark.parametrize(("value", "side"), [(True, "a"), (False, "b")])
def test_a_two_way_switch_is_followed_in_models_too(value: bool, side: str) -> None:
    nodes = plain(
        sampler=sampler(model="switch@0"),
        switch=node("Model Input Switch", model_a="a@0", model_b="b@0", boolean=value),
        a=node("UNETLoader", unet_name="a.safetensors"),
        b=node("UNETLoader", unet_name="b.safetensors"),
    )
    assert found(nodes, "model") == [f"{side}.unet_name"]


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
    }


def test_a_guider_with_a_real_cfg_has_both_texts() -> None:
    nodes = custom(
        guider=node("CFGGuider", model="shift@0", positive="pos@0", negative="neg@0", cfg=5.0),
        neg=node("CLIPTextEncode", text="blurry", clip="clips@0"),
    )
    assert found(nodes, "cfg") == ["guider.cfg"]
    assert found(nodes, "negative") == ["neg.text"]


def test_where_cfg_is_off_the_guidance_is_bound_and_the_owner_is_told() -> None:
    nodes = plain(
        sampler=sampler(cfg=1.0, positive="guidance@0"),
        guidance=node("FluxGuidance", guidance=3.5, conditioning="pos@0"),
    )
    assert analyse(nodes).bindings["cfg"] == ["guidance.guidance"]
    assert doubted(nodes, "cfg") == ["guidance.guidance", "sampler.cfg"]
    nodes["sampler"]["inputs"]["cfg"] = 1.5
    assert analyse(nodes).bindings["cfg"] == ["sampler.cfg"]
    assert doubted(nodes, "cfg") == ["sampler.cfg", "guidance.guidance"]


def test_a_scheduler_without_a_name_leaves_the_role_empty() -> None:
    nodes = custom(sigmas=node("Flux2Scheduler", steps=20, width=1024, height=1024))
    assert found(nodes, "scheduler") == []
    assert found(nodes, "steps") == ["sigmas.steps"]


def test_a_sampler_without_a_name_leaves_the_role_empty() -> None:
    nodes = custom(select=node("SamplerDPMPP_2M_SDE", solver_type="midpoint", eta=1.0, s_noise=1.0))
    assert found(nodes, "sampler") == []


def test_steps_beside_sigmas_that_may_overrule_them_are_in_doubt() -> None:
    nodes = plain(
        sampler=sampler("ClownsharKSampler_Beta", sigmas="sigmas@0"),
        sigmas=node("BetaSamplingScheduler", model="loader@0", steps=20, alpha=0.4, beta=0.4),
    )
    assert doubted(nodes, "steps") == ["sampler.steps"]
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
    }


# The model.


def test_the_model_is_behind_whatever_patches_it() -> None:
    nodes = plain(
        sampler=sampler(model="patch@0"),
        patch=node("ModelSamplingAuraFlow", model="lora@0", shift=3.0),
        lora=node("LoraLoader", model="loader@0", clip="loader@1", lora_name="style.safetensors",
                  strength_model=1.0, strength_clip=1.0),
    )  # fmt: skip
    assert found(nodes, "model") == ["loader.ckpt_name"]


def test_a_model_name_may_come_from_another_node() -> None:
    nodes = plain(
        loader=node("CheckpointLoaderSimple", ckpt_name="names@0"),
        names=node("CheckpointNameSelector", ckpt_name="a.safetensors"),
    )
    assert found(nodes, "model") == ["names.ckpt_name"]


def test_a_model_name_in_a_form_of_its_own_is_in_doubt() -> None:
    nodes = plain(loader=node("Loader with pictures", ckpt_name={"content": "a.safetensors"}))
    assert analyse(nodes).bindings["model"] == []
    assert doubted(nodes, "model") == ["loader.ckpt_name"]


def test_merged_models_are_in_doubt() -> None:
    nodes = plain(
        sampler=sampler(model="merge@0"),
        merge=node("ModelMergeSimple", model1="loader@0", model2="second@0", ratio=0.5),
        second=node("CheckpointLoaderSimple", ckpt_name="b.safetensors"),
    )
    assert doubted(nodes, "model") == ["loader.ckpt_name", "second.ckpt_name"]


def test_a_loader_that_a_later_pass_has_of_the_same_file_follows_and_the_owner_is_told() -> None:
    nodes = plain(
        again=node("CheckpointLoaderSimple", ckpt_name="a.safetensors"),
        up=node("LatentUpscaleBy", samples="sampler@0", upscale_method="area", scale_by=1.5),
        second=sampler(latent_image="up@0", model="again@0", denoise=0.5),
        decode=node("VAEDecode", samples="second@0", vae="loader@2"),
    )
    both = ["loader.ckpt_name", "again.ckpt_name"]
    assert analyse(nodes).bindings["model"] == both
    assert doubted(nodes, "model") == both


# Numbers.


def test_a_number_shared_through_a_primitive_is_bound_there() -> None:
    nodes = plain(
        empty=node("EmptyLatentImage", width="w@0", height="h@0", batch_size=1),
        w=node("PrimitiveInt", value=512),
        h=node("INTConstant", value=768),
        sampler=sampler(seed="seed@0", steps="steps@0"),
        seed=node("Seed (rgthree)", seed=12),
        steps=node("Int Literal", int=20),
    )
    assert entries(analyse(nodes), "width", "height", "seed", "steps") == {
        "width": ["w.value"],
        "height": ["h.value"],
        "seed": ["seed.seed"],
        "steps": ["steps.int"],
    }


def test_a_size_measured_on_a_picture_is_in_doubt() -> None:
    nodes = plain(
        empty=node("EmptyLatentImage", width="measure@0", height=768, batch_size=1),
        measure=node("GetImageSize", image="scale@0"),
        scale=node("ImageScale", image="pose@0", width=512, height=768, crop="center"),
        pose=node("LoadImage", image="pose.png"),
    )
    assert doubted(nodes, "width") == ["scale.width"]


def test_a_number_may_come_through_a_switch() -> None:
    nodes = plain(
        sampler=sampler(steps="switch@0"),
        switch=node("ImpactSwitch", select=2, input1="few@0", input2="many@0"),
        few=node("PrimitiveInt", value=4),
        many=node("PrimitiveInt", value=40),
    )
    assert found(nodes, "steps") == ["many.value"]


def test_one_number_for_both_sides_is_in_doubt() -> None:
    nodes = plain(
        empty=node("EmptyLatentImage", width="side@0", height="side@0", batch_size=1),
        side=node("PrimitiveInt", value=512),
    )
    assert doubted(nodes, "width") == doubted(nodes, "height") == ["side.value"]


def test_a_size_out_of_a_calculation_is_not_bound_and_in_doubt() -> None:
    nodes = plain(
        empty=node("EmptyLatentImage", width="times@0", height=768, batch_size=1),
        times=node("Math Operation", a="w@0", b=2, operation="multiply"),
        w=node("PrimitiveInt", value=512),
    )
    assert analyse(nodes).bindings["width"] == []
    assert doubted(nodes, "width")


def test_a_number_that_stands_as_text_is_bound_and_in_doubt() -> None:
    nodes = plain(sampler=sampler("FluxSamplerParams+", steps="20"))
    assert analyse(nodes).bindings["steps"] == ["sampler.steps"]
    assert doubted(nodes, "steps") == ["sampler.steps"]


def test_a_size_that_is_rounded_on_its_way_is_bound_and_in_doubt() -> None:
    nodes = plain(
        empty=node("EmptyLatentImage", width="round@0", height=768, batch_size=1),
        round=node("MathExpression", expression="(a + 15) // 16 * 16", a="w@0"),
        w=node("PrimitiveInt", value=512),
    )
    assert analyse(nodes).bindings["width"] == ["w.value"]
    assert doubted(nodes, "width") == ["w.value"]


def test_a_size_chosen_from_a_list_is_not_bound() -> None:
    pick = node("CR SDXL Aspect Ratio", width=1024, height=1024, batch_size=1,
                aspect_ratio="3:4 portrait 896x1152")  # fmt: skip
    nodes = plain(empty=node("EmptyLatentImage", width="pick@0", height="pick@1", batch_size=1),
                  pick=pick)  # fmt: skip
    assert analyse(nodes).bindings["width"] == []
    pick["inputs"]["aspect_ratio"] = "custom"
    assert found(nodes, "width") == ["pick.width"]


def test_a_picker_without_numbers_has_no_size_to_set() -> None:
    nodes = plain(empty=node("SizePicker", resolution="1024x1024 (1:1)", batch_size=2))
    assert found(nodes, "width") == []
    assert found(nodes, "height") == []
    assert found(nodes, "batch") == ["empty.batch_size"]


# Several passes.


def test_a_second_pass_gets_the_sampler_and_the_scheduler_alone() -> None:
    nodes = plain(
        up=node("LatentUpscaleBy", samples="sampler@0", upscale_method="area", scale_by=1.5),
        second=sampler(latent_image="up@0", seed=6, steps=12, cfg=5.0, denoise=0.5),
        decode=node("VAEDecode", samples="second@0", vae="loader@2"),
    )
    assert analyse(nodes).bindings == {
        **PLAIN,
        "sampler": ["sampler.sampler_name", "second.sampler_name"],
        "scheduler": ["sampler.scheduler", "second.scheduler"],
    }
    assert analyse(nodes).not_sure == {}


def test_passes_are_in_the_order_of_the_picture_not_of_the_file() -> None:
    nodes = plain(
        sampler=sampler(latent_image="encode@0", denoise=0.4, seed=6),
        encode=node("VAEEncode", pixels="up@0", vae="loader@2"),
        up=node("ImageScaleBy", image="first@0", scale_by=2.0),
        first=node("VAEDecode", samples="base@0", vae="loader@2"),
        base=sampler(),
    )
    assert found(nodes, "seed") == ["base.seed"]
    assert found(nodes, "sampler") == ["base.sampler_name", "sampler.sampler_name"]


def test_a_detailer_that_works_on_the_picture_is_a_pass() -> None:
    nodes = plain(
        face=node("FaceDetailer", image="decode@0", model="loader@0", positive="face_text@0",
                  negative="neg@0", seed=1, steps=9, cfg=6.0, sampler_name="euler",
                  scheduler="normal", denoise=0.4),
        face_text=node("CLIPTextEncode", text="a detailed face", clip="loader@1"),
        save=node("SaveImage", images="face@0", filename_prefix="fox"),
    )  # fmt: skip
    assert found(nodes, "sampler") == ["sampler.sampler_name", "face.sampler_name"]
    assert found(nodes, "steps") == ["sampler.steps"]
    assert found(nodes, "positive") == ["pos.text"]


def two_stages(**changed: dict[str, Any] | None) -> Nodes:
    first = {"seed": None, "noise_seed": 5, "steps": 25, "start_at_step": 0, "end_at_step": 20}
    second = {**first, "start_at_step": 20, "end_at_step": 10000, "latent_image": "sampler@0"}
    return plain(
        **{
            "sampler": sampler("KSamplerAdvanced", **first),
            "second": sampler("KSamplerAdvanced", **second, positive="pos2@0", model="refiner@0"),
            "refiner": node("CheckpointLoaderSimple", ckpt_name="refiner.safetensors"),
            "pos2": node("CLIPTextEncode", text="a red fox in the snow", clip="refiner@1"),
            "decode": node("VAEDecode", samples="second@0", vae="loader@2"),
            **changed,
        }
    )


def test_stages_that_share_their_steps_get_them_together_and_the_owner_reads_so() -> None:
    adoption = analyse(two_stages())
    assert adoption.bindings["steps"] == ["sampler.steps", "second.steps"]
    assert adoption.bindings["cfg"] == ["sampler.cfg"]
    assert adoption.bindings["model"] == ["loader.ckpt_name"]
    assert adoption.not_sure == {}
    steps = adoption.findings[ROLES.index("steps")]
    assert steps.why == (
        "KSamplerAdvanced sampler and KSamplerAdvanced second share the steps: their start and end"
        " steps are scaled with them"
    )


def test_stages_that_take_their_ends_from_another_node_leave_the_steps_in_doubt() -> None:
    second = {"seed": None, "noise_seed": 5, "steps": 25, "latent_image": "sampler@0"}
    nodes = two_stages(
        sampler=sampler("KSamplerAdvanced", seed=None, noise_seed=5, steps=25, start_at_step=0,
                        end_at_step="end@0"),
        second=sampler("KSamplerAdvanced", **second, start_at_step="end@0", end_at_step=10000),
        end=node("PrimitiveInt", value=20),
    )  # fmt: skip
    assert doubted(nodes, "steps") == ["sampler.steps", "second.steps"]


def test_a_schedule_that_is_cut_leaves_the_steps_in_doubt() -> None:
    nodes = custom(
        cut=node("SplitSigmas", sigmas="sigmas@0", step=12),
        sampler=node("SamplerCustomAdvanced", noise="noise@0", guider="guider@0",
                     sampler="select@0", sigmas="cut@0", latent_image="empty@0"),
    )  # fmt: skip
    assert doubted(nodes, "steps") == ["sigmas.steps"]
    assert "step of SplitSigmas cut stays as it is" in analyse(nodes).findings[5].why


def test_a_stage_goes_on_where_the_other_ends_even_if_that_is_beyond_the_steps() -> None:
    nodes = two_stages()
    nodes["sampler"]["inputs"]["end_at_step"] = nodes["second"]["inputs"]["start_at_step"] = 32
    assert found(nodes, "steps") == ["sampler.steps", "second.steps"]


def test_a_pass_that_begins_late_after_a_whole_one_has_steps_of_its_own() -> None:
    nodes = two_stages()
    nodes["sampler"]["inputs"]["end_at_step"] = 10000
    assert found(nodes, "steps") == ["sampler.steps"]


def test_a_picture_that_serves_another_only_as_a_condition_is_the_base() -> None:
    nodes = plain(
        stage=node("StageB", conditioning="pos@0", stage_c="sampler@0"),
        second=sampler(positive="stage@0", latent_image="empty@1", steps=10),
        decode=node("VAEDecode", samples="second@0", vae="loader@2"),
    )
    assert found(nodes, "steps") == ["sampler.steps"]
    assert found(nodes, "sampler") == ["sampler.sampler_name", "second.sampler_name"]


def test_a_pass_over_a_loaded_picture_is_not_the_base_beside_one_from_nothing() -> None:
    nodes = plain(
        mine=node("LoadImage", image="frame.png"),
        frame=node("FaceDetailer", image="mine@0", model="loader@0", positive="pos@0", seed=1,
                   steps=9, cfg=6.0, sampler_name="euler", scheduler="normal", denoise=0.4),
        both=node("ImageBlend", image1="decode@0", image2="frame@0", blend_factor=0.5),
        save=node("SaveImage", images="both@0", filename_prefix="x"),
    )  # fmt: skip
    assert found(nodes, "steps") == ["sampler.steps"]


def test_the_prompt_goes_into_the_texts_of_every_stage() -> None:
    assert found(two_stages(), "positive") == ["pos.text", "pos2.text"]


def test_pictures_made_side_by_side_are_in_doubt() -> None:
    nodes = plain(
        other=sampler(seed=8),
        decode2=node("VAEDecode", samples="other@0", vae="loader@2"),
        save2=node("SaveImage", images="decode2@0", filename_prefix="other"),
    )
    assert doubted(nodes, "steps") == ["sampler.steps", "other.steps"]
    assert found(nodes, "positive") == ["pos.text"]


# What cannot be driven.


def from_picture() -> Nodes:
    return plain(
        empty=node("VAEEncode", pixels="scale@0", vae="loader@2"),
        scale=node("ImageScale", image="mine@0", width=512, height=512, crop="disabled"),
        mine=node("LoadImage", image="example.png"),
    )


def ending(class_type: str, **inputs: Any) -> Nodes:
    return plain(save=node(class_type, images="decode@0", **inputs))


REFUSED: dict[str, tuple[object, str]] = {
    "page format": ({"nodes": [{"id": 1}], "links": []}, "Workflow > Export (API)"),
    "page format inside": ({"workflow": {"nodes": [], "links": []}}, "Workflow > Export (API)"),
    "nothing": ({}, "no node"),
    "a list": ([1, 2], "no node"),
    "image to image": (from_picture(), "starts from the picture of LoadImage mine"),
    "video": (ending("VHS_VideoCombine", frame_rate=8, filename_prefix="x"), "makes a video"),
    "animation": (ending("SaveAnimatedWEBP", fps=6.0, filename_prefix="x"), "makes a video"),
    "sound": (ending("SaveAudio", filename_prefix="x"), "makes sound"),
    "3D": (ending("SaveGLB", filename_prefix="x"), "makes a 3D model"),
    "preview only": (ending("PreviewImage"), "saves no picture"),
    "websocket only": (ending("SaveImageWebsocket"), "saves no picture"),
    "upscaler": (
        {
            "mine": node("LoadImage", image="example.png"),
            "up": node("ImageUpscaleWithModel", image="mine@0", upscale_model="m@0"),
            "m": node("UpscaleModelLoader", model_name="4x.pth"),
            "save": node("SaveImage", images="up@0", filename_prefix="x"),
        },
        "a picture that somebody must give",
    ),
    "no sampler": (
        {
            "make": node("EmptyImage", width=64, height=64, color=0),
            "save": node("SaveImage", images="make@0", filename_prefix="x"),
        },
        "nothing in it samples",
    ),
    "frames": (
        plain(empty=node("EmptyHunyuanLatentVideo", width=64, height=64, length=25, batch_size=1)),
        "frames of a video",
    ),
    "motion model": (
        plain(
            sampler=sampler(model="motion@0"),
            motion=node("ADE_AnimateDiffLoader", model="loader@0", model_name="mm.ckpt"),
        ),
        "ADE_AnimateDiffLoader motion makes the frames of a video",
    ),
    "edit": (
        plain(
            pos=node("TextEncodeQwenImageEdit", prompt="make it red", clip="loader@1",
                     vae="loader@2", image="mine@0"),
            mine=node("LoadImage", image="example.png"),
        ),
        "edits the picture of LoadImage mine",
    ),
    "reference": (
        plain(
            sampler=sampler(positive="reference@0"),
            reference=node("ReferenceLatent", conditioning="pos@0", latent="encode@0"),
            encode=node("VAEEncode", pixels="mine@0", vae="loader@2"),
            mine=node("LoadImage", image="example.png"),
        ),
        "edits the picture of LoadImage mine",
    ),
    "description": (
        plain(
            pos=node("CLIPTextEncode", text="tags@0", clip="loader@1"),
            tags=node("WD14Tagger", image="mine@0", threshold=0.3, exclude_tags=""),
            mine=node("LoadImage", image="example.png"),
        ),
        "what WD14Tagger tags says of the picture of LoadImage mine",
    ),
    "picture to fill in": (
        plain(
            sampler=sampler(model="style@0"),
            style=node("IPAdapter", model="loader@0", image="mine@0", weight=1.0),
            mine=node("LoadImage", image="%image%"),
        ),
        "needs a picture from the person",
    ),
    "asked picture": (
        plain(
            sampler=sampler(model="style@0"),
            style=node("IPAdapter", model="loader@0", image="mine@0", weight=1.0),
            mine=node("ComfyUIDeployExternalImage", input_id="face", display_name=""),
        ),
        "needs a picture from the person",
    ),
    "template": (plain(sampler=sampler(denoise="%denoise%")), "%denoise% in denoise of KSampler"),
    "no text": (
        plain(pos=node("SomethingElse", clip="loader@1", strength=1.0)),
        "nowhere to write a prompt",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_driven_is_refused_with_the_reason_and_what_to_do(name: str) -> None:
    document, reason = REFUSED[name]
    said = refused(document)
    assert reason in said
    assert "xport" in said or "SaveImage" in said or "put a" in said
    assert set(analyse(document).bindings) == set(ROLES)


def test_a_fixed_style_picture_is_no_reason_to_refuse() -> None:
    nodes = plain(
        sampler=sampler(model="style@0"),
        style=node("IPAdapterAdvanced", model="loader@0", image="fixed@0", weight=0.8),
        fixed=node("LoadImage", image="style.png"),
    )
    assert analyse(nodes).bindings == PLAIN


@pytest.mark.parametrize("value", ["[none]", "<none>", "{}", "auto", "50%", "$", "#"])
def test_what_is_chosen_from_a_list_is_no_placeholder(value: str) -> None:
    nodes = plain(
        lora=node("LoraStack", model="loader@0", lora_01=value),
        sampler=sampler(model="lora@0", denoise=1.0),
    )
    assert analyse(nodes).bindings == PLAIN


def test_a_face_beside_the_text_is_no_reason_to_refuse() -> None:
    nodes = plain(
        pos=node("PhotoMakerEncode", text="a fox", clip="loader@1", image="fixed@0"),
        fixed=node("LoadImage", image="face.png"),
    )
    assert analyse(nodes).bindings == PLAIN


def test_placeholders_where_a_job_writes_are_no_reason_to_refuse() -> None:
    nodes = plain(
        pos=node("CLIPTextEncode", text="{{prompt}}", clip="loader@1"),
        sampler=sampler(steps="%steps%", seed="%seed%"),
    )
    assert analyse(nodes).bindings == PLAIN


def test_a_switch_that_is_set_to_an_empty_latent_is_text_to_image() -> None:
    nodes = plain(
        sampler=sampler(latent_image="switch@0"),
        switch=node("ImpactSwitch", select=1, input1="empty@0", input2="encode@0"),
        encode=node("VAEEncode", pixels="mine@0", vae="loader@2"),
        mine=node("LoadImage", image="example.png"),
    )
    assert analyse(nodes).bindings == PLAIN
    nodes["switch"]["inputs"]["select"] = 2
    assert "starts from the picture of LoadImage mine" in refused(nodes)


def test_a_loader_with_video_in_its_name_makes_no_video() -> None:
    nodes = plain(loader=node("ImageVideoCheckpointLoader", ckpt_name="a.safetensors"))
    assert analyse(nodes).bindings == PLAIN


@pytest.mark.parametrize("class_type", ["MeshGraphormer", "ImageGaussianBlur", "Animate Noise"])
def test_what_only_sounds_like_something_else_than_a_picture_makes_none(class_type: str) -> None:
    nodes = plain(
        effect=node(class_type, image="decode@0", strength=1.0),
        save=node("SaveImage", images="effect@0", filename_prefix="x"),
    )
    assert analyse(nodes).bindings == PLAIN


def test_a_single_frame_is_a_still_picture() -> None:
    still = node("EmptyHunyuanLatentVideo", width=64, height=64, length=1, batch_size=1)
    assert found(plain(empty=still), "width") == ["empty.width"]


def test_a_file_that_is_no_json_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "template.json"
    path.write_text('{"3": {"class_type": "KSampler", "inputs": {"seed": %SEED%}}}', "utf-8")
    assert "template.json is another program's template" in str(analyse_file(path).refused)
    path.write_text("{,}", "utf-8")
    assert "template.json is not JSON" in str(analyse_file(path).refused)
    assert "does not exist" in str(analyse_file(tmp_path / "nowhere.json").refused)
    path.write_text(json.dumps(plain()), "utf-8")
    assert analyse_file(path).bindings == PLAIN


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
        assert set(adoption.bindings) == set(ROLES)
        for entry in (entry for role in ROLES for entry in adoption.bindings[role]):
            node_id, name = entry.split(".", 1)
            assert not isinstance(adoption.workflow[node_id]["inputs"][name], list)


@pytest.mark.parametrize("document", [None, 1, "x", [], [{}], {"prompt": None}, {"1": None}])
def test_what_is_no_workflow_is_refused(document: object) -> None:
    assert analyse(document).refused is not None


def test_nodes_in_a_circle_are_refused() -> None:
    assert refused(plain(sampler=sampler(latent_image="decode@0")))


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


def test_the_server_says_which_input_is_a_text_whatever_its_name() -> None:
    inputs = {"required": {"was_du_willst": ["STRING", {"multiline": True}]}}
    info = declared(Schreiber={"input": inputs, "output": ["CONDITIONING"]})
    nodes = plain(pos=node("Schreiber", was_du_willst="a fox", clip="loader@1"))
    adoption = analyse(nodes, info)
    assert adoption.bindings["positive"] == ["pos.was_du_willst"]
    assert adoption.not_sure == {}


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
