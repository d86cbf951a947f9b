"""What the owner hears of, as direct messages of the running bot."""

from __future__ import annotations

from bot.alerts import Alert
from tests.end_to_end.common import press_generate, result_of
from tests.harness.house import House
from tests.harness.steps import fill_in, generate, labels, open_form
from tests.standins.discord.people import Person, Reply


def filled_form(house: House, person: Person) -> Reply:
    """A form in which only Generate is left to be pressed."""
    form = open_form(person, house.channel)
    assert form.message is not None
    person.select(form.message, "Model", labels(form.message, "Model")[0]).wait()
    fill_in(person, form, positive_prompt="a red fox")
    return form


def hears(house: House, owner: Person, alert: Alert) -> None:
    """Wait until the owner has it."""
    house.discord.wait_for_message(owner, lambda m: m["content"] == alert.value)


def test_the_owner_hears_once_of_comfyuis_absence_its_return_and_a_broken_workflow(
    house: House,
) -> None:
    owner, person = house.discord.person("owner"), house.discord.person()
    bot = house.start(ALERT_USER_ID=str(owner.id))
    form = filled_form(house, person)
    house.comfyui.go_down()
    hears(house, owner, Alert.COMFYUI_AWAY)
    house.comfyui.come_up()
    hears(house, owner, Alert.BACK)
    house.comfyui.go_down()  # within the hour
    whole = house.installation.workflow.read_text("utf-8")
    house.installation.workflow.write_text(whole.replace('"249"', '"250249"', 1), "utf-8")
    for _ in range(2):
        answer = generate(person, form)
        answer.wait_message(lambda m: "workflow cannot be used" in m["content"])
    hears(house, owner, Alert.WORKFLOW)
    house.comfyui.come_up()
    house.comfyui.wait_for(lambda c: bool(c.listeners))
    house.installation.workflow.write_text(whole, "utf-8")
    generate(person, form).wait_shown(lambda m: "Queued!" in m["content"])
    result_of(house, person)
    assert bot.stop() == 0
    told = [Alert(message["content"]) for message in owner.dms]
    told = [alert for alert in told if alert is not Alert.DISK]  # this machine's
    assert told == [Alert.COMFYUI_AWAY, Alert.BACK, Alert.WORKFLOW]


def test_an_owner_who_takes_no_messages_costs_one_line_in_the_log(house: House) -> None:
    owner, person = house.discord.person("owner"), house.discord.person()
    owner.accepts_dms = False
    bot = house.start(ALERT_USER_ID=str(owner.id))
    house.comfyui.go_down()
    line = bot.wait_for_line("ALERT_USER_ID cannot be sent a message")
    assert "Cannot send messages to this user" in line
    house.comfyui.come_up()
    bot.wait_for_line(Alert.BACK.value)
    house.comfyui.wait_for(lambda c: bool(c.listeners))
    press_generate(house, person)
    result_of(house, person)
    assert bot.stop() == 0
    assert bot.output.count("ALERT_USER_ID") == 1
