"""Rows for pages of samples, and a reader that parses such a page into elements."""

from html.parser import HTMLParser

from PIL import Image

from mmgpt.datasets.inspection.token_spans import TokenSpan
from mmgpt.datasets.inspection.views import Row, Sample, ShownImage

VOID = {"img", "br", "meta"}


def span(text, supervised=False, kind="text", tokens=1):
    return TokenSpan(text, tuple(range(10, 10 + tokens)), supervised, kind)


def shown_image(number=1, size=(8, 8), colour="red", file="images/a.png", original=(40, 30)):
    return ShownImage(number, Image.new("RGB", size, colour), file, original, Image.new("RGB", original, colour))


def sample(*spans, shown_images=(), **changes):
    values = dict(dataset="photos", source="visual", file="data/train.json", record=7, id="x", images=len(shown_images))
    values |= dict(spans=list(spans), shown_images=list(shown_images), limit=64, cut=False) | changes
    return Sample(**values)


def row(*samples, number=0, left=0, right=0):
    return Row(number, list(samples), left, right)


class Element:
    """An HTML element: its name, its attributes, and its children, texts or elements."""

    def __init__(self, name, attributes):
        self.name, self.attributes, self.children = name, dict(attributes), []

    @property
    def text(self):
        return "".join(child if isinstance(child, str) else child.text for child in self.children)

    @property
    def classes(self):
        return (self.attributes.get("class") or "").split()

    def all(self, *classes, name=None):
        """The elements in this one, at any depth, that have these classes and this name, in order."""
        elements = []
        for child in self.children:
            if not isinstance(child, str):
                if set(classes) <= set(child.classes) and name in (None, child.name):
                    elements.append(child)
                elements += child.all(*classes, name=name)
        return elements


class _Reader(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open = [Element("page", ())]

    def handle_starttag(self, tag, attrs):
        element = Element(tag, attrs)
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag):
        assert self.open.pop().name == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        self.open[-1].children.append(data)


def read_page(path):
    """A page as an Element; asserts that every element is closed where HTML requires it."""
    reader = _Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    [page] = reader.open
    return page
