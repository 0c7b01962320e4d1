"""Curves of the scalars that MMEngine's local backend writes while training."""

import json
from collections.abc import Mapping
from pathlib import Path

from matplotlib.axes import Axes

from mmgpt.visualization.canvas import new_figure, save, wrap

PANELS = {"loss": "loss", "loss_visual": "visual loss", "loss_language": "language loss", "lr": "learning rate"}


def read_scalars(path: str | Path) -> dict[str, list[tuple[float, float]]]:
    """Read one ``vis_data/scalars.json`` (JSON lines) as name -> [(step, value), ...].

    Lines written twice for one step (a resumed run) keep the later value. A line cut short by a killed run is left
    out. Raises FileNotFoundError without the file, ValueError when it holds no training scalars.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; the training scalars are expected there")
    points: dict[str, dict[float, float]] = {name: {} for name in PANELS}
    for line in path.read_text(encoding="utf-8").splitlines():
        record = _parse(line)
        step = record.get("step", record.get("iter"))
        for name in PANELS:
            if name in record and step is not None:
                points[name][step] = record[name]
    found = {name: sorted(values.items()) for name, values in points.items() if values}
    if not found:
        raise ValueError(f"{path}: holds none of {list(PANELS)}")
    return found


def draw_curves(scalars: str | Path | Mapping[str, str | Path], path: str | Path) -> Path:
    """Draw loss, loss per source and learning rate against the step as a PNG, and return its path.

    Args:
        scalars: one ``scalars.json``, or several as run name -> file; runs share the panels.
        path: the PNG file.
    """
    files = scalars if isinstance(scalars, Mapping) else {"": scalars}
    runs = {name: read_scalars(file) for name, file in files.items()}
    panels = [name for name in PANELS if any(name in run for run in runs.values())]
    figure = new_figure(4 * len(panels), 3.2)
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _draw_panel(axes, panel, runs)
    return save(figure, path)


def _draw_panel(axes: Axes, panel: str, runs: dict[str, dict]) -> None:
    values: list[float] = []
    for name, run in runs.items():
        if panel not in run:
            continue
        steps, heights = zip(*run[panel], strict=True)
        # A label that starts with an underscore would be left out of the legend; a lone point needs a marker.
        label = wrap(name, 24, 2).lstrip("_")
        axes.plot(steps, heights, linewidth=1.3, label=label, marker="." if len(steps) == 1 else "")
        values += heights
    axes.set_title(PANELS[panel], fontsize=10)
    axes.set_xlabel("step", fontsize=9)
    axes.grid(alpha=0.3)
    # A loss that falls by a factor of ten is read better on a logarithmic axis.
    if panel != "lr" and min(values) > 0 and max(values) > 10 * min(values):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}")
    if len(runs) > 1:
        for text in axes.legend(fontsize=8).get_texts():
            text.set_parse_math(False)


def _parse(line: str) -> dict:
    try:
        record = json.loads(line)
    except json.JSONDecodeError:
        return {}
    return record if isinstance(record, dict) else {}
