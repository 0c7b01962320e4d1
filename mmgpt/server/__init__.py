"""An OpenAI chat-completions server around a `Chat`: ``tools/serve.py`` runs it, docs/chat.md describes it."""

from mmgpt.server.app import create_app
from mmgpt.server.run import make_server
from mmgpt.server.settings import Settings

__all__ = ["Settings", "create_app", "make_server"]
