"""Settings, checksums and versions of an evaluation, written next to its scores to make it reproducible."""

import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from mmgpt.cli.config import plain_config
from mmgpt.cli.files import data_files, fingerprints, named_files
from mmgpt.datasets.chat_template import ChatTemplate
from mmgpt.datasets.prompts import find_template
from mmgpt.utils.atomic import atomic_write
from mmgpt.utils.versions import versions

RESULT = "result.json"
METRIC_SETTINGS = ("metrics", "pycocoevalcap")


def evaluation_settings(
    cfg: Mapping, checkpoint: str | Path | None, generation: Mapping, tokenizer: PreTrainedTokenizerBase | None = None
) -> dict:
    """All settings that answers and scores depend on, as plain data; files by their SHA-256.

    In folders of language models and image encoders only the JSON files (configs and tokenizers) are hashed; weights
    have a `file_fingerprint`, which does not read them.

    Args:
        cfg: a config whose variables are replaced.
        checkpoint: file or folder of trainable parameters, or None.
        generation: all generation settings in force (see `models.generation`), including those that the config leaves
            to the model.
        tokenizer: the model's, for prompt templates that need it.
    """
    loader, template = cfg["test_dataloader"], cfg.get("question_template")
    template = template and find_template(template, tokenizer)
    return {
        "model": plain_config(cfg["model"]),
        "model_files": {
            str(path): sha256(path) for name in named_files(cfg["model"]) for path in _files(name, "*.json")
        },
        "model_weights": fingerprints({"model": cfg["model"]}),
        "checkpoint": {str(path): sha256(path) for path in (_files(checkpoint, "**/*") if checkpoint else ())},
        "generation": dict(generation),
        "prompt_template": template.source if isinstance(template, ChatTemplate) else template,
        "data": plain_config(loader["dataset"]),
        "data_files": {path: sha256(path) for path in data_files(loader["dataset"])},
        "batch_size": loader["batch_size"],
        "metrics": plain_config(cfg["test_evaluator"]),
        "cut_at": plain_config(cfg["test_cfg"].get("cut_at", [])),
        "seed": cfg.get("seed"),
    }


def circumstances() -> dict:
    """The command line of this process, and the versions of Python and the packages."""
    return {"command": [Path(sys.argv[0]).name, *sys.argv[1:]], "versions": versions()}


def settings_digest(settings: Mapping) -> str:
    """Eight hexadecimal digits of a hash of `evaluation_settings`."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]


def digests(settings: Mapping) -> tuple[str, str]:
    """Digests of the settings and versions that answers depend on, and of those that their metrics depend on."""
    values = {**settings, **versions()}
    answers = {name: value for name, value in values.items() if name not in METRIC_SETTINGS}
    metrics = {name: value for name, value in values.items() if name in METRIC_SETTINGS}
    return settings_digest(answers), settings_digest(metrics)


def write_json(content: Mapping, path: Path) -> None:
    """Write a JSON file atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def sha256(path: str | Path) -> str:
    """SHA-256 of a file in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _files(path: str | Path, pattern: str) -> list[Path]:
    """The file itself, or the files in a folder that match a pattern."""
    path = Path(path)
    return sorted(file for file in path.glob(pattern) if file.is_file()) if path.is_dir() else [path]
