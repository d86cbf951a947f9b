"""The forms of /gen: their menus, buttons and modal, and the changes they make to a draft.

Owns the messages of a form. Each form has a draft of its own, and texts of its modal come back
whatever has become of the form. Queues no job. Runs on the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import discord

from binder import SHAPES, Size
from bot.controls import ControlId, Controls, Interaction, button
from bot.modal import PromptModal, empty_seed, given_back
from bot.permissions import cannot_post
from bot.running import absence
from job import JobParams
from jobs.catalog import Catalog
from jobs.draft import (
    PAGE_SIZE,
    Draft,
    Drafts,
    ExpiredForm,
    SentForm,
    Stage,
    StaleForm,
    shown_size,
)
from jobs.names import MENU_LIMIT, OptionNames, find_named
from jobs.servers import Servers
from jobs.typed import FormError
from settings import Settings
from store import Store, StoreError
from text import (
    OPTION_LIMIT,
    UserError,
    collecting,
    escape,
    in_lines,
    quote,
    shorten_middle,
)

log = logging.getLogger(__name__)

CHANGED = "That form has changed in the meantime"  # why a modal becomes a form of its own


# ---------------------------------------------------------------------------------------------
# The message of a form


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


def form_view(draft: Draft) -> Controls:
    """Return the controls of the form. Of its buttons, which both work, the one that is needed next
    has a color."""
    styles = discord.ButtonStyle
    edit, generate = styles.primary, styles.secondary
    if "a prompt" not in draft.missing():
        edit, generate = styles.secondary, styles.success
    size = draft.offer.size
    return Controls(
        *(form_menu(draft, name) for name in draft.offer.fields),
        *([shape_menu(size, draft.picture.shape, draft.key)] if size else []),
        button("form", "edit", draft.key, "Edit Prompts & Settings", edit),
        button("form", "generate", draft.key, "Generate", generate),
        *number_buttons(draft),
    )


def number_buttons(draft: Draft) -> list[discord.ui.Button[Any]]:
    """Return the buttons for the number of pictures and the length, where they can be chosen. Each
    is named by the value of now."""
    style, buttons = discord.ButtonStyle.secondary, []
    if draft.offer.count and draft.settings.max_count > 1:
        pictures = "1 picture" if draft.picture.count == 1 else f"{draft.picture.count} pictures"
        buttons.append(button("form", "count", draft.key, pictures, style))
    if draft.offer.length:
        frames = f"{draft.picture.length} frames"
        buttons.append(button("form", "length", draft.key, frames, style))
    return buttons


def retry_view(draft: Draft) -> Controls:
    """Return the button that opens a refused modal again."""
    return Controls(button("form", "retry", draft.key, "Correct it", discord.ButtonStyle.primary))


def form_embed(draft: Draft, away_since: float | None = None) -> discord.Embed:
    """Return the draft as an embed: at most some 3,500 of the 6,000 characters it may have.
    `away_since`: when ComfyUI ceased to answer (`time.monotonic()`)."""
    offer, picture = draft.offer, draft.picture
    embed = discord.Embed(
        title="Your picture",
        description="\n".join(hints(draft, away_since)) or None,
        colour=discord.Colour.blurple(),
    )
    positive = picture.positive_prompt or "not written yet: press Edit Prompts & Settings"
    embed.add_field(name="Prompt", value=escape(positive), inline=False)
    if "negative" in offer.params:
        negative = picture.negative_prompt or "none"
        embed.add_field(name="Negative prompt", value=escape(negative), inline=False)
    if draft.shows_workflow:
        embed.add_field(name="Workflow", value=escape(shorten_middle(draft.workflow, OPTION_LIMIT)))
    for name in offer.fields:
        shown = getattr(picture, name) or "not chosen"
        if picture.model and name == "model":
            shown = offer.models.shown(picture.model)
        embed.add_field(name=name.capitalize(), value=escape(shorten_middle(shown, 200)))
    if offer.size:
        embed.add_field(name="Shape", value=shown_size(offer.size, picture.shape))
    seed = empty_seed(draft) if picture.seed is None else str(picture.seed)
    numbers = {"steps": ("Steps", str(picture.steps)), "cfg": ("CFG", f"{picture.cfg:g}")}
    for param, (name, value) in {**numbers, "seed": ("Seed", seed)}.items():
        if param in offer.params:
            embed.add_field(name=name, value=value)
    return embed


def hints(draft: Draft, away_since: float | None = None) -> list[str]:
    """Return the lines that help a person with the form; none once it was sent."""
    lines: list[str] = []
    if draft.stage is not Stage.OPEN:
        return lines
    if away_since is not None:
        lines.append(f"{absence(away_since)}; a picture asked for now waits until it is back.")
    if draft.place_note:
        lines.append(draft.place_note)
    if draft.typed:
        lines.append(
            "Some of what you typed was not accepted; it is still there under Edit Prompts &"
            " Settings."
        )
    elif draft.missing() == ["a prompt"]:
        lines.append("Only the prompt is required; everything else has a default.")
    if len(draft.offer.models) > MENU_LIMIT:
        lines.append(f"{len(draft.offer.models)} models: `/gen model:` searches them.")
    return lines


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


def workflow_gone(workflow: str, instead: str) -> str:
    """Return a sentence about a form that is over another workflow than before."""
    return (
        f"The workflow {quote(workflow)} is not offered any more: {quote(instead)} stands in the"
        " form instead."
    )


# ---------------------------------------------------------------------------------------------
# The forms of all people


class Forms:
    """The forms of all people: opens them, and keeps each in step with its draft."""

    def __init__(
        self,
        settings: Settings,
        comfy: Servers,
        catalog: Catalog,
        store: Store,
        check_place: Callable[[Interaction], None],
    ) -> None:
        """Start without forms. `check_place` raises UserError where there may be none."""
        self.catalog = catalog
        self._comfy = comfy
        self._settings = settings
        self._store = store
        self._check_place = check_place
        self._drafts = Drafts()

    def workflow_of(self, user_id: int, text: str) -> str:
        """Return the workflow that a person names, or used last, or the default."""
        last = self._drafts.last(user_id)
        name = self.catalog.names.find(text) if text else last.workflow if last else None
        return name if name is not None and name in self.catalog.offers else self.catalog.default

    def draft(self, interaction: Interaction, key: str) -> Draft:
        """Return the draft behind a control that was used. Raises StaleForm."""
        return self._drafts.get(interaction.user.id, key)

    async def open(self, interaction: Interaction, options: Mapping[str, str]) -> None:
        """Answer /gen with an ephemeral form over a new draft, with the command's options in it;
        above it a line for each option that is wrong."""
        self._check_place(interaction)
        workflow = options["workflow"]
        draft = self._new_draft(interaction, self.workflow_of(interaction.user.id, workflow))
        problems: list[str] = []
        if workflow:
            with collecting(problems):
                find_named("workflow", workflow, self.catalog.names)
        problems += draft.apply_options(options)
        await self._send(interaction, draft, in_lines(problems))

    async def open_from(self, interaction: Interaction, job: JobParams, note: str = "") -> None:
        """Replace the deferred reply by a form filled from a job, with a line for each setting that
        is not as it was in the job, and then the note."""
        workflow = job.workflow or self.catalog.default
        draft = self._new_draft(interaction, workflow)
        notes = draft.copy_settings_from(replace(job, workflow=workflow))
        if draft.workflow != workflow:
            notes.insert(0, workflow_gone(workflow, draft.workflow))
        draft.typed = {}
        draft.change(positive_prompt=job.positive_prompt, seed=job.seed)
        draft.shown_by = interaction.followup
        notes += [*draft.name_loras(), note]
        await interaction.edit_original_response(
            content=in_lines(notes), embed=self._embed(draft), view=form_view(draft)
        )

    async def show_anew(self, interaction: Interaction, draft: Draft, note: str) -> None:
        """Show the form with the current lists and a note, over the default if its workflow is
        gone. What was chosen stays."""
        workflow = draft.workflow if draft.workflow in self.catalog.offers else self.catalog.default
        if workflow != draft.workflow:
            note = workflow_gone(draft.workflow, workflow)
        draft.move_to(workflow, self.catalog.offer(workflow))
        await self._show(interaction, draft, in_lines([note]))

    async def choose(self, interaction: Interaction, key: str, name: str, token: str) -> None:
        """Apply the choice of a menu and show the form again. Of a form that Generate works on
        nothing changes: it is shown again when that has ended."""
        draft = self.draft(interaction, key)
        if draft.stage is Stage.SENDING:
            await interaction.response.defer()
            return
        try:
            note = draft.choose(name, token)
        except FormError as stale:
            await self.show_anew(interaction, draft, stale.user_message)
        else:
            await self._show(interaction, draft, note)

    async def show_modal(self, interaction: Interaction, key: str, origin: str) -> None:
        """Open the modal for the buttons `edit` and `length` of the form, or `retry` below a
        refusal; also of a form that was sent since, so that the refused texts are not lost."""
        draft = await self._find(interaction, key)
        await interaction.response.send_modal(PromptModal(draft, origin))

    async def on_modal(
        self,
        interaction: Interaction,
        key: str,
        origin: str,
        components: Sequence[Mapping[str, Any]],
    ) -> None:
        """Apply the texts of a submitted modal and show the form again, or say what is wrong. Where
        the form cannot take them, open a new one; where there may be none, give them back."""
        typed = PromptModal.texts(components)
        key, _, fingerprint = key.partition(".")
        try:
            self._check_place(interaction)
            draft = await self._find(interaction, key)
        except StaleForm as stale:
            await self._open_instead(interaction, stale.reason, typed)
        except UserError as refusal:
            await interaction.response.send_message(
                refusal.user_message, ephemeral=True, **given_back(typed)
            )
        else:
            if draft.stage is not Stage.OPEN:
                await self._open_instead(interaction, SentForm.reason, typed, draft, origin)
            elif draft.would_lose(typed, fingerprint) or interaction.message is None:
                await self._open_instead(interaction, CHANGED, typed, draft, origin)
            else:
                await self._merge(interaction, draft, origin, typed)

    async def _merge(
        self,
        interaction: Interaction,
        draft: Draft,
        origin: str,
        typed: Mapping[str, str],
    ) -> None:
        problems = draft.apply_typed(typed)
        complaint: dict[str, Any] = {"content": in_lines(problems), "view": retry_view(draft)}
        if not problems and origin != "retry":
            await self._show(interaction, draft)
        elif not problems:
            await self._show_behind(interaction, draft)
        elif origin != "retry":
            await interaction.response.send_message(**complaint, ephemeral=True)
        else:
            await interaction.response.edit_message(**complaint)
        await self.keep_typed(interaction, draft, draft.saved() if draft.typed else "")

    async def keep_typed(self, interaction: Interaction, draft: Draft, texts: str) -> None:
        """Keep the texts of a refused draft over a restart, or forget them."""
        try:
            await asyncio.to_thread(
                self._store.keep_typed, draft.key, str(interaction.user.id), texts
            )
        except StoreError as error:  # they are in the form all the same
            log.warning("a form's texts are not kept for a restart: %s", error)

    async def _find(self, interaction: Interaction, key: str) -> Draft:
        """Return the draft with this key, sent or not; after a restart as it was kept when it was
        refused. Raises ExpiredForm if it is gone."""
        user_id = interaction.user.id
        with contextlib.suppress(ExpiredForm):
            return self._drafts.find(user_id, key)
        saved = ""
        with contextlib.suppress(StoreError):
            saved = await asyncio.to_thread(self._store.typed, key, str(user_id))
        with contextlib.suppress(ExpiredForm):
            return self._drafts.find(user_id, key)  # restored for another of the person's windows
        source = Draft.restored(saved, self.catalog, self._settings)
        return self._new_draft(interaction, source.workflow, source, key)

    async def _open_instead(
        self,
        interaction: Interaction,
        reason: str,
        typed: Mapping[str, str],
        old: Draft | None = None,
        origin: str = "",
    ) -> None:
        """Open a new form for the texts of a modal whose own form (`old`, if its draft is left)
        cannot take them. It replaces a form that is of no use, or the refusal."""
        workflow = old.workflow if old else self.workflow_of(interaction.user.id, "")
        draft = self._new_draft(interaction, workflow, old)
        problems = draft.apply_typed(typed)
        note = f"{reason}, so here is a new one with what you typed."
        message = interaction.message
        is_gone = message is None or (old and message.id in old.corrected)
        reply = self._send if is_gone or (old and origin != "retry") else self._show
        await reply(interaction, draft, in_lines([note, *problems]))

    def _new_draft(
        self, interaction: Interaction, workflow: str, source: Draft | None = None, key: str = ""
    ) -> Draft:
        """Return a draft over a workflow with the settings of `source`, the person's last draft, or
        the workflow's file, as far as they are offered; and with the texts of an unsent one. `key`
        is that of a draft which it restores."""
        if workflow not in self.catalog.offers:
            workflow = self.catalog.default
        offer = self.catalog.offers[workflow]
        draft = Draft.from_file(workflow, offer, self._settings)
        draft.key = key
        draft.shows_workflow = len(self.catalog.offers) > 1
        last = source or self._drafts.last(interaction.user.id)
        if last is not None:
            same = self._drafts.last(interaction.user.id, workflow)
            draft.copy_settings_from((source or same or last).picture)
            if last.stage is not Stage.SENT:
                draft.resume(last)
        draft.place_note = cannot_post(interaction)
        self._drafts.put(interaction.user.id, draft)
        return draft

    def _embed(self, draft: Draft) -> discord.Embed:
        return form_embed(draft, self._comfy.away_since)

    async def _send(self, interaction: Interaction, draft: Draft, note: str | None) -> None:
        """Reply with the form, ephemerally."""
        draft.shown_by = interaction.followup
        await interaction.response.send_message(
            note, embed=self._embed(draft), view=form_view(draft), ephemeral=True
        )

    async def _show(self, interaction: Interaction, draft: Draft, note: str | None = None) -> None:
        """Replace the message that the interaction came from by the form."""
        draft.shown_by = interaction.followup
        await interaction.response.edit_message(
            content=note, embed=self._embed(draft), view=form_view(draft)
        )

    async def show_after_refusal(self, interaction: Interaction, draft: Draft) -> None:
        """Show the form again whose Generate was refused: a menu may have been used meanwhile."""
        draft.shown_by = interaction.followup
        await interaction.edit_original_response(embed=self._embed(draft), view=form_view(draft))

    async def _show_behind(self, interaction: Interaction, draft: Draft) -> None:
        """Update the form after a corrected modal, and delete the refusal."""
        shown_by = draft.shown_by  # read here, because Generate may release it meanwhile
        if interaction.message is not None:
            draft.corrected.add(interaction.message.id)
        await interaction.response.defer()
        form: dict[str, Any] = {"embed": self._embed(draft), "view": form_view(draft)}
        with contextlib.suppress(discord.HTTPException):  # that token's 15 minutes may be over
            if shown_by is not None:  # it is None after a restart
                await shown_by.edit_message("@original", **form)
                with contextlib.suppress(discord.NotFound):  # the modal was submitted twice
                    await interaction.delete_original_response()
                return
        draft.shown_by = interaction.followup  # so the form replaces the refusal
        await interaction.edit_original_response(content=None, **form)
