"""Speed of this tree over that of another one, for `tools/dev/compare_builds.sh`, which checks the other one out.

    python tools/dev/compare_builds.py OTHER --rows step_27M decode_135M_1_int8 --rounds 5

Each tree has a process of its own with one thread (compare_builds_worker.py), and both are measured in turns, so that
other programs on the machine slow both alike.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]


class Row(NamedTuple):
    """A row of the table: what is measured, of which model, and the precision of this tree and of the other one."""

    work: str
    model: str
    precision: str | None
    other_precision: str | None
    batch: int = 1


ROWS = {
    "step_27M": Row("step", "27M", "auto", "float32"),
    "step_135M": Row("step", "135M", "auto", "bfloat16"),
    "prefill_27M": Row("prefill", "27M", "auto", "float32"),
    "prefill_135M": Row("prefill", "135M", "auto", "float32"),
    "decode_135M_1_int8": Row("decode", "135M", "int8", "float32"),
    "decode_135M_1_bfloat16": Row("decode", "135M", "bfloat16", "float32"),
    "decode_135M_1_float32": Row("decode", "135M", "float32", "float32"),
    "decode_135M_8": Row("decode", "135M", "auto", "float32", batch=8),
    "decode_135M_16": Row("decode", "135M", "auto", "float32", batch=16),
    "import_chat": Row("import_chat", "", None, None),
    "first_token": Row("first_token", "tiny", None, None),
    "first_step": Row("first_step", "tiny", None, None),
    "tuning": Row("tuning", "tiny", None, None),
    "tuning_busy": Row("tuning_busy", "tiny", None, None),
}


def parse_args() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, help="root of the other tree")
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS), help="default: all")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each row and tree (default: 5)")
    parser.add_argument("--precision", help="of this tree, instead of that of each row")
    parser.add_argument("--data", type=Path, default=ROOT / "data/tiny", help="of the last rows (default: %(default)s)")
    return parser.parse_args()


def main() -> None:
    """Measure row by row, and print each as soon as it is done."""
    args = parse_args()
    trees = {"this": ROOT, "other": args.other.resolve()}
    print(f"{'this tree / other':26}{'processor':>10}{'wall':>8}{'spread':>16}   this, other: processor; wall seconds")
    for name in args.rows:
        row = ROWS[name]
        if row.work in ("first_step", "tuning", "tuning_busy") and not args.data.is_dir():
            print(f"{name:26}left out: there is no {args.data}")
            continue
        precisions = {"this": args.precision or row.precision, "other": row.other_precision}
        workers = {tree: start(root) for tree, root in trees.items()}
        rounds: dict[str, list[tuple[float, float]]] = {tree: [] for tree in trees}
        for number in range(args.rounds + 1):
            for tree in sorted(trees, reverse=number % 2):
                request = [row.work, row.model, precisions[tree], row.batch, str(args.data.resolve())]
                result = ask(workers[tree], request)
                if number:  # the first round warms up
                    rounds[tree].append(result)
        for worker in workers.values():
            worker.stdin.close()
            worker.wait()
        print(line(name, rounds), flush=True)


def line(name: str, rounds: dict[str, list[tuple[float, float]]]) -> str:
    """A line of the table: medians of the ratios within the rounds, and the least and the largest one."""
    pairs = list(zip(rounds["this"], rounds["other"], strict=True))
    processor, wall = ([ours[kind] / others[kind] for ours, others in pairs] for kind in (0, 1))
    spread = f"{min(processor):.2f} to {max(processor):.2f}"
    times = "; ".join(
        ", ".join(f"{median(each[kind] for each in rounds[tree]):.3f}" for tree in ("this", "other")) for kind in (0, 1)
    )
    return f"{name:26}{median(processor):10.2f}{median(wall):8.2f}{spread:>16}   {times}"


def start(root: Path) -> subprocess.Popen:
    """The process that measures a tree."""
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, str(ROOT / "tools/dev/compare_builds_worker.py")]
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    return subprocess.Popen(command, cwd=root, env=environment, **pipes)


def ask(worker: subprocess.Popen, request: Sequence) -> tuple[float, float]:
    """Processor and wall seconds of a request. RuntimeError when the process ended, whose errors are on the screen."""
    worker.stdin.write(json.dumps(request) + "\n")
    worker.stdin.flush()
    answer = worker.stdout.readline()
    if not answer:
        raise RuntimeError(f"{shlex.join(map(str, worker.args))} ended at {request}")
    return tuple(json.loads(answer))


if __name__ == "__main__":
    main()
