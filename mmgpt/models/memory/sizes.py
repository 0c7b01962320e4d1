"""A model's tensors by name and shape, without weights or files: built on torch's meta device."""

import tempfile
from collections.abc import Mapping

import torch
from tokenizers import Tokenizer, models
from torch import nn
from transformers import PreTrainedTokenizerFast

from mmgpt.cli.config import flamingo_config
from mmgpt.registry import MODELS


def build_without_weights(cfg: Mapping) -> nn.Module:
    """The model of an experiment's config, with tensors that have a shape and no values.

    Args:
        cfg: its `model` is a Flamingo or a LoRAModel around one; none of the files that it names is looked for. Its
            `sizes` describe the base: `vision`, name or JSON file of the tower, as open_clip takes them, and
            `language`, as transformers' AutoConfig takes it, `vocab_size` without the tokens that Flamingo adds.

    Raises:
        ValueError: the config has no `sizes`, or its image tower is not open_clip's.
    """
    if not cfg.get("sizes"):
        raise ValueError("the config has no `sizes` of its base (see configs/_base_/models/openflamingo_9b.py)")
    flamingo, sizes = flamingo_config(cfg), cfg["sizes"]
    if flamingo["vision"]["type"] != "OpenCLIPVision":
        raise ValueError(
            f"vision.type={flamingo['vision']['type']!r}: only OpenCLIPVision can be built without weights"
        )
    with tempfile.TemporaryDirectory() as folder, torch.device("meta"):
        _stand_in_tokenizer(sizes["language"]["vocab_size"]).save_pretrained(folder)
        files = ("path", "pretrained")
        parts = dict(
            vision={**{k: v for k, v in flamingo["vision"].items() if k not in files}, "model": sizes["vision"]},
            language={
                **flamingo["language"],
                "path": folder,
                # What has no values is not quantized.
                "precision": None,
                # Without a padding token: it comes after the language model's own.
                "config": {**sizes["language"], "pad_token_id": None},
            },
            weights=None,
        )
        changed = {**flamingo, **parts}
        return MODELS.build({**cfg["model"], "module": changed} if "module" in cfg["model"] else changed)


def _stand_in_tokenizer(size: int) -> PreTrainedTokenizerFast:
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    words = [*special.values(), *(f"word{i}" for i in range(len(special), size))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
