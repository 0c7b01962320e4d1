"""Presets: short names in a config or an option that stand for settings of a config.

`benchmark` names a file of configs/benchmarks, `style` one of the styles that this file lists, `answering` how
questions with choices are answered, `tracker` the backends of the visualizer, and `validate` says whether the config's
`validation` is part of training. `load_config` replaces them by what they stand for.
"""

from collections.abc import Mapping
from pathlib import Path

from mmengine.config import Config

from mmgpt.utils.choices import suggest

from .config_file import read_config
from .trackers import TRACKERS

BENCHMARKS = Path(__file__).resolve().parents[2] / "configs" / "benchmarks"
# The style of the experiment itself, for which no file is merged.
INSTRUCTION = "instruction"
ANSWERING = {"ranking": "${rank_steps}", "generation": "${question_steps}"}
PRESETS = ("benchmark", "style", "answering", "tracker", "validate")


def benchmarks() -> list[str]:
    """Names of the benchmarks that the project brings."""
    return sorted(path.stem for path in BENCHMARKS.glob("*.py"))


def apply_presets(cfg: Config, options: Mapping[str, object]) -> None:
    """Replaces the presets of a config, changed in place, by what they stand for.

    1. A tracker sets the visualizer's backends; `validate` sets those of `val_dataloader`, `val_evaluator`, `val_cfg`
       that the config does not set itself, and the checkpoint hook's `save_best`.
    2. A benchmark is merged under the config's own `test_dataloader`, `test_evaluator` and `test_cfg`, as if its file
       were a base of the config. A benchmark that an option names replaces the config's own test data instead; of the
       loader, settings such as the batch size stay.
    3. A style is merged over the result.

    Args:
        options: the presets among the options, which come before the config's own.

    Raises:
        KeyError: there is no such benchmark, style, way of answering or tracker.
        ValueError: a style or a way of answering comes without a benchmark that has it, or `validate` without
            `validation`.
    """
    benchmark, style, answering, tracker, validate = (options.get(name, cfg.get(name)) for name in PRESETS)
    validation = cfg.get("validation")
    for name in (*PRESETS, "validation"):
        cfg.pop(name, None)
    if tracker is not None:
        cfg.merge_from_dict({"visualizer.vis_backends": _choose("tracker", tracker, TRACKERS)})
    if validate:
        if not validation:
            raise ValueError("validate=True: the config has no `validation` (see configs/mmgpt/lora_joint.py)")
        for name in ("val_dataloader", "val_evaluator", "val_cfg"):
            cfg.setdefault(name, validation[name])
        cfg.merge_from_dict({"default_hooks.checkpoint": {"save_best": validation["save_best"], "rule": "greater"}})
    if benchmark is None:
        for name, value in (("style", style), ("answering", answering)):
            if value not in (None, INSTRUCTION):
                raise ValueError(f"{name}={value!r} needs a benchmark: choose one of {', '.join(benchmarks())}")
        return
    file = Path(benchmark) if str(benchmark).endswith(".py") else BENCHMARKS / f"{benchmark}.py"
    task = cfg.pop(f"task_{benchmark}", None)
    if task and not file.is_file():
        # A config of an earlier release describes a benchmark by `eval_NAME`, `metric_NAME` and `task_NAME`. The first
        # two are the config's own test data by now; the loader and the styles are those of any benchmark of that task.
        file = BENCHMARKS / ("nocaps.py" if task == "caption" else "okvqa.py")
        options = {}
    if not file.is_file():
        raise KeyError(f"unknown benchmark {benchmark!r}" + suggest(str(benchmark), benchmarks()))
    values = read_config(file).to_dict()
    styles, default = values.pop("styles", {}), values.pop("answering", None)
    if answering is not None:
        if default is None:
            raise ValueError(f"answering={answering!r}: the questions of benchmark {benchmark!r} have no choices")
        old, new = ANSWERING[default], _choose("answering", answering, ANSWERING)
        values["test_dataloader"]["dataset"] = _with_steps(values["test_dataloader"]["dataset"], old, new)
    for name, value in values.items():
        changes = {name: cfg[name]} if name in cfg else {}
        if changes and "benchmark" in options:
            changes = {}
            if name == "test_dataloader":
                # The loader's settings stay, without a whole dataset; `dataset=dict(sample=500)` only changes one.
                loader = dict(cfg[name] or {})
                dataset = loader.get("dataset")
                if not isinstance(dataset, Mapping) or "type" in dataset:
                    loader.pop("dataset", None)
                changes = {name: loader}
        cfg[name] = Config._merge_a_into_b(changes, {name: value})[name]
    if style not in (None, INSTRUCTION):
        name = _choose("style", style, {INSTRUCTION: "", **styles})
        files = [folder / name for folder in (file.parent, BENCHMARKS) if (folder / name).is_file()]
        if not files:
            raise FileNotFoundError(f"{file}: its style {style!r} is {name!r}, which is not there, nor in {BENCHMARKS}")
        cfg.merge_from_dict(read_config(files[0]).to_dict())


def _choose(name: str, value: object, choices: Mapping) -> object:
    """The choice of this value; KeyError, with a suggestion, where there is none."""
    if value not in choices:
        raise KeyError(f"unknown {name} {value!r}" + suggest(str(value), choices))
    return choices[value]


def _with_steps(config: object, old: str, new: str) -> object:
    """The config of a dataset with other steps in its pipelines."""
    if isinstance(config, Mapping):
        return {key: _with_steps(value, old, new) for key, value in config.items()}
    if isinstance(config, list):
        return [_with_steps(value, old, new) for value in config]
    return new if config == old else config
