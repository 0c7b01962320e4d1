"""One conversation as plain data, and as a sample."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from PIL import Image

from mmgpt.datasets.conversation import IMAGE_CONTENT, text_content


@dataclass
class Conversation:
    """One conversation as plain data.

    Attributes:
        turns: ``question`` (parts, as in a training sample) and ``answer`` of each turn so far.
        images: the pictures, RGB, in the order of their places in the turns.
    """

    turns: list[dict] = field(default_factory=list)
    images: list[Image.Image] = field(default_factory=list)

    def asked(self, text: str, images: Sequence[Image.Image] = ()) -> "Conversation":
        """This conversation with one more question, its images before its text; this one stays as it is."""
        question = [IMAGE_CONTENT] * len(images) + [text_content(text)]
        return Conversation([*self.turns, {"question": question}], [*self.images, *images])


def read_conversation(conversation: Conversation, pipeline: Sequence[Callable]) -> dict:
    """A conversation through a pipeline, as a sample for `collate_conversations`."""
    names = [f"image {number}" for number in range(1, len(conversation.images) + 1)]
    turns = [dict(turn) for turn in conversation.turns]
    sample = {"images": names, "pil": list(conversation.images), "turns": turns, "source": "chat", "meta": {}}
    for transform in pipeline:
        sample = transform(sample)
    return sample
