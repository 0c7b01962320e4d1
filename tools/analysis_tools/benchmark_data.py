"""Speed of loading and preparing a config's training data, and its use of memory (Linux).

    python tools/analysis_tools/benchmark_data.py configs/mmgpt/tiny_lora_joint.py

Prints samples per second of one core for each step of each training dataset's pipeline. --steps trains the model and
prints the share of time spent waiting for data; --records loads a generated file and prints the memory that it takes
in the main process and in each worker. Times are CPU times where possible, so that other programs on the machine
do not count.
"""

import argparse
import json
import logging
import multiprocessing
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import median

import numpy as np
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from PIL import Image
from rich.table import Table
from torch.utils.data import DataLoader

from mmgpt.cli import check_files, load_config, tool
from mmgpt.cli.files import SECTIONS
from mmgpt.cli.options import add_cfg_options
from mmgpt.datasets import InstructionDataset
from mmgpt.datasets.joint import mixed_datasets
from mmgpt.datasets.transforms import EachImage, LoadImages, PrepareImages, TokenizeSegments
from mmgpt.engine.runner import MMGPTRunner
from mmgpt.registry import DATASETS
from mmgpt.visualization.tables import print_tables

STAGES = {LoadImages: "decode", EachImage: "prepare", PrepareImages: "prepare", TokenizeSegments: "tokenize"}
# 'read' is the access to a record and its random generator, 'prompt' is every transform that STAGES does not name.
COLUMNS = ("read", "decode", "prepare", "prompt", "tokenize", "all")
CHUNK = 1000  # records
WARM_UP = 20  # training steps that are not counted
MB = 2**20


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Command line arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="config file")
    parser.add_argument("--samples", type=int, default=200, help="samples of each dataset in each round")
    parser.add_argument("--rounds", type=int, default=5, help="number of rounds, whose median is printed")
    parser.add_argument("--image-size", type=image_size, help="WIDTHxHEIGHT: JPEGs of that size replace the images")
    parser.add_argument("--steps", type=int, help=f"train so many steps instead, after {WARM_UP} to warm up")
    parser.add_argument("--records", type=int, help="load a generated file of this many records instead")
    parser.add_argument("--workers", type=int, default=2, help="processes that read the generated file")
    add_cfg_options(parser)
    return parser.parse_args(arguments)


def image_size(text: str) -> tuple[int, int]:
    """'WIDTHxHEIGHT' as a pair."""
    width, height = text.split("x")
    return int(width), int(height)


def stage_seconds(dataset: InstructionDataset, indices: Sequence[int], image: Path | None = None) -> dict[str, float]:
    """CPU seconds of each stage for some samples of a dataset, with ``image`` in place of their images if it is set."""
    seconds = dict.fromkeys(COLUMNS[:-1], 0.0)
    for index in indices:
        start = time.process_time()
        info = dataset.get_data_info(index)
        seconds["read"] += time.process_time() - start
        if image:
            info["images"], info["image_folder"] = [image.name] * len(info["images"]), str(image.parent)
        for step in dataset.pipeline.transforms:
            if info is not None:
                start = time.process_time()
                info = step(info)
                seconds[STAGES.get(type(step), "prompt")] += time.process_time() - start
    return seconds


def speeds(dataset: InstructionDataset, samples: int, rounds: int, image: Path | None) -> dict[str, float | None]:
    """Samples per second of one core by stage, and of all stages together: medians over rounds.

    Each round has other samples, spread over the dataset. None for a stage that a dataset does not have.
    """
    rounds_seconds = []
    stride = max(1, len(dataset) // samples)
    for number in range(1 + rounds):
        seconds = stage_seconds(dataset, range(number, number + samples * stride, stride), image)
        rounds_seconds.append(seconds | {"all": sum(seconds.values())})
    # The first round warms up caches.
    medians = {stage: median(seconds[stage] for seconds in rounds_seconds[1:]) for stage in COLUMNS}
    return {stage: samples / seconds if seconds else None for stage, seconds in medians.items()}


def write_image(path: Path, size: tuple[int, int]) -> Path:
    """Path of a new JPEG of a size (width, height) that takes about as long to decode as a photo."""
    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
    noisy = np.asarray(smooth) + rng.normal(0, 8, (size[1], size[0], 3))
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, quality=90)
    return path


class Stop(Exception):
    """Raised to end a training that is only measured."""


class StepTimes(Hook):
    """Hook that records the seconds of each step and of waiting for its data, and ends training after some steps."""

    priority = "VERY_LOW"

    def __init__(self, steps: int) -> None:
        self.steps, self.waiting, self.total = steps, [], []

    def after_train_iter(self, runner: Runner, *_: object, **__: object) -> None:  # MMEngine passes batch and outputs
        """Append the measurements of IterTimerHook."""
        for seconds, name in ((self.waiting, "data_time"), (self.total, "time")):
            seconds.append(runner.message_hub.get_scalar(f"train/{name}").current())
        if len(self.total) == self.steps:
            raise Stop


def train(cfg: Config, steps: int) -> StepTimes:
    """Train for some steps in a temporary folder, without checkpoints.

    Raises:
        ValueError: training ends before that.
    """
    with tempfile.TemporaryDirectory() as folder:
        cfg.work_dir, cfg.launcher = folder, "none"
        cfg.default_hooks = {**(cfg.get("default_hooks") or {}), "checkpoint": None}
        runner, times = MMGPTRunner.from_cfg(cfg), StepTimes(steps)
        runner.register_hook(times)
        try:
            runner.train()
        except Stop:
            runner.call_hook("after_train")
            return times
        finally:
            # The log file is removed with the folder.
            for handler in [item for item in runner.logger.handlers if isinstance(item, logging.FileHandler)]:
                handler.close()
                runner.logger.removeHandler(handler)
    raise ValueError(f"the config trains for {len(times.total)} steps only, not {steps}")


def write_records(path: Path, count: int) -> Path:
    """Path of a new annotation file of short conversations, each about one image."""
    with path.open("w") as file:
        for i in range(count):
            turn = {"question": f"What is on the table in image {i}?", "answer": f"A cup with the number {i}."}
            file.write(json.dumps({"images": [f"{i // 1000}/{i}.jpg"], "turns": [turn]}) + "\n")
    return path


def memory(process: int | str = "self") -> tuple[int, int]:
    """Private bytes of a process, and its proportional set size (PSS), which includes its share of shared memory."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    kilobytes = {name: int(line.split()[1]) for line in lines[1:] for name in [line.split(":")[0]]}
    return 1024 * (kilobytes["Private_Clean"] + kilobytes["Private_Dirty"]), 1024 * kilobytes["Pss"]


def memory_figures(folder: Path, count: int, workers: int) -> Iterator[tuple[str, str]]:
    """Figures about an annotation file of ``count`` records: what each is, and its value with its unit."""
    path = write_records(folder / "records.jsonl", count)
    before, start = memory()[0], time.perf_counter()
    dataset = InstructionDataset("conversation", ann_file=str(path), pipeline=[len])
    yield "annotation file", _mb(path.stat().st_size)
    yield "time to load", f"{time.perf_counter() - start:.1f} s"
    yield "main process: private, more than before", _mb(memory()[0] - before)
    loader = DataLoader(dataset, batch_size=CHUNK, num_workers=workers, collate_fn=len, shuffle=True)
    for number, _ in enumerate(loader, start=1):
        # At the end each worker has read its share of the records; copies of them would be in its private memory.
        for chunk, name in ((2 * workers, "first"), (len(loader) - workers, "last")):
            if number == chunk:
                private, pss = zip(*(memory(child.pid) for child in multiprocessing.active_children()), strict=True)
                yield f"each worker at its {name} records: private", _mb(median(private))
                yield f"each worker at its {name} records: PSS", _mb(median(pss))


def _mb(count: float) -> str:
    return f"{count / MB:.0f} MB"


def speed_table(cfg: Config, args: argparse.Namespace, folder: Path) -> Table:
    """Table of samples per second of one core: a line for each training dataset, a column for each stage."""
    table = Table()
    table.add_column("dataset", no_wrap=True)
    for stage in COLUMNS:
        table.add_column(stage, justify="right")
    image = write_image(folder / "image.jpg", args.image_size) if args.image_size else None
    for dataset in mixed_datasets(DATASETS.build(cfg.train_dataloader.dataset)):
        by_stage = speeds(dataset, args.samples, args.rounds, image)
        table.add_row(dataset.name, *("–" if speed is None else f"{speed:,.0f}" for speed in by_stage.values()))
    return table


def figure_table(figures: Iterable[tuple[str, str]]) -> Table:
    """Table with a line for each figure."""
    table = Table(show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(justify="right")
    for figure in figures:
        table.add_row(*figure)
    return table


def step_figures(times: StepTimes) -> Iterator[tuple[str, str]]:
    """Median time of the steps after the warm-up, and the share of it spent waiting for data."""
    waiting, total = times.waiting[WARM_UP:], times.total[WARM_UP:]
    yield "median step", f"{1000 * median(total):.0f} ms"
    yield "median wait for data", f"{1000 * median(waiting):.1f} ms"
    # With sorted batches a few steps wait for many batches at a time, which a median does not show.
    yield "share of all steps' time spent waiting", f"{sum(waiting) / sum(total):.1%}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print tables."""
    args = parse_args(arguments)
    if min(args.samples, args.rounds, args.workers) < 1:
        raise ValueError("--samples, --rounds and --workers must be at least 1")
    cfg = load_config(args.config, args.cfg_options)
    used = (
        {"train_dataloader", "model", "load_from", "default_hooks", "custom_hooks"}
        if args.steps
        else {"train_dataloader"}
    )
    check_files(cfg, skip=set(SECTIONS) - used)
    init_default_scope(cfg.get("default_scope", "mmgpt"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if args.records:
            title = f"{args.records:,} records, {args.workers} workers"
            print_tables({title: figure_table(memory_figures(folder, args.records, args.workers))})
        if args.steps:
            print_tables({f"{args.steps} training steps": figure_table(step_figures(train(cfg, WARM_UP + args.steps)))})
        if not args.records and not args.steps:
            torch.set_num_threads(1)
            print_tables({"Samples per second of one core": speed_table(cfg, args, folder)})


if __name__ == "__main__":
    tool.run(main)
