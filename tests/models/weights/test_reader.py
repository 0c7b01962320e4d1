"""Reading weights: what is taken, what is refused, and that nothing in a file is run."""

import json
import os
import pickle
import shutil

import pytest
import torch
from mmengine.config import Config, ConfigDict
from safetensors.torch import save_file

from mmgpt.models.language import load_language_model
from mmgpt.models.weights.reader import is_finite, read_weights, state_and_tuning
from mmgpt.registry import MODELS

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
    """What the config leaves out is as peft has it."""
    model = {"type": "LoRAModel", "lora": {"r": 4, "lora_dropout": 0.1}}
    scale = {"lora_r": 4, "lora_alpha": 8, "use_rslora": False, "alpha_pattern": None}
    scale.update(use_dora=False, lora_bias=False, bias="none", rank_pattern=None)
    meta = {"iter": 3, "settings": {"config": {"model": model}}}
    assert state_and_tuning({"state_dict": STATE, "meta": meta}, "a.pth")[1] == scale
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
    with pytest.raises(FileNotFoundError, match="not an exported model"):
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
    for state in ({1: torch.ones(1)}, {"a": 1}, {}):
        with pytest.raises(ValueError, match="a.pt holds no tensors by name"):
            state_and_tuning({"state_dict": state}, "a.pt")
    assert state_and_tuning({"state_dict": STATE, "tuning_config": "x"}, "a.pt")[1] is None
    with pytest.raises(ValueError, match="a.pt holds no tensors by name .* but epoch"):
        state_and_tuning({"epoch": 1}, "a.pt")


def language_folder(content, folder, tiny_llama, tiny_clip):
    shutil.copytree(tiny_llama, folder)
    (folder / "model.safetensors").unlink()
    torch.save(content, folder / "pytorch_model.bin")
    load_language_model(str(folder))


def clip_folder(content, folder, tiny_llama, tiny_clip):
    shutil.copytree(tiny_clip, folder)
    (folder / "open_clip_model.safetensors").unlink()
    torch.save(content, folder / "open_clip_pytorch_model.bin")
    MODELS.build(dict(type="OpenCLIPVision", path=str(folder)))


def clip_file(content, folder, tiny_llama, tiny_clip):
    folder.mkdir()
    shutil.copy(f"{tiny_clip}/open_clip_config.json", folder)
    description = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]
    (folder / "tower-of-a-file.json").write_text(json.dumps(description))
    torch.save(content, folder / "tower.pt")
    MODELS.build(
        dict(type="OpenCLIPVision", model=f"{folder}/tower-of-a-file.json", pretrained=str(folder / "tower.pt"))
    )


def mmpretrain_file(content, folder, tiny_llama, tiny_clip):
    folder.mkdir()
    torch.save(content, folder / "vit.pth")
    arch = dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=128)
    config = dict(type="MMPretrainVision", arch=arch, img_size=32, patch_size=8, path=str(folder / "vit.pth"))
    MODELS.build(config)


def folder_of_shards(content, folder, tiny_llama, tiny_clip):
    """A checkpoint whose parts are pickles, and which has the list of parts that torch's own format keeps as one."""
    (folder / "iter_3.shards").mkdir(parents=True)
    for name in (".metadata", "part.safetensors"):
        (folder / "iter_3.shards" / name).write_bytes(pickle.dumps(content))
    shards = {"folder": "iter_3.shards", "files": 1}
    torch.save({"state_dict": {}, "meta": {"shards": shards}}, folder / "iter_3.pth")
    read_weights(folder / "iter_3.pth")


@pytest.mark.parametrize("way", [language_folder, clip_folder, clip_file, mmpretrain_file, folder_of_shards])
def test_code_in_the_weights_of_a_part_is_refused_and_not_run(way, tmp_path, tiny_llama, tiny_clip, monkeypatch):
    # What torch obeys where a library leaves the choice to it.
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    with pytest.raises((ValueError, pickle.UnpicklingError)):
        way({"a": torch.ones(1), "b": Evil(tmp_path)}, tmp_path / "part", tiny_llama, tiny_clip)
    assert not (tmp_path / "written").exists()


def test_a_part_of_an_archive_that_is_not_what_was_written_is_refused(tmp_path):
    """torch looks at no checksum, and would load whatever is there."""
    torch.save({"state_dict": STATE, "meta": {}}, tmp_path / "a.pth")
    whole = (tmp_path / "a.pth").read_bytes()
    values = STATE["a.weight"].numpy().tobytes()
    assert whole.count(values) == 1
    (tmp_path / "a.pth").write_bytes(whole.replace(values, values[:-1] + b"\x7f"))
    damaged = torch.load(tmp_path / "a.pth", weights_only=True)
    assert not torch.equal(damaged["state_dict"]["a.weight"], STATE["a.weight"])
    with pytest.raises(ValueError, match="a.pth cannot be read .*: it is damaged: .*data/0 in it is not what"):
        read_weights(tmp_path / "a.pth")


def test_empty_files_and_folders_in_place_of_files(tmp_path):
    for name in ("a.safetensors", "a.pth"):
        (tmp_path / name).touch()
        with pytest.raises(ValueError, match=f"{name} cannot be read as tensors and plain data"):
            read_weights(tmp_path / name)
    (tmp_path / "b.safetensors").mkdir()
    with pytest.raises(FileNotFoundError, match="b.safetensors is not an exported model"):
        read_weights(tmp_path / "b.safetensors")


def test_values_that_no_model_computes_with():
    for value in (float("nan"), float("inf"), -float("inf")):
        for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
            tensor = torch.zeros(7, 5, dtype=dtype)
            assert is_finite(tensor) and is_finite(tensor[:0]) and is_finite(tensor[0, 0])
            tensor[3, 4] = value
            assert not is_finite(tensor) and not is_finite(tensor.t()) and is_finite(tensor[:3])
    assert is_finite(torch.tensor([1])) and is_finite(torch.ones(3).to(torch.float8_e4m3fn))


@pytest.mark.parametrize("shards", [None, "x", {}, {"folder": 3, "files": 1}, {"folder": "x", "files": "1", "more": 2}])
def test_a_checkpoint_whose_parts_are_not_named(tmp_path, shards):
    torch.save({"state_dict": {}, "meta": {"shards": shards}}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="a.pth: its meta.shards, .*, names no folder"):
        read_weights(tmp_path / "a.pth")
