"""The option --cfg-options of every tool: NAME=VALUE pairs on the command line, and what a VALUE means."""

import argparse
import re
from collections.abc import Sequence
from contextlib import suppress

CLOSING = {"(": ")", "[": "]", "{": "}"}
QUOTES = ("'", '"')


class ConfigOptions(argparse.Action):
    """argparse action that gathers NAME=VALUE arguments in a dict from the names to what `parse_value` reads."""

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
    """Add --cfg-options, which changes what ``changes`` names, to the parser of a tool."""
    words = f"change {changes}; quotes keep a comma: \"name='a, b'\""
    parser.add_argument("--cfg-options", nargs="+", action=ConfigOptions, metavar="NAME=VALUE", help=words)


def parse_value(text: str) -> object:
    """What the text of a value means, in the notation of MMEngine's DictAction, but with its blanks.

    - 1, 1e-5, true, None: a number, a bool (in any case), None.
    - 'text' or "text": the text between the quotes as it stands, with its commas, brackets and backslashes.
    - a,b or [a, b]: a list; (a, b): a tuple; {'a': 1}: a dict, whose keys are in quotes. Elements are values in turn.
    - Anything else is a text without the blanks at its ends; quotes and brackets inside of it belong to it.

    Raises:
        ValueError: a quote or a bracket is not closed.
    """
    text = text.strip()
    if "," not in text and not text.startswith((*QUOTES, *CLOSING)):
        return _scalar(text)
    parts, _ = _parts(text)
    return _value(text) if parts == [text] else [_value(part) for part in parts]


def _value(part: str) -> object:
    """The value of a text that has no comma outside of quotes and brackets."""
    part = part.strip()
    if part.startswith(QUOTES):
        return part[1:-1]
    if part.startswith(tuple(CLOSING)):
        parts, end = _parts(part, 1, CLOSING[part[0]])
        if end == len(part):  # else it only begins with a bracket, as the pattern (q|v)_proj does
            if part[0] == "{":
                return _dict(part, parts)
            return (tuple if part[0] == "(" else list)(map(_value, parts))
    return _scalar(part)


def _scalar(text: str) -> object:
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    return None if text == "None" else text


def _dict(text: str, parts: Sequence[str]) -> dict | str:
    """The dict of parts "'key': value"; the text itself if none of them begins with a quote, as in '{question}'."""
    if parts and not any(part.strip().startswith(QUOTES) for part in parts):
        return text
    result = {}
    for part in map(str.strip, parts):
        end = _after_quote(part, 0, "}") if part.startswith(QUOTES) else 0
        value = part[end:].strip()
        if not (end and value.startswith(":")):
            raise ValueError(f"{part!r} in a dict is not of the form 'key': value")
        result[part[1 : end - 1]] = _value(value[1:])
    return result


def _parts(text: str, at: int = 0, closing: str = "") -> tuple[list[str], int]:
    """The parts between commas from a position on until a bracket closes, or to the end, and the position after them.

    Commas in quotes and in further brackets do not count, and an empty last part goes, as in DictAction.
    """
    parts, start = [], at
    while at < len(text) and text[at] != closing:
        before = text[start:at].strip()
        begins = not before or (closing == "}" and before.endswith(":"))
        if text[at] == ",":
            parts.append(text[start:at])
            start = at = at + 1
        elif begins and text[at] in QUOTES:
            at = _after_quote(text, at, closing)
        elif text[at] in "([" or (begins and text[at] == "{"):
            at = _parts(text, at + 1, CLOSING[text[at]])[1]
        elif text[at] in ")]":
            raise ValueError(f"a {text[at]} is too much (a text with brackets and commas needs quotes of its own)")
        else:
            at += 1
    if closing and at == len(text):
        raise ValueError(f"a {closing} is missing (a text with brackets needs quotes of its own)")
    if text[start:at].strip():
        parts.append(text[start:at])
    return parts, at + len(closing)


def _after_quote(text: str, at: int, closing: str) -> int:
    """The position after the quote that closes the one at a position: the first one at the end of a part."""
    ends = re.compile(rf"{text[at]}(?=\s*(?:$|[,{re.escape(closing)}{':' * (closing == '}')}]))")
    found = ends.search(text, at + 1)
    if found is None:
        raise ValueError(f"a {text[at]} is missing at the end of {text[at:]}")
    return found.end()
