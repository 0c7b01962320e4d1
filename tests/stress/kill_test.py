"""Kills a training again and again and compares what it ends with to the same training left alone.

    python tests/stress/kill_test.py configs/mmgpt/tiny_lora_joint.py --work-dir work_dirs/kill_test \\
        --cfg-options default_hooks.checkpoint.interval=2

SIGKILL comes by turns while a checkpoint is written, between two of them, and at any moment after the start; each time
the run is started again with --resume. Weights and optimizer have to be equal bit by bit, which they are on CPUs. The
run has to be long enough, some four checkpoints a kill. Exit code 1: not equal, or over before the last kill.
"""

import argparse
import random
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from rich.table import Table
from torch import Tensor

from mmgpt.cli import tool
from mmgpt.cli.work_dir import newest_checkpoint
from mmgpt.engine.hooks.progress_bar import progress_bar
from mmgpt.utils.atomic import PART
from mmgpt.visualization.tables import print_tables

TRAIN = Path(__file__).parents[2] / "tools" / "train.py"
MOMENTS = ("write", "between", "any")


class Kill(NamedTuple):
    """One of them: when it was to come, the seconds that the process lived, what was cut, and where to go on."""

    moment: str
    seconds: float
    cut: str
    batches: int


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("--work-dir", type=Path, required=True, help="new folder for both runs")
    parser.add_argument("--kills", type=int, default=20, help="default: 20")
    parser.add_argument("--seconds", type=float, default=1.0, help="longest random wait (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="NAME=VALUE", help="as for tools/train.py")
    return parser.parse_args(arguments)


def batches_done(folder: Path) -> int:
    """How many batches the newest complete checkpoint has behind it; 0 without one."""
    path, _ = newest_checkpoint(folder)
    return torch.load(path, weights_only=True, mmap=True)["meta"]["iter"] if path else 0


def parts(folder: Path, since: float = 0.0) -> list[str]:
    """Names of the files that are being written, or were when a process was killed that began at that time."""
    return [path.name for path in folder.glob(f"*{PART}") if _written(path) >= since]


def _written(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except FileNotFoundError:  # complete in this moment
        return -1.0


def reached(moment: str, folder: Path, process: subprocess.Popen, dice: random.Random, longest: float) -> bool:
    """Wait for such a moment of a run; False when it ends before."""
    before, _ = newest_checkpoint(folder)
    deadline = time.monotonic() + dice.uniform(0, 10 * longest if moment == "any" else longest)
    started = moment == "any"
    while process.poll() is None:
        if not started and newest_checkpoint(folder)[0] != before:
            started, deadline = True, time.monotonic() + dice.uniform(0, longest)
        if started and time.monotonic() > deadline and (moment != "write" or parts(folder)):
            return True
        # A tiny checkpoint takes milliseconds.
        time.sleep(0 if moment == "write" and started else 0.01)
    return False


def killed(command: Sequence[str], folder: Path, moment: str, dice: random.Random, longest: float) -> Kill | None:
    """Start the run and kill it; None when it was over before."""
    start = time.time()
    with (folder.parent / "killed.log").open("a") as log:
        process = subprocess.Popen([*command, "--resume"], stdout=log, stderr=log)
    try:
        in_time = reached(moment, folder, process, dice, longest)
    finally:
        process.kill()
        code = process.wait()
    if code > 0:
        raise ValueError(f"the run failed with exit code {code}, see {folder.parent / 'killed.log'}")
    cut = ", ".join(parts(folder, start))
    return Kill(moment, time.time() - start, cut, batches_done(folder)) if in_time else None


def differences(a: object, b: object, place: str = "") -> list[str]:
    """Dotted names of what is not equal, bit by bit, in two checkpoints' weights and optimizers."""
    if isinstance(a, Mapping) and isinstance(b, Mapping) and a.keys() == b.keys():
        return [name for key in a for name in differences(a[key], b[key], f"{place}.{key}".lstrip("."))]
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)) and len(a) == len(b):
        both = zip(a, b, strict=True)
        return [name for i, (x, y) in enumerate(both) for name in differences(x, y, f"{place}[{i}]")]
    equal = torch.equal(a, b) if isinstance(a, Tensor) and isinstance(b, Tensor) else a == b
    return [] if equal else [place]


def table(kills: Sequence[Kill]) -> Table:
    """A line for each kill."""
    result = Table()
    for heading in ("kill", "moment", "after s", "cut file", "goes on after batch"):
        result.add_column(heading, justify="left" if heading in ("moment", "cut file") else "right")
    for number, kill in enumerate(kills, start=1):
        result.add_row(str(number), kill.moment, f"{kill.seconds:.1f}", kill.cut, str(kill.batches))
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Train without kills, train with them, compare; the exit code."""
    args = parse_args(arguments)
    if args.work_dir.exists() and any(args.work_dir.iterdir()):
        raise ValueError(f"--work-dir {args.work_dir} is not empty")
    whole, cut = args.work_dir / "whole", args.work_dir / "killed"
    cut.mkdir(parents=True)
    options = ["--cfg-options", *args.cfg_options] if args.cfg_options else []
    commands = {each: [sys.executable, TRAIN, args.config, "--work-dir", each, *options] for each in (whole, cut)}
    subprocess.run(commands[whole], check=True, stdout=subprocess.DEVNULL)
    dice, kills = random.Random(args.seed), []
    with progress_bar("kills", args.kills) as bar:
        for number in range(args.kills):
            kill = killed(commands[cut], cut, MOMENTS[number % len(MOMENTS)], dice, args.seconds)
            if kill is None:
                break
            kills.append(kill)
            bar.update()
    subprocess.run([*commands[cut], "--resume"], check=True, stdout=subprocess.DEVNULL)
    a, b = (torch.load(folder / "latest.pth", weights_only=True) for folder in (whole, cut))
    found = [name for key in ("state_dict", "optimizer") for name in differences(a[key], b[key], key)]
    print_tables(
        {f"{len(kills)} of {args.kills} kills, {sum(bool(kill.cut) for kill in kills)} in a write": table(kills)}
    )
    print(f"NOT EQUAL: {len(found)} tensors, e.g. {', '.join(found[:3])}" if found else "equal, bit by bit")
    return int(bool(found) or len(kills) < args.kills)


if __name__ == "__main__":
    tool.run(lambda: sys.exit(main()))
