"""Permission checks for commands and buttons.

Owns the refusals that depend on the channel, on what Discord grants the person or the bot there,
and on whose job it is. Runs on the event loop and waits for nothing.
"""

from __future__ import annotations

import discord

from bot.controls import Interaction
from settings import Settings
from text import UserError

NO_COMMANDS = (
    "This button is for those who may use commands in this channel. The server's admins can change"
    " that."
)


def check_place(settings: Settings, interaction: Interaction) -> None:
    """Raise UserError outside of the allowed channels, the channels of allowed categories and
    their threads, without an allowed role, and for a person who may not use commands there:
    Discord leaves them the buttons."""
    command = interaction.command
    used = f"/{command.name}" if command else "This button"
    if isinstance(command, discord.app_commands.ContextMenu):
        used = f"“{command.name}”"
    if interaction.guild_id is None:
        raise UserError(f"{used} works in a server's channel, not in direct messages.")
    channel = interaction.channel
    parent = channel.parent if isinstance(channel, discord.Thread) else channel
    places = {interaction.channel_id, getattr(channel, "parent_id", None)}
    if settings.channel_ids.isdisjoint(places | {getattr(parent, "category_id", None)}):
        allowed = map(interaction.client.get_channel, sorted(settings.channel_ids))
        here = [
            f"<#{each.id}>"
            for place in allowed
            if place is not None and getattr(place, "guild", None) == interaction.guild
            for each in getattr(place, "text_channels", [place])  # of a category
        ]
        advice = f"use {', '.join(here[:5])}" if here else "ask the bot's owner"
        raise UserError(f"{used} is not available in this channel. Please {advice}.")
    if settings.role_ids and not _has_role(settings, interaction):
        what = used if command else "this button"
        raise UserError(f"You need a certain role to use {what} here. Please ask a moderator.")
    if not interaction.permissions.use_application_commands:
        raise UserError(NO_COMMANDS)


def _has_role(settings: Settings, interaction: Interaction) -> bool:
    """Return whether the person has one of the owner's roles. Moderators, and members with the
    Manage Server permission, need none, as with Discord's own permissions of commands."""
    granted = interaction.permissions
    if granted.manage_guild or granted.manage_messages:
        return True
    roles = {role.id for role in getattr(interaction.user, "roles", ())}
    return not settings.role_ids.isdisjoint(roles)


def cannot_post(interaction: Interaction) -> str:
    """Return a sentence about the permissions that the bot lacks to post there; empty if it lacks
    none."""
    granted = interaction.app_permissions
    is_thread = isinstance(interaction.channel, discord.Thread)
    needed = {
        "View Channel": granted.view_channel,
        "Send Messages in Threads" if is_thread else "Send Messages": (
            granted.send_messages_in_threads if is_thread else granted.send_messages
        ),
        "Embed Links": granted.embed_links,
        "Attach Files": granted.attach_files,
    }
    lacking = ", ".join(name for name, is_granted in needed.items() if not is_granted)
    if not lacking or granted.administrator:
        return ""
    return (
        f"I may not post pictures in this channel: ask a moderator to allow me {lacking} here."
        " Until then your picture comes as a direct message."
    )


def check_manager(interaction: Interaction) -> str:
    """Return the id of the server. Raises UserError without the Manage Server permission, which
    Discord does not ask for where a server's settings show the command to others."""
    if interaction.guild_id is None or not interaction.permissions.manage_guild:
        raise UserError("Only members with the Manage Server permission can do that.")
    return str(interaction.guild_id)


def check_may_change(interaction: Interaction, asker_id: str, guild_id: object) -> None:
    """Raise UserError except for the person who asked for the job and that server's moderators."""
    is_own = asker_id == str(interaction.user.id)
    if not is_own and not is_moderator(interaction, guild_id):
        raise UserError("Only the person who asked for it and moderators can do that.")


def is_moderator(interaction: Interaction, guild_id: object) -> bool:
    """Return whether the person moderates this server, and so may change other people's jobs."""
    is_here = str(guild_id) == str(interaction.guild_id)
    return is_here and interaction.permissions.manage_messages
