"""The wording around a chat's questions, changed without changing the chat."""

import copy
from collections.abc import Mapping

from mmgpt.apis.chat import Chat
from mmgpt.datasets.prompts import TEMPLATES
from mmgpt.datasets.transforms import FormatPrompt

OWN = "the model's own"
FOR_CHAT = ("instruction", "short")  # of TEMPLATES; the others are for pretraining and for benchmarks


def chat_template(chat: Chat) -> dict[str, str]:
    """The prompt template that a chat uses. ValueError when its pipeline has no FormatPrompt."""
    for step in chat.pipeline:
        if isinstance(step, FormatPrompt):
            return step.template
    raise ValueError("the chat's pipeline has no FormatPrompt, so that it has no template")


def chat_templates(chat: Chat) -> dict[str, dict[str, str]]:
    """The templates to choose from by name: the chat's own first, then those for conversations."""
    own = chat_template(chat)
    named = {name: TEMPLATES[name] for name in FOR_CHAT}
    name = next((name for name, template in named.items() if template == own), OWN)
    return {name: own, **named}


def with_template(chat: Chat, template: str | Mapping[str, str]) -> Chat:
    """The same chat (model, engine, caches) that writes its prompts by another template: a name or a dict."""
    other = copy.copy(chat)
    other.pipeline = [
        FormatPrompt(template, step.open_last) if isinstance(step, FormatPrompt) else step for step in chat.pipeline
    ]
    return other
