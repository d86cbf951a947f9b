"""Pictures of people in Discord: where they are, how they are read, and the window for a file.

Owns no form. Runs on the event loop; what blocks goes to a thread.
"""

from __future__ import annotations

import asyncio
import mimetypes
from collections.abc import Iterator
from typing import Any, NamedTuple

import aiohttp
import discord

from bot.controls import ControlId, Interaction
from comfyui.images import BYTES_MAX, Image, kind_of, too_large
from store import Store
from text import UserError

READ_SECONDS = 60.0
GONE = "Discord no longer has that picture: send it again."
NOT_READ = "Discord did not hand that picture over. Please try again in a minute."


class Source(NamedTuple):
    """A file in Discord. `size` is in bytes, 0 if Discord does not say."""

    name: str
    url: str
    size: int


def source_of(attachment: discord.Attachment) -> Source:
    """Return where an attachment can be read."""
    return Source(attachment.filename, attachment.url, attachment.size)


def pictures_in(message: discord.Message) -> list[Source]:
    """Return the pictures that a message shows, also of messages that it forwards."""
    found = list(_shown_by(message))
    for forwarded in message.message_snapshots:
        found += _shown_by(forwarded)
    return found


def _shown_by(message: discord.Message | discord.MessageSnapshot) -> Iterator[Source]:
    for attachment in message.attachments:
        kind = attachment.content_type or mimetypes.guess_type(attachment.filename)[0]
        if kind and kind.startswith("image/"):
            yield source_of(attachment)
    for number, embed in enumerate(message.embeds, 1):
        shown = embed.image or (embed.thumbnail if embed.type == "image" else None)
        # Discord's copy of it: the address itself may lead anywhere.
        if shown and shown.proxy_url:
            yield Source(f"picture of embed {number}", shown.proxy_url, 0)


async def read(interaction: Interaction, store: Store, source: Source) -> tuple[str, Image]:
    """Read and keep a picture, and return its hash and the picture. Raises UserError with what to
    do if it cannot be used."""
    if source.size > BYTES_MAX:
        raise UserError(too_large(source.size))
    loading = interaction.client.http.get_from_cdn(source.url)
    try:
        data = await asyncio.wait_for(loading, READ_SECONDS)
    except (discord.NotFound, discord.Forbidden):
        raise UserError(GONE) from None
    except (discord.HTTPException, aiohttp.ClientError, asyncio.TimeoutError):
        raise UserError(NOT_READ) from None
    return await asyncio.to_thread(_keep, store, data)


def _keep(store: Store, data: bytes) -> tuple[str, Image]:
    image = kind_of(data)
    if isinstance(image, str):
        raise UserError(image)
    return store.keep_picture(image.data), image


def kept(store: Store, name: str) -> Image | None:
    """Return the picture with this hash; None if it is not kept any more. Blocks."""
    data = store.picture(name)
    image = None if data is None else kind_of(data)
    return image if isinstance(image, Image) else None


class PictureModal(discord.ui.Modal):
    """The window with a field for one file. It is only a description, as bot/modal.py's."""

    def __init__(self, key: str) -> None:
        super().__init__(title="Picture", custom_id=str(ControlId("modal", "picture", key)))
        limit = f"A PNG, JPEG, WebP or GIF picture of at most {BYTES_MAX // 2**20} MB"
        field: discord.ui.FileUpload[Any] = discord.ui.FileUpload(custom_id="image")
        self.add_item(discord.ui.Label(text="Picture", description=limit, component=field))
        self.stop()  # keeps discord.py from storing it

    @staticmethod
    def file(interaction: Interaction) -> Source:
        """Return the file that was sent with the window."""
        data: Any = interaction.data
        sent = (data.get("resolved") or {}).get("attachments") or {}
        for file in sent.values():
            return Source(str(file["filename"]), str(file["url"]), int(file["size"]))
        raise UserError("There was no file in the window. Please press Picture again.")
