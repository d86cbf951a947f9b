"""Generate without Discord: when a draft can be changed again."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from bot.blocked import BlockedPrompt
from bot.controls import ControlId
from bot.gen import generate
from jobs.draft import Draft, Stage
from tests.factories import a_catalog, an_offer, settings


def test_a_refused_prompt_can_be_corrected_as_soon_as_the_refusal_is_seen() -> None:
    offer = an_offer(params=frozenset())
    draft = Draft.from_file("flux", offer, settings())
    draft.change(positive_prompt="an otter")
    seen: list[object] = []

    async def send(*_: object, **__: object) -> None:
        seen.append(draft.stage)

    async def refuse(*_: object) -> None:
        seen.append(draft.stage)
        raise BlockedPrompt(("otter",))

    async def defer() -> None:
        pass

    async def keep(*what: object) -> None:
        seen.append(what[-1] if isinstance(what[-1], str) else "shown")

    interaction: Any = SimpleNamespace(
        user=SimpleNamespace(id=3),
        guild_id=1,
        channel_id=4,
        response=SimpleNamespace(defer=defer),
        followup=SimpleNamespace(send=send),
    )
    context: Any = SimpleNamespace(
        forms=SimpleNamespace(draft=lambda *_: draft, keep_typed=keep, show_after_refusal=keep),
        catalog=a_catalog({"flux": offer}),
        check_place=lambda _: None,
        settings=settings(),
        accept=refuse,
    )
    asyncio.run(generate(context, interaction, ControlId("form", "generate", "key")))
    assert seen == [Stage.SENDING, draft.saved(), Stage.OPEN, "shown"]
