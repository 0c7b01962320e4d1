"""Check of every dataset that a config names, made before a model is trained on it.

    python tools/analysis_tools/check_dataset.py configs/mmgpt/lora_joint.py

Reads all annotation records, the headers of all their images, and the texts of the samples that the config draws, as
the pipeline writes them in the first epoch; checks that the metrics can score answers to the validation and test data.
Prints counts, lengths and findings; a JSON file has all findings. The exit status is 1 if there are errors, and 0 if
there are at most warnings. The data of a config is also what it inherits: --split train checks the training data alone,
e.g. where the test data of the base config is absent.
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
from mmgpt.cli.files import SECTIONS
from mmgpt.cli.options import add_cfg_options
from mmgpt.datasets.inspection.check import (
    ERRORS,
    SPLITS,
    WARNINGS,
    CheckedDataset,
    Finding,
    check_datasets,
    images_of,
    read_datasets,
)
from mmgpt.evaluation.readiness import scoring_problems
from mmgpt.utils.progress_bar import progress_bar
from mmgpt.visualization.tables import print_tables

EXAMPLES = 5
LOADERS = [f"{split}_dataloader" for split in SPLITS]
COUNTS = ("records", "samples", "turns", "images")
LENGTHS = ("median", "95 %", "max", "limit")


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Command line arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="config file")
    parser.add_argument("--out", type=Path, help="JSON file; default: work_dirs/<name of config>/check_dataset.json")
    parser.add_argument("--split", nargs="+", choices=SPLITS, default=SPLITS, help="splits to check; default: all")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes; default: one per CPU core")
    add_cfg_options(parser)
    args = parser.parse_args(arguments)
    args.out = args.out or Path("work_dirs") / Path(args.config).stem / "check_dataset.json"
    return args


def tables(figures: Sequence[dict]) -> dict[str, Table]:
    """Tables of counts and lengths by title, with a line for each dataset."""
    counts = _table(*COUNTS, "image sizes")
    lengths = _table(*LENGTHS, "> limit")
    for row in figures:
        name, tokens, sizes = (row["split"], row["dataset"]), row["tokens"], row["image_sizes"] or {}
        extremes = dict.fromkeys(f"{width}x{height}" for width, height in sizes.values())
        counts.add_row(*name, *(str(row[key]) for key in COUNTS), " – ".join(extremes))
        if row["samples"]:
            lengths.add_row(*name, *(str(tokens[key]) for key in LENGTHS), f"{tokens['above']:.1%}")
    return {"Datasets": counts, "Lengths in tokens, before any cut": lengths}


def _table(*headings: str) -> Table:
    table = Table()
    for heading in ("split", "dataset"):
        table.add_column(heading, no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def lines(findings: Iterable[Finding]) -> Iterator[str]:
    """Findings as text: the number of each kind in each dataset, and the first of them."""
    kinds = ERRORS | WARNINGS
    ordered = sorted(findings, key=lambda finding: (list(kinds).index(finding.kind), SPLITS.index(finding.split)))
    groups = groupby(ordered, key=lambda finding: (finding.kind, finding.split, finding.dataset))
    for (kind, split, name), group in groups:
        same_kind = list(group)
        yield f"{'error' if kind in ERRORS else 'warning'}: {kinds[kind]} in {split} dataset {name!r}: {len(same_kind)}"
        for finding in same_kind[:EXAMPLES]:
            record = [] if finding.record is None else [f"record {finding.record}"]
            name = [] if finding.id is None else [f"id {finding.id!r}"]
            yield f"    {', '.join([finding.file, *record, *name])}: {finding.value}"
        if len(same_kind) > EXAMPLES:
            yield f"    and {len(same_kind) - EXAMPLES} more"


def read(cfg: Mapping) -> list[CheckedDataset]:
    """Datasets of a config, with their annotation files read."""
    datasets = []
    with progress_bar("annotation files", total=None) as bar:
        for checked in read_datasets(cfg):
            datasets.append(checked)
            bar.update()
    if not datasets:
        raise ValueError(f"the config names no dataset: looked for {', '.join(LOADERS)}")
    return datasets


def check_metrics(cfg: Mapping, datasets: Sequence[CheckedDataset]) -> Iterator[Finding]:
    """Findings about metrics that could not score answers to the data of a split."""
    for split in ("val", "test"):
        questions = [checked for checked in datasets if checked.split == split]
        evaluator = cfg.get(f"{split}_evaluator")
        if evaluator and questions:
            names = ", ".join(dict.fromkeys(checked.dataset.name for checked in questions))
            for problem in scoring_problems(evaluator, questions):
                yield Finding("unscorable", split, names, f"{split}_evaluator", None, None, problem)


def write(out: Path, config: str, figures: Sequence[dict], findings: Sequence[Finding]) -> None:
    """Write figures and findings as JSON."""
    report = {"config": config, "datasets": figures, "findings": [finding._asdict() for finding in findings]}
    out.parent.mkdir(parents=True, exist_ok=True)
    # A JSON file can hold a lone surrogate as an escape, which stays an escape.
    text = json.dumps(report, indent=2, ensure_ascii=False) + "\n"
    out.write_text(text, encoding="utf-8", errors="backslashreplace")


def main(arguments: Sequence[str] | None = None) -> None:
    """Check the datasets, print and write the findings; exit with status 1 if there are errors."""
    args = parse_args(arguments)
    if args.workers < 1:
        raise ValueError(f"--workers {args.workers}: at least one process is needed")
    cfg = load_config(args.config, args.cfg_options)
    for split in set(SPLITS) - set(args.split):
        cfg[f"{split}_dataloader"] = None
    check_files(cfg, skip=set(SECTIONS) - set(LOADERS))
    datasets = read(cfg)
    images = images_of(datasets)
    total = sum(len(checked.samples) for checked in datasets) + len(images)
    with progress_bar("samples and images", total) as bar:
        figures, findings = check_datasets(datasets, images, args.workers, bar.update)
    findings += check_metrics(cfg, datasets)
    write(args.out, args.config, figures, findings)
    print_tables(tables(figures))
    for line in lines(findings):
        print(line)
    errors = sum(finding.kind in ERRORS for finding in findings)
    print(f"{errors} errors, {len(findings) - errors} warnings; all of them in {args.out}")
    if errors:
        sys.exit(1)


if __name__ == "__main__":
    tool.run(main)
