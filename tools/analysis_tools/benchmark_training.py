"""Speed of training with several configs, side by side: forward and backward pass, without data loading.

    python tools/analysis_tools/benchmark_training.py configs/mmgpt/tiny_lora_joint.py configs/mmgpt/tiny_lora_packed.py

The configs take turns, a few batches each, so that other programs on the machine slow all of them alike. The table has
medians over the rounds, and the time per sample relative to the first config.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from rich.table import Table

# The folder benchmarks/ is not part of the package.
sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.rounds import Timer  # noqa: E402
from benchmarks.training import own_step  # noqa: E402
from mmgpt.apis import build_model  # noqa: E402
from mmgpt.cli import load_config, tool  # noqa: E402
from mmgpt.cli.options import add_cfg_options  # noqa: E402
from mmgpt.utils.progress_bar import progress_bar  # noqa: E402
from mmgpt.visualization.tables import print_tables  # noqa: E402


class Round(NamedTuple):
    """Counts of some batches (`positions` are tokens and padding) and the seconds that they took."""

    samples: int
    rows: int
    positions: int
    tokens: int
    seconds: float


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="+", metavar="CONFIG")
    parser.add_argument("--rounds", type=int, default=7, help="measurements of each config (default: 7)")
    parser.add_argument("--batches", type=int, default=5, help="batches per measurement (default: 5)")
    parser.add_argument("--device", help="default: the first GPU, or the CPU")
    add_cfg_options(parser, "all configs")
    return parser.parse_args(arguments)


def training_batches(cfg: Config) -> Iterator[dict]:
    """The training batches of a config, epoch after epoch."""
    loader = Runner.build_dataloader(cfg.train_dataloader, seed=cfg.get("seed", 0))
    while True:
        yield from loader


def measure(model: torch.nn.Module, batches: Sequence[dict]) -> Round:
    """One measurement: forward and backward pass of some batches."""
    batches = [model.data_preprocessor(batch, training=True) for batch in batches]

    def steps() -> None:
        for batch in batches:
            model.zero_grad(set_to_none=True)
            own_step(model, batch)

    seconds = Timer(next(model.parameters()).device)(steps)
    ids = [batch["input_ids"] for batch in batches]
    tokens = sum(int(batch["attention_mask"].sum()) for batch in batches)
    samples = sum(len(batch["metas"]) for batch in batches)
    return Round(samples, sum(map(len, ids)), sum(map(torch.numel, ids)), tokens, seconds)


def table(rounds: dict[str, list[Round]]) -> Table:
    """Table of the medians by config."""
    result = Table()
    for heading in ("config", "ms a sample", "relative", "tokens/s", "rows a sample", "padding"):
        result.add_column(heading, justify="left" if heading == "config" else "right")
    baseline = None
    for name, turns in rounds.items():
        per_sample = median(turn.seconds / turn.samples for turn in turns)
        baseline = baseline or per_sample
        speed = median(turn.tokens / turn.seconds for turn in turns)
        samples, rows, positions, tokens, _ = map(sum, zip(*turns, strict=True))
        cells = (f"{1e3 * per_sample:.2f}", f"{per_sample / baseline:.2f}", f"{speed:.0f}", f"{rows / samples:.2f}")
        result.add_row(name, *cells, f"{1 - tokens / positions:.0%}")
    return result


def main(arguments: Sequence[str] | None = None) -> None:
    """Build the models, measure them in turns, print the table."""
    args = parse_args(arguments)
    init_default_scope("mmgpt")
    configs = {path: load_config(path, args.cfg_options) for path in args.configs}
    models = {path: build_model(cfg, device=args.device).train() for path, cfg in configs.items()}
    data = {path: training_batches(cfg) for path, cfg in configs.items()}
    rounds: dict[str, list[Round]] = {path: [] for path in configs}
    with progress_bar("rounds", args.rounds + 1) as bar:
        for number in range(args.rounds + 1):
            for path, model in models.items():
                result = measure(model, list(islice(data[path], args.batches)))
                # The first round is a warm-up.
                if number:
                    rounds[path].append(result)
            bar.update()
    print_tables({f"Forward and backward, medians of {args.rounds} rounds of {args.batches} batches": table(rounds)})


if __name__ == "__main__":
    tool.run(main)
