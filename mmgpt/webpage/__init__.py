"""Web page to chat with a model. It needs requirements/demo.txt (Gradio)."""
