"""The dataset configs: they load, and read small data in the places that they name."""

import json
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from PIL import Image

from mmgpt.datasets.prompts import SHORT
from mmgpt.engine.config import load_config
from mmgpt.registry import TRANSFORMS

ROOT = Path(__file__).parents[2]
JOINT = ROOT / "configs" / "_base_" / "datasets" / "joint.py"
DATA = ROOT / "tests" / "data"
# Annotation file as the config names it, the small file that stands in for it, and the folder of the images.
PLACES = {
    "aokvqa": ("aokvqa/annotations/aokvqa_v1p0_train.json", "aokvqa.json", "coco"),
    "coco_caption": (
        "coco/annotations/coco_karpathy_train_converted.json",
        "coco_karpathy_train_converted.json",
        "coco",
    ),
    "ocr_vqa": ("OCR_VQA/downloaded_dataset.json", "ocr_vqa_downloaded.json", "OCR_VQA/image"),
    "llava_detail": ("llava/detail_23k.json", "llava_detail_23k.json", "coco/train2017"),
    "llava_reasoning": ("llava/complex_reasoning_77k.json", "llava_detail_23k.json", "coco/train2017"),
    "llava_dialogue": ("llava/conversation_58k.json", "llava_conversation_58k.json", "coco/train2017"),
    "minigpt4": ("cc_sbu_align/filter_cap.json", "filter_cap.json", "cc_sbu_align/image"),
    "dolly": ("dolly/databricks-dolly-15k.jsonl", "databricks-dolly-15k.jsonl", ""),
    "alpaca_gpt4": ("alpaca_gpt4/alpaca_gpt4_data.json", "alpaca_gpt4_data.json", ""),
    "baize": ("baize/quora_chat_data.json", "quora_chat_data.json", ""),
}
IMAGES = [
    "coco/train2017/000000299207.jpg", "coco/test2017/000000000007.jpg", "coco/elsewhere/9.jpg",
    "coco/train2014/COCO_train2014_000000057870.jpg", "OCR_VQA/image/0761183272.jpg",
    "coco/train2017/000000442786.jpg", "coco/train2017/000000033471.jpg", "coco/train2017/000000215677.jpg",
    "cc_sbu_align/image/2.jpg", "cc_sbu_align/image/17.jpg",
]  # fmt: skip


@pytest.fixture
def data_root(tmp_path):
    root = tmp_path / "data"
    for place, source, _ in PLACES.values():
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).write_text((DATA / source).read_text())
    for image in IMAGES:
        (root / image).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 16), "red").save(root / image)
    return root


def load(tmp_path, tiny_llama, **values):
    lines = [f"_base_ = {str(JOINT)!r}", f"language_model = {tiny_llama!r}"]
    lines += [f"{name} = {value!r}" for name, value in values.items()]
    (tmp_path / "config.py").write_text("\n".join(lines))
    return load_config(tmp_path / "config.py")


def test_every_source_is_in_the_mix():
    cfg = Config.fromfile(JOINT)
    named = cfg.train_dataloader.dataset.visual + cfg.train_dataloader.dataset.language
    assert named == [f"${{{name}}}" for name in PLACES]


def test_configs_name_the_published_places():
    cfg = Config.fromfile(JOINT)
    for name, (file, _, images) in PLACES.items():
        assert cfg[name].name == name and cfg[name].ann_file == file and cfg[name].data_root == "${data_root}"
        assert cfg[name].get("data_prefix", {}).get("img", "") == images
    assert (cfg.aokvqa.sample, cfg.coco_caption.sample, cfg.ocr_vqa.sample) == (5000, 512, 512)
    assert (cfg.prompt_template, cfg.image_size, cfg.max_length) == ("instruction", 224, 512)


def test_question_pools():
    cfg = Config.fromfile(JOINT)
    for name in ("aokvqa", "coco_caption", "minigpt4"):
        [pool] = [set(step.questions) for step in cfg[name].pipeline if "questions" in step]
        assert 6 <= len(pool) <= 10


def test_the_joint_config_reads_data_in_these_places(tmp_path, data_root, tiny_llama):
    cfg = load(tmp_path, tiny_llama, data_root=str(data_root), image_size=16, max_length=2000)
    loader = cfg.train_dataloader | dict(num_workers=0, persistent_workers=False)
    with DefaultScope.overwrite_default_scope("mmgpt"):
        loader = Runner.build_dataloader(loader, seed=0)
    batches = list(loader)
    assert {meta["dataset"] for batch in batches for meta in batch["metas"]} >= set(PLACES) - {"dolly", "baize"}
    for batch in batches:
        assert batch["sources"] == ["visual", "language"] and batch["pixels"].shape == (2, 1, 3, 16, 16)


def test_a_variable_reaches_every_part(tmp_path, tiny_llama):
    cfg = load(tmp_path, tiny_llama, image_size=32, prompt_template="short", coco_caption=dict(sample=7))
    for part in cfg.train_dataloader.dataset.visual:
        assert part.pipeline[-2][1].size == 32
        assert part.pipeline[-1][0].template == "short" and part.pipeline[-1][1].tokenizer == tiny_llama
    assert cfg.train_dataloader.dataset.visual[1].sample == 7
    assert json.dumps(cfg.chat_pipeline).count("32") == 1


def test_a_template_of_ones_own(tmp_path, tiny_llama):
    own = dict(SHORT, response="Answer: ")
    cfg = load(tmp_path, tiny_llama, prompt_template=dict(own, _delete_=True))
    assert TRANSFORMS.build(cfg.answer_steps[0]).template == own


def test_evaluation_and_chat_steps(tmp_path, tiny_llama):
    cfg = load(tmp_path, tiny_llama)
    assert [step.type for step in cfg.question_steps] == [step.type for step in cfg.answer_steps]
    assert cfg.question_steps[0].open_last and "open_last" not in cfg.answer_steps[0]
    assert cfg.chat_pipeline[1:] == cfg.question_steps[:2]
    assert all(TRANSFORMS.get(step.type) for step in cfg.image_steps + cfg.question_steps + cfg.chat_pipeline)
