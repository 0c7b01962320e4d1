"""A model's tensors by name and shape, without weights or files: built on torch's meta device."""

import tempfile
from collections.abc import Mapping

import torch
from tokenizers import Tokenizer, models
from torch import nn
from transformers import PreTrainedTokenizerFast

from mmgpt.registry import MODELS


def build_without_weights(model: Mapping, vision: str, language: Mapping) -> nn.Module:
    """A model as its config describes it, with tensors that have a shape and no values.

    Args:
        model: config of a Flamingo, or of a LoRAModel around one. None of the files it names is looked for.
        vision: name or JSON file of the image tower, as open_clip takes them.
        language: description of the language model, as transformers' AutoConfig takes it; its `vocab_size` without the
            tokens that Flamingo adds.
    """
    flamingo = model.get("module", model)
    with tempfile.TemporaryDirectory() as folder, torch.device("meta"):
        _stand_in_tokenizer(language["vocab_size"]).save_pretrained(folder)
        parts = dict(
            vision=dict(type="OpenCLIPVision", model=vision),
            # Without a padding token: it comes after the language model's own.
            language={**flamingo["language"], "path": folder, "config": {**language, "pad_token_id": None}},
            weights=None,
        )
        changed = {**flamingo, **parts}
        return MODELS.build({**model, "module": changed} if "module" in model else changed)


def _stand_in_tokenizer(size: int) -> PreTrainedTokenizerFast:
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    words = [*special.values(), *(f"word{i}" for i in range(len(special), size))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
