"""What the files of a language model's folder say about generation."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmengine.logging import print_log
from transformers import GenerationConfig

from mmgpt.cli.files import read_settings

GENERATION, CONFIG = "generation_config.json", "config.json"
METADATA = ("_from_model_config", "_commit_hash", "transformers_version")
# Whether other settings are valid depends on these, which therefore come first.
MODES = ("do_sample", "num_beams", "use_cache", "cache_implementation", "return_dict_in_generate")


def check_no_code(settings: Mapping, file: Path) -> None:
    """Raises a ValueError where a model's settings ask transformers for a kernel of the Hub, which is code."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            check_no_code(value, file)
        elif name.endswith(("attn_implementation", "experts_implementation")) and "/" in str(value):
            raise ValueError(f"{file}: {name}={value!r} asks for code from elsewhere, which is not run: remove it")


def base_generation_config(folder: str | Path) -> GenerationConfig:
    """The generation settings of a folder, without those that are invalid, alone or beside the others.

    They are those of generation_config.json, or, as in transformers, of config.json where that file is missing.
    transformers warns when it reads some invalid settings and refuses to write them (`temperature` without
    `do_sample`); a folder with others it does not read at all (`num_return_sequences` above `num_beams`).

    Raises:
        ValueError: a file is not a JSON object.
    """
    file = Path(folder) / GENERATION
    known = None if file.is_file() else GenerationConfig().to_dict()
    file = file if known is None else Path(folder) / CONFIG
    settings = {
        name: value
        for name, value in read_settings(file).items()
        if name not in METADATA and (known is None or name in known)
    }
    config, invalid = valid_generation_config(settings)
    if invalid:
        text = ", ".join(f"{name}={settings[name]!r}" for name in invalid)
        print_log(f"{file}: without effect or invalid beside the other settings, and left out: {text}", "current")
    return config


def valid_generation_config(settings: Mapping[str, object]) -> tuple[GenerationConfig, list[str]]:
    """As many of some settings as transformers finds valid together, and the names of the others."""
    config, invalid = GenerationConfig(), []
    for name in sorted(settings, key=lambda name: name not in MODES):
        longer = copy.copy(config)
        setattr(longer, name, settings[name])
        try:
            longer.validate(strict=True)
        except (ValueError, TypeError, AttributeError):  # the last two: of values that have another type
            invalid.append(name)
        else:
            config = longer
    return config, invalid


def as_ids(value: int | Sequence[int] | None) -> list[int]:
    """`eos_token_id`, and what else is one id, several or none, as a list."""
    return [] if value is None else list(value) if isinstance(value, (list, tuple)) else [value]


def as_stated(ids: Sequence[int]) -> int | list[int] | None:
    """Ids as files state `eos_token_id`: one by itself, several as a list."""
    return ids[0] if len(ids) == 1 else list(ids) or None
