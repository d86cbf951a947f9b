"""The words on buttons: people know them, and guides name them."""

from __future__ import annotations

import asyncio
from typing import Any

from bot.controls import BUTTONS
from bot.form import form_view, retry_view
from jobs.draft import Draft
from tests.factories import an_offer, settings
from tests.harness import labels


def words() -> set[str]:
    """Return the words on all buttons of forms and jobs."""

    async def read() -> set[str]:
        draft = Draft.from_file("main", an_offer(takes_image=True), settings())
        views: Any = [*form_view(draft).children, *retry_view(draft).children]
        return {item.label for item in views if hasattr(item, "label")}

    return asyncio.run(read()) | {label for label, _ in BUTTONS.values()}


def test_the_words_on_buttons_stay_those_that_people_know() -> None:
    pinned = {word for name, word in vars(labels).items() if name.isupper()}
    assert words() == pinned
    assert pinned == {
        "Again",
        "Cancel",
        "Correct it",
        "Delete",
        "Edit",
        "Edit Prompts & Settings",
        "Generate",
        "Keep",
        "Picture",
        "Use…",
    }
