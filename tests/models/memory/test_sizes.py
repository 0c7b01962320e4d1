"""Names and shapes of models without their weights, by the config files of their bases."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, CLIPVisionConfig, CLIPVisionModel, Qwen2Config

from mmgpt.cli import load_config
from mmgpt.models.memory import sizes
from mmgpt.models.memory.planner import Sizes, plan
from mmgpt.models.memory.sizes import build_without_weights, image_side, vision_without_weights
from mmgpt.registry import MODELS

CONFIGS = Path(__file__).parents[3] / "configs" / "mmgpt"
PUBLISHED = 8_220_452_880  # OpenFlamingo-9B v1 as mmpretrain counts it
HEAD = 1024 * 768 + 2 * 1024  # open_clip's projection to the text's space and the norm before it; not in mmpretrain's


LLAMA_7B = dict(
    model_type="llama",
    vocab_size=32000,
    hidden_size=4096,
    intermediate_size=11008,
    num_hidden_layers=32,
    num_attention_heads=32,
    max_position_embeddings=2048,
    rms_norm_eps=1e-6,
)
QWEN = dict(
    vocab_size=500,
    hidden_size=64,
    intermediate_size=160,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    tie_word_embeddings=True,
)
ENCODER = dict(hidden_size=48, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The 9B model by LLaMA's config.json; of the image encoder there is nothing."""
    folder = tmp_path_factory.mktemp("llama-7b")
    (folder / "config.json").write_text(json.dumps(LLAMA_7B))
    return build_without_weights(load_config(CONFIGS / "published_v0.py", dict(language_model=str(folder))))


def test_it_has_the_published_number_of_parameters_and_no_values(model):
    frozen = [p for name, p in model.named_parameters() if ".lora_" not in name]
    assert sum(p.numel() for p in frozen) - HEAD == PUBLISHED
    assert all(p.device == torch.device("meta") for p in model.parameters())


def test_what_is_trained(model):
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters() if p.requires_grad}
    layers = "peft.base_model.model.language.model.model.layers."
    expected = {}
    for layer in range(32):
        gated = layer % 4 == 3
        decoder = f"{layers}{layer}." + "decoder." * gated
        linear = {f"{decoder}self_attn.{name}_proj": (4096, 4096) for name in "qkvo"}
        if gated:
            block = f"{layers}{layer}.gated."
            linear |= {f"{block}attn.to_q": (512, 4096), f"{block}attn.to_kv": (1024, 1024)}
            linear |= {f"{block}attn.to_out": (4096, 512)}
            linear |= {f"{block}ff.1": (16384, 4096), f"{block}ff.3": (4096, 16384)}
        for name, (outputs, inputs) in linear.items():
            expected[f"{name}.lora_A.default.weight"] = (16, inputs)
            expected[f"{name}.lora_B.default.weight"] = (outputs, 16)
    assert shapes == expected


@pytest.fixture
def qwen(tmp_path):
    """An experiment of a Qwen2 and a CLIP that are there as config files only."""
    Qwen2Config(**QWEN, eos_token_id=499).save_pretrained(tmp_path / "qwen")
    CLIPVisionConfig(**ENCODER, image_size=32, patch_size=8).save_pretrained(tmp_path / "clip")
    options = dict(language_model=str(tmp_path / "qwen"), vision_model=str(tmp_path / "clip"))
    return load_config(CONFIGS / "lora_joint_hf_clip.py", options)


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_a_base_of_qwen2_and_clip_by_their_config_files(qwen, tmp_path, monkeypatch):
    warnings = []
    monkeypatch.setattr(sizes, "print_log", lambda text, *_: warnings.append(text))
    flamingo = build_without_weights(qwen).module
    assert warnings == [
        f"{tmp_path}/qwen has no tokenizer: one of 500 tokens is assumed, as many as the model's vocab_size"
    ]
    bare = AutoModelForCausalLM.from_config(AutoConfig.for_model("qwen2", **QWEN))
    own = [p for name, p in flamingo.language.named_parameters() if ".gated." not in name and ".lora_" not in name]
    # Three tokens are added: <|endofchunk|>, <image> and <PAD>.
    assert sum(p.numel() for p in own) == count(bare) + 3 * 64
    encoder = CLIPVisionModel(CLIPVisionConfig(**ENCODER, image_size=32, patch_size=8))
    assert count(flamingo.vision) == count(encoder)
    assert flamingo.vision.width == 48
    assert all(p.device == torch.device("meta") for p in flamingo.parameters())


def test_a_training_step_on_qwen2_and_clip_is_planned(qwen):
    planned = plan(build_without_weights(qwen), Sizes(2, 32, 1))
    assert planned.weights["frozen bfloat16"] > 2 * 500 * 64
    assert planned.step > 0


def test_a_model_that_was_changed_is_the_one_that_is_built(qwen, tmp_path):
    before = count(build_without_weights(qwen).module.language)
    (tmp_path / "qwen" / "config.json").write_text(json.dumps(dict(QWEN, model_type="qwen2", num_hidden_layers=8)))
    assert count(build_without_weights(qwen).module.language) > 1.5 * before


def test_a_base_whose_files_are_all_there(tiny_flamingo_config):
    """Its tokenizer counts, not the model's vocab_size."""
    model = MODELS.build(tiny_flamingo_config)
    shapes = {name: p.shape for name, p in build_without_weights(dict(model=tiny_flamingo_config)).named_parameters()}
    assert shapes == {name: p.shape for name, p in model.named_parameters()}


@pytest.mark.parametrize(("name", "planned"), [("packed_eager", "eager"), ("packed_flex", "sdpa"), ("eager", "eager")])
def test_attention_is_planned_as_one_that_takes_no_less_memory(tiny_flamingo_config, name, planned):
    language = {**tiny_flamingo_config["language"], "attn_implementation": name}
    model = build_without_weights(dict(model={**tiny_flamingo_config, "language": language}))
    assert model.language.model.config._attn_implementation == planned


def test_an_encoder_of_timm_by_name_without_its_weights(tiny_flamingo_config):
    vision = dict(type="TimmVision", model="mobilenetv3_small_050.lamb_in1k", image_size=64)
    model = build_without_weights(dict(model=dict(tiny_flamingo_config, vision=vision)))
    assert count(model.vision) == count(MODELS.build(dict(vision, pretrained=False)))
    assert image_side(model.vision) == (64, 64)
    assert model.vision.width == 288
    assert plan(model, Sizes(2, 32, 1)).step > 0


@pytest.mark.parametrize("kind", ["OpenCLIPVision", "TimmVision"])
def test_an_image_encoder_has_the_dtype_of_the_config(tiny_flamingo_config, kind):
    timm = dict(type="TimmVision", model="mobilenetv3_small_050.lamb_in1k", image_size=64)
    vision = dict(tiny_flamingo_config["vision"] if kind == "OpenCLIPVision" else timm, dtype="bfloat16")
    model = build_without_weights(dict(model=dict(tiny_flamingo_config, vision=vision)))
    assert {parameter.dtype for parameter in model.vision.parameters()} == {torch.bfloat16}
    encoder = vision_without_weights(vision)
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.bfloat16}


def test_the_size_of_the_images_of_an_encoder_of_ones_own():
    encoder = torch.nn.Linear(3, 4)
    with pytest.raises(ValueError, match="Linear: the size of its images is unknown"):
        image_side(encoder)
    encoder.image_size = (64, 96)
    assert image_side(encoder) == (64, 96)


def test_what_is_missing_is_named_with_its_source(qwen, tmp_path):
    cfg = load_config(CONFIGS / "lora_joint.py", dict(language_model=str(tmp_path / "none")))
    with pytest.raises(
        FileNotFoundError, match=r"none/config.json is missing: the sizes of the language model .*LLaMA-7B"
    ):
        build_without_weights(cfg)
    (tmp_path / "clip" / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match="clip/config.json is missing: the sizes of the image encoder .*openai"):
        build_without_weights(qwen)
    options = dict(language_model=str(tmp_path / "qwen"), vision_model="checkpoints/unknown")
    with pytest.raises(FileNotFoundError, match="unknown/open_clip_config.json is missing"):
        build_without_weights(load_config(CONFIGS / "lora_joint.py", options))
