"""Segments: the pieces of a prompt's text, with what a tokenizer and the loss need to know of each."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

IMAGE = "<image>"


class Segment(NamedTuple):
    """Piece of a prompt.

    Attributes:
        text: the text, or the name of a special token.
        supervised: whether its tokens have labels.
        special: whether it is one token (`<image>`, an end, a token that the template writes).
        rendered: whether it comes from the language model's own chat template. All text between two special tokens is
            then encoded as one, and the sequence starts only as the template says.
    """

    text: str
    supervised: bool = False
    special: bool = False
    rendered: bool = False


def join_segments(segments: Iterable[Segment]) -> list[Segment]:
    """Segments without empty ones, neighboring texts of one kind joined, so that a tokenizer sees them as a whole."""
    joined: list[Segment] = []
    for segment in segments:
        last = joined[-1] if joined else None
        if last and not last.special and last[1:] == segment[1:]:
            joined[-1] = last._replace(text=last.text + segment.text)
        elif segment.text:
            joined.append(segment)
    return joined


def prompt_text(segments: Sequence[Segment]) -> str:
    """Text of segments, special ones by their names."""
    return "".join(segment.text for segment in segments)
