"""A start at Discord: where the commands are registered, what channels a category has, what is
done while Discord limits this address, and two copies of the bot on one token."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from bot.commands import COMMAND_NAMES
from tests.end_to_end.common import SOON, run, seconds_to_stop, until
from tests.harness.bot import Bot
from tests.harness.forks import ForkServer
from tests.harness.house import House
from tests.harness.steps import open_form
from tests.standins.discord.people import Channel

ANOTHER_COPY = "another copy of the bot"
LOGIN = "/users/@me$"


def registered(house: House) -> dict[int | None, set[str]]:
    """Where there are commands, and which."""
    scopes = house.discord.commands.items()
    return {scope: {c["name"] for c in commands} for scope, commands in scopes if commands}


# Where the commands are registered


@pytest.fixture
def elsewhere(house: House) -> int:
    """Another server with the bot, of which it has the commands."""
    guild = house.discord.add_guild()
    house.start(DISCORD_GUILD_ID=str(guild.id)).stop()
    assert registered(house) == {guild.id: COMMAND_NAMES}
    return guild.id


def test_a_server_that_is_set_takes_the_commands_from_everywhere(house: House) -> None:
    house.start().stop()
    assert registered(house) == {None: COMMAND_NAMES}
    bot = house.start(DISCORD_GUILD_ID=str(house.discord.guild.id))
    house.discord.wait_for(lambda _: registered(house) == {house.discord.guild.id: COMMAND_NAMES})
    bot.wait_for_line("an earlier start")


def test_no_server_any_more_takes_the_commands_from_that_server(
    house: House, elsewhere: int
) -> None:
    house.start()
    house.discord.wait_for(lambda _: registered(house) == {None: COMMAND_NAMES})


def test_another_server_takes_the_commands_from_the_first(house: House, elsewhere: int) -> None:
    here = house.discord.guild.id
    house.start(DISCORD_GUILD_ID=str(here))
    house.discord.wait_for(lambda _: registered(house) == {here: COMMAND_NAMES})


def test_a_start_without_leftovers_writes_the_commands_once(house: House) -> None:
    house.discord.add_guild()
    strange = {"name": "weather", "id": "1", "type": 1, "description": "", "version": "1"}
    house.discord.commands[house.discord.guild.id] = [
        {**strange, "application_id": str(house.discord.application_id)}
    ]
    house.start()
    asked = r"GET /applications/\d+/guilds/\d+/commands"
    house.discord.wait_for(
        lambda d: sum(bool(re.match(asked, str(c))) and c.status == 200 for c in d.requests) == 2
    )
    assert house.bots[-1].stop() == 0
    assert house.discord.syncs == 1
    assert registered(house)[house.discord.guild.id] == {"weather"}


def test_a_server_that_does_not_let_the_bot_look_is_left_alone(house: House) -> None:
    house.discord.fault("GET", r"/guilds/\d+/commands", 403)
    house.start()
    house.discord.wait_for(lambda d: any(call.fault for call in d.requests))
    open_form(house.discord.person(), house.channel)
    assert " WARNING " not in house.bots[-1].output


# A category in ALLOWED_CHANNEL_IDS


@pytest.fixture
def category(house: House) -> Channel:
    """A category with two channels, in place of the one channel that was allowed."""
    category = house.discord.guild.add_category("art")
    house.settings["ALLOWED_CHANNEL_IDS"] = str(category.id)
    for name in ("first", "second"):
        house.discord.guild.add_channel(name, category)
    return category


def within(house: House) -> list[Channel]:
    """The category's channels."""
    return [channel for channel in house.discord.guild.channels if channel.category]


def test_a_category_counts_for_its_channels_and_their_threads(
    house: House, category: Channel
) -> None:
    bot = house.start()
    assert "does not see" not in bot.output
    first, second = within(house)
    later = house.discord.guild.add_channel("later", category)
    person = house.discord.person()
    for place in (first, second, house.discord.guild.add_thread(first), later):
        open_form(person, place)
    refused = person.slash("gen", house.channel).wait().wait_message()
    assert refused["content"] == (
        "/gen is not available in this channel."
        f" Please use <#{first.id}>, <#{second.id}>, <#{later.id}>."
    )


def test_check_counts_the_channels_of_a_category(house: House, category: Channel) -> None:
    house.start().stop()
    bot = run(house, "--check")
    assert bot.process.returncode == 0
    assert f"category {category.id} (#art): its 2 channels" in bot.output
    assert "warning  Discord" not in bot.output


def test_channels_of_a_category_where_the_bot_cannot_work_are_named(
    house: House, category: Channel
) -> None:
    first, second = within(house)
    first.bot_permissions &= ~(1 << 15)
    second.bot_permissions &= ~(1 << 10)  # hidden from it: not meant
    lacks = f"channel {first.id}: the bot lacks attach files"
    assert lacks in house.start().wait_for_line("lacks")
    house.bots[-1].stop()
    bot = run(house, "--check")
    assert lacks in bot.output
    assert f"category {category.id} (#art): its 1 channel" in bot.output
    assert str(second.id) not in bot.output


def test_a_category_without_channels_is_a_warning(house: House) -> None:
    category = house.discord.guild.add_category("empty")
    said = f"category {category.id} (#empty) has no channels that the bot sees"
    bot = house.start(ALLOWED_CHANNEL_IDS=str(category.id))
    bot.wait_for_line(said)
    bot.stop()
    assert said in run(house, "--check", ALLOWED_CHANNEL_IDS=str(category.id)).output


# A Discord that limits this address


def waits(bot: Bot) -> list[str]:
    """What is said about each wait for another login."""
    return [line for line in bot.lines if "next try in" in line]


def test_an_address_that_cloudflare_bans_is_waited_for_without_the_checks(house: House) -> None:
    house.discord.fault("GET", LOGIN, "banned", 3)
    bot = house.start()
    assert len(waits(bot)) == 3
    for line in waits(bot):
        assert "Discord limits the requests from this internet address" in line
        assert " WARNING " in line
    assert bot.output.count("check: database") == 1
    assert "<" not in bot.output
    assert "Unclosed" not in bot.output


def test_each_wait_is_longer_up_to_a_limit(house: House) -> None:
    house.discord.fault("GET", LOGIN, "banned", 4)
    seconds = [line.split("next try in ")[1] for line in waits(house.start())]
    assert seconds == ["0.1 s", "0.2 s", "0.4 s", "0.5 s"]


def test_it_waits_as_long_as_discord_says(house: House) -> None:
    house.discord.fault("GET", LOGIN, "banned", seconds=1)
    (line,) = waits(house.start())
    assert line.endswith("next try in 1 s")


def test_an_outage_of_discord_and_a_limit_at_the_commands_are_waited_for(house: House) -> None:
    house.discord.fault("GET", LOGIN, 503)
    house.discord.fault("PUT", "/commands", "banned")
    bot = house.start()
    outage, limited = waits(bot)
    assert "Discord has an outage (HTTP 503)" in outage
    assert "limits the requests" in limited
    open_form(house.discord.person(), house.channel)


def test_a_signal_ends_the_wait_for_a_login(house: House) -> None:
    house.discord.fault("GET", LOGIN, "banned", None, seconds=900)
    bot = house.start(ready=False)
    bot.wait_for_line("next try in 900 s")
    assert seconds_to_stop(bot) < SOON


def test_check_says_that_discord_limits_this_address(house: House) -> None:
    house.discord.fault("GET", LOGIN, "banned", None)
    bot = run(house, "--check")
    (line,) = [line for line in bot.lines if line.startswith("FAILED")]
    assert "limits the requests from this internet address" in line
    assert "<" not in bot.output


def test_no_web_page_comes_into_the_log(house: House) -> None:
    bot = house.start()
    house.discord.fault("POST", "/callback", "banned")
    house.discord.person().slash("gen", house.channel).wait()
    assert "(a web page)" in bot.wait_for_line("did not accept a reply")
    assert "Cloudflare" not in bot.output


# Two copies on one token


@pytest.fixture
def second(house: House, tmp_path: Path, forks: ForkServer | None) -> Iterator[House]:
    """Another installation with the same token."""
    second = House(tmp_path / "second", house.discord, house.comfyui, forks)
    second.settings = house.settings
    yield second
    second.check()


def test_two_copies_on_one_token_are_named_in_both_logs_once(house: House, second: House) -> None:
    bots = [house.start(), second.start()]
    person = house.discord.person()

    def named() -> list[int]:
        # Each copy is late in its turn.
        house.discord.fault("POST", "/callback", "hang", seconds=0.1)
        open_form(person, house.channel)
        return [bot.output.count(ANOTHER_COPY) for bot in bots]

    until(lambda: 0 not in named())
    for _ in range(5):
        assert named() == [1, 1]


def test_letters_that_another_copy_has_answered_do_not_fill_the_log(
    house: House, second: House
) -> None:
    bots = [house.start(), second.start()]
    for _ in range(3):
        house.discord.fault("POST", "/callback", "hang", seconds=0.1)
        house.discord.person().autocomplete("gen", house.channel, "model", "a")
    house.discord.wait_for(lambda d: sum(call.status == 400 for call in d.requests) == 3)
    assert [bot.stop() for bot in bots] == [0, 0]
    assert not [line for bot in bots for line in bot.lines if "autocomplete" in line]


def test_people_read_nothing_of_a_second_copy(house: House, second: House) -> None:
    bots = [house.start(), second.start()]
    reply = open_form(house.discord.person(), house.channel)
    until(lambda: any(ANOTHER_COPY in bot.output for bot in bots))
    assert [bot.stop() for bot in bots] == [0, 0]
    assert reply.followups == []
