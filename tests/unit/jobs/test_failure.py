"""The sentences about failed jobs, against the shipped workflow and a catalog that can be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from comfyui.errors import NOT_IN_LIST, BrokenModel, Fault, NodeFailed, Rejected, failure
from job import Job
from jobs.catalog import Catalog, Offer, Workflows
from jobs.failure import UNEXPECTED, failure_message
from jobs.run import JobError
from jobs.worker import WorkflowUnusable
from tests import factories
from tests.factories import an_offer
from tests.harness.bot import REPOSITORY

WORKFLOW = REPOSITORY / "workflows/multisampler/base.json"
OFFERED = an_offer(("b.safetensors",), ("euler",), ("karras",))
PLACES = {"model": ("152", "ckpt_name"), "sampler": ("239", "sampler_name")}
PLACES |= {"scheduler": ("239", "scheduler"), "LoRA": ("lora-1", "lora_name")}


class StubCatalog(Catalog):
    """The shipped workflow, with lists that can be read again as `readable`."""

    def __init__(self, readable: Offer | None = OFFERED, path: Path = WORKFLOW) -> None:
        super().__init__(cast(Any, None), Workflows(path))
        self.readable = readable
        self.refreshes = 0

    def try_refresh(self) -> bool:
        self.refreshes += 1
        if self.readable is None:
            return False
        self.offers = {self.default: self.readable}
        return True


def a_job(prompt: str = "a fox") -> Job:
    return factories.a_job(
        model="a.safetensors", sampler="euler", scheduler="karras", positive_prompt=prompt
    )


def a_fault(kind: str, node: str, name: str, value: str = "x.pt", message: str = "No") -> Fault:
    return Fault(f"node {node}", kind, message, name, value, node)


def not_offered(**values: str) -> Rejected:
    return rejected(*(a_fault(NOT_IN_LIST, *PLACES[param], v) for param, v in values.items()))


def rejected(*faults: Fault) -> Rejected:
    error = Rejected("detail")
    error.faults = faults
    return error


GONE = "The model `a` is not offered by ComfyUI any more."
BOTH = {"model": "a.safetensors", "sampler": "euler"}


@pytest.mark.parametrize(
    ("error", "offered", "sentence"),
    [
        (not_offered(model="a.safetensors"), None, f"{GONE} Please choose another."),
        (
            not_offered(model="a.safetensors"),
            OFFERED,
            f"{GONE} The list has been refreshed: press Edit.",
        ),
        (
            not_offered(**BOTH),
            an_offer(("b",), ("heun",)),
            "The model `a` and the sampler `euler` are not offered by ComfyUI any more. The"
            " list has been refreshed: press Edit.",
        ),
        (  # it says so, and lists it all the same
            not_offered(sampler="euler"),
            OFFERED,
            "ComfyUI refuses the sampler `euler`. Choose another, or tell the bot's owner.",
        ),
        # What the person did not choose stands in the workflow file.
        (not_offered(model="refiner.ckpt"), OFFERED, Rejected.user_message),
        (JobError("No shape any more. Press Edit."), OFFERED, "No shape any more. Press Edit."),
        (WorkflowUnusable("It is broken."), None, "It is broken."),
    ],
)
def test_it_is_true_of_the_lists_which_are_read_again_first(
    error: Exception, offered: Offer | None, sentence: str
) -> None:
    catalog = StubCatalog(offered)
    assert failure_message(error, a_job(), catalog) == sentence
    assert catalog.refreshes == 1


def test_a_value_refused_at_several_nodes_is_named_once() -> None:
    nodes = ("239", "249", "52", "118")
    error = rejected(*(a_fault(NOT_IN_LIST, node, "scheduler", "karras") for node in nodes))
    assert failure_message(error, a_job(), StubCatalog(None)) == (
        "The scheduler `karras` is not offered by ComfyUI any more. Please choose another."
    )


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (
            "style/ink.pt",
            "The LoRA `ink` is not offered by ComfyUI any more. The list has been refreshed: press"
            " Edit.",
        ),
        ("detail.pt", Rejected.user_message),
    ],
)
def test_a_refused_lora_is_the_persons_or_the_workflows(name: str, sentence: str) -> None:
    job = a_job("a fox <lora:ink:0.5>")
    assert failure_message(not_offered(LoRA=name), job, StubCatalog()) == sentence


OWNERS = Rejected.user_message
MISSING = (
    "ComfyUI lacks a node that the bot's workflow needs. Please tell the bot's owner, who finds its"
    " name in the log."
)


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (
            a_fault(NOT_IN_LIST, "7", "vae_name", "sd_xl_base_1.0.safetensors"),
            "ComfyUI does not offer the vae `sd_xl_base_1.0`. Please tell the bot's owner.",
        ),
        (
            a_fault(NOT_IN_LIST, "7", "upscale_method", "bislerp"),
            "ComfyUI does not offer the upscale method `bislerp`. Please tell the bot's owner.",
        ),
        (  # not the place that the job writes
            a_fault(NOT_IN_LIST, "7", "ckpt_name", "a.safetensors"),
            "ComfyUI does not offer the ckpt `a`. Please tell the bot's owner.",
        ),
        (
            a_fault("value_bigger_than_max", "239", "seed", "99", "Value 99 bigger than max of 9"),
            "ComfyUI does not accept the seed: Value 99 bigger than max of 9. Please give another.",
        ),
        (
            a_fault("value_smaller_than_min", "239", "steps", "0", "Of /home/owner"),
            "ComfyUI does not accept the number of steps. Please give another.",
        ),
        (a_fault("value_bigger_than_max", "239", "batch_size", "99", "Value 99 bigger"), OWNERS),
        (a_fault(NOT_IN_LIST, "7", "vae_name", "not/what the file has.pt"), OWNERS),
        (
            a_fault(
                "value_bigger_than_max", "239", "seed", "1", "Value 10.0.0.5 bigger than max of 9"
            ),
            "ComfyUI does not accept the seed. Please give another.",
        ),
        (a_fault("required_input_missing", "7", "images"), OWNERS),
        (a_fault("return_type_mismatch", "239", "seed"), OWNERS),
        (a_fault("missing_node_type", "7", "", "", "Node 'Nope' not found."), MISSING),
        (a_fault("invalid_prompt", "", "", "", "node Nope does not exist."), MISSING),
    ],
)
def test_other_refusals_say_in_plain_words_who_can_do_something(
    fault: Fault, sentence: str
) -> None:
    catalog = StubCatalog()
    chosen = a_fault(NOT_IN_LIST, *PLACES["model"], "a.safetensors")
    assert failure_message(rejected(chosen, fault), a_job(), catalog) == sentence
    assert catalog.refreshes == 0


@pytest.mark.parametrize(
    "words",
    [
        *(r"C:\Users\Bob SECRET\x.ckpt", "/home/o/SECRET (old)/x", "http://SECRET@10.0.0.5/x"),
        *("Bearer SECRETeyJhbGciOiJIUzI1NiJ9", r"\\nas\SECRET share\x", "first\nTraceback SECRET"),
    ],
)
def test_the_servers_own_words_do_not_reach_people(words: str) -> None:
    faults = [
        a_fault(kind, "239", "seed", words, f"No such value: {words}")
        for kind in ("value_smaller_than_min", "value_bigger_than_max", "a new kind")
    ]
    faults.append(a_fault(NOT_IN_LIST, "5", words, "a.safetensors"))
    faults.append(a_fault(NOT_IN_LIST, "5", "vae_name", words))
    faults.append(a_fault("value_bigger_than_max", "5", words))
    for fault in faults:
        sentence = failure_message(rejected(fault), a_job(), StubCatalog())
        assert "SECRET" not in sentence
        assert "\n" not in sentence


def test_a_refusal_is_explained_also_once_its_workflow_is_gone(tmp_path: Path) -> None:
    catalog = StubCatalog(path=tmp_path / "gone/base.json")
    assert failure_message(not_offered(model="a.safetensors"), a_job(), catalog) == (
        "ComfyUI does not offer the ckpt `a`. Please tell the bot's owner."
    )


@pytest.mark.parametrize(("node", "about"), [("152", "the model `a`"), ("9", "a model")])
def test_a_broken_file_is_the_chosen_models_where_that_is_loaded(node: str, about: str) -> None:
    error = BrokenModel("detail")
    error.node = node
    assert failure_message(error, a_job(), StubCatalog()) == (
        f"The file of {about} is broken, so ComfyUI cannot load it. Choose another model, or tell"
        " the bot's owner."
    )


@pytest.mark.parametrize(
    ("node_class", "shown"),
    [("KSampler (Efficient)", "KSampler (Efficient)"), ("gpu-box hf_SECRET", "a node")],
)
def test_a_node_is_named_if_it_is_one_of_the_workflows(node_class: str, shown: str) -> None:
    error = node_failure(node_class, "RuntimeError")
    sentence = failure_message(error, a_job(), StubCatalog())
    assert sentence.startswith(f"The picture failed in {shown}: RuntimeError. ")


@pytest.mark.parametrize("kind", ["hf_SECRET", "gpu.lan", "SECRETHost", "10.0.0.5", "a/bError/x"])
def test_only_the_class_of_an_exception_is_its_kind(kind: str) -> None:
    error = node_failure("KSampler (Efficient)", kind)
    assert error.kind == NodeFailed.kind
    sentence = failure_message(error, a_job(), StubCatalog())
    assert sentence.startswith("The picture failed in KSampler (Efficient). ")


def node_failure(node_class: str, kind: str) -> NodeFailed:
    """Return the error of a prompt that failed in a node."""
    data = {"node_id": "239", "node_type": node_class, "exception_type": kind}
    error = failure({"messages": [["execution_error", data]]})
    assert isinstance(error, NodeFailed)
    return error


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (Rejected("", "Not this one."), "Not this one."),
        (NodeFailed("detail", "The picture failed in A Node."), "The picture failed in A Node."),
        (KeyError("/home/owner/secret"), UNEXPECTED),
    ],
)
def test_of_every_other_error_its_own_sentence_is_read_and_nothing_of_a_bug(
    error: Exception, sentence: str
) -> None:
    catalog = StubCatalog()
    assert failure_message(error, a_job(), catalog) == sentence
    assert catalog.refreshes == 0
