"""The stand-in for ComfyUI behaves as docs/comfyui.md says of the real one."""

from __future__ import annotations

import asyncio
import json
import struct
import threading
import uuid
import zlib
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
import requests

from tests.standins.comfyui.nodes import (
    LORAS,
    SAMPLERS,
    flux_workflow,
    in_newer_shape,
    simple_workflow,
)
from tests.standins.comfyui.server import ComfyUIStandIn


def post(comfyui: ComfyUIStandIn, prompt_id: str, workflow: dict[str, Any]) -> requests.Response:
    body = {"prompt": workflow, "prompt_id": prompt_id, "client_id": "bot"}
    return requests.post(comfyui.url + "/prompt", json=body, timeout=5)


def get(comfyui: ComfyUIStandIn, path: str, **query: str) -> requests.Response:
    return requests.get(comfyui.url + path, params=query, timeout=5)


def finish(comfyui: ComfyUIStandIn, prompt_id: str, workflow: dict[str, Any]) -> dict[str, Any]:
    """Run a prompt to its end and return its entry in the history."""
    assert post(comfyui, prompt_id, workflow).status_code == 200
    comfyui.wait_for(lambda c: prompt_id in c.finished)
    entry: dict[str, Any] = get(comfyui, f"/history/{prompt_id}").json()[prompt_id]
    return entry


def test_a_prompt_makes_a_real_png_that_depends_on_the_seed(comfyui: ComfyUIStandIn) -> None:
    comfyui.picture_bytes = 50_000
    data = []
    for seed in (1, 2):
        entry = finish(comfyui, f"seed {seed}", simple_workflow(seed=seed))
        image = entry["outputs"]["9"]["images"][0]
        assert image["type"] == "output"
        data.append(get(comfyui, "/view", **image).content)
        assert data[-1] == comfyui.pictures[image["filename"]]
    first = data[0]
    start = first.index(b"IDAT") + 4
    size = int.from_bytes(first[start - 8 : start - 4], "big")
    assert len(zlib.decompress(first[start : start + size])) == 192 * 193
    assert b"tEXtprompt\0{" in first
    assert data[0] != data[1]
    assert all(abs(len(picture) - 50_000) < 20 for picture in data)


def test_an_identical_prompt_is_answered_from_the_cache(comfyui: ComfyUIStandIn) -> None:
    entries = [finish(comfyui, name, simple_workflow()) for name in ("first", "second")]
    assert entries[0]["outputs"] == entries[1]["outputs"]
    assert comfyui.executed == ["first"]


@pytest.mark.parametrize(
    ("node_id", "field", "value", "kind"),
    [
        ("4", "ckpt_name", "nope.ckpt", "value_not_in_list"),
        ("3", "steps", 0, "value_smaller_than_min"),
        ("3", "cfg", "much", "invalid_input_type"),
        ("8", "vae", ["4", 0], "return_type_mismatch"),
        ("8", "vae", ["99", 0], "exception_during_inner_validation"),
    ],
)
def test_a_wrong_value_is_refused(
    comfyui: ComfyUIStandIn, node_id: str, field: str, value: Any, kind: str
) -> None:
    workflow = simple_workflow()
    workflow[node_id]["inputs"][field] = value
    answer = post(comfyui, "x", workflow)
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "prompt_outputs_failed_validation"
    assert answer.json()["node_errors"][node_id]["errors"][0]["type"] == kind


def with_lora(workflow: dict[str, Any], model: str, clip: str = "", /, **changes: Any) -> None:
    """Put a LoRA between the model's node, with its CLIP if given, and whoever uses them."""
    for node in workflow.values():
        for name, value in node["inputs"].items():
            if value in ([model, 0], [clip, 1]):
                node["inputs"][name] = ["lora", value[1]]
    inputs = {"model": [model, 0], "lora_name": LORAS[0], "strength_model": 0.8}
    kind = "LoraLoaderModelOnly"
    if clip:
        kind, inputs = "LoraLoader", {**inputs, "clip": [clip, 1], "strength_clip": 0.8}
    workflow["lora"] = {"class_type": kind, "inputs": {**inputs, **changes}}


@pytest.mark.parametrize(
    ("node_id", "field", "value", "kind"),
    [
        ("13", "noise", None, "required_input_missing"),
        ("13", "sigmas", ["16", 0], "return_type_mismatch"),
        ("13", "guider", ["22"], "bad_linked_input"),
        ("26", "guidance", 101, "value_bigger_than_max"),
        ("17", "scheduler", "AYS SDXL", "value_not_in_list"),
        ("27", "width", ["41", 0], "return_type_mismatch"),
        ("6", "text", ["40", 0], "return_type_mismatch"),
        ("11", "clip_name2", "nope.safetensors", "value_not_in_list"),
    ],
)
def test_the_nodes_of_other_workflows_are_validated_too(
    comfyui: ComfyUIStandIn, node_id: str, field: str, value: Any, kind: str
) -> None:
    workflow = flux_workflow()
    workflow[node_id]["inputs"][field] = value
    if value is None:
        del workflow[node_id]["inputs"][field]
    answer = post(comfyui, "x", workflow)
    assert answer.status_code == 400
    errors = answer.json()["node_errors"]
    assert [error["type"] for error in errors[node_id]["errors"]] == [kind]
    assert list(errors) == [node_id]
    assert errors[node_id]["dependent_outputs"] == ["9"]


def test_a_prompt_without_outputs_and_one_with_an_unknown_class_are_refused(
    comfyui: ComfyUIStandIn,
) -> None:
    workflow = flux_workflow()
    del workflow["9"]
    assert post(comfyui, "x", workflow).json()["error"]["type"] == "prompt_no_outputs"
    workflow["9"] = {"class_type": "Nope", "inputs": {}}
    assert post(comfyui, "x", workflow).json()["error"]["type"] == "invalid_prompt"


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"lora_name": "nope.safetensors"}, "value_not_in_list"),
        ({"strength_model": 101}, "value_bigger_than_max"),
        ({"model": ["11", 0]}, "return_type_mismatch"),
    ],
)
def test_a_lora_loader_is_validated(
    comfyui: ComfyUIStandIn, changes: dict[str, Any], kind: str
) -> None:
    workflow = flux_workflow()
    with_lora(workflow, "12", **changes)
    errors = post(comfyui, "x", workflow).json()["node_errors"]
    assert [error["type"] for error in errors["lora"]["errors"]] == [kind]


def saved(comfyui: ComfyUIStandIn, workflow: dict[str, Any]) -> bytes:
    """The picture that the node 9 of a workflow saves."""
    outputs = finish(comfyui, str(uuid.uuid4()), workflow)["outputs"]
    return comfyui.pictures[outputs["9"]["images"][0]["filename"]]


def pixels(picture: bytes) -> tuple[tuple[int, int], bytes]:
    """Width and height, and what was drawn: without the prompt in the PNG."""
    width, height = struct.unpack(">II", picture[16:24])
    return (width, height), picture[picture.index(b"PLTE") :]


def test_a_lora_changes_the_picture(comfyui: ComfyUIStandIn) -> None:
    for make, nodes in ((simple_workflow, ("4", "4")), (flux_workflow, ("12",))):
        drawn = set()
        for changes in (None, {}, {"strength_model": 0.5}, {"lora_name": LORAS[1]}):
            workflow = make()
            if changes is not None:
                with_lora(workflow, *nodes, **changes)
            drawn.add(pixels(saved(comfyui, workflow)))
        assert len(drawn) == 4


def test_the_loras_can_be_set_in_every_class(comfyui: ComfyUIStandIn) -> None:
    assert any("/" in name for name in comfyui.loras)
    comfyui.loras = ["only.safetensors"]
    for kind in ("LoraLoader", "LoraLoaderModelOnly"):
        info = get(comfyui, f"/object_info/{kind}").json()[kind]
        assert info["input"]["required"]["lora_name"][0] == ["only.safetensors"]
    assert get(comfyui, "/object_info/Nope").json() == {}


def test_lists_are_declared_in_both_shapes_and_all_in_the_newer_one_on_request(
    comfyui: ComfyUIStandIn,
) -> None:
    def samplers(kind: str) -> list[Any]:
        node = get(comfyui, "/object_info").json()[kind]
        config: list[Any] = node["input"]["required"]["sampler_name"]
        return config

    assert samplers("KSamplerAdvanced")[0] == SAMPLERS
    comfyui.object_info = in_newer_shape(comfyui.object_info)
    for kind in ("KSamplerSelect", "KSamplerAdvanced"):
        assert samplers(kind) == ["COMBO", {"multiselect": False, "options": SAMPLERS}]
    workflow = flux_workflow()
    workflow["16"]["inputs"]["sampler_name"] = "nope"
    errors = post(comfyui, "x", workflow).json()["node_errors"]
    assert errors["16"]["errors"][0]["type"] == "value_not_in_list"


def test_a_picture_has_the_size_that_reaches_it_along_the_links(comfyui: ComfyUIStandIn) -> None:
    comfyui.picture_size = None
    assert pixels(saved(comfyui, flux_workflow(size=(448, 320))))[0] == (448, 320)
    workflow = simple_workflow()
    workflow["5"]["inputs"] |= {"width": 320, "height": 256}
    scaling = {"samples": ["3", 0], "upscale_method": "area", "scale_by": 1.25}
    workflow["20"] = {"class_type": "LatentUpscaleBy", "inputs": scaling}
    workflow["8"]["inputs"]["samples"] = ["20", 0]
    assert pixels(saved(comfyui, workflow))[0] == (400, 320)


def steps_heard(comfyui: ComfyUIStandIn, workflow: dict[str, Any]) -> list[tuple[str, int, int]]:
    """Node, value and maximum of each event `progress`."""
    events, _ = listen(comfyui, lambda: post(comfyui, "x", workflow))
    data = [event["data"] for event in events if event["type"] == "progress"]
    return [(event["node"], event["value"], event["max"]) for event in data]


def test_a_custom_sampler_does_the_steps_of_its_scheduler(comfyui: ComfyUIStandIn) -> None:
    assert steps_heard(comfyui, flux_workflow(steps=2)) == [("13", 1, 2), ("13", 2, 2)]


def test_two_advanced_samplers_share_the_steps(comfyui: ComfyUIStandIn) -> None:
    workflow = simple_workflow(steps=5)
    inputs = {**workflow["3"]["inputs"], "noise_seed": 1, "add_noise": "enable"}
    inputs |= {"start_at_step": 0, "end_at_step": 3, "return_with_leftover_noise": "enable"}
    workflow["3"] = {"class_type": "KSamplerAdvanced", "inputs": inputs}
    second = {**inputs, "latent_image": ["3", 0], "start_at_step": 3, "end_at_step": 10000}
    workflow["30"] = {"class_type": "KSamplerAdvanced", "inputs": second}
    workflow["8"]["inputs"]["samples"] = ["30", 0]
    expected = [("3", 1, 3), ("3", 2, 3), ("3", 3, 3), ("30", 1, 2), ("30", 2, 2)]
    assert steps_heard(comfyui, workflow) == expected


def test_a_text_is_read_along_the_links(comfyui: ComfyUIStandIn) -> None:
    workflow = flux_workflow()
    parts = {"string_a": ["41", 0], "string_b": "embedding:", "delimiter": ", "}
    workflow["42"] = {"class_type": "StringConcatenate", "inputs": parts}
    workflow["6"]["inputs"]["text"] = ["42", 0]
    assert failure(comfyui, "x", workflow)[:2] == ("CLIPTextEncode", "IndexError")


@pytest.mark.parametrize(
    ("name", "fine"),
    [("example.png", True), ("ComfyUI_00001_.png [output]", True), ("nope.png", False)],
)
def test_a_picture_is_loaded_by_its_annotated_name(
    comfyui: ComfyUIStandIn, name: str, fine: bool
) -> None:
    finish(comfyui, "first", simple_workflow())
    workflow = simple_workflow()
    workflow["50"] = {"class_type": "LoadImage", "inputs": {"image": name}}
    workflow["9"] = {"class_type": "PreviewImage", "inputs": {"images": ["50", 0]}}
    answer = post(comfyui, "x", workflow)
    assert answer.status_code == (200 if fine else 400)
    if not fine:
        error = answer.json()["node_errors"]["50"]["errors"][0]
        assert error["type"] == "custom_validation_failed"
        assert error["details"] == "image - Invalid image file: nope.png"


def test_a_previewed_picture_is_temporary(comfyui: ComfyUIStandIn) -> None:
    workflow = simple_workflow()
    workflow["9"] = {"class_type": "PreviewImage", "inputs": {"images": ["8", 0]}}
    images = finish(comfyui, "x", workflow)["outputs"]["9"]["images"]
    assert [image["type"] for image in images] == ["temp"]


def test_a_bad_output_is_dropped_and_the_good_one_runs(comfyui: ComfyUIStandIn) -> None:
    workflow = simple_workflow()
    workflow["10"] = {"class_type": "SaveImage", "inputs": {"images": ["8", 0]}}
    answer = post(comfyui, "x", workflow)
    assert answer.status_code == 200
    assert list(answer.json()["node_errors"]) == ["10"]
    comfyui.wait_for(lambda c: "x" in c.finished)
    assert list(comfyui.history["x"]["outputs"]) == ["9"]


def failure(comfyui: ComfyUIStandIn, prompt_id: str, workflow: dict[str, Any]) -> tuple[str, ...]:
    """Node type, exception type and first line of the message of a prompt that fails."""
    status = finish(comfyui, prompt_id, workflow)["status"]
    assert (status["status_str"], status["completed"]) == ("error", False)
    event, data = status["messages"][-1]
    assert event == "execution_error"
    message = data["exception_message"].splitlines()[0]
    return data["node_type"], data["exception_type"], message


@pytest.mark.parametrize(
    ("text", "fails"),
    [
        ("a fox embedding:", True),
        ("embedding:  ", True),
        ("a (embedding:) fox", True),
        ("(embedding::1.2)", True),
        ("embedding: embedding:style", True),
        ("a fox embedding:style", False),
        ("(embedding:1.2)", False),
        ("embedding:, fox", False),
        ("reembedding:", False),
    ],
)
def test_a_bare_embedding_ends_in_an_index_error(
    comfyui: ComfyUIStandIn, text: str, fails: bool
) -> None:
    workflow = simple_workflow()
    workflow["7"]["inputs"]["text"] = text
    if fails:
        expected = ("CLIPTextEncode", "IndexError", "list index out of range")
        assert failure(comfyui, "x", workflow) == expected
    else:
        assert finish(comfyui, "x", workflow)["status"]["completed"]


@pytest.mark.parametrize(
    ("text", "fails"),
    [
        ("(" * 2000, True),
        ("(" * 2000 + "fox" + ")" * 2000, True),
        ("(fox)" * 2000, False),
        ("\\(" * 2000, False),
    ],
)
def test_brackets_that_are_too_deep_end_in_a_recursion_error(
    comfyui: ComfyUIStandIn, text: str, fails: bool
) -> None:
    workflow = simple_workflow()
    workflow["6"]["inputs"]["text"] = text
    if fails:
        expected = ("CLIPTextEncode", "RecursionError", "maximum recursion depth exceeded")
        assert failure(comfyui, "x", workflow) == expected
    else:
        assert finish(comfyui, "x", workflow)["status"]["completed"]


def test_a_broken_model_fails_at_its_loader_until_it_is_whole_again(
    comfyui: ComfyUIStandIn,
) -> None:
    broken, whole = comfyui.models[:2]
    comfyui.broken_models = {broken}
    assert failure(comfyui, "broken", simple_workflow(broken)) == (
        "CheckpointLoaderSimple",
        "safetensors_rust.SafetensorError",
        "Error while deserializing header: header too large",
    )
    assert finish(comfyui, "another", simple_workflow(whole))["status"]["completed"]
    comfyui.broken_models = set()
    assert finish(comfyui, "repaired", simple_workflow(broken))["status"]["completed"]


def test_out_of_memory_fails_at_the_sampler_with_the_tips_of_comfyui(
    comfyui: ComfyUIStandIn,
) -> None:
    comfyui.fail_next("torch.OutOfMemoryError", "Allocation on device 0")
    expected = ("KSampler", "torch.OutOfMemoryError", "Allocation on device 0")
    assert failure(comfyui, "x", simple_workflow()) == expected
    message = comfyui.history["x"]["status"]["messages"][-1][1]["exception_message"]
    assert "TIPS: If the workflow worked before" in message


def test_an_interrupted_prompt_ends_at_once_and_a_deleted_one_leaves_no_trace(
    comfyui: ComfyUIStandIn,
) -> None:
    comfyui.hold()
    post(comfyui, "running", simple_workflow(seed=1))
    post(comfyui, "waiting", simple_workflow(seed=2))
    comfyui.wait_for(lambda c: c.held == "running")
    requests.post(comfyui.url + "/queue", json={"delete": ["waiting"]}, timeout=5)
    requests.post(comfyui.url + "/interrupt", json={"prompt_id": "another"}, timeout=5)
    assert comfyui.held == "running"
    requests.post(comfyui.url + "/interrupt", json={"prompt_id": "running"}, timeout=5)
    comfyui.wait_for(lambda c: c.interrupted == ["running"] and not c.running)
    assert list(comfyui.history) == ["running"]
    assert comfyui.history["running"]["status"]["status_str"] == "error"


def listen(
    comfyui: ComfyUIStandIn, act: Callable[[], object], first: dict[str, Any] | None = None
) -> tuple[list[dict[str, Any]], list[bytes]]:
    """The events and the binary frames of the client "bot", until its prompt has ended.

    It says `first`, waits until that is heard, and then does `act`.
    """

    async def run() -> tuple[list[dict[str, Any]], list[bytes]]:
        events, frames = [], []
        address = comfyui.url.replace("http", "ws") + "/ws?clientId=bot"
        async with aiohttp.ClientSession() as session, session.ws_connect(address) as feed:
            assert (await feed.receive_json())["data"]["sid"] == "bot"
            if first:
                await feed.send_json(first)
                assert (await feed.receive_json())["type"] == first["type"]
            await asyncio.to_thread(act)
            while True:
                message = await feed.receive(timeout=5)
                if message.type is aiohttp.WSMsgType.BINARY:
                    frames.append(message.data)
                    continue
                events.append(json.loads(message.data))
                if events[-1]["type"] == "executing" and events[-1]["data"]["node"] is None:
                    return events, frames

    return asyncio.run(run())


def test_the_feed_tells_the_client_how_its_prompt_goes(comfyui: ComfyUIStandIn) -> None:
    def act() -> None:
        comfyui.submit_foreign()
        post(comfyui, "x", simple_workflow(steps=2))

    heard, frames = listen(comfyui, act)
    assert frames == []
    assert {event["data"].get("prompt_id", "x") for event in heard} == {"x"}
    kinds = ["progress", "execution_start", "execution_cached", "executed", "execution_success"]
    events = [event["type"] for event in heard if event["type"] in kinds]
    assert events == [*kinds[1:3], "progress", "progress", *kinds[3:]]


WANTS_METADATA = {"type": "feature_flags", "data": {"supports_preview_metadata": True}}


def steps_shown(
    comfyui: ComfyUIStandIn, *, asks_for: str | None = None, flags: bool = False, **node: Any
) -> list[bytes]:
    """The previews of a prompt of three steps whose sampler has the inputs `node` too."""
    workflow = simple_workflow(steps=3)
    if node:
        workflow["3"]["class_type"] = "KSampler (Efficient)"
        workflow["3"]["inputs"] |= {"vae_decode": "false", **node}
        workflow["8"]["inputs"]["samples"] = ["3", 3]
    body: dict[str, Any] = {"prompt": workflow, "client_id": "bot", "prompt_id": str(uuid.uuid4())}
    if asks_for:
        body["extra_data"] = {"preview_method": asks_for}
    first = WANTS_METADATA if flags else None
    url = comfyui.url + "/prompt"
    _, frames = listen(comfyui, lambda: requests.post(url, json=body, timeout=5), first)
    assert comfyui.preview_methods[-1] == asks_for
    return frames


@pytest.mark.parametrize(("image_format", "number"), [("JPEG", 1), ("PNG", 2)])
def test_a_preview_of_each_step_is_another_picture(
    comfyui: ComfyUIStandIn, image_format: str, number: int
) -> None:
    comfyui.preview_method, comfyui.preview_format = "auto", image_format
    frames = steps_shown(comfyui)
    assert [struct.unpack(">II", frame[:8]) for frame in frames] == [(1, number)] * 3
    assert len(set(frames)) == 3
    assert comfyui.feature_flags == {}
    start = {"JPEG": b"\xff\xd8\xff\xe0", "PNG": b"\x89PNG"}[image_format]
    assert all(frame[8:].startswith(start) for frame in frames)


def test_a_preview_names_its_prompt_to_a_client_that_says_it_can_read_that(
    comfyui: ComfyUIStandIn,
) -> None:
    comfyui.preview_method = "latent2rgb"
    frames = steps_shown(comfyui, flags=True)
    assert comfyui.feature_flags == {"bot": {"supports_preview_metadata": True}}
    assert len(frames) == 3
    for frame in frames:
        kind, length = struct.unpack(">II", frame[:8])
        assert kind == 4
        metadata = json.loads(frame[8 : 8 + length])
        assert metadata == {
            "node_id": "3",
            "display_node_id": "3",
            "parent_node_id": None,
            "real_node_id": "3",
            "prompt_id": comfyui.posted[0][0],
            "image_type": "image/jpeg",
        }
        assert frame[8 + length :].startswith(b"\xff\xd8")


def test_feature_flags_count_as_the_first_message_of_a_newer_server_only(
    comfyui: ComfyUIStandIn,
) -> None:
    async def say(*messages: dict[str, Any]) -> None:
        address = comfyui.url.replace("http", "ws") + "/ws?clientId=bot"
        async with aiohttp.ClientSession() as session, session.ws_connect(address) as feed:
            for message in messages:
                await feed.send_json(message)

    asyncio.run(say({"type": "hello"}, WANTS_METADATA))
    comfyui.progress_state = False
    asyncio.run(say(WANTS_METADATA))
    comfyui.wait_for(lambda c: not c.listeners)
    assert comfyui.feature_flags == {}


@pytest.mark.parametrize(
    ("newest", "started_with", "asks_for", "shown"),
    [
        (False, "none", "latent2rgb", 0),
        (False, "taesd", "none", 3),
        (True, "none", "latent2rgb", 3),
        (True, "none", None, 0),
        (True, "auto", "none", 0),
        (True, "auto", None, 3),
        (True, "none", "something else", 0),
    ],
)
def test_a_prompt_chooses_its_previews_on_the_newest_servers_only(
    comfyui: ComfyUIStandIn, newest: bool, started_with: str, asks_for: str | None, shown: int
) -> None:
    comfyui.newest, comfyui.preview_method = newest, started_with
    assert len(steps_shown(comfyui, asks_for=asks_for)) == shown


@pytest.mark.parametrize(("own", "shown"), [("none", 0), ("auto", 3)])
def test_an_efficient_sampler_follows_its_own_input(
    comfyui: ComfyUIStandIn, own: str, shown: int
) -> None:
    comfyui.newest = True
    asks_for = "none" if shown else "auto"
    assert len(steps_shown(comfyui, asks_for=asks_for, preview_method=own)) == shown


@pytest.mark.parametrize("kind", ["reset", "502", "lost answer", "half json", "bad json"])
def test_a_fault_spoils_one_request(comfyui: ComfyUIStandIn, kind: str) -> None:
    comfyui.fault("POST /prompt", kind)
    with pytest.raises((requests.RequestException, AssertionError)):
        assert post(comfyui, "x", simple_workflow()).json()["prompt_id"]
    processed = kind not in ("reset", "502")
    assert [prompt_id for prompt_id, _ in comfyui.posted] == ["x"] * processed
    assert get(comfyui, "/queue").status_code == 200


def test_a_restart_forgets_all_but_the_saved_pictures(comfyui: ComfyUIStandIn) -> None:
    finish(comfyui, "old", simple_workflow())
    comfyui.hold()
    post(comfyui, "lost", simple_workflow(seed=2))
    comfyui.wait_for(lambda c: c.held == "lost")
    comfyui.go_down()
    with pytest.raises(requests.ConnectionError):
        get(comfyui, "/queue")
    comfyui.come_up()
    assert get(comfyui, "/queue").json()["queue_running"][0][1] == "lost"
    comfyui.restart()
    assert get(comfyui, "/history").json() == {}
    assert get(comfyui, "/queue").json() == {"queue_running": [], "queue_pending": []}
    assert get(comfyui, "/view", filename=next(iter(comfyui.pictures))).status_code == 200


def test_stop_ends_the_thread_whatever_hangs() -> None:
    before = set(threading.enumerate())
    comfyui = ComfyUIStandIn().start()
    comfyui.fault("GET /queue", "hang")
    failed: list[Exception] = []

    def ask() -> None:
        try:
            get(comfyui, "/queue")
        except requests.ConnectionError as exc:
            failed.append(exc)

    asking = threading.Thread(target=ask)
    asking.start()
    comfyui.wait_for(lambda c: bool(c.requests))
    comfyui.stop()
    asking.join(5)
    assert failed
    assert not [t for t in set(threading.enumerate()) - before if t.name == "comfyui-stand-in"]


@pytest.mark.parametrize(
    ("kind", "status", "size"),
    [("403", 403, 0), ("404", 404, 0), ("svg", 200, 62), ("too large", 200, 101 * 2**20)],
)
def test_one_picture_of_two_can_be_bad(
    comfyui: ComfyUIStandIn, kind: str, status: int, size: int
) -> None:
    comfyui.pictures_per_prompt, comfyui.bad_pictures = 2, {1: kind}
    good, bad = finish(comfyui, "two", simple_workflow())["outputs"]["9"]["images"]
    assert get(comfyui, "/view", **good).status_code == 200
    answer = get(comfyui, "/view", **bad)
    assert (answer.status_code, len(answer.content)) == (status, size)


def test_in_an_error_state_everything_fails_until_a_restart(comfyui: ComfyUIStandIn) -> None:
    comfyui.error_state = ("RuntimeError", "CUDA error: unspecified launch failure")
    for name in ("first", "second"):
        entry = finish(comfyui, name, simple_workflow())
        assert entry["status"]["messages"][-1][1]["exception_type"] == "RuntimeError"
    comfyui.restart()
    assert finish(comfyui, "third", simple_workflow())["status"]["status_str"] == "success"


def test_a_history_can_be_cleared_at_the_end_of_a_prompt(comfyui: ComfyUIStandIn) -> None:
    comfyui.histories_cleared = 1
    assert post(comfyui, "gone", simple_workflow()).status_code == 200
    comfyui.wait_for(lambda c: "gone" in c.finished)
    assert get(comfyui, "/history/gone").json() == {}
    assert finish(comfyui, "kept", simple_workflow())["status"]["status_str"] == "success"


def test_pictures_can_have_moved(comfyui: ComfyUIStandIn) -> None:
    comfyui.moved_to = f"{comfyui.url}/api"
    (image,) = finish(comfyui, "moved", simple_workflow())["outputs"]["9"]["images"]
    answer = get(comfyui, "/view", **image)
    assert [step.status_code for step in (*answer.history, answer)] == [302, 200]
