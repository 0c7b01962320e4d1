"""OpenCLIPVision against open_clip's own models."""

import json

import open_clip
import pytest
import torch

from mmgpt.registry import MODELS
from tests.helpers.tolerances import assert_close

PIXELS = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
TIMM = dict(timm_model_pretrained=False, timm_pool="avg", timm_proj="linear", image_size=64)
RESNET = dict(image_size=64, layers=[1, 1, 1, 1], width=8, head_width=64, patch_size=None)
TEXT = dict(context_length=4, vocab_size=8, width=16, heads=1, layers=1)


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
    (tmp_path / "a-tiny-encoder.json").write_text(json.dumps(description))
    config = dict(type="OpenCLIPVision", model=str(tmp_path / "a-tiny-encoder.json"))
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
    encoder = model.tower
    expected = encoder.layer2(encoder.layer1(encoder.stem(pixels))).flatten(2).transpose(1, 2)
    assert model.width == 64
    assert expected.shape == (1, 64, 64)
    assert_close(model(pixels), expected)


@pytest.mark.parametrize(
    ("vision", "layer", "used", "unused"),
    [
        (
            dict(image_size=32, layers=3, width=32, head_width=16, patch_size=8),
            -2,
            "transformer.resblocks.1",
            "transformer.resblocks.2",
        ),
        (RESNET, 2, "layer2", "layer3"),
        (dict(TIMM, timm_model_name="convnext_atto"), 1, "trunk.stages.1", "trunk.stages.2"),
    ],
)
def test_layers_behind_the_features_are_not_computed(tmp_path, vision, layer, used, unused):
    description = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": TEXT}
    (tmp_path / "an-encoder.json").write_text(json.dumps(description))
    model = MODELS.build(dict(type="OpenCLIPVision", model=str(tmp_path / "an-encoder.json"), layer=layer)).eval()
    called = []
    for name in (used, unused):
        model.tower.get_submodule(name).register_forward_hook(lambda *_, name=name: called.append(name))
    model(torch.zeros(1, 3, *model.image_size))
    assert called == [used]


@pytest.mark.parametrize(
    ("vision", "grid", "prefix_tokens"),
    [
        (RESNET, (2, 2), 0),
        (dict(TIMM, timm_model_name="convnext_atto"), (2, 2), 0),
        (dict(TIMM, timm_model_name="vitamin_small_224", image_size=224), (14, 14), 0),
        (dict(TIMM, timm_model_name="eva02_tiny_patch14_224", image_size=224), (16, 16), 1),
        (dict(TIMM, timm_model_name="vit_pe_core_tiny_patch16_384", image_size=384), (24, 24), 1),
        (dict(image_size=[32, 48], layers=3, width=32, head_width=16, patch_size=8), (4, 6), 1),
    ],
    ids=["ModifiedResNet", "ConvNeXt", "ViTamin", "EVA-02", "PE-Core", "ViT"],
)
def test_features_are_open_clips_own_on_the_grid(vision, grid, prefix_tokens, tmp_path):
    (tmp_path / "an-encoder.json").write_text(json.dumps(dict(embed_dim=16, vision_cfg=vision, text_cfg=TEXT)))
    model = MODELS.build(dict(type="OpenCLIPVision", model=str(tmp_path / "an-encoder.json"))).eval()
    size = vision["image_size"]
    assert model.image_size == (tuple(size) if isinstance(size, list) else (size, size))
    assert (model.grid, model.prefix_tokens) == (grid, prefix_tokens)
    pixels = torch.randn(2, 3, *model.image_size)
    expected = model.tower.forward_intermediates(pixels, intermediates_only=True)["image_intermediates"]
    for layer in (-1, -2, 1):
        model.layer = layer
        assert_close(model(pixels), expected[layer].flatten(2).transpose(1, 2))


@pytest.mark.parametrize(
    ("vision", "text", "effect"),
    [
        (RESNET, TEXT, False),
        (dict(TIMM, timm_model_name="convnext_atto"), TEXT, False),
        (dict(TIMM, timm_model_name="fastvit_t8"), TEXT, False),  # the kind of MobileCLIP's image encoders
        (dict(TIMM, timm_model_name="vitamin_small_224", image_size=224), TEXT, False),
        (dict(TIMM, timm_model_name="vit_tiny_patch16_224", image_size=224), TEXT, True),
        (dict(image_size=32, layers=1, width=32, head_width=16, patch_size=8), TEXT, True),
    ],
    ids=["ModifiedResNet", "ConvNeXt", "FastViT", "ViTamin", "timm's ViT", "ViT"],
)
def test_a_last_norm_without_effect_is_refused(vision, text, effect, tmp_path):
    description = dict(embed_dim=16, vision_cfg=vision, text_cfg=text)
    (tmp_path / "a-kind-of-encoder.json").write_text(json.dumps(description))
    config = dict(type="OpenCLIPVision", model=str(tmp_path / "a-kind-of-encoder.json"))
    assert not MODELS.build(config).final_norm
    if effect:
        model = MODELS.build(dict(config, final_norm=True))
        assert model.final_norm
        assert model.training
    else:
        with pytest.raises(ValueError, match="final_norm=True has no effect on .*a-kind-of-encoder.json"):
            MODELS.build(dict(config, final_norm=True))


def test_a_layer_or_a_norm_that_open_clip_does_not_have_is_refused(tiny_clip, tmp_path):
    with pytest.raises(ValueError, match="gives no patch features with layer=7"):
        MODELS.build(dict(type="OpenCLIPVision", path=tiny_clip, layer=7))
    vision = dict(image_size=32, layers=1, width=32, head_width=16, patch_size=8, attentional_pool=True)
    vision.update(attn_pooler_heads=2)
    description = dict(embed_dim=16, vision_cfg=vision, text_cfg=TEXT)
    (tmp_path / "with-a-pooler.json").write_text(json.dumps(description))
    with pytest.raises(ValueError, match="gives no patch features with layer=-1 and final_norm=True"):
        MODELS.build(dict(type="OpenCLIPVision", model=str(tmp_path / "with-a-pooler.json"), final_norm=True))


def test_a_wrong_name_or_folder_is_named(tmp_path):
    with pytest.raises(ValueError, match="'ViT-X' is neither a JSON file nor a name that open_clip knows"):
        MODELS.build(dict(type="OpenCLIPVision", model="ViT-X"))
    with pytest.raises(FileNotFoundError, match="open_clip_config.json is missing"):
        MODELS.build(dict(type="OpenCLIPVision", path=str(tmp_path)))
    with pytest.raises(ValueError, match="takes path or model"):
        MODELS.build(dict(type="OpenCLIPVision"))
