"""mmgpt as a model of VLMEvalKit.

Read there: vlmeval/vlm/base.py at commit 23757c43, docs/en/Model.md at 35296269 (the interface), vlmeval/inference.py
and inference_mt.py (how it is called). Only VLMEvalKit's config imports this module; see docs/evaluation.md.
"""

from collections.abc import Sequence

from vlmeval.vlm.base import BaseModel

from mmgpt.apis import Chat, Conversation, read_picture
from mmgpt.datasets.conversation import IMAGE_CONTENT, text_content

ROLES = ("user", "assistant")


class MMGPT(BaseModel):
    """Answers messages of texts and images, in their order, by the config's own chat pipeline.

    Args:
        model_path: a config file, or a folder that `export` or `merge` wrote.
        checkpoint, device, options, generation, trust: as `Chat.from_config` takes them.
    """

    INTERLEAVE = True
    allowed_types = ["text", "image"]

    def __init__(
        self,
        model_path: str,
        checkpoint: str | None = None,
        device: str | None = None,
        options: dict | None = None,
        generation: dict | None = None,
        trust: bool = False,
    ):
        super().__init__()
        self.chat_model = Chat.from_config(model_path, checkpoint, device, options, generation, trust=trust)

    def generate_inner(self, message: Sequence[dict], dataset: str | None = None) -> str:
        """The answer to one message: parts `{'type': 'text' or 'image', 'value': text or file}`."""
        return self.chat_inner([{"role": "user", "content": message}], dataset)

    def chat_inner(self, message: Sequence[dict], dataset: str | None = None) -> str:
        """The answer to the last of several messages, `{'role': 'user' or 'assistant', 'content': parts}` in turn."""
        return self.chat_model.answer_all([conversation(message)])[0]


def conversation(messages: Sequence[dict]) -> Conversation:
    """Messages of VLMEvalKit as a conversation.

    Raises:
        ValueError: unknown role; an image that cannot be read.
        FileNotFoundError: an image does not exist.
    """
    said = Conversation()
    for message in messages:
        role, parts = message["role"], message["content"]
        if role not in ROLES:
            raise ValueError(f"role {role!r}: choose among {', '.join(ROLES)}")
        if role == "assistant":
            said.turns[-1]["answer"] = "".join(part["value"] for part in parts)
            continue
        said.images += [read_picture(part["value"]) for part in parts if part["type"] == "image"]
        question = [IMAGE_CONTENT if part["type"] == "image" else text_content(part["value"]) for part in parts]
        said.turns.append({"question": question})
    return said
