"""Frame of all command line tools: options, launching with and without GPUs, error messages, exit codes."""

import argparse
import ast
import atexit
import inspect
import logging
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

from mmengine.config import Config, ConfigDict

import mmgpt
from mmgpt.utils.choices import suggest
from mmgpt.utils.errors import SampleError
from mmgpt.utils.malloc import keep_freed_memory
from mmgpt.utils.openmp import limit_spinning

from .config import load_config
from .failures import DISK, Stopped, is_disk_fault, resource_message
from .options import add_cfg_options

# The patterns below read the text of errors that carry their data in no other way.
# torch rebuilds an error of a DataLoader worker from its type and the text of its traceback.
IN_WORKER = re.compile(r"Caught \w+ in DataLoader worker process")
FRAME = re.compile(r'File "([^"]+)", line \d+')
# Python's TypeError does not have the function and the argument as data.
UNKNOWN_ARGUMENT = re.compile(r"(\S+)\(\) got an unexpected keyword argument '(\w+)'")
# Other packages (torch, transformers, peft) name the argument or the value that they refuse in the text alone.
QUOTED = re.compile(r"[`'\"]([^`'\"]+)[`'\"]")


def parser(description: str) -> argparse.ArgumentParser:
    """Argument parser with the arguments that tools/train.py and tools/test.py have in common."""
    result = argparse.ArgumentParser(description=description)
    result.add_argument("config", help="config file")
    result.add_argument("--work-dir", help="folder for logs and checkpoints; default: work_dirs/<name of the config>")
    add_cfg_options(result)
    result.add_argument("--launcher", choices=["none", "pytorch", "slurm", "mpi"], default="none")
    # torch.distributed.launch passes this option; torchrun sets the environment variable instead.
    result.add_argument("--local-rank", "--local_rank", type=int, default=0, help=argparse.SUPPRESS)
    return result


def prepare(args: argparse.Namespace) -> Config:
    """The config of the arguments of `parser`, with the work directory and the launcher set.

    With the launcher pytorch on a machine without GPUs, the process group is created here, since MMEngine's launcher
    selects a GPU whatever the backend is.
    """
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    cfg = load_config(args.config, args.cfg_options)
    cfg.work_dir = args.work_dir or cfg.get("work_dir") or f"work_dirs/{Path(args.config).stem}"
    cfg.launcher = args.launcher
    if args.launcher == "pytorch":
        import torch  # Importing torch takes seconds, which --help and a wrong path must not take.

        if not (torch.cuda.is_available() or torch.distributed.is_initialized()):
            seconds = cfg.get("env_cfg", {}).get("dist_cfg", {}).get("timeout")
            torch.distributed.init_process_group("gloo", timeout=seconds and timedelta(seconds=seconds))
    return cfg


def run(main: Callable[[], None]) -> None:
    """Run a tool; a user's mistake ends it with a message and exit code 1 instead of a traceback.

    The exit code is 74 for a disk that cannot be written, and 128 + the number of the signal that ended the run, as for
    a program that does not handle signals. ``MMGPT_TRACEBACK=1`` shows the traceback of a mistake, too.
    """
    finished: list[bool] = []
    # Exit functions run in reverse order, so this one runs after those of the libraries that main imports.
    atexit.register(_exit_process, finished)
    keep_freed_memory()
    limit_spinning()
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


def _exit_process(finished: list[bool]) -> None:
    """Exit at once, without the teardown of the interpreter, where this is one of several processes and it finished.

    Threads of gloo live as long as anything refers to the process group, and a model wrapped for data-parallel training
    does so until the very end. A thread that frees a tensor during the teardown aborts the process, which torchrun
    reports as a failed run (SIGABRT, in a few of a hundred runs on a busy machine).

    A process that failed exits as usual: it may have communication under way, for which it would wait.
    """
    torch = sys.modules.get("torch")  # Without torch there is no process group.
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
    """Message for the user about an error, or None when the error is a bug of a program and needs its traceback.

    A user's mistake is a ValueError, KeyError or FileNotFoundError that this package raises, here or in a DataLoader
    worker; a type or argument in a config that does not exist; a value of a config that another package refuses while
    a component is built. Too little memory, a full disk, and errors of the operating system about a file have messages
    too.
    """
    resource = resource_message(error)
    if resource:
        return resource
    if isinstance(error, SampleError):
        return str(error)
    text = str(error.args[0]) if error.args else str(error)
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    file = frame.f_code.co_filename
    in_build = Path(file).name == "build_functions.py"  # MMEngine's build_from_cfg
    if in_build and isinstance(error, KeyError) and isinstance(frame.f_locals.get("obj_type"), str):
        name, registry = frame.f_locals["obj_type"], frame.f_locals["registry"]
        choices = {*registry.module_dict, *(registry.parent.module_dict if registry.parent else ())}
        return f"the config has the type {name!r}, which is not a registered {registry.name}" + suggest(name, choices)
    if isinstance(error, AttributeError) and isinstance(error.obj, (Config, ConfigDict)):
        return (
            f"the config does not set {error.name!r}, which is needed here (exported folders describe no data, and no "
            "training)"
        )
    if isinstance(error, TypeError) and (in_build or _refused_entry(error)):
        return f"the arguments in the config do not fit: {text}{_argument_choices(error)}"
    if isinstance(error, OSError) and error.errno and error.filename:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, OSError) and IN_WORKER.match(text):
        return text.rpartition(f"\n{type(error).__name__}: ")[2].strip()
    if not isinstance(error, (ValueError, KeyError, FileNotFoundError)):
        return _refused_entry(error)
    if IN_WORKER.match(text):
        file = FRAME.findall(text)[-1]
        text = text.rpartition(f"\n{type(error).__name__}: ")[2].strip()
        if isinstance(error, KeyError):  # Its text is the literal of a string, followed by notes.
            literal, *notes = text.split("\n")
            text = "\n".join([ast.literal_eval(literal), *notes])
    text = "\n".join([text, *getattr(error, "__notes__", [])])
    folders = Path(mmgpt.__file__).resolve().parent, Path(sys.argv[0]).resolve().parent
    return text if any(folder in Path(file).resolve().parents for folder in folders) else _refused_entry(error)


def _refused_entry(error: Exception) -> str | None:
    """Message about the entry of a config that ``error`` quotes; None if no component is built from such an entry.

    A TypeError about an unknown argument quotes a key, an AttributeError a value, a ValueError either.
    """
    argument = UNKNOWN_ARGUMENT.search(str(error)) if isinstance(error, TypeError) else None
    quoted = set(QUOTED.findall(str(error)))
    keys = {argument[2]} if argument else quoted if isinstance(error, ValueError) else set()
    values = quoted if isinstance(error, (AttributeError, ValueError)) else set()
    for frame, _ in traceback.walk_tb(error.__traceback__):
        # The configs from which MMEngine is building a component.
        configs = [frame.f_locals.get(name) for name in ("cfg", "dataloader_cfg")]
        for name, key, value in _entries(configs if "mmengine" in Path(frame.f_code.co_filename).parts else [], ""):
            if key != "type" and (key in keys or isinstance(value, str) and value in values):
                return f"{name}={value!r} in the config does not fit: {error} (MMGPT_TRACEBACK=1 shows where)"
    return None


def _entries(value: object, name: str) -> Iterator[tuple[str, str, object]]:
    """Yield (dotted name, key, value) of everything within ``value`` that is not a dict, list or tuple."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _entries(item, f"{name}.{key}".removeprefix("."))
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield from _entries(item, f"{name}[{i}]" if name else "")
    else:
        yield name, name.rpartition(".")[2].partition("[")[0], value


def _argument_choices(error: TypeError) -> str:
    """The end of a message about an unknown argument: the arguments of the callable, if the last frame refers to it."""
    argument = UNKNOWN_ARGUMENT.search(str(error))
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    callables = []
    if argument:
        name, variables = argument[1].removesuffix(".__init__"), (*frame.f_locals.values(), *frame.f_globals.values())
        functions = (value for value in variables if inspect.isclass(value) or inspect.isroutine(value))
        callables += [function for function in functions if function.__qualname__ == name][:1]
    if frame.f_code.co_name == "__init__" and frame.f_code.co_flags & inspect.CO_VARKEYWORDS:
        callables.append(type(frame.f_locals["self"]))  # This constructor passes unknown arguments on.
    parameters = [item for function in callables for item in inspect.signature(function).parameters.values()]
    names = {item.name for item in parameters if item.kind is not item.VAR_KEYWORD}
    return suggest(argument[2], names) if argument and names else ""
