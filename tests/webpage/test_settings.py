"""What the page's controls mean to the chat."""

import pytest

from mmgpt.datasets.prompts import TEMPLATES
from mmgpt.webpage.settings import SETTINGS, defaults, read_settings
from tests.helpers.fake_chat import FakeChat

NAMES = [setting.name for setting in SETTINGS]


def read(seed="", template="short", start="", **changed):
    chat = FakeChat()
    values = dict(zip(NAMES, defaults(chat), strict=True), **changed)
    return read_settings(chat, list(values.values()), seed, template, start)


def test_at_first_the_page_asks_as_the_chat_would():
    wanted = read()
    assert wanted.generation == dict(max_new_tokens=64, repetition_penalty=1.0, num_beams=1, do_sample=False)
    assert wanted.seed is None and wanted.template == TEMPLATES["short"]


def test_defaults_are_the_chats_own_as_far_as_the_page_reaches():
    chat = FakeChat()
    chat.generation = dict(max_new_tokens=9999, num_beams=3, do_sample=True, temperature=0.7, top_p=None)
    assert dict(zip(NAMES, defaults(chat), strict=True)) == dict(
        max_new_tokens=2048, temperature=0.7, top_p=1, repetition_penalty=1, num_beams=1
    )
    chat.generation["do_sample"] = False  # then a temperature has no meaning
    assert dict(zip(NAMES, defaults(chat), strict=True))["temperature"] == 0


def test_drawing_needs_a_temperature():
    generation = read(temperature=0.8, top_p=0.9, seed=" 7 ").generation
    assert (generation["do_sample"], generation["temperature"], generation["top_p"]) == (True, 0.8, 0.9)
    assert "top_p" not in read(temperature=0, top_p=0.9).generation
    assert read(seed=" 7 ").seed == 7 and read(seed=None).seed is None


def test_the_system_prompt_replaces_the_templates_start():
    assert read(template="instruction", start="Hi.\n").template == {**TEMPLATES["instruction"], "start": "Hi.\n"}
    assert read(template="instruction", start=None).template["start"] == ""


@pytest.mark.parametrize(
    "changed, message",
    [
        (dict(max_new_tokens=0), "Longest answer: a number from 1 to 2048, not 0"),
        (dict(max_new_tokens=1.5), "Longest answer: a whole number"),
        (dict(max_new_tokens=None), "Longest answer"),
        (dict(max_new_tokens=True), "Longest answer"),
        (dict(temperature=float("nan")), "Temperature"),
        (dict(temperature="1"), "Temperature"),
        (dict(top_p=0), "Top-p"),
        (dict(repetition_penalty=float("inf")), "Repetition penalty"),
        (dict(num_beams=99), "Beams"),
        (dict(seed="-1"), "Seed"),
        (dict(seed="1.5"), "Seed"),
        (dict(seed="4294967296"), "Seed"),
        (dict(seed="9" * 5000), "Seed"),
        (dict(template="plain"), "Template: one of short, instruction, not 'plain'"),
    ],
)
def test_what_makes_no_sense_is_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        read(**changed)
