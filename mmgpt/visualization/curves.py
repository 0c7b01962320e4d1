"""Curves of the scalars that MMEngine's local backend writes while training."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator

from mmgpt.visualization.canvas import new_figure, save, wrap

PANELS = {"loss": "loss", "loss_visual": "visual loss", "loss_language": "language loss", "lr": "learning rate"}
SCALARS = "vis_data/scalars.json"
PLACES = ("step", "iter", "epoch")
EXACT = ("lr", "base_lr")  # no noisy measurements
COLUMNS = 4

Run = Mapping[str, Sequence[tuple[float, float]]]


def find_scalars(path: str | Path) -> list[Path]:
    """The files of a run's scalars in the order of time: one for each start of a work directory.

    Args:
        path: a work directory, the folder or the .log of one of its starts, or a scalars.json.

    Raises:
        FileNotFoundError: there is none.
    """
    path = Path(path)
    if path.suffix == ".log":
        path = path.parent
    found = [path] if path.is_file() else list(path.glob(SCALARS)) or sorted(path.glob(f"*/{SCALARS}"))
    if not found:
        raise FileNotFoundError(f"{path}: no scalars of a run: neither {SCALARS} nor */{SCALARS}")
    return found


def read_scalars(paths: Sequence[str | Path]) -> Run:
    """All scalars of a run as name -> [(step, value), ...], from its files (JSON lines) in the order of time.

    Of lines for one step the later value is kept. A later file replaces what earlier ones hold from its first step on:
    a resumed run goes on from there, one that started anew leaves nothing of the run before. A line cut short by a
    killed run is left out.

    Raises:
        FileNotFoundError: no such file.
        ValueError: they hold no scalars.
    """
    points: dict[str, dict[float, float]] = {}
    for path in map(Path, paths):
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file; the training scalars are expected there")
        for name, own in _points(path).items():
            before = {step: value for step, value in points.get(name, {}).items() if step < min(own)}
            points[name] = before | own
    if not points:
        raise ValueError(f"{', '.join(map(str, paths))}: no scalars there")
    return {name: sorted(values.items()) for name, values in points.items()}


def smooth(run: Run, weight: float) -> Run:
    """Scalars averaged over the steps before, each of which counts `weight` times the next one; rates as they are.

    With weight 0 nothing changes.
    """
    return {name: points if name in EXACT else _average(points, weight) for name, points in run.items()}


def draw_curves(
    runs: Mapping[str, Run], path: str | Path, keys: Sequence[str] = tuple(PANELS), weight: float = 0
) -> Path:
    """Draw scalars against the step as a PNG, a panel for each of `keys` that a run has, and return its path.

    Args:
        runs: name of a run -> its scalars, as `read_scalars` gives them; runs share the panels.
        path: the PNG file.
        keys: names of scalars.
        weight: see `smooth`; what is smoothed is drawn faintly besides.

    Raises:
        ValueError: no run has any of the keys; names those that there are.
    """
    panels = [key for key in keys if any(key in run for run in runs.values())]
    if not panels:
        raise ValueError(f"no run has any of {', '.join(keys)}; there are {', '.join(names_in(runs))}")
    columns = min(COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    figure = new_figure(4 * columns, 3.2 * rows)
    for number, panel in enumerate(panels, start=1):
        axes = figure.add_subplot(rows, columns, number)
        _draw_panel(axes, panel, {name: run for name, run in runs.items() if panel in run}, weight)
        if len(runs) > 1:
            for text in axes.legend(fontsize=8).get_texts():
                text.set_parse_math(False)
    return save(figure, path)


def names_in(runs: Mapping[str, Run]) -> list[str]:
    """The names of all scalars of some runs."""
    return sorted({name for run in runs.values() for name in run})


def _average(points: Sequence[tuple[float, float]], weight: float) -> list[tuple[float, float]]:
    averages, total, weights = [], 0.0, 0.0
    for step, value in points:
        total, weights = weight * total + value, weight * weights + 1
        averages.append((step, total / weights))
    return averages


def _draw_panel(axes: Axes, panel: str, runs: Mapping[str, Run], weight: float) -> None:
    values: list[float] = []
    for number, (name, run) in enumerate(runs.items()):
        # A label that starts with an underscore would be left out of the legend; a lone point needs a marker.
        label, marker, colour = wrap(name, 24, 2).lstrip("_"), "." if len(run[panel]) == 1 else "", f"C{number % 10}"
        if weight:
            axes.plot(*zip(*run[panel], strict=True), linewidth=1, alpha=0.25, color=colour)
        shown = smooth(run, weight)[panel]
        axes.plot(*zip(*shown, strict=True), linewidth=1.3, label=label, marker=marker, color=colour)
        values += [value for _, value in run[panel]]
    axes.set_title(PANELS.get(panel, panel), fontsize=10, parse_math=False)
    axes.set_xlabel("step", fontsize=9)
    axes.grid(alpha=0.3)
    # A loss that falls by a factor of ten is read better on a logarithmic axis.
    if panel != "lr" and min(values) > 0 and max(values) > 10 * min(values):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}")
        axes.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))


def _points(path: Path) -> dict[str, dict[float, float]]:
    """The scalars of one file as name -> step -> value."""
    points: dict[str, dict[float, float]] = {}
    for record in _records(path):
        step = record.get("step", record.get("iter"))
        for name, value in record.items():
            if step is not None and name not in PLACES and isinstance(value, (int, float)):
                points.setdefault(name, {})[step] = value
    return points


def _records(path: Path) -> Iterator[dict]:
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(record, dict):
            yield record
