"""Checks every dataset that a config names before a model is trained on it.

    python tools/analysis_tools/check_dataset.py configs/mmgpt/lora_joint.py

Reads all annotation records, the header of all their images, and the text of the samples that the config keeps, as the
pipeline writes it in the first epoch; asks the metrics whether they could judge answers to the validation and test
data. Prints counts, lengths and what was found; all findings go to a JSON file. The exit status is 1 when something is
wrong, and 0 when there are at most warnings. A split whose data is not there is left out by --cfg-options
test_dataloader=None (or val_dataloader).
"""

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path

from rich.table import Table

from mmgpt.cli import check_files, load_config, tool
from mmgpt.cli.files import PARTS
from mmgpt.cli.options import add_cfg_options
from mmgpt.datasets.inspection.check import ERRORS, SPLITS, WARNINGS, Finding, Part, check_parts, images_of, read_parts
from mmgpt.engine.hooks.progress_bar import progress_bar
from mmgpt.evaluation.readiness import unjudgeable
from mmgpt.visualization.tables import print_tables

EXAMPLES = 5
LOADERS = [f"{split}_dataloader" for split in SPLITS]
COUNTS = ("records", "samples", "turns", "images")
LENGTHS = ("median", "95 %", "max", "limit")


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="config file")
    parser.add_argument("--out", type=Path, help="JSON file; default: work_dirs/<name of config>/check_dataset.json")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes; default: one for each CPU core")
    add_cfg_options(parser)
    args = parser.parse_args(arguments)
    args.out = args.out or Path("work_dirs") / Path(args.config).stem / "check_dataset.json"
    return args


def tables(figures: Sequence[dict]) -> dict[str, Table]:
    """Counts and lengths by title, a line for each dataset."""
    counted = _table(*COUNTS, "image sizes")
    measured = _table(*LENGTHS, "> limit")
    for each in figures:
        name, tokens, sizes = (each["split"], each["dataset"]), each["tokens"], each["image_sizes"] or {}
        ends = dict.fromkeys(f"{width}x{height}" for width, height in sizes.values())
        counted.add_row(*name, *(str(each[key]) for key in COUNTS), " – ".join(ends))
        if each["samples"]:
            measured.add_row(*name, *(str(tokens[key]) for key in LENGTHS), f"{tokens['above']:.1%}")
    return {"Datasets": counted, "Lengths in tokens, before any cut": measured}


def _table(*headings: str) -> Table:
    table = Table()
    for heading in ("split", "dataset"):
        table.add_column(heading, no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def lines(findings: Iterable[Finding]) -> Iterator[str]:
    """The findings in words: how many of each kind a dataset has, and the first of them."""
    kinds = ERRORS | WARNINGS
    ordered = sorted(findings, key=lambda found: (list(kinds).index(found.kind), SPLITS.index(found.split)))
    for (kind, split, name), group in groupby(ordered, key=lambda found: (found.kind, found.split, found.dataset)):
        found = list(group)
        yield f"{'error' if kind in ERRORS else 'warning'}: {kinds[kind]} in {split} dataset {name!r}: {len(found)}"
        for each in found[:EXAMPLES]:
            place = [each.file] if each.record is None else [each.file, f"record {each.record}"]
            yield f"    {', '.join(place + [f'id {each.id!r}'] * (each.id is not None))}: {each.value}"
        if len(found) > EXAMPLES:
            yield f"    and {len(found) - EXAMPLES} more"


def read(cfg: Mapping) -> list[Part]:
    """The datasets of a config, their annotation files read."""
    parts = []
    with progress_bar("annotation files", total=None) as bar:
        for part in read_parts(cfg):
            parts.append(part)
            bar.update()
    if not parts:
        raise ValueError(f"the config names no dataset: looked for {', '.join(LOADERS)}")
    return parts


def check_metrics(cfg: Mapping, parts: Sequence[Part]) -> Iterator[Finding]:
    """Why answers to the data of a split could not be judged by its metrics."""
    for split in ("val", "test"):
        asked = [part for part in parts if part.split == split]
        evaluator = cfg.get(f"{split}_evaluator")
        if evaluator and asked:
            names = ", ".join(dict.fromkeys(part.dataset.name for part in asked))
            for problem in unjudgeable(evaluator, asked):
                yield Finding("unjudgeable", split, names, f"{split}_evaluator", None, None, problem)


def write(out: Path, config: str, figures: Sequence[dict], findings: Sequence[Finding]) -> None:
    """Write figures and findings as JSON."""
    report = {"config": config, "datasets": figures, "findings": [found._asdict() for found in findings]}
    out.parent.mkdir(parents=True, exist_ok=True)
    # A lone surrogate, which a file can hold as an escape, stays one.
    text = json.dumps(report, indent=2, ensure_ascii=False) + "\n"
    out.write_text(text, encoding="utf-8", errors="backslashreplace")


def main(arguments: Sequence[str] | None = None) -> None:
    """Check, print, write; ends with status 1 when something is wrong."""
    args = parse_args(arguments)
    if args.workers < 1:
        raise ValueError(f"--workers {args.workers}: at least one process has to look")
    cfg = load_config(args.config, args.cfg_options)
    check_files(cfg, skip=set(PARTS) - set(LOADERS))
    parts = read(cfg)
    images = images_of(parts)
    total = sum(len(part.samples) for part in parts) + len(images)
    with progress_bar("samples and images", total) as bar:
        figures, findings = check_parts(parts, images, args.workers, bar.update)
    findings += check_metrics(cfg, parts)
    write(args.out, args.config, figures, findings)
    print_tables(tables(figures))
    for line in lines(findings):
        print(line)
    errors = sum(found.kind in ERRORS for found in findings)
    print(f"{errors} errors, {len(findings) - errors} warnings; all of them in {args.out}")
    if errors:
        sys.exit(1)


if __name__ == "__main__":
    tool.run(main)
