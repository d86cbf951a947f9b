"""Blocked terms: as a moderator types them, and found in prompts however they are written."""

# ruff: noqa: RUF001 (letters that look like others are what it is about)

from __future__ import annotations

import codecs
import random
import sys
import unicodedata
from collections.abc import Callable, Iterable

import pytest

from jobs import terms as blocked
from jobs.terms import Matcher, Term, TermError, TermList, parse_list, parse_term


def found(terms: Iterable[str], prompt: str) -> list[str]:
    """Return the terms in a prompt, each as its moderator typed it."""
    return list(Matcher(map(parse_term, terms)).found(prompt))


def refusal(take: Callable[[], object]) -> str:
    with pytest.raises(TermError) as refused:
        take()
    assert refused.value.user_message.endswith(".")
    return refused.value.user_message


# Terms as they are typed


@pytest.mark.parametrize(
    ("typed", "key"),
    [
        ("fox", "fox"),
        ("FOX", "fox"),
        ("  Red \n  Fox ", "red fox"),
        ("red_fox", "red fox"),
        ("red-fox", "red fox"),
        ("(fox)", "fox"),
        ("don't", "don t"),
        ("naïve", "naive"),
        ("Straße", "strasse"),
        ("Łódź", "lodz"),
        ("ﬁx", "fix"),
        ("ｆｏｘ", "fox"),
        ("1girl", "1girl"),
        ("fox*", "fox*"),
        ("fox＊", "fox*"),
        ("red fox*", "red fox*"),
        ("赤い 狐", "赤い狐"),
        ("狐fox", "狐 fox"),
        ("狐*", "狐"),
        ("ﾊﾞｶ", "バカ"),
        ("🦊", "🦊"),
        ("👍🏽", "👍"),
        ("कि", "कि"),
        ("여우", "여우"),
        ("x" * 100, "x" * 100),
        ("x" * 99 + "*", "x" * 99 + "*"),
    ],
)
def test_a_term_has_a_key_by_which_it_is_compared(typed: str, key: str) -> None:
    assert parse_term(typed) == Term(key, " ".join(typed.split()))


@pytest.mark.parametrize("typed", ["", " \n ", "\u200b", "!!!", "*", "(*)", "\u0301", "_-_"])
def test_a_term_without_anything_to_compare_is_refused(typed: str) -> None:
    assert "no letter, digit or emoji" in refusal(lambda: parse_term(typed))


@pytest.mark.parametrize("typed", ["x" * 101, "x" * 100 + "*", "a " * 51, "x" * 4000])
def test_a_term_that_is_too_long_is_refused_with_its_length(typed: str) -> None:
    user_message = refusal(lambda: parse_term(typed))
    assert f"{len(typed.strip())} characters" in user_message
    assert "at most 100" in user_message
    assert len(user_message) < 200


@pytest.mark.parametrize("typed", ["*fox", "f*x", "red* fox", "fox *", "fox**", "f＊x"])
def test_a_star_is_only_at_the_end_of_a_word(typed: str) -> None:
    assert "`fox*`" in refusal(lambda: parse_term(typed))


@pytest.mark.parametrize(
    ("typed", "instead"),
    [("fox, wolf", "fox wolf"), ("s.o.b.", "s o b"), ("$ex", "ex"), ("c++", "c"), ("a,b*", "a b*")],
)
def test_a_term_with_punctuation_is_refused_with_what_to_add_instead(
    typed: str, instead: str
) -> None:
    assert f"add `{instead}`" in refusal(lambda: parse_term(typed))
    parse_term(instead)


def test_half_an_emoji_reaches_neither_the_term_nor_the_sentence() -> None:
    assert "`fox?`" in refusal(lambda: parse_term("fox\ud83e"))


# Prompts


@pytest.mark.parametrize(
    "prompt",
    [
        *("fox", "a FOX.", "the fox's den", "(fox:1.2)", "((fox))", "[fox]", "{fox}", "fox,"),
        *("<lora:fox:0.8>", "red_fox_2", "red-fox", "*fox*", '"fox"', "fox!", "a\nfox\n", "fox🦊"),
        *("ｆｏｘ", "ＦＯＸ", "fôx", "fo\u0302x", "f\u200box", "f\u00ado\u2060x"),
        *("\u202efox\u202c", "f\u0336o\u0336x\u0336", "f\u0489ox", "f\u20ddox", "𝔣𝔬𝔵", "ⓕⓞⓧ"),
        *("f\u034fo\ufe0fx", "føx"),
        *("f\u0e34ox", "f\u093fox", "f\u3099ox", "f\x00ox", "f\U000e0041ox", "狐foxです", "fᵒx"),
        *("fоx", "ғох", "fοχ", "ꜰᴏx", "FОХ", "FΟΧ", "ƒօx", "fσx", "🅵🅾🆇", "🅕🅞🅧", "ｆоx"),
        *("f\ufeffox", "f\u3164ox", "f\u180eox", "f\U000e0101ox"),
    ],
)
def test_a_word_is_found_however_it_is_written(prompt: str) -> None:
    assert found(["fox"], prompt) == ["fox"]


@pytest.mark.parametrize(
    "prompt",
    ["", " ", "foxes", "firefox", "fox2", "2fox", "fo x", "f.ox", "fow", "여우fox", "foxé", "f0x"],
)
def test_another_word_is_not_found(prompt: str) -> None:
    assert found(["fox"], prompt) == []


@pytest.mark.parametrize(
    ("term", "prompt"),
    [
        *[("nude", prompt) for prompt in ("ηude", "ΝUDE", "nυde", "ɴᴜᴅᴇ", "NUDЕ", "nude\u0301")],
        *[
            ("лиса", "рыжая Лиса"),
            ("волк", "ВОЛК"),
            ("сор", "СОР"),
            ("νερό", "ΝΕΡΌ"),
            ("Ήλιος", "ήλιος"),
        ],
        *[
            ("мышь", "мышь"),
            ("ひと", "ひと"),
            ("vегmin", "vermin"),
            ("horse", "ΗORSE"),
            ("girl", "ɡıгl"),
        ],
    ],
)
def test_letters_that_look_alike_are_the_same_in_term_and_prompt(term: str, prompt: str) -> None:
    assert found([term], prompt) == [term]


def test_the_beginning_of_a_word_is_found_and_its_middle_is_not() -> None:
    assert found(["fox*"], "Foxes") == ["fox*"]
    assert found(["fox*"], "a f\u200bóx") == ["fox*"]
    assert found(["fox*"], "ｆｏｘｙ") == ["fox*"]
    assert found(["fox*"], "firefox fo xy") == []


@pytest.mark.parametrize("between", [" ", "   ", "\n", "\t", "\r\n", "\u00a0", "\u3000", "\u2009"])
def test_several_words_match_with_any_white_space(between: str) -> None:
    assert found(["red  fox"], f"a red{between}fox") == ["red fox"]


@pytest.mark.parametrize(
    "prompt", ["red_fox", "Red-Fox", "(red fox:1.2)", "(red) [fox]", "“red” fox"]
)
def test_what_prompts_use_as_white_space_is_as_good(prompt: str) -> None:
    assert found(["red fox"], prompt) == ["red fox"]


@pytest.mark.parametrize(
    "prompt", ["redfox", "red, fox", "red. Fox", "red | fox", "fox red", "red foxes", "red old fox"]
)
def test_several_words_are_not_found_apart(prompt: str) -> None:
    assert found(["red fox"], prompt) == []


def test_only_the_last_of_several_words_may_be_a_beginning() -> None:
    assert found(["red fox*"], "red foxes") == ["red fox*"]
    assert found(["red fox*"], "reddish fox") == []


@pytest.mark.parametrize(
    ("term", "prompt"),
    [
        ("狐", "美しい赤い狐がいる"),
        ("赤い狐", "美しい赤い狐がいる"),
        ("赤い狐", "赤い\u3000狐"),
        ("赤い 狐", "赤い狐"),
        ("狐*", "狐火"),
        ("ばか", "おば\u200bかさん"),
        ("バカ", "ﾊﾞｶ"),
        ("แมว", "รักแมวมาก"),
        ("🍆", "eat🍆🍆now"),
        ("👍", "👍🏽"),
        ("👩‍🚀", "an 👩🏽‍🚀 here"),
        ("❤️", "I ❤ you"),
        ("狐 fox", "狐fox"),
    ],
)
def test_a_term_of_a_script_without_spaces_is_found_anywhere(term: str, prompt: str) -> None:
    assert found([term], prompt) == [term]


@pytest.mark.parametrize(
    ("term", "prompt"),
    [("ばか", "はか"), ("कि", "कु"), ("कि", "क"), ("狐犬", "狐、犬"), ("여우", "여우가")],
)
def test_a_mark_that_makes_another_letter_counts_and_korean_has_words(
    term: str, prompt: str
) -> None:
    assert found([term], prompt) == []


def test_the_terms_come_in_the_order_of_the_prompt_each_once_as_they_were_typed() -> None:
    terms = ["WOLF", "Red Fox", "fo*", "fox", "Röd", "cat"]
    assert found(terms, "a röd red fox, a red fox and wolf, fox") == [
        *("Röd", "Red Fox", "fox", "fo*", "WOLF")
    ]
    assert found([], "a fox") == []


def test_no_prompt_ends_in_an_error() -> None:
    terms = Matcher(map(parse_term, ["fox", "a*", "狐", "x y"]))
    some = [*range(0x3400), *range(0x3400, sys.maxunicode + 1, 53)]
    for start in range(0, len(some), 40):
        terms.found("".join(map(chr, some[start : start + 40])))
    assert len(blocked.FOLDED) <= 20_000


# Against a slow and obvious search

PIECES = {  # how it may be written: what it counts as
    **dict(
        zip(("a", "b", "c", "A", "ä", "ａ", "b\u0301", "Ｂ", "\u200bc"), "abcaaabbc", strict=True)
    ),
    **dict.fromkeys((" ", "\n", "\u00a0 ", "_", "(", ")", "-"), " "),
    **dict.fromkeys((",", ":", ". "), ","),
    **dict(zip(("狐", "か", "が", "ｶﾞ", "🦊", "🦊🏽"), "狐かがガ🦊🦊", strict=True)),
}


def tokens(canonical: str) -> list[str]:
    """Return words; each character without case is a word of its own."""
    for char in set(canonical) - set("abc "):
        canonical = canonical.replace(char, f" {char} ")
    return canonical.split()


def slow_search(terms: dict[str, str], prompt: str) -> list[str]:
    """Return the terms in a prompt; both are given as what they count as."""
    words = tokens(prompt)
    hits = []
    for typed, canonical in terms.items():
        term = tokens(canonical)
        for start in range(len(words) - len(term) + 1):
            *whole, last = words[start : start + len(term)]
            same = last.startswith(term[-1]) if typed.endswith("*") else last == term[-1]
            if whole == term[:-1] and same:
                hits.append((start, -len("".join(term)), typed))
                break
    return [typed for *_, typed in sorted(hits)]


def test_it_finds_what_a_slow_and_obvious_search_finds() -> None:
    dice = random.Random(20)
    matches = 0
    for _ in range(1500):
        terms: dict[str, str] = {}
        keys: set[str] = set()
        for _ in range(dice.randint(1, 12)):
            pieces = dice.choices([p for p in PIECES if PIECES[p] != ","], k=dice.randint(1, 5))
            star = "*" * (PIECES[pieces[-1]] in "abc" and dice.random() < 0.4)
            canonical = "".join(PIECES[piece] for piece in pieces)
            try:
                term = parse_term("".join(pieces) + star)
            except TermError:
                assert not tokens(canonical)
                continue
            if term.key not in keys and len({*keys, term.key.strip("*")}) > len(keys):
                keys |= {term.key, term.key.strip("*")}
                terms[term.typed] = canonical
        pieces = dice.choices(list(PIECES), k=dice.randint(0, 40))
        expected = slow_search(terms, "".join(PIECES[piece] for piece in pieces))
        got = found(terms, "".join(pieces))
        assert sorted(got) == sorted(expected), (terms, pieces)
        matches += len(got)
    assert matches > 1000


def test_terms_that_begin_with_one_another_are_all_found_and_no_other() -> None:
    terms = [*("a" * n + "*" for n in range(1, 100)), *("b " * n for n in range(1, 50))]
    matcher = Matcher(map(parse_term, terms))
    for length in (1, 2, 50, 98, 99, 300):
        assert matcher.found("a" * length + "z") == tuple(
            "a" * n + "*" for n in range(min(length, 99), 0, -1)
        )
    assert matcher.found("b b b, a") == ("b b b", "b b", "b", "a*")
    assert matcher.found("bb ba " + "c" * 99) == ()


def test_ten_thousand_terms_with_one_beginning_are_told_apart() -> None:
    terms = [f"{'x' * 90}{number:05}" for number in range(10_000)]
    matcher = Matcher((term, term) for term in terms)
    assert matcher.found(f"{terms[7]} {terms[9999]}1 {terms[0]}, {'x' * 90}") == (
        terms[7],
        terms[0],
    )


def test_what_a_key_is_made_of_is_folded_already() -> None:
    """Otherwise a term copied from its key would be another term."""
    for typed in ("Łódź", "ﾊﾞｶ", "👩‍🚀", "कि", "Straße", "İstanbul", "ŉ", "ΌΣΟΣ", "각하", "น้ำ"):
        key = parse_term(typed).key
        assert parse_term(key).key == key == unicodedata.normalize("NFC", key)


# Lists in a file


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
def test_a_file_is_read_as_editors_write_it(encoding: str) -> None:
    text = "Fox\r\n\r\n# not wanted\r\n  wolf* \r\nröd räv\r\n狐\r\nFOX\r\n"
    bom = codecs.BOM_UTF16_BE if encoding == "utf-16-be" else b""
    terms = parse_list(bom + text.encode(encoding))
    assert [term.typed for term in terms.terms] == ["Fox", "wolf*", "röd räv", "狐"]
    assert terms.refused == ()


def test_lines_that_are_no_terms_are_named_with_their_number_and_the_others_taken() -> None:
    listed = parse_list(b"fox\n\nf*x\n#\nwolf\n" + b"x" * 101)
    assert [term.typed for term in listed.terms] == ["fox", "wolf"]
    assert [number for number, _ in listed.refused] == [3, 6]
    assert ["`fox*`" in listed.refused[0][1], "101" in listed.refused[1][1]] == [True, True]


@pytest.mark.parametrize(
    "data",
    [b"\xff\xfe\x00", b"\xff\xd8\xff", "naïve".encode("latin-1"), "fox".encode("utf-32"), b"\0"],
)
def test_a_file_that_is_no_text_is_refused(data: bytes) -> None:
    assert "UTF-8" in refusal(lambda: parse_list(data))


def test_a_list_has_bounds_and_reaches_them() -> None:
    most = "\n".join(f"fox{number}" for number in range(10_000))
    assert len(parse_list(most.encode()).terms) == 10_000
    assert "10,001" in refusal(lambda: parse_list(f"{most}\nwolf".encode()))
    assert parse_list(b"#" * 256 * 1024) == TermList((), ())
    assert "256 KiB" in refusal(lambda: parse_list(b"#" * (256 * 1024 + 1)))
    assert parse_list(b"") == TermList((), ())
