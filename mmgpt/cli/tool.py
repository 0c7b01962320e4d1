"""What the command line tools share: options, launching on machines with and without GPUs, readable errors."""

import argparse
import ast
import atexit
import inspect
import logging
import os
import pickle
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from types import FrameType

from mmengine.config import Config

import mmgpt
from mmgpt.utils.errors import SampleError

from .config import load_config, suggest
from .failures import DISK, Stopped, is_disk_fault, resource_message
from .options import add_cfg_options

# How torch words an error of a process that loads data: the traceback there, as text.
IN_WORKER = re.compile(r"Caught \w+ in DataLoader worker process")
FRAME = re.compile(r'File "([^"]+)", line \d+')
UNKNOWN_ARGUMENT = re.compile(r"(\S+)\(\) got an unexpected keyword argument '(\w+)'")
QUOTED = re.compile(r"[`'\"]([^`'\"]+)[`'\"]")
UNSET = re.compile(r"'Config(?:Dict)?' object has no attribute '(\w+)'")
UNKNOWN_MODULE = re.compile(r"(\S+) is not in the \w+::(.+?) registry")


def parser(description: str) -> argparse.ArgumentParser:
    """A parser with the arguments that tools/train.py and tools/test.py have in common."""
    result = argparse.ArgumentParser(description=description)
    result.add_argument("config", help="config file")
    result.add_argument("--work-dir", help="folder for logs and checkpoints; default: work_dirs/<name of the config>")
    add_cfg_options(result)
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
    if args.launcher == "pytorch":
        _launch_without_gpu(cfg)
    return cfg


def _launch_without_gpu(cfg: Config) -> None:
    """Joins the processes of a machine without GPUs: MMEngine's own launcher selects one whatever the backend."""
    import torch  # takes seconds, which --help and a wrong path do not

    if not (torch.cuda.is_available() or torch.distributed.is_initialized()):
        seconds = cfg.get("env_cfg", {}).get("dist_cfg", {}).get("timeout")
        torch.distributed.init_process_group("gloo", timeout=seconds and timedelta(seconds=seconds))


def run(main: Callable[[], None]) -> None:
    """Run a tool; a user's mistake ends it with a message and exit code 1 instead of a traceback.

    A disk that cannot be written gives 74, a signal 128 + its number, as a shell has it for a program without handlers.
    ``MMGPT_TRACEBACK=1`` shows the traceback all the same.
    """
    finished: list[bool] = []
    # Registered before main, so that it is the last of what main's libraries have registered.
    atexit.register(_leave_processes, finished)
    try:
        main()
        finished.append(True)
    except Stopped as stop:
        name = signal.Signals(stop.signum).name
        end = "saved: go on with --resume" if stop.saved else "not saved: the run writes no checkpoints"
        print(f"stopped by {name} after {stop.step} batches, which are {end}", file=sys.stderr)
        sys.exit(128 + stop.signum)
    except KeyboardInterrupt:
        print("interrupted (a training goes on with --resume)", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except Exception as error:
        message = user_message(error)
        if message is None or os.environ.get("MMGPT_TRACEBACK"):
            raise
        print(f"error: {message}", file=sys.stderr)
        sys.exit(DISK if is_disk_fault(error) else 1)


def _leave_processes(finished: list[bool]) -> None:
    """Ends this process, if it is one of several and its work is done, without taking the interpreter down first.

    Threads of gloo live as long as anything refers to the process group, and a model wrapped for data-parallel training
    does until the very end. One that lets go of a tensor while the interpreter is taken down aborts the process, which
    torchrun reports as a failed run (SIGABRT, a few of a hundred runs on a busy machine).

    A process that failed ends as usual: it may have communication under way, and would wait for it.
    """
    torch = sys.modules.get("torch")  # without it there is no group
    if not (finished and torch and torch.distributed.is_available() and torch.distributed.is_initialized()):
        return
    several = torch.distributed.get_world_size() > 1
    torch.distributed.destroy_process_group()
    if several:
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def user_message(error: Exception) -> str | None:
    """What to tell a user about ``error``, or None when it is a fault of a program and needs its traceback.

    A user's mistake is a ValueError, KeyError or FileNotFoundError that this package raises, here or in a process that
    loads data; an unknown name or argument in a config; what another package says about a value of a config while it
    builds a part; a file that is no safe checkpoint. Too little memory, a full disk, and whatever the operating system
    says about a file are told too.
    """
    resource = resource_message(error)
    if resource:
        return resource
    if isinstance(error, SampleError):
        return str(error)
    text = str(error.args[0]) if error.args else str(error)
    place = traceback.extract_tb(error.__traceback__)[-1].filename
    unknown = UNKNOWN_MODULE.search(text)
    if unknown:
        return f"the config names {unknown[1]!r}, which is no {unknown[2]}" + suggest(unknown[1], _choices(unknown[2]))
    unset = UNSET.search(text) if isinstance(error, AttributeError) else None
    if unset:
        return (
            f"the config sets no {unset[1]}, which is needed here (exported folders describe no data, and no training)"
        )
    if isinstance(error, TypeError) and (Path(place).name == "build_functions.py" or _blamed(error)):
        return f"the arguments in the config do not fit: {text}{_arguments(error)}"
    if isinstance(error, OSError) and error.errno and error.filename:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, pickle.UnpicklingError) or "PytorchStreamReader" in text:
        return f"the checkpoint cannot be read as tensors and plain data: {text.splitlines()[0]}"
    if isinstance(error, OSError) and IN_WORKER.match(text):
        return text.rpartition(f"\n{type(error).__name__}: ")[2].strip()
    if not isinstance(error, (ValueError, KeyError, FileNotFoundError)):
        return _blamed(error)
    if IN_WORKER.match(text):
        place = FRAME.findall(text)[-1]
        text = text.rpartition(f"\n{type(error).__name__}: ")[2].strip()
        if isinstance(error, KeyError):  # prints as a literal; notes stand below
            literal, *notes = text.split("\n")
            text = "\n".join([ast.literal_eval(literal), *notes])
    text = "\n".join([text, *getattr(error, "__notes__", [])])
    folders = Path(mmgpt.__file__).resolve().parent, Path(sys.argv[0]).resolve().parent
    return text if any(folder in Path(place).resolve().parents for folder in folders) else _blamed(error)


def _blamed(error: Exception) -> str | None:
    """A message about the entry of a config that ``error`` quotes, if it was raised while a part was built from it.

    A TypeError about an unknown argument quotes a key, an AttributeError a value, a ValueError either.
    """
    argument = UNKNOWN_ARGUMENT.search(str(error)) if isinstance(error, TypeError) else None
    quoted = set(QUOTED.findall(str(error)))
    keys = {argument[2]} if argument else quoted if isinstance(error, ValueError) else set()
    values = quoted if isinstance(error, (AttributeError, ValueError)) else set()
    for frame, _ in traceback.walk_tb(error.__traceback__):
        # What MMEngine is building.
        built = [frame.f_locals.get(name) for name in ("cfg", "dataloader_cfg")]
        for place, key, value in _entries(built if "mmengine" in Path(frame.f_code.co_filename).parts else [], ""):
            if key != "type" and (key in keys or isinstance(value, str) and value in values):
                return f"{place}={value!r} in the config does not fit: {error} (MMGPT_TRACEBACK=1 shows where)"
    return None


def _entries(value: object, place: str) -> Iterator[tuple[str, str, object]]:
    """Yield (dotted name, key, value) of everything within ``value`` that is no dict, list or tuple."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _entries(item, f"{place}.{key}".removeprefix("."))
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield from _entries(item, f"{place}[{i}]" if place else "")
    else:
        yield place, place.rpartition(".")[2].partition("[")[0], value


def _arguments(error: TypeError) -> str:
    """The end of a message about an unknown argument: those that there are, as far as the called thing is in sight."""
    argument = UNKNOWN_ARGUMENT.search(str(error))
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    called = [_in_sight(frame, argument[1].removesuffix(".__init__"))] if argument else []
    if frame.f_code.co_name == "__init__" and frame.f_code.co_flags & inspect.CO_VARKEYWORDS:
        called.append(type(frame.f_locals["self"]))  # it passed on what it does not know itself
    parameters = [each for one in called if one for each in inspect.signature(one).parameters.values()]
    names = {each.name for each in parameters if each.kind is not each.VAR_KEYWORD}
    return suggest(argument[2], names) if names else ""


def _in_sight(frame: FrameType, name: str) -> Callable | None:
    """The class or function of that qualified name among the variables of ``frame``."""
    for value in (*frame.f_locals.values(), *frame.f_globals.values()):
        if (inspect.isclass(value) or inspect.isroutine(value)) and value.__qualname__ == name:
            return value
    return None


def _choices(registry_name: str) -> set[str]:
    """The names that a config can use in the registry of that name, its parents included."""
    from mmgpt import registry as registries  # was imported before such an error can be

    names: set[str] = set()
    for node in vars(registries).values():
        while getattr(node, "name", None) == registry_name and node is not None:
            names |= set(node.module_dict)
            node = node.parent
            registry_name = node.name if node is not None else registry_name
    return names
