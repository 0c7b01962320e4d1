"""Adapters that do not fit a base, or each other, are refused by name."""

import json
import re
from shutil import copytree

import pytest
import torch
from safetensors.torch import load_file, save_file

from mmgpt.apis import build_model
from mmgpt.apis.export import export
from mmgpt.cli import load_config
from mmgpt.models.adapters import load_adapters, use_adapter
from mmgpt.models.image_path import has_closed_gates
from tests.helpers.adapters import random_tuning

ADAPTER = "adapter/adapter_model.safetensors"


@pytest.fixture(scope="module")
def exported(chat_config, tmp_path_factory):
    """A folder that `export` wrote for the experiment of `chat_config`."""
    return random_tuning(load_config(chat_config), tmp_path_factory.mktemp("tuning"), 1)[1]


@pytest.fixture
def load(chat_config):
    """A function that loads adapters on the base of `chat_config`, changed by options."""

    def run(adapters, **options):
        cfg = load_config(chat_config, {name.replace("__", "."): value for name, value in options.items()})
        return load_adapters(build_model(cfg, device="cpu"), cfg, adapters)

    return run


@pytest.fixture
def changed(exported, tmp_path):
    """A function that changes settings of a copy's adapter, as a folder of peft's own, and returns it."""

    def run(**settings):
        folder = copytree(exported / "adapter", tmp_path / "changed", dirs_exist_ok=True)
        file = folder / "adapter_config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))
        return folder

    return run


def test_folders_and_names_that_are_refused(load, exported, tmp_path):
    with pytest.raises(FileNotFoundError, match="adapter 'one': .*adapter_model.safetensors is missing"):
        load(dict(one=tmp_path))
    for name in ("a.b", "a:b", "", "my_lora_1"):
        with pytest.raises(ValueError, match=f"adapter {name!r}: a name has letters"):
            load({name: exported})
    folder = copytree(exported, tmp_path / "damaged")
    (folder / ADAPTER).write_bytes((folder / ADAPTER).read_bytes()[:-4])
    with pytest.raises(ValueError, match="when it was written: copy it again"):
        load(dict(one=folder))


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(bias="lora_only"), "bias='lora_only' trains biases of the base"),
        (dict(modules_to_save=["lm_head"]), "'lm_head' was trained in full; choose among vision, perceiver, gated"),
        (dict(layer_replication=[[0, 2]]), "lora.layer_replication is not supported"),
        (dict(init_lora_weights="pissa"), "init_lora_weights='pissa'"),
        (dict(target_modules=["k_proj"]), "does not belong to this base: it lacks base_model.model.language"),
        (dict(r=3), "has another shape of base_model.model.language"),
    ],
)
def test_settings_that_cannot_be_one_of_several(load, changed, settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        load(dict(one=changed(**settings)))


def test_another_kind_of_adapter(load, changed):
    with pytest.raises(ValueError, match="is of the kind 'IA3', not LORA"):
        load(dict(one=changed(peft_type="IA3", feedforward_modules=[])))


def test_values_that_are_no_numbers(load, changed):
    folder = changed()
    state = load_file(folder / "adapter_model.safetensors")
    name = min(state)
    save_file({**state, name: state[name] * float("nan")}, folder / "adapter_model.safetensors")
    with pytest.raises(ValueError, match=f"has NaN or infinite values in {re.escape(name)}"):
        load(dict(one=folder))


def test_a_base_that_reads_prompts_differently(load, exported):
    with pytest.raises(ValueError, match="tuned with image_attention='latest', and the base has 'next'"):
        load(dict(one=exported), model__module__image_attention="next")
    with pytest.raises(ValueError, match="tuned with prompt_template=.*, and the base has 'plain'"):
        load(dict(one=exported), **{"chat_pipeline.1.template": "plain"})
    load(dict(one=exported / "adapter"), model__module__image_attention="next")  # peft's folder does not say it


def test_biases_of_the_base_are_not_taken_off(load, exported):
    with pytest.raises(ValueError, match="lora.bias='lora_only': biases of the base are trained"):
        load(dict(one=exported), model__lora__bias="lora_only", model__lora__target_modules=["ff.1"])


def test_lora_in_a_component_that_another_one_trained_in_full(load, exported, chat_config, tmp_path):
    options = {"model.train": ["gated"], "model.lora.target_modules": ["q_proj"]}
    cfg = load_config(chat_config, options)
    export(cfg, build_model(cfg, device="cpu"), tmp_path / "full")  # its gated blocks are random
    for adapters in (dict(one=exported, full=tmp_path / "full"), dict(full=tmp_path / "full", one=exported)):
        with pytest.raises(ValueError, match="one has LoRA in a component that the other trained in full"):
            load(adapters)


def test_images_reach_a_base_with_closed_gates_by_an_adapters_own(load, chat_config, tmp_path):
    options = {"model.train": ["gated"], "model.lora.target_modules": ["q_proj"]}
    cfg = load_config(chat_config, options)
    export(cfg, build_model(cfg, device="cpu"), tmp_path / "full")
    closed = dict(model__module__gated__gate_init=0.0)
    peft = load(dict(full=tmp_path / "full"), **closed)
    assert not has_closed_gates(peft)
    use_adapter(peft, "full")
    [gate, *_] = [g for name, g in peft.named_parameters() if "modules_to_save.full.attn_gate" in name]
    assert torch.equal(gate, torch.tensor([0.5]))


def test_an_adapter_of_the_plain_base_on_one_with_components_trained_in_full(load, exported):
    with pytest.raises(
        ValueError, match="adapter 'one' .* was tuned beside other weights of perceiver, which the base"
    ):
        load(dict(one=exported), model__train=["perceiver"], model__lora__exclude_modules=r"(vision|perceiver)\..*")


def test_a_name_that_torch_uses_itself(load, exported):
    with pytest.raises(ValueError, match="adapter 'train': torch uses this name itself"):
        load(dict(train=exported))


def test_images_prepared_in_another_way(load, exported, tmp_path):
    folder = copytree(exported, tmp_path / "other")
    file = folder / "mmgpt.json"
    description = json.loads(file.read_text())
    step = next(step for step in description["chat_pipeline"] if step["type"] == "PrepareImages")
    step["mean"] = [0.1, 0.2, 0.3]
    file.write_text(json.dumps(description))
    with pytest.raises(ValueError, match=r"was tuned with prepare_images.mean=\[0.1, 0.2, 0.3\], and the base has"):
        load(dict(one=folder))


def test_a_setting_of_zero_is_kept(load, changed):
    peft = load(dict(one=changed(lora_alpha=0)))
    assert peft.peft_config["one"].lora_alpha == 0
