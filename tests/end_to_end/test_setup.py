"""--setup: from nothing to a bot that runs, asked for in a terminal."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cli.env_file import write_env
from cli.setup import full_address
from settings import read_file
from tests.end_to_end.common import expect_exactly_one_result, order, run
from tests.end_to_end.three_workflows import BY_NAME
from tests.harness.bot import REPOSITORY
from tests.harness.house import House
from tests.standins.proxy import ProxyStandIn

pytest.importorskip("pty")  # there is none on Windows

from tests.harness.terminal import Terminal

ATTACH_FILES = 1 << 15
TOKEN, INVITE, CHANNELS = "Token (it is not shown)", "Enter goes on", "Their numbers"
COMFYUI, PICTURE = "ComfyUI's address", "Make a picture"
ALERTS, WRITE = "Shall it, to Owner?", "Enter writes this"

Sit = Callable[..., Terminal]


@pytest.fixture
def sit(house: House) -> Iterator[Sit]:
    """Sit down at a terminal in the folder of a house, where `--setup` asks."""
    (house.installation.folder / ".env.example").write_bytes(
        (REPOSITORY / ".env.example").read_bytes()
    )
    terminals = []

    def start(**environment: str) -> Terminal:
        terminal = Terminal(house.installation, house.discord, "--setup", **environment)
        terminals.append(terminal)
        return terminal

    yield start
    for terminal in terminals:
        terminal.close()
        assert house.discord.token not in terminal.screen
        assert "Traceback" not in terminal.screen, terminal.screen


def env_of(house: House) -> Path:
    return house.installation.folder / ".env"


def values_of(path: Path) -> dict[str, str]:
    lines = [line.partition("=") for line in path.read_text("utf-8").splitlines()]
    return {name: value for name, equals, value in lines if equals and not name.startswith("#")}


def test_setup_leads_from_nothing_to_a_bot_that_runs(house: House, sit: Sit) -> None:
    person = sit()
    person.answer(TOKEN, house.discord.token)
    person.wait_for(f"client_id={house.discord.application_id}")
    person.answer(INVITE)
    person.answer(CHANNELS, "2")
    person.answer(COMFYUI, house.comfyui.url)
    person.answer(PICTURE)
    person.answer(ALERTS)
    assert str(house.channel.id) in person.answer(WRITE)
    assert person.wait() == 0
    (picture,) = (house.installation.folder / "pictures").iterdir()
    assert picture.read_bytes() in house.comfyui.pictures.values()
    assert str(picture) in person.screen
    assert "comfygen.py --check" in person.screen
    written, example = env_of(house), REPOSITORY / ".env.example"
    assert written.stat().st_mode & 0o777 == 0o600
    assert values_of(written) == {
        **values_of(example),
        "DISCORD_TOKEN": house.discord.token,
        "DISCORD_CLIENT_ID": str(house.discord.application_id),
        "DISCORD_GUILD_ID": str(house.discord.guild.id),
        "ALLOWED_CHANNEL_IDS": str(house.channel.id),
        "COMFY_BASE_URL": house.comfyui.url,
        "ALERT_USER_ID": str(house.discord.guild._owner_id),
    }
    comments = [line for line in example.read_text("utf-8").splitlines() if line.startswith("#")]
    assert set(comments) <= set(written.read_text("utf-8").splitlines())
    house.run()
    asker = house.discord.person()
    order(house, asker, "a fox")
    expect_exactly_one_result(house, asker)


def test_each_wrong_answer_is_told_and_asked_again(house: House, sit: Sit) -> None:
    discord = house.discord
    discord.guild.bot_is_member = False
    general = discord.guild.channels[0]
    general.bot_permissions &= ~ATTACH_FILES
    hidden = discord.guild.add_channel("hidden")
    hidden.bot_permissions = 0
    other = discord.add_guild("Another", bot_is_member=False)
    other.add_channel("else")
    wrong = base64.b64encode(b"1234567890123456789").decode().rstrip("=") + ".GaBcDe." + "x" * 38
    house.comfyui.models = ["one.safetensors", "two.safetensors"]
    person = sit()
    for text, said in (
        ("", "no token"),
        ("b", "first question"),
        ("1150000000000000001", "id of an application"),
        ("5eed" * 16, "public key"),
        ("aBcDe-_1" * 4, "client secret"),
        ("https://discord.com", "no token"),
        ("\x16\x16", "right-click"),  # the terminal takes the first for itself
        ("two words", "spaces"),
        ("a.b", "no token"),
        (wrong, "refuses this token"),
    ):
        person.answer(TOKEN, text)
        person.wait_for(said)
    person.answer(TOKEN, f'"Bot {discord.token}"')
    person.answer("Waiting for the bot to be in a server")
    person.wait_for("in no server yet")
    person.wait_for("Waiting for")
    discord.guild.bot_is_member = other.bot_is_member = True
    person.wait_for("The bot has come to")
    person.type("\n")
    person.answer(INVITE, "no")
    person.wait_for("no answer here")
    person.answer(INVITE)
    for text in ("x", "0", "3", "1,2"):
        person.answer("Its number", text)
        person.wait_for("Give")
    person.answer("Its number", "1")
    person.wait_for("does not see #hidden")
    person.wait_for("#general  (lacks attach files)")
    person.answer(CHANNELS, "3")
    person.wait_for("from 1 to 2")
    person.answer(CHANNELS, "1,2")
    person.wait_for("In #general the bot needs attach files")
    general.bot_permissions |= ATTACH_FILES
    person.answer("Enter looks again")
    person.answer(CHANNELS, "1,2")
    for text, said in (("http://[", "not an address"), ("127.0.0.1:9", "No ComfyUI answers at")):
        person.answer(COMFYUI, text)
        person.wait_for(said)
    person.answer(COMFYUI, house.comfyui.url.removeprefix("http://"))
    person.answer(PICTURE, "b")
    person.answer(COMFYUI)
    person.answer(PICTURE, "perhaps")
    person.wait_for("neither y nor s")
    house.comfyui.fail_next("torch.OutOfMemoryError", "Allocation on device")
    person.answer(PICTURE)
    person.answer("model's number", "two")
    person.answer("model's number", "2")
    person.wait_for("too big for the GPU")
    person.answer("Try again")
    person.answer("model's number", "2")
    person.wait_for("two.safetensors")
    person.answer(ALERTS, "perhaps")
    person.wait_for("neither y nor n")
    person.answer(ALERTS, "n")
    person.answer(WRITE, "no")
    person.wait_for("no answer here")
    assert not env_of(house).exists()
    person.answer(WRITE)
    assert person.wait() == 0
    values = values_of(env_of(house))
    assert values["ALLOWED_CHANNEL_IDS"] == f"{general.id},{house.channel.id}"
    assert values["COMFY_BASE_URL"] == house.comfyui.url
    assert values["ALERT_USER_ID"] == ""


def test_what_the_env_before_has_is_kept_and_is_the_default(house: House, sit: Sit) -> None:
    negative = "'fog # and \\'rain\\''"
    more = {"MAX_STEPS": "9", "DEFAULT_NEGATIVE_PROMPT": negative, "MINE": "1"}
    category = house.discord.guild.add_category()
    house.discord.guild.add_channel("within", category=category)
    more["ALLOWED_CHANNEL_IDS"] = f"{category.id},{house.channel.id}"
    house.installation.configure({**house.settings, **more})
    before = env_of(house).read_bytes()
    earlier = env_of(house).with_name(".env.before-setup")
    earlier.write_text("an older one", "utf-8")
    person = sit()
    for question in (TOKEN, INVITE, CHANNELS, COMFYUI):
        person.answer(question)
    person.answer(PICTURE, "s")
    person.answer(ALERTS)
    person.answer(WRITE)
    assert person.wait() == 0
    kept = env_of(house).with_name(".env.before-setup-2")
    assert kept.read_bytes() == before
    assert kept.stat().st_mode & 0o777 == 0o600
    assert earlier.read_text("utf-8") == "an older one"
    assert values_of(env_of(house)).items() >= {**house.settings, **more}.items()


def test_ctrl_c_writes_nothing_at_any_question(house: House, sit: Sit) -> None:
    answers = {
        TOKEN: house.discord.token,
        INVITE: "",
        CHANNELS: "",
        COMFYUI: house.comfyui.url,
        PICTURE: "s",
        ALERTS: "",
        WRITE: "",
    }
    for last in answers:
        person = sit()
        for question, text in answers.items():
            if question == last:
                break
            person.answer(question, text)
        person.wait_for(last)
        assert person.interrupt() == 130
        assert "nothing was written" in person.screen
    assert list(house.installation.folder.glob(".env*")) == [
        house.installation.folder / ".env.example"
    ]


def test_setup_needs_a_terminal(house: House) -> None:
    bot = run(house, "--setup")
    assert bot.process.returncode == 1
    assert "needs a terminal" in bot.output


def test_without_the_nodes_of_the_workflow_the_packs_are_named(house: House, sit: Sit) -> None:
    info = house.comfyui.object_info
    house.comfyui.object_info = {name: value for name, value in info.items() if "Mikey" not in name}
    person = sit()
    person.answer(TOKEN, house.discord.token)
    person.answer(INVITE)
    person.answer(CHANNELS)
    person.answer(COMFYUI, house.comfyui.url)
    person.answer(PICTURE)
    person.wait_for("multisampler cannot be used: ComfyUI does not know")
    person.wait_for("of the pack Mikey Nodes")
    person.answer("Try again", "s")
    person.answer(ALERTS)
    person.answer(WRITE)
    assert person.wait() == 0


def test_a_workflow_that_works_becomes_the_default_where_the_default_one_does_not(
    house: House, sit: Sit
) -> None:
    info = house.comfyui.object_info
    house.installation.add_workflow("styled", *BY_NAME["styled"])
    house.comfyui.object_info = {name: value for name, value in info.items() if "Mikey" not in name}
    person = sit()
    person.answer(TOKEN, house.discord.token)
    person.answer(INVITE)
    person.answer(CHANNELS)
    person.answer(COMFYUI, house.comfyui.url)
    person.answer(PICTURE)
    person.wait_for("The default workflow will be styled")
    person.answer(ALERTS)
    person.answer(WRITE)
    assert person.wait() == 0
    assert len(list((house.installation.folder / "pictures").iterdir())) == 1
    house.run()


def test_the_environment_that_wins_over_the_file_is_named(house: House, sit: Sit) -> None:
    house.installation.configure({**house.settings, "MAX_STEPS": "many"})
    person = sit(ALLOWED_CHANNEL_IDS="4711")
    for question in (TOKEN, INVITE, CHANNELS, COMFYUI):
        person.answer(question)
    person.answer(PICTURE, "s")
    person.answer(ALERTS)
    person.answer(WRITE)
    person.wait_for("The environment has another ALLOWED_CHANNEL_IDS")
    person.wait_for("Correct in .env: MAX_STEPS")
    assert person.wait() == 0


def test_comfyui_is_found_on_this_machine_and_can_be_left_out(house: House, sit: Sit) -> None:
    person = sit(COMFY_PLACE=house.comfyui.url)
    person.answer(TOKEN, house.discord.token)
    person.answer(INVITE)
    person.answer(CHANNELS)
    person.wait_for(f"At {house.comfyui.url} is ComfyUI")
    person.answer(COMFYUI, "b")
    person.answer(CHANNELS)
    person.answer(COMFYUI)
    person.answer(PICTURE, "b")
    person.answer(COMFYUI, "s")
    person.answer(ALERTS, "b")
    person.answer(COMFYUI)
    person.answer(PICTURE, "s")
    person.answer(ALERTS)
    person.answer(WRITE)
    assert person.wait() == 0
    assert values_of(env_of(house))["COMFY_BASE_URL"] == house.comfyui.url
    assert "Start ComfyUI" not in person.screen


def test_without_comfyui_the_end_says_that_it_has_to_be_started_first(
    house: House, sit: Sit
) -> None:
    person = sit()
    person.answer(TOKEN, house.discord.token)
    person.answer(INVITE)
    person.answer(CHANNELS)
    person.answer(COMFYUI, "s")
    person.answer(ALERTS)
    person.answer(WRITE)
    person.wait_for("Start ComfyUI before the bot")
    assert person.wait() == 0


def test_a_disk_that_is_full_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A=1\n", "utf-8")
    (tmp_path / ".env.new").mkdir()
    with pytest.raises(OSError, match="new"):
        write_env(tmp_path, {"A": "2"})
    assert (tmp_path / ".env").read_text("utf-8") == "A=1\n"


@pytest.mark.parametrize(
    "value", ["", "plain", "a # b", "#a", "it's", "'quoted'", '"a"', "two\nlines # \\' x", "a\\b"]
)
def test_what_is_written_is_read_as_it_was(tmp_path: Path, value: str) -> None:
    write_env(tmp_path, {"DEFAULT_NEGATIVE_PROMPT": value, "LAST": "1"})
    assert read_file(tmp_path) == {"DEFAULT_NEGATIVE_PROMPT": value, "LAST": "1"}


def test_what_people_leave_out_of_an_address_is_added() -> None:
    assert full_address("192.168.1.5") == "http://192.168.1.5:8188"
    assert full_address("gpu.lan:9000") == "http://gpu.lan:9000"
    assert full_address("https://home.example/comfy") == "https://home.example/comfy"


def test_discord_out_of_reach_is_told_and_tried_again(house: House, sit: Sit) -> None:
    person = sit(DISCORD_PROXY="http://127.0.0.1:9")
    person.answer(TOKEN, house.discord.token)
    person.wait_for("Discord cannot be used")
    person.answer("Enter tries again", "nothing")
    person.wait_for("not an address")
    person.answer(TOKEN)
    with ProxyStandIn() as proxy:
        person.answer("Enter tries again", proxy.url)
        person.answer(TOKEN)
        person.wait_for(INVITE)
        assert proxy.asked
    assert person.interrupt() == 130
