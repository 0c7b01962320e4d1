"""The report of a benchmark: tables, a JSON file and drawings."""

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

COLOURS = {"ours": "C0", "limit": "C2", "peer": "C1"}


class Column(NamedTuple):
    """A column of figures: their key in a row, the unit that they are shown in, and how."""

    key: str
    unit: float
    form: str = "{:.1f}"


COLUMNS = {
    "ms": Column("seconds", 1e-3, "{:.2f}"),
    "learned": Column("learned", 1, "{:.0f}"),
    "ms a token": Column("per_learned", 1e-3, "{:.2f}"),
    "GFLOP": Column("operations", 1e9),
    "peak MiB": Column("peak_bytes", 2**20),
    "% of limit": Column("share", 0.01),
}


def setting(device: torch.device) -> dict:
    """What figures depend on: the device, its threads, and versions."""
    on_gpu = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if on_gpu else f"{platform.processor() or platform.machine()} CPU"
    return {"device": name, "threads": torch.get_num_threads(), "versions": versions()}


def row_figures(section: str, cases: Mapping[str, Case], times: Times) -> list[dict]:
    """What is known of a section's rows: their times, and the `figures` of those that have some."""
    found = []
    for name, seconds in times.items():
        row = dict(section=section, name=name, seconds=median(seconds), rounds=list(seconds))
        if hasattr(cases[name], "figures"):
            row |= cases[name].figures()
        if "learned" in row:
            row["per_learned"] = row["seconds"] / row["learned"]
        found.append(row)
    return found


def in_place_of_times(rows: Sequence[Mapping], key: str) -> Times:
    """One of the `figures` of rows in the place of their times; nothing where they have none."""
    return {row["name"]: [row[key]] for row in rows if key in row}


def kind(name: str) -> str:
    """Whether a row is 'ours', a part of the 'limit' ('step: part'), or of the 'peer' ('peer: step')."""
    before, colon, _ = name.partition(": ")
    return "ours" if not colon else "peer" if before == "peer" else "limit"


def tables(report: Mapping) -> dict[str, Table]:
    """All of a report for the terminal, by title."""
    sections = dict.fromkeys(row["section"] for row in report["rows"])
    found = {
        f"{section}, medians of {report['rounds']} rounds": _row_table(rows)
        for section in sections
        if (rows := [row for row in report["rows"] if row["section"] == section])
    }
    if report["ratios"]:
        found["ratios; below 1, ours is faster"] = _ratio_table(
            report["ratios"], {"operations": report["operation_ratios"], "peak memory": report["peak_ratios"]}
        )
    if report["growth"]:
        found["growth: seconds for the smallest and the largest size, and with which power they grow there"] = (
            _growth_table(report["growth"])
        )
    return found


def write(report: Mapping, folder: Path) -> list[Path]:
    """Writes report.json, rows.png and growth.png, the drawings where there is something to draw; gives their paths."""
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
    known = {name: column for name, column in COLUMNS.items() if any(column.key in row for row in rows)}
    for heading in ("", *known):
        table.add_column(heading, justify="right" if heading else "left")
    for row in rows:
        cells = (
            column.form.format(row[column.key] / column.unit) if column.key in row else "–" for column in known.values()
        )
        table.add_row(row["name"], *cells)
    return table


def _ratio_table(ratios: Mapping[str, float], others: Mapping[str, Mapping[str, float]]) -> Table:
    table = Table()
    for heading in ("", "time", *others):
        table.add_column(heading, justify="right" if heading else "left")
    for name, value in ratios.items():
        cells = (f"{of[name]:.3f}" if name in of else "–" for of in others.values())
        table.add_row(name, f"{value:.3f}", *cells)
    return table


def _growth_table(growth: Mapping[str, Mapping]) -> Table:
    table = Table()
    for heading in ("", "sizes", "ours", "power", "bare parts", "power", "no faster than they"):
        table.add_column(heading, justify="right" if heading else "left")
    for axis, found in growth.items():
        cells = []
        for of, seconds in found["seconds"].items():
            cells += [f"{seconds[0]:.3f} … {seconds[-1]:.3f}", f"{found['exponents'][of]:.2f}"]
        sizes = f"{found['sizes'][0]} … {found['sizes'][-1]}"
        table.add_row(axis, sizes, *cells, "yes" if found["grows_no_faster"] else "NO")
    return table


def _draw_rows(rows: Sequence[Mapping]) -> Figure:
    """A panel for each section, a bar for each row."""
    sections = list(dict.fromkeys(row["section"] for row in rows))
    counts = [sum(row["section"] == section for row in rows) for section in sections]
    figure = new_figure(9, 0.24 * sum(counts) + 0.9 * len(sections))
    panels = figure.subplots(len(sections), 1, squeeze=False, height_ratios=counts)[:, 0]
    for axes, section in zip(panels, sections, strict=True):
        own = [row for row in rows if row["section"] == section][::-1]
        colours = [COLOURS[kind(row["name"])] for row in own]
        bars = axes.barh([row["name"] for row in own], [1e3 * row["seconds"] for row in own], color=colours)
        axes.bar_label(bars, fmt=lambda ms: f"{ms:.0f}" if ms >= 100 else f"{ms:.1f}", fontsize=7, padding=2)
        axes.tick_params(labelsize=7)
        axes.set_title(f"{section}, milliseconds (blue: ours, green: parts alone, orange: peer)", fontsize=9)
        axes.margins(x=0.12)
    return figure


def _draw_growth(growth: Mapping[str, Mapping]) -> Figure:
    """A panel for each axis: what was measured, and the fitted laws."""
    figure = new_figure(4 * len(growth), 3.2)
    for axes, (axis, found) in zip(figure.subplots(1, len(growth), squeeze=False)[0], growth.items(), strict=True):
        line = np.linspace(found["sizes"][0], found["sizes"][-1])
        for (of, seconds), colour in zip(found["seconds"].items(), (COLOURS["ours"], COLOURS["limit"]), strict=True):
            axes.plot(found["sizes"], seconds, "o", color=colour)
            label = f"{of}: power {found['exponents'][of]:.2f}"
            axes.plot(line, Law(**found["laws"][of])(line), color=colour, linewidth=1.2, label=label)
        axes.set_xlabel(axis, fontsize=9)
        axes.set_ylabel("seconds of a step", fontsize=9)
        axes.legend(fontsize=8)
        axes.grid(alpha=0.3)
    return figure
