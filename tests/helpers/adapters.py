"""Random tunings of one base, as checkpoints and as exported folders."""

import torch

from mmgpt.apis import build_model
from mmgpt.apis.export import export
from mmgpt.models.weights.trainable import load_trainable, trainable_state


def random_tuning(cfg, folder, seed, std=0.05):
    """A checkpoint whose LoRA and token rows are random, and its exported folder, both in a folder."""
    model = build_model(cfg, device="cpu")
    generator = torch.Generator().manual_seed(seed)
    state = trainable_state(model)
    for name in [name for name in state if ".lora_" in name or ".token_adapter." in name]:
        state[name] = torch.randn(state[name].shape, generator=generator) * std
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(dict(state_dict=state, meta={}, message_hub={}), folder / "latest.pth")
    load_trainable(model, folder / "latest.pth")
    export(cfg, model, folder / "exported")
    return folder / "latest.pth", folder / "exported"
