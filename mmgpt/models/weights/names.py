"""Key map between the names of tensors in a model and in files of the supported layouts.

Layouts: our own names (`flamingo.safetensors`, the checkpoints of tools/train.py), OpenFlamingo v1 and v2, and
MultiModal-GPT's LoRA files.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mmgpt.models.gated_lm import GatedDecoderLayer

GATED = ".gated."
# What peft's wrappers add to names, differently in a model and in a file.
WRAPPERS = (
    (re.compile(r"^(peft\.)?base_model\.model\."), ""),
    # LoRA tensors keep it in their names, since it tells the updates of two parameters of one module apart.
    (re.compile(r"\.base_layer(?=\.)(?!\.(base_layer\.)*lora_)"), ""),
    (re.compile(r"(\.(lora_|trainable_tokens_)\w+)\.default(?=\.|$)"), r"\1"),
    (re.compile(r"(lora_magnitude_vector)\.weight$"), r"\1"),
)
# Names in OpenFlamingo and MultiModal-GPT of the language model, its decoder layers and the gated blocks between them.
PUBLISHED = (
    (re.compile(r"^lang_encoder\.(base_model\.model\.)?"), "language.model."),
    (re.compile(r"\.gated_cross_attn_layer\."), ".gated."),
    (re.compile(r"(\.\d+)\.decoder_layer\."), r"\1."),
)
# Files of the published code hold the gated blocks and decoder layers a second time, in two lists beside the layers.
LISTED = re.compile(r"^language\.model\.(gated_cross_attn_layers|old_decoder_blocks)\.(\d+)\.")


def plain_name(name: str) -> str:
    """A tensor's name in one of our models without what peft's wrappers add to it."""
    for pattern, replacement in WRAPPERS:
        name = pattern.sub(replacement, name)
    return name


def component_of(name: str) -> str:
    """The component of a model that a tensor belongs to: 'LoRA', 'gated blocks', or the name of its first module."""
    name = plain_name(name)
    if ".lora_" in name:
        return "LoRA"
    return "gated blocks" if GATED in name else name.split(".")[0]


def new_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The tensors, by name, that Flamingo adds to its two pretrained models: the resampler and the gated blocks."""
    state = model.state_dict()
    return {name: value for name, value in state.items() if name.startswith("perceiver.") or GATED in name}


class KeyMap:
    """Map from the tensor names of any supported layout to those of a model.

    Args:
        model: a Flamingo, or a LoRAModel around one.
    """

    def __init__(self, model: nn.Module):
        wrapped = [name for name, module in model.named_modules() if isinstance(module, GatedDecoderLayer)]
        self.wrapped = [plain_name(f"{name}.") for name in wrapped]
        # 'language.model.model.layers' from 'language.model.model.layers.3.'
        self.layers = self.wrapped[0].rsplit(".", 2)[0] if wrapped else None
        self.names = {self._unwrapped(plain_name(name)): name for name in model.state_dict()}

    @property
    def gated(self) -> list[int]:
        """Indices of the decoder layers that have a gated block before them."""
        return [int(name.split(".")[-2]) for name in self.wrapped]

    def find(self, name: str) -> str:
        """The model's name of a file's tensor, or the file's own name where the model has no such tensor."""
        plain = plain_name(name)
        for pattern, replacement in PUBLISHED:
            plain = pattern.sub(replacement, plain)
        listed = LISTED.match(plain)
        if listed:
            block = "gated." if listed[1].startswith("gated") else ""
            plain = f"{self.layers}.{listed[2]}.{block}{plain[listed.end() :]}"
        return self.names.get(self._unwrapped(plain), name)

    def published(self, name: str) -> str:
        """The name of a tensor of the model in OpenFlamingo v1 and MultiModal-GPT, which wrap each decoder layer."""
        inner = name.removeprefix("peft.base_model.model.").replace(".base_layer.", ".")
        root = "lang_encoder.base_model.model." if ".lora_" in name else "lang_encoder."
        layer = re.match(rf"{re.escape(self.layers)}\.\d+\.", inner)
        if layer:
            rest = inner[layer.end() :]
            block = "gated_cross_attn_layer." if rest.startswith("gated.") else "decoder_layer."
            inner = layer[0] + block + rest.removeprefix("gated.").removeprefix("decoder.")
        return inner.replace("language.model.", root, 1) if inner.startswith("language.model.") else inner

    def _unwrapped(self, plain: str) -> str:
        for layer in self.wrapped:
            if plain.startswith(f"{layer}decoder."):
                return layer + plain.removeprefix(f"{layer}decoder.")
        return plain


def our_names(model: nn.Module, state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """A file's tensors under the model's names; unknown ones keep theirs.

    Raises:
        ValueError: two names of the file mean one tensor and differ in it (a file with both of OpenFlamingo's names for
            the gated blocks is fine when they agree).
    """
    key_map, tensors = KeyMap(model), {}
    for name, value in state.items():
        ours = key_map.find(name)
        if ours in tensors and not torch.equal(tensors[ours], value):
            raise ValueError(f"{source} holds two different tensors for {ours}, one of them as {name}")
        tensors[ours] = value
    return tensors
