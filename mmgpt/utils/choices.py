"""The end of error messages about a name that is not among the choices."""

import difflib
from collections.abc import Iterable


def suggest(value: str, choices: Iterable[str]) -> str:
    """The end of an error message about an unknown ``value``: the nearest of ``choices``, then all of them."""
    choices = sorted(choices)
    near = difflib.get_close_matches(value, choices, n=1)
    return (f"; did you mean {near[0]!r}?" if near else ".") + f" Choices: {', '.join(choices)}"
