"""The owner's network: proxies, certificates, keys, and lists of a large install."""

from __future__ import annotations

import ssl
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.end_to_end.common import expect_exactly_one_result, order, run
from tests.harness.house import House
from tests.standins.proxy import ProxyStandIn

CERTIFICATES = Path(__file__).parents[1] / "standins/certificates"
API_KEY = "comfyui-" + "0123456789abcdef" * 4


def place_of(url: str) -> str:
    return urlsplit(url).netloc


def test_an_address_in_capitals_is_the_same_for_requests_and_for_the_feed(house: House) -> None:
    house.start(COMFY_BASE_URL=house.comfyui.url.replace("http", "HTTP"))
    house.comfyui.wait_for(lambda comfy: comfy.listeners)
    person = house.discord.person()
    order(house, person, "a fox")
    expect_exactly_one_result(house, person)


def test_a_proxy_of_the_system_does_not_stand_before_a_comfyui_at_home(house: House) -> None:
    with ProxyStandIn(is_lost=True) as proxy:
        house.installation.configure(house.settings)
        environment = {"HTTP_PROXY": proxy.url, "http_proxy": proxy.url, "NO_PROXY": ""}
        house.run(environment=environment)
        person = house.discord.person()
        order(house, person, "a fox")
        expect_exactly_one_result(house, person)
        assert proxy.asked == []


def test_a_proxy_that_the_owner_asks_for_is_used_by_requests_and_by_the_feed(house: House) -> None:
    with ProxyStandIn() as proxy:
        house.start(COMFY_PROXY=proxy.url)
        person = house.discord.person()
        house.comfyui.wait_for(lambda comfy: comfy.listeners)
        order(house, person, "a fox")
        expect_exactly_one_result(house, person)
        assert set(proxy.asked) == {place_of(house.comfyui.url)}


def test_a_proxy_that_does_not_find_comfyui_is_named_without_its_password(house: House) -> None:
    with ProxyStandIn(is_lost=True) as proxy:
        address = place_of(proxy.url)
        bot = run(house, "--check", COMFY_PROXY=f"http://me:s3cret@{address}", offline=True)
    assert bot.process.returncode == 1
    assert f"by way of the proxy {address}: status 502" in bot.output
    assert "s3cret" not in bot.output


def test_discord_is_reached_by_a_proxy_alone(house: House) -> None:
    with ProxyStandIn() as proxy:
        house.start(DISCORD_PROXY=proxy.url)
        person = house.discord.person()
        order(house, person, "a fox")
        expect_exactly_one_result(house, person)
        wanted = {place_of(house.discord.api_url), place_of(house.discord.gateway_url)}
        assert set(proxy.asked) == wanted
        check = run(house, "--check", DISCORD_PROXY=proxy.url)
        assert "the token is valid" in check.output


def with_certificate(house: House) -> str:
    """ComfyUI speaks TLS from now on; its address."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATES / "own.pem", CERTIFICATES / "own.key")
    house.comfyui.certificate = context
    return house.comfyui.url


def test_a_certificate_of_the_owners_own_is_trusted_once_its_file_is_given(house: House) -> None:
    url = with_certificate(house)
    bot = run(house, "--check", COMFY_BASE_URL=url, offline=True)
    assert "COMFY_CA_FILE" in bot.output
    house.start(COMFY_BASE_URL=url, COMFY_CA_FILE=str(CERTIFICATES / "own.pem"))
    house.comfyui.wait_for(lambda comfy: comfy.listeners)
    person = house.discord.person()
    order(house, person, "a fox")
    expect_exactly_one_result(house, person)


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "No such file or directory"), ("no certificate", "no certificate in it")],
)
def test_a_file_that_holds_no_certificate_is_told(
    house: House, tmp_path: Path, content: str | None, said: str
) -> None:
    path = tmp_path / "ca.pem"
    if content:
        path.write_text(content, "utf-8")
    bot = run(house, "--check", COMFY_CA_FILE=str(path), offline=True)
    assert bot.process.returncode == 1
    assert f"COMFY_CA_FILE cannot be used ({said})" in bot.output


def test_the_key_of_partner_nodes_goes_with_each_prompt_and_nowhere_else(house: House) -> None:
    sampler = "KSampler (Efficient)"
    info = house.comfyui.object_info
    hidden = {**info[sampler]["input"], "hidden": {"api_key_comfy_org": "API_KEY_COMFY_ORG"}}
    house.comfyui.object_info = {**info, sampler: {**info[sampler], "input": hidden}}
    said = f"({sampler}) runs at a paid service of comfy.org: set COMFY_API_KEY"
    check = run(house, "--check", offline=True)
    assert said in check.output
    check = run(house, "--check", offline=True, COMFY_API_KEY=API_KEY)
    assert said not in check.output
    bot = house.start(COMFY_API_KEY=API_KEY, LOG_LEVEL="debug")
    person = house.discord.person()
    order(house, person, "a fox")
    expect_exactly_one_result(house, person)
    assert house.comfyui.api_keys == [API_KEY]
    assert API_KEY not in bot.output
    assert API_KEY not in str(house.channel.messages)
    assert API_KEY.encode() not in house.installation.database.read_bytes()


def test_a_list_of_sixty_megabytes_is_read(house: House) -> None:
    models = [f"folder{number % 40}/a_model_{number:05}.safetensors" for number in range(3000)]
    more = {
        f"Class{number}": {"input": {"required": {"ckpt_name": [models, {}]}}, "output": []}
        for number in range(450)
    }
    house.comfyui.object_info = {**house.comfyui.object_info, **more}
    bot = house.start()
    person = house.discord.person()
    order(house, person, "a fox")
    expect_exactly_one_result(house, person)
    peak = Path(f"/proc/{bot.process.pid}/status").read_text("ascii").split("VmHWM:")[1].split()[0]
    assert int(peak) < 300_000  # kB; parsed as a whole it takes more than 500
