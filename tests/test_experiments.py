"""The experiments in configs/mmgpt as users start them: by the command, at small size."""

import hashlib
import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mmgpt.cli import load_config
from mmgpt.models import Flamingo
from mmgpt.models.weights.names import component_of, new_tensors
from mmgpt.registry import MODELS
from tests.helpers.benchmark_data import put_benchmark
from tests.helpers.launching import run_launcher
from tests.helpers.scripts import ROOT, run_script

CONFIGS = ROOT / "configs" / "mmgpt"
EXPERIMENTS = sorted([*CONFIGS.glob("*.py"), *ROOT.glob("projects/*/configs/*.py")])


def tool(name, *arguments, cwd=ROOT):
    return run_script(ROOT / "tools" / name, *arguments, cwd=cwd)


@pytest.fixture
def small_parts(tmp_path, tiny_llama, tiny_clip, data_root):
    """--cfg-options that point lora_joint.py at small weights and data."""
    cfg = load_config(CONFIGS / "lora_joint.py", dict(language_model=tiny_llama, vision_model=tiny_clip))
    model = cfg.model.module
    model.update(weights=None, language=dict(path=tiny_llama))
    model.pop("type")
    torch.manual_seed(0)
    weights = {name: value.contiguous() for name, value in new_tensors(Flamingo(**model)).items()}
    weights |= {name: torch.full_like(value, 0.5) for name, value in weights.items() if name.endswith("_gate")}
    save_file(weights, tmp_path / "flamingo.safetensors")
    return [
        f"language_model={tiny_llama}",
        f"vision_model={tiny_clip}",
        f"flamingo_weights={tmp_path / 'flamingo.safetensors'}",
        f"data_root={data_root}",
        "prepare_images.size=32",
        "max_length=1000",
        "train_dataloader.num_workers=0",
        "train_dataloader.persistent_workers=False",
        "default_hooks.logger.interval=1",
    ]


def logged(work_dir):
    log = max(Path(work_dir).glob("*/vis_data/scalars.json"))
    return [json.loads(line) for line in log.read_text().splitlines() if "loss" in line]


def test_without_weights_and_data_one_message_says_what_goes_where(tmp_path):
    result = tool("train.py", CONFIGS / "lora_joint.py", cwd=tmp_path)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    for name in (
        "checkpoints/llama-7b_hf",
        "checkpoints/ViT-L-14",
        "checkpoints/OpenFlamingo-9B/checkpoint.pt",
        "data/aokvqa/annotations/aokvqa_v1p0_train.json",
        "data/coco/train2017",
        "data/baize/quora_chat_data.json",
        "huggingface.co/openflamingo/OpenFlamingo-9B",
        "language_model",
        "data_root",
    ):
        assert name in result.stderr, result.stderr


def test_the_published_recipe_trains_on_small_parts_and_an_inheriting_config_too(tmp_path, small_parts):
    result = tool("train.py", CONFIGS / "lora_joint.py", "--work-dir", tmp_path / "a", "--cfg-options", *small_parts)
    assert result.returncode == 0, result.stderr[-3000:]
    rows = logged(tmp_path / "a")
    assert all(row["loss_visual"] > 0 and row["loss_language"] > 0 for row in rows)
    assert rows[-1]["loss"] == pytest.approx(rows[-1]["loss_visual"] + rows[-1]["loss_language"], rel=1e-4)
    saved = torch.load(tmp_path / "a" / "latest.pth", weights_only=True)["state_dict"]
    assert saved
    assert all("lora_" in name for name in saved)

    # A new experiment of a few lines: learning rate, rank and data mix.
    mine = tmp_path / "mine.py"
    mine.write_text(
        f"_base_ = {str(CONFIGS / 'lora_joint.py')!r}\n"
        "lr = 5e-4\n"
        "accumulative_counts = 1\n"
        "lora = dict(r=4, lora_alpha=8)\n"
        "aokvqa = dict(sample=1)\n"
        'train_dataloader = dict(dataset=dict(visual=["${aokvqa}", "${coco_caption}"], language=["${dolly}"]))\n'
    )
    result = tool("train.py", mine, "--work-dir", tmp_path / "b", "--cfg-options", *small_parts)
    assert result.returncode == 0, result.stderr[-3000:]
    saved = torch.load(tmp_path / "b" / "latest.pth", weights_only=True)["state_dict"]
    assert next(value for name, value in saved.items() if "lora_A" in name).shape[0] == 4
    assert logged(tmp_path / "b")[-1]["step"] < rows[-1]["step"]


def test_one_line_turns_validation_on(tmp_path, small_parts):
    """The best checkpoint is kept; without the line the recipe has no validation."""
    root = next(option.removeprefix("data_root=") for option in small_parts if option.startswith("data_root="))
    cfg = load_config(CONFIGS / "lora_joint.py", dict(validate=True, data_root=root))
    assert not {"val_dataloader", "val_cfg", "validation"} & set(load_config(CONFIGS / "lora_joint.py"))
    put_benchmark(cfg.val_dataloader.dataset, "aokvqa")
    options = [*small_parts, "validate=True", "val_dataloader.dataset.sample=1", "val_dataloader.num_workers=0"]
    result = tool("train.py", CONFIGS / "lora_joint.py", "--work-dir", tmp_path, "--cfg-options", *options)
    assert result.returncode == 0, result.stderr[-3000:]
    [best] = tmp_path.glob("best_choice_accuracy_*.pth")
    assert torch.load(best, weights_only=True)["state_dict"]


def test_packed_rows_train_and_are_compared_with_plain_batches(tmp_path, small_parts):
    packed = CONFIGS / "lora_joint_packed.py"
    result = tool("train.py", packed, "--work-dir", tmp_path, "--cfg-options", *small_parts)
    assert result.returncode == 0, result.stderr[-3000:]
    assert [row["loss_visual"] > 0 and row["loss_language"] > 0 for row in logged(tmp_path)] == [True]
    options = ["--rounds", "1", "--batches", "1", "--cfg-options", *small_parts]
    result = tool("analysis_tools/benchmark_training.py", CONFIGS / "lora_joint.py", packed, *options)
    assert result.returncode == 0, result.stderr[-3000:]
    plain, rows = (line for line in result.stdout.splitlines() if "│" in line)
    assert [cell.strip() for cell in plain.split("│")][3:6:2] == ["1.00", "1.00"]
    assert float(rows.split("│")[5]) < 0.5


TRAINED = {
    "lora_joint_low_memory": {"LoRA"},
    "lora_joint_long": {"LoRA"},
    "full_joint": {"perceiver", "gated blocks"},
    "align": {"perceiver", "gated blocks"},
    "lora_from_scratch": {"perceiver", "gated blocks", "LoRA"},
}


@pytest.mark.parametrize("name", TRAINED)
def test_recipes_of_other_memory_or_other_components_train_on_small_parts(tmp_path, small_parts, name):
    if name == "lora_joint_low_memory":
        pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed (requirements/quantization.txt)")
    if name in ("align", "lora_from_scratch"):
        small_parts = [option for option in small_parts if not option.startswith("flamingo_weights=")]
    result = tool("train.py", CONFIGS / f"{name}.py", "--work-dir", tmp_path, "--cfg-options", *small_parts)
    assert result.returncode == 0, result.stderr[-3000:]
    assert all(row["loss_visual"] > 0 and row["loss_language"] > 0 for row in logged(tmp_path))
    saved = torch.load(tmp_path / "latest.pth", weights_only=True)
    assert {value.dtype for value in saved["state_dict"].values()} == {torch.float32}
    assert {component_of(key) for key in saved["state_dict"]} == TRAINED[name]
    states = saved["optimizer"]["state"].values()
    assert all(("exp_avg" in state) == (name != "lora_joint_low_memory") for state in states)
    assert states


def test_two_processes_share_a_model(tmp_path, small_parts):
    """Its checkpoint is in parts beside a file, and opens as any other."""
    config = CONFIGS / "lora_joint_fsdp.py"
    result = run_launcher("dist_train.sh", config, 2, "--work-dir", tmp_path, "--cfg-options", *small_parts)
    assert result.returncode == 0, result.stderr[-3000:]
    assert all(row["loss_visual"] > 0 and row["loss_language"] > 0 for row in logged(tmp_path))
    saved = torch.load(tmp_path / "latest.pth", weights_only=True)
    assert not saved["state_dict"]
    assert (tmp_path / saved["meta"]["shards"]["folder"]).is_dir()
    out = tmp_path / "merged"
    result = tool(
        "model_converters/weights.py", "publish", config, tmp_path / "latest.pth", out, "--cfg-options", *small_parts
    )
    assert result.returncode == 0, result.stderr[-3000:]


def test_a_benchmark_is_chosen_by_name_and_asked_in_a_style(tmp_path, small_parts):
    root = next(option.removeprefix("data_root=") for option in small_parts if option.startswith("data_root="))
    cfg = load_config(CONFIGS / "lora_joint.py", dict(data_root=root, benchmark="okvqa"))
    put_benchmark(cfg.test_dataloader.dataset, "okvqa")
    options = ["--benchmark", "okvqa", "--cfg-options", *small_parts, "test_dataloader.num_workers=0"]
    # The style as in an earlier release.
    options += ["style=openflamingo"]
    result = tool("test.py", CONFIGS / "lora_joint.py", "--work-dir", tmp_path, *options)
    assert "--cfg-options style=openflamingo is --style openflamingo now" in result.stderr
    assert result.returncode == 0, result.stderr[-3000:]
    [folder] = (tmp_path / "evaluation").iterdir()
    made = json.loads((folder / "result.json").read_text())
    assert made["metrics"].keys() >= {"vqa/accuracy", "openflamingo/accuracy", "vqa/question_type/four/accuracy"}
    assert made["settings"]["prompt_template"]["response"] == "Short answer:"
    assert made["samples"] == 1
    assert made["settings"]["cut_at"] == ["Question", "Answer", "Short", ", "]
    weights = tmp_path / "flamingo.safetensors"
    assert made["settings"]["model_files"][str(weights)] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert made["settings"]["model"]["module"]["generation"]["max_new_tokens"] == 5
    assert [Path(path).name for path in made["settings"]["data_files"]] == [
        "mscoco_val2014_annotations.json",
        "OpenEnded_mscoco_val2014_questions.json",
    ]
    row = json.loads((folder / "predictions.jsonl").read_text())
    assert row["prompt"] == "<image>Question:What sport can you use this for? Short answer:"
    assert row["tags"] == {"question_type": "four", "answer_type": "other"}
    assert len(row["answers"]) == 10


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_every_experiment_loads(path):
    cfg = load_config(path)
    assert MODELS.get(cfg.model.type)
    assert cfg.train_dataloader.dataset


def test_every_config_is_in_the_table():
    table = re.findall(r"^\| \[`(\w+)\.py`\]\(\1\.py\) \| \w+", (CONFIGS / "README.md").read_text(), re.MULTILINE)
    assert sorted(table) == sorted(path.stem for path in CONFIGS.glob("*.py"))


def test_the_recipe_has_few_variables_and_none_is_made_of_names():
    """What several places need or a user sets is a variable; everything else stands where it is used."""
    assert len(load_config(CONFIGS / "lora_joint.py")) <= 60
    assert not [path for path in CONFIGS.parent.rglob("*.py") if re.search(r"\$\{[^}]*\$\{", path.read_text())]


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_one_seed_reaches_the_runner_and_the_data(path):
    cfg = load_config(path, dict(seed=3))
    assert cfg.randomness.seed == 3
    # PatchLabelDataset draws from the generators that the Runner's seed sets.
    assert path.stem == "tiny_pretrain_vision" or cfg.train_dataloader.dataset.seed == 3


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_checkpoints_fall_where_a_run_can_be_resumed(path):
    """Within an epoch only with a batch sampler that passes over the batches already done."""
    cfg = load_config(path)
    sampler = cfg.train_dataloader.get("batch_sampler", dict(type="BatchSampler"))["type"]
    assert cfg.default_hooks.checkpoint.by_epoch or sampler == "JointBatchSampler"
