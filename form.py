"""What one person fills in: the drafts, their menus, what becomes of what is typed.

Owns the drafts in memory, what may be typed into them, and the messages of a form: each form has a
draft of its own, and what is typed comes back whatever has become of the form. Everything here runs
on the event loop, except the pure functions. What lies behind Generate is not known here.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import secrets
import zlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, NamedTuple

import discord

import binder
from binder import SEED_MAX
from modal import CFG_RANGE, SEED_LIMIT, STEPS_RANGE, PromptModal, given_back
from names import (
    MENU_LIMIT,
    OPTION_LIMIT,
    UnknownName,
    display_name,
    ends_of,
    escaped,
    find_model,
    names_of,
    nearest,
    quoted,
)
from object_info import ComfyOptions
from store import Job, JobParams

RANDOM_SEEDS = 2**32
DEFAULT_STEPS = 20
DEFAULT_CFG = 7.0
FORM_LIMIT = 10  # forms of one person that are kept in memory
DRAFT_LIMIT = 1000  # people whose forms are kept; who has opened none for the longest goes first

FORM_FIELDS = ("model", "sampler", "scheduler")

CHANGED = "The other form was changed meanwhile"  # why a modal becomes a form of its own


class Refusal(Exception):
    """Why the bot does not do what somebody asks; `public` is the finished sentence for them."""

    @property
    def public(self) -> str:
        """The sentence."""
        return str(self)


class FormError(Refusal):
    """What is wrong with something filled in."""


class StaleForm(FormError):
    """The controls of a form that is of no use any more. `reason` begins the sentence that says
    why what was typed into its modal stands in another form."""

    sentence: str
    reason: str

    def __init__(self) -> None:
        super().__init__(self.sentence)


class ExpiredForm(StaleForm):
    """A form from before a restart: its draft is gone."""

    sentence = "This form is from before a restart of the bot. Please run /gen again."
    reason = "The bot was restarted"


class ForgottenForm(StaleForm):
    """A form of this run whose draft has made room for newer ones."""

    sentence = "You have opened many forms since: please use a newer one, or run /gen again."
    reason = "You have opened many forms since"


class SentForm(StaleForm):
    """A form that has become a job."""

    sentence = "This form has been sent already. Run /gen for another picture."
    reason = "The other form was sent already"


# ---------------------------------------------------------------------------------------------
# The draft


class Stage(Enum):
    """How far a draft is on its way to a job."""

    OPEN = "being filled in"
    SENDING = "Generate was pressed, and is being worked on"
    SENT = "it became a job: the form is read-only"


@dataclass
class Draft:
    """What a person has filled in so far in one form; lives in memory (architecture.md §3.1). `key`
    ties the form's controls to it; Drafts gives it."""

    options: ComfyOptions  # as offered in this form: the menus' values are indexes into it
    model: str | None = None
    sampler: str | None = None
    scheduler: str | None = None
    steps: int = DEFAULT_STEPS
    cfg: float = DEFAULT_CFG
    positive_prompt: str = ""
    negative_prompt: str = ""
    seed: int | None = None  # None: a new one for each job
    key: str = ""
    pages: dict[str, int] = field(default_factory=dict)
    typed: dict[str, str] = field(default_factory=dict)  # what was refused, to be shown again
    stage: Stage = Stage.OPEN
    shown_by: discord.Interaction[Any] | None = None  # the last one whose answer is the form

    def offered(self, name: str) -> tuple[str, ...]:
        """The values to choose from for one of FORM_FIELDS."""
        values: tuple[str, ...] = getattr(self.options, f"{name}s")
        return values

    def adopt(self, name: str, value: str) -> bool:
        """Take a value for one of FORM_FIELDS if the server offers it; whether it does."""
        is_offered = value in self.offered(name)
        if is_offered:
            setattr(self, name, value)
        return is_offered

    def choose(self, name: str, token: str) -> str | None:
        """Take the value of a menu: `page:N` turns the page, an index chooses. Returns what to tell
        the person if that has changed more than they chose."""
        kind, _, number = token.partition(":")
        if kind == "page":
            self.pages[name] = int(number)
            return None
        setattr(self, name, self.offered(name)[int(number)])
        before = self.scheduler
        if name == "sampler":  # architecture.md §3.2.4
            self.scheduler = self.options.schedulers[0]
        if self.scheduler == before or self.scheduler is None:
            return None
        return f"Scheduler was set to {escaped(ends_of(self.scheduler, 100))} with this sampler."

    def take_options(self, prompt: str, model: str, seed: str) -> list[str]:
        """Take the options of /gen that were given, or say what is wrong with each. A wrong seed is
        kept as typed, for the modal."""
        problems: list[str] = []
        if prompt.strip():
            self.positive_prompt = prompt.strip()
            self.typed.pop("positive_prompt", None)
        if model:
            try:
                self.model = find_model(model, self.options.models)
            except UnknownName as unknown:
                problems.append(unknown.public)
        if seed:
            self.typed.pop("seed", None)
            try:
                self.seed = parse_seed(seed)
            except ValueError:
                self.typed["seed"] = seed[:SEED_LIMIT]
                problems.append(
                    f"The seed {quoted(seed)} is not a whole number from 0 to {SEED_MAX}."
                )
        return problems

    def texts(self) -> dict[str, str]:
        """What the modal shows: the draft's own, and what was refused as it was typed."""
        values = {
            "positive_prompt": self.positive_prompt,
            "negative_prompt": self.negative_prompt,
            "steps": str(self.steps),
            "cfg": f"{self.cfg:g}",
            "seed": "" if self.seed is None else str(self.seed),
        }
        return {name: self.typed.get(name, value) for name, value in values.items()}

    def mark(self) -> str:
        """Eight digits that change with `texts()`; a modal carries those it was opened with."""
        return f"{zlib.crc32(repr(self.texts()).encode()):08x}"

    def would_lose(self, typed: Mapping[str, str], mark: str) -> bool:
        """Whether the texts of a modal that was opened with this mark would overwrite what another
        one has brought since. The same texts a second time lose nothing."""
        after = replace(self)
        after.take(typed)
        return mark != self.mark() and after.texts() != self.texts()

    def take(self, typed: Mapping[str, str]) -> list[str]:
        """Merge the texts of the modal, or say what is wrong with each and keep them as typed."""
        problems: list[str] = []
        steps, cfg = parse_steps(typed.get("steps", "")), parse_cfg(typed.get("cfg", ""))
        positive = typed.get("positive_prompt", "").strip()
        if not positive:
            problems.append("**Prompt** is empty: describe the picture in a few words.")
        if steps is None:
            low, high = STEPS_RANGE
            problems.append(
                f"**Steps** is {quoted(typed.get('steps', ''))}:"
                f" give a whole number from {low} to {high}."
            )
        if cfg is None:
            problems.append(
                f"**CFG** is {quoted(typed.get('cfg', ''))}: give a number from {CFG_RANGE[0]:g}"
                f" to {CFG_RANGE[1]:g}, for example 7 or 7.5."
            )
        try:
            seed = parse_seed(typed.get("seed", ""))
        except ValueError:
            problems.append(
                f"**Seed** is {quoted(typed['seed'])}: give a whole number from 0 to"
                f" {SEED_MAX}, or leave it empty for a random one."
            )
        if steps is None or cfg is None or problems:  # the first two again for mypy
            self.typed = dict(typed)
            return problems
        self.steps, self.cfg, self.seed, self.positive_prompt = steps, cfg, seed, positive
        self.negative_prompt = typed.get("negative_prompt", "").strip()
        self.typed = {}
        return []

    def start_from(self, defaults: binder.Defaults) -> None:
        """Start from the workflow file's own values, as far as they are offered and in range."""
        for name in FORM_FIELDS:
            self.adopt(name, getattr(defaults, name) or "")
        self.steps = parse_steps(defaults.steps or "") or DEFAULT_STEPS
        self.cfg = parse_cfg(defaults.cfg or "") or DEFAULT_CFG

    def take_settings(self, source: Draft | JobParams) -> None:
        """Start from settings used before, as far as they are still offered."""
        for name in FORM_FIELDS:
            self.adopt(name, getattr(source, name))
        self.steps, self.cfg = source.steps, source.cfg
        self.negative_prompt = source.negative_prompt

    def sent(self) -> None:
        """It became a job. What the form was shown by, a message with all its parts, is let go."""
        self.stage, self.shown_by = Stage.SENT, None

    def missing(self) -> list[str]:
        """What still has to be filled in before Generate."""
        parts = {
            "a model": self.model,
            "a sampler": self.sampler,
            "a scheduler": self.scheduler,
            "a prompt": self.positive_prompt,
        }
        return [name for name, value in parts.items() if not value]

    def job_params(
        self, user_id: object, guild_id: object, channel_id: object, *, random_seeds: bool
    ) -> JobParams:
        """The finished draft as a job; the ids are Discord's."""
        return JobParams(
            user_id=str(user_id),
            guild_id=str(guild_id),
            channel_id=str(channel_id),
            model=self.model or "",
            sampler=self.sampler or "",
            scheduler=self.scheduler or "",
            steps=self.steps,
            cfg=self.cfg,
            positive_prompt=self.positive_prompt,
            negative_prompt=self.negative_prompt,
            seed=new_seed() if random_seeds and self.seed is None else self.seed,
        )


class Drafts:
    """The newest FORM_LIMIT drafts of each person, of the last DRAFT_LIMIT people."""

    def __init__(self) -> None:
        self._by_user: OrderedDict[int, dict[str, Draft]] = OrderedDict()
        # Begins each key, so that a form from before a restart is told from one that was forgotten.
        self._run = secrets.token_hex(4)
        self._numbers = itertools.count(1)

    def put(self, user_id: int, draft: Draft) -> None:
        """Keep a new draft, and give it its key. Where there are too many, one that was sent goes,
        or else the oldest."""
        draft.key = f"{self._run}-{next(self._numbers)}"
        forms = self._by_user.setdefault(user_id, {})
        self._by_user.move_to_end(user_id)
        forms[draft.key] = draft
        if len(forms) > FORM_LIMIT:
            sent = [key for key, other in forms.items() if other.stage is Stage.SENT]
            del forms[[*sent, *forms][0]]
        if len(self._by_user) > DRAFT_LIMIT:
            self._by_user.popitem(last=False)

    def last(self, user_id: int) -> Draft | None:
        """The person's newest draft, whether or not it was sent."""
        forms = self._by_user.get(user_id)
        return forms[next(reversed(forms))] if forms else None

    def find(self, user_id: int, key: str) -> Draft:
        """The draft with this key, also one that was sent; StaleForm if it is gone."""
        draft = self._by_user.get(user_id, {}).get(key)
        if draft is not None:
            return draft
        raise ForgottenForm if key.startswith(f"{self._run}-") else ExpiredForm

    def get(self, user_id: int, key: str) -> Draft:
        """The draft behind a form's controls; StaleForm if they are of no use any more."""
        draft = self.find(user_id, key)
        if draft.stage is Stage.SENT:
            raise SentForm
        return draft


def new_seed() -> int:
    """A random seed, short enough for a phone and for every node (design.md)."""
    return secrets.randbelow(RANDOM_SEEDS)


def check_offered(params: JobParams, options: ComfyOptions) -> None:
    """FormError for what ComfyUI does not offer any more (after /refresh, or from an old job)."""
    draft = Draft(options)
    for name in FORM_FIELDS:
        value = getattr(params, name)
        if not draft.adopt(name, value):
            raise FormError(
                f"The {name} {quoted(display_name(value))} is not offered any more."
                f"{nearest(value, draft.offered(name))} Choose another with /gen."
            )


def parse_steps(text: str) -> int | None:
    """A whole number in STEPS_RANGE in plain ASCII digits, or None."""
    text = text.strip()
    if not re.fullmatch(r"\+?[0-9]{1,4}", text):
        return None
    return int(text) if STEPS_RANGE[0] <= int(text) <= STEPS_RANGE[1] else None


def parse_cfg(text: str) -> float | None:
    """A decimal number in CFG_RANGE in plain ASCII digits, with a point or a comma, or None."""
    text = text.strip().replace(",", ".")
    if not re.fullmatch(r"\+?[0-9]{1,4}(\.[0-9]{1,10})?", text):
        return None
    return float(text) if CFG_RANGE[0] <= float(text) <= CFG_RANGE[1] else None


def parse_seed(text: str) -> int | None:
    """A seed in plain ASCII digits; None for an empty text. ValueError for anything else."""
    text = text.strip()
    if not text:
        return None
    if not re.fullmatch(r"\+?[0-9]{1,20}", text) or int(text) > SEED_MAX:
        raise ValueError(text)
    return int(text)


# ---------------------------------------------------------------------------------------------
# Controls: what is pressed, chosen and typed into


class ControlId(NamedTuple):
    """The custom id of a control, `area:action:key`. The bot routes by the first two; the key says
    which form or which job it is about."""

    area: str
    action: str
    key: str

    def __str__(self) -> str:
        return ":".join(self)

    @classmethod
    def parse(cls, text: str) -> ControlId:
        """The reverse of `str()`; parts that are missing are empty."""
        area, _, rest = text.partition(":")
        action, _, key = rest.partition(":")
        return cls(area, action, key)


class Controls(discord.ui.View):
    """Controls that the bot finds by their custom ids alone, also after a restart: discord.py has
    no need to remember them, and would keep a timer of 15 minutes for each ephemeral one."""

    def __init__(self, *items: discord.ui.Item[Any]) -> None:
        super().__init__(timeout=None)
        for item in items:
            self.add_item(item)
        self.stop()


def button(
    area: str, action: str, key: str, label: str, style: discord.ButtonStyle
) -> discord.ui.Button[Any]:
    """A button with the custom id of these parts."""
    custom_id = str(ControlId(area, action, key))
    return discord.ui.Button(custom_id=custom_id, label=label, style=style)


def form_menu(draft: Draft, name: str) -> discord.ui.Select[Any]:
    """The menu for one of FORM_FIELDS, as the draft stands. A closed menu shows the chosen entry
    alone, so that one says which menu it is."""
    options = menu_options(draft.offered(name), getattr(draft, name), draft.pages.get(name, 0))
    for option in options:
        if option.default:
            option.label = ends_of(f"{name.capitalize()}: {option.label}", OPTION_LIMIT)
    return discord.ui.Select(
        custom_id=str(ControlId("form", name, draft.key)),
        placeholder=name.capitalize(),
        options=options,
    )


def form_view(draft: Draft) -> Controls:
    """The controls of the form (architecture.md §3.1). The button that is needed next has a colour;
    the other works, too."""
    styles = discord.ButtonStyle
    edit, generate = styles.primary, styles.secondary
    if draft.positive_prompt:
        edit, generate = styles.secondary, styles.success
    return Controls(
        *(form_menu(draft, name) for name in FORM_FIELDS),
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
    embed.add_field(name="Prompt", value=escaped(positive), inline=False)
    negative = draft.negative_prompt or "none"
    embed.add_field(name="Negative prompt", value=escaped(negative), inline=False)
    for name in FORM_FIELDS:
        value = getattr(draft, name)
        shown = ends_of(value, 200) if value else "not chosen"
        if value and name == "model":
            shown = names_of(draft.options.models).shown(value)
        embed.add_field(name=name.capitalize(), value=escaped(shown))
    embed.add_field(name="Steps", value=str(draft.steps))
    embed.add_field(name="CFG", value=f"{draft.cfg:g}")
    embed.add_field(name="Seed", value="random" if draft.seed is None else str(draft.seed))
    return embed


def hints(draft: Draft) -> list[str]:
    """What helps a person with the form as it stands; nothing once it was sent."""
    lines: list[str] = []
    if draft.stage is not Stage.OPEN:
        return lines
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
            description=ends_of(values[index], OPTION_LIMIT) if name != values[index] else None,
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
    return PromptModal(str(control_id), draft.texts())


# ---------------------------------------------------------------------------------------------
# The forms of all people


class Forms:
    """Opens forms, and keeps each in step with its draft. `options` is what new forms offer,
    `defaults` what they start with."""

    def __init__(
        self,
        options: ComfyOptions,
        defaults: binder.Defaults,
        negative_prompt: str,
        check_place: Callable[[discord.Interaction[Any]], None],
    ) -> None:
        """`negative_prompt` is what a first form starts with; `check_place` raises Refusal if there
        may be no form where an interaction comes from."""
        self.options = options
        self.defaults = defaults
        self._negative_prompt = negative_prompt
        self._check_place = check_place
        self._drafts = Drafts()

    def draft(self, interaction: discord.Interaction[Any], key: str) -> Draft:
        """The draft behind a control that was used; StaleForm if it is of no use any more."""
        return self._drafts.get(interaction.user.id, key)

    async def open(
        self, interaction: discord.Interaction[Any], prompt: str, model: str, seed: str
    ) -> None:
        """/gen: an ephemeral form over a new draft, with the command's options in it; above it what
        is wrong with them."""
        self._check_place(interaction)
        draft = self._new_draft(interaction.user.id)
        problems = draft.take_options(prompt, model, seed)
        await self._send(interaction, draft, "\n".join(problems) or None)

    async def open_from(self, interaction: discord.Interaction[Any], job: Job) -> None:
        """Edit: a form filled from a job, in place of the answer that was deferred."""
        draft = self._new_draft(interaction.user.id)
        draft.take_settings(job)
        draft.typed = {}
        draft.positive_prompt, draft.seed = job.positive_prompt, job.seed
        draft.shown_by = interaction
        await interaction.edit_original_response(embed=form_embed(draft), view=form_view(draft))

    async def choose(
        self, interaction: discord.Interaction[Any], key: str, name: str, token: str
    ) -> None:
        """A menu: merge the choice, show the form again."""
        draft = self.draft(interaction, key)
        note = draft.choose(name, token)
        await self._show(interaction, draft, note)

    async def show_modal(
        self, interaction: discord.Interaction[Any], key: str, origin: str
    ) -> None:
        """The button `edit` of the form, or `retry` of the answer to a refused modal; also of a
        form that was sent meanwhile, so that what was refused can still be had."""
        draft = self._drafts.find(interaction.user.id, key)
        await interaction.response.send_modal(prompt_modal(draft, origin))

    async def take_modal(
        self,
        interaction: discord.Interaction[Any],
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
        except Refusal as refusal:
            await interaction.response.send_message(
                refusal.public, ephemeral=True, **given_back(typed)
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
        interaction: discord.Interaction[Any],
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
                "\n".join(problems), view=retry_view(draft), ephemeral=True
            )
        else:
            await interaction.response.edit_message(
                content="\n".join(problems), view=retry_view(draft)
            )

    async def _open_instead(
        self,
        interaction: discord.Interaction[Any],
        reason: str,
        typed: Mapping[str, str],
        old: Draft | None = None,
        origin: str = "",
    ) -> None:
        """A new form for the texts of a modal that its own one (`old`, if it is still known) cannot
        take. It takes the place of a form that is of no use, or of the complaint."""
        draft = self._new_draft(interaction.user.id, old)
        problems = draft.take(typed)
        note = f"{reason}, so this form is new; what you typed is in it."
        answer = self._send if old and origin == "edit" else self._show
        await answer(interaction, draft, "\n".join([note, *problems]))

    def _new_draft(self, user_id: int, source: Draft | None = None) -> Draft:
        """A draft with the settings of another one, the person's last, or the workflow file's, as
        far as the server offers them. What was typed into it is kept, too, unless it was sent."""
        draft = Draft(self.options, negative_prompt=self._negative_prompt)
        draft.start_from(self.defaults)
        last = source or self._drafts.last(user_id)
        if last is not None:
            draft.take_settings(last)
            if last.stage is not Stage.SENT:
                draft.positive_prompt, draft.seed = last.positive_prompt, last.seed
                draft.typed = dict(last.typed)
        self._drafts.put(user_id, draft)
        return draft

    async def _send(
        self, interaction: discord.Interaction[Any], draft: Draft, note: str | None
    ) -> None:
        """Answer with the form, for the person's eyes alone."""
        draft.shown_by = interaction
        await interaction.response.send_message(
            note, embed=form_embed(draft), view=form_view(draft), ephemeral=True
        )

    async def _show(
        self, interaction: discord.Interaction[Any], draft: Draft, note: str | None = None
    ) -> None:
        """Turn the message that the interaction came from into the form as it now stands."""
        draft.shown_by = interaction
        await interaction.response.edit_message(
            content=note, embed=form_embed(draft), view=form_view(draft)
        )

    async def _show_behind(self, interaction: discord.Interaction[Any], draft: Draft) -> None:
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
