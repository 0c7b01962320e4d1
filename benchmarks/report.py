"""Report of a benchmark: tables, a JSON file and figures."""

import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from rich.table import Table

from mmgpt.utils.versions import versions
from mmgpt.visualization.figures import new_figure, save

from .growth import Law
from .rounds import Case, Times

COLORS = {"ours": "C0", "limit": "C2", "peer": "C1"}


class Column(NamedTuple):
    """Column of a table: the key of its values in a row, their unit, and their format."""

    key: str
    unit: float
    form: str = "{:.1f}"


COLUMNS = {
    "ms": Column("seconds", 1e-3, "{:.2f}"),
    "label tokens": Column("learned", 1, "{:.0f}"),
    "ms a label token": Column("per_learned", 1e-3, "{:.2f}"),
    "GFLOP": Column("operations", 1e9),
    "peak MiB": Column("peak_bytes", 2**20),
    "% of limit": Column("share", 0.01),
}


def setting(device: torch.device) -> dict:
    """The environment of the measurement: the device, its threads, and versions."""
    on_gpu = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if on_gpu else f"{platform.processor() or platform.machine()} CPU"
    return {"device": name, "threads": torch.get_num_threads(), "versions": versions()}


def row_figures(section: str, cases: Mapping[str, Case], times: Times) -> list[dict]:
    """The rows of a report's section: the times of its cases, and the `figures` of the cases that have them."""
    rows = []
    for name, seconds in times.items():
        row = dict(section=section, name=name, seconds=median(seconds), rounds=list(seconds))
        if hasattr(cases[name], "figures"):
            row |= cases[name].figures()
        if "learned" in row:
            row["per_learned"] = row["seconds"] / row["learned"]
        rows.append(row)
    return rows


def in_place_of_times(rows: Sequence[Mapping], key: str) -> Times:
    """One of the `figures` of rows, in the form of times; rows without this figure are left out."""
    return {row["name"]: [row[key]] for row in rows if key in row}


def kind(name: str) -> str:
    """Kind of a row: 'ours', 'limit' (a bare component, 'step: component') or 'peer' ('peer: step')."""
    before, colon, _ = name.partition(": ")
    return "ours" if not colon else "peer" if before == "peer" else "limit"


def tables(report: Mapping) -> dict[str, Table]:
    """Terminal tables of a report, by title."""
    sections = dict.fromkeys(row["section"] for row in report["rows"])
    result = {
        f"{section}, medians of {report['rounds']} rounds": _row_table(rows)
        for section in sections
        if (rows := [row for row in report["rows"] if row["section"] == section])
    }
    if report["ratios"]:
        result["ratios; below 1, ours is faster"] = _ratio_table(
            report["ratios"], {"operations": report["operation_ratios"], "peak memory": report["peak_ratios"]}
        )
    if report["growth"]:
        result["growth: seconds for the smallest and the largest size, and the power of the growth at the largest"] = (
            _growth_table(report["growth"])
        )
    return result


def write(report: Mapping, folder: Path) -> list[Path]:
    """Write report.json, and rows.png and growth.png if there are such results; returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / "report.json"]
    paths[0].write_text(json.dumps(report, indent=2) + "\n")
    if report["rows"]:
        paths.append(save(_draw_rows(report["rows"]), folder / "rows.png"))
    if report["growth"]:
        paths.append(save(_draw_growth(report["growth"]), folder / "growth.png"))
    return paths


def _row_table(rows: Sequence[Mapping]) -> Table:
    table = Table()
    columns = {name: column for name, column in COLUMNS.items() if any(column.key in row for row in rows)}
    for heading in ("", *columns):
        table.add_column(heading, justify="right" if heading else "left")
    for row in rows:
        cells = (
            column.form.format(row[column.key] / column.unit) if column.key in row else "–"
            for column in columns.values()
        )
        table.add_row(row["name"], *cells)
    return table


def _ratio_table(ratios: Mapping[str, float], others: Mapping[str, Mapping[str, float]]) -> Table:
    table = Table()
    for heading in ("", "time", *others):
        table.add_column(heading, justify="right" if heading else "left")
    for name, value in ratios.items():
        cells = (f"{values[name]:.3f}" if name in values else "–" for values in others.values())
        table.add_row(name, f"{value:.3f}", *cells)
    return table


def _growth_table(growth: Mapping[str, Mapping]) -> Table:
    table = Table()
    for heading in ("", "sizes", "ours", "power", "bare components", "power", "no faster"):
        table.add_column(heading, justify="right" if heading else "left")
    for axis, result in growth.items():
        cells = []
        for kind_of_step, seconds in result["seconds"].items():
            cells += [f"{seconds[0]:.3f} … {seconds[-1]:.3f}", f"{result['exponents'][kind_of_step]:.2f}"]
        sizes = f"{result['sizes'][0]} … {result['sizes'][-1]}"
        table.add_row(axis, sizes, *cells, "yes" if result["grows_no_faster"] else "NO")
    return table


def _draw_rows(rows: Sequence[Mapping]) -> Figure:
    """Bar chart with a panel for each section and a bar for each row."""
    sections = list(dict.fromkeys(row["section"] for row in rows))
    counts = [sum(row["section"] == section for row in rows) for section in sections]
    figure = new_figure(9, 0.24 * sum(counts) + 0.9 * len(sections))
    panels = figure.subplots(len(sections), 1, squeeze=False, height_ratios=counts)[:, 0]
    for axes, section in zip(panels, sections, strict=True):
        section_rows = [row for row in rows if row["section"] == section][::-1]
        colors = [COLORS[kind(row["name"])] for row in section_rows]
        names, milliseconds = zip(*((row["name"], 1e3 * row["seconds"]) for row in section_rows), strict=True)
        bars = axes.barh(names, milliseconds, color=colors)
        axes.bar_label(bars, fmt=lambda ms: f"{ms:.0f}" if ms >= 100 else f"{ms:.1f}", fontsize=7, padding=2)
        axes.tick_params(labelsize=7)
        axes.set_title(f"{section}, milliseconds (blue: ours, green: bare components, orange: peer)", fontsize=9)
        axes.margins(x=0.12)
    return figure


def _draw_growth(growth: Mapping[str, Mapping]) -> Figure:
    """Panels of the measured times and the fitted laws, one for each axis."""
    figure = new_figure(4 * len(growth), 3.2)
    for axes, (axis, result) in zip(figure.subplots(1, len(growth), squeeze=False)[0], growth.items(), strict=True):
        line = np.linspace(result["sizes"][0], result["sizes"][-1])
        for (name, seconds), color in zip(result["seconds"].items(), (COLORS["ours"], COLORS["limit"]), strict=True):
            axes.plot(result["sizes"], seconds, "o", color=color)
            label = f"{name}: power {result['exponents'][name]:.2f}"
            axes.plot(line, Law(**result["laws"][name])(line), color=color, linewidth=1.2, label=label)
        axes.set_xlabel(axis, fontsize=9)
        axes.set_ylabel("seconds of a step", fontsize=9)
        axes.legend(fontsize=8)
        axes.grid(alpha=0.3)
    return figure
