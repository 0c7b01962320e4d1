"""What an evaluation was made of, written beside its figures so that others can repeat it."""

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from mmgpt.cli.config import plain_config
from mmgpt.cli.files import data_files, fingerprints, named_files
from mmgpt.datasets.prompts import find_template
from mmgpt.utils.atomic import atomic_write
from mmgpt.utils.versions import versions

RESULT = "result.json"
JUDGING = ("metrics", "pycocoevalcap")


def evaluation_settings(cfg: Mapping, checkpoint: str | Path | None, generation: Mapping) -> dict:
    """All that answers and figures depend on, as plain data; files by SHA-256.

    Of a folder with a language model or an image encoder, what describes it and the tokenizer is; its weights and those
    of other files of the model by a `file_fingerprint`, which takes no time.

    Args:
        cfg: a whole config, its variables replaced.
        checkpoint: file or folder with what was trained, or None.
        generation: the settings in force (see `models.generation`), of which the config names some only.
    """
    loader, template = cfg["test_dataloader"], cfg.get("question_template")
    return {
        "model": plain_config(cfg["model"]),
        "model_files": {str(path): sha256(path) for name in named_files(cfg["model"]) for path in _described(name)},
        "model_weights": fingerprints({"model": cfg["model"]}),
        "checkpoint": {str(path): sha256(path) for path in _files(checkpoint)},
        "generation": dict(generation),
        "prompt_template": template and find_template(template),
        "data": plain_config(loader["dataset"]),
        "data_files": {path: sha256(path) for path in data_files(loader["dataset"])},
        "batch_size": loader["batch_size"],
        "metrics": plain_config(cfg["test_evaluator"]),
        "cut_at": plain_config(cfg["test_cfg"].get("cut_at", [])),
        "seed": cfg.get("seed"),
    }


def circumstances() -> dict:
    """The command line, and the versions that were used."""
    return {"command": [Path(sys.argv[0]).name, *sys.argv[1:]], "versions": versions()}


def settings_digest(made_of: Mapping) -> str:
    """Eight characters that differ for other `evaluation_settings`."""
    return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:8]


def digests(made_of: Mapping) -> tuple[str, str]:
    """Digests of what answers depend on among `evaluation_settings`, and of what judges them, with versions."""
    answering = {name: value for name, value in {**made_of, **versions()}.items() if name not in JUDGING}
    judging = {name: value for name, value in {**made_of, **versions()}.items() if name in JUDGING}
    return settings_digest(answering), settings_digest(judging)


def write_json(content: Mapping, path: Path) -> None:
    """Write a JSON file, whole or not at all."""
    with atomic_write(path) as part:
        part.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def sha256(path: str | Path) -> str:
    """The SHA-256 sum of a file, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _files(checkpoint: str | Path | None) -> Iterator[Path]:
    if checkpoint is None:
        return
    path = Path(checkpoint)
    yield from sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]


def _described(name: str) -> Iterator[Path]:
    path = Path(name)
    yield from sorted(path.glob("*.json")) if path.is_dir() else [path]
