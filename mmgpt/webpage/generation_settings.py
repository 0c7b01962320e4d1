"""Generation settings of the page: its controls, and the arguments of the chat that they stand for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from mmgpt.apis.chat import Chat
from mmgpt.apis.conversation import Conversation
from mmgpt.apis.templates import chat_templates, with_template
from mmgpt.datasets.chat_template import ChatTemplate
from mmgpt.inference.answer import Answer
from mmgpt.inference.sampling import MIN_TEMPERATURE

SEEDS = 2**32  # one more than the largest seed


class Slider(NamedTuple):
    """A numeric setting: its name in generation arguments, its label, range, step, default and hint."""

    name: str
    label: str
    low: float
    high: float
    step: float
    default: float
    hint: str = ""


SLIDERS = (
    Slider("max_new_tokens", "Longest answer", 1, 2048, 1, 256, "in tokens"),
    Slider("temperature", "Temperature", 0, 2, 0.05, 0, "0: the likeliest word each time"),
    Slider("top_p", "Top-p", 0.05, 1, 0.05, 1, "share of the words drawn from"),
    Slider("repetition_penalty", "Repetition penalty", 1, 2, 0.05, 1, "above 1: fewer repeated words"),
    Slider("num_beams", "Beams", 1, 8, 1, 1, "above 1: comes all at once"),
)
SAMPLING = ("temperature", "top_p")  # without effect when nothing is sampled


@dataclass(frozen=True)
class GenerationSettings:
    """Settings that an answer is generated with.

    Attributes:
        generation: as for `Chat.submit`.
        seed: of sampling; None: another one each time.
        template: the prompt template, see `mmgpt.datasets.prompts`; None: the chat's own.
        start: the text that prompts begin with, as for `with_template`.
    """

    generation: dict = field(default_factory=dict)
    seed: int | None = None
    template: Mapping[str, str] | ChatTemplate | None = None
    start: str | None = None

    def submit(self, chat: Chat, conversation: Conversation, scope: str) -> Answer:
        """Submit the last question of a conversation. Scope and errors are those of `Chat.submit`."""
        if self.template is not None:
            chat = with_template(chat, self.template, self.start)
        return chat.submit(conversation, self.generation, seed=self.seed, scope=scope)


def slider_defaults(chat: Chat) -> list[float]:
    """Initial values of SLIDERS: the chat's own generation arguments, or the sliders' defaults."""
    arguments = dict(chat.generation, num_beams=1)  # The page streams answers, which beam search cannot.
    if not arguments.get("do_sample"):
        arguments["temperature"] = 0
    values = [arguments.get(slider.name) or slider.default for slider in SLIDERS]
    return [min(max(value, slider.low), slider.high) for slider, value in zip(SLIDERS, values, strict=True)]


def read_settings(
    chat: Chat, values: Sequence[float | None], seed: str | None, template: str, start: str | None
) -> GenerationSettings:
    """Settings from the values of the page's controls.

    Args:
        chat: whose templates can be chosen.
        values: one for each of SLIDERS.
        seed: as typed; empty for another one each time.
        template: name of a template.
        start: the text that prompts begin with, instead of the template's own.

    Raises:
        ValueError: a value is missing, not a number, or out of range; there is no such template.
    """
    generation = {}
    for slider, value in zip(SLIDERS, values, strict=True):
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or not slider.low <= value <= slider.high:
            raise ValueError(f"{slider.label}: a number from {slider.low} to {slider.high}, not {value!r}")
        if slider.step == 1 and value != int(value):
            raise ValueError(f"{slider.label}: a whole number, not {value!r}")
        generation[slider.name] = int(value) if slider.step == 1 else float(value)
    generation["do_sample"] = generation["temperature"] >= MIN_TEMPERATURE
    if not generation["do_sample"]:
        generation = {name: value for name, value in generation.items() if name not in SAMPLING}
    seed = (seed or "").strip()
    if seed and not (seed.isdecimal() and len(seed) < 12 and int(seed) < SEEDS):
        raise ValueError(f"Seed: a whole number from 0 to {SEEDS - 1} or nothing, not {seed!r}")
    templates = chat_templates(chat)
    if template not in templates:
        raise ValueError(f"Template: one of {', '.join(templates)}, not {template!r}")
    return GenerationSettings(generation, int(seed) if seed else None, templates[template], start or "")
