"""Final report of the quickstart: scores, controls, loss curves and a sheet of held-out images."""
# ruff: noqa: E402, I001

import time

START = time.perf_counter()  # before the heavy imports, whose seconds belong to the total

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from breakdown import Scenes, breakdown, families, scores
from mmengine.config import ConfigDict
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from rich.table import Table
from torch.utils.data import ConcatDataset, Dataset, Subset
from tqdm import tqdm

from mmgpt.cli.options import add_cfg_options
from mmgpt.apis import build_model
from mmgpt.datasets import ImageControl
from mmgpt.cli import load_config, tool
from mmgpt.evaluation.answering import answer_all, cpu_threads
from mmgpt.evaluation.metrics.answers import references, write_rows
from mmgpt.registry import DATASETS
from mmgpt.visualization import draw_curves, draw_sheet
from mmgpt.visualization.curves import SCALARS, read_scalars
from mmgpt.visualization.tables import percent_table, print_tables

HEADINGS = {"tuned": "tuned", "before": "before", "other_image": "other image", "zero_image": "zero image"}
IMAGES_PER_FAMILY = 2


def dataset_configs(dataset: ConfigDict) -> list[ConfigDict]:
    """The configs of the datasets in a concatenated test set, one per family."""
    configs = [*dataset.get("datasets", ()), *dataset.get("visual", ()), *dataset.get("language", ())]
    return configs or [dataset]


class Evaluation:
    """The held-out questions and the model that answers them, under several conditions.

    Args:
        cfg: config of the experiment; its ``test_dataloader`` has one dataset per family.
        model: model with ``test_step``, and with ``disabled()``, the context in which it is as before tuning. Where it
            names components in ``trained_in_full``, the condition before tuning is left out.
        scenes: scenes of the images.

    Attributes:
        datasets: the datasets, one per family.
        main: for each dataset, the indices of the samples that count for the main scores.
    """

    def __init__(self, cfg: ConfigDict, model, scenes: Scenes):
        self.loader = cfg.test_dataloader
        self.datasets = [DATASETS.build(config) for config in dataset_configs(self.loader.dataset)]
        self.main = [
            [i for i in range(len(dataset)) if scenes.is_main(dataset.get_data_info(i)["images"])]
            for dataset in self.datasets
        ]
        self.model = model

    def control(self, kind: str) -> Dataset:
        """The main visual questions with other images: kind 'other' or 'zero' of ImageControl."""
        pairs = [pair for pair in zip(self.datasets, self.main, strict=True) if pair[0].source == "visual"]
        return ConcatDataset([Subset(ImageControl(dataset, kind), indices) for dataset, indices in pairs])

    def run(self) -> dict[str, list[dict]]:
        """Scored rows by condition: all questions with the tuned model, the main ones in the other conditions."""
        main = [Subset(dataset, indices) for dataset, indices in zip(self.datasets, self.main, strict=True)]
        questions = {
            "tuned": ConcatDataset(self.datasets),
            "before": ConcatDataset(main),
            "other_image": self.control("other"),
            "zero_image": self.control("zero"),
        }
        if getattr(self.model, "trained_in_full", ()):
            del questions["before"]
        rows, threads = {}, cpu_threads(self.model)
        # A log file does not need a progress line ten times a second.
        interval = 0.1 if sys.stderr.isatty() else 10
        with tqdm(total=sum(map(len, questions.values())), unit="question", mininterval=interval) as bar:
            for name, dataset in questions.items():
                bar.set_description(HEADINGS[name], refresh=False)
                batches = Runner.build_dataloader({**self.loader, "dataset": dataset})
                with self.model.disabled() if name == "before" else nullcontext():
                    rows[name] = answer_all(self.model, batches, bar.update, threads)
        return rows


def make_report(rows: dict[str, list[dict]], scenes: Scenes) -> dict:
    """Content of ``report.json`` without the seconds, from scored rows by condition."""
    # The other conditions have the main questions only, and their rows may name an exchanged image.
    main = rows | {"tuned": [row for row in rows["tuned"] if scenes.is_main(row["images"])]}
    return {name: scores(condition) for name, condition in main.items()} | breakdown(rows["tuned"], scenes)


def tables(report: dict, rows: dict[str, list[dict]]) -> dict[str, Table]:
    """The report as tables by title: the families under every condition, then the tuned model by kind of scene."""
    counts = report["tuned"]["counts"]
    visual = families(rows["tuned"], "visual")
    columns = {heading: report[name] for name, heading in HEADINGS.items() if name in report}
    visual_counts = {name: counts[name] for name in visual} | {"visual_mean": sum(counts[name] for name in visual)}
    text_counts = {name: counts[name] for name in families(rows["tuned"], "language")}
    scenes = {f"{n} object{'s' * (n != '1')}": group for n, group in report["by_objects"].items()}
    scenes |= {"seen pairs": report["seen_pairs"], "unseen pairs": report["unseen_pairs"]}
    scenes = {name: group for name, group in scenes.items() if group["counts"]}
    result = {
        "Held-out questions about images, % right (scenes of one and two objects)": percent_table(
            columns, visual_counts
        )
    }
    if text_counts:
        text_columns = {name: columns[name] for name in ("tuned", "before") if name in columns}
        result["Text only, % right"] = percent_table(text_columns, text_counts)
    means = {name: group["visual_mean"] for name, group in scenes.items()}
    scene_counts = {name: sum(group["counts"].values()) for name, group in scenes.items()}
    by_scene = percent_table({"tuned": means}, scene_counts)
    return result | {"Tuned, mean over the families, % right, by kind of scene": by_scene}


def sheet_rows(rows: Sequence[dict], datasets: Sequence[Dataset]) -> list[dict]:
    """The first questions of each visual family, with the path of their image."""
    chosen = []
    for dataset in datasets:
        if dataset.source == "visual":
            first = [row for row in rows if row["dataset"] == dataset.name][:IMAGES_PER_FAMILY]
            folder = Path(dataset.data_prefix["img"])
            chosen += [row | {"image": folder / row["images"][0], "answer": references(row)[0]} for row in first]
    return chosen


def draw(out: Path, work_dir: Path, rows: list[dict]) -> list[Path]:
    """Draw the sheet and, if the work dir has training scalars, the curves; returns the paths."""
    paths = [draw_sheet(rows, out / "pictures.png")]
    starts = sorted(work_dir.glob(f"*/{SCALARS}"))
    run = read_scalars(starts) if starts else {}
    if "loss" in run:
        paths.append(draw_curves({work_dir.name: run}, out / "curves.png"))
    else:
        print(f"no loss curves: no */{SCALARS} of {work_dir} holds a loss")
    return paths


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", help="config file")
    parser.add_argument("checkpoint", help="checkpoint of the tuning")
    parser.add_argument("--out", required=True, type=Path, help="folder for report.json and the images")
    parser.add_argument("--data-root", help="the tiny world's folder, instead of the config's data_root")
    parser.add_argument("--seconds", type=Path, help="JSON of the seconds that earlier steps took, by name")
    parser.add_argument("--device", help="torch device; by default the GPU when there is one")
    add_cfg_options(parser)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Evaluate the model, write the report, print its tables."""
    args = parse_args(arguments)
    options = (args.cfg_options or {}) | ({"data_root": args.data_root} if args.data_root else {})
    cfg = load_config(args.config, options)
    seconds = json.loads(args.seconds.read_text()) if args.seconds else {}
    scenes = Scenes(Path(cfg.data_root) / "scenes.json")
    evaluation = Evaluation(cfg, build_model(cfg, args.checkpoint, args.device), scenes)
    rows = evaluation.run()
    report = make_report(rows, scenes)
    args.out.mkdir(parents=True, exist_ok=True)
    for name, condition in rows.items():
        write_rows(condition, args.out / "answers" / f"{name}.jsonl")
    paths = draw(args.out, Path(args.checkpoint).parent, sheet_rows(rows["tuned"], evaluation.datasets))
    seconds["evaluate"] = round(time.perf_counter() - START, 1)
    report["seconds"] = seconds | {"total": round(sum(v for k, v in seconds.items() if k != "total"), 1)}
    path = args.out / "report.json"
    path.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print_tables(tables(report, rows))
    print("written: " + ", ".join(map(str, [path, *paths])))


if __name__ == "__main__":
    # Log lines of each dataset would hide the tables.
    MMLogger.get_instance("mmengine", log_level="WARNING")
    tool.run(main)
