"""The forms: their menus and buttons, and what becomes of what is chosen and typed.

Owns the messages of a form: each form has a draft of its own (draft.py), and what is typed comes
back whatever has become of the form. Runs on the event loop. What lies behind Generate is not known
here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import discord

from binder import SHAPES
from bot.controls import ControlId, Controls, Interaction, button
from bot.modal import PromptModal, given_back
from bot.permissions import cannot_post
from jobs.catalog import Catalog
from jobs.draft import Draft, Drafts, SentForm, Stage, StaleForm, blank
from jobs.names import MENU_LIMIT, names_of, nearest
from settings import Settings
from store import JobParams
from text import OPTION_LIMIT, UserError, escape, in_lines, quote, shorten_middle

CHANGED = "The other form was changed meanwhile"  # why a modal becomes a form of its own


# ---------------------------------------------------------------------------------------------
# A form's looks


def form_menu(draft: Draft, name: str) -> discord.ui.Select[Any]:
    """The menu for one of FORM_FIELDS, as the draft stands. A closed menu shows the chosen entry
    alone, so that one says which menu it is."""
    options = menu_options(draft.offered(name), getattr(draft, name), draft.pages.get(name, 0))
    for option in options:
        if option.default:
            option.label = shorten_middle(f"{name.capitalize()}: {option.label}", OPTION_LIMIT)
    return discord.ui.Select(
        custom_id=str(ControlId("form", name, draft.key)),
        placeholder=name.capitalize(),
        options=options,
    )


def shape_menu(draft: Draft) -> discord.ui.Select[Any]:
    """The menu of the shapes, each with its size."""
    options = []
    for shape in ("", *SHAPES):
        shown = replace(draft, shape=shape).shown_size()
        label = shown[0].upper() + shown[1:]
        if is_chosen := shape == draft.shape:
            label = f"Shape: {shown}"
        options.append(discord.SelectOption(label=label, value=f"shape:{shape}", default=is_chosen))
    return discord.ui.Select(
        custom_id=str(ControlId("form", "shape", draft.key)), placeholder="Shape", options=options
    )


def form_view(draft: Draft) -> Controls:
    """The controls of the form (architecture.md §3.1). The button that is needed next has a colour;
    the other works, too."""
    styles = discord.ButtonStyle
    edit, generate = styles.primary, styles.secondary
    if "a prompt" not in draft.missing():
        edit, generate = styles.secondary, styles.success
    return Controls(
        *(form_menu(draft, name) for name in draft.fields),
        *([shape_menu(draft)] if draft.size else []),
        button("form", "edit", draft.key, "Edit Prompts & Settings", edit),
        button("form", "generate", draft.key, "Generate", generate),
    )


def retry_view(draft: Draft) -> Controls:
    """The way back into a refused modal."""
    return Controls(button("form", "retry", draft.key, "Correct it", discord.ButtonStyle.primary))


def form_embed(draft: Draft) -> discord.Embed:
    """The draft as it stands. At most some 3,500 characters of the 6,000 an embed may have."""
    embed = discord.Embed(
        title="Your picture",
        description="\n".join(hints(draft)) or None,
        colour=discord.Colour.blurple(),
    )
    positive = draft.positive_prompt or "not written yet: press Edit Prompts & Settings"
    embed.add_field(name="Prompt", value=escape(positive), inline=False)
    if "negative" in draft.params:
        negative = draft.negative_prompt or "none"
        embed.add_field(name="Negative prompt", value=escape(negative), inline=False)
    if draft.shows_workflow:
        embed.add_field(name="Workflow", value=escape(shorten_middle(draft.workflow, OPTION_LIMIT)))
    for name in draft.fields:
        value = getattr(draft, name)
        shown = value or "not chosen"
        if value and name == "model":
            shown = names_of(draft.options.models).shown(value)
        embed.add_field(name=name.capitalize(), value=escape(shorten_middle(shown, 200)))
    if draft.size:
        embed.add_field(name="Shape", value=draft.shown_size())
    seed = "random" if draft.seed is None else str(draft.seed)
    numbers = {"steps": ("Steps", str(draft.steps)), "cfg": ("CFG", f"{draft.cfg:g}")}
    for param, (name, value) in {**numbers, "seed": ("Seed", seed)}.items():
        if param in draft.params:
            embed.add_field(name=name, value=value)
    return embed


def hints(draft: Draft) -> list[str]:
    """What helps a person with the form as it stands; nothing once it was sent."""
    lines: list[str] = []
    if draft.stage is not Stage.OPEN:
        return lines
    if draft.place_note:
        lines.append(draft.place_note)
    if draft.typed:
        lines.append("What you typed was not all taken: Edit Prompts & Settings still has it.")
    elif draft.missing() == ["a prompt"]:
        lines.append("Only the prompt is needed; all else may stay as it is.")
    if len(draft.options.models) > MENU_LIMIT:
        lines.append(f"{len(draft.options.models)} models: `/gen model:` searches them.")
    return lines


def menu_options(
    values: Sequence[str], chosen: str | None, page: int
) -> list[discord.SelectOption]:
    """The entries of a menu. A list that does not fit is paged: Back first, More… last, and the
    chosen value on every page."""
    names = names_of(values)

    def option(index: int) -> discord.SelectOption:
        name = names.shown(values[index])
        return discord.SelectOption(
            label=name,
            value=f"index:{index}",
            description=shorten_middle(values[index], OPTION_LIMIT)
            if name != values[index]
            else None,
            default=values[index] == chosen,
        )

    if len(values) <= MENU_LIMIT:
        return [option(index) for index in range(len(values))]
    size = MENU_LIMIT - 3  # room for Back, the chosen one from another page, and More…
    first, last = page * size, min((page + 1) * size, len(values))
    shown = [option(index) for index in range(first, last)]
    if chosen in values and not first <= values.index(chosen) < last:
        shown.insert(0, option(values.index(chosen)))
    if page > 0:
        back = f"{first - size + 1} to {first} of {len(values)}"
        shown.insert(
            0, discord.SelectOption(label="Back", value=f"page:{page - 1}", description=back)
        )
    if last < len(values):
        more = f"{last + 1} to {min(last + size, len(values))} of {len(values)}"
        shown.append(
            discord.SelectOption(label="More…", value=f"page:{page + 1}", description=more)
        )
    return shown


def prompt_modal(draft: Draft, origin: str) -> PromptModal:
    """The modal with the draft's texts; `origin` is what opened it, `edit` or `retry`."""
    control_id = ControlId("modal", origin, f"{draft.key}.{draft.mark()}")
    return PromptModal(str(control_id), draft.texts(), draft.most_steps, draft.own)


def workflow_gone(workflow: str, instead: str) -> str:
    """A sentence about a form that is over another workflow than it was."""
    return (
        f"The workflow {quote(workflow)} is not offered any more: {quote(instead)} stands in the"
        " form instead."
    )


# ---------------------------------------------------------------------------------------------
# The forms of all people


class Forms:
    """Opens forms, and keeps each in step with its draft."""

    def __init__(
        self, settings: Settings, catalog: Catalog, check_place: Callable[[Interaction], None]
    ) -> None:
        """`check_place` raises UserError where there may be no form."""
        self.catalog = catalog
        self._settings = settings
        self._check_place = check_place
        self._drafts = Drafts()

    def workflow_of(self, user_id: int, text: str) -> str:
        """The workflow that a person means with a text, or used last, or the default."""
        last = self._drafts.last(user_id)
        name = (
            names_of(tuple(self.catalog.offers)).find(text)
            if text
            else last.workflow
            if last
            else None
        )
        return name if name is not None and name in self.catalog.offers else self.catalog.default

    def draft(self, interaction: Interaction, key: str) -> Draft:
        """The draft behind a control that was used; StaleForm if it is of no use any more."""
        return self._drafts.get(interaction.user.id, key)

    async def open(
        self,
        interaction: Interaction,
        prompt: str,
        model: str,
        seed: str,
        workflow: str = "",
        shape: str = "",
        lora: str = "",
    ) -> None:
        """/gen: an ephemeral form over a new draft, with the command's options in it; above it what
        is wrong with them."""
        self._check_place(interaction)
        draft = self._new_draft(interaction, self.workflow_of(interaction.user.id, workflow))
        problems = draft.take_options(prompt, model, seed, shape, lora)
        if workflow and names_of(tuple(self.catalog.offers)).find(workflow) is None:
            near = nearest(workflow, tuple(self.catalog.offers))
            problems.insert(0, f"There is no workflow {quote(workflow)}.{near}")
        await self._send(interaction, draft, in_lines(problems))

    async def open_from(self, interaction: Interaction, job: JobParams, note: str = "") -> None:
        """Edit: a form filled from a job, in place of the answer that was deferred. It says what is
        not as it was in the job, and then the note."""
        workflow = job.workflow or self.catalog.default
        draft = self._new_draft(interaction, workflow)
        notes = draft.take_settings(replace(job, workflow=workflow))
        if draft.workflow != workflow:
            notes.insert(0, workflow_gone(workflow, draft.workflow))
        draft.typed = {}
        draft.positive_prompt, draft.seed = job.positive_prompt, job.seed
        draft.shown_by = interaction
        notes += [*draft.lora_problems(), note]
        await interaction.edit_original_response(
            content=in_lines(notes),
            embed=form_embed(draft),
            view=form_view(draft),
        )

    async def show_anew(self, interaction: Interaction, draft: Draft, note: str) -> None:
        """The form with the lists as they are now, and a note; what was chosen stays. Where its
        workflow is gone, it is over the default."""
        workflow = draft.workflow if draft.workflow in self.catalog.offers else self.catalog.default
        if workflow != draft.workflow:
            note = workflow_gone(draft.workflow, workflow)
        draft.move_to(workflow, self.catalog.offer(workflow))
        await self._show(interaction, draft, in_lines([note]))

    async def choose(self, interaction: Interaction, key: str, name: str, token: str) -> None:
        """A menu: merge the choice, show the form again."""
        draft = self.draft(interaction, key)
        note = draft.choose(name, token)
        await self._show(interaction, draft, note)

    async def show_modal(self, interaction: Interaction, key: str, origin: str) -> None:
        """The button `edit` of the form, or `retry` of the answer to a refused modal; also of a
        form that was sent meanwhile, so that what was refused can still be had."""
        draft = self._drafts.find(interaction.user.id, key)
        await interaction.response.send_modal(prompt_modal(draft, origin))

    async def on_modal(
        self,
        interaction: Interaction,
        key: str,
        origin: str,
        components: Sequence[Mapping[str, Any]],
    ) -> None:
        """A submitted modal: merge its texts and show the form again, or say what is wrong. Where
        the form cannot take them, a new one does; where there may be none, they are given back."""
        typed = PromptModal.texts(components)
        key, _, mark = key.partition(".")
        try:
            self._check_place(interaction)
            draft = self._drafts.find(interaction.user.id, key)
        except StaleForm as stale:
            await self._open_instead(interaction, stale.reason, typed)
        except UserError as refusal:
            await interaction.response.send_message(
                refusal.user_message, ephemeral=True, **given_back(typed)
            )
        else:
            if draft.stage is not Stage.OPEN:
                await self._open_instead(interaction, SentForm.reason, typed, draft, origin)
            elif draft.would_lose(typed, mark):
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
        problems = draft.take(typed)
        if not problems and origin == "edit":
            await self._show(interaction, draft)
        elif not problems:
            await self._show_behind(interaction, draft)
        elif origin == "edit":
            await interaction.response.send_message(
                in_lines(problems), view=retry_view(draft), ephemeral=True
            )
        else:
            await interaction.response.edit_message(
                content=in_lines(problems), view=retry_view(draft)
            )

    async def _open_instead(
        self,
        interaction: Interaction,
        reason: str,
        typed: Mapping[str, str],
        old: Draft | None = None,
        origin: str = "",
    ) -> None:
        """A new form for the texts of a modal that its own one (`old`, if it is still known) cannot
        take. It takes the place of a form that is of no use, or of the complaint."""
        workflow = old.workflow if old else self.workflow_of(interaction.user.id, "")
        draft = self._new_draft(interaction, workflow, old)
        problems = draft.take(typed)
        note = f"{reason}, so this form is new; what you typed is in it."
        answer = self._send if old and origin == "edit" else self._show
        await answer(interaction, draft, in_lines([note, *problems]))

    def _new_draft(
        self, interaction: Interaction, workflow: str, source: Draft | None = None
    ) -> Draft:
        """A draft over a workflow with the settings of another one, the person's last, or the
        workflow file's, as far as the server offers them. What was typed into it is kept, too,
        unless it was sent."""
        if workflow not in self.catalog.offers:
            workflow = self.catalog.default
        draft = blank(workflow, self.catalog.offers[workflow], self._settings.max_steps)
        draft.negative_prompt = self._settings.default_negative_prompt
        draft.shows_workflow = len(self.catalog.offers) > 1
        last = source or self._drafts.last(interaction.user.id)
        if last is not None:
            same = self._drafts.last(interaction.user.id, workflow)
            draft.take_settings(source or same or last)
            if last.stage is not Stage.SENT:
                draft.take_over(last)
        draft.place_note = cannot_post(interaction)
        self._drafts.put(interaction.user.id, draft)
        return draft

    async def _send(self, interaction: Interaction, draft: Draft, note: str | None) -> None:
        """Answer with the form, for the person's eyes alone."""
        draft.shown_by = interaction
        await interaction.response.send_message(
            note, embed=form_embed(draft), view=form_view(draft), ephemeral=True
        )

    async def _show(self, interaction: Interaction, draft: Draft, note: str | None = None) -> None:
        """Turn the message that the interaction came from into the form as it now stands."""
        draft.shown_by = interaction
        await interaction.response.edit_message(
            content=note, embed=form_embed(draft), view=form_view(draft)
        )

    async def _show_behind(self, interaction: Interaction, draft: Draft) -> None:
        """After a corrected modal: update the form, and take the complaint away."""
        shown_by = draft.shown_by
        assert shown_by is not None  # until it is sent, which may happen during the next line
        await interaction.response.defer()
        form: dict[str, Any] = {"embed": form_embed(draft), "view": form_view(draft)}
        try:
            await shown_by.edit_original_response(**form)
        except discord.HTTPException:
            # That token's 15 minutes are over: the complaint becomes the form.
            draft.shown_by = interaction
            await interaction.edit_original_response(content=None, **form)
        else:
            with contextlib.suppress(discord.NotFound):  # the modal was submitted twice
                await interaction.delete_original_response()
