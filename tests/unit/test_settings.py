"""Settings and logging, read as the owner writes them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from settings import (
    HERE,
    NAMES,
    ConfigError,
    OneLineFilter,
    RedactingFilter,
    Settings,
    about_file,
    load_settings,
    plain_value,
    read_environment,
)
from tests.harness.bot import REPOSITORY, SETTINGS

GOOD = {"DISCORD_TOKEN": "abc.def.ghi", "ALLOWED_CHANNEL_IDS": "1, 2,3"}
TOKEN = "MTIzNDU2Nzg5MDEyMzQ1Njc4.GaBcDe.aBcDeFgHiJkLmNoPqRsTuVwXyZ0123456789ab"


def problems_of(**changes: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_settings({**GOOD, **changes})
    return list(caught.value.problems)


def test_two_values_are_enough() -> None:
    settings = load_settings(GOOD)
    assert settings.channel_ids == {1, 2, 3}
    assert settings.servers[0].base_url == "http://127.0.0.1:8188"
    assert settings.comfy_timeout == 300
    assert settings.db_path == HERE / "data/comfygen.db"
    assert settings.workflow_path == HERE / "workflows/multisampler/base.json"
    assert settings.log_level == logging.INFO
    assert settings.random_seeds
    assert settings.previews
    assert (settings.client_id, settings.guild_id) == (None, None)
    assert (settings.max_waiting, settings.max_steps) == (10, 150)
    assert (settings.role_ids, settings.alert_user_id) == (frozenset(), None)
    assert settings.keep_metadata


def test_all_problems_are_told_at_once_one_line_each() -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(
            {
                "ALLOWED_CHANNEL_IDS": "#pictures",
                "COMFY_BASE_URL": "127.0.0.1:8188",
                "COMFY_TIMEOUT_MS": "5 min",
                "QUEUE_CONCURRENCY": "2",
                "LOG_LEVEL": "loud",
                "SEED_MODE": "dice",
                "PREVIEWS": "some",
                "SHUTDOWN_GRACE_MS": "-1",
                "DISCORD_CLIENT_ID": "me",
                "DISCORD_GUILD_ID": "1 2",
                "DEFAULT_NEGATIVE_PROMPT": "x" * 4001,
                "MAX_WAITING_PER_PERSON": "many",
                "MAX_STEPS": "151",
                "ALLOWED_ROLE_IDS": "@artists",
                "ALERT_USER_ID": "me",
                "KEEP_METADATA": "yes",
            }
        )
    named = [problem.split()[0] for problem in caught.value.problems]
    assert sorted(named) == [
        "ALERT_USER_ID",
        "ALLOWED_CHANNEL_IDS",
        "ALLOWED_ROLE_IDS",
        "COMFY_BASE_URL",
        "COMFY_TIMEOUT_MS",
        "DEFAULT_NEGATIVE_PROMPT",
        "DISCORD_CLIENT_ID",
        "DISCORD_GUILD_ID",
        "DISCORD_TOKEN",
        "KEEP_METADATA",
        "LOG_LEVEL",
        "MAX_STEPS",
        "MAX_WAITING_PER_PERSON",
        "PREVIEWS",
        "QUEUE_CONCURRENCY",
        "SEED_MODE",
        "SHUTDOWN_GRACE_MS",
    ]
    assert all("\n" not in problem for problem in caught.value.problems)


@pytest.mark.parametrize("name", ["DISCORD_TOKEN", "ALLOWED_CHANNEL_IDS"])
def test_a_required_value_may_not_be_empty(name: str) -> None:
    (problem,) = problems_of(**{name: "  "})
    assert problem.startswith(f"{name} is missing")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ALLOWED_CHANNEL_IDS", "１２３"),  # noqa: RUF001
        ("ALLOWED_CHANNEL_IDS", ","),
        ("COMFY_BASE_URL", "ftp://host"),
        ("COMFY_BASE_URL", "http://"),
        ("COMFY_BASE_URL", "http://host:99999"),
        ("COMFY_BASE_URL", "http://host/?token=1"),
        ("COMFY_TIMEOUT_MS", "0"),
        ("COMFY_TIMEOUT_MS", "1_000"),
        ("COMFY_TIMEOUT_MS", "1e3"),
        ("DISCORD_TOKEN", "Bot abc.def.ghi"),
        ("MAX_STEPS", "0"),
        ("MAX_STEPS", "2.5"),
        ("MAX_WAITING_PER_PERSON", "-1"),
        ("MAX_WAITING_PER_PERSON", "1001"),
        ("ALERT_USER_ID", "1, 2"),
        ("WORKFLOW_PATH", "/home/anna/base.json"),
        ("WORKFLOW_PATH", "workflows/base.json"),
        ("WORKFLOW_PATH", "workflows/x/../base.json"),
    ],
)
def test_a_wrong_value_is_named(name: str, value: str) -> None:
    (problem,) = problems_of(**{name: value})
    assert problem.startswith(name)


@pytest.mark.parametrize("path", ["/srv/my/workflows/flux/my.json", "workflows/x/../y/base.json"])
def test_a_workflow_may_be_in_any_folder_of_workflows(path: str) -> None:
    assert load_settings({**GOOD, "WORKFLOW_PATH": path}).workflow_path == HERE / path


@pytest.mark.parametrize(
    ("token", "said"),
    [
        ("123456789012345678", "the id of an application, a person or a server"),
        ("0123456789abcdef" * 4, "public key"),
        ("aBcDeFgHiJkLmNoPqRsTuVwXyZ_01234", "client secret"),
        ("Bot abc.def.ghi", "paste the token alone"),
        ("password", "two dots"),
    ],
)
def test_what_cannot_be_a_token_is_called_what_it_is(token: str, said: str) -> None:
    (problem,) = problems_of(DISCORD_TOKEN=token)
    assert problem.startswith("DISCORD_TOKEN")
    assert said in problem
    assert token not in problem


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ("123 # mine", "123"),
        ("# none", ""),
        ("a#b", "a#b"),
        ("1,2\t# both # of them", "1,2"),
        ('"123"', "123"),
        ("'fog # and rain' # mine", "fog # and rain"),
        ("it's, or 'it' isn't", "it's, or 'it' isn't"),
    ],
)
def test_comments_and_quotes_around_a_value_mean_the_same_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, read: str
) -> None:
    assert plain_value(value) == read
    (tmp_path / ".env").write_text(f"DEFAULT_NEGATIVE_PROMPT={value}\nDB_PATH={value}\n", "utf-8")
    monkeypatch.delenv("DEFAULT_NEGATIVE_PROMPT", raising=False)
    monkeypatch.setenv("DB_PATH", value)
    environment = read_environment(tmp_path)
    assert environment["DEFAULT_NEGATIVE_PROMPT"] == environment["DB_PATH"] == read


MISSING = ["DISCORD_TOKEN is missing: copy it"]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("nothing", "", "which does not exist: --setup makes it (README.md, section 2)"),
        (".env.txt", "DISCORD_TOKEN=a.b.c", "which does not exist; rename .env.txt to .env"),
        (".env", "", "gives a value to nothing"),
        (".env", "DISCORD_TOKEN: a.b.c", "value to nothing: a line is NAME=value"),
        (".env", "DISCORD_TOKEN=\nLOG_LEVEL=info", "gives a value to LOG_LEVEL"),
        (".env", "DISCORD_BOT_TOKEN=x", "setting of the bot: did you mean DISCORD_TOKEN?"),
    ],
)
def test_a_missing_setting_is_told_with_the_file_and_what_is_in_it(
    tmp_path: Path, name: str, text: str, said: str
) -> None:
    (tmp_path / name).write_text(text, "utf-8")
    told = "\n".join(about_file(MISSING, tmp_path))
    assert f"looked for in {tmp_path / '.env'}" in told
    assert said in told


def test_a_name_that_is_no_setting_is_told_when_all_else_is_fine_and_no_value_ever(
    tmp_path: Path,
) -> None:
    (tmp_path / ".env").write_text(f"PREVIEW=off\nMALLOC_ARENA=x\n{TOKEN}\n", "utf-8")
    preview, other = about_file([], tmp_path)
    assert preview == "PREVIEW in .env is no setting of the bot: did you mean PREVIEWS?"
    assert other == "MALLOC_ARENA in .env is no setting of the bot"


@pytest.mark.parametrize(
    ("name", "level"),
    [
        ("trace", logging.DEBUG),
        ("DEBUG", logging.DEBUG),
        ("Info", logging.INFO),
        ("warn", logging.WARNING),
        ("WARNING", logging.WARNING),
        ("error", logging.ERROR),
        ("fatal", logging.CRITICAL),
        ("CRITICAL", logging.CRITICAL),
    ],
)
def test_log_levels_have_pythons_names_and_pinos(name: str, level: int) -> None:
    assert load_settings({**GOOD, "LOG_LEVEL": name}).log_level == level


@pytest.mark.parametrize(("text", "are_on"), [("on", True), ("OFF", False), ("", True)])
def test_previews_can_be_turned_off(text: str, are_on: bool) -> None:
    assert load_settings({**GOOD, "PREVIEWS": text}).previews is are_on


def test_the_rules_of_a_server_are_read() -> None:
    rules = {
        "MAX_WAITING_PER_PERSON": "0",
        "MAX_STEPS": "1",
        "ALLOWED_ROLE_IDS": "7, 8 9",
        "ALERT_USER_ID": "80351110224678912",
        "KEEP_METADATA": "Off",
    }
    settings = load_settings({**GOOD, **rules})
    assert (settings.max_waiting, settings.max_steps) == (0, 1)
    assert settings.role_ids == {7, 8, 9}
    assert settings.alert_user_id == 80351110224678912
    assert not settings.keep_metadata


@pytest.mark.parametrize("url", ["http://gpu:8188/", "https://h/comfy", "http://[::1]:8188"])
def test_a_base_url_may_have_a_slash_a_prefix_https_or_ipv6(url: str) -> None:
    assert load_settings({**GOOD, "COMFY_BASE_URL": url}).servers[0].base_url == url


def test_the_environment_wins_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "\ufeffDISCORD_TOKEN=a.b.c\nALLOWED_CHANNEL_IDS=1\nDEFAULT_NEGATIVE_PROMPT='a, ${B}'"
    (tmp_path / ".env").write_text(text, "utf-8")
    monkeypatch.setenv("ALLOWED_CHANNEL_IDS", "2")
    monkeypatch.delenv("DISCORD_TOKEN", raising=False)
    settings = load_settings(read_environment(tmp_path))
    assert settings.token == "a.b.c"
    assert settings.channel_ids == {2}
    assert settings.default_negative_prompt == "a, ${B}"


def test_a_file_that_is_not_text_is_one_clear_problem(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes("DISCORD_TOKEN=x".encode("utf-16"))
    with pytest.raises(ConfigError) as caught:
        read_environment(tmp_path)
    assert "UTF-8" in caught.value.problems[0]


def test_the_example_file_names_every_variable_and_holds_the_defaults() -> None:
    lines = (REPOSITORY / ".env.example").read_text("utf-8").splitlines()
    values = dict(line.split("=", 1) for line in lines if "=" in line and line[0] != "#")
    assert values.keys() >= SETTINGS
    assert set(NAMES) == SETTINGS
    source = (REPOSITORY / "settings.py").read_text("utf-8")
    assert all(f'"{name}"' in source for name in values)
    assert load_settings({**values, **GOOD}) == load_settings(GOOD)


def test_what_discord_did_not_take_of_autocomplete_is_a_line_and_an_own_error_a_traceback() -> None:
    late: Any = Exception("404 Not Found")
    late.status = 404
    for error, has_traceback in ((late, False), (ZeroDivisionError("own"), True)):
        said = "Ignoring exception in autocomplete for %r"
        information = (type(error), error, None)
        record = logging.LogRecord("discord", 40, "", 0, said, ("gen",), information)
        assert OneLineFilter().filter(record)
        assert (record.exc_info is not None) == has_traceback
        assert record.getMessage().startswith("Ignoring exception in autocomplete for 'gen'")
        assert ("404 Not Found" in record.getMessage()) != has_traceback


def test_the_token_reaches_no_record_in_any_form(capsys: pytest.CaptureFixture[str]) -> None:
    handler = logging.StreamHandler()
    handler.addFilter(RedactingFilter("my-own-secret"))
    logger = logging.getLogger("discord.http.test")
    logger.propagate = False
    logger.addHandler(handler)
    logger.warning("with %s and %r", "my-own-secret", {"token": TOKEN})
    logger.warning("POST /webhooks/123456/aW50ZXJhY3Rpb246abc/messages")
    logger.warning("wrong arguments my-own-secret %s %s", TOKEN)
    logger.warning("http://me:hunter2@comfy:8188 and https://discord.com/api", stack_info=True)
    logger.warning("http://hunter2@comfy http://:hunter2@comfy http://me:a@hunter2@comfy")
    try:
        raise ValueError(f"Authorization: Bot my-own-secret {TOKEN}")
    except ValueError:
        logger.exception("failed")
    logger.removeHandler(handler)
    shown = capsys.readouterr().err
    assert "my-own-secret" not in shown
    assert TOKEN not in shown
    assert "aW50ZXJhY3Rpb246abc" not in shown
    assert "hunter2" not in shown
    assert "https://discord.com/api" in shown
    assert "ValueError" in shown


def several(**values: str) -> Settings:
    """Return the settings of an owner with more servers."""
    return load_settings({**GOOD, **values})


def test_further_servers_have_addresses_and_headers_of_their_own_and_may_leave_gaps() -> None:
    found = several(
        COMFY_API_KEY="comfyui-key",
        COMFY_BASE_URL_3="http://gpu3:8188",
        COMFY_HEADERS_3="Authorization: Bearer of-gpu-3",
    )
    first, third = found.servers
    assert (first.number, third.number, third.base_url) == (1, 3, "http://gpu3:8188")
    assert (third.api_key, dict(first.headers)) == ("comfyui-key", {})
    assert "Bearer of-gpu-3" in found.secrets


def test_a_servers_key_outlives_another_order_and_another_secret() -> None:
    one = several(COMFY_BASE_URL="http://a:1", COMFY_BASE_URL_2="http://b:1/").servers
    two = several(
        COMFY_BASE_URL="http://b:1", COMFY_BASE_URL_2="http://a:1", COMFY_HEADERS_2="Key: new"
    ).servers
    assert [server.key for server in one] == [server.key for server in reversed(two)]


def test_backends_of_one_swarmui_are_two_servers_and_the_same_one_twice_is_refused() -> None:
    at = dict.fromkeys(("COMFY_BASE_URL", "COMFY_BASE_URL_2"), "http://a:7801/ComfyBackendDirect")
    backends = {
        "COMFY_HEADERS": "X-Swarm-Backend-ID: 0",
        "COMFY_HEADERS_2": "x-swarm-backend-id: 1",
    }
    assert [server.backend for server in several(**at, **backends).servers] == ["0", "1"]
    with pytest.raises(ConfigError, match="COMFY_BASE_URL_2 is an address that another one has"):
        several(**at)


def test_headers_without_an_address_are_refused() -> None:
    with pytest.raises(ConfigError, match="COMFY_HEADERS_2 is set without COMFY_BASE_URL_2"):
        several(COMFY_HEADERS_2="Key: value")
