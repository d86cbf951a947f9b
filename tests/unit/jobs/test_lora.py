"""LoRA tags: what is taken out of a prompt, what stays, and what is said of what makes no sense."""

from __future__ import annotations

import random
import time

import pytest

from binder import Lora
from jobs.lora import changes, read, resolve, text_of, with_tag
from jobs.names import OptionNames
from tests.standins.comfyui.nodes import LORAS as FILES
from text import UserError

LORAS = OptionNames(FILES)
INK, DETAIL = "SDXL/style/inkSketch_v2.safetensors", "SDXL/add-detail-xl.safetensors"
COLON, NUMBERED = "style: ink.safetensors", "ink:2.safetensors"
SKETCH = "inkSketch_v2"
BERRY = "früchte/Brombeere 雪 🦊.safetensors"


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        ("a fox <lora:ink>", "a fox"),
        ("<lora:ink> a fox", "a fox"),
        ("<lora:ink>, a fox", "a fox"),
        ("a fox, <lora:ink>", "a fox"),
        ("a fox,<lora:ink>,", "a fox"),
        ("a fox <lora:ink> in snow", "a fox in snow"),
        ("a fox<lora:ink> in snow", "a fox in snow"),
        ("a <lora:ink>fox", "a fox"),
        ("a fox, <lora:ink>, in snow", "a fox, in snow"),
        ("a fox,<lora:ink>,in snow", "a fox,in snow"),
        ("a fox <lora:ink>, in snow", "a fox, in snow"),
        ("a fox, <lora:ink> <lora:fox:1>,<lora:more:0>, in snow", "a fox, in snow"),
        ("a fox <lora:ink>.", "a fox."),
        ("a fox, <lora:ink>. It sleeps", "a fox. It sleeps"),
        ("a (fox <lora:ink>:1.2)", "a (fox:1.2)"),
        ("a (<lora:ink>, fox)", "a (fox)"),
        ("a fox,\n<lora:ink>, in snow", "a fox,\nin snow"),
        ("a fox <LoRA:ink>  ", "a fox"),
        ("a fox < Lora : ink : 0.8 >", "a fox"),  # as a phone's keyboard may have it
        ("<lora:ink> , ", ""),
    ],
)
def test_a_tag_leaves_no_trace_in_the_text(prompt: str, text: str) -> None:
    assert text_of(prompt) == read(prompt, LORAS).text == text


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        " a fox ,, ",
        "a < b > c",
        "lora",
        "a girl named Lora",
        "(Lora:1.2), (a dog:1.1)",
        "(lora:1.2) and (a dog:1.1)",
        "[Lora], Lora: she smiles at 12:30",
        "Flora:rose:0.8>",
        "<loratadine> explora:x:1",
        "&lt;3 lora",
        "embedding:bad_hands:1.2",
    ],
)
def test_a_prompt_without_tags_stays_as_it_is(prompt: str) -> None:
    assert read(prompt, LORAS) == (prompt, (), (), prompt)
    assert text_of(prompt) == prompt
    assert resolve(prompt, prompt, OptionNames(())) == (prompt, [])


@pytest.mark.parametrize(
    ("prompt", "slip"),
    [
        ("a fox <lora:detail:0.8", "<lora:detail:0.8"),
        ("a fox <lora:detail:0.8 <lora:more_details:1> in snow", "<lora:detail:0.8"),
        ("a fox <lora detail:0.8> in snow", "<lora detail:0.8>"),
        ("<LoRA-detail:0.8>", "<LoRA-detail:0.8>"),
        ("<lora>", "<lora>"),
        ("a fox lora:detail:0.8> in snow", "lora:detail:0.8>"),
        ("lora:detail>", "lora:detail>"),
        ("lora:detail:0.8", "lora:detail:0.8"),
        ("a \uff1clora\uff1adetail\uff1a0.8\uff1e fox", "\uff1clora\uff1adetail\uff1a0.8\uff1e"),
        ("<lora\uff1adetail\uff1a0.8>", "<lora\uff1adetail\uff1a0.8>"),
        ("a &lt;lora:detail:0.8&gt; fox", "&lt;lora:detail:0.8&gt;"),
        ("a fox (lora:x y:0.8), snow", "(lora:x y:0.8)"),
        ("[lora:x:1]", "[lora:x:1]"),
        ("(lora:fox girl (v3):.5)", "(lora:fox girl (v3):.5)"),
        ("<lyco:detail:1>", "<lyco:detail:1>"),
        ("<hypernet:x:1>", "<hypernet:x:1>"),
    ],
)
def test_a_slip_in_a_tag_is_told_and_never_painted(prompt: str, slip: str) -> None:
    told = f"`{slip}` would be painted as text: only LoRA tags like `<lora:name:0.8>` work here."
    assert resolve(prompt, "", LORAS)[1] == [told]
    assert resolve("a fox", prompt, LORAS)[1][0].endswith(
        "does nothing in the negative prompt: move it to the prompt, or take it out."
    )


@pytest.mark.parametrize(
    ("prompt", "named"),
    [
        ("a fox, <lora:inkSketch_v2:0,8>,  in", f"a fox, <lora:SDXL/style/{SKETCH}:0,8>,  in"),
        ("<LORA : v2 ink >", f"<LORA : SDXL/style/{SKETCH} >"),
        ("<lora:lora lcm:.5 >", "<lora:SD15/lcm-lora-sdv1-5:.5 >"),
        ("<lora:Flux\\flux-RealismLora.safetensors>", "<lora:Flux/flux-RealismLora>"),
        ("<lora:inkSketch_v2\uff1a0.8>", f"<lora:SDXL/style/{SKETCH}\uff1a0.8>"),
        ("<lora:pixel> <lora:add-detail:>", "<lora:pixel-art-xl> <lora:SDXL/add-detail-xl:>"),
        ("a\nfox", "a\nfox"),
    ],
)
def test_a_tag_gets_the_full_name_of_its_lora_and_all_else_stays(prompt: str, named: str) -> None:
    assert resolve(prompt, "", LORAS) == (named, [])
    assert resolve(named, "", LORAS) == (named, [])
    assert read(named, LORAS)[:2] == read(prompt, LORAS)[:2]
    assert len(changes(prompt, named)) == len(read(prompt, LORAS).loras)
    assert changes(named, named) == []


def test_a_full_name_means_the_same_lora_whatever_is_added_and_others_are_asked_for() -> None:
    files = ["ink.pt", "styles\\ink_wash.safetensors", "styles/ink_line.safetensors"]
    before = OptionNames(files)
    more = OptionNames(["a/ink.pt", "ink_wash.pt", "x/styles/ink_wash.pt", *files, "INK/ink.ckpt"])
    for typed, file in (("ink", files[0]), ("wash", files[1]), ("line", files[2])):
        named, problems = resolve(f"<lora:{typed}:1> a fox", "", before)
        assert problems == []
        assert [lora.name for lora in read(named, more).loras] == [file]
        assert resolve(named, "", more) == (named, [])
    prompt = "a fox <lora:styles:0.8>"
    assert resolve(prompt, "", before) == (
        prompt,
        [
            r"`<lora:styles>` fits several LoRAs: ink\_wash, ink\_line. Write the one you mean.",
        ],
    )
    with pytest.raises(UserError, match=r"^`styles` fits several LoRAs: ink"):
        with_tag("a fox", "styles", before)


def test_every_full_name_means_its_own_lora_whatever_the_names_are() -> None:
    chance = random.Random(3)
    parts = [
        "ink",
        "Ink",
        "ink 2",
        "ink:2",
        "style: x",
        "caf\xe9",
        "cafe\u0301",
        "x\uff1a2",
        "1.5",
        "_",
    ]
    for _ in range(300):
        paths = [chance.choice("/\\").join(chance.choices(parts, k=2)) for _ in range(6)]
        files = [f"{path}{chance.choice(['', '.pt', '.ckpt'])}" for path in [*paths, *parts]]
        offered = OptionNames(files)
        for file in offered.values:
            prompt = with_tag("a fox", file, offered)
            assert read(prompt, offered) == ("a fox", (Lora(file, 1),), (), prompt)
            for strength in ("", ":", ":0.5"):
                typed = read(f"a <lora:{file}{strength}> fox", offered)
                assert typed.problems or read(typed.prompt, offered) == typed


def test_a_prompt_that_would_be_too_long_with_full_names_is_told_by_how_much() -> None:
    prompt = f"{'x' * 3980} <lora:add-detail>"
    assert len(prompt) <= 4000
    assert resolve(prompt, "", LORAS) == (
        prompt,
        ["The prompt has no room for the full names of its LoRAs: shorten it by 6 characters."],
    )


@pytest.mark.parametrize(
    ("tag", "strength"),
    [
        ("inksketch_v2", 1.0),
        ("inksketch_v2:", 1.0),
        ("SDXL/style/inkSketch_v2.safetensors:0.8", 0.8),
        (r"SDXL\style\inkSketch_v2:0,8", 0.8),
        (" style v2 ink : .5 ", 0.5),
        ("inkSketch_v2:+1.", 1.0),
        ("inkSketch_v2:0", 0.0),
        ("inkSketch_v2:-2", -2.0),
        ("inkSketch_v2:2.000", 2.0),
    ],
)
def test_any_part_of_a_name_will_do_and_the_strength_is_1_if_none_is_given(
    tag: str, strength: float
) -> None:
    assert read(f"a fox <lora:{tag}>", LORAS)[:3] == ("a fox", (Lora(INK, strength),), ())


def test_the_order_is_that_of_the_tags_and_one_that_is_there_twice_is_used_twice() -> None:
    found = read("<lora:add-detail:0.5> a <lora:inkSketch_v2:1> b <lora:add-detail:-1>", LORAS)
    assert found[:3] == ("a b", (Lora(DETAIL, 0.5), Lora(INK, 1), Lora(DETAIL, -1)), ())


@pytest.mark.parametrize(
    "strength",
    ["much", "3", "-2.1", "2.0001", "1e-1", "0.5:1", "１", "1 2", "--1", "nan", "1000"],  # noqa: RUF001
)
def test_a_strength_that_is_none_is_named_with_its_range(strength: str) -> None:
    assert read(f"a fox <lora:pixel:{strength}>", LORAS).problems == (
        f"The strength of the LoRA `pixel` is `{strength}`: give a number from -2 to 2,"
        " as in `<lora:pixel:0.8>`.",
    )


def test_an_unknown_name_is_said_once_with_the_nearest_ones() -> None:
    assert read("<lora:inkScetch_v2:9> <lora:inkScetch_v2:9> a fox", LORAS).problems == (
        r"There is no LoRA `inkScetch_v2`. The nearest: inkSketch\_v2,"
        r" inkSketch\_v1\_epoch-000012.",
    )
    assert resolve("<lora::1>", "", LORAS)[1] == [
        "A tag has no name in it: write it like `<lora:name:0.8>`."
    ]


def test_six_are_too_many_and_without_any_on_the_server_one_is() -> None:
    tags = "<lora:pixel>" * 5
    assert len(read(f"a fox {tags}", LORAS).loras) == 5
    assert read(f"a fox {tags}<lora:x>", LORAS)[:3] == (
        "a fox",
        (),
        ("At most 5 LoRAs, please: there are 6.",),
    )
    assert read(f"a fox {tags}", OptionNames(())).problems == (
        "There are no LoRAs here: take `<lora:pixel>` out.",
    )


def test_a_tag_in_the_negative_prompt_does_nothing_and_that_is_said() -> None:
    assert resolve("a fox", "blurry, <LORA:ink:1>", LORAS)[1] == [
        "`<LORA:ink:1>` does nothing in the negative prompt: move it to the prompt, or take it out."
    ]


def test_a_name_may_have_colons_and_a_number_behind_the_last_one_is_the_strength() -> None:
    offered = OptionNames([*FILES, COLON, NUMBERED])
    for tag, lora in (
        ("style: ink", Lora(COLON, 1)),
        ("style: ink:0.5", Lora(COLON, 0.5)),
        ("style: ink:", Lora(COLON, 1)),
        ("ink:2:-1", Lora(NUMBERED, -1)),
        ("v2 ink:2", Lora(INK, 2)),
        ("retro:0.5", Lora("Pony/style/retro anime v1.1.safetensors", 0.5)),
    ):
        tagged = read(f"<lora:{tag}>", offered)
        assert tagged.loras == read(tagged.prompt, offered).loras == (lora,), tag
    (problem,) = read("<lora:style: ink:much>", offered).problems
    assert "`style` is `ink:much`" in problem


@pytest.mark.parametrize("count", [0, 300])
def test_the_tag_that_is_added_means_the_very_lora_it_was_added_for(count: int) -> None:
    folders = [f"{'deep/' * 20}{number % 7}/{'n' * 90}-{number}.pt" for number in range(count)]
    offered = OptionNames([*FILES, COLON, NUMBERED, BERRY, "a<b>c.pt", *folders])
    for name in offered.values:
        prompt = with_tag("a fox", name, offered)
        assert read(prompt, offered) == ("a fox", (Lora(name, 1),), (), prompt)
        assert with_tag(prompt, name, offered) == prompt  # it has it
    assert with_tag("", DETAIL, offered) == "<lora:SDXL/add-detail-xl:1>"


def test_a_prompt_of_nothing_but_tags_and_gaps_is_read_at_once() -> None:
    began = time.process_time()
    for prompt in ("<lora:a>" * 500, ", " * 1990 + "<lora:a>", " ,<lora:>" * 440):
        assert text_of(prompt).strip(", ") == ""
        assert read(prompt, LORAS).text == text_of(prompt)
    assert text_of("<lora:" * 660) == "<lora:" * 660
    for prompt in ("<lora " * 660, "lora:x" * 660, "&lt;lora" * 500, "(" * 4000, "< " * 2000):
        resolve(prompt, prompt, LORAS)
    assert time.process_time() - began < 5.0
