"""Uploads: pictures of people, put into ComfyUI's input folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from requests_mock import Mocker

from comfy_client import ComfyClient
from comfyui.errors import BadAnswer, PictureRefused, Unreachable
from settings import Server
from tests.standins.comfyui.pictures import draw_png
from tests.standins.comfyui.server import ComfyUIStandIn

URL = "http://comfy.test:8188"
ROUTE = f"{URL}/upload/image"
PNG = draw_png(b"a fox", (9, 6), {}, 0)


@pytest.fixture
def client() -> Iterator[ComfyClient]:
    with closing(ComfyClient(Server(URL))) as client:
        yield client


@pytest.fixture
def live(comfyui: ComfyUIStandIn) -> Iterator[ComfyClient]:
    with closing(ComfyClient(Server(comfyui.url))) as client:
        yield client


def test_a_picture_is_put_into_a_folder_of_the_bots_own_under_the_name_that_is_given(
    comfyui: ComfyUIStandIn, live: ComfyClient
) -> None:
    assert live.upload(PNG, "a.png") == "comfygen/a.png"
    assert comfyui.uploads["comfygen/a.png"] == PNG
    assert live.upload(PNG, "a.png") == "comfygen/a.png"
    assert list(comfyui.uploads) == ["example.png", "comfygen/a.png"]


def test_what_stands_under_the_name_is_replaced(comfyui: ComfyUIStandIn, live: ComfyClient) -> None:
    live.upload(b"half of it", "a.png")
    assert live.upload(PNG, "a.png") == "comfygen/a.png"
    assert comfyui.uploads["comfygen/a.png"] == PNG


@pytest.mark.parametrize(
    ("answer", "name"),
    [
        ({"name": "b.png", "subfolder": "other", "type": "input"}, "other/b.png"),
        ({"name": "b.png", "subfolder": "", "type": "input"}, "b.png"),
        ({"name": "b.png"}, "b.png"),
    ],
)
def test_the_server_says_where_the_picture_is(
    requests_mock: Mocker, client: ComfyClient, answer: Any, name: str
) -> None:
    requests_mock.post(ROUTE, json=answer)
    assert client.upload(PNG, "a.png") == name


@pytest.mark.parametrize("answer", [{}, {"name": ""}, {"name": 7}, {"name": None}, []])
def test_an_answer_without_a_name_is_a_bad_one(
    requests_mock: Mocker, client: ComfyClient, answer: Any
) -> None:
    requests_mock.post(ROUTE, json=answer)
    with pytest.raises(BadAnswer):
        client.upload(PNG, "a.png")


@pytest.mark.parametrize("status", [400, 413])
def test_a_picture_that_the_server_does_not_take_is_no_outage(
    requests_mock: Mocker, client: ComfyClient, status: int
) -> None:
    requests_mock.post(ROUTE, text="<html>Request Entity Too Large", status_code=status)
    with pytest.raises(PictureRefused) as caught:
        client.upload(PNG, "a.png")
    assert client.away_since is None
    assert str(caught.value).startswith(f"POST /upload/image: status {status}")
    assert caught.value.user_message == (
        "The image server does not take this picture. Send a smaller one, or tell the bot's owner."
    )


def test_a_server_that_is_away_is_so_for_an_upload_too(
    comfyui: ComfyUIStandIn, live: ComfyClient
) -> None:
    comfyui.fault("POST /upload/image", "lost answer")
    with pytest.raises(Unreachable):
        live.upload(PNG, "a.png")
    assert live.away_since is not None
    assert live.upload(PNG, "a.png") == "comfygen/a.png"
    assert live.away_since is None
