"""Reading weights: what is taken, what is refused, and that nothing in a file is run."""

import os
import pickle

import pytest
import torch
from mmengine.config import Config, ConfigDict
from safetensors.torch import save_file

from mmgpt.models.weight_files import read_weights, state_and_tuning

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2)}


def same(state):
    return state.keys() == STATE.keys() and all(torch.equal(state[name], STATE[name]) for name in STATE)


@pytest.mark.parametrize("mmap", [True, False])
def test_every_kind_of_file(tmp_path, mmap):
    save_file(STATE, tmp_path / "a.safetensors")
    torch.save(STATE, tmp_path / "a.pt")
    torch.save(STATE, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    for name in ("a.safetensors", "a.pt", "old.pt"):
        assert same(read_weights(tmp_path / name, mmap=mmap)), name


@pytest.mark.parametrize(
    "tuning",
    [
        {"lora_r": 8, "lora_target_modules": ["a", "b"]},
        ConfigDict(lora_r=8, lora_target_modules=["a", "b"]),
        Config(dict(tuning_config=dict(lora_r=8, lora_target_modules=["a", "b"]))),
    ],
    ids=["dict", "ConfigDict", "nested Config"],
)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_layouts_of_training_files(tmp_path, tuning, prefix):
    torch.save(
        {"model_state_dict": {prefix + k: v for k, v in STATE.items()}, "tuning_config": tuning}, tmp_path / "a.pt"
    )
    state, read = state_and_tuning(read_weights(tmp_path / "a.pt"), "a.pt")
    assert same(state)
    assert read == {"lora_r": 8, "lora_target_modules": ["a", "b"]} and type(read) is dict


def test_lora_of_a_run_is_known_from_its_settings():
    model = {"type": "LoRAModel", "lora": {"r": 4, "lora_alpha": 8, "lora_dropout": 0.1}}
    meta = {"iter": 3, "settings": {"config": {"model": model}}}
    assert state_and_tuning({"state_dict": STATE, "meta": meta}, "a.pth")[1] == {"lora_r": 4, "lora_alpha": 8}
    for meta in (None, {"iter": 3}, {"settings": {"config": {"model": {"type": "Flamingo"}}}}):
        assert state_and_tuning({"state_dict": STATE, "meta": meta}, "a.pth")[1] is None


def test_bare_tensors_have_no_tuning():
    state, tuning = state_and_tuning(STATE, "a.pt")
    assert same(state) and tuning is None


class Evil:
    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder / "written"),)


@pytest.mark.parametrize("place", ["alone", "as a tuning config"])
def test_code_is_refused_and_not_run(tmp_path, place):
    content = {"a": Evil(tmp_path)}
    if place != "alone":
        content = {"model_state_dict": STATE, "tuning_config": ConfigDict(lora_r=Evil(tmp_path))}
    torch.save(content, tmp_path / "evil.pt")
    with pytest.raises(ValueError, match=r"evil.pt cannot be read .* it asks for (posix|nt|os).mkdir .* is refused"):
        read_weights(tmp_path / "evil.pt")
    assert not (tmp_path / "written").exists()


def test_damaged_files(tmp_path):
    save_file(STATE, tmp_path / "a.safetensors")
    torch.save(STATE, tmp_path / "a.pt")
    for name in ("a.safetensors", "a.pt"):
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ValueError, match=f"{name} cannot be read"):
            read_weights(tmp_path / name)
    (tmp_path / "pickle.pt").write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(ValueError, match="pickle.pt"):
        state_and_tuning(read_weights(tmp_path / "pickle.pt"), "pickle.pt")
    with pytest.raises(FileNotFoundError, match="gone.pt"):
        read_weights(tmp_path / "gone.pt")
    with pytest.raises(FileNotFoundError, match="no exported model"):
        read_weights(tmp_path)


def test_an_old_file_cut_anywhere_is_refused(tmp_path):
    torch.save(STATE, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    whole = (tmp_path / "old.pt").read_bytes()
    for length in range(0, len(whole) - 1, 7):
        (tmp_path / "cut.pt").write_bytes(whole[:length])
        with pytest.raises(ValueError, match="cut.pt"):
            read_weights(tmp_path / "cut.pt")


@pytest.mark.parametrize("content", [torch.ones(2), 3, None, [1]])
def test_what_is_no_dict(content):
    with pytest.raises(ValueError, match="a.pt holds no tensors by name"):
        state_and_tuning(content, "a.pt")


def test_what_holds_no_tensors():
    with pytest.raises(ValueError, match="a.pt holds no tensors by name .* but epoch"):
        state_and_tuning({"epoch": 1}, "a.pt")
