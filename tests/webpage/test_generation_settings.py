"""Values of the page's controls as arguments of the chat."""

import pytest

from mmgpt.datasets.prompts import TEMPLATES
from mmgpt.webpage.generation_settings import SLIDERS, read_settings, slider_defaults
from tests.helpers.fake_chat import FakeChat

NAMES = [slider.name for slider in SLIDERS]


def read(seed="", template="short", start="", **changed):
    chat = FakeChat()
    values = dict(zip(NAMES, slider_defaults(chat), strict=True), **changed)
    return read_settings(chat, list(values.values()), seed, template, start)


def test_the_initial_settings_are_those_of_the_chat():
    settings = read()
    assert settings.generation == dict(max_new_tokens=64, repetition_penalty=1.0, num_beams=1, do_sample=False)
    assert settings.seed is None
    assert settings.template == TEMPLATES["short"]


def test_defaults_are_the_chats_own_within_the_sliders_ranges():
    chat = FakeChat()
    chat.generation = dict(max_new_tokens=9999, num_beams=3, do_sample=True, temperature=0.7, top_p=None)
    assert dict(zip(NAMES, slider_defaults(chat), strict=True)) == dict(
        max_new_tokens=2048, temperature=0.7, top_p=1, repetition_penalty=1, num_beams=1
    )
    chat.generation["do_sample"] = False  # Then the temperature has no effect.
    assert dict(zip(NAMES, slider_defaults(chat), strict=True))["temperature"] == 0


def test_sampling_needs_a_temperature():
    generation = read(temperature=0.8, top_p=0.9, seed=" 7 ").generation
    assert (generation["do_sample"], generation["temperature"], generation["top_p"]) == (True, 0.8, 0.9)
    assert "top_p" not in read(temperature=0, top_p=0.9).generation
    assert read(seed=" 7 ").seed == 7
    assert read(seed=None).seed is None


def test_the_system_prompt_replaces_the_templates_start():
    settings = read(template="instruction", start="Hi.\n")
    assert settings.template == TEMPLATES["instruction"]
    assert settings.start == "Hi.\n"
    chat = FakeChat()
    conversation = chat.start().with_question("hello")
    assert settings.submit(chat, conversation, "").prompt == "Hi.\n### Instruction:\nhello\n\n### Response:\n"
    assert read(template="instruction", start=None).start == ""


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
def test_invalid_values_are_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        read(**changed)
