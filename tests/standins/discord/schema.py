"""What Discord accepts: its numbers, its limits, and the rules by which a request is judged.

A rule looks at one value of a body and notes in a Form what is wrong with it, in the words of
Discord's "Invalid Form Body"; check_*() are the rules between the fields of a body.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from tests.standins.discord.people import Stored

Json = dict[str, Any]

MIB = 1024 * 1024
FILE_SIZE = 10 * MIB  # in a server without boosts

# Permissions
ADMINISTRATOR, MANAGE_GUILD, MANAGE_MESSAGES = 1 << 3, 1 << 5, 1 << 13
VIEW_CHANNEL, SEND_MESSAGES, SEND_MESSAGES_IN_THREADS = 1 << 10, 1 << 11, 1 << 38
EMBED_LINKS, ATTACH_FILES, READ_MESSAGE_HISTORY = 1 << 14, 1 << 15, 1 << 16
MENTION_EVERYONE, USE_EXTERNAL_EMOJIS = 1 << 17, 1 << 18
USE_APPLICATION_COMMANDS, USE_EXTERNAL_APPS = 1 << 31, 1 << 50  # the latter: of people's own apps
ALL_PERMISSIONS = (1 << 53) - 1
_WRITE = VIEW_CHANNEL | SEND_MESSAGES | SEND_MESSAGES_IN_THREADS | READ_MESSAGE_HISTORY
_USE = USE_APPLICATION_COMMANDS | USE_EXTERNAL_APPS
MEMBER_PERMISSIONS = _WRITE | EMBED_LINKS | ATTACH_FILES | _USE
DM_PERMISSIONS = ATTACH_FILES | EMBED_LINKS | MENTION_EVERYONE | USE_EXTERNAL_EMOJIS
BOT_PERMISSIONS = MEMBER_PERMISSIONS | DM_PERMISSIONS  # a new guild lets all mention @everyone

# Gateway intents
GUILDS, GUILD_MESSAGES, DIRECT_MESSAGES = 1 << 0, 1 << 9, 1 << 12
PRIVILEGED_INTENTS = 1 << 1 | 1 << 8 | 1 << 15
KNOWN_INTENTS = (1 << 17) - 1 | 1 << 20 | 1 << 21 | 1 << 24 | 1 << 25

# Message flags
SUPPRESS_EMBEDS, EPHEMERAL, LOADING, SILENT = 1 << 2, 1 << 6, 1 << 7, 1 << 12

# Component types
ROW, BUTTON, STRING_SELECT, TEXT_INPUT, TEXT_DISPLAY, LABEL = 1, 2, 3, 4, 10, 18
FILE_UPLOAD = 19

# Types of commands: a slash command, and a message's context menu
CHAT_INPUT, ON_MESSAGE = 1, 3

# Types of command options that have options of their own: a subcommand, a group of them
SUBCOMMANDS = (1, 2)

# Interaction types, and the callback types that may answer them
COMMAND, COMPONENT, AUTOCOMPLETE, MODAL_SUBMIT = 2, 3, 4, 5
CALLBACKS = {2: (4, 5, 9), 3: (4, 5, 6, 7, 9), 4: (8,), 5: (4, 5, 6, 7)}

# What a fault with an HTTP status says: its usual code, and the codes' messages
USUAL_CODES = {403: 50013, 404: 10003, 413: 40005}
ERRORS = {10003: "Unknown Channel", 10008: "Unknown Message", 10062: "Unknown interaction"}
ERRORS |= {40005: "Request entity too large", 50001: "Missing Access", 50013: "Missing Permissions"}
ERRORS |= {20009: "Explicit content cannot be sent to the desired recipient(s)"}
ERRORS |= {200000: "Message was blocked by automatic moderation"}
ERRORS |= {50007: "Cannot send messages to this user", 50027: "Invalid Webhook Token"}


def message_texts(message: Json) -> list[str]:
    """Everything a person can read in a message: content, embeds, Text Displays."""
    texts = [message.get("content") or ""]
    for embed in message.get("embeds", []):
        texts += [embed.get("author", {}).get("name"), embed.get("title"), embed.get("description")]
        texts += [
            text for item in embed.get("fields", []) for text in (item["name"], item["value"])
        ]
        texts += [embed.get("footer", {}).get("text")]
    texts += [c["content"] for _, c in walk(message.get("components", [])) if "content" in c]
    return [text for text in texts if text]


def walk(components: list[Json], at: str = "components") -> Iterator[tuple[str, Json]]:
    """All components with their paths, in the order in which Discord numbers them."""
    for index, component in enumerate(components):
        path = f"{at}.{index}"
        yield path, component
        yield from walk(component.get("components", []), f"{path}.components")
        for key in ("accessory", "component"):
            if key in component:
                yield f"{path}.{key}", component[key]


def numbered(components: list[Json]) -> list[Json]:
    """A copy in which every component has an `id`, as in what Discord sends."""
    result = copy.deepcopy(components)
    taken = {c["id"] for _, c in walk(result) if c.get("id")}
    free = (number for number in range(1, 1000) if number not in taken)
    for _, component in walk(result):
        component["id"] = component.get("id") or next(free)
    return result


def pruned(node: Any) -> Any:
    """A copy without the keys that are null, which is as good as absent."""
    if isinstance(node, dict):
        return {key: pruned(value) for key, value in node.items() if value is not None}
    return [pruned(value) for value in node] if isinstance(node, list) else node


def references(node: Any, path: str = "") -> Iterator[tuple[Json, str, str]]:
    """Each place in embeds or components that names an uploaded file: (holder, key, path)."""
    for key, value in node.items() if isinstance(node, dict) else enumerate(node):
        if isinstance(value, (dict, list)):
            yield from references(value, f"{path}.{key}")
        elif key in ("url", "icon_url") and str(value).startswith("attachment://"):
            yield node, key, f"{path}.{key}"


class Form:
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


Rule = Callable[[Form, Any, str], None]  # judges the value at a path


def _text(most: int, least: int = 0) -> Rule:
    def rule(form: Form, value: Any, at: str) -> None:
        if not isinstance(value, str):
            form.error(at, "STRING_TYPE_CONVERT", f'Could not interpret "{value}" as string.')
        elif least and not least <= len(value.strip()) <= most:  # code points, trimmed
            form.error(at, "BASE_TYPE_BAD_LENGTH", f"Must be between {least} and {most} in length.")
        elif len(value.strip()) > most:
            form.error(at, "BASE_TYPE_MAX_LENGTH", f"Must be {most} or fewer in length.")

    return rule


def _whole(least: int, most: int) -> Rule:
    def rule(form: Form, value: Any, at: str) -> None:
        if not isinstance(value, int) or isinstance(value, bool):
            form.error(at, "NUMBER_TYPE_COERCE", f'Value "{value}" is not int.')
        elif not least <= value <= most:
            form.error(at, "NUMBER_TYPE_RANGE", f"int value should be between {least} and {most}.")

    return rule


def _bits(allowed: int) -> Rule:
    def rule(form: Form, value: Any, at: str) -> None:
        if not isinstance(value, int) or value & ~allowed:
            form.error(at, "BASE_TYPE_CHOICES", f"Only these flags may be set here: {allowed}.")

    return rule


def _one_of(*allowed: Any) -> Rule:
    def rule(form: Form, value: Any, at: str) -> None:
        if value not in allowed:
            form.error(at, "BASE_TYPE_CHOICES", f"Value must be one of {allowed}.")

    return rule


def _url(*schemes: str, most: int = 2048) -> Rule:
    def rule(form: Form, value: Any, at: str) -> None:
        _text(most)(form, value, at)
        if value and urlsplit(str(value)).scheme not in schemes:
            message = f"Scheme is not supported. Scheme must be one of {schemes}."
            form.error(at, "URL_TYPE_INVALID_SCHEME", message)

    return rule


def _array(rule_of_items: Rule, most: int, least: int = 0) -> Rule:
    def rule(form: Form, value: Any, at: str) -> None:
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

    def rule(form: Form, value: Any, at: str) -> None:
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
    def rule(form: Form, value: Any, at: str) -> None:
        kind = value.get("type") if isinstance(value, dict) else None
        if kind not in kinds:
            message = f'Value of field "type" must be one of {tuple(kinds)}.'
            return form.error(f"{at}.type", "UNION_TYPE_CHOICES", message)
        return kinds[kind](form, value, at)

    return rule


def _component(fields: dict[str, Rule], ignored: str = "") -> Rule:
    return _object({"id": _whole(0, 2**31 - 1), **fields}, f"type {ignored}")


def _boolean(form: Form, value: Any, at: str) -> None:
    if not isinstance(value, bool):
        form.error(at, "BOOLEAN_TYPE_CONVERT", "Must be either true or false.")


def _id(form: Form, value: Any, at: str) -> None:
    if isinstance(value, bool) or not str(value).isdecimal():
        form.error(at, "NUMBER_TYPE_COERCE", f'Value "{value}" is not snowflake.')


def _moment(form: Form, value: Any, at: str) -> None:
    try:
        datetime.fromisoformat(str(value).replace("Z", "+00:00"))
    except ValueError:
        form.error(at, "DATE_TIME_TYPE_PARSE", f"Could not parse {value}. Should be ISO8601.")


def _name(form: Form, value: Any, at: str) -> None:
    _text(32, 1)(form, value, at)
    if not re.fullmatch(r"[-'\w]{1,32}", str(value)) or str(value) != str(value).lower():
        form.error(at, "APPLICATION_COMMAND_INVALID_NAME", "Command name is invalid")


def _bit_set(form: Form, value: Any, at: str) -> None:
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
EMBEDS = _array(_EMBED, 10)

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
LAYOUT = _array(_components({ROW: _ROW}), 5)

_TEXT_INPUT = {
    **_CUSTOM_ID,
    "style*": _one_of(1, 2),
    "min_length": _whole(0, 4000),
    "max_length": _whole(1, 4000),
    "required": _boolean,
    "value": _text(4000),
    "placeholder": _text(100),
}
_FILE_UPLOAD = {
    **_CUSTOM_ID,
    "min_values": _whole(0, 10),
    "max_values": _whole(1, 10),
    "required": _boolean,
}
_LABELLED = _components(
    {
        TEXT_INPUT: _component({**_TEXT_INPUT, "label": _one_of(None)}),
        FILE_UPLOAD: _component(_FILE_UPLOAD),
    }
)
_WITH_LABEL = _components({TEXT_INPUT: _component({**_TEXT_INPUT, "label*": _text(45, 1)})})
_IN_MODAL = {
    ROW: _component({"components*": _array(_WITH_LABEL, 1, 1)}),
    LABEL: _component({"label*": _text(45, 1), "description": _text(100), "component*": _LABELLED}),
    TEXT_DISPLAY: _TEXT_DISPLAY,
}
MODAL = _object(
    {**_CUSTOM_ID, "title*": _text(45, 1), "components*": _array(_components(_IN_MODAL), 5, 1)}
)

_ATTACHMENT = _object(
    {"id*": _id, "filename": _text(260), "description": _text(1024)},
    "title duration_secs waveform is_spoiler spoiler size url height width " + _MEDIA_KEYS,
)
_MESSAGE: dict[str, Rule] = {
    "content": _text(2000),
    "embeds": EMBEDS,
    "allowed_mentions": _MENTIONS,
    "attachments": _array(_ATTACHMENT, 10),
    "tts": _boolean,
}
CREATE = _object(
    {
        **_MESSAGE,
        "flags": _bits(SUPPRESS_EMBEDS | SILENT),
        "enforce_nonce": _boolean,
    },
    "components nonce",
)
EDIT = _object({**_MESSAGE, "flags": _whole(0, 2**31 - 1)}, "components")  # tts: by discord.py
ANSWER = _object({**_MESSAGE, "flags": _bits(SUPPRESS_EMBEDS | EPHEMERAL | SILENT)}, "components")

_LOCALIZED = "name_localizations description_localizations"
_DESCRIBED = {"name*": _name, "description*": _text(100, 1)}


def _choices(kind: int) -> Rule:
    """Choices of an option of this type: string (3), integer (4) or number (10)."""

    def number(form: Form, value: Any, at: str) -> None:
        if not isinstance(value, (int, float)):
            form.error(at, "NUMBER_TYPE_COERCE", f'Value "{value}" is not a number.')

    value_rule = _text(100, 1) if kind == 3 else number
    item = _object({"name*": _text(100, 1), "value*": value_rule}, "name_localizations")
    return _array(item, 25)


def _command_option(form: Form, value: Any, at: str) -> None:
    kind = value.get("type") if isinstance(value, dict) else None
    fields = {**_DESCRIBED, "type*": _one_of(*range(1, 12)), "options": _array(_command_option, 25)}
    fields |= {"choices": _choices(kind or 3), "required": _boolean, "autocomplete": _boolean}
    bounds = "min_value max_value min_length max_length channel_types "
    _object(fields, bounds + _LOCALIZED)(form, value, at)


_COMMAND: dict[str, Rule] = {
    "contexts": _array(_one_of(0, 1, 2), 3),
    "integration_types": _array(_one_of(0, 1), 2),
    "default_member_permissions": _bit_set,
    "dm_permission": _boolean,
    "nsfw": _boolean,
}
_ON_MESSAGE = {**_COMMAND, "name*": _text(32, 1), "type*": _one_of(ON_MESSAGE)}
_CHAT_INPUT = {**_DESCRIBED, **_COMMAND, "type": _one_of(CHAT_INPUT, ON_MESSAGE)}
_CHAT_INPUT |= {"options": _array(_command_option, 25)}


def _command(form: Form, value: Any, at: str) -> None:
    on_message = isinstance(value, dict) and value.get("type") == ON_MESSAGE
    # A context menu has no description and no options: Discord refuses both.
    fields = _ON_MESSAGE if on_message else _CHAT_INPUT
    _object(fields, f"id handler default_permission {_LOCALIZED}")(form, value, at)


COMMANDS = _array(_command, 100)

OPEN_DM = _object({"recipient_id*": _id})
DEFERRAL = _object({"flags": _bits(EPHEMERAL)})
NONCE = _text(25)
PAGE_SIZE = _whole(1, 100)


def callback_of_type(*allowed: int) -> Rule:
    """The first answer to an interaction, but for its data."""
    return _object({"type*": _one_of(*allowed)}, "data")


def choices_of_type(kind: int) -> Rule:
    """The answer to an autocomplete of an option of this type."""
    return _object({"choices": _choices(kind)})


def check_commands(form: Form, commands: list[Json]) -> None:
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
    if sum(command.get("type") == ON_MESSAGE for command in commands) > 15:
        form.error("type", "APPLICATION_COMMANDS_TOO_MANY", "At most 15 context menus of a kind")
    if len({(command.get("type", 1), command["name"]) for command in commands}) != len(commands):
        message = "Application command names must be unique"
        form.error("name", "APPLICATION_COMMANDS_DUPLICATE_NAME", message)


def check_components(form: Form, components: list[Json], at: str = "components") -> None:
    """The rules between components, and between the fields of one; the fields are right."""
    custom_ids: set[str] = set()
    everything = list(walk(components, at))
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


def check_embeds(form: Form, embeds: list[Json]) -> None:
    """The rules between the texts of a message's embeds; the fields themselves are right."""
    total = 0
    for index, embed in enumerate(embeds):
        texts = message_texts({"embeds": [embed]})
        total += sum(len(text.strip()) for text in texts)
        if not texts and not embed.get("image") and not embed.get("thumbnail"):
            at = f"embeds.{index}.description"
            form.error(at, "BASE_TYPE_REQUIRED", "This field is required")
    if total > 6000:
        form.error("embeds", "MAX_EMBED_SIZE_EXCEEDED", "Embed size exceeds maximum size of 6000")


def check_message(form: Form, draft: Stored, mentions: Json) -> None:
    """The rules between the fields of a message; the fields themselves are right."""
    check_embeds(form, draft.embeds)
    for key in ("users", "roles"):
        ids = [str(mention) for mention in mentions.get(key) or []]
        if len(set(ids)) != len(ids) or (ids and key in (mentions.get("parse") or [])):
            message = f'parse:["{key}"] and {key}: [ids...] are mutually exclusive, ids unique.'
            form.error("allowed_mentions", "MESSAGE_ALLOWED_MENTIONS_PARSE_EXCLUSIVE", message)
    check_components(form, draft.components)
    names = {upload["filename"] for upload in draft.uploads}
    body = {"embeds": draft.embeds, "components": draft.components}
    for holder, key, path in references(body):
        name = holder[key].removeprefix("attachment://")
        picture = re.search(r"\.(jpe?g|png|webp|gif)$", name, re.IGNORECASE)
        if name not in names or (path.startswith(".embeds") and not picture):
            form.error(path, "UNKNOWN_FILE", f"No such picture in this message: {name}")
