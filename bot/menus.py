"""The menus of a form: each is a row of its message.

Owns no draft. No I/O, but discord.py makes a menu only on an event loop.
"""

from __future__ import annotations

from typing import Any

import discord

from binder import SHAPES, Size
from bot.controls import ControlId
from jobs.draft import AS_IN_FILE, PAGE_SIZE, STRENGTHS, Draft, shown_size, shown_strength
from jobs.names import MENU_LIMIT, OptionNames
from text import OPTION_LIMIT, shorten_middle

MENU_ROWS = 4  # of the five rows of a message, without that of the buttons


def form_menus(draft: Draft) -> list[discord.ui.Select[Any]]:
    """Return the menus of the form, at most MENU_ROWS: where there are more, the scheduler and the
    sampler stay as they are."""
    offer, picture = draft.offer, draft.picture
    menus = {name: form_menu(draft, name) for name in offer.fields}
    if offer.size:
        menus["shape"] = shape_menu(offer.size, picture.shape, draft.key)
    if offer.strength is not None:
        menus["strength"] = strength_menu(offer.strength, picture.strength, draft.key)
    if offer.takes_image and len(draft.takers) > 1:
        menus = {"workflow": workflow_menu(draft), **menus}
    if offer.takes_image and len(draft.sources) > 1:
        menus = {"source": source_menu(draft), **menus}
    for name in ("scheduler", "sampler"):
        if len(menus) > MENU_ROWS:
            menus.pop(name, None)
    return list(menus.values())


def form_menu(draft: Draft, name: str) -> discord.ui.Select[Any]:
    """Return the menu for one of OPTION_PARAMS. A closed menu shows the chosen entry alone, so that
    entry names the menu."""
    chosen, page = getattr(draft.picture, name), draft.pages.get(name, 0)
    options = menu_options(draft.offer.offered(name), chosen, page)
    for option in options:
        if option.default:
            option.label = shorten_middle(f"{name.capitalize()}: {option.label}", OPTION_LIMIT)
    return discord.ui.Select(
        custom_id=str(ControlId("form", name, draft.key)),
        placeholder=name.capitalize(),
        options=options,
    )


def shape_menu(size: Size, chosen: str, key: str) -> discord.ui.Select[Any]:
    """Return the menu of the shapes, each with its size."""
    options = []
    for shape in ("", *SHAPES):
        shown = shown_size(size, shape)
        label = f"Shape: {shown}" if shape == chosen else shown[0].upper() + shown[1:]
        value = f"shape:{shape}:{size}"
        options.append(discord.SelectOption(label=label, value=value, default=shape == chosen))
    return discord.ui.Select(
        custom_id=str(ControlId("form", "shape", key)), placeholder="Shape", options=options
    )


def strength_menu(own: float, chosen: float, key: str) -> discord.ui.Select[Any]:
    """Return the menu of the strengths; `own` is that of the workflow's file."""
    options = []
    for name, value in {"": 0.0, **STRENGTHS}.items():
        shown = shown_strength(value) if value else f"{AS_IN_FILE} ({own:g})"
        label = f"Strength: {shown}" if value == chosen else shown[0].upper() + shown[1:]
        token = f"strength:{name}:{own:g}"
        options.append(discord.SelectOption(label=label, value=token, default=value == chosen))
    return discord.ui.Select(
        custom_id=str(ControlId("form", "strength", key)), placeholder="Strength", options=options
    )


def workflow_menu(draft: Draft) -> discord.ui.Select[Any]:
    """Return the menu of the workflows that take a picture."""
    options = menu_options(draft.takers, draft.workflow, 0)
    for option in options:
        if option.default:
            option.label = shorten_middle(f"Workflow: {option.label}", OPTION_LIMIT)
    custom_id = str(ControlId("form", "workflow", draft.key))
    return discord.ui.Select(custom_id=custom_id, placeholder="Workflow", options=options)


def source_menu(draft: Draft) -> discord.ui.Select[Any]:
    """Return the menu of a message's pictures."""
    options = []
    for number, source in enumerate(draft.sources):
        is_chosen = source.url == draft.image_url
        name = shorten_middle(f"{number + 1}: {source.name}", OPTION_LIMIT - 20)
        label = f"Picture {name}" if is_chosen else name
        options.append(discord.SelectOption(label=label, value=str(number), default=is_chosen))
    custom_id = str(ControlId("form", "source", draft.key))
    return discord.ui.Select(custom_id=custom_id, placeholder="Picture", options=options)


def menu_options(names: OptionNames, chosen: str, page: int) -> list[discord.SelectOption]:
    """Return the entries of a menu. A list that does not fit is paged: Back first, More… last, and
    the chosen value on every page."""
    values = names.values

    def option(index: int) -> discord.SelectOption:
        value = values[index]
        name = names.shown(value)
        return discord.SelectOption(
            label=name,
            value=f"index:{index}:{names.fingerprint}",
            description=shorten_middle(value, OPTION_LIMIT) if name != value else None,
            default=value == chosen,
        )

    if len(values) <= MENU_LIMIT:
        return [option(index) for index in range(len(values))]
    first, last = page * PAGE_SIZE, min((page + 1) * PAGE_SIZE, len(values))
    shown = [option(index) for index in range(first, last)]
    if chosen in names and not first <= values.index(chosen) < last:
        shown.insert(0, option(values.index(chosen)))
    if page > 0:
        back = f"{first - PAGE_SIZE + 1} to {first} of {len(values)}"
        value = f"page:{page - 1}:{names.fingerprint}"
        shown.insert(0, discord.SelectOption(label="Back", value=value, description=back))
    if last < len(values):
        more = f"{last + 1} to {min(last + PAGE_SIZE, len(values))} of {len(values)}"
        value = f"page:{page + 1}:{names.fingerprint}"
        shown.append(discord.SelectOption(label="More…", value=value, description=more))
    return shown
