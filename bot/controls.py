"""Buttons, menus and their custom ids.

Owns the format of a custom id, and the buttons about one job; bot/commands.py maps each to what it
does. No I/O, but discord.py makes a view only on an event loop.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import discord

Interaction = discord.Interaction[Any]  # with whatever client
BUTTONS = {
    "cancel": ("Cancel", discord.ButtonStyle.danger),
    "again": ("Again", discord.ButtonStyle.primary),
    "edit": ("Edit", discord.ButtonStyle.secondary),
    "use": ("Use…", discord.ButtonStyle.secondary),
    "delete": ("Delete", discord.ButtonStyle.secondary),
    "remove": ("Delete", discord.ButtonStyle.danger),
    "keep": ("Keep", discord.ButtonStyle.secondary),
}


class ControlId(NamedTuple):
    """The custom id of a control, `area:action:key`. The bot routes by the first two; the key is
    the form, the job or the page that it is about."""

    area: str
    action: str
    key: str

    def __str__(self) -> str:
        return ":".join(self)

    @classmethod
    def parse(cls, text: str) -> ControlId:
        """Parse the text that `str()` makes; parts that are missing are empty."""
        area, _, rest = text.partition(":")
        action, _, key = rest.partition(":")
        return cls(area, action, key)


class Controls(discord.ui.View):
    """A view whose controls are routed by their custom ids alone, also after a restart. It is
    stopped at once: discord.py would keep a timer of 15 minutes for each ephemeral one."""

    def __init__(self, *items: discord.ui.Item[Any]) -> None:
        super().__init__(timeout=None)
        for item in items:
            self.add_item(item)
        self.stop()


def button(
    area: str, action: str, key: str, label: str, style: discord.ButtonStyle
) -> discord.ui.Button[Any]:
    """Return a button with the custom id of these parts."""
    custom_id = str(ControlId(area, action, key))
    return discord.ui.Button(custom_id=custom_id, label=label, style=style)


def job_button(job_id: str, action: str, label_end: str = "") -> discord.ui.Button[Any]:
    """Return the button for an action on a job; `label_end` tells it from others like it."""
    label, style = BUTTONS[action]
    return button("job", action, job_id, label + label_end, style)


def job_view(job_id: str, *actions: str) -> Controls:
    """Return buttons about one job. They carry its id, so they work for ever."""
    return Controls(*(job_button(job_id, action) for action in actions))
