"""passes.py through analysis.py: what samples and saves, in which order, and what is refused."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from adopt.analysis import analyse, analyse_file
from binder import PARAMS
from comfyui.object_info import ObjectInfo
from tests.graphs import (
    PLAIN,
    Nodes,
    custom,
    doubted,
    ending,
    found,
    node,
    plain,
    refused,
    sampler,
    two_stages,
)

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


def test_stages_that_share_their_steps_get_them_together_and_the_owner_reads_so() -> None:
    adoption = analyse(two_stages())
    assert adoption.bindings["steps"] == ["sampler.steps", "second.steps"]
    assert adoption.bindings["cfg"] == ["sampler.cfg", "second.cfg"]
    assert adoption.bindings["model"] == ["loader.ckpt_name"]
    assert adoption.not_sure == {}
    steps = adoption.findings[PARAMS.index("steps")]
    assert steps.why == (
        "KSamplerAdvanced sampler and KSamplerAdvanced second share the steps: their start and end"
        " steps are scaled with them"
    )


def test_a_refiner_is_no_question_and_a_stage_of_the_same_cfg_follows() -> None:
    nodes = two_stages()
    assert found(nodes, "cfg") == ["sampler.cfg", "second.cfg"]
    nodes["second"]["inputs"]["cfg"] = 3.0
    assert found(nodes, "cfg") == ["sampler.cfg"]
    nodes["sampler"]["inputs"]["end_at_step"] = 10000
    assert found(nodes, "steps") == ["sampler.steps"]


def test_a_model_in_two_files_stays_as_in_the_file() -> None:
    nodes = two_stages(
        loader=node("CheckpointLoaderSimple", ckpt_name="wan2.2_high_noise.safetensors"),
        refiner=node("CheckpointLoaderSimple", ckpt_name="wan2.2_low_noise.safetensors"),
    )
    assert found(nodes, "model") == []


def test_a_model_that_only_takes_the_conditioning_on_is_no_question() -> None:
    nodes = plain(
        stage=node("StageB", conditioning="pos@0", stage_c="sampler@0"),
        second=sampler(positive="stage@0", latent_image="empty@1", model="b@0"),
        b=node("UNETLoader", unet_name="stage_b.safetensors"),
        decode=node("VAEDecode", samples="second@0", vae="loader@2"),
    )
    assert found(nodes, "model") == ["loader.ckpt_name"]


def test_the_empty_negative_of_a_refiner_is_not_the_persons() -> None:
    nodes = two_stages(
        sampler=sampler("KSamplerAdvanced", seed=None, noise_seed=5, start_at_step=0,
                        end_at_step=16, negative="zero@0"),
        zero=node("ConditioningZeroOut", conditioning="pos@0"),
    )  # fmt: skip
    assert found(nodes, "negative") == []


def test_a_sampler_that_only_previews_saves_and_the_owner_reads_so() -> None:
    easy = sampler("easy kSampler", image_output="Preview", save_prefix="x")
    adoption = analyse(plain(sampler=easy, decode=None, save=None))
    assert adoption.refused is None
    assert adoption.workflow["sampler"]["inputs"]["image_output"] == "Save"
    assert adoption.notes == (
        "image_output of easy kSampler sampler is now Save: it kept no picture",
    )


def test_a_template_that_saves_nothing_is_refused_as_a_template() -> None:
    nodes = plain(save=None, pos=node("CLIPTextEncode", text="{{prompt}}", clip="loader@1"))
    assert "it has the marks {{prompt}} in text of CLIPTextEncode pos" in refused(nodes)


def test_a_picture_that_is_sampled_and_then_animated_is_the_base() -> None:
    nodes = plain(
        film=sampler(positive="frames@0", negative="frames@1", latent_image="frames@2", steps=9),
        frames=node("SVD_img2vid_Conditioning", init_image="decode@0", width=64, height=96,
                    video_frames=14, fps=8),
        shown=node("VAEDecode", samples="film@0", vae="loader@2"),
        save=node("SaveWEBM", images="shown@0", filename_prefix="x", fps=8.0),
    )  # fmt: skip
    assert found(nodes, "steps") == ["sampler.steps"]
    assert found(nodes, "width") == ["empty.width"]


def test_a_node_that_takes_few_steps_keeps_its_own() -> None:
    nodes = custom(sigmas=node("SDTurboScheduler", model="shift@0", steps=1, denoise=1.0))
    assert found(nodes, "steps") == []
    few = ["INT", {"default": 1, "min": 1, "max": 10}]
    info = ObjectInfo({"Few": {"input": {"required": {"steps": few}}}})
    nodes["sigmas"] = node("Few", model="shift@0", steps=1, denoise=1.0)
    steps = analyse(nodes, info).findings[PARAMS.index("steps")]
    assert (steps.places, steps.why) == (
        (),
        "Few sigmas takes at most 10: they stay as in the file",
    )
    assert found(nodes, "steps") == ["sigmas.steps"]


def test_where_stages_end_in_another_node_is_scaled_with_the_steps() -> None:
    second = {"seed": None, "noise_seed": 5, "steps": 25, "latent_image": "sampler@0"}
    nodes = two_stages(
        sampler=sampler("KSamplerAdvanced", seed=None, noise_seed=5, steps=25, start_at_step=0,
                        end_at_step="end@0"),
        second=sampler("KSamplerAdvanced", **second, start_at_step="end@0", end_at_step=10000),
        end=node("PrimitiveInt", value=20),
    )  # fmt: skip
    assert found(nodes, "steps") == ["sampler.steps", "second.steps"]
    assert found(nodes, "later_steps") == ["end.value"]


def test_where_a_schedule_is_cut_is_scaled_with_the_steps() -> None:
    nodes = custom(
        cut=node("SplitSigmas", sigmas="sigmas@0", step=12),
        sampler=node("SamplerCustomAdvanced", noise="noise@0", guider="guider@0",
                     sampler="select@0", sigmas="cut@0", latent_image="empty@0"),
    )  # fmt: skip
    assert found(nodes, "steps") == ["sigmas.steps"]
    assert found(nodes, "later_steps") == ["cut.step"]


def test_a_stage_goes_on_where_the_other_ends_even_if_that_is_beyond_the_steps() -> None:
    nodes = two_stages()
    nodes["sampler"]["inputs"]["end_at_step"] = nodes["second"]["inputs"]["start_at_step"] = 32
    assert found(nodes, "steps") == ["sampler.steps", "second.steps"]


def test_a_pass_that_begins_late_after_a_whole_one_has_steps_of_its_own_and_is_in_doubt() -> None:
    nodes = two_stages(refiner=node("CheckpointLoaderSimple", ckpt_name="b.safetensors"))
    nodes["sampler"]["inputs"]["end_at_step"] = 10000
    assert analyse(nodes).bindings["steps"] == ["sampler.steps"]
    assert doubted(nodes, "steps") == ["sampler.steps", "second.steps"]
    assert doubted(nodes, "cfg") == ["sampler.cfg", "second.cfg"]


def test_passes_that_share_a_schedule_that_is_cut_leave_the_cfg_of_each_in_doubt() -> None:
    def one(**links: str) -> dict[str, object]:
        return node("SamplerCustomAdvanced", noise="noise@0", sampler="select@0", **links)

    def guider(cfg: float) -> dict[str, object]:
        return node("CFGGuider", model="shift@0", positive="pos@0", negative="pos@0", cfg=cfg)

    nodes = custom(
        cut=node("SplitSigmas", sigmas="sigmas@0", step=12),
        guider=guider(5.0),
        guider2=guider(3.0),
        sampler=one(guider="guider@0", sigmas="cut@0", latent_image="empty@0"),
        second=one(guider="guider2@0", sigmas="cut@1", latent_image="sampler@0"),
        decode=node("VAEDecode", samples="second@0", vae="loader@2"),
    )
    assert analyse(nodes).bindings["cfg"] == ["guider.cfg"]
    assert doubted(nodes, "cfg") == ["guider.cfg", "guider2.cfg"]


def posed(**changed: dict[str, object] | None) -> Nodes:
    """A saved picture whose pose comes from another one, which is made out of nothing too."""
    return plain(
        **{
            "pose": sampler(latent_image="small@0", seed=6, steps=10, cfg=8.0),
            "small": node("EmptyLatentImage", width=256, height=256, batch_size=2),
            "posed": node("VAEDecode", samples="pose@0", vae="loader@2"),
            "control": node("ControlNetApplyAdvanced", positive="pos@0", negative="neg@0",
                            control_net="net@0", image="posed@0", strength=0.8),
            "net": node("ControlNetLoader", control_net_name="pose.safetensors"),
            "sampler": sampler(positive="control@0", negative="control@1"),
            **changed,
        }
    )  # fmt: skip


def test_a_picture_that_the_saved_one_is_only_posed_after_is_not_the_base() -> None:
    bindings = analyse(posed()).bindings
    passes = {
        "sampler": ["sampler.sampler_name", "pose.sampler_name"],
        "scheduler": ["sampler.scheduler", "pose.scheduler"],
    }
    assert bindings == {**PLAIN, **passes}
    assert analyse(posed()).not_sure == {}


def test_a_picture_posed_after_another_is_a_persons_if_it_starts_from_a_loaded_one() -> None:
    nodes = posed(
        empty=node("VAEEncode", pixels="mine@0", vae="loader@2"),
        mine=node("LoadImage", image="me.png"),
    )
    assert found(nodes, "image") == ["mine.image"]


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


REFUSED: dict[str, tuple[object, str]] = {
    "page format": ({"nodes": [{"id": 1}], "links": []}, "Workflow > Export (API)"),
    "page format inside": ({"workflow": {"nodes": [], "links": []}}, "Workflow > Export (API)"),
    "nothing": ({}, "no node"),
    "a list": ([1, 2], "no node"),
    "a video to work on": (
        plain(
            empty=node("VAEEncode", pixels="clip@0", vae="loader@2"),
            clip=node("VHS_LoadVideo", video="dance.mp4", force_rate=0),
            save=node("VHS_VideoCombine", images="decode@0", frame_rate=8, filename_prefix="x"),
        ),
        "the video or the sound of VHS_LoadVideo clip",
    ),
    "a voice to copy": (
        plain(
            pos=node("CLIPTextEncode", text="hello", clip="voice@0"),
            voice=node("VoiceCloner", audio="clip@0", clip="loader@1"),
            clip=node("LoadAudio", audio="me.mp3"),
            save=node("SaveAudio", audio="decode@0", filename_prefix="x"),
        ),
        "the video or the sound of LoadAudio clip",
    ),
    "3D": (ending("SaveGLB", filename_prefix="x"), "makes a 3D model"),
    "an editor's canvas": (ending("ETN_KritaOutput"), "where the bot cannot fetch it"),
    "another program": (ending("SendImageToPhotoshop"), "SendImageToPhotoshop save hands the"),
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
    "description": (
        plain(
            pos=node("CLIPTextEncode", text="tags@0", clip="loader@1"),
            tags=node("WD14Tagger", image="mine@0", threshold=0.3, exclude_tags=""),
            mine=node("LoadImage", image="example.png"),
        ),
        "what WD14Tagger tags says of the picture of LoadImage mine",
    ),
    "picture of a form": (
        plain(
            sampler=sampler(model="style@0"),
            style=node("IPAdapter", model="loader@0", image="mine@0", weight=1.0),
            mine=node("StudioInputImage", value="", param_name="face"),
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
    assert set(analyse(document).bindings) == set(PARAMS)


def test_a_fixed_style_picture_is_no_reason_to_refuse() -> None:
    nodes = plain(
        sampler=sampler(model="style@0"),
        style=node("IPAdapterAdvanced", model="loader@0", image="fixed@0", weight=0.8),
        fixed=node("LoadImage", image="style.png"),
    )
    assert analyse(nodes).bindings == PLAIN


def test_a_face_beside_the_text_is_no_reason_to_refuse() -> None:
    nodes = plain(
        pos=node("PhotoMakerEncode", text="a fox", clip="loader@1", image="fixed@0"),
        fixed=node("LoadImage", image="face.png"),
    )
    assert analyse(nodes).bindings == PLAIN


def test_placeholders_beside_the_prompt_are_refused_with_the_marks() -> None:
    nodes = plain(
        pos=node("CLIPTextEncode", text="{{prompt}}", clip="loader@1"),
        sampler=sampler(steps="%steps%", seed="PARAM_INT_SEED"),
    )
    said = refused(nodes)
    assert "template: it has the marks PARAM_INT_SEED in seed of KSampler sampler and" in said
    assert "%steps% in steps of KSampler sampler" in said
    model = node("CheckpointLoaderSimple", ckpt_name="{{model}}")
    assert "{{model}} in ckpt_name" in refused(plain(loader=model))


@pytest.mark.parametrize("shown", ["$show-0", "$47-0", "$12:47-3"])
def test_the_picture_that_a_bridge_shows_is_no_placeholder(shown: str) -> None:
    nodes = plain(
        show=node("PreviewBridge", image=shown, images="decode@0"),
        save=node("SaveImage", images="show@0", filename_prefix="fox"),
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
    assert found(nodes, "image") == ["mine.image"]


VIDEO = node("EmptyHunyuanLatentVideo", width=64, height=64, length=25, batch_size=1)


@pytest.mark.parametrize(
    "save",
    [
        node("SaveVideo", video="video@0", filename_prefix="x", format="auto", codec="auto"),
        node("SaveWEBM", images="decode@0", filename_prefix="x", codec="vp9", fps=24.0, crf=32.0),
        node("SaveAnimatedWEBP", images="decode@0", filename_prefix="x", fps=6.0),
        node("SaveAnimatedPNG", images="decode@0", filename_prefix="x", fps=6.0),
        node("VHS_VideoCombine", images="decode@0", frame_rate=8, filename_prefix="x"),
    ],
    ids=lambda save: save["class_type"],
)
def test_a_video_is_a_result_and_its_length_is_found(save: dict[str, Any]) -> None:
    video = node("CreateVideo", images="decode@0", fps=24.0)
    assert analyse(plain(empty=VIDEO, save=save, video=video)).bindings == {
        **PLAIN,
        "batch": [],
        "length": ["empty.length"],
    }


def test_what_a_second_node_does_to_a_video_by_a_text_of_its_own_is_in_doubt() -> None:
    nodes = {
        "make": node("TextToVideo", prompt="a fox", cfg_scale=1.0),
        "edit": node("VideoEdit", prompt="make it snow", video="make@0"),
        "load": node("VideoToImages", video="edit@0"),
        "save": node("VHS_VideoCombine", images="load@0", frame_rate=8, filename_prefix="x"),
    }
    assert doubted(nodes, "positive") == ["make.prompt", "edit.prompt"]


def test_the_sound_of_a_video_is_as_long_as_its_pictures() -> None:
    nodes = plain(
        video=VIDEO,
        sound=node("LTXVEmptyLatentAudio", frames_number=25, frame_rate=24, batch_size=1),
        empty=node("LTXVConcatAVLatent", video_latent="video@0", audio_latent="sound@0"),
        save=node("SaveWEBM", images="decode@0", filename_prefix="x", fps=24.0),
    )
    assert found(nodes, "length") == ["video.length", "sound.frames_number"]


def test_the_pictures_of_a_motion_model_are_the_frames() -> None:
    nodes = plain(
        sampler=sampler(model="motion@0"),
        motion=node("ADE_AnimateDiffLoader", model="loader@0", model_name="mm.ckpt"),
        save=node("VHS_VideoCombine", images="decode@0", frame_rate=8, filename_prefix="x"),
    )
    assert found(nodes, "length") == ["empty.batch_size"]
    assert found(nodes, "batch") == []


@pytest.mark.parametrize("class_type", ["SaveAudio", "SaveAudioMP3", "SaveAudioOpus"])
def test_sound_is_a_result(class_type: str) -> None:
    nodes = plain(
        empty=node("EmptyLatentAudio", seconds=47.6, batch_size=1),
        decode=node("VAEDecodeAudio", samples="sampler@0", vae="loader@2"),
        save=node(class_type, audio="decode@0", filename_prefix="x"),
    )
    assert analyse(nodes).bindings == {**PLAIN, "width": [], "height": []}


def test_a_length_that_is_calculated_stays_as_in_the_file() -> None:
    nodes = plain(
        empty={**VIDEO, "inputs": {**VIDEO["inputs"], "length": ["math", 0]}},
        math=node("MathExpression", expression="a*24+1", a="seconds@0"),
        seconds=node("PrimitiveInt", value=5),
        save=node("SaveWEBM", images="decode@0", filename_prefix="x", fps=24.0),
    )
    assert found(nodes, "length") == []


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
    said = str(analyse_file(path).refused)
    assert "template.json is another program's template and no JSON yet: it has %SEED%" in said
    path.write_text("{,}", "utf-8")
    assert "template.json is not JSON" in str(analyse_file(path).refused)
    assert "does not exist" in str(analyse_file(tmp_path / "nowhere.json").refused)
    path.write_text(json.dumps(plain()), "utf-8")
    assert analyse_file(path).bindings == PLAIN


def test_a_picture_in_any_form_that_is_encoded_is_the_persons() -> None:
    nodes = plain(
        empty=node("VAEEncode", pixels="mine@0", vae="loader@2"),
        mine=node("Base64ToImage", data="iVBORw0KGgo="),
    )
    assert "works on the picture of Base64ToImage mine" in refused(nodes)
    nodes["mine"] = node("EmptyImage", width=512, height=512, color=0)
    assert found(nodes, "width") == ["mine.width"]


@pytest.mark.parametrize("name", ["images.image_1", "image_input", "reference_image", "image1"])
def test_an_encoder_of_text_and_pictures_edits(name: str) -> None:
    encoder = node("TextEncodeSomethingEdit", prompt="remove the hat", clip="loader@1",
                   vae="loader@2", **{name: "mine@0"})  # fmt: skip
    nodes = plain(pos=encoder, mine=node("LoadImage", image="example.png"))
    assert found(nodes, "image") == ["mine.image"]


def test_a_batch_that_is_multiplied_or_cut_on_its_way_is_in_doubt() -> None:
    nodes = plain(
        sampler=sampler(latent_image="times@0"),
        times=node("RepeatLatentBatch", samples="empty@0", amount=4),
    )
    assert doubted(nodes, "batch") == ["empty.batch_size", "times.amount"]
    nodes["times"] = node("LatentFromBatch", samples="empty@0", batch_index=0, length=1)
    assert doubted(nodes, "batch") == ["empty.batch_size", "times.length"]


def test_placeholders_in_the_name_of_the_file_are_the_saving_nodes_own() -> None:
    nodes = plain(
        save=node("SaveImage", images="decode@0", filename_prefix="name@0"),
        name=node("PrimitiveString", value="%date%"),
    )
    assert analyse(nodes).bindings == PLAIN


@pytest.mark.parametrize(
    "mark", ["{{prompt}}", "%prompt%", "$prompt", "${prompt}", "__PROMPT__", "<PROMPT>", "[PROMPT]",
             "{prompt}", "PROMPT_HERE", "<<prompt>>", "YOUR_PROMPT_HERE"]
)  # fmt: skip
def test_a_placeholder_is_fine_in_the_prompt_and_none_elsewhere(mark: str) -> None:
    assert analyse(plain(pos=node("CLIPTextEncode", text=mark, clip="loader@1"))).bindings == PLAIN
    lora = node("LoraLoaderModelOnly", model="loader@0", lora_name=mark, strength_model=1.0)
    assert "another program's template" in refused(plain(sampler=sampler(model="l@0"), l=lora))


def test_pictures_that_are_referred_to_behind_a_switch_are_edited() -> None:
    nodes = plain(
        sampler=sampler(positive="pick@0"),
        pick=node("ComfySwitchNode", switch="flag@0", on_false="pos@0", on_true="reference@0"),
        flag=node("PrimitiveBoolean", value=True),
        reference=node("SomeReferenceImages", positive="pos@0", **{"images.image_1": "mine@0"}),
        mine=node("LoadImage", image="example.png"),
    )
    assert found(nodes, "image") == ["mine.image"]
    nodes["flag"]["inputs"]["value"] = False
    assert analyse(nodes).bindings == PLAIN


def test_a_picture_that_is_made_out_of_nothing_may_be_encoded() -> None:
    nodes = plain(
        empty=node("VAEEncode", pixels="grey@0", vae="loader@2"),
        grey=node("MaskToImage", mask="mask@0"),
        mask=node("SolidMask", value=0.5, width=512, height=512),
    )
    assert analyse(nodes).refused is None


def test_a_node_that_only_tells_the_saving_node_about_the_picture_is_no_pass() -> None:
    about = node("Metadata", positive="pos@0", sampler_name="ddim", scheduler="simple", steps=3)
    save = node("SaveImageExtended", images="decode@0", metadata="about@0", filename_prefix="x")
    assert analyse(plain(about=about, save=save)).bindings == PLAIN


def test_a_node_that_shows_and_saves_saves() -> None:
    save = node("PreviewAndStore", images="decode@0", filename_prefix="x")
    assert analyse(plain(save=save)).bindings == PLAIN


@pytest.mark.parametrize("value", ["[none]", "<none>", "{}", "auto", "50%", "$", "#"])
def test_what_is_chosen_from_a_list_is_no_placeholder(value: str) -> None:
    nodes = plain(
        lora=node("LoraStack", model="loader@0", lora_01=value),
        sampler=sampler(model="lora@0", denoise=1.0),
    )
    assert analyse(nodes).bindings == PLAIN


def test_frames_after_frames_in_a_circle_are_looked_at_once() -> None:
    """Seconds would be minutes if each of them looked for a sampler anew."""
    frames = {
        f"f{i}": node("WanImageToVideo", start_image=f"f{i * 7 % 1500}@0",
                      image=f"f{(i * 11 + 1) % 1500}@0", width=f"f{(i + 3) % 1500}@0", length=81)
        for i in range(1500)
    }  # fmt: skip
    frames["f77"] = node("VAEDecode", samples="sampler@0", vae="loader@2")
    nodes = plain(sampler=sampler(latent_image="f1@0"), empty=None, **frames)
    nodes["save"] = node("SaveWEBM", images="decode@0", filename_prefix="x", fps=16.0)
    start = time.process_time()
    analyse(nodes)
    assert time.process_time() - start < 1.0
