"""mmgpt: Flamingo-style vision-language models on MMEngine, tuned with LoRA on visual and language instructions."""

__version__ = "0.1.0"
