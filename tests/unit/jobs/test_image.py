"""Drafts over a workflow that takes a picture, and what is said of the picture."""

from __future__ import annotations

import pytest

from comfyui.images import Image
from jobs.draft import Draft
from jobs.image import made_from
from jobs.offered import check_offered
from jobs.typed import FormError
from tests.factories import a_job, an_offer, settings

EDITS = an_offer(params=frozenset({"positive", "image"}), takes_image=True, strength=0.6)
UPSCALES = an_offer(params=frozenset({"image"}), takes_image=True, needs_prompt=False)
PAINTS = an_offer(params=frozenset({"positive"}))


def test_a_form_misses_its_picture_and_its_prompt_only_where_they_are_needed() -> None:
    missing = [Draft.from_file("w", o, settings()).missing() for o in (EDITS, UPSCALES, PAINTS)]
    assert missing == [["a picture", "a prompt"], ["a picture"], ["a prompt"]]
    draft = Draft.from_file("w", UPSCALES, settings())
    assert draft.apply_typed({}) == []


def test_a_strength_is_chosen_by_its_name_or_its_menu() -> None:
    draft = Draft.from_file("w", EDITS, settings())
    draft.set_strength("Light")
    assert draft.picture.strength == 0.3
    draft.choose("strength", "strength:all:0.6")
    assert draft.picture.strength == 1.0
    draft.choose("strength", "strength::0.6")
    assert draft.picture.strength == 0.0
    with pytest.raises(FormError, match="There are: light, medium, strong, all"):
        draft.set_strength("gentle")
    with pytest.raises(FormError, match="cannot be chosen"):
        Draft.from_file("w", UPSCALES, settings()).set_strength("light")


def test_a_picture_moves_with_the_form_and_into_no_job_that_takes_none() -> None:
    draft = Draft.from_file("edit", EDITS, settings())
    draft.change(image="abc", strength=0.3, positive_prompt="a fox")
    draft.move_to("paint", PAINTS)
    asked = draft.job_params(1, 2, 3)
    assert (asked.image, asked.strength) == ("", 0.0)
    draft.move_to("upscale", UPSCALES)
    asked = draft.job_params(1, 2, 3)
    assert (asked.image, asked.strength, asked.positive_prompt) == ("abc", 0.0, "")


def test_a_job_without_the_picture_that_its_workflow_needs_now_is_refused() -> None:
    with pytest.raises(FormError, match="needs a picture"):
        check_offered(a_job(workflow="w"), {"w": EDITS}, settings())


def test_a_job_with_a_picture_that_its_workflow_takes_no_more_is_refused() -> None:
    with pytest.raises(FormError, match="does not work on a picture any more"):
        check_offered(a_job(workflow="w", image="abc"), {"w": PAINTS}, settings())
    notes = Draft.from_file("w", PAINTS, settings()).copy_settings_from(
        a_job(workflow="w", image="abc")
    )
    assert "The workflow does not work on a picture any more." in notes


@pytest.mark.parametrize(
    ("most", "text"), [(2.0, ", scaled down to 2 megapixels"), (0.0, ""), (13.0, "")]
)
def test_a_result_says_what_it_was_made_from(most: float, text: str) -> None:
    image = Image(b"", ".jpg", 4032, 3024)
    assert made_from(image, most) == f"4032 x 3024{text}"
