"""The closing report of the quickstart: figures, controls, loss curves and a sheet of held-out pictures."""
# ruff: noqa: E402, I001

import time

START = time.perf_counter()  # before the heavy imports: their seconds belong to the total

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
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset
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
PICTURES_PER_FAMILY = 2


def part_configs(dataset: ConfigDict) -> list[ConfigDict]:
    """The configs of the datasets, one per family, that a concatenated test set is made of."""
    parts = [*dataset.get("datasets", ()), *dataset.get("visual", ()), *dataset.get("language", ())]
    return parts or [dataset]


def main_questions(parts: Sequence[Dataset], scenes: Scenes) -> list[list[int]]:
    """For each dataset, the positions of the samples that belong to the main figures."""
    return [[i for i in range(len(part)) if scenes.is_main(part.get_data_info(i)["images"])] for part in parts]


class Evaluation:
    """The held-out questions and the model that answers them, under several conditions.

    Args:
        cfg: the experiment's config; its ``test_dataloader`` holds one dataset per family.
        model: answers by ``test_step``; ``disabled()`` is the context in which it is as before tuning.
        scenes: which questions belong to the main figures.
    """

    def __init__(self, cfg: ConfigDict, model, scenes: Scenes):
        self.loader = cfg.test_dataloader
        self.parts = [DATASETS.build(config) for config in part_configs(self.loader.dataset)]
        self.main = main_questions(self.parts, scenes)
        self.model = model

    def everything(self) -> Dataset:
        """All held-out questions."""
        return ConcatDataset(self.parts)

    def main_only(self) -> Dataset:
        """The questions of the main figures."""
        return ConcatDataset([Subset(part, kept) for part, kept in zip(self.parts, self.main, strict=True)])

    def control(self, kind: str) -> Dataset:
        """The main visual questions with other images: kind 'other' or 'zero' of ImageControl."""
        pairs = [pair for pair in zip(self.parts, self.main, strict=True) if pair[0].source == "visual"]
        return ConcatDataset([Subset(ImageControl(part, kind), kept) for part, kept in pairs])

    def run(self) -> dict[str, list[dict]]:
        """Answer everything, then the controls; judged rows by condition, with one progress bar."""
        sets = {
            "tuned": self.everything(),
            "before": self.main_only(),
            "other_image": self.control("other"),
            "zero_image": self.control("zero"),
        }
        rows, threads = {}, cpu_threads(self.model)
        # Where the output is no terminal, a line now and then is enough.
        pause = 0.1 if sys.stderr.isatty() else 10
        with tqdm(total=sum(map(len, sets.values())), unit="question", mininterval=pause) as bar:
            for name, dataset in sets.items():
                bar.set_description(HEADINGS[name], refresh=False)
                with self.model.disabled() if name == "before" else nullcontext():
                    rows[name] = answer_all(self.model, self._batches(dataset), bar.update, threads)
        return rows

    def _batches(self, dataset: Dataset) -> DataLoader:
        return Runner.build_dataloader({**self.loader, "dataset": dataset})


def make_report(rows: dict[str, list[dict]], scenes: Scenes) -> dict:
    """All figures of ``report.json`` but the seconds, from judged rows by condition."""
    # The other conditions were asked the main questions only; their rows may name an exchanged image.
    main = rows | {"tuned": [row for row in rows["tuned"] if scenes.is_main(row["images"])]}
    return {name: scores(given) for name, given in main.items()} | breakdown(rows["tuned"], scenes)


def tables(report: dict, rows: dict[str, list[dict]]) -> dict[str, Table]:
    """The report as tables by title: the families under every condition, then the tuned model by kind of scene."""
    counts = report["tuned"]["counts"]
    visual = families(rows["tuned"], "visual")
    columns = {heading: report[name] for name, heading in HEADINGS.items()}
    asked = {name: counts[name] for name in visual} | {"visual_mean": sum(counts[name] for name in visual)}
    text = {name: counts[name] for name in families(rows["tuned"], "language")}
    scenes = {f"{n} object{'s' * (n != '1')}": part for n, part in report["by_objects"].items()}
    scenes |= {"seen pairs": report["seen_pairs"], "unseen pairs": report["unseen_pairs"]}
    scenes = {name: part for name, part in scenes.items() if part["counts"]}
    means = {name: part["visual_mean"] for name, part in scenes.items()}
    made = {"Held-out questions about pictures, % right (scenes of one and two objects)": percent_table(columns, asked)}
    if text:
        made["Text only, % right"] = percent_table({name: columns[name] for name in ("tuned", "before")}, text)
    by_scene = {name: sum(part["counts"].values()) for name, part in scenes.items()}
    return made | {
        "Tuned, mean over the families, % right, by kind of scene": percent_table({"tuned": means}, by_scene)
    }


def sheet_rows(rows: Sequence[dict], parts: Sequence[Dataset]) -> list[dict]:
    """The first questions of every visual family, with the path of their picture."""
    chosen = []
    for part in parts:
        if part.source == "visual":
            own = [row for row in rows if row["dataset"] == part.name][:PICTURES_PER_FAMILY]
            folder = Path(part.data_prefix["img"])
            chosen += [row | {"image": folder / row["images"][0], "answer": references(row)[0]} for row in own]
    return chosen


def draw(out: Path, work_dir: Path, pictures: list[dict]) -> list[Path]:
    """Draw the sheet and, when the work dir holds training scalars, the curves; return the files."""
    made = [draw_sheet(pictures, out / "pictures.png")]
    starts = sorted(work_dir.glob(f"*/{SCALARS}"))
    run = read_scalars(starts) if starts else {}
    if "loss" in run:
        made.append(draw_curves({work_dir.name: run}, out / "curves.png"))
    else:
        print(f"no loss curves: no */{SCALARS} of {work_dir} holds a loss")
    return made


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", help="config file")
    parser.add_argument("checkpoint", help="what the tuning wrote")
    parser.add_argument("--out", required=True, type=Path, help="folder for report.json and the pictures")
    parser.add_argument("--data-root", help="the tiny world's folder, instead of the config's data_root")
    parser.add_argument("--seconds", type=Path, help="JSON of the seconds that earlier steps took, by name")
    parser.add_argument("--device", help="torch device; by default the GPU when there is one")
    add_cfg_options(parser)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Evaluate, write, print."""
    args = parse_args(arguments)
    options = (args.cfg_options or {}) | ({"data_root": args.data_root} if args.data_root else {})
    cfg = load_config(args.config, options)
    seconds = json.loads(args.seconds.read_text()) if args.seconds else {}
    scenes = Scenes(Path(cfg.data_root) / "scenes.json")
    evaluation = Evaluation(cfg, build_model(cfg, args.checkpoint, args.device), scenes)
    rows = evaluation.run()
    report = make_report(rows, scenes)
    args.out.mkdir(parents=True, exist_ok=True)
    for name, given in rows.items():
        write_rows(given, args.out / "answers" / f"{name}.jsonl")
    made = draw(args.out, Path(args.checkpoint).parent, sheet_rows(rows["tuned"], evaluation.parts))
    seconds["evaluate"] = round(time.perf_counter() - START, 1)
    report["seconds"] = seconds | {"total": round(sum(v for k, v in seconds.items() if k != "total"), 1)}
    path = args.out / "report.json"
    path.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print_tables(tables(report, rows))
    print("written: " + ", ".join(map(str, [path, *made])))


if __name__ == "__main__":
    # The table should not drown in a line per dataset.
    MMLogger.get_instance("mmengine", log_level="WARNING")
    tool.run(main)
