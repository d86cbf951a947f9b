"""Blocked terms: parse them, and find them in a prompt.

Pure functions and values for any thread, without I/O.

Term and prompt are compared word by word. Case, width, accents, other combining marks and invisible
characters do not count; a letter of another alphabet is the Latin one that it looks like (not a
digit). Between words, white space, `_`, dashes, brackets and quotation marks are
the same; other punctuation ends a word as well, but no term reaches over it: `red fox` is in
`(Red_Fox:1.2)` and not in `red, fox`. Chinese, Japanese, Thai, Lao, Khmer and Burmese are written
without spaces: a term in these, or of emoji, is found anywhere, white space or not.
"""

# ruff: noqa: RUF001 (letters that look like others)

from __future__ import annotations

import codecs
import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from text import UserError, drop_lone_surrogates, quote

TERM_LIMIT = 100  # characters of a term as it is typed
STARS = ("*", "\uff0a")  # the second is the full-width one of East Asian keyboards
MOST_TERMS = 10_000  # of one server
FILE_LIMIT = 256 * 1024  # bytes of a list

BREAK = ","  # stands for punctuation in a folded text; no term reaches over it
LIKE_SPACE = {"Zs", "Zl", "Zp", "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Sk"}  # Sk: skin tones too
ALSO_LIKE_SPACE = "*'\"\\·\u30fb\u2800"  # the last two: Japan's middle dot, and braille's blank
FILLERS = "\u115f\u1160"  # Unicode calls these letters, but they are invisible
# The Latin letter in the name of another: Unicode calls no bar or hook a mark.
LIKE_LATIN = re.compile(
    r"(?:NEGATIVE \w+ )?LATIN (?:SMALL LETTER|CAPITAL LETTER|LETTER SMALL CAPITAL)"
    r"(?: SCRIPT| DOTLESS)? ([A-Z])(?: WITH .*)?"
)
# Letters of other names, each group after the Latin one that they look like. Term and prompt are
# folded alike, so a Russian or Greek term still finds its own word.
LOOK_ALIKE_GROUPS = (
    "aɑαаᎪ bβвьᏴ cςсϲᏟ dԁᎠ eεеєᎬ fғ gցᏀ hнһհᎻ iɩιіᎥ jϳјᎫ kκкᏦ lӏᏞ mмᎷ nηпո oοσоօ pρрᏢ qԛզ rгяᎡ"
    " sѕᏚ tτтᎢ uυμս vνѵᏙ wωԝѡᎳ xχх yγуᎩ zζᏃ"
)
LOOK_ALIKES = {other: group[0] for group in LOOK_ALIKE_GROUPS.split() for other in group[1:]}
# Greek capitals that look like another Latin letter than their small ones, beside Latin letters.
GREEK_CAPITAL = re.compile("(?<=[A-Za-z])[ΗΜΝΥ]|[ΗΜΝΥ](?=[A-Za-z])")
LATIN_CAPITALS = dict(zip("ΗΜΝΥ", "HMNY", strict=True))

# In these scripts of South and Southeast Asia most marks are vowels: they count after a letter of
# such a script, and are accents like all others elsewhere.
WITH_VOWEL_MARKS = "\u0900-\u109f\u1700-\u1aaf\u1b00-\u1c7f\ua800-\uabff"
VOWEL_MARKS = "".join(
    char
    for low, high in ((0x900, 0x10A0), (0x1700, 0x1AB0), (0x1B00, 0x1C80), (0xA800, 0xAC00))
    for char in map(chr, range(low, high))
    if unicodedata.category(char) in ("Mn", "Mc")
)
VOICE_MARKS = "\u3099\u309a"  # of kana: NFC makes は and the first of them ば
FOREIGN_MARK = f"(?<![{WITH_VOWEL_MARKS}])[{VOWEL_MARKS}{VOICE_MARKS}]+"

UNSPACED = (
    "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"  # Chinese
    "\U00020000-\U0003ffff"
    "\u3041-\u309f\u30a1-\u30ff\u31f0-\u31ff\u3105-\u312f"  # Japanese; bopomofo
    "\u0e01-\u0eff\u1000-\u109f\u1780-\u17dd"  # Thai, Lao; Burmese; Khmer
    "\u2190-\u27ff\u2900-\u2bff\U0001f000-\U0001fbff"  # emoji, and signs like them
)
# These are texts that are compiled when first used: it takes 5 ms, which a start can do without.
RUN = f"[{UNSPACED}][{UNSPACED} ]*|{BREAK}|[^{UNSPACED} {BREAK}]+"
BEGINNING = f"[{UNSPACED}]|(?<![^ ])[^ {BREAK}]"
UNSPACED_CHAR = f"[{UNSPACED}]"


class TermError(UserError):
    """A term, or a file of them, that cannot be added to a server's list."""


class Term(NamedTuple):
    """A blocked term; terms with the same `key`, by which it is compared, are the same term."""

    key: str
    typed: str


@dataclass(frozen=True)
class TermList:
    """The contents of a file: each term once, and the lines that were not accepted, as their number
    from 1 and the sentence for the moderator."""

    terms: tuple[Term, ...]
    refused: tuple[tuple[int, str], ...]


def parse_term(typed: str) -> Term:
    """Parse a term as a moderator types it: a word, several, or the beginning of one (`fox*`).
    Raises TermError if it is empty, too long, or has a `*` or punctuation where nothing would
    match."""
    shown = " ".join(drop_lone_surrogates(typed).split())
    if len(shown) > TERM_LIMIT:
        raise TermError(
            f"{quote(shown)} has {len(shown)} characters: a term has at most {TERM_LIMIT}."
        )
    is_beginning = shown.endswith(STARS)
    body = shown[:-1] if is_beginning else shown
    key = _folded(body)
    if not key.strip(f" {BREAK}"):
        what = quote(shown) if shown else "The term"
        raise TermError(f"{what} has no letter, digit or emoji in it.")
    if body.endswith(" ") or any(star in body for star in STARS):
        raise TermError(
            f"{quote(shown)} has a `*` that is not right after a word at its end, as in `fox*`."
        )
    if BREAK in key:
        without = " ".join(key.replace(BREAK, " ").split()) + "*" * is_beginning
        raise TermError(
            f"{quote(shown)} has punctuation in it, which is not compared:"
            f" add {quote(without)} if you mean that."
        )
    return Term(f"{key}*" if is_beginning and not re.match(UNSPACED_CHAR, key[-1]) else key, shown)


def parse_terms(typed: str) -> tuple[Term, ...]:
    """Parse the terms of a command, with commas or new lines between them. Raises TermError for the
    first that is none."""
    parts = [part for part in re.split("[,，、\n]", typed) if part.strip()]
    return tuple(map(parse_term, parts or [""]))


def each_once(terms: Iterable[Term]) -> tuple[Term, ...]:
    """Return the terms without those that are the same as an earlier one."""
    found: dict[str, Term] = {}
    for term in terms:
        found.setdefault(term.key, term)
    return tuple(found.values())


def parse_list(data: bytes) -> TermList:
    """Parse a text file with one term per line: UTF-8, or UTF-16 with a byte order mark, as Notepad
    writes it. Blank lines and those that begin with # are skipped. Raises TermError if it is no
    such file or larger than a server's list may be."""
    if len(data) > FILE_LIMIT:
        raise TermError(f"The file is larger than {FILE_LIMIT // 1024} KiB.")
    is_utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = data.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeError:
        text = "\0"
    if "\0" in text:
        raise TermError("The file is not plain text: save it as UTF-8, with one term a line.")
    numbered = enumerate(map(str.strip, text.splitlines()), start=1)
    lines = [(number, line) for number, line in numbered if line and not line.startswith("#")]
    if len(lines) > MOST_TERMS:
        raise TermError(f"The file has {len(lines):,} terms: a server has at most {MOST_TERMS:,}.")
    terms, refused = [], []
    for number, line in lines:
        try:
            terms.append(parse_term(line))
        except TermError as error:
            refused.append((number, error.user_message))
    return TermList(each_once(terms), tuple(refused))


class Matcher:
    """The terms of one server, sorted so that they are found in a prompt.

    The time is bounded whatever the terms are: for each word of the prompt there is one binary
    search. The last term that sorts before the rest of the prompt either is the longest with which
    the rest begins, or itself begins with that longest one.
    """

    def __init__(self, terms: Iterable[tuple[str, str]]) -> None:
        """`terms` are pairs of key and typed, as in `Term`."""
        typed = {_beginning(key): shown for key, shown in terms}
        self._sorted = ["", *sorted(typed)]  # the empty one stands for none
        self._typed = [typed.get(text, "") for text in self._sorted]
        self._longest = max(map(len, self._sorted))
        self._parents, self._jumps = _prefixes(self._sorted)
        # By the first two characters: from where to where the sorted texts begin with them.
        self._places: dict[str, tuple[int, int]] = {}
        for place, text in enumerate(self._sorted):
            head = text[:2]
            first, _ = self._places.get(head, (place, place))
            self._places[head] = (first, place + 1)

    def found(self, prompt: str) -> tuple[str, ...]:
        """Return the terms in the prompt, as they were typed, each once, in the order in which they
        begin; of those that begin together, the longer one first."""
        if self._sorted == [""]:
            return ()
        text = f"{_folded(prompt)} "
        found: dict[int, str] = {}
        for match in re.finditer(BEGINNING, text):
            start = match.start()
            places = self._places.get(text[start : start + 2]) or self._places.get(text[start])
            at = self._longest_in(text[start : start + self._longest], *places) if places else 0
            while at and at not in found:
                found[at] = self._typed[at]
                at = self._parents[at]
        return tuple(found.values())

    def _longest_in(self, rest: str, first: int, end: int) -> int:
        """Return the index of the longest term with which this begins; 0 if there is none. All
        texts that begin with the same two characters are from `first` to before `end`."""
        at = bisect_right(self._sorted, rest, first, end) - 1
        while not rest.startswith(self._sorted[at]):
            jump = self._jumps[at]
            at = self._parents[at] if rest.startswith(self._sorted[jump]) else jump
        return at


def _beginning(key: str) -> str:
    """Return the text with which the rest of a prompt begins where the term is found: after a whole
    word comes a space."""
    if key.endswith("*"):
        return key[:-1]
    return key if re.match(UNSPACED_CHAR, key[-1]) else f"{key} "


def _prefixes(texts: list[str]) -> tuple[list[int], list[int]]:
    """Return for each of the sorted texts the index of its parent, the longest other one that it
    begins with; and of an ancestor further up, so that a hundred texts that begin with one another
    are passed in a few steps."""
    parents, jumps, depths = [0], [0], [0]
    open_places = [0]
    for place in range(1, len(texts)):
        while not texts[place].startswith(texts[open_places[-1]]):
            open_places.pop()
        parent = open_places[-1]
        jump = jumps[parent]
        # Jump pointers of a tree: two jumps of the same length are followed by one over both.
        doubles = depths[parent] - depths[jump] == depths[jump] - depths[jumps[jump]]
        parents.append(parent)
        jumps.append(jumps[jump] if doubles else parent)
        depths.append(depths[parent] + 1)
        open_places.append(place)
    return parents, jumps


def _folded(text: str) -> str:
    """Return the words of the text as they are compared, with one space between them and none
    between characters of a script without spaces; BREAK for punctuation."""
    if not text.isascii():
        text = GREEK_CAPITAL.sub(lambda found: LATIN_CAPITALS[found[0]], text)
    text = text.translate(FOLDED)
    if not text.isascii():
        text = re.sub(FOREIGN_MARK, "", unicodedata.normalize("NFC", text))
    return " ".join([run.replace(" ", "") for run in re.findall(RUN, text)])


class _FoldTable(dict[int, str]):
    """A table for `str.translate()`; a character is folded when it first occurs."""

    def __missing__(self, code: int) -> str:
        folded = "".join(map(_fold, unicodedata.normalize("NFKD", chr(code))))
        if len(folded) > 4:  # a whole phrase as one character, which would make a prompt long
            folded = chr(code)
        if len(self) < 20_000:  # a prompt may have any of a million characters
            self[code] = folded
        return folded


def _fold(char: str) -> str:
    """Return the text that a character of a decomposed text counts as."""
    category = unicodedata.category(char)
    if char in VOWEL_MARKS or char in VOICE_MARKS:
        return char
    if char.isspace() or category in LIKE_SPACE or char in ALSO_LIKE_SPACE:
        return " "
    if category[0] in "CM" or char in FILLERS:
        return ""
    if like := LIKE_LATIN.fullmatch(unicodedata.name(char, "")):
        return like[1].lower()
    if category[0] in "LN":
        return "".join(LOOK_ALIKES.get(letter, letter) for letter in char.casefold())
    return char if category == "So" and re.match(UNSPACED_CHAR, char) else BREAK


FOLDED = _FoldTable()
