"""Which model a front talks with: the part of the command line that all fronts share."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from mmgpt.cli.config import check_exists
from mmgpt.cli.description import exported_folder
from mmgpt.cli.options import add_cfg_options
from mmgpt.utils.precisions import FLOATS, QUANTIZED

if TYPE_CHECKING:
    from mmgpt.apis.chat import Chat

ROOT = Path(__file__).resolve().parents[2]
QUICKSTART = ROOT / "configs/mmgpt/tiny_lora_joint.py", ROOT / "work_dirs/quickstart/latest.pth"


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that `find_model` and `load_chat` read."""
    parser.add_argument("config", nargs="?", help="config file or exported folder; default: the quickstart's")
    parser.add_argument("checkpoint", nargs="?", help="what the tuning wrote; without it, the model before tuning")
    parser.add_argument("--device", help="torch device; by default the GPU when there is one")
    parser.add_argument("--precision", choices=[*FLOATS, *QUANTIZED], help="of the weights; default: the model's own")
    add_cfg_options(parser)
    add_trust(parser)


def add_trust(parser: argparse.ArgumentParser) -> None:
    """The option without which no exported folder has code run."""
    text = "let an exported folder import classes of its author's own, or run its config.py"
    parser.add_argument("--trust", action="store_true", help=text)


def find_model(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Put the quickstart's model where no model was named; ends the program when it is not there."""
    if args.config is not None:
        return
    args.config, args.checkpoint = QUICKSTART
    if not args.checkpoint.exists():
        parser.error(f"{args.checkpoint} is not there yet: run `bash tools/quickstart.sh`, or name a config")


def load_chat(args: argparse.Namespace, generation: dict | None = None, scheduler: dict | None = None) -> "Chat":
    """The chat that the options name; `generation` and `scheduler` as for `Chat`."""
    if exported_folder(args.config) is None:
        check_exists(args.config)
    from mmgpt.apis.chat import Chat  # brings torch, which takes seconds: --help and a wrong path are told without

    model = dict(device=args.device, options=args.cfg_options, precision=args.precision)
    model |= {"trust": True} if args.trust else {}
    return Chat.from_config(args.config, args.checkpoint, **model, generation=generation, scheduler=scheduler)
