"""/mine: a person's last pictures of a server, as they find them again."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.end_to_end.common import jobs_of, result_of
from tests.harness.house import House
from tests.harness.labels import AGAIN, EDIT
from tests.harness.steps import ask_for, delete, fields
from tests.standins.discord import markdown
from tests.standins.discord.people import Channel, Person, snowflake
from tests.standins.discord.schema import BOT_PERMISSIONS, EPHEMERAL, SEND_MESSAGES

NONE_YET = "None yet in this server: /gen makes one."
LINE = re.compile(r"\*\*(\d+)\*\* <t:\d+:R>(?:, \[message\]\((.+?)\))?: (.*?)(?:, seed (\d+))?")


@pytest.fixture(scope="module")
def furnish() -> Callable[[House], None]:
    """A second server, whose channel is the first of the spare ones."""

    def with_two_servers(house: House) -> None:
        house.spare.insert(0, house.discord.add_guild("elsewhere").add_channel("elsewhere"))

    return with_two_servers


def mine(person: Person, channel: Channel) -> dict[str, Any]:
    """/mine, up to its answer."""
    message = person.slash("mine", channel).wait().wait_message(lambda m: bool(m["embeds"]))
    assert message["flags"] & EPHEMERAL
    return message


def lines(message: dict[str, Any]) -> list[tuple[str, ...]]:
    """The number, link, prompt and seed of each picture on a page."""
    found = map(LINE.fullmatch, message["embeds"][0]["description"].split("\n"))
    return [match.groups("") for match in found if match]


def buttons(message: dict[str, Any]) -> list[str]:
    """The labels, row by row."""
    return [item["label"] for row in message["components"] for item in row["components"]]


def footer(message: dict[str, Any]) -> str:
    """Which of how many are shown."""
    return str(message["embeds"][0]["footer"]["text"])


def address(channel: Channel, message: dict[str, Any]) -> str:
    """Where a message is, as Discord's client calls it."""
    place = channel.guild.id if channel.guild else "@me"
    return f"https://discord.com/channels/{place}/{channel.id}/{message['id']}"


def make(house: House, person: Person, *prompts: str, seconds_ago: int = 60) -> None:
    """Pictures of this person in the database, as if they had been made long ago."""
    at = int(time.time() - seconds_ago) * 1000
    for number, prompt in enumerate(prompts):
        row = {
            "id": f"{snowflake()}-{number}",
            "discord_user_id": str(person.id),
            "discord_guild_id": str(house.discord.guild.id),
            "discord_channel_id": str(house.channel.id),
            "status": "completed",
            "model": "Illustrious/waiIllustrious_v140.safetensors",
            "sampler": "euler",
            "scheduler": "karras",
            "steps": 9,
            "cfg": 4.5,
            "positive_prompt": prompt,
            "seed": str(2**64 - 1 - number),
            "output_images": json.dumps(["x.png"]),
            "report_message_ids": json.dumps([str(snowflake())]),
            "created_at": at,
            "started_at": at,
            "completed_at": at,
            "delivered_at": at,
        }
        house.installation.change(
            f"INSERT INTO jobs ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})",
            *row.values(),
        )


def test_a_picture_is_found_with_its_prompt_its_seed_and_its_message(shared: House) -> None:
    person = shared.discord.person()
    assert mine(person, shared.channel)["embeds"][0]["description"] == NONE_YET
    ask_for(person, shared.channel, "a red\n# fox", seed="42")
    result = result_of(shared, person)
    shared.settle()
    page = mine(person, shared.channel)
    assert lines(page) == [("1", address(shared.channel, result), "a red # fox", "42")]
    assert (footer(page), buttons(page)) == ("1 to 1 of 1", ["Again 1", "Edit 1"])
    edited = person.press(page, "Edit 1").wait().wait_message(lambda m: bool(m["embeds"]))
    assert (fields(edited)["Seed"], fields(edited)["Prompt"]) == ("42", "a red\n\\# fox")
    again = person.press(page, "Again 1").wait()
    again.wait_shown(lambda m: "Queued!" in m["content"])
    newer = result_of(shared, person, 2)
    assert fields(newer)["Seed"] != "42"
    shared.settle()
    assert [line[1] for line in lines(mine(person, shared.channel))] == [
        address(shared.channel, newer),
        address(shared.channel, result),
    ]


def test_ten_are_shown_at_a_time_and_the_pages_lead_to_all(shared: House) -> None:
    person = shared.discord.person()
    make(shared, person, *(f"picture {number}" for number in range(1, 24)))
    page = mine(person, shared.channel)
    seen = []
    for shown, ways in (
        ("1 to 10 of 23", ["Older"]),
        ("11 to 20 of 23", ["Newer", "Older"]),
        ("21 to 23 of 23", ["Newer"]),
    ):
        assert footer(page) == shown
        seen += [(int(number), prompt) for number, _, prompt, _ in lines(page)]
        own = [label for label in buttons(page) if label not in ("Newer", "Older")]
        numbers = [number for number, _, _, _ in lines(page)]
        assert sorted(own) == sorted(f"{what} {n}" for what in (AGAIN, EDIT) for n in numbers)
        assert [label for label in buttons(page) if label not in own] == ways
        if "Older" in ways:
            turned = person.press(page, "Older").wait()
            page = turned.wait_message(lambda m, shown=shown: footer(m) != shown)  # type: ignore[misc]
    assert seen == [(number, f"picture {24 - number}") for number in range(1, 24)]
    edited = person.press(page, "Edit 23").wait().wait_message(lambda m: "Prompt" in fields(m))
    assert fields(edited)["Prompt"] == "picture 1"
    turned = person.press(page, "Newer").wait()
    turned.wait_message(lambda m: footer(m) == "11 to 20 of 23")


def test_nobody_sees_what_is_of_others_or_of_another_server(shared: House) -> None:
    person, other = shared.discord.person(), shared.discord.person("lee")
    make(shared, person, "mine, here")
    make(shared, other, "not mine")
    elsewhere = shared.spare[0]
    assert mine(person, elsewhere)["embeds"][0]["description"] == NONE_YET
    ask_for(person, elsewhere, "mine, elsewhere")
    shared.settle()
    assert [line[2] for line in lines(mine(person, shared.channel))] == ["mine, here"]
    assert [line[2] for line in lines(mine(person, elsewhere))] == ["mine, elsewhere"]


def test_a_result_that_came_as_a_direct_message_is_linked_there(shared: House) -> None:
    person, closed = shared.discord.person(), shared.channel
    shared.channel = open_one = shared.spare.pop()
    closed.bot_permissions = BOT_PERMISSIONS & ~SEND_MESSAGES
    ask_for(person, closed, "for me alone")
    shared.discord.wait_for(lambda _: bool(person.dms))
    shared.settle()
    ((_, link, prompt, _),) = lines(mine(person, open_one))
    assert (link, prompt) == (address(person._dm, person.dms[0]), "for me alone")


def test_a_result_that_was_deleted_has_no_link_and_can_be_made_again(shared: House) -> None:
    person = shared.discord.person()
    ask_for(person, shared.channel, "regretted", seed="1")
    result = result_of(shared, person)
    shared.settle()
    delete(person, result).wait_message(lambda m: m["content"] == "Deleted.")
    page = mine(person, shared.channel)
    assert lines(page) == [("1", "", "regretted", "1")]
    person.press(page, "Again 1").wait().wait_shown(lambda m: "Queued!" in m["content"])
    result_of(shared, person)


@pytest.mark.parametrize(
    "prompt",
    ["a" * 4000, "\\*_~`|[<:@everyone " * 210, "🦊" * 4000, "# x\n" * 1000, "||@here|| " * 400],
)
def test_long_prompts_are_cut_and_are_text_and_nothing_else(shared: House, prompt: str) -> None:
    person = shared.discord.person()
    make(shared, person, *[prompt] * 10)
    shown = lines(mine(person, shared.channel))
    assert len(shown) == 10
    for _, _, text, _ in shown:
        assert markdown.read(text) == (" ".join(prompt.split())[:99] + "…", [])


def test_pages_and_buttons_work_after_a_restart_and_retention(house: House) -> None:
    house.start(JOB_RETENTION_DAYS="9")
    person = house.discord.person()
    make(house, person, "of last week", seconds_ago=20 * 86_400)
    make(house, person, *(f"picture {number}" for number in range(10)))
    first = mine(person, house.channel)
    second = person.press(mine(person, house.channel), "Older").wait()
    page = second.wait_message(lambda m: footer(m) == "11 to 11 of 11")
    house.bots[-1].stop()
    house.run().wait_for_line("1 jobs older than 9 days")
    gone = person.press(page, "Again 11").wait()
    gone.wait_message(lambda m: m["content"].startswith("This job is too old"))
    assert jobs_of(house, person) == 10
    turned = person.press(first, "Older").wait()  # there is no such page any more
    page = turned.wait_message(lambda m: footer(m) == "1 to 10 of 10")
    assert "Older" not in buttons(page)
    person.press(first, "Again 1").wait().wait_shown(lambda m: "Queued!" in m["content"])
    result_of(house, person)
