"""The stand-in for Discord is itself held to account: the real discord.py works against it, and it
refuses what Discord refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.standins.discord.people import Channel, File, Person
from tests.standins.discord.schema import (
    ATTACH_FILES,
    BOT_PERMISSIONS,
    DM_PERMISSIONS,
    EMBED_LINKS,
    MANAGE_GUILD,
    MANAGE_MESSAGES,
    MEMBER_PERMISSIONS,
    USE_APPLICATION_COMMANDS,
    VIEW_CHANNEL,
    message_texts,
)
from tests.standins.discord.server import DiscordStandIn

BOT = """
import io, json, os, discord, yarl
discord.http.Route.BASE = os.environ["API_URL"]
discord.gateway.DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL(os.environ["GATEWAY_URL"])
client = discord.Client(intents=discord.Intents.default())
tree = discord.app_commands.CommandTree(client)

class Prompt(discord.ui.Modal, title="Prompt"):
    text = discord.ui.Label(
        text="Text", component=discord.ui.TextInput(custom_id="text", default="a cat")
    )
    async def on_submit(self, interaction):
        embed = discord.Embed(description=self.text.component.value)
        await interaction.response.edit_message(embed=embed)

class Form(discord.ui.View):
    @discord.ui.select(
        placeholder="Model", options=[discord.SelectOption(label="Alpha", value="0")]
    )
    async def model(self, interaction, select):
        embed = discord.Embed(description="model " + select.values[0])
        await interaction.response.edit_message(embed=embed)
    @discord.ui.button(label="Edit")
    async def edit(self, interaction, button):
        await interaction.response.send_modal(Prompt())
    @discord.ui.button(label="Post")
    async def post(self, interaction, button):
        await interaction.response.defer()
        files = [discord.File(io.BytesIO(name.encode()), name) for name in ("a.png", "b.png")]
        embed = discord.Embed(title="Done").set_image(url="attachment://a.png")
        only = discord.AllowedMentions(everyone=False, users=[interaction.user])
        text = f"{interaction.user.mention} @everyone"
        channel = client.get_channel(interaction.channel_id)
        for _ in range(2):
            await channel.send(text, embed=embed, files=files, nonce="7", allowed_mentions=only)

@tree.command(description="Opens the form")
async def gen(interaction: discord.Interaction):
    await interaction.response.send_message("the form", view=Form(), ephemeral=True)

words = discord.app_commands.Group(name="words", description="Words")

@words.command(description="Adds words")
async def add(interaction, term: str = "", file: discord.Attachment | None = None):
    text = (await file.read()).decode() if file else ""
    await interaction.response.send_message(f"{term} {text}", ephemeral=True)

@add.autocomplete("term")
async def complete(interaction, current):
    return [discord.app_commands.Choice(name=current + "*", value=current)]

tree.add_command(words)

class Who(discord.ui.View):
    @discord.ui.button(label="Who", custom_id="who")
    async def who(self, interaction, button):
        user = interaction.user
        known = {"guild": interaction.guild_id, "user": type(user).__name__}
        known["dm"] = interaction.context.dm_channel
        known |= {"may": interaction.permissions.value, "bot": interaction.app_permissions.value}
        known["roles"] = [role.id for role in getattr(user, "roles", [])]
        await interaction.response.send_message(json.dumps(known), ephemeral=True)

@client.event
async def setup_hook():
    client.add_view(Who(timeout=None))
    await tree.sync()

client.run(os.environ["TOKEN"], log_handler=None)
"""


@pytest.fixture(scope="module")
def discord() -> Iterator[DiscordStandIn]:
    with DiscordStandIn() as standin:
        urls = {"API_URL": standin.api_url, "GATEWAY_URL": standin.gateway_url}
        environment = {**os.environ, **urls, "TOKEN": standin.token}
        bot = subprocess.Popen([sys.executable, "-c", BOT], env=environment)
        try:
            standin.wait_for(lambda s: s.connected, what="the bot")
            # An answer: it has received READY, too, and could resume its session from here on.
            standin.person("first").slash("gen", standin.guild.add_channel("first")).wait()
            yield standin
        finally:
            bot.kill()
            bot.wait()


@pytest.fixture
def mira(discord: DiscordStandIn) -> Person:
    discord.violations.clear()
    return discord.person("mira")


@pytest.fixture
def channel(discord: DiscordStandIn) -> Channel:
    return discord.guild.add_channel("pictures")


def send(discord: DiscordStandIn, path: str, body: Any, method: str = "POST") -> requests.Response:
    headers = {"Authorization": f"Bot {discord.token}"}
    return requests.request(method, discord.api_url + path, json=body, headers=headers, timeout=10)


def send_files(
    discord: DiscordStandIn, path: str, body: Any, *names: str, method: str = "PATCH"
) -> requests.Response:
    """With a file of each name, which has its name in it."""
    parts = {f"files[{n}]": (name, name.encode()) for n, name in enumerate(names)}
    parts["payload_json"] = ("", json.dumps(body).encode())
    headers = {"Authorization": f"Bot {discord.token}"}
    return requests.request(
        method, discord.api_url + path, files=parts, headers=headers, timeout=10
    )


def picture(name: str) -> dict[str, Any]:
    """An embed that shows a file."""
    return {"description": "the newest", "image": {"url": f"attachment://{name}"}}


def test_a_form_with_menu_modal_and_pictures(
    discord: DiscordStandIn, mira: Person, channel: Channel
) -> None:
    form = mira.slash("gen", channel).wait()
    assert form.message
    assert form.message["flags"] == 64
    assert channel.messages == []

    mira.select(form.message, "Model", "Alpha").wait()
    assert form.texts == ["the form", "model 0"]
    modal = mira.press(form.message, "Edit").wait().modal
    assert modal
    mira.submit(modal, text="a dog").wait()
    assert form.texts == ["the form", "a dog"]

    mira.press(form.message, "Post")
    message = discord.wait_for_message(channel)
    path = f"/channels/{channel.id}/messages"
    discord.wait_for(lambda s: sum(bool(c.files) for c in s.requests if c.path == path) == 2)
    assert channel.messages == [message], "the second one has the same nonce"
    assert [user["id"] for user in message["mentions"]] == [str(mira.id)]
    assert not message["mention_everyone"]
    assert [item["filename"] for item in message["attachments"]] == ["b.png"]
    assert discord.attachment_bytes(message["embeds"][0]["image"]) == b"a.png"
    assert discord.violations == []


def test_the_client_forbids_what_a_client_forbids(
    discord: DiscordStandIn, mira: Person, channel: Channel
) -> None:
    form = mira.slash("gen", channel).wait().message
    assert form
    modal = mira.press(form, "Edit").wait().modal
    assert modal
    with pytest.raises(AssertionError, match="doesn't offer"):
        mira.select(form, "Model", "Gamma")
    with pytest.raises(AssertionError, match="one button"):
        mira.press(form, "Nothing")
    with pytest.raises(AssertionError, match="required"):
        mira.submit(modal, text="")
    with pytest.raises(AssertionError, match="doesn't see"):
        discord.person("tom").press(form, "Edit")
    with pytest.raises(AssertionError, match="isn't offered"):
        mira.slash("nothing", channel)


def test_an_interaction_during_a_lost_connection_arrives_after_resume(
    discord: DiscordStandIn, mira: Person, channel: Channel
) -> None:
    resumes = discord.resumes
    discord.drop_gateway()
    reply = mira.slash("gen", channel)
    assert reply.wait().type == 4
    assert discord.resumes == resumes + 1


def test_an_interaction_is_answered_once_and_in_time(
    discord: DiscordStandIn, mira: Person, channel: Channel
) -> None:
    reply = mira.slash("gen", channel).wait()
    callback = f"/interactions/{reply.id}/{reply.token}/callback"
    assert send(discord, callback, {"type": 5}).json()["code"] == 40060
    hook = f"/webhooks/{discord.application_id}/{reply.token}"
    assert send(discord, hook, {"content": "more"}).status_code == 200
    assert reply.texts == ["the form", "more"]
    assert len(discord.violations) == 1
    discord.token_lifetime = 0.0
    try:
        assert send(discord, hook, {"content": "late"}).json()["code"] == 50027
    finally:
        discord.token_lifetime = 900.0


ROW = {"type": 1}
BUTTON = {"type": 2, "style": 1, "label": "x", "custom_id": "x"}


def menu(**changes: Any) -> dict[str, Any]:
    options = [{"label": "a", "value": "a"}, {"label": "b", "value": "b"}]
    return {"type": 3, "custom_id": "m", "options": options, **changes}


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({"content": "x" * 2001}, "content"),
        ({"content": 5}, "content"),
        ({"content": "x", "flags": 64}, "flags"),
        ({"content": "x", "nonce": "x" * 26}, "nonce"),
        ({"embeds": [{"title": "x" * 257}]}, "embeds.0.title"),
        ({"embeds": [{"description": "x" * 4097}]}, "embeds.0.description"),
        ({"embeds": [{"fields": [{"name": "x", "value": ""}]}]}, "embeds.0.fields.0.value"),
        ({"embeds": [{"fields": [{"name": "x", "value": "x"}] * 26}]}, "embeds.0.fields"),
        ({"embeds": [{"description": "x" * 3001}] * 2}, "embeds"),
        ({"embeds": [{"title": "x"}] * 11}, "embeds"),
        ({"embeds": [{"image": {"url": "attachment://x.png"}}]}, "embeds.0.image.url"),
        ({"content": "x", "allowed_mentions": {"parse": ["all"]}}, "allowed_mentions.parse.0"),
        (
            {"content": "x", "allowed_mentions": {"parse": ["users"], "users": ["1"]}},
            "allowed_mentions",
        ),
        ({"components": [{**ROW, "components": [BUTTON]}] * 6}, "components"),
        ({"components": [BUTTON]}, "components.0.type"),
        ({"components": [{"type": 10, "content": "v2 without its flag"}]}, "components.0.type"),
        (
            {"components": [{**ROW, "components": [BUTTON, BUTTON]}]},
            "components.0.components.1.custom_id",
        ),
        (
            {"components": [{**ROW, "components": [BUTTON, menu()]}]},
            "components.0.components.1",
        ),
        (
            {"components": [{**ROW, "components": [menu(placeholder="x" * 151)]}]},
            "components.0.components.0.placeholder",
        ),
        (
            {"components": [{**ROW, "components": [menu(options=[])]}]},
            "components.0.components.0.options",
        ),
        (
            {
                "components": [
                    {**ROW, "components": [menu(options=[{"label": "a", "value": "a"}] * 2)]}
                ]
            },
            "components.0.components.0",
        ),
    ],
)
def test_a_message_beyond_discords_limits_is_refused(
    discord: DiscordStandIn, mira: Person, channel: Channel, body: Any, where: str
) -> None:
    answer = send(discord, f"/channels/{channel.id}/messages", body)
    assert answer.status_code == 400
    errors = answer.json()["errors"]
    for part in where.split("."):
        errors = errors[part]
    assert errors["_errors"]
    assert len(discord.violations) == 1
    assert channel.messages == []


def test_permissions_and_lost_channels(
    discord: DiscordStandIn, mira: Person, channel: Channel
) -> None:
    path = f"/channels/{channel.id}/messages"
    channel.bot_permissions &= ~(1 << 11)
    assert send(discord, path, {"content": "x"}).json()["code"] == 50013
    channel.bot_permissions = 0
    assert send(discord, path, {"content": "x"}).json()["code"] == 50001
    channel.delete()
    assert send(discord, path, {"content": "x"}).json()["code"] == 10003
    mira.accepts_dms = False
    dm = send(discord, "/users/@me/channels", {"recipient_id": str(mira.id)}).json()
    refused = send(discord, f"/channels/{dm['id']}/messages", {"content": "x"})
    assert refused.json()["code"] == 50007
    assert discord.violations == []


WHO = {"type": 2, "style": 1, "label": "Who", "custom_id": "who"}


def who(discord: DiscordStandIn, person: Person, channel: Channel | None = None) -> dict[str, Any]:
    """What the bot knows of somebody who presses a button of its message; no channel: in the DM."""
    place = channel.id if channel else dm_of(discord, person)
    body = {"content": "the result", "components": [{"type": 1, "components": [WHO]}]}
    message = send(discord, f"/channels/{place}/messages", body).json()
    answer = person.press(message, "Who").wait().message
    assert answer
    return dict(json.loads(answer["content"]))


def dm_of(discord: DiscordStandIn, person: Person) -> str:
    opened = send(discord, "/users/@me/channels", {"recipient_id": str(person.id)})
    return str(opened.json()["id"])


def test_who_may_use_no_commands_in_a_channel_may_still_press(
    discord: DiscordStandIn, mira: Person, channel: Channel
) -> None:
    mira.deny(channel, USE_APPLICATION_COMMANDS)
    with pytest.raises(AssertionError, match="may not use commands"):
        mira.slash("gen", channel)
    assert who(discord, mira, channel)["may"] == MEMBER_PERMISSIONS & ~USE_APPLICATION_COMMANDS
    thread = discord.guild.add_thread(channel)
    assert who(discord, mira, thread)["may"] == MEMBER_PERMISSIONS & ~USE_APPLICATION_COMMANDS
    assert mira.slash("gen", discord.guild.add_channel("elsewhere")).wait().message
    mira.deny(channel, 0)
    assert who(discord, mira, channel)["may"] == MEMBER_PERMISSIONS
    mira.deny(channel, VIEW_CHANNEL)
    with pytest.raises(AssertionError, match="doesn't see pictures"):
        mira.press(channel.messages[0], "Who")


def test_an_interaction_tells_the_roles_and_what_they_permit(
    discord: DiscordStandIn, mira: Person, channel: Channel
) -> None:
    artists = discord.guild.add_role("artists", MANAGE_MESSAGES)
    elsewhere = discord.add_guild().add_role("artists")
    assert who(discord, mira, channel)["roles"] == [discord.guild.id]  # @everyone
    mira.roles = [artists, elsewhere]
    known = who(discord, mira, channel)
    assert known["roles"] == [discord.guild.id, artists.id]
    assert known["may"] == MEMBER_PERMISSIONS | MANAGE_MESSAGES
    assert who(discord, discord.moderator(), channel)["may"] & MANAGE_MESSAGES
    assert who(discord, discord.manager(), channel)["may"] & MANAGE_GUILD


def test_an_interaction_tells_what_the_bot_may_in_that_channel(
    discord: DiscordStandIn, mira: Person, channel: Channel
) -> None:
    channel.bot_permissions = BOT_PERMISSIONS & ~ATTACH_FILES
    assert who(discord, mira, channel)["bot"] == BOT_PERMISSIONS & ~ATTACH_FILES


def test_a_button_in_a_dm_knows_no_server_and_no_member(
    discord: DiscordStandIn, mira: Person
) -> None:
    known = who(discord, mira)
    assert (known["guild"], known["user"], known["dm"]) == (None, "User", True)
    assert known["bot"] == DM_PERMISSIONS


def test_a_subcommand_takes_options_and_a_file(
    discord: DiscordStandIn, mira: Person, channel: Channel
) -> None:
    reply = mira.slash("words add", channel, term="fox", file=File("list.txt", b"owl\nhare")).wait()
    assert reply.texts == ["fox owl\nhare"]
    assert reply.message
    assert reply.message["interaction"]["name"] == "words add"
    (choice,) = mira.autocomplete("words add", channel, "term", "ow")
    assert choice["name"] == "ow*"
    for wrong, why in (("words drop", "isn't offered"), ("words", "is used by one of")):
        with pytest.raises(AssertionError, match=why):
            mira.slash(wrong, channel)
    assert discord.violations == []


def test_five_messages_in_five_seconds(
    discord: DiscordStandIn, mira: Person, channel: Channel
) -> None:
    path, before = f"/channels/{channel.id}/messages", discord.rate_limited
    answers = [send(discord, path, {"content": "x"}) for _ in range(6)]
    assert [answer.status_code for answer in answers] == [200] * 5 + [429]
    assert answers[4].headers["X-RateLimit-Remaining"] == "0"
    assert 4 < answers[5].json()["retry_after"] <= 5
    assert discord.rate_limited == before + 1
    assert len(channel.messages) == 5


def test_five_edits_in_five_seconds_of_an_answer(
    discord: DiscordStandIn, mira: Person, channel: Channel
) -> None:
    reply, other = mira.slash("gen", channel).wait(), mira.slash("gen", channel).wait()
    hook = f"/webhooks/{discord.application_id}/{reply.token}"
    discord.used_up.clear()
    followup = send(discord, hook, {"content": "more", "flags": 64}).json()["id"]
    paths = [f"{hook}/messages/@original", f"{hook}/messages/{followup}"] * 3
    answers = [send(discord, path, {"content": "x"}, "PATCH") for path in paths]
    assert [answer.status_code for answer in answers] == [200] * 5 + [429]
    assert answers[4].headers["X-RateLimit-Remaining"] == "0"
    assert discord.used_up == [f"PATCH {hook}"]
    elsewhere = f"/webhooks/{discord.application_id}/{other.token}/messages/@original"
    assert send(discord, elsewhere, {"content": "x"}, "PATCH").status_code == 200


def test_what_an_answer_has_shown_can_be_looked_up(
    discord: DiscordStandIn, mira: Person, channel: Channel
) -> None:
    reply = mira.slash("gen", channel).wait()
    shown = reply.message
    assert shown
    path = f"/webhooks/{discord.application_id}/{reply.token}/messages/@original"
    for number in (2, 1):
        send(discord, path, {"content": f"position {number}"}, "PATCH")
    send(discord, path, None, "DELETE")
    states = [(state["event"], state["message"]["content"]) for state in discord.states(shown)]
    texts = ["the form", "position 2", "position 1", "position 1"]
    assert states == list(zip(("create", "edit", "edit", "delete"), texts, strict=True))
    assert channel.history == []


def test_an_expired_token_edits_nothing_and_its_buttons_work(
    discord: DiscordStandIn, mira: Person, channel: Channel
) -> None:
    reply, other = mira.slash("gen", channel).wait(), mira.slash("gen", channel).wait()
    assert reply.message
    reply.expire()
    hook = f"/webhooks/{discord.application_id}/{reply.token}"
    for path, method in (
        (f"{hook}/messages/@original", "PATCH"),
        (f"{hook}/messages/{reply.message['id']}", "PATCH"),
        (f"{hook}/messages/@original", "DELETE"),
        (hook, "POST"),
    ):
        refused = send(discord, path, {"content": "late"}, method)
        assert (refused.status_code, refused.json()["code"]) == (401, 50027)
    assert reply.texts == ["the form"]
    mira.select(reply.message, "Model", "Alpha").wait()
    assert reply.texts == ["the form", "model 0"]
    working = f"/webhooks/{discord.application_id}/{other.token}/messages/@original"
    assert send(discord, working, {"content": "in time"}, "PATCH").status_code == 200
    assert discord.violations == []


def test_faults(discord: DiscordStandIn, mira: Person, channel: Channel) -> None:
    path = f"/channels/{channel.id}/messages"
    discord.fault("POST", path, "lost answer")
    discord.fault("POST", path, "reset")
    for content in ("applied", "not applied"):
        with pytest.raises(requests.ConnectionError):
            send(discord, path, {"content": content})
    discord.fault("*", path, 403, code=50001)
    assert send(discord, path, {"content": "x"}).json()["code"] == 50001
    calls: list[str] = []
    discord.before("POST", path, lambda: calls.append(f"before {len(channel.messages)}"))
    discord.after("POST", path, lambda: calls.append(f"after {len(channel.messages)}"))
    assert send(discord, path, {"content": "x"}).status_code == 200
    assert calls == ["before 1", "after 2"]
    assert [message_texts(message) for message in channel.messages] == [["applied"], ["x"]]
    assert discord.violations == []


Illustrated = tuple[dict[str, Any], str]


@pytest.fixture(params=["a channel", "an answer"])
def illustrated(
    discord: DiscordStandIn, mira: Person, channel: Channel, request: pytest.FixtureRequest
) -> Illustrated:
    """A message with two pictures, a.png in an embed, b.png beside it; and where it is edited."""
    files = [{"id": 0, "description": "a fox"}, {"id": 1, "description": "a hare"}]
    body = {"embeds": [picture("a.png")], "attachments": files}
    path = f"/channels/{channel.id}/messages"
    if request.param == "an answer":
        reply = mira.slash("gen", channel).wait()
        path = f"/webhooks/{discord.application_id}/{reply.token}/messages/@original"
        answer = send_files(discord, path, body, "a.png", "b.png")
        assert reply.message
        return reply.message, path
    answer = send_files(discord, path, body, "a.png", "b.png", method="POST")
    return channel.messages[0], f"{path}/{answer.json()['id']}"


def test_a_description_is_kept_with_its_picture(
    discord: DiscordStandIn, illustrated: Illustrated
) -> None:
    message, _ = illustrated
    assert message["embeds"][0]["image"]["description"] == "a fox"
    (hare,) = message["attachments"]
    assert hare["description"] == "a hare"
    assert discord.attachment_bytes(hare) == b"b.png"
    assert discord.violations == []


def test_an_edit_that_names_no_attachments_keeps_them(
    discord: DiscordStandIn, illustrated: Illustrated
) -> None:
    message, path = illustrated
    embeds, attachments = message["embeds"], message["attachments"]
    assert send(discord, path, {"content": "more"}, "PATCH").status_code == 200
    assert (message["embeds"], message["attachments"]) == (embeds, attachments)
    assert send_files(discord, path, {}, "c.png").status_code == 200
    assert [file["filename"] for file in message["attachments"]] == ["b.png", "c.png"]
    assert discord.violations == []


def test_an_edit_that_names_attachments_leaves_exactly_these(
    discord: DiscordStandIn, illustrated: Illustrated
) -> None:
    message, path = illustrated
    (hare,) = message["attachments"]
    files = [{"id": hare["id"], "description": "a brown hare"}, {"id": 0, "description": "an owl"}]
    body = {"embeds": [picture("a.png")], "attachments": files}
    assert send_files(discord, path, body, "a.png").status_code == 200
    image = message["embeds"][0]["image"]
    assert (discord.attachment_bytes(image), image["description"]) == (b"a.png", "an owl")
    (kept,) = message["attachments"]
    assert kept == {**hare, "description": "a brown hare"}
    for _ in range(2):  # a preview that changes
        new = {"embeds": [picture("c.png")], "attachments": [{"id": 0}]}
        assert send_files(discord, path, new, "c.png").status_code == 200
        assert message["attachments"] == []
        assert discord.attachment_bytes(message["embeds"][0]["image"]) == b"c.png"
    assert send(discord, path, {"attachments": []}, "PATCH").status_code == 200
    assert "image" in message["embeds"][0], "its address stays in an embed that is left alone"
    assert discord.violations == []


def test_an_embed_that_is_edited_away_leaves_its_file_behind(
    discord: DiscordStandIn, illustrated: Illustrated
) -> None:
    message, path = illustrated
    read_again = [{"image": {"url": message["embeds"][0]["image"]["url"]}}]
    for embeds in (read_again, []):
        assert send(discord, path, {"content": "x", "embeds": embeds}, "PATCH").status_code == 200
        assert [file["filename"] for file in message["attachments"]] == ["a.png", "b.png"]


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({"attachments": [{"id": 0, "description": "x" * 1025}]}, "attachments.0.description"),
        ({"attachments": [{"id": 0}, {"id": 1}]}, "attachments.1"),
        ({"attachments": [{"id": 0}], "embeds": [picture("a.png")]}, "embeds.0.image.url"),
        ({"attachments": [{"id": 0}] * 11}, "attachments"),
    ],
)
def test_an_edit_of_files_beyond_discords_limits_is_refused(
    discord: DiscordStandIn, illustrated: Illustrated, body: Any, where: str
) -> None:
    message, path = illustrated
    before = (message["embeds"], message["attachments"])
    answer = send_files(discord, path, body, "c.png")
    errors = answer.json()["errors"]
    for part in where.split("."):
        errors = errors[part]
    assert errors["_errors"]
    assert len(discord.violations) == 1
    assert (message["embeds"], message["attachments"]) == before


def test_files_and_embeds_take_their_permissions_in_edits_too(
    discord: DiscordStandIn, mira: Person, channel: Channel
) -> None:
    path = f"/channels/{channel.id}/messages"
    path += "/" + send(discord, path, {"content": "x"}).json()["id"]
    for lacking, embeds in ((ATTACH_FILES, []), (EMBED_LINKS, [picture("a.png")])):
        channel.bot_permissions = BOT_PERMISSIONS & ~lacking
        answer = send_files(discord, path, {"content": "y", "embeds": embeds}, "a.png")
        assert answer.json()["code"] == 50013
    assert send(discord, path, {"content": "y"}, "PATCH").status_code == 200
    assert discord.violations == []
