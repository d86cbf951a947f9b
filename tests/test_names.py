"""How names and texts of people and servers are shown, and how a name is found."""

from __future__ import annotations

import pytest

from names import (
    UnknownName,
    display_name,
    ends_of,
    escaped,
    find_model,
    matching_models,
    moved_model,
    nearest,
    quoted,
    without_half_emoji,
)

MODELS = ("base_1.0.safetensors", "Flux/flux1-dev.safetensors", "old.ckpt")
LONG_TEXTS = ["x" * 4000, "[" * 4000, "\\" * 4000, "# \n" * 1333, "`*_" * 1333, "🦊" * 4000]


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
    offered = ["sd/base_1.0.safetensors", "sd/base_1.1.safetensors", "zzz.ckpt"]
    assert nearest("other/bass_1.0.ckpt", offered) == r" The nearest: base\_1.0, base\_1.1."
    assert nearest("qqqq", offered) == ""


def test_at_most_three_nearest_names_are_named_and_none_is_long() -> None:
    text = nearest("a" * 300, [f"{'a' * 300}{number}" for number in range(9)])
    assert text.count(", ") == 2
    assert len(text) < 350


LONG_MODELS = [f"{'x' * 80}/{'y' * 80}{number}.safetensors" for number in range(9)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("old.ckpt", "old.ckpt"),
        ("OLD.CKPT", "old.ckpt"),
        ("Flux1-Dev", "Flux/flux1-dev.safetensors"),
        ("flux/", "Flux/flux1-dev.safetensors"),
        ("1", "base_1.0.safetensors"),  # of several, the server's first
        (ends_of(LONG_MODELS[3], 100), LONG_MODELS[3]),
    ],
)
def test_a_model_is_found_by_its_name_or_any_part_of_it(text: str, found: str) -> None:
    assert find_model(text, [*MODELS, *LONG_MODELS]) == found


def test_the_closest_way_to_name_a_model_wins() -> None:
    models = ["new/fox2.ckpt", "new/FOX.ckpt", "fox"]
    assert find_model("fox", models) == "fox"
    assert find_model("Fox", models) == "new/FOX.ckpt"
    assert find_model("ox", models) == "new/fox2.ckpt"


def test_a_model_that_is_not_there_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownName) as refused:
        find_model("bass_1.0", MODELS)
    assert refused.value.public == r"There is no model `bass_1.0`. The nearest: base\_1.0."


def test_autocomplete_offers_what_contains_the_text_in_the_servers_order() -> None:
    assert matching_models("", MODELS) == list(MODELS)
    assert matching_models("FLUX", MODELS) == ["Flux/flux1-dev.safetensors"]
    assert matching_models("x/", MODELS) == ["Flux/flux1-dev.safetensors"]
    assert matching_models("nothing", MODELS) == []


def test_autocomplete_stays_within_discords_limits() -> None:
    twins = ["x" * 90 + middle + "y" * 90 for middle in ("1", "2")]  # shortened, they are the same
    offered = matching_models("x", [*twins, *LONG_MODELS, *(f"x{n}" for n in range(99))])
    assert len(offered) == len(set(offered)) == 25
    assert all(len(name) <= 100 for name in offered)


def test_markdown_has_no_effect() -> None:
    assert escaped("*a* _b_ ~c~ `d` |e| [f](g) \\") == (
        r"\*a\* \_b\_ \~c\~ \`d\` \|e\| \[f](g) " + "\\\\"
    )
    assert escaped("# a\n - b\n> c\nd - # >") == "\\# a\n \\- b\n\\> c\nd - # >"


@pytest.mark.parametrize("text", [*LONG_TEXTS, "x" * 1022 + "[[[["])
@pytest.mark.parametrize("limit", [200, 1024, 4096])
def test_an_escaped_text_is_within_its_limit_and_never_ends_in_half_an_escape(
    text: str, limit: int
) -> None:
    shown = escaped(text, limit)
    assert 0 < len(shown) <= limit
    body = shown.removesuffix("…")
    assert (len(body) - len(body.rstrip("\\"))) % 2 == 0


def test_the_ends_of_a_name_stay_and_its_middle_goes() -> None:
    assert ends_of("abcdefghij", 10) == "abcdefghij"
    assert ends_of("abcdefghijk", 10) == "abcd…ghijk"
    assert ends_of("abcdefghijk", 9) == "abcd…hijk"


def test_what_was_typed_is_quoted_short_and_cannot_end_the_quotation() -> None:
    assert quoted("a`b") == "`a'b`"
    assert quoted(" \n") == "empty"
    assert len(quoted("x" * 4000)) == 42


def test_half_an_emoji_is_replaced_and_a_whole_one_kept() -> None:
    assert without_half_emoji("a \ud83e b \U0001f98a") == "a ? b \U0001f98a"


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
    offered = ("photo/Fox.safetensors", "a\\old.ckpt", "a/two.ckpt", "b/two.ckpt")
    assert moved_model(name, offered) == found
