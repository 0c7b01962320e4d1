"""Prompt templates of a chat: which one it uses, which ones can be chosen, and the same chat with another one."""

import copy
from collections.abc import Mapping

from mmgpt.apis.chat import Chat
from mmgpt.datasets.prompts import TEMPLATES
from mmgpt.datasets.transforms import FormatPrompt

MODEL_TEMPLATE = "the model's own"  # name of a chat's template that is not in TEMPLATES
CHAT_TEMPLATES = ("instruction", "short")  # the names in TEMPLATES that suit a chat


def chat_template(chat: Chat) -> dict[str, str]:
    """The prompt template of a chat. ValueError when its pipeline has no FormatPrompt."""
    for step in chat.pipeline:
        if isinstance(step, FormatPrompt):
            return step.template
    raise ValueError("the chat's pipeline has no FormatPrompt, so that it has no template")


def chat_templates(chat: Chat) -> dict[str, dict[str, str]]:
    """Templates to choose from, by name: that of the chat first, then those for conversations."""
    template = chat_template(chat)
    choices = {name: TEMPLATES[name] for name in CHAT_TEMPLATES}
    name = next((name for name, choice in choices.items() if choice == template), MODEL_TEMPLATE)
    return {name: template, **choices}


def with_template(chat: Chat, template: str | Mapping[str, str]) -> Chat:
    """Copy of a chat with the same model and caches that formats prompts by another template: a name or a dict."""
    copied = copy.copy(chat)
    copied.pipeline = [
        FormatPrompt(template, step.open_last) if isinstance(step, FormatPrompt) else step for step in chat.pipeline
    ]
    return copied
