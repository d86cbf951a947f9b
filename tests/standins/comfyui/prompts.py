"""What the stand-in makes of a prompt before it runs it: what is wrong with it, in which order its
nodes run, and what the result of each depends on."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from typing import Any

from tests.standins.comfyui.nodes import TRACEBACK, UNIQUE_ID, Json

# The tokenizer takes the name after "embedding:" in a stretch of text of one weight.
BARE_EMBEDDING = re.compile(r"(?:^|[ \n()])embedding:\s*(?:$|[()]|[ \n]embedding:|:[-+]?[\d.]+\))")
DEEPEST_BRACKETS = 950  # Python's limit is 1000 calls, and ComfyUI is some deep already


def is_link(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str)


def execution_order(prompt: Json, outputs: list[str]) -> list[str]:
    """The nodes that the outputs need, each after those it depends on."""
    order: dict[str, None] = {}

    def visit(node_id: str) -> None:
        if node_id not in order:
            for value in prompt[node_id]["inputs"].values():
                if is_link(value):
                    visit(value[0])
            order[node_id] = None

    for node_id in outputs:
        visit(node_id)
    return list(order)


def signatures_of(
    prompt: Json, order: list[str], content: Callable[[str], bytes]
) -> dict[str, str]:
    """What each node's result depends on: its class and inputs and those of all its ancestors;
    `content` gives the bytes of a file that LoadImage names."""
    signatures: dict[str, str] = {}
    for node_id in order:
        node = prompt[node_id]
        inputs = {
            name: [signatures[value[0]], value[1]] if is_link(value) else value
            for name, value in node["inputs"].items()
        }
        own_id = node_id if node["class_type"] in UNIQUE_ID else None
        text = json.dumps([node["class_type"], own_id, inputs], sort_keys=True)
        if node["class_type"] == "LoadImage":
            text += hashlib.sha256(content(str(inputs["image"]))).hexdigest()
        signatures[node_id] = hashlib.sha256(text.encode()).hexdigest()
    return signatures


def text_fault(text: str) -> tuple[str, str] | None:
    """The exception, as type and message, that ends the encoding of a text."""
    text = text.replace("\\(", "").replace("\\)", "")
    depth = deepest = 0
    for char in text:
        depth += {"(": 1, ")": -1}.get(char, 0)
        deepest = max(deepest, depth)
    if deepest > DEEPEST_BRACKETS:
        return "RecursionError", "maximum recursion depth exceeded"
    return ("IndexError", "list index out of range") if BARE_EMBEDDING.search(text) else None


def error_entry(kind: str, message: str, details: str, **extra_info: Any) -> Json:
    return {"type": kind, "message": message, "details": details, "extra_info": extra_info}


def _exception(kind: str, message: str, exc: Exception, **extra_info: Any) -> Json:
    name = type(exc).__name__
    return error_entry(
        kind, message, str(exc), **extra_info, exception_type=name, traceback=TRACEBACK
    )


def validate_prompt(
    info: dict[str, Any], prompt: Json, newest: bool, is_image: Callable[[str], bool]
) -> tuple[Json | None, list[str], Json]:
    """Validate as execution.py does: (error or None, outputs that will run, node_errors).

    `is_image` tells whether LoadImage finds a file by its annotated name.
    """
    outputs = []
    for node_id, node in prompt.items():
        if "class_type" not in node or node["class_type"] not in info:
            return _unknown_class(node_id, node, newest), [], {}
        if info[node["class_type"]]["output_node"]:
            outputs.append(node_id)
    if not outputs:
        return error_entry("prompt_no_outputs", "Prompt has no outputs", ""), [], {}

    validated: dict[str, tuple[bool, list[Json]]] = {}
    good: list[str] = []
    details: list[str] = []
    node_errors: Json = {}
    for output in outputs:
        try:
            valid, reasons = _validate_inputs(info, prompt, output, validated, is_image)
        except Exception as exc:
            message = "Exception when validating node"
            reasons = [_exception("exception_during_validation", message, exc)]
            valid, _ = validated[output] = (False, reasons)
        if valid:
            good.append(output)
            continue
        details += [f"{reason['message']}: {reason['details']}" for reason in reasons]
        for node_id, (fine, errors) in validated.items():
            if not fine and errors:
                entry = {"errors": errors, "dependent_outputs": []}
                entry["class_type"] = prompt[node_id]["class_type"]
                node_errors.setdefault(node_id, entry)["dependent_outputs"].append(output)
    if good:
        return None, good, node_errors
    message = "Prompt outputs failed validation"
    error = error_entry("prompt_outputs_failed_validation", message, "\n".join(details))
    return error, [], node_errors


def _unknown_class(node_id: str, node: Json, newest: bool) -> Json:
    details = f"Node ID '#{node_id}'"
    if newest:
        name = node.get("class_type")
        title = node.get("_meta", {}).get("title", name)
        message = f"Node '{title}' not found. The custom node may not be installed."
        extra = {"node_id": node_id, "class_type": name, "node_title": title}
        return error_entry("missing_node_type", message, details, **extra)
    message = "Cannot execute because a node is missing the class_type property."
    if "class_type" in node:
        message = f"Cannot execute because node {node['class_type']} does not exist."
    return error_entry("invalid_prompt", message, details)


def _validate_inputs(
    info: dict[str, Any],
    prompt: Json,
    node_id: str,
    validated: dict[str, tuple[bool, list[Json]]],
    is_image: Callable[[str], bool],
) -> tuple[bool, list[Json]]:
    """Validate a node after its ancestors; literal values are converted in place, as in ComfyUI."""
    if node_id in validated:
        return validated[node_id]
    node = prompt[node_id]
    inputs, spec = node["inputs"], info[node["class_type"]]["input"]
    required = spec.get("required", {})
    errors: list[Json] = []
    valid = True
    for name, config in {**required, **spec.get("optional", {})}.items():
        if name not in inputs:
            if name in required:
                message = "Required input is missing"
                errors.append(error_entry("required_input_missing", message, name, input_name=name))
            continue
        value = inputs[name]
        if node["class_type"] == "LoadImage" and not isinstance(value, list):
            error = None if is_image(str(value)) else _no_image(name, value)
        elif not isinstance(value, list):
            inputs[name], error = _literal(name, config, value)
        elif error := _bad_link(info, prompt, name, config, value):
            pass
        else:
            try:
                inner, _ = _validate_inputs(info, prompt, value[0], validated, is_image)
                valid = inner and valid
            except Exception as exc:
                message = "Exception when validating inner node"
                kind = "exception_during_inner_validation"
                reason = _exception(kind, message, exc, input_name=name, linked_node=value)
                validated[value[0]] = (False, [reason])
                valid = False
        if error:
            errors.append(error)
    validated[node_id] = (valid and not errors, errors)
    return validated[node_id]


def _bad_link(
    info: dict[str, Any], prompt: Json, name: str, config: list[Any], link: list[Any]
) -> Json | None:
    extra = {"input_name": name, "input_config": config}
    if len(link) != 2:
        message = "Bad linked input, must be a length-2 list of [node_id, slot_index]"
        return error_entry("bad_linked_input", message, name, **extra, received_value=link)
    received = info[prompt[link[0]]["class_type"]]["output"][link[1]]
    wanted = "COMBO" if isinstance(config[0], list) else config[0]
    if received == wanted or "*" in (received, wanted):
        return None
    message = "Return type mismatch between linked nodes"
    details = f"{name}, received_type({received}) mismatch input_type({wanted})"
    extra |= {"received_type": received, "linked_node": link}
    return error_entry("return_type_mismatch", message, details, **extra)


def _no_image(name: str, value: Any) -> Json:
    message = "Custom validation failed for node"
    details = f"{name} - Invalid image file: {value}"
    return error_entry("custom_validation_failed", message, details, input_name=name)


def _literal(name: str, config: list[Any], value: Any) -> tuple[Any, Json | None]:
    """The value as the node's type, and what is wrong with it."""
    kind, limits = config[0], config[1] if len(config) > 1 else {}
    extra = {"input_name": name, "input_config": config, "received_value": value}
    converters: dict[str, Callable[[Any], Any]] = {"INT": int, "FLOAT": float, "STRING": str}
    try:
        if isinstance(kind, str):
            value = {**converters, "BOOLEAN": bool}.get(kind, lambda same: same)(value)
    except Exception as exc:
        message = f"Failed to convert an input value to a {kind} value"
        extra["exception_message"] = str(exc)
        return value, error_entry("invalid_input_type", message, f"{name}, {value}, {exc}", **extra)
    if "min" in limits and value < limits["min"]:
        message = f"Value {value} smaller than min of {limits['min']}"
        return value, error_entry("value_smaller_than_min", message, name, **extra)
    if "max" in limits and value > limits["max"]:
        message = f"Value {value} bigger than max of {limits['max']}"
        return value, error_entry("value_bigger_than_max", message, name, **extra)
    options = limits.get("options", []) if kind == "COMBO" else kind
    if isinstance(options, list) and value not in options:
        listed = str(options)
        if len(options) > 20:
            listed, extra["input_config"] = f"(list of length {len(options)})", None
        details = f"{name}: {value!r} not in {listed}"
        return value, error_entry("value_not_in_list", "Value not in list", details, **extra)
    return value, None
