"""Safe reading of weight files: formats, damaged files, and code in a file, which is not run."""

import json
import os
import pickle
import shutil

import pytest
import torch
from mmengine.config import Config, ConfigDict
from safetensors.torch import save_file

from mmgpt.models.language import load_language_model
from mmgpt.models.weights.reader import read_weights, state_and_tuning
from mmgpt.registry import MODELS

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2)}


def same(state):
    return state.keys() == STATE.keys() and all(torch.equal(state[name], STATE[name]) for name in STATE)


@pytest.mark.parametrize("mmap", [True, False])
def test_every_format_is_read(tmp_path, mmap):
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
def test_tensors_and_tuning_config_of_training_files(tmp_path, tuning, prefix):
    torch.save(
        {"model_state_dict": {prefix + k: v for k, v in STATE.items()}, "tuning_config": tuning}, tmp_path / "a.pt"
    )
    state, read = state_and_tuning(read_weights(tmp_path / "a.pt"), "a.pt")
    assert same(state)
    assert read == {"lora_r": 8, "lora_target_modules": ["a", "b"]}
    assert type(read) is dict


def test_lora_settings_come_from_the_settings_of_a_run():
    """Fields that the config leaves out have peft's defaults."""
    model = {"type": "LoRAModel", "lora": {"r": 4, "lora_dropout": 0.1}}
    scale = {"lora_r": 4, "lora_alpha": 8, "use_rslora": False, "alpha_pattern": None}
    scale.update(use_dora=False, lora_bias=False, bias="none", rank_pattern=None)
    meta = {"iter": 3, "settings": {"config": {"model": model}}}
    assert state_and_tuning({"state_dict": STATE, "meta": meta}, "a.pth")[1] == scale
    for meta in (None, {"iter": 3}, {"settings": {"config": {"model": {"type": "Flamingo"}}}}):
        assert state_and_tuning({"state_dict": STATE, "meta": meta}, "a.pth")[1] is None


def test_bare_tensors_have_no_tuning():
    state, tuning = state_and_tuning(STATE, "a.pt")
    assert same(state)
    assert tuning is None


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


def test_damaged_files_are_named(tmp_path):
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
def test_content_that_is_not_a_dict_is_refused(content):
    with pytest.raises(ValueError, match="a.pt holds no tensors by name"):
        state_and_tuning(content, "a.pt")


def test_content_without_tensors_is_refused():
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
    (folder / "encoder-of-a-file.json").write_text(json.dumps(description))
    torch.save(content, folder / "encoder.pt")
    MODELS.build(
        dict(type="OpenCLIPVision", model=f"{folder}/encoder-of-a-file.json", pretrained=str(folder / "encoder.pt"))
    )


def mmpretrain_file(content, folder, tiny_llama, tiny_clip):
    folder.mkdir()
    torch.save(content, folder / "vit.pth")
    arch = dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=128)
    config = dict(type="MMPretrainVision", arch=arch, img_size=32, patch_size=8, path=str(folder / "vit.pth"))
    MODELS.build(config)


def folder_of_shards(content, folder, tiny_llama, tiny_clip):
    """A checkpoint whose shards are pickles, with the pickled list of shards of torch's own format."""
    (folder / "iter_3.shards").mkdir(parents=True)
    for name in (".metadata", "shard.safetensors"):
        (folder / "iter_3.shards" / name).write_bytes(pickle.dumps(content))
    shards = {"folder": "iter_3.shards", "files": 1}
    torch.save({"state_dict": {}, "meta": {"shards": shards}}, folder / "iter_3.pth")
    read_weights(folder / "iter_3.pth")


@pytest.mark.parametrize("way", [language_folder, clip_folder, clip_file, mmpretrain_file, folder_of_shards])
def test_code_in_the_weights_of_a_component_is_refused_and_not_run(way, tmp_path, tiny_llama, tiny_clip, monkeypatch):
    # torch obeys this variable where a library does not pass weights_only.
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    with pytest.raises((ValueError, pickle.UnpicklingError)):
        way({"a": torch.ones(1), "b": Evil(tmp_path)}, tmp_path / "component", tiny_llama, tiny_clip)
    assert not (tmp_path / "written").exists()


def test_an_archive_with_another_checksum_is_refused(tmp_path):
    """torch does not compare checksums, and would load the changed values."""
    torch.save({"state_dict": STATE, "meta": {}}, tmp_path / "a.pth")
    whole = (tmp_path / "a.pth").read_bytes()
    values = STATE["a.weight"].numpy().tobytes()
    assert whole.count(values) == 1
    (tmp_path / "a.pth").write_bytes(whole.replace(values, values[:-1] + b"\x7f"))
    damaged = torch.load(tmp_path / "a.pth", weights_only=True)
    assert not torch.equal(damaged["state_dict"]["a.weight"], STATE["a.weight"])
    with pytest.raises(ValueError, match="a.pth cannot be read .*: it is damaged: .*data/0 in it is not what"):
        read_weights(tmp_path / "a.pth")


def test_empty_files_and_folders_in_place_of_files_are_named(tmp_path):
    for name in ("a.safetensors", "a.pth"):
        (tmp_path / name).touch()
        with pytest.raises(ValueError, match=f"{name} cannot be read as tensors and plain data"):
            read_weights(tmp_path / name)
    (tmp_path / "b.safetensors").mkdir()
    with pytest.raises(FileNotFoundError, match="b.safetensors is not an exported model"):
        read_weights(tmp_path / "b.safetensors")


@pytest.mark.parametrize("shards", [None, "x", {}, {"folder": 3, "files": 1}, {"folder": "x", "files": "1", "more": 2}])
def test_a_checkpoint_that_does_not_name_its_shards_is_refused(tmp_path, shards):
    torch.save({"state_dict": {}, "meta": {"shards": shards}}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="a.pth: its meta.shards, .*, names no folder"):
        read_weights(tmp_path / "a.pth")
