"""tools/dataset_converters/cache_features.py as users run it, and training on what it writes."""

import importlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from PIL import Image
from safetensors.torch import load_file

from mmgpt.cli import load_config
from mmgpt.registry import MODELS
from tests.helpers.shards import records, write_tar
from tests.helpers.tolerances import assert_close

ROOT = Path(__file__).parents[2]
CONFIG = """
_base_ = {pipelines!r}
language_model = {language!r}
vision_model = {vision!r}
data_root = {root!r}
prepare_images = dict(size=32)
prompt_template = "short"
feature_cache = {root!r} + "/cache"
image_steps = "${{feature_steps}}"
own = dict(
    type="InstructionDataset",
    name="own",
    parser="conversation",
    data_root="${{data_root}}",
    ann_file="train.jsonl",
    data_prefix=dict(img="images"),
    pipeline=["${{image_steps}}", "${{answer_steps}}"],
)
again = dict(own, name="again")
loader = dict(
    batch_size=4,
    sampler=dict(type="DefaultSampler", shuffle=False),
    collate_fn=dict(type="collate_conversations"),
)
train_dataloader = dict(dataset=dict(type="JointDataset", visual=["${{own}}", "${{again}}"]), **loader)
vision = dict(type="OpenCLIPVision", path="${{vision_model}}")
model = dict(
    type="LoRAModel",
    module=dict(
        type="Flamingo",
        vision="${{vision}}",
        language=dict(path="${{language_model}}"),
        perceiver=dict(depth=2, num_latents=4, dim_head=8, heads=2),
        gated=dict(every_n_layers=2, dim_head=8, heads=2, gate_init=0.5),
        feature_cache="${{feature_cache}}",
    ),
    lora=dict(r=2, target_modules=["q_proj", "to_q"], init_lora_weights=False, exclude_modules=r"vision\\..*"),
)
"""
# Two images are in several samples, and one sample has no image.
SAMPLES = [["a.png"], ["b.png", "c.png"], [], ["a.png"], ["d.png", "b.png"]]


@pytest.fixture
def config(tmp_path, tiny_llama, tiny_clip):
    """Config file whose data are small noisy images."""
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for name in ("a", "b", "c", "d"):
        Image.fromarray(rng.integers(0, 256, (40, 36, 3), dtype=np.uint8)).save(tmp_path / "images" / f"{name}.png")
    turns = [{"question": "what colour?", "answer": "red"}]
    lines = [json.dumps({"images": images, "turns": turns}) for images in SAMPLES]
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    pipelines = str(ROOT / "configs" / "_base_" / "datasets" / "pipelines.py")
    text = CONFIG.format(pipelines=pipelines, language=tiny_llama, vision=tiny_clip, root=str(tmp_path))
    (tmp_path / "config.py").write_text(text)
    return tmp_path / "config.py"


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tools" / "dataset_converters")
    return importlib.import_module("cache_features")


@pytest.fixture
def fill(tool, config):
    """A function that runs the tool, two images at a time, in float32 by default."""

    def run(*arguments, dtype="float32"):
        options = ["--workers", "1", "--batch-size", "2", "--device", "cpu", "--dtype", dtype]
        tool.main([str(config), *options, *map(str, arguments)])

    return run


def stored(folder):
    """Features by key."""
    files = [load_file(file) for file in sorted((folder / "cache" / "features").glob("*.safetensors"))]
    pairs = [pair for file in files for pair in zip(file["keys"].tolist(), file["features"], strict=True)]
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def train_once(config, options=None, module=None):
    """Losses and gradients of the first batch."""
    cfg = load_config(config, options)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope("mmgpt"):
        [batch, *_] = Runner.build_dataloader(cfg.train_dataloader, seed=0)
        model = MODELS.build(dict(cfg.model, module=dict(cfg.model.module, **(module or {})))).train()
    losses = model(**batch, mode="loss")
    sum(losses.values()).backward()
    return batch, losses, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


PIXELS = {"image_steps": "${pixel_steps}"}


def test_training_with_an_encoder_of_timm_and_its_own_preprocessing(config, fill, tmp_path, tiny_timm):
    text = config.read_text().replace("OpenCLIPVision", "TimmVision")
    own = 'prepare_images = dict(_delete_=True, type="PrepareImages", preprocessing="${vision}")'
    config.write_text(f"{text}vision_model = {tiny_timm!r}\n{own}\n")
    fill()
    batch, losses, _ = train_once(config)
    assert batch["pixels"].shape == (4, 2, 16, 24)
    pixels, plain_losses, _ = train_once(config, PIXELS, dict(feature_cache=None))
    assert_close(losses, plain_losses)
    # The images of 36 x 40 are resized to 40 x 44, by timm's crop_pct of 0.8, and cut to 32 x 32.
    image = Image.open(tmp_path / "images/a.png").resize((40, 44), Image.Resampling.BICUBIC).crop((4, 6, 36, 38))
    expected = torch.from_numpy(np.asarray(image) / np.float32(127.5) - 1).permute(2, 0, 1)
    assert_close(pixels["pixels"][0, 0], expected)


def test_training_is_the_same_with_the_cache(config, fill, tmp_path, capsys):
    fill()
    assert "4 images, 0 of them in" in (shown := capsys.readouterr().out)
    assert "4 images added" in shown
    assert len(stored(tmp_path)) == 4
    modes = {file.stat().st_mode for file in (tmp_path / "cache").rglob("*.*")}
    assert modes == {config.stat().st_mode}
    batch, losses, gradients = train_once(config)
    assert batch["pixels"].shape == (4, 2, 16, 32)
    assert batch["image_counts"].tolist() == [1, 2, 0, 1]
    plain_batch, plain_losses, plain_gradients = train_once(config, PIXELS, dict(feature_cache=None))
    assert plain_batch["pixels"].shape == (4, 2, 3, 32, 32)
    assert_close(losses, plain_losses)
    assert_close(gradients, plain_gradients)
    assert any(gradient.abs().max() > 1e-3 for gradient in gradients.values())
    # The same model, with the cache in its config, takes pixels.
    assert_close(train_once(config, PIXELS)[1], plain_losses)


def test_packed_rows_are_the_same_with_the_cache(config, fill):
    fill()
    packed = {"train_dataloader.collate_fn.row_length": 200}
    batch, losses, gradients = train_once(config, packed)
    assert len(batch["pixels"]) < 4
    assert batch["sample_ids"] is not None
    _, plain_losses, plain_gradients = train_once(config, {**packed, **PIXELS})
    assert_close(losses, plain_losses)
    assert_close(gradients, plain_gradients)


def test_features_in_float16_are_close_to_those_in_float32(config, fill, tmp_path):
    fill(dtype="float16")
    assert {value.dtype for value in stored(tmp_path).values()} == {torch.float16}
    batch, losses, _ = train_once(config)
    assert batch["pixels"].dtype == torch.float16
    torch.testing.assert_close(losses, train_once(config, PIXELS)[1], rtol=1e-3, atol=0)


def test_an_interrupted_fill_is_continued(tool, config, fill, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tool, "IMAGES_PER_FILE", 2)
    fill()
    whole, files = stored(tmp_path), list((tmp_path / "cache" / "features").iterdir())
    assert [len(load_file(file)["keys"]) for file in files] == [2, 2]
    for file in files:
        file.unlink()
    write, calls = tool.add_features, []

    def stopped(folder, keys, features):
        calls.append(keys)
        if len(calls) == 2:
            raise KeyboardInterrupt
        write(folder, keys, features)

    monkeypatch.setattr(tool, "add_features", stopped)
    with pytest.raises(KeyboardInterrupt):
        fill()
    assert len(stored(tmp_path)) == 2
    with pytest.raises(ValueError, match="record 1, id .*image '.*c.png': no features in .* of the file as it is now"):
        train_once(config)
    capsys.readouterr()
    fill()
    assert "4 images, 2 of them in" in (shown := capsys.readouterr().out)
    assert "2 images added" in shown
    assert_close(stored(tmp_path), whole)
    fill()
    assert "4 images, 4 of them in" in capsys.readouterr().out
    assert len(calls) == 3


def test_a_changed_image_is_encoded_again(config, fill, tmp_path, capsys):
    fill()
    before = stored(tmp_path).keys()
    Image.new("RGB", (50, 50), "red").save(tmp_path / "images" / "d.png")
    with pytest.raises(ValueError, match="record 4, id .*image '.*d.png': no features in .* of the file as it is now"):
        train_once(config, {"train_dataloader.batch_size": 5})
    fill()
    assert "1 images added" in capsys.readouterr().out
    assert len(stored(tmp_path).keys() - before) == 1
    train_once(config, {"train_dataloader.batch_size": 5})


def test_the_cache_of_another_image_encoder_is_refused(config, fill):
    fill()
    other = ["--cfg-options", "vision.final_norm=True"]
    with pytest.raises(ValueError, match="are of another image encoder"):
        fill(*other)
    with pytest.raises(ValueError, match="are of another image encoder"):
        train_once(config, {"vision.final_norm": True})


@pytest.mark.parametrize("vision", ["OpenCLIPVision", "TimmVision"])
def test_an_image_encoder_in_another_dtype_has_a_cache_of_its_own(config, fill, tiny_timm, vision):
    if vision == "TimmVision":
        config.write_text(f"{config.read_text().replace('OpenCLIPVision', vision)}vision_model = {tiny_timm!r}\n")
    bfloat16 = {"vision.dtype": "bfloat16"}
    fill("--cfg-options", "vision.dtype=bfloat16")
    _, losses, _ = train_once(config, bfloat16)
    _, plain_losses, _ = train_once(config, {**PIXELS, **bfloat16}, dict(feature_cache=None))
    assert_close(losses, plain_losses)
    with pytest.raises(ValueError, match=r"are of another image encoder \(weights, settings or dtype\)"):
        train_once(config)


def test_other_pixel_steps_are_refused(config, fill):
    fill()
    with pytest.raises(ValueError, match="prepared by .*'size': 32.*, the pipeline prepares them by .*'size': 16"):
        train_once(config, {"prepare_images.size": 16})
    with pytest.raises(ValueError, match="was filled for .*'size': 32"):
        fill("--cfg-options", "prepare_images.size=16")


def test_a_trained_image_encoder_is_refused(config, fill):
    fill()
    with pytest.raises(ValueError, match="feature_cache='.*': cached features are of a frozen image encoder only"):
        train_once(config, module=dict(frozen=["language"]))
    # By LoRA, which is injected afterwards.
    with pytest.raises(ValueError, match="need a model with feature_cache and a frozen image encoder"):
        train_once(config, {"model.lora": dict(r=2, target_modules=["c_fc"], exclude_modules=None)})


def test_features_without_a_cache_are_refused(config, fill, tmp_path):
    fill()
    with pytest.raises(ValueError, match="need a model with feature_cache"):
        train_once(config, module=dict(feature_cache=None))
    # A model that is used elsewhere, on pixels, needs no cache.
    losses = train_once(config, PIXELS)[1]
    (tmp_path / "cache").rename(tmp_path / "elsewhere")
    assert_close(train_once(config, PIXELS)[1], losses)
    with pytest.raises(FileNotFoundError, match="no cached features there; fill it by `python"):
        train_once(config)


def test_unreadable_images_are_listed_at_the_end(config, fill, tmp_path):
    (tmp_path / "images" / "a.png").write_bytes(b"no image")
    os.remove(tmp_path / "images" / "c.png")
    with pytest.raises(ValueError, match=r"2 images cannot .*\n.*a.png': cannot be read.*\n.*No such file.*c.png"):
        fill()
    assert len(stored(tmp_path)) == 2
    for name in ("b", "d"):
        os.remove(tmp_path / "images" / f"{name}.png")
    (tmp_path / "cache" / "tower.safetensors").unlink()
    with pytest.raises(ValueError, match="none of 4 images can be read; the first: .*a.png"):
        fill()


def test_training_on_shards_with_cached_features_is_that_on_their_pixels(config, fill, tmp_path, capsys):
    write_tar(tmp_path / "0.tar", records(3))
    write_tar(tmp_path / "1.tar", records(5, first=3))
    config.write_text(config.read_text().replace('data_prefix=dict(img="images"),', "").replace("train.jsonl", "*.tar"))
    fill()
    assert "8 images, 0 of them in" in capsys.readouterr().out
    fill()
    assert "8 images, 8 of them in" in capsys.readouterr().out
    batch, losses, _ = train_once(config)
    assert batch["pixels"].shape == (4, 2, 16, 32)
    pixels, plain_losses, _ = train_once(config, PIXELS, dict(feature_cache=None))
    assert pixels["pixels"].shape == (4, 2, 3, 32, 32)
    assert_close(losses, plain_losses)


def test_images_of_a_linked_shard_are_encoded_once(config, fill, tmp_path, capsys):
    write_tar(tmp_path / "0.tar", records(4))
    (tmp_path / "link.tar").symlink_to(tmp_path / "0.tar")
    text = config.read_text().replace('data_prefix=dict(img="images"),', "").replace("train.jsonl", "*.tar")
    config.write_text(text)
    fill()
    assert "4 images, 0 of them in" in capsys.readouterr().out
    assert len(stored(tmp_path)) == 4


def test_wrong_options_are_named(tool, config, fill, monkeypatch):
    for options, words in {
        "image_steps=${pixel_steps}": "must read one cache: set image_steps=.*found: no LoadFeatures",
        "feature_cache=None": "found: None",
        "vision_model=nowhere": "nowhere",
        "data_root=nowhere": "nowhere/train.jsonl",
    }.items():
        with pytest.raises((ValueError, FileNotFoundError), match=words):
            fill("--cfg-options", options)
    with pytest.raises(ValueError, match="--workers -1 --batch-size 2: at least 0 workers and 1 image"):
        fill("--workers", -1)


def test_features_beyond_the_range_of_float16_are_refused(tool):
    vision = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(vision.weight, 1e5)
    with pytest.raises(ValueError, match="beyond the range of torch.float16: use --dtype float32"):
        tool.encode(vision, torch.ones(1, 1), torch.float16)
    assert tool.encode(vision, torch.ones(1, 1), torch.float32).item() == 1e5


@pytest.mark.parametrize("workers", [0, 2])
def test_any_number_of_worker_processes_fills_the_cache(config, fill, tmp_path, workers):
    fill("--workers", workers)
    assert len(stored(tmp_path)) == 4


def test_training_on_cached_tiles_is_that_on_their_pixels(config, fill, tmp_path):
    Image.open(tmp_path / "images" / "c.png").resize((64, 32)).save(tmp_path / "images" / "c.png")
    Image.open(tmp_path / "images" / "d.png").resize((32, 32)).save(tmp_path / "images" / "d.png")
    own = "prepare_images = dict(size=32, tiles=dict(max=4))"
    text = config.read_text().replace("prepare_images = dict(size=32)", own)
    config.write_text(text.replace("num_latents=4", "num_latents=4, max_tiles=4"))
    fill()
    batch, losses, gradients = train_once(config)
    assert batch["pixels"].shape == (4, 2, 5, 16, 32)
    assert batch["tile_ids"][1].tolist() == [[0, 15, 16, 17, 18], [0, 1, 2, -1, -1]]
    plain_batch, plain_losses, plain_gradients = train_once(config, PIXELS, dict(feature_cache=None))
    assert torch.equal(plain_batch["tile_ids"], batch["tile_ids"])
    assert_close(losses, plain_losses)
    assert_close(gradients, plain_gradients)
