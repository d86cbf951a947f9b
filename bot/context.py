"""The bot's context, which every command, button and modal is handed.

Holds the parts of the bot: settings, store, catalog, worker, reporter, forms, blocked words; and
the checks that apply to all commands. Runs on the event loop; what blocks goes to a thread.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from bot.blocked import BlockedPrompt, BlockedWords
from bot.controls import Interaction
from bot.form import Forms
from bot.permissions import check_place
from bot.reporter import Reporter
from job import Job, JobParams
from jobs.catalog import Catalog
from jobs.servers import Servers
from jobs.workers import Queued, Workers
from settings import Settings
from store import Store
from text import UserError

DOUBLE_CLICK_SECONDS = 2.0  # within which a second click is part of the first
RESTARTING = "The bot is restarting. Please try again in a minute."


class DoubleClickGuard:
    """Recognizes the second click of a double click."""

    def __init__(self) -> None:
        self._first: dict[tuple[int, str], float] = {}  # when, by person and job

    def is_repeat(self, user_id: int, job_id: str) -> bool:
        """Return whether this person has just clicked the same button; if not, note the click."""
        now = time.monotonic()
        self._first = {
            click: at for click, at in self._first.items() if now - at < DOUBLE_CLICK_SECONDS
        }
        is_repeat = (user_id, job_id) in self._first
        self._first.setdefault((user_id, job_id), now)
        return is_repeat

    def forget(self, user_id: int, job_id: str) -> None:
        """Let the next click count, as this one failed."""
        self._first.pop((user_id, job_id), None)


class BotContext:
    """The parts of the bot that every command and button works with."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        comfy: Servers,
        catalog: Catalog,
        worker: Workers,
        reporter: Reporter,
        comfyui_threads: ThreadPoolExecutor,
    ) -> None:
        """`comfyui_threads` are for calls that wait for ComfyUI, which may hang for long."""
        self.settings = settings
        self.store = store
        self.comfy = comfy
        self.catalog = catalog
        self.worker = worker
        self.reporter = reporter
        self.comfyui_threads = comfyui_threads
        self.again_guard = DoubleClickGuard()
        self.words = BlockedWords(store)
        self.forms = Forms(settings, comfy, catalog, store, self.check_place)

    def check_place(self, interaction: Interaction) -> None:
        """Raise UserError while the bot shuts down, and where this person may not use it."""
        if self.worker.stopping:
            raise UserError(RESTARTING)
        check_place(self.settings, interaction)

    async def accept(self, interaction: Interaction, params: JobParams) -> Queued:
        """Queue a job. Raises BlockedPrompt if the server's moderators block its prompt."""
        params = replace(params, interaction_id=str(interaction.id))
        prompt = params.positive_prompt
        found = await asyncio.to_thread(self.words.found, params.guild_id, prompt)
        if found:
            raise BlockedPrompt(found)
        return await asyncio.to_thread(self.worker.accept, params)

    async def job(self, job_id: str) -> Job:
        """Return the job that a button is about. Raises UserError if retention has removed it."""
        job = await asyncio.to_thread(self.store.get, job_id)
        if job is None:
            raise UserError(
                "This job is too old: the bot no longer has its details. Run /gen for a new one."
            )
        return job
