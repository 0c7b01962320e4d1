"""Curves of one or several training runs, and a table of their last values and speed.

    python tools/analysis_tools/analyze_logs.py work_dirs/lora_joint work_dirs/my_experiment --smooth 0.8

A run is a work directory (the starts of a resumed run are merged), one of its folders, its .log or scalars.json.
"""

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from rich.table import Table

from mmgpt.cli import tool
from mmgpt.visualization import draw_curves
from mmgpt.visualization.curves import PANELS, Run, find_scalars, names_in, read_scalars, smooth
from mmgpt.visualization.tables import print_tables

KEYS = (*PANELS, "grad_norm")


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="work directory, folder of a start, log or scalars.json")
    parser.add_argument("--keys", nargs="+", metavar="NAME", help=f"scalars; default: {' '.join(KEYS)}")
    parser.add_argument(
        "--smooth", type=float, default=0, metavar="WEIGHT", help="0 (not at all, default) to below 1 (most)"
    )
    parser.add_argument("--out", type=Path, default=Path("work_dirs/curves.png"), help="PNG file; default: %(default)s")
    return parser.parse_args(arguments)


def runs_by_name(paths: Sequence[str]) -> dict[str, str]:
    """Paths of runs by the names of their folders, or by the paths where several folders have the same name."""
    names = []
    for path in map(Path, paths):
        depth = {".json": 1, ".log": 0}.get(path.suffix)
        folder = path.resolve() if depth is None else path.resolve().parents[depth]
        names.append(folder.name)
    count = Counter(names)
    return {name if count[name] == 1 else path: path for name, path in zip(names, paths, strict=True)}


def table(runs: Mapping[str, Run], keys: Sequence[str], weight: float) -> Table:
    """Table with the last step and values of each run, its seconds per iteration and its share of data loading."""
    result = Table()
    result.add_column("run", overflow="fold")
    for heading in ("step", *keys, "s / iteration", "data"):
        result.add_column(heading.replace("_", " "), justify="right")
    for name, run in runs.items():
        smoothed = smooth(run, weight)
        last = max(points[-1][0] for points in run.values())
        values = [f"{smoothed[key][-1][1]:.4g}" if key in run else "–" for key in keys]
        result.add_row(name, f"{last:g}", *values, *speed(run))
    return result


def speed(run: Run) -> tuple[str, str]:
    """Median seconds per iteration, and the share of all time that was spent waiting for data."""
    seconds, waiting = ([value for _, value in run.get(key, ())] for key in ("time", "data_time"))
    if not sum(seconds):
        return "–", "–"
    return f"{median(seconds):.3g}", f"{sum(waiting) / sum(seconds):.0%}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the runs, draw the curves, print the table."""
    args = parse_args(arguments)
    if not 0 <= args.smooth < 1:
        raise ValueError(f"--smooth {args.smooth} must be at least 0 and below 1")
    runs = {name: read_scalars(find_scalars(path)) for name, path in runs_by_name(args.runs).items()}
    unknown = set(args.keys or ()) - set(names_in(runs))
    if unknown:
        raise ValueError(f"--keys {' '.join(sorted(unknown))}: choose from {', '.join(names_in(runs))}")
    keys = [key for key in args.keys or KEYS if key in names_in(runs)]
    path = draw_curves(runs, args.out, keys, args.smooth)
    print_tables({"Last values" + (" (smoothed)" if args.smooth else ""): table(runs, keys, args.smooth)})
    print(f"written: {path}")


if __name__ == "__main__":
    tool.run(main)
