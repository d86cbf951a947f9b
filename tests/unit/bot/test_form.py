"""The form without Discord: drafts, names, menus, modals, and `Forms` with a fake interaction."""

from __future__ import annotations

import asyncio
import functools
import itertools
import math
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from types import SimpleNamespace
from typing import Any

import discord
import pytest

import binder
from binder import OPTION_PARAMS
from bot.commands import HANDLERS
from bot.controls import ControlId
from bot.form import Forms, form_embed, form_view, retry_view
from bot.menus import menu_options
from bot.modal import PromptModal, given_back
from job import Job, JobParams, JobStatus, PictureParams
from jobs.catalog import Offer
from jobs.draft import (
    FORM_LIMIT,
    Draft,
    Drafts,
    ExpiredForm,
    SentForm,
    Stage,
    StaleForm,
    changes_since,
    new_seed,
)
from jobs.names import OptionNames
from jobs.offered import check_offered
from jobs.typed import FormError, parse_cfg, parse_seed, parse_steps
from store import StoreError
from tests.factories import a_catalog, an_offer, settings
from tests.standins.discord.limits import embed_faults, menu_faults, modal_faults, view_faults
from text import UserError

SEED_MAX = 2**64 - 1
MODELS = ("base_1.0.safetensors", "Flux/flux1-dev.safetensors", "old.ckpt")
OPTIONS = (MODELS, ("euler", "heun", "dpmpp_2m"), ("normal", "karras"))
DEFAULTS = binder.Defaults("base_1.0.safetensors", "dpmpp_2m", "karras", "30", "5.5", None)
TYPED = {
    "positive_prompt": " a fox ",
    "negative_prompt": " fog\n",
    "steps": " 33",
    "cfg": "7.5 ",
    "seed": " 9 ",
}
# Discord's own 4,000 characters of what makes an embed longest, and of what is longest as it is.
LONG_TEXTS = ["x" * 4000, "[" * 4000, "\\" * 4000, "# \n" * 1333, "`*_" * 1333, "🦊" * 4000]
SIZE = binder.Size(1024, 1024)
LORAS = ("style/ink.safetensors", "style/watercolor v2.safetensors")
LONG_NAME = "folder/" * 30 + "_*[" * 60 + ".safetensors"


Lists = tuple[Sequence[str], Sequence[str], Sequence[str]]


def options(**given: str) -> dict[str, str]:
    """The options of /gen, empty where they are not given."""
    names = ("prompt", "model", "seed", "workflow", "shape", "lora", "count")
    return {**dict.fromkeys(names, ""), **given}


def offering(lists: Lists, **more: Any) -> dict[str, Offer]:
    """What is offered with one workflow that has everything, but for a size and LoRAs."""
    return {"main": an_offer(*lists, defaults=DEFAULTS, **more)}


def a_draft(lists: Lists = OPTIONS, **changes: Any) -> Draft:
    """A draft in which nothing is filled in but these."""

    def own(kind: Any) -> dict[str, Any]:
        return {name: changes.pop(name) for name in kind.__dataclass_fields__ if name in changes}

    offer = an_offer(*lists, **own(Offer))
    picture: dict[str, Any] = dict.fromkeys(OPTION_PARAMS, "")
    picture |= {"steps": 20, "cfg": 7.0, "positive_prompt": "", **own(PictureParams)}
    return Draft(offer, PictureParams(**picture), **{"settings": settings(), **changes})


def filled_draft(**changes: Any) -> Draft:
    values: dict[str, Any] = {
        "model": "old.ckpt",
        "sampler": "heun",
        "scheduler": "normal",
        "steps": 12,
        "cfg": 3.5,
        "positive_prompt": "a bear",
        "negative_prompt": "rain",
        "seed": 5,
    }
    return a_draft(**{**values, **changes})


def hints_of(draft: Draft) -> dict[str, str]:
    """What the modal says of each text."""

    async def read() -> dict[str, str]:
        modal: Any = PromptModal(draft, "edit")
        return {label.component.custom_id: label.description for label in modal.children}

    return asyncio.run(read())


def settings_in(draft: Draft) -> tuple[Any, ...]:
    """Everything that a person chooses or types."""
    names = (*OPTION_PARAMS, "steps", "cfg", "positive_prompt", "negative_prompt", "seed")
    return tuple(getattr(draft.picture, name) for name in names)


def job(**changes: Any) -> Job:
    values: dict[str, Any] = {
        "user_id": "1",
        "guild_id": "2",
        "channel_id": "3",
        "model": "old.ckpt",
        "sampler": "heun",
        "scheduler": "karras",
        "steps": 17,
        "cfg": 3.5,
        "positive_prompt": "a job's prompt",
        "negative_prompt": "a job's fog",
        "seed": 42,
        "id": "0" * 36,
        "status": JobStatus.COMPLETED,
        "discord_message_id": None,
        "comfy_prompt_id": None,
        "output_images": (),
        "error_message": None,
        "created_at": 1,
        "started_at": 2,
        "completed_at": 3,
        "delivered_at": None,
    }
    return Job(**{**values, **changes})


# The draft: menus


def choose(draft: Draft, name: str, token: str) -> str | None:
    """Choose an entry of a menu as it is now."""
    return draft.choose(name, f"{token}:{draft.list_fingerprint(name)}")


def test_a_menus_index_chooses_and_leaves_the_rest_alone() -> None:
    draft = filled_draft(typed={"seed": "lucky"})
    choose(draft, "model", "index:1")
    assert draft.typed == {"seed": "lucky"}  # and the form goes on saying so
    assert settings_in(draft) == ("Flux/flux1-dev.safetensors", *settings_in(filled_draft())[1:])


def test_a_chosen_sampler_brings_the_first_scheduler_with_it() -> None:
    draft = filled_draft(scheduler="karras")
    told = choose(draft, "sampler", "index:2")
    assert told == "Scheduler was set to normal with this sampler."
    assert (draft.picture.sampler, draft.picture.scheduler) == ("dpmpp_2m", "normal")
    assert choose(draft, "scheduler", "index:1") is None
    assert (draft.picture.sampler, draft.picture.scheduler) == ("dpmpp_2m", "karras")


def test_a_sampler_that_leaves_the_scheduler_as_it_is_says_nothing_of_it() -> None:
    draft = filled_draft(scheduler="normal")
    assert choose(draft, "sampler", "index:2") is None
    assert choose(draft, "model", "index:0") is None
    assert choose(draft, "sampler", "page:0") is None


def test_a_page_token_turns_the_page_of_that_menu_and_chooses_nothing() -> None:
    lists = (names(50), names(60), ("normal", "karras"))
    draft = filled_draft(lists=lists)
    choose(draft, "sampler", "page:2")
    choose(draft, "model", "page:1")
    assert draft.pages == {"sampler": 2, "model": 1}
    assert settings_in(draft) == settings_in(filled_draft(lists=lists))


@pytest.mark.parametrize(
    "token",
    [
        *("", "index", "index:", "index:3", "index:-1", "index:1_0", "index:²", "page:1", "page:x"),
        *("shape:wide", "index:99999999999999999999", "other:1", "index:1:00000000", "::", "0:0:0"),
    ],
)
def test_a_value_of_another_list_or_made_by_hand_chooses_nothing_and_says_so(token: str) -> None:
    for name in (*OPTION_PARAMS, "shape", "other"):
        draft = filled_draft(params=frozenset({"model", "scheduler"}))
        for value in (token, f"{token}:{draft.list_fingerprint(name)}"):
            with pytest.raises(FormError, match="changed since"):
                draft.choose(name, value)
        assert (draft.picture, draft.pages) == (filled_draft().picture, {})


def test_the_value_of_a_menu_is_refused_once_the_draft_has_another_list() -> None:
    draft = filled_draft(size=SIZE)
    tokens = {"model": f"index:1:{draft.list_fingerprint('model')}", "shape": f"shape:wide:{SIZE}"}
    offer = an_offer(MODELS[1:], *OPTIONS[1:], defaults=DEFAULTS, size=binder.Size(512, 512))
    draft.move_to("", offer)
    for name, token in tokens.items():
        with pytest.raises(FormError, match="changed since"):
            draft.choose(name, token)
    assert (draft.picture.model, draft.picture.shape) == ("old.ckpt", "")


# The negative prompt, and the file's changes


def negative_of(own: str | None, **changes: Any) -> str:
    """What a new draft over a workflow with this negative prompt has after an earlier picture's."""
    offer = an_offer(*OPTIONS, defaults=DEFAULTS._replace(negative=own))
    draft = Draft.from_file("main", offer, settings(default_negative_prompt="blurry"))
    if changes:
        draft.copy_settings_from(filled_draft(**changes).picture)
    return draft.picture.negative_prompt


def test_a_workflows_own_negative_prompt_comes_before_the_owners_and_anothers() -> None:
    assert negative_of(" bad hands ") == "bad hands"
    assert (negative_of(None), negative_of(" \n")) == ("blurry", "blurry")
    assert negative_of("bad hands", workflow="other") == "bad hands"
    assert negative_of("bad hands", workflow="main") == "rain"
    assert negative_of(None, workflow="other") == "rain"
    assert len(negative_of("x" * 5000)) == 4000


def test_a_form_says_what_its_workflows_file_has_changed_of_what_it_shows() -> None:
    draft = filled_draft(size=SIZE, shape="wide")
    same = an_offer(OPTIONS[0][1:], *OPTIONS[1:], size=SIZE)  # lists are looked at elsewhere
    assert (changes_since(draft, draft.offer), changes_since(draft, same)) == ([], [])
    few = frozenset({"positive", "steps"})
    other = an_offer(*OPTIONS, size=binder.Size(512, 512), params=few)
    (said,) = changes_since(draft, other)
    assert "the CFG, the model, the negative prompt" in said
    assert "the picture's size is 704 x 384 now, it was 1344 x 768" in said
    assert changes_since(draft, an_offer(*OPTIONS)) == []  # it is said why there is no job
    draft.change(shape="")
    assert "the shape cannot be set any more" in changes_since(draft, an_offer(*OPTIONS))[0]
    assert "the shape can be set now" in changes_since(filled_draft(), same)[0]


def test_only_what_the_server_offers_is_adopted() -> None:
    draft = a_draft()
    assert [draft.set_if_offered(name, "karras") for name in OPTION_PARAMS] == [False, False, True]
    assert (draft.picture.model, draft.picture.sampler, draft.picture.scheduler) == (
        "",
        "",
        "karras",
    )


# The draft: the modal's texts


def test_the_texts_of_the_modal_are_merged_without_the_space_around_them() -> None:
    draft = filled_draft(typed={"steps": "abc"})
    assert draft.apply_typed(TYPED) == []
    assert settings_in(draft)[3:] == (33, 7.5, "a fox", "fog", 9)
    assert draft.typed == {}


def test_an_empty_seed_and_negative_prompt_are_fine() -> None:
    draft = filled_draft()
    typed = {"positive_prompt": "a fox", "negative_prompt": " ", "steps": "1", "cfg": "1"}
    assert draft.apply_typed({**typed, "seed": " "}) == []
    assert (draft.picture.negative_prompt, draft.picture.seed) == ("", None)


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("positive_prompt", "", "**Prompt** is empty: describe the picture in a few words."),
        ("positive_prompt", " \n\t", "**Prompt** is empty: describe the picture in a few words."),
        ("steps", "0", "**Steps** is `0`: give a whole number from 1 to 150."),
        ("steps", "151", "**Steps** is `151`: give a whole number from 1 to 150."),
        ("steps", " ", "**Steps** is empty: give a whole number from 1 to 150."),
        ("cfg", "30.1", "**CFG** is `30.1`: give a number from 1 to 30, for example 7 or 7.5."),
        ("cfg", "7;5", "**CFG** is `7;5`: give a number from 1 to 30, for example 7 or 7.5."),
        (
            "seed",
            str(SEED_MAX + 1),
            f"**Seed** is `{SEED_MAX + 1}`: give a whole number from 0 to {SEED_MAX}, or leave it"
            " empty for a random one.",
        ),
    ],
)
def test_a_wrong_text_is_refused_with_its_sentence_and_all_texts_stay_as_typed(
    name: str, text: str, sentence: str
) -> None:
    draft = filled_draft()
    typed = {**TYPED, name: text}
    assert draft.apply_typed(typed) == [sentence]
    assert settings_in(draft) == settings_in(filled_draft())
    assert draft.typed == typed


def test_everything_that_is_wrong_is_said_at_once() -> None:
    typed = {"positive_prompt": "", "steps": "x", "cfg": "y", "seed": "z"}
    starts = [problem.split(" is ")[0] for problem in a_draft().apply_typed(typed)]
    assert starts == ["**Prompt**", "**Steps**", "**CFG**", "**Seed**"]


# The draft: where it starts, what it lacks, what becomes of it


def of_file(*values: str) -> tuple[Any, ...]:
    """What a draft has of the values of a workflow's file."""
    offer = an_offer(*OPTIONS, defaults=binder.Defaults(*values, None))
    return settings_in(Draft.from_file("main", offer, settings()))[:5]


def test_a_draft_starts_from_the_workflow_files_own_values() -> None:
    assert of_file(*map(str, DEFAULTS[:5])) == (
        "base_1.0.safetensors",
        "dpmpp_2m",
        "karras",
        30,
        5.5,
    )


def test_values_of_the_file_that_make_no_sense_are_left_out_and_others_are_the_nearest() -> None:
    made = of_file("gone.safetensors", "", "karras", "1000", "abc")
    assert made == ("", "", "karras", 150, 7.0)
    made = of_file("SDXL/OLD.ckpt", "euler", "karras", "0", "0.8")
    assert made == ("old.ckpt", "euler", "karras", 1, 1.0)


def test_a_new_prompt_does_not_get_the_seed_of_the_picture_that_was_not_sent() -> None:
    draft = filled_draft(seed=5)
    assert draft.apply_options(options()) == []
    assert draft.picture.seed == 5
    draft.apply_options(options(prompt="a bear"))
    assert draft.picture.seed is None
    draft.apply_options(options(prompt="a bear", seed="7"))
    assert draft.picture.seed == 7


def test_the_modal_names_the_workflows_own_numbers_where_they_are_not_the_usual_ones() -> None:
    flux = binder.Defaults("old.ckpt", "euler", "karras", "4", "3.5", None)
    hints = hints_of(Draft.from_file("flux", an_offer(*OPTIONS, defaults=flux), settings()))
    assert "This workflow's own is 4; more: finer" in hints["steps"]
    assert "This workflow's own is 3.5; higher: closer" in hints["cfg"]


@pytest.mark.parametrize(
    "source", [filled_draft().picture, job(cfg=3.5, steps=12, negative_prompt="rain")]
)
def test_earlier_settings_come_without_their_prompt_and_seed(source: PictureParams) -> None:
    draft = a_draft(positive_prompt="mine", seed=1)
    draft.copy_settings_from(source)
    expected = ("old.ckpt", "heun", source.scheduler, 12, 3.5, "mine", "rain", 1)
    assert settings_in(draft) == expected


def test_earlier_settings_that_are_not_offered_any_more_change_nothing() -> None:
    draft = a_draft(model="base_1.0.safetensors")
    draft.copy_settings_from(job(model="gone.safetensors", sampler="gone"))
    assert settings_in(draft)[:4] == ("base_1.0.safetensors", "", "karras", 17)


def test_what_is_missing_is_named() -> None:
    assert a_draft().missing() == ["a model", "a sampler", "a scheduler", "a prompt"]
    assert filled_draft(sampler="", positive_prompt="").missing() == ["a sampler", "a prompt"]
    assert filled_draft().missing() == []


def test_a_finished_draft_becomes_a_job_as_it_stands() -> None:
    params = filled_draft().job_params(11, 22, 33)
    assert params == JobParams(
        user_id="11",
        guild_id="22",
        channel_id="33",
        model="old.ckpt",
        sampler="heun",
        scheduler="normal",
        steps=12,
        cfg=3.5,
        positive_prompt="a bear",
        negative_prompt="rain",
        seed=5,
    )


def test_a_job_has_a_new_seed_only_where_none_was_given_and_seeds_are_random(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("jobs.draft.new_seed", lambda: 77)

    def seed(given: int | None, *, random_seeds: bool) -> int | None:
        draft = filled_draft(seed=given, settings=settings(random_seeds=random_seeds))
        return draft.job_params(1, 2, 3).seed

    assert seed(None, random_seeds=True) == 77
    assert seed(None, random_seeds=False) is None
    assert seed(0, random_seeds=True) == 0
    assert seed(0, random_seeds=False) == 0


def test_new_seeds_differ_and_are_in_range() -> None:
    seeds = {new_seed() for _ in range(100)}
    assert len(seeds) > 95
    assert all(0 <= seed < 2**32 for seed in seeds)  # ten digits at most on a phone
    assert max(seeds) > 2**24  # the whole range: 100 draws miss its top 255/256 never


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"model": "Flux/flux1-dve.safetensors"},
            "The model `flux1-dve` is not offered any more. The nearest: flux1-dev. Choose another"
            " in the form.",
        ),
        ({"sampler": "zzzzz"}, "The sampler `zzzzz` is not offered any more. Choose another in"),
        ({"scheduler": "exotic"}, "The scheduler `exotic` is not offered any more."),
    ],
)
def test_what_is_not_offered_any_more_is_refused(changes: dict[str, str], sentence: str) -> None:
    assert check_offered(job(), offering(OPTIONS), settings()) == (job(), [])
    with pytest.raises(FormError) as refused:
        check_offered(job(**changes), offering(OPTIONS), settings())
    assert refused.value.user_message.startswith(sentence)


def test_everything_that_is_not_offered_any_more_is_said_at_once() -> None:
    with pytest.raises(FormError) as refused:
        check_offered(
            job(model="x/base_1.0.safetensors", sampler="a", scheduler="b"),
            offering(OPTIONS),
            settings(),
        )
    assert [line.split(".")[0] for line in refused.value.user_message.splitlines()] == [
        "The sampler `a` is not offered any more",
        "The scheduler `b` is not offered any more",
    ]


def test_a_job_whose_model_moved_is_made_with_the_new_path_and_says_so() -> None:
    moved = job(model="old/folder_a/flux1-dev.safetensors")
    found, notes = check_offered(moved, offering(OPTIONS), settings())
    assert found == job(model="Flux/flux1-dev.safetensors")
    assert notes == [r"The model old/folder\_a/flux1-dev has moved to Flux/flux1-dev."]


def test_settings_used_before_say_what_stands_there_instead() -> None:
    draft = filled_draft(model="base_1.0.safetensors", scheduler="")
    notes = draft.copy_settings_from(job(model="gone.ckpt", sampler="euler", scheduler="zzz"))
    assert notes == [
        "The model `gone` is not offered any more: `base_1.0` stands in the form instead.",
        "The scheduler `zzz` is not offered any more. Choose another in the form.",
    ]
    assert settings_in(draft)[:3] == ("base_1.0.safetensors", "euler", "")
    assert draft.copy_settings_from(job()) == []
    assert draft.copy_settings_from(job(model="x\\OLD.ckpt")) == [
        r"The model x\\OLD has moved to old."
    ]
    assert draft.picture.model == "old.ckpt"


# The drafts of all people


def put(drafts: Drafts, user_id: int = 1) -> Draft:
    draft = a_draft()
    drafts.put(user_id, draft)
    return draft


def test_each_person_has_drafts_of_their_own() -> None:
    drafts = Drafts()
    first, second = put(drafts, 1), put(drafts, 2)
    assert drafts.get(1, first.key) is first
    assert drafts.get(2, second.key) is second
    with pytest.raises(StaleForm):
        drafts.get(2, first.key)


def test_every_form_of_a_person_has_its_own_draft_and_the_newest_is_the_last() -> None:
    drafts = Drafts()
    older, newer = put(drafts), put(drafts)
    assert drafts.get(1, older.key) is older
    assert drafts.get(1, newer.key) is newer
    assert drafts.last(1) is newer


def test_a_form_of_another_run_is_expired() -> None:
    drafts = Drafts()
    assert drafts.last(1) is None
    put(drafts)
    for key in (put(Drafts()).key, "0", ""):
        with pytest.raises(ExpiredForm):
            drafts.get(1, key)


def test_the_key_of_a_form_is_of_no_other_run() -> None:
    keys = [put(Drafts()).key for _ in range(1000)]
    assert len(set(keys)) == len(keys)
    assert all(len(key) == 16 for key in keys)


def test_only_a_persons_newest_drafts_are_kept() -> None:
    drafts = Drafts()
    forms = [put(drafts) for _ in range(FORM_LIMIT + 1)]
    with pytest.raises(ExpiredForm) as expired:
        drafts.get(1, forms[0].key)
    assert expired.value.user_message == "The bot no longer has this form. Please run /gen again."
    assert [drafts.get(1, draft.key) for draft in forms[1:]] == forms[1:]


def test_a_form_that_was_sent_makes_room_before_one_that_was_not() -> None:
    drafts = Drafts()
    forms = [put(drafts) for _ in range(FORM_LIMIT)]
    forms[3].stage = Stage.SENT
    put(drafts)
    with pytest.raises(ExpiredForm):
        drafts.find(1, forms[3].key)
    assert drafts.get(1, forms[0].key) is forms[0]


def test_a_sent_form_is_of_no_use_and_still_the_persons_last() -> None:
    drafts = Drafts()
    draft = put(drafts)
    draft.stage = Stage.SENDING
    assert drafts.get(1, draft.key) is draft  # it may come back, if sending fails
    draft.stage = Stage.SENT
    with pytest.raises(SentForm) as sent:
        drafts.get(1, draft.key)
    assert "has been sent already" in sent.value.user_message
    assert drafts.last(1) is drafts.find(1, draft.key) is draft


def test_a_draft_that_was_sent_holds_no_message_in_memory() -> None:
    shown_by: Any = object()
    draft = filled_draft(shown_by=shown_by)
    draft.sent()
    assert (draft.stage, draft.shown_by) == (Stage.SENT, None)


def test_only_the_drafts_of_the_newest_people_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.draft.DRAFT_LIMIT", 2)
    drafts = Drafts()
    for user_id in (1, 2, 1, 3):  # the second of person 1 is newer than that of person 2
        put(drafts, user_id)
    assert [drafts.last(user_id) is not None for user_id in (1, 2, 3)] == [True, False, True]


# What is typed


def parsed(parse: Callable[[str], Any], text: str) -> Any:
    """What a text says; None if it is refused."""
    try:
        return parse(text)
    except FormError:
        return None


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("1", 1),
        ("150", 150),
        (" 20\n", 20),
        ("007", 7),
        ("+5", 5),
        *(
            (text, None)
            for text in [
                "0",
                "151",
                "",
                " ",
                "-1",
                "+-5",
                "+ 5",
                "1.0",
                "1,000",
                "1e1",
                "0x10",
                "00020",
            ]
        ),
        *((text, None) for text in ["２０", "٢", "²", "1 0", "1_0", "nan", "9" * 5000]),  # noqa: RUF001
    ],
)
def test_steps_are_a_whole_number_in_range_in_plain_digits(text: str, steps: int | None) -> None:
    assert parsed(lambda text: parse_steps(text, 150), text) == steps


@pytest.mark.parametrize(
    ("text", "cfg"),
    [
        ("1", 1.0),
        ("30", 30.0),
        ("30.0", 30.0),
        (" 7.5 ", 7.5),
        ("7,5", 7.5),
        ("+7.50", 7.5),
        *(
            (text, None)
            for text in ["0.99", "30.01", "", "-7", "+-7", "7,", "7.", ".5", "1e1", "nan"]
        ),
        *(
            (text, None)
            for text in ["inf", "٣", "7 .5", "7.5.1", "1,000.5", "1_0", "7." + "0" * 5000]
        ),
    ],
)
def test_cfg_is_a_number_in_range_in_plain_digits(text: str, cfg: float | None) -> None:
    assert parsed(parse_cfg, text) == cfg


@pytest.mark.parametrize(
    ("text", "seed"),
    [("", None), (" ", None), ("0", 0), (" 007 ", 7), ("+7", 7), (str(SEED_MAX), SEED_MAX)],
)
def test_a_seed_is_a_whole_number_or_nothing(text: str, seed: int | None) -> None:
    assert parse_seed(text) == seed


@pytest.mark.parametrize(
    "text",
    [str(SEED_MAX + 1), "-1", "+-1", "1,5", "1.5", "abc", "１", "1 2", "0x1", "9" * 5000],  # noqa: RUF001
)
def test_any_other_seed_is_refused(text: str) -> None:
    with pytest.raises(FormError, match="give a whole number from 0 to"):
        parse_seed(text)


# Menus


def names(count: int) -> list[str]:
    return [f"{'deep/' * 30}{'n' * 120}-{number}.safetensors" for number in range(count)]


@functools.lru_cache(maxsize=1)
def named(values: tuple[str, ...]) -> OptionNames:
    return OptionNames(values)


def pages_of(values: Sequence[str], chosen: str) -> list[list[discord.SelectOption]]:
    """Every page of a menu, as More… leads from one to the next."""
    offered = named(tuple(values))
    pages = [menu_options(offered, chosen, 0)]
    while pages[-1][-1].value.startswith("page:"):
        assert pages[-1][-1].label == "More…"
        assert len(pages) < 50, "More… has no end"
        pages.append(menu_options(offered, chosen, int(pages[-1][-1].value.split(":")[1])))
    return pages


def indexes(options: Sequence[discord.SelectOption]) -> list[int]:
    tokens = [option.value.split(":") for option in options]
    return [int(number) for kind, number, _ in tokens if kind == "index"]


@pytest.mark.parametrize("count", [1, 25, 26, 44, 47, 300])
def test_every_entry_of_a_menu_is_reachable_and_every_page_within_the_limits(count: int) -> None:
    values = names(count)
    for chosen in ("", "not offered", values[0], values[count // 2], values[-1]):
        pages = pages_of(values, chosen)
        assert [fault for page in pages for fault in menu_faults(page)] == []
        assert {index for page in pages for index in indexes(page)} == set(range(count))
        assert len(pages) == (1 if count <= 25 else math.ceil(count / 22))


@pytest.mark.parametrize("count", [25, 26, 47, 300])
def test_the_chosen_entry_is_on_every_page_and_nothing_else_is_chosen(count: int) -> None:
    values = names(count)
    for chosen in range(count):
        for page in pages_of(values, values[chosen]):
            assert indexes([o for o in page if o.default]) == [chosen]
    assert not any(o.default for page in pages_of(values, "") for o in page)


@pytest.mark.parametrize("count", [26, 47, 300])
def test_back_leads_back_and_both_ways_tell_what_is_there(count: int) -> None:
    values = names(count)
    pages = pages_of(values, "")
    assert indexes(pages[0])[0] == 0
    for number, page in enumerate(pages[1:], 1):
        assert (page[0].label, page[0].value.rpartition(":")[0]) == ("Back", f"page:{number - 1}")
    for before, after in itertools.pairwise(pages):
        for turn, target in ((before[-1], after), (after[0], before)):
            there = indexes(target)
            assert turn.description == f"{there[0] + 1} to {there[-1] + 1} of {count}"


def test_an_entry_shows_its_name_and_where_it_differs_its_path() -> None:
    short, long = menu_options(OptionNames(["euler", "Flux/flux1-dev.safetensors"]), "", 0)
    assert (short.label, short.description) == ("euler", None)
    assert (long.label, long.description) == ("flux1-dev", "Flux/flux1-dev.safetensors")


# The form and the modal


def on_loop(check: Callable[[], None]) -> None:
    """discord.py makes controls on a running loop."""

    async def run() -> None:
        check()

    asyncio.run(run())


def test_the_forms_controls_lead_to_their_handlers_and_name_their_draft() -> None:
    def check() -> None:
        draft = filled_draft(key="k")
        for view, actions in (
            (form_view(draft), [*OPTION_PARAMS, "edit", "generate"]),
            (retry_view(draft), ["retry"]),
        ):
            children: list[Any] = view.children
            controls = [ControlId.parse(child.custom_id) for child in children]
            assert controls == [ControlId("form", action, draft.key) for action in actions]
            assert all((control.area, control.action) in HANDLERS for control in controls)
            assert [str(control) for control in controls] == [c.custom_id for c in children]

    on_loop(check)


@pytest.mark.parametrize(
    ("text", "control"),
    [
        ("job:cancel:a:b", ControlId("job", "cancel", "a:b")),
        ("job:cancel", ControlId("job", "cancel", "")),
        ("job", ControlId("job", "", "")),
        ("", ControlId("", "", "")),
    ],
)
def test_any_custom_id_can_be_read(text: str, control: ControlId) -> None:
    assert ControlId.parse(text) == control


def test_the_form_shows_in_each_menu_what_is_chosen_on_the_page_that_was_turned_to() -> None:
    def check() -> None:
        many = (tuple(names(300)), tuple(names(47)), tuple(names(26)))
        draft = a_draft(many, sampler=names(47)[1], pages={"sampler": 2})
        menus = {
            item.placeholder: item.options
            for item in form_view(draft).children
            if isinstance(item, discord.ui.Select)
        }
        assert list(menus) == ["Model", "Sampler", "Scheduler"]
        assert indexes(menus["Model"]) == list(range(22))
        assert indexes(menus["Sampler"]) == [1, 44, 45, 46]
        assert [option.default for option in menus["Sampler"]] == [False, True, False, False, False]

    on_loop(check)


def test_the_chosen_entry_alone_says_which_menu_it_is_on_every_page() -> None:
    def check() -> None:
        many = (MODELS, tuple(f"sampler_{n}" for n in range(47)), ("normal", "karras"))
        for page in range(3):
            draft = a_draft(many, sampler="sampler_1", scheduler="karras", pages={"sampler": page})
            children: list[Any] = form_view(draft).children
            model, sampler, scheduler = ([o.label for o in menu.options] for menu in children[:3])
            assert model == ["base_1.0", "flux1-dev", "old"]
            assert [label for label in sampler if ":" in label] == ["Sampler: sampler_1"]
            assert scheduler == ["normal", "Scheduler: karras"]

    on_loop(check)


def test_the_button_that_is_needed_next_is_the_coloured_one() -> None:
    def check() -> None:
        styles = discord.ButtonStyle
        for prompt, expected in (
            ("", [styles.primary, styles.secondary]),
            ("a fox", [styles.secondary, styles.success]),
        ):
            children: list[Any] = form_view(filled_draft(positive_prompt=prompt)).children
            assert [button.style for button in children[3:]] == expected
            assert not any(button.disabled for button in children[3:])

    on_loop(check)


SHAPES_OF_1024 = [
    "As in the workflow (1024 x 1024)",
    "Square (1024 x 1024)",
    "Portrait (832 x 1216)",
    "Landscape (1216 x 832)",
    "Wide (1344 x 768)",
    "Tall (768 x 1344)",
]


def test_a_workflow_with_a_size_has_a_fourth_menu_which_says_what_each_shape_is() -> None:
    def check() -> None:
        draft = filled_draft(size=SIZE)
        children: list[Any] = form_view(draft).children
        assert [child.placeholder for child in children[:4]][3] == "Shape"
        labels = [option.label for option in children[3].options]
        assert labels == ["Shape: as in the workflow (1024 x 1024)", *SHAPES_OF_1024[1:]]
        for option in children[3].options:
            draft.choose("shape", option.value)
            menu: Any = form_view(draft).children[3]
            (shown,) = [entry.label for entry in menu.options if entry.default]
            size = {field.name: field.value for field in form_embed(draft).fields}["Shape"]
            assert shown == f"Shape: {size}"
            assert option.label.lower().endswith(size)
        assert draft.picture.shape == "tall"
        with pytest.raises(FormError, match="has changed since"):
            choose(draft, "shape", "shape:oval")  # of another version of the bot
        assert draft.picture.shape == "tall"

    on_loop(check)


def test_the_coloured_button_takes_a_tag_for_no_prompt() -> None:
    def check() -> None:
        draft = filled_draft(positive_prompt="<lora:ink>", loras=LORAS)
        children: list[Any] = form_view(draft).children
        assert children[3].style == discord.ButtonStyle.primary
        assert "Only the prompt is required" in str(form_embed(draft).description)

    on_loop(check)


@pytest.mark.parametrize(
    ("given", "shape", "problem"),
    [
        ("portrait", "portrait", None),
        (" Wide ", "wide", None),
        ("as in the workflow", "", None),
        ("", "tall", None),
        (
            "oval",
            "tall",
            "There is no shape `oval`. There are: square, portrait, landscape, wide, tall.",
        ),
    ],
)
def test_gen_takes_a_shape(given: str, shape: str, problem: str | None) -> None:
    draft = filled_draft(size=SIZE, shape="tall")
    assert draft.apply_options(options(shape=given)) == [problem] * bool(problem)
    assert draft.picture.shape == shape
    draft = filled_draft()
    problems = draft.apply_options(options(shape=given))
    assert problems == ["The shape cannot be chosen with this workflow."] * bool(given)
    assert draft.picture.shape == ""


def test_gen_adds_a_loras_tag_to_the_prompt_that_there_is() -> None:
    draft = filled_draft(loras=LORAS)
    assert draft.apply_options(options(lora="water")) == []
    assert draft.picture.positive_prompt == "a bear <lora:style/watercolor v2:1>"
    assert draft.apply_options(options(lora="ink")) == []
    assert draft.picture.positive_prompt == "a bear <lora:style/watercolor v2:1> <lora:style/ink:1>"
    assert draft.apply_options(options(lora="ink")) == []  # it has that
    assert draft.picture.positive_prompt.count("ink") == 1
    assert draft.apply_options(options(prompt="a fox", lora="style/ink.safetensors")) == []
    assert draft.picture.positive_prompt == "a fox <lora:style/ink:1>"
    (problem,) = draft.apply_options(options(lora="watercolour"))
    assert problem == "There is no LoRA `watercolour`. The nearest: watercolor v2."
    assert draft.picture.positive_prompt == "a fox <lora:style/ink:1>"
    draft = filled_draft(loras=LORAS, positive_prompt="x" * 3990)
    assert draft.apply_options(options(lora="ink")) == [
        "The prompt has no room for the tag of a LoRA: shorten it first."
    ]
    assert filled_draft().apply_options(options(lora="ink")) == ["There are no LoRAs here."]


def test_a_tag_goes_to_the_prompt_that_was_refused_where_there_is_one() -> None:
    draft = filled_draft(loras=LORAS)
    draft.apply_typed({**TYPED, "positive_prompt": "a whole poem", "steps": "abc"})
    assert draft.apply_options(options(lora="ink")) == []
    assert draft.texts()["positive_prompt"] == "a whole poem <lora:style/ink:1>"
    assert draft.texts()["steps"] == "abc"


def test_what_is_wrong_with_a_tag_is_said_by_gen_by_the_modal_and_by_generate() -> None:
    sentence = "There is no LoRA `inc`. The nearest: ink."
    draft = filled_draft(loras=LORAS)
    assert draft.apply_options(options(prompt="a fox <lora:inc>")) == [sentence]
    assert draft.picture.positive_prompt == "a fox <lora:inc>"
    typed = {**TYPED, "positive_prompt": "a fox <lora:inc>", "negative_prompt": "<lora:ink:1>"}
    negative = "`<lora:ink:1>` does nothing in the negative prompt: move it to the prompt, or take"
    problems = [sentence, f"{negative} it out."]
    assert draft.apply_typed(typed) == problems
    assert draft.texts() == typed
    params = draft.job_params(1, 2, 3)
    with pytest.raises(FormError, match=re.escape(sentence)):
        check_offered(params, offering(OPTIONS, loras=LORAS), settings())
    (problem,) = draft.apply_typed({**TYPED, "positive_prompt": "<lora:ink>,"})
    assert problem == "**Prompt** is empty: describe the picture in a few words."


def test_a_tag_where_no_negative_prompt_is_asked_for_is_nobodys_concern() -> None:
    params = frozenset(binder.PARAMS) - {"negative"}
    draft = filled_draft(loras=LORAS, params=params, negative_prompt="<lora:ink>")
    assert (
        draft.apply_typed({"positive_prompt": "a fox", "steps": "3", "cfg": "3", "seed": ""}) == []
    )
    assert draft.apply_options(options(prompt="a fox")) == []


def test_edit_says_what_is_gone_of_shape_and_loras() -> None:
    async def story(house: House) -> None:
        asked = job(positive_prompt="a fox <lora:inc:0.5>", shape="tall")
        for more, lines in (
            ({"size": SIZE, "loras": (*LORAS, "inc.pt")}, None),
            ({"size": SIZE, "loras": LORAS}, "There is no LoRA `inc`. The nearest: ink."),
            (
                {},
                "The shape cannot be chosen with this workflow any more.\n"
                "There are no LoRAs here: take `<lora:inc:0.5>` out.",
            ),
        ):
            house.forms.catalog.offers = offering(OPTIONS, **more)
            interaction: Any = FakeInteraction()
            await interaction.response.defer(ephemeral=True, thinking=True)
            await house.forms.open_from(interaction, asked)
            assert interaction.shown["content"] == lines
            assert interaction.fields()["Prompt"] == r"a fox \<lora\:inc:0.5>"
            shape = interaction.fields().get("Shape")
            assert shape == ("tall (768 x 1344)" if more else None)

    play(story)


def test_a_form_whose_workflow_has_lost_its_size_can_be_sent_without_a_shape() -> None:
    async def story(house: House) -> None:
        house.forms.catalog.offers = offering(OPTIONS, size=SIZE)
        form = await house.open("a fox")
        await house.choose(form.key(), "shape", "shape:wide")
        draft = house.draft(form.key())
        house.forms.catalog.offers = offering(OPTIONS)
        params = draft.job_params(1, 2, 3)
        with pytest.raises(FormError, match="shape cannot be chosen with this workflow any more"):
            check_offered(params, house.forms.catalog.offers, settings())
        press: Any = FakeInteraction()
        await house.forms.show_anew(press, draft, "It went.")
        assert "Shape" not in press.fields()
        params = draft.job_params(1, 2, 3)
        check_offered(params, house.forms.catalog.offers, settings())

    play(story)


def test_the_form_shows_the_prompts_first_as_the_modal_does() -> None:
    shown = [field.name for field in form_embed(filled_draft()).fields]
    assert shown == [
        *("Prompt", "Negative prompt"),
        *("Model", "Sampler", "Scheduler", "Steps", "CFG", "Seed"),
    ]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, None),
        ({"positive_prompt": ""}, "Only the prompt is required; everything else has a default."),
        ({"positive_prompt": "", "model": ""}, None),
        (
            {"typed": {"seed": "x"}},
            "Some of what you typed was not accepted",
        ),
        ({"typed": {"seed": "x"}, "stage": Stage.SENT}, None),
    ],
)
def test_the_form_says_what_helps_as_it_stands(
    changes: dict[str, Any], sentence: str | None
) -> None:
    shown = form_embed(filled_draft(**changes)).description
    assert (shown or "").startswith(sentence or "")
    assert (shown is None) == (sentence is None)


def test_the_form_says_first_that_comfyui_is_away_unless_it_was_sent() -> None:
    away_since = time.monotonic() - 12 * 60 - 5
    shown = str(form_embed(filled_draft(), away_since).description)
    assert shown.startswith(
        "ComfyUI has not answered for 12 minutes; a picture asked for now waits until it is back."
    )
    assert form_embed(filled_draft(stage=Stage.SENT), away_since).description is None


@pytest.mark.parametrize(("count", "is_long"), [(25, False), (26, True), (300, True)])
def test_a_model_list_that_does_not_fit_a_menu_says_how_to_search_it(
    count: int, is_long: bool
) -> None:
    many = (tuple(names(count)), ("euler",), ("normal",))
    shown = form_embed(a_draft(many, positive_prompt="a fox")).description
    assert shown == (f"{count} models: `/gen model:` searches them." if is_long else None)


def test_the_modal_explains_each_text_to_somebody_new_and_names_what_is_allowed() -> None:
    hints = hints_of(filled_draft(settings=settings(max_steps=60)))
    for name, words in {
        "steps": ["1 to 60", "20 to 30", "more: finer and slower"],
        "cfg": ["1 to 30", "4 to 8", "higher: closer to the prompt"],
        "negative_prompt": ["keep out"],
        "seed": ["Empty: random", "same picture"],
    }.items():
        assert [word for word in words if word not in hints[name]] == []


def test_the_form_and_its_modal_stay_within_discords_limits() -> None:
    def check() -> None:
        many = ((LONG_NAME, *names(300)), tuple(names(47)), tuple(names(26)))
        for text in LONG_TEXTS:
            draft = a_draft(
                many,
                model=LONG_NAME,
                sampler=names(47)[46],
                scheduler=names(26)[25],
                steps=150,
                cfg=29.999999999,
                positive_prompt=text,
                negative_prompt=text,
                seed=SEED_MAX,
                workflow=LONG_NAME,
                shows_workflow=True,
                size=binder.Size(16384, 16384),
                loras=tuple(names(300)),
            )
            assert embed_faults(form_embed(draft)) == []
            assert view_faults(form_view(draft)) == []
            assert len(form_view(draft).to_components()) == 5  # all that Discord takes
            assert view_faults(retry_view(draft)) == []
            assert modal_faults(PromptModal(draft, "retry")) == []
        assert embed_faults(form_embed(a_draft(many))) == []

    on_loop(check)


def test_discord_py_is_given_nothing_to_remember() -> None:
    def check() -> None:
        draft = a_draft()
        controls = (form_view(draft), retry_view(draft), PromptModal(draft, "edit"))
        assert all(control.is_finished() for control in controls)
        assert all(control.timeout is None for control in controls[:2])  # that is a timer

    on_loop(check)


def values_in(modal: PromptModal) -> dict[str, str | None]:
    """What a modal's inputs hold when it opens."""
    shown: Any = modal.to_dict()
    fields = [label["component"] for label in shown["components"]]
    return {field["custom_id"]: field.get("value") for field in fields}


def test_the_modal_opens_with_the_draft_in_it() -> None:
    def check() -> None:
        draft = filled_draft(seed=0, cfg=7.0, key="k")
        modal = PromptModal(draft, "edit")
        control = ControlId.parse(modal.custom_id)
        assert control == ControlId("modal", "edit", f"k.{draft.fingerprint()}")
        assert values_in(modal) == {
            "positive_prompt": "a bear",
            "negative_prompt": "rain",
            "steps": "12",
            "cfg": "7",
            "seed": "0",
        }
        empty = values_in(PromptModal(a_draft(), "edit"))
        assert (empty["positive_prompt"], empty["seed"]) == (None, None)

    on_loop(check)


def test_the_modal_opens_with_what_was_typed_before_even_where_that_was_nothing() -> None:
    def check() -> None:
        draft = filled_draft()
        draft.apply_typed({**TYPED, "steps": "abc", "seed": ""})
        assert values_in(PromptModal(draft, "retry")) == {**TYPED, "steps": "abc", "seed": None}

    on_loop(check)


def test_an_answer_is_demanded_only_where_the_bot_needs_one() -> None:
    def check() -> None:
        shown: Any = PromptModal(a_draft(), "edit").to_dict()
        fields = [label["component"] for label in shown["components"]]
        demanded = {field["custom_id"] for field in fields if field["required"]}
        assert demanded == {"positive_prompt", "steps", "cfg"}
        assert all(field["placeholder"] for field in fields)  # each with an example

    on_loop(check)


@pytest.mark.parametrize("shape", ["label", "row"])
def test_the_texts_of_a_modal_are_read_in_both_shapes(shape: str) -> None:
    fields = [
        {"type": 4, "custom_id": "positive_prompt", "value": "half \ud83e"},
        {"type": 4, "custom_id": "seed", "value": None},
        {"type": 4, "custom_id": "cfg"},
    ]
    components: list[dict[str, Any]] = [
        {"type": 18, "component": field} if shape == "label" else {"type": 1, "components": [field]}
        for field in fields
    ]
    components.insert(1, {"type": 10, "id": 5})  # a text between them
    assert PromptModal.texts(components) == {
        "positive_prompt": "half ?",
        "seed": "",
        "cfg": "",
    }


# The forms of all people


class FakeInteraction:
    """One click, command or modal. Notes how it is answered; as with Discord, there is one first
    answer, and what changes the message comes after it."""

    def __init__(self, user_id: int = 1, *, token_is_over: bool = False) -> None:
        self.user = SimpleNamespace(id=user_id)
        self.channel = None
        self.message: Any = SimpleNamespace(id=1)
        self.app_permissions = discord.Permissions(administrator=True)
        self.response = FakeResponse(self)
        self.token_is_over = token_is_over
        self.message_is_gone = False  # that it came from
        self.answers: list[tuple[str, dict[str, Any]]] = []
        self.followup = SimpleNamespace(edit_message=self._edit_by_webhook)

    async def _edit_by_webhook(self, message_id: str, **changes: Any) -> None:
        assert message_id == "@original"
        await self.edit_original_response(**changes)

    async def edit_original_response(self, **changes: Any) -> None:
        self._follow("edit_original_response", changes)

    async def delete_original_response(self) -> None:
        self._follow("delete_original_response", {})

    def _follow(self, kind: str, what: dict[str, Any]) -> None:
        assert self.answers, "there is no original response yet"
        if self.message_is_gone and kind == "delete_original_response":
            missing: Any = SimpleNamespace(status=404, reason="Not Found")
            raise discord.NotFound(missing, {"code": 10008, "message": "Unknown Message"})
        if self.token_is_over:
            response: Any = SimpleNamespace(status=401, reason="Unauthorized")
            raise discord.HTTPException(response, {"code": 50027, "message": "Invalid token"})
        self.answers.append((kind, what))

    @property
    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.answers]

    @property
    def shown(self) -> dict[str, Any]:
        """The last answer's arguments."""
        return self.answers[-1][1]

    def fields(self) -> dict[str, str]:
        """The form, as the last answer shows it."""
        return {field.name: field.value for field in self.shown["embed"].fields}

    def key(self) -> str:
        """The key that the controls of the last answer carry."""
        (key,) = {ControlId.parse(child.custom_id).key for child in self.shown["view"].children}
        return key


class FakeResponse:
    """`interaction.response`."""

    def __init__(self, interaction: FakeInteraction) -> None:
        self._interaction = interaction

    def is_done(self) -> bool:
        return self._interaction.answers != []

    async def send_message(self, content: str | None = None, **more: Any) -> None:
        self._first("send_message", {"content": content, **more})

    async def edit_message(self, **changes: Any) -> None:
        self._first("edit_message", changes)

    async def send_modal(self, modal: PromptModal) -> None:
        self._first("send_modal", {"modal": modal})

    async def defer(self, **more: Any) -> None:
        self._first("defer", more)

    def _first(self, kind: str, what: dict[str, Any]) -> None:
        assert self._interaction.answers == [], "an interaction has one first answer"
        self._interaction.answers.append((kind, what))


class KeptTexts:
    """`Store`, as far as forms use it."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], str] = {}

    def keep_typed(self, form: str, user_id: str, texts: str) -> None:
        self._kept[form, user_id] = texts

    def typed(self, form: str, user_id: str) -> str:
        return self._kept.get((form, user_id), "")


class House:
    """`Forms`, and people who use them."""

    def __init__(self, options: Lists = OPTIONS) -> None:
        self.store: Any = KeptTexts()
        self.is_allowed = True
        self.messages_are_gone = False
        self.comfy: Any = SimpleNamespace(away_since=None, answering=1)
        self.places: list[FakeInteraction] = []  # asked about
        self.forms = self.restarted(options)

    def restarted(self, options: Lists = OPTIONS) -> Forms:
        """New forms, without a memory."""
        self.forms = Forms(
            settings(default_negative_prompt="blurry"),
            self.comfy,
            a_catalog(offering(options)),
            self.store,
            self._check_place,
        )
        return self.forms

    def _check_place(self, interaction: Any) -> None:
        self.places.append(interaction)
        if not self.is_allowed:
            raise UserError("Not here.")

    async def open(
        self, prompt: str = "", model: str = "", seed: str = "", *, user_id: int = 1
    ) -> FakeInteraction:
        """/gen."""
        interaction: Any = FakeInteraction(user_id)
        await self.forms.open(interaction, options(prompt=prompt, model=model, seed=seed), None)
        return interaction  # type: ignore[no-any-return]

    async def choose(self, key: str, name: str, token: str, user_id: int = 1) -> FakeInteraction:
        interaction: Any = FakeInteraction(user_id)
        fingerprint = self.forms.draft(interaction, key).list_fingerprint(name)
        await self.forms.choose(interaction, key, name, f"{token}:{fingerprint}")
        return interaction  # type: ignore[no-any-return]

    async def modal(self, key: str, origin: str = "edit") -> PromptModal:
        """What the button shows."""
        interaction: Any = FakeInteraction()
        await self.forms.show_modal(interaction, key, origin)
        assert interaction.kinds == ["send_modal"]
        modal: PromptModal = interaction.shown["modal"]
        return modal

    async def submit(
        self, opened: str | PromptModal, origin: str = "edit", **texts: str
    ) -> FakeInteraction:
        """The modal, opened now by a form's key or earlier, filled in with TYPED but for these."""
        modal = await self.modal(opened, origin) if isinstance(opened, str) else opened
        interaction: Any = FakeInteraction()
        interaction.message_is_gone = self.messages_are_gone
        components = [
            {"type": 18, "component": {"custom_id": name, "value": text}}
            for name, text in {**TYPED, **texts}.items()
        ]
        control = ControlId.parse(modal.custom_id)
        await self.forms.on_modal(interaction, control.key, control.action, components)
        return interaction  # type: ignore[no-any-return]

    def draft(self, key: str) -> Draft:
        interaction: Any = FakeInteraction()
        return self.forms.draft(interaction, key)


def play(story: Callable[[House], Awaitable[None]]) -> None:
    """Run a story on a loop of its own."""

    async def run() -> None:
        await story(House())

    asyncio.run(run())


def test_gen_opens_a_form_for_the_callers_eyes_with_the_files_values() -> None:
    async def story(house: House) -> None:
        opened = await house.open()
        assert opened.kinds == ["send_message"]
        assert opened.shown["ephemeral"] is True
        assert opened.fields() == {
            "Model": r"base\_1.0",
            "Sampler": r"dpmpp\_2m",
            "Scheduler": "karras",
            "Steps": "30",
            "CFG": "5.5",
            "Seed": "random",
            "Prompt": "not written yet: press Edit Prompts & Settings",
            "Negative prompt": "blurry",
        }
        assert house.draft(opened.key()).missing() == ["a prompt"]

    play(story)


def test_gens_options_are_in_the_form() -> None:
    async def story(house: House) -> None:
        opened = await house.open(" a fox ", "flux", "0")
        shown = opened.fields()
        assert (shown["Prompt"], shown["Model"], shown["Seed"]) == ("a fox", "flux1-dev", "0")

    play(story)


WRONG_MODEL = r"There is no model `bass_1.0`. The nearest: base\_1.0."
WRONG_SEED = f"The seed `-1` is not a whole number from 0 to {SEED_MAX}."


@pytest.mark.parametrize(
    ("model", "seed", "sentences"),
    [
        ("", "-1", [WRONG_SEED]),
        ("bass_1.0", "", [WRONG_MODEL]),
        ("bass_1.0", "-1", [WRONG_MODEL, WRONG_SEED]),
    ],
)
def test_a_wrong_option_of_gen_is_said_above_a_form_with_the_others_in_it(
    model: str, seed: str, sentences: list[str]
) -> None:
    async def story(house: House) -> None:
        opened = await house.open("a bear", model, seed)
        assert opened.kinds == ["send_message"]
        assert opened.shown["ephemeral"] is True
        lines = opened.shown["content"].splitlines()
        assert len(lines) == len(sentences)
        assert all(map(str.startswith, lines, sentences))
        shown = opened.fields()
        assert (shown["Prompt"], shown["Model"]) == ("a bear", r"base\_1.0")
        assert shown["Seed"] == "random"
        values = values_in(await house.modal(opened.key()))
        assert (values["positive_prompt"], values["seed"]) == ("a bear", seed or None)

    play(story)


def test_a_seed_of_any_length_fits_into_the_modal_for_its_correction() -> None:
    async def story(house: House) -> None:
        modal = await house.modal((await house.open(seed="9" * 6000)).key())
        assert values_in(modal)["seed"] == "9" * 40
        assert modal_faults(modal) == []

    play(story)


def test_there_is_no_form_where_the_place_is_refused() -> None:
    async def story(house: House) -> None:
        older = await house.open("a bear")
        house.is_allowed = False
        with pytest.raises(UserError):
            await house.open("a fox")
        assert house.draft(older.key()).picture.positive_prompt == "a bear"

    play(story)


def test_a_choice_shows_the_form_again_in_place() -> None:
    async def story(house: House) -> None:
        key = (await house.open()).key()
        chosen = await house.choose(key, "sampler", "index:1")
        assert chosen.kinds == ["edit_message"]
        assert chosen.shown["content"] == "Scheduler was set to normal with this sampler."
        assert (chosen.fields()["Sampler"], chosen.fields()["Scheduler"]) == ("heun", "normal")
        assert chosen.key() == key
        later = await house.choose(key, "sampler", "index:2")
        assert later.shown["content"] is None  # a note that stood there before goes

    play(story)


def test_nobody_uses_the_form_of_another_person() -> None:
    async def story(house: House) -> None:
        key = (await house.open()).key()
        await house.open(user_id=2)
        with pytest.raises(StaleForm):
            await house.choose(key, "sampler", "index:1", user_id=2)

    play(story)


def test_every_open_form_goes_on_working_each_with_its_own_draft() -> None:
    async def story(house: House) -> None:
        first, second = (await house.open("a bear")).key(), (await house.open("a fox")).key()
        await house.choose(first, "model", "index:2")
        await house.submit(second, positive_prompt="a wolf")
        house.draft(second).stage = Stage.SENT
        shown = (await house.choose(first, "sampler", "index:1")).fields()
        assert (shown["Model"], shown["Sampler"], shown["Prompt"]) == ("old", "heun", "a bear")

    play(story)


def test_a_modal_that_is_right_shows_the_form_with_its_texts() -> None:
    async def story(house: House) -> None:
        key = (await house.open()).key()
        assert values_in(await house.modal(key))["steps"] == "30"
        taken = await house.submit(key)
        assert taken.kinds == ["edit_message"]
        shown = taken.fields()
        assert (shown["Prompt"], shown["Negative prompt"]) == ("a fox", "fog")
        assert (shown["Steps"], shown["CFG"], shown["Seed"]) == ("33", "7.5", "9")

    play(story)


def test_a_refused_modal_is_corrected_and_the_complaint_goes() -> None:
    async def story(house: House) -> None:
        opened = await house.open()
        key = opened.key()
        refused = await house.submit(key, steps="abc", cfg="7;5")
        assert refused.kinds == ["send_message"]
        assert refused.shown["ephemeral"] is True
        first, second = refused.shown["content"].splitlines()
        assert first.startswith("**Steps** is `abc`")
        assert second.startswith("**CFG** is `7;5`")
        assert refused.key() == key

        again = await house.modal(key, "retry")
        assert ControlId.parse(again.custom_id).action == "retry"
        assert values_in(again) == {**TYPED, "steps": "abc", "cfg": "7;5"}
        still = await house.submit(key, "retry", steps="0")
        assert still.kinds == ["edit_message"]  # the complaint changes, there is no second one
        assert still.shown["content"].startswith("**Steps** is `0`")
        assert still.key() == key

        corrected = await house.submit(key, "retry", steps="9")
        assert corrected.kinds == ["defer", "delete_original_response"]
        assert opened.kinds == ["send_message", "edit_original_response"]
        assert (opened.fields()["Steps"], opened.fields()["Prompt"]) == ("9", "a fox")
        assert opened.key() == key

    play(story)


def test_a_corrected_modal_updates_the_form_where_it_was_last_shown() -> None:
    async def story(house: House) -> None:
        opened = await house.open()
        chosen = await house.choose(opened.key(), "model", "index:2")
        await house.submit(opened.key(), steps="abc")
        await house.submit(opened.key(), "retry")
        assert chosen.kinds == ["edit_message", "edit_original_response"]  # the newer token
        assert opened.kinds == ["send_message"]

    play(story)


def test_after_the_forms_token_is_over_the_complaint_becomes_the_form() -> None:
    async def story(house: House) -> None:
        opened = await house.open()
        key = opened.key()
        opened.token_is_over = True
        await house.submit(key, steps="abc")
        corrected = await house.submit(key, "retry")
        assert corrected.kinds == ["defer", "edit_original_response"]
        assert corrected.shown["content"] is None
        assert (corrected.fields()["Steps"], corrected.key()) == ("33", key)

        await house.submit(key, steps="abc")
        later = await house.submit(key, "retry", steps="8")
        assert later.kinds == ["defer", "delete_original_response"]
        assert corrected.fields()["Steps"] == "8"  # from now on, the form is there

    play(story)


NEW_FORM = "so here is a new one with what you typed."


@pytest.mark.parametrize("origin", ["edit", "retry"])
def test_a_modal_from_before_a_restart_becomes_a_new_form_with_what_was_typed(origin: str) -> None:
    async def story(house: House) -> None:
        key = (await house.open()).key()
        modal = await house.modal(key, origin)
        house.restarted()
        house.places.clear()
        taken = await house.submit(modal)
        assert house.places == [taken]
        assert taken.kinds == ["edit_message"]
        assert taken.shown["content"] == f"The bot no longer had that form, {NEW_FORM}"
        assert (taken.fields()["Prompt"], taken.fields()["Steps"]) == ("a fox", "33")
        assert taken.fields()["Sampler"] == r"dpmpp\_2m"
        assert taken.key() != key
        assert house.draft(taken.key()).missing() == []

    play(story)


@pytest.mark.parametrize("origin", ["edit", "retry"])
def test_a_modal_of_a_forgotten_form_becomes_a_new_one_in_its_place(origin: str) -> None:
    async def story(house: House) -> None:
        modal = await house.modal((await house.open()).key(), origin)
        for _ in range(FORM_LIMIT):
            await house.open(user_id=1)
        taken = await house.submit(modal)
        assert taken.kinds == ["edit_message"]
        assert taken.shown["content"] == f"The bot no longer had that form, {NEW_FORM}"
        assert house.draft(taken.key()).texts() == {k: v.strip() for k, v in TYPED.items()}

    play(story)


def test_a_wrong_modal_from_before_a_restart_says_what_is_wrong_and_keeps_the_texts() -> None:
    async def story(house: House) -> None:
        modal = await house.modal((await house.open()).key())
        house.restarted()
        taken = await house.submit(modal, steps="abc")
        note, problem = taken.shown["content"].splitlines()
        assert note.startswith("The bot no longer had that form")
        assert problem.startswith("**Steps** is `abc`")
        assert values_in(await house.modal(taken.key())) == {**TYPED, "steps": "abc"}

    play(story)


@pytest.mark.parametrize("stage", [Stage.SENDING, Stage.SENT])
@pytest.mark.parametrize("steps", ["33", "abc"])
def test_a_modal_of_a_form_that_was_sent_opens_another_with_everything_in_it(
    stage: Stage, steps: str
) -> None:
    async def story(house: House) -> None:
        key = (await house.open("a bear")).key()
        await house.choose(key, "model", "index:2")
        modal = await house.modal(key)
        sent = house.draft(key)
        sent.stage = stage
        await house.open("a wolf", "base_1.0")  # not where the new one starts from
        taken = await house.submit(modal, steps=steps)
        assert taken.kinds == ["send_message"]  # the form that was sent stands for what was sent
        assert taken.shown["ephemeral"] is True
        note, *problems = taken.shown["content"].splitlines()
        assert note == f"That form was sent already, {NEW_FORM}"
        assert len(problems) == (steps == "abc")
        assert taken.fields()["Model"] == "old"
        values = values_in(await house.modal(taken.key()))
        assert {k: (v or "").strip() for k, v in values.items()} == {
            **{k: v.strip() for k, v in TYPED.items()},
            "steps": steps,
        }
        assert sent.picture.positive_prompt == "a bear"

    play(story)


def test_what_was_refused_in_a_form_that_was_sent_all_the_same_can_still_be_corrected() -> None:
    async def story(house: House) -> None:
        key = (await house.open("a bear")).key()
        await house.submit(key, positive_prompt="a poem", steps="abc")
        house.draft(key).stage = Stage.SENT
        modal = await house.modal(key, "retry")
        assert values_in(modal)["positive_prompt"] == "a poem"
        taken = await house.submit(modal, positive_prompt="a poem")
        assert taken.kinds == ["edit_message"]  # the complaint becomes the form
        assert taken.fields()["Prompt"] == "a poem"
        assert taken.key() != key

    play(story)


def test_a_second_modal_of_a_form_does_not_overwrite_what_the_first_one_brought() -> None:
    async def story(house: House) -> None:
        key = (await house.open()).key()
        at_the_desk, on_the_phone = await house.modal(key), await house.modal(key)
        await house.submit(at_the_desk, positive_prompt="a poem")
        taken = await house.submit(on_the_phone, positive_prompt="a fox")
        assert taken.kinds == ["send_message"]
        assert taken.shown["content"] == f"That form has changed in the meantime, {NEW_FORM}"
        assert taken.fields()["Prompt"] == "a fox"
        assert house.draft(key).picture.positive_prompt == "a poem"

    play(story)


def test_a_second_modal_of_a_form_does_not_overwrite_what_was_refused_in_the_first() -> None:
    async def story(house: House) -> None:
        key = (await house.open()).key()
        at_the_desk, on_the_phone = await house.modal(key), await house.modal(key)
        await house.submit(at_the_desk, positive_prompt="a poem", steps="abc")
        taken = await house.submit(on_the_phone)
        assert taken.key() != key
        assert values_in(await house.modal(key, "retry"))["positive_prompt"] == "a poem"

    play(story)


@pytest.mark.parametrize("steps", ["33", "abc"])
def test_a_modal_that_is_submitted_twice_changes_nothing_the_second_time(steps: str) -> None:
    async def story(house: House) -> None:
        key = (await house.open()).key()
        modal = await house.modal(key)
        first = await house.submit(modal, steps=steps)
        second = await house.submit(modal, steps=steps)
        assert second.kinds == first.kinds
        assert second.key() == first.key() == key

    play(story)


def test_a_correction_that_is_submitted_twice_finds_the_complaint_gone() -> None:
    async def story(house: House) -> None:
        opened = await house.open()
        await house.submit(opened.key(), steps="abc")
        modal = await house.modal(opened.key(), "retry")
        await house.submit(modal)
        house.messages_are_gone = True
        second = await house.submit(modal)
        assert second.kinds == ["defer"]
        assert opened.fields()["Prompt"] == "a fox"

    play(story)


@pytest.mark.parametrize("is_known", [True, False])
def test_where_there_may_be_no_form_a_modal_gives_all_five_texts_back(is_known: bool) -> None:
    async def story(house: House) -> None:
        key = (await house.open("a bear")).key()
        modal = await house.modal(key)
        if not is_known:
            house.restarted()
        house.is_allowed = False
        answer = await house.submit(modal, positive_prompt="a *fox*", steps="abc")
        assert answer.kinds == ["send_message"]
        assert answer.shown["ephemeral"] is True
        assert answer.shown["content"] == "Not here."
        assert {name: value.strip() for name, value in answer.fields().items()} == {
            "Prompt": r"a \*fox\*",
            "Negative prompt": "fog",
            "Steps": "abc",
            "CFG": "7.5",
            "Seed": "9",
        }
        if is_known:
            assert house.draft(key).picture.positive_prompt == "a bear"

    play(story)


@pytest.mark.parametrize("text", ["a fox", " ", *LONG_TEXTS])
def test_texts_of_any_length_are_given_back_whole_and_within_discords_limits(text: str) -> None:
    typed = {**TYPED, "positive_prompt": text, "negative_prompt": text, "steps": " "}
    answer = given_back(typed)
    if len(text) < 1000:
        assert embed_faults(answer["embed"]) == []
        shown = {field.name: field.value for field in answer["embed"].fields}
        assert shown.get("Negative prompt", " ") == text
    else:
        whole = answer["file"].fp.read().decode()
        assert whole.count(text) == 2
        assert "CFG:\n7.5" in whole


def test_edit_opens_a_form_with_the_job_in_it_in_place_of_the_deferred_answer() -> None:
    async def story(house: House) -> None:
        older = await house.open("a bear")
        await house.submit(older.key(), steps="abc")
        interaction: Any = FakeInteraction()
        await interaction.response.defer(ephemeral=True, thinking=True)
        await house.forms.open_from(interaction, job())
        assert interaction.kinds == ["defer", "edit_original_response"]
        assert interaction.fields() == {
            "Model": "old",
            "Sampler": "heun",
            "Scheduler": "karras",
            "Steps": "17",
            "CFG": "3.5",
            "Seed": "42",
            "Prompt": "a job's prompt",
            "Negative prompt": "a job's fog",
        }
        # Not the older form's refused texts: they would cover the job's.
        assert values_in(await house.modal(interaction.key()))["steps"] == "17"
        assert house.draft(older.key()).typed["steps"] == "abc"  # which is as it was
        await house.submit(interaction.key(), cfg="abc")
        await house.submit(interaction.key(), "retry")
        assert interaction.kinds[2:] == ["edit_original_response"]

    play(story)


def test_edit_falls_back_on_the_file_where_the_jobs_model_is_gone() -> None:
    async def story(house: House) -> None:
        interaction: Any = FakeInteraction()
        await interaction.response.defer(ephemeral=True, thinking=True)
        await house.forms.open_from(interaction, job(model="gone.ckpt", seed=None))
        shown = interaction.fields()
        assert (shown["Model"], shown["Sampler"]) == (r"base\_1.0", "heun")
        assert shown["Seed"] == "random"
        assert interaction.shown["content"] == (
            "The model `gone` is not offered any more: `base_1.0` stands in the form instead."
        )

    play(story)


def test_edit_says_nothing_where_all_is_as_it_was_and_a_note_where_there_is_one() -> None:
    async def story(house: House) -> None:
        interaction: Any = FakeInteraction()
        await interaction.response.defer(ephemeral=True, thinking=True)
        await house.forms.open_from(interaction, job())
        assert interaction.shown["content"] is None
        await house.forms.open_from(interaction, job(), "Look here.")
        assert interaction.shown["content"] == "Look here."

    play(story)


def test_a_form_shown_anew_has_the_lists_of_now_and_what_was_filled_in() -> None:
    async def story(house: House) -> None:
        form = await house.open()
        await house.submit(form.key())
        house.forms.catalog.offers = offering((("new.ckpt",), *OPTIONS[1:]))
        draft = house.draft(form.key())
        draft.pages["model"] = 7
        press: Any = FakeInteraction()
        await house.forms.show_anew(press, draft, "It went.")
        assert press.shown["content"] == "It went."
        assert press.fields() == {**form.fields(), **press.fields(), "Model": r"base\_1.0"}
        assert press.fields()["Prompt"] == "a fox"
        chosen = await house.choose(form.key(), "model", "index:0")
        assert chosen.fields()["Model"] == "new"
        assert chosen.shown["content"] is None

    play(story)


def test_every_form_says_what_there_is_to_know_about_its_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def story(house: House) -> None:
        monkeypatch.setattr("bot.form.cannot_post", lambda _: "Not here.")
        form = await house.open("a fox")
        again = await house.choose(form.key(), "sampler", "index:0")
        edited: Any = FakeInteraction()
        await edited.response.defer()
        await house.forms.open_from(edited, job())
        for answer in (form, again, edited):
            assert answer.shown["embed"].description == "Not here."

    play(story)


def test_a_new_form_keeps_what_was_filled_in_and_never_sent() -> None:
    async def story(house: House) -> None:
        first = await house.open()
        await house.choose(first.key(), "model", "index:2")
        await house.submit(first.key())
        await house.submit(first.key(), steps="abc", positive_prompt="a poem")
        second = await house.open()
        shown = second.fields()
        assert (shown["Model"], shown["Prompt"], shown["Seed"]) == ("old", "a fox", "9")
        values = values_in(await house.modal(second.key()))
        assert (values["steps"], values["positive_prompt"]) == ("abc", "a poem")
        other = await house.open(user_id=2)
        assert other.fields()["Model"] == r"base\_1.0"

    play(story)


def test_gens_own_prompt_and_seed_win_over_what_was_refused_before() -> None:
    async def story(house: House) -> None:
        await house.submit((await house.open()).key(), steps="abc", seed="x")
        values = values_in(await house.modal((await house.open("a wolf", seed="3")).key()))
        assert values["positive_prompt"] == "a wolf"
        assert values["seed"] == "3"
        assert values["steps"] == "abc"

    play(story)


def test_a_form_after_a_sent_one_has_its_settings_and_not_its_prompt_and_seed() -> None:
    async def story(house: House) -> None:
        first = await house.open()
        await house.submit(first.key())
        house.draft(first.key()).stage = Stage.SENT
        shown = (await house.open()).fields()
        assert (shown["Steps"], shown["Negative prompt"]) == ("33", "fog")
        assert shown["Prompt"].startswith("not written yet")
        assert shown["Seed"] == "random"

    play(story)


def test_new_forms_offer_the_lists_of_the_last_refresh_and_older_ones_keep_theirs() -> None:
    async def story(house: House) -> None:
        older = await house.open()
        house.forms.catalog.offers = offering((("new.ckpt",), *OPTIONS[1:]))
        chosen = await house.choose(older.key(), "model", "index:1")
        assert chosen.fields()["Model"] == "flux1-dev"
        newer = await house.open()
        assert newer.fields()["Model"] == "not chosen"
        assert (await house.choose(newer.key(), "model", "index:0")).fields()["Model"] == "new"

    play(story)


def test_where_the_database_fails_the_texts_of_a_modal_are_not_lost() -> None:
    async def story(house: House) -> None:
        modal = await house.modal((await house.open()).key())
        house.restarted()

        def fail(*_: object) -> str:
            raise StoreError("the disk is full")

        house.store.typed = house.store.keep_typed = fail
        answer = await house.submit(modal, positive_prompt="a fox")
        assert "The bot no longer had that form" in answer.shown["content"]
        assert answer.fields()["Prompt"] == "a fox"
        refused = await house.submit(answer.key(), steps="many")
        assert "Steps" in refused.shown["content"]

    play(story)


def test_a_refused_draft_comes_back_after_a_restart_as_far_as_it_is_offered() -> None:
    async def story(house: House) -> None:
        key = (await house.open("a fox", "flux", "7")).key()
        await house.choose(key, "sampler", "index:1")
        await house.submit(key, steps="many")
        house.restarted(((MODELS[0],), *OPTIONS[1:]))
        values = values_in(await house.modal(key, "retry"))
        assert (values["steps"], values["positive_prompt"]) == ("many", " a fox ")
        assert settings_in(house.draft(key))[:2] == (MODELS[0], "heun")
        done = await house.submit(key, "retry")
        assert done.kinds == ["defer", "edit_original_response"]  # in the refusal's place
        house.restarted()
        with pytest.raises(ExpiredForm):
            await house.modal(key, "retry")

    play(story)
