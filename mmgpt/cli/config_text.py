"""Values that a config may hold, and their Python text, which reads back as the same values."""

import keyword
import math
from collections.abc import Iterable, Mapping
from pathlib import PurePath

from mmengine.config import Config

SCALARS = (type(None), bool, int, float, str, bytes)
WIDTH = 110
# Limit of nested brackets: Python's parser fails above 200, a deep copy of an MMEngine Config earlier.
DEEPEST = 60


class PlainConfig(Config):
    """Config of plain values whose text reads back as the same values; MMEngine's writes infinity as `inf`."""

    @property
    def pretty_text(self) -> str:
        """The config as Python text: a line for each variable in alphabetical order, long ones wrapped."""
        return "".join(f"{name}={_text(value, 0)}\n" for name, value in sorted(self.to_dict().items()))


def plain_value(value: object, location: str) -> object:
    """Plain form of a single value of a config: paths become text, NumPy's numbers Python's.

    Raises:
        ValueError: the value cannot be written; the message names ``location``.
    """
    if isinstance(value, PurePath):
        return str(value)
    if type(value).__module__ == "numpy" and getattr(value, "shape", None) == () and hasattr(value, "item"):
        value = value.item()
    if is_plain(value):
        return value
    raise ValueError(
        f"{location}={value!r} in the config is of the type {type(value).__name__}, which cannot be written down and "
        "read again: choose one of None, bool, int, float, str, bytes, and lists, tuples, sets and dicts of them"
    )


def is_plain(value: object) -> bool:
    """Whether a value can be written as Python text, and read back."""
    if isinstance(value, Mapping):
        return all(is_plain(item) for pair in value.items() for item in pair)
    if isinstance(value, (list, tuple, set, frozenset)):
        return all(is_plain(item) for item in value)
    return type(value) in SCALARS


def _text(value: object, indent: int) -> str:
    """Python text of a value: in one line where it fits, else a line for each item."""
    if isinstance(value, Mapping):
        named = all(isinstance(key, str) and key.isidentifier() and not keyword.iskeyword(key) for key in value)
        pairs = sorted(value.items(), key=lambda pair: str(pair[0]))
        items = [f"{key}=" if named else f"{_text(key, 0)}: " for key, _ in pairs]
        opening, closing = ("dict(", ")") if named else ("{", "}")
        return _laid_out(opening, items, [item for _, item in pairs], closing, indent)
    if isinstance(value, list):
        return _laid_out("[", [""] * len(value), value, "]", indent)
    if isinstance(value, tuple):
        return _laid_out("(", [""] * len(value), value, ",)" if len(value) == 1 else ")", indent)
    if isinstance(value, (set, frozenset)):
        return f"{type(value).__name__}({_text(sorted(value, key=repr), indent)})"
    if isinstance(value, float) and not math.isfinite(value):
        return f"float('{value}')"
    if type(value) not in SCALARS:
        raise ValueError(f"a config cannot hold {value!r}, of the type {type(value).__name__}")
    return repr(value)


def _laid_out(opening: str, names: Iterable[str], values: Iterable[object], closing: str, indent: int) -> str:
    """Python text of named items in brackets: in one line where it fits, else a line for each item."""
    inner = indent + 4
    items = [name + _text(value, inner) for name, value in zip(names, values, strict=True)]
    line = opening + ", ".join(items) + closing
    if len(line) + indent <= WIDTH and "\n" not in line:
        return line
    lines = "".join(f"{' ' * inner}{item},\n" for item in items)
    return f"{opening}\n{lines}{' ' * indent}{closing.removeprefix(',')}"
