"""Every image encoder against the library it wraps."""

import json
from shutil import copytree

import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file

from mmgpt.models.weight_files import read_file
from mmgpt.registry import MODELS
from tests.tolerances import assert_close

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


def hugging_face(folder, tiny_clip):
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


@pytest.mark.parametrize("way", [clip_folder, clip_binary, clip_file, hugging_face, mmpretrain])
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
    config, _, _ = hugging_face(tmp_path / "tower", tiny_clip)
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
