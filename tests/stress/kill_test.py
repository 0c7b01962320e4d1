"""Kill test: a training is killed many times and resumed, and its result compared with an uninterrupted training.

    python tests/stress/kill_test.py configs/mmgpt/tiny_lora_joint.py --work-dir work_dirs/kill_test \\
        --cfg-options default_hooks.checkpoint.interval=2

SIGKILL is sent in turn while a checkpoint is written, between two checkpoints, and at any moment after the start; each
time the run is started again with --resume. Weights and optimizer states have to be equal bit by bit, which they are on
CPUs. The run has to be long enough, about four checkpoints per kill. With --processes, it is one of several processes,
which are all killed. The exit code is 1 when the results differ, or when the run ended before the last kill.
"""

import argparse
import random
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil
import torch
from rich.table import Table
from torch import Tensor

from mmgpt.cli import tool
from mmgpt.cli.work_dir import newest_checkpoint
from mmgpt.utils.atomic import PART
from mmgpt.utils.progress_bar import progress_bar
from mmgpt.visualization.tables import print_tables

TRAIN = Path(__file__).parents[2] / "tools" / "train.py"
MOMENTS = ("write", "between", "any")


class Kill(NamedTuple):
    """One kill of the training."""

    moment: str  # one of MOMENTS
    seconds: float  # lifetime of the process
    cut: str  # names of the files that were being written
    batches: int  # batches of the newest complete checkpoint, after which the run is resumed


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("--work-dir", type=Path, required=True, help="new folder for both runs")
    parser.add_argument("--kills", type=int, default=20, help="default: 20")
    parser.add_argument("--processes", type=int, default=1, help="processes of a run, all killed at once (default: 1)")
    parser.add_argument("--seconds", type=float, default=1.0, help="longest random wait (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments (default: 0)")
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="NAME=VALUE", help="as for tools/train.py")
    return parser.parse_args(arguments)


def batches_done(folder: Path) -> int:
    """Number of batches done at the newest complete checkpoint; 0 without one."""
    path, _ = newest_checkpoint(folder)
    return torch.load(path, weights_only=True, mmap=True)["meta"]["iter"] if path else 0


def incomplete_files(folder: Path, since: float = 0.0) -> list[str]:
    """Names of the incomplete files in a folder that were written after a time."""
    return [path.name for path in folder.glob(f"*{PART}") if _modified(path) >= since]


def _modified(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except FileNotFoundError:  # The file may have been completed and renamed at this moment.
        return -1.0


def wait_for(moment: str, folder: Path, process: subprocess.Popen, rng: random.Random, longest: float) -> bool:
    """Wait for a moment of MOMENTS in a run; False when the run ends before."""
    previous, _ = newest_checkpoint(folder)
    deadline = time.monotonic() + rng.uniform(0, 10 * longest if moment == "any" else longest)
    started = moment == "any"
    while process.poll() is None:
        if not started and newest_checkpoint(folder)[0] != previous:
            started, deadline = True, time.monotonic() + rng.uniform(0, longest)
        if started and time.monotonic() > deadline and (moment != "write" or incomplete_files(folder)):
            return True
        # Writing a tiny checkpoint takes milliseconds, so there is no pause while one is awaited.
        time.sleep(0 if moment == "write" and started else 0.01)
    return False


def family(process: subprocess.Popen) -> list[psutil.Process]:
    """A process with all that it has started: torchrun's processes are in no group with it."""
    try:
        first = psutil.Process(process.pid)
        return [first, *first.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def start_and_kill(
    command: Sequence[str], folder: Path, moment: str, rng: random.Random, longest: float
) -> Kill | None:
    """Start the run and kill it; None when the run ended before."""
    start = time.time()
    with (folder.parent / "killed.log").open("a") as log:
        process = subprocess.Popen([*command, "--resume"], stdout=log, stderr=log)
    try:
        in_time = wait_for(moment, folder, process, rng, longest)
    finally:
        members = family(process)
        for member in members:
            with suppress(psutil.NoSuchProcess):
                member.kill()
        psutil.wait_procs(members)
        code = process.wait()
    if code > 0:
        raise ValueError(f"the run failed with exit code {code}, see {folder.parent / 'killed.log'}")
    cut = ", ".join(incomplete_files(folder, start))
    return Kill(moment, time.time() - start, cut, batches_done(folder)) if in_time else None


def differences(a: object, b: object, name: str = "") -> list[str]:
    """Dotted names of the values that are not equal, bit by bit, in the weights and optimizers of two checkpoints."""
    if isinstance(a, Mapping) and isinstance(b, Mapping) and a.keys() == b.keys():
        return [path for key in a for path in differences(a[key], b[key], f"{name}.{key}".lstrip("."))]
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)) and len(a) == len(b):
        pairs = zip(a, b, strict=True)
        return [path for i, (x, y) in enumerate(pairs) for path in differences(x, y, f"{name}[{i}]")]
    equal = torch.equal(a, b) if isinstance(a, Tensor) and isinstance(b, Tensor) else a == b
    return [] if equal else [name]


def table(kills: Sequence[Kill]) -> Table:
    """Table with a row for each kill."""
    result = Table()
    for heading in ("kill", "moment", "after s", "cut file", "goes on after batch"):
        result.add_column(heading, justify="left" if heading in ("moment", "cut file") else "right")
    for number, kill in enumerate(kills, start=1):
        result.add_row(str(number), kill.moment, f"{kill.seconds:.1f}", kill.cut, str(kill.batches))
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Train without kills, train with kills, compare, and return the exit code."""
    args = parse_args(arguments)
    if args.work_dir.exists() and any(args.work_dir.iterdir()):
        raise ValueError(f"--work-dir {args.work_dir} is not empty")
    whole, killed = args.work_dir / "whole", args.work_dir / "killed"
    killed.mkdir(parents=True)
    options = ["--cfg-options", *args.cfg_options] if args.cfg_options else []
    start, launcher = [sys.executable], []
    if args.processes > 1:
        start += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(args.processes)]
        launcher = ["--launcher", "pytorch"]
    commands = {
        folder: [*start, TRAIN, args.config, "--work-dir", folder, *launcher, *options] for folder in (whole, killed)
    }
    subprocess.run(commands[whole], check=True, stdout=subprocess.DEVNULL)
    rng, kills = random.Random(args.seed), []
    with progress_bar("kills", args.kills) as bar:
        for number in range(args.kills):
            kill = start_and_kill(commands[killed], killed, MOMENTS[number % len(MOMENTS)], rng, args.seconds)
            if kill is None:
                break
            kills.append(kill)
            bar.update()
    subprocess.run([*commands[killed], "--resume"], check=True, stdout=subprocess.DEVNULL)
    a, b = (torch.load(folder / "latest.pth", weights_only=True) for folder in (whole, killed))
    unequal = [name for key in ("state_dict", "optimizer") for name in differences(a[key], b[key], key)]
    print_tables(
        {f"{len(kills)} of {args.kills} kills, {sum(bool(kill.cut) for kill in kills)} in a write": table(kills)}
    )
    print(f"NOT EQUAL: {len(unequal)} tensors, e.g. {', '.join(unequal[:3])}" if unequal else "equal, bit by bit")
    return int(bool(unequal) or len(kills) < args.kills)


if __name__ == "__main__":
    tool.run(lambda: sys.exit(main()))
