"""Startup times: from the start of a process to its first training step or token, and of loading weights."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path

from mmengine.config import Config
from PIL import Image
from transformers import AutoModelForCausalLM

from mmgpt.apis import build_model
from mmgpt.apis.build import find_device
from mmgpt.cli import check_files
from mmgpt.cli.config import flamingo_config

from .components import bare_language
from .rounds import Case, Timer, Times, ratio

ROOT = Path(__file__).resolve().parents[1]
STEP, TOKEN, HELP, PACKAGE, LOADING = "first training step", "first token", "train.py --help", "import mmgpt", "loading"
IMPORTS, LANGUAGE = f"{TOKEN}: imports", f"{LOADING}: language model"
# The libraries that training and chat cannot do without.
LIBRARIES = "import torch, transformers.generation, peft, open_clip, mmengine.runner"


def check(cfg: Config) -> None:
    """Check that the files of the training data exist.

    Raises:
        FileNotFoundError: files are missing; lists them.
    """
    check_files(cfg, skip=("val_dataloader", "test_dataloader", "test_evaluator", "load_from"))


def rows(cfg: Config, folder: Path, device: str) -> dict[str, Case]:
    """All cases by name.

    Args:
        cfg: config from `load_config`.
        folder: an empty folder for the config, an image, weights, and the output of training.
        device: device of the model; training uses a GPU if there is one.
    """
    config, image = folder / "config.py", folder / "image.png"
    cfg.dump(config)
    Image.new("RGB", (cfg.prepare_images.size, cfg.prepare_images.size), "red").save(image)
    training = _tool("tools/train.py", config, "--work-dir", folder / "train")
    training += ["--cfg-options", "default_hooks.logger.interval=1"]
    chat = _tool("demo/chat.py", config, "--max-new-tokens", 1, "--image", image, "--device", device)
    # The same config with a language model whose random weights are saved in a folder.
    model, saved = build_model(cfg, device=device), deepcopy(cfg)
    bare_language(model, cfg, lora=False).save_pretrained(folder / "language")
    model.tokenizer.save_pretrained(folder / "language")
    module = flamingo_config(saved)
    module.language = dict(path=str(folder / "language"), dtype=module.language.get("dtype"))
    timer = Timer(find_device(device))
    return {
        STEP: partial(until, training, stepped),
        TOKEN: partial(until, chat, answered, "what is it?\n"),
        IMPORTS: partial(until, [sys.executable, "-c", f"{LIBRARIES}; print('done')"], any),
        HELP: partial(until, _tool("tools/train.py", "--help"), any),
        PACKAGE: partial(until, [sys.executable, "-c", "import mmgpt; print('done')"], any),
        LOADING: lambda: timer(lambda: build_model(saved, device=device)),
        LANGUAGE: lambda: timer(lambda: AutoModelForCausalLM.from_pretrained(folder / "language").to(device)),
    }


def ratios(times: Times) -> dict[str, float]:
    """Ratios of startup times to those of the imports or weights that cannot be avoided."""
    return {
        "first_step_over_imports": ratio(times, STEP, IMPORTS),
        "first_token_over_imports": ratio(times, TOKEN, IMPORTS),
        "loading_over_language": ratio(times, LOADING, LANGUAGE),
    }


def until(command: Sequence[str], condition: Callable[[list[str]], bool], stdin: str = "") -> float:
    """Seconds from the start of a process until its printed lines meet a condition; then the process is killed.

    Args:
        stdin: text that the process reads.

    Raises:
        ValueError: the process ended before; with its last lines.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    start, lines = time.perf_counter(), []
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    with subprocess.Popen(command, **pipes, text=True, env=environment) as process:
        process.stdin.write(stdin)
        process.stdin.flush()
        for line in process.stdout:
            lines.append(line)
            if condition(lines):
                seconds = time.perf_counter() - start
                process.kill()
                return seconds
    raise ValueError(f"{' '.join(command)} ended early:\n{''.join(lines[-20:])}")


def stepped(lines: Sequence[str]) -> bool:
    """Whether the last line is MMEngine's log line of a training step."""
    return "(train)" in lines[-1] and "loss:" in lines[-1]


def answered(lines: Sequence[str]) -> bool:
    """Whether demo/chat.py has printed its first answer."""
    return any(line.startswith("Ask a question") for line in lines[:-1])


def _tool(script: str, *arguments: object) -> list[str]:
    return [sys.executable, str(ROOT / script), *map(str, arguments)]
