"""A config, a checkpoint and an exported folder of commit 073d792, with what they gave then (see data/README.md)."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mmgpt.apis import Chat, build_model
from mmgpt.cli import load_config
from mmgpt.engine.runner import MMGPTRunner

DATA = Path(__file__).parent / "data"


@pytest.fixture
def expected(tmp_path, monkeypatch):
    """What the files gave then; the paths in them are relative to a copy of their folder."""
    shutil.copytree(DATA, tmp_path / "data")
    monkeypatch.chdir(tmp_path / "data")
    return json.loads(Path("expected.json").read_text())


def logits_of(model, expected):
    images = load_file("pixels.safetensors")["pixels"]
    inputs = dict(input_ids=torch.tensor(expected["input_ids"]), image_counts=torch.ones(2, dtype=torch.long))
    with torch.no_grad():
        return model(**inputs, pixels=images, mode="tensor")[:, -1, :16]


def test_the_checkpoint_gives_the_same_logits(expected):
    model = build_model(load_config("experiment.py"), "iter_2.pth", "cpu")
    then = torch.tensor(expected["last_logits"])
    torch.testing.assert_close(logits_of(model, expected), then, rtol=0, atol=1e-4)


def test_the_exported_folder_gives_the_same_answer(expected):
    chat = Chat.from_config("exported", device="cpu")
    assert chat.ask(chat.start(), "what is the shape") == expected["answer"]


def test_the_run_is_resumed_to_the_same_weights(expected, tmp_path):
    cfg = load_config("experiment.py", {"train_cfg.max_epochs": 2})
    cfg.update(work_dir=str(tmp_path / "run"), experiment_name=tmp_path.name, resume=True, load_from="iter_2.pth")
    MMGPTRunner.from_cfg(cfg).train()
    state = torch.load(tmp_path / "run" / "iter_4.pth", weights_only=True)["state_dict"]
    norms = {name: value.norm().item() for name, value in state.items()}
    assert norms == pytest.approx(expected["norms_after_epoch_2"], abs=1e-4)
