"""Prompt templates of a chat: which one it uses, which ones can be chosen, and the same chat with another one."""

import copy
from collections.abc import Mapping

from mmgpt.apis.chat import Chat
from mmgpt.datasets.chat_template import ChatTemplate
from mmgpt.datasets.prompts import CHAT, TEMPLATES, find_template
from mmgpt.datasets.transforms import FormatPrompt
from mmgpt.models.special_tokens import end_of_turn

MODEL_TEMPLATE = "the model's own"  # name of a chat's template that is not in TEMPLATES
CHAT_TEMPLATES = ("instruction", "short")  # the names in TEMPLATES that suit a chat


def chat_template(chat: Chat) -> dict[str, str] | ChatTemplate:
    """The prompt template of a chat. ValueError when its pipeline has no FormatPrompt."""
    return _format_step(chat).template


def chat_templates(chat: Chat) -> dict[str, dict[str, str] | ChatTemplate]:
    """Templates to choose from, by name: that of the chat first, then those for conversations.

    "chat" is among them where the language model's tokenizer has a chat template.
    """
    step = _format_step(chat)
    choices = {name: find_template(TEMPLATES[name]) for name in CHAT_TEMPLATES}
    if isinstance(step.template, ChatTemplate):
        return {CHAT: step.template, **choices}
    name = next((name for name, choice in choices.items() if choice == step.template), MODEL_TEMPLATE)
    if step.tokenizer is not None and end_of_turn(step.tokenizer):
        choices[CHAT] = find_template(CHAT, step.tokenizer)
    return {name: step.template, **choices}


def template_start(chat: Chat, template: Mapping[str, str] | ChatTemplate) -> str:
    """The text that prompts begin with: a template's `start`, or a chat template's system text."""
    return _format_step(chat).system if isinstance(template, ChatTemplate) else template["start"]


def with_template(chat: Chat, template: str | Mapping[str, str] | ChatTemplate, start: str | None = None) -> Chat:
    """Copy of a chat with the same model and caches that formats prompts by another template.

    Args:
        chat: the chat.
        template: as for `prompts.find_template`.
        start: the text that prompts begin with (see `template_start`); None: the template's own.
    """
    step = _format_step(chat)
    template, system = find_template(template, step.tokenizer), step.system
    if start is not None and isinstance(template, ChatTemplate):
        system = start
    elif start is not None:
        template = {**template, "start": start}
    other = step.with_template(template, system, step.open_last)
    copied = copy.copy(chat)
    copied.pipeline = [other if item is step else item for item in chat.pipeline]
    return copied


def _format_step(chat: Chat) -> FormatPrompt:
    for step in chat.pipeline:
        if isinstance(step, FormatPrompt):
            return step
    raise ValueError("the chat's pipeline has no FormatPrompt, so that it has no template")
