"""HFVision against transformers' own models."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, CLIPVisionConfig, CLIPVisionModel

from mmgpt.registry import MODELS
from tests.helpers.tolerances import assert_close

PIXELS = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
SIZES = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, image_size=32)
SIZES["patch_size"] = 8
TOKENS = {  # what stands before the patches: class, distillation and register tokens
    "clip_vision_model": (1, {}),
    "siglip_vision_model": (0, {}),
    "vit": (1, {}),
    "deit": (2, {}),
    "beit": (1, dict(use_mean_pooling=False)),
    "dinov2": (1, {}),
    "dinov2_with_registers": (5, dict(num_register_tokens=4)),
    "dinov3_vit": (4, dict(num_register_tokens=3)),
    "ijepa": (0, {}),
}


def hugging_face(family, folder, **sizes):
    """HFVision of a tiny random model; `sizes` may have further arguments of HFVision under 'ours'."""
    ours = sizes.pop("ours", {})
    AutoConfig.for_model(family, **sizes).save_pretrained(folder)
    torch.manual_seed(0)
    return MODELS.build(dict(type="HFVision", path=str(folder), pretrained=False, **ours)).eval()


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_hugging_face_features_are_the_patches_before_or_after_the_last_norm(family, tmp_path):
    sizes = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2)
    vision = dict(sizes, image_size=32, patch_size=8)
    text = dict(sizes, vocab_size=50, max_position_embeddings=8)
    config = AutoConfig.for_model(family, text_config=text, vision_config=vision)
    torch.manual_seed(0)
    whole = AutoModel.from_config(config).eval()
    whole.save_pretrained(tmp_path)
    model = MODELS.build(dict(type="HFVision", path=str(tmp_path), final_norm=True)).eval()
    encoder = getattr(whole.vision_model, "vision_model", whole.vision_model)
    hidden = encoder(PIXELS, output_hidden_states=True).hidden_states[-1]
    patches = hidden[:, 1:] if family == "clip" else hidden
    assert model(PIXELS).shape == (2, 16, 32)
    assert_close(model(PIXELS), encoder.post_layernorm(patches))
    before = MODELS.build(dict(type="HFVision", path=str(tmp_path))).eval()
    assert_close(before(PIXELS), patches)
    random = MODELS.build(dict(type="HFVision", path=str(tmp_path), pretrained=False)).eval()
    assert not torch.allclose(random(PIXELS), patches)


@pytest.mark.parametrize(
    ("family", "image_size"), [*((family, (32, 32)) for family in TOKENS), ("vit", (32, 48)), ("deit", (48, 32))]
)
def test_class_and_register_tokens_are_dropped(family, image_size, tmp_path):
    extra, more = TOKENS[family]
    more = {**more, "image_size": image_size if image_size != (32, 32) else 32}
    model = hugging_face(family, tmp_path, **{**SIZES, **more})
    pixels = torch.randn(2, 3, *image_size)
    out = model.tower(pixel_values=pixels, output_hidden_states=True)
    patches = pixels.shape[2] * pixels.shape[3] // 64
    assert model(pixels).shape == (2, patches, 32)
    assert out.hidden_states[-1].shape[1] == patches + extra
    assert torch.equal(model(pixels), out.hidden_states[-1][:, extra:])
    assert model.prefix_tokens == extra
    assert model.grid == (pixels.shape[2] // 8, pixels.shape[3] // 8)
    normed = hugging_face(family, tmp_path, **{**SIZES, **more}, ours=dict(final_norm=True))
    expected = out.last_hidden_state[:, extra:]
    if family == "clip_vision_model":  # whose norm is for the class token alone in transformers
        expected = model.tower.post_layernorm(expected)
    assert_close(normed(pixels), expected)
    assert not torch.allclose(normed(pixels), model(pixels), atol=1e-3)


@pytest.mark.parametrize("family", ["convnext", "convnextv2", "dinov3_convnext"])
def test_the_last_feature_map_of_a_convolutional_encoder(family, tmp_path):
    sizes = dict(hidden_sizes=[8, 8, 16, 24], depths=[1, 1, 1, 1], image_size=64)
    model = hugging_face(family, tmp_path, **sizes)
    pixels = torch.randn(2, 3, 64, 96)
    out = model.tower(pixel_values=pixels, output_hidden_states=True)
    assert (model.grid, model.width, model.prefix_tokens) == ((2, 2), 24, 0)
    assert torch.equal(model(pixels), out.hidden_states[-1].flatten(2).transpose(1, 2))
    assert model(pixels).shape[1] == 6
    normed = hugging_face(family, tmp_path, **sizes, ours=dict(final_norm=True))(pixels)
    assert not torch.allclose(normed, model(pixels), atol=1e-3)
    if family == "dinov3_convnext":  # the others norm the pooled features only
        assert_close(normed, out.last_hidden_state[:, 1:])


@pytest.mark.parametrize(
    ("family", "sizes", "word"),
    [
        ("vit_mae", SIZES, "(3, 5, 32) for 3 images of 16 patches"),
        ("vit_mae", dict(SIZES, mask_ratio=0.0), "not the patches in their order"),
        ("siglip2_vision_model", {k: v for k, v in SIZES.items() if k != "image_size"}, "(NaFlex models"),
        ("timm_wrapper", dict(architecture="resnet18"), "TimmVision reads it"),
        ("swinv2", dict(image_size=32, embed_dim=8, depths=[1, 1], num_heads=[1, 1]), "(3, 16, 16) for 3 images of 64"),
        ("hiera", dict(embed_dim=8, depths=[1, 1], num_heads=[1, 1], num_query_pool=1), "for 3 images of"),
        ("resnet", dict(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1]), "lacks image_size"),
        ("pixtral", SIZES, "(1, 48, 32)"),
        ("clip_text_model", dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, vocab_size=9), ""),
        ("blip_vision_model", SIZES, "no image encoder"),
    ],
)
def test_an_encoder_without_one_vector_a_patch_is_refused(family, sizes, word, tmp_path):
    with pytest.raises(ValueError, match=f"HFVision: .*{family}") as raised:
        hugging_face(family, tmp_path, **sizes)
    assert word in str(raised.value)


@pytest.mark.parametrize(("family", "more"), [("beit", dict(use_mean_pooling=True)), ("data2vec-vision", {})])
def test_final_norm_without_a_last_norm_is_refused(family, more, tmp_path):
    with pytest.raises(ValueError, match="final_norm=True, but .* has no norm after its layers"):
        hugging_face(family, tmp_path, **SIZES, **more, ours=dict(final_norm=True))


def test_weights_under_a_wrong_prefix_are_refused(tmp_path):
    config = save_clip(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    wrong = {f"wrong.{name}": value for name, value in state.items()}
    save_file(wrong, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="does not fit: it lacks"):
        MODELS.build(config)


def save_clip(folder):
    """Writes a tiny CLIP image encoder into a folder; returns its HFVision config."""
    CLIPVisionModel(CLIPVisionConfig(**SIZES)).save_pretrained(folder)
    return dict(type="HFVision", path=str(folder))


def test_code_of_a_folder_is_not_run(tmp_path):
    config = save_clip(tmp_path / "encoder")
    file = tmp_path / "encoder/config.json"
    settings = json.loads(file.read_text())
    (tmp_path / "encoder/own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()")
    file.write_text(json.dumps({**settings, "auto_map": {"AutoConfig": "own.A", "AutoModel": "own.B"}}))
    MODELS.build(config)
    file.write_text(json.dumps({**json.loads(file.read_text()), "model_type": "own"}))
    with pytest.raises(ValueError):
        MODELS.build(config)
    file.write_text(json.dumps({**settings, "attn_implementation": "somebody/kernel"}))
    with pytest.raises(ValueError, match="attn_implementation='somebody/kernel' names code on the Hub"):
        MODELS.build(config)
    assert not (tmp_path / "ran").exists()
