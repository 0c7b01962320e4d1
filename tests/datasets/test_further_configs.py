"""The configs of sources beyond the published mix: each loads, and reads small data in the places that it names."""

from collections import Counter
from pathlib import Path

import pytest
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from mmgpt.cli import check_files
from mmgpt.cli.config import load_config
from mmgpt.datasets.records import find_parser, read_records
from mmgpt.models.loss import IGNORE_INDEX
from mmgpt.registry import DATASETS
from tests.helpers.published_data import DATA, FURTHER, PLACES, draw

CONFIGS = Path(__file__).parents[2] / "configs" / "_base_" / "datasets"


@pytest.fixture
def config(request, tmp_path, tiny_llama):
    """The dataset config of one source of FURTHER, with its data under a temporary folder."""
    bases = [str(CONFIGS / f"{file}.py") for file in ("pipelines", FURTHER[request.param][0])]
    lines = [f"_base_ = {bases!r}", f"data_root = {str(tmp_path / 'data')!r}", f"language_model = {tiny_llama!r}"]
    (tmp_path / "config.py").write_text("\n".join([*lines, "prepare_images = dict(size=16)", "max_length = 4000"]))
    return load_config(tmp_path / "config.py")[request.param]


def put(config, name):
    """Puts small files, and the images that they name, in the places that a config names."""
    _, file, questions = FURTHER[name]
    root, folders = Path(config.data_root), config.get("data_prefix", {})
    for place, source in ((config.ann_file, file), (folders.get("questions"), questions)):
        if place:
            (root / place).parent.mkdir(parents=True, exist_ok=True)
            (root / place).write_text((DATA / source).read_text())
    for record in read_records(root / config.ann_file, questions and root / folders["questions"]):
        for image in find_parser(config.parser)(record)["images"]:
            draw(root / folders["img"] / image)


def build(config, name):
    """Builds the dataset of a config, from small files in the places that it names."""
    put(config, name)
    check_files(dict(train_dataloader=dict(dataset=config)))
    with DefaultScope.overwrite_default_scope("mmgpt"):
        return DATASETS.build(config)


def test_every_dataset_config_is_tested():
    shared = {"pipelines", "joint", "llava", "benchmarks", "tiny_images", "tiny_world"}
    shared |= {path.stem for path in CONFIGS.glob("eval_*.py")}  # see test_benchmarks.py
    assert {path.stem for path in CONFIGS.glob("*.py")} - shared <= {file for file, *_ in FURTHER.values()} | set(
        PLACES
    )


@pytest.mark.parametrize(("config", "name"), [(name, name) for name in FURTHER], indirect=["config"])
def test_data_is_read_in_the_places_that_a_config_names(config, name):
    dataset = build(config, name)
    assert dataset.name == name
    for sample in dataset:
        images = sample["meta"]["images"]
        assert (sample["labels"] != IGNORE_INDEX).any()
        assert (sample["source"] == "visual") == bool(images)
        assert (sample["pixels"].shape if images else sample["pixels"]) == (
            (len(images), 3, 16, 16) if images else None
        )
    assert dataset.dropped.totals["skipped"] == 0


def test_one_experiment_has_all_sources(data_root, tiny_llama):
    options = dict(data_root=str(data_root), language_model=tiny_llama, max_length=4000)
    options["prepare_images.size"] = 16
    cfg = load_config(CONFIGS.parents[1] / "mmgpt" / "lora_joint_all.py", options)
    parts = {part.name: part for half in ("visual", "language") for part in cfg.train_dataloader.dataset[half]}
    # All but the same data in another layout, and a user's own.
    assert set(parts) == set(PLACES) | {
        name for name in FURTHER if not name.startswith("own_") and not name.endswith("_lavis")
    }
    for name in set(parts) - set(PLACES):
        put(parts[name], name)
    check_files(dict(train_dataloader=cfg.train_dataloader))
    loader = cfg.train_dataloader | dict(num_workers=0, persistent_workers=False, batch_size=4)
    with DefaultScope.overwrite_default_scope("mmgpt"):
        loader = Runner.build_dataloader(loader, seed=0)
    seen = Counter(meta["dataset"] for batch in loader for meta in batch["metas"] if meta["images"])
    sizes = {part.name: len(part) for part in loader.dataset.visual}
    assert seen == {name: size * (2 if name in ("okvqa", "nlvr") else 1) for name, size in sizes.items()}


@pytest.mark.parametrize("config", ["vqav2"], indirect=True)
def test_a_missing_file_of_questions_is_listed_at_the_start(config):
    with pytest.raises(FileNotFoundError, match="v2_OpenEnded_mscoco_train2014_questions.json .*data_prefix.questions"):
        check_files(dict(train_dataloader=dict(dataset=config)))


@pytest.mark.parametrize("config", ["nlvr"], indirect=True)
def test_nlvr_has_one_of_its_six_images(config):
    dataset = build(config, "nlvr")
    seen = {dataset[epoch * 2]["meta"]["images"][0] for epoch in range(40)}
    assert seen == {f"73/train-3476-2-{order}.png" for order in range(6)}


@pytest.mark.parametrize("config", ["nlvr", "nlvr2", "snli_ve"], indirect=True)
def test_wordings_ask_one_question_each(config):
    """Published: two of NLVR's are glued together; SNLI-VE's ask for an opinion and expect 'entailment'."""
    [pool] = [step.questions for step in config.pipeline if "questions" in step]
    assert 6 <= len(set(pool)) <= 10
    assert all(text.endswith("?") and text.count("?") == 1 for text in pool)


@pytest.mark.parametrize(("config", "name"), [("snli_ve", "snli_ve")], indirect=["config"])
def test_a_statement_comes_with_question_and_labels(config, name):
    dataset = build(config, name)
    prompts = [dataset[epoch * len(dataset)]["meta"]["prompt"] for epoch in range(20)]
    [pool] = [step.questions for step in config.pipeline if "questions" in step]
    endings = [f"competition. {text} Options: entailment, neutral, contradiction.\n\n" for text in pool]
    assert all(any(ending in prompt for ending in endings) for prompt in prompts)
    assert len(set(prompts)) > 3
