"""OpenAI-compatible chat-completions server around a `Chat`: ``tools/serve.py`` runs it, docs/chat.md describes it."""
