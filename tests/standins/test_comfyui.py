"""The stand-in for ComfyUI behaves as comfyui.md says of the real one."""

from __future__ import annotations

import asyncio
import json
import threading
import zlib
from typing import Any

import aiohttp
import pytest
import requests

from tests.standins.comfyui.nodes import simple_workflow
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


def test_a_bad_output_is_dropped_and_the_good_one_runs(comfyui: ComfyUIStandIn) -> None:
    workflow = simple_workflow()
    workflow["10"] = {"class_type": "SaveImage", "inputs": {"images": ["8", 0]}}
    answer = post(comfyui, "x", workflow)
    assert answer.status_code == 200
    assert list(answer.json()["node_errors"]) == ["10"]
    comfyui.wait_for(lambda c: "x" in c.finished)
    assert list(comfyui.history["x"]["outputs"]) == ["9"]


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


def test_the_feed_tells_the_client_how_its_prompt_goes(comfyui: ComfyUIStandIn) -> None:
    async def listen() -> list[str]:
        events = []
        address = comfyui.url.replace("http", "ws") + "/ws?clientId=bot"
        async with aiohttp.ClientSession() as session, session.ws_connect(address) as feed:
            assert (await feed.receive_json())["data"]["sid"] == "bot"
            await asyncio.to_thread(comfyui.submit_foreign)
            await asyncio.to_thread(post, comfyui, "x", simple_workflow(steps=2))
            while True:
                frame = await feed.receive(timeout=5)
                if frame.type is aiohttp.WSMsgType.TEXT:
                    event = json.loads(frame.data)
                    assert event["data"].get("prompt_id", "x") == "x"
                    events.append(event["type"])
                    if event["type"] == "executing" and event["data"]["node"] is None:
                        return events

    kinds = ["progress", "execution_start", "execution_cached", "executed", "execution_success"]
    events = [event for event in asyncio.run(listen()) if event in kinds]
    assert events == [*kinds[1:3], "progress", "progress", *kinds[3:]]


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
