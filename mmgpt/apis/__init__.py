"""What the demos, the command line and the server share: a chat with a tuned model."""

from mmgpt.apis.build import build_model
from mmgpt.apis.chat import Chat, read_picture
from mmgpt.apis.conversation import Conversation

__all__ = ["Chat", "Conversation", "build_model", "read_picture"]
