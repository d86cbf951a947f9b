"""What a test plays with: guilds and their channels, people, and what the bot shows to them.

Names with an underscore are shared with the server, whose Condition guards all of this; they are
not for tests.
"""

from __future__ import annotations

import base64
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from tests.standins.discord.options import File as File
from tests.standins.discord.options import fill_options
from tests.standins.discord.schema import (
    ADMINISTRATOR,
    ALL_PERMISSIONS,
    AUTOCOMPLETE,
    BOT_PERMISSIONS,
    BUTTON,
    CHAT_INPUT,
    COMMAND,
    COMPONENT,
    DM_PERMISSIONS,
    FILE_UPLOAD,
    LOADING,
    MEMBER_PERMISSIONS,
    MODAL_SUBMIT,
    ON_MESSAGE,
    STRING_SELECT,
    SUBCOMMANDS,
    TEXT_INPUT,
    USE_APPLICATION_COMMANDS,
    VIEW_CHANNEL,
    Json,
    message_texts,
    numbered,
    walk,
)

if TYPE_CHECKING:
    from tests.standins.discord.server import DiscordStandIn

DISCORD_EPOCH_MS = 1_420_070_400_000

_last_snowflake = 0
_snowflake_lock = threading.Lock()


def snowflake() -> int:
    """A new id that tells the present time, greater than every one before."""
    global _last_snowflake
    with _snowflake_lock:
        now = int(time.time() * 1000 - DISCORD_EPOCH_MS) << 22
        _last_snowflake = max(_last_snowflake + 1, now)
        return _last_snowflake


def iso_now() -> str:
    return datetime.now(timezone.utc).isoformat()


def user_object(user_id: int, username: str, global_name: str | None, **more: Any) -> Json:
    user = {"id": str(user_id), "username": username, "global_name": global_name, "avatar": None}
    return {**user, "discriminator": "0", "public_flags": 0, "primary_guild": None, **more}


def member_object(user: Json, roles: Iterable[int] = ()) -> Json:
    nothing = dict.fromkeys(("nick", "avatar", "premium_since", "communication_disabled_until"))
    member = {
        "user": user,
        "roles": [str(role) for role in roles],
        "joined_at": "2024-01-01T00:00:00+00:00",
    }
    return {**member, **nothing, "deaf": False, "mute": False, "pending": False, "flags": 0}


@dataclass(eq=False)
class Stored:
    """A message: what the API shows of it, and what only Discord knows."""

    data: Json
    channel: Channel
    audience: Person | None = None  # the only one who sees an ephemeral message
    embeds: list[Json] = field(default_factory=list)
    components: list[Json] = field(default_factory=list)
    uploads: list[Json] = field(default_factory=list)  # also those that an embed shows
    embedded: set[str] = field(default_factory=set)  # the ids of these
    deleted: bool = False
    created: float = field(default_factory=time.monotonic)
    history: list[Json] = field(default_factory=list)  # as a channel's, of this message alone


@dataclass(eq=False)
class Role:
    """A role of a guild; who has it may do this in every channel."""

    name: str
    permissions: int = 0
    id: int = field(default_factory=snowflake)

    def _payload(self) -> Json:
        role: Json = {"color": 0, "hoist": False, "mentionable": False, "flags": 0, "position": 1}
        role |= {"id": str(self.id), "name": self.name, "managed": False}
        return {**role, "permissions": str(self.permissions)}


@dataclass(eq=False)
class Guild:
    """A server, with its channels; the bot has a role of its own in it."""

    _standin: DiscordStandIn = field(repr=False)
    name: str
    bot_is_member: bool = True
    id: int = field(default_factory=snowflake)
    _owner_id: int = field(default_factory=snowflake, repr=False)
    _bot_role_id: int = field(default_factory=snowflake, repr=False)
    channels: list[Channel] = field(default_factory=list, repr=False)
    roles: list[Role] = field(default_factory=list, repr=False)

    def add_role(self, name: str, permissions: int = 0) -> Role:
        """A new role, for a person's `roles`; its `id` is what an owner configures."""
        return self._standin._add_role(self, Role(name, permissions))

    def add_channel(self, name: str = "pictures", category: Channel | None = None) -> Channel:
        """A new text channel, in which the bot has its usual permissions."""
        return self._standin._add_channel(Channel(self._standin, name, self, category=category))

    def add_category(self, name: str = "art") -> Channel:
        """A new category, for add_channel()."""
        return self._standin._add_channel(Channel(self._standin, name, self, is_category=True))

    def add_thread(self, channel: Channel, name: str = "a thread") -> Channel:
        """A new public thread in `channel`; its `parent_id` is the channel's id."""
        return self._standin._add_channel(Channel(self._standin, name, self, channel))

    def _payload(self) -> Json:
        everyone = Role("@everyone", MEMBER_PERMISSIONS, self.id)._payload() | {"position": 0}
        bot = Role("bot", BOT_PERMISSIONS, self._bot_role_id)._payload()
        bot |= {"managed": True, "tags": {"bot_id": str(self._standin.bot_user_id)}}
        others = [role._payload() for role in self.roles]
        levels = ("verification_level", "mfa_level", "nsfw_level", "explicit_content_filter")
        guild: Json = {"id": str(self.id), "name": self.name, "owner_id": str(self._owner_id)}
        guild |= {"premium_tier": 0, "preferred_locale": "en-US", "icon": None}
        guild |= {"roles": [everyone, bot, *others], "emojis": [], "stickers": [], "features": []}
        return {**guild, **dict.fromkeys(levels, 0), "default_message_notifications": 0}

    def _create_event(self) -> Json:
        payloads = [channel._payload() for channel in self.channels]
        me = member_object(
            self._standin._bot, (self._bot_role_id,)
        )  # others need a privileged intent
        lists = ("voice_states", "presences", "stage_instances", "guild_scheduled_events")
        return {
            **self._payload(),
            **{key: [] for key in lists},
            "joined_at": iso_now(),
            "large": False,
            "unavailable": False,
            "member_count": len(self._standin._people) + 1,
            "members": [me],
            "channels": [payload for payload in payloads if payload["type"] in (0, 4)],
            "threads": [payload for payload in payloads if payload["type"] == 11],
        }


@dataclass(eq=False)
class Channel:
    """A text channel, a category of those, a public thread (has a `parent_id`) or a DM with the
    bot (has no `guild`).

    `history` is what became visible in it: {"event": "create" | "edit" | "delete",
    "message": a copy, "time": monotonic seconds}; nothing ephemeral.
    """

    _standin: DiscordStandIn = field(repr=False)
    name: str
    guild: Guild | None = None
    _parent: Channel | None = field(default=None, repr=False)
    _recipient: Person | None = field(default=None, repr=False)
    _bot_permissions: int = BOT_PERMISSIONS
    _denied: dict[Person, int] = field(default_factory=dict, repr=False)
    category: Channel | None = field(default=None, repr=False)
    is_category: bool = False
    id: int = field(default_factory=snowflake)
    deleted: bool = False
    history: list[Json] = field(default_factory=list, repr=False)

    @property
    def parent_id(self) -> int | None:
        return self._parent.id if self._parent else None

    @property
    def messages(self) -> list[Json]:
        """The messages everyone here sees, oldest first: not the ephemeral or deleted ones."""
        with self._standin._changed:
            return [stored.data for stored in self._standin._visible(self)]

    @property
    def bot_permissions(self) -> int:
        """The bot's permissions here; a thread has its channel's. Setting it tells the bot."""
        if self._recipient:
            return DM_PERMISSIONS
        return self._parent.bot_permissions if self._parent else self._bot_permissions

    @bot_permissions.setter
    def bot_permissions(self, value: int) -> None:
        with self._standin._changed:
            channel = self._parent or self
            channel._bot_permissions = value
            self._standin._emit_channel("UPDATE", channel)

    def delete(self) -> None:
        """A moderator deletes the channel, with its threads: the bot gets 404 10003 from now on."""
        self._standin._delete_channel(self)

    def _payload(self) -> Json:
        last = next((s.data["id"] for s in reversed(self._standin._visible(self))), None)
        payload: Json = {"id": str(self.id), "type": 1, "last_message_id": last, "flags": 0}
        if self._recipient:
            return {**payload, "recipients": [self._recipient._user()]}
        assert self.guild
        payload |= {"guild_id": str(self.guild.id), "name": self.name, "rate_limit_per_user": 0}
        if self._parent:
            counts = dict.fromkeys(("message_count", "member_count", "total_message_sent"), 1)
            times = dict.fromkeys(("archive_timestamp", "create_timestamp"), iso_now())
            metadata = {"archived": False, "locked": False, "auto_archive_duration": 1440, **times}
            payload |= {"type": 11, "parent_id": str(self.parent_id), "thread_metadata": metadata}
            return {**payload, **counts, "owner_id": str(self.guild._owner_id)}
        allowed = {self._standin.bot_user_id: self.bot_permissions}
        denied = {self._standin.bot_user_id: ALL_PERMISSIONS & ~self.bot_permissions}
        denied |= {person.id: permissions for person, permissions in self._denied.items()}
        payload |= {"type": 0, "position": 0, "parent_id": None, "topic": None, "nsfw": False}
        payload |= {"type": 4} if self.is_category else {}
        payload |= {"parent_id": str(self.category.id)} if self.category else {}
        payload["permission_overwrites"] = [
            {"id": str(who), "type": 1, "allow": str(allowed.get(who, 0)), "deny": str(deny)}
            for who, deny in denied.items()
        ]
        return payload


class Modal(dict[str, Any]):
    """A modal on a person's screen: Discord's modal object, and the interaction that opened it."""

    def __init__(self, data: Json, opened_by: Reply) -> None:
        super().__init__(data, components=numbered(data["components"]))
        self.opened_by = opened_by


@dataclass(eq=False)
class Reply:
    """One interaction, and everything the bot answered to it so far (live).

    `type` is the callback type of the first answer
    (4 message, 5 and 6 deferred, 7 edit, 8 choices, 9 modal), None before it;
    `acknowledged_after` the seconds until then.
    """

    _standin: DiscordStandIn = field(repr=False)
    _person: Person
    _channel: Channel
    _interaction_type: int = field(repr=False)
    _source: Stored | None = field(default=None, repr=False)  # whose component was used
    _name: str = field(default="", repr=False)  # of the command
    _option_type: int = field(default=3, repr=False)
    id: int = field(default_factory=snowflake)
    token: str = field(default="", repr=False)
    type: int | None = None
    acknowledged_after: float | None = None
    modal: Modal | None = field(default=None, repr=False)
    choices: list[Json] = field(default_factory=list, repr=False)
    _original: Stored | None = field(default=None, repr=False)
    _followups: list[Stored] = field(default_factory=list, repr=False)
    _created: float = field(default_factory=time.monotonic, repr=False)
    _delivered: float | None = field(default=None, repr=False)
    _expired: bool = field(default=False, repr=False)

    def __post_init__(self) -> None:
        header = base64.urlsafe_b64encode(f"interaction:{self.id}:".encode()).decode().rstrip("=")
        self.token = header + secrets.token_urlsafe(64)

    @property
    def message(self) -> Json | None:
        """The message answered with or, for types 6 and 7, the one that was used. None: deleted."""
        original = self._original if self.type != 9 else None
        return original.data if original and not original.deleted else None

    @property
    def followups(self) -> list[Json]:
        """The messages made by followups, in order, without the deleted ones."""
        return [stored.data for stored in self._followups if not stored.deleted]

    @property
    def texts(self) -> list[str]:
        """Everything a person can read in the response and the followups."""
        shown = [self.message] if self.message else []
        return [text for message in shown + self.followups for text in message_texts(message)]

    def expire(self) -> None:
        """As if 15 minutes had passed for this interaction's token: from now on the bot can edit
        nothing of the answer, nor add to it (401 50027). Its buttons still work."""
        with self._standin._changed:
            self._expired = True

    def wait(self, seconds: float = 10.0) -> Reply:
        """Until the first answer has arrived; AssertionError if none does."""
        self._standin.wait_for(lambda _: self.type is not None, seconds, f"an answer to {self}")
        return self

    def wait_shown(self, predicate: Callable[[Json], Any], seconds: float = 10.0) -> Json:
        """Until something that the response or a followup has shown fits, whatever it shows by
        now: as it was then."""
        found: list[Json] = []

        def fits(_: object) -> bool:
            stored = [self._original] if self._original else []
            states = [state for each in stored + self._followups for state in each.history]
            found[:] = [s["message"] for s in states if predicate(s["message"])]
            return bool(found)

        self._standin.wait_for(fits, seconds, f"something that fits in answer to {self}")
        return found[0]

    def wait_message(self, predicate: Callable[[Json], Any] = bool, seconds: float = 10.0) -> Json:
        """Until the response, a followup or an edit of one fits; a "thinking" one never does."""
        found: list[Json] = []

        def fits(_: object) -> bool:
            shown = [self.message] if self.message else []
            shown = [m for m in shown + self.followups if not m["flags"] & LOADING]
            found[:] = [message for message in shown if predicate(message)]
            return bool(found)

        self._standin.wait_for(fits, seconds, f"a message that fits in answer to {self}")
        return found[0]


class Person:
    """Someone with a Discord client, member of every guild. What the client forbids is an
    AssertionError here; everything returns at once, and the bot's answer is in the Reply.

    What somebody may do is `permissions` and those of the `roles`, without what deny() takes in a
    channel; all of it can be changed at any time, and the next interaction tells the bot. With
    `accepts_dms` False the bot gets 403 50007 for a DM."""

    def __init__(self, standin: DiscordStandIn, name: str, permissions: int) -> None:
        self._standin = standin
        self.id = snowflake()
        self.name = name
        self.permissions = permissions
        self.roles: list[Role] = []
        self.accepts_dms = True
        self._dm = standin._add_channel(Channel(standin, name, _recipient=self))

    def __repr__(self) -> str:
        return f"<Person {self.name}>"

    @property
    def dms(self) -> list[Json]:
        """The messages in the DM with the bot, oldest first."""
        return self._dm.messages

    def deny(self, channel: Channel, permissions: int) -> None:
        """A moderator takes just these permissions from this person in a channel, and in its
        threads; 0 takes none. Without USE_APPLICATION_COMMANDS there are no commands for this
        person there, but a message's buttons and menus still work."""
        with self._standin._changed:
            place = channel._parent or channel
            place._denied[self] = permissions
            self._standin._emit_channel("UPDATE", place)

    def permissions_in(self, channel: Channel) -> int:
        """What this person may do in a channel of a guild: `member.permissions`."""
        granted = self.permissions
        for role in self._roles_in(channel.guild):
            granted |= role.permissions
        if granted & ADMINISTRATOR:
            return ALL_PERMISSIONS
        return granted & ~(channel._parent or channel)._denied.get(self, 0)

    def say(self, channel: Channel, text: str = "hello", times: int = 1) -> None:
        """Writes into a channel, as often as told."""
        for _ in range(times):
            self.post(channel, text)

    def post(self, channel: Channel, text: str, *files: File, embeds: Iterable[Json] = ()) -> Json:
        """Writes a message with files, and with what Discord shows of its links; the message."""
        with self._standin._changed:
            uploads = [self._standin._uploaded(channel.id, f.name, f.content) for f in files]
            data = {"author": self._user(), "content": text}
            stored = Stored(data, channel, embeds=list(embeds), uploads=uploads)
            return self._standin._store(stored).data

    def delete(self, message: Json) -> None:
        """Deletes a message, as its author or a moderator."""
        with self._standin._changed:
            self._standin._delete(self._seen(message))

    def use_app(self, name: str, message: Json) -> Reply:
        """Apps > `name` on a message."""
        with self._standin._changed:
            stored = self._seen(message)
            command, guild_id = self._find_command(name, stored.channel, ON_MESSAGE)
            target = stored.data["id"]
            data = {"id": command["id"], "name": name, "type": ON_MESSAGE, "target_id": target}
            data |= {"resolved": {"messages": {target: self._standin._shown(stored)}}}
            data |= {"guild_id": str(guild_id)} if guild_id else {}
            reply = Reply(self._standin, self, stored.channel, COMMAND, None, name)
            return self._standin._interact(reply, data)

    def slash(self, command: str, channel: Channel | None = None, /, **options: Any) -> Reply:
        """Uses a command in a channel; no channel: in the DM. A subcommand is named after its
        command: "colour add"; an attachment is a File."""
        return self._use_command(COMMAND, command, channel or self._dm, options)

    def autocomplete(
        self, command: str, channel: Channel | None, option: str, text: str, /, **others: Any
    ) -> list[Json]:
        """Types `text` into an option; the choices that the bot offers: [{"name", "value"}]."""
        values = {**others, option: text}
        reply = self._use_command(AUTOCOMPLETE, command, channel or self._dm, values, option)
        return reply.wait().choices

    def select(self, message: Json, placeholder: str, *choices: str) -> Reply:
        """Chooses in the menu with this placeholder, by the options' labels (or values); a label
        may begin with the placeholder."""
        with self._standin._changed:
            stored = self._seen(message)
            menus = [c for _, c in walk(stored.data["components"]) if c["type"] == STRING_SELECT]
            names = [menu.get("placeholder") for menu in menus]
            assert names.count(placeholder) == 1, f"one menu {placeholder!r} wanted, seen: {names}"
            menu = menus[names.index(placeholder)]
            assert not menu.get("disabled"), f"the menu {placeholder!r} is disabled"
            least, most = menu.get("min_values", 1), menu.get("max_values", 1)
            assert least <= len(choices) <= most, f"{least} to {most} options are to be chosen"
            offered = {option["value"]: option["value"] for option in menu["options"]}
            labels = {o["label"]: o["value"] for o in reversed(menu["options"])}
            labels |= {k.removeprefix(f"{placeholder}: "): v for k, v in labels.items()}
            wrong = [choice for choice in choices if choice not in {**offered, **labels}]
            assert not wrong, f"{placeholder!r} doesn't offer {wrong} but {[*labels][::-1]}"
            values = [{**offered, **labels}[choice] for choice in choices]
            return self._use_component(stored, menu, {"values": values})

    def press(self, message: Json, label: str) -> Reply:
        """Presses a button: by its label, the label without its emoji, or the label's beginning."""
        with self._standin._changed:
            stored = self._seen(message)
            buttons = [c for _, c in walk(stored.data["components"]) if c["type"] == BUTTON]
            labels = [b.get("label") or b.get("emoji", {}).get("name", "") for b in buttons]
            plain = [re.sub(r"^\W+", "", text) for text in labels]
            fits = [i for i, text in enumerate(labels) if text == label]
            fits = fits or [i for i, text in enumerate(plain) if text == label]
            fits = fits or [i for i, t in enumerate(labels) if t.startswith(label)]
            fits = fits or [i for i, t in enumerate(plain) if t.lower().startswith(label.lower())]
            assert len(fits) == 1, f"one button {label!r} wanted, seen: {labels}"
            button = buttons[fits[0]]
            assert not button.get("disabled"), f"the button {label!r} is disabled"
            assert button["style"] != 5, f"the button {label!r} opens {button.get('url')}"
            return self._use_component(stored, button, {})

    def submit(self, modal: Json, /, *files: File, **values: str) -> Reply:
        """Submits a modal; texts by the inputs' custom_ids, those not named keep what is there.
        The files go into its file field."""
        assert isinstance(modal, Modal), "only a modal that the bot has shown can be submitted"
        opener = modal.opened_by
        assert opener._person is self, f"{self} doesn't see the modal of {opener._person}"
        parts = [component for _, component in walk(modal["components"])]
        inputs = {part["custom_id"]: part for part in parts if part["type"] == TEXT_INPUT}
        assert values.keys() <= inputs.keys(), f"inputs are {[*inputs]}, not {[*values]}"
        filled = {key: values.get(key, item.get("value") or "") for key, item in inputs.items()}
        for key, item in inputs.items():
            text = filled[key]
            assert text or not item.get("required", True), f"{key} is required"
            least, most = item.get("min_length") or 0, item.get("max_length") or 4000
            assert not text or least <= len(text) <= most, f"{key}: {least} to {most} characters"
            assert item["style"] == 2 or "\n" not in text, f"{key} is a single line"

        uploads = {u["id"]: u for u in map(self._standin._lend, files)}
        fields = [part for part in parts if part["type"] == FILE_UPLOAD]
        assert fields or not files, "there is no field for files"
        for item in fields:
            least = item.get("min_values", 1) if item.get("required", True) else 0
            assert least <= len(files) <= item.get("max_values", 1), "so many files are not taken"

        def mirror(part: Json) -> Json:
            shape: Json = {key: part[key] for key in ("type", "id", "custom_id") if key in part}
            if part["type"] == TEXT_INPUT:
                shape["value"] = filled[part["custom_id"]]
            elif part["type"] == FILE_UPLOAD:
                shape["values"] = [*uploads]
            elif "component" in part:
                shape["component"] = mirror(part["component"])
            elif "components" in part:
                shape["components"] = [mirror(child) for child in part["components"]]
            return shape

        data = {"custom_id": modal["custom_id"]}
        data |= {"components": [mirror(part) for part in modal["components"]]}
        data |= {"resolved": {"attachments": uploads}} if uploads else {}
        reply = Reply(self._standin, self, opener._channel, MODAL_SUBMIT, opener._source)
        return self._standin._interact(reply, data)

    def _seen(self, message: Json) -> Stored:
        stored = self._standin._messages[message["id"]]
        assert not stored.deleted, f"message {message['id']} is gone"
        assert not stored.channel.deleted, f"channel {stored.channel.name} is gone"
        owner = stored.audience or stored.channel._recipient
        assert owner in (None, self), f"{self} doesn't see the message to {owner}"
        hidden = stored.channel.guild and not self.permissions_in(stored.channel) & VIEW_CHANNEL
        assert not hidden, f"{self} doesn't see {stored.channel.name}"
        return stored

    def _use_component(self, stored: Stored, component: Json, more: Json) -> Reply:
        data = {"component_type": component["type"], "custom_id": component["custom_id"]}
        data |= {"id": component["id"], **more}
        reply = Reply(self._standin, self, stored.channel, COMPONENT, stored)
        return self._standin._interact(reply, data)

    def _use_command(
        self, kind: int, name: str, channel: Channel, values: Json, focused: str = ""
    ) -> Reply:
        with self._standin._changed:
            top, *below = name.split()
            command, guild_id = self._find_command(top, channel)
            chain = [command]
            for word in below:
                offered = {o["name"]: o for o in chain[-1]["options"] if o["type"] in SUBCOMMANDS}
                assert word in offered, f"/{name} isn't offered; there are {[*offered]}"
                chain.append(offered[word])
            options = fill_options(chain[-1], values, focused)
            types = {option["name"]: option["type"] for option in options}
            resolved = self._upload(options)
            for part in reversed(chain[1:]):
                options = [{"name": part["name"], "type": part["type"], "options": options}]
            data = {"id": command["id"], "name": top, "type": 1, "options": options, **resolved}
            data |= {"guild_id": str(guild_id)} if guild_id else {}
            reply = Reply(self._standin, self, channel, kind, None, name, types.get(focused, 3))
            return self._standin._interact(reply, data)

    def _upload(self, options: list[Json]) -> Json:
        """Puts the ids of the attachments in the place of the files; their `resolved` data."""
        attached = {}
        for option in options:
            if isinstance(option["value"], File):
                upload = self._standin._lend(option["value"])
                attached[upload["id"]] = upload
                option["value"] = upload["id"]
        return {"resolved": {"attachments": attached}} if attached else {}

    def _find_command(
        self, name: str, channel: Channel, kind: int = CHAT_INPUT
    ) -> tuple[Json, int | None]:
        """The command and its guild's id, or None for a global one; as the client's list shows."""
        guild, has = channel.guild, self.permissions_in(channel)
        usable = VIEW_CHANNEL | USE_APPLICATION_COMMANDS
        assert not guild or has & usable == usable, f"{self} may not use commands here"
        scopes: list[int | None] = [guild.id, None] if guild and guild.bot_is_member else []
        for scope in scopes if guild else [None]:
            for command in self._standin.commands.get(scope, []):
                needed = int(command["default_member_permissions"] or 0)
                allowed = not guild or has & needed == needed
                contexts = command["contexts"] or [0, 1] if command["dm_permission"] else [0]
                is_named = (command["type"], command["name"]) == (kind, name)
                if is_named and allowed and (0 if guild else 1) in contexts:
                    return command, scope
        known = {scope: [c["name"] for c in cs] for scope, cs in self._standin.commands.items()}
        raise AssertionError(f"/{name} isn't offered to {self} in {channel.name}; all: {known}")

    def _roles_in(self, guild: Guild | None) -> list[Role]:
        return [role for role in self.roles if guild and role in guild.roles]

    def _member(self, guild: Guild) -> Json:
        roles = [role.id for role in self._roles_in(guild)]
        return member_object(self._user(), roles)

    def _user(self) -> Json:
        return user_object(
            self.id, re.sub(r"[^a-z0-9_.]", "", self.name.lower()) or "someone", self.name
        )
