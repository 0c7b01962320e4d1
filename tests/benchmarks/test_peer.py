"""The peer has the sizes of the model, and sees the same."""

from copy import deepcopy

import pytest
import torch

from benchmarks.components import bare_language
from benchmarks.peer import build_peer, peer_inputs
from mmgpt.apis import build_model
from mmgpt.cli import load_config
from mmgpt.models import GatedCrossAttentionBlock
from mmgpt.models.media import media_mask


def parameters(model, lora=False):
    return sum(weight.numel() for name, weight in model.named_parameters() if ("lora_" in name) is lora)


@pytest.fixture(scope="module")
def peer(small_model, small_cfg):
    return build_peer(small_model, small_cfg)


@pytest.fixture
def batch(small_model):
    ids = torch.randint(10, 100, (2, 12), generator=torch.Generator().manual_seed(0))
    ids[0, [2, 7]] = ids[1, 4] = small_model.module.language.image_token_id
    counts, pixels = torch.tensor([2, 1]), torch.randn(2, 2, 3, 32, 32)
    return dict(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids, pixels=pixels, image_counts=counts)


def test_components_are_of_equal_size(small_model, small_cfg, peer):
    flamingo, core = small_model.module, peer.get_base_model().model
    assert parameters(core.perceiver_resampler) == parameters(flamingo.perceiver)
    # open_clip's has an output projection (16 x 16) behind its last norm.
    assert parameters(core.vision_model) == parameters(flamingo.vision) - 16 * 16
    language = bare_language(small_model, small_cfg, lora=True)
    gated = parameters(core.gated_cross_attn_layers)
    others = gated + parameters(core.vision_model) + parameters(core.perceiver_resampler)
    assert parameters(peer) - others == parameters(language)
    assert parameters(core.layers, lora=True) == parameters(language, lora=True) > 0
    blocks = [module for module in flamingo.language.modules() if isinstance(module, GatedCrossAttentionBlock)]
    assert len(core.gated_cross_attn_layers) == len(blocks) == 2


def test_the_same_components_are_trainable(peer):
    trainable = {name.split("lora_")[0] for name, weight in peer.named_parameters() if weight.requires_grad}
    assert trainable
    assert all("layers" in name and "vision" not in name for name in trainable)
    assert all("lora_" in name for name, weight in peer.named_parameters() if weight.requires_grad)
    names = {".".join(name.split(".")[-3:-1]) for name in trainable}
    attention_layers = {f"self_attn.{x}_proj" for x in "qkvo"} | {f"cross_attn.{x}_proj" for x in "qkvo"}
    assert names == attention_layers | {f"mlp.{x}_proj" for x in ("gate", "up", "down")}
    assert not any("model.layers" in name and "mlp" in name for name in trainable)


def test_without_lora_the_same_components_are_frozen(small_cfg, small_model):
    merged = build_model(small_cfg, device="cpu").peft.merge_and_unload()
    merged.frozen = ("vision", "language")
    core = build_peer(merged, small_cfg).model
    assert all(weight.requires_grad for weight in core.gated_cross_attn_layers.parameters())
    assert all(weight.requires_grad for weight in core.perceiver_resampler.parameters())
    for part in (core.vision_model, core.layers, core.embed_tokens):
        assert not any(weight.requires_grad for weight in part.parameters())


@pytest.mark.parametrize("image_attention", ["latest", "next"])
def test_a_token_attends_to_the_same_image_as_in_our_model(small_model, batch, image_attention, monkeypatch):
    language = small_model.module.language
    monkeypatch.setattr(language, "image_attention", image_attention)
    is_image = batch["input_ids"] == language.image_token_id
    ours = media_mask(is_image, batch["image_counts"], 2, 1, image_attention)
    assert torch.equal(peer_inputs(small_model, batch)["image_attention_mask"].bool(), ours)


def test_a_step_with_and_without_images(small_model, peer, batch):
    loss = peer(**peer_inputs(small_model, batch)).loss
    assert loss.isfinite()
    text = {**batch, "pixels": None, "input_ids": torch.full_like(batch["input_ids"], 11)}
    inputs = peer_inputs(small_model, text)
    assert "pixel_values" not in inputs
    assert not inputs["image_attention_mask"].any()
    peer(**inputs).loss.backward()
    gradients = [weight.grad for weight in peer.get_base_model().model.layers.parameters() if weight.requires_grad]
    assert all(gradient.isfinite().all() for gradient in gradients)
    peer.zero_grad()


def test_other_image_encoders_have_no_peer():
    cfg = load_config("configs/mmgpt/benchmark.py", {"vision.model": "configs/_base_/models/tiny_tower.json"})
    with pytest.raises(ValueError, match="Vision Transformer of open_clip as image encoder, not ModifiedResNet"):
        build_peer(build_model(cfg, device="cpu"), cfg)


def test_lora_in_other_layers_has_no_peer(small_model, small_cfg):
    cfg = deepcopy(small_cfg)
    cfg.lora.target_modules = ["q_proj", "embed_tokens"]
    with pytest.raises(ValueError, match=r"not \['embed_tokens'\]"):
        build_peer(small_model, cfg)
