"""The options of a command, as a person's client checks and sends them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.standins.discord.schema import SUBCOMMANDS, Json


@dataclass(frozen=True)
class File:
    """What a person attaches to a command."""

    name: str
    content: bytes = field(repr=False)


def fill_options(command: Json, values: Json, focused: str) -> list[Json]:
    """The options as the client sends them, checked as the client checks them."""
    known = {option["name"]: option for option in command.get("options") or []}
    below = [name for name, option in known.items() if option["type"] in SUBCOMMANDS]
    assert not below, f"{command['name']} is used by one of {below}"
    assert values.keys() <= known.keys(), f"options are {[*known]}, not {[*values]}"
    filled = []
    for name, option in known.items():
        if name not in values:
            assert focused or not option.get("required"), f"{name} is required"
            continue
        value: Any = values[name]
        kind = option["type"]
        entry = {"name": name, "type": kind, "value": value}
        if name == focused:
            filled.append({**entry, "value": str(value), "focused": True})
            continue
        types: dict[int, Any] = {3: str, 4: int, 5: bool, 10: (int, float), 11: File}
        assert kind in types, f"{name}: the stand-in knows no options of type {kind}"
        assert isinstance(value, types[kind]), f"{name} takes no {type(value).__name__}"
        choices = {choice["name"]: choice["value"] for choice in option.get("choices") or []}
        entry["value"] = value = choices.get(value, value)
        assert not choices or value in choices.values(), f"{name} offers {[*choices]}"
        size, bound = (len(value), "length") if kind == 3 else (value, "value")
        least, most = option.get(f"min_{bound}"), option.get(f"max_{bound}")
        assert least is None or size >= least, f"{name}: at least {least}"
        assert most is None or size <= most, f"{name}: at most {most}"
        filled.append(entry)
    return filled
