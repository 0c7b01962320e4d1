"""What the page shows, as HTML in which no text can act, and a conversation as a file to keep."""

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import escape
from PIL import Image

from mmgpt.apis.pictures import read_picture
from mmgpt.inference.answer import Answer

from .session import Exchange

FOLDER = Path(__file__).parent / "look"  # templates, style and script
SHOWN = 512  # pixels of the longer side of a picture on the page
SMALL = 256  # a picture up to this size is kept as PNG, dot by dot


class Example(NamedTuple):
    """A first question to click on, with its pictures: files."""

    text: str
    files: tuple[str, ...] = ()


def read_examples(file: str | Path) -> list[Example]:
    """The examples of a JSON file: a list of {"text": question, "files": [pictures beside the file]}."""
    folder = Path(file).parent
    found = json.loads(Path(file).read_text(encoding="utf-8"))
    return [Example(entry["text"], tuple(str(folder / name) for name in entry["files"])) for entry in found]


def head(title: str) -> str:
    """The title."""
    return f"<h1>{escape(title)}</h1>"


def talk(exchanges: Sequence[Exchange], edited: int | None = None, examples: Sequence[Example] = ()) -> str:
    """All that was said, with buttons; before the first question the examples."""
    shown = [(example.text, [uri(read_picture(file)) for file in example.files]) for example in examples]
    return _render("talk.html", exchanges=exchanges, edited=edited, examples=shown)


def now(asked: Sequence[Exchange] | None, said: str = "") -> str:
    """The question that is being answered, and what is said so far."""
    return _render("now.html", number=len(asked), exchange=asked[-1]._replace(answer=said)) if asked else ""


def notice(text: str, button: str = "") -> str:
    """A message above the question, with the button that `talk.html` may have; no text, no message."""
    sentence = text[:1].upper() + text[1:].rstrip(".") + "."
    return _render("notice.html", text=sentence, button=button) if text else ""


def figures(answer: Answer) -> str:
    """What an answer took, in one line of text."""
    seconds = answer.seconds - answer.seconds_to_first
    parts = [f"{answer.completion_tokens} tokens"]
    if answer.completion_tokens > 1 and seconds > 0:
        parts.append(f"{(answer.completion_tokens - 1) / seconds:.1f} tokens/s")
    parts.append(f"first after {answer.seconds_to_first:.2f} s")
    parts.append(f"prompt {answer.prompt_tokens} tokens, {answer.cached_tokens} of them kept from before")
    ends = {"cancelled": "stopped", "length": "cut: the longest answer was reached"}
    return " · ".join([*parts, *filter(None, [ends.get(answer.finish_reason)])])


def saved_page(exchanges: Sequence[Exchange], title: str) -> str:
    """A conversation as a web page that needs no other file."""
    return _render("saved.html", exchanges=exchanges, title=title)


def saved_data(exchanges: Sequence[Exchange]) -> str:
    """A conversation as JSON: the messages of OpenAI's chat completions, pictures as data URIs."""
    messages = []
    for exchange in exchanges:
        parts = [{"type": "image_url", "image_url": {"url": uri(image, None)}} for image in exchange.pictures]
        messages.append({"role": "user", "content": [*parts, {"type": "text", "text": exchange.text}]})
        messages.append({"role": "assistant", "content": exchange.answer})
    return json.dumps({"messages": messages}, ensure_ascii=False, indent=1)


def uri(image: Image.Image, side: int | None = SHOWN) -> str:
    """A picture as a data URI, made smaller to fit; small ones exactly, others as JPEG."""
    if side is not None and max(image.size) > side:
        image = image.copy()
        image.thumbnail((side, side))
    kind, stream = "png" if max(image.size) <= SMALL else "jpeg", io.BytesIO()
    image.save(stream, kind, quality=90)
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"


def _render(template: str, **values) -> str:
    # `values` are jinja's: each template has its own.
    return _ENVIRONMENT.get_template(template).render(values)


_ENVIRONMENT = Environment(
    loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
_ENVIRONMENT.filters["uri"] = uri
