"""Evaluates a model: ``python tools/test.py CONFIG [CHECKPOINT]``."""

import argparse
import json
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.runner import Runner

from mmgpt.engine import check_files, tool


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = tool.parser(description="Evaluate a model on the test data of its config")
    parser.add_argument("checkpoint", nargs="?", help="checkpoint or exported folder; default: load_from of the config")
    parser.add_argument(
        "--resume", action="store_true", help="go on with an evaluation of the same settings that was cut"
    )
    parser.add_argument("--out", help="JSON file for the metrics; default: test_metrics.json in the work directory")
    return parser.parse_args()


def main() -> None:
    """Build an MMEngine Runner, load the checkpoint, test, and write the metrics.

    Raises:
        ValueError: the config has no test data.
        FileNotFoundError: there is no such checkpoint, or files that the config names are missing.
    """
    args = parse_args()
    cfg = tool.prepare(args)
    if not cfg.get("test_dataloader"):
        raise ValueError(f"{args.config} sets no test_dataloader: there is nothing to test")
    if args.checkpoint and not Path(args.checkpoint).exists():
        raise FileNotFoundError(f"there is no checkpoint {args.checkpoint!r}")
    cfg.load_from = args.checkpoint or cfg.get("load_from")
    if args.resume:
        cfg.test_cfg.resume = True
    check_files(cfg, skip=("train_dataloader", "val_dataloader", "val_evaluator"))
    metrics = Runner.from_cfg(cfg).test()
    if is_main_process():
        out = Path(args.out or Path(cfg.work_dir) / "test_metrics.json")
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(metrics, indent=2) + "\n")
        print(json.dumps(metrics, indent=2))


if __name__ == "__main__":
    tool.run(main)
