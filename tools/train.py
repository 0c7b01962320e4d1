"""Trains a model: ``python tools/train.py CONFIG``."""

import argparse
from contextlib import nullcontext
from pathlib import Path

from mmengine.config import Config

from mmgpt.cli import check_files, tool
from mmgpt.cli.config import flamingo_config
from mmgpt.cli.failures import DiskFault, Stopped, log_end
from mmgpt.cli.work_dir import check_writable, newest_checkpoint
from mmgpt.utils.imports import heavy_imports
from mmgpt.utils.lock import is_first_process, locked, was_deleted

ADVICE = "wait for the end of that training, or name another folder with --work-dir"


def parse_args() -> argparse.Namespace:
    """Command line."""
    parser = tool.parser(description="Train a model")
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        metavar="CHECKPOINT",
        help="continue from this checkpoint; without a value, from the newest complete one in the work directory",
    )
    parser.add_argument("--amp", action="store_true", help="bfloat16 automatic mixed precision")
    parser.add_argument("--seed", type=int, help="instead of the config's `seed`")
    return parser.parse_args()


def set_resume(cfg: Config, resume: str | None) -> None:
    """Sets ``cfg.resume`` and ``cfg.load_from`` by the option --resume, or by ``resume = True`` in the config.

    Raises:
        FileNotFoundError: the checkpoint does not exist.
    """
    if resume is None and cfg.get("resume"):
        resume = cfg.get("load_from") or "auto"
    if resume is None:
        return
    if resume != "auto" and not Path(resume).is_file():
        raise FileNotFoundError(f"--resume: there is no checkpoint {resume!r}")
    checkpoint, incomplete = newest_checkpoint(cfg.work_dir) if resume == "auto" else (Path(resume), [])
    for path in incomplete:
        print(f"--resume: {path} is incomplete and skipped")
    if checkpoint:
        cfg.resume, cfg.load_from = True, str(checkpoint)
        print(f"--resume: going on from {checkpoint}")
    else:
        cfg.resume = False
        print(f"--resume: no checkpoint in {cfg.work_dir} yet, starting from the beginning")


def set_amp(cfg: Config) -> None:
    """Sets automatic mixed precision in the optimizer wrapper of ``cfg``; on a CPU, bfloat16 for the frozen weights.

    Autocast on a CPU would cast each frozen weight anew at each call, and keep a copy of it for the backward pass. A
    frozen bfloat16 language model, with trained weights in float32, computes the same without.

    Without a dtype of their own, gated blocks that are trained without LoRA would have the language model's.

    Raises:
        ValueError: there is no GPU, and the language model is trained.
    """
    import torch  # The import takes seconds, see main.

    if torch.cuda.is_available():
        cfg.optim_wrapper.type = "AmpOptimWrapper"
        cfg.optim_wrapper.setdefault("dtype", "bfloat16")
        return
    flamingo = flamingo_config(cfg)
    if "language" not in flamingo.get("frozen", ["language"]):
        raise ValueError("--amp needs a GPU where the language model is trained (model.frozen), and torch finds none")
    flamingo.language["dtype"] = "bfloat16"
    if flamingo is cfg.model:  # LoRAModel does the same for the gated blocks that it trains.
        flamingo["gated"] = {"dtype": "float32", **(flamingo.get("gated") or {})}
    print("--amp: without a GPU, the frozen language model is loaded in bfloat16")


def main() -> None:
    """Builds an MMEngine Runner from the config and the options, and trains; the log has the error that ends it."""
    args = parse_args()
    if args.seed is not None:
        args.cfg_options = {**(args.cfg_options or {}), "seed": args.seed}
    cfg = tool.prepare(args)
    if not cfg.get("train_dataloader"):
        raise ValueError(f"{args.config} sets no train_dataloader: there is nothing to train")
    if args.amp:
        set_amp(cfg)
    check_writable(cfg.work_dir)
    with locked(cfg.work_dir, ADVICE) if is_first_process(cfg.launcher) else nullcontext():
        set_resume(cfg, args.resume)
        check_files(cfg, skip=("test_dataloader", "test_evaluator"))
        # The import brings torch, which takes seconds: --help and errors in paths do not wait for it.
        with heavy_imports():
            from mmgpt.engine.runner import MMGPTRunner

        try:
            MMGPTRunner.from_cfg(cfg).train()
        except Stopped:
            raise
        except Exception as error:
            if isinstance(error, FileNotFoundError) and was_deleted(cfg.work_dir):
                raise DiskFault(f"the work directory {cfg.work_dir!r} was deleted during the training") from error
            log_end(error)
            raise


if __name__ == "__main__":
    tool.run(main)
