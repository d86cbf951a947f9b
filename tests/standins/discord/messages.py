"""Messages as Discord keeps them: what a request makes of one, and what is shown of it.

Who may do that, and where, is decided in server.py.
"""

from __future__ import annotations

import copy
import mimetypes
import re
import time
from typing import Any

from aiohttp import web

from tests.standins.discord.gateway import (
    Gateway,
)
from tests.standins.discord.people import (
    Channel,
    File,
    Person,
    Reply,
    Stored,
    iso_now,
    snowflake,
)
from tests.standins.discord.rest import (
    Answer,
    DiscordError,
    RestCall,
    RestServer,
)
from tests.standins.discord.schema import (
    COMMAND,
    COMPONENT,
    DIRECT_MESSAGES,
    EDIT,
    ERRORS,
    FILE_SIZE,
    GUILD_MESSAGES,
    LAYOUT,
    LOADING,
    MENTION_EVERYONE,
    MIB,
    SUPPRESS_EMBEDS,
    Form,
    Json,
    Rule,
    check_message,
    numbered,
    pruned,
    references,
)


class MessageServer(RestServer):
    """The messages. The bot and the people in them are the server's."""

    api_url: str
    application_id: int
    bot_user_id: int
    _gateway: Gateway
    _bot: Json
    _people: dict[int, Person]

    def __init__(self, token: str) -> None:
        super().__init__(token)
        self._messages: dict[str, Stored] = {}

    def states(self, message: Json) -> list[Json]:
        """All that a message has shown, oldest first, an ephemeral or deleted one too: items as in
        a channel's `history`."""
        with self._changed:
            return list(self._messages[message["id"]].history)

    def attachment_bytes(self, attachment: Json) -> bytes:
        """The content of an attachment, or of an embed's image or thumbnail. KeyError when it was
        forgotten: the last 100 requests with files are kept, up to 200 MiB."""
        with self._changed:
            return self._bytes[attachment["url"]]

    def forget_file(self, attachment: Json) -> None:
        """From now on its address is answered with 404, as after the end of its message."""
        with self._changed:
            del self._bytes[attachment["url"]]

    def _lend(self, file: File) -> Json:
        """The attachment of a command or of a modal: the bot can load it from its address."""
        upload = self._uploaded(self.application_id, file.name, file.content, "ephemeral-")
        return {**upload, "ephemeral": True}

    def _uploaded(self, place: int, name: str, content: bytes, kind: str = "") -> Json:
        """The attachment that a file becomes, and its bytes kept for _download()."""
        upload = new_upload(self.api_url.removesuffix("/api/v10"), place, name, content, kind)
        self._bytes[upload["url"]] = content
        return upload

    async def _download(self, request: web.Request) -> web.StreamResponse:
        """GET of a file: Discord's CDN, which has a host of its own."""
        with self._changed:
            content = self._bytes.get(str(request.url))
        return web.Response(body=content) if content is not None else web.Response(status=404)

    def _apply(self, call: RestCall, stored: Stored, parse: tuple[str, ...]) -> Answer:
        """GET, PATCH or DELETE of one message."""
        if call.method == "DELETE":
            self._delete(stored)
            return 204, None
        if call.method == "PATCH":
            self._edit(call, stored, call.body, parse)
        return 200, self._shown(stored)

    def _draft(
        self,
        call: RestCall,
        data: Any,
        rule: Rule,
        channel: Channel,
        parse: tuple[str, ...],
        old: Stored | None = None,
    ) -> Stored:
        """Judges the body of a message that is created or edited (`old`); what it becomes.
        `parse`: the mentions that are parsed when the body doesn't say."""
        if channel.deleted or (old and old.deleted):
            gone = 10003 if channel.deleted else 10008
            raise DiscordError(404, gone, ERRORS[gone])
        sizes = [len(content) for _, content in call._uploads.values()]
        if max(sizes, default=0) > FILE_SIZE or sum(sizes) > 25 * MIB:
            raise DiscordError(413, 40005, "Request entity too large", violation=True)
        form = Form()
        rule(form, data, "")
        flags = (data.get("flags") or 0) if isinstance(data, dict) else 0
        if isinstance(data, dict) and data.get("components") is not None:
            LAYOUT(form, data["components"], "components")
        self._judge(call, form)
        draft = Stored({"content": (data.get("content") or "").strip(), "flags": flags}, channel)
        draft.embeds = pruned(data.get("embeds") or [])
        draft.components = pruned(data.get("components") or [])
        if old:
            draft.data = {} if "content" not in data else {"content": draft.data["content"]}
            draft.components = draft.components if "components" in data else old.components
        draft.uploads = self._attach(form, call, data, channel, old)
        mentions = data.get("allowed_mentions")
        check_message(form, draft, mentions or {})
        if old and "embeds" not in data:
            draft.embeds, draft.embedded = old.embeds, old.embedded
        elif not form.errors:
            _show_files(draft)
        content: Any = draft.data.get("content", old.data["content"] if old else "")
        self._judge(call, form)
        if not (content or draft.embeds or draft.components or draft.uploads):
            raise DiscordError(400, 50006, "Cannot send an empty message", violation=True)
        if "content" in draft.data:
            mentions = {"parse": parse} if mentions is None else mentions
            draft.data |= self._mentions(content, channel, mentions)
        return draft

    def _attach(
        self, form: Form, call: RestCall, data: Json, channel: Channel, old: Stored | None
    ) -> list[Json]:
        """The message's files after the request: those kept and the new ones."""
        kept = {upload["id"]: upload for upload in old.uploads} if old else {}
        entries = data.get("attachments")
        if entries is None:
            entries = [{"id": name} for name in (*kept, *call._uploads)]
        uploads = dict(call._uploads)
        result = []
        for index, entry in enumerate(entries):
            described = {"description": entry["description"]} if entry.get("description") else {}
            if str(entry["id"]) in kept:
                result.append({**kept[str(entry["id"])], **described})
            elif int(entry["id"]) in uploads:
                name, content = uploads.pop(int(entry["id"]))
                upload = self._uploaded(channel.id, entry.get("filename") or name, content)
                call._urls.append(upload["url"])
                result.append({**upload, **described})
            else:
                form.error(f"attachments.{index}", "ATTACHMENT_NOT_FOUND", "Data not found")
        form.unknown += [f"files[{number}], not in attachments" for number in uploads]
        if len(result) > 10:
            form.error("attachments", "BASE_TYPE_MAX_LENGTH", "Must be 10 or fewer in length.")
        return result

    def _mentions(self, content: str, channel: Channel, allowed: Json) -> Json:
        """Who is pinged. Mentions in code are text; @everyone needs the bot's permission."""
        text = re.sub(r"```.*?```|`[^`\n]*`", "", content, flags=re.DOTALL)
        parse = allowed.get("parse") or []
        listed = {str(user) for user in allowed.get("users") or []}
        users = {str(person.id): person._user() for person in self._people.values()}
        users[str(self.bot_user_id)] = self._bot
        named = dict.fromkeys(re.findall(r"<@!?(\d+)>", text))
        pinged = [user for user in named if "users" in parse or user in listed]
        permitted = channel.guild and channel.bot_permissions & MENTION_EVERYONE
        everyone = permitted and "everyone" in parse and re.search(r"@(everyone|here)\b", text)
        mentions = {"mentions": [users[user] for user in pinged if user in users]}
        return {**mentions, "mention_roles": [], "mention_everyone": bool(everyone)}

    def _store(self, stored: Stored, audience: Person | None = None) -> Stored:
        """Completes and publishes a new message; with an audience it is ephemeral."""
        message_id, channel_id = str(snowflake()), str(stored.channel.id)
        base = {"id": message_id, "channel_id": channel_id, "author": self._bot, "type": 0}
        base |= {"content": "", "timestamp": iso_now(), "edited_timestamp": None, "flags": 0}
        base |= {"tts": False, "pinned": False, **self._mentions("", stored.channel, {})}
        stored.data = {**base, **stored.data}
        stored.audience = audience
        self._render(stored)
        self._messages[message_id] = stored
        self._publish("create", stored)
        return stored

    def _edit(self, call: RestCall, stored: Stored, data: Any, parse: tuple[str, ...]) -> None:
        draft = self._draft(call, data, EDIT, stored.channel, parse, stored)
        stored.embeds, stored.components = draft.embeds, draft.components
        stored.uploads, stored.embedded = draft.uploads, draft.embedded
        was = stored.data["flags"]
        flags = was & ~LOADING
        if data.get("flags") is not None:  # others are ignored
            flags = flags & ~SUPPRESS_EMBEDS | data["flags"] & SUPPRESS_EMBEDS
        edited = None if was & LOADING else iso_now()
        stored.data.update({**draft.data, "flags": flags, "edited_timestamp": edited})
        self._render(stored)
        self._publish("edit", stored)

    def _render(self, stored: Stored) -> None:
        """Sets embeds, components and attachments as Discord shows them: a file that an embed
        shows is not in `attachments`."""
        embeds = [{"type": "rich", **embed} for embed in copy.deepcopy(stored.embeds)]
        loose = [upload for upload in stored.uploads if upload["id"] not in stored.embedded]
        shown = {"embeds": embeds, "components": numbered(stored.components)}
        stored.data.update({**shown, "attachments": loose})

    def _publish(self, event: str, stored: Stored) -> None:
        """Tells the channel's history and the gateway, unless the message is ephemeral."""
        channel, guild = stored.channel, stored.channel.guild
        entry = {"event": event, "message": copy.deepcopy(stored.data), "time": time.monotonic()}
        stored.history.append(entry)
        if not stored.audience:
            channel.history.append(entry)
        if not stored.audience and (not guild or guild.bot_is_member):
            data = self._shown(stored)
            if event == "delete":
                data = {"id": data["id"], "channel_id": data["channel_id"]}
            elif event == "create" and "nonce" in stored.data:
                data["nonce"] = stored.data["nonce"]
            if guild:
                data["guild_id"] = str(guild.id)
            names = {
                "create": "MESSAGE_CREATE",
                "edit": "MESSAGE_UPDATE",
                "delete": "MESSAGE_DELETE",
            }
            self._gateway.emit(names[event], data, GUILD_MESSAGES if guild else DIRECT_MESSAGES)
        self._changed.notify_all()

    def _shown(self, stored: Stored) -> Json:
        """A message as the bot reads it: without the nonce, lost when it is read again."""
        return {key: value for key, value in stored.data.items() if key != "nonce"}

    def _delete(self, stored: Stored) -> None:
        if not stored.deleted:
            stored.deleted = True
            self._publish("delete", stored)

    def _visible(self, channel: Channel) -> list[Stored]:
        here = [stored for stored in self._messages.values() if stored.channel is channel]
        return [stored for stored in here if not stored.deleted and not stored.audience]

    def _origin(self, reply: Reply) -> Json:
        """The message fields that say which interaction a message answers."""
        guild = reply._channel.guild
        metadata: Json = {"id": str(reply.id), "type": reply._interaction_type}
        metadata["user"] = reply._person._user()
        fields: Json = {"application_id": str(self.application_id)}
        fields |= {"webhook_id": str(self.application_id), "interaction_metadata": metadata}
        if reply._interaction_type == COMPONENT and reply._source:
            metadata["interacted_message_id"] = reply._source.data["id"]
        if reply._interaction_type == COMMAND:
            fields |= {"type": 20, "interaction": {**metadata, "name": reply._name}}
        metadata["authorizing_integration_owners"] = {"0": str(guild.id) if guild else "0"}
        if source := reply._original or reply._source:
            fields |= {"type": 19, "message_reference": self._reference(source)}
        return fields

    def _reference(self, source: Stored) -> Json:
        place = source.channel
        reference = {"type": 0, "message_id": source.data["id"], "channel_id": str(place.id)}
        return {**reference, "guild_id": str(place.guild.id)} if place.guild else reference


def _show_files(draft: Stored) -> None:
    """`attachment://` in an embed becomes that file's address, for good: an edit that leaves the
    embeds alone does not look again, and one that sends the address shows the file twice."""
    files = {upload["filename"]: upload for upload in draft.uploads}
    for holder, key, _ in list(references(draft.embeds)):
        upload = files[holder[key].removeprefix("attachment://")]
        draft.embedded.add(upload["id"])
        proxy = "proxy_icon_url" if key == "icon_url" else "proxy_url"
        holder |= {key: upload["url"], proxy: upload["proxy_url"]}
        if key == "url" and "description" in upload:
            holder["description"] = upload["description"]


def new_upload(host: str, place: int, filename: str, content: bytes, kind: str) -> Json:
    """The attachment that a file becomes; `place` is the id in its address."""
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", filename)  # as Discord does
    upload_id = str(snowflake())
    path = f"{kind}attachments/{place}/{upload_id}/{name}?ex=7fffffff&is=60000000&hm=5eed"
    media = mimetypes.guess_type(name)[0] or "application/octet-stream"
    upload = {"id": upload_id, "filename": name, "size": len(content), "content_type": media}
    return {**upload, **dict.fromkeys(("url", "proxy_url"), f"{host}/{path}")}
