"""Building the model of an experiment's config, or of an exported folder, for inference."""

from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmgpt.cli import check_files, load_config
from mmgpt.cli.description import ADAPTER, TRAINED, check_weights, exported_folder
from mmgpt.models.image_path import warn_of_closed_gates
from mmgpt.models.tokenizer import load_tokenizer
from mmgpt.models.weights.trainable import load_trainable
from mmgpt.registry import MODELS

INFERENCE_KEYS = ("model", "chat_pipeline")  # Files that other keys of a config name are not needed here.


def build_model(cfg: Config, checkpoint: str | Path | None = None, device: str | None = None) -> torch.nn.Module:
    """The model of a config with its checkpoint loaded, on a device, in eval mode.

    Args:
        cfg: as ``load_config`` returns it. Files of its datasets are not looked for.
        checkpoint: checkpoint of a training, or folder that `export` wrote; without it the config's load_from, or the
            model before tuning.
        device: a torch device; by default the first GPU, or the CPU when there is none.

    Raises:
        FileNotFoundError: the checkpoint, or files that the model's config names, are missing.
        ValueError: the checkpoint belongs to another config or tokenizer, or the device does not exist.
    """
    # Top-level strings are checked, too, so that an error about a missing file names the variable to set.
    unused = [key for key, value in cfg.items() if key not in INFERENCE_KEYS and not isinstance(value, str)]
    check_files(cfg, skip=[*unused, "load_from"] if checkpoint else unused)
    device = find_device(device)
    init_default_scope(cfg.get("default_scope", "mmgpt"))
    model = MODELS.build(cfg.model)
    checkpoint = checkpoint or cfg.get("load_from")
    if checkpoint is not None:
        load_trainable(model, checkpoint)
        if Path(checkpoint).is_dir():
            # An exported folder holds the tokenizer that the model was tuned with; its base may have another one now.
            exported, current = load_tokenizer(str(Path(checkpoint, "tokenizer"))), model.tokenizer
            refusal = f"{checkpoint} was exported with another tokenizer"
            if exported.get_vocab() != current.get_vocab():
                differences = sorted(exported.get_vocab().items() ^ current.get_vocab().items())[:3]
                raise ValueError(f"{refusal} than its base has now, e.g. {differences}")
            if exported.eos_token != current.eos_token:
                ends = f"{exported.eos_token!r}, the tokenizer of its base with {current.eos_token!r} now"
                raise ValueError(f"{refusal}: it ended answers with {ends}")
    warn_of_closed_gates(model)
    return model.to(device).eval()


def find_config(path: str | Path) -> tuple[Path, Path | None]:
    """Config and checkpoint that a path stands for: a config file has no checkpoint, an exported folder may be both.

    Raises:
        FileNotFoundError, ValueError: a folder without a description, or without the weights that it names.
    """
    folder = exported_folder(path)
    if folder is None:
        return Path(path), None
    tuned = {ADAPTER, TRAINED} & check_weights(folder).keys()
    return folder, folder if tuned else None


def chat_config(
    config: str | Path | Config,
    checkpoint: str | Path | None = None,
    options: dict | None = None,
    trust: bool = False,
) -> tuple[Config, str | Path | None]:
    """Config of a chat, and the checkpoint of its model.

    Args:
        config: as for `find_config`, or one already loaded by `load_config` (then without `options`).
        checkpoint: instead of that of an exported folder.
        options: values that override the config's.
        trust: whether the modules that an exported folder names for its author's own classes are imported.

    Raises:
        FileNotFoundError: there is no such config.
        ValueError: the config has no ``chat_pipeline``, needs code without `trust`, or has been loaded already and
            `options` are given.
    """
    if isinstance(config, Config):
        if options:
            raise ValueError(f"options {sorted(options)}: the config is already loaded: pass them to load_config")
        cfg = config
    else:
        file, exported = find_config(config)
        cfg, checkpoint = load_config(file, options, trust), checkpoint or exported
    if "chat_pipeline" not in cfg:
        raise ValueError(
            f"{cfg.filename}: a chat needs `chat_pipeline`, a list of transforms "
            "(PrepareImages, FormatPrompt(open_last=True), TokenizeSegments)"
        )
    return cfg, checkpoint


def find_device(name: str | None) -> torch.device:
    """Torch device by its name; None: the first GPU, or the CPU. ValueError when this machine cannot use it."""
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        # torch raises AssertionError where it was built without CUDA.
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {name!r} cannot be used here: {reason}") from error
    return device
