"""Names and texts of people and servers: how they are shown, and how a name is found.

Owns what a model is called in a sentence, which one somebody means by what they type, and how text
that others wrote is quoted. Pure functions; imports nothing of ours and knows no form.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from text import (
    OPTION_LIMIT,
    SEPARATOR,
    UserError,
    display_name,
    escape,
    file_of,
    quote,
    shorten_middle,
)

MENU_LIMIT = 25
TYPED_LIMIT = 400  # characters of what somebody types that are searched for
NEAREST_SHOWN = 3
NEAREST_KEPT = 100  # mistyped names whose nearest are known
LEAST_RESEMBLANCE = 0.4
LEAST_CUT = 20  # characters below which nothing can be cut out of a text
MARK_LENGTH = 9

WORD = re.compile(r"[^\W_]+")


# ---------------------------------------------------------------------------------------------
# The names of one list


class Choice(NamedTuple):
    """An entry of autocomplete: what people see, and what stands for its value when chosen."""

    name: str
    value: str


class _Entry(NamedTuple):
    """A value of a list, and the words it is found by, as `_spoken()` gives them."""

    value: str
    choice: Choice
    exact: frozenset[str]  # whole names of it
    name: str
    path: str  # with the name


class OptionNames:
    """What the values of one list are called, and which of them somebody means.

    A model is called by the shortest ending of its path that no other has: `fox`, else `anime/fox`.
    Whatever is shown is within OPTION_LIMIT, and no two values look the same.
    """

    def __init__(self, values: Sequence[str]) -> None:
        """The order is that of matches that are equally good."""
        values = list(dict.fromkeys(values))
        endings = _unique_endings(values)
        shown = disambiguate(endings)
        choices = disambiguate(_files_before_folders(values, endings))
        self._shown = dict(zip(values, shown, strict=True))
        self._entries = list(map(_entry, values, endings, choices))
        tokens = [entry.choice.value for entry in self._entries]
        self._exact: dict[str, str] = {}
        for names in (tokens, values, shown, endings, choices):
            for name, value in zip(names, values, strict=True):
                self._exact.setdefault(name, value)
        self._nearest: dict[str, list[str]] = {}
        self._lower: dict[str, str] = {}
        files = map(display_name, values)
        for value, *called in zip(values, values, shown, choices, files, strict=True):
            for name in called:
                self._lower.setdefault(name.lower(), value)

    def shown(self, value: str) -> str:
        """What a value is called; one that is not in the list, by its file."""
        return self._shown.get(value) or shorten_middle(display_name(value), OPTION_LIMIT)

    def find(self, text: str) -> str | None:
        """The value that somebody names, as it is shown anywhere or by words of its path."""
        called = self._exact.get(text) or self._lower.get(text.strip().lower())
        return called or next((entry.value for entry in self._matches(text, 1)), None)

    def choices(self, text: str) -> list[Choice]:
        """What autocomplete offers, the best match first; while nothing is typed, the first."""
        found = self._matches(text, MENU_LIMIT) if _spoken(text) else self._entries
        return [entry.choice for entry in found[:MENU_LIMIT]]

    def nearest(self, text: str) -> list[str]:
        """What those are called whose files resemble a text, at most NEAREST_SHOWN."""
        wanted = display_name(text).lower()[:OPTION_LIMIT]
        if wanted not in self._nearest:  # a form asks several times, and it takes long
            if len(self._nearest) == NEAREST_KEPT:
                self._nearest.clear()
            self._nearest[wanted] = self._resembling(wanted)
        return self._nearest[wanted]

    def _resembling(self, wanted: str) -> list[str]:
        from difflib import SequenceMatcher  # not before somebody mistypes a name

        pairs = {wanted[at : at + 2] for at in range(len(wanted) - 1)}

        def unlikeness(file: str) -> float:
            return -sum(map(file.__contains__, pairs)) / (len(file) + len(wanted))

        # A matcher takes long for a long list: pairs of letters in common say who is likely.
        likely = sorted(self._files, key=unlikeness)
        near = [
            (SequenceMatcher(a=file, b=wanted).ratio(), file)
            for file in likely[: 3 * NEAREST_SHOWN]
        ]
        near.sort(key=lambda pair: -pair[0])
        files = [file for ratio, file in near if ratio >= LEAST_RESEMBLANCE]
        return [self._shown[value] for file in files for value in self._files[file]][:NEAREST_SHOWN]

    @functools.cached_property
    def _files(self) -> dict[str, list[str]]:
        """The values by their files' names, as `nearest()` compares them."""
        files: defaultdict[str, list[str]] = defaultdict(list)
        for value in self._shown:
            files[display_name(value).lower()[:OPTION_LIMIT]].append(value)
        return files

    def _matches(self, text: str, limit: int) -> list[_Entry]:
        """Of the entries that have every word of a text in any order, so many of the best, the best
        first."""
        spoken = _spoken(text[:TYPED_LIMIT])
        if not spoken:
            return []
        found: dict[str, _Entry] = {}
        for group in _by_rank(self._entries, spoken):
            for entry in group:
                found.setdefault(entry.value, entry)
            if len(found) >= limit:
                break
        return list(found.values())[:limit]


@functools.lru_cache(maxsize=16)  # lists that are in use, of forms opened before a /refresh too
def _names_of(values: tuple[str, ...]) -> OptionNames:
    return OptionNames(values)


def names_of(values: Sequence[str]) -> OptionNames:
    """The names of a list: made once as long as the list is in use."""
    return _names_of(tuple(values))


def moved_model(name: str, offered: Sequence[str]) -> str | None:
    """The one offered model of the same file name, in whatever folder; None if there is none, or
    if several are called so."""
    file = file_of(name).lower()
    same = [model for model in offered if file_of(model).lower() == file]
    return same[0] if len(same) == 1 else None


def nearest(name: str, offered: Sequence[str]) -> str:
    """A finished sentence with the offered names that resemble one, or none."""
    names = ", ".join(map(escape, names_of(offered).nearest(name)))
    return f" The nearest: {names}." if names else ""


def find_model(text: str, models: Sequence[str]) -> str:
    """The model that a person names: as it is shown anywhere, or the best match of autocomplete.
    UserError, with the nearest names, if there is none."""
    found = names_of(models).find(text)
    if found is None:
        raise UserError(f"There is no model {quote(text)}.{nearest(text, models)}")
    return found


def _folders_and_file(path: str) -> tuple[list[str], str]:
    *folders, file = SEPARATOR.split(path)
    return folders, file


def _unique_endings(paths: Sequence[str]) -> list[str]:
    """For each path its shortest ending that no other one has, whatever its case: without the
    extension if that will do. The path itself if there is none."""
    endings = [list(dict.fromkeys(_endings(path))) for path in paths]
    count = Counter(name for names in endings for name in {ending.lower() for ending in names})
    return [
        next((ending for ending in names if count[ending.lower()] == 1), path).removeprefix("/")
        for path, names in zip(paths, endings, strict=True)
    ]


def _endings(path: str) -> Iterator[str]:
    """The endings of a path. The longest begins with a `/`: it is no ending of another path."""
    folders, file = _folders_and_file(f"/{path}")
    for name in (display_name(file), file):
        if name.strip():
            for first in range(len(folders), -1, -1):
                yield "/".join((*folders[first:], name))


def _files_before_folders(paths: Sequence[str], endings: Sequence[str]) -> list[str]:
    """`fox (anime)` for each path, with the extension where its ending has it."""
    shown: list[str] = []
    for path, ending in zip(paths, endings, strict=True):
        folders = "/".join(_folders_and_file(path)[0])
        file = _folders_and_file(ending)[1]
        shown.append(f"{file} ({folders})" if folders else ending)
    count = Counter(shown)  # a file's name may have a backslash in it
    return [name if count[name] == 1 else path for name, path in zip(shown, paths, strict=True)]


def _entry(value: str, ending: str, choice: str) -> _Entry:
    token = value if len(value) <= OPTION_LIMIT else _with_hash(value, OPTION_LIMIT)
    exact = frozenset(map(_spoken, (value, ending, choice, display_name(value))))
    name = _spoken(display_name(value))
    return _Entry(value, Choice(choice, token), exact, name, _spoken(value))


def _spoken(text: str) -> str:
    """The words of a text, with a space before each: `-`, `_`, `.`, `/` and spaces are alike."""
    return " ".join(("", *WORD.findall(text.lower())))


def _with_hash(text: str, limit: int) -> str:
    """Shortened, with a mark that no other text has; the same after a restart."""
    mark = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[: MARK_LENGTH - 1]
    return f"{shorten_middle(text, limit - MARK_LENGTH)}#{mark}"


def _by_rank(entries: Sequence[_Entry], spoken: str) -> Iterator[Sequence[_Entry]]:
    """Which entries have every word, the best matches first; an entry may come several times. The
    event loop does this at each letter that somebody types: so in whole lists, and no further than
    is asked for."""
    words = list(dict.fromkeys(spoken.split()))
    starts = [f" {word}" for word in words]
    having = _with_path(entries, words)
    yield [entry for entry in having if spoken in entry.exact]
    yield [entry for entry in having if entry.name.startswith(spoken)]
    yield _with_name(having, starts)
    yield _with_name(having, words)
    yield _with_path(having, starts)
    yield having


def _with_name(entries: Sequence[_Entry], parts: Sequence[str]) -> Sequence[_Entry]:
    for part in parts:
        entries = [entry for entry in entries if part in entry.name]
    return entries


def _with_path(entries: Sequence[_Entry], parts: Sequence[str]) -> Sequence[_Entry]:
    for part in parts:
        entries = [entry for entry in entries if part in entry.path]
    return entries


def disambiguate(texts: Sequence[str], limit: int = OPTION_LIMIT) -> list[str]:
    """Each text within the limit, and different ones different: of those that would look the same,
    what is cut out is what they share."""
    shown = {text: shorten_middle(text, limit) for text in texts}
    alike: defaultdict[str, list[str]] = defaultdict(list)
    for text, short in shown.items():
        alike[short].append(text)
    if len(alike) < len(shown) and limit >= LEAST_CUT:
        for group in alike.values():
            if len(group) > 1:
                shown.update(zip(group, _without_shared(group, limit), strict=True))
        count = Counter(shown.values())
        for text, short in shown.items():
            shown[text] = short if count[short] == 1 else _with_hash(text, limit)
    return [shown[text] for text in texts]


def _without_shared(texts: Sequence[str], limit: int) -> list[str]:
    """The beginning, where the texts differ, and the end of each."""
    start = _agreeing(texts)
    end = _agreeing([text[start:][::-1] for text in texts])
    around, ends = limit // 8, limit // 4 - 1
    differing = disambiguate([text[start : len(text) - end] for text in texts], limit // 4)
    return [
        f"{text[:ends]}…{text[start - around : start]}{middle}"
        f"{text[len(text) - end :][:around]}…{text[len(text) - ends :]}"
        for text, middle in zip(texts, differing, strict=True)
    ]


def _agreeing(texts: Sequence[str]) -> int:
    """With how many characters all of them begin."""
    first, last = min(texts), max(texts)
    pairs = enumerate(zip(first, last, strict=False))
    return next((at for at, (one, other) in pairs if one != other), len(first))
