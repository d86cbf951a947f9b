"""--once, in process: what it prints and saves, and what it says of a missing value."""

from __future__ import annotations

import ast
import io
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cli.once import (
    OnceError,
    check_folder,
    choose_only,
    explanation,
    for_owner,
    save,
    show_progress,
)
from comfyui.errors import Interrupted, TimedOut
from comfyui.progress import Progress
from jobs.draft import Draft
from jobs.typed import FormError
from tests.factories import a_job, an_offer, settings
from tests.harness.bot import REPOSITORY


class Terminal(io.StringIO):
    """Where a person looks on."""

    def isatty(self) -> bool:
        return True


def printed(monkeypatch: pytest.MonkeyPatch, place: io.StringIO) -> str:
    """What two looks at the same progress and one at another print there."""
    monkeypatch.setattr(sys, "stdout", place)
    progress, shown = Progress("", {"1": 4, "2": 4}), ""
    for value in (2, 2, 4):
        progress.on_event("progress", {"node": "1", "value": value, "max": 4})
        shown = show_progress(progress, shown)
    return place.getvalue()


def test_progress_is_shown_in_place_on_a_terminal_and_once_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines = ["  25%  pass 1 of 2", "  50%  pass 1 of 2"]
    assert printed(monkeypatch, io.StringIO()) == f"{lines[0]}\n{lines[1]}\n"
    assert printed(monkeypatch, Terminal()) == f"\r{lines[0]}\r{lines[0]}\r{lines[1]}"


def test_no_pass_is_counted_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert show_progress(Progress("", {}), "") == "   0%"


def test_no_file_is_overwritten_however_many_are_saved_at_once(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        texts = [str(number).encode() for number in range(40)]
        paths = list(threads.map(lambda text: save(tmp_path, "fox.v1.png", text), texts))
    assert [path.read_bytes() for path in paths] == texts
    assert {path.name for path in paths} == {
        "fox.v1.png",
        *(f"fox.v1-{number}.png" for number in range(2, 41)),
    }


def test_a_folder_that_is_none_is_refused_and_none_is_made(tmp_path: Path) -> None:
    check_folder(tmp_path)
    check_folder(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []
    file = save(tmp_path, "file", b"")
    for folder in (file, file / "a" / "b"):
        with pytest.raises(OnceError, match="file is a file, not a folder"):
            check_folder(folder)


def test_only_a_time_out_names_its_setting() -> None:
    said = explanation(a_job(error_message=TimedOut.user_message), 2.5)
    assert said == f"{TimedOut.user_message} COMFY_TIMEOUT_MS allows it 2500 ms: set it higher."
    assert (
        explanation(a_job(error_message=Interrupted.user_message), 2.5) == Interrupted.user_message
    )


def test_the_only_value_is_taken_and_of_several_a_few_are_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    models = tuple(f"sd/model_{number}.ckpt" for number in range(7))
    offer = an_offer(models, ("euler",), ("normal", "karras"))
    draft = Draft.from_file("main", offer, settings())
    with pytest.raises(FormError) as several:
        choose_only(draft, "model", "gone_1.ckpt")
    assert several.value.user_message == (
        r"ComfyUI does not have the workflow file's model, gone\_1.ckpt. Choose one with --model:"
        r" model\_0, model\_1, model\_2, model\_3, model\_4 and 2 more."
    )
    with pytest.raises(FormError, match=r"Choose one with --scheduler: normal, karras\.$"):
        choose_only(draft, "scheduler", "gone")
    choose_only(draft, "sampler", "gone")
    chosen = draft.picture
    assert (chosen.model, chosen.scheduler, chosen.sampler) == ("", "", "euler")
    assert "Used instead is its only one, euler." in capsys.readouterr().out


def test_no_sentence_for_people_sends_the_owner_to_the_owner() -> None:
    sentences = [
        text.value
        for folder in (".", "comfyui", "jobs", "bot")
        for file in (REPOSITORY / folder).glob("*.py")
        for text in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(text, ast.Constant) and "tell the bot's" in str(text.value)
    ]
    assert len(sentences) > 10
    for sentence in sentences:
        told = for_owner(f"It failed. {sentence}")
        assert "owner" not in told, sentence
        assert ".." not in told
