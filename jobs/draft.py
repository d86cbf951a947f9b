"""What one person has filled in: the draft of a form, what may be typed into it, what is still
offered of it.

Owns the drafts in memory and their way to a job. Used on the event loop and by --once; knows no
Discord: what a form looks like, form.py knows.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import re
import secrets
import zlib
from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

import binder
from binder import PARAMS, SEED_MAX, SHAPES, Size, in_shape
from comfyui.object_info import ComfyOptions
from jobs import lora
from jobs.catalog import Offer
from jobs.names import find_model, moved_model, names_of, nearest
from settings import MOST_STEPS, PROMPT_LIMIT
from store import JobParams
from text import UserError, display_name, escape, quote, shorten_middle, without_extension

STEPS_RANGE = (1, MOST_STEPS)
CFG_RANGE = (1.0, 30.0)
NUMBER_LIMIT = 20  # characters
SEED_LIMIT = 40  # characters
RANDOM_SEEDS = 2**32
DEFAULT_STEPS = 20
DEFAULT_CFG = 7.0
FORM_LIMIT = 10  # forms of one person that are kept in memory
DRAFT_LIMIT = 1000  # people whose forms are kept; who has opened none for the longest goes first
FORM_FIELDS = ("model", "sampler", "scheduler")
AS_IN_FILE = "as in the workflow"  # the shape that changes nothing
NO_SHAPE = "The shape cannot be chosen with this workflow any more."
PARAM_OF_INPUT = {  # what each text of the modal is of a job
    "positive_prompt": "positive",
    "negative_prompt": "negative",
    "steps": "steps",
    "cfg": "cfg",
    "seed": "seed",
}


class FormError(UserError):
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
    params: frozenset[str] = frozenset(PARAMS)  # what of a job the workflow has a place for
    workflow: str = ""
    shows_workflow: bool = False  # there is more than one
    size: Size | None = None  # of the file's pictures, if it can be chosen
    loras: tuple[str, ...] = ()  # offered
    most_steps: int = STEPS_RANGE[1]  # that the owner allows
    own: Mapping[str, float] = field(default_factory=dict)  # numbers of the workflow's file
    model: str | None = None
    sampler: str | None = None
    scheduler: str | None = None
    shape: str = ""  # of SHAPES; empty: the size of the file
    steps: int = DEFAULT_STEPS
    cfg: float = DEFAULT_CFG
    positive_prompt: str = ""
    negative_prompt: str = ""
    seed: int | None = None  # None: a new one for each job
    key: str = ""
    pages: dict[str, int] = field(default_factory=dict)
    typed: dict[str, str] = field(default_factory=dict)  # what was refused, to be shown again
    stage: Stage = Stage.OPEN
    place_note: str = ""  # what there is to know about the place that the form is in
    shown_by: Any = None  # the last interaction whose answer is the form

    @property
    def fields(self) -> list[str]:
        """Those of FORM_FIELDS that the workflow has."""
        return [name for name in FORM_FIELDS if name in self.params]

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

    def find_again(self, name: str, value: str) -> str | None:
        """Take a value that was offered once for one of FORM_FIELDS, or the model that it has
        become; None if it is as it was, else a sentence about what stands there now."""
        if self.adopt(name, value):
            return None
        offered = self.offered(name)
        moved = moved_model(value, offered) if name == "model" else None
        if moved is not None and self.adopt(name, moved):
            was, now = (
                escape(shorten_middle(without_extension(path), 100)) for path in (value, moved)
            )
            return f"The model {was} has moved to {now}."
        gone = f"The {name} {quote(display_name(value))} is not offered any more"
        if (instead := getattr(self, name)) in offered:
            return f"{gone}: {quote(display_name(instead))} stands in the form instead."
        return f"{gone}.{nearest(value, offered)} Choose another in the form."

    def choose(self, name: str, token: str) -> str | None:
        """Take the value of a menu: `page:N` turns the page, an index chooses. Returns what to tell
        the person if that has changed more than they chose."""
        kind, _, number = token.partition(":")
        if name == "shape":
            self.shape = number if number in SHAPES and self.size else ""
            return None
        if kind == "page":
            self.pages[name] = int(number)
            return None
        setattr(self, name, self.offered(name)[int(number)])
        before = self.scheduler
        if name == "sampler" and self.options.schedulers:  # architecture.md §3.2.4
            self.scheduler = self.options.schedulers[0]
        if self.scheduler == before or self.scheduler is None:
            return None
        return (
            f"Scheduler was set to {escape(shorten_middle(self.scheduler, 100))} with this sampler."
        )

    def move_to(self, workflow: str, offer: Offer) -> None:
        """Go on over a workflow as it is now. Of what this one had no place for so far, the values
        are the file's."""
        had = self.params if workflow == self.workflow else frozenset()
        fresh = blank(workflow, offer, self.most_steps)
        for param in binder.Defaults._fields:
            if param not in had:
                setattr(self, param, getattr(fresh, param))
                self.typed.pop(param, None)
        self.workflow, self.options, self.params = workflow, offer.options, offer.params
        self.size, self.loras, self.pages = offer.size, offer.loras, {}
        self.shape = self.shape if self.size else ""

    def take_options(
        self, prompt: str, model: str, seed: str, shape: str = "", lora_name: str = ""
    ) -> list[str]:
        """Take the options of /gen that were given, or say what is wrong with each. A wrong seed is
        kept as typed, for the modal."""
        problems: list[str] = []
        if prompt.strip():  # another picture than the one that was not sent
            self.seed = None
            self.typed.pop("seed", None)
            self.positive_prompt = prompt.strip()
            self.typed.pop("positive_prompt", None)
        given = {"model": model, "seed": seed}
        for name in [name for name in given if given[name] and name not in self.params]:
            problems.append(f"The workflow {quote(self.workflow)} has no {name} to choose.")
        self.adopt_shape(shape, problems)
        self.add_lora(lora_name, problems)
        if model and "model" in self.params:
            try:
                self.model = find_model(model, self.options.models)
            except UserError as unknown:
                problems.append(unknown.user_message)
        if seed and "seed" in self.params:
            self.typed.pop("seed", None)
            try:
                self.seed = parse_seed(seed)
            except ValueError:
                self.typed["seed"] = seed[:SEED_LIMIT]
                problems.append(
                    f"The seed {quote(seed)} is not a whole number from 0 to {SEED_MAX}."
                )
        return problems + self.lora_problems()

    def adopt_shape(self, shape: str, problems: list[str]) -> None:
        """Take a shape by its name, or note why not."""
        name = shape.strip().lower()
        if name and self.size is None:
            problems.append("The shape cannot be chosen with this workflow.")
        elif name in SHAPES or name == AS_IN_FILE:
            self.shape = name if name in SHAPES else ""
        elif name:
            known = ", ".join(SHAPES)
            problems.append(f"There is no shape {quote(shape)}. There are: {known}.")

    def add_lora(self, name: str, problems: list[str]) -> None:
        """Add a tag for a LoRA to the prompt, also to one that was refused, or note why not."""
        if not name:
            return
        found = names_of(self.loras).find(name)
        if found is None:
            why = f"There is no LoRA {quote(name)}.{nearest(name, self.loras)}"
            problems.append(why if self.loras else "There are no LoRAs here.")
            return
        prompt = self.typed.get("positive_prompt", self.positive_prompt)
        tagged = lora.with_tag(prompt, found, self.loras)
        if len(tagged) > PROMPT_LIMIT:
            problems.append("The prompt has no room for the tag of a LoRA: shorten it first.")
        elif "positive_prompt" in self.typed:
            self.typed["positive_prompt"] = tagged
        else:
            self.positive_prompt = tagged

    def lora_problems(self) -> list[str]:
        """What is wrong with the tags in the prompts as they stand."""
        negative = self.negative_prompt if "negative" in self.params else ""
        return lora.problems(self.positive_prompt, negative, self.loras)

    def shown_size(self) -> str:
        """The shape with its size, as people read it."""
        if self.size is None:
            return ""
        size = in_shape(self.size, self.shape) if self.shape else self.size
        return f"{self.shape or AS_IN_FILE} ({size})"

    def texts(self) -> dict[str, str]:
        """What the modal shows: the draft's own, and what was refused as it was typed; without
        what the workflow has no place for."""
        values = {
            "positive_prompt": self.positive_prompt,
            "negative_prompt": self.negative_prompt,
            "steps": str(self.steps),
            "cfg": f"{self.cfg:g}",
            "seed": "" if self.seed is None else str(self.seed),
        }
        return {
            name: self.typed.get(name, value)
            for name, value in values.items()
            if PARAM_OF_INPUT[name] in self.params
        }

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
        given, typed = typed, self._completed(typed)
        steps = parse_steps(typed.get("steps", ""), self.most_steps)
        cfg = parse_cfg(typed.get("cfg", ""))
        positive = typed.get("positive_prompt", "").strip()
        if not lora.text_of(positive):
            problems.append("**Prompt** is empty: describe the picture in a few words.")
        problems += lora.problems(positive, given.get("negative_prompt", ""), self.loras)
        if steps is None:
            low, high = STEPS_RANGE[0], self.most_steps
            problems.append(
                f"**Steps** is {quote(typed.get('steps', ''))}:"
                f" give a whole number from {low} to {high}."
            )
        if cfg is None:
            problems.append(
                f"**CFG** is {quote(typed.get('cfg', ''))}: give a number from {CFG_RANGE[0]:g}"
                f" to {CFG_RANGE[1]:g}, for example 7 or 7.5."
            )
        try:
            seed = parse_seed(typed.get("seed", ""))
        except ValueError:
            problems.append(
                f"**Seed** is {quote(typed['seed'])}: give a whole number from 0 to"
                f" {SEED_MAX}, or leave it empty for a random one."
            )
        if steps is None or cfg is None or problems:  # the first two again for mypy
            self.typed = dict(given)
            return problems
        self.steps, self.cfg, self.seed, self.positive_prompt = steps, cfg, seed, positive
        self.negative_prompt = typed.get("negative_prompt", "").strip()
        self.typed = {}
        return []

    def _completed(self, typed: Mapping[str, str]) -> dict[str, str]:
        """The texts of a modal, which may be that of another workflow: what it did not ask for is
        as it was, and so are numbers that this workflow has no place for."""
        everything = replace(self, params=frozenset(PARAMS), typed={}).texts()
        asked = {"negative_prompt", *self.texts()}
        return {**everything, **{name: text for name, text in typed.items() if name in asked}}

    def start_from(self, defaults: binder.Defaults) -> None:
        """Start from the workflow file's own values, as far as they are offered and in range."""
        for name in self.fields:
            value = getattr(defaults, name) or ""
            if not self.adopt(name, value) and name == "model":  # it may be in another folder
                self.model = moved_model(value, self.options.models)
        numbers = numbers_of(defaults)
        low, high = STEPS_RANGE[0], self.most_steps
        self.steps = min(max(int(numbers.get("steps", DEFAULT_STEPS)), low), high)
        self.cfg = min(max(numbers.get("cfg", DEFAULT_CFG), CFG_RANGE[0]), CFG_RANGE[1])

    def take_settings(self, source: Draft | JobParams) -> list[str]:
        """Start from settings used before, as far as they are still offered; a sentence for each
        that is another now. Of another workflow's, only the negative prompt is of use."""
        if "negative" in self.params or isinstance(source, Draft):  # else the job just has none
            self.negative_prompt = source.negative_prompt
        if source.workflow != self.workflow:
            return []
        given = {name: getattr(source, name) for name in self.fields}
        notes = [self.find_again(name, value) for name, value in given.items() if value]
        notes.append(too_many_steps(source.steps, self.most_steps))
        self.steps = min(source.steps or self.steps, self.most_steps)
        self.cfg = source.cfg or self.cfg
        self.shape = source.shape if self.size else ""
        notes.append(NO_SHAPE if source.shape and not self.size else None)
        return [note for note in notes if note]

    def take_over(self, unsent: Draft) -> None:
        """Go on with what was filled in for one picture and never sent. Numbers that were refused
        are of their own workflow alone."""
        self.positive_prompt, self.seed = unsent.positive_prompt, unsent.seed
        if unsent.workflow == self.workflow:
            self.typed = dict(unsent.typed)
        elif unsent.typed:
            words = ("positive_prompt", "negative_prompt", "seed")
            self.take({name: unsent.typed[name] for name in words if name in unsent.typed})

    def sent(self) -> None:
        """It became a job. What the form was shown by, a message with all its parts, is let go."""
        self.stage, self.shown_by = Stage.SENT, None

    def missing(self) -> list[str]:
        """What still has to be filled in before Generate."""
        parts = {f"a {name}": getattr(self, name) for name in self.fields}
        parts["a prompt"] = lora.text_of(self.positive_prompt)
        return [name for name, value in parts.items() if not value]

    def job_params(
        self, user_id: object, guild_id: object, channel_id: object, *, random_seeds: bool
    ) -> JobParams:
        """The finished draft as a job; the ids are Discord's. What the workflow has no place for is
        empty."""
        params = JobParams(
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
            workflow=self.workflow,
            shape=self.shape,
        )
        return within(params, self.params)


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

    def last(self, user_id: int, workflow: str | None = None) -> Draft | None:
        """The person's newest draft, or that over a workflow, whether or not it was sent."""
        newest = reversed(self._by_user.get(user_id, {}).values())
        return next((draft for draft in newest if workflow in (None, draft.workflow)), None)

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


def over(workflow: str, offer: Offer, most_steps: int = STEPS_RANGE[1]) -> Draft:
    """An empty draft over a workflow; the owner allows so many steps."""
    return Draft(
        offer.options,
        params=offer.params,
        workflow=workflow,
        size=offer.size,
        loras=offer.loras,
        most_steps=most_steps,
        own=numbers_of(offer.defaults),
    )


def numbers_of(defaults: binder.Defaults) -> dict[str, float]:
    """The steps and the CFG of a workflow's file, as far as it has such numbers."""
    found = {}
    for name in ("steps", "cfg"):
        with contextlib.suppress(ValueError, TypeError):
            found[name] = float(getattr(defaults, name))
    return {name: value for name, value in found.items() if math.isfinite(value)}


def blank(workflow: str, offer: Offer, most_steps: int = STEPS_RANGE[1]) -> Draft:
    """A draft over a workflow, with the values of its file as far as they are offered."""
    draft = over(workflow, offer, most_steps)
    draft.start_from(offer.defaults)
    return draft


def within(params: JobParams, bound: Collection[str]) -> JobParams:
    """A job without what its workflow has no place for."""
    return replace(
        params,
        model=params.model if "model" in bound else "",
        sampler=params.sampler if "sampler" in bound else "",
        scheduler=params.scheduler if "scheduler" in bound else "",
        steps=params.steps if "steps" in bound else 0,
        cfg=params.cfg if "cfg" in bound else 0.0,
        negative_prompt=params.negative_prompt if "negative" in bound else "",
        seed=params.seed if "seed" in bound else None,
    )


def check_offered(
    params: JobParams, offers: Mapping[str, Offer], most_steps: int = STEPS_RANGE[1]
) -> tuple[JobParams, list[str]]:
    """The job as ComfyUI can make it now, and a sentence for what has another name since (after
    /refresh, or from an old job). FormError for what is not offered any more. What the workflow
    takes only since then stays as in its file."""
    workflow = params.workflow or next(iter(offers))
    if workflow not in offers:
        raise FormError(f"The workflow {quote(workflow)} is not offered any more.")
    draft = over(workflow, offers[workflow])
    chosen = {name: getattr(params, name) for name in draft.fields if getattr(params, name)}
    notes = {name: draft.find_again(name, value) for name, value in chosen.items()}
    gone = [note for name, note in notes.items() if note and not getattr(draft, name)]
    gone += lora.problems(params.positive_prompt, params.negative_prompt, draft.loras)
    gone += filter(None, [too_many_steps(params.steps, most_steps)])
    if params.shape and draft.size is None:
        gone.append(NO_SHAPE)
    if gone:
        raise FormError("\n".join(gone))
    params = within(replace(params, model=draft.model or ""), draft.params)
    return params, [note for note in notes.values() if note]


def too_many_steps(steps: int, most: int) -> str | None:
    """A sentence if these steps of an earlier job are more than the owner allows now."""
    return f"At most {most} steps are allowed now; these were {steps}." if steps > most else None


def parse_steps(text: str, most: int = STEPS_RANGE[1]) -> int | None:
    """A whole number in STEPS_RANGE, and no more than `most`, in plain ASCII digits, or None."""
    text = text.strip()
    if not re.fullmatch(r"\+?[0-9]{1,4}", text):
        return None
    return int(text) if STEPS_RANGE[0] <= int(text) <= min(most, STEPS_RANGE[1]) else None


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
