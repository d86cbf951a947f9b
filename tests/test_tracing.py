"""tracing.py through roles.py: from what is sampled back to the text or the value to replace."""

from __future__ import annotations

from typing import Any

import pytest

from roles import analyse
from tests.graphs import (
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
