"""Prompt templates of a chat."""

import pytest

from mmgpt.apis.templates import MODEL_TEMPLATE, chat_template, chat_templates, with_template
from mmgpt.datasets.prompts import TEMPLATES
from mmgpt.datasets.transforms import FormatPrompt
from tests.helpers.fake_chat import FakeChat


def test_the_same_chat_prompts_with_another_template():
    chat = FakeChat()
    other = with_template(chat, {**TEMPLATES["short"], "start": "Be kind.\n\n"})
    question = chat.start().with_question("hello")
    assert other.submit(question).prompt == "Be kind.\n\n### Instruction:\nhello\n\n### Response:\n"
    assert chat.submit(question).prompt == "### Instruction:\nhello\n\n### Response:\n"
    assert len(chat.submitted_questions) == 2  # the rest is shared


def test_a_changed_pipeline_keeps_its_other_steps_and_their_order():
    chat = FakeChat()
    chat.pipeline = [str, FormatPrompt("instruction", open_last=True), repr]
    first, step, last = with_template(chat, "short").pipeline
    assert (first, last) == (str, repr)
    assert step.template == TEMPLATES["short"]
    assert step.open_last


def test_a_broken_template_is_refused():
    with pytest.raises(ValueError, match="the keys start"):
        with_template(FakeChat(), {"start": ""})


def test_the_choice_begins_with_the_chats_own():
    chat = FakeChat()
    assert list(chat_templates(chat)) == ["short", "instruction"]
    template = {**TEMPLATES["short"], "start": "Mine. "}
    assert list(chat_templates(with_template(chat, template)).items())[0] == (MODEL_TEMPLATE, template)
    assert chat_template(chat) == TEMPLATES["short"]


def test_a_chat_without_a_template_says_so():
    chat = FakeChat()
    chat.pipeline = []
    with pytest.raises(ValueError, match="no FormatPrompt"):
        chat_template(chat)
