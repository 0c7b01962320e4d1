"""The option --cfg-options of every tool: NAME=VALUE pairs on the command line, and the notation of a VALUE."""

import argparse
import re
from collections.abc import Sequence
from contextlib import suppress

CLOSING = {"(": ")", "[": "]", "{": "}"}
QUOTES = ("'", '"')


class ConfigOptions(argparse.Action):
    """argparse action that collects NAME=VALUE arguments in a dict of the names and the values of `parse_value`."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Sequence[str],
        option_string: str | None = None,
    ) -> None:
        """Add the pairs to those of earlier uses of the option; one that cannot be read ends the program."""
        options = dict(getattr(namespace, self.dest) or {})
        for pair in values:
            name, equals, value = pair.partition("=")
            if not (equals and name.strip()):
                raise argparse.ArgumentError(self, f"{pair!r} is not of the form NAME=VALUE")
            try:
                options[name.strip()] = parse_value(value)
            except (ValueError, RecursionError) as error:
                raise argparse.ArgumentError(self, f"{pair!r}: {error}") from error
        setattr(namespace, self.dest, options)


def add_cfg_options(parser: argparse.ArgumentParser, changes: str = "the config") -> None:
    """Add --cfg-options to the parser of a tool; ``changes`` names what it changes, for the help text."""
    text = f"change {changes}; quotes keep a comma: \"name='a, b'\""
    parser.add_argument("--cfg-options", nargs="+", action=ConfigOptions, metavar="NAME=VALUE", help=text)


def parse_value(text: str) -> object:
    """Parse a value in the notation of MMEngine's DictAction, except that blanks are kept.

    - 1, 1e-5, true, None: a number, a bool (in any case), None.
    - 'text' or "text": the string between the quotes, with its commas, brackets and backslashes.
    - a,b or [a, b]: a list; (a, b): a tuple; {'a': 1}: a dict with quoted keys. Elements are values in turn.
    - Anything else is a string without the blanks at its ends; quotes and brackets inside of it belong to it.

    Raises:
        ValueError: a quote or a bracket is not closed.
    """
    text = text.strip()
    if "," not in text and not text.startswith((*QUOTES, *CLOSING)):
        return _scalar(text)
    items, _ = _split(text)
    return _value(text) if items == [text] else [_value(item) for item in items]


def _value(item: str) -> object:
    """Parse a value that has no comma outside of quotes and brackets."""
    item = item.strip()
    if item.startswith(QUOTES):
        return item[1:-1]
    if item.startswith(tuple(CLOSING)):
        items, end = _split(item, 1, CLOSING[item[0]])
        # A string may begin with a bracket as well: the pattern (q|v)_proj does.
        if end == len(item):
            if item[0] == "{":
                return _dict(item, items)
            return (tuple if item[0] == "(" else list)(map(_value, items))
    return _scalar(item)


def _scalar(text: str) -> object:
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    return None if text == "None" else text


def _dict(text: str, items: Sequence[str]) -> dict | str:
    """The dict of items "'key': value"; the text itself if no item begins with a quote, as in '{question}'."""
    if items and not any(item.strip().startswith(QUOTES) for item in items):
        return text
    result = {}
    for item in map(str.strip, items):
        end = _after_quote(item, 0, "}") if item.startswith(QUOTES) else 0
        value = item[end:].strip()
        if not (end and value.startswith(":")):
            raise ValueError(f"{item!r} in a dict is not of the form 'key': value")
        result[item[1 : end - 1]] = _value(value[1:])
    return result


def _split(text: str, at: int = 0, closing: str = "") -> tuple[list[str], int]:
    """The items between commas, from a position to the closing bracket or the end, and the position after them.

    Commas in quotes and in inner brackets do not split, and an empty last item is dropped, as in DictAction.
    """
    items, start = [], at
    while at < len(text) and text[at] != closing:
        before = text[start:at].strip()
        begins = not before or (closing == "}" and before.endswith(":"))
        if text[at] == ",":
            items.append(text[start:at])
            start = at = at + 1
        elif begins and text[at] in QUOTES:
            at = _after_quote(text, at, closing)
        elif text[at] in "([" or (begins and text[at] == "{"):
            at = _split(text, at + 1, CLOSING[text[at]])[1]
        elif text[at] in ")]":
            raise ValueError(
                f"there is a {text[at]} too many (a text with brackets and commas needs quotes of its own)"
            )
        else:
            at += 1
    if closing and at == len(text):
        raise ValueError(f"a {closing} is missing (a text with brackets needs quotes of its own)")
    if text[start:at].strip():
        items.append(text[start:at])
    return items, at + len(closing)


def _after_quote(text: str, at: int, closing: str) -> int:
    """The position after the quote that closes the quote at a position: the first one at the end of an item."""
    pattern = re.compile(rf"{text[at]}(?=\s*(?:$|[,{re.escape(closing)}{':' * (closing == '}')}]))")
    match = pattern.search(text, at + 1)
    if match is None:
        raise ValueError(f"a {text[at]} is missing at the end of {text[at:]}")
    return match.end()
