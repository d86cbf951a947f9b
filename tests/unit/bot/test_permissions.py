"""Permission checks: where the bot may post, and who may change a job."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import discord
import pytest

from bot.permissions import cannot_post, check_may_change
from text import UserError


def asked(channel: object = None, **granted: bool) -> Any:
    """Return an interaction where the bot has these permissions."""
    return SimpleNamespace(app_permissions=discord.Permissions(**granted), channel=channel)


IN_CHANNEL = {"view_channel": True, "embed_links": True, "attach_files": True}


@pytest.mark.parametrize(
    ("changes", "lacking"),
    [
        ({}, "Send Messages"),
        ({"send_messages": True}, ""),
        ({"send_messages": True, "attach_files": False}, "Attach Files"),
        (
            {"send_messages": True, "embed_links": False, "attach_files": False},
            "Embed Links, Attach Files",
        ),
        ({"send_messages": True, "view_channel": False}, "View Channel"),
        ({"administrator": True, "view_channel": False}, ""),
    ],
)
def test_what_the_bot_lacks_to_post_is_named(changes: dict[str, bool], lacking: str) -> None:
    sentence = cannot_post(asked(**{**IN_CHANNEL, **changes}))
    assert sentence == (
        f"I may not post pictures in this channel: ask a moderator to allow me {lacking} here."
        " Until then your picture comes as a direct message."
        if lacking
        else ""
    )


def test_in_a_thread_another_permission_counts() -> None:
    thread = discord.Thread.__new__(discord.Thread)
    assert "Send Messages in Threads here" in cannot_post(
        asked(thread, send_messages=True, **IN_CHANNEL)
    )
    assert cannot_post(asked(thread, send_messages_in_threads=True, **IN_CHANNEL)) == ""


def test_a_moderator_may_change_what_is_of_the_same_server_alone() -> None:
    moderator, member = (
        SimpleNamespace(
            user=SimpleNamespace(id=3),
            guild_id=1,
            permissions=discord.Permissions(manage_messages=is_one),
        )
        for is_one in (True, False)
    )
    check_may_change(member, "3", 2)  # one's own
    check_may_change(moderator, "10", "1")
    for person, guild_id in ((moderator, 2), (member, 1)):
        with pytest.raises(UserError):
            check_may_change(person, "10", str(guild_id))
