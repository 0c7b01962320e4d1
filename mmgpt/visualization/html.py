"""Self-contained HTML files from templates, in which text cannot act as HTML or be invisible."""

import unicodedata
from base64 import b64encode
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from PIL import Image

SIGNS = {"\n": "⏎", "\t": "⇥"}


def write_html(template: str, path: str | Path, values: Mapping) -> Path:
    """Write a template of this folder (see base.html), filled with `values`, as a file; returns its path."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters.update(visible=visible, uri=data_uri, size=enlarged)
    text = environment.get_template(template).render(values)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def visible(text: object) -> Markup:
    """Text as HTML, with a sign before each line break and tab, and the code points of invisible characters.

    Signs and codes stand in ``<i>``, which sets them apart from the text.
    """
    pieces = []
    for char in str(text):
        if char in SIGNS:
            pieces.append(Markup(f"<i>{SIGNS[char]}</i>{char}"))
        # These are control and format characters (text direction, zero width), lone surrogates and line separators.
        elif unicodedata.category(char) in ("Cc", "Cf", "Co", "Cs", "Cn", "Zl", "Zp"):
            pieces.append(Markup(f"<i>U+{ord(char):04X}</i>"))
        else:
            pieces.append(escape(char))
    return Markup("").join(pieces)


def data_uri(image: Image.Image, format: str = "png") -> str:
    """An image as a data URI, in the format 'png' or 'jpeg'."""
    stream = BytesIO()
    image.save(stream, format=format)
    return f"data:image/{format};base64,{b64encode(stream.getvalue()).decode()}"


def enlarged(image: Image.Image, side: int) -> tuple[int, int]:
    """Width and height of an image enlarged by the largest integer factor with which it fits into a square."""
    factor = max(1, side // max(image.size))
    return image.width * factor, image.height * factor
