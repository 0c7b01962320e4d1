"""Training curves, from the scalars that MMEngine's LocalVisBackend writes."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.ticker import LogLocator

from mmgpt.visualization.figures import new_figure, save, wrap

PANELS = {"loss": "loss", "loss_visual": "visual loss", "loss_language": "language loss", "lr": "learning rate"}
SCALARS = "vis_data/scalars.json"
STEP_KEYS = ("step", "iter", "epoch")
NOT_SMOOTHED = ("lr", "base_lr")  # These values are exact and need no smoothing.
COLUMNS = 4

Run = Mapping[str, Sequence[tuple[float, float]]]


def find_scalars(path: str | Path) -> list[Path]:
    """The files of a run's scalars in chronological order, one for each start in a work directory.

    Args:
        path: a work directory, the folder or the .log of one of its starts, or a scalars.json.

    Raises:
        FileNotFoundError: there is no file of scalars.
    """
    path = Path(path)
    if path.suffix == ".log":
        path = path.parent
    files = [path] if path.is_file() else list(path.glob(SCALARS)) or sorted(path.glob(f"*/{SCALARS}"))
    if not files:
        raise FileNotFoundError(f"{path}: no scalars of a run: neither {SCALARS} nor */{SCALARS}")
    return files


def read_scalars(paths: Sequence[str | Path]) -> Run:
    """All scalars of a run as name -> [(step, value), ...], from its files (JSON lines) in chronological order.

    The last value of a step counts. A file replaces the values of earlier files from its own first step on: a resumed
    run continues there, and a restarted run replaces everything. A line that a killed run left incomplete is skipped.

    Raises:
        FileNotFoundError: a file does not exist.
        ValueError: the files hold no scalars.
    """
    points: dict[str, dict[float, float]] = {}
    for path in map(Path, paths):
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file; it would hold the training scalars")

        # 1. Read the scalars of this file, as name -> step -> value.
        scalars: dict[str, dict[float, float]] = {}
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                continue
            if not isinstance(record, dict):
                continue
            step = record.get("step", record.get("iter"))
            for name, value in record.items():
                if step is not None and name not in STEP_KEYS and isinstance(value, (int, float)):
                    scalars.setdefault(name, {})[step] = value

        # 2. Replace earlier values from the first step of this file on.
        for name, values in scalars.items():
            earlier = {step: value for step, value in points.get(name, {}).items() if step < min(values)}
            points[name] = earlier | values
    if not points:
        raise ValueError(f"{', '.join(map(str, paths))}: no scalars there")
    return {name: sorted(values.items()) for name, values in points.items()}


def smooth(run: Run, weight: float) -> Run:
    """Scalars as exponential moving averages, in which a step counts `weight` times the next one.

    Learning rates are not smoothed. With weight 0 nothing changes.
    """
    smoothed = {}
    for name, points in run.items():
        averages, total, weights = [], 0.0, 0.0
        for step, value in points:
            total, weights = weight * total + value, weight * weights + 1
            averages.append((step, total / weights))
        smoothed[name] = points if name in NOT_SMOOTHED else averages
    return smoothed


def draw_curves(
    runs: Mapping[str, Run], path: str | Path, keys: Sequence[str] = tuple(PANELS), weight: float = 0
) -> Path:
    """Draw scalars over the step as a PNG, with a panel for each of `keys` that a run has, and return its path.

    Args:
        runs: name of a run -> its scalars, as `read_scalars` returns them; runs share the panels.
        path: the PNG file.
        keys: names of scalars.
        weight: see `smooth`; unsmoothed curves are drawn faintly, too.

    Raises:
        ValueError: no run has any of the keys; lists the scalars of the runs.
    """
    panels = [key for key in keys if any(key in run for run in runs.values())]
    if not panels:
        raise ValueError(f"no run has any of {', '.join(keys)}; there are {', '.join(names_in(runs))}")
    columns = min(COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    figure = new_figure(4 * columns, 3.2 * rows)
    for position, panel in enumerate(panels, start=1):
        axes = figure.add_subplot(rows, columns, position)
        values: list[float] = []
        for number, (name, run) in enumerate((name, run) for name, run in runs.items() if panel in run):
            points, color = run[panel], f"C{number % 10}"
            # The legend leaves out labels that start with an underscore. A single point is visible with a marker only.
            label, marker = wrap(name, 24, 2).lstrip("_"), "." if len(points) == 1 else ""
            if weight:
                axes.plot(*zip(*points, strict=True), linewidth=1, alpha=0.25, color=color)
            smoothed = smooth({panel: points}, weight)[panel]
            axes.plot(*zip(*smoothed, strict=True), linewidth=1.3, label=label, marker=marker, color=color)
            values += [value for _, value in points]
        axes.set_title(PANELS.get(panel, panel), fontsize=10, parse_math=False)
        axes.set_xlabel("step", fontsize=9)
        axes.grid(alpha=0.3)
        # A logarithmic axis suits a loss that falls by a factor of ten.
        if panel != "lr" and min(values) > 0 and max(values) > 10 * min(values):
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter("{x:g}")
            axes.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
        if len(runs) > 1:
            for text in axes.legend(fontsize=8).get_texts():
                text.set_parse_math(False)
    return save(figure, path)


def names_in(runs: Mapping[str, Run]) -> list[str]:
    """The names of all scalars of the runs."""
    return sorted({name for run in runs.values() for name in run})
