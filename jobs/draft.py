"""Drafts: what a person has filled in in a form, and the parsers of what they type.

Owns the drafts in memory and their way to a job. Used on the event loop and by --once; imports
nothing of Discord.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import secrets
import zlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

import binder
from binder import OPTION_PARAMS, SEED_MAX, SHAPES, Size, in_shape
from job import JobParams, PictureParams
from jobs import lora
from jobs.catalog import Catalog, Offer
from jobs.names import MENU_LIMIT, OptionNames, find_named
from jobs.offered import (
    NO_SHAPE,
    PARAM_NAMES,
    TAKES_NONE,
    moved_note,
    not_offered,
    numbers_now,
    too_many_steps,
    without_unbound,
)
from jobs.typed import (
    CFG_RANGE,
    STEPS_RANGE,
    FormError,
    check_prompt,
    parse_cfg,
    parse_count,
    parse_length,
    parse_seed,
    parse_steps,
)
from settings import PROMPT_LIMIT, Settings
from text import (
    OPTION_LIMIT,
    collecting,
    escape,
    quote,
    shorten_middle,
)

NUMBER_LIMIT = 20  # characters
SEED_LIMIT = 40  # characters
RANDOM_SEEDS = 2**32
DEFAULT_STEPS = 20
DEFAULT_CFG = 7.0
FORM_LIMIT = 10  # forms of one person that are kept in memory
DRAFT_LIMIT = 1000  # people whose forms are kept, those who opened one last
AS_IN_FILE = "as in the workflow"  # the shape, or strength, that changes nothing
# Of the menu: how much of a person's picture is made anew.
STRENGTHS = {"light": 0.3, "medium": 0.5, "strong": 0.7, "all": 1.0}
STALE_LIST = "That list has changed since, so nothing was chosen. Please choose again."
FILE_CHANGED = "The workflow's file has changed since: {}. Look it over and press Generate again."
SHOWN_PARAMS = (*OPTION_PARAMS, "negative prompt", "steps", "CFG", "seed")  # as a form names them
PAGE_SIZE = MENU_LIMIT - 3  # room for Back, the chosen one from another page, and More…


class StaleForm(FormError):
    """Refusal of the controls of a form that is of no use any more. `reason` begins the sentence of
    the new form that opens for the texts of its modal."""

    reason: str


class ExpiredForm(StaleForm):
    """A form whose draft is gone: by a restart of the bot, or to make room for newer ones."""

    user_message = "The bot no longer has this form. Please run /gen again."
    reason = "The bot no longer had that form"


class SentForm(StaleForm):
    """A form that has become a job."""

    user_message = "This form has been sent already. Run /gen for another picture."
    reason = "That form was sent already"


class Stage(Enum):
    """Stages of a draft on its way to a job."""

    OPEN = "being filled in"
    SENDING = "Generate was pressed and is being handled"
    SENT = "it became a job: the form is read-only"


@dataclass
class Draft:
    """A form as far as a person has filled it in: a picture's params over an offer, and the texts
    that were not accepted. Lives in memory. A menu's values are indexes into the offer's lists."""

    offer: Offer
    picture: PictureParams  # of OPTION_PARAMS, those that are not chosen are empty
    settings: Settings
    shows_workflow: bool = False  # there is more than one
    key: str = ""  # ties the form's controls to it; given by Drafts
    pages: dict[str, int] = field(default_factory=dict)  # of the menus
    typed: dict[str, str] = field(default_factory=dict)  # refused texts, to be shown again
    stage: Stage = Stage.OPEN
    place_note: str = ""  # a hint about the channel that the form is in
    # The webhook of the last interaction whose reply is the form; all of that takes 42 kB.
    shown_by: Any = None
    corrected: set[int] = field(default_factory=set)  # refusals that are there no more, by id
    image_url: str = ""  # where Discord shows the picture to work on, if that is known
    image_note: str = ""  # its size
    sources: Sequence[Any] = ()  # the pictures to choose from, where there are several
    takers: OptionNames = field(default_factory=lambda: OptionNames(()))  # of a picture: workflows

    @classmethod
    def from_file(cls, workflow: str, offer: Offer, settings: Settings) -> Draft:
        """Return a draft with the values of the workflow's file, as far as they are offered and in
        range; the negative prompt is the owner's where the file has none."""
        values: dict[str, Any] = dict.fromkeys(OPTION_PARAMS, "")
        for name in offer.fields:
            values[name] = offer.find(name, getattr(offer.defaults, name) or "") or ""
        numbers, most_steps = numbers_of(offer.defaults), settings.max_steps
        picture = PictureParams(
            **values,
            steps=min(max(int(numbers.get("steps", DEFAULT_STEPS)), STEPS_RANGE[0]), most_steps),
            cfg=min(max(numbers.get("cfg", DEFAULT_CFG), CFG_RANGE[0]), CFG_RANGE[1]),
            positive_prompt="",
            negative_prompt=own_negative(offer) or settings.default_negative_prompt,
            workflow=workflow,
            count=(offer.count or 0) if settings.max_count > 1 else 0,
            length=offer.length or 0,
        )
        return cls(offer, picture, settings)

    @property
    def workflow(self) -> str:
        """Return the name of its workflow."""
        return self.picture.workflow

    def change(self, **changes: Any) -> None:
        """Replace some of the picture's params."""
        self.picture = replace(self.picture, **changes)

    def use_image(self, image: str, url: str, note: str) -> None:
        """Work on this picture: its hash, where Discord shows it, and its size."""
        self.change(image=image)
        self.image_url, self.image_note = url, note

    def set_if_offered(self, name: str, value: str) -> bool:
        """Choose a value for one of OPTION_PARAMS if it is offered, and return whether it is."""
        is_offered = value in self.offer.offered(name)
        if is_offered:
            self.change(**{name: value})
        return is_offered

    def find_again(self, name: str, value: str) -> str | None:
        """Choose a value of an earlier picture for one of OPTION_PARAMS, or the model that it has
        moved to. Return None if it is unchanged, else a sentence about the current value."""
        found = self.offer.find(name, value)
        if found is None:
            return not_offered(name, value, self.offer, getattr(self.picture, name))
        self.change(**{name: found})
        return moved_note(value, found)

    def choose(self, name: str, token: str) -> str | None:
        """Apply the value of a menu: `page:N` turns the page, `index:N` and `shape:x` choose; it
        ends with its list's fingerprint. Return a sentence if it has changed more than the person
        chose. Raises FormError for a value of another list."""
        if name == "count":  # a button, which steps through the numbers
            count, most = self.picture.count, self.settings.max_count
            self.change(count=count + 1 if 0 < count < most else 1)
            return None
        kind, value, fingerprint = f"{token}::".split(":")[:3]
        if not fingerprint or fingerprint != self.list_fingerprint(name):
            raise FormError(STALE_LIST)
        if name == "shape" and value in ("", *SHAPES):
            self.change(shape=value)
            return None
        if name == "strength" and value in ("", *STRENGTHS):
            self.change(strength=STRENGTHS.get(value, 0.0))
            return None
        values = self.offer.offered(name).values if name in self.offer.fields else ()
        number = int(value) if re.fullmatch("[0-9]{1,6}", value) else len(values)
        if kind == "page" and number * PAGE_SIZE < len(values):
            self.pages[name] = number
            return None
        if kind != "index" or number >= len(values):
            raise FormError(STALE_LIST)
        self.change(**{name: values[number]})
        before, schedulers = self.picture.scheduler, self.offer.schedulers.values
        if name != "sampler" or not schedulers or schedulers[0] == before:
            return None
        self.change(scheduler=schedulers[0])
        shown = escape(shorten_middle(schedulers[0], OPTION_LIMIT))
        return f"Scheduler was set to {shown} with this sampler."

    def list_fingerprint(self, name: str) -> str:
        """Return what every value of a menu ends with; empty if there is no such menu."""
        if name == "shape":
            return str(self.offer.size or "")
        if name == "strength":
            return "" if self.offer.strength is None else f"{self.offer.strength:g}"
        return self.offer.offered(name).fingerprint if name in self.offer.fields else ""

    def move_to(self, workflow: str, offer: Offer) -> None:
        """Go on over a workflow as it is offered now. The values that had no place so far become
        those of its file."""
        had = self.offer.params if workflow == self.workflow else frozenset()
        fresh = Draft.from_file(workflow, offer, self.settings).picture
        numbers = ("steps", "cfg", "count", "length")
        new = [
            name for name in (*OPTION_PARAMS, *numbers) if PARAM_NAMES.get(name, name) not in had
        ]
        if "negative" not in had and own_negative(offer):
            new.append("negative_prompt")
        self.typed = {name: text for name, text in self.typed.items() if name not in new}
        self.change(
            **{param: getattr(fresh, param) for param in new},
            workflow=workflow,
            shape=self.picture.shape if offer.size else "",
        )
        self.offer, self.pages = offer, {}

    def apply_options(self, options: Mapping[str, str]) -> list[str]:
        """Apply the options of /gen, empty where they were not given, and return a sentence for
        each that is wrong. A wrong seed is kept as typed, for the modal."""
        prompt, model, seed = (options[name] for name in ("prompt", "model", "seed"))
        problems: list[str] = []
        if prompt.strip():  # another picture than the one that was not sent
            self.change(positive_prompt=prompt.strip(), seed=None)
            self.typed.pop("seed", None)
            self.typed.pop("positive_prompt", None)
        for name, text in (("model", model), ("seed", seed)):
            if text and name not in self.offer.params:
                problems.append(f"The workflow {quote(self.workflow)} has no {name} to choose.")
        with collecting(problems):
            self.set_shape(options["shape"])
        with collecting(problems):
            self.set_count(options["count"])
        with collecting(problems):
            self.add_lora(options["lora"])
        if model and "model" in self.offer.params:
            with collecting(problems):
                self.change(model=find_named("model", model, self.offer.models))
        if seed and "seed" in self.offer.params:
            with collecting(problems):
                self.set_seed(seed)
        return problems + self.name_loras()

    def set_shape(self, text: str) -> None:
        """Choose a shape by its name, if one is given. Raises FormError."""
        name = text.strip().lower()
        if not name:
            return
        if self.offer.size is None:
            raise FormError("The shape cannot be chosen with this workflow.")
        if name not in SHAPES and name != AS_IN_FILE:
            raise FormError(f"There is no shape {quote(text)}. There are: {', '.join(SHAPES)}.")
        self.change(shape=name if name in SHAPES else "")

    def set_count(self, text: str) -> None:
        """Choose the number of pictures, if one is given. Raises FormError."""
        if text and self.offer.count is None:
            raise FormError("The number of pictures cannot be chosen with this workflow.")
        if text:
            self.change(count=parse_count(text, self.settings.max_count))

    def set_strength(self, text: str) -> None:
        """Choose a strength by its name, if one is given. Raises FormError."""
        name = text.strip().lower()
        if name and self.offer.strength is None:
            raise FormError("The strength cannot be chosen with this workflow.")
        if name not in ("", AS_IN_FILE, *STRENGTHS):
            known = ", ".join(STRENGTHS)
            raise FormError(f"There is no strength {quote(text)}. There are: {known}.")
        if name:
            self.change(strength=STRENGTHS.get(name, 0.0))

    def set_seed(self, text: str) -> None:
        """Set the seed, or keep a wrong one as typed. Raises FormError."""
        self.typed.pop("seed", None)
        try:
            self.change(seed=parse_seed(text))
        except FormError:
            self.typed["seed"] = text[:SEED_LIMIT]
            sentence = f"The seed {quote(text)} is not a whole number from 0 to {SEED_MAX}."
            raise FormError(sentence) from None

    def add_lora(self, name: str) -> None:
        """Add a tag for a LoRA, if one is given, to the prompt or to the refused prompt. Raises
        UserError."""
        if not name:
            return
        prompt = self.typed.get("positive_prompt", self.picture.positive_prompt)
        tagged = lora.with_tag(prompt, name, self.offer.loras)
        if len(tagged) > PROMPT_LIMIT:
            raise FormError("The prompt has no room for the tag of a LoRA: shorten it first.")
        if "positive_prompt" in self.typed:
            self.typed["positive_prompt"] = tagged
        else:
            self.change(positive_prompt=tagged)

    def name_loras(self) -> list[str]:
        """Name the LoRAs of the prompt in full, and return a sentence for each wrong tag in the
        prompts."""
        negative = self.picture.negative_prompt if "negative" in self.offer.params else ""
        named, problems = lora.resolve(self.picture.positive_prompt, negative, self.offer.loras)
        self.change(positive_prompt=named)
        return problems

    def texts(self) -> dict[str, str]:
        """Return the texts of the modal: those of the picture, or as they were typed where they
        were refused; without those that the workflow has no place for."""
        return {
            name: self.typed.get(name, text)
            for name, text in texts_of(self.picture).items()
            if PARAM_NAMES.get(name, name) in self.offer.params
        }

    def fingerprint(self) -> str:
        """Return eight digits that change with `texts()`; a modal carries those it opened with."""
        return f"{zlib.crc32(repr(self.texts()).encode()):08x}"

    def would_lose(self, typed: Mapping[str, str], fingerprint: str) -> bool:
        """Return whether the texts of a modal that opened with this fingerprint would overwrite
        those of another modal. The same texts a second time lose nothing."""
        after = replace(self)
        after.apply_typed(typed)
        return fingerprint != self.fingerprint() and after.texts() != self.texts()

    def apply_typed(self, typed: Mapping[str, str]) -> list[str]:
        """Apply the texts of a modal; or return a sentence for each that is wrong, and keep all of
        them as typed. What the modal did not ask for stays as it is, refused texts too, and so do
        numbers that this workflow has no place for."""
        asked = {"negative_prompt", *self.texts()}
        given = {name: text for name, text in typed.items() if name in asked}
        negative = given.get("negative_prompt", "").strip()
        parsed: dict[str, Any] = {"negative_prompt": negative} if "negative_prompt" in given else {}
        problems: list[str] = []
        if "positive_prompt" in given:
            positive = given["positive_prompt"].strip()
            with collecting(problems):
                check_prompt(positive)
            parsed["positive_prompt"], found = lora.resolve(positive, negative, self.offer.loras)
            problems += found
        parsers: dict[str, Callable[[str], float | None]] = {
            "steps": lambda text: parse_steps(text, self.settings.max_steps),
            "cfg": parse_cfg,
            "seed": parse_seed,
            "length": lambda text: parse_length(text, self.offer.length or 1),
        }
        for name in [name for name in parsers if name in given]:
            with collecting(problems):
                parsed[name] = parsers[name](given[name])
        left = {name: text for name, text in self.typed.items() if name in asked - typed.keys()}
        self.typed = {**left, **typed} if problems else left
        if not problems:
            self.change(**parsed)
        return problems

    def copy_settings_from(self, source: PictureParams) -> list[str]:
        """Copy the settings of an earlier picture, as far as they are still offered, and return a
        sentence for each that differs. Of another workflow's, only the negative prompt is of
        use."""
        is_other = source.workflow != self.workflow
        # A job has no negative prompt where its workflow has no place for one; a draft keeps it.
        lacks_it = "negative" not in self.offer.params and isinstance(source, JobParams)
        if not lacks_it and not (is_other and own_negative(self.offer)):
            self.change(negative_prompt=source.negative_prompt)
        self.change(image=source.image or self.picture.image)
        if is_other:
            return []
        values = {name: getattr(source, name) for name in self.offer.fields}
        notes = [self.find_again(name, value) for name, value in values.items() if value]
        notes.append(too_many_steps(source.steps, self.settings.max_steps))
        self.change(
            steps=min(source.steps or self.picture.steps, self.settings.max_steps),
            cfg=source.cfg or self.picture.cfg,
            shape=source.shape if self.offer.size else "",
            strength=source.strength,
        )
        numbers, wrong = numbers_now(source, self.offer, self.settings)
        if not self.picture.count or not source.count:  # the file alone says how many
            numbers.pop("count", None)
        self.change(**numbers)
        notes += wrong
        notes.append(NO_SHAPE if source.shape and not self.offer.size else None)
        notes.append(TAKES_NONE if source.image and not self.offer.takes_image else None)
        return [note for note in notes if note]

    def resume(self, unsent: Draft) -> None:
        """Go on with what was filled in for a picture that was never sent. Numbers that were
        refused belong to their own workflow alone."""
        kept = ("positive_prompt", "seed", "strength")
        self.change(**{name: getattr(unsent.picture, name) for name in kept})
        self.use_image(unsent.picture.image, unsent.image_url, unsent.image_note)
        if unsent.workflow == self.workflow:
            self.typed = dict(unsent.typed)
        elif unsent.typed:
            words = {"positive_prompt", "negative_prompt", "seed"}
            words -= {"negative_prompt"} if own_negative(self.offer) else set()
            self.apply_typed({name: unsent.typed[name] for name in words & unsent.typed.keys()})

    def saved(self) -> str:
        """Return its texts and choices as JSON, for `Draft.restored()`."""
        return json.dumps({"picture": vars(self.picture), "typed": self.typed})

    @classmethod
    def restored(cls, saved: str, catalog: Catalog, settings: Settings) -> Draft:
        """Reverse `saved()`, with the offer of now. Raises ExpiredForm for any other text."""
        try:
            values = json.loads(saved)
            picture = PictureParams(**values["picture"])
            return cls(catalog.offer(picture.workflow), picture, settings, typed=values["typed"])
        except (ValueError, TypeError, KeyError):
            raise ExpiredForm from None

    def sent(self) -> None:
        """Note that it became a job, and release what its form was shown with."""
        self.stage, self.shown_by = Stage.SENT, None

    def missing(self) -> list[str]:
        """Return what still has to be filled in before Generate."""
        parts = {f"a {name}": getattr(self.picture, name) for name in self.offer.fields}
        if self.offer.takes_image:
            parts["a picture"] = self.picture.image
        if self.offer.needs_prompt:
            parts["a prompt"] = lora.text_of(self.picture.positive_prompt)
        return [name for name, value in parts.items() if not value]

    def job_params(self, user_id: object, guild_id: object, channel_id: object) -> JobParams:
        """Return the finished draft as a job; the ids are Discord's."""
        size = made_size(self.offer.size, self.picture.shape)
        picture = replace(self.picture, size=str(size).replace(" ", "") if size else None)
        if self.offer.strength is None:
            picture = replace(picture, strength=0.0)
        if self.settings.random_seeds and picture.seed is None:
            picture = replace(picture, seed=new_seed())
        return JobParams(
            **vars(without_unbound(picture, self.offer.params)),
            user_id=str(user_id),
            guild_id=str(guild_id),
            channel_id=str(channel_id),
        )


class Drafts:
    """The newest FORM_LIMIT drafts of each person, of the last DRAFT_LIMIT people."""

    def __init__(self) -> None:
        self._by_user: OrderedDict[int, dict[str, Draft]] = OrderedDict()

    def put(self, user_id: int, draft: Draft) -> None:
        """Keep a new draft, and give it its key. Where there are too many, drop one that was sent,
        or else the oldest."""
        draft.key = draft.key or secrets.token_hex(8)  # unlike every key from before a restart
        forms = self._by_user.setdefault(user_id, {})
        self._by_user.move_to_end(user_id)
        forms[draft.key] = draft
        if len(forms) > FORM_LIMIT:
            sent = [key for key, other in forms.items() if other.stage is Stage.SENT]
            del forms[[*sent, *forms][0]]
        if len(self._by_user) > DRAFT_LIMIT:
            self._by_user.popitem(last=False)

    def last(self, user_id: int, workflow: str | None = None) -> Draft | None:
        """Return the person's newest draft, or that over a workflow, sent or not."""
        newest = self.newest(user_id)
        return next((draft for draft in newest if workflow in (None, draft.workflow)), None)

    def newest(self, user_id: int) -> list[Draft]:
        """Return the person's drafts, the newest first, sent or not."""
        return list(reversed(self._by_user.get(user_id, {}).values()))

    def find(self, user_id: int, key: str) -> Draft:
        """Return the draft with this key, sent or not. Raises ExpiredForm if it is gone."""
        draft = self._by_user.get(user_id, {}).get(key)
        if draft is None:
            raise ExpiredForm
        return draft

    def get(self, user_id: int, key: str) -> Draft:
        """Return the draft behind a form's controls. Raises StaleForm if it is gone or was
        sent."""
        draft = self.find(user_id, key)
        if draft.stage is Stage.SENT:
            raise SentForm
        return draft


# ---------------------------------------------------------------------------------------------
# The values of a draft and of a job


def new_seed() -> int:
    """Return a random seed, short enough for a phone and in the range of every node."""
    return secrets.randbelow(RANDOM_SEEDS)


def numbers_of(defaults: binder.Defaults) -> dict[str, float]:
    """Return the steps and the CFG of a workflow's file, as far as it has such numbers."""
    found = {}
    for name in ("steps", "cfg"):
        with contextlib.suppress(ValueError, TypeError):
            found[name] = float(getattr(defaults, name))
    return {name: value for name, value in found.items() if math.isfinite(value)}


def texts_of(picture: PictureParams) -> dict[str, str]:
    """Return the params that a person types, as texts."""
    return {
        "positive_prompt": picture.positive_prompt,
        "negative_prompt": picture.negative_prompt,
        "steps": str(picture.steps),
        "cfg": f"{picture.cfg:g}",
        "seed": "" if picture.seed is None else str(picture.seed),
        "length": str(picture.length),
    }


def shown_size(size: Size, shape: str) -> str:
    """Return a shape with its size, for people; `size` is of the workflow's file."""
    return f"{shape or AS_IN_FILE} ({made_size(size, shape)})"


def shown_strength(strength: float) -> str:
    """Return a strength with its name, for people; 0 is that of the workflow's file."""
    names = (name for name, value in STRENGTHS.items() if value == strength)
    return f"{next(names, 'own')} ({strength:g})" if strength else AS_IN_FILE


def made_size(size: Size | None, shape: str) -> Size | None:
    """Return the size of a picture in this shape; `size` is of the workflow's file."""
    return in_shape(size, shape) if size and shape else size


def own_negative(offer: Offer) -> str:
    """Return the negative prompt of the workflow's file; empty if it has none."""
    return (offer.defaults.negative or "").strip()[:PROMPT_LIMIT]


def changes_since(draft: Draft, now: Offer) -> list[str]:
    """Return a sentence with what the file has changed of what a form shows, if it has. Of a chosen
    shape that is gone, `check_offered()` tells."""
    had, has, shape = shown_params(draft.offer), shown_params(now), draft.picture.shape
    gone = had - has - ({"the shape"} if shape else set())
    parts = {"cannot be set any more": gone, "can be set now": has - had}
    texts = [f"{', '.join(sorted(names))} {what}" for what, names in parts.items() if names]
    was, size = made_size(draft.offer.size, shape), made_size(now.size, shape)
    if was and size and was != size:
        texts.append(f"the picture's size is {size} now, it was {was}")
    return [FILE_CHANGED.format("; ".join(texts))] if texts else []


def shown_params(offer: Offer) -> set[str]:
    """Return the names that a form has for its controls."""
    names = [name for name in SHOWN_PARAMS if name.split()[0].lower() in offer.params]
    controls: dict[str, object] = {"shape": offer.size, "picture": offer.takes_image}
    controls |= {"number of pictures": offer.count, "length": offer.length}
    controls["strength"] = offer.strength is not None
    return {f"the {name}" for name in (*names, *(name for name in controls if controls[name]))}
