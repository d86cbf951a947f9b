"""How the stand-in's ComfyUI works through its queue: steps, events, cache, faults, results."""

from __future__ import annotations

import asyncio
import json
import random
import string
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.standins.comfyui.feed import Feed
from tests.standins.comfyui.graph import batch_size_of, inputs_of, size_of, steps_of, upstream_of
from tests.standins.comfyui.nodes import OWNERS_DISK, TRACEBACK, Json, installed_nodes
from tests.standins.comfyui.pictures import Drawing, draw, draw_step, png_of
from tests.standins.comfyui.prompts import (
    execution_order,
    is_link,
    signatures_of,
    text_fault,
)
from tests.standins.comfyui.uploads import EXAMPLE, EXAMPLE_DATA, Loaded, NotAnImage, load

Item = tuple[float, str, Json, Json, list[str]]  # number, prompt id, prompt, extra data, outputs

PICTURES_KEPT = 200
DRAW_EVERY = 0.05  # seconds; nobody sees more, and it takes some milliseconds
PREVIEW_METHODS = ("auto", "latent2rgb", "taesd")  # all others show nothing
BROKEN_MODEL = (
    "safetensors_rust.SafetensorError",
    "Error while deserializing header: header too large",
)
OUT_OF_MEMORY_TIPS = (
    "This error means you ran out of memory on your GPU.\n\n"
    "TIPS: If the workflow worked before you might have accidentally set the batch_size to a large "
    "number."
)


@dataclass
class Run:
    """The prompt in execution."""

    item: Item
    prompt_id: str
    prompt: Json
    client_id: str | None
    order: list[str]
    signatures: dict[str, str]
    preview_method: str
    messages: list[list[Any]] = field(default_factory=list)
    progress: Json = field(default_factory=dict)
    executed: list[str] = field(default_factory=list)
    outputs: Json = field(default_factory=dict)
    meta: Json = field(default_factory=dict)
    node_id: str = ""
    drawn: bytes = b""  # the last preview
    drawn_at: float = -1.0  # monotonic time


class _Interrupted(Exception):
    pass


class _NodeFailed(Exception):
    """With the exception type and the message that it stands for."""


class Execution:
    """The queue and what is made of it, in the server's thread: all of the stand-in that has
    nothing to do with HTTP. Its settings and records are described at ComfyUIStandIn."""

    def __init__(self) -> None:
        self.object_info = installed_nodes()
        self.seconds_per_step = 0.0
        self.history_delay = 0.001
        self.picture_size: tuple[int, int] | None = (192, 192)
        self.picture_bytes = 0
        self.pictures_per_prompt: int | None = None
        self.saved_as = ("images", ".png")
        self.progress_state = True
        self.preview_method = "none"
        self.preview_format = "JPEG"
        self.broken_models: set[str] = set()
        self.newest = False
        self.error_state: tuple[str, str] | None = None
        self.bad_pictures: dict[int, str] = {}
        self.histories_cleared = 0
        self.tells_executed = True

        self.executed: list[str] = []
        self.finished: list[str] = []
        self.interrupted: list[str] = []
        self.uploads: dict[str, bytes] = {EXAMPLE: EXAMPLE_DATA}
        self.history: dict[str, Json] = {}

        self._wakeup, self._queue_filled = asyncio.Event(), asyncio.Event()
        self._changed = threading.Condition()
        self._changes = 0
        self._feed = Feed(self._happened)
        self._pending: list[Item] = []
        self._run: Run | None = None
        self._cache: dict[str, Json | None] = {}  # signature of a node → what it put into history
        self._files: dict[tuple[str, str, str], bytes] = {}  # (type, subfolder, filename) → bytes
        self._bad_files: dict[tuple[str, str, str], str] = {}  # key of _files → how it is bad
        self._counters: dict[str, int] = {}
        self._failures: list[tuple[str, str, str | None]] = []
        self._interrupting = self._holding = False
        self._permits = 0
        self._held = ""

    def _happened(self) -> None:
        with self._changed:
            self._changes += 1
            self._changed.notify_all()

    def _queue_info(self) -> Json:
        return {"exec_info": {"queue_remaining": len(self._pending) + bool(self._run)}}

    def _queue_updated(self) -> None:
        self._feed.send("status", {"status": self._queue_info()})
        self._happened()

    def _say(self, run: Run, event: str, *, broadcast: bool = False, **data: Any) -> None:
        """A message of the prompt's status: kept for the history and sent to its client."""
        data = {"prompt_id": run.prompt_id, **data, "timestamp": int(time.time() * 1000)}
        run.messages.append([event, data])
        if run.client_id is not None or broadcast:
            self._feed.send(event, data, run.client_id)

    def _progress(
        self, run: Run, node_id: str, value: float, most: float, state: str = "running"
    ) -> None:
        ids = _ids(run, node_id)
        run.progress[node_id] = {"value": value, "max": most, "state": state, **ids}
        if self.progress_state:
            data = {"prompt_id": run.prompt_id, "nodes": dict(run.progress)}
            self._feed.send("progress_state", data, run.client_id)
        self._happened()

    # --- execution ---

    async def _work(self) -> None:
        while True:
            while not self._pending:
                self._queue_filled.clear()
                await self._queue_filled.wait()
            item = self._pending.pop(0)
            _, prompt_id, prompt, extra, outputs = item
            order = execution_order(prompt, outputs)
            signatures = signatures_of(prompt, order, lambda name: self._file(name) or b"")
            client_id, method = extra.get("client_id"), self._preview_method(extra)
            run = Run(item, prompt_id, prompt, client_id, order, signatures, method)
            self._run = run
            self._interrupting = False
            self._queue_updated()
            success = await self._execute(run)
            await asyncio.sleep(self.history_delay)
            status = {"status_str": "success" if success else "error", "completed": success}
            if success and self.histories_cleared:
                self.histories_cleared -= 1
            else:
                self.history[run.prompt_id] = {
                    "prompt": item,
                    "outputs": run.outputs,
                    "status": {**status, "messages": run.messages},
                    "meta": run.meta,
                }
            self._run = None
            self.finished.append(run.prompt_id)
            self._queue_updated()
            if run.client_id is not None:
                end = {"node": None, "prompt_id": run.prompt_id}
                self._feed.send("executing", end, run.client_id)

    async def _execute(self, run: Run) -> bool:
        """Run the nodes of a prompt that aren't cached; True if it succeeded."""
        self._say(run, "execution_start")
        kept = set(run.signatures.values())
        self._cache = {key: ui for key, ui in self._cache.items() if key in kept}
        failure = self._failures.pop(0) if self._failures else None
        if self.error_state:
            failure = (*self.error_state, None)
        last = self._failing_node(run, failure[2]) if failure else run.order[-1]
        if failure:
            self._cache.pop(run.signatures[last], None)
        cached = [node_id for node_id in run.order if run.signatures[node_id] in self._cache]
        self._say(run, "execution_cached", nodes=cached)
        if len(cached) < len(run.order):
            self.executed.append(run.prompt_id)
        try:
            for node_id in run.order:
                run.node_id = node_id
                if node_id not in cached:
                    await self._run_steps(run, node_id)
                    self._check(run, node_id)
                if node_id == last:
                    await self._wait_while_held(run)
                    if failure:
                        raise _NodeFailed(*failure[:2])
                if node_id not in cached:
                    self._cache[run.signatures[node_id]] = self._result(run, node_id)
                    run.executed.append(node_id)
                self._finish_node(run, node_id, self._cache[run.signatures[node_id]])
            self._say(run, "execution_success")
            return True
        except _Interrupted:
            self.interrupted.append(run.prompt_id)
            self._say(run, "execution_interrupted", broadcast=True, **self._where(run))
        except Exception as exc:
            trouble = exc.args if isinstance(exc, _NodeFailed) else (type(exc).__name__, str(exc))
            self._say(run, "execution_error", **self._where(run), **self._trouble(run, *trouble))
        finally:
            self._held = run.node_id = ""
        return False

    def _check(self, run: Run, node_id: str) -> None:
        """Raise what a real node does over its inputs."""
        encodes = run.prompt[node_id]["class_type"].startswith("CLIPTextEncode")
        if run.prompt[node_id]["class_type"] == "LoadImage":
            self._load(run.prompt, node_id)
        for value in inputs_of(run.prompt, node_id).values():
            trouble = text_fault(value) if encodes and isinstance(value, str) else None
            if isinstance(value, str) and value in self.broken_models:
                trouble = BROKEN_MODEL
            if trouble:
                raise _NodeFailed(*trouble)

    def _failing_node(self, run: Run, wanted: str | None) -> str:
        samplers = [node_id for node_id in run.order if steps_of(run.prompt, node_id)]
        return wanted if wanted in run.order else [*samplers, run.order[-1]][0]

    def _where(self, run: Run) -> Json:
        kind = run.prompt[run.node_id]["class_type"]
        return {"node_id": run.node_id, "node_type": kind, "executed": list(run.executed)}

    def _trouble(self, run: Run, exception_type: str, message: str) -> Json:
        tips = OUT_OF_MEMORY_TIPS if "OutOfMemory" in exception_type else ""
        inputs: Json = {
            name: [f"<torch.Tensor object at 0x{id(value):x}>" if is_link(value) else value]
            for name, value in run.prompt[run.node_id]["inputs"].items()
        }
        return {
            "exception_message": f"{message}\n{tips}",
            "exception_type": exception_type,
            "traceback": TRACEBACK,
            "current_inputs": {**inputs, "prompt": [str(run.prompt)]},
            "current_outputs": list(run.executed),
        }

    async def _run_steps(self, run: Run, node_id: str) -> None:
        self._progress(run, node_id, 0.0, 1.0)
        if run.client_id is not None:
            data = {"node": node_id, "display_node": node_id, "prompt_id": run.prompt_id}
            self._feed.send("executing", data, run.client_id)
        await self._pause()
        steps = steps_of(run.prompt, node_id)
        for step in range(1, steps + 1):
            await self._pause(self.seconds_per_step)
            self._progress(run, node_id, step, steps)
            value = {"value": step, "max": steps, "prompt_id": run.prompt_id, "node": node_id}
            self._feed.send("progress", value, run.client_id)
            self._show(run, node_id, step / steps)

    def _preview_method(self, extra: Json) -> str:
        """What applies to a prompt: the newest servers let it choose."""
        wanted = extra.get("preview_method")
        known = self.newest and wanted in ("none", *PREVIEW_METHODS)
        return str(wanted) if known else self.preview_method

    def _show(self, run: Run, node_id: str, part: float) -> None:
        """Send a preview, if they are on. Those of the Efficiency Nodes have their own say."""
        inputs = run.prompt[node_id]["inputs"]
        method = inputs.get("preview_method", run.preview_method)
        if run.client_id is None or method not in PREVIEW_METHODS:
            return
        nodes = [run.prompt[other] for other in run.order]
        saving = [node for node in nodes if node["class_type"] in ("SaveImage", "PreviewImage")]
        source = saving[0]["inputs"]["images"][0] if saving else node_id
        seed, size = f"{run.signatures[source]} 0".encode(), self._size(run.prompt, node_id)
        now = time.monotonic()
        if now >= run.drawn_at + DRAW_EVERY:
            run.drawn = draw_step(seed, size, part, self.preview_format)
            run.drawn_at = now
        picture = run.drawn + f"{node_id} {part}".encode()  # which nobody sees after its end
        self._feed.send_preview(self.preview_format, picture, _ids(run, node_id), run.client_id)

    async def _wait_while_held(self, run: Run) -> None:
        if not self._holding:
            return
        self._held = run.prompt_id
        self._happened()
        await self._pause(None, lambda: not self._holding or self._permits > 0)
        self._permits = max(0, self._permits - 1)

    async def _pause(
        self, seconds: float | None = 0, until: Callable[[], bool] = lambda: False
    ) -> None:
        """Let others run, wait for `seconds` or `until`; an interrupt ends the prompt here."""
        await asyncio.sleep(0)
        while seconds != 0 and not (self._interrupting or until()):
            self._wakeup.clear()
            try:
                await asyncio.wait_for(self._wakeup.wait(), seconds)
            except asyncio.TimeoutError:
                break
        if self._interrupting:
            raise _Interrupted

    def _finish_node(self, run: Run, node_id: str, ui: Json | None) -> None:
        if ui is not None:
            run.outputs[node_id] = ui
            run.meta[node_id] = {"node_id": node_id, "display_node": node_id}
            run.meta[node_id] |= {"parent_node": None, "real_node_id": node_id}
            if run.client_id is not None and self.tells_executed:
                data = {"node": node_id, "display_node": node_id, "output": ui}
                self._feed.send("executed", {**data, "prompt_id": run.prompt_id}, run.client_id)
        most = run.progress.get(node_id, {}).get("max", 1)
        self._progress(run, node_id, most, most, "finished")

    # --- what the nodes put out ---

    def _result(self, run: Run, node_id: str) -> Json | None:
        """The node's part of `outputs` in the history; None if it has none."""
        inputs, name = run.prompt[node_id]["inputs"], run.prompt[node_id]["class_type"]
        if name in ("SaveImage", "SaveWEBM"):
            prefix = inputs["filename_prefix"]
            return {self.saved_as[0]: self._save(run, "output", inputs["images"][0], prefix)}
        if name == "PreviewImage":
            return {"images": self._save(run, "temp", inputs["images"][0])}
        if "(Efficient)" not in name:
            return None
        decoded, method = self._decodes(inputs), inputs["preview_method"]
        if method == "none" or (method == "vae_decoded_only" and not decoded):
            return {"images": []}
        return {"images": self._save(run, "temp", node_id)} if decoded else None

    def _decodes(self, inputs: Json) -> bool:
        return "true" in inputs["vae_decode"] and "optional_vae" in inputs

    def _save(self, run: Run, kind: str, source: str, prefix: str = "") -> list[Json]:
        """Draw the pictures that come out of the node `source`, and put them on the "disk"."""
        if kind == "temp":
            prefix = "ComfyUI_temp_" + "".join(random.choices(string.ascii_lowercase, k=5))
        subfolder, _, stem = prefix.rpartition("/")
        size = self._size(run.prompt, source)
        count = batch_size_of(run.prompt, execution_order(run.prompt, [source]))
        node = run.prompt[source]
        if "(Efficient)" in node["class_type"] and not self._decodes(node["inputs"]):
            size, count = (1, 1), 1  # its empty image
        if (loading := self._loading(run.prompt, source)) is not None:
            count = self._load(run.prompt, loading).frames
        if self.pictures_per_prompt is not None:
            count = self.pictures_per_prompt
        infos = run.item[3].get("extra_pnginfo", {})
        texts = {key: json.dumps(info) for key, info in {"prompt": run.prompt, **infos}.items()}
        images = []
        for index in range(count):
            number = self._counters[prefix] = self._counters.get(prefix, 0) + 1
            filename = f"{stem}_{number:05}_{self.saved_as[1] if kind == 'output' else '.png'}"
            seed = f"{run.signatures[source]} {index}".encode()
            drawing = self._drawing(run.prompt, source, seed, size)
            picture = png_of(drawing, texts, self.picture_bytes)
            self._files[kind, subfolder, filename] = picture
            if index in self.bad_pictures:
                self._bad_files[kind, subfolder, filename] = self.bad_pictures[index]
            images.append({"filename": filename, "subfolder": subfolder, "type": kind})
        for key in list(self._files)[:-PICTURES_KEPT]:
            del self._files[key]
        return images

    def _size(self, prompt: Json, node_id: str) -> tuple[int, int]:
        if self.picture_size and self._loading(prompt, node_id) is None:
            return self.picture_size
        return size_of(
            self.object_info, prompt, node_id, lambda node: self._load(prompt, node).size
        )

    def _drawing(self, prompt: Json, source: str, seed: bytes, size: tuple[int, int]) -> Drawing:
        """A new landscape, or the loaded picture with its colours changed by the samplers."""
        loading = self._loading(prompt, source)
        if loading is None:
            return draw(seed, size)
        drawing = self._load(prompt, loading).drawing.resized(size)
        nodes = upstream_of(self.object_info, prompt, source)
        samplers = [inputs_of(prompt, node) for node in nodes if steps_of(prompt, node)]
        part = max((float(inputs.get("denoise", 1)) for inputs in samplers), default=0.0)
        return drawing.restyled(seed, part) if part else drawing

    def _loading(self, prompt: Json, node_id: str) -> str | None:
        """The node that loads the picture that leaves another node, if one does."""
        last = upstream_of(self.object_info, prompt, node_id)[-1]
        return last if prompt[last]["class_type"] == "LoadImage" else None

    def _file(self, name: str) -> bytes | None:
        """The file of an annotated name: `sub/name.png`, `sub/name.png [output]`."""
        path, _, kind = name.rpartition(" [")
        if kind in ("output]", "temp]"):
            subfolder, _, filename = path.rpartition("/")
            return self._files.get((kind[:-1], subfolder, filename))
        return self.uploads.get(name.removesuffix(" [input]"))

    def _load(self, prompt: Json, node_id: str) -> Loaded:
        name = str(inputs_of(prompt, node_id)["image"])
        path, data = f"{OWNERS_DISK}/input/{name}", self._file(name)
        if data is None:
            message = f"[Errno 2] No such file or directory: '{path}'"
            raise _NodeFailed("FileNotFoundError", message)
        try:
            return load(data)
        except NotAnImage as exc:
            raise _NodeFailed("PIL.UnidentifiedImageError", f"{exc} '{path}'") from exc


def _ids(run: Run, node_id: str) -> Json:
    """How the events of ComfyUI name a node."""
    return {
        "node_id": node_id,
        "prompt_id": run.prompt_id,
        "display_node_id": node_id,
        "parent_node_id": None,
        "real_node_id": node_id,
    }
