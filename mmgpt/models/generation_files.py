"""Generation settings in the files of a language model's folder."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmengine.logging import print_log
from transformers import GenerationConfig

from mmgpt.cli.files import read_settings

GENERATION, CONFIG = "generation_config.json", "config.json"
TYPES = {str: "a text", Mapping: "an object", int: "a whole number"}  # in words
METADATA = ("_from_model_config", "_commit_hash", "transformers_version")
# These settings come first, since they decide whether other settings are valid.
MODES = ("do_sample", "num_beams", "use_cache", "cache_implementation", "return_dict_in_generate")


def check_no_code(settings: Mapping, file: Path) -> None:
    """Raises a ValueError where a model's settings name a kernel on the Hub: code that transformers would run."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            check_no_code(value, file)
        elif name.endswith(("attn_implementation", "experts_implementation")) and "/" in str(value):
            raise ValueError(f"{file}: {name}={value!r} names code on the Hub, which is not run: remove it")


def read_model_config(folder: str | Path) -> dict:
    """config.json of a language model's folder, empty where there is none.

    Raises:
        ValueError: a setting that is read here, before transformers checks all of them, has a wrong type.
    """
    file = Path(folder) / CONFIG
    settings = read_settings(file)
    text = settings.get("text_config") or {}
    checks = {"model_type": (settings, str), "text_config": (settings, Mapping), "vocab_size": (settings, int)}
    checks |= {"text_config.vocab_size": (text, int)} if isinstance(text, Mapping) else {}
    for name, (values, kind) in checks.items():
        value = values.get(name.rpartition(".")[2])
        if value is not None and not isinstance(value, kind):
            raise ValueError(f"{file}: {name}={value!r:.80}: expected {TYPES[kind]}")
    return settings


def base_generation_config(folder: str | Path) -> GenerationConfig:
    """The valid generation settings of a folder; those that are invalid, alone or beside the others, are left out.

    They come from generation_config.json, or, as in transformers, from config.json where that file is missing.
    transformers warns when it reads some invalid settings and refuses to write them (`temperature` without
    `do_sample`); others keep it from reading the folder at all (`num_return_sequences` above `num_beams`).

    Raises:
        ValueError: a file is not a JSON object.
    """
    file = Path(folder) / GENERATION
    settings = read_settings(file)
    if not file.is_file():
        file, defaults = Path(folder) / CONFIG, GenerationConfig().to_dict()
        settings = {name: value for name, value in read_settings(file).items() if name in defaults}
    settings = {name: value for name, value in settings.items() if name not in METADATA}
    config, invalid = valid_generation_config(settings)
    if invalid:
        text = ", ".join(f"{name}={settings[name]!r}" for name in invalid)
        print_log(f"{file}: without effect or invalid beside the other settings, and left out: {text}", "current")
    return config


def valid_generation_config(settings: Mapping[str, object]) -> tuple[GenerationConfig, list[str]]:
    """A config of the settings that transformers accepts together, and the names of the invalid ones."""
    config, invalid = GenerationConfig(), []
    for name in sorted(settings, key=lambda name: name not in MODES):
        candidate = copy.copy(config)
        setattr(candidate, name, settings[name])
        try:
            candidate.validate(strict=True)
        except (ValueError, TypeError, AttributeError):  # values of a wrong type raise the last two
            invalid.append(name)
        else:
            config = candidate
    return config, invalid


def as_ids(value: int | Sequence[int] | None) -> list[int]:
    """The list of ids of a setting such as `eos_token_id`, which holds one id, a list of ids or None."""
    return [] if value is None else list(value) if isinstance(value, (list, tuple)) else [value]


def as_setting(ids: Sequence[int]) -> int | list[int] | None:
    """The value of `eos_token_id` for a list of ids: a single id, a list, or None."""
    return ids[0] if len(ids) == 1 else list(ids) or None
