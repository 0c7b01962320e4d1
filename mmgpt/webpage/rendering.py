"""HTML of the page, in which all text is escaped, and files of a conversation to save."""

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import escape
from PIL import Image

from mmgpt.apis.inputs import read_image
from mmgpt.inference.answer import Answer

from .session import Turn

ASSETS = Path(__file__).parent / "assets"  # templates, style and script
DISPLAY_SIDE = 512  # pixels of the longer side of an image on the page
PNG_SIDE = 256  # An image up to this size stays lossless.


class Example(NamedTuple):
    """First question that a visitor can click on, and the files of its images."""

    question: str
    files: tuple[str, ...] = ()


def read_examples(file: str | Path) -> list[Example]:
    """The examples of a JSON file: a list of {"text": question, "files": [images beside the file]}."""
    folder = Path(file).parent
    entries = json.loads(Path(file).read_text(encoding="utf-8"))
    return [Example(entry["text"], tuple(str(folder / name) for name in entry["files"])) for entry in entries]


def title_html(title: str) -> str:
    """The title of the page."""
    return f"<h1>{escape(title)}</h1>"


def turns_html(turns: Sequence[Turn], edited: int | None = None, examples: Sequence[Example] = ()) -> str:
    """The answered turns with their buttons; without turns, the examples."""
    examples = [(example.question, [data_uri(read_image(file)) for file in example.files]) for example in examples]
    return _render("conversation.html", turns=turns, edited=edited, examples=examples)


def pending_html(pending: Sequence[Turn] | None, text: str = "") -> str:
    """The last of the pending turns with the text of its answer so far; empty for None."""
    return _render("pending.html", number=len(pending), turn=pending[-1]._replace(answer=text)) if pending else ""


def notice_html(text: str, button: str = "") -> str:
    """A message above the question, with a button that keeps the turns being replaced; empty without a text."""
    sentence = text[:1].upper() + text[1:].rstrip(".") + "."
    return _render("notice.html", text=sentence, button=button) if text else ""


def answer_stats(answer: Answer) -> str:
    """Tokens and times of an answer, in one line of text."""
    seconds = answer.seconds - answer.seconds_to_first
    stats = [f"{answer.completion_tokens} tokens"]
    if answer.completion_tokens > 1 and seconds > 0:
        stats.append(f"{(answer.completion_tokens - 1) / seconds:.1f} tokens/s")
    stats.append(f"first after {answer.seconds_to_first:.2f} s")
    stats.append(f"prompt {answer.prompt_tokens} tokens, {answer.cached_tokens} of them cached")
    ends = {"cancelled": "stopped", "length": "cut: the longest answer was reached"}
    return " · ".join([*stats, *filter(None, [ends.get(answer.finish_reason)])])


def saved_page(turns: Sequence[Turn], title: str) -> str:
    """A conversation as one HTML file."""
    return _render("saved_page.html", turns=turns, title=title)


def saved_json(turns: Sequence[Turn]) -> str:
    """A conversation as JSON: the messages of OpenAI's chat completions, images as data URIs."""
    messages = []
    for turn in turns:
        images = [{"type": "image_url", "image_url": {"url": data_uri(image, None)}} for image in turn.images]
        messages.append({"role": "user", "content": [*images, {"type": "text", "text": turn.question}]})
        messages.append({"role": "assistant", "content": turn.answer})
    return json.dumps({"messages": messages}, ensure_ascii=False, indent=1)


def data_uri(image: Image.Image, side: int | None = DISPLAY_SIDE) -> str:
    """An image as a data URI, made smaller if its longer side is above `side`: PNG up to PNG_SIDE, else JPEG."""
    if side is not None and max(image.size) > side:
        image = image.copy()
        image.thumbnail((side, side))
    kind, stream = "png" if max(image.size) <= PNG_SIDE else "jpeg", io.BytesIO()
    image.save(stream, kind, quality=90)
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"


_TEMPLATES = Environment(
    loader=FileSystemLoader(ASSETS), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
_TEMPLATES.filters["data_uri"] = data_uri


def _render(template: str, **variables) -> str:
    # jinja takes any variables: each template has its own.
    return _TEMPLATES.get_template(template).render(variables)
