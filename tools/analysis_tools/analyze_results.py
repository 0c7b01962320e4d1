"""Looks at what tools/test.py wrote: one evaluation by itself, or two of the same samples side by side.

    python tools/analysis_tools/analyze_results.py work_dirs/lora_joint/evaluation/latest-1a2b3c4d
    python tools/analysis_tools/analyze_results.py FIRST SECOND --names before after

Of one: figures for each dataset and each kind of question, and two sheets of pictures with question, prediction and
truth, the worst answers and random ones. Of two: the figures of both with the uncertainty of their difference, and a
page of wins and losses with pictures. Samples are scored by the rule of their benchmark.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.table import Table

from mmgpt.cli import tool
from mmgpt.evaluation.comparison import Change, Pair, change, differing, pair_up
from mmgpt.evaluation.pictures import Pictures
from mmgpt.evaluation.written import Written, common_types, grouped, is_right, read_evaluation, truth
from mmgpt.visualization import draw_sheet
from mmgpt.visualization.comparison import Case, Comparison, write_comparison
from mmgpt.visualization.sheet import side_by_side
from mmgpt.visualization.tables import percent_table, print_tables

SETTINGS = 20  # differing ones on the page


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+", metavar="RESULT", help="folder with result.json; one or two")
    parser.add_argument("--names", nargs="+", help="of the results, in tables; default: those of the folders")
    parser.add_argument("--count", type=int, default=16, help="pictures on a sheet, wins and losses; default: 16")
    parser.add_argument("--out", type=Path, help="folder; default: analysis/ in the folder of the last result")
    args = parser.parse_args(arguments)
    if len(args.results) > 2 or args.names and len(args.names) != len(args.results):
        parser.error("one result or two, and as many names")
    return args


def by_group(rows: Sequence[dict], members: Sequence) -> dict[str, dict[str, list]]:
    """Members, one for each row, grouped in two ways: by dataset and by kind of question."""
    datasets = grouped([row["dataset"] for row in rows], members)
    return {"dataset": datasets, "question type": grouped(common_types(rows), members)}


def shuffled(rows: Sequence) -> list:
    """The same random order each time."""
    return [rows[i] for i in np.random.default_rng(0).permutation(len(rows))]


def analyze_one(written: Written, count: int, out: Path) -> list[Path]:
    """Print the figures, draw the sheets, return their files."""
    tables = {}
    for heading, groups in by_group(written.rows, written.rows).items():
        percent = {name: 100 * np.mean([row["score"] for row in rows]) for name, rows in groups.items()}
        counts = {name: len(rows) for name, rows in groups.items()}
        tables[f"By {heading}, %"] = percent_table({written.rule: percent}, counts)
    print_tables(tables)
    pictures, mixed = Pictures(written.result["settings"]["data"]), shuffled(written.rows)
    worst = sorted((row for row in mixed if row["score"] < 1), key=lambda row: row["score"])
    made = []
    for name, rows in (("worst", worst), ("random", mixed)):
        if rows:
            made.append(draw_sheet([sheet_row(row, pictures) for row in rows[:count]], out / f"{name}.png"))
    report_lost(pictures)
    return made


def sheet_row(row: Mapping, pictures: Pictures) -> dict:
    """A row as `draw_sheet` takes it."""
    image = side_by_side(pictures.of(row))
    return {**row, "image": image, "answer": truth(row), "correct": is_right(row["score"])}


def analyze_two(first: Written, second: Written, names: tuple[str, str], count: int, out: Path) -> list[Path]:
    """Print the figures, write the page, return its file."""
    pairs = pair_up(first, second)
    groups = by_group([pair.first for pair in pairs], pairs)
    tables = {heading: {name: change(part) for name, part in parts.items()} for heading, parts in groups.items()}
    overall = change(pairs)
    for heading, changes in tables.items():
        print_tables({f"By {heading}, %": change_table({**changes, "all": overall}, names)})
    same = f"both right {overall.both_right}, both wrong {overall.both_wrong}"
    print(f"wins {overall.wins}, losses {overall.losses}, {same}")
    pictures = Pictures(first.result["settings"]["data"]), Pictures(second.result["settings"]["data"])
    mixed = shuffled(pairs)
    wins, losses = (
        [case(pair, pictures) for pair in chosen[:count]] for chosen in (best(mixed, Pair.gain.fget), best(mixed, lost))
    )
    made = [settings_of(written) for written in (first, second)]
    about = {name: written.folder for name, written in zip(names, (first, second), strict=True)}
    settings = dict(list(differing(*made).items())[:SETTINGS])
    shown = Comparison(names, about, overall, tables, settings, wins, losses)
    for each in pictures:
        report_lost(each)
    return [write_comparison(shown, out / f"against-{first.folder.name}.html")]


def lost(pair: Pair) -> float:
    """What the second one scores less."""
    return -pair.gain


def best(pairs: Sequence[Pair], key: Callable[[Pair], float]) -> list[Pair]:
    """Those above zero, highest first."""
    return sorted((pair for pair in pairs if key(pair) > 0), key=key, reverse=True)


def case(pair: Pair, pictures: tuple[Pictures, Pictures]) -> Case:
    """A pair as the page shows it; both pictures where the two were shown others."""
    first, second = pair
    images = pictures[0].of(first)
    images += pictures[1].of(second) if first["images"] != second["images"] else []
    answers, scores = (first["prediction"], second["prediction"]), (first["score"], second["score"])
    return Case(f"{first['dataset']}, {first['id']}", first["question"], truth(first), answers, scores, images)


def settings_of(written: Written) -> dict:
    """What may explain a difference: settings, and versions of packages."""
    settings = written.result["settings"]
    checkpoint = [f"{path} ({digits[:12]})" for path, digits in settings["checkpoint"].items()]
    return {**settings, "checkpoint": ", ".join(checkpoint) or "none", "versions": written.result["versions"]}


def change_table(changes: Mapping[str, Change], names: tuple[str, str]) -> Table:
    """Figures of groups as a table for the terminal."""
    table = Table("", box=None)
    for heading in ("questions", *names, "difference", "95 % interval", "wins", "losses", "p"):
        table.add_column(heading, justify="right")
    for name, value in changes.items():
        scores = f"{value.first:.1f}", f"{value.second:.1f}", f"{value.difference:+.1f}"
        counts = str(value.wins), str(value.losses)
        interval, p = f"{value.low:+.1f} … {value.high:+.1f}", f"{value.p:.3f}"
        table.add_row(name.replace("_", " "), str(value.questions), *scores, interval, *counts, p)
    return table


def report_lost(pictures: Pictures) -> None:
    """Says which pictures could not be opened."""
    if pictures.lost:
        print(f"{len(pictures.lost)} pictures could not be opened, such as: {pictures.lost[0]}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Read, print, draw."""
    args = parse_args(arguments)
    if args.count < 1:
        raise ValueError(f"--count {args.count}: at least one picture is shown")
    written = [read_evaluation(path) for path in args.results]
    out = args.out or written[-1].folder / "analysis"
    names = tuple(args.names or [each.folder.name for each in written])
    if len(written) == 1:
        made = analyze_one(*written, args.count, out)
    else:
        made = analyze_two(*written, names, args.count, out)
    print("written: " + ", ".join(map(str, made)))


if __name__ == "__main__":
    tool.run(main)
