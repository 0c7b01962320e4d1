import errno
import os
import pickle
import shutil
from functools import partial

import pytest
import torch
from mmengine.fileio import LocalBackend
from mmengine.logging import HistoryBuffer
from mmengine.runner.checkpoint import CheckpointLoader, _load_checkpoint_with_prefix, load_checkpoint

from mmgpt.engine.checkpoint import AtomicBackend, to_plain_data
from mmgpt.models.weights.trainable import load_trainable, trainable_names, trainable_state
from mmgpt.utils.atomic import part_path
from tests.helpers.stub_training import StubModel


@pytest.fixture
def trained(make_runner, tmp_path):
    """A finished run of 12 batches, and its folder."""
    runner = make_runner()
    runner.train()
    return runner, tmp_path / "run"


def test_checkpoint_holds_trainable_tensors_only(trained):
    runner, folder = trained
    checkpoint = torch.load(folder / "latest.pth", weights_only=True)
    assert set(checkpoint["state_dict"]) == {
        "norm.weight",
        "norm.bias",
        "norm.running_mean",
        "norm.running_var",
        "norm.num_batches_tracked",
        "gated.weight",
        "gated.bias",
    }
    assert checkpoint["meta"]["iter"] == 12
    assert checkpoint["meta"]["epoch_length"] == 6
    assert len(checkpoint["optimizer"]["state"]) == 4
    assert len(checkpoint["param_schedulers"]) == 2
    # Outside of saving, the model's state is whole.
    assert "frozen.weight" in runner.model.state_dict()


def test_latest_is_the_newest_and_old_ones_are_removed(trained):
    _, folder = trained
    assert sorted(path.name for path in folder.glob("*.pth*")) == ["iter_12.pth", "iter_9.pth", "latest.pth"]
    assert os.path.realpath(folder / "latest.pth") == os.path.realpath(folder / "iter_12.pth")


def test_log_is_restored_on_resume(trained, make_runner):
    runner, folder = trained
    expected = runner.message_hub.get_scalar("train/loss")
    resumed = make_runner(resume=True, load_from=str(folder / "latest.pth"))
    resumed.train()
    restored = resumed.message_hub.get_scalar("train/loss")
    assert restored.data[0].tolist() == expected.data[0].tolist()
    assert restored.mean() == expected.mean()


def test_load_trainable_restores_the_trainable_tensors(trained):
    runner, folder = trained
    model = StubModel()
    load_trainable(model, folder / "latest.pth")
    for name, value in trainable_state(runner.model).items():
        torch.testing.assert_close(model.state_dict()[name], value.cpu())


def test_trainable_names_need_no_state_dict(monkeypatch):
    """For a state dict, 4-bit weights would pack their quantization state at every checkpoint."""
    model = StubModel()
    part = model.gated.lora_A = torch.nn.Linear(4, 2)
    part.weight.requires_grad_(False)
    part.register_buffer("scale", torch.ones(1))
    part.register_buffer("scratch", torch.ones(1), persistent=False)
    monkeypatch.setattr(StubModel, "state_dict", lambda *_, **__: pytest.fail("a state dict is made"))
    lora_names = {name for name in trainable_names(model) if "lora" in name}
    assert lora_names == {"gated.lora_A.weight", "gated.lora_A.bias", "gated.lora_A.scale"}


def damage(folder, change):
    checkpoint = torch.load(folder / "latest.pth", weights_only=True)
    change(checkpoint["state_dict"])
    torch.save(checkpoint, folder / "damaged.pth")
    return folder / "damaged.pth"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("gated.bias"), "1 are missing in it: gated.bias"),
        (lambda state: state.update(other=torch.ones(1)), "1 are in it but not in the model: other"),
        (
            lambda state: state.update({"gated.weight": torch.ones(2, 4)}),
            r"another shape: gated.weight \(2, 4\) instead of \(1, 4\)",
        ),
    ],
)
def test_checkpoint_of_another_model_is_refused(trained, make_runner, change, message):
    path = damage(trained[1], change)
    with pytest.raises(ValueError, match=f"(?s){path.name}.*{message}"):
        load_trainable(StubModel(), path)
    with pytest.raises(ValueError, match=f"(?s){path.name}.*{message}"):
        make_runner(load_from=str(path)).test()


def test_test_run_loads_the_checkpoint(trained, make_runner):
    runner, folder = trained
    tuned = make_runner(load_from=str(folder / "latest.pth")).test()
    assert tuned == runner.test()
    assert tuned != make_runner().test()


def test_resume_with_another_epoch_length_is_refused(trained, make_runner):
    more = "train_dataloader['dataset']['size'] = 14"
    with pytest.raises(ValueError, match="an epoch had 6 batches per process then and has 7 now"):
        make_runner(more, resume=True, load_from=str(trained[1] / "latest.pth")).train()


class Evil:
    """Object that creates a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def save_pickle(content, path):
    path.write_bytes(pickle.dumps(content))


FORMATS = {
    "zip": torch.save,
    "old": partial(torch.save, _use_new_zipfile_serialization=False),
    "pickle": save_pickle,
}


@pytest.fixture(params=FORMATS)
def evil(request, tmp_path):
    """A checkpoint that runs code when it is unpickled, which creates a folder, and that folder."""
    content = dict(
        state_dict=StubModel().state_dict(),
        meta=dict(epoch=0, iter=1, epoch_length=6, asked=Evil(tmp_path / "made")),
        optimizer=dict(state={}, param_groups=[]),
        message_hub=dict(log_scalars=dict(loss=HistoryBuffer([1.0], [1])), runtime_info={}, resumed_keys={}),
    )
    FORMATS[request.param](content, tmp_path / "evil.pth")
    return tmp_path / "evil.pth", tmp_path / "made"


def resume_from_the_folder(make_runner, path, more):
    """Resume by the name of the checkpoint that MMEngine wrote into the work directory."""
    (path.parent / "run").mkdir()
    (path.parent / "run" / "last_checkpoint").write_text(str(path))
    make_runner(more, resume=True).train()


NO_CHECKPOINTS = "default_hooks['checkpoint'] = None\n"
LOADERS = {
    "load_trainable": lambda make_runner, path, more: load_trainable(StubModel(), path),
    "train from": lambda make_runner, path, more: make_runner(more, load_from=str(path)).train(),
    "test": lambda make_runner, path, more: make_runner(more, load_from=str(path)).test(),
    "resume": lambda make_runner, path, more: make_runner(more, resume=True, load_from=str(path)).train(),
    "resume the folder": resume_from_the_folder,
    "MMEngine's load": lambda make_runner, path, more: load_checkpoint(StubModel(), str(path)),
    "MMEngine's loader": lambda make_runner, path, more: CheckpointLoader.load_checkpoint(str(path)),
    "a prefix": lambda make_runner, path, more: _load_checkpoint_with_prefix("gated", str(path)),
}


@pytest.mark.parametrize("more", ["", NO_CHECKPOINTS], ids=["our hook", "no checkpoints"])
@pytest.mark.parametrize("loader", LOADERS)
def test_code_in_a_checkpoint_is_refused_by_every_loader(make_runner, evil, loader, more):
    path, folder = evil
    with pytest.raises(ValueError, match="evil.pth cannot be read as tensors and plain data"):
        LOADERS[loader](make_runner, path, more)
    assert not folder.exists()


def test_config_text_in_a_checkpoint_is_dropped(tmp_path):
    torch.save({"meta": {"config": "a = 1", "iter": 3}, "state_dict": {}}, tmp_path / "text.pth")
    assert CheckpointLoader.load_checkpoint(str(tmp_path / "text.pth"))["meta"] == {"iter": 3}


@pytest.mark.parametrize("address", ["https", "http", "s3", "petrel", "a:s3", "pavi", "torchvision", "modelzoo",
                                     "open-mmlab", "openmmlab", "mmcls", "file"])  # fmt: skip
def test_addresses_are_not_loaded(make_runner, address, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    monkeypatch.setattr("torch.hub.load_state_dict_from_url", lambda *_, **__: pytest.fail("an address is opened"))
    with pytest.raises(FileNotFoundError, match=f"'{address}://x/y.pth': addresses are not loaded, so download it"):
        make_runner(load_from=f"{address}://x/y.pth").train()


def test_damaged_missing_and_foreign_files_are_refused_by_name(tmp_path):
    (tmp_path / "short.pth").write_bytes(b"PK\x03\x04 no archive")
    (tmp_path / "empty.pth").touch()
    torch.save({"weights": 1}, tmp_path / "other.pth")
    for name in ["short", "empty", "other"]:
        with pytest.raises(ValueError, match=f"{name}.pth"):
            load_trainable(StubModel(), tmp_path / f"{name}.pth")
    with pytest.raises(FileNotFoundError, match="gone.pth"):
        load_trainable(StubModel(), tmp_path / "gone.pth")


def test_checkpoints_wait_for_the_end_of_a_step(make_runner, monkeypatch):
    """Twice 6 batches in steps of 4 and 2; due at 3, 6, 9 and 12."""
    runner, saved = make_runner(accumulative_counts=4), []
    save = runner.save_checkpoint
    monkeypatch.setattr(runner, "save_checkpoint", lambda *a, **k: (saved.append(k["meta"]["iter"]), save(*a, **k)))
    runner.train()
    assert saved == [4, 6, 10, 12]


def test_objects_other_than_plain_data_are_refused():
    with pytest.raises(ValueError, match="a checkpoint cannot hold a function"):
        to_plain_data({"a": [lambda: 0]})


def test_atomic_backend_replaces_a_file_when_the_new_one_is_complete(tmp_path, monkeypatch):
    path = tmp_path / "file"
    AtomicBackend().put(b"old", path)
    contents = []
    rename = os.replace
    monkeypatch.setattr(os, "replace", lambda *names: (contents.append(path.read_bytes()), rename(*names)))
    AtomicBackend().put(b"new", path)
    assert contents == [b"old"]
    assert path.read_bytes() == b"new"


def fill_disk(monkeypatch, writes):
    """Make the disk full after this number of checkpoints, in the middle of the next one."""
    left = [writes]
    write = LocalBackend.put

    def put(self, content, path):
        left[0] -= 1
        write(self, content[: len(content) // 2] if left[0] < 0 else content, path)
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(LocalBackend, "put", put)


@pytest.mark.parametrize("kept", [1, 2])
def test_a_full_disk_leaves_the_old_checkpoints(make_runner, tmp_path, monkeypatch, kept):
    more = f"default_hooks['checkpoint']['max_keep_ckpts'] = {kept}"
    fill_disk(monkeypatch, writes=3)
    with pytest.raises(OSError, match="No space left on device.*iter_12.pth"):
        make_runner(more).train()
    names = sorted(path.name for path in (tmp_path / "run").glob("*.pth*"))
    assert names == [*["iter_6.pth", "iter_9.pth"][-kept:], "latest.pth"]
    assert torch.load(tmp_path / "run" / "latest.pth", weights_only=True)["meta"]["iter"] == 9
    monkeypatch.undo()
    make_runner(more, resume=True, load_from=str(tmp_path / "run" / "latest.pth")).train()
    names = sorted(path.name for path in (tmp_path / "run").glob("*.pth*"))
    assert names == [*["iter_12.pth", "iter_9.pth"][:kept], "latest.pth"]


def test_too_little_disk_space_is_an_error_before_the_first_step(make_runner, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(1000, 900, 100))
    runner = make_runner()
    with pytest.raises(ValueError, match="a checkpoint takes about"):
        runner.train()
    assert runner.iter == 0


def test_incomplete_files_of_a_killed_run_are_removed(make_runner, tmp_path):
    (tmp_path / "run").mkdir()
    name = part_path(tmp_path / "iter_8.pth").name.replace(f"-{os.getpid()}-", f"-{2**22 + 1}-")
    (tmp_path / "run" / name).touch()
    make_runner(max_epochs=1).train()
    assert not list((tmp_path / "run").glob("*.part"))


def test_a_checkpoint_names_no_files_outside_the_folder_of_its_run(make_runner, tmp_path):
    """MMEngine removes older checkpoints by the names in the resumed one."""
    mine = tmp_path / "mine.pth"
    mine.touch()
    make_runner(max_epochs=1).train()
    latest = tmp_path / "run" / "latest.pth"
    content = torch.load(latest, weights_only=True)
    content["message_hub"]["runtime_info"].update(best_ckpt=str(mine), keep_ckpt_ids=[3, "/../../mine"])
    torch.save(content, latest.resolve())
    runner = make_runner(resume=True, load_from=str(latest), max_epochs=1)
    runner.train()
    assert runner.message_hub.get_info("best_ckpt") == str(tmp_path / "run" / "mine.pth")
    assert runner.message_hub.get_info("keep_ckpt_ids") == [3]
