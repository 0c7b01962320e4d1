"""Command-line options that name the model to talk with, shared by the demos and the server."""

import argparse
from pathlib import Path

from mmgpt.utils.precisions import PRECISIONS

from .adapters import adapter_folders
from .config import check_exists
from .description import exported_folder
from .options import add_cfg_options

ROOT = Path(__file__).resolve().parents[2]
QUICKSTART = ROOT / "configs/mmgpt/tiny_lora_joint.py", ROOT / "work_dirs/quickstart/latest.pth"


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `default_to_quickstart` and `chat_arguments` read."""
    parser.add_argument("config", nargs="?", help="config file or exported folder; default: the quickstart's")
    parser.add_argument("checkpoint", nargs="?", help="checkpoint of the tuning; without it, the model before tuning")
    parser.add_argument("--device", help="torch device; by default the GPU when there is one")
    parser.add_argument("--precision", choices=PRECISIONS, help="of the weights; default: the model's own")
    add_cfg_options(parser)
    add_trust_option(parser)


def add_trust_option(parser: argparse.ArgumentParser) -> None:
    """Add --trust, without which no code of an exported folder runs."""
    text = "let an exported folder import classes of its author's own, or run its config.py"
    parser.add_argument("--trust", action="store_true", help=text)


def default_to_quickstart(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Fill in the quickstart's model where the command line names none; ends the program if it is not trained yet."""
    if args.config is None:
        args.config, args.checkpoint = QUICKSTART
        if not args.checkpoint.exists():
            parser.error(f"{args.checkpoint} does not exist yet: run `bash tools/quickstart.sh`, or name a config")


def chat_arguments(args: argparse.Namespace) -> dict:
    """Keyword arguments of `Chat.from_config` that the options stand for.

    Raises:
        FileNotFoundError: the config or an adapter does not exist. They are looked for before torch is imported, which
            takes seconds.
        ValueError: see `adapter_folders`; or two adapters have one name.
    """
    if exported_folder(args.config) is None:
        check_exists(args.config)
    model = dict(config=args.config, checkpoint=args.checkpoint, device=args.device, options=args.cfg_options)
    model |= {"precision": args.precision, "trust": args.trust}
    if "adapters" in args:
        model["adapters"] = dict(args.adapters)
        if len(model["adapters"]) < len(args.adapters):
            raise ValueError(f"--adapter: two adapters have one name: {', '.join(name for name, _ in args.adapters)}")
        adapter_folders(model["adapters"])
    return model
