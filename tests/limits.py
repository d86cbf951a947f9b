"""Discord's limits for what the bot shows, for the tests that have no stand-in to refuse it."""

from __future__ import annotations

from typing import Any

import discord


def embed_faults(embed: discord.Embed) -> list[str]:
    """What Discord would refuse about an embed."""
    shown: dict[str, Any] = dict(embed.to_dict())
    lengths = [
        ("title", shown.get("title", ""), 0, 256),
        ("description", shown.get("description", ""), 0, 4096),
        ("footer", shown.get("footer", {}).get("text", ""), 0, 2048),
    ]
    fields = shown.get("fields", [])
    for number, field in enumerate(fields):
        lengths.append((f"name {number}", field["name"], 1, 256))
        lengths.append((f"value {number}", field["value"], 1, 1024))
    faults = [
        f"{what}: {len(text)}"
        for what, text, least, most in lengths
        if not least <= len(text.strip()) <= most
    ]
    if len(fields) > 25:
        faults.append(f"fields: {len(fields)}")
    total = sum(len(text) for _, text, _, _ in lengths)
    if not 0 < total <= 6000:
        faults.append(f"all texts: {total}")
    return faults


def menu_faults(options: list[discord.SelectOption]) -> list[str]:
    """What Discord would refuse about the entries of a menu."""
    faults = [] if 1 <= len(options) <= 25 else [f"entries: {len(options)}"]
    for option in options:
        for what, text in (("label", option.label), ("value", option.value)):
            if not 1 <= len(text.strip()) <= 100:
                faults.append(f"{what}: {text!r}")
        if len(option.description or "") > 100:
            faults.append(f"description: {option.description!r}")
    if len({option.value for option in options}) != len(options):
        faults.append("a value twice")
    if sum(option.default for option in options) > 1:
        faults.append("more than one is chosen")
    return faults


def view_faults(view: discord.ui.View) -> list[str]:
    """What Discord would refuse about the controls of a message."""
    rows = view.to_components()
    faults = [] if len(rows) <= 5 else [f"rows: {len(rows)}"]
    controls: list[Any] = [control for row in rows for control in row["components"]]
    ids = [control["custom_id"] for control in controls]
    faults += [f"id: {text!r}" for text in ids if not 1 <= len(text) <= 100]
    if len(set(ids)) != len(ids):
        faults.append("an id twice")
    for item in view.children:
        if isinstance(item, discord.ui.Select):
            faults += menu_faults(item.options)
        elif isinstance(item, discord.ui.Button) and not 1 <= len(item.label or "") <= 80:
            faults.append(f"label: {item.label!r}")
    return faults


def modal_faults(modal: discord.ui.Modal) -> list[str]:
    """What Discord would refuse about a modal of labels with a text input each."""
    shown: Any = modal.to_dict()
    lengths = [("title", shown["title"], 1, 45), ("id", shown["custom_id"], 1, 100)]
    faults = []
    for label in shown["components"]:
        field = label["component"]
        lengths.append(("label", label["label"], 1, 45))
        lengths.append(("description", label.get("description", ""), 0, 100))
        lengths.append(("id", field["custom_id"], 1, 100))
        lengths.append(("value", field.get("value") or "", 0, field["max_length"]))
        if not 1 <= field["max_length"] <= 4000:
            faults.append(f"max_length: {field['max_length']}")
    if not 1 <= len(shown["components"]) <= 5:
        faults.append(f"inputs: {len(shown['components'])}")
    return faults + [
        f"{what}: {text!r}" for what, text, least, most in lengths if not least <= len(text) <= most
    ]
