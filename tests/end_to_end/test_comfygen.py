"""The bot as such: its start and end, the commands and where they work, the buttons (M1, M10)."""

from __future__ import annotations

import signal
import sqlite3
import threading
from typing import Any

import pytest

from tests.end_to_end.common import jobs_of, result_of, seconds_to_stop
from tests.harness.house import House
from tests.harness.labels import AGAIN, DELETE, EDIT, GENERATE, KEEP
from tests.harness.steps import (
    ask_for,
    ask_to_delete,
    fields,
    fill_in,
    generate,
    labels,
    open_form,
    queued,
    text_of,
)
from tests.standins.discord.schema import EPHEMERAL, MEMBER_PERMISSIONS, USE_APPLICATION_COMMANDS

OTHERS = "Cancel a job of somebody else"
POOL_THREADS = 4  # of the bot, for what blocks
MANAGE_GUILD = 1 << 5


def test_help_explains_itself_without_a_configuration(house: House) -> None:
    bot = house.run(ready=False, arguments=("--help",))
    assert bot.wait() == 0
    assert "README" in bot.output


def test_commands_go_to_one_server_when_it_is_given_and_everywhere_otherwise(house: House) -> None:
    names = {"gen", "queue", "mine", "refresh", "blocked", "Use this picture"}
    guild = house.discord.guild.id
    house.start(DISCORD_GUILD_ID=str(guild)).stop()
    assert {command["name"] for command in house.discord.commands[guild]} == names
    assert not house.discord.commands.get(None)
    house.start()
    assert {command["name"] for command in house.discord.commands[None]} == names


def test_the_token_is_in_no_line_even_at_the_finest_level(house: House) -> None:
    bot = house.start(LOG_LEVEL="trace")
    ask_for(house.discord.person(), house.channel, "a fox")
    house.discord.wait_for_message(house.channel, lambda m: bool(m["attachments"]))
    bot.stop()
    assert house.discord.token not in bot.output
    assert "IHDR" not in bot.output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_current_job_finish_and_keeps_the_others(
    house: House, number: signal.Signals
) -> None:
    house.comfyui.hold()
    bot = house.start()
    first, second = house.discord.person("first"), house.discord.person("second")
    ask_for(first, house.channel, "in work")
    house.comfyui.wait_for(lambda c: len(c.posted) == 1)
    ask_for(second, house.channel, "waiting")
    bot.signal(number)
    bot.wait_for_line("shutting down")
    late = house.discord.person().slash("gen", house.channel).wait()
    assert "restarting" in late.texts[0]
    house.comfyui.release()
    assert bot.wait() == 0
    (message,) = house.channel.messages
    assert message["content"] == f"<@{first.id}>"
    assert message["attachments"]
    house.start()
    message = house.discord.wait_for_message(
        house.channel, lambda m: m["content"] == f"<@{second.id}>"
    )
    assert message["attachments"]


def test_a_second_signal_ends_at_once_and_the_job_is_taken_up_later(house: House) -> None:
    house.comfyui.hold()
    bot = house.start()
    ask_for(house.discord.person(), house.channel, "in work")
    house.comfyui.wait_for(lambda c: len(c.posted) == 1)
    bot.signal(signal.SIGINT)
    bot.wait_for_line("shutting down")
    bot.signal(signal.SIGINT)
    assert bot.wait() == 130
    house.comfyui.release()
    house.start()
    house.discord.wait_for_message(house.channel, lambda m: bool(m["attachments"]))
    assert len(house.comfyui.posted) == 1


def test_the_grace_bounds_the_shutdown(house: House) -> None:
    house.comfyui.hold()
    bot = house.start(SHUTDOWN_GRACE_MS="200")
    ask_for(house.discord.person(), house.channel, "in work")
    house.comfyui.wait_for(lambda c: len(c.posted) == 1)
    assert bot.stop() == 0
    assert "taken up at the next start" in bot.output


def test_clicks_are_answered_while_a_job_runs(shared: House) -> None:
    shared.comfyui.hold()
    ask_for(shared.discord.person(), shared.channel, "in work")
    shared.comfyui.wait_for(lambda c: bool(c.held))
    barrier = threading.Barrier(5)
    answered: list[float | None] = []

    def one_person() -> None:
        barrier.wait(20)
        answered.append(open_form(shared.discord.person(), shared.channel).acknowledged_after)

    threads = [threading.Thread(target=one_person) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(answered) == 5
    assert all(seconds is not None and seconds < 3 for seconds in answered)


def test_a_signal_during_the_login_ends_it_without_a_traceback(house: House) -> None:
    house.discord.fault("GET", "/users/@me", "hang")
    bot = house.start(ready=False)
    house.discord.wait_for(lambda d: any("/users/@me" in r.path for r in d.requests))
    bot.signal(signal.SIGTERM)
    assert bot.wait() == 0


def test_a_comfyui_that_hangs_does_not_hold_the_shutdown_up(house: House) -> None:
    bot = house.start()
    ask_for(house.discord.person(), house.channel, "a fox")
    house.discord.wait_for_message(house.channel, lambda m: bool(m["attachments"]))
    house.settle()
    house.comfyui.fault("*", "hang", None)
    before = len(house.comfyui.requests)
    owner = house.discord.person("owner", permissions=MEMBER_PERMISSIONS | MANAGE_GUILD)
    for _ in range(POOL_THREADS):
        owner.slash("refresh", house.channel).wait()
    house.comfyui.wait_for(  # one reads, the others wait for it
        lambda c: any(request.matches("GET /object_info") for request in c.requests[before:])
    )
    # The read time-out is 60 s; it takes some tenths of a second.
    assert seconds_to_stop(bot) < 10


def test_ctrl_c_during_the_checks_ends_without_a_traceback(house: House) -> None:
    house.comfyui.fault("GET /object_info", "hang", None)
    bot = house.start(ready=False)
    house.comfyui.wait_for(lambda c: any("object_info" in r.path for r in c.requests))
    bot.signal(signal.SIGINT)
    house.comfyui.clear_faults()
    assert bot.wait() == 130


@pytest.mark.parametrize(
    "arguments", [("--offline",), ("--steps", "5"), ("--check", "--once", "x")]
)
def test_arguments_that_make_no_sense_are_refused(house: House, arguments: tuple[str, ...]) -> None:
    bot = house.run(ready=False, arguments=arguments)
    assert bot.wait() == 2


def test_queue_shows_what_runs_who_waits_and_ones_own_jobs_with_cancel(shared: House) -> None:
    shared.comfyui.hold()
    first, second = shared.discord.person("first"), shared.discord.person("second")
    before = len(shared.comfyui.posted)
    ask_for(first, shared.channel, "in work")
    shared.comfyui.wait_for(lambda c: len(c.posted) == before + 1)
    for number in range(2):
        ask_for(second, shared.channel, f"waiting {number}")
    reply = second.slash("queue", shared.channel).wait()
    shown = reply.wait_message(lambda m: bool(m["embeds"]))
    assert shown["flags"] & 64
    text = text_of(shown)
    assert f"**now** <@{first.id}>" in text
    assert f"**1** <@{second.id}>" in text
    assert f"**2** <@{second.id}>" in text
    assert "waiting 0" in text
    assert "in work" not in text
    second.press(shown, "Cancel number 2").wait()
    shared.discord.wait_for(
        lambda _: (
            shared.installation.rows("SELECT status FROM jobs WHERE positive_prompt = 'waiting 1'")
            == [("cancelled",)]
        )
    )
    shown = reply.wait_message(lambda m: "Cancelled" in m["content"])
    assert "waiting 0" in text_of(shown)
    assert "waiting 1" not in text_of(shown)
    empty = shared.discord.person().slash("queue", shared.channel).wait()
    other = empty.wait_message(lambda m: bool(m["embeds"]))
    assert other["components"] == []


def test_a_moderator_cancels_anybodys_job_in_queue_and_the_person_is_told(shared: House) -> None:
    shared.comfyui.hold()
    first, second = shared.discord.person("Ada"), shared.discord.person("Lee")
    moderator = shared.discord.moderator()
    before = len(shared.comfyui.posted)
    ask_for(first, shared.channel, "in work")
    shared.comfyui.wait_for(lambda c: len(c.posted) == before + 1)
    ask_for(moderator, shared.channel, "my own")
    kept = second.slash("gen", shared.channel, prompt="nobody wants it").wait()
    kept = generate(second, kept)
    reply = moderator.slash("queue", shared.channel).wait()
    shown = reply.wait_message(lambda m: bool(m["embeds"]))
    assert labels(shown, OTHERS) == ["Running", "Number 2"]
    assert buttons(shown) == {"Cancel number 1": 4}
    assert shown["mentions"] == []
    moderator.select(shown, OTHERS, "Number 2").wait()
    told = result_of(shared, second)
    assert text_of(told).startswith(f"<@{second.id}>\nNo picture this time\nA moderator cancelled")
    assert [user["id"] for user in told["mentions"]] == [str(second.id)]
    assert "nobody wants it" not in text_of(told)
    assert list(buttons(told)) == ["Delete"]
    kept.wait_shown(
        lambda m: m["content"] == "Cancelled: see the channel. Your prompt was: nobody wants it"
    )
    anew = reply.wait_message(lambda m: m["content"] == "Cancelled.")
    assert labels(anew, OTHERS) == ["Running"]
    assert f"<@{second.id}>" not in text_of(anew)
    moderator.permissions = MEMBER_PERMISSIONS
    refused = moderator.select(anew, OTHERS, "Running").wait()
    refused.wait_message(lambda m: "Only the person" in m["content"])
    moderator.press(anew, "Cancel number 1").wait()
    anew = reply.wait_message(lambda m: not m["components"])
    shared.comfyui.release()
    assert result_of(shared, first)["attachments"]
    shared.settle()
    assert not [m for m in shared.channel.messages if f"<@{moderator.id}>" in m["content"]]


def test_again_is_anyones_and_has_the_same_settings_with_a_new_seed(shared: House) -> None:
    owner, other = shared.discord.person("owner"), shared.discord.person("other")
    ask_for(owner, shared.channel, "again please", steps="17", cfg="3.5", seed="42")
    first = result_of(shared, owner)
    other.press(first, AGAIN).wait().wait_shown(lambda m: "Queued!" in m["content"])
    second = result_of(shared, other)
    expected = {**fields(first), "Seed": fields(second)["Seed"]}
    assert fields(second) == expected
    assert fields(second)["Seed"] != "42"
    assert second["embeds"][0]["description"] == "again please"


def test_a_double_tap_on_again_makes_one_job_and_two_people_make_two(shared: House) -> None:
    owner, other = shared.discord.person("owner"), shared.discord.person("other")
    ask_for(owner, shared.channel, "again please")
    result = result_of(shared, owner)
    taps = [owner.press(result, AGAIN), owner.press(result, AGAIN)]
    others = other.press(result, AGAIN)
    for reply in (taps[0], others):
        reply.wait_shown(lambda m: "Queued!" in m["content"])
    taps[1].wait()
    shared.settle()
    assert (jobs_of(shared, owner), jobs_of(shared, other)) == (2, 1)
    assert taps[1].followups == []  # the first press has answered
    assert taps[1].message == result


def test_an_again_that_was_refused_can_be_pressed_again_at_once(shared: House) -> None:
    person = shared.discord.person()
    ask_for(person, shared.channel, "again please")
    result = result_of(shared, person)
    shared.settle()
    workflow = shared.installation.workflow
    text = workflow.read_text("utf-8")
    try:
        workflow.write_text('{"3": ', "utf-8")
        refused = person.press(result, AGAIN).wait()
        refused.wait_message(
            lambda m: (
                m["content"]
                == "The bot's workflow cannot be used right now. Please tell the bot's owner, who"
                " finds the reason in the log. Nothing was queued."
            )
        )
        shared.bots[-1].wait_for_line("cannot be used: ")
        boss = shared.discord.manager().slash("refresh", shared.channel).wait()
        boss.wait_message(
            lambda m: (
                m["content"]
                == "The workflow cannot be used right now. Please tell the bot's owner, who finds"
                " the reason in the log."
            )
        )
        shared.bots[-1].wait_for_line("JSON")
    finally:
        workflow.write_text(text, "utf-8")
    person.press(result, AGAIN).wait().wait_shown(lambda m: "Queued!" in m["content"])


def test_edit_opens_the_form_filled_from_that_job(shared: House) -> None:
    owner, other = shared.discord.person("owner"), shared.discord.person("other")
    ask_for(owner, shared.channel, "edit me", steps="17", cfg="3.5", negative_prompt="fog")
    form = other.press(result_of(shared, owner), EDIT)
    form.wait_message(lambda message: bool(message["embeds"]))
    assert form.message is not None
    assert form.message["flags"] & 64
    shown = fields(form.message)
    assert (shown["Steps"], shown["CFG"], shown["Prompt"]) == ("17", "3.5", "edit me")
    assert shown["Negative prompt"] == "fog"
    fill_in(other, form, positive_prompt="edited")
    queued(other, form)
    assert result_of(shared, other)["embeds"][0]["description"] == "edited"


def test_delete_asks_once_for_the_person_alone_and_keep_keeps_the_picture(shared: House) -> None:
    owner = shared.discord.person("owner")
    ask_for(owner, shared.channel, "delete me")
    result = result_of(shared, owner)
    shared.settle()
    question = ask_to_delete(owner, result)
    assert question["content"] == "Delete this picture for everybody?"
    assert question["flags"] & EPHEMERAL
    assert buttons(question) == {DELETE: 4, KEEP: 2}  # red and grey
    kept = owner.press(question, KEEP).wait()
    kept.wait_message(lambda m: "Nothing was deleted" in m["content"] and not m["components"])
    assert shared.channel.messages == [result]
    first, second = ask_to_delete(owner, result), ask_to_delete(owner, result)
    for question in (first, first, second):  # a double tap, and one too late
        answer = owner.press(question, DELETE)
    answer.wait_message(lambda m: m["content"] == "Deleted." and not m["components"])
    assert shared.channel.messages == []


def test_who_may_not_delete_any_more_when_the_question_is_answered_does_not(shared: House) -> None:
    owner, moderator = shared.discord.person("owner"), shared.discord.moderator()
    ask_for(owner, shared.channel, "stays")
    result = result_of(shared, owner)
    shared.settle()
    question = ask_to_delete(moderator, result)
    moderator.permissions = MEMBER_PERMISSIONS
    refused = moderator.press(question, DELETE).wait()
    refused.wait_message(lambda m: "Only the person" in m["content"])
    question = ask_to_delete(owner, result)
    shared.channel.bot_permissions = 0
    refused = owner.press(question, DELETE).wait()
    refused.wait_message(lambda m: "Discord does not let the bot delete it" in m["content"])
    assert shared.channel.messages == [result]


def buttons(message: dict[str, Any]) -> dict[str, int]:
    """The labels of a message's buttons, with their styles."""
    shown = [component for row in message["components"] for component in row["components"]]
    return {button["label"]: button["style"] for button in shown if button["type"] == 2}


def test_refresh_reads_the_lists_again_and_what_vanished_is_caught_at_generate(
    shared: House,
) -> None:
    person = shared.discord.person()
    gone = "Illustrious/waiIllustrious_v140.safetensors"
    form = person.slash("gen", shared.channel, prompt="a fox", model=gone).wait()
    assert form.message is not None
    models = list(shared.comfyui.models)
    with pytest.raises(AssertionError):  # a member is not even offered the command
        person.slash("refresh", shared.channel)
    owner = shared.discord.person("owner", permissions=person.permissions | MANAGE_GUILD)
    try:
        shared.comfyui.models = [model for model in models if model != gone]
        done = owner.slash("refresh", shared.channel).wait()
        done.wait_message(lambda m: "1 gone" in m["content"])
        answer = generate(person, form)
        answer.wait_message(lambda m: "not offered any more" in m["content"])
        assert any("The nearest" in text for text in answer.texts)
        # In the form, which goes on, with the fresh list.
        assert answer.message is not None
        assert answer.message["id"] == form.message["id"]
        assert fields(form.message)["Prompt"] == "a fox"
        assert "waiIllustrious_v140" not in labels(form.message, "Model")
    finally:
        shared.comfyui.models = models
        owner.slash("refresh", shared.channel).wait().wait_message(
            lambda m: "1 new" in m["content"]
        )
    queued(person, form)


def test_refresh_is_refused_to_members_whose_server_shows_them_the_command_all_the_same(
    shared: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = shared.discord.person()
    for commands in shared.discord.commands.values():
        for command in commands:
            if command["name"] == "refresh":  # as an admin does it, in the server's settings
                monkeypatch.setitem(command, "default_member_permissions", None)
    before = len(shared.comfyui.requests)
    answer = member.slash("refresh", shared.channel).wait()
    assert answer.texts == ["Only members with the Manage Server permission can do that."]
    assert answer.message is not None
    assert answer.message["flags"] & 64
    shared.settle()
    asked = [request.path for request in shared.comfyui.requests[before:]]
    assert not [path for path in asked if "object_info" in path]


def test_buttons_work_after_a_restart_and_say_so_when_the_job_is_gone(
    shared: House, tmp_path: Any
) -> None:
    person = shared.discord.person()
    ask_for(person, shared.channel, "before the restart")
    result = result_of(shared, person)
    shared.settle()
    question = ask_to_delete(person, result)
    shared.bots[-1].stop()
    shared.run()
    person.press(result, AGAIN).wait().wait_shown(lambda m: "Queued!" in m["content"])
    result_of(shared, person, 2)
    shared.settle()
    connection = sqlite3.connect(shared.installation.database)
    with connection:
        connection.execute("DELETE FROM jobs WHERE discord_user_id = ?", (str(person.id),))
    connection.close()
    gone = shared.discord.person().press(result, AGAIN).wait()
    gone.wait_message(lambda m: m["content"].endswith("Run /gen for a new one."))
    person.press(question, DELETE).wait().wait_message(lambda m: m["content"] == "Deleted.")
    assert result not in shared.channel.messages


def test_a_lost_answer_to_queued_does_not_make_a_person_press_again(shared: House) -> None:
    person = shared.discord.person()
    form = open_form(person, shared.channel)
    assert form.message is not None
    fill_in(person, form, positive_prompt="only once")
    shared.discord.fault("POST", r"/webhooks/\d+/[^/]+$", "reset", 2)
    reply = generate(person, form)
    form.wait_message(lambda message: not message["components"])
    assert not any("try again" in text for text in reply.texts)
    assert result_of(shared, person)["attachments"]


def test_another_channel_is_refused_and_the_right_one_named(shared: House) -> None:
    elsewhere = shared.discord.guild.add_channel("elsewhere")
    person = shared.discord.person()
    for command in ("gen", "queue"):
        reply = person.slash(command, elsewhere).wait()
        assert reply.message is not None
        assert reply.message["flags"] & EPHEMERAL
        assert reply.texts[0].startswith(f"/{command} is not available in this channel.")
        assert "<#" in reply.texts[0]
        assert not reply.message["components"]


def test_who_may_not_use_commands_in_a_channel_may_not_use_their_buttons_either(
    shared: House,
) -> None:
    owner, other = shared.discord.person("owner"), shared.discord.person("other")
    ask_for(owner, shared.channel, "a fox")
    result = result_of(shared, owner)
    form = open_form(other, shared.channel)
    fill_in(other, form, positive_prompt="another")
    assert form.message is not None
    other.deny(shared.channel, USE_APPLICATION_COMMANDS)
    for message, button in ((result, AGAIN), (result, EDIT), (form.message, GENERATE)):
        refused = other.press(message, button).wait()
        refused.wait_message(lambda m: "for those who may use commands" in m["content"])
    shared.settle()
    assert jobs_of(shared, other) == 0
    other.deny(shared.channel, 0)
    queued(other, form)  # nothing is lost


def test_a_direct_message_is_refused_politely(shared: House) -> None:
    for command in ("gen", "queue"):
        reply = shared.discord.person().slash(command, None).wait()
        assert reply.texts == [f"/{command} works in a server's channel, not in direct messages."]


def test_a_thread_of_an_allowed_channel_counts_as_that_channel(shared: House) -> None:
    thread = shared.discord.guild.add_thread(shared.channel, "foxes")
    person = shared.discord.person()
    ask_for(person, thread, "a fox in a thread")
    message = shared.discord.wait_for_message(thread, lambda m: bool(m["attachments"]))
    assert message["content"] == f"<@{person.id}>"
