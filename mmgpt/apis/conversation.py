"""Conversation with a model: plain data of turns and images, and the sample that the pipeline makes of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from PIL import Image

from mmgpt.compat.python_names import warn_renamed
from mmgpt.datasets.conversation import IMAGE_CONTENT, text_content


@dataclass
class Conversation:
    """One conversation as plain data.

    Attributes:
        turns: ``question`` (contents, as in a training sample) and ``answer`` of each turn so far.
        images: the images, RGB, in the order of their positions in the turns.
        system: the system text; without one, the pipeline's, if it has one.
    """

    turns: list[dict] = field(default_factory=list)
    images: list[Image.Image] = field(default_factory=list)
    system: str = ""

    def with_question(self, text: str, images: Sequence[Image.Image] = ()) -> "Conversation":
        """A copy of this conversation with one more question, whose images stand before its text."""
        question = [IMAGE_CONTENT] * len(images) + [text_content(text)]
        return replace(self, turns=[*self.turns, {"question": question}], images=[*self.images, *images])

    def asked(self, text: str, images: Sequence[Image.Image] = ()) -> "Conversation":
        """Earlier name of `with_question`, accepted for one release."""
        warn_renamed("Conversation.asked", "Conversation.with_question")
        return self.with_question(text, images)


def read_conversation(conversation: Conversation, pipeline: Sequence[Callable]) -> dict:
    """Sample for `collate_conversations`: the conversation after all transforms of a pipeline."""
    names = [f"image {number}" for number in range(1, len(conversation.images) + 1)]
    turns = [dict(turn) for turn in conversation.turns]
    sample = {"images": names, "pil": list(conversation.images), "turns": turns, "source": "chat", "meta": {}}
    sample["system"] = conversation.system
    for transform in pipeline:
        sample = transform(sample)
    return sample
