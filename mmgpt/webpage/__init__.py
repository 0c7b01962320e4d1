"""Chat on a web page. It needs requirements/demo.txt (Gradio)."""
