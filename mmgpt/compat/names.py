"""Names that configs, checkpoints and exported folders had in an earlier release, and what they are called now.

They are accepted for one release, with a warning that names the new one; then their lines here go.
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
ARGUMENTS = {
    "Flamingo": {"reading": "image_attention"},
}


def with_present_names(values: Mapping, source: object) -> dict:
    """The dicts of a config with every type and argument under its present name.

    Where a dict has an argument under both names, the value under the old one stands: it is the user's, since no config
    of this release has it.

    Args:
        source: file that the config comes from, for the warning.
    """
    renamed: dict[str, str] = {}
    values = {key: _present(value, renamed) for key, value in values.items()}
    if renamed:
        names = ", ".join(f"{old!r} is {new!r} now" for old, new in renamed.items())
        told = f"{source} has names of an earlier release, which the next one refuses: {names}"
        print_log(told, "current", logging.WARNING)
    return values


def _present(value: object, renamed: dict[str, str]) -> object:
    if isinstance(value, (list, tuple)):
        return type(value)(_present(item, renamed) for item in value)
    if not isinstance(value, Mapping):
        return value
    items = {key: _present(item, renamed) for key, item in value.items()}
    kind = items.get("type")
    if isinstance(kind, str):
        scope, dot, name = kind.rpartition(".")
        if name in TYPES and scope in ("", "mmgpt"):
            renamed[name] = TYPES[name]
            items["type"] = scope + dot + TYPES[name]
        for old, new in ARGUMENTS.get(items["type"].removeprefix("mmgpt."), {}).items():
            if old in items:
                renamed[old] = new
                items[new] = items.pop(old)
    return items
