"""`python -m tests.demo`, run as README says, and the page it writes."""

from __future__ import annotations

import base64
import os
import re
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.demo.page import Changed, Deed, Dialog, Event, Note, Said, page, pieces
from tests.harness.bot import REPOSITORY

HOSTILE = "<script>alert(1)</script> \"'>&"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the demo as README says; the folder that it was run in."""
    folder = tmp_path_factory.mktemp("demo")
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONIOENCODING": "ascii"}
    demo = subprocess.run(
        [sys.executable, "-m", "tests.demo"],
        cwd=folder,
        env=environment,  # a pipe on Windows cannot take every character either
        capture_output=True,
        timeout=90,
    )
    assert demo.returncode == 0, demo.stderr.decode("utf-8", "replace")
    for path in (folder / "demo-output").iterdir():
        assert str(path).encode("ascii", "replace") in demo.stdout
    return folder / "demo-output"


@pytest.fixture(scope="module")
def conversation(folder: Path) -> str:
    """The page."""
    return (folder / "conversation.html").read_text("utf-8")


def test_the_demo_plays_the_whole_conversation_and_writes_it_as_a_page(
    folder: Path, conversation: str
) -> None:
    text = conversation
    (picture,) = folder.glob("*.png")
    assert "<script" not in text
    assert not re.search(r"https?:|url\(|@import|<link", text)
    inlined = re.findall(r'<img class="picture" [^>]*src="data:image/png;base64,([^"]+)"', text)
    assert base64.b64decode(inlined[0]) == picture.read_bytes()
    assert len(inlined) == len(set(inlined)) == 9
    sizes = [struct.unpack(">II", base64.b64decode(data)[16:24]) for data in inlined]
    worked_on = [(1624, 1216), (2048, 2048)]  # scaled down and restyled, and enlarged
    own = [(1024, 1024), (1248, 1824), *[(1536, 1536)] * 5]  # Flux, a portrait
    assert sorted(sizes) == sorted([*worked_on, *own])
    assert "scaled down to 2 megapixels" in text
    whole = 'portrait <span class="whole">(832 x 1216)</span>'
    assert text.count(whole) == 3  # its menu, its form, its result
    assert (
        text.count("&lt;lora:SDXL/style/inkSketch_v2:1&gt;") >= 3
    )  # its form, its result, its description
    assert "There is no model" in text
    assert "changed by itself" in text  # the running message, and an answer that counts down
    assert re.search(r"\d+ % <code[^>]*>█+░+</code>, pass \d of 4", text)
    assert "position <strong" in text
    assert "home &lt;3" in text
    assert 'do not allow <span class="spoiler">free coin*</span> in a prompt' in text
    assert "A moderator cancelled this picture." in text
    for position in (1, 2, 3, 4):
        assert re.search(rf">{position}</strong> in the queue \(about <[^>]+>\d+ s\)", text)
    assert "drawn hills, not made by a model" in re.sub(r".*<header>|</header>.*", "", text)
    assert '<h4 class="text">Workflow</h4><div class="text">flux</div>' in text
    assert "Delete this picture for everybody?" in text
    assert "Deleted." in text
    assert "1 to 3 of 3" in text  # of /mine
    assert text.count('<span class="link">message</span>') == 2  # the third is deleted


def test_the_demos_countdown_counts(conversation: str) -> None:
    states = conversation.split("changed by itself")[2].split("Only you can see this")[0]
    shown = re.findall(r'(?<=<h5>)[^<]+|(?<=whole">)\d+(?= s\))', states)
    moments = [int(m) for m in re.findall(r"(\d+) s later", " ".join(shown))]
    left = [int(m) for m in shown if m.isdecimal()]
    assert moments == sorted(set(moments))
    assert len(left) >= 2
    assert left[-1] < left[0]
    assert "Done: see the channel." in states


def test_the_times_on_the_page_count(conversation: str) -> None:
    found = re.findall(r'@noor</span>, started <span class="time">(\d+) seconds? ago', conversation)
    ago = [int(seconds) for seconds in found]
    assert len(ago) == 4  # /queue three times, and once more after a cancel
    assert ago == sorted(ago)
    assert len(set(ago)) >= 3


def test_sizes_times_and_names_stay_in_one_line() -> None:
    said = state(0)
    said.message["embeds"] = [{"description": "flux1-dev in (1024 x 1024), as in a-b <c-d>: 5 s."}]
    text = page([Said(said.message, None, {}, {}, 0.0)], "x", "")
    assert re.findall(r'<span class="whole">([^/]+)</span>', text) == [
        "flux1-dev",
        "(1024 x 1024),",
        "a-b",
        "&lt;c-d&gt;:",
        "5 s.",
    ]


def test_nothing_that_people_or_servers_wrote_becomes_html() -> None:
    message: dict[str, Any] = {
        "content": f"<@7> {HOSTILE}",
        "timestamp": "2025-01-01T12:00:00+00:00",
        "edited_timestamp": None,
        "interaction": {"name": HOSTILE, "user": {"global_name": HOSTILE}},
        "mentions": [],
        "attachments": [
            {"id": "1", "filename": HOSTILE, "content_type": HOSTILE, "description": HOSTILE},
            {"id": "1", "filename": HOSTILE, "content_type": HOSTILE},
        ],
        "embeds": [
            {
                "title": HOSTILE,
                "description": f"**{HOSTILE}** `{HOSTILE}`",
                "fields": [{"name": HOSTILE, "value": HOSTILE, "inline": True}],
                "footer": {"text": HOSTILE},
                "image": {"url": "x", "description": HOSTILE},
            }
        ],
        "components": [
            {"components": [{"label": HOSTILE, "style": 1}]},
            {"components": [{"placeholder": HOSTILE, "options": []}]},
            {"components": [{"placeholder": "", "options": [{"label": HOSTILE, "default": True}]}]},
        ],
    }
    field = {"custom_id": "text", "style": 2}
    labels = [{"label": HOSTILE, "description": HOSTILE, "component": field}]
    said = Said(message, HOSTILE, {"7": HOSTILE}, {"1": b"picture", "x": b"preview"}, 0.0)
    events: list[Event] = [
        Note(HOSTILE),
        Deed(HOSTILE, HOSTILE),
        said,
        Changed([said, said]),
        Dialog({"title": HOSTILE, "components": labels}, {"text": HOSTILE}),
    ]
    text = page(events, HOSTILE, HOSTILE)
    assert "<script" not in text
    assert "\"'>" not in text
    assert text.count("&lt;script&gt;alert(1)") >= 60


def state(number: int, alone_to: str | None = None) -> Said:
    """A message that has changed so many times, twice a second."""
    picture = {"url": f"preview {number}", "description": f"the fox at {number}"}
    message = {
        "content": f"position {number}",
        "timestamp": "2025-01-01T12:00:00+00:00",
        "edited_timestamp": None,
        "mentions": [],
        "attachments": [],
        "embeds": [{"image": picture}],
        "components": [],
    }
    return Said(message, alone_to, {}, {picture["url"]: b"%d" % number}, 1000 + number / 2)


def test_a_message_that_changes_shows_its_first_and_last_state_and_two_between() -> None:
    text = page([Changed([state(n, "lee") for n in range(7)])], "pictures", "")
    assert re.findall(r"position (\d)", text) == ["0", "2", "5", "6"]
    moments = ["at first", "1 s later", "2 s later", "3 s later"]
    assert re.findall(r"<h5>([^<]+)", text) == moments
    shown = re.findall(r'<img class="picture" alt="the fox at (\d)" src="[^,]+,([^"]+)"', text)
    assert [(at, base64.b64decode(data)) for at, data in shown] == [
        ("0", b"0"),
        ("2", b"2"),
        ("5", b"5"),
        ("6", b"6"),
    ]
    assert "changed by itself 6 times" in text
    assert text.count("Only you can see this · lee") == 1
    twice = page([Changed([state(0), state(1)])], "pictures", "")
    assert re.findall(r"position (\d)", twice) == ["0", "1"]


def test_a_picture_is_shown_with_its_description() -> None:
    said = state(0)
    (image,) = (embed["image"] for embed in said.message["embeds"])
    file = {"id": "1", "filename": "a.png", "content_type": "image/png"}
    said.message["attachments"] = [{**file, "description": "a fox & a hare"}, file]
    text = page([Said(said.message, None, {}, {"1": b"x", image["url"]: b"y"}, 0.0)], "x", "")
    alts = ["a fox &amp; a hare", "a.png", "the fox at 0"]
    assert re.findall(r'<img class="picture" alt="([^"]+)"', text) == alts
    assert re.findall(r"<b>ALT</b>([^<]+)", text) == [alts[0], alts[2]]


def test_discords_markdown_reads_as_in_its_client() -> None:
    text = r"**1** <@7> \*not bold\* a\_b `x*` <t:40:R> **a\*b** C:\new <@8> ||a\|b|| \||x||"
    read = [part for part in pieces(text, {"7": "mira"}, at=100.9) if part[1].strip()]
    assert read == [
        ("bold", "1"),
        ("mention", "@mira"),
        ("", "*"),
        ("", "not bold"),
        ("", "*"),
        ("", " a"),
        ("", "_"),
        ("", "b "),
        ("code", "x*"),
        ("time", "1 minute ago"),
        ("bold", "a*b"),
        ("", r" C:\new "),
        ("mention", "@unknown-user"),
        ("spoiler", "a|b"),
        ("", "|"),
        ("", "|x||"),
    ]
