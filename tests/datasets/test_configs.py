"""The dataset configs: they load, and read small data in the places that they name."""

from pathlib import Path

from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from mmgpt.cli.config import load_config
from mmgpt.datasets.prompts import SHORT
from mmgpt.registry import TRANSFORMS
from tests.helpers.published_data import PLACES

ROOT = Path(__file__).parents[2]
JOINT = ROOT / "configs" / "_base_" / "datasets" / "joint.py"


def load(tmp_path, tiny_llama, **values):
    lines = [f"_base_ = {str(JOINT)!r}", f"language_model = {tiny_llama!r}", "seed = 0"]
    lines += [f"{name} = {value!r}" for name, value in values.items()]
    (tmp_path / "config.py").write_text("\n".join(lines))
    return load_config(tmp_path / "config.py")


def test_every_source_is_in_the_mix():
    cfg = Config.fromfile(JOINT)
    named = cfg.train_dataloader.dataset.visual + cfg.train_dataloader.dataset.language
    assert named == [f"${{{name}}}" for name in PLACES]


def test_configs_name_the_published_places(tmp_path, tiny_llama):
    cfg = load(tmp_path, tiny_llama, data_root="root")
    for name, (file, _, images) in PLACES.items():
        assert cfg[name].name == name
        assert cfg[name].ann_file == file
        assert cfg[name].data_root == "root"
        assert file in cfg.sources
        assert images in {"", *cfg.sources}
        assert cfg[name].get("data_prefix", {}).get("img", "") == images
    assert (cfg.aokvqa.sample, cfg.coco_caption.sample, cfg.ocr_vqa.sample) == (5000, 512, 512)
    assert (cfg.prompt_template, cfg.prepare_images.size, cfg.max_length) == ("instruction", 224, 512)


def test_question_pools():
    cfg = Config.fromfile(JOINT)
    for name in ("aokvqa", "coco_caption", "minigpt4"):
        [pool] = [set(step.questions) for step in cfg[name].pipeline if "questions" in step]
        assert 6 <= len(pool) <= 10


def test_the_joint_config_reads_data_in_these_places(tmp_path, data_root, tiny_llama):
    cfg = load(tmp_path, tiny_llama, data_root=str(data_root), prepare_images=dict(size=16), max_length=2000)
    loader = cfg.train_dataloader | dict(num_workers=0, persistent_workers=False)
    with DefaultScope.overwrite_default_scope("mmgpt"):
        loader = Runner.build_dataloader(loader, seed=0)
    batches = list(loader)
    assert {meta["dataset"] for batch in batches for meta in batch["metas"]} >= set(PLACES) - {"dolly", "baize"}
    for batch in batches:
        assert batch["sources"] == ["visual", "language"]
        assert batch["pixels"].shape == (2, 1, 3, 16, 16)


def test_a_variable_reaches_every_part(tmp_path, tiny_llama):
    values = dict(
        prepare_images=dict(size=32), prompt_template="short", tokenization="stripped", coco_caption=dict(sample=7)
    )
    cfg = load(tmp_path, tiny_llama, **values)
    for part in cfg.train_dataloader.dataset.visual:
        assert part.pipeline[-2][1].size == 32
        assert part.pipeline[-1][0].template == "short"
        assert part.pipeline[-1][1].tokenizer == tiny_llama
        assert part.pipeline[-1][1].tokenization == "stripped"
    assert cfg.train_dataloader.dataset.visual[1].sample == 7
    images, ask, tokens = cfg.chat_pipeline
    assert (images.size, ask.template, tokens.tokenization) == (32, "short", "stripped")
    assert cfg.question_steps[0].template == "short"


def test_two_variables_replace_images_by_cached_features(tmp_path, tiny_llama):
    small = dict(prepare_images=dict(size=32))
    cached = dict(image_steps="${feature_steps}", feature_cache="work_dirs/features")
    cfg = load(tmp_path, tiny_llama, **cached, **small)
    for part in cfg.train_dataloader.dataset.visual:
        [step] = part.pipeline[-2]
        assert step.type == "LoadFeatures"
        assert step.cache == "work_dirs/features"
        assert step.steps == load(tmp_path, tiny_llama, **small).image_steps
    assert cfg.chat_pipeline[0].type == "PrepareImages"


def test_a_template_of_ones_own(tmp_path, tiny_llama):
    own = dict(SHORT, response="Answer: ")
    cfg = load(tmp_path, tiny_llama, prompt_template=own)
    assert TRANSFORMS.build(cfg.answer_steps[0]).template == own
    assert load(tmp_path, tiny_llama, prompt_template=dict(own, _delete_=True)).prompt_template == own
    # A whole template replaces another one, also one that a base or an option has as a dict.
    base = tmp_path / "base.py"
    base.write_text(f"prompt_template = {dict(own, end='<|endofchunk|>')}\nother = dict(a=1)\n")
    (tmp_path / "heir.py").write_text(f"_base_ = './base.py'\nprompt_template = {own}\nother = dict(b=2)\n")
    heir = load_config(tmp_path / "heir.py")
    assert heir.prompt_template == own
    assert heir.other == dict(a=1, b=2)
    assert load_config(tmp_path / "heir.py", {"prompt_template": {"start": ""}}).prompt_template == {"start": ""}
    assert load_config(tmp_path / "heir.py", {"prompt_template.start": "a"}).prompt_template == dict(own, start="a")


def test_evaluation_and_chat_steps(tmp_path, tiny_llama):
    cfg = load(tmp_path, tiny_llama)
    assert [step.type for step in cfg.question_steps] == [step.type for step in cfg.answer_steps]
    assert cfg.question_steps[0].open_last
    assert "open_last" not in cfg.answer_steps[0]
    images, ask, tokens = cfg.chat_pipeline
    assert (images, ask) == (cfg.prepare_images, cfg.question_steps[0])
    assert tokens == {**cfg.question_steps[1], "max_length": None}
    assert all(TRANSFORMS.get(step.type) for step in cfg.image_steps + cfg.question_steps + cfg.chat_pipeline)


def test_the_tiny_mix_is_changed_by_names():
    path = ROOT / "configs" / "mmgpt" / "tiny_lora_joint.py"
    before = load_config(path)
    after = load_config(path, {"caption.weight": 2, "digits.sample": None, "baize.weight": 0})
    changed = {"caption": dict(weight=2), "digits": dict(sample=None), "baize": dict(weight=0)}
    for half, count in (("visual", 14), ("language", 3)):
        parts = before.train_dataloader.dataset[half]
        assert len(parts) == count
        assert all(part == before[part.name] for part in parts)
        expected = [part | changed.get(part.name, {}) for part in parts]
        assert after.train_dataloader.dataset[half] == expected != parts
    assert after.test_dataloader == before.test_dataloader


def test_the_tiny_world_is_tested_on_held_out_files():
    cfg = load_config(ROOT / "configs" / "mmgpt" / "tiny_lora_joint.py")
    for half, group in cfg.test_evaluator.groups.items():
        parts = cfg.test_dataloader.dataset[half]
        assert [part.name for part in parts] == group
        for part in parts:
            trained = cfg[part.name]
            assert part.ann_file == trained.ann_file.replace("train", "heldout") != trained.ann_file
            assert part.sample is None
            assert part.pipeline[:-1] == trained.pipeline[:-1]
            assert part.pipeline[-1] == cfg.question_steps
            assert trained.pipeline[-1] == cfg.answer_steps
