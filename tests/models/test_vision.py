"""Every image encoder against the library it wraps."""

import json

import open_clip
import pytest
import torch
from torch.testing import assert_close

from mmgpt.registry import MODELS

PIXELS = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_open_clip_folder_gives_patches_before_or_after_the_last_norm(tiny_clip):
    clip = open_clip.create_model(f"local-dir:{tiny_clip}", output_dict=True).eval().visual
    clip.output_tokens = True
    after = MODELS.build(dict(type="OpenCLIPVision", path=tiny_clip, final_norm=True)).eval()
    assert after.width == 32
    assert_close(after(PIXELS), clip(PIXELS)[1])
    before = MODELS.build(dict(type="OpenCLIPVision", path=tiny_clip)).eval()(PIXELS)
    assert before.shape == (2, 16, 32)
    assert_close(clip.ln_post(before), after(PIXELS))


def test_open_clip_json_with_weights_equals_the_folder(tiny_clip, tmp_path):
    description = json.loads(open(f"{tiny_clip}/open_clip_config.json").read())["model_cfg"]
    (tmp_path / "a-tiny-tower.json").write_text(json.dumps(description))
    config = dict(type="OpenCLIPVision", model=str(tmp_path / "a-tiny-tower.json"))
    config["pretrained"] = f"{tiny_clip}/open_clip_model.safetensors"
    expected = MODELS.build(dict(type="OpenCLIPVision", path=tiny_clip)).eval()(PIXELS)
    assert_close(MODELS.build(config).eval()(PIXELS), expected)


def test_open_clip_stage_of_a_resnet(tmp_path):
    description = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 64, "patch_size": None},
        "text_cfg": {"context_length": 4, "vocab_size": 8, "width": 16, "heads": 1, "layers": 1},
    }
    (tmp_path / "a-resnet.json").write_text(json.dumps(description))
    model = MODELS.build(dict(type="OpenCLIPVision", model=str(tmp_path / "a-resnet.json"), layer=2)).eval()
    pixels = torch.randn(1, 3, 64, 64)
    tower = model.tower
    expected = tower.layer2(tower.layer1(tower.stem(pixels))).flatten(2).transpose(1, 2)
    assert model.width == 64 and expected.shape == (1, 64, 64)
    assert_close(model(pixels), expected)


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_hugging_face_towers(family, tmp_path):
    from transformers import AutoConfig, AutoModel

    sizes = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2)
    vision = dict(sizes, image_size=32, patch_size=8)
    text = dict(sizes, vocab_size=50, max_position_embeddings=8)
    config = AutoConfig.for_model(family, text_config=text, vision_config=vision)
    torch.manual_seed(0)
    whole = AutoModel.from_config(config).eval()
    whole.save_pretrained(tmp_path)
    model = MODELS.build(dict(type="HFVision", path=str(tmp_path), final_norm=True)).eval()
    tower = getattr(whole.vision_model, "vision_model", whole.vision_model)
    hidden = tower(PIXELS, output_hidden_states=True).hidden_states[-1]
    patches = hidden[:, 1:] if family == "clip" else hidden
    assert model(PIXELS).shape == (2, 16, 32)
    assert_close(model(PIXELS), tower.post_layernorm(patches))
    before = MODELS.build(dict(type="HFVision", path=str(tmp_path))).eval()
    assert_close(before(PIXELS), patches)
    random = MODELS.build(dict(type="HFVision", path=str(tmp_path), pretrained=False)).eval()
    assert not torch.allclose(random(PIXELS), patches)


def test_mmpretrain_vision_transformer(tmp_path):
    arch = dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=48)
    config = dict(type="MMPretrainVision", arch=arch, img_size=32, patch_size=8)
    torch.manual_seed(0)
    model = MODELS.build(config).eval()
    out = model(PIXELS)
    assert out.shape == (2, 16, 32) and model.width == 32
    torch.save({"state_dict": {f"backbone.{k}": v for k, v in model.tower.state_dict().items()}}, tmp_path / "vit.pth")
    loaded = MODELS.build(dict(config, path=str(tmp_path / "vit.pth"))).eval()
    assert_close(loaded(PIXELS), out)


def test_what_is_no_tower_is_named(tmp_path):
    with pytest.raises(ValueError, match="'ViT-X' is neither a JSON file nor a name that open_clip knows"):
        MODELS.build(dict(type="OpenCLIPVision", model="ViT-X"))
    with pytest.raises(FileNotFoundError, match="open_clip_config.json is missing"):
        MODELS.build(dict(type="OpenCLIPVision", path=str(tmp_path)))
    with pytest.raises(ValueError, match="takes path or model"):
        MODELS.build(dict(type="OpenCLIPVision"))
