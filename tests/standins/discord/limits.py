"""What Discord would refuse about what the bot shows, for the tests that ask no stand-in: each
function lists it, by the same rules."""

from __future__ import annotations

from typing import Any

import discord

from tests.standins.discord.schema import (
    EMBEDS,
    LAYOUT,
    MODAL,
    ROW,
    STRING_SELECT,
    Form,
    check_components,
    check_embeds,
    pruned,
)


def embed_faults(embed: discord.Embed) -> list[str]:
    """About an embed, alone in its message."""
    form, embeds = Form(), pruned([embed.to_dict()])
    EMBEDS(form, embeds, "embeds")
    check_embeds(form, embeds)
    return form.flat + form.unknown


def menu_faults(options: list[discord.SelectOption]) -> list[str]:
    """About the entries of a menu."""
    entries = [option.to_dict() for option in options]
    menu = {"type": STRING_SELECT, "custom_id": "menu", "options": entries}
    return _layout_faults([{"type": ROW, "components": [menu]}])


def view_faults(view: discord.ui.View) -> list[str]:
    """About the controls of a message."""
    return _layout_faults(view.to_components())


def modal_faults(modal: discord.ui.Modal) -> list[str]:
    """About a modal."""
    form, shown = Form(), pruned(modal.to_dict())
    MODAL(form, shown, "")
    if not form.flat:
        check_components(form, shown["components"])
    return form.flat + form.unknown


def _layout_faults(components: list[Any]) -> list[str]:
    form, shown = Form(), pruned(components)
    LAYOUT(form, shown, "components")
    if not form.flat:  # else the rules between components mean nothing
        check_components(form, shown)
    return form.flat + form.unknown
