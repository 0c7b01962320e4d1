"""The published implementation's tiny models in ours, built from nothing but the reference folder.

Sizes, names of cases and ids are read from the folder, so that another folder of the same layout works too.
"""

import json
from functools import cache
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from torch import Tensor, nn

from mmgpt.models import Flamingo, LoRAModel
from mmgpt.models.weights.trainable import load_trainable
from mmgpt.registry import MODELS
from tests.helpers.parity_data import PARITY, read_json

CHECKOUT = Path(__file__).parents[2]
CONFIGS = CHECKOUT / "configs"

ACTIVATIONS = 5e-5  # absolute; logits too
LOSSES = 1e-4  # absolute
GRADIENTS = 1e-4  # relative to the largest value of the tensor
STEPPED = 1e-4  # absolute, weights after optimizer steps

HEADS = 8  # the published code's, for resampler and gated blocks: no tensor tells it
LAYERS = "lang_encoder.model.layers."
GATED = ".gated_cross_attn_layer."


def expected_json(name: str) -> dict:
    """The content of expected/<name>.json; empty where the folder is absent."""
    return read_json(f"expected/{name}.json") or {}


@cache
def expected_arrays(name: str) -> dict[str, Tensor]:
    """The arrays of expected/<name>.npz by key."""
    with np.load(PARITY / "expected" / f"{name}.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays}


def assert_close(ours: Tensor, theirs: Tensor, atol: float, what: str = "") -> None:
    """No value is further than `atol` away."""
    torch.testing.assert_close(ours, theirs, rtol=0, atol=atol, msg=lambda message: f"{what}: {message}")


def sizes() -> dict[str, dict]:
    """Arguments `perceiver` and `gated` of Flamingo, read from the shapes and names in the checkpoint."""
    shapes = {key: value.shape for key, value in checkpoint("checkpoint.pt").items()}
    latents, width = shapes["perceiver.latents"]
    gated = sorted({int(key.removeprefix(LAYERS).split(".")[0]) for key in shapes if GATED in key})
    every = gated[0] + 1
    assert gated == [every * (i + 1) - 1 for i in range(len(gated))], gated
    first = f"{LAYERS}{gated[0]}{GATED}"
    hidden = shapes[first + "attn.to_q.weight"][1]
    optional = {"max_frames": "perceiver.frame_embs", "max_media": "perceiver.media_time_embs"}
    perceiver = dict(
        depth=len({key.split(".")[2] for key in shapes if key.startswith("perceiver.layers.")}),
        num_latents=latents,
        dim_head=shapes["perceiver.layers.0.0.to_q.weight"][0] // HEADS,
        heads=HEADS,
        ff_mult=shapes["perceiver.layers.0.1.1.weight"][0] // width,
        **{name: shapes[key][0] for name, key in optional.items() if key in shapes},
    )
    block = dict(
        every_n_layers=every,
        dim_head=shapes[first + "attn.to_q.weight"][0] // HEADS,
        heads=HEADS,
        ff_mult=shapes[first + "ff.1.weight"][0] // hidden,
    )
    return dict(perceiver=perceiver, gated=block)


@cache
def checkpoint(name: str) -> dict[str, Tensor]:
    """The tensors of flamingo/<name> under their published names."""
    return torch.load(PARITY / "flamingo" / name, weights_only=True)


def flamingo_config(image_attention: str = "next", weights: str = "checkpoint.pt") -> dict:
    """Config of the Flamingo of the reference folder."""
    (description,) = (PARITY / "clip").glob("*.json")
    vision = dict(type="OpenCLIPVision", model=str(description), pretrained=str(description.with_suffix(".pt")))
    language, weights = str(PARITY / "llama"), str(PARITY / "flamingo" / weights)
    return dict(
        type="Flamingo",
        vision=vision,
        language=dict(path=language),
        image_attention=image_attention,
        weights=weights,
        **sizes(),
    )


def lora_config() -> dict:
    """The fields of peft's LoraConfig: those of our recipe, with the folder's sizes and targets."""
    tuned = json.loads((PARITY / "lora" / "tuning_config.json").read_text())
    ours = Config.fromfile(CONFIGS / "_base_" / "models" / "openflamingo_9b.py").lora.to_dict()
    names = dict(r="lora_r", lora_alpha="lora_alpha", lora_dropout="lora_dropout", target_modules="lora_target_modules")
    return {**ours, **{field: tuned[name] for field, name in names.items()}}


def build_flamingo(**changes) -> Flamingo:
    """The reference Flamingo in evaluation mode; `changes` as in `flamingo_config`."""
    model = MODELS.build(flamingo_config(**changes)).eval()
    copy_head(model)
    return model


def build_lora(image_attention: str = "next") -> LoRAModel:
    """The same with the reference LoRA, in evaluation mode."""
    model = MODELS.build(dict(type="LoRAModel", module=flamingo_config(image_attention), lora=lora_config())).eval()
    copy_head(model.module)
    load_trainable(model, PARITY / "lora" / "bare_state_dict.pt")
    return model


@cache
def built(kind: str, image_attention: str = "next") -> Flamingo | LoRAModel:
    """One model of each kind ('base', 'lora') for all tests, which must not change it."""
    return {"base": build_flamingo, "lora": build_lora}[kind](image_attention=image_attention)


@torch.no_grad()
def copy_head(model: Flamingo) -> None:
    """Puts in the reference's output head: the published code draws its last rows anew at each load."""
    with np.load(PARITY / "flamingo" / "lm_head_resized.npz") as arrays:
        model.language.get_output_embeddings().weight.copy_(torch.from_numpy(arrays["lm_head"]))


def our_lora_name(published: str, model: nn.Module) -> str:
    """Our name of a LoRA tensor: published, every decoder layer is wrapped; here, only those with a gated block."""
    name = published.replace("lang_encoder.base_model.model.", "peft.base_model.model.language.model.")
    name = name.replace(GATED, ".gated.").replace(".decoder_layer.", ".decoder.")
    known = dict(model.named_parameters())
    return name if name in known else name.replace(".decoder.", ".")


def batch_of(case: dict) -> dict:
    """The model inputs of a case: `input_ids`, `attention_mask`, `images` (for each row places in visual.npz)."""
    inputs = {key: torch.tensor(case[key]) for key in ("input_ids", "attention_mask")}
    if case["images"] is None:
        return inputs
    images = expected_arrays("visual")["images"]
    pixels = torch.stack([images[row] for row in case["images"]])
    return {**inputs, "pixels": pixels, "image_counts": torch.tensor(image_counts(case))}


def image_tokens(case: dict) -> list[int]:
    """The number of `<image>` tokens in each row of a case."""
    image = built("base").language.image_token_id
    return [row.count(image) for row in case["input_ids"]]


def image_counts(case: dict) -> list[int]:
    """The number of images of each row of a case."""
    return [len(row) for row in case["images"]] if case["images"] else [0] * len(case["input_ids"])
