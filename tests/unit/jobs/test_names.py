"""How names and texts of people and servers are shown, and how a name is found."""

from __future__ import annotations

import difflib
import random
import time
from collections.abc import Callable, Sequence

import pytest

from jobs.names import OptionNames, disambiguate, find_named, find_only, moved_model, nearest
from tests.standins.discord.markdown import read
from text import UserError, display_name, drop_lone_surrogates, escape, quote, shorten_middle

MODELS = ("base_1.0.safetensors", "Flux/flux1-dev.safetensors", "old.ckpt")
LONG_TEXTS = [
    "x" * 4000,
    ":a" * 2000,
    "1. \n" * 1000,
    "[" * 4000,
    "\\" * 4000,
    "# \n" * 1333,
    "`*_" * 1333,
    "🦊" * 4000,
]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a.safetensors", "a"),
        ("SDXL/deep/a_1.0.SafeTensors", "a_1.0"),
        ("SDXL\\a.ckpt", "a"),
        ("a.pt", "a"),
        ("a.pth", "a"),
        ("a.txt", "a.txt"),
        ("folder/.safetensors", "folder/.safetensors"),
    ],
)
def test_a_models_name_is_its_file_without_folders_and_extension(name: str, shown: str) -> None:
    assert display_name(name) == shown


def test_the_nearest_names_are_named_and_have_no_markdown() -> None:
    models = ["sd/base_1.0.safetensors", "sd/base_1.1.safetensors", "zzz.ckpt"]
    offered = OptionNames(models)
    assert nearest("other/bass_1.0.ckpt", offered) == r" The nearest: base\_1.0, base\_1.1."
    assert nearest("qqqq", offered) == ""


def test_at_most_three_nearest_names_are_named_and_none_is_long() -> None:
    text = nearest("a" * 300, OptionNames([f"{'a' * 300}{number}" for number in range(9)]))
    assert text.count(", ") == 2
    assert len(text) < 350


LONG_MODELS = [f"{'x' * 80}/{'y' * 80}{number}.safetensors" for number in range(9)]


def find_model(text: str, models: Sequence[str]) -> str:
    return find_named("model", text, OptionNames(models))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("old.ckpt", "old.ckpt"),
        ("OLD.CKPT", "old.ckpt"),
        ("Flux1-Dev", "Flux/flux1-dev.safetensors"),
        ("flux/", "Flux/flux1-dev.safetensors"),
        ("1", "base_1.0.safetensors"),  # of several, the server's first
        (shorten_middle(LONG_MODELS[3], 100), LONG_MODELS[3]),
    ],
)
def test_a_model_is_found_by_its_name_or_any_part_of_it(text: str, found: str) -> None:
    assert find_model(text, [*MODELS, *LONG_MODELS]) == found


def test_the_closest_way_to_name_a_model_wins() -> None:
    models = ["new/fox2.ckpt", "new/FOX.ckpt", "fox"]
    assert find_model("fox", models) == "fox"
    assert find_model("Fox", models) == "fox"
    assert find_model("new fox", models) == "new/FOX.ckpt"
    assert find_model("ox", models) == "new/fox2.ckpt"


def test_a_model_that_is_not_there_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError) as refused:
        find_model("bass_1.0", MODELS)
    assert refused.value.user_message == r"There is no model `bass_1.0`. The nearest: base\_1.0."


def shown(models: list[str]) -> list[str]:
    names = OptionNames(models)
    return [names.shown(model) for model in models]


def offered(text: str, models: list[str]) -> list[str]:
    """What autocomplete shows."""
    return [choice.name for choice in OptionNames(models).choices(text)]


@pytest.mark.parametrize(
    ("models", "called"),
    [
        (["anime/fox.ckpt", "bear.ckpt"], ["fox", "bear"]),
        (["anime/fox.ckpt", "photo/fox.ckpt"], ["anime/fox", "photo/fox"]),
        (["anime\\fox.ckpt", "photo\\fox.ckpt"], ["anime/fox", "photo/fox"]),
        (["a/x/fox.ckpt", "b/x/fox.ckpt", "b/y/fox.ckpt"], ["a/x/fox", "b/x/fox", "y/fox"]),
        (["fox.ckpt", "anime/fox.ckpt"], ["fox", "anime/fox"]),
        (["fox.ckpt", "fox", "a/fox.ckpt.pt"], ["fox.ckpt", "fox", "a/fox.ckpt"]),
        (["sd/fox.ckpt", "sd/fox.safetensors"], ["fox.ckpt", "fox.safetensors"]),
        (["sd/Fox.ckpt", "xl/fox.ckpt"], ["sd/Fox", "xl/fox"]),
        (["sd/Fox.ckpt", "sd/fox.ckpt"], ["sd/Fox.ckpt", "sd/fox.ckpt"]),
        (["a/.ckpt", "a/ ", "/"], [".ckpt", "a/ ", "/"]),
    ],
)
def test_a_model_is_called_by_the_shortest_ending_of_its_path_that_is_its_own(
    models: list[str], called: list[str]
) -> None:
    assert shown(models) == called


def test_no_two_models_look_the_same_whatever_their_paths() -> None:
    chance = random.Random(7)
    parts = ["a", "A", "fox", "Fox", "b c", "x" * 90]
    for _ in range(200):
        paths = ["/".join(chance.choices(parts, k=chance.randint(1, 3))) for _ in range(40)]
        models = list(
            dict.fromkeys(f"{path}{chance.choice(['', '.pt', '.ckpt'])}" for path in paths)
        )
        names = OptionNames(models)
        assert len(set(shown(models))) == len(models)
        assert all(names.find(names.shown(model)) == model for model in models)


def test_a_model_that_is_not_in_the_list_is_called_by_its_file() -> None:
    assert OptionNames(["anime/fox.ckpt"]).shown("photo/fox.ckpt") == "fox"
    assert len(OptionNames([]).shown("x" * 300)) == 100


LONG = "x" * 90
ALIKE = [
    [f"{LONG}{middle}{LONG}" for middle in ("1", "2", "33", "")],
    [f"{LONG}{one}{LONG}{other}{LONG}" for one in "12" for other in "12"],
    [f"{at * 'x'}1{(300 - at) * 'x'}" for at in range(0, 300, 7)],
    ["x" * length for length in range(95, 140)],
    [f"{one}{LONG}{other}{LONG}" for one in ("a" * 30, "b" + "a" * 29) for other in "12"],
    [shorten_middle(f"{LONG}1{LONG}", 100), f"{LONG}1{LONG}"],
]


@pytest.mark.parametrize("texts", ALIKE)
def test_different_texts_stay_different_when_they_are_shortened(texts: list[str]) -> None:
    short = disambiguate(texts)
    assert len(set(short)) == len(texts)
    assert all(len(text) <= 100 for text in short)


@pytest.mark.parametrize("text", ["model 123", "123 model", "MODEL-123", "model.123", "el_12 123"])
def test_words_are_found_in_any_order_and_whatever_separates_them(text: str) -> None:
    models = ["model_12.ckpt", "sd/my_model_123.ckpt", "remodel_3.ckpt"]
    assert find_model(text, models) == "sd/my_model_123.ckpt"
    assert offered(text, models) == ["my_model_123 (sd)"]


def test_the_best_match_comes_first_and_of_equals_the_servers_first() -> None:
    best_last = ["tiny/ab.ckpt", "batiny.ckpt", "a_tiny.ckpt", "tiny_sd15.ckpt", "sd/tiny.ckpt"]
    best = ["tiny (sd)", "tiny_sd15", "a_tiny", "batiny", "ab (tiny)"]
    assert offered("tiny", best_last) == best
    assert find_model("tiny", best_last[:4]) == "tiny_sd15.ckpt"
    assert offered("", best_last)[0] == "ab (tiny)"
    assert offered("t", ["t3.ckpt", "t1.ckpt", "t2.ckpt"]) == ["t3", "t1", "t2"]
    assert offered("x f", ["ax/af.ckpt", "x/f1.ckpt"]) == ["f1 (x)", "af (ax)"]
    assert offered("雪 new", ["b/snow.pt", "a/style: 雪  (new).pt"]) == ["style: 雪  (new) (a)"]


def test_autocomplete_shows_the_name_before_the_folder() -> None:
    models = ["sd/anime/fox.ckpt", "photo\\fox.ckpt", "fox.ckpt", "fox.safetensors", "a\\b", "a/b"]
    names = ["fox (sd/anime)", "fox (photo)", "fox.ckpt", "fox.safetensors", "a\\b", "a/b"]
    assert offered("", models) == names
    assert offered("nothing", models) == []
    assert offered("_", models) == names


def test_what_autocomplete_offers_is_within_discords_limits_and_leads_to_its_model() -> None:
    models = [*ALIKE[1], *LONG_MODELS, *(f"{'x/' * 60}{n}.ckpt" for n in range(99)), "x.ckpt"]
    names, restarted = OptionNames(models), OptionNames(models[::-1])
    assert len(names.choices("x")) == len(names.choices("")) == 25
    for model in models:
        choices = names.choices(model)
        assert all(0 < len(text) <= 100 for choice in choices for text in choice)
        assert len({choice.name for choice in choices}) == len(choices)
        assert restarted.find(choices[0].value) == model
        assert names.find(choices[0].name) == names.find(names.shown(model)) == model


@pytest.mark.parametrize("text", ["a", "l a", "anime 9", "zebra", "el mod anime"])
def test_a_letter_that_somebody_types_costs_little_more_than_looking_through_the_list(
    text: str,
) -> None:
    names = OptionNames([f"anime/model_{number}.safetensors" for number in range(1000)])
    paths = [entry.path for entry in names._entries]

    def quickest(act: Callable[[], object]) -> float:
        times = []
        for _ in range(20):
            began = time.thread_time()
            act()
            times.append(time.thread_time() - began)
        return min(times)

    once = quickest(lambda: [path for path in paths if f" {text}" in path])
    assert quickest(lambda: names.choices(text)) < 25 * once


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("s", None),  # as in safetensors
        ("safe", None),
        ("ckpt", None),
        ("ink.ckpt", "a/ink.ckpt"),
        ("a/ink.ckpt", "a/ink.ckpt"),
        ("B/INK.SAFETENSORS", "b/ink.safetensors"),
        ("ink.safetensors", "b/ink.safetensors"),
        ("deep/line.pt", "b/deep/line.pt"),
        ("line.ckpt", None),
    ],
)
def test_an_extension_is_no_part_of_a_name_and_leaves_out_files_of_another(
    typed: str, found: str | None
) -> None:
    names = OptionNames(["a/ink.ckpt", "b/ink.safetensors", "b/deep/line.pt", "x/rocket_p.bin"])
    assert names.find(typed) == found
    assert [choice.value for choice in names.choices(typed)][:1] == ([found] if found else [])


DECOMPOSED = [
    "caf\u0065\u0301_noir.safetensors",
    "\u1112\u1161\u11ab\u1100\u116e\u11a8\u1112\u116a.safetensors",
    "\u30ab\u3099\u30e9\u30b9.safetensors",
    "हिन्दी_शैली.safetensors",
    "ภาพวาดน้ำ.safetensors",
    "Straße.safetensors",
]


@pytest.mark.parametrize(
    ("typed", "at"),
    [
        ("caf\xe9", 0),
        ("noir CAF\xc9", 0),
        ("caf\xe9_noir", 0),
        ("cafe\u0301", 0),
        ("한국화", 1),
        ("국화", 1),
        ("ガラス", 2),
        ("ｶﾞﾗｽ", 2),
        ("हिन्दी", 3),
        ("शैली", 3),
        ("น้ำ", 4),
        ("STRASSE", 5),
    ],
)
@pytest.mark.parametrize("folder", ["", "\u30cf\u309a/"])
def test_a_name_is_found_in_whatever_unicode_form_it_is_listed(
    typed: str, at: int, folder: str
) -> None:
    values = [folder + name for name in DECOMPOSED]
    names = OptionNames([*values, "other.safetensors"])
    assert names.find(typed) == values[at]
    assert [choice.value for choice in names.choices(typed)] == [values[at]]


def test_an_emoji_alone_filters() -> None:
    names = OptionNames(["red fox \U0001f98a.pt", "heart \u2764\ufe0f.pt", "plain.pt", "\u2603.pt"])
    for typed, found in (
        ("\U0001f98a", "red fox \U0001f98a.pt"),
        ("\U0001f98afox", "red fox \U0001f98a.pt"),
        ("\u2764", "heart \u2764\ufe0f.pt"),
        ("\u2764\ufe0f", "heart \u2764\ufe0f.pt"),
        ("\u2603", "\u2603.pt"),
    ):
        assert [choice.value for choice in names.choices(typed)] == [found]
    assert names.choices("\U0001f600") == []


def test_a_model_that_moved_or_was_mistyped_is_found_in_another_unicode_form() -> None:
    names = OptionNames([f"new/{name}" for name in DECOMPOSED])
    assert moved_model("old/caf\xe9_noir.safetensors", names) == f"new/{DECOMPOSED[0]}"
    assert moved_model("한국화.safetensors", names) == f"new/{DECOMPOSED[1]}"
    assert names.nearest("caf\xe9_noor") == [DECOMPOSED[0].removesuffix(".safetensors")]
    assert names.nearest("한국화화") == [DECOMPOSED[1].removesuffix(".safetensors")]


def test_names_that_differ_by_their_unicode_form_alone_are_told_apart_by_their_folders() -> None:
    names = OptionNames(["a/caf\xe9.pt", "b/cafe\u0301.pt"])
    assert [names.shown(value) for value in names.values] == ["a/caf\xe9", "b/cafe\u0301"]


@pytest.mark.parametrize(
    ("values", "called"),
    [
        (["a/ink.pt", "ink.ckpt"], ["a/ink", "ink"]),
        (["a\\b\\ink.pt", "b/ink.pt"], ["a/b/ink", "b/ink"]),
        (["a/ink.pt", "a/ink.ckpt"], ["a/ink.pt", "a/ink.ckpt"]),
        (["a\\ink.pt", "a/ink.pt"], ["a\\ink.pt", "a/ink.pt"]),
        (["ink", "ink.pt"], ["ink", "ink.pt"]),
        (["Ink.pt", "ink.pt"], ["Ink", "ink"]),
    ],
)
def test_a_full_name_is_the_path_and_finds_it_alone_whatever_is_added(
    values: list[str], called: list[str]
) -> None:
    more = OptionNames(["ink/ink.pt", "x/a/b/ink.pt", "x/a/ink.pt", "x/ink.ckpt", *values])
    names = OptionNames(values)
    assert [names.full_name(value) for value in values] == called
    assert [more.find_all(name) for name in called] == [[value] for value in values]


def test_the_best_group_of_matches_decides_and_only_what_is_equally_good_is_asked_for() -> None:
    files = ["ink_line.pt", "ink_wash.pt", "blue_ink.pt", "a/pen.pt", "b/pen.pt", "old_pen.pt"]
    names = OptionNames(files)
    assert names.find_all("ink") == files[:2]
    assert names.find_all("wash") == ["ink_wash.pt"]
    assert names.find_all("pen") == ["a/pen.pt", "b/pen.pt"]
    assert names.find_all("b pen") == ["b/pen.pt"]
    assert names.find_all("Ink_Line") == ["ink_line.pt"]
    assert names.find_all("none") == names.find_all("") == names.find_all("_") == []
    with pytest.raises(UserError) as asked:
        find_only("LoRA", "ink", names, "<lora:ink>")
    assert asked.value.user_message == (
        r"`<lora:ink>` fits several LoRAs: ink\_line, ink\_wash. Write the one you mean."
    )
    many = OptionNames([f"ink_{number}.pt" for number in range(8)])
    with pytest.raises(UserError, match=r"4 and 3 more\. Write"):
        find_only("LoRA", "ink", many, "ink")


def test_what_resembles_a_mistyped_name_is_looked_for_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked: list[str] = []

    class Matcher:
        def __init__(self, a: str, b: str) -> None:
            looked.append(b)

        def ratio(self) -> float:
            return 1.0

    monkeypatch.setattr(difflib, "SequenceMatcher", Matcher)
    names = OptionNames(["red_fox.safetensors"])
    for number in range(1000):  # others' typing errors are forgotten
        assert names.nearest(f"red_fxo{number}") == names.nearest(f"red_fxo{number}") == ["red_fox"]
    assert looked == [f"red_fxo{number}" for number in range(1000)]
    assert len(names._nearest) <= 100


def test_markdown_has_no_effect() -> None:
    assert escape("*a* _b_ ~c~ `d` |e| [f](g) \\") == (
        r"\*a\* \_b\_ \~c\~ \`d\` \|e\| \[f](g) " + "\\\\"
    )
    assert escape("# a\n - b\n> c\nd - # >") == "\\# a\n \\- b\n\\> c\nd - # >"
    assert escape("1. a\n1.5") == "1\\. a\n1.5"


def test_what_needs_no_backslash_has_none() -> None:
    plain = "a fox (red:1.2), 3 - 4 > 2 #7 a.b@c.d at 12:30"
    assert escape(plain) == plain


LIVE = [
    "<@1>", "<@!1>", "<@&1>", "<#1>", "</gen:1>", "<t:1>", "<t:1:R>", "<:fox:1>", "<a:fox:1>",
    "<id:home>", "<https://a.b>", "<a@b.c>", "@everyone", "@here", "https://a.b/c_d_e", "[a](https://b.c)",
    "HTTP://a.b", ":fox:", ":+1:", "```a\nb```", "`a`", "*a*", "**a**", "_a_", "__a__", "~~a~~",
    "||a||", "# a", "## a", "> a", ">>> a", "-# a", "- a", "* a", "12. a", " - a", "a\n- b",
]  # fmt: skip


@pytest.mark.parametrize("text", LIVE)
def test_a_prompt_is_read_as_it_was_typed(text: str) -> None:
    for typed in (text, f"\\{text}", f"a {text} b", f"{text}{text}"):
        assert read(escape(typed)) == (typed, [])
    if "`" not in text:
        assert "`" not in quote(text)[1:-1]


def test_no_mixture_of_markup_is_more_than_text() -> None:
    chance = random.Random(7)
    marks = [*LIVE, *"\\`*_~|[](<>:/@#-.1 a\n\r", "http", "everyone"]
    for _ in range(3000):
        typed = "".join(chance.choices(marks, k=8))
        assert read(escape(typed)) == (typed, [])


@pytest.mark.parametrize("text", [*LONG_TEXTS, "x" * 1022 + "[[[["])
@pytest.mark.parametrize("limit", [200, 1024, 4096])
def test_an_escaped_text_is_within_its_limit_and_never_ends_in_half_an_escape(
    text: str, limit: int
) -> None:
    shown = escape(text, limit)
    assert 0 < len(shown) <= limit
    body = shown.removesuffix("…")
    assert (len(body) - len(body.rstrip("\\"))) % 2 == 0
    assert shown.endswith("…") == (body != escape(text, 9999))


def test_the_ends_of_a_name_stay_and_its_middle_goes() -> None:
    assert shorten_middle("abcdefghij", 10) == "abcdefghij"
    assert shorten_middle("abcdefghijk", 10) == "abcd…ghijk"
    assert shorten_middle("abcdefghijk", 9) == "abcd…hijk"


def test_what_was_typed_is_quoted_short_and_cannot_end_the_quotation() -> None:
    assert quote("a`b") == '"a\\`b"'
    assert quote("<@1>\n# b") == "`<@1> # b`"
    assert quote(" \n") == "empty"
    assert len(quote("x" * 4000)) == 42


def test_half_an_emoji_is_replaced_and_a_whole_one_kept() -> None:
    assert drop_lone_surrogates("a \ud83e b \U0001f98a") == "a ? b \U0001f98a"


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("fox.safetensors", "photo/Fox.safetensors"),
        ("anime/FOX.safetensors", "photo/Fox.safetensors"),
        ("anime\\deep\\fox.safetensors", "photo/Fox.safetensors"),
        ("photo/Fox.safetensors", "photo/Fox.safetensors"),
        ("x/old.ckpt", "a\\old.ckpt"),
        ("fox.ckpt", None),
        ("two.ckpt", None),  # two of that name: nobody knows which
        ("ox.safetensors", None),
        ("", None),
    ],
)
def test_a_model_that_moved_is_the_one_of_the_same_file_name(name: str, found: str | None) -> None:
    offered = OptionNames(["photo/Fox.safetensors", "a\\old.ckpt", "a/two.ckpt", "b/two.ckpt"])
    assert moved_model(name, offered) == found
