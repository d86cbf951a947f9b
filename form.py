"""What one person fills in: the draft, its menus, its modal.

Owns the drafts in memory, what may be typed into them, how names are shown, and the messages and
modals of a form. Everything here runs on the event loop, except the pure functions. What lies
behind Generate is not known here.
"""

from __future__ import annotations

import re
import secrets
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple

import discord

import binder
from binder import SEED_MAX
from names import (
    MENU_LIMIT,
    OPTION_LIMIT,
    display_name,
    ends_of,
    escaped,
    find_model,
    nearest,
    quoted,
    shortened,
    without_half_emoji,
)
from object_info import ComfyOptions
from settings import PROMPT_LIMIT
from store import Job, JobParams

# What a person may ask for (architecture.md §3.3), and Discord's limits (design.md).
STEPS_RANGE = (1, 150)
CFG_RANGE = (1.0, 30.0)
RANDOM_SEEDS = 2**32
DEFAULT_STEPS = 20
DEFAULT_CFG = 7.0
DRAFT_LIMIT = 1000  # forms kept in memory; the oldest goes first

FORM_FIELDS = ("model", "sampler", "scheduler")

EXPIRED_FORM = "This form is from before a restart of the bot. Please run /gen again."
OLDER_FORM = "You have opened a newer form since: please use that one, or run /gen again."
SENT_FORM = "This form has been sent already. Run /gen for another picture."


class FormError(Exception):
    """What is wrong with something filled in; `public` is a finished sentence for the person."""

    @property
    def public(self) -> str:
        """The sentence."""
        return str(self)


class StaleForm(FormError):
    """The controls of a form that is of no use any more."""


class ExpiredForm(StaleForm):
    """A form whose draft is gone, with a restart or with time."""


# ---------------------------------------------------------------------------------------------
# The draft


class Stage(Enum):
    """How far a draft is on its way to a job."""

    OPEN = "being filled in"
    SENDING = "Generate was pressed, and is being worked on"
    SENT = "it became a job: the form is read-only"


@dataclass
class Draft:
    """What a person has filled in so far; lives in memory, one per person (architecture.md §3.1).
    `key` ties the controls of one form to it."""

    options: ComfyOptions  # as offered in this form: the menus' values are indexes into it
    model: str | None = None
    sampler: str | None = None
    scheduler: str | None = None
    steps: int = DEFAULT_STEPS
    cfg: float = DEFAULT_CFG
    positive_prompt: str = ""
    negative_prompt: str = ""
    seed: int | None = None  # None: a new one for each job
    key: str = field(default_factory=lambda: secrets.token_hex(4))
    pages: dict[str, int] = field(default_factory=dict)
    typed: dict[str, str] = field(default_factory=dict)  # of a refused modal, to be shown again
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

    def choose(self, name: str, token: str) -> None:
        """Take the value of a menu: `page:N` turns the page, an index chooses."""
        kind, _, number = token.partition(":")
        if kind == "page":
            self.pages[name] = int(number)
            return
        setattr(self, name, self.offered(name)[int(number)])
        if name == "sampler":  # architecture.md §3.2.4
            self.scheduler = self.options.schedulers[0]

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
    """The newest draft of each person, of the last DRAFT_LIMIT people."""

    def __init__(self) -> None:
        self._by_user: OrderedDict[int, Draft] = OrderedDict()

    def put(self, user_id: int, draft: Draft) -> None:
        """Make this the person's draft; forms over an older one stop working."""
        self._by_user[user_id] = draft
        self._by_user.move_to_end(user_id)
        if len(self._by_user) > DRAFT_LIMIT:
            self._by_user.popitem(last=False)

    def last(self, user_id: int) -> Draft | None:
        """The person's newest draft, whether or not it was sent."""
        return self._by_user.get(user_id)

    def get(self, user_id: int, key: str) -> Draft:
        """The draft behind a form's controls; StaleForm if they are of no use any more."""
        draft = self._by_user.get(user_id)
        if draft is None:
            raise ExpiredForm(EXPIRED_FORM)
        if draft.key != key:
            raise StaleForm(OLDER_FORM)
        if draft.stage is Stage.SENT:
            raise StaleForm(SENT_FORM)
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
    if not re.fullmatch(r"[0-9]{1,4}", text):
        return None
    return int(text) if STEPS_RANGE[0] <= int(text) <= STEPS_RANGE[1] else None


def parse_cfg(text: str) -> float | None:
    """A decimal number in CFG_RANGE in plain ASCII digits, or None."""
    text = text.strip()
    if not re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,10})?", text):
        return None
    return float(text) if CFG_RANGE[0] <= float(text) <= CFG_RANGE[1] else None


def parse_seed(text: str) -> int | None:
    """A seed in plain ASCII digits; None for an empty text. ValueError for anything else."""
    text = text.strip()
    if not text:
        return None
    if not re.fullmatch(r"[0-9]{1,20}", text) or int(text) > SEED_MAX:
        raise ValueError(text)
    return int(text)


# ---------------------------------------------------------------------------------------------
# Names and texts, as they are shown


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
    """The menu for one of FORM_FIELDS, as the draft stands."""
    options = menu_options(draft.offered(name), getattr(draft, name), draft.pages.get(name, 0))
    return discord.ui.Select(
        custom_id=str(ControlId("form", name, draft.key)),
        placeholder=name.capitalize(),
        options=options,
    )


def form_view(draft: Draft) -> Controls:
    """The controls of the form (architecture.md §3.1)."""
    styles = discord.ButtonStyle
    return Controls(
        *(form_menu(draft, name) for name in FORM_FIELDS),
        button("form", "edit", draft.key, "Edit Prompts & Settings", styles.secondary),
        button("form", "generate", draft.key, "Generate", styles.success),
    )


def retry_view(draft: Draft) -> Controls:
    """The way back into a refused modal."""
    return Controls(button("form", "retry", draft.key, "Correct it", discord.ButtonStyle.primary))


def form_embed(draft: Draft) -> discord.Embed:
    """The draft as it stands. At most some 3,500 characters of the 6,000 an embed may have."""
    embed = discord.Embed(title="Your picture", colour=discord.Colour.blurple())
    for name in FORM_FIELDS:
        value = getattr(draft, name)
        shown = display_name(value) if value and name == "model" else value or "not chosen"
        embed.add_field(name=name.capitalize(), value=escaped(ends_of(shown, 200)))
    embed.add_field(name="Steps", value=str(draft.steps))
    embed.add_field(name="CFG", value=f"{draft.cfg:g}")
    embed.add_field(name="Seed", value="random" if draft.seed is None else str(draft.seed))
    positive = draft.positive_prompt or "not written yet: press Edit Prompts & Settings"
    embed.add_field(name="Prompt", value=escaped(positive), inline=False)
    negative = draft.negative_prompt or "none"
    embed.add_field(name="Negative prompt", value=escaped(negative), inline=False)
    return embed


def menu_options(
    values: Sequence[str], chosen: str | None, page: int
) -> list[discord.SelectOption]:
    """The entries of a menu. A list that does not fit is paged: Back first, More… last, and the
    chosen value on every page."""

    def option(index: int) -> discord.SelectOption:
        name = display_name(values[index])
        return discord.SelectOption(
            label=ends_of(name, OPTION_LIMIT),
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


class PromptModal(discord.ui.Modal):
    """The texts of the draft (architecture.md §3.3); after a refusal, as they were typed.

    Only a description: what is submitted arrives at the bot's router. discord.py would
    forget an open modal at a restart or after its time, and what was typed with it.
    """

    def __init__(self, draft: Draft, origin: str) -> None:
        control_id = ControlId("modal", origin, draft.key)
        super().__init__(title="Prompts & Settings", custom_id=str(control_id))
        typed = draft.typed
        paragraph, short = discord.TextStyle.paragraph, discord.TextStyle.short
        for name, text, hint, style, limit, required, value in (
            ("positive_prompt", "Prompt", "What the picture shows", paragraph, PROMPT_LIMIT,
             True, draft.positive_prompt),
            ("negative_prompt", "Negative prompt", "What to keep out of it", paragraph,
             PROMPT_LIMIT, False, draft.negative_prompt),
            ("steps", "Steps", "A whole number from {} to {}".format(*STEPS_RANGE), short, 20,
             True, str(draft.steps)),
            ("cfg", "CFG", "A number from {:g} to {:g}, for example 7.5".format(*CFG_RANGE), short,
             20, True, f"{draft.cfg:g}"),
            ("seed", "Seed", "The same seed and settings give the same picture; empty: random",
             short, 40, False, "" if draft.seed is None else str(draft.seed)),
        ):  # fmt: skip
            self.add_item(
                discord.ui.Label(
                    text=text,
                    description=hint,
                    component=discord.ui.TextInput(
                        custom_id=name,
                        style=style,
                        default=typed.get(name, value) or None,
                        required=required,
                        max_length=limit,
                    ),
                )
            )
        self.stop()  # keeps discord.py from storing it

    @staticmethod
    def texts(components: Sequence[Mapping[str, Any]]) -> dict[str, str]:
        """The typed texts by custom id, out of the data of a modal's interaction."""
        texts: dict[str, str] = {}
        for component in components:
            inner = component.get("components") or [component.get("component") or {}]
            for item in inner:
                if "custom_id" in item:
                    texts[item["custom_id"]] = without_half_emoji(str(item.get("value") or ""))
        return texts


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
        """`negative_prompt` is what a first form starts with; `check_place` raises if there may be
        no form where an interaction comes from."""
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
        """/gen: an ephemeral form over a new draft, with the command's options in it."""
        self._check_place(interaction)
        try:
            chosen_seed = parse_seed(seed)
        except ValueError:
            raise FormError(
                f"The seed {quoted(seed)} is not a whole number from 0 to {SEED_MAX}."
            ) from None
        chosen_model = find_model(model, self.options.models) if model else None
        draft = self._new_draft(interaction.user.id)
        for name, given in (("positive_prompt", prompt), ("seed", seed)):
            if given:
                draft.typed.pop(name, None)
        draft.positive_prompt = prompt.strip() or draft.positive_prompt
        draft.model = chosen_model or draft.model
        draft.seed = chosen_seed if seed else draft.seed
        draft.shown_by = interaction
        await interaction.response.send_message(
            embed=form_embed(draft), view=form_view(draft), ephemeral=True
        )

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
        draft.choose(name, token)
        await self._show(interaction, draft)

    async def show_modal(
        self, interaction: discord.Interaction[Any], key: str, origin: str
    ) -> None:
        """The button `edit` of the form, or `retry` of the answer to a refused modal."""
        await interaction.response.send_modal(PromptModal(self.draft(interaction, key), origin))

    async def take_modal(
        self,
        interaction: discord.Interaction[Any],
        key: str,
        origin: str,
        components: Sequence[Mapping[str, Any]],
    ) -> None:
        """A submitted modal: merge its texts and show the form again, or say what is wrong."""
        typed = PromptModal.texts(components)
        try:
            draft = self.draft(interaction, key)
        except ExpiredForm:
            self._check_place(interaction)
            draft = self._new_draft(interaction.user.id)
            problems = draft.take(typed)
            note = "The bot was restarted, so this form is new; what you typed is in it."
            await self._show(interaction, draft, "\n".join([note, *problems]))
            return
        except StaleForm as stale:
            text = shortened(typed.get("positive_prompt", ""), PROMPT_LIMIT)
            await interaction.response.send_message(
                f"{stale} This is what you typed:",
                embed=discord.Embed(description=escaped(text, 4096) or None),
                ephemeral=True,
            )
            return
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

    def _new_draft(self, user_id: int) -> Draft:
        """A draft with the person's last settings, or those of the workflow file, as far as the
        server offers them. What was typed into a form that was never sent is kept, too."""
        draft = Draft(self.options, negative_prompt=self._negative_prompt)
        draft.start_from(self.defaults)
        last = self._drafts.last(user_id)
        if last is not None:
            draft.take_settings(last)
            if last.stage is not Stage.SENT:
                draft.positive_prompt, draft.seed = last.positive_prompt, last.seed
                draft.typed = dict(last.typed)
        self._drafts.put(user_id, draft)
        return draft

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
        await interaction.response.defer()
        form: dict[str, Any] = {"embed": form_embed(draft), "view": form_view(draft)}
        try:
            assert draft.shown_by is not None
            await draft.shown_by.edit_original_response(**form)
        except discord.HTTPException:
            # That token's 15 minutes are over: the complaint becomes the form.
            draft.shown_by = interaction
            await interaction.edit_original_response(content=None, **form)
        else:
            await interaction.delete_original_response()
