"""Trains a model: ``python tools/train.py CONFIG``."""

import argparse
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.runner import Runner

from mmgpt.engine import check_files, tool
from mmgpt.engine.checkpoint import LATEST


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = tool.parser(description="Train a model")
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        metavar="CHECKPOINT",
        help="go on from this checkpoint; without a value from the newest in the work directory, if there is one",
    )
    parser.add_argument("--amp", action="store_true", help="bfloat16 automatic mixed precision (needs a GPU)")
    parser.add_argument("--seed", type=int, help="instead of the config's `seed`")
    return parser.parse_args()


def set_resume(cfg: Config, resume: str | None) -> None:
    """Set ``cfg.resume`` and ``cfg.load_from`` as the option --resume asks.

    Raises:
        FileNotFoundError: a checkpoint is named that does not exist.
    """
    if resume is None:
        return
    checkpoint = Path(cfg.work_dir) / LATEST if resume == "auto" else Path(resume)
    if checkpoint.is_file():
        cfg.resume, cfg.load_from = True, str(checkpoint)
    elif resume != "auto":
        raise FileNotFoundError(f"--resume: there is no checkpoint {resume!r}")
    else:
        print(f"--resume: no checkpoint in {cfg.work_dir} yet, starting from the beginning")


def set_amp(cfg: Config) -> None:
    """Let the optimizer wrapper of ``cfg`` use automatic mixed precision.

    Raises:
        ValueError: there is no GPU.
    """
    if not torch.cuda.is_available():
        raise ValueError("--amp needs a GPU, and torch finds none here")
    cfg.optim_wrapper.type = "AmpOptimWrapper"
    cfg.optim_wrapper.setdefault("dtype", "bfloat16")


def main() -> None:
    """Build an MMEngine Runner from the config and the options, and train."""
    args = parse_args()
    if args.seed is not None:
        args.cfg_options = {**(args.cfg_options or {}), "seed": args.seed}
    cfg = tool.prepare(args)
    if args.amp:
        set_amp(cfg)
    set_resume(cfg, args.resume)
    check_files(cfg, skip=("test_dataloader", "test_evaluator"))
    Runner.from_cfg(cfg).train()


if __name__ == "__main__":
    tool.run(main)
