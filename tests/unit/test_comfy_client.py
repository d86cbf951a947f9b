"""comfy_client.py: what is asked of a ComfyUI, and what is made of everything it may answer.

The meaning of answers is tested with requests-mock; whatever depends on the transport, and the
stopping of prompts, with real sockets: the stand-in's, or one that writes bytes as told.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import socket
import threading
from contextlib import closing, contextmanager
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from requests_mock import ANY

import comfy_client as cc
from comfy_client import ComfyClient, ProgressFeed
from comfyui import errors as ce
from comfyui import progress as cp
from comfyui.errors import first_line
from comfyui.history import ImageRef
from comfyui.object_info import ComfyOptions, ObjectInfo, OptionsMissing
from settings import Server
from tests.standins.comfyui.nodes import simple_workflow
from tests.standins.comfyui.pictures import draw_png
from tests.standins.comfyui.server import ComfyUIStandIn

URL = "http://comfy.test:8188"
ID = "6a1f0c1e-35c9-4b0d-8f3e-0d6a5a1d2b77"
JOBS = f"/api/jobs/{ID}/cancel"
WORKFLOW = simple_workflow()
PNG = draw_png(b"x", (9, 6), {}, 0)
CALLS: dict[str, Any] = {
    "version": lambda client: client.version(),
    "submit": lambda client: client.submit(WORKFLOW, ID),
    "history": lambda client: client.history(ID),
    "queue": lambda client: client.queue(),
    "image": lambda client: client.image(ImageRef("a.png")),
    "cancel": lambda client: client.cancel(ID),
    "upload": lambda client: client.upload(PNG, "a.png"),
    "fetch_options": lambda client: client.object_info().options({}),
}


@pytest.fixture
def client():
    with closing(ComfyClient(Server(URL))) as client:
        yield client


@pytest.fixture
def ask(requests_mock, client):
    """Make a call to a server that gives this answer to every request."""

    def ask(call, answer, status=200):
        requests_mock.register_uri(ANY, ANY, json=answer, status_code=status)
        return CALLS[call](client)

    return ask


@pytest.fixture
def live(comfyui):
    with closing(ComfyClient(Server(comfyui.url))) as client:
        yield client


@contextmanager
def wire(*head, body=()):
    """A client of a server that writes these very bytes, and whether it left before their end."""
    left = threading.Event()

    def serve():
        with listener.accept()[0] as connection:
            connection.recv(2**16)
            try:
                for piece in chain(["\r\n".join([*head, "", ""]).encode()], body):
                    connection.sendall(piece)
            except OSError:
                left.set()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        with closing(
            ComfyClient(Server(f"http://127.0.0.1:{listener.getsockname()[1]}"))
        ) as client:
            yield client, left
        thread.join(5)


def assert_for_people(sentence):
    assert sentence.strip() == sentence[:900]
    assert sentence.endswith(".")
    for leak in ("\n", "SECRET", "://", "Traceback", 'File "', "/home", ":\\", "\\\\", "Tensor"):
        assert leak not in sentence, sentence


def error_of(call, *args):
    with pytest.raises(ce.ComfyError) as caught:
        call(*args)
    assert_for_people(caught.value.user_message)
    return caught.value


# Reachability and the address


def test_ping_says_whether_a_comfyui_answers_and_never_raises(comfyui, live):
    for kind in ("reset", "login page", "redirect", "500", "503", "404", "half json"):
        comfyui.fault("GET /system_stats", kind)
        assert live.ping() is False
        assert live.ping() is True
    comfyui.go_down()
    assert live.ping() is False


@pytest.mark.parametrize("url", ["nonsense", "http://h:99999", "http://192.168..5:8188"])
def test_ping_is_false_for_an_address_where_nothing_can_be(url):
    with closing(ComfyClient(Server(url))) as client:
        assert client.ping() is False


FOUND = "HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: "
STRANGERS = ["220 smtp.example.org ESMTP", "HTTP/1.1 200 " + "x" * 70000, FOUND + "https://login/"]


@pytest.mark.parametrize("head", [*STRANGERS, FOUND + "http://[nowhere"])
def test_ping_is_false_for_a_stranger(head):
    with wire(head) as (client, _):
        assert client.ping() is False


@pytest.mark.parametrize("base", [URL, f"{URL}/", f"{URL}/gpu/comfy", f"{URL}/gpu/comfy/"])
def test_every_route_lies_below_the_base_address_and_every_call_has_time_limits(
    requests_mock, base
):
    requests_mock.register_uri(ANY, ANY, status_code=418)
    with closing(ComfyClient(Server(base))) as client:
        for call in CALLS.values():
            error_of(call, client)
    gets = ("/system_stats", f"/history/{ID}", "/queue", "/view", "/object_info")
    routes = [("GET", path) for path in gets]
    routes += [("POST", path) for path in ("/prompt", "/queue", "/upload/image", JOBS)]
    prefix = urlsplit(base).path.rstrip("/")
    asked = requests_mock.request_history
    assert {(r.method, r.path) for r in asked} == {(verb, prefix + path) for verb, path in routes}
    assert all(len(r.timeout) == 2 and min(r.timeout) > 0 for r in asked)


def test_a_proxy_for_the_web_is_not_asked_for_a_server_on_this_machine(comfyui, monkeypatch):
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with closing(ComfyClient(Server(comfyui.url))) as client:
        assert client.ping()


# The option lists

LOADERS = ["CheckpointLoaderSimpleMikey", "Checkpoint Loader Simple Mikey"]
LOADERS += ["CheckpointLoaderSimple", "A CheckpointLoader of others", "AnotherCheckpointLoader"]
SAMPLERS = ["KSamplerAdvancedEfficient", "KSampler Adv. (Efficient)"]
SAMPLERS += ["KSamplerEfficient", "KSampler (Efficient)", "KSampler"]


def node(shape="classic", kind="required", **lists):
    classic = {name: [values, {"tooltip": "…"}] for name, values in lists.items()}
    v3 = {name: ["COMBO", {"multiselect": False, "options": v}] for name, v in lists.items()}
    return {"input": {"required": {"model": ["MODEL"]}, kind: v3 if shape == "V3" else classic}}


LOADER = {"CheckpointLoaderSimple": node(ckpt_name=["m"])}
SAMPLER = {"KSamplerEfficient": node(sampler_name=["euler"], scheduler=["normal"])}


@pytest.fixture
def options(requests_mock, client):
    def options(info, bound=()):
        requests_mock.get(f"{URL}/object_info", json=info)
        return client.object_info().options(dict(bound))

    return options


@pytest.mark.parametrize("shape", ["classic", "V3"])
@pytest.mark.parametrize("first", range(5))
def test_the_lists_come_from_the_first_class_of_each_chain(options, caplog, first, shape):
    # The server's order counts for the "any other" loaders at the end only.
    found = LOADERS[first:] if first > 2 else LOADERS[first:][::-1]
    info = {name: node(shape, ckpt_name=[name, "z/ä b", "a"]) for name in found}
    for name in reversed(SAMPLERS[first:]):
        info[name] = node(shape, sampler_name=[name, "b", "a"], scheduler=["y", name])
    lists = options({"VAELoader": node(), **info})
    sampler = SAMPLERS[first]
    assert lists.models == (LOADERS[first], "z/ä b", "a")
    assert (lists.samplers, lists.schedulers) == ((sampler, "b", "a"), ("y", sampler))
    warned = [r for r in caplog.records if r.levelname == "WARNING"]
    assert len(warned) == (sampler == "KSampler")


def test_where_nothing_is_found_both_problems_say_what_was_looked_for(options):
    with pytest.raises(OptionsMissing) as caught:
        options({"VAELoader": node(), "Sampler": node()})
    loader, sampler = caught.value.problems
    assert str(caught.value) == f"{loader}; {sampler}"
    for word in (*LOADERS[:3], "any class with CheckpointLoader", "install the Mikey Nodes"):
        assert word in loader
    for word in (*SAMPLERS, "install the Efficiency Nodes"):
        assert word in sampler


@pytest.mark.parametrize(
    ("name", "info", "words"),
    [
        ("CheckpointLoaderSimple", node(ckpt_name=[]), ("no model", "models/checkpoints")),
        ("CheckpointLoaderSimple", node("V3", ckpt_name=[]), ("no model", "models/checkpoints")),
        ("CheckpointLoaderSimple", node(), ("no model",)),
        ("CheckpointLoaderSimple", None, ("no model",)),
        ("Bound", node(scheduler=["other"]), ("no scheduler", "Bound", "KSamplerEfficient")),
        ("Bound", node(sampler_name=[]), ("no sampler_name", "Bound", "KSamplerEfficient")),
        ("Bound", node(ckpt_name=["other"]), ("Bound",)),
    ],
)
def test_an_empty_list_is_refused_and_says_why(options, name, info, words):
    bound = {"Bound": ("ckpt_name", "sampler_name", "scheduler")}
    with pytest.raises(OptionsMissing) as caught:
        options({**LOADER, **SAMPLER, name: info}, bound)
    (problem,) = caught.value.problems
    assert all(word in problem for word in words), problem


def test_only_what_every_bound_class_accepts_is_offered_in_the_order_of_the_list(options, caplog):
    info = {
        "KSampler (Efficient)": node(
            sampler_name=["c", "a", "b"], scheduler=["z", "d", "GITS", "k"]
        ),
        "Detailer": node("V3", sampler_name=["b", "c"], scheduler=["k", "d", "GITS[x=1.2]", "z"]),
        "Free": {"input": {"optional": {"scheduler": ["STRING", {}]}}},
        "Half": node(kind="optional", sampler_name=["x"], scheduler=["k", "z", "GITS"]),
        "Not bound": node(sampler_name=[], scheduler=[]),
    }
    bound = dict.fromkeys(("Detailer", "Free", "Unheard"), ("sampler_name", "scheduler"))
    lists = options({**LOADER, **info}, {**bound, "Half": ("scheduler",)})
    assert lists == ComfyOptions(("m",), ("c", "b"), ("z", "k"))
    (warning,) = caplog.records
    assert "Unheard" in warning.getMessage()


def limited(**most):
    """A class whose inputs have these limits."""
    inputs = {name: ["INT", {"default": 0, "min": 0, "max": m}] for name, m in most.items()}
    return {"input": {"required": {"model": ["MODEL"], **inputs}}}


def test_the_largest_value_of_an_input_is_read_wherever_the_class_has_it():
    optional = {"seed": ["INT", {"max": 2**50}], "steps": ["INT", {"max": 9}]}
    info = ObjectInfo(
        {
            "A": limited(seed=2**64 - 1, steps=10_000),
            "B": limited(noise_seed=2**32 - 1, seed=7),
            "C": {"input": {"required": {}, "optional": optional}},
            "D": {"input": {"optional": {"seed": ["INT", {"max": 1}]}, **limited(seed=2)["input"]}},
        }
    )
    assert info.maxima(("seed", "noise_seed")) == {
        ("A", "seed"): 2**64 - 1,
        ("B", "noise_seed"): 2**32 - 1,
        ("B", "seed"): 7,
        ("C", "seed"): 2**50,
        ("D", "seed"): 2,
    }


NO_LIMITS = [["INT"], ["INT", {}], ["INT", {"max": None}], ["INT", {"max": "9"}], ["INT", 9], []]
NO_LIMITS += ["INT", None, {"max": 9}, [["a"], {"tooltip": "…"}], ["INT", {"max": True}]]
NO_LIMITS += [["INT", {"max": -1}], ["FLOAT", {"max": 9}], ["FLOAT", {"max": 0.5}]]


@pytest.mark.parametrize("spec", NO_LIMITS, ids=str)
def test_an_input_that_tells_no_largest_whole_number_has_none(spec):
    for group in ("required", "optional"):
        assert ObjectInfo({"A": {"input": {group: {"seed": spec}}}}).maxima(("seed",)) == {}
    for entry in (None, [], {}, {"input": None}, {"input": {"required": None}}):
        assert ObjectInfo({"A": entry}).maxima(("seed",)) == {}


def test_the_limits_come_with_the_lists_of_a_real_server(live):
    maxima = live.object_info().maxima(("seed", "noise_seed"))
    assert maxima["FaceDetailer", "seed"] == 2**64 - 1
    assert maxima["KSampler Adv. (Efficient)", "noise_seed"] == 2**64 - 1


# Submitting


def not_in_list(value, **extra):
    fault: dict[str, Any] = {"type": "value_not_in_list", "message": "Value not in list"}
    fault["details"] = f"ckpt_name: '{value}' not in ['/home/owner/SECRET.ckpt', 'b']"
    fault["extra_info"] = {**extra, "traceback": ['File "/home/owner/SECRET.py", line 1']}
    return {"152": {"class_type": "A Loader", "errors": [fault]}}


def test_a_prompt_is_posted_with_our_ids_and_the_id_in_the_answer_counts(
    ask, requests_mock, client
):
    assert ask("submit", {"prompt_id": ID, "number": 3, "node_errors": {}}) == ID
    body = {"prompt": WORKFLOW, "client_id": client.client_id, "prompt_id": ID}
    body["extra_data"] = {"comfygen_id": ID}
    assert requests_mock.last_request.json() == body
    assert len(client.client_id) > 8
    assert ask("submit", {"prompt_id": "of an older server"}) == "of an older server"


@pytest.mark.parametrize(
    ("faults", "value"),
    [
        (not_in_list("nope.ckpt"), "nope.ckpt"),
        (not_in_list("it's [1].ckpt"), "it's [1].ckpt"),
        (not_in_list("?", input_name="ckpt_name", received_value="SD/a (1)/c"), "SD/a (1)/c"),
        (not_in_list("?", received_value="SDXL\\a b.ckpt"), "SDXL\\a b.ckpt"),
    ],
)
def test_a_value_in_no_list_is_a_fault_of_its_input_and_named_in_the_log(
    ask, requests_mock, faults, value
):
    error = {"type": "prompt_outputs_failed_validation", "message": "No", "details": "…"}
    rejected = error_of(ask, "submit", {"error": error, "node_errors": faults}, 400)
    dropped = error_of(ask, "submit", {"prompt_id": "theirs", "node_errors": faults})
    assert requests_mock.last_request.path == "/api/jobs/theirs/cancel"
    assert (rejected.was_queued, dropped.was_queued) == (False, True)
    for each in (rejected, dropped):
        assert type(each) is ce.Rejected
        (fault,) = each.faults
        assert (fault.kind, fault.name) == (ce.NOT_IN_LIST, "ckpt_name")
        assert (fault.node, fault.value) == ("152", value)
        assert each.user_message == ce.Rejected.user_message
        for word in ("152", "A Loader", "ckpt_name", "Value not in list"):
            assert word in str(each)


def test_several_faults_of_a_node_are_all_kept_and_all_in_the_log(ask):
    faults = [
        {"type": "value_bigger_than_max", "message": f"No {name}", "details": f"{name}: …"}
        for name in ("seed", "steps")
    ]
    node_errors = {"7": {"class_type": "A Node", "errors": faults}}
    rejected = error_of(ask, "submit", {"node_errors": node_errors}, 400)
    assert [(fault.node, fault.name) for fault in rejected.faults] == [
        ("7", "seed"),
        ("7", "steps"),
    ]
    for word in ("node 7 (A Node), input seed", "No seed", "input steps", "No steps"):
        assert word in str(rejected)


def test_dropped_outputs_are_a_refusal_even_if_the_rest_cannot_be_stopped(comfyui, live, caplog):
    comfyui.fault("POST /jobs", "503")
    bad_output = {"class_type": "KSampler (Efficient)", "inputs": {}}
    error = error_of(live.submit, {**WORKFLOW, "10": bad_output}, ID)
    assert type(error) is ce.Rejected
    assert ID in caplog.text


OLD_MISSING = ("invalid_prompt", "Cannot execute because node Nope does not exist.")
NEW_MISSING = ("missing_node_type", "Node 'Nope' not found. It may not be installed.")


@pytest.mark.parametrize(("kind", "message"), [OLD_MISSING, NEW_MISSING])
def test_a_missing_node_is_for_the_owner_and_the_log_names_it(ask, kind, message):
    error = {"type": kind, "message": message, "details": "Node ID '#152'"}
    error["extra_info"] = {"traceback": ["/home/SECRET.py"]}
    refused = error_of(ask, "submit", {"error": error, "node_errors": {}}, 400)
    assert type(refused) is ce.Rejected
    assert f"{message} Node ID '#152'" in str(refused)
    (fault,) = refused.faults
    assert fault.kind == kind
    assert message in fault.message


def test_a_refusal_of_an_unknown_shape_is_a_refusal_and_an_acceptance_is_not(ask):
    many = {str(number): not_in_list("x" * 500)["152"] for number in range(50)}
    for node_errors in (None, [], {"1": 7}, {"1": {"errors": [7]}}, many):
        answer = {"error": "No", "node_errors": node_errors}
        assert isinstance(error_of(ask, "submit", answer, 400), ce.Rejected)
    assert type(error_of(ask, "submit", {}, 400)) is ce.Rejected
    for answer in ({}, {"prompt_id": None}, {"prompt_id": 7}):
        assert type(error_of(ask, "submit", answer)) is ce.BadAnswer


# Words for people

PATHS = [r"C:\Users\Bob SECRET\Comfy UI\x.ckpt", r"d:/SECRET/models/x.ckpt", r"\\?\C:\SECRET\x"]
PATHS += [r"C:\\Users\\SECRET\\x", r"\\nas\SECRET share\x.ckpt", "//nas/SECRET/x", "~/SECRET/x"]
PATHS += ["/home/o/ComfyUI, the new/SECRET (old)/x.ckpt", "/SECRET", "ws://SECRET:8188/ws"]
PATHS += ["http://user:SECRET@10.0.0.5:8188/x?token=SECRET", "file:///home/SECRET/x"]
LEAKS = ["/home/bob's SECRET/x", r"C:\Bob's SECRET\x", "~SECRET/models/x", "打开/home/SECRET/x"]
LEAKS += [r"打开C:\SECRET\x", r"C:\Users\Bob SECRET", "file:///C:/Bob Smith/SECRET/x"]
LEAKS += ["127.0.0.1:8188/SECRET", "Pool(host='SECRET', port=8188)", r"%USERPROFILE%\SECRET\x"]
LEAKS += ["sk-proj-SECRETabcdefgh"]
LEAKS += ["Bearer SECRETeyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0", "hf_SECRETabcdef01234"]
LEAKS += ["eyJSECREThbGci.eyJzdWIiOiIxMjM0", "sk-SECRETabcdef01234", "ghp_SECRETabcdef01234"]
CONTEXTS = ["{}", "No such file: {}", "[Errno 2] No file: '{}'", 'in "{}", line 3', "({})", "at={}"]
CONTEXTS += ["'{0}' -> '{0}'", "from {0} to {0}", "first\n{}", "first\r\nTraceback {}", "a\u2028{}"]


@pytest.mark.parametrize("context", CONTEXTS)
def test_the_servers_own_words_do_not_reach_people(ask, context):
    for text in map(context.format, (*PATHS, *LEAKS)):
        error_of(ask, "submit", {"error": text}, 400)
        error = error_of(ask("history", broken(exception_message=text)).pictures)
        assert first_line(text) in str(error)


@pytest.mark.parametrize("text", PATHS)
def test_a_path_in_place_of_a_name_does_not_reach_people(ask, text):
    extra = {"extra_info": {"input_name": text, "received_value": "x"}}
    fault = {"type": ce.NOT_IN_LIST, "message": "Bad", "details": f"name: {text}", **extra}
    error_of(ask, "submit", {"node_errors": {"5": {"class_type": text, "errors": [fault]}}}, 400)
    for field in ("exception_type", "node_type"):
        error_of(ask("history", broken(**{field: text})).pictures)


def test_the_log_gets_one_short_line_that_no_terminal_obeys():
    for text in ("x" * 9999, "[" * 9999, ["'a'"] * 999, "C:\\" * 999, "", None, "\n", {"a": 1}):
        assert len(first_line(text).splitlines()) <= 1
        assert len(first_line(text)) <= 200
    assert first_line("one\u2028two\rthree") == "one"
    assert first_line("\x1b[31mred\x07") == "[31mred"


def test_every_error_has_a_sentence_for_people_and_a_detail_for_the_log():
    kinds = [kind for kind in vars(ce).values() if isinstance(kind, type)]
    for kind in filter(lambda kind: issubclass(kind, ce.ComfyError), kinds):
        error = kind(["/home/SECRET"] if kind is OptionsMissing else "/home/SECRET")
        assert str(error) == "/home/SECRET"
        assert_for_people(error.user_message)


# History


def finished(outputs=None, **status):
    status = {"status_str": "success", "completed": True, "messages": [], **status}
    return {ID: {"prompt": [], "outputs": outputs or {}, "status": status, "meta": {}}}


def failed(*messages):
    started = ["execution_start", {"prompt_id": ID}]
    return finished(status_str="error", completed=False, messages=[started, *messages])


def broken(**data):
    kind = "builtins.RuntimeError"
    data = {"node_id": "152", "node_type": "Some Loader", "exception_type": kind, **data}
    data = {"exception_message": "shapes do not match\nsecond line", **data}
    data["traceback"] = ['File "/home/owner/SECRET.py", line 1']
    return failed(["execution_error", {**data, "current_inputs": {"text": ["SECRET prompt"]}}])


def image(filename, kind="output", subfolder=""):
    return {"filename": filename, "subfolder": subfolder, "type": kind}


TEMP = {"images": [image("preview.png", "temp")]}
SAVED = {"images": [image("b.png", subfolder="day 1"), image("a.png")]}
NAMELESS = [None, 7, "x.png", {}, {"filename": None}, {"filename": ""}]
JUNK: dict[str, Any] = {"1": "text", "2": None, "3": {"images": []}, "4": {"images": "none"}}
JUNK |= {"5": {"text": [image("c.txt")], "animated": [True]}, "6": {"images": NAMELESS}}
BARE = {"images": [{"filename": "bare.png"}]}
B_AND_A = [ImageRef("b.png", "day 1"), ImageRef("a.png")]


def test_a_prompt_that_has_not_finished_has_no_history_and_one_that_is_no_object_is_bad(ask):
    assert ask("history", {}) is None
    assert ask("history", {"another": finished()[ID]}) is None
    for entry in ("x", [1], 7):
        assert type(error_of(ask, "history", {ID: entry})) is ce.BadAnswer


@pytest.mark.parametrize(
    ("outputs", "pictures"),
    [
        ({"52": TEMP, "9": SAVED, "10": SAVED, "11": TEMP}, B_AND_A),
        ({"52": TEMP}, [ImageRef("preview.png", "", "temp")]),
        ({"9": BARE}, [ImageRef("bare.png", "", "output")]),
    ],
)
def test_pictures_are_the_saved_ones_and_previews_only_without_them(ask, outputs, pictures):
    for answer in (finished(outputs), finished({**JUNK, **outputs}), {ID: {"outputs": outputs}}):
        assert list(ask("history", answer).pictures()) == pictures


def test_videos_and_animations_are_results_like_pictures(ask):
    outputs = {
        "1": {"gifs": [image("a.mp4")]},
        "2": {"videos": [image("b.webm", subfolder="day 1")]},
        "3": {"images": [image("c.webp")], "animated": [True]},
        "4": {"gifs": [image("preview.mp4", "temp")]},
    }
    expected = [ImageRef("a.mp4"), ImageRef("b.webm", "day 1"), ImageRef("c.webp")]
    assert list(ask("history", finished(outputs)).pictures()) == expected


def test_people_read_the_node_and_the_kind_of_a_failure_and_the_log_its_first_line(ask):
    error = error_of(ask("history", broken()).pictures)
    assert error.user_message == (
        "The picture failed in Some Loader: RuntimeError. Try another model or other settings; if"
        " it goes on, tell the bot's owner, who finds the reason in the log."
    )
    for word in ("Some Loader", "RuntimeError", "shapes do not match"):
        assert word in str(error)
    for word in ("second line", "SECRET"):
        assert word not in f"{error.user_message} {error}"
    assert "152" not in error.user_message


HEADER = "Error while deserializing header: "
BROKEN = [("safetensors_rust.SafetensorError", HEADER + "header too large")]
BROKEN += [
    ("ValueError", HEADER + "MetadataIncompleteBuffer\n\nFile path: /home/SECRET.safetensors")
]
BROKEN += [
    ("safetensors_rust.SafetensorError", HEADER + "incomplete metadata, file not fully covered")
]
BROKEN += [("_pickle.UnpicklingError", "invalid load key, '<'."), ("EOFError", "Ran out of input")]
BROKEN += [("_pickle.UnpicklingError", "Weights only load failed.\nUnsupported operand 118")]
BROKEN += [("_pickle.UnpicklingError", "pickle data was truncated")]
ZIP = "PytorchStreamReader failed reading zip archive: failed finding central directory"
BROKEN += [("RuntimeError", ZIP), ("RuntimeError", "Invalid magic number; corrupt file?")]
BROKEN += [("RuntimeError", "unexpected EOF, expected 9 more bytes. The file might be corrupted.")]


@pytest.mark.parametrize(("kind", "message"), BROKEN)
def test_a_broken_model_file_is_said_without_the_words_of_its_loader(ask, kind, message):
    failure = broken(exception_type=kind, exception_message=message)
    error = error_of(ask("history", failure).pictures)
    assert (type(error), error.node) == (ce.BrokenModel, "152")
    assert error.user_message == (
        "The file of a model is broken, so ComfyUI cannot load it. Choose another model, or tell"
        " the bot's owner."
    )
    assert message.splitlines()[0] in str(error)


@pytest.mark.parametrize("node_type", ["LoraLoader", "LoraLoaderModelOnly"])
def test_a_broken_lora_is_not_taken_for_a_model(ask, node_type):
    kind, message = BROKEN[0]
    failure = broken(exception_type=kind, exception_message=message, node_type=node_type)
    assert error_of(ask("history", failure).pictures).user_message == (
        "The file of a LoRA is broken, so ComfyUI cannot load it. Use another in the prompt, or"
        " tell the bot's owner."
    )


@pytest.mark.parametrize(
    "message",
    [
        "Weights only load failed. Unsupported global: GLOBAL numpy.core.multiarray.scalar",
        "ERROR: Could not detect model type of: x",
        "mat1 and mat2 shapes cannot be multiplied (77x2048 and 768x320)",
    ],
)
def test_a_file_that_is_whole_and_of_no_use_is_not_called_broken(ask, message):
    failure = broken(exception_type="RuntimeError", exception_message=message)
    assert type(error_of(ask("history", failure).pictures)) is ce.NodeFailed


RECURSION = {"exception_type": "RecursionError", "exception_message": "maximum recursion depth"}
INDEX = {"exception_type": "IndexError", "exception_message": "list index out of range"}
TEXT = {"text": ["SECRET prompt"], "clip": ["…"]}


@pytest.mark.parametrize("fault", [RECURSION, INDEX])
@pytest.mark.parametrize(
    ("node_type", "inputs", "kind"),
    [
        ("CLIPTextEncode", TEXT, ce.UnreadablePrompt),
        ("smZ CLIPTextEncode", {}, ce.UnreadablePrompt),
        ("CLIP Text Encode (Advanced)", None, ce.UnreadablePrompt),
        ("A Prompt Node", TEXT, ce.UnreadablePrompt),
        ("KSampler", {"positive": ["…"]}, ce.NodeFailed),
        ("KSampler", None, ce.NodeFailed),
    ],
)
def test_a_fault_of_the_prompt_is_one_of_the_node_that_reads_it(
    ask, fault, node_type, inputs, kind
):
    data = {**fault, "node_type": node_type, "current_inputs": inputs}
    error = error_of(ask("history", failed(["execution_error", data])).pictures)
    assert type(error) is kind
    assert "SECRET" not in f"{error} {error.user_message}"
    assert ("unbalanced brackets or an incomplete `embedding:`" in error.user_message) == (
        kind is ce.UnreadablePrompt
    )


def test_other_faults_of_the_node_that_reads_the_prompt_are_not_the_prompts(ask):
    data = {"exception_type": "RuntimeError", "node_type": "CLIPTextEncode"}
    failure = failed(["execution_error", {**data, "current_inputs": TEXT}])
    assert type(error_of(ask("history", failure).pictures)) is ce.NodeFailed


def test_out_of_memory_says_what_helps_and_what_does_not():
    for word in ("too big for the GPU", "smaller model", "steps, CFG, sampler and prompt make no"):
        assert word in ce.OutOfMemory.user_message


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        *((finished(outputs), ce.NoPictures) for outputs in ({}, JUNK, [], "x")),
        (broken(exception_type="torch.OutOfMemoryError"), ce.OutOfMemory),
        (broken(exception_type="torch.cuda.OutOfMemoryError"), ce.OutOfMemory),
        (failed(["execution_interrupted", {"node_id": "3"}]), ce.Interrupted),
        (broken(), ce.NodeFailed),
        (finished({"9": SAVED}, status_str="error", completed=False), ce.NodeFailed),
        (finished({"9": SAVED}, status_str="error"), ce.NodeFailed),
        (failed(["execution_error", {}]), ce.NodeFailed),
        (failed(None, [], ["execution_error"], 7, ["execution_error", None]), ce.NodeFailed),
        (finished(status_str="error", messages=7), ce.NodeFailed),
    ],
)
def test_done_is_not_success_the_status_decides(ask, answer, error):
    assert type(error_of(ask("history", answer).pictures)) is error


# Queue and pictures


def test_the_queue_holds_the_ids_of_everybodys_prompts(ask):
    running, pending = [[1, "r", {}, {}, []]], [[2, "p"], [3, "q", {}], [4], "junk", None]
    assert type(error_of(ask, "queue", {"error": "starting up"})) is ce.BadAnswer
    queue = ask("queue", {"queue_running": running, "queue_pending": pending})
    assert (queue.running, queue.pending) == (("r",), ("p", "q"))
    assert [name in queue for name in ("r", "q", ID)] == [True, True, False]


def waits(*rows):
    """The answer of GET /queue with a prompt that runs and these that wait, as they come."""
    return {"queue_running": [[0, "runs", {}, {}, []]], "queue_pending": list(rows)}


def test_the_place_of_a_prompt_is_by_its_number_the_server_keeps_a_heap(ask):
    heap = [(1, "a"), (4, "d"), (2, "b"), (5, "e"), (-3, "front"), (3.5, "c")]
    queue = ask("queue", waits(*([number, name, {}, {}, []] for number, name in heap)))
    order = ["runs", "front", "a", "b", "c", "d", "e"]
    assert [queue.before(name) for name in order] == list(range(7))


def test_a_prompt_that_runs_has_none_before_it_and_numbers_of_no_kind_leave_the_order(ask):
    queue = ask("queue", waits([2, "a", {}, {}], ["x", "b", {}, {}], [1, "c", {}, {}]))
    assert queue.pending == ("a", "b", "c")
    assert [queue.before("runs"), queue.before("c")] == [0, 3]


ASKED = {"comfygen_id": ID, "client_id": "of ours"}


@pytest.mark.parametrize("where", ["queue_running", "queue_pending"])
def test_a_prompt_is_found_in_the_queue_by_the_id_that_we_asked_for(ask, where):
    rows = [[1, "theirs", {}, {"client_id": "page"}, []], [2, "given", {}, ASKED, []]]
    rows += [[3, "short"], [4, "odd", {}, None, []], "junk"]
    queue = ask("queue", {"queue_running": [], "queue_pending": [], where: rows})
    assert queue.own_ids == {ID: "given"}


def test_an_ended_prompt_is_found_in_the_history_by_the_id_that_we_asked_for(
    ask, requests_mock, client
):
    answer = {
        "older": {"prompt": [1, "older", {}, {"comfygen_id": "another"}, []], "outputs": {}},
        "given": {"prompt": [2, "given", {}, ASKED, []], "outputs": {}},
        "page": {"prompt": [3, "page", {}, {}, []]},
        "odd": {"prompt": None},
        "junk": 7,
    }
    requests_mock.get(f"{URL}/history", json=answer)
    assert client.find_ended(ID) == "given"
    assert client.find_ended("of nobody") is None
    (query,) = {request.query for request in requests_mock.request_history}
    assert query == "max_items=200"  # a history may hold ten thousand whole workflows
    requests_mock.get(f"{URL}/history", json={})
    assert client.find_ended(ID) is None


def test_a_history_that_cannot_be_searched_holds_nothing_and_one_out_of_reach_is_no_answer(
    requests_mock, client
):
    requests_mock.get(f"{URL}/history", status_code=404)
    assert client.find_ended(ID) is None
    requests_mock.get(f"{URL}/history", status_code=502)
    assert type(error_of(client.find_ended, ID)) is ce.Unreachable


def test_the_id_that_we_asked_for_comes_back_from_the_queue_and_the_history(comfyui, live):
    comfyui.hold()
    for number in range(2):
        live.submit(simple_workflow(seed=number), f"{ID[:-1]}{number}")
    first, second = f"{ID[:-1]}0", f"{ID[:-1]}1"
    comfyui.wait_for(lambda c: c.held == first)
    queue = live.queue()
    assert queue.own_ids == {first: first, second: second}
    assert [queue.before(name) for name in (first, second)] == [0, 1]
    comfyui.release()
    comfyui.wait_for(lambda c: second in c.finished)
    assert live.find_ended(first) == first


def test_a_history_entry_tells_whether_some_nodes_came_from_the_cache(ask):
    cached = ["execution_cached", {"nodes": ["4", "5"], "prompt_id": ID}]
    none = ["execution_cached", {"nodes": [], "prompt_id": ID}]
    assert ask("history", finished({"9": SAVED}, messages=[cached])).from_cache is True
    odd = [["execution_cached"], ["execution_cached", None], "junk", []]
    for messages in ([none], [], 7, *([one] for one in odd)):
        assert ask("history", finished({"9": SAVED}, messages=messages)).from_cache is False
    assert ask("history", {ID: {"outputs": {"9": SAVED}}}).from_cache is False


# How far a prompt is


def test_a_prompt_that_begins_anew_is_at_nothing_and_waits_for_nobody_knows_how_many():
    progress = cp.Progress(ID, {"239": 10, "52": 10})
    assert (progress.fraction, progress.before, progress.ran_since) == (0, None, None)
    progress.on_event("progress", {"node": "239", "value": 5, "max": 10})
    assert (progress.fraction, progress.before) == (0.25, 0)
    assert progress.ran_since is not None
    progress.restart()
    assert (progress.fraction, progress.before, progress.ran_since) == (0, None, None)
    assert (progress.has_progress, progress.step, progress.round) == (False, (0, 0), 1)


@pytest.mark.parametrize("event", ["execution_start", "progress", "progress_state", "executed"])
def test_a_prompt_that_the_feed_speaks_of_runs(event):
    progress = cp.Progress(ID, {"239": 10})
    progress.before = 3
    progress.on_event("execution_cached", {"nodes": []})
    assert progress.before == 3
    progress.on_event(event, {})
    assert progress.before == 0


def test_a_node_that_has_begun_has_done_no_step():
    progress = cp.Progress(ID, {"239": 10, "52": 10})
    begun = {"value": 0, "max": 1, "state": "running"}
    progress.on_event("progress_state", {"nodes": {"239": begun}})
    assert (progress.has_progress, progress.step, progress.has_started) == (False, (0, 0), True)
    progress.on_event("progress", {"node": "239", "value": 10, "max": 10})
    progress.on_event("progress_state", {"nodes": {"239": begun | {"value": 10}, "52": begun}})
    assert (progress.fraction, progress.current_pass, progress.round) == (0.5, 1, 1)


@pytest.mark.parametrize(
    "value",
    [10**400, -(10**400), float("inf"), float("nan"), "5", None],
    ids=lambda value: repr(value)[:9],
)
def test_a_step_that_is_no_number_of_steps_says_nothing(value):
    progress = cp.Progress(ID, {"239": 10})
    for step in ({"value": value, "max": 10}, {"value": 5, "max": value}):
        progress.on_event("progress", {"node": "239", **step})
        progress.on_event("progress_state", {"nodes": {"239": {"state": "running", **step}}})
    assert (progress.has_progress, progress.fraction) == (False, 0)


# The picture of a prompt at work

JPEG, PNG = b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n"


def binary(picture, kind=1, metadata=b"\0\0\0\1"):
    head = metadata if kind == 1 else len(metadata).to_bytes(4, "big") + metadata
    return kind.to_bytes(4, "big") + head + picture


def of(prompt_id):
    return b'{"prompt_id": "%s", "image_type": "image/jpeg"}' % prompt_id.encode()


def test_a_preview_is_known_by_its_first_bytes_and_tells_its_prompt_if_the_server_does():
    parse = cp.Preview.parse
    assert parse(binary(JPEG + b"x")) == (JPEG + b"x", ".jpg", None)
    assert parse(binary(PNG)) == (PNG, ".png", None)
    assert parse(binary(JPEG, 4, of(ID))) == (JPEG, ".jpg", ID)
    largest = JPEG + bytes(2**20 - len(JPEG))
    assert parse(binary(largest, 4, of(ID))) == (largest, ".jpg", ID)


@pytest.mark.parametrize(
    "message",
    [
        *(b"", b"\0\0\0\1", b"\0\0\0\4\0\0\0\2{}", b"\0\0\0\4\xff\xff\xff\xff" + JPEG),
        *(
            binary(b"GIF89a"),
            binary(b""),
            binary(b"<svg>"),
            binary(JPEG, 2),
            binary(JPEG, 3, of(ID)),
        ),
        *(binary(JPEG + bytes(2**20)), binary(JPEG + bytes(2**20), 4, of(ID))),
        binary(JPEG, 4, of(ID) + b" " * 2**16),
        b"\0\0\0\4\0\0\0\x63" + of(ID) + JPEG,  # metadata longer than they say
    ],
    ids=lambda message: repr(message[:12]),
)
def test_what_is_no_preview_or_too_large_is_ignored(message):
    assert cp.Preview.parse(message) is None


@pytest.mark.parametrize(
    "metadata",
    [b"", b"{}", b"[]", b"7", b'{"prompt_id": null}', b'{"prompt_id": 7}', b"\xff", b"[" * 60_000],
)
def test_a_preview_that_names_its_prompt_in_no_way_we_know_is_of_no_prompt_of_ours(metadata):
    preview = cp.Preview.parse(binary(JPEG, 4, metadata))
    progress = cp.Progress(ID, {"239": 10})
    progress.set_running()
    progress.show(preview)
    assert progress.preview is None


def test_a_preview_belongs_to_the_prompt_that_it_names_or_else_to_the_one_that_runs():
    progress = cp.Progress(ID, {"239": 10})
    nameless, own, other = (cp.Preview(JPEG, ".jpg", name) for name in (None, ID, "another"))
    for preview, before, shown in (
        *((nameless, None, False), (nameless, 1, False), (nameless, 0, True)),
        *((own, None, True), (own, 0, True), (other, 0, False)),
    ):
        progress.restart()
        progress.before = before
        progress.show(preview)
        assert progress.preview == (preview if shown else None)
    progress.show(nameless)
    progress.restart()
    assert progress.preview is None  # what it showed is lost


def test_a_client_that_wants_previews_asks_for_them_with_each_prompt(requests_mock):
    posts = requests_mock.post(f"{URL}/prompt", json={"prompt_id": ID})
    for previews in (False, True):
        with closing(ComfyClient(Server(URL), previews=previews)) as client:
            client.submit(WORKFLOW, ID)
    without, with_previews = (request.json()["extra_data"] for request in posts.request_history)
    assert without == {"comfygen_id": ID}
    assert with_previews == {"comfygen_id": ID, "preview_method": "latent2rgb"}


def shown_by_the_feed(comfyui, client):
    """What the feed tells of a prompt of three steps."""
    previews = []
    ended = threading.Event()

    def take(event, data):
        if cp.ends_prompt(event, data):
            ended.set()

    listener = SimpleNamespace(on_event=take, on_preview=previews.append)

    async def listen():
        feed = asyncio.create_task(ProgressFeed(client).run(listener))
        await asyncio.to_thread(comfyui.wait_for, lambda c: client.client_id in c.listeners)
        if client.previews and comfyui.progress_state:
            await asyncio.to_thread(comfyui.wait_for, lambda c: client.client_id in c.feature_flags)
        await asyncio.to_thread(client.submit, simple_workflow(steps=3), ID)
        await asyncio.to_thread(ended.wait, 10)
        feed.cancel()

    asyncio.run(listen())
    return previews


@pytest.mark.parametrize("image_format", ["JPEG", "PNG"])
@pytest.mark.parametrize("newest", [True, False], ids=["newest", "older-server"])
def test_the_feed_shows_each_step_of_a_prompt(comfyui, newest, image_format):
    comfyui.newest = comfyui.progress_state = newest
    comfyui.preview_method = "none" if newest else "auto"
    comfyui.preview_format = image_format
    with closing(ComfyClient(Server(comfyui.url), previews=True)) as client:
        previews = shown_by_the_feed(comfyui, client)
    assert len({preview.data for preview in previews}) == 3
    names = {"JPEG": ".jpg", "PNG": ".png"}
    expected = (names[image_format], ID if newest else None)
    assert {(preview.suffix, preview.prompt_id) for preview in previews} == {expected}


def test_who_wants_no_previews_neither_asks_for_them_nor_takes_those_that_come(comfyui):
    comfyui.newest, comfyui.preview_method = True, "auto"  # for everybody
    with closing(ComfyClient(Server(comfyui.url))) as client:
        assert shown_by_the_feed(comfyui, client) == []
    assert comfyui.feature_flags == {}
    assert comfyui.preview_methods == [None]


def test_a_picture_is_asked_for_as_the_history_names_it(requests_mock, client):
    view = requests_mock.get(f"{URL}/view", content=b"\x89PNG\r\n")
    assert client.image(ImageRef("ä & b?#+.png", "day 1/x", "temp")) == b"\x89PNG\r\n"
    query = parse_qs(urlsplit(view.last_request.url).query, keep_blank_values=True)
    assert query == {"filename": ["ä & b?#+.png"], "subfolder": ["day 1/x"], "type": ["temp"]}
    client.image(ImageRef("a.png"), "webp;90")
    assert parse_qs(urlsplit(view.last_request.url).query)["preview"] == ["webp;90"]


FORMATS = [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"GIF89a", b"RIFF\n\0\0\0WEBPVP8 "]
FORMATS += [b"\0\0\0\x1cftypavif", b"\0\0\0\x20ftypisom", b"\x1aE\xdf\xa3", b"BM\x8a\0"]


@pytest.mark.parametrize("start", FORMATS)
def test_pictures_and_videos_are_known_by_their_first_bytes(requests_mock, client, start):
    requests_mock.get(f"{URL}/view", content=start + b"\n" * 50)
    assert client.image(ImageRef("a")).startswith(start)


@pytest.mark.parametrize("content", [b'{"error": "no such"}', b"", b"MThd\0", b"<svg>", b"RIFF"])
def test_bytes_of_no_picture_cannot_be_posted_and_are_no_outage(requests_mock, client, content):
    requests_mock.get(f"{URL}/view", content=content)
    with pytest.raises(ce.PictureUnusable):
        client.image(ImageRef("a.png"))
    assert client.away_since is None


@pytest.mark.parametrize("status", [400, 401, 403, 405, 410, 418])
def test_a_picture_that_is_refused_is_missing_for_good(requests_mock, client, status):
    requests_mock.get(f"{URL}/view", status_code=status)
    with pytest.raises(ce.PictureMissing, match=str(status)):
        client.image(ImageRef("a.png"))


def test_a_login_page_in_a_pictures_place_is_an_outage(requests_mock, client):
    requests_mock.get(f"{URL}/view", content=b"<html>")
    with pytest.raises(ce.BadAnswer):
        client.image(ImageRef("a.png"))
    assert client.away_since is not None


def test_comfyui_is_away_from_the_first_failure_until_an_answer(requests_mock, client, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(cc.time, "monotonic", lambda: now[0])
    queue = {"queue_running": [], "queue_pending": []}
    answers = [{"status_code": 502}, {"text": "<html>"}, {"status_code": 302}, {"json": queue}]
    requests_mock.get(f"{URL}/queue", answers)
    for expected in (100.0, 100.0, 100.0, None):
        with contextlib.suppress(ce.ComfyError):
            client.queue()
        assert client.away_since == expected
        now[0] += 5


def test_a_redirect_is_followed_and_our_headers_stay_at_home(requests_mock):
    png = b"\x89PNG\r\n"
    headers = {"Authorization": "Bearer secret", "X-Key": "secret"}
    elsewhere = requests_mock.get("https://files.example/a.png", content=png)
    at_home = requests_mock.get(f"{URL}/files/a.png", content=png)
    for target, used in (("https://files.example/a.png", elsewhere), ("/files/a.png", at_home)):
        requests_mock.get(f"{URL}/view", status_code=302, headers={"Location": target})
        with closing(ComfyClient(Server(URL, headers))) as client:
            assert client.image(ImageRef("a.png")) == png
        sent = used.last_request.headers
        assert [name in sent for name in headers] == [used is at_home] * 2


def test_redirects_without_an_end_and_those_of_a_post_are_not_followed(requests_mock, client):
    here = {"status_code": 302, "headers": {"Location": f"{URL}/view"}}
    views = requests_mock.get(f"{URL}/view", **here)
    with pytest.raises(ce.BadAnswer):
        client.image(ImageRef("a.png"))
    assert views.call_count == cc.REDIRECTS_LIMIT + 1
    requests_mock.post(f"{URL}/prompt", **here)
    with pytest.raises(ce.BadAnswer):
        client.submit(WORKFLOW, ID)


def test_what_the_server_cannot_re_encode_is_no_outage(requests_mock, client):
    requests_mock.get(f"{URL}/view", status_code=500)
    with pytest.raises(ce.NoPreview):
        client.image(ImageRef("a.mp4"), "webp;90")
    with pytest.raises(ce.Unreachable):
        client.image(ImageRef("a.mp4"))
    requests_mock.get(f"{URL}/view", status_code=502)
    with pytest.raises(ce.Unreachable):
        client.image(ImageRef("a.mp4"), "webp;90")


def test_the_name_of_a_picture_can_be_written_down_and_read_again():
    names = {"a b.png": ImageRef("a b.png"), "x/y/a.png": ImageRef("a.png", "x/y")}
    names["a.png [temp]"] = ImageRef("a.png", "", "temp")
    names["x/a [temp].png [input]"] = ImageRef("a [temp].png", "x", "input")
    for text, ref in names.items():
        assert (str(ref), ImageRef.parse(text)) == (text, ref)


# A whole job, and stopping one


@pytest.mark.parametrize(("prefix", "newest"), [("", False), ("/gpu", True)])
def test_a_job_goes_from_the_lists_to_the_bytes_of_its_picture(prefix, newest):
    key = {"X-Key": "of the reverse proxy"} if prefix else {}
    comfyui = ComfyUIStandIn(prefix=prefix, required_headers=key)
    with comfyui as comfy, closing(ComfyClient(Server(comfy.url, key))) as client:
        comfy.newest = newest
        lists = client.object_info().options({"FaceDetailer": ("sampler_name", "scheduler")})
        assert list(lists.models) == comfy.models
        assert [name in lists.schedulers for name in ("AYS SDXL", "GITS")] == [True, False]
        assert client.submit(simple_workflow(lists.models[-1]), ID) == ID
        comfy.wait_for(lambda comfy: ID in comfy.finished)
        (ref,) = client.history(ID).pictures()
        assert client.image(ref) == comfy.pictures[ref.filename]


@pytest.fixture(params=["", "interrupt_ignores_body", "newest jobs_api"])
def holding(request, comfyui):
    """Servers of three ages, whose prompts run until they are released."""
    for trait in request.param.split():
        setattr(comfyui, trait, True)
    comfyui.hold()
    return comfyui


def stops(comfy):
    posts = [(r.path, r.json) for r in comfy.requests if r.method == "POST"]
    return [post for post in posts if post[0] != "/prompt"]


def test_a_waiting_prompt_is_deleted_and_those_of_others_go_on(holding, live):
    foreign = holding.submit_foreign()
    live.submit(WORKFLOW, ID)
    holding.wait_for(lambda comfy: comfy.held == foreign and comfy.pending == [ID])
    live.cancel("ended long ago")
    assert holding.pending == [ID]
    live.cancel(ID)
    assert holding.pending == []
    last = (JOBS, None) if holding.jobs_api else ("/queue", {"delete": [ID]})
    assert stops(holding)[-1] == last
    holding.release()
    holding.wait_for(lambda comfy: foreign in comfy.finished)
    assert holding.interrupted == []


def test_a_running_prompt_is_interrupted_and_the_next_one_runs(holding, live):
    live.submit(WORKFLOW, ID)
    holding.wait_for(lambda comfy: comfy.held == ID)
    foreign = holding.submit_foreign()
    live.cancel(ID)
    holding.wait_for(lambda comfy: comfy.held == foreign)
    assert holding.interrupted == [ID]
    assert type(error_of(live.history(ID).pictures)) is ce.Interrupted
    old = [(JOBS, None), ("/queue", {"delete": [ID]}), ("/interrupt", {"prompt_id": ID})]
    assert stops(holding) == (old[:1] if holding.jobs_api else old)


def older(requests_mock, where, jobs=404, **statuses):
    """An older server with our prompt in this part of its queue."""
    queue = {"queue_running": [], "queue_pending": [], f"queue_{where}": [[1, ID, {}, {}, []]]}
    requests_mock.get(f"{URL}/queue", json=queue)
    requests_mock.post(URL + JOBS, status_code=jobs)
    for route in ("queue", "interrupt"):
        requests_mock.post(f"{URL}/{route}", status_code=statuses.get(route, 200))


@pytest.mark.parametrize("jobs", [404, 405])
def test_a_prompt_that_starts_while_it_is_deleted_is_interrupted(requests_mock, client, jobs):
    older(requests_mock, "pending", jobs)
    requests_mock.post(f"{URL}/queue", text=lambda *_: older(requests_mock, "running") or "")
    client.cancel(ID)
    assert requests_mock.last_request.path == "/interrupt"


@pytest.mark.parametrize(("route", "where"), [("queue", "pending"), ("interrupt", "running")])
def test_what_may_not_be_stopped_is_not_taken_for_stopped(requests_mock, client, route, where):
    older(requests_mock, where, **{route: 403})
    error_of(client.cancel, ID)
    requests_mock.post(f"{URL}/{route}", text="<!DOCTYPE html><html>Sign in</html>")
    error_of(client.cancel, ID)


# Trouble on the way: no method but ping() keeps it to itself

TROUBLE = {
    ce.Unreachable: ["reset", "lost answer", "half json", "500", "502", "503", "429"],
    ce.BadAnswer: ["redirect", "login page", "bad json", "404"],
}
OTHERWISE = [("image", kind) for kind in ("lost answer", "half json", "bad json", "404")]
CASES = [(call, kind, error) for error in TROUBLE for kind in TROUBLE[error] for call in CALLS]


@pytest.mark.parametrize(
    ("call", "kind", "error"),
    [case for case in CASES if case[:2] not in OTHERWISE],
)
def test_every_trouble_has_its_error_in_every_call(comfyui, live, call, kind, error):
    comfyui.fault("*", kind, None)
    assert type(error_of(CALLS[call], live)) is error


def test_a_picture_that_is_gone_is_no_picture_and_a_server_that_is_gone_unreachable(comfyui, live):
    assert type(error_of(CALLS["image"], live)) is ce.PictureGone
    comfyui.go_down()
    for call in CALLS.values():
        assert type(error_of(call, live)) is ce.Unreachable


@pytest.mark.parametrize("call", ["submit", "image", "fetch_options"])
def test_a_silent_server_is_given_up(comfyui, live, call, monkeypatch):
    monkeypatch.setattr(cc, "SLOW_READ_SECONDS", 0.1)
    monkeypatch.setattr(cc, "LISTS_READ_SECONDS", 0.1)
    comfyui.fault("*", "hang", None)
    assert type(error_of(CALLS[call], live)) is ce.Unreachable


NO_OBJECTS = [b"[]", b'"x"', b"null", b"", b"[" * 99999, b"\xff"]
NOT_OK = [(b"{}", status) for status in (201, 400, 401, 403, 418)]


@pytest.mark.parametrize(("text", "status"), [*((text, 200) for text in NO_OBJECTS), *NOT_OK])
def test_all_but_an_object_with_status_200_is_a_bad_answer(requests_mock, client, text, status):
    requests_mock.get(ANY, content=text, status_code=status)
    for call in ("version", "history", "queue", "fetch_options"):
        assert type(error_of(CALLS[call], client)) is ce.BadAnswer


LENGTH = ("Content-Length: 99", b'{"a": 1}')
CHUNKED = ("Transfer-Encoding: chunked", b'8\r\n{"a": 1}\r\n')


@pytest.mark.parametrize("call", ["version", "history", "queue", "fetch_options", "image"])
@pytest.mark.parametrize(("head", "body"), [LENGTH, CHUNKED])
def test_a_body_that_breaks_off_is_unreachable_and_never_half_a_picture(call, head, body):
    with wire("HTTP/1.1 200 OK", head, body=[body]) as (client, _):
        assert type(error_of(CALLS[call], client)) is ce.Unreachable


@pytest.mark.parametrize(  # over 64 and 100 MiB, in half a second
    ("call", "error"), [("queue", cc.AnswerTooLarge), ("image", ce.PictureTooLarge)]
)
def test_a_body_without_an_end_is_given_up_for_its_size(call, error):
    with wire("HTTP/1.1 200 OK", body=iter(lambda: b" " * 2**20, None)) as (client, left):
        assert type(error_of(CALLS[call], client)) is error
        assert left.wait(5)


def test_a_body_that_drips_for_ever_is_given_up_for_its_time(monkeypatch):
    monkeypatch.setattr(cc, "BODY_READS", 0.1 / cc.SLOW_READ_SECONDS)
    drops = (threading.Event().wait(0.02) or b" " for _ in range(40))
    with wire("HTTP/1.1 200 OK", "Content-Length: 999", body=drops) as (client, left):
        assert type(error_of(CALLS["image"], client)) is ce.Unreachable
        assert left.wait(0.5)


def test_a_compressed_body_is_read_whole_though_its_length_is_another():
    packed = gzip.compress(b"{}")
    head = ("HTTP/1.1 200 OK", f"Content-Length: {len(packed)}", "Content-Encoding: gzip")
    with wire(*head, body=[packed]) as (client, _):
        assert client.history(ID) is None


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_certificate_file_that_is_gone_or_broken_is_an_absence(
    content: str | None, tmp_path: Path
) -> None:
    file = tmp_path / "ca.pem"
    if content:
        file.write_text(content, "ascii")
    with ComfyUIStandIn() as server:
        client = ComfyClient(Server(server.url.replace("http:", "https:"), ca_file=file))
        with pytest.raises(ce.Unreachable):
            client.version()

        async def listen() -> None:
            await asyncio.wait_for(ProgressFeed(client).run(SimpleNamespace()), 0.2)  # type: ignore[arg-type]

        with pytest.raises(asyncio.TimeoutError):
            asyncio.run(listen())
