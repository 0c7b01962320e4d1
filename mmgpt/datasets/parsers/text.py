"""Parsers of instructions without images: Dolly and Alpaca."""

from mmgpt.registry import PARSERS

from .fields import OTHER_IMAGES, field, optional_text, refuse_images, refuse_other_media


@PARSERS.register_module(name="dolly")
def dolly(record: dict) -> dict:
    """Line of databricks-dolly-15k.jsonl: instruction, context (or empty, or null), response."""
    return _instruction(record, "instruction", "context", "response")


@PARSERS.register_module(name="alpaca")
def alpaca(record: dict) -> dict:
    """Record in Stanford Alpaca's layout (alpaca_gpt4_data.json): instruction, input (or empty, or null), output."""
    return _instruction(record, "instruction", "input", "output")


def _instruction(record: dict, question: str, context: str, answer: str) -> dict:
    refuse_other_media(record)
    refuse_images(record, ("image", "images", *OTHER_IMAGES))
    turn = {"question": field(record, question).strip(), "answer": field(record, answer).strip()}
    # Leading spaces of a context may be its layout (code, tables), so only trailing ones are removed.
    context_text = optional_text(record, context).rstrip()
    return {"id": "", "images": [], "turns": [dict(turn, context=context_text) if context_text else turn]}
