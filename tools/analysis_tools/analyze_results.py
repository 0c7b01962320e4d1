"""Analysis of what tools/test.py wrote: one evaluation, or two of the same samples side by side.

    python tools/analysis_tools/analyze_results.py work_dirs/lora_joint/evaluation/latest-1a2b3c4d
    python tools/analysis_tools/analyze_results.py FIRST SECOND --names before after

One evaluation: scores by dataset and by type of question, and two sheets of images with question, prediction and
expected answer, of the worst answers and of random ones. Two evaluations: both scores with the uncertainty of their
difference, and a page of wins and losses with images. Samples are scored by the rule of their benchmark.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from mmengine.utils import import_modules_from_strings
from rich.table import Table

from mmgpt.cli import tool
from mmgpt.evaluation.comparison import Change, Pair, change, differing, pair_up
from mmgpt.evaluation.results_reader import (
    SavedEvaluation,
    common_types,
    expected_answer,
    grouped,
    is_right,
    read_evaluation,
)
from mmgpt.evaluation.row_images import RowImages
from mmgpt.visualization import draw_sheet
from mmgpt.visualization.answer_sheet import side_by_side
from mmgpt.visualization.comparison_page import Case, Comparison, write_comparison
from mmgpt.visualization.tables import percent_table, print_tables

MAX_SETTINGS = 20  # rows of the page's table of differing settings


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+", metavar="RESULT", help="folder with result.json; one or two")
    parser.add_argument("--names", nargs="+", help="names of the results in tables; default: those of the folders")
    parser.add_argument("--count", type=int, default=16, help="images on a sheet, wins and losses; default: 16")
    parser.add_argument("--out", type=Path, help="folder; default: analysis/ in the folder of the last result")
    parser.add_argument(
        "--custom-imports", nargs="+", metavar="MODULE", help="modules that register scoring rules, as in the config"
    )
    args = parser.parse_args(arguments)
    if len(args.results) > 2 or args.names and len(args.names) != len(args.results):
        parser.error("one result or two, and as many names")
    return args


def by_group(rows: Sequence[dict], members: Sequence) -> dict[str, dict[str, list]]:
    """Groups of members (one for each row): by dataset, and by type of question."""
    datasets = grouped([row["dataset"] for row in rows], members)
    return {"dataset": datasets, "question type": grouped(common_types(rows), members)}


def shuffled(items: Sequence) -> list:
    """Items in a random order, which is the same in every run."""
    return [items[i] for i in np.random.default_rng(0).permutation(len(items))]


def analyze_one(evaluation: SavedEvaluation, count: int, out: Path) -> list[Path]:
    """Print the scores of an evaluation and draw its sheets; returns the paths of the sheets."""
    tables = {}
    for heading, groups in by_group(evaluation.rows, evaluation.rows).items():
        percent = {name: 100 * np.mean([row["score"] for row in rows]) for name, rows in groups.items()}
        counts = {name: len(rows) for name, rows in groups.items()}
        tables[f"By {heading}, %"] = percent_table({evaluation.rule: percent}, counts)
    print_tables(tables)
    images, random_rows = RowImages(evaluation.result["settings"]["data"]), shuffled(evaluation.rows)
    worst = sorted((row for row in random_rows if row["score"] < 1), key=lambda row: row["score"])
    sheets = []
    for name, rows in (("worst", worst), ("random", random_rows)):
        if rows:
            sheet = [
                {
                    **row,
                    "image": side_by_side(images.load(row)),
                    "answer": expected_answer(row),
                    "correct": is_right(row["score"]),
                }
                for row in rows[:count]
            ]
            sheets.append(draw_sheet(sheet, out / f"{name}.png"))
    report_errors(images)
    return sheets


def analyze_two(
    first: SavedEvaluation, second: SavedEvaluation, names: tuple[str, str], count: int, out: Path
) -> list[Path]:
    """Print the scores of two evaluations and write the page that compares them; returns the path of the page."""
    pairs = pair_up(first, second)
    groups = by_group([pair.first for pair in pairs], pairs)
    tables = {heading: {name: change(group) for name, group in by_name.items()} for heading, by_name in groups.items()}
    overall = change(pairs)
    for heading, changes in tables.items():
        print_tables({f"By {heading}, %": change_table({**changes, "all": overall}, names)})
    ties = f"both right {overall.both_right}, both wrong {overall.both_wrong}"
    print(f"wins {overall.wins}, losses {overall.losses}, {ties}")
    images = RowImages(first.result["settings"]["data"]), RowImages(second.result["settings"]["data"])
    random_pairs = shuffled(pairs)
    wins = sorted((pair for pair in random_pairs if pair.gain > 0), key=lambda pair: -pair.gain)
    losses = sorted((pair for pair in random_pairs if pair.gain < 0), key=lambda pair: pair.gain)
    comparison = Comparison(
        names=names,
        about={name: evaluation.folder for name, evaluation in zip(names, (first, second), strict=True)},
        overall=overall,
        tables=tables,
        differing=dict(list(differing(settings_of(first), settings_of(second)).items())[:MAX_SETTINGS]),
        wins=[case(pair, images) for pair in wins[:count]],
        losses=[case(pair, images) for pair in losses[:count]],
    )
    for row_images in images:
        report_errors(row_images)
    return [write_comparison(comparison, out / f"against-{first.folder.name}.html")]


def case(pair: Pair, images: tuple[RowImages, RowImages]) -> Case:
    """A pair in the form that the page shows, with the images of both rows where they differ."""
    first, second = pair
    shown = images[0].load(first) + (images[1].load(second) if first["images"] != second["images"] else [])
    answers, scores = (first["prediction"], second["prediction"]), (first["score"], second["score"])
    origin = f"{first['dataset']}, {first['id']}"
    return Case(origin, first["question"], expected_answer(first), answers, scores, shown)


def settings_of(evaluation: SavedEvaluation) -> dict:
    """Settings and package versions, which may explain a difference."""
    settings = evaluation.result["settings"]
    checkpoint = [f"{path} ({digits[:12]})" for path, digits in settings["checkpoint"].items()]
    return {**settings, "checkpoint": ", ".join(checkpoint) or "none", "versions": evaluation.result["versions"]}


def change_table(changes: Mapping[str, Change], names: tuple[str, str]) -> Table:
    """Terminal table of the changes by group."""
    table = Table("", box=None)
    for heading in ("questions", *names, "difference", "95 % interval", "wins", "losses", "p"):
        table.add_column(heading, justify="right")
    for name, value in changes.items():
        scores = f"{value.first:.1f}", f"{value.second:.1f}", f"{value.difference:+.1f}"
        counts = str(value.wins), str(value.losses)
        interval, p = f"{value.low:+.1f} … {value.high:+.1f}", f"{value.p:.3f}"
        table.add_row(name.replace("_", " "), str(value.questions), *scores, interval, *counts, p)
    return table


def report_errors(images: RowImages) -> None:
    """Print how many images could not be opened, with an example."""
    if images.errors:
        print(f"{len(images.errors)} images could not be opened, such as: {images.errors[0]}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the results, print scores, draw sheets or write the page."""
    args = parse_args(arguments)
    if args.count < 1:
        raise ValueError(f"--count {args.count}: at least one image is shown")
    import_modules_from_strings(args.custom_imports)
    evaluations = [read_evaluation(path) for path in args.results]
    out = args.out or evaluations[-1].folder / "analysis"
    names = tuple(args.names or [evaluation.folder.name for evaluation in evaluations])
    if len(evaluations) == 1:
        paths = analyze_one(*evaluations, args.count, out)
    else:
        paths = analyze_two(*evaluations, names, args.count, out)
    print("written: " + ", ".join(map(str, paths)))


if __name__ == "__main__":
    tool.run(main)
