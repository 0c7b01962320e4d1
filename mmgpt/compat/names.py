"""Names of an earlier release that configs, checkpoints and exported folders may have, with their present names.

They are accepted for one release, with a warning that names the new one; then they are removed here.
"""

import logging
from collections.abc import Mapping

from mmengine.logging import print_log

# Types that configs name.
TYPES = {
    "LostAnswersHook": "DroppedSamplesHook",
    "PartsTableHook": "ModelSummaryHook",
    "TrainedCheckpointHook": "TrainableCheckpointHook",
    "TrainedOptimWrapperConstructor": "TrainableOptimWrapperConstructor",
    "UnevenDataParallel": "UnusedParamsDDP",
}
# Arguments by the present name of their type.
ARGUMENTS: dict[str, dict[str, str]] = {}


def with_present_names(values: Mapping, source: object) -> dict:
    """The entries of a config with every type and argument under its present name.

    Where a dict has an argument under both names, the value under the old one is used: it is the user's, since no
    config of this release has the old name.

    Args:
        source: file that the config comes from, for the warning.
    """
    renamed: dict[str, str] = {}
    values = {key: _with_present_names(value, renamed) for key, value in values.items()}
    if renamed:
        names = ", ".join(f"{old!r} is {new!r} now" for old, new in renamed.items())
        text = f"{source} has names of an earlier release, which the next one refuses: {names}"
        print_log(text, "current", logging.WARNING)
    return values


def _with_present_names(value: object, renamed: dict[str, str]) -> object:
    if isinstance(value, (list, tuple)):
        return type(value)(_with_present_names(item, renamed) for item in value)
    if not isinstance(value, Mapping):
        return value
    items = {key: _with_present_names(item, renamed) for key, item in value.items()}
    # MMEngine's optimizer wrappers name the class that builds them beside their type.
    for key in ("type", "constructor"):
        if isinstance(items.get(key), str):
            scope, dot, name = items[key].rpartition(".")
            if name in TYPES and scope in ("", "mmgpt"):
                renamed[name] = TYPES[name]
                items[key] = scope + dot + TYPES[name]
    if isinstance(items.get("type"), str):
        for old, new in ARGUMENTS.get(items["type"].removeprefix("mmgpt."), {}).items():
            if old in items:
                renamed[old] = new
                items[new] = items.pop(old)
    return items
