"""Evaluates a model: ``python tools/test.py CONFIG [CHECKPOINT]``."""

import argparse
import gc
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, stdev

from mmengine.config import Config
from rich.table import Table

from mmgpt.cli import check_files, tool
from mmgpt.cli.image_control import KINDS, with_control
from mmgpt.cli.presets import ANSWERING, benchmarks
from mmgpt.utils.imports import heavy_imports


def parse_args() -> argparse.Namespace:
    """Command line."""
    parser = tool.parser(description="Evaluate a model on the test data of its config")
    parser.add_argument("checkpoint", nargs="?", help="checkpoint or exported folder; default: load_from of the config")
    parser.add_argument("--benchmark", help=f"instead of the config's: {', '.join(benchmarks())}, or a config file")
    parser.add_argument("--style", help="instruction (as in training and chat, the default) or openflamingo")
    parser.add_argument("--answering", choices=sorted(ANSWERING), help="how questions with choices are answered")
    parser.add_argument("--seeds", nargs="+", type=int, help="evaluate once with each `seed` (of in-context examples)")
    parser.add_argument("--controls", nargs="+", choices=KINDS, default=[], help="evaluate with wrong images, too")
    parser.add_argument("--resume", action="store_true", help="continue an interrupted evaluation of the same settings")
    parser.add_argument("--out", help="JSON file for the metrics; default: test_metrics.json in the work directory")
    args = parser.parse_args()
    options = dict(args.cfg_options or {})
    for name in ("benchmark", "style", "answering"):
        if name in options:
            print(f"--cfg-options {name}={options[name]} is --{name} {options[name]} now", file=sys.stderr)
        if getattr(args, name) is not None:
            options[name] = getattr(args, name)
    args.cfg_options = options
    return args


def configs(args: argparse.Namespace) -> Iterator[tuple[str, Config]]:
    """Name and config of each evaluation: for each seed the test data itself, then its controls."""
    for seed in args.seeds or [None]:
        if seed is not None:
            args.cfg_options = {**args.cfg_options, "seed": seed}
        cfg = tool.prepare(args)
        name = f"seed {cfg.get('seed')}"
        yield name, cfg
        for kind in args.controls:
            control = tool.prepare(args)
            control.test_dataloader.dataset = with_control(control.test_dataloader.dataset, kind)
            yield f"{name}, {kind} image", control


def check(cfg: Config, args: argparse.Namespace) -> None:
    """Checks the files of an evaluation before a model is built.

    Raises:
        ValueError: the config has no test data.
        FileNotFoundError: there is no such checkpoint, or files that the config names are missing.
    """
    if not cfg.get("test_dataloader"):
        raise ValueError(f"{args.config} sets no test_dataloader: there is nothing to test; choose a --benchmark")
    if args.checkpoint and not Path(args.checkpoint).exists():
        raise FileNotFoundError(f"there is no checkpoint {args.checkpoint!r}")
    check_files(cfg, skip=("train_dataloader", "val_dataloader", "val_evaluator"))


def evaluate(cfg: Config, args: argparse.Namespace) -> dict:
    """Metrics of one evaluation."""
    import torch

    from mmgpt.engine.runner import MMGPTRunner

    # The `resume` of a config belongs to its training.
    cfg.load_from, cfg.resume = args.checkpoint or cfg.get("load_from"), False
    if args.resume:
        cfg.test_cfg.resume = True
    metrics = MMGPTRunner.from_cfg(cfg).test()
    # Runner and loop refer to each other: without a collection, the model would stay in memory beside the next one.
    gc.collect()
    torch.cuda.empty_cache()
    return metrics


def over_seeds(runs: dict[str, dict]) -> dict[str, dict]:
    """Mean and standard deviation (of a sample: over n - 1) of each metric over the seeds, for each kind of images."""
    kinds: dict[str, list[dict]] = {}
    for name, metrics in runs.items():
        kinds.setdefault(name.partition(", ")[2], []).append(metrics)
    statistics = {}
    for kind, metrics_of_seeds in kinds.items():
        columns = {key: [metrics[key] for metrics in metrics_of_seeds] for key in metrics_of_seeds[0]}
        for name, function in (("mean", mean), ("deviation", stdev)):
            statistics[f"{name}, {kind}" if kind else name] = {key: function(col) for key, col in columns.items()}
    return statistics


def table(runs: dict[str, dict]) -> Table:
    """Table with a line for each metric and a column for each run."""
    result = Table("metric")
    for name in runs:
        result.add_column(name, justify="right")
    for key in next(iter(runs.values())):
        values = [metrics.get(key, "–") for metrics in runs.values()]
        result.add_row(key, *(f"{value:.2f}" if isinstance(value, float) else str(value) for value in values))
    return result


def main() -> None:
    """Runs the evaluations of the command line; prints and writes their metrics."""
    args = parse_args()
    if len(set(args.seeds or ())) < len(args.seeds or ()):
        raise ValueError(f"--seeds {' '.join(map(str, args.seeds))}: a seed is repeated")
    evaluations = dict(configs(args))
    for cfg in evaluations.values():
        check(cfg, args)
    from mmengine.dist import is_distributed, is_main_process

    from mmgpt.evaluation.readiness import check_evaluation
    from mmgpt.evaluation.results import write_json
    from mmgpt.visualization.tables import print_tables

    # Only the first evaluation is checked here: the loop checks each of the others before its first answer.
    if is_distributed() or int(os.environ.get("RANK", 0)) == 0:
        check_evaluation(next(iter(evaluations.values())))
    with heavy_imports():  # They take seconds, which --help and errors in paths and data do not need.
        import mmgpt.engine.runner  # noqa: F401 for `evaluate`
    runs = {name: evaluate(cfg, args) for name, cfg in evaluations.items()}
    if not is_main_process():
        return
    if len(args.seeds or ()) > 1:
        runs |= over_seeds(runs)
    result = runs if len(runs) > 1 else next(iter(runs.values()))
    work_dir = Path(next(iter(evaluations.values())).work_dir)
    write_json(result, Path(args.out or work_dir / "test_metrics.json"))
    if len(runs) > 1:
        print_tables({"Metrics": table(runs)})
    else:
        print(json.dumps(result, indent=2))


if __name__ == "__main__":
    tool.run(main)
