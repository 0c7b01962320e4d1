"""Names of an earlier release in configs, exported folders and checkpoints: accepted, with one warning."""

import copy
import json
import logging

import pytest

from mmgpt.cli import load_config
from mmgpt.cli.description import ADAPTER, DESCRIPTION, write_description
from mmgpt.compat import names
from mmgpt.engine.resume import compare_settings, run_settings

CONFIG = """
train_cfg = dict(type='ResumableEpochLoop', max_epochs=1)
default_hooks = dict(dropped_samples=dict(type='{hook}'))
optim_wrapper = dict(constructor='{constructor}', optimizer=dict(type='AdamW', lr=0.1))
model = dict(type='Flamingo', {argument}='latest')
other = dict(type='their_project.LostAnswersHook', {argument}='latest')
"""
OLD = dict(hook="mmgpt.LostAnswersHook", constructor="TrainedOptimWrapperConstructor", argument="picture_rule")
NEW = dict(hook="mmgpt.DroppedSamplesHook", constructor="TrainableOptimWrapperConstructor", argument="image_attention")


@pytest.fixture(autouse=True)
def renamed_argument(monkeypatch):
    """An argument of Flamingo that was renamed."""
    monkeypatch.setitem(names.ARGUMENTS, "Flamingo", {"picture_rule": "image_attention"})


@pytest.fixture
def warnings(monkeypatch):
    """The texts of the warnings."""
    texts = []

    def print_log(text, logger, level):
        assert level == logging.WARNING
        texts.append(text)

    monkeypatch.setattr(names, "print_log", print_log)
    return texts


def write(path, values):
    path.write_text(CONFIG.format(**values))
    return path


def test_a_config_with_old_names_is_the_config_with_the_new_ones(tmp_path, warnings):
    old = load_config(write(tmp_path / "old.py", OLD)).to_dict()
    new = load_config(write(tmp_path / "new.py", NEW)).to_dict()
    assert old.pop("other") == {"type": "their_project.LostAnswersHook", "picture_rule": "latest"}
    del new["other"]
    assert old == new
    assert len(warnings) == 1
    assert str(tmp_path / "old.py") in warnings[0]
    assert "'LostAnswersHook' is 'DroppedSamplesHook' now" in warnings[0]
    assert "'TrainedOptimWrapperConstructor' is 'TrainableOptimWrapperConstructor' now" in warnings[0]
    assert "'picture_rule' is 'image_attention' now" in warnings[0]


def test_an_argument_under_both_names_has_the_value_of_the_old_one(tmp_path, warnings):
    path = write(tmp_path / "both.py", {**OLD, "argument": "image_attention='next', picture_rule"})
    assert load_config(path).model == {"type": "Flamingo", "image_attention": "latest"}


def test_an_exported_folder_with_old_names_is_read_with_the_new_ones(tmp_path, warnings):
    (tmp_path / "adapter").mkdir()
    (tmp_path / ADAPTER).write_bytes(b"adapter")
    language = {"path": "base/language"}
    flamingo = {"type": "Flamingo", "language": language, "picture_rule": "latest"}
    write_description(tmp_path, {"model": {"type": "LoRAModel", "module": flamingo, "lora": {"r": 2}}}, [ADAPTER])
    model = load_config(tmp_path).model
    assert model.module == {"type": "Flamingo", "language": language, "image_attention": "latest"}
    assert json.loads((tmp_path / DESCRIPTION).read_text())["model"]["module"] == flamingo
    assert warnings == [
        f"{tmp_path / DESCRIPTION} has names of an earlier release, which the next one refuses: "
        "'picture_rule' is 'image_attention' now"
    ]


def test_a_checkpoint_with_old_names_is_resumed_with_the_new_ones(tmp_path, warnings):
    now = run_settings(load_config(write(tmp_path / "new.py", NEW)))
    then = copy.deepcopy(now)
    then["config"]["optim_wrapper"]["constructor"] = "TrainedOptimWrapperConstructor"
    then["config"]["model"]["picture_rule"] = then["config"]["model"].pop("image_attention")
    checkpoint = {"optimizer": {}, "meta": {"iter": 0, "seed": None, "settings": then}}
    assert compare_settings(checkpoint, now, "iter_0.pth") == ([], [])
    assert len(warnings) == 1
    assert warnings[0].startswith("iter_0.pth has names of an earlier release")
    assert "'picture_rule' is 'image_attention' now" in warnings[0]
    then["config"]["model"]["picture_rule"] = "next"
    with pytest.raises(ValueError, match="model.image_attention: 'next' then, 'latest' now"):
        compare_settings(checkpoint, now, "iter_0.pth")
