"""Blocked words, from the moderators' /blocked to the person whose prompt has one."""

# ruff: noqa: RUF001 (letters that look like others)

from __future__ import annotations

import codecs
import re
import sqlite3
from collections.abc import Callable
from typing import Any

import pytest

from tests.end_to_end.common import jobs_of, opened_modal, result_of, typed_in
from tests.harness.house import House
from tests.harness.labels import AGAIN, CORRECT_IT, EDIT
from tests.harness.steps import (
    ask_for,
    fields,
    fill_in,
    generate,
    open_form,
    queued,
)
from tests.standins.discord import markdown
from tests.standins.discord.people import Channel, File, Person, Reply
from tests.standins.discord.schema import EPHEMERAL

MANAGERS_ONLY = "Only members with the Manage Server permission can do that."


@pytest.fixture(scope="module")
def furnish() -> Callable[[House], None]:
    """Two more servers, whose channels are the first of the spare ones."""

    def with_more_servers(house: House) -> None:
        for name in ("elsewhere", "large"):
            house.spare.insert(0, house.discord.add_guild(name).add_channel(name))

    return with_more_servers


def say(person: Person, channel: Channel, what: str, **options: Any) -> str:
    """/blocked add, remove or list; the answer, for this person's eyes alone."""
    message = person.slash(f"blocked {what}", channel, **options).wait().wait_message()
    assert message["flags"] & EPHEMERAL
    return str(message["content"])


def block(house: House, term: str, channel: Channel | None = None) -> None:
    """A moderator blocks a term."""
    answer = say(house.discord.manager(), channel or house.channel, "add", term=term)
    assert answer == f"Added ||{term}||."


def refusal(reply: Reply) -> dict[str, Any]:
    """The message that says what is not allowed in a prompt."""
    return reply.wait().wait_message(lambda m: "moderators do not allow" in m["content"])


def sentence(shown: str) -> str:
    """What a person reads."""
    return (
        f"This server's moderators do not allow {shown} in a prompt (tap it to read it)."
        " Nothing was queued: change the prompt and press Generate."
    )


def form_with(person: Person, channel: Channel, prompt: str) -> Reply:
    """A form in which only Generate is left to be pressed."""
    form = person.slash("gen", channel, prompt=prompt).wait()
    assert form.message is not None
    return form


# The person


def test_a_blocked_prompt_is_told_to_its_person_alone_corrected_and_made(shared: House) -> None:
    block(shared, "Purple Fox")
    person = shared.discord.person()
    posted = len(shared.comfyui.posted)
    typed = {"positive_prompt": "a purple\nFOX, asleep", "negative_prompt": "blurry", "seed": "5"}
    form = open_form(person, shared.channel)
    fill_in(person, form, **typed, steps="9", cfg="4.5")
    complaint = refusal(generate(person, form))
    assert complaint["content"] == sentence("||Purple Fox||")
    assert complaint["flags"] & EPHEMERAL
    assert jobs_of(shared, person) == 0
    assert shared.channel.messages == []
    modal = person.press(complaint, CORRECT_IT).wait().modal
    assert modal is not None
    assert typed_in(modal) == {**typed, "steps": "9", "cfg": "4.5"}
    person.submit(modal, positive_prompt="a purple hare, asleep").wait()
    form.wait_message(lambda m: fields(m)["Prompt"] == "a purple hare, asleep")
    queued(person, form)
    assert fields(result_of(shared, person))["Seed"] == "5"
    assert len(shared.comfyui.posted) == posted + 1


def test_a_change_works_at_once_also_for_a_form_that_is_open(shared: House) -> None:
    person, boss = shared.discord.person(), shared.discord.manager()
    queued(person, form_with(person, shared.channel, "a badger"))
    form = form_with(person, shared.channel, "a badger again")
    assert say(boss, shared.channel, "add", term="badger") == "Added ||badger||."
    for _ in range(2):  # a second press is no way round it
        refusal(generate(person, form))
    assert say(boss, shared.channel, "remove", term="BADGER") == "`BADGER` is allowed again."
    queued(person, form)
    result_of(shared, person, 2)


def test_again_is_checked_and_gives_a_form_with_everything_in_it(shared: House) -> None:
    person, other = shared.discord.person(), shared.discord.person("lee")
    ask_for(person, shared.channel, "an otter, swimming", steps="9", seed="5")
    result = result_of(shared, person)
    block(shared, "otter")
    form = other.press(result, AGAIN).wait()
    form.wait_message(lambda m: m["content"] == sentence("||otter||"))
    assert form.message is not None
    assert form.message["flags"] & EPHEMERAL
    shown = fields(form.message)
    assert (shown["Prompt"], shown["Steps"]) == ("an otter, swimming", "9")
    assert shown["Seed"] == "random"
    assert jobs_of(shared, other) == 0
    refusal(generate(other, form))
    fill_in(other, form, positive_prompt="a lighthouse at noon")
    queued(other, form)
    result_of(shared, other)


def test_generate_of_an_edit_is_checked(shared: House) -> None:
    person = shared.discord.person()
    ask_for(person, shared.channel, "a stoat")
    result = result_of(shared, person)
    block(shared, "stoat")
    form = person.press(result, EDIT).wait()
    form.wait_message(lambda m: bool(m["embeds"]))
    assert "stoat" in opened_modal(person, form)["components"][0]["component"]["value"]
    complaint = refusal(generate(person, form))
    person.press(complaint, CORRECT_IT).wait()
    assert jobs_of(shared, person) == 1


def test_a_term_is_found_in_the_name_of_a_lora_and_not_within_a_word(shared: House) -> None:
    block(shared, "details")
    person = shared.discord.person()
    form = form_with(person, shared.channel, "a boat <lora:more_details:0.5>")
    refusal(generate(person, form))
    queued(person, form_with(person, shared.channel, "a boat, detailsome"))
    result_of(shared, person)


def test_only_the_first_of_many_terms_are_named_and_none_of_them_is_markup(shared: House) -> None:
    boss = shared.discord.manager()
    terms = [f"n{number} _x_ [y] \\ `z` {'`' * 81}" for number in range(12)]
    data = "\n".join(terms).encode()
    assert say(boss, shared.channel, "add", file=File("t.txt", data)).startswith("Added 12 terms: ")
    person = shared.discord.person()
    prompt = ", ".join(f"n{number} x y z" for number in range(12))
    complaint = refusal(generate(person, form_with(person, shared.channel, prompt)))["content"]
    assert " and 2 more in a prompt " in complaint
    _, live = markdown.read(complaint)
    assert len(live) == 10
    for text in live:
        assert text.startswith("||n")
        assert markdown.read(text.strip("|"))[1] == []


# The moderators


def test_each_server_has_words_of_its_own(shared: House) -> None:
    elsewhere = shared.spare[0]
    boss, person = shared.discord.manager(), shared.discord.person()
    block(shared, "marten", elsewhere)
    assert "marten" not in say(boss, shared.channel, "list")
    assert say(boss, shared.channel, "remove", term="marten").startswith("`marten` is not blocked")
    queued(person, form_with(person, shared.channel, "a marten"))
    result_of(shared, person)
    refusal(generate(person, form_with(person, elsewhere, "a marten")))
    assert say(boss, elsewhere, "list") == "||marten||"
    assert say(boss, elsewhere, "remove", term="marten") == "`marten` is allowed again."
    empty = "Nothing is blocked here. /blocked add blocks a word."
    assert say(boss, elsewhere, "list") == empty


def test_only_members_who_may_manage_the_server_can_do_that(shared: House) -> None:
    moderator = shared.discord.moderator()
    for what in ("add", "remove", "list"):
        with pytest.raises(AssertionError, match="isn't offered"):
            say(moderator, shared.channel, what)
    (command,) = [c for c in shared.discord.commands[None] if c["name"] == "blocked"]
    needed, command["default_member_permissions"] = command["default_member_permissions"], None
    try:  # a server's settings show it to others
        block(shared, "vole")
        assert say(moderator, shared.channel, "add", term="x") == MANAGERS_ONLY
        assert say(moderator, shared.channel, "remove", term="vole") == MANAGERS_ONLY
        assert say(moderator, shared.channel, "list") == MANAGERS_ONLY
        assert moderator.autocomplete("blocked remove", shared.channel, "term", "vol") == []
        assert say(moderator, moderator._dm, "list") == MANAGERS_ONLY
    finally:
        command["default_member_permissions"] = needed


def test_remove_offers_what_is_blocked_and_takes_it_however_it_is_typed(shared: House) -> None:
    boss = shared.discord.manager()
    block(shared, "Écureuil roux")
    choices = boss.autocomplete("blocked remove", shared.channel, "term", "ÉCU")
    assert choices == [{"name": "Écureuil roux", "value": "Écureuil roux"}]
    answer = say(boss, shared.channel, "remove", term="ecureuil  ROUX")
    assert answer == "`ecureuil  ROUX` is allowed again."
    assert boss.autocomplete("blocked remove", shared.channel, "term", "ÉCU") == []


def test_terms_with_a_comma_between_them_are_several_and_named(shared: House) -> None:
    boss, person = shared.discord.manager(), shared.discord.person()
    answer = say(boss, shared.channel, "add", term="lynx, red deer,")
    assert answer == "Added 2 terms: ||lynx||, ||red deer||."
    answer = say(boss, shared.channel, "add", term="Lynx")
    assert answer == "Nothing was added: ||Lynx|| is blocked already."
    answer = say(boss, shared.channel, "add", term="lynx, elk, Elk")
    assert answer == "Added ||elk||. ||lynx|| is blocked already."
    assert "has no letter" in say(boss, shared.channel, "add", term=" , ")
    complaint = refusal(generate(person, form_with(person, shared.channel, "a red deer, a lynx")))
    assert complaint["content"] == sentence("||red deer||, ||lynx||")


def test_letters_of_other_alphabets_that_look_alike_are_the_same(house: House) -> None:
    house.start().stop()
    for key in ("jerboa", "jerbоа"):  # the second is half Cyrillic, and folded as it was before
        house.installation.change(
            "INSERT INTO blocked_terms VALUES (?, ?, ?, '1', 1)",
            str(house.discord.guild.id),
            key,
            key,
        )
    house.start()
    boss, person = house.discord.manager(), house.discord.person()
    for prompt in ("a jerboa", "a ϳегʙοа", "a JΕRΒОΑ", "a ᴊᴇʀʙᴏᴀ", "a jerbơɑ"):
        refusal(generate(person, form_with(person, house.channel, prompt)))
    answer = say(boss, house.channel, "add", term="ЈЕRBOA")
    assert answer == "Nothing was added: ||ЈЕRBOA|| is blocked already."
    assert "allowed again" in say(boss, house.channel, "remove", term="jerboa")
    assert say(boss, house.channel, "list").startswith("Nothing is blocked here")
    queued(person, form_with(person, house.channel, "a jerboa"))


@pytest.mark.parametrize(
    ("term", "said"),
    [
        ("*mouse", "has a `*` that is not right after a word at its end"),
        (None, "Give a term, or attach a text file with one a line."),
    ],
)
def test_a_term_that_would_match_nothing_is_refused(
    shared: House, term: str | None, said: str
) -> None:
    options = {} if term is None else {"term": term}
    assert said in say(shared.discord.manager(), shared.channel, "add", **options)


@pytest.mark.parametrize(
    ("prefix", "encoding"), [(codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le")]
)
def test_a_list_comes_from_a_file_as_notepad_writes_it(
    shared: House, prefix: bytes, encoding: str
) -> None:
    word = encoding.replace("-", "")
    text = f"# ours\r\n{word}one\r\n\r\n*\r\n{word}two, x\r\n{word.upper()}ONE\r\n{word}three\r\n"
    file = File("list.txt", prefix + text.encode(encoding))
    boss = shared.discord.manager()
    answer = say(boss, shared.channel, "add", term=f"{word}Three", file=file)
    assert answer.splitlines() == [
        f"Added 2 terms: ||{word}Three||, ||{word}one||.",
        "Line 4: `*` has no letter, digit or emoji in it.",
        f"Line 5: `{word}two, x` has punctuation in it, which is not compared:"
        f" add `{word}two x` if you mean that.",
    ]
    answer = say(boss, shared.channel, "add", file=file)
    assert answer.startswith("Nothing was added: 2 are blocked already.\n")
    person = shared.discord.person()
    prompt = f"{word}One and {word}Three"
    complaint = refusal(generate(person, form_with(person, shared.channel, prompt)))
    assert complaint["content"] == sentence(f"||{word}one||, ||{word}Three||")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\x89PNG\r\n\x1a\n\0\0", "The file is not plain text"),
        (b"x" * (256 * 1024 + 1), "The file is larger than 256 KiB."),
        (b"", "Nothing was added."),
    ],
)
def test_a_file_that_is_no_list_is_refused(shared: House, data: bytes, said: str) -> None:
    answer = say(shared.discord.manager(), shared.channel, "add", file=File("list.txt", data))
    assert answer.startswith(said)


def test_what_is_wrong_with_many_lines_fits_into_a_message(shared: House) -> None:
    long = "`|" * 20 + "word, word, word, word"
    lines = [*[""] * 100_000, *[long] * 20, *["|"] * 9_980]
    file = File("list.txt", "\n".join(lines).encode())
    answer = say(shared.discord.manager(), shared.channel, "add", file=file)
    assert answer.startswith("Nothing was added.\nLine 100001: ")
    assert answer.endswith("\nand 9,990 more lines that were not taken.")


def test_ten_thousand_terms_are_taken_found_and_listed_and_no_more(shared: House) -> None:
    elsewhere, boss, person = shared.spare[1], shared.discord.manager(), shared.discord.person()
    terms = [f"word{number}" for number in range(10_000)]
    file = File("list.txt", "\n".join(terms).encode())
    assert say(boss, elsewhere, "add", file=file) == (
        f"Added 10,000 terms: {', '.join(f'||{term}||' for term in terms[:10])} and 9,990 more."
    )
    full = "A server may have 10,000 terms, and has 10,000."
    assert say(boss, elsewhere, "add", term="one more") == full
    assert (
        say(boss, elsewhere, "add", file=file) == "Nothing was added: 10,000 are blocked already."
    )
    prompt = f"{'word ' * 797}word9999"
    complaint = refusal(generate(person, form_with(person, elsewhere, prompt)))
    assert complaint["content"] == sentence("||word9999||")
    listed = boss.slash("blocked list", elsewhere).wait().wait_message()
    assert listed["content"] == "10,000 terms are blocked here."
    (attachment,) = listed["attachments"]
    text = shared.discord.attachment_bytes(attachment).decode()
    assert sorted(text.splitlines()) == sorted(terms)
    assert len(boss.autocomplete("blocked remove", elsewhere, "term", "9")) == 25
    assert say(boss, elsewhere, "remove", term="word9999") == "`word9999` is allowed again."
    assert say(boss, elsewhere, "add", term="one more") == "Added ||one more||."


def test_a_file_that_discord_does_not_hand_out_is_to_be_attached_once_more(shared: House) -> None:
    boss = shared.discord.manager()
    forget = shared.discord._bytes.clear
    shared.discord.before("POST", "/interactions/.*/callback", forget)
    answer = say(boss, shared.channel, "add", file=File("list.txt", b"fox"))
    assert answer == "Discord did not hand out the file: please attach it once more."


# The database


def test_a_restart_keeps_the_words_and_a_database_in_use_is_told(house: House) -> None:
    bot = house.start()
    boss, person = house.discord.manager(), house.discord.person()
    block(house, "weasel")
    bot.stop()
    house.run()
    refusal(generate(person, form_with(person, house.channel, "a weasel")))
    form = form_with(person, house.channel, "a mole")
    other = sqlite3.connect(house.installation.database, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        for term in ("add", "remove"):
            answer = say(boss, house.channel, term, term="weasel" if term == "remove" else "mole")
            assert answer.startswith("The bot could not write to its job list.")
        failed = generate(person, form)
        failed.wait_message(lambda m: "could not write to its job list" in m["content"])
    finally:
        other.close()
    assert re.fullmatch(r"\|\|weasel\|\|", say(boss, house.channel, "list"))
    queued(person, form)
    result_of(house, person)
