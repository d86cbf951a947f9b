"""/blocked: the words that a server's moderators do not allow in prompts.

The commands that edit the list, and a cache of each server's list. jobs/terms.py parses a term and
finds it in a prompt. Runs on the event loop; the database is read in a thread.
"""

from __future__ import annotations

import asyncio
import io
import logging
import threading
from collections.abc import Iterable, Sequence
from itertools import islice

import discord
from discord import app_commands

from bot.controls import Interaction
from bot.messages import DISCORD_ERRORS, TRY_SECONDS
from bot.permissions import check_manager
from jobs.names import MENU_LIMIT
from jobs.terms import (
    FILE_LIMIT,
    MOST_TERMS,
    Matcher,
    Term,
    TermError,
    each_once,
    parse_list,
    parse_term,
    parse_terms,
)
from store import Store, StoreError
from text import UserError, escape, in_lines, quote, truncate

log = logging.getLogger(__name__)

LISTED_SHOWN = 100  # terms in a message; more come as a file
LISTED_LIMIT = 1500  # characters of the terms in a message; more come as a file
NAMED_SHOWN = 10  # terms that a sentence names
NAMED_LIMIT = 60  # characters of each of them
REFUSED_SHOWN = 10  # lines of a file that were not accepted


class BlockedPrompt(UserError):
    """A prompt with words that its server's moderators block; the sentence has them as spoilers."""

    def __init__(self, terms: tuple[str, ...]) -> None:
        super().__init__(
            f"This server's moderators do not allow {named(terms)} in a prompt (tap it to read it)."
            " Nothing was queued: change the prompt and press Generate."
        )


class BlockedWords:
    """The blocked terms of each server, cached. For any thread; blocks, and raises StoreError."""

    def __init__(self, store: Store) -> None:
        self._store = store
        # By server: a Matcher, and the terms as they were typed.
        self._cache: dict[str, tuple[Matcher, list[str]]] = {}
        self._lock = threading.Lock()

    def found(self, guild_id: str, prompt: str) -> tuple[str, ...]:
        """Return the terms that a prompt has, as they were typed."""
        return self._of(guild_id)[0].found(prompt)

    def add(self, guild_id: str, terms: Iterable[Term], user_id: str) -> tuple[Term, ...]:
        """Add terms, and return the new ones. Raises TermError if there would be too many."""
        with self._lock:
            before = {parse_term(term.typed).key for term in self._store.blocked(guild_id)}
            new = tuple(term for term in terms if term.key not in before)
            if len(before) + len(new) > MOST_TERMS:
                raise TermError(f"A server may have {MOST_TERMS:,} terms, and has {len(before):,}.")
            self._store.add_blocked(guild_id, new, user_id)
            self._cache.pop(guild_id, None)
        return new

    def remove(self, guild_id: str, term: Term) -> bool:
        """Remove a term, and return whether there was one."""
        with self._lock:
            # An older version may have stored it under another key, or twice.
            same = [
                other.key
                for other in self._store.blocked(guild_id)
                if parse_term(other.typed).key == term.key
            ]
            for key in same:
                self._store.remove_blocked(guild_id, key)
            self._cache.pop(guild_id, None)
        return bool(same)

    def terms(self, guild_id: str) -> list[str]:
        """Return all terms of a server as they were typed, in alphabetical order."""
        return self._of(guild_id)[1]

    def with_part(self, guild_id: str, part: str, limit: int) -> list[str]:
        """Return the first terms that have this part."""
        part = part.lower()
        return list(islice((t for t in self.terms(guild_id) if part in t.lower()), limit))

    def _of(self, guild_id: str) -> tuple[Matcher, list[str]]:
        """Return the cache's entry, read from the database if there is none: autocomplete asks at
        each letter."""
        with self._lock:
            if guild_id not in self._cache:
                typed = [term.typed for term in self._store.blocked(guild_id)]
                # The keys of an older version's rows were folded in another way.
                self._cache[guild_id] = Matcher(map(parse_term, typed)), typed
            return self._cache[guild_id]


blocked = app_commands.Group(
    name="blocked",
    description="Words that prompts may not have in this server",
    default_permissions=discord.Permissions(manage_guild=True),
)


@blocked.command(name="add", description="Block a word, or a list of them from a file")
@app_commands.describe(
    term="A word, or more with commas between; word* also blocks longer words that begin so",
    file="A text file with one term a line",
)
async def add_terms(
    interaction: Interaction, term: str | None = None, file: discord.Attachment | None = None
) -> None:
    """Add a term or a file of them, and say which lines were not accepted."""
    guild_id = check_manager(interaction)
    if term is None and file is None:
        raise UserError("Give a term, or attach a text file with one a line.")
    terms = parse_terms(term) if term is not None else ()
    await interaction.response.defer(ephemeral=True)
    refused: tuple[tuple[int, str], ...] = ()
    if file is not None:
        listed = await asyncio.to_thread(parse_list, await content_of(file))
        terms, refused = (*terms, *listed.terms), listed.refused
    terms = each_once(terms)
    words = words_of(interaction)
    new = await asyncio.to_thread(words.add, guild_id, terms, str(interaction.user.id))
    lines = [added_sentence(new, [term for term in terms if term not in new])]
    lines += [f"Line {number}: {sentence}" for number, sentence in refused[:REFUSED_SHOWN]]
    if len(refused) > REFUSED_SHOWN:
        lines.append(f"and {len(refused) - REFUSED_SHOWN:,} more lines that were not taken.")
    await interaction.followup.send(in_lines(lines) or "", ephemeral=True)


def added_sentence(new: Sequence[Term], known: Sequence[Term]) -> str:
    """Return which terms are blocked from now on, and which were before."""
    count = f"{len(new):,} terms: " if len(new) > 1 else ""
    added = f"Added {count}{named([term.typed for term in new])}" if new else "Nothing was added"
    if not known:
        return f"{added}."
    which = f"{len(known):,} are" if len(known) > 1 else f"{named([known[0].typed])} is"
    return f"{added}{'.' if new else ':'} {which} blocked already."


async def content_of(file: discord.Attachment) -> bytes:
    """Return the bytes of an attached list. Raises UserError if it is too large, or cannot be
    downloaded from Discord."""
    if file.size > FILE_LIMIT:
        raise UserError(f"The file is larger than {FILE_LIMIT // 1024} KiB.")
    try:
        return await asyncio.wait_for(file.read(), TRY_SECONDS)
    except DISCORD_ERRORS as error:
        log.warning("an attached list could not be read: %s", error)
        raise UserError("Discord did not hand out the file: please attach it once more.") from None


@blocked.command(name="remove", description="Allow a word again")
@app_commands.describe(term="As it is in the list")
async def remove_term(interaction: Interaction, term: str) -> None:
    """Remove a term from the list."""
    guild_id = check_manager(interaction)
    parsed = parse_term(term)
    await interaction.response.defer(ephemeral=True)
    if not await asyncio.to_thread(words_of(interaction).remove, guild_id, parsed):
        raise UserError(f"{quote(term)} is not blocked here. /blocked list shows what is.")
    await interaction.followup.send(f"{quote(term)} is allowed again.", ephemeral=True)


@remove_term.autocomplete("term")
async def complete_term(interaction: Interaction, current: str) -> list[app_commands.Choice[str]]:
    """Suggest terms of the list."""
    if not interaction.permissions.manage_guild:
        return []
    try:
        near = await asyncio.to_thread(
            words_of(interaction).with_part, str(interaction.guild_id), current, MENU_LIMIT
        )
    except StoreError as error:
        log.error("%s", error)
        return []
    return [app_commands.Choice(name=term, value=term) for term in near]


@blocked.command(name="list", description="Show the words that are blocked here")
async def list_terms(interaction: Interaction) -> None:
    """Show the list, for the moderator's eyes alone."""
    guild_id = check_manager(interaction)
    await interaction.response.defer(ephemeral=True)
    terms = await asyncio.to_thread(words_of(interaction).terms, guild_id)
    text = spoilers(terms[:LISTED_SHOWN])
    if len(terms) <= LISTED_SHOWN and len(text) <= LISTED_LIMIT:
        text = text or "Nothing is blocked here. /blocked add blocks a word."
        await interaction.followup.send(text, ephemeral=True)
        return
    file = discord.File(io.BytesIO("\n".join(terms).encode()), "blocked.txt")
    text = f"{len(terms):,} terms are blocked here."
    await interaction.followup.send(text, file=file, ephemeral=True)


def words_of(interaction: Interaction) -> BlockedWords:
    """Return the blocked words of the bot's context."""
    words: BlockedWords = interaction.client.context.words
    return words


def named(terms: Sequence[str]) -> str:
    """Return the first of some terms as spoilers, and how many more there are."""
    shown = spoilers([truncate(term, NAMED_LIMIT) for term in terms[:NAMED_SHOWN]])
    more = f" and {len(terms) - NAMED_SHOWN:,} more" if len(terms) > NAMED_SHOWN else ""
    return shown + more


def spoilers(terms: list[str] | tuple[str, ...]) -> str:
    """Return terms as spoilers, each readable once it is clicked."""
    return ", ".join(f"||{escape(term)}||" for term in terms)
