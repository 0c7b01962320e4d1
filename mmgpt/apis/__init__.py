"""What the demos, the command line and the server share: a chat with a tuned model."""

from mmgpt.apis.build import build_model
from mmgpt.apis.chat import Chat
from mmgpt.apis.conversation import Conversation
from mmgpt.apis.inferencer import MMGPTInferencer
from mmgpt.apis.pictures import read_picture

__all__ = ["Chat", "Conversation", "MMGPTInferencer", "build_model", "read_picture"]
