"""MMPretrainVision against open_clip's model with the same weights."""

import pytest
import torch

from mmgpt.registry import MODELS
from tests.helpers.tolerances import assert_close

PIXELS = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
MMPRETRAIN = {  # open_clip's names of tensors, and mmpretrain's
    "conv1.": "patch_embed.projection.",
    "class_embedding": "cls_token",
    "positional_embedding": "pos_embed",
    "ln_pre": "pre_norm",
    "ln_post": "ln1",
    "transformer.resblocks": "layers",
    "in_proj_": "qkv.",
    "out_proj": "proj",
    ".ln_": ".ln",
    "mlp.c_fc": "ffn.layers.0.0",
    "mlp.c_proj": "ffn.layers.1",
}


def as_mmpretrain(encoder):
    """The weights of an open_clip image encoder under mmpretrain's names."""
    state = {}
    for name, value in encoder.state_dict().items():
        for theirs, ours in MMPRETRAIN.items():
            name = name.replace(theirs, ours)
        embedding = name in ("cls_token", "pos_embed")
        state[f"backbone.{name}"] = value.reshape(1, -1, value.shape[-1]) if embedding else value
    return {name: value.contiguous() for name, value in state.items() if name != "backbone.proj"}


@pytest.mark.parametrize("quick_gelu", [True, False])
def test_mmpretrain_gives_what_open_clip_gives_with_the_same_weights(tiny_clip, tmp_path, quick_gelu):
    clip = MODELS.build(dict(type="OpenCLIPVision", path=tiny_clip, quick_gelu=quick_gelu)).eval()
    torch.save({"state_dict": as_mmpretrain(clip.tower)}, tmp_path / "vit.pth")
    arch = dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=128)
    config = dict(type="MMPretrainVision", arch=arch, img_size=32, patch_size=8, quick_gelu=quick_gelu)
    model = MODELS.build(dict(config, path=str(tmp_path / "vit.pth"))).eval()
    assert model.width == 32
    assert_close(model(PIXELS), clip(PIXELS))
    wide = MODELS.build(dict(config, img_size=(32, 48))).eval()
    assert wide(torch.randn(2, 3, 32, 48)).shape == (2, 24, 32)
    assert not torch.allclose(MODELS.build(config).eval()(PIXELS), clip(PIXELS))


def test_weights_of_another_model_are_refused(tiny_clip, tmp_path):
    clip = MODELS.build(dict(type="OpenCLIPVision", path=tiny_clip))
    state = as_mmpretrain(clip.tower)
    torch.save({f"image_{name}": value for name, value in state.items()}, tmp_path / "vit.pth")
    arch = dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=128)
    with pytest.raises(ValueError, match=r"vit.pth does not fit: it lacks \d+ tensors: cls_token"):
        MODELS.build(
            dict(type="MMPretrainVision", arch=arch, img_size=32, patch_size=8, path=str(tmp_path / "vit.pth"))
        )
