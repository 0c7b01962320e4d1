"""Names of an earlier release that configs, checkpoints and exported folders may have, with their present names.

They are accepted for one release, with a warning that names the new one; then they are removed here.
"""

import logging
import re
from collections.abc import Iterable, Mapping

from mmengine.logging import print_log

# Types in configs.
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
# Variables of a config, and the settings that replace them. `{benchmark}` stands for the chosen benchmark.
VARIABLES = {
    "weight_decay": "optim_wrapper.optimizer.weight_decay",
    "train_tokens": "model.train_tokens",
    "image_size": "prepare_images.size",
    "image_mean": "prepare_images.mean",
    "image_std": "prepare_images.std",
    "answering_{benchmark}": "answering",
    "eval_{benchmark}": "test_dataloader.dataset",
    "metric_{benchmark}": "test_evaluator",
}
# Values of removed variables, for configs that refer to them.
FORMER_VALUES = {
    "weight_decay": 0.1,
    "train_tokens": None,
    "custom_hooks": [],
    "load_from": None,
    "image_size": 224,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
# Removed variables that no setting replaces: patterns of their names, and what to do instead.
REMOVED = {
    r"(eval|metric|task|answering)_(aokvqa|aokvqa_direct|coco_caption|flickr30k|gqa|language|nocaps|ocr_vqa|okvqa|pope|"
    r"scienceqa|snli_ve|textvqa|vizwiz|vqav2|vqav2_test_dev)": "a benchmark is a file of configs/benchmarks now: it is "
    "chosen by `benchmark`, and sets test_dataloader, test_evaluator and test_cfg",
    r"(length|length_penalty|cut_at)_(vqa|caption)|(generation|template|cut_at|caption_question)_(instruction|"
    r"openflamingo)|steps_(ranking|generation)": "a style is a file of configs/benchmarks/styles now: set generation, "
    "question_template or test_cfg.cut_at instead",
    r"track_(files|tensorboard|wandb|wandb_offline)": "set visualizer.vis_backends instead",
    r"sizes": "sizes are read from the config files of the language model and the image encoder now",
}


def with_present_names(values: Mapping, source: object) -> dict:
    """The entries of a config with every type and argument under its present name.

    Where a dict has an argument under both names, the value under the old one is used: it is the user's, since no
    config of this release has the old name.

    Args:
        source: file that the config comes from, for the warning.
    """
    renamed: dict[str, str] = {}
    values = {key: _with_present_names(value, renamed) for key, value in values.items()}
    warn_of_names(renamed, source)
    return values


def advice_on(name: str) -> str:
    """The end of an error about an unknown variable, where an earlier release had one of that name."""
    return next((f"; {advice}" for pattern, advice in REMOVED.items() if re.fullmatch(pattern, name)), "")


def present_variable(name: str, benchmark: object) -> str | None:
    """The setting that replaces a variable of an earlier release; None for a variable of a user's own.

    Args:
        name: top-level name of a config.
        benchmark: the chosen benchmark.
    """
    return {old.format(benchmark=benchmark): new for old, new in VARIABLES.items()}.get(name)


def warn_of_removed(names: Iterable[str], source: object) -> None:
    """Logs a warning, which says what to do instead, about variables of a config that are among REMOVED."""
    by_advice: dict[str, list[str]] = {}
    for name in names:
        by_advice.setdefault(advice_on(name), []).append(name)
    for advice, removed in by_advice.items():
        if advice:
            text = f"{source} sets {', '.join(removed)} without effect{advice}"
            print_log(text, "current", logging.WARNING)


def warn_of_names(renamed: Mapping[str, str], source: object) -> None:
    """Logs a warning about names of an earlier release, by the present ones; nothing when there are none."""
    if renamed:
        names = ", ".join(f"{old!r} is {new!r} now" for old, new in renamed.items())
        text = f"{source} has names of an earlier release, which the next one refuses: {names}"
        print_log(text, "current", logging.WARNING)


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
