"""What happened in a chat, and that chat as one HTML page which looks like Discord's dark theme.

The events are what `python -m tests.demo` prints and what `page()` draws. The page has everything
in it: no scripts, nothing to load, pictures as data URIs; whatever people and servers wrote is
escaped.
"""

from __future__ import annotations

import base64
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from typing import Any

from tests.harness.labels import CANCEL

Json = dict[str, Any]


@dataclass(frozen=True)
class Note:
    """Something that happens outside of the chat."""

    text: str


@dataclass(frozen=True)
class Deed:
    """What a person does."""

    who: str
    text: str


@dataclass(frozen=True)
class Said:
    """A message of the bot as it stood at a moment."""

    message: Json
    alone_to: str | None  # the one person who sees it
    names: Mapping[str, str]  # of people, by id
    pictures: Mapping[str, bytes]  # attachments by id, those in embeds by address
    at: float  # Unix time

    def pieces(self, text: str) -> Iterator[tuple[str, str]]:
        """Text of this message in the pieces that look different."""
        return pieces(text, self.names, self.at)


@dataclass(frozen=True)
class Changed:
    """A message of the bot that changed by itself: how it stood, oldest first."""

    states: Sequence[Said]

    def moments(self) -> Iterator[tuple[str, Said]]:
        """Yield up to four states, the first and the last among them, each with a word on when
        that was; of those within a second, the last."""
        first, *others = self.states
        later = {round(state.at - first.at): state for state in others}
        if len(later) > 1:
            later.pop(0, None)
        shown = [("at first", first), *((f"{n} s later", state) for n, state in later.items())]
        last = len(shown) - 1
        for index in sorted({last * part // 3 for part in range(4)}):
            yield shown[index]


@dataclass(frozen=True)
class Dialog:
    """A modal on somebody's screen, with what was typed into it, by custom id."""

    modal: Json
    typed: Mapping[str, str]

    def inputs(self) -> Iterator[tuple[Json, Json, str]]:
        """Label, text input, and what stands in it."""
        for label in self.modal["components"]:
            field = label["component"]
            yield label, field, self.typed.get(field["custom_id"], field.get("value") or "")


Event = Note | Deed | Said | Changed | Dialog

_MARKUP = re.compile(
    r"\\(?P<escaped>[^0-9A-Za-z\s])"
    r"|\*\*(?P<bold>(?:\\.|[^\\])+?)\*\*"
    r"|\|\|(?P<spoiler>(?:\\.|[^\\])+?)\|\|"
    r"|`(?P<code>[^`\n]+)`"
    r"|<@!?(?P<mention>\d+)>"
    r"|<t:(?P<time>\d+):R>"
    r"|\[(?P<link>[^\]\n]+)\]\(https?://[^)\s]+\)"
)


def pieces(
    text: str, names: Mapping[str, str] | None = None, at: float = 0.0
) -> Iterator[tuple[str, str]]:
    """Discord's markdown, as far as the bot uses it: pairs of a kind (bold, spoiler, code, mention,
    time, link; "" is plain text) and what is read there. `at` is the Unix time of the reading."""
    end = 0
    for match in _MARKUP.finditer(text):
        yield "", text[end : match.start()]
        end = match.end()
        kind = match.lastgroup or ""
        value = match[kind]
        if kind in ("bold", "spoiler"):
            value = "".join(inner for _, inner in pieces(value, names, at))
        elif kind == "mention":
            value = f"@{(names or {}).get(value, 'unknown-user')}"
        elif kind == "time":
            value = _ago(int(at) - int(value))
        yield ("" if kind == "escaped" else kind), value
    yield "", text[end:]


def _ago(seconds: int) -> str:
    count, unit = (seconds, "second") if seconds < 60 else (seconds // 60, "minute")
    return f"{count} {unit}{'s' if count != 1 else ''} ago" if count > 0 else "now"


# ---------------------------------------------------------------------------------------- the page

_BOT = "ComfyGen"
_COLOURS = ("#e67e22", "#1f8b4c", "#ad1457", "#206694", "#71368a", "#a84300")
_TAGS = {"bold": "strong", "code": "code"} | dict.fromkeys(
    ("mention", "time", "spoiler", "link"), "span"
)
_STYLES = {1: "primary", 2: "secondary", 3: "success", 4: "danger"}
_WHOLE = re.compile(r"\(?\d+ (?:x \d+|s\b)\S*|\S+-\S+")  # a size, a time, a name: one line
_EYE = (
    '<svg viewBox="0 0 24 24"><path fill="currentColor" d="M12 5C6 5 2 12 2 12s4 7 10 7 10-7 '
    '10-7-4-7-10-7zm0 11a4 4 0 1 1 0-8 4 4 0 0 1 0 8z"/><circle fill="currentColor" cx="12" '
    'cy="12" r="2"/></svg>'
)

_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src \
'unsafe-inline'">
<title>#{channel}, a conversation with ComfyGen</title>
<style>
{style}
</style>
</head>
<body>
<header><h1><i>#</i>{channel}</h1><p>{topic}</p></header>
<main>
<div class="note"><span>{day}</span></div>
{body}
</main>
<footer><div>Message #{channel}</div></footer>
</body>
</html>
"""

_STYLE = """\
* { box-sizing: border-box; margin: 0; }
:root { color-scheme: dark; }
body { background: #313338; color: #dbdee1; overflow-wrap: anywhere;
  font: 16px/1.375 "gg sans", "Noto Sans", "Helvetica Neue", Helvetica, Arial, sans-serif; }
strong, h2, h3 { font-weight: 600; }
header { position: sticky; top: 0; z-index: 1; display: flex; align-items: center; gap: 16px;
  padding: 12px 16px; background: #313338; border-bottom: 1px solid #1f2023;
  box-shadow: 0 1px 2px #0004; }
h1 { color: #f2f3f5; font-size: 16px; white-space: nowrap; }
h1 i { margin-right: 8px; color: #80848e; font: 400 22px/1 Arial, sans-serif; }
header p { padding-left: 16px; border-left: 1px solid #3f4147; color: #b5bac1; font-size: 14px; }
main { padding-bottom: 16px; }
.note { display: flex; align-items: center; gap: 8px; margin: 24px 16px 8px; color: #949ba4;
  font-size: 12px; font-weight: 600; }
.note::before, .note::after { content: ""; flex: 1; border-top: 1px solid #3f4147; }
.note span { max-width: 75%; text-align: center; text-wrap: balance; }
.avatar { display: flex; align-items: center; justify-content: center; flex: none; width: 40px;
  height: 40px; border-radius: 50%; color: #fff; font-size: 16px; font-weight: 600; }
.small { width: 20px; height: 20px; font-size: 10px; }
.deed { display: flex; align-items: center; gap: 26px; margin-top: 20px; padding: 2px 16px 2px 26px;
  color: #949ba4; }
.deed strong { color: #dbdee1; }
.message { display: flex; gap: 16px; margin-top: 10px; padding: 4px 16px;
  border-left: 2px solid transparent; }
.alone { background: #5865f214; border-color: #5865f2; }
.ping { background: #f0b23214; border-color: #f0b232; }
.body { flex: 1; min-width: 0; }
.used { display: flex; align-items: center; gap: 4px; margin-bottom: 4px; color: #b5bac1;
  font-size: 14px; }
.used .avatar { width: 16px; height: 16px; font-size: 9px; }
.used b { color: #c9cdfb; font-weight: 500; }
.message h2 { display: flex; align-items: center; gap: 6px; color: #f2f3f5; font-size: 16px; }
.tag { padding: 1px 5px; border-radius: 4px; background: #5865f2; color: #fff; font-size: 10px;
  line-height: 14px; }
.message time, .edited { color: #949ba4; font-size: 12px; font-weight: 400; }
.text { white-space: pre-wrap; }
.whole { display: inline-block; max-width: 100%; }
.link { color: #00a8fc; }
code { padding: 1px 4px; border: 1px solid #26272b; border-radius: 4px; background: #2b2d31;
  font: 14px/18px Consolas, "Andale Mono", Menlo, "DejaVu Sans Mono", monospace; }
.embed code { background: #1e1f22; font-size: 12px; }
.mention { padding: 0 2px; border-radius: 3px; background: #5865f24d; color: #c9cdfb;
  font-weight: 500; }
.time { padding: 0 2px; border-radius: 3px; background: #ffffff0f; }
.spoiler { padding: 0 2px; border-radius: 3px; background: #1e1f22; color: transparent; }
.spoiler:hover { background: #ffffff1a; color: inherit; }
.picture { display: block; max-width: min(100%, 550px); max-height: 350px; margin-top: 4px;
  border-radius: 8px; }
.alt { display: -webkit-box; overflow: hidden; max-width: min(100%, 550px); margin-top: 2px;
  color: #949ba4; font-size: 12px; -webkit-box-orient: vertical; -webkit-line-clamp: 2; }
.alt b { margin-right: 4px; padding: 0 4px; border-radius: 4px; background: #1e1f22; color: #dbdee1;
  font-size: 10px; font-weight: 600; }
.embed .picture { max-width: 100%; max-height: 300px; }
.embed .thumbnail { max-width: 80px; }
.changes { margin-top: 2px; color: #949ba4; font-size: 12px; }
.states { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 240px), 1fr));
  gap: 10px; max-width: 1200px; margin-top: 6px; font-size: 13px; }
.state { padding: 8px 10px 10px; border: 1px solid #ffffff1f; border-radius: 8px; }
.state h5 { margin-bottom: 4px; color: #949ba4; font-size: 12px; font-weight: 600; }
.state .embed { padding: 8px 10px; font-size: 12px; line-height: 16px; }
.state .picture { max-height: 150px; }
.state .button { padding: 2px 10px; font-size: 12px; }
.state .row { margin-top: 6px; }
.embed { display: grid; grid-template-columns: repeat(6, minmax(0, 1fr)); gap: 8px;
  max-width: 520px; margin-top: 4px; padding: 10px 16px 14px 12px; border-left: 4px solid;
  border-radius: 4px; background: #2b2d31; font-size: 14px; line-height: 18px; }
.embed > * { grid-column: span 6; }
.embed > .of-2 { grid-column: span 3; }
.embed > .of-3 { grid-column: span 2; }
.embed h3 { color: #f2f3f5; font-size: 16px; }
.embed h4 { margin-bottom: 2px; color: #f2f3f5; font-weight: 600; }
.embed footer { padding: 0; color: #b5bac1; font-size: 12px; }
.row { display: flex; flex-wrap: wrap; gap: 8px; max-width: 520px; margin-top: 8px; }
.button { padding: 6px 16px; border-radius: 8px; color: #fff; font-size: 14px; font-weight: 500;
  line-height: 20px; }
.primary { background: #5865f2; }
.secondary { background: #4e5058; }
.success { background: #248046; }
.danger { background: #da373c; }
.select { display: flex; justify-content: space-between; gap: 8px; width: min(100%, 400px);
  padding: 9px 12px; border: 1px solid #232428; border-radius: 8px; background: #1e1f22; }
.select::after { content: ""; width: 8px; height: 8px; margin: 4px 4px 0; flex: none;
  border: solid #b5bac1; border-width: 0 2px 2px 0; transform: rotate(45deg); }
.alone-line { display: flex; align-items: center; gap: 4px; margin-top: 4px; color: #949ba4;
  font-size: 12px; }
.alone-line svg { flex: none; width: 16px; height: 16px; }
.screen { margin: 12px 16px; padding: 24px 12px; border-radius: 8px; background: #1b1c1f; }
.dialog { max-width: 480px; margin: auto; border: 1px solid #3f4147; border-radius: 12px;
  background: #313338; box-shadow: 0 8px 16px #0006; }
.dialog h2 { display: flex; align-items: center; gap: 10px; padding: 16px; color: #f2f3f5;
  font-size: 18px; }
.dialog h2 .avatar { width: 28px; height: 28px; font-size: 12px; }
.dialog h2::after { content: "\\2715"; margin-left: auto; color: #b5bac1; font-weight: 400; }
.dialog label { display: block; padding: 0 16px 16px; color: #f2f3f5; font-size: 15px;
  font-weight: 500; }
.dialog small { display: block; color: #b5bac1; font-size: 13px; font-weight: 400; }
.required::after { content: " *"; color: #fa777c; }
.input { display: block; min-height: 42px; margin-top: 6px; padding: 9px 12px;
  border: 1px solid #232428; border-radius: 8px; background: #1e1f22; color: #dbdee1;
  font-weight: 400; white-space: pre-wrap; }
.paragraph { min-height: 64px; }
.dialog .row { justify-content: flex-end; max-width: none; margin: 0; padding: 16px;
  border-top: 1px solid #3f4147; }
body > footer { padding: 0 16px 24px; }
body > footer div { padding: 11px 16px; border-radius: 8px; background: #383a40; color: #6d6f78; }
@media (max-width: 600px) {
  header { gap: 10px; padding: 10px 12px; }
  header p { padding-left: 10px; font-size: 12px; line-height: 1.3; }
  .message { gap: 10px; padding: 4px 12px 4px 10px; }
  .deed { gap: 20px; padding: 2px 12px 2px 22px; }
  .screen { margin: 12px 0; padding: 16px 12px; border-radius: 0; }
  .embed > .of-2, .embed > .of-3 { grid-column: span 6; }
}"""


def page(events: Sequence[Event], channel: str, topic: str) -> str:
    """The whole page, for a channel with this name and topic."""
    return _PAGE.format(
        channel=escape(channel),
        topic=escape(topic),
        style=_STYLE,
        day=datetime.now().strftime("%d %B %Y").lstrip("0"),
        body="\n".join(map(_drawn, events)),
    )


def _drawn(event: Event) -> str:
    if isinstance(event, Note):
        return f'<div class="note"><span>{escape(event.text)}</span></div>'
    if isinstance(event, Deed):
        text = _marked_up(pieces(f"**{event.who}** {event.text}"))
        return f'<div class="deed">{_avatar(event.who, "small")}<p>{text}</p></div>'
    if isinstance(event, Changed):
        return _changed(event)
    return _message(event) if isinstance(event, Said) else _dialog(event)


def _avatar(name: str, size: str = "") -> str:
    initials = re.sub(r"[^A-Z]", "", name) or name[0].upper()
    colour = "#5865f2" if name == _BOT else _COLOURS[sum(map(ord, name)) % len(_COLOURS)]
    return f'<span class="avatar {size}" style="background:{colour}">{escape(initials[:2])}</span>'


def _marked_up(parts: Iterator[tuple[str, str]]) -> str:
    def drawn(kind: str, text: str) -> str:
        tag = _TAGS.get(kind)
        return f'<{tag} class="{kind}">{_unbroken(text)}</{tag}>' if tag else _unbroken(text)

    return "".join(drawn(kind, text) for kind, text in parts)


def _unbroken(text: str) -> str:
    """Return the text as HTML whose sizes and names with hyphens stay in one line."""
    ends = [0, *(end for match in _WHOLE.finditer(text) for end in match.span()), len(text)]
    parts = [escape(text[start:end]) for start, end in itertools.pairwise(ends)]
    parts[1::2] = [f'<span class="whole">{part}</span>' for part in parts[1::2]]
    return "".join(parts)


def _message(said: Said) -> str:
    return _framed(said, _used(said.message), _heading(said.message), _contents(said))


def _changed(changed: Changed) -> str:
    """The moments side by side in one message, all of them small."""
    drawn = [
        f'<div class="state"><h5>{escape(when)}</h5>\n{_contents(said)}\n</div>'
        for when, said in changed.moments()
    ]
    last, count = changed.states[-1], len(changed.states) - 1
    times = "once" if count == 1 else f"{count} times"
    counted = f'<p class="changes">changed by itself {times}</p>'
    states = f'<div class="states">{"".join(drawn)}</div>'
    return _framed(last, _heading(changed.states[0].message), counted, states)


def _framed(said: Said, *parts: str) -> str:
    """What a message says, between its sender's picture and who sees it."""
    alone = ""
    if said.alone_to:
        screen = f"{escape(said.alone_to)}’s screen"  # noqa: RUF001
        alone = f'<p class="alone-line">{_EYE}Only you can see this · {screen}</p>'
    look = "alone" if said.alone_to else "ping" if said.message["mentions"] else ""
    body = "\n".join(filter(None, (*parts, alone)))
    return f'<div class="message {look}">{_avatar(_BOT)}<div class="body">\n{body}\n</div></div>'


def _contents(said: Said) -> str:
    message, parts = said.message, []
    if message["content"]:
        edited = ' <span class="edited">(edited)</span>' if message["edited_timestamp"] else ""
        parts.append(f'<p class="text">{_marked_up(said.pieces(message["content"]))}{edited}</p>')
    for file in message["attachments"]:
        described = file.get("description") or ""
        alt, kind = described or file["filename"], file["content_type"]
        parts.append(_picture(said.pictures[file["id"]], kind, alt) + _alt_line(described))
    parts += [_embed(said, embed) for embed in message["embeds"]]
    for row in message["components"]:
        parts.append(f'<div class="row">{"".join(map(_control, row["components"]))}</div>')
    return "\n".join(parts)


def _used(message: Json) -> str:
    """The line over the answer to a command."""
    used = message.get("interaction")
    if not used:
        return ""
    name = used["user"]["global_name"]
    slash = "" if used["name"][:1].isupper() else "/"  # a message's menu has none
    command = f"{escape(name)} used <b>{slash}{escape(used['name'])}</b>"
    return f'<p class="used">{_avatar(name)}{command}</p>'


def _heading(message: Json) -> str:
    clock = datetime.fromisoformat(message["timestamp"]).astimezone().strftime("%H:%M")
    return f'<h2>{_BOT} <span class="tag">BOT</span> <time>Today at {clock}</time></h2>'


def _picture(content: bytes, kind: str, alt: str, look: str = "picture") -> str:
    data = base64.b64encode(content).decode()
    source = f"data:{escape(kind)};base64,{data}"
    return f'<img class="{look}" alt="{escape(alt)}" src="{source}">'


def _alt_line(description: str) -> str:
    """What a screen reader says of a picture, which Discord shows at a press on its ALT."""
    return f'<p class="alt"><b>ALT</b>{escape(description)}</p>' if description else ""


def _embedded(said: Said, embed: Json) -> Iterator[str]:
    """The pictures of an embed."""
    for key, look in (("thumbnail", "picture thumbnail"), ("image", "picture")):
        shown = embed.get(key, {})
        content = said.pictures.get(shown.get("url", ""))
        if content is not None:
            described = shown.get("description") or ""
            kind = "image/png" if content.startswith(b"\x89PNG") else "image/jpeg"
            yield f"<div>{_picture(content, kind, described, look)}{_alt_line(described)}</div>"


def _embed(said: Said, embed: Json) -> str:
    def text(tag: str, key: str, source: Json = embed) -> str:
        if not source.get(key):
            return ""
        return f'<{tag} class="text">{_marked_up(said.pieces(source[key]))}</{tag}>'

    parts = [text("h3", "title"), text("div", "description")]
    for row in _rows(embed.get("fields", [])):
        for field in row:
            name, value = text("h4", "name", field), text("div", "value", field)
            parts.append(f'<div class="of-{len(row)}">{name}{value}</div>')
    parts += _embedded(said, embed)
    if "footer" in embed:
        parts.append(f"<footer>{escape(embed['footer']['text'])}</footer>")
    colour = f"border-color:#{embed.get('color', 0x1E1F22):06x}"
    return f'<div class="embed" style="{colour}">{"".join(parts)}</div>'


def _rows(fields: Sequence[Json]) -> list[list[Json]]:
    """The fields of an embed side by side, as Discord puts them: up to three, if all are inline."""
    rows: list[list[Json]] = []
    for field in fields:
        room = rows and len(rows[-1]) < 3 and rows[-1][-1].get("inline")
        if room and field.get("inline"):
            rows[-1].append(field)
        else:
            rows.append([field])
    return rows


def _control(component: Json) -> str:
    if "options" not in component:
        label = escape(component["label"])
        return f'<span class="button {_STYLES[component["style"]]}">{label}</span>'
    chosen = [option["label"] for option in component["options"] if option.get("default")]
    shown = _unbroken(", ".join(chosen) or component["placeholder"])
    return f'<div class="select"><span>{shown}</span></div>'


def _dialog(dialog: Dialog) -> str:
    parts = [f"<h2>{_avatar(_BOT)}{escape(dialog.modal['title'])}</h2>"]
    for label, field, value in dialog.inputs():
        required = "required" if field.get("required", True) else ""
        size = "paragraph" if field["style"] == 2 else ""
        parts.append(
            f'<label><span class="{required}">{escape(label["label"])}</span>'
            f"<small>{escape(label.get('description') or '')}</small>"
            f'<span class="input {size}">{escape(value)}</span></label>'
        )
    for text, look in ((CANCEL, "secondary"), ("Submit", "primary")):
        parts.append(f'<span class="button {look}">{text}</span>')
    fields, buttons = "\n".join(parts[:-2]), "".join(parts[-2:])
    return (
        f'<div class="screen"><div class="dialog">\n{fields}\n'
        f'<div class="row">{buttons}</div></div></div>'
    )
