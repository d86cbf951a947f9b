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

from bot.controls import Controls, Interaction, button
from bot.menus import form_menus
from bot.modal import PromptModal, empty_seed, given_back
from bot.permissions import cannot_post
from bot.running import absence
from bot.sources import Source, kept, read
from job import JobParams
from jobs.catalog import Catalog
from jobs.draft import (
    STALE_LIST,
    Draft,
    Drafts,
    ExpiredForm,
    SentForm,
    Stage,
    StaleForm,
    shown_size,
    shown_strength,
)
from jobs.image import made_from
from jobs.names import MENU_LIMIT, OptionNames, find_named
from jobs.servers import Servers
from jobs.typed import FormError
from jobs.worker import NOT_KEPT
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

NO_TAKER = "No workflow of this bot works on pictures. Its owner can add one."
CHANGED = "That form has changed in the meantime"  # why a modal becomes a form of its own


# ---------------------------------------------------------------------------------------------
# The message of a form


def form_view(draft: Draft) -> Controls:
    """Return the controls of the form. Of its buttons, which all work, the one that is needed next
    has a color."""
    if draft.stage is Stage.SENT:
        return Controls()
    styles, missing = discord.ButtonStyle, draft.missing()
    edit = styles.primary if "a prompt" in missing else styles.secondary
    picture = styles.primary if "a picture" in missing else styles.secondary
    generate = styles.success if styles.primary not in (edit, picture) else styles.secondary
    has_picture = draft.offer.takes_image or len(draft.takers) > 0
    buttons = [button("form", "picture", draft.key, "Picture", picture)] if has_picture else []
    if draft.texts():  # an upscaler's has none, and Discord takes no empty window
        buttons.insert(0, button("form", "edit", draft.key, "Edit Prompts & Settings", edit))
    buttons.append(button("form", "generate", draft.key, "Generate", generate))
    return Controls(*form_menus(draft), *buttons, *number_buttons(draft))


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
    if "positive" in offer.params:
        embed.add_field(name="Prompt", value=escape(positive), inline=False)
    if "negative" in offer.params:
        negative = picture.negative_prompt or "none"
        embed.add_field(name="Negative prompt", value=escape(negative), inline=False)
    if draft.shows_workflow:
        embed.add_field(name="Workflow", value=escape(shorten_middle(draft.workflow, OPTION_LIMIT)))
    if offer.takes_image:
        shown = "not given yet: press Picture" if not picture.image else draft.image_note or "given"
        embed.add_field(name="Picture", value=shown)
        embed.set_thumbnail(url=draft.image_url if picture.image and draft.image_url else None)
    if offer.strength is not None:
        embed.add_field(name="Strength", value=shown_strength(picture.strength))
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
    if draft.typed.keys() & draft.texts().keys():
        lines.append(
            "Some of what you typed was not accepted; it is still there under Edit Prompts &"
            " Settings."
        )
    elif "a picture" in draft.missing():
        lines.append(
            "This workflow works on a picture: press Picture to send one, or use Apps > Use this"
            " picture on any message with one."
        )
    elif draft.missing() == ["a prompt"]:
        lines.append("Only the prompt is required; everything else has a default.")
    if len(draft.offer.models) > MENU_LIMIT:
        lines.append(f"{len(draft.offer.models)} models: `/gen model:` searches them.")
    return lines


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

    def workflow_of(self, user_id: int, text: str, *, has_image: bool) -> str:
        """Return the workflow that a person names, or used last, or the default; of those that take
        a picture if there is one, and else of the others, but for a name."""
        offers = self.catalog.offers
        named = self.catalog.names.find(text) if text else None
        if named and named in offers and (offers[named].takes_image or not has_image):
            return named
        last = [] if text else [draft.workflow for draft in self._drafts.newest(user_id)]
        for name in (*last, self.catalog.default, *offers):
            if name in offers and offers[name].takes_image == has_image:
                return name
        return self.catalog.default

    def takers(self) -> OptionNames:
        """Return the workflows that take a picture, as far as a menu has room for them."""
        offers = self.catalog.offers
        names = [name for name, offer in offers.items() if offer.takes_image]
        return OptionNames(names[:MENU_LIMIT])

    def check_takers(self) -> None:
        """Raise UserError if no workflow takes a picture."""
        if not len(self.takers()):
            raise UserError(NO_TAKER)

    def draft(self, interaction: Interaction, key: str) -> Draft:
        """Return the draft behind a control that was used. Raises StaleForm."""
        return self._drafts.get(interaction.user.id, key)

    async def open(
        self, interaction: Interaction, options: Mapping[str, str], source: Source | None
    ) -> None:
        """Answer /gen with an ephemeral form over a new draft, with the command's options in it;
        above it a line for each option that is wrong."""
        self._check_place(interaction)
        has_image, workflow = source is not None, options["workflow"]
        name = self.workflow_of(interaction.user.id, workflow, has_image=has_image)
        draft = self.new_draft(interaction, name)
        problems: list[str] = []
        if workflow:
            with collecting(problems):
                named = find_named("workflow", workflow, self.catalog.names)
                if named != name and len(draft.takers):
                    problems.append(f"The workflow {quote(named)} takes no picture.")
        problems += draft.apply_options(options)
        if source is not None:
            await interaction.response.defer(ephemeral=True, thinking=True)
            draft.use_image("", "", "")  # not that of a form which was left, should this be refused
            with collecting(problems):
                await self.give(interaction, draft, source)
        await self.send(interaction, draft, in_lines(problems))

    async def give(self, interaction: Interaction, draft: Draft, source: Source) -> None:
        """Read a picture and have the draft work on it, if need be over another workflow. Raises
        UserError if it cannot be used; the draft keeps what it has."""
        self.check_takers()
        name, image = await read(interaction, self._store, source)
        if draft.stage is not Stage.OPEN:  # Generate was pressed meanwhile
            raise SentForm
        draft.use_image(name, source.url, made_from(image, self._settings.max_megapixels))
        if not draft.offer.takes_image:
            workflow = self.workflow_of(interaction.user.id, "", has_image=True)
            draft.move_to(workflow, self.catalog.offer(workflow))

    async def open_from(self, interaction: Interaction, job: JobParams, note: str = "") -> None:
        """Replace the deferred reply by a form filled from a job, with a line for each setting that
        is not as it was in the job, and then the note."""
        workflow = job.workflow or self.catalog.default
        draft = self.new_draft(interaction, workflow)
        notes = draft.copy_settings_from(replace(job, workflow=workflow))
        if draft.workflow != workflow:
            notes.insert(0, workflow_gone(workflow, draft.workflow))
        draft.typed = {}
        draft.change(positive_prompt=job.positive_prompt, seed=job.seed)
        image = await asyncio.to_thread(kept, self._store, job.image) if job.image else None
        size = made_from(image, self._settings.max_megapixels) if image else ""
        draft.use_image(job.image if image else "", "", size)
        notes += [*draft.name_loras(), note]
        notes.append(NOT_KEPT if job.image and image is None else "")
        await self.send(interaction, draft, in_lines(notes))

    async def show_anew(self, interaction: Interaction, draft: Draft, note: str) -> None:
        """Show the form with the current lists and a note, over the default if its workflow is
        gone. What was chosen stays."""
        workflow = draft.workflow if draft.workflow in self.catalog.offers else self.catalog.default
        if workflow != draft.workflow:
            note = workflow_gone(draft.workflow, workflow)
        draft.move_to(workflow, self.catalog.offer(workflow))
        draft.takers = self.takers()
        await self._show(interaction, draft, in_lines([note]))

    async def choose(self, interaction: Interaction, key: str, name: str, token: str) -> None:
        """Apply the choice of a menu and show the form again. Of a form that Generate works on
        nothing changes: it is shown again when that has ended."""
        draft = self.draft(interaction, key)
        if draft.stage is Stage.SENDING:
            await interaction.response.defer()
            return
        try:
            if name == "workflow":
                self._move(draft, token)
            note = None if name == "workflow" else draft.choose(name, token)
        except FormError as stale:
            await self.show_anew(interaction, draft, stale.user_message)
        else:
            await self._show(interaction, draft, note)

    def _move(self, draft: Draft, token: str) -> None:
        """Go on over another workflow that takes a picture. Raises FormError if the menu is
        old."""
        _, index, fingerprint = f"{token}::".split(":")[:3]
        takers = draft.takers = self.takers()
        if fingerprint != takers.fingerprint or index not in map(str, range(len(takers))):
            raise FormError(STALE_LIST)
        workflow = takers.values[int(index)]
        draft.move_to(workflow, self.catalog.offer(workflow))

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
        return self.new_draft(interaction, source.workflow, source, key)

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
        user_id = interaction.user.id
        workflow = old.workflow if old else self.workflow_of(user_id, "", has_image=False)
        draft = self.new_draft(interaction, workflow, old)
        problems = draft.apply_typed(typed)
        note = f"{reason}, so here is a new one with what you typed."
        message = interaction.message
        is_gone = message is None or (old and message.id in old.corrected)
        reply = self.send if is_gone or (old and origin != "retry") else self._show
        await reply(interaction, draft, in_lines([note, *problems]))

    def new_draft(
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
            draft.change(image="")
            if source is not None:
                draft.use_image(source.picture.image, source.image_url, source.image_note)
                draft.sources = source.sources
            if last.stage is not Stage.SENT:
                draft.resume(last)
        draft.takers = self.takers()
        draft.place_note = cannot_post(interaction)
        self._drafts.put(interaction.user.id, draft)
        return draft

    def _embed(self, draft: Draft) -> discord.Embed:
        return form_embed(draft, self._comfy.away_since)

    async def send(self, interaction: Interaction, draft: Draft, note: str | None) -> None:
        """Reply with the form, ephemerally, or replace a deferred reply by it."""
        draft.shown_by = interaction.followup
        form: dict[str, Any] = {"embed": self._embed(draft), "view": form_view(draft)}
        if interaction.response.is_done():
            await interaction.edit_original_response(content=note, **form)
        else:
            await interaction.response.send_message(note, **form, ephemeral=True)

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
