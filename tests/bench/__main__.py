"""`python -m tests.bench`: what the bot costs, each figure held against a thing that does less.

Runs the unmodified bot between the two stand-ins, which live in this process, and prints a table.
The rules that an owner can set are all switched on, among them a full list of blocked
terms (where memory is judged: a long one).
Every result is a ratio or a difference of two measurements of one run, so it says the same on a
fast machine and on a slow one, as long as nothing else is busy there. In brackets: the lowest and
the highest of the repetitions, which is the noise. Discord's rate limits are off: one would see
little else. `--short` only makes sure that all of this works; it measures too little to judge by.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import random
import shutil
import sqlite3
import statistics
import sys
import tempfile
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from job import JobParams, JobStatus
from jobs.terms import MOST_TERMS, Matcher, parse_term
from store import Store
from tests.harness.bot import REPOSITORY, Bot, Installation, settings_for
from tests.harness.labels import AGAIN
from tests.harness.steps import Message, ask_for, open_form
from tests.standins.comfyui.server import ComfyUIStandIn
from tests.standins.discord.people import File, Person
from tests.standins.discord.server import DiscordStandIn

STEPS = 50  # of one job: the four passes of the shipped workflow
SHARED_JOBS = 12  # what two servers share
SMALL, LARGE = 10_000, 10_000_000  # bytes of a picture
PEOPLE = 50
PROMPT = "a red fox asleep in fresh snow, morning light, soft shadows, 35 mm, highly detailed"
TERMS = [f"unwanted word {number}" for number in range(MOST_TERMS)]  # blocked
A_LONG_LIST = 200  # of them, which few servers have
SECONDS = 120  # for anything to happen
STATUS = "/proc/{}/status"  # of a process; Linux has it


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    repetitions: int  # of everything that takes seconds
    jobs: int
    job_seconds: float
    large_pictures: int
    jobs_for_memory: int
    rows: int
    inserts: int


FULL = Plan(3, 20, 0.5, 10, 200, 1_000_000, 300)
SHORT = Plan(1, 5, 0.1, 3, 20, 20_000, 20)


@dataclass(frozen=True)
class Figure:
    """A line of the table: measurements of the bot and of what it is held against, and the limit
    of their ratio, their difference ("+"), or the bot's alone ("alone"). No limit: not judged."""

    name: str
    unit: str
    bot: Sequence[float]
    against: str
    other: Sequence[float]
    limit: float | None
    kind: str = "ratio"

    def row(self, judged: bool) -> tuple[str, ...]:
        """The cells of the line."""
        unit = "" if self.kind == "ratio" else f" {self.unit}"
        sign = "+" if self.kind == "+" else ""
        limit = "" if self.limit is None else f"≤ {sign}{self.limit:g}{unit}"
        if not self.bot:
            return self.name, "n/a", self.against, "n/a", limit, ""
        result, other = statistics.median(self.bot), statistics.median(self.other)
        if self.kind == "ratio":
            result /= other
        elif self.kind == "+":
            result -= other
        verdict = "missed" if self.limit is not None and result > self.limit else "ok"
        return (
            self.name,
            self._shown(self.bot),
            f"{self.against}: {self._shown(self.other)}",
            f"{result:{sign}.{1 if unit else 3}f}{unit}",
            limit,
            verdict if judged and limit else "",
        )

    def _shown(self, values: Sequence[float]) -> str:
        low, middle, high = (
            f"{value:.{2 if value < 100 else 0}f}"
            for value in (min(values), statistics.median(values), max(values))
        )
        return f"{middle} {self.unit}" + (f" ({low}-{high})" if len(values) > 1 else "")


class Stage:
    """Both stand-ins, the bot's installation and one whose program is the bare client."""

    def __init__(self, folder: Path, discord: DiscordStandIn, comfyui: ComfyUIStandIn) -> None:
        self.folder, self.discord, self.comfyui = folder, discord, comfyui
        discord.rate_limits = False
        comfyui.picture_bytes = SMALL
        self.channel = discord.guild.add_channel("pictures")
        self.person = discord.person()
        self._bot = Installation(folder / "comfygen")
        rules = {
            "MAX_WAITING_PER_PERSON": "10",
            "MAX_STEPS": "100",
            "ALLOWED_ROLE_IDS": str(discord.guild.id),  # everyone
            "ALERT_USER_ID": str(discord.person("owner").id),
            "KEEP_METADATA": "off",
        }
        self._bot.configure(settings_for(discord, comfyui, self.channel.id) | rules)
        self._bare = Installation(folder / "bare")
        shutil.copy(REPOSITORY / "tests/bench/bare_bot.py", self._bare.folder / "comfygen.py")

    @contextlib.contextmanager
    def bot(self, *, bare: bool = False, **environment: str) -> Iterator[Bot]:
        """The bot or the bare client, connected. It must not break a rule of Discord's."""
        # Compiled modules are kept, as an owner's are.
        environment |= {"PYTHONDONTWRITEBYTECODE": ""}
        # At Discord both wait 2 s for more servers. Without any wait the ratio says too much.
        environment |= {"READY_AFTER": "0.2"}
        environment |= {"DISCORD_TOKEN": self.discord.token} if bare else {}
        bot = Bot(self._bare if bare else self._bot, self.discord, environment=environment)
        try:
            bot.wait_for_line("connected as")
            yield bot
        finally:
            bot.stop()
        assert not self.discord.violations, self.discord.violations

    def block(self, count: int) -> None:
        """Have so many terms blocked."""
        file = File("terms.txt", "\n".join(TERMS[:count]).encode())
        manager = self.discord.manager()
        manager.slash("blocked add", self.channel, file=file).wait().wait_message()

    def first_result(self, terms: int = MOST_TERMS) -> Message:
        """A result in the channel, whose Again makes more of them; it and they are checked for so
        many blocked terms."""
        self.block(terms)
        ask_for(self.person, self.channel, PROMPT)
        return self.discord.wait_for_message(self.channel, lambda m: bool(m["attachments"]))

    def again(self, result: Message, count: int) -> list[dict[str, Any]]:
        """So many more at once; the results once they are all there."""
        before = len(self.results())
        self.press_again(result, count)
        wait_until(lambda: len(self.results()) >= before + count)
        return self.results()[before:]

    def press_again(self, result: Message, count: int) -> None:
        """Order so many more at once; each by somebody else, as a double tap makes one."""
        for _ in range(count):
            self.discord.person().press(result, AGAIN)

    def results(self) -> list[dict[str, Any]]:
        """What was posted with a picture: {"message", "time" (monotonic)}, in order."""
        entries = list(self.channel.history)
        return [e for e in entries if e["event"] == "create" and e["message"]["attachments"]]


@contextlib.contextmanager
def stage() -> Iterator[Stage]:
    """A new one, in a temporary folder."""
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        DiscordStandIn() as discord,
        ComfyUIStandIn() as comfyui,
    ):
        yield Stage(Path(folder), discord, comfyui)


def wait_until(holds: Callable[[], bool]) -> None:
    """Look every 10 ms. The stand-ins' own wait_for() looks at every event, which slows them."""
    end = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < end, f"waited {SECONDS} s in vain"
        time.sleep(0.01)


def queue_of_jobs(plan: Plan) -> Iterator[Figure]:
    """A full queue: how long it takes, how late the pictures come, how the event loop bears it."""
    wall: list[float] = []
    alone: list[float] = []
    ms: dict[str, list[float]] = defaultdict(list)
    with stage() as here:
        file, idle_file = here.folder / "stalls", here.folder / "idle-stalls"
        here.comfyui.seconds_per_step = plan.job_seconds / STEPS
        with here.bot(LOOP_STALL_FILE=str(file)), contextlib.ExitStack() as idle:
            result = here.first_result()
            idle.enter_context(here.bot(bare=True, LOOP_STALL_FILE=str(idle_file)))
            for _ in range(plan.repetitions):
                before, begin = len(here.comfyui.posted), time.monotonic()
                results = here.again(result, plan.jobs)
                wall.append(results[-1]["time"] - begin)
                ms["late"] += lateness(here, results)
                ms["stalls"].append(longest(file, begin))
                ms["idle"].append(longest(idle_file, begin))
                alone.append(handed_directly(here, before))
        ms["sends"] = bare_sends(here, plan.jobs * plan.repetitions)
    name = f"{plan.jobs} queued jobs of {plan.job_seconds:g} s"
    yield Figure(name, "s", wall, "ComfyUI alone", alone, 1.05)
    yield Figure(
        "prompt's end to message, 10 kB", "ms", ms["late"], "bare send", ms["sends"], 50, "+"
    )
    name = "longest stall of the event loop"
    yield Figure(name, "ms", ms["stalls"], "idle bare client", ms["idle"], 20, "alone")


def two_servers(plan: Plan) -> Iterator[Figure]:
    """A full queue again, with one server and with two."""
    seconds: dict[int, list[float]] = defaultdict(list)
    with stage() as here, ComfyUIStandIn() as second:
        for server in (here.comfyui, second):
            server.picture_bytes = SMALL
            server.seconds_per_step = plan.job_seconds / STEPS
        for _ in range(plan.repetitions):
            for count, url in ((1, ""), (2, second.url)):
                with here.bot(COMFY_BASE_URL_2=url):
                    result = here.first_result()
                    begin = time.monotonic()
                    seconds[count].append(here.again(result, SHARED_JOBS)[-1]["time"] - begin)
    name = f"{SHARED_JOBS} jobs of {plan.job_seconds:g} s with two servers"
    yield Figure(name, "s", seconds[2], "with one", seconds[1], 0.55)


def lateness(here: Stage, results: list[dict[str, Any]]) -> list[float]:
    """The milliseconds from the end of each prompt to its message."""
    ended = {}
    for prompt_id, entry in list(here.comfyui.history.items()):
        messages = dict(entry["status"]["messages"])
        ended[f"job {prompt_id[:8]}"] = messages["execution_success"]["timestamp"]
    offset = time.time() - time.monotonic()
    marks = [result["message"]["embeds"][0]["footer"]["text"] for result in results]
    posted = [1000 * (result["time"] + offset) for result in results]
    return [moment - ended[mark] for mark, moment in zip(marks, posted, strict=True)]


def longest(stalls: Path, since: float) -> float:
    """The longest stall since then, in milliseconds."""
    lines = [line.split() for line in stalls.read_text("ascii").splitlines()]
    return 1000 * max((float(late) for at, late in lines if float(at) >= since), default=0.0)


def handed_directly(here: Stage, first: int) -> float:
    """Return the seconds that ComfyUI takes for what the bot has posted since, posted again."""
    begin, done = time.monotonic(), len(here.comfyui.finished)
    done += post_again(here, first)
    wait_until(lambda: len(here.comfyui.finished) >= done)
    return time.monotonic() - begin


def post_again(here: Stage, first: int) -> int:
    """Post to ComfyUI what the bot has posted since; return how many prompts that were."""
    bodies = [r.json for r in here.comfyui.requests if r.matches("POST /prompt")][first:]
    with requests.Session() as session:
        session.trust_env = False
        for body in bodies:
            body = {**body, "prompt_id": str(uuid.uuid4())}
            session.post(f"{here.comfyui.url}/prompt", json=body, timeout=20).raise_for_status()
    return len(bodies)


def bare_sends(here: Stage, count: int) -> list[float]:
    """The milliseconds from a bare client's send() to the message."""
    picture, before = here.folder / "picture.png", len(here.results())
    picture.write_bytes(next(iter(here.comfyui.pictures.values())))
    orders = {"SEND_FILE": str(picture), "SEND_CHANNEL": str(here.channel.id)}
    with here.bot(bare=True, **orders, SEND_TIMES=str(count)) as bot:
        bot.wait_for_line("sent all", SECONDS)
        begun = [float(line.split()[1]) for line in bot.lines if line.startswith("sends ")]
    posted = [result["time"] for result in here.results()[before:]]
    return [1000 * (end - begin) for begin, end in zip(begun, posted, strict=True)]


def clicks(plan: Plan) -> Iterator[Figure]:
    """Measure how long people wait for their forms, at both clients in turns."""
    late: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(2 * plan.repetitions):
        with stage() as here:
            for bare in (False, True):
                late[bare].append(percentile_99(clicks_during_uploads(here, plan, bare)))
    name = f"click to answer, p99, {PEOPLE} people, {plan.large_pictures} x 10 MB"
    yield Figure(name, "ms", late[False], "bare client", late[True], 10, "+")


def clicks_during_uploads(here: Stage, plan: Plan, bare: bool) -> list[float]:
    """Have fifty people choose in their forms at once, again and again until the pictures are
    posted; return the milliseconds until each choice was answered. ComfyUI makes the pictures in
    both turns, as the stand-ins share the processors with the client."""
    orders = {"PICTURES": str(plan.large_pictures), "PICTURE_URL": large_picture_url(here)}
    with here.bot(bare=bare, **(orders if bare else {})):
        result = None if bare else here.first_result()
        people = [here.discord.person(f"person{number}") for number in range(PEOPLE)]
        forms = [(person, open_form(person, here.channel).message) for person in people]
        here.comfyui.picture_bytes = LARGE
        end = len(here.results()) + plan.large_pictures
        if result is None:
            here.person.slash("queue", here.channel)
            post_again(here, -plan.large_pictures)
        else:
            here.press_again(result, plan.large_pictures)
        late: list[float] = []
        while len(here.results()) < end:
            late += choose_all(here, forms)
            assert len(late) < 1000 * PEOPLE, "the pictures never came"
    return late


def large_picture_url(here: Stage) -> str:
    """Return the address of the picture that ComfyUI made last, empty if there is none."""
    names = list(here.comfyui.pictures)
    return f"{here.comfyui.url}/view?type=output&filename={names[-1]}" if names else ""


def choose_all(here: Stage, forms: list[tuple[Person, Message | None]]) -> list[float]:
    """The milliseconds until each person's choice was answered."""
    replies = [person.select(form or {}, "Sampler", "euler") for person, form in forms]
    wait_until(lambda: all(reply.acknowledged_after is not None for reply in replies))
    here.discord.requests.clear()  # the stand-in looks through all of them at each answer
    return [1000 * (reply.acknowledged_after or 0.0) for reply in replies]


def percentile_99(values: list[float]) -> float:
    """The value that one in a hundred is above."""
    return statistics.quantiles(values, n=100)[98]


def starts(plan: Plan) -> Iterator[Figure]:
    """From the start of the process to "connected", the commands registered."""
    times: dict[bool, list[float]] = {False: [], True: []}
    with stage() as here:
        for bare in (False, True) * (3 * plan.repetitions + 1):
            begin, syncs = time.monotonic(), here.discord.syncs
            with here.bot(bare=bare):
                times[bare].append(time.monotonic() - begin)
                assert here.discord.syncs == syncs + 1
    # The first start of each compiles its modules.
    name = "start to connected and registered"
    yield Figure(name, "s", times[False][1:], "bare client", times[True][1:], 1.5)


def memory(plan: Plan) -> Iterator[Figure]:
    """What stays in memory after many jobs."""
    after, after_large, after_terms, bare = [], [], [], []
    if Path(STATUS.format("self")).exists():
        with stage() as here:
            with here.bot() as bot:
                result = here.first_result(A_LONG_LIST)
                for _ in range(plan.jobs_for_memory // 10):
                    here.again(result, 10)
                after = [resident(bot)]
                here.block(MOST_TERMS)
                here.again(result, 1)
                after_terms = [resident(bot)]
                here.comfyui.picture_bytes = LARGE
                here.again(result, plan.large_pictures)
                after_large = [resident(bot)]
            with here.bot(bare=True) as bot:
                bare = [resident(bot)]
    name = f"memory after {plan.jobs_for_memory} jobs"
    yield Figure(name, "MB", after, "bare client", bare, 1.3)
    name = f"memory with {MOST_TERMS:,} blocked terms"
    yield Figure(name, "MB", after_terms, "bare client", bare, None)
    name = f"memory after {plan.large_pictures} x 10 MB more"
    yield Figure(name, "MB", after_large, "bare client", bare, None)


def resident(bot: Bot) -> float:
    """The process's resident memory in megabytes."""
    status = Path(STATUS.format(bot.process.pid)).read_text("ascii")
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024 / 1e6


def database(plan: Plan) -> Iterator[Figure]:
    """A new job's row and its position, in a database with the jobs of years."""
    params = JobParams(
        user_id=str(2**62), guild_id=str(2**61), channel_id=str(2**60), model="a.safetensors",
        sampler="euler", scheduler="karras", steps=20, cfg=7.0, positive_prompt=PROMPT, seed=2**63,
    )  # fmt: skip
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        Store(folder / "full.db").close()
        fill(folder / "full.db", plan.rows)
        full, empty = Store(folder / "full.db"), Store(folder / "empty.db")
        stack.callback(full.close)
        stack.callback(empty.close)
        for waiting in (0, 1000):
            for _ in range(waiting):
                full.insert(params)
            times: dict[Store, list[float]] = {full: [], empty: []}
            for store in (full, empty) * plan.inserts:
                begin = time.perf_counter()
                job_id = store.insert(params)
                position = store.position(job_id)
                times[store].append(1000 * (time.perf_counter() - begin))
                assert position == (waiting if store is full else 0) + 1
                store.cancel(job_id, JobStatus.QUEUED)
            name = f"insert and position, {plan.rows:,} rows, {waiting:,} queued"
            yield Figure(name, "ms", times[full], "with none", times[empty], 2)


def fill(database: Path, rows: int) -> None:
    """Rows of ended and reported jobs, of many people."""
    dice = random.Random(5)
    ends = ["completed"] * 90 + ["failed"] * 6 + ["cancelled"] * 4

    def row(number: int) -> tuple[object, ...]:
        job_id = str(uuid.UUID(int=dice.getrandbits(128), version=4))
        at = 1_700_000_000_000 + number * 60_000
        return job_id, str(2**62 + dice.randrange(5000)), dice.choice(ends), str(number), at, at

    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA cache_size = -400000")  # kB
        connection.executemany(
            "INSERT INTO jobs (id, discord_user_id, discord_guild_id, discord_channel_id, status,"
            " model, sampler, scheduler, steps, cfg, positive_prompt, output_images, seed,"
            " created_at, started_at, completed_at, delivered_at) VALUES (?1, ?2, '2', '3', ?3,"
            f" 'a.safetensors', 'euler', 'karras', 20, 7, '{PROMPT}', '[\"ComfyGen_00001_.png\"]',"
            " ?4, ?5, ?6, ?6 + 30000, ?6 + 31000)",
            map(row, range(rows)),
        )


def blocked_words(plan: Plan) -> Iterator[Figure]:
    """A prompt of 4,000 characters, held against a full list."""
    prompt = ("unwanted word " * 300)[:4000]  # which begins thousands of terms
    times: list[float] = []
    with_none: list[float] = []
    full = Matcher(map(parse_term, TERMS))
    for _ in range(plan.inserts):
        for matcher, spent in ((full, times), (Matcher(()), with_none)):
            begin = time.perf_counter()
            matcher.found(prompt)
            spent.append(1000 * (time.perf_counter() - begin))
    name = f"a prompt of 4,000 characters, {MOST_TERMS:,} blocked terms"
    yield Figure(name, "ms", times, "with none", with_none, 5, "alone")


MEASUREMENTS = (queue_of_jobs, two_servers, clicks, starts, memory, database, blocked_words)


def main() -> int:
    """The exit code: 0 also where a figure is missed, which may be the machine's fault."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    parser.add_argument("--short", action="store_true", help="only see that it works, in a minute")
    short = parser.parse_args().short
    sys.setswitchinterval(0.0005)  # two servers share this process, and neither is to wait long
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    print(f"Python {platform.python_version()}, {os.cpu_count()} processors{load}")
    begin = time.monotonic()
    lines: list[tuple[str, ...]] = [("", "the bot", "held against", "result", "to reach", "")]
    for measure in MEASUREMENTS:
        lines += [line.row(judged=not short) for line in measure(SHORT if short else FULL)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        print("  ".join(cells).rstrip())
    print(f"{'too short to judge by; ' if short else ''}took {time.monotonic() - begin:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
