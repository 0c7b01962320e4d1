"""Every image encoder against the library it wraps."""

import json
from shutil import copytree

import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file

from mmgpt.models.weights.reader import read_file
from mmgpt.registry import MODELS
from tests.helpers.tolerances import assert_close

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
    """HFVision of a tiny random tower, with further arguments for it in `sizes` under 'ours'."""
    from transformers import AutoConfig

    ours = sizes.pop("ours", {})
    AutoConfig.for_model(family, **sizes).save_pretrained(folder)
    torch.manual_seed(0)
    return MODELS.build(dict(type="HFVision", path=str(folder), pretrained=False, **ours)).eval()


@pytest.mark.parametrize(
    ("family", "image_size"), [*((family, (32, 32)) for family in TOKENS), ("vit", (32, 48)), ("deit", (48, 32))]
)
def test_only_patches_are_features(family, image_size, tmp_path):
    extra, more = TOKENS[family]
    more = {**more, "image_size": image_size if image_size != (32, 32) else 32}
    model = hugging_face(family, tmp_path, **{**SIZES, **more})
    pixels = torch.randn(2, 3, *image_size)
    out = model.tower(pixel_values=pixels, output_hidden_states=True)
    patches = pixels.shape[2] * pixels.shape[3] // 64
    assert model(pixels).shape == (2, patches, 32) and out.hidden_states[-1].shape[1] == patches + extra
    assert torch.equal(model(pixels), out.hidden_states[-1][:, extra:])
    normed = hugging_face(family, tmp_path, **{**SIZES, **more}, ours=dict(final_norm=True))
    expected = out.last_hidden_state[:, extra:]
    if family == "clip_vision_model":  # whose norm is for the class token alone in transformers
        expected = model.tower.post_layernorm(expected)
    assert_close(normed(pixels), expected)
    assert not torch.allclose(normed(pixels), model(pixels), atol=1e-3)


@pytest.mark.parametrize(
    ("family", "sizes", "word"),
    [
        ("vit_mae", SIZES, "(3, 5, 32) for 3 images of 16 patches"),
        ("vit_mae", dict(SIZES, mask_ratio=0.0), "not the patches in their order"),
        ("siglip2_vision_model", {k: v for k, v in SIZES.items() if k != "image_size"}, "lacks image_size"),
        ("swinv2", dict(image_size=32, embed_dim=8, depths=[1, 1], num_heads=[1, 1]), "(3, 16, 16) for 3 images of 64"),
        ("convnext", dict(hidden_sizes=[8, 8], depths=[1, 1], num_stages=2), "(3, 8, 28, 28)"),
        ("hiera", dict(embed_dim=8, depths=[1, 1], num_heads=[1, 1], num_query_pool=1), "for 3 images of"),
        ("resnet", dict(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1]), "lacks image_size or patch_size"),
        ("pixtral", SIZES, "(1, 48, 32)"),
        ("clip_text_model", dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, vocab_size=9), ""),
        ("blip_vision_model", SIZES, "no image encoder"),
    ],
)
def test_a_tower_without_one_vector_a_patch_is_refused(family, sizes, word, tmp_path):
    with pytest.raises(ValueError, match=f"HFVision: .*{family}") as raised:
        hugging_face(family, tmp_path, **sizes)
    assert word in str(raised.value)


@pytest.mark.parametrize(("family", "more"), [("beit", dict(use_mean_pooling=True)), ("data2vec-vision", {})])
def test_a_hugging_face_tower_without_a_last_norm_is_refused(family, more, tmp_path):
    with pytest.raises(ValueError, match="final_norm=True, but .* has no norm after its layers"):
        hugging_face(family, tmp_path, **SIZES, **more, ours=dict(final_norm=True))


TIMM = dict(timm_model_pretrained=False, timm_pool="avg", timm_proj="linear", image_size=64)
RESNET = dict(image_size=64, layers=[1, 1, 1, 1], width=8, head_width=64, patch_size=None)
TEXT = dict(context_length=4, vocab_size=8, width=16, heads=1, layers=1)


@pytest.mark.parametrize(
    ("vision", "text", "effect"),
    [
        (RESNET, TEXT, False),
        (dict(TIMM, timm_model_name="convnext_atto"), TEXT, False),
        (dict(TIMM, timm_model_name="fastvit_t8"), TEXT, False),  # the kind of MobileCLIP's towers
        (dict(TIMM, timm_model_name="vitamin_small_224", image_size=224), TEXT, False),
        (dict(TIMM, timm_model_name="vit_tiny_patch16_224", image_size=224), TEXT, True),
        (dict(image_size=32, layers=1, width=32, head_width=16, patch_size=8), TEXT, True),
    ],
    ids=["ModifiedResNet", "ConvNeXt", "FastViT", "ViTamin", "timm's ViT", "ViT"],
)
def test_a_last_norm_without_effect_is_refused(vision, text, effect, tmp_path):
    description = dict(embed_dim=16, vision_cfg=vision, text_cfg=text)
    (tmp_path / "a-kind-of-tower.json").write_text(json.dumps(description))
    config = dict(type="OpenCLIPVision", model=str(tmp_path / "a-kind-of-tower.json"))
    assert not MODELS.build(config).final_norm
    if effect:
        model = MODELS.build(dict(config, final_norm=True))
        assert model.final_norm and model.training
    else:
        with pytest.raises(ValueError, match="final_norm=True has no effect on .*a-kind-of-tower.json"):
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


MMPRETRAIN = {  # open_clip's names of a tower's tensors, and mmpretrain's
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


def as_mmpretrain(tower):
    """An open_clip tower's weights under mmpretrain's names."""
    state = {}
    for name, value in tower.state_dict().items():
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


def test_towers_whose_weights_do_not_fit_are_refused(tiny_clip, tmp_path):
    clip = MODELS.build(dict(type="OpenCLIPVision", path=tiny_clip))
    state = as_mmpretrain(clip.tower)
    torch.save({f"image_{name}": value for name, value in state.items()}, tmp_path / "vit.pth")
    arch = dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=128)
    with pytest.raises(ValueError, match=r"vit.pth does not fit: it lacks \d+ tensors: cls_token"):
        MODELS.build(
            dict(type="MMPretrainVision", arch=arch, img_size=32, patch_size=8, path=str(tmp_path / "vit.pth"))
        )


def test_a_hugging_face_tower_under_a_wrong_prefix_is_refused(tmp_path):
    from transformers import CLIPVisionConfig, CLIPVisionModel

    sizes = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2)
    CLIPVisionModel(CLIPVisionConfig(**sizes, image_size=32, patch_size=8)).save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    wrong = {f"wrong.{name}": value for name, value in state.items()}
    save_file(wrong, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="does not fit: it lacks"):
        MODELS.build(dict(type="HFVision", path=str(tmp_path)))


def test_what_is_no_tower_is_named(tmp_path):
    with pytest.raises(ValueError, match="'ViT-X' is neither a JSON file nor a name that open_clip knows"):
        MODELS.build(dict(type="OpenCLIPVision", model="ViT-X"))
    with pytest.raises(FileNotFoundError, match="open_clip_config.json is missing"):
        MODELS.build(dict(type="OpenCLIPVision", path=str(tmp_path)))
    with pytest.raises(ValueError, match="takes path or model"):
        MODELS.build(dict(type="OpenCLIPVision"))


def clip_folder(folder, tiny_clip):
    copytree(tiny_clip, folder)
    return dict(type="OpenCLIPVision", path=str(folder)), folder / "open_clip_model.safetensors", "visual.conv1.weight"


def clip_binary(folder, tiny_clip):
    config, file, name = clip_folder(folder, tiny_clip)
    torch.save(load_file(file), folder / "open_clip_pytorch_model.bin")
    file.unlink()
    return config, folder / "open_clip_pytorch_model.bin", name


def clip_file(folder, tiny_clip):
    _, file, name = clip_folder(folder, tiny_clip)
    description = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]
    (folder / "a-tower-to-damage.json").write_text(json.dumps(description))
    return dict(type="OpenCLIPVision", model=f"{folder}/a-tower-to-damage.json", pretrained=str(file)), file, name


def hugging_face_folder(folder, tiny_clip):
    from transformers import CLIPVisionConfig, CLIPVisionModel

    sizes = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2)
    CLIPVisionModel(CLIPVisionConfig(**sizes, image_size=32, patch_size=8)).save_pretrained(folder)
    file = folder / "model.safetensors"
    name = next(name for name in load_file(file) if name.endswith("layers.0.mlp.fc1.weight"))
    return dict(type="HFVision", path=str(folder)), file, name


def mmpretrain(folder, tiny_clip):
    folder.mkdir()
    clip = MODELS.build(dict(type="OpenCLIPVision", path=tiny_clip))
    torch.save(as_mmpretrain(clip.tower), folder / "vit.pth")
    arch = dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=128)
    config = dict(type="MMPretrainVision", arch=arch, img_size=32, patch_size=8, path=str(folder / "vit.pth"))
    return config, folder / "vit.pth", "backbone.layers.0.ffn.layers.1.weight"


@pytest.mark.parametrize("way", [clip_folder, clip_binary, clip_file, hugging_face_folder, mmpretrain])
def test_values_that_a_tower_cannot_hold_are_refused(way, tiny_clip, tmp_path):
    config, file, name = way(tmp_path / "tower", tiny_clip)
    MODELS.build(config)
    content = {key: value.clone() for key, value in read_file(file, mmap=False).items()}
    for value, words in (
        (content[name].to(torch.int8), f"{name.removeprefix('backbone.')} holds integers"),
        (content[name] * float("inf"), "1 tensors hold NaN or infinite values"),
    ):
        changed = {**content, name: value}
        torch.save(changed, file) if file.suffix != ".safetensors" else save_file(changed, file, {"format": "pt"})
        with pytest.raises(ValueError, match=words):
            MODELS.build(config)


def test_code_of_a_towers_folder_is_not_run(tiny_clip, tmp_path):
    config, _, _ = hugging_face_folder(tmp_path / "tower", tiny_clip)
    file = tmp_path / "tower/config.json"
    settings = json.loads(file.read_text())
    (tmp_path / "tower/own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()")
    file.write_text(json.dumps({**settings, "auto_map": {"AutoConfig": "own.A", "AutoModel": "own.B"}}))
    MODELS.build(config)
    file.write_text(json.dumps({**json.loads(file.read_text()), "model_type": "own"}))
    with pytest.raises(ValueError):
        MODELS.build(config)
    file.write_text(json.dumps({**settings, "attn_implementation": "somebody/kernel"}))
    with pytest.raises(ValueError, match="attn_implementation='somebody/kernel' asks for code from elsewhere"):
        MODELS.build(config)
    assert not (tmp_path / "ran").exists()
