"""The names of models, LoRAs and workflows: how they are shown, and how one is found.

Owns what a value of a list is called, which one a person means by what they type, and which names
resemble it. Pure; any thread.
"""

from __future__ import annotations

import functools
import hashlib
import re
import unicodedata
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
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
    without_extension,
)

MENU_LIMIT = 25
TYPED_LIMIT = 400  # characters of a typed text that are searched for
NEAREST_SHOWN = 3
NEAREST_KEPT = 100  # mistyped names whose nearest names are cached
MIN_RESEMBLANCE = 0.4
HASH_LENGTH = 8
SEVERAL_SHOWN = 5  # names that a text fits equally well

WORD = re.compile(r"[^\W_]+")
EMOJI_STYLE = "\ufe0e\ufe0f"  # a keyboard adds these, or does not


# ---------------------------------------------------------------------------------------------
# The names of one list


class Choice(NamedTuple):
    """An entry of autocomplete: what people see, and what is sent when they choose it."""

    name: str
    value: str


class _Entry(NamedTuple):
    """A value of a list, and the words it is found by, in the form of `_words()`."""

    value: str
    choice: Choice
    exact: frozenset[str]  # whole names of it, and their folded forms
    name: str
    path: str  # with the name, without its extension


class OptionNames:
    """The values of one list and their names.

    A model is called by the shortest ending of its path that no other has: `fox`, else `anime/fox`.
    Every name is within OPTION_LIMIT, and no two values look the same. Making one takes several
    milliseconds for a long list: too long for the event loop.
    """

    def __init__(self, values: Sequence[str]) -> None:
        """Index the values; matches that are equally good keep their order."""
        self.values = values = tuple(dict.fromkeys(values))
        endings = _unique_endings(values)
        paths = _full_names(values)
        shown = disambiguate(endings)
        choices = disambiguate(_files_before_folders(values, endings))
        self._shown = dict(zip(values, shown, strict=True))
        self._full = dict(zip(values, paths, strict=True))
        self._entries = list(map(_entry, values, paths, endings, choices))
        tokens = [entry.choice.value for entry in self._entries]
        self._exact: dict[str, str] = {}
        for names in (tokens, values, paths, shown, endings, choices):
            for name, value in zip(names, values, strict=True):
                self._exact.setdefault(name, value)
        self._nearest: dict[str, list[str]] = {}

    def __contains__(self, value: object) -> bool:
        return value in self._shown

    def __len__(self) -> int:
        return len(self.values)

    def shown(self, value: str) -> str:
        """Return the name of a value; of one that is not in the list, that of its file."""
        return self._shown.get(value) or shorten_middle(display_name(value), OPTION_LIMIT)

    def full_name(self, value: str) -> str:
        """Return the path of a value of the list as a name that finds this value alone."""
        return self._full[value]

    def find(self, text: str) -> str | None:
        """Return the value that a person means, by any of its names or by words of its path."""
        return next(iter(self.find_all(text)), None)

    def find_all(self, text: str) -> list[str]:
        """Return the values that a text fits best, all equally well: one by a name of its own, or
        those of the best group of matches."""
        if called := self._exact.get(text):
            return [called]
        return [entry.value for entry in next(filter(None, self._groups(text)), ())]

    def choices(self, text: str) -> list[Choice]:
        """Return what autocomplete offers, the best match first; the first ones for no text."""
        found: dict[str, Choice] = {}
        for group in self._groups(text) if _words(text) else (self._entries,):
            for entry in group:
                found.setdefault(entry.value, entry.choice)
            if len(found) >= MENU_LIMIT:
                break
        return list(found.values())[:MENU_LIMIT]

    def nearest(self, text: str) -> list[str]:
        """Return the names of values whose files resemble a text, at most NEAREST_SHOWN."""
        wanted = fold(display_name(text))[:OPTION_LIMIT]
        found = self._nearest.get(wanted)
        if found is None:  # cached, because it is slow and a form asks several times
            if len(self._nearest) >= NEAREST_KEPT:
                self._nearest.clear()
            found = self._nearest[wanted] = self._resembling(wanted)
        return found

    def _resembling(self, wanted: str) -> list[str]:
        from difflib import SequenceMatcher  # only a mistyped name needs it

        pairs = {wanted[at : at + 2] for at in range(len(wanted) - 1)}

        def unlikeness(file: str) -> float:
            return -sum(map(file.__contains__, pairs)) / (len(file) + len(wanted))

        # The matcher is slow, so it only gets the files that share most pairs of letters.
        likely = sorted(self._files, key=unlikeness)
        near = [
            (SequenceMatcher(a=file, b=wanted).ratio(), file)
            for file in likely[: 3 * NEAREST_SHOWN]
        ]
        near.sort(key=lambda pair: -pair[0])
        files = [file for ratio, file in near if ratio >= MIN_RESEMBLANCE]
        return [self._shown[value] for file in files for value in self._files[file]][:NEAREST_SHOWN]

    @functools.cached_property
    def fingerprint(self) -> str:
        """Return eight digits that change with the values: an index into them carries those."""
        return f"{zlib.crc32(ascii(self.values).encode()):08x}"

    @functools.cached_property
    def _files(self) -> dict[str, list[str]]:
        """Group the values by their files' names, as `nearest()` compares them."""
        files: defaultdict[str, list[str]] = defaultdict(list)
        for value in self._shown:
            files[fold(display_name(value))[:OPTION_LIMIT]].append(value)
        return files

    def _groups(self, text: str) -> Iterator[Sequence[_Entry]]:
        """Yield the entries that have every word of a text in any order, the best group first. An
        extension is no word: it leaves out the files that have another one."""
        folded, entries = fold(text[:TYPED_LIMIT]), self._entries
        bare = without_extension(folded)
        if extension := folded.removeprefix(bare):
            entries = [entry for entry in entries if fold(entry.value).endswith(extension)]
        query = _words(bare)
        return _by_rank(entries, folded, query) if query else iter(())


class NamesByList(dict[tuple[str, ...], OptionNames]):
    """The names of each list, made at its first use; equal lists share them, also with those of
    `before`, which are not used otherwise."""

    def __init__(self, before: Mapping[tuple[str, ...], OptionNames]) -> None:
        super().__init__()
        self._before = dict(before)

    def __missing__(self, values: tuple[str, ...]) -> OptionNames:
        names = self[values] = self._before.get(values) or OptionNames(values)
        return names


def moved_model(path: str, models: OptionNames) -> str | None:
    """Return the one offered model of the same file name, in whatever folder; None if there is
    none, or if several have that name."""
    file = fold(file_of(path))
    same = [model for model in models.values if fold(file_of(model)) == file]
    return same[0] if len(same) == 1 else None


def nearest(name: str, offered: OptionNames) -> str:
    """Return a finished sentence with the names that resemble one; empty if none does."""
    names = ", ".join(map(escape, offered.nearest(name)))
    return f" The nearest: {names}." if names else ""


def find_named(kind: str, text: str, offered: OptionNames) -> str:
    """Return the model, LoRA or workflow (`kind`) that a person names: by any of its names, or the
    best match of autocomplete. Raises UserError with the nearest names if there is none."""
    found = offered.find(text)
    if found is None:
        raise UserError(f"There is no {kind} {quote(text)}.{nearest(text, offered)}")
    return found


def find_only(kind: str, text: str, offered: OptionNames, typed: str) -> str:
    """Return the one that a person names, like `find_named()`. Raises UserError with the names of
    all that fit `typed` equally well."""
    found = offered.find_all(text)
    if len(found) < 2:
        return find_named(kind, text, offered)
    names = ", ".join(escape(offered.shown(value)) for value in found[:SEVERAL_SHOWN])
    more = f" and {len(found) - SEVERAL_SHOWN} more" if len(found) > SEVERAL_SHOWN else ""
    raise UserError(f"{quote(typed)} fits several {kind}s: {names}{more}. Write the one you mean.")


# ---------------------------------------------------------------------------------------------
# How the names are made


def _folders_and_file(path: str) -> tuple[list[str], str]:
    *folders, file = SEPARATOR.split(path)
    return folders, file


def _unique_endings(paths: Sequence[str]) -> list[str]:
    """Return for each path the shortest ending that no other one has, whatever its case: without
    the extension if that will do, and the path itself if there is no such ending."""
    endings = [list(dict.fromkeys(_endings(path))) for path in paths]
    count = Counter(name for names in endings for name in set(map(fold, names)))
    return [
        next((ending for ending in names if count[fold(ending)] == 1), path).removeprefix("/")
        for path, names in zip(paths, endings, strict=True)
    ]


def _endings(path: str) -> Iterator[str]:
    """Yield the endings of a path, the shortest first. The longest begins with a `/`, so that it is
    no ending of another path."""
    folders, file = _folders_and_file(f"/{path}")
    for name in (display_name(file), file):
        if name.strip():
            for first in range(len(folders), -1, -1):
                yield "/".join((*folders[first:], name))


def _full_names(paths: Sequence[str]) -> list[str]:
    """Return each path with `/` between its folders and without what would end a tag: with the
    extension where another one differs by nothing else, and as it is where that will not do
    either."""
    slashed = [re.sub("[<>]", " ", SEPARATOR.sub("/", path)) for path in paths]
    count = Counter(name for path in slashed for name in {path, without_extension(path)})
    names = zip(map(without_extension, slashed), slashed, paths, strict=True)
    return [next((name for name in forms if count[name] == 1), forms[-1]) for forms in names]


def _files_before_folders(paths: Sequence[str], endings: Sequence[str]) -> list[str]:
    """Return `fox (anime)` for each path, with the extension where its ending has it."""
    shown: list[str] = []
    for path, ending in zip(paths, endings, strict=True):
        folders = "/".join(_folders_and_file(path)[0])
        file = _folders_and_file(ending)[1]
        shown.append(f"{file} ({folders})" if folders else ending)
    count = Counter(shown)  # a file's name may have a backslash in it
    return [name if count[name] == 1 else path for name, path in zip(shown, paths, strict=True)]


def _entry(value: str, path: str, ending: str, choice: str) -> _Entry:
    token = value if len(value) <= OPTION_LIMIT else _with_hash(value)
    called = {value, path, ending, choice}
    name = _words(display_name(value))
    exact = frozenset((*map(fold, called), *map(_words, called), name))
    return _Entry(value, Choice(choice, token), exact, name, _words(without_extension(value)))


def fold(text: str) -> str:
    """Return a text in the one form in which names are compared: a Mac writes `é` as two
    characters, and lists them so."""
    if text.isascii():
        return text.strip().lower()
    text = unicodedata.normalize("NFKC", text).casefold()
    return unicodedata.normalize("NFKC", text).strip()


def _words(text: str) -> str:
    """Return the words of a text in folded form, with a space before each: `-`, `_`, `.`, `/` and
    spaces are alike. A sign like an emoji is a word."""
    text = fold(text)
    found = WORD.findall(text) if text.isascii() else "".join(map(_in_word, text)).split()
    return " ".join(("", *found))


def _in_word(char: str) -> str:
    """Return what a character of a folded text is to its word: a part, a word, an end, nothing."""
    if char.isalnum():
        return char
    category = unicodedata.category(char)
    if category == "Cf" or char in EMOJI_STYLE:
        return ""
    if category.startswith("M"):
        return char
    return f" {char} " if category.startswith("S") and not char.isascii() else " "


def _with_hash(text: str) -> str:
    """Shorten a text to OPTION_LIMIT with its hash at the end, which is the same after a
    restart."""
    digest = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:HASH_LENGTH]
    return f"{shorten_middle(text, OPTION_LIMIT - HASH_LENGTH - 1)}#{digest}"


def _by_rank(entries: Sequence[_Entry], folded: str, query: str) -> Iterator[Sequence[_Entry]]:
    """Yield the entries that have every word in groups, the best matches first; an entry may come
    several times. The event loop does this at each letter that a person types: so it works on whole
    lists, and no further than the caller asks."""
    words = list(dict.fromkeys(query.split()))
    starts = [f" {word}" for word in words]
    having = _with_path(entries, words)
    yield [entry for entry in having if folded in entry.exact]
    yield [entry for entry in having if query in entry.exact]
    yield [entry for entry in having if entry.name.startswith(query)]
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


def disambiguate(texts: Sequence[str]) -> list[str]:
    """Shorten each text to OPTION_LIMIT, and keep different ones different."""
    shown = {text: shorten_middle(text, OPTION_LIMIT) for text in texts}
    count = Counter(shown.values())
    for text, short in shown.items():
        if count[short] > 1 and short != text:
            shown[text] = _with_hash(text)
    return [shown[text] for text in texts]
