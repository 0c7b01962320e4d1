"""Adapter that makes a chat a model of VLMEvalKit.

Sources: vlmeval/vlm/base.py at commit 23757c43, docs/en/Model.md at 35296269 (the interface), vlmeval/inference.py
and inference_mt.py (the calls). Only VLMEvalKit's config imports this module; see docs/evaluation.md.
"""

from collections.abc import Sequence

from vlmeval.vlm.base import BaseModel

from mmgpt.apis import Chat, Conversation, read_image
from mmgpt.datasets.conversation import IMAGE_CONTENT, text_content

ROLES = ("user", "assistant")


class MMGPT(BaseModel):
    """Model of VLMEvalKit that answers messages of interleaved texts and images with the chat pipeline of a config.

    Args:
        model_path: a config file, or a folder that `export` or `merge` wrote.
        checkpoint, device, options, generation, trust: arguments of `Chat.from_config`.
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
        """The answer to one message, a list of contents `{'type': 'text' or 'image', 'value': text or file}`."""
        return self.chat_inner([{"role": "user", "content": message}], dataset)

    def chat_inner(self, message: Sequence[dict], dataset: str | None = None) -> str:
        """The answer to the last of several messages `{'role': 'user' or 'assistant', 'content': contents}`."""
        return self.chat_model.answer_all([conversation_of(message)])[0]


def conversation_of(messages: Sequence[dict]) -> Conversation:
    """The conversation of VLMEvalKit's messages.

    Raises:
        ValueError: unknown role; an image that cannot be read.
        FileNotFoundError: an image does not exist.
    """
    conversation = Conversation()
    for message in messages:
        role, contents = message["role"], message["content"]
        if role not in ROLES:
            raise ValueError(f"unknown role {role!r}; choose one of {', '.join(ROLES)}")
        if role == "assistant":
            conversation.turns[-1]["answer"] = "".join(content["value"] for content in contents)
            continue
        conversation.images += [read_image(content["value"]) for content in contents if content["type"] == "image"]
        question = [
            IMAGE_CONTENT if content["type"] == "image" else text_content(content["value"]) for content in contents
        ]
        conversation.turns.append({"question": question})
    return conversation
