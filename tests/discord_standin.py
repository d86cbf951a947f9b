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
import contextlib
import copy
import hashlib
import json
import mimetypes
import re
import secrets
import socket
import struct
import sys
import threading
import time
import traceback
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any
from urllib.parse import urlsplit

from aiohttp import WSMsgType, web

Json = dict[str, Any]
Answer = tuple[int, Any]  # HTTP status and body; None is no body

MIB = 1024 * 1024
DISCORD_EPOCH_MS = 1_420_070_400_000

# Permissions
ADMINISTRATOR, MANAGE_MESSAGES = 1 << 3, 1 << 13
VIEW_CHANNEL, SEND_MESSAGES, SEND_MESSAGES_IN_THREADS = 1 << 10, 1 << 11, 1 << 38
EMBED_LINKS, ATTACH_FILES, READ_MESSAGE_HISTORY = 1 << 14, 1 << 15, 1 << 16
MENTION_EVERYONE, USE_EXTERNAL_EMOJIS, USE_APPLICATION_COMMANDS = 1 << 17, 1 << 18, 1 << 31
ALL_PERMISSIONS = (1 << 53) - 1
_WRITE = VIEW_CHANNEL | SEND_MESSAGES | SEND_MESSAGES_IN_THREADS | READ_MESSAGE_HISTORY
MEMBER_PERMISSIONS = _WRITE | EMBED_LINKS | ATTACH_FILES | USE_APPLICATION_COMMANDS
DM_PERMISSIONS = ATTACH_FILES | EMBED_LINKS | MENTION_EVERYONE | USE_EXTERNAL_EMOJIS
BOT_PERMISSIONS = MEMBER_PERMISSIONS | DM_PERMISSIONS  # a new guild lets all mention @everyone

# Gateway intents
GUILDS, GUILD_MESSAGES, DIRECT_MESSAGES = 1 << 0, 1 << 9, 1 << 12
PRIVILEGED_INTENTS = 1 << 1 | 1 << 8 | 1 << 15
KNOWN_INTENTS = (1 << 17) - 1 | 1 << 20 | 1 << 21 | 1 << 24 | 1 << 25

# Message flags
SUPPRESS_EMBEDS, EPHEMERAL, LOADING, SILENT, COMPONENTS_V2 = (
    1 << 2,
    1 << 6,
    1 << 7,
    1 << 12,
    1 << 15,
)

# Component types
ROW, BUTTON, STRING_SELECT, TEXT_INPUT, TEXT_DISPLAY, LABEL = 1, 2, 3, 4, 10, 18
SECTION, THUMBNAIL, GALLERY, FILE, SEPARATOR, CONTAINER = 9, 11, 12, 13, 14, 17

# Interaction types, and the callback types that may answer them
COMMAND, COMPONENT, AUTOCOMPLETE, MODAL_SUBMIT = 2, 3, 4, 5
KINDS = {2: "slash", 3: "component", 4: "autocomplete", 5: "modal"}
CALLBACKS = {2: (4, 5, 9), 3: (4, 5, 6, 7, 9), 4: (8,), 5: (4, 5, 6, 7)}

# What a fault with an HTTP status says: its usual code, and the codes' messages
USUAL_CODES = {403: 50013, 404: 10003, 413: 40005}
ERRORS = {10003: "Unknown Channel", 10008: "Unknown Message", 10062: "Unknown interaction"}
ERRORS |= {40005: "Request entity too large", 50001: "Missing Access", 50013: "Missing Permissions"}
ERRORS |= {50007: "Cannot send messages to this user", 50027: "Invalid Webhook Token"}

_last_snowflake = 0
_snowflake_lock = threading.Lock()


def snowflake() -> int:
    """A new id that tells the present time, greater than every one before."""
    global _last_snowflake
    with _snowflake_lock:
        now = int(time.time() * 1000 - DISCORD_EPOCH_MS) << 22
        _last_snowflake = max(_last_snowflake + 1, now)
        return _last_snowflake


def message_texts(message: Json) -> list[str]:
    """Everything a person can read in a message: content, embeds, Text Displays."""
    texts = [message.get("content") or ""]
    for embed in message.get("embeds", []):
        texts += [embed.get("author", {}).get("name"), embed.get("title"), embed.get("description")]
        texts += [
            text for item in embed.get("fields", []) for text in (item["name"], item["value"])
        ]
        texts += [embed.get("footer", {}).get("text")]
    texts += [c["content"] for _, c in _walk(message.get("components", [])) if "content" in c]
    return [text for text in texts if text]


def _walk(components: list[Json], at: str = "components") -> Iterator[tuple[str, Json]]:
    """All components with their paths, in the order in which Discord numbers them."""
    for index, component in enumerate(components):
        path = f"{at}.{index}"
        yield path, component
        yield from _walk(component.get("components", []), f"{path}.components")
        for key in ("accessory", "component"):
            if key in component:
                yield f"{path}.{key}", component[key]


def _numbered(components: list[Json]) -> list[Json]:
    """A copy in which every component has an `id`, as in what Discord sends."""
    result = copy.deepcopy(components)
    taken = {c["id"] for _, c in _walk(result) if c.get("id")}
    free = (number for number in range(1, 1000) if number not in taken)
    for _, component in _walk(result):
        component["id"] = component.get("id") or next(free)
    return result


def _pruned(node: Any) -> Any:
    """A copy without the keys that are null, which is as good as absent."""
    if isinstance(node, dict):
        return {key: _pruned(value) for key, value in node.items() if value is not None}
    return [_pruned(value) for value in node] if isinstance(node, list) else node


def _references(node: Any, path: str = "") -> Iterator[tuple[Json, str, str]]:
    """Each place in embeds or components that names an uploaded file: (holder, key, path)."""
    for key, value in node.items() if isinstance(node, dict) else enumerate(node):
        if isinstance(value, (dict, list)):
            yield from _references(value, f"{path}.{key}")
        elif key in ("url", "icon_url") and str(value).startswith("attachment://"):
            yield node, key, f"{path}.{key}"


def _now() -> str:
    return datetime.now(timezone.utc).isoformat()


def _user(user_id: int, username: str, global_name: str | None, **more: Any) -> Json:
    user = {"id": str(user_id), "username": username, "global_name": global_name, "avatar": None}
    return {**user, "discriminator": "0", "public_flags": 0, "primary_guild": None, **more}


def _member(user: Json, roles: tuple[int, ...] = ()) -> Json:
    nothing = dict.fromkeys(("nick", "avatar", "premium_since", "communication_disabled_until"))
    member = {
        "user": user,
        "roles": [str(role) for role in roles],
        "joined_at": "2024-01-01T00:00:00+00:00",
    }
    return {**member, **nothing, "deaf": False, "mute": False, "pending": False, "flags": 0}


class DiscordError(Exception):
    """An error answer. `violation` says that the bot broke a rule, not that the world changed."""

    def __init__(self, status: int, code: int, message: str, *, violation: bool = False) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.violation = violation
        self.headers: dict[str, str] = {}
        self.body: Json = {"message": message, "code": code}


# ------------------------------------------------------------------------------- schema and limits


class _Form:
    """What is wrong with a body, in the nested shape of Discord's "Invalid Form Body"."""

    def __init__(self) -> None:
        self.errors: Json = {}
        self.flat: list[str] = []
        self.unknown: list[str] = []  # keys that Discord ignores: a violation, but no refusal

    def error(self, at: str, code: str, message: str) -> None:
        node = self.errors
        for part in at.strip(".").split("."):
            node = node.setdefault(part, {})
        node.setdefault("_errors", []).append({"code": code, "message": message})
        self.flat.append(f"{at.strip('.')}: {message}")


Rule = Callable[[_Form, Any, str], None]  # judges the value at a path


def _text(most: int, least: int = 0) -> Rule:
    def rule(form: _Form, value: Any, at: str) -> None:
        if not isinstance(value, str):
            form.error(at, "STRING_TYPE_CONVERT", f'Could not interpret "{value}" as string.')
        elif least and not least <= len(value.strip()) <= most:  # code points, trimmed
            form.error(at, "BASE_TYPE_BAD_LENGTH", f"Must be between {least} and {most} in length.")
        elif len(value.strip()) > most:
            form.error(at, "BASE_TYPE_MAX_LENGTH", f"Must be {most} or fewer in length.")

    return rule


def _whole(least: int, most: int) -> Rule:
    def rule(form: _Form, value: Any, at: str) -> None:
        if not isinstance(value, int) or isinstance(value, bool):
            form.error(at, "NUMBER_TYPE_COERCE", f'Value "{value}" is not int.')
        elif not least <= value <= most:
            form.error(at, "NUMBER_TYPE_RANGE", f"int value should be between {least} and {most}.")

    return rule


def _bits(allowed: int) -> Rule:
    def rule(form: _Form, value: Any, at: str) -> None:
        if not isinstance(value, int) or value & ~allowed:
            form.error(at, "BASE_TYPE_CHOICES", f"Only these flags may be set here: {allowed}.")

    return rule


def _one_of(*allowed: Any) -> Rule:
    def rule(form: _Form, value: Any, at: str) -> None:
        if value not in allowed:
            form.error(at, "BASE_TYPE_CHOICES", f"Value must be one of {allowed}.")

    return rule


def _url(*schemes: str, most: int = 2048) -> Rule:
    def rule(form: _Form, value: Any, at: str) -> None:
        _text(most)(form, value, at)
        if value and urlsplit(str(value)).scheme not in schemes:
            message = f"Scheme is not supported. Scheme must be one of {schemes}."
            form.error(at, "URL_TYPE_INVALID_SCHEME", message)

    return rule


def _array(rule_of_items: Rule, most: int, least: int = 0) -> Rule:
    def rule(form: _Form, value: Any, at: str) -> None:
        if not isinstance(value, list):
            return form.error(at, "LIST_TYPE_CONVERT", "Only iterables may be used in a ListType")
        if not least <= len(value) <= most:
            form.error(at, "BASE_TYPE_BAD_LENGTH", f"Must be between {least} and {most} in length.")
        for index, item in enumerate(value):
            rule_of_items(form, item, f"{at}.{index}")
        return None

    return rule


def _object(fields: dict[str, Rule], ignored: str = "") -> Rule:
    """An object with these keys; a key that ends in * is required. null is as good as absent."""
    rules = {key.rstrip("*"): rule for key, rule in fields.items()}

    def rule(form: _Form, value: Any, at: str) -> None:
        if not isinstance(value, dict):
            message = "Only dictionaries may be used in a DictType"
            return form.error(at, "DICT_TYPE_CONVERT", message)
        known = {*rules, *ignored.split()}
        form.unknown += [f"{at}.{key}".strip(".") for key in value if key not in known]
        for key in fields:
            if key.endswith("*") and value.get(key[:-1]) in (None, ""):
                form.error(f"{at}.{key[:-1]}", "BASE_TYPE_REQUIRED", "This field is required")
        for key, item in value.items():
            if key in rules and item is not None and not (item == "" and f"{key}*" in fields):
                rules[key](form, item, f"{at}.{key}")
        return None

    return rule


def _components(kinds: dict[int, Rule]) -> Rule:
    def rule(form: _Form, value: Any, at: str) -> None:
        kind = value.get("type") if isinstance(value, dict) else None
        if kind not in kinds:
            message = f'Value of field "type" must be one of {tuple(kinds)}.'
            return form.error(f"{at}.type", "UNION_TYPE_CHOICES", message)
        return kinds[kind](form, value, at)

    return rule


def _component(fields: dict[str, Rule], ignored: str = "") -> Rule:
    return _object({"id": _whole(0, 2**31 - 1), **fields}, f"type {ignored}")


def _boolean(form: _Form, value: Any, at: str) -> None:
    if not isinstance(value, bool):
        form.error(at, "BOOLEAN_TYPE_CONVERT", "Must be either true or false.")


def _id(form: _Form, value: Any, at: str) -> None:
    if isinstance(value, bool) or not str(value).isdecimal():
        form.error(at, "NUMBER_TYPE_COERCE", f'Value "{value}" is not snowflake.')


def _moment(form: _Form, value: Any, at: str) -> None:
    try:
        datetime.fromisoformat(str(value).replace("Z", "+00:00"))
    except ValueError:
        form.error(at, "DATE_TIME_TYPE_PARSE", f"Could not parse {value}. Should be ISO8601.")


def _name(form: _Form, value: Any, at: str) -> None:
    _text(32, 1)(form, value, at)
    if not re.fullmatch(r"[-'\w]{1,32}", str(value)) or str(value) != str(value).lower():
        form.error(at, "APPLICATION_COMMAND_INVALID_NAME", "Command name is invalid")


def _bit_set(form: _Form, value: Any, at: str) -> None:
    if not str(value).isdecimal():
        form.error(at, "NUMBER_TYPE_COERCE", f'Value "{value}" is not a bit set.')


_LINK, _PICTURE = _url("http", "https"), _url("http", "https", "attachment")
_MENTIONS = _object(
    {
        "parse": _array(_one_of("users", "roles", "everyone"), 3),
        "users": _array(_id, 100),
        "roles": _array(_id, 100),
        "replied_user": _boolean,
    }
)
_MEDIA_KEYS = (
    "proxy_url height width content_type placeholder placeholder_version description flags"
)
_FIELD = _object({"name*": _text(256, 1), "value*": _text(1024, 1), "inline": _boolean})
_EMBED = _object(
    {
        "title": _text(256),
        "description": _text(4096),
        "url": _LINK,
        "timestamp": _moment,
        "color": _whole(0, 0xFFFFFF),
        "footer": _object({"text*": _text(2048, 1), "icon_url": _PICTURE}, "proxy_icon_url"),
        "author": _object(
            {"name*": _text(256, 1), "url": _LINK, "icon_url": _PICTURE}, "proxy_icon_url"
        ),
        "image": _object({"url*": _PICTURE}, _MEDIA_KEYS),
        "thumbnail": _object({"url*": _PICTURE}, _MEDIA_KEYS),
        "fields": _array(_FIELD, 25),
    },
    "type video provider flags",
)

_CUSTOM_ID = {"custom_id*": _text(100, 1)}
_EMOJI = _object({"name": _text(32)}, "id animated")
_BUTTON = _component(
    {
        "style*": _one_of(1, 2, 3, 4, 5),
        "label": _text(80),
        "emoji": _EMOJI,
        "custom_id": _text(100, 1),
        "url": _url("http", "https", "discord", most=512),
        "disabled": _boolean,
    }
)
_ANY_SELECT = {
    **_CUSTOM_ID,
    "placeholder": _text(150),
    "min_values": _whole(0, 25),
    "max_values": _whole(1, 25),
    "disabled": _boolean,
    "required": _boolean,
}
_OPTION = _object(
    {
        "label*": _text(100, 1),
        "value*": _text(100, 1),
        "description": _text(100),
        "emoji": _EMOJI,
        "default": _boolean,
    }
)
_STRING_SELECT = _component({**_ANY_SELECT, "options*": _array(_OPTION, 25, 1)})
_SELECTS = {3: _STRING_SELECT}
_SELECTS |= dict.fromkeys((5, 6, 7, 8), _component(_ANY_SELECT, "default_values channel_types"))
_ROW = _component({"components*": _array(_components({BUTTON: _BUTTON, **_SELECTS}), 5, 1)})
_TEXT_DISPLAY = _component({"content*": _text(4000, 1)})
_MEDIA = _object({"url*": _PICTURE}, _MEDIA_KEYS)
_ACCESSORIES = {BUTTON: _BUTTON, THUMBNAIL: _component({"media*": _MEDIA}, "description spoiler")}
_LAYOUT: dict[int, Rule] = {
    ROW: _ROW,
    TEXT_DISPLAY: _TEXT_DISPLAY,
    SECTION: _component(
        {
            "components*": _array(_components({TEXT_DISPLAY: _TEXT_DISPLAY}), 3, 1),
            "accessory*": _components(_ACCESSORIES),
        }
    ),
    GALLERY: _component(
        {"items*": _array(_object({"media*": _MEDIA}, "description spoiler"), 10, 1)}
    ),
    FILE: _component({"file*": _MEDIA}, "spoiler name size"),
    SEPARATOR: _component({}, "divider spacing"),
}
_LAYOUT[CONTAINER] = _component(
    {"components*": _array(_components({**_LAYOUT}), 39, 1)}, "accent_color spoiler"
)
_LAYOUT_V2 = _array(_components(_LAYOUT), 40)
_LAYOUT_V1 = _array(_components({ROW: _ROW}), 5)

_TEXT_INPUT = {
    **_CUSTOM_ID,
    "style*": _one_of(1, 2),
    "min_length": _whole(0, 4000),
    "max_length": _whole(1, 4000),
    "required": _boolean,
    "value": _text(4000),
    "placeholder": _text(100),
}
_LABELLED = _components({TEXT_INPUT: _component({**_TEXT_INPUT, "label": _one_of(None)})})
_WITH_LABEL = _components({TEXT_INPUT: _component({**_TEXT_INPUT, "label*": _text(45, 1)})})
_IN_MODAL = {
    ROW: _component({"components*": _array(_WITH_LABEL, 1, 1)}),
    LABEL: _component({"label*": _text(45, 1), "description": _text(100), "component*": _LABELLED}),
    TEXT_DISPLAY: _TEXT_DISPLAY,
}
_MODAL = _object(
    {**_CUSTOM_ID, "title*": _text(45, 1), "components*": _array(_components(_IN_MODAL), 5, 1)}
)

_ATTACHMENT = _object(
    {"id*": _id, "filename": _text(260), "description": _text(1024)},
    "title duration_secs waveform is_spoiler spoiler size url height width " + _MEDIA_KEYS,
)
_MESSAGE: dict[str, Rule] = {
    "content": _text(2000),
    "embeds": _array(_EMBED, 10),
    "allowed_mentions": _MENTIONS,
    "attachments": _array(_ATTACHMENT, 10),
    "tts": _boolean,
}
_REFERENCE = {"message_id": _id, "channel_id": _id, "guild_id": _id, "fail_if_not_exists": _boolean}
_CREATE = _object(
    {
        **_MESSAGE,
        "flags": _bits(SUPPRESS_EMBEDS | SILENT | COMPONENTS_V2),
        "enforce_nonce": _boolean,
        "message_reference": _object({**_REFERENCE, "type": _one_of(0)}),
    },
    "components nonce",
)
_EDIT = _object({**_MESSAGE, "flags": _whole(0, 2**31 - 1)}, "components")  # tts: by discord.py
_ANSWER = _object(
    {**_MESSAGE, "flags": _bits(SUPPRESS_EMBEDS | EPHEMERAL | SILENT | COMPONENTS_V2)}, "components"
)

_LOCALIZED = "name_localizations description_localizations"
_DESCRIBED = {"name*": _name, "description*": _text(100, 1)}


def _choices(kind: int) -> Rule:
    """Choices of an option of this type: string (3), integer (4) or number (10)."""

    def number(form: _Form, value: Any, at: str) -> None:
        if not isinstance(value, (int, float)):
            form.error(at, "NUMBER_TYPE_COERCE", f'Value "{value}" is not a number.')

    value_rule = _text(100, 1) if kind == 3 else number
    item = _object({"name*": _text(100, 1), "value*": value_rule}, "name_localizations")
    return _array(item, 25)


def _command_option(form: _Form, value: Any, at: str) -> None:
    kind = value.get("type") if isinstance(value, dict) else None
    fields = {**_DESCRIBED, "type*": _one_of(*range(1, 12)), "options": _array(_command_option, 25)}
    fields |= {"choices": _choices(kind or 3), "required": _boolean, "autocomplete": _boolean}
    bounds = "min_value max_value min_length max_length channel_types "
    _object(fields, bounds + _LOCALIZED)(form, value, at)


_COMMANDS = _array(
    _object(
        {
            **_DESCRIBED,
            "type": _one_of(1),  # the stand-in has no context menus
            "options": _array(_command_option, 25),
            "contexts": _array(_one_of(0, 1, 2), 3),
            "integration_types": _array(_one_of(0, 1), 2),
            "default_member_permissions": _bit_set,
            "dm_permission": _boolean,
            "nsfw": _boolean,
        },
        f"id handler default_permission {_LOCALIZED}",
    ),
    100,
)


def _check_commands(form: _Form, commands: list[Json]) -> None:
    """The rules between fields; the fields themselves are right."""

    def check(options: list[Json], at: str) -> None:
        required = [bool(option.get("required")) for option in options]
        if required != sorted(required, reverse=True):
            message = "Required options must be placed before non-required options"
            form.error(at, "APPLICATION_COMMAND_OPTIONS_REQUIRED_INVALID", message)
        if len({option["name"] for option in options}) != len(options):
            message = "Option names must be unique"
            form.error(at, "APPLICATION_COMMAND_OPTIONS_NAME_ALREADY_EXISTS", message)
        for index, option in enumerate(options):
            if option.get("choices") and option.get("autocomplete"):
                message = "autocomplete may not be set to true if choices are present"
                form.error(f"{at}.{index}", "APPLICATION_COMMAND_AUTOCOMPLETE", message)
            check(option.get("options") or [], f"{at}.{index}.options")

    for index, command in enumerate(commands):
        check(command.get("options") or [], f"{index}.options")
        if len(json.dumps(command, ensure_ascii=False)) > 8000:
            message = "Command exceeds maximum size (8000)"
            form.error(str(index), "APPLICATION_COMMAND_TOO_LARGE", message)
    if len({command["name"] for command in commands}) != len(commands):
        message = "Application command names must be unique"
        form.error("name", "APPLICATION_COMMANDS_DUPLICATE_NAME", message)


def _check_components(form: _Form, components: list[Json], at: str = "components") -> None:
    """The rules between components, and between the fields of one; the fields are right."""
    custom_ids: set[str] = set()
    everything = list(_walk(components, at))
    for path, component in everything:
        custom_id = component.get("custom_id")
        if custom_id in custom_ids:
            message = "Component custom id cannot be duplicated"
            form.error(f"{path}.custom_id", "COMPONENT_CUSTOM_ID_DUPLICATED", message)
        custom_ids |= {custom_id} if custom_id else set()
        children = component.get("components", [])
        wide = component["type"] == ROW and any(child["type"] != BUTTON for child in children)
        if wide and len(children) > 1:
            message = "The specified component exceeds the maximum width"
            form.error(f"{path}.components.1", "COMPONENT_LAYOUT_WIDTH_EXCEEDED", message)
        for problem in _component_problems(component):
            form.error(path, "COMPONENT_INVALID", problem)
    ids = [component["id"] for _, component in everything if component.get("id")]
    if len(set(ids)) != len(ids):
        form.error(at, "COMPONENT_ID_DUPLICATED", "Component id cannot be duplicated")
    texts = [c["content"] for _, c in everything if c["type"] == TEXT_DISPLAY]
    if len(everything) > 40 or sum(map(len, texts)) > 4000:
        form.error(at, "COMPONENT_MAX_TOTAL_EXCEEDED", "At most 40 components, 4000 characters")


def _component_problems(component: Json) -> Iterator[str]:
    kind = component["type"]
    if kind == BUTTON:
        link = component["style"] == 5
        if not component.get("label") and not component.get("emoji"):
            yield "A button needs a label or an emoji"
        if not component.get("url" if link else "custom_id"):
            yield "A custom id is required" if not link else "A url is required"
        if component.get("custom_id" if link else "url"):
            yield "A custom id and url cannot both be specified"
    elif kind in _SELECTS:
        least, most = component.get("min_values", 1), component.get("max_values", 1)
        options = component.get("options", [])
        if least > most or (kind == STRING_SELECT and least > len(options)):
            yield "min_values is more than can be chosen"
        if len({option["value"] for option in options}) != len(options):
            yield "The specified option value is already used"
        if sum(bool(option.get("default")) for option in options) > most:
            yield "More options are marked as default than max_values allows"
    elif kind == TEXT_INPUT:
        least, most = component.get("min_length") or 0, component.get("max_length") or 4000
        if least > most or len(component.get("value") or "") > most:
            yield f"min_length and value: must be {most} or fewer"


def _check_message(form: _Form, draft: _Stored, mentions: Json) -> None:
    """The rules between the fields of a message; the fields themselves are right."""
    total = 0
    for index, embed in enumerate(draft.embeds):
        texts = message_texts({"embeds": [embed]})
        total += sum(len(text.strip()) for text in texts)
        if not texts and not embed.get("image") and not embed.get("thumbnail"):
            at = f"embeds.{index}.description"
            form.error(at, "BASE_TYPE_REQUIRED", "This field is required")
    if total > 6000:
        form.error("embeds", "MAX_EMBED_SIZE_EXCEEDED", "Embed size exceeds maximum size of 6000")
    for key in ("users", "roles"):
        ids = [str(mention) for mention in mentions.get(key) or []]
        if len(set(ids)) != len(ids) or (ids and key in (mentions.get("parse") or [])):
            message = f'parse:["{key}"] and {key}: [ids...] are mutually exclusive, ids unique.'
            form.error("allowed_mentions", "MESSAGE_ALLOWED_MENTIONS_PARSE_EXCLUSIVE", message)
    _check_components(form, draft.components)
    names = {upload["filename"] for upload in draft.uploads}
    body = {"embeds": draft.embeds, "components": draft.components}
    for holder, key, path in _references(body):
        name = holder[key].removeprefix("attachment://")
        picture = re.search(r"\.(jpe?g|png|webp|gif)$", name, re.IGNORECASE)
        if name not in names or (path.startswith(".embeds") and not picture):
            form.error(path, "UNKNOWN_FILE", f"No such picture in this message: {name}")


# ------------------------------------------------------------------------------------------ models


@dataclass
class RestCall:
    """One REST request as it arrived. `status` is None until it was answered (or aborted)."""

    method: str
    path: str
    query: dict[str, str]
    body: Any
    files: dict[str, bytes]
    time: float
    status: int | None = None
    fault: str | None = None
    _uploads: dict[int, tuple[str, bytes]] = field(default_factory=dict, repr=False)
    _urls: list[str] = field(default_factory=list, repr=False)

    def __str__(self) -> str:
        state = f"fault: {self.fault}" if self.fault else self.status or "not answered"
        return f"{self.method} {self.path} -> {state}"


@dataclass(eq=False)
class _Stored:
    """A message: what the API shows of it, and what only Discord knows."""

    data: Json
    channel: Channel
    audience: Person | None = None  # the only one who sees an ephemeral message
    embeds: list[Json] = field(default_factory=list)  # as sent, with attachment:// references
    components: list[Json] = field(default_factory=list)
    uploads: list[Json] = field(default_factory=list)  # also those that an embed shows
    deleted: bool = False
    created: float = field(default_factory=time.monotonic)


@dataclass(eq=False)
class _Fault:
    """What happens to requests that fit: a fault, or (kind before, after) a callback."""

    method: str
    pattern: str
    kind: str | int
    times: int | None = 1
    seconds: float = 0.0
    code: int | None = None
    callback: Callable[[], object] | None = None


class _Connection:
    """One WebSocket of the gateway. The outbox takes texts, and a close code as the last item."""

    def __init__(self, request: web.Request) -> None:
        self.transport = request.transport
        self.outbox: asyncio.Queue[tuple[str, str] | int] = asyncio.Queue()
        zipped = request.query.get("compress") == "zlib-stream"
        self.deflate = zlib.compressobj() if zipped else None  # else text, which is always taken
        self.session: _Session | None = None


class _Session:
    """What a bot resumes: the numbered events sent to it. `connection`: None while it is away."""

    def __init__(self, connection: _Connection, intents: int) -> None:
        self.id = secrets.token_hex(16)
        self.intents = intents
        self.connection: _Connection | None = connection
        self.sequence = 0
        self.events: deque[tuple[int, str, str]] = deque(maxlen=2000)


@dataclass(eq=False)
class Guild:
    """A server. Its `premium_tier` (boost level, 0 to 3) sets the file size limit."""

    _standin: DiscordStandIn = field(repr=False)
    name: str
    premium_tier: int = 0
    bot_is_member: bool = True
    id: int = field(default_factory=snowflake)
    _owner_id: int = field(default_factory=snowflake, repr=False)
    _bot_role_id: int = field(default_factory=snowflake, repr=False)
    channels: list[Channel] = field(default_factory=list, repr=False)

    def add_channel(self, name: str = "pictures") -> Channel:
        """A new text channel, in which the bot has its usual permissions."""
        return self._standin._add_channel(Channel(self._standin, name, self))

    def add_thread(self, channel: Channel, name: str = "a thread") -> Channel:
        """A new public thread in `channel`; its `parent_id` is the channel's id."""
        return self._standin._add_channel(Channel(self._standin, name, self, channel))

    def _payload(self) -> Json:
        role: Json = {"color": 0, "hoist": False, "mentionable": False, "flags": 0, "position": 0}
        everyone = {**role, "id": str(self.id), "name": "@everyone", "managed": False}
        everyone["permissions"] = str(MEMBER_PERMISSIONS)
        bot = {**role, "id": str(self._bot_role_id), "name": "bot", "managed": True}
        bot |= {"position": 1, "permissions": str(BOT_PERMISSIONS)}
        bot["tags"] = {"bot_id": str(self._standin.bot_user_id)}
        levels = ("verification_level", "mfa_level", "nsfw_level", "explicit_content_filter")
        guild: Json = {"id": str(self.id), "name": self.name, "owner_id": str(self._owner_id)}
        guild |= {"premium_tier": self.premium_tier, "preferred_locale": "en-US", "icon": None}
        guild |= {"roles": [everyone, bot], "emojis": [], "stickers": [], "features": []}
        return {**guild, **dict.fromkeys(levels, 0), "default_message_notifications": 0}

    def _create_event(self) -> Json:
        payloads = [channel._payload() for channel in self.channels]
        me = _member(self._standin._bot, (self._bot_role_id,))  # others need a privileged intent
        lists = ("voice_states", "presences", "stage_instances", "guild_scheduled_events")
        return {
            **self._payload(),
            **{key: [] for key in lists},
            "joined_at": _now(),
            "large": False,
            "unavailable": False,
            "member_count": len(self._standin._people) + 1,
            "members": [me],
            "channels": [payload for payload in payloads if payload["type"] == 0],
            "threads": [payload for payload in payloads if payload["type"] == 11],
        }


@dataclass(eq=False)
class Channel:
    """A text channel, a public thread (has a `parent_id`) or a DM with the bot (has no `guild`).

    `history` is what became visible in it: {"event": "create" | "edit" | "delete",
    "message": a copy, "time": monotonic seconds}; nothing ephemeral.
    """

    _standin: DiscordStandIn = field(repr=False)
    name: str
    guild: Guild | None = None
    _parent: Channel | None = field(default=None, repr=False)
    _recipient: Person | None = field(default=None, repr=False)
    _bot_permissions: int = BOT_PERMISSIONS
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
            times = dict.fromkeys(("archive_timestamp", "create_timestamp"), _now())
            metadata = {"archived": False, "locked": False, "auto_archive_duration": 1440, **times}
            payload |= {"type": 11, "parent_id": str(self.parent_id), "thread_metadata": metadata}
            return {**payload, **counts, "owner_id": str(self.guild._owner_id)}
        overwrite = {"id": str(self._standin.bot_user_id), "type": 1}
        overwrite["allow"] = str(self.bot_permissions)
        overwrite["deny"] = str(ALL_PERMISSIONS & ~self.bot_permissions)
        payload |= {"type": 0, "position": 0, "parent_id": None, "topic": None, "nsfw": False}
        return {**payload, "permission_overwrites": [overwrite]}


class Modal(dict[str, Any]):
    """A modal on a person's screen: Discord's modal object, and the interaction that opened it."""

    def __init__(self, data: Json, opened_by: Reply) -> None:
        super().__init__(data, components=_numbered(data["components"]))
        self.opened_by = opened_by


@dataclass(eq=False)
class Reply:
    """One interaction, and everything the bot answered to it so far (live).

    `kind` is slash, component, autocomplete or modal; `type` the callback type of the first answer
    (4 message, 5 and 6 deferred, 7 edit, 8 choices, 9 modal), None before it;
    `acknowledged_after` the seconds until then.
    """

    _standin: DiscordStandIn = field(repr=False)
    _person: Person
    _channel: Channel
    _interaction_type: int = field(repr=False)
    _source: _Stored | None = field(default=None, repr=False)  # whose component was used
    _name: str = field(default="", repr=False)  # of the command
    _option_type: int = field(default=3, repr=False)
    id: int = field(default_factory=snowflake)
    token: str = field(default="", repr=False)
    type: int | None = None
    acknowledged_after: float | None = None
    modal: Modal | None = field(default=None, repr=False)
    choices: list[Json] = field(default_factory=list, repr=False)
    _original: _Stored | None = field(default=None, repr=False)
    _followups: list[_Stored] = field(default_factory=list, repr=False)
    _created: float = field(default_factory=time.monotonic, repr=False)
    _delivered: float | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        header = base64.urlsafe_b64encode(f"interaction:{self.id}:".encode()).decode().rstrip("=")
        self.token = header + secrets.token_urlsafe(64)

    @property
    def kind(self) -> str:
        return KINDS[self._interaction_type]

    @property
    def deferred(self) -> bool:
        """Whether the first answer was a deferral (types 5 and 6)."""
        return self.type in (5, 6)

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

    def wait(self, seconds: float = 10.0) -> Reply:
        """Until the first answer has arrived; AssertionError if none does."""
        self._standin.wait_for(lambda _: self.type is not None, seconds, f"an answer to {self}")
        return self

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
    With `accepts_dms` False the bot gets 403 50007 for a DM."""

    def __init__(self, standin: DiscordStandIn, name: str, permissions: int) -> None:
        self._standin = standin
        self.id = snowflake()
        self.name = name
        self.permissions = permissions
        self.accepts_dms = True
        self._dm = standin._add_channel(Channel(standin, name, _recipient=self))

    def __repr__(self) -> str:
        return f"<Person {self.name}>"

    @property
    def dms(self) -> list[Json]:
        """The messages in the DM with the bot, oldest first."""
        return self._dm.messages

    def slash(self, command: str, channel: Channel | None = None, /, **options: Any) -> Reply:
        """Uses a command in a channel; no channel: in the DM."""
        return self._use_command(COMMAND, command, channel or self._dm, options)

    def autocomplete(
        self, command: str, channel: Channel | None, option: str, text: str, /, **others: Any
    ) -> list[Json]:
        """Types `text` into an option; the choices that the bot offers: [{"name", "value"}]."""
        values = {**others, option: text}
        reply = self._use_command(AUTOCOMPLETE, command, channel or self._dm, values, option)
        return reply.wait().choices

    def select(self, message: Json, placeholder: str, *choices: str) -> Reply:
        """Chooses in the menu with this placeholder, by the options' labels (or values)."""
        with self._standin._changed:
            stored = self._seen(message)
            menus = [c for _, c in _walk(stored.data["components"]) if c["type"] == STRING_SELECT]
            names = [menu.get("placeholder") for menu in menus]
            assert names.count(placeholder) == 1, f"one menu {placeholder!r} wanted, seen: {names}"
            menu = menus[names.index(placeholder)]
            assert not menu.get("disabled"), f"the menu {placeholder!r} is disabled"
            least, most = menu.get("min_values", 1), menu.get("max_values", 1)
            assert least <= len(choices) <= most, f"{least} to {most} options are to be chosen"
            offered = {option["value"]: option["value"] for option in menu["options"]}
            labels = {option["label"]: option["value"] for option in reversed(menu["options"])}
            wrong = [choice for choice in choices if choice not in {**offered, **labels}]
            assert not wrong, f"{placeholder!r} doesn't offer {wrong} but {[*labels][::-1]}"
            values = [{**offered, **labels}[choice] for choice in choices]
            return self._use_component(stored, menu, {"values": values})

    def press(self, message: Json, label: str) -> Reply:
        """Presses a button: by its label, the label without its emoji, or the label's beginning."""
        with self._standin._changed:
            stored = self._seen(message)
            buttons = [c for _, c in _walk(stored.data["components"]) if c["type"] == BUTTON]
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

    def submit(self, modal: Json, /, **values: str) -> Reply:
        """Submits a modal; texts by the inputs' custom_ids, those not named keep what is there."""
        assert isinstance(modal, Modal), "only a modal that the bot has shown can be submitted"
        opener = modal.opened_by
        assert opener._person is self, f"{self} doesn't see the modal of {opener._person}"
        parts = [component for _, component in _walk(modal["components"])]
        inputs = {part["custom_id"]: part for part in parts if part["type"] == TEXT_INPUT}
        assert values.keys() <= inputs.keys(), f"inputs are {[*inputs]}, not {[*values]}"
        filled = {key: values.get(key, item.get("value") or "") for key, item in inputs.items()}
        for key, item in inputs.items():
            text = filled[key]
            assert text or not item.get("required", True), f"{key} is required"
            least, most = item.get("min_length") or 0, item.get("max_length") or 4000
            assert not text or least <= len(text) <= most, f"{key}: {least} to {most} characters"
            assert item["style"] == 2 or "\n" not in text, f"{key} is a single line"

        def mirror(part: Json) -> Json:
            shape: Json = {key: part[key] for key in ("type", "id", "custom_id") if key in part}
            if part["type"] == TEXT_INPUT:
                shape["value"] = filled[part["custom_id"]]
            elif "component" in part:
                shape["component"] = mirror(part["component"])
            elif "components" in part:
                shape["components"] = [mirror(child) for child in part["components"]]
            return shape

        data = {"custom_id": modal["custom_id"]}
        data |= {"components": [mirror(part) for part in modal["components"]]}
        reply = Reply(self._standin, self, opener._channel, MODAL_SUBMIT, opener._source)
        return self._standin._interact(reply, data)

    def say(self, channel: Channel, content: str) -> Json:
        """Writes an ordinary message, which the bot can't edit and (in a guild) can't read."""
        with self._standin._changed:
            data = {"content": content, "author": self._user()}
            return self._standin._store(_Stored(data, channel)).data

    def _seen(self, message: Json) -> _Stored:
        stored = self._standin._messages[message["id"]]
        assert not stored.deleted, f"message {message['id']} is gone"
        assert not stored.channel.deleted, f"channel {stored.channel.name} is gone"
        owner = stored.audience or stored.channel._recipient
        assert owner in (None, self), f"{self} doesn't see the message to {owner}"
        return stored

    def _use_component(self, stored: _Stored, component: Json, more: Json) -> Reply:
        data = {"component_type": component["type"], "custom_id": component["custom_id"]}
        data |= {"id": component["id"], **more}
        reply = Reply(self._standin, self, stored.channel, COMPONENT, stored)
        return self._standin._interact(reply, data)

    def _use_command(
        self, kind: int, name: str, channel: Channel, values: Json, focused: str = ""
    ) -> Reply:
        with self._standin._changed:
            command, guild_id = self._find_command(name, channel)
            options = _fill_options(command, values, focused)
            types = {option["name"]: option["type"] for option in options}
            data = {"id": command["id"], "name": name, "type": 1, "options": options}
            data |= {"guild_id": str(guild_id)} if guild_id else {}
            reply = Reply(self._standin, self, channel, kind, None, name, types.get(focused, 3))
            return self._standin._interact(reply, data)

    def _find_command(self, name: str, channel: Channel) -> tuple[Json, int | None]:
        """The command and its guild's id, or None for a global one; as the client's list shows."""
        guild, admin = channel.guild, self.permissions & ADMINISTRATOR
        usable = VIEW_CHANNEL | USE_APPLICATION_COMMANDS
        if guild and not admin:
            assert self.permissions & usable == usable, f"{self} may not use commands here"
        scopes: list[int | None] = [guild.id, None] if guild and guild.bot_is_member else []
        for scope in scopes if guild else [None]:
            for command in self._standin.commands.get(scope, []):
                needed = int(command["default_member_permissions"] or 0)
                allowed = not guild or admin or self.permissions & needed == needed
                contexts = command["contexts"] or [0, 1] if command["dm_permission"] else [0]
                if command["name"] == name and allowed and (0 if guild else 1) in contexts:
                    return command, scope
        known = {scope: [c["name"] for c in cs] for scope, cs in self._standin.commands.items()}
        raise AssertionError(f"/{name} isn't offered to {self} in {channel.name}; all: {known}")

    def _user(self) -> Json:
        return _user(self.id, re.sub(r"[^a-z0-9_.]", "", self.name.lower()) or "someone", self.name)


def _fill_options(command: Json, values: Json, focused: str) -> list[Json]:
    """The options as the client sends them, checked as the client checks them."""
    known = {option["name"]: option for option in command["options"]}
    assert values.keys() <= known.keys(), f"options are {[*known]}, not {[*values]}"
    filled = []
    for name, option in known.items():
        if name not in values:
            assert focused or not option.get("required"), f"{name} is required"
            continue
        value: Any = values[name]
        kind = option["type"]
        entry = {"name": name, "type": kind, "value": value}
        if name == focused:
            filled.append({**entry, "value": str(value), "focused": True})
            continue
        types: dict[int, Any] = {3: str, 4: int, 5: bool, 10: (int, float)}
        assert kind in types, f"{name}: the stand-in knows no options of type {kind}"
        assert isinstance(value, types[kind]), f"{name} takes no {type(value).__name__}"
        choices = {choice["name"]: choice["value"] for choice in option.get("choices") or []}
        entry["value"] = value = choices.get(value, value)
        assert not choices or value in choices.values(), f"{name} offers {[*choices]}"
        size, bound = (len(value), "length") if kind == 3 else (value, "value")
        least, most = option.get(f"min_{bound}"), option.get(f"max_{bound}")
        assert least is None or size >= least, f"{name}: at least {least}"
        assert most is None or size <= most, f"{name}: at most {most}"
        filled.append(entry)
    return filled


# ----------------------------------------------------------------------------------------- Discord

_ROUTES: list[tuple[str, re.Pattern[str], Callable[..., Answer]]] = []


def _route(methods: str, path: str) -> Callable[[Callable[..., Answer]], Callable[..., Answer]]:
    def register(handler: Callable[..., Answer]) -> Callable[..., Answer]:
        _ROUTES.append((methods, re.compile(path), handler))
        return handler

    return register


class DiscordStandIn:
    """Discord for one application. `with DiscordStandIn() as discord: ...`, or start() and stop().

    To set: `rate_limits` (5 messages and 5 edits per 5 s and channel), `answer_within` (3 s for the
    first answer), `token_lifetime` (15 min for an interaction's token), `nonce_memory` (how long a
    nonce is recognised), `filesize_limits` (by boost tier). To read: `violations`; `requests`;
    `commands` (by guild id; None: global) and `syncs` (how often they were PUT); `rate_limited`
    (answers 429); `connected`, `identifies`, `resumes` (gateway).
    """

    def __init__(self, *, token: str | None = None) -> None:
        self.application_id = 1_150_000_000_000_000_001
        self.bot_user_id = self.application_id  # the same for every application since 2016
        id_part = base64.b64encode(str(self.bot_user_id).encode()).decode().rstrip("=")
        self.token = token or f"{id_part}.Gq3xTz.{secrets.token_urlsafe(29)[:38]}"
        self.api_url = ""
        self.gateway_url = ""
        self.rate_limits = True
        self.answer_within = 3.0
        self.token_lifetime = 900.0
        self.nonce_memory = 300.0
        self.filesize_limits = {0: 10 * MIB, 1: 10 * MIB, 2: 50 * MIB, 3: 100 * MIB}

        self.commands: dict[int | None, list[Json]] = {}
        self.syncs = 0
        self.violations: list[str] = []
        self.requests: list[RestCall] = []
        self.rate_limited = 0
        self.identifies = 0
        self.resumes = 0

        self._changed = threading.Condition(threading.RLock())
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing = asyncio.Event()
        self._hang_over = asyncio.Event()
        self._bot = _user(self.bot_user_id, "comfygen", None, bot=True)
        self._guilds: dict[int, Guild] = {}
        self._channels: dict[int, Channel] = {}
        self._people: dict[int, Person] = {}
        self._messages: dict[str, _Stored] = {}
        self._replies: dict[str, Reply] = {}  # by token
        self._sessions: list[_Session] = []
        self._connections: list[_Connection] = []
        self._refusing = False
        self._faults: list[_Fault] = []
        self._windows: dict[str, tuple[float, int]] = {}
        self._bytes: dict[str, bytes] = {}  # uploads by url
        self._heavy: deque[RestCall] = deque()
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
        app.router.add_get("/gateway", self._gateway)
        app.router.add_route("*", "/api/v10{path:/.*}", self._rest)
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
        for connection in self._connections:
            if connection.transport:
                connection.transport.abort()
        await runner.cleanup()

    # ------------------------------------------------------------------------------- the world

    def add_guild(
        self, name: str = "Another server", *, premium_tier: int = 0, bot_is_member: bool = True
    ) -> Guild:
        """A new server, without channels."""
        with self._changed:
            guild = Guild(self, name, premium_tier, bot_is_member)
            self._guilds[guild.id] = guild
            if bot_is_member:
                self._emit("GUILD_CREATE", guild._create_event(), GUILDS)
            return guild

    def person(self, name: str = "mira", *, permissions: int = MEMBER_PERMISSIONS) -> Person:
        """A new person, with these permissions in every channel of every guild."""
        with self._changed:
            person = Person(self, name, permissions)
            self._people[person.id] = person
            return person

    def delete_message(self, message: Json) -> None:
        """A moderator deletes a message: the bot gets 404 10008 for it from now on."""
        with self._changed:
            self._delete(self._messages[message["id"]])

    def uploads(self, message: Json) -> list[Json]:
        """All files of a message as attachment objects. Its `attachments`, as in the real API,
        lack those that an embed shows (there the embed's image has the file's CDN url)."""
        return list(self._messages[message["id"]].uploads)

    def attachment_bytes(self, attachment: Json) -> bytes:
        """The content of an attachment, or of an embed's image or thumbnail. KeyError when it was
        forgotten: the last 100 requests with files are kept, up to 200 MiB."""
        with self._changed:
            return self._bytes[attachment["url"]]

    # --------------------------------------------------------------------------------- waiting

    @property
    def connected(self) -> bool:
        """Whether a bot is identified (or resumed) on the gateway now."""
        with self._changed:
            return any(session.connection for session in self._sessions)

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

    # ---------------------------------------------------------------------------------- faults

    def fault(
        self,
        method: str,
        path_pattern: str,
        kind: str | int,
        times: int | None = 1,
        *,
        seconds: float = 0.0,
        code: int | None = None,
    ) -> None:
        """The next `times` requests (None: all) with this method ("*": any) and a path in which
        the regular expression is found, like "/channels/12/messages", go wrong.

        `kind`: an HTTP status, with Discord's error `code` (default 403 50013, 404 10003, 413
        40005, else 0); "reset": aborted, not applied; "lost answer": applied, then aborted;
        "rate limit": 429 for `seconds`; "hang": no answer for `seconds`, then it is applied as
        usual; with 0 it stays until clear_faults() or stop(), and is not applied.
        """
        kinds = ("reset", "lost answer", "rate limit", "hang")
        assert isinstance(kind, int) or kind in kinds, f"{kind!r} is none of {kinds}"
        self._faults.append(_Fault(method, path_pattern, kind, times, seconds, code))

    def clear_faults(self) -> None:
        """No more faults or callbacks; what hangs is let go (aborted)."""
        self._faults.clear()
        if self._loop:
            over, self._hang_over = self._hang_over, asyncio.Event()
            self._loop.call_soon_threadsafe(over.set)

    def before(self, method: str, path_pattern: str, callback: Callable[[], object]) -> None:
        """Calls back once, in the server's thread, when such a request has arrived; it is applied
        afterwards, whether the bot still lives or not."""
        self._faults.append(_Fault(method, path_pattern, "before", callback=callback))

    def after(self, method: str, path_pattern: str, callback: Callable[[], object]) -> None:
        """Calls back once, in the server's thread, when such a request was applied, before it is
        answered."""
        self._faults.append(_Fault(method, path_pattern, "after", callback=callback))

    def drop_gateway(self, *, resumable: bool = True) -> None:
        """Aborts the gateway's connection, without a close code. A resumable session keeps what
        happens meanwhile; one that isn't is answered with Invalid Session at RESUME."""
        with self._changed:
            for session in list(self._sessions):
                if session.connection:
                    self._hang_up(session.connection)
                if not resumable:
                    self._sessions.remove(session)

    def refuse_gateway(self, refuse: bool) -> None:
        """From now on new gateway connections are refused (503), or accepted again."""
        self._refusing = refuse

    def reconnect_request(self) -> None:
        """Sends Reconnect (op 7): the bot is to come back and resume."""
        with self._changed:
            for session in self._sessions:
                if session.connection:
                    self._send(session.connection, {"op": 7, "d": None})

    # --------------------------------------------------------------------------------- gateway

    async def _gateway(self, request: web.Request) -> web.StreamResponse:
        if self._refusing:
            return web.Response(status=503)
        ws = web.WebSocketResponse(max_msg_size=MIB)
        await ws.prepare(request)
        connection = _Connection(request)
        self._connections.append(connection)
        writer = asyncio.create_task(self._write_gateway(ws, connection))
        self._send(connection, {"op": 10, "d": {"heartbeat_interval": 41_250}})
        try:
            async for message in ws:
                if message.type is WSMsgType.TEXT:
                    with self._changed:
                        self._receive(connection, message.data)
                        self._changed.notify_all()
        finally:
            writer.cancel()
            self._connections.remove(connection)
            with self._changed:
                session = connection.session
                if session and session.connection is connection:
                    session.connection = None
                    if ws.close_code in (1000, 1001):  # a goodbye; after any other it may be back
                        self._sessions.remove(session)
                self._changed.notify_all()
        return ws

    async def _write_gateway(self, ws: web.WebSocketResponse, connection: _Connection) -> None:
        with contextlib.suppress(ConnectionError, RuntimeError):
            while not isinstance(item := await connection.outbox.get(), int):
                text, token = item
                if token:
                    self._replies[token]._delivered = time.monotonic()
                if connection.deflate:
                    data = connection.deflate.compress(text.encode())
                    await ws.send_bytes(data + connection.deflate.flush(zlib.Z_SYNC_FLUSH))
                else:
                    await ws.send_str(text)
            await ws.close(code=item)

    def _receive(self, connection: _Connection, text: str) -> None:
        try:
            payload = json.loads(text)
            op, data = payload["op"], payload.get("d")
        except (ValueError, KeyError, TypeError):
            op, data = None, None
        handlers = {2: self._identify, 6: self._resume}
        if op is None or len(text.encode()) > 4096:
            self._close(connection, 4002, f"not a payload of at most 4096 bytes: {text[:200]}")
        elif op == 1:
            self._send(connection, {"op": 11, "d": None})
        elif op in handlers and (data or {}).get("token") != self.token:
            self._close(connection, 4004)
        elif op in handlers:
            handlers[op](connection, data)
        elif connection.session is None:
            self._close(connection, 4003, f"op {op} before IDENTIFY")
        elif op != 3:  # a presence is of no interest
            self._close(connection, 4001, f"op {op} is not known to the stand-in")

    def _identify(self, connection: _Connection, data: Json) -> None:
        intents = data.get("intents")
        if connection.session:
            return self._close(connection, 4005, "a second IDENTIFY")
        if not isinstance(intents, int) or intents & ~KNOWN_INTENTS or "properties" not in data:
            return self._close(connection, 4013, f"IDENTIFY with intents {intents}")
        if intents & PRIVILEGED_INTENTS:
            return self._close(connection, 4014, "privileged intents")
        self.identifies += 1
        self._sessions = [session for session in self._sessions if session.connection]
        session = connection.session = _Session(connection, intents)
        self._sessions.append(session)
        guilds = [guild for guild in self._guilds.values() if guild.bot_is_member]
        ready: Json = {"v": 10, "session_id": session.id, "resume_gateway_url": self.gateway_url}
        ready |= {"user": self._bot, "application": {"id": str(self.application_id), "flags": 0}}
        ready["guilds"] = [{"id": str(guild.id), "unavailable": True} for guild in guilds]
        self._emit_to(session, "READY", ready)
        for guild in guilds if intents & GUILDS else []:
            self._emit_to(session, "GUILD_CREATE", guild._create_event())
        return None

    def _resume(self, connection: _Connection, data: Json) -> None:
        session = next((s for s in self._sessions if s.id == data.get("session_id")), None)
        last = data.get("seq") or 0
        if session is None or session.events[0][0] > last + 1:
            return self._send(connection, {"op": 9, "d": False})
        if last > session.sequence:
            return self._close(connection, 4007, f"RESUME with seq {last} of {session.sequence}")
        if session.connection:
            self._hang_up(session.connection)
        self.resumes += 1
        session.connection, connection.session = connection, session
        for number, text, token in session.events:
            if number > last:
                self._put(connection, (text, token))
        return self._emit_to(session, "RESUMED", {})

    def _emit(self, event: str, data: Json, intent: int = 0, token: str = "") -> None:
        """Sends an event to the sessions that asked for it; those away get it at RESUME."""
        for session in self._sessions:
            if session.intents & intent == intent:
                self._emit_to(session, event, data, token)
        self._changed.notify_all()

    def _emit_to(self, session: _Session, event: str, data: Json, token: str = "") -> None:
        session.sequence += 1
        text = json.dumps({"op": 0, "t": event, "s": session.sequence, "d": data})
        session.events.append((session.sequence, text, token))
        if session.connection:
            self._put(session.connection, (text, token))

    def _send(self, connection: _Connection, payload: Json) -> None:
        self._put(connection, (json.dumps(payload), ""))

    def _close(self, connection: _Connection, code: int, violation: str = "") -> None:
        if violation:
            self.violations.append(f"gateway: {violation}")
        self._put(connection, code)

    def _put(self, connection: _Connection, item: tuple[str, str] | int) -> None:
        with contextlib.suppress(RuntimeError):  # stopped
            assert self._loop
            self._loop.call_soon_threadsafe(connection.outbox.put_nowait, item)

    def _hang_up(self, connection: _Connection) -> None:
        if connection.session:
            connection.session.connection = None
        if connection.transport and self._loop:
            self._loop.call_soon_threadsafe(connection.transport.abort)

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
                "channel": {**channel._payload(), "permissions": str(person.permissions)},
                "locale": "en-US",
                "app_permissions": str(channel.bot_permissions),
                "entitlements": [],
                "authorizing_integration_owners": {"0": str(guild.id) if guild else "0"},
                "context": 0 if guild else 1,
                "attachment_size_limit": self._filesize_limit(channel),
            }
            if guild:
                partial = {"id": str(guild.id), "locale": "en-US", "features": []}
                payload |= {"guild_id": str(guild.id), "guild": partial, "guild_locale": "en-US"}
                member = _member(person._user())
                payload["member"] = {**member, "permissions": str(person.permissions)}
            else:
                payload["user"] = person._user()
            if reply._source:
                payload["message"] = self._shown(reply._source)
            self._emit("INTERACTION_CREATE", payload, token=reply.token)
            return reply

    @_route("POST", r"/interactions/(\d+)/([^/]+)/callback")
    def _callback(self, call: RestCall, interaction_id: str, token: str) -> Answer:
        reply = self._replies.get(token)
        if reply is None or str(reply.id) != interaction_id:
            raise DiscordError(404, 10062, "Unknown interaction", violation=True)
        # After a fault, or when the gateway was late, a second or late answer is no one's fault.
        fair = not any(earlier.fault for earlier in self.requests if earlier.path == call.path)
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
        data = _pruned(data) if kind == 9 else data
        allowed = CALLBACKS[reply._interaction_type]
        if reply._source is None:  # a modal that a command opened: nothing to edit
            allowed = tuple(number for number in allowed if number != 7)
        rules: dict[Any, Rule] = {5: _object({"flags": _bits(EPHEMERAL)}), 9: _MODAL}
        rules[8] = _object({"choices": _choices(reply._option_type)})
        form = _Form()
        _object({"type*": _one_of(*allowed)}, "data")(form, call.body, "")
        if kind in rules:
            rules[kind](form, data, "data")
        if kind == 9 and not form.errors:
            _check_components(form, data["components"], "data.components")
        self._judge(call, form)
        original = reply._source
        if kind == 4:
            original = self._answer_with(call, reply, data)
        elif kind == 5:
            flags = data.get("flags", 0) | LOADING
            stored = _Stored({**self._origin(reply), "flags": flags}, reply._channel)
            original = self._store(stored, reply._person if flags & EPHEMERAL else None)
        elif kind == 7 and original:
            self._edit(call, original, data, ("users",))
        elif kind == 8:
            reply.choices = data.get("choices", [])
        elif kind == 9:
            reply.modal = Modal(data, reply)
        reply._original = original
        reply.type = kind

    def _answer_with(self, call: RestCall, reply: Reply, data: Any) -> _Stored:
        draft = self._draft(call, data, _ANSWER, reply._channel, ("users",))
        draft.data |= self._origin(reply)
        return self._store(draft, reply._person if draft.data["flags"] & EPHEMERAL else None)

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

    def _reply_of(self, call: RestCall, application_id: str, token: str) -> Reply:
        """The interaction of a webhook, which comes into being with the first answer."""
        reply = self._replies.get(token)
        if reply is None or application_id != str(self.application_id):
            raise DiscordError(404, 10015, "Unknown Webhook", violation=True)
        if call.time - reply._created > self.token_lifetime:
            raise DiscordError(401, 50027, "Invalid Webhook Token")
        if reply.type is None:
            callback = f"/interactions/{reply.id}/{token}/callback"
            tried = any(earlier.path == callback for earlier in self.requests)
            raise DiscordError(404, 10015, "Unknown Webhook", violation=not tried)
        return reply

    @_route("POST", r"/webhooks/(\d+)/([^/]+)")
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

    @_route("GET PATCH DELETE", r"/webhooks/(\d+)/([^/]+)/messages/(@original|\d+)")
    def _answered(self, call: RestCall, application_id: str, token: str, which: str) -> Answer:
        reply = self._reply_of(call, application_id, token)
        known = [s for s in (reply._original, *reply._followups) if s and not s.deleted]
        wanted = [s for s in known if s.data["id"] == which or which == "@original"][:1]
        if not wanted or (which == "@original" and wanted[0] is not reply._original):
            raise DiscordError(404, 10008, "Unknown Message")
        return self._apply(call, wanted[0], ("users",))

    # -------------------------------------------------------------------------------- messages

    def _apply(self, call: RestCall, stored: _Stored, parse: tuple[str, ...]) -> Answer:
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
        old: _Stored | None = None,
    ) -> _Stored:
        """Judges the body of a message that is created or edited (`old`); what it becomes.
        `parse`: the mentions that are parsed when the body doesn't say."""
        if channel.deleted or (old and old.deleted):
            gone = 10003 if channel.deleted else 10008
            raise DiscordError(404, gone, ERRORS[gone])
        limit = self._filesize_limit(channel)
        sizes = [len(content) for _, content in call._uploads.values()]
        if max(sizes, default=0) > limit or sum(sizes) > max(limit, 25 * MIB):
            raise DiscordError(413, 40005, "Request entity too large", violation=True)
        form = _Form()
        rule(form, data, "")
        flags = (data.get("flags") or 0) if isinstance(data, dict) else 0
        v2 = (flags | (old.data["flags"] if old else 0)) & COMPONENTS_V2
        if isinstance(data, dict) and data.get("components") is not None:
            (_LAYOUT_V2 if v2 else _LAYOUT_V1)(form, data["components"], "components")
        self._judge(call, form)
        draft = _Stored({"content": (data.get("content") or "").strip(), "flags": flags}, channel)
        draft.embeds = _pruned(data.get("embeds") or [])
        draft.components = _pruned(data.get("components") or [])
        if old:
            draft.data = {} if "content" not in data else {"content": draft.data["content"]}
            draft.embeds = draft.embeds if "embeds" in data else old.embeds
            draft.components = draft.components if "components" in data else old.components
        draft.uploads = self._attach(form, call, data, channel, old)
        mentions = data.get("allowed_mentions")
        _check_message(form, draft, mentions or {})
        content: Any = draft.data.get("content", old.data["content"] if old else "")
        if v2 and (content or draft.embeds):
            code = "MESSAGE_CANNOT_USE_LEGACY_FIELDS_WITH_COMPONENTS_V2"
            form.error("flags", code, "IS_COMPONENTS_V2 excludes content and embeds")
        self._judge(call, form)
        if not (content or draft.embeds or draft.components or draft.uploads):
            raise DiscordError(400, 50006, "Cannot send an empty message", violation=True)
        if "content" in draft.data:
            mentions = {"parse": parse} if mentions is None else mentions
            draft.data |= self._mentions(content, channel, mentions)
        return draft

    def _attach(
        self, form: _Form, call: RestCall, data: Json, channel: Channel, old: _Stored | None
    ) -> list[Json]:
        """The message's files after the request: those kept and the new ones."""
        kept = {upload["id"]: upload for upload in old.uploads} if old else {}
        entries = data.get("attachments")
        if entries is None:
            entries = [{"id": name} for name in (*kept, *call._uploads)]
        uploads = dict(call._uploads)
        result = []
        for index, entry in enumerate(entries):
            if str(entry["id"]) in kept:
                result.append(kept[str(entry["id"])])
            elif int(entry["id"]) in uploads:
                name, content = uploads.pop(int(entry["id"]))
                upload = _new_upload(channel, entry.get("filename") or name, content)
                self._bytes[upload["url"]] = content
                call._urls.append(upload["url"])
                result.append(upload)
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

    def _store(self, stored: _Stored, audience: Person | None = None) -> _Stored:
        """Completes and publishes a new message; with an audience it is ephemeral."""
        message_id, channel_id = str(snowflake()), str(stored.channel.id)
        base = {"id": message_id, "channel_id": channel_id, "author": self._bot, "type": 0}
        base |= {"content": "", "timestamp": _now(), "edited_timestamp": None, "flags": 0}
        base |= {"tts": False, "pinned": False, **self._mentions("", stored.channel, {})}
        stored.data = {**base, **stored.data}
        stored.audience = audience
        self._render(stored)
        self._messages[message_id] = stored
        self._publish("create", stored)
        return stored

    def _edit(self, call: RestCall, stored: _Stored, data: Any, parse: tuple[str, ...]) -> None:
        draft = self._draft(call, data, _EDIT, stored.channel, parse, stored)
        stored.embeds, stored.components = draft.embeds, draft.components
        stored.uploads = draft.uploads
        was = stored.data["flags"]
        flags = was & ~LOADING
        if data.get("flags") is not None:  # others are ignored
            flags = flags & ~SUPPRESS_EMBEDS | data["flags"] & (SUPPRESS_EMBEDS | COMPONENTS_V2)
        edited = None if was & LOADING else _now()
        stored.data.update({**draft.data, "flags": flags, "edited_timestamp": edited})
        self._render(stored)
        self._publish("edit", stored)

    def _render(self, stored: _Stored) -> None:
        """Sets embeds, components and attachments as Discord shows them: `attachment://` becomes
        the file's CDN url, and a file shown in an embed leaves `attachments`."""
        files = {upload["filename"]: upload for upload in stored.uploads}
        shown = {"embeds": copy.deepcopy(stored.embeds)}
        shown["components"] = _numbered(stored.components)
        used = set()
        for holder, key, _ in list(_references(shown)):
            upload = files[holder[key].removeprefix("attachment://")]
            used.add(upload["id"])
            proxy = "proxy_icon_url" if key == "icon_url" else "proxy_url"
            holder |= {key: upload["url"], proxy: upload["proxy_url"]}
        for embed in shown["embeds"]:
            embed["type"] = "rich"
        hidden = stored.data["flags"] & COMPONENTS_V2
        loose = [up for up in stored.uploads if up["id"] not in used and not hidden]
        stored.data.update({**shown, "attachments": loose})

    def _publish(self, event: str, stored: _Stored) -> None:
        """Tells the channel's history and the gateway, unless the message is ephemeral."""
        channel, guild = stored.channel, stored.channel.guild
        if not stored.audience:
            entry = {"event": event, "message": copy.deepcopy(stored.data)}
            channel.history.append({**entry, "time": time.monotonic()})
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
            self._emit(names[event], data, GUILD_MESSAGES if guild else DIRECT_MESSAGES)
        self._changed.notify_all()

    def _shown(self, stored: _Stored) -> Json:
        """A message as the bot reads it: without the nonce, which is lost when it is read again,
        and (no privileged intent) without what other people write in a guild."""
        data = {key: value for key, value in stored.data.items() if key != "nonce"}
        if data["author"] is not self._bot and stored.channel.guild:
            data["content"] = ""
        return data

    def _delete(self, stored: _Stored) -> None:
        if not stored.deleted:
            stored.deleted = True
            self._publish("delete", stored)

    def _visible(self, channel: Channel) -> list[_Stored]:
        here = [stored for stored in self._messages.values() if stored.channel is channel]
        return [stored for stored in here if not stored.deleted and not stored.audience]

    def _reference(self, source: _Stored) -> Json:
        place = source.channel
        reference = {"type": 0, "message_id": source.data["id"], "channel_id": str(place.id)}
        return {**reference, "guild_id": str(place.guild.id)} if place.guild else reference

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

    @_route("GET", r"/channels/(\d+)")
    def _get_channel(self, call: RestCall, channel_id: str) -> Answer:
        return 200, self._channel(channel_id)._payload()

    @_route("POST", r"/channels/(\d+)/typing")
    def _type(self, call: RestCall, channel_id: str) -> Answer:
        self._channel(channel_id, SEND_MESSAGES)
        return 204, None

    @_route("POST", r"/channels/(\d+)/messages")
    def _create_message(self, call: RestCall, channel_id: str) -> Answer:
        channel = self._channel(channel_id, SEND_MESSAGES)
        data = call.body if isinstance(call.body, dict) else {}
        if channel._recipient and not channel._recipient.accepts_dms:
            raise DiscordError(403, 50007, "Cannot send messages to this user")
        needed = [EMBED_LINKS] if data.get("embeds") else []
        self._channel(channel_id, *needed, *([ATTACH_FILES] if call._uploads else []))
        draft = self._draft(call, call.body, _CREATE, channel, ("users", "roles", "everyone"))
        if (nonce := data.get("nonce")) is not None:
            form = _Form()
            _text(25)(form, nonce if isinstance(nonce, str) else str(nonce), "nonce")
            self._judge(call, form)
            draft.data["nonce"] = nonce
            if data.get("enforce_nonce"):
                for same in self._visible(channel):
                    recent = time.monotonic() - same.created < self.nonce_memory
                    if recent and same.data.get("nonce") == nonce:
                        return 200, same.data
        draft.data |= self._replied(channel, data.get("message_reference"))
        return 200, self._store(draft).data

    def _replied(self, channel: Channel, reference: Json | None) -> Json:
        if reference is None:
            return {}
        if channel.guild and not channel.bot_permissions & READ_MESSAGE_HISTORY:
            message = "Cannot reply without permission to read message history"
            raise DiscordError(403, 160002, message)
        for source in self._visible(channel):
            if source.data["id"] == str(reference.get("message_id")):
                return {"type": 19, "message_reference": self._reference(source)}
        if reference.get("fail_if_not_exists", True):
            form = _Form()
            form.error("message_reference", "REPLIES_UNKNOWN_MESSAGE", "Unknown message")
            raise self._invalid(form, violation=False)
        return {}

    @_route("GET", r"/channels/(\d+)/messages")
    def _get_messages(self, call: RestCall, channel_id: str) -> Answer:
        channel = self._channel(channel_id)
        if channel.guild and not channel.bot_permissions & READ_MESSAGE_HISTORY:
            return 200, []
        form = _Form()
        limit = int(call.query.get("limit", 50))
        _whole(1, 100)(form, limit, "limit")
        self._judge(call, form)
        found = self._visible(channel)
        if after := call.query.get("after"):
            found = [stored for stored in found if int(stored.data["id"]) > int(after)][:limit]
        if before := call.query.get("before"):
            found = [stored for stored in found if int(stored.data["id"]) < int(before)]
        return 200, [self._shown(stored) for stored in reversed(found[-limit:])]

    @_route("GET PATCH DELETE", r"/channels/(\d+)/messages/(\d+)")
    def _one_message(self, call: RestCall, channel_id: str, message_id: str) -> Answer:
        needed = [READ_MESSAGE_HISTORY] if call.method == "GET" else []
        channel = self._channel(channel_id, *needed)
        stored = next((s for s in self._visible(channel) if s.data["id"] == message_id), None)
        if stored is None:
            raise DiscordError(404, 10008, "Unknown Message")
        if stored.data["author"] is not self._bot and call.method == "PATCH":
            message = "Cannot edit a message authored by another user"
            raise DiscordError(403, 50005, message, violation=True)
        if stored.data["author"] is not self._bot and call.method == "DELETE":
            self._channel(channel_id, MANAGE_MESSAGES)
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
            self._emit(event, {**channel._payload(), "newly_created": what == "CREATE"}, GUILDS)

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

    def _filesize_limit(self, channel: Channel) -> int:
        return self.filesize_limits[channel.guild.premium_tier if channel.guild else 0]

    def _my_guild(self, guild_id: str, refusal: DiscordError) -> Guild:
        guild = self._guilds.get(int(guild_id))
        if guild is None or not guild.bot_is_member:
            raise refusal
        return guild

    @_route("GET", r"/users/(@me|\d+)")
    def _get_user(self, call: RestCall, user_id: str) -> Answer:
        if user_id in ("@me", str(self.bot_user_id)):
            return 200, self._bot
        if int(user_id) not in self._people:
            raise DiscordError(404, 10013, "Unknown User")
        return 200, self._people[int(user_id)]._user()

    @_route("POST", r"/users/@me/channels")
    def _open_dm(self, call: RestCall) -> Answer:
        form = _Form()
        _object({"recipient_id*": _id})(form, call.body, "")
        self._judge(call, form)
        if int(call.body["recipient_id"]) not in self._people:
            raise DiscordError(400, 50033, "Invalid Recipient(s)")
        return 200, self._people[int(call.body["recipient_id"])]._dm._payload()

    @_route("GET", r"/guilds/(\d+)")
    def _get_guild(self, call: RestCall, guild_id: str) -> Answer:
        return 200, self._my_guild(guild_id, DiscordError(404, 10004, "Unknown Guild"))._payload()

    @_route("GET", r"/guilds/(\d+)/members/(\d+)")
    def _get_member(self, call: RestCall, guild_id: str, user_id: str) -> Answer:
        guild = self._my_guild(guild_id, DiscordError(404, 10004, "Unknown Guild"))
        if user_id == str(self.bot_user_id):
            return 200, _member(self._bot, (guild._bot_role_id,))
        if int(user_id) not in self._people:
            raise DiscordError(404, 10007, "Unknown Member")
        return 200, _member(self._people[int(user_id)]._user())

    @_route("GET", r"/gateway/bot")
    def _get_gateway(self, call: RestCall) -> Answer:
        limit = {"total": 1000, "remaining": 1000, "reset_after": 0, "max_concurrency": 1}
        return 200, {"url": self.gateway_url, "shards": 1, "session_start_limit": limit}

    @_route("GET", r"(?:/oauth2)?/applications/@me")
    def _get_application(self, call: RestCall) -> Answer:
        info: Json = {"id": str(self.application_id), "name": "ComfyGen", "description": ""}
        info |= {"icon": None, "bot_public": False, "bot_require_code_grant": False, "flags": 0}
        owner = _user(self.guild._owner_id, "owner", "Owner")
        return 200, {**info, "verify_key": "5eed" * 16, "owner": owner, "team": None}

    @_route("GET PUT", r"/applications/(\d+)(?:/guilds/(\d+))?/commands")
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
        form = _Form()
        _COMMANDS(form, call.body, "")
        if not form.errors:
            _check_commands(form, call.body)
        self._judge(call, form)
        old = {command["name"]: command["id"] for command in self.commands.get(scope, [])}
        base: Json = {"type": 1, "application_id": str(self.application_id), "options": []}
        base |= {"contexts": None, "integration_types": [0], "default_member_permissions": None}
        base |= {"dm_permission": True, "nsfw": False, "guild_id": scope and str(scope)}
        registered = []
        for sent in call.body:
            given = {key: value for key, value in sent.items() if value is not None}
            ids = {"id": old.get(sent["name"], str(snowflake())), "version": str(snowflake())}
            registered.append({**base, **given, **ids})
        self.commands[scope] = registered
        self.syncs += 1
        return 200, registered

    # ------------------------------------------------------------------------------------ REST

    async def _rest(self, request: web.Request) -> web.StreamResponse:
        call, unreadable = await self._read(request)
        with self._changed:
            self.requests.append(call)
            fault = self._take_fault(call)
            self._changed.notify_all()
        self._call_back("before", call)
        if fault and fault.kind != "lost answer":
            answer = await self._misbehave(request, call, fault)
            if answer:
                return answer
        with self._changed:
            answer = self._respond(request, call, unreadable)
            self._remember(call)
            self._changed.notify_all()
        self._call_back("after", call)
        if fault and fault.kind == "lost answer":
            _abort(request)
        return answer

    async def _read(self, request: web.Request) -> tuple[RestCall, DiscordError | None]:
        body: Any = None
        unreadable = None
        uploads: dict[int, tuple[str, bytes]] = {}
        try:
            if request.content_type == "multipart/form-data":
                form = await request.post()
                payload = form.get("payload_json", "{}")
                body = None if isinstance(payload, web.FileField) else json.loads(payload)
                for key, part in form.items():
                    number = re.fullmatch(r"files\[(\d+)\]", key)
                    if number and isinstance(part, web.FileField):
                        uploads[int(number[1])] = (part.filename, part.file.read())
            elif request.can_read_body:
                body = json.loads(await request.text())
        except ValueError:
            message = "The request body contains invalid JSON."
            unreadable = DiscordError(400, 50109, message, violation=True)
        arguments = (request.method, request.match_info["path"], dict(request.query))
        call = RestCall(*arguments, body, dict(uploads.values()), time.monotonic())
        call._uploads = uploads
        return call, unreadable

    def _respond(
        self, request: web.Request, call: RestCall, unreadable: DiscordError | None
    ) -> web.Response:
        """Applies a request, and makes its answer."""
        headers: dict[str, str] = {}
        try:
            if not call.path.startswith(("/interactions/", "/webhooks/")):
                if request.headers.get("Authorization") != f"Bot {self.token}":
                    raise DiscordError(401, 0, "401: Unauthorized")
                headers = self._rate_limit(call)
            if unreadable:
                raise unreadable
            for methods, pattern, handler in _ROUTES:
                match = pattern.fullmatch(call.path)
                if match and call.method in methods.split():
                    return self._answer_call(call, *handler(self, call, *match.groups()), headers)
            raise DiscordError(404, 0, "404: Not Found", violation=True)
        except DiscordError as refusal:
            if refusal.violation:
                self.violations.append(f"{call.method} {call.path}: {refusal}")
            return self._answer_call(
                call, refusal.status, refusal.body, {**headers, **refusal.headers}
            )
        except Exception:
            self.violations.append(f"the stand-in broke at {call}:\n{traceback.format_exc()}")
            return self._answer_call(call, 500, {"message": "stand-in", "code": 0}, headers)

    def _answer_call(
        self, call: RestCall, status: int, body: Any, headers: dict[str, str]
    ) -> web.Response:
        call.status = status
        self.rate_limited += status == 429
        # discord.py takes a 429 without Via for a ban, and compares the content type literally.
        headers = {"Via": "1.1 google", **headers}
        if body is None:
            return web.Response(status=status, headers=headers)
        headers["Content-Type"] = "application/json"
        return web.Response(status=status, headers=headers, body=json.dumps(body).encode())

    def _judge(self, call: RestCall, form: _Form) -> None:
        """Notes the keys that Discord ignores; refuses the request when there are errors."""
        self.violations += [f"{call.method} {call.path}: unknown {key}" for key in form.unknown]
        form.unknown.clear()
        if form.errors:
            raise self._invalid(form)

    def _invalid(self, form: _Form, *, violation: bool = True) -> DiscordError:
        message = "Invalid Form Body " + "; ".join(form.flat)
        refusal = DiscordError(400, 50035, message, violation=violation)
        refusal.body = {"message": "Invalid Form Body", "code": 50035, "errors": form.errors}
        return refusal

    def _rate_limit(self, call: RestCall) -> dict[str, str]:
        """Five new messages and five edits in five seconds, for each channel."""
        match = re.fullmatch(r"/channels/(\d+)/messages(/\d+)?", call.path)
        if not match or call.method not in ("POST", "PATCH") or not self.rate_limits:
            return {}
        bucket = _bucket(call)
        key, now = f"{bucket}:{match[1]}", time.monotonic()
        start, used = self._windows.get(key, (now, 0))
        if now - start >= 5:
            start, used = now, 0
        if used >= 5:
            raise _rate_limited(bucket, start + 5 - now)
        self._windows[key] = (start, used + 1)
        return _limit_headers(bucket, 4 - used, start + 5 - now)

    def _take(self, call: RestCall, wanted: Callable[[_Fault], bool]) -> _Fault | None:
        for fault in self._faults:
            fits = fault.method in (call.method, "*") and re.search(fault.pattern, call.path)
            if fits and wanted(fault):
                if fault.times is not None:
                    fault.times -= 1
                    if fault.times <= 0:
                        self._faults.remove(fault)
                return fault
        return None

    def _take_fault(self, call: RestCall) -> _Fault | None:
        fault = self._take(call, lambda fault: fault.callback is None)
        call.fault = str(fault.kind) if fault else None
        return fault

    def _call_back(self, when: str, call: RestCall) -> None:
        while hook := self._take(call, lambda fault: fault.kind == when):
            assert hook.callback
            hook.callback()

    async def _misbehave(
        self, request: web.Request, call: RestCall, fault: _Fault
    ) -> web.Response | None:
        """The answer of a request that isn't applied; None when it goes on as usual."""
        if fault.kind == "hang":
            over = self._hang_over
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(over.wait(), fault.seconds or None)
            if not over.is_set():
                return None
        with self._changed:
            self._remember(call)
            self._changed.notify_all()
            if fault.kind in ("reset", "hang"):
                _abort(request)
                return web.Response(status=500)
            if fault.kind == "rate limit":
                refusal = _rate_limited(_bucket(call), fault.seconds)
                return self._answer_call(call, 429, refusal.body, refusal.headers)
            status = int(fault.kind)
            code = USUAL_CODES.get(status, 0) if fault.code is None else fault.code
            body = {"message": ERRORS.get(code, f"{status}: Error"), "code": code}
            return self._answer_call(call, status, body, {})

    def _remember(self, call: RestCall) -> None:
        """Forgets the bytes of old uploads, but their hash."""
        call._uploads = {}
        if call.files:
            self._heavy.append(call)
        while len(self._heavy) > 100 or sum(map(_weight, self._heavy)) > 200 * MIB:
            old = self._heavy.popleft()
            for url in old._urls:
                del self._bytes[url]
            for name, content in old.files.items():
                digest = hashlib.sha256(content).hexdigest()
                old.files[name] = f"sha256={digest} size={len(content)}".encode()


def _weight(call: RestCall) -> int:
    return sum(map(len, call.files.values()))


def _new_upload(channel: Channel, filename: str, content: bytes) -> Json:
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", filename)  # as Discord does
    upload_id = str(snowflake())
    path = f"attachments/{channel.id}/{upload_id}/{name}?ex=7fffffff&is=60000000&hm=5eed"
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    upload = {"id": upload_id, "filename": name, "size": len(content), "content_type": kind}
    upload["url"] = f"https://cdn.discordapp.com/{path}"
    return {**upload, "proxy_url": f"https://media.discordapp.net/{path}"}


def _abort(request: web.Request) -> None:
    """Resets the connection, so that the bot gets no answer."""
    if request.transport:
        linger = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
        connection = request.transport.get_extra_info("socket")
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        request.transport.abort()


def _bucket(call: RestCall) -> str:
    route = re.sub(r"\d{17,}|[\w-]{40,}", "id", f"{call.method} {call.path}")
    return hashlib.sha256(route.encode()).hexdigest()[:32]


def _limit_headers(bucket: str, remaining: int, reset_after: float) -> dict[str, str]:
    return {
        "X-RateLimit-Limit": "5",
        "X-RateLimit-Remaining": str(remaining),
        "X-RateLimit-Reset": f"{time.time() + reset_after:.3f}",
        "X-RateLimit-Reset-After": f"{reset_after:.3f}",
        "X-RateLimit-Bucket": bucket,
    }


def _rate_limited(bucket: str, seconds: float) -> DiscordError:
    refusal = DiscordError(429, 0, "You are being rate limited.")
    refusal.body = {"message": "You are being rate limited.", "retry_after": seconds}
    refusal.body["global"] = False
    refusal.headers = {**_limit_headers(bucket, 0, seconds), "X-RateLimit-Scope": "user"}
    refusal.headers["Retry-After"] = str(int(seconds) + 1)
    return refusal
