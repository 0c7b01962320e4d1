"""The command's table, what it takes from a config, and what it advises."""

import importlib.util
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoConfig, BitImageProcessor

from mmgpt.cli import load_config
from mmgpt.models.vision.fingerprint import FILE
from tests.models.memory.test_planner import base

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs" / "mmgpt"
SPEC = importlib.util.spec_from_file_location("memory_plan", ROOT / "tools" / "analysis_tools" / "memory_plan.py")
memory_plan = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(memory_plan)


@pytest.fixture
def config(tmp_path):
    values = dict(base(tmp_path), _base_=str(CONFIGS / "lora_joint_packed.py"), max_length=64, row_length=256)
    path = tmp_path / "small.py"
    path.write_text("".join(f"{name} = {value!r}\n" for name, value in values.items()))
    return str(path)


def estimate(config, *options):
    args = memory_plan.parse_args([config, *options])
    return memory_plan.estimate(load_config(config), args)


def test_it_prints_the_plan_that_options_ask_for(config, capsys):
    memory_plan.main([config, "--length", "64", "--batch", "4"])
    printed = capsys.readouterr().out
    assert "on one GPU, with batches of 4 rows of 64 tokens and 4 images" in printed
    assert "24 GB: fits" in printed
    assert "To turn down" not in printed
    made, sizes = estimate(config, "--length", "64", "--batch", "4")
    assert sizes == memory_plan.Sizes(4, 64, 4, packed=True)
    found = dict(re.findall(r"│ (.+?) +│ +([\d.]+) │", printed))
    assert found["peak"] == f"{made.total / 2**30:.2f}"
    assert found["activations and gradients"] == f"{made.step / 2**30:.2f}"
    low, _ = estimate(config, "--length", "64", "--batch", "4", "--checkpointing")
    assert low.step < made.step
    assert low.weights == made.weights


def test_several_gpus(config, capsys):
    memory_plan.main([config, "--batch", "1", "--length", "64", "--world-size", "2", "--shard"])
    printed = capsys.readouterr().out
    assert "on 2 GPUs, sharded, with batches of 1 rows of 64" in printed


def test_what_does_not_fit_is_turned_down_where_it_gains_most():
    cfg = load_config(CONFIGS / "lora_joint.py")
    gb = 2**30
    made = memory_plan.Plan({"frozen bfloat16": 15 * gb, "trainable float32": gb}, 2 * gb, 14 * gb, 0)
    lines = memory_plan.advice(cfg, made, memory_plan.Sizes(2, 512, 1))
    assert lines[:3] == ["24 GB: does not fit", "40 GB: fits", "80 GB: fits"]
    assert [line.split(":")[0].strip() for line in lines[4:6]] == ["frozen weights", "activations"]
    cfg.model.module.checkpointing, cfg.model.module.language.precision = True, "int4"
    lines = memory_plan.advice(cfg, made, memory_plan.Sizes(2, 512, 1))
    assert "a smaller batch (2 rows of 512 tokens)" in lines[4]
    assert not any("int4" in line for line in lines)


def test_the_batch_of_a_config():
    def batch(name, *options):
        return memory_plan.batch_of(load_config(CONFIGS / name), memory_plan.parse_args([name, *options]))

    assert batch("lora_joint.py") == memory_plan.Sizes(2, 512, 1)
    assert batch("lora_joint_packed.py") == memory_plan.Sizes(8, 2048, 2, packed=True)
    assert batch("lora_visual_only.py") == memory_plan.Sizes(1, 512, 1)
    assert batch("lora_joint.py", "--batch", "3", "--images", "0") == memory_plan.Sizes(3, 512, 0)
    assert batch("lora_joint.py", "--supervised", "40") == memory_plan.Sizes(2, 512, 1, supervised=40)
    with pytest.raises(ValueError, match="--supervised 512: from 1 to 511 of 512 tokens of a row"):
        batch("lora_joint.py", "--supervised", "512")
    assert batch("tiny_tiles.py") == memory_plan.Sizes(32, 128, 1, features=True, tiles=2)


def test_a_training_on_cached_features(config, tmp_path):
    """Also where the cache is filled: its fingerprint cannot be compared with a model without weights."""
    (tmp_path / "cache").mkdir()
    save_file({"pixels": torch.zeros(1, 3, 64, 64), "features": torch.zeros(1, 64, 64)}, tmp_path / "cache" / FILE)
    with open(config, "a") as file:
        file.write(f"image_steps = '${{feature_steps}}'\nfeature_cache = {str(tmp_path / 'cache')!r}\n")
    planned, sizes = estimate(config)
    assert sizes.features
    assert planned.total > 0


def test_images_have_the_size_that_the_encoders_own_preprocessing_gives_them(tmp_path):
    """As DINOv2's, whose config.json has another size than its processor."""
    sizes = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=64, patch_size=8)
    AutoConfig.for_model("dinov2", **sizes).save_pretrained(tmp_path)
    BitImageProcessor(size=dict(shortest_edge=40), crop_size=dict(height=32, width=32)).save_pretrained(tmp_path)
    file = tmp_path / "own.py"
    own = 'prepare_images = dict(_delete_=True, type="PrepareImages", preprocessing="${vision}")'
    file.write_text(f"_base_ = '{CONFIGS}/lora_joint_hf_clip.py'\nvision_model = '{tmp_path}'\n{own}\n")
    assert memory_plan.batch_of(load_config(file), memory_plan.parse_args([str(file)])).image_size == (32, 32)
