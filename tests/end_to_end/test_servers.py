"""Two ComfyUIs on one queue: each job is made once, wherever, and one of the two may go."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import pytest

from job import JobParams
from settings import Server
from store import Store
from tests.end_to_end.common import pause, press_generate, results, run, until
from tests.end_to_end.test_images import ship
from tests.end_to_end.test_recovery import POINTS_INSIDE, POINTS_OUTSIDE, Arrange, name_of
from tests.harness.bot import Bot
from tests.harness.house import House
from tests.harness.labels import CANCEL
from tests.harness.steps import ask_for, text_of
from tests.standins.comfyui.pictures import draw_png
from tests.standins.comfyui.server import ComfyUIStandIn
from tests.standins.discord.people import Person
from tests.standins.swarmui import SwarmUIStandIn


@pytest.fixture
def second() -> Iterator[ComfyUIStandIn]:
    with ComfyUIStandIn() as server:
        yield server


def start_with(house: House, second: ComfyUIStandIn, **changes: str) -> Bot:
    """A bot that has both servers."""
    return house.start(COMFY_BASE_URL_2=second.url, **changes)


def ask(house: House, count: int) -> list[Person]:
    """So many people, each with a job; in this order."""
    people = [house.discord.person(f"p{number}") for number in range(count)]
    for person in people:
        ask_for(person, house.channel, f"for {person.name}")
    return people


def a_job(house: House) -> JobParams:
    """What a workflow that works on a picture needs."""
    return JobParams(
        user_id=str(house.discord.person().id),
        guild_id=str(house.discord.guild.id),
        channel_id=str(house.channel.id),
        model="",
        sampler="",
        scheduler="",
        steps=0,
        cfg=0.0,
        positive_prompt="",
    )


def prompts(server: ComfyUIStandIn) -> list[str]:
    """For whom a server was given prompts, in their order."""
    return [re.findall(r"for (p\d+)", json.dumps(graph))[0] for _, graph in server.posted]


def expect_one_each(house: House, people: list[Person]) -> None:
    house.settle(60)
    assert [len(results(house, person)) for person in people] == [1] * len(people)
    rows = house.installation.rows("SELECT DISTINCT status, on_server FROM jobs")
    assert rows == [("completed", 0)]


def test_two_servers_share_the_queue_in_its_order(house: House, second: ComfyUIStandIn) -> None:
    house.comfyui.hold()
    second.hold()
    start_with(house, second)
    people = ask(house, 6)
    house.comfyui.wait_for(lambda c: len(c.posted) == 1 and len(second.posted) == 1)
    assert sorted(prompts(house.comfyui) + prompts(second)) == ["p0", "p1"]
    second.release()
    second.wait_for(lambda c: len(c.finished) == 5)
    own = [name for name in prompts(second) if name not in ("p0", "p1")]
    assert own == ["p2", "p3", "p4", "p5"]
    house.comfyui.release()
    expect_one_each(house, people)
    assert len(house.comfyui.posted) == 1


def test_the_queue_shows_what_runs_on_each_and_cancel_reaches_the_right_one(
    house: House, second: ComfyUIStandIn
) -> None:
    house.comfyui.hold()
    second.hold()
    start_with(house, second)
    person = house.discord.person()
    messages = [ask_for(person, house.channel, f"for p{number}") for number in range(2)]
    second.wait_for(lambda c: bool(c.held and house.comfyui.held))
    shown = person.slash("queue", house.channel).wait()
    text = text_of(shown.wait_message(lambda m: "now (1)" in text_of(m)))
    assert "now (2)" in text
    on_second = int(prompts(second)[0][1:])
    held = second.held
    person.press(messages[on_second], CANCEL).wait()
    second.wait_for(lambda c: c.interrupted == [held])
    assert house.comfyui.interrupted == []
    house.comfyui.release()
    second.release()
    house.settle()


def test_a_server_that_goes_away_with_a_job_loses_it_to_the_other_and_its_result_is_not_posted(
    house: House, second: ComfyUIStandIn
) -> None:
    second.hold()
    house.comfyui.hold()
    bot = start_with(house, second)
    people = ask(house, 12)
    second.wait_for(lambda c: bool(c.held and house.comfyui.held))
    left = second.held
    second.go_down()
    house.comfyui.release()
    expect_one_each(house, people)
    bot.wait_for_line("goes to another server")
    assert len(prompts(house.comfyui)) == 12
    second.come_up()
    second.wait_for(lambda c: c.interrupted == [left], 60)
    until(lambda: house.installation.rows("SELECT count(*) FROM left_prompts") == [(0,)])
    second.release()
    assert [len(results(house, person)) for person in people] == [1] * 12


def test_a_restart_takes_up_each_job_where_it_is_though_env_is_reordered(
    house: House, second: ComfyUIStandIn
) -> None:
    house.comfyui.hold()
    second.hold()
    bot = start_with(house, second)
    people = ask(house, 3)
    second.wait_for(lambda c: bool(c.held and house.comfyui.held))
    bot.kill()
    house.start(COMFY_BASE_URL=second.url, COMFY_BASE_URL_5=house.comfyui.url)
    house.comfyui.release()
    second.release()
    expect_one_each(house, people)
    assert len(house.comfyui.posted) + len(second.posted) == 3


def test_a_running_job_of_a_server_that_env_has_no_more_is_made_elsewhere(
    house: House, second: ComfyUIStandIn
) -> None:
    house.comfyui.hold()
    second.hold()
    bot = start_with(house, second)
    people = ask(house, 2)
    second.wait_for(lambda c: bool(c.held and house.comfyui.held))
    bot.kill()
    house.comfyui.release()
    with ComfyUIStandIn() as third:
        house.start(COMFY_BASE_URL_2=third.url)
        expect_one_each(house, people)


def test_a_server_that_is_removed_with_a_running_job_and_back_later_is_freed_of_it(
    house: House, second: ComfyUIStandIn
) -> None:
    house.comfyui.hold()
    second.hold()
    bot = start_with(house, second)
    people = ask(house, 2)
    second.wait_for(lambda c: bool(c.held and house.comfyui.held))
    left = second.held
    bot.kill()
    bot = house.start(COMFY_BASE_URL_2="")
    house.comfyui.release()
    expect_one_each(house, people)
    keys = house.installation.rows("SELECT DISTINCT server FROM jobs")
    assert keys == [(Server(house.comfyui.url).key,)]  # where their pictures are
    pause(2)  # longer than a sweeper goes on looking for what is not there
    bot.kill()
    start_with(house, second)
    second.wait_for(lambda c: c.interrupted == [left])
    second.release()
    until(lambda: house.installation.rows("SELECT count(*) FROM left_prompts") == [(0,)])
    assert [len(results(house, person)) for person in people] == [1, 1]


def test_a_picture_of_a_server_that_is_removed_is_not_taken_for_one_of_the_server_that_is_left(
    house: House, second: ComfyUIStandIn
) -> None:
    first, person = house.discord.person("first"), house.discord.person()
    bot = house.start()
    press_generate(house, first)
    house.discord.wait_for(lambda _: bool(results(house, first)))
    house.settle()
    bot.kill()
    house.installation.configure({**house.settings, "COMFY_BASE_URL": second.url})
    bot = house.run(environment={"KILL_AT": "after:Store.complete"})
    press_generate(house, person)
    assert bot.wait() == -signal.SIGKILL
    house.start()
    house.settle()
    assert results(house, person) == []  # a file of that name is somebody else's picture
    assert house.discord.attachment_bytes(results(house, first)[0]["attachments"][0])


def test_a_job_whose_picture_one_server_does_not_take_is_not_tried_again_and_again_at_once(
    house: House, second: ComfyUIStandIn
) -> None:
    ship(house, "upscale")
    house.comfyui.hold()
    second.fault("POST /upload/image", "502", None)
    house.installation.configure({**house.settings, "COMFY_BASE_URL_2": second.url})
    with closing(Store(house.installation.database)) as store:
        image = store.keep_picture(draw_png(b"a photo", (64, 48), {}, 0))
        for _ in range(2):
            store.insert(replace(a_job(house), workflow="upscale", image=image))
    house.run()
    house.comfyui.wait_for(lambda c: bool(c.held))
    pause(3)
    uploads = [r for r in second.requests if r.path.endswith("/upload/image")]
    moves = house.installation.rows("SELECT count(*) FROM left_prompts")
    assert len(uploads) < 30
    assert moves[0][0] < 5
    house.comfyui.release()
    house.settle()


def test_a_server_that_fails_everything_is_left_alone_and_the_owner_hears_which(
    house: House, second: ComfyUIStandIn
) -> None:
    owner = house.discord.person("owner")
    second.error_state = ("RuntimeError", "CUDA error: unspecified launch failure")
    house.comfyui.hold()
    start_with(house, second, ALERT_USER_ID=str(owner.id))
    people = ask(house, 8)
    sent = house.discord.wait_for_message(owner, lambda m: "has failed" in m["content"])
    assert f"ComfyUI 2 (127.0.0.1:{second.port})" in sent["content"]
    assert "the other servers go on" in sent["content"]
    house.comfyui.release()
    house.settle(60)
    rows = house.installation.rows("SELECT status, count(*) FROM jobs GROUP BY status")
    assert dict(rows) == {"completed": 5, "failed": 3}
    assert sum(len(results(house, person)) for person in people) == 5


def test_what_only_one_has_is_not_offered_and_check_says_so(
    house: House, second: ComfyUIStandIn
) -> None:
    second.models = [*second.models, "only-there.safetensors"]
    checked = run(house, "--check", COMFY_BASE_URL_2=second.url)
    assert "only on ComfyUI 2, so not offered: only-there.safetensors" in checked.output
    assert f"ComfyUI 2      {second.url}" in checked.output
    start_with(house, second)
    person = house.discord.person()
    assert person.autocomplete("gen", house.channel, "model", "only-there") == []


def test_a_start_needs_one_server_that_answers(house: House, second: ComfyUIStandIn) -> None:
    house.comfyui.go_down()
    start_with(house, second)
    person = house.discord.person()
    press_generate(house, person)
    house.discord.wait_for(lambda _: len(results(house, person)) == 1)


def test_once_takes_the_first_that_answers_or_the_one_it_is_told(
    house: House, second: ComfyUIStandIn
) -> None:
    out = str(house.installation.folder / "out")
    model = house.comfyui.models[0]
    where = {"COMFY_BASE_URL_2": second.url}
    run(house, "--once", "for p1", "--model", model, "--server", "2", "--out", out, **where)
    assert (len(house.comfyui.posted), len(second.posted)) == (0, 1)
    house.comfyui.go_down()
    run(house, "--once", "for p2", "--model", model, "--out", out, **where)
    assert len(second.posted) == 2
    wrong = run(house, "--once", "for p3", "--server", "3", "--out", out, **where)
    assert "There are: 1, 2." in wrong.output


@pytest.mark.parametrize("point", ["after:Store.start", "after:Store.put_back"])
def test_a_kill_while_a_job_changes_its_server_loses_and_doubles_nothing(
    house: House, second: ComfyUIStandIn, point: str
) -> None:
    second.hold()
    house.comfyui.hold()
    house.installation.configure({**house.settings, "COMFY_BASE_URL_2": second.url})
    bot = house.run()
    people = ask(house, 2)
    second.wait_for(lambda c: bool(c.held and house.comfyui.held))
    bot.kill()
    second.go_down()
    bot = house.run(ready=False, environment={"KILL_AT": point})
    house.comfyui.release()
    assert bot.wait(30) == -signal.SIGKILL
    house.run()
    expect_one_each(house, people)


def test_two_backends_of_a_swarmui_are_two_servers(house: House, second: ComfyUIStandIn) -> None:
    house.comfyui.hold()
    second.hold()
    with SwarmUIStandIn(house.comfyui, second) as swarm:
        house.start(
            COMFY_BASE_URL=swarm.url,
            COMFY_HEADERS="X-Swarm-Backend-ID: 0",
            COMFY_BASE_URL_2=swarm.url,
            COMFY_HEADERS_2="X-Swarm-Backend-ID: 1",
        )
        house.comfyui.wait_for(lambda c: bool(c.listeners and second.listeners))
        people = ask(house, 4)
        second.wait_for(lambda c: bool(c.held and house.comfyui.held))
        second.release()
        house.comfyui.release()
        expect_one_each(house, people)


def test_a_swarmui_without_a_backend_loses_the_picture_and_the_log_says_what_to_set(
    house: House, second: ComfyUIStandIn
) -> None:
    house.comfyui.hold()
    house.comfyui.submit_foreign()
    house.comfyui.wait_for(lambda c: bool(c.held))
    with SwarmUIStandIn(house.comfyui, second) as swarm:
        bot = house.start(COMFY_BASE_URL=swarm.url)
        person = house.discord.person()
        press_generate(house, person)
        house.discord.wait_for_message(
            house.channel, lambda m: "The image server lost this picture" in text_of(m)
        )
        bot.wait_for_line("set COMFY_HEADERS=X-Swarm-Backend-ID: 0")
        assert len(second.posted) == 1
        house.settle()


@pytest.mark.parametrize("point", [*POINTS_OUTSIDE, *POINTS_INSIDE], ids=name_of)
def test_a_job_killed_anywhere_arrives_exactly_once_with_two_servers(
    house: House, second: ComfyUIStandIn, point: Arrange | str
) -> None:
    person = house.discord.person()
    if isinstance(point, str):
        house.installation.configure({**house.settings, "COMFY_BASE_URL_2": second.url})
        bot = house.run(environment={"KILL_AT": point})
    else:
        bot = start_with(house, second)
        point(house, bot.process.kill)
        if "post" not in name_of(point):
            point(cast(House, SimpleNamespace(comfyui=second)), bot.process.kill)
    press_generate(house, person)
    assert bot.wait() == -signal.SIGKILL
    house.comfyui.release()
    second.release()
    house.run()
    house.discord.wait_for(lambda _: bool(results(house, person)))
    expect_one_each(house, [person])
    assert len(house.comfyui.posted) + len(second.posted) == 1
    assert len(house.channel.messages) == 1


def test_both_servers_away_hold_the_queue_and_the_first_that_is_back_goes_on(
    house: House, second: ComfyUIStandIn
) -> None:
    house.comfyui.hold()
    second.hold()
    bot = start_with(house, second)
    people = ask(house, 4)
    second.wait_for(lambda c: bool(c.held and house.comfyui.held))
    second.go_down()
    house.comfyui.go_down()
    bot.wait_for_line("ComfyUI does not answer")
    house.comfyui.restart()
    house.comfyui.release()
    expect_one_each(house, people)
    assert sorted(set(prompts(house.comfyui))) == ["p0", "p1", "p2", "p3"]


def test_a_stop_lets_the_jobs_of_all_servers_end(house: House, second: ComfyUIStandIn) -> None:
    house.comfyui.hold()
    second.hold()
    bot = start_with(house, second)
    people = ask(house, 2)
    second.wait_for(lambda c: bool(c.held and house.comfyui.held))
    bot.signal(signal.SIGTERM)
    bot.wait_for_line("shutting down")
    house.comfyui.release()
    second.release()
    assert bot.wait() == 0
    assert [len(results(house, person)) for person in people] == [1, 1]
