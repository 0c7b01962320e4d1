"""LoRA adapters on the command line: their names, and the folders that hold them, without torch."""

import argparse
import re
from collections.abc import Mapping
from pathlib import Path

from .description import ADAPTER, check_weights, is_exported

CONFIG = "adapter_config.json"  # peft's settings beside the weights of an adapter
# peft makes modules of the names, and takes those with its own prefix for tensors.
NAME = re.compile(r"(?!.*lora_)[\w-]+")


def add_adapter_option(parser: argparse.ArgumentParser) -> None:
    """Add --adapter, which `chat_arguments` reads."""
    text = "LoRA on the model without its own: an exported folder, or one of peft; may be repeated"
    parser.add_argument(
        "--adapter", action="append", type=_name_and_path, default=[], metavar="NAME=PATH", help=text, dest="adapters"
    )


def _name_and_path(text: str) -> tuple[str, str]:
    """argparse type of NAME=PATH."""
    name, _, path = text.partition("=")
    if not path:
        raise argparse.ArgumentTypeError(f"give NAME=PATH, got {text!r}")
    return name, path


def adapter_folders(adapters: Mapping[str, str | Path]) -> dict[str, Path]:
    """The folders with peft's files of adapters, by name.

    Args:
        adapters: name -> folder that `export` wrote, or one of peft's own.

    Raises:
        FileNotFoundError: a folder has no adapter.
        ValueError: a name is not one that peft could use, or a file of an exported folder is not what was written.
    """
    folders = {}
    for name, path in adapters.items():
        if not NAME.fullmatch(name):
            raise ValueError(
                f"adapter {name!r}: a name has letters, digits, hyphens and underscores, and not 'lora_' in it"
            )
        folder = Path(path)
        if is_exported(folder):
            check_weights(folder)
            folder = (folder / ADAPTER).parent
        for file in (Path(ADAPTER).name, CONFIG):
            if not (folder / file).is_file():
                raise FileNotFoundError(
                    f"adapter {name!r}: {folder / file} is missing; name a folder that export wrote, or one of peft"
                )
        folders[name] = folder
    return folders
