"""What the pages share: one file that needs no other, in which no text can act as HTML or hide."""

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
    """Fill a template of this folder (see base.html) with `values`, write it as a file, return its path."""
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
    """Text as HTML: a sign before each line break and tab, the code of what would be unseen or act on the text around.

    Signs are set apart by ``<i>``, so that they are not taken for text.
    """
    return Markup("").join(_visible(char) for char in str(text))


def data_uri(image: Image.Image, format: str = "png") -> str:
    """An image within an address, as 'png' or 'jpeg'."""
    stream = BytesIO()
    image.save(stream, format=format)
    return f"data:image/{format};base64,{b64encode(stream.getvalue()).decode()}"


def enlarged(image: Image.Image, side: int) -> tuple[int, int]:
    """Width and height of an image made as large as fits into a square, by a whole factor: its pixels stay squares."""
    factor = max(1, side // max(image.size))
    return image.width * factor, image.height * factor


def _visible(char: str) -> Markup:
    if char in SIGNS:
        return Markup(f"<i>{SIGNS[char]}</i>{char}")
    # Control and format characters (of the direction of text, zero width), lone surrogates, line separators.
    if unicodedata.category(char) in ("Cc", "Cf", "Co", "Cs", "Cn", "Zl", "Zp"):
        return Markup(f"<i>U+{ord(char):04X}</i>")
    return escape(char)
