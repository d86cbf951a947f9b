"""A stand-in for Discord on the loopback interface: the gateway's WebSocket and the REST API.

The real discord.py connects to it unmodified (`Route.BASE` and `DEFAULT_GATEWAY` point here), and
a test plays the people: `Person.slash()`, `press()`, `select()`, `submit()`. All requests are
judged by Discord's published schema and limits: what the real one would refuse is refused here
with the same status and code, and is noted in `violations`. Faults are made on demand.

Source of every limit, code and shape: https://discord.com/developers/docs (API v10). What a bot of
this project has no use for (polls, stickers, reactions, voice, ...) is answered 404 and noted.

The server runs in a thread of its own; all public methods are for other threads. State is guarded
by one Condition, which is notified after every request and gateway event: nothing here sleeps.
"""

from __future__ import annotations

import asyncio
import base64
import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from aiohttp import web

from tests.standins.discord.gateway import (
    Gateway,
)
from tests.standins.discord.messages import MessageServer
from tests.standins.discord.people import (
    Channel,
    Guild,
    Modal,
    Person,
    Reply,
    Role,
    Stored,
    member_object,
    snowflake,
    user_object,
)
from tests.standins.discord.rest import (
    Answer,
    DiscordError,
    RestCall,
    route,
)
from tests.standins.discord.schema import (
    ANSWER,
    ATTACH_FILES,
    BOT_PERMISSIONS,
    CALLBACKS,
    COMMANDS,
    CREATE,
    DEFERRAL,
    EMBED_LINKS,
    EPHEMERAL,
    FILE_SIZE,
    GUILDS,
    LOADING,
    MANAGE_GUILD,
    MANAGE_MESSAGES,
    MEMBER_PERMISSIONS,
    MIB,
    MODAL,
    NONCE,
    OPEN_DM,
    PAGE_SIZE,
    READ_MESSAGE_HISTORY,
    SEND_MESSAGES,
    SEND_MESSAGES_IN_THREADS,
    VIEW_CHANNEL,
    Form,
    Json,
    Rule,
    callback_of_type,
    check_commands,
    check_components,
    choices_of_type,
    pruned,
)


class DiscordStandIn(MessageServer):
    """Discord for one application. `with DiscordStandIn() as discord: ...`, or start() and stop().

    To set: `rate_limits` (5 messages and 5 edits per 5 s and channel, or interaction's token),
    `answer_within` (3 s for the first answer), `token_lifetime` (15 min for an interaction's
    token), `nonce_memory` (how long a nonce is recognised). To read: `violations`; `requests`;
    `commands` (by guild id; None: global) and `syncs` (how often they were PUT); `rate_limited`
    (answers 429); `used_up` (a limit was reached, after which discord.py itself waits: method and
    path); `connected`, `identifies`, `resumes`, `refusals` (gateway).
    """

    def __init__(self, *, token: str | None = None) -> None:
        self.application_id = 1_150_000_000_000_000_001
        self.bot_user_id = self.application_id  # the same for every application since 2016
        id_part = base64.b64encode(str(self.bot_user_id).encode()).decode().rstrip("=")
        super().__init__(token or f"{id_part}.Gq3xTz.{secrets.token_urlsafe(29)[:38]}")
        self.api_url = ""
        self.gateway_url = ""
        self.answer_within = 3.0
        self.token_lifetime = 900.0
        self.nonce_memory = 300.0

        self.commands: dict[int | None, list[Json]] = {}
        self.syncs = 0

        self._thread: threading.Thread | None = None
        self._closing = asyncio.Event()
        self._gateway = Gateway(self)
        self._bot = user_object(self.bot_user_id, "comfygen", None, bot=True)
        self._guilds: dict[int, Guild] = {}
        self._channels: dict[int, Channel] = {}
        self._people: dict[int, Person] = {}
        self._replies: dict[str, Reply] = {}  # by token
        self.guild = self.add_guild("Test server")
        self.guild.add_channel("general")

    # -------------------------------------------------------------------------- start and stop

    def start(self) -> DiscordStandIn:
        """Starts the server on a free port of 127.0.0.1; sets `api_url` and `gateway_url`."""
        started: Future[None] = Future()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(started)), name="discord-standin", daemon=True
        )
        self._thread.start()
        started.result(10)
        return self

    def stop(self) -> None:
        """Aborts all connections and ends the thread. What was recorded stays readable."""
        if self._thread and self._loop:
            self._loop.call_soon_threadsafe(self._closing.set)
            self._thread.join(10)
            self._thread = None

    def __enter__(self) -> DiscordStandIn:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    async def _serve(self, started: Future[None]) -> None:
        app = web.Application(client_max_size=1024 * MIB)
        app.router.add_get("/gateway", self._gateway.accept)
        app.router.add_route("*", "/api/v10{path:/.*}", self._rest)
        app.router.add_get("/{kind:(ephemeral-)?attachments}/{path:.*}", self._download)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        try:
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
        except BaseException as error:
            started.set_exception(error)
            raise
        host = f"127.0.0.1:{runner.addresses[0][1]}"
        self.api_url, self.gateway_url = f"http://{host}/api/v10", f"ws://{host}/gateway"
        self._loop = asyncio.get_running_loop()
        started.set_result(None)
        await self._closing.wait()
        self._hang_over.set()
        self._gateway.abort()
        await runner.cleanup()

    # ------------------------------------------------------------------------------- the world

    def add_guild(self, name: str = "Another server", *, bot_is_member: bool = True) -> Guild:
        """A new server, without channels."""
        with self._changed:
            guild = Guild(self, name, bot_is_member)
            self._guilds[guild.id] = guild
            if bot_is_member:
                self._gateway.emit("GUILD_CREATE", guild._create_event(), GUILDS)
            return guild

    def person(self, name: str = "mira", *, permissions: int = MEMBER_PERMISSIONS) -> Person:
        """A new person, with these permissions in every channel of every guild."""
        with self._changed:
            person = Person(self, name, permissions)
            self._people[person.id] = person
            return person

    def moderator(self, name: str = "mod") -> Person:
        """A new person who may manage messages."""
        return self.person(name, permissions=MEMBER_PERMISSIONS | MANAGE_MESSAGES)

    def manager(self, name: str = "boss") -> Person:
        """A new person who may manage the server."""
        return self.person(name, permissions=MEMBER_PERMISSIONS | MANAGE_GUILD)

    # --------------------------------------------------------------------------------- waiting

    @property
    def connected(self) -> bool:
        """Whether a bot is identified (or resumed) on the gateway now."""
        with self._changed:
            return self._gateway.connected

    @property
    def identifies(self) -> int:
        """How often a bot began a session."""
        return self._gateway.identifies

    @property
    def refusals(self) -> int:
        """How often a bot was refused at the gateway."""
        return self._gateway.refused

    @property
    def resumes(self) -> int:
        """How often a bot took a session up again."""
        return self._gateway.resumes

    def wait_for(
        self, predicate: Callable[[DiscordStandIn], Any], seconds: float = 20.0, what: str = ""
    ) -> None:
        """Until the predicate holds; it is asked again after every event. AssertionError if not."""
        with self._changed:
            if not self._changed.wait_for(lambda: predicate(self), seconds):
                recent = "\n  ".join(map(str, self.requests[-15:])) or "none"
                raise AssertionError(
                    f"waited {seconds} s in vain for {what or 'a condition'}\n"
                    f"bot connected: {self.connected}; violations: {self.violations}\n"
                    f"last requests:\n  {recent}"
                )

    def wait_for_message(
        self,
        channel: Channel | Person,
        predicate: Callable[[Json], Any] = bool,
        seconds: float = 30.0,
    ) -> Json:
        """Until a message in the channel (or in a person's DM) fits; the oldest that does. Never
        an ephemeral one, nor one that is still "thinking"."""
        place = channel._dm if isinstance(channel, Person) else channel
        found: list[Json] = []

        def fits(_: object) -> bool:
            shown = [message for message in place.messages if not message["flags"] & LOADING]
            found[:] = [message for message in shown if predicate(message)]
            return bool(found)

        self.wait_for(fits, seconds, f"a message in {place.name}")
        return found[0]

    def drop_gateway(self, *, resumable: bool = True) -> None:
        """Aborts the gateway's connection, without a close code. A resumable session keeps what
        happens meanwhile; one that isn't is answered with Invalid Session at RESUME."""
        with self._changed:
            self._gateway.drop(resumable=resumable)

    def refuse_gateway(self, refuse: bool) -> None:
        """From now on new gateway connections are refused (503), or accepted again."""
        self._gateway.refusing = refuse

    # ---------------------------------------------------------------------------- interactions

    def _interact(self, reply: Reply, data: Json) -> Reply:
        """Sends INTERACTION_CREATE."""
        with self._changed:
            person, channel, guild = reply._person, reply._channel, reply._channel.guild
            assert not channel.deleted, f"channel {channel.name} is gone"
            self._replies[reply.token] = reply
            payload: Json = {
                "id": str(reply.id),
                "application_id": str(self.application_id),
                "type": reply._interaction_type,
                "data": data,
                "token": reply.token,
                "version": 1,
                "channel_id": str(channel.id),
                "channel": channel._payload(),
                "locale": "en-US",
                "app_permissions": str(channel.bot_permissions),
                "entitlements": [],
                "authorizing_integration_owners": {"0": str(guild.id) if guild else "0"},
                "context": 0 if guild else 1,
                "attachment_size_limit": FILE_SIZE,
            }
            if guild:
                partial = {"id": str(guild.id), "locale": "en-US", "features": []}
                payload |= {"guild_id": str(guild.id), "guild": partial, "guild_locale": "en-US"}
                has = {"permissions": str(person.permissions_in(channel))}
                payload["member"] = {**person._member(guild), **has}
                payload["channel"] |= has
            else:
                payload["user"] = person._user()
            if reply._source:
                payload["message"] = self._shown(reply._source)
            self._gateway.emit("INTERACTION_CREATE", payload, token=reply.token)
            return reply

    @route("POST", r"/interactions/(\d+)/([^/]+)/callback")
    def _callback(self, call: RestCall, interaction_id: str, token: str) -> Answer:
        reply = self._replies.get(token)
        if reply is None or str(reply.id) != interaction_id:
            raise DiscordError(404, 10062, "Unknown interaction", violation=True)
        # After a fault, or when the gateway was late, a second or late answer is no one's fault,
        # nor where two bots have one token: each gets every interaction.
        fair = not any(earlier.fault for earlier in self.requests if earlier.path == call.path)
        fair &= self._gateway.sessions < 2
        if reply.type is not None:
            message = "Interaction has already been acknowledged."
            raise DiscordError(400, 40060, message, violation=fair)
        age = call.time - reply._created
        if age > self.answer_within:
            fair &= call.time - (reply._delivered or call.time) > self.answer_within
            raise DiscordError(404, 10062, "Unknown interaction", violation=fair)
        self._answer(call, reply)
        reply.acknowledged_after = age
        if call.query.get("with_response", "").lower() not in ("1", "true"):
            return 204, None
        interaction: Json = {"id": interaction_id, "type": reply._interaction_type}
        resource: Json = {"type": reply.type}
        if reply._original and reply.type != 9:
            flags = reply._original.data["flags"]
            interaction["response_message_id"] = reply._original.data["id"]
            interaction["response_message_loading"] = bool(flags & LOADING)
            interaction["response_message_ephemeral"] = bool(flags & EPHEMERAL)
            if reply.type in (4, 7):
                resource["message"] = self._shown(reply._original)
        return 200, {"interaction": interaction, "resource": resource}

    def _answer(self, call: RestCall, reply: Reply) -> None:
        """Applies the first answer to an interaction."""
        body = call.body if isinstance(call.body, dict) else {}
        kind, data = body.get("type"), body.get("data") or {}
        data = pruned(data) if kind == 9 else data
        allowed = CALLBACKS[reply._interaction_type]
        if reply._source is None:  # a modal that a command opened: nothing to edit
            allowed = tuple(number for number in allowed if number != 7)
        rules: dict[Any, Rule] = {5: DEFERRAL, 9: MODAL}
        rules[8] = choices_of_type(reply._option_type)
        form = Form()
        callback_of_type(*allowed)(form, call.body, "")
        if kind in rules:
            rules[kind](form, data, "data")
        if kind == 9 and not form.errors:
            check_components(form, data["components"], "data.components")
        self._judge(call, form)
        original = reply._source
        if kind == 4:
            original = self._answer_with(call, reply, data)
        elif kind == 5:
            flags = data.get("flags", 0) | LOADING
            stored = Stored({**self._origin(reply), "flags": flags}, reply._channel)
            original = self._store(stored, reply._person if flags & EPHEMERAL else None)
        elif kind == 7 and original:
            self._edit(call, original, data, ("users",))
        elif kind == 8:
            reply.choices = data.get("choices", [])
        elif kind == 9:
            reply.modal = Modal(data, reply)
        reply._original = original
        reply.type = kind

    def _answer_with(self, call: RestCall, reply: Reply, data: Any) -> Stored:
        draft = self._draft(call, data, ANSWER, reply._channel, ("users",))
        draft.data |= self._origin(reply)
        return self._store(draft, reply._person if draft.data["flags"] & EPHEMERAL else None)

    def _reply_of(self, call: RestCall, application_id: str, token: str) -> Reply:
        """The interaction of a webhook, which comes into being with the first answer."""
        reply = self._replies.get(token)
        if reply is None or application_id != str(self.application_id):
            raise DiscordError(404, 10015, "Unknown Webhook", violation=True)
        if reply._expired or call.time - reply._created > self.token_lifetime:
            raise DiscordError(401, 50027, "Invalid Webhook Token")
        if reply.type is None:
            callback = f"/interactions/{reply.id}/{token}/callback"
            tried = any(earlier.path == callback for earlier in self.requests)
            raise DiscordError(404, 10015, "Unknown Webhook", violation=not tried)
        return reply

    @route("POST", r"/webhooks/(\d+)/([^/]+)")
    def _followup(self, call: RestCall, application_id: str, token: str) -> Answer:
        reply = self._reply_of(call, application_id, token)
        original = reply._original
        if original and reply.type == 5 and original.data["flags"] & LOADING:
            # Documented: right after a deferral it edits the "thinking" message.
            data = call.body
            if isinstance(data, dict):
                data = {key: value for key, value in data.items() if key != "flags"}
            self._edit(call, original, data, ("users",))
            return 200, self._shown(original)
        followup = self._answer_with(call, reply, call.body)
        reply._followups.append(followup)
        return 200, self._shown(followup)

    @route("GET PATCH DELETE", r"/webhooks/(\d+)/([^/]+)/messages/(@original|\d+)")
    def _answered(self, call: RestCall, application_id: str, token: str, which: str) -> Answer:
        reply = self._reply_of(call, application_id, token)
        known = [s for s in (reply._original, *reply._followups) if s and not s.deleted]
        wanted = [s for s in known if s.data["id"] == which or which == "@original"][:1]
        if not wanted or (which == "@original" and wanted[0] is not reply._original):
            raise DiscordError(404, 10008, "Unknown Message")
        return self._apply(call, wanted[0], ("users",))

    # -------------------------------------------------------------------------------- channels

    def _channel(self, channel_id: str, *permissions: int) -> Channel:
        """The channel, when the bot may do this there."""
        channel = self._channels.get(int(channel_id))
        if channel is None:
            raise DiscordError(404, 10003, "Unknown Channel")
        if channel.guild is None:
            return channel
        has = channel.bot_permissions
        if not has & VIEW_CHANNEL or not channel.guild.bot_is_member:
            raise DiscordError(403, 50001, "Missing Access")
        if channel.parent_id:
            has = has & ~SEND_MESSAGES | (SEND_MESSAGES if has & SEND_MESSAGES_IN_THREADS else 0)
        if any(not has & permission for permission in permissions):
            raise DiscordError(403, 50013, "Missing Permissions")
        return channel

    @route("GET", r"/channels/(\d+)")
    def _get_channel(self, call: RestCall, channel_id: str) -> Answer:
        return 200, self._channel(channel_id)._payload()

    @route("POST", r"/channels/(\d+)/messages")
    def _create_message(self, call: RestCall, channel_id: str) -> Answer:
        channel = self._channel(channel_id, SEND_MESSAGES)
        data = call.body if isinstance(call.body, dict) else {}
        if channel._recipient and not channel._recipient.accepts_dms:
            raise DiscordError(403, 50007, "Cannot send messages to this user")
        self._channel(channel_id, *_needed_for(call))
        draft = self._draft(call, call.body, CREATE, channel, ("users", "roles", "everyone"))
        if (nonce := data.get("nonce")) is not None:
            form = Form()
            NONCE(form, nonce if isinstance(nonce, str) else str(nonce), "nonce")
            self._judge(call, form)
            draft.data["nonce"] = nonce
            if data.get("enforce_nonce"):
                for same in self._visible(channel):
                    recent = time.monotonic() - same.created < self.nonce_memory
                    if recent and same.data.get("nonce") == nonce:
                        return 200, same.data
        return 200, self._store(draft).data

    @route("GET", r"/channels/(\d+)/messages")
    def _get_messages(self, call: RestCall, channel_id: str) -> Answer:
        channel = self._channel(channel_id)
        if channel.guild and not channel.bot_permissions & READ_MESSAGE_HISTORY:
            return 200, []
        form = Form()
        limit = int(call.query.get("limit", 50))
        PAGE_SIZE(form, limit, "limit")
        self._judge(call, form)
        found = self._visible(channel)
        if after := call.query.get("after"):
            found = [stored for stored in found if int(stored.data["id"]) > int(after)][:limit]
        if before := call.query.get("before"):
            found = [stored for stored in found if int(stored.data["id"]) < int(before)]
        return 200, [self._shown(stored) for stored in reversed(found[-limit:])]

    @route("GET PATCH DELETE", r"/channels/(\d+)/messages/(\d+)")
    def _one_message(self, call: RestCall, channel_id: str, message_id: str) -> Answer:
        needed = [READ_MESSAGE_HISTORY] if call.method == "GET" else _needed_for(call)
        channel = self._channel(channel_id, *needed)
        stored = next((s for s in self._visible(channel) if s.data["id"] == message_id), None)
        if stored is None:
            raise DiscordError(404, 10008, "Unknown Message")
        return self._apply(call, stored, ("users", "roles", "everyone"))

    def _add_channel(self, channel: Channel) -> Channel:
        with self._changed:
            self._channels[channel.id] = channel
            if channel.guild:
                channel.guild.channels.append(channel)
                self._emit_channel("CREATE", channel)
            return channel

    def _emit_channel(self, what: str, channel: Channel) -> None:
        if channel.guild and channel.guild.bot_is_member:
            event = f"THREAD_{what}" if channel.parent_id else f"CHANNEL_{what}"
            self._gateway.emit(
                event, {**channel._payload(), "newly_created": what == "CREATE"}, GUILDS
            )

    def _add_role(self, guild: Guild, role: Role) -> Role:
        with self._changed:
            guild.roles.append(role)
            if guild.bot_is_member:
                event = {"guild_id": str(guild.id), "role": role._payload()}
                self._gateway.emit("GUILD_ROLE_CREATE", event, GUILDS)
            return role

    def _delete_channel(self, channel: Channel) -> None:
        with self._changed:
            assert channel.guild, "a DM can't be deleted"
            for thread in [c for c in channel.guild.channels if c._parent is channel]:
                self._delete_channel(thread)
            channel.deleted = True
            del self._channels[channel.id]
            channel.guild.channels.remove(channel)
            self._emit_channel("DELETE", channel)

    # ------------------------------------------------------------------ guilds, users, commands

    def _my_guild(self, guild_id: str, refusal: DiscordError) -> Guild:
        guild = self._guilds.get(int(guild_id))
        if guild is None or not guild.bot_is_member:
            raise refusal
        return guild

    @route("GET", r"/users/(@me|\d+)")
    def _get_user(self, call: RestCall, user_id: str) -> Answer:
        if user_id in ("@me", str(self.bot_user_id)):
            return 200, self._bot
        if int(user_id) not in self._people:
            raise DiscordError(404, 10013, "Unknown User")
        return 200, self._people[int(user_id)]._user()

    @route("POST", r"/users/@me/channels")
    def _open_dm(self, call: RestCall) -> Answer:
        form = Form()
        OPEN_DM(form, call.body, "")
        self._judge(call, form)
        if int(call.body["recipient_id"]) not in self._people:
            raise DiscordError(400, 50033, "Invalid Recipient(s)")
        return 200, self._people[int(call.body["recipient_id"])]._dm._payload()

    @route("GET", r"/users/@me/guilds")
    def _get_my_guilds(self, call: RestCall) -> Answer:
        fields = ("id", "name", "icon", "features")
        mine = [guild._payload() for guild in self._guilds.values() if guild.bot_is_member]
        counts = {"approximate_member_count": 2, "approximate_presence_count": 1}
        more = {"owner": False, "permissions": str(BOT_PERMISSIONS), "banner": None, **counts}
        after = int(call.query.get("after", 0))
        return 200, [
            {**{name: guild[name] for name in fields}, **more}
            for guild in mine
            if int(guild["id"]) > after
        ]

    @route("GET", r"/guilds/(\d+)")
    def _get_guild(self, call: RestCall, guild_id: str) -> Answer:
        return 200, self._my_guild(guild_id, DiscordError(404, 10004, "Unknown Guild"))._payload()

    @route("GET", r"/guilds/(\d+)/channels")
    def _get_channels(self, call: RestCall, guild_id: str) -> Answer:
        guild = self._my_guild(guild_id, DiscordError(404, 10004, "Unknown Guild"))
        return 200, [channel._payload() for channel in guild.channels if not channel.parent_id]

    @route("GET", r"/guilds/(\d+)/members/(\d+)")
    def _get_member(self, call: RestCall, guild_id: str, user_id: str) -> Answer:
        guild = self._my_guild(guild_id, DiscordError(404, 10004, "Unknown Guild"))
        if user_id == str(self.bot_user_id):
            return 200, member_object(self._bot, (guild._bot_role_id,))
        if int(user_id) not in self._people:
            raise DiscordError(404, 10007, "Unknown Member")
        return 200, self._people[int(user_id)]._member(guild)

    @route("GET", r"(?:/oauth2)?/applications/@me")
    def _get_application(self, call: RestCall) -> Answer:
        info: Json = {"id": str(self.application_id), "name": "ComfyGen", "description": ""}
        info |= {"icon": None, "bot_public": False, "bot_require_code_grant": False, "flags": 0}
        owner = user_object(self.guild._owner_id, "owner", "Owner")
        return 200, {**info, "verify_key": "5eed" * 16, "owner": owner, "team": None}

    @route("GET PUT", r"/applications/(\d+)(?:/guilds/(\d+))?/commands")
    def _application_commands(
        self, call: RestCall, application_id: str, guild_id: str | None
    ) -> Answer:
        if application_id != str(self.application_id):
            message = "You are not authorized to perform this action on this application"
            raise DiscordError(403, 20012, message)
        missing = DiscordError(403, 50001, "Missing Access")
        scope = self._my_guild(guild_id, missing).id if guild_id else None
        if call.method == "GET":
            return 200, self.commands.get(scope, [])
        form = Form()
        COMMANDS(form, call.body, "")
        if not form.errors:
            check_commands(form, call.body)
        self._judge(call, form)
        old = {(c["type"], c["name"]): c["id"] for c in self.commands.get(scope, [])}
        base: Json = {"type": 1, "application_id": str(self.application_id), "description": ""}
        base |= {"options": [], "contexts": None, "integration_types": [0]}
        base |= {"default_member_permissions": None, "dm_permission": True, "nsfw": False}
        base |= {"guild_id": scope and str(scope)}
        registered = []
        for sent in call.body:
            given = {key: value for key, value in sent.items() if value is not None}
            known = old.get((given.get("type", 1), sent["name"]), str(snowflake()))
            registered.append({**base, **given, "id": known, "version": str(snowflake())})
        self.commands[scope] = registered
        self.syncs += 1
        return 200, registered


def _needed_for(call: RestCall) -> list[int]:
    """The permissions that the content of a message takes, when it is created or edited."""
    embeds = call.body.get("embeds") if isinstance(call.body, dict) else None
    return [EMBED_LINKS] * bool(embeds) + [ATTACH_FILES] * bool(call._uploads)
