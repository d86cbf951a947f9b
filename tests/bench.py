"""`python -m tests.bench`: what the bot costs, each figure held against a thing that does less.

Runs the unmodified bot between the two stand-ins, which live in this process, and prints a table.
Every figure is a ratio or a difference of two measurements of the same run, so that it says the
same on a fast machine and on a slow one: as long as nothing else is busy there. In brackets: the
lowest and the highest of the repeated measurements, which is the noise.

`--short` only makes sure that everything here works: it measures too little to judge by. Discord's
rate limits are off, because they would be all that one sees.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from store import JobParams, JobStatus, Store
from tests.bot import REPOSITORY, Bot, Installation, settings_for
from tests.comfyui_standin import ComfyUIStandIn
from tests.discord_standin import DiscordStandIn, Person
from tests.steps import Message, ask_for, open_form

STEPS = 50  # of one job: the shipped workflow's four passes
SMALL, LARGE = 10_000, 10_000_000  # bytes of a picture
LARGE_PICTURES = 10  # so many at once
PEOPLE = 50
PROMPT = "a red fox asleep in fresh snow, morning light, soft shadows, 35 mm, highly detailed"


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    jobs: int
    job_seconds: float
    repetitions: int  # of everything that takes seconds
    jobs_for_memory: int
    rows: int
    inserts: int


FULL = Plan(20, 0.5, 3, 200, 1_000_000, 300)
SHORT = Plan(5, 0.1, 1, 20, 20_000, 20)


@dataclass(frozen=True)
class Figure:
    """One line of the table: what was measured of the bot, what it is held against, and the limit
    of their ratio, of their difference ("+"), or of the worst measurement alone ("max")."""

    name: str
    bot: Sequence[float]
    other: Sequence[float]
    against: str
    unit: str
    limit: float | None
    kind: str = "ratio"

    @property
    def value(self) -> float:
        """What has to be within the limit."""
        if self.kind == "max":
            return max(self.bot, default=0.0)
        bot, other = statistics.median(self.bot), statistics.median(self.other)
        return bot - other if self.kind == "+" else bot / other

    def row(self, judged: bool) -> tuple[str, ...]:
        """The cells of the line."""
        unit = "" if self.kind == "ratio" else f" {self.unit}"
        sign = "+" if self.kind == "+" else ""
        limit = "-" if self.limit is None else f"≤ {sign}{self.limit:g}{unit}"
        verdict = "ok" if self.limit is None or self.value <= self.limit else "missed"
        return (
            self.name,
            self._shown(self.bot),
            f"{self._shown(self.other)} {self.against}",
            f"{self.value:{sign}.{3 if self.kind == 'ratio' else 1}f}{unit}",
            limit,
            verdict if judged and self.limit is not None else "-",
        )

    def _shown(self, values: Sequence[float]) -> str:
        if not values:
            return "n/a"
        low, middle, high = min(values), statistics.median(values), max(values)
        digits = 2 if middle < 100 else 0
        spread = f" ({low:.{digits}f}-{high:.{digits}f})" if low != high else ""
        return f"{middle:.{digits}f} {self.unit}{spread}"


class Stage:
    """Both stand-ins, the bot's installation and one whose program is the bare client."""

    def __init__(self, folder: Path, discord: DiscordStandIn, comfyui: ComfyUIStandIn) -> None:
        self.folder = folder
        self.discord = discord
        self.comfyui = comfyui
        discord.rate_limits = False
        comfyui.picture_bytes = SMALL
        self.channel = discord.guild.add_channel("pictures")
        self.person = discord.person()
        self.installation = Installation(folder / "comfygen")
        self.installation.configure(settings_for(discord, comfyui, self.channel.id))
        self._bare = Installation(folder / "bare")
        shutil.copy(REPOSITORY / "tests/bare_bot.py", self._bare.folder / "comfygen.py")

    @contextlib.contextmanager
    def bot(self, **environment: str) -> Iterator[Bot]:
        """The bot, connected; it must not have broken a rule of Discord's in the end."""
        with self._running(self.installation, environment) as bot:
            yield bot
        assert not self.discord.violations, self.discord.violations

    @contextlib.contextmanager
    def bare_bot(self, **environment: str) -> Iterator[Bot]:
        """The bare client, connected."""
        environment["DISCORD_TOKEN"] = self.discord.token
        with self._running(self._bare, environment) as bot:
            yield bot

    @contextlib.contextmanager
    def _running(self, installation: Installation, environment: dict[str, str]) -> Iterator[Bot]:
        cached = {"PYTHONDONTWRITEBYTECODE": ""}  # compiled modules are kept, as they usually are
        bot = Bot(installation, self.discord, environment={**cached, **environment})
        try:
            bot.wait_for_line("connected as")
            yield bot
        finally:
            bot.stop()

    def first_result(self) -> Message:
        """A result in the channel, whose Again makes more of them."""
        ask_for(self.person, self.channel, PROMPT)
        return self.discord.wait_for_message(self.channel, lambda m: bool(m["attachments"]), 60)

    def again(self, result: Message, count: int) -> None:
        """So many more jobs, at once."""
        for _ in range(count):
            self.person.press(result, "Again")

    @property
    def results(self) -> list[dict[str, Any]]:
        """What was posted with a picture: {"message", "time" (monotonic)}, in order."""
        posted = list(self.channel.history)
        return [e for e in posted if e["event"] == "create" and e["message"]["attachments"]]

    def wait_for_results(self, count: int) -> None:
        """Until there are so many in the channel."""
        self.discord.wait_for(lambda _: len(self.results) >= count, 120, f"{count} results")


@contextlib.contextmanager
def stage() -> Iterator[Stage]:
    """A new one, in a temporary folder."""
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        DiscordStandIn() as discord,
        ComfyUIStandIn() as comfyui,
    ):
        yield Stage(Path(folder), discord, comfyui)


# ---------------------------------------------------------------------------------------------
# The measurements


def queue_of_jobs(plan: Plan) -> Iterator[Figure]:
    """A full queue: how long it takes, how late the pictures come, how the event loop feels it."""
    walls, direct, late, sends, stalls, idle_stalls = ([] for _ in range(6))  # type: ignore[var-annotated]
    with stage() as here:
        stall_file, idle_file = here.folder / "stalls", here.folder / "idle-stalls"
        here.comfyui.seconds_per_step = plan.job_seconds / STEPS
        with here.bot(LOOP_STALL_FILE=str(stall_file)), contextlib.ExitStack() as idle:
            result = here.first_result()
            idle.enter_context(here.bare_bot(LOOP_STALL_FILE=str(idle_file)))
            for _ in range(plan.repetitions):
                before, posted = len(here.results), len(here.comfyui.posted)
                begin = time.monotonic()
                here.again(result, plan.jobs)
                here.wait_for_results(before + plan.jobs)
                walls.append(here.results[-1]["time"] - begin)
                late += lateness(here, here.results[before:])
                stalls.append(longest(stall_file, begin))
                idle_stalls.append(longest(idle_file, begin))
                direct.append(handed_directly(here, posted))
            idle.close()  # before its like connects
        path = here.folder / "picture.png"
        path.write_bytes(next(iter(here.comfyui.pictures.values())))
        sends = bare_sends(here, path, plan.jobs * plan.repetitions)
    job = f"{plan.job_seconds:g} s"
    yield Figure(
        f"{plan.jobs} queued jobs of {job}", walls, direct, "handed to ComfyUI at once", "s", 1.05
    )
    yield Figure("end of a prompt to its message, 10 kB", late, sends, "a bare send", "ms", 50, "+")
    yield Figure(
        "longest stall of the event loop",
        stalls,
        idle_stalls,
        "a bare client, idle",
        "ms",
        20,
        "max",
    )


def handed_directly(here: Stage, first: int) -> float:
    """The seconds that ComfyUI takes for what the bot has posted since, posted again at once."""
    bodies = [r.json for r in here.comfyui.requests if r.matches("POST /prompt")][first:]
    done = len(here.comfyui.finished) + len(bodies)
    begin = time.monotonic()
    with requests.Session() as session:
        for body in bodies:
            body = {**body, "prompt_id": str(uuid.uuid4())}
            session.post(f"{here.comfyui.url}/prompt", json=body, timeout=20).raise_for_status()
    here.comfyui.wait_for(lambda comfyui: len(comfyui.finished) >= done, 120)
    return time.monotonic() - begin


def lateness(here: Stage, results: list[dict[str, Any]]) -> list[float]:
    """The milliseconds from the end of each prompt to its message."""
    ended = {}
    for prompt_id, entry in list(here.comfyui.history.items()):
        messages = dict(entry["status"]["messages"])
        ended[f"job {prompt_id[:8]}"] = messages["execution_success"]["timestamp"] / 1000
    offset = time.time() - time.monotonic()
    marks = [result["message"]["embeds"][0]["footer"]["text"] for result in results]
    return [
        1000 * (result["time"] + offset - ended[mark])
        for mark, result in zip(marks, results, strict=True)
    ]


def bare_sends(here: Stage, picture: Path, count: int) -> list[float]:
    """The milliseconds from a bare client's send() to the message."""
    before = len(here.results)
    orders = {"SEND_FILE": str(picture), "SEND_CHANNEL": str(here.channel.id)}
    with here.bare_bot(**orders, SEND_TIMES=str(count)) as bot:
        bot.wait_for_line("sent all", 120)
        begun = [float(line.split()[1]) for line in bot.lines if line.startswith("sends ")]
    accepted = [result["time"] for result in here.results[before:]]
    return [1000 * (end - begin) for begin, end in zip(begun, accepted, strict=True)]


def longest(stalls: Path, since: float) -> float:
    """The longest stall since then, in milliseconds."""
    lines = [line.split() for line in stalls.read_text("ascii").splitlines()]
    late = [float(lateness) for moment, lateness in lines if float(moment) >= since]
    return 1000 * max(late, default=0.0)


def clicks(plan: Plan) -> Iterator[Figure]:
    """Fifty people choose in their forms at the same moment, again and again."""
    idle, busy = [], []
    for _ in range(plan.repetitions):
        with stage() as here, here.bot():
            result = here.first_result()
            people = [here.discord.person(f"person{number}") for number in range(PEOPLE)]
            forms = [form.message for form in (open_form(p, here.channel) for p in people)]
            # Long enough for many: as many rounds with nothing else to do as there were before.
            here.comfyui.picture_bytes = LARGE
            before, late = len(here.results), []
            here.again(result, LARGE_PICTURES)
            here.wait_for_results(before + 1)
            for rounds in itertools.count(1):
                late += one_round(here, people, forms, rounds)
                if len(here.results) == before + LARGE_PICTURES:
                    break
            busy.append(percentile_99(late))
            late = [ms for n in range(rounds) for ms in one_round(here, people, forms, n)]
            idle.append(percentile_99(late))
    yield Figure(
        f"click acknowledged, p99 of {PEOPLE} people, {LARGE_PICTURES} pictures of 10 MB",
        busy,
        idle,
        "idle",
        "ms",
        50,
        "+",
    )


def one_round(
    here: Stage, people: list[Person], forms: list[Message | None], number: int
) -> list[float]:
    """The milliseconds until each person's click was acknowledged."""
    sampler = ("euler", "heun")[number % 2]
    replies = []
    for person, form in zip(people, forms, strict=True):
        assert form is not None
        replies.append(person.select(form, "Sampler", sampler))
    late = [1000 * (reply.wait().acknowledged_after or 0.0) for reply in replies]
    here.discord.requests.clear()  # the stand-in looks through them at each answer
    return late


def percentile_99(values: list[float]) -> float:
    """The value that one in a hundred is above."""
    return statistics.quantiles(values, n=100)[98]


def starts(plan: Plan) -> Iterator[Figure]:
    """From the start of the process to "connected", the commands registered."""
    bot, bare = [], []
    with stage() as here:
        for _ in range(1 + 3 * plan.repetitions):
            for start, times in ((here.bot, bot), (here.bare_bot, bare)):
                begin, syncs = time.monotonic(), here.discord.syncs
                with start():
                    times.append(time.monotonic() - begin)
                    assert here.discord.syncs == syncs + 1
    # The first start of each compiles its modules.
    yield Figure(
        "start to connected, commands registered", bot[1:], bare[1:], "a bare client", "s", 1.5
    )


def memory(plan: Plan) -> Iterator[Figure]:
    """What stays in memory after many jobs."""
    if not Path("/proc/self/status").exists():
        print("memory: n/a, read on Linux only", file=sys.stderr)
        return
    with stage() as here:
        with here.bot() as bot:
            result = here.first_result()
            for made in range(1, plan.jobs_for_memory, 10):
                here.again(result, min(10, plan.jobs_for_memory - made))
                here.wait_for_results(min(made + 10, plan.jobs_for_memory))
            after = resident(bot)
            here.comfyui.picture_bytes = LARGE
            here.again(result, LARGE_PICTURES)
            here.wait_for_results(plan.jobs_for_memory + LARGE_PICTURES)
            after_large = resident(bot)
        with here.bare_bot() as bot:
            bare = resident(bot)
    jobs, other = f"{plan.jobs_for_memory} jobs", "a bare client"
    yield Figure(f"resident memory after {jobs}", [after], [bare], other, "MB", 1.3)
    yield Figure(
        f"  and after {LARGE_PICTURES} more of 10 MB", [after_large], [bare], other, "MB", None
    )


def resident(bot: Bot) -> float:
    """The process's resident memory in megabytes."""
    status = Path(f"/proc/{bot.process.pid}/status").read_text("ascii")
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024 / 1e6


def database(plan: Plan) -> Iterator[Figure]:
    """A new job's row and its position, in a database with the jobs of years."""
    params = JobParams(
        user_id=f"{2**62}", guild_id=f"{2**61}", channel_id=f"{2**60}",
        model="SDXL/juggernautXL_ragnarokBy.safetensors", sampler="dpmpp_2m", scheduler="karras",
        steps=20, cfg=7.0, positive_prompt=PROMPT, seed=2**63,
    )  # fmt: skip
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "full.db"
        Store(path).close()
        fill(path, plan.rows)
        with (
            contextlib.closing(Store(Path(folder) / "empty.db")) as empty,
            contextlib.closing(Store(path)) as full,
        ):
            for waiting in (0, 1000):
                for _ in range(waiting):
                    full.insert(params)
                times: dict[Store, list[float]] = {empty: [], full: []}
                for store in (empty, full) * plan.inserts:
                    begin = time.perf_counter()
                    job_id = store.insert(params)
                    position = store.position(job_id)
                    times[store].append(1000 * (time.perf_counter() - begin))
                    store.cancel(job_id, JobStatus.QUEUED)
                assert position == waiting + 1
                yield Figure(
                    f"insert and position, {plan.rows:,} rows, {waiting:,} queued",
                    times[full],
                    times[empty],
                    "with none",
                    "ms",
                    2,
                )


def fill(path: Path, rows: int) -> None:
    """Rows of ended and reported jobs, of many people."""
    dice = random.Random(5)
    ends = ["completed"] * 90 + ["failed"] * 6 + ["cancelled"] * 4
    columns = "id discord_user_id discord_guild_id discord_channel_id status model sampler"
    columns += " scheduler steps cfg positive_prompt output_images seed created_at started_at"
    names = f"{columns} completed_at delivered_at".split()

    def row(number: int) -> tuple[object, ...]:
        at = 1_700_000_000_000 + number * 60_000
        return (
            str(uuid.UUID(int=dice.getrandbits(128), version=4)), str(2**62 + dice.randrange(5000)),
            str(2**61), str(2**60), dice.choice(ends), "sd_xl_base_1.0.safetensors", "dpmpp_2m",
            "karras", 20, 7.0, f"{PROMPT}, number {number}", f'["ComfyGen_{number:05}_.png"]',
            str(dice.getrandbits(64)), at, at + 1000, at + 31_000, at + 32_000,
        )  # fmt: skip

    statement = f"INSERT INTO jobs ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA cache_size = -400000")
        connection.executemany(statement, map(row, range(rows)))


MEASUREMENTS = (queue_of_jobs, clicks, starts, memory, database)


def main() -> int:
    """The exit code: 0 also where a figure is missed, for that may be the machine's fault."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--short", action="store_true", help="only see that it works")
    short = parser.parse_args().short
    sys.setswitchinterval(0.0005)  # two servers share this process; neither is to wait long
    print(f"Python {platform.python_version()}, {os.cpu_count()} processors", end="")
    if hasattr(os, "getloadavg"):
        print(f", load {os.getloadavg()[0]:.2f}", end="")
    print(", short: not to be judged by" if short else "")
    begin = time.monotonic()
    lines = [("figure", "the bot", "held against", "result", "to reach", "")]
    for measure in MEASUREMENTS:
        figures = list(measure(SHORT if short else FULL))
        lines += [figure.row(judged=not short) for figure in figures]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)))
    print(f"measured in {time.monotonic() - begin:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
