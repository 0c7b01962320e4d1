"""The settings of an answer that the page offers, and what they mean to the chat."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from mmgpt.apis.chat import Chat, Conversation
from mmgpt.apis.templates import chat_templates, with_template
from mmgpt.inference.answer import Answer
from mmgpt.inference.sampling import MIN_TEMPERATURE

SEEDS = 2**32  # one more than the largest seed


class Setting(NamedTuple):
    """A number that can be set: the name that `Chat.submit` knows it by, its label, range, step, default and a hint."""

    name: str
    label: str
    low: float
    high: float
    step: float
    default: float
    hint: str = ""


SETTINGS = (
    Setting("max_new_tokens", "Longest answer", 1, 2048, 1, 256, "in tokens"),
    Setting("temperature", "Temperature", 0, 2, 0.05, 0, "0: the likeliest word each time"),
    Setting("top_p", "Top-p", 0.05, 1, 0.05, 1, "share of the words drawn from"),
    Setting("repetition_penalty", "Repetition penalty", 1, 2, 0.05, 1, "above 1: fewer repeated words"),
    Setting("num_beams", "Beams", 1, 8, 1, 1, "above 1: comes all at once"),
)
DRAWING = ("temperature", "top_p")  # without a meaning where nothing is drawn


@dataclass(frozen=True)
class Wanted:
    """How a question is to be answered.

    Attributes:
        generation: as for `Chat.submit`.
        seed: of what is drawn; None: another each time.
        template: the prompt template, see `mmgpt.datasets.prompts`; None: the chat's own.
    """

    generation: dict = field(default_factory=dict)
    seed: int | None = None
    template: Mapping[str, str] | None = None

    def submit(self, chat: Chat, conversation: Conversation, scope: str) -> Answer:
        """Ask the last question of a conversation. Scope and errors are those of `Chat.submit`."""
        if self.template is not None:
            chat = with_template(chat, self.template)
        return chat.submit(conversation, self.generation, seed=self.seed, scope=scope)


def defaults(chat: Chat) -> list[float]:
    """Where the settings stand at first: as the chat's own generation arguments have them, or else at their default."""
    own = dict(chat.generation, num_beams=1)  # the page streams
    if not own.get("do_sample"):
        own["temperature"] = 0
    values = [own.get(setting.name) or setting.default for setting in SETTINGS]
    return [min(max(value, setting.low), setting.high) for setting, value in zip(SETTINGS, values, strict=True)]


def read_settings(
    chat: Chat, values: Sequence[float | None], seed: str | None, template: str, start: str | None
) -> Wanted:
    """What the controls of the page say.

    Args:
        chat: whose templates can be chosen.
        values: one for each of SETTINGS.
        seed: as typed; nothing for another one each time.
        template: name of a template.
        start: the text that its prompts begin with, instead of the template's own.

    Raises:
        ValueError: a value is missing, no number, or out of range; there is no such template.
    """
    generation = {setting.name: _checked(setting, value) for setting, value in zip(SETTINGS, values, strict=True)}
    generation["do_sample"] = generation["temperature"] >= MIN_TEMPERATURE
    if not generation["do_sample"]:
        generation = {name: value for name, value in generation.items() if name not in DRAWING}
    seed = (seed or "").strip()
    if seed and not (seed.isdecimal() and len(seed) < 12 and int(seed) < SEEDS):
        raise ValueError(f"Seed: a whole number from 0 to {SEEDS - 1} or nothing, not {seed!r}")
    templates = chat_templates(chat)
    if template not in templates:
        raise ValueError(f"Template: one of {', '.join(templates)}, not {template!r}")
    wording = {**templates[template], "start": start or ""}
    return Wanted(generation, int(seed) if seed else None, wording)


def _checked(setting: Setting, value: float | None) -> float:
    if not _is_number(value) or not setting.low <= value <= setting.high:
        raise ValueError(f"{setting.label}: a number from {setting.low} to {setting.high}, not {value!r}")
    if setting.step == 1 and value != int(value):
        raise ValueError(f"{setting.label}: a whole number, not {value!r}")
    return int(value) if setting.step == 1 else float(value)


def _is_number(value: object) -> bool:
    """Whether it is a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < float("inf")
