"""What several modules of the end-to-end tests do and look up."""

from __future__ import annotations

from typing import Any

from tests.harness.bot import Bot
from tests.harness.house import House
from tests.standins.discord.people import Person


def run(house: House, *arguments: str, offline: bool = False, **changes: str) -> Bot:
    """The program with these arguments, run to its end."""
    house.installation.configure({**house.settings, **changes})
    bot = house.run(ready=False, offline=offline, arguments=arguments)
    bot.wait(60)
    return bot


def result_of(house: House, person: Person, number: int = 1) -> dict[str, Any]:
    """A person's result in the channel, once it is there."""

    def mine() -> list[dict[str, Any]]:
        start = f"<@{person.id}>"
        return [m for m in house.channel.messages if m["content"].startswith(start)]

    house.discord.wait_for(lambda _: len(mine()) >= number)
    return mine()[number - 1]


def jobs_of(house: House, person: Person) -> int:
    """How many rows a person has."""
    query = "SELECT count(*) FROM jobs WHERE discord_user_id = ?"
    return int(house.installation.rows(query, str(person.id))[0][0])
