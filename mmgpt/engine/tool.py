"""What the command line tools share: options, launching on machines with and without GPUs, readable errors."""

import argparse
import ast
import os
import pickle
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import torch
from mmengine.config import Config, DictAction

import mmgpt
from mmgpt import registry as registries

from .config import load_config, suggest

# How torch words an error of a process that loads data: the traceback there, as text.
IN_WORKER = re.compile(r"Caught \w+ in DataLoader worker process")
FRAME = re.compile(r'File "([^"]+)", line \d+')
UNKNOWN_MODULE = re.compile(r"(\S+) is not in the \w+::(.+?) registry")


def parser(description: str) -> argparse.ArgumentParser:
    """A parser with the arguments that tools/train.py and tools/test.py have in common."""
    result = argparse.ArgumentParser(description=description)
    result.add_argument("config", help="config file")
    result.add_argument("--work-dir", help="folder for logs and checkpoints; default: work_dirs/<name of the config>")
    result.add_argument("--cfg-options", nargs="+", action=DictAction, metavar="NAME=VALUE", help="change the config")
    result.add_argument("--launcher", choices=["none", "pytorch", "slurm", "mpi"], default="none")
    # torch.distributed.launch passes it, torchrun sets the environment variable.
    result.add_argument("--local-rank", "--local_rank", type=int, default=0, help=argparse.SUPPRESS)
    return result


def prepare(args: argparse.Namespace) -> Config:
    """The config that ``args`` of `parser` ask for, with the work directory and the launcher set."""
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    cfg = load_config(args.config, args.cfg_options)
    cfg.work_dir = args.work_dir or cfg.get("work_dir") or f"work_dirs/{Path(args.config).stem}"
    cfg.launcher = args.launcher
    if args.launcher == "pytorch" and not torch.cuda.is_available():
        _launch_on_cpu(cfg)
    return cfg


def _launch_on_cpu(cfg: Config) -> None:
    # MMEngine's own launcher selects a CUDA device whatever the backend, and so does its default model wrapper.
    torch.distributed.init_process_group("gloo")
    unused = cfg.get("find_unused_parameters", False)
    cfg.model_wrapper_cfg = dict(type="MMDistributedDataParallel", device_ids=None, find_unused_parameters=unused)


def run(main: Callable[[], None]) -> None:
    """Run a tool; a user's mistake ends it with a message and exit code 1 instead of a traceback.

    ``MMGPT_TRACEBACK=1`` shows the traceback all the same.
    """
    try:
        main()
    except Exception as error:
        message = user_message(error)
        if message is None or os.environ.get("MMGPT_TRACEBACK"):
            raise
        print(f"error: {message}", file=sys.stderr)
        sys.exit(1)


def user_message(error: Exception) -> str | None:
    """What to tell a user about ``error``, or None when it is a fault of a program and needs its traceback.

    A user's mistake is a ValueError, KeyError or FileNotFoundError that this package raises, here or in a process that
    loads data; an unknown name or argument in a config; a file that is no safe checkpoint.
    """
    text = str(error.args[0]) if error.args else str(error)
    place = traceback.extract_tb(error.__traceback__)[-1].filename
    unknown = UNKNOWN_MODULE.search(text)
    if unknown:
        return f"the config names {unknown[1]!r}, which is no {unknown[2]}" + suggest(unknown[1], _choices(unknown[2]))
    if isinstance(error, TypeError) and Path(place).name == "build_functions.py":
        return f"the arguments in the config do not fit: {text}"
    if isinstance(error, pickle.UnpicklingError) or "PytorchStreamReader" in text:
        return f"the checkpoint cannot be read as tensors and plain data: {text.splitlines()[0]}"
    if not isinstance(error, (ValueError, KeyError, FileNotFoundError)):
        return None
    if IN_WORKER.match(text):
        place = FRAME.findall(text)[-1]
        text = text.rpartition(f"\n{type(error).__name__}: ")[2].strip()
        text = ast.literal_eval(text) if isinstance(error, KeyError) else text  # a KeyError prints as a literal
    folders = Path(mmgpt.__file__).resolve().parent, Path(sys.argv[0]).resolve().parent
    return text if any(folder in Path(place).resolve().parents for folder in folders) else None


def _choices(registry_name: str) -> set[str]:
    """The names that a config can use in the registry of that name, its parents included."""
    names: set[str] = set()
    for node in vars(registries).values():
        while getattr(node, "name", None) == registry_name and node is not None:
            names |= set(node.module_dict)
            node = node.parent
            registry_name = node.name if node is not None else registry_name
    return names
