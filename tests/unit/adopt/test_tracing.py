"""tracing.py through analysis.py: from what is sampled back to the text or the value to replace."""

from __future__ import annotations

import time
from typing import Any

import pytest

from adopt.analysis import analyse
from tests.graphs import (
    Nodes,
    custom,
    doubted,
    entries,
    found,
    node,
    plain,
    sampler,
)

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


def test_a_wildcard_node_gets_the_prompt_in_both_texts() -> None:
    nodes = plain(
        pos=node("CLIPTextEncode", text="wild@0", clip="loader@1"),
        wild=node("ImpactWildcardProcessor", wildcard_text="a __cat__", populated_text="a red cat",
                  mode="populate", seed=3),
    )  # fmt: skip
    assert found(nodes, "positive") == ["wild.wildcard_text", "wild.populated_text"]


def test_empty_texts_beside_the_text_of_an_encoder_stay_empty() -> None:
    encoder = node("Encode++", text="a fox", text_g="", text_l="", clip="loader@1")
    assert found(plain(pos=encoder), "positive") == ["pos.text"]


def test_a_text_under_a_name_that_nobody_knows_is_in_doubt() -> None:
    nodes = plain(pos=node("Editor", clip="loader@1", editor_state="[a fox]"))
    assert analyse(nodes).bindings["positive"] == ["pos.editor_state"]
    assert doubted(nodes, "positive") == ["pos.editor_state"]


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


def test_a_size_out_of_a_calculation_is_not_bound_and_in_doubt() -> None:
    nodes = plain(
        empty=node("EmptyLatentImage", width="times@0", height=768, batch_size=1),
        times=node("Math Operation", a="w@0", b=2, operation="multiply"),
        w=node("PrimitiveInt", value=512),
    )
    assert analyse(nodes).bindings["width"] == []
    assert doubted(nodes, "width")


def test_a_number_that_stands_as_text_is_a_number() -> None:
    nodes = plain(sampler=sampler("FluxSamplerParams+", steps="20", cfg="cfg@0"))
    nodes["cfg"] = node("PrimitiveString", value="7.5")
    assert found(nodes, "steps") == ["sampler.steps"]
    assert found(nodes, "cfg") == ["cfg.value"]


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


# Switches: which branch is live.


def texts(**changed: dict[str, Any] | None) -> Nodes:
    """A plain workflow whose prompt is one of two, by a node "pick"."""
    return plain(
        pos=node("CLIPTextEncode", text="pick@0", clip="loader@1"),
        a=node("PrimitiveString", value="a red fox"),
        b=node("PrimitiveString", value="a blue fox"),
        **changed,
    )


@pytest.mark.parametrize(
    "inputs",
    [
        {"index": 1, "value0": "a@0", "value1": "b@0"},
        {"select": 2, "input1": "a@0", "input2": "b@0"},
        {"Input": 2, "text1": "a@0", "text2": "b@0"},
        {"boolean": False, "text_a": "a@0", "text_b": "b@0"},
        {"cond": False, "tt_value": "a@0", "ff_value": "b@0"},
        {"boolean": True, "on_false": "a@0", "on_true": "b@0"},
        {"condition": 1, "on_false": "a@0", "on_true": "b@0"},
        {"select": "2", "input1": "a@0", "input2": "b@0"},
        {"select": "input2", "input1": "a@0", "input2": "b@0"},
        {"any_02": "b@0", "any_05": "a@0"},
    ],
)
def test_the_branch_that_a_switch_is_set_to_is_live(inputs: dict[str, Any]) -> None:
    assert found(texts(pick=node("Any Switch", **inputs)), "positive") == ["b.value"]


def test_a_switch_with_a_text_of_its_own_lets_that_through() -> None:
    pick = node("ComfySwitchNode", switch=False, on_false="a green fox", on_true="a@0")
    assert found(texts(pick=pick), "positive") == ["pick.on_false"]


def test_a_switch_that_is_set_by_a_negation_lets_the_other_through() -> None:
    nodes = texts(
        pick=node("Switch string", boolean="no@0", on_true="a@0", on_false="b@0"),
        no=node("ComfyNotNode", value="flag@0"),
        flag=node("PrimitiveBoolean", value=False),
    )
    assert found(nodes, "positive") == ["a.value"]
    nodes["flag"]["inputs"]["value"] = True
    assert found(nodes, "positive") == ["b.value"]


@pytest.mark.parametrize(
    "inputs",
    [
        {"boolean": "flag@0", "on_true": "a@0", "on_false": "b@0"},
        {"index": 1, "any_1": "a@0", "any_2": "b@0"},
        {"select": 7, "input1": "a@0", "input2": "b@0"},
    ],
)
def test_a_switch_nobody_knows_the_setting_of_leaves_the_text_in_doubt(
    inputs: dict[str, Any],
) -> None:
    flag = node("Compare", a="loader@0", b=1, comparison="a > b")
    nodes = texts(pick=node("SomeSwitch", **inputs), flag=flag)
    assert sorted(doubted(nodes, "positive")) == ["a.value", "b.value"]


def test_a_switch_nobody_knows_the_setting_of_leaves_a_number_in_doubt() -> None:
    nodes = plain(
        sampler=sampler(steps="pick@0"),
        pick=node("Switch any", boolean="flag@0", on_true="a@0", on_false="b@0"),
        flag=node("Compare", a="loader@0", b=1, comparison="a > b"),
        a=node("PrimitiveInt", value=20),
        b=node("PrimitiveInt", value=8),
    )
    assert sorted(doubted(nodes, "steps")) == ["a.value", "b.value"]


def test_a_model_comes_through_the_live_branch_of_a_switch() -> None:
    nodes = plain(
        sampler=sampler(model="pick@0"),
        pick=node("CR Model Input Switch", Input=2, model1="loader@0", model2="other@0"),
        other=node("UNETLoader", unet_name="b.safetensors"),
    )
    assert found(nodes, "model") == ["other.unet_name"]
    nodes["pick"] = node("Switch any", boolean="x@0", on_true="loader@0", on_false="other@0")
    nodes["x"] = node("Compare", a="loader@0", b=1, comparison="a > b")
    assert sorted(doubted(nodes, "model")) == ["loader.ckpt_name", "other.unet_name"]


def test_a_prompt_that_stands_on_both_sides_of_a_switch_goes_into_both() -> None:
    """As where a prompt may be extended by a model of language, or not."""
    nodes = plain(
        pos=node("CLIPTextEncode", text="pick@0", clip="loader@1"),
        pick=node("ComfySwitchNode", switch=True, on_false="a red fox", on_true="llm@0"),
        llm=node("TextGenerate", prompt="a red fox", system_prompt="system@0", clip="clip@0"),
        clip=node("CLIPLoader", clip_name="qwen.safetensors"),
        system=node("PrimitiveStringMultiline", value="You turn a request into a paragraph."),
    )
    both = ["llm.prompt", "pick.on_false"]
    for is_on in (True, False):
        nodes["pick"]["inputs"]["switch"] = is_on
        assert sorted(analyse(nodes).bindings["positive"]) == both
        assert doubted(nodes, "positive") == []


# Several texts.


def test_what_a_model_of_language_is_told_to_do_is_no_prompt() -> None:
    nodes = plain(
        pos=node("CLIPTextEncode", text="llm@0", clip="loader@1"),
        llm=node("TextGenerate", prompt="join@0", max_length=512, clip="loader@1"),
        join=node("StringConcatenate", string_a="told@0", string_b="mine@0", delimiter=""),
        told=node("PrimitiveStringMultiline", value="You are an expert prompt engineer."),
        mine=node("PrimitiveStringMultiline", value="a cat on a sofa"),
    )
    assert found(nodes, "positive") == ["mine.value"]


def test_texts_that_are_put_one_after_another_into_a_template() -> None:
    nodes = plain(
        pos=node("CLIPTextEncode", text="last@0", clip="loader@1"),
        last=node("StringReplace", string="first@0", find="{w}", replace="1024"),
        first=node("StringReplace", string="Draw {what} at {w}", find="{what}", replace="mine@0"),
        mine=node("PrimitiveString", value="a red fox"),
    )
    assert analyse(nodes).bindings["positive"] == ["mine.value"]


@pytest.mark.parametrize(
    "both",
    [
        node("ConditioningCombine", conditioning_1="left@0", conditioning_2="right@0"),
        node("ConditioningConcat", conditioning_to="left@0", conditioning_from="right@0"),
        node("ConditioningAverage", conditioning_to="left@0", conditioning_from="right@0"),
    ],
    ids=["combine", "concat", "average"],
)
def test_texts_of_regions_are_in_doubt(both: dict[str, Any]) -> None:
    nodes = plain(
        sampler=sampler(positive="both@0"),
        both=both,
        left=node("ConditioningSetArea", conditioning="pos@0", x=0, y=0, width=8, height=8),
        right=node("CLIPTextEncode", text="masterpiece, best quality, 1girl", clip="loader@1"),
    )
    assert sorted(doubted(nodes, "positive")) == ["pos.text", "right.text"]
    nodes["pos"]["inputs"]["text"] = nodes["right"]["inputs"]["text"] = ""
    assert sorted(doubted(nodes, "positive")) == ["pos.text", "right.text"]


def test_texts_under_names_that_nobody_knows_are_followed_and_in_doubt() -> None:
    nodes = plain(
        pos=node("CLIPTextEncode", text="join@0", clip="loader@1"),
        join=node("Combine", part1="a@0", part2="b@0", between=", "),
        a=node("PrimitiveString", value="a red fox"),
        b=node("PrimitiveString", value="in the snow"),
    )
    assert sorted(doubted(nodes, "positive")) == ["a.value", "b.value"]


def test_an_empty_text_beside_another_is_in_doubt() -> None:
    nodes = plain(
        pos=node("CLIPTextEncode", text="join@0", clip="loader@1"),
        join=node("Text Concatenate", text_a="a@0", text_b="b@0", delimiter=" "),
        a=node("Text Multiline", "My prompt", text=""),
        b=node("Text Multiline", text="a red fox"),
    )
    assert doubted(nodes, "positive")


def test_a_fixed_text_in_an_encoder_beside_a_named_one_outside_is_in_doubt() -> None:
    nodes = plain(
        sampler=sampler(negative="both@0"),
        both=node("ConditioningCombine", conditioning_1="neg@0", conditioning_2="fixed@0"),
        neg=node("CLIPTextEncode", "CLIP Text Encode (Prompt)", text="mine@0", clip="loader@1"),
        mine=node("String Literal", "Negative prompt", string="blurry, low quality"),
        fixed=node("CLIPTextEncode", "CLIP Text Encode (Prompt)", clip="loader@1",
                   text="nude, violence, gore, weapons, blood, erotic, inappropriate content"),
    )  # fmt: skip
    assert analyse(nodes).bindings["negative"] == ["mine.string"]
    assert doubted(nodes, "negative")


@pytest.mark.parametrize(
    "shown",
    [
        node("easy showAnything", anything="mine@0", text="what was shown last"),
        node("PreviewAny", source="mine@0", preview_text="what was shown last"),
    ],
    ids=["anything", "source"],
)
def test_what_a_node_showed_last_is_no_prompt(shown: dict[str, Any]) -> None:
    nodes = plain(
        pos=node("CLIPTextEncode", text="shown@0", clip="loader@1"),
        shown=shown,
        mine=node("PrimitiveString", value="a red fox"),
    )
    assert found(nodes, "positive") == ["mine.value"]


def test_a_text_beside_the_only_link_of_a_node_is_not_forgotten() -> None:
    nodes = plain(
        pos=node("CLIPTextEncode", text="join@0", clip="loader@1"),
        join=node("Combine", a="a red fox", b="other@0"),
        other=node("PrimitiveString", value="in the snow"),
    )
    assert sorted(doubted(nodes, "positive")) == ["join.a", "other.value"]


@pytest.mark.parametrize(
    "names", [("part1", "part2"), ("text_b", "text_a"), ("string_a", "string_b")]
)
def test_the_texts_of_a_joining_node_beside_a_linked_one_are_its_fixed_part(
    names: tuple[str, str],
) -> None:
    nodes = plain(
        pos=node("CLIPTextEncode", text="join@0", clip="loader@1"),
        join=node("Join", **{names[0]: "(linocut print:1.2)", names[1]: "mine@0"}, separator=", "),
        mine=node("Words", "What shall be painted?", text="fox"),
    )
    assert found(nodes, "positive") == ["mine.text"]
    nodes["mine"]["inputs"]["text"] = ""
    assert analyse(nodes).bindings["positive"] != []


# Contexts, and names in other letters.


def test_a_context_hands_on_what_the_one_before_it_holds() -> None:
    nodes = plain(
        first=node("Context (rgthree)", model="loader@0", positive="dull@0", negative="neg@0",
                   seed="seed@0"),
        dull=node("CLIPTextEncode", text="dull", clip="loader@1"),
        second=node("Context Big (rgthree)", base_ctx="first@0", positive="pos@0", steps=30),
        seed=node("Seed (rgthree)", seed=4),
        sampler=sampler(model="second@1", positive="second@4", negative="second@5",
                        seed="second@8", steps="second@9"),
    )  # fmt: skip
    assert entries(analyse(nodes), "model", "positive", "negative", "seed", "steps") == {
        "model": ["loader.ckpt_name"],
        "positive": ["pos.text"],
        "negative": ["neg.text"],
        "seed": ["seed.seed"],
        "steps": ["second.steps"],
    }
    assert analyse(nodes).not_sure == {}


def test_capital_letters_in_names_are_no_other_names() -> None:
    nodes = plain(
        empty=node("EmptyLatentImage", width="canvas@0", height="canvas@1", batch_size=1),
        canvas=node("Canvas", Width=512, Height=768, Batch=1, Landscape=False, Factor=1.5),
    )
    assert found(nodes, "width") == ["canvas.Width"]
    assert found(nodes, "height") == ["canvas.Height"]
    nodes["canvas"]["inputs"]["Landscape"] = True
    assert doubted(nodes, "width") == ["canvas.Width"]


def test_what_swaps_the_sides_counts_only_if_it_is_on() -> None:
    pick = node("Aspect Ratio", width=1024, height=768, aspect_ratio="custom",
                swap_dimensions="Off")  # fmt: skip
    nodes = plain(empty=node("EmptyLatentImage", width="pick@0", height="pick@1", batch_size=1),
                  pick=pick)  # fmt: skip
    assert found(nodes, "width") == ["pick.width"]
    pick["inputs"]["swap_dimensions"] = "On"
    assert doubted(nodes, "width") == ["pick.width"]


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


def test_texts_of_their_own_for_the_inputs_of_an_encoder_are_in_doubt() -> None:
    nodes = plain(
        pos=node("CLIPTextEncodeSDXL", text_g="g@0", text_l="l@0", clip="loader@1"),
        g=node("PrimitiveString", value="a red fox in the snow"),
        l=node("PrimitiveString", value="oil painting"),
    )
    assert analyse(nodes).bindings["positive"] == ["g.value", "l.value"]
    assert doubted(nodes, "positive") == ["g.value", "l.value"]


@pytest.mark.parametrize(("value", "side"), [(True, "a"), (False, "b")])
def test_a_two_way_switch_is_followed_in_models_too(value: bool, side: str) -> None:
    nodes = plain(
        sampler=sampler(model="switch@0"),
        switch=node("Model Input Switch", model_a="a@0", model_b="b@0", boolean=value),
        a=node("UNETLoader", unet_name="a.safetensors"),
        b=node("UNETLoader", unet_name="b.safetensors"),
    )
    assert found(nodes, "model") == [f"{side}.unet_name"]


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


def test_one_number_for_both_sides_is_the_width_alone() -> None:
    nodes = plain(
        empty=node("EmptyLatentImage", width="side@0", height="side@0", batch_size=1),
        side=node("PrimitiveInt", value=512),
    )
    assert found(nodes, "width") == ["side.value"]
    assert found(nodes, "height") == []


def slider(name: str, **values: float) -> Nodes:
    return plain(
        sampler=sampler(**{name: "slider@0"}),
        slider=node("mxSlider", **values),
    )


@pytest.mark.parametrize("param", ["steps", "cfg", "seed"])
def test_one_of_several_numbers_of_a_node_is_in_doubt(param: str) -> None:
    nodes = slider(param, Xi=7, Xf=7.5)
    assert analyse(nodes).bindings[param] == []
    assert doubted(nodes, param) == ["slider.Xi", "slider.Xf"]


@pytest.mark.parametrize(("flag", "side"), [(1, "Xf"), (0, "Xi"), (True, "Xf"), (False, "Xi")])
def test_a_flag_beside_two_numbers_says_which_of_them_counts(flag: float, side: str) -> None:
    assert found(slider("cfg", Xi=7, Xf=7.5, isfloatX=flag), "cfg") == [f"slider.{side}"]


def test_flags_beside_pairs_of_numbers_say_which_counts_at_each_slot() -> None:
    pad = node("mxSlider2D", Xi=512, Xf=512.5, Yi=768, Yf=768.5, isfloatX=0, isfloatY=1)
    nodes = plain(
        empty=node("EmptyLatentImage", width="pad@0", height="pad@1", batch_size=1), pad=pad
    )
    assert found(nodes, "width") == ["pad.Xi"]
    assert found(nodes, "height") == ["pad.Yf"]


def test_a_guidance_out_of_several_numbers_is_in_doubt() -> None:
    nodes = custom(
        guidance=node("FluxGuidance", guidance="slider@0", conditioning="pos@0"),
        slider=node("mxSlider", Xi=3, Xf=3.5),
    )
    assert analyse(nodes).bindings["cfg"] == []
    assert doubted(nodes, "cfg") == ["slider.Xi", "slider.Xf"]


@pytest.mark.parametrize("text", ["?", "4, 8, 12", ""])
def test_a_text_where_a_number_belongs_is_bound_and_in_doubt(text: str) -> None:
    nodes = plain(sampler=sampler(seed=text))
    assert analyse(nodes).bindings["seed"] == ["sampler.seed"]
    assert doubted(nodes, "seed") == ["sampler.seed"]


@pytest.mark.parametrize("param", ["steps", "cfg", "seed", "scheduler"])
def test_an_input_behind_which_nothing_is_found_is_in_doubt(param: str) -> None:
    nodes = plain(sampler=sampler(**{param: "odd@0"}), odd=node("SomethingElse"))
    assert analyse(nodes).bindings[param] == []
    assert doubted(nodes, param) == [f"sampler.{param}"]


def test_a_value_of_no_known_form_is_in_doubt() -> None:
    nodes = plain(sampler=sampler(steps={"low": 5, "high": 9}))
    assert doubted(nodes, "steps") == ["sampler.steps"]


def test_sizes_that_are_made_of_several_empty_pictures_are_in_doubt() -> None:
    nodes = plain(
        sampler=sampler(latent_image="both@0"),
        both=node("LatentComposite", samples_to="empty@0", samples_from="small@0", x=0, y=0),
        small=node("EmptyLatentImage", width=256, height=256, batch_size=1),
    )
    assert analyse(nodes).bindings["width"] == ["empty.width"]
    assert doubted(nodes, "width") == ["empty.width", "small.width"]


# Files that are no workflow.


def test_a_file_with_thousands_of_spaces_after_a_brace_is_read_at_once() -> None:
    began = time.process_time()
    assert found(
        plain(pos=node("CLIPTextEncode", text="{" + " " * 2000, clip="loader@1")), "positive"
    )
    assert time.process_time() - began < 1
