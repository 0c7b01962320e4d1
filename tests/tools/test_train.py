"""tools/train.py and tools/test.py as users run them."""

import errno
import json
import os
import re
import runpy
import shutil
import signal
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.fileio import LocalBackend
from mmengine.logging import MessageHub, MMLogger
from mmengine.visualization import Visualizer

from mmgpt.registry import MODELS
from tests.helpers.launching import TRAIN, run_launcher
from tests.helpers.scripts import ROOT, run_script, started_script
from tests.helpers.stub_training import write_config


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A function that runs a tool within this process, in an empty folder, and returns its exit code."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOCAL_RANK", "0")

    def in_process(tool, *arguments):
        # MMEngine keeps these by config name and second, and would hand on those of the run before.
        for kind in (MMLogger, MessageHub, Visualizer):
            kind._instance_dict.clear()
        monkeypatch.setattr(sys, "argv", [str(ROOT / "tools" / tool), *map(str, arguments)])
        try:
            runpy.run_path(sys.argv[0], run_name="__main__")
        except SystemExit as end:
            return end.code
        return 0

    return in_process


def losses(work_dir):
    """Loss by step, as the newest log in the folder has it."""
    log = max(Path(work_dir).glob("*/vis_data/scalars.json"))
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    return {row["step"]: row["loss"] for row in rows if "loss" in row}


def test_train_then_test(tmp_path, run, capsys):
    config = write_config(tmp_path)
    assert run("train.py", config, "--seed", 3, "--cfg-options", "max_epochs=1") == 0
    work_dir = tmp_path / "work_dirs" / "stub"
    assert sorted(losses(work_dir)) == [1, 2, 3, 4, 5, 6]
    used = Config.fromfile(work_dir / "stub.py")
    assert used.seed == 3
    assert used.randomness == {"seed": 3}

    assert run("test.py", config, work_dir / "latest.pth", "--out", tmp_path / "m.json") == 0
    metrics = json.loads((tmp_path / "m.json").read_text())
    assert metrics["error"] > 0
    assert json.dumps(metrics, indent=2) in capsys.readouterr().out


def test_a_config_with_infinities_is_written_and_resumed(tmp_path, run):
    config = write_config(
        tmp_path, more="limits = dict(low=-float('inf'), high=float('inf'), pair=(1,))\nmax_epochs = 1\n"
    )
    assert run("train.py", config) == 0
    work_dir = tmp_path / "work_dirs" / "stub"
    limits = dict(low=-float("inf"), high=float("inf"), pair=(1,))
    assert Config.fromfile(work_dir / "stub.py").limits == limits
    written = torch.load(work_dir / "latest.pth", weights_only=True)["meta"]["cfg"]
    assert Config.fromstring(written, ".py").limits == limits
    assert run("train.py", work_dir / "stub.py", "--work-dir", work_dir, "--resume") == 0


@contextmanager
def started(tmp_path, *arguments):
    """A slow training that has written its first checkpoint, within a `with` block."""
    slow = ["--cfg-options", "train_dataloader.dataset.seconds=0.2", "max_epochs=100"]
    with started_script(TRAIN, *arguments, *slow, output=tmp_path / "shown.txt") as process:
        deadline = time.monotonic() + 240
        while not list((tmp_path / "run").glob("iter_*.pth")):
            assert process.is_alive() and time.monotonic() < deadline, (tmp_path / "shown.txt").read_text()[-2000:]
            time.sleep(0.02)
        yield process


def test_a_second_training_in_a_work_dir_is_refused_and_a_deleted_one_is_told(tmp_path, run, capsys):
    config = write_config(tmp_path)
    with started(tmp_path, config, "--work-dir", tmp_path / "run") as process:
        logs = sorted(path for path in (tmp_path / "run").iterdir() if path.is_dir())
        for more in ([], ["--resume"]):
            assert run("train.py", config, "--work-dir", tmp_path / "run", *more) == 1
            assert f"is in use by process {process.pid} on " in capsys.readouterr().err
        assert logs == sorted(path for path in (tmp_path / "run").iterdir() if path.is_dir())
        shutil.rmtree(tmp_path / "run")
        process.join(timeout=120)
    assert process.exitcode == 74
    assert "run' was deleted during the training" in (tmp_path / "shown.txt").read_text()


def test_killed_run_goes_on_where_it_was(tmp_path, run):
    config = write_config(tmp_path)
    assert run("train.py", config, "--work-dir", tmp_path / "whole") == 0
    expected = losses(tmp_path / "whole")

    killed = tmp_path / "killed"
    arguments = [TRAIN, config, "--work-dir", killed, "--resume"]
    shown = tmp_path / "shown.txt"
    slow = ["--cfg-options", "train_dataloader.dataset.seconds=0.3"]
    with started_script(*arguments, *slow, output=shown) as process:
        deadline = time.monotonic() + 240
        while not (killed / "iter_6.pth").exists() and process.is_alive() and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.7)
    assert process.exitcode == -signal.SIGKILL, shown.read_text()[-2000:]
    assert "starting from the beginning" in shown.read_text()
    assert 6 <= max(losses(killed)) < 12

    run_script(*arguments).check_returncode()
    resumed = losses(killed)
    assert min(resumed) > 6
    assert resumed == {step: loss for step, loss in expected.items() if step >= min(resumed)}


@pytest.mark.parametrize(
    ("more", "arguments", "words"),
    [
        ("model['type'] = 'StubModle'", [], ["'StubModle'", "is not a registered model", "did you mean 'StubModel'"]),
        (
            "train_dataloader['dataset']['type'] = 'X'",
            [],
            ["'X'", "not a registered dataset", "Choices: ", "StubData"],
        ),
        ("model['widht'] = 3", [], ["arguments in the config do not fit", "did you mean 'width'"]),
        ("model['width'] = '${widht}'", [], ["model.width", "${widht}"]),
        ("model['path'] = 'weights/llama'", [], ["1 files", "weights/llama", "model.path=..."]),
        ("", ["--cfg-options", "lrr=1"], ["lrr", "did you mean 'lr'"]),
        ("", ["--resume", "gone.pth"], ["no checkpoint 'gone.pth'"]),
    ],
)
def test_mistakes_end_with_a_message(tmp_path, run, capsys, more, arguments, words):
    assert run("train.py", write_config(tmp_path, more=more), *arguments) == 1
    message = capsys.readouterr().err.partition("error: ")[2]
    for word in words:
        assert word in message


def test_the_newest_complete_checkpoint_is_resumed(tmp_path, run, capsys):
    """Though the last one was cut when the machine went down, and latest.pth points at it."""
    config = write_config(tmp_path)
    assert run("train.py", config, "--work-dir", tmp_path / "run") == 0
    last = tmp_path / "run" / "iter_12.pth"
    expected = torch.load(last, weights_only=True)["state_dict"]
    last.write_bytes(last.read_bytes()[:10000])
    assert run("train.py", config, "--work-dir", tmp_path / "run", "--resume") == 0
    shown = capsys.readouterr().out
    assert re.search(r"--resume: \S+iter_12.pth is incomplete and skipped", shown)
    assert re.search(r"--resume: going on from \S+iter_9.pth", shown)
    again = torch.load(last, weights_only=True)["state_dict"]
    assert all(torch.equal(again[name], expected[name]) for name in expected)
    assert os.readlink(tmp_path / "run" / "latest.pth") == "iter_12.pth"


def test_resume_in_the_config_with_other_settings(tmp_path, run, capsys):
    """It stands for --resume; a test with that config is none."""
    config, latest = write_config(tmp_path), tmp_path / "run" / "latest.pth"
    arguments = [config, "--work-dir", tmp_path / "run", "--cfg-options", "resume=True"]
    assert run("train.py", *arguments, "max_epochs=1") == 0
    assert "--resume: no checkpoint in" in capsys.readouterr().out
    for scalars in (tmp_path / "run").glob("*/vis_data/scalars.json"):
        scalars.unlink()  # a run that starts in the same second has the same folder of logs
    assert run("train.py", *arguments, "max_epochs=2", "lr=1e-3") == 0
    shown = capsys.readouterr().out
    assert "going on from" in shown
    assert "optim_wrapper.optimizer.lr: 0.002 then, 0.001 now" in shown
    # Two runs that start within a second write into one log.
    assert sorted(losses(tmp_path / "run"))[-6:] == [7, 8, 9, 10, 11, 12]
    assert run("train.py", *arguments, "max_epochs=2", "lr=1e-3", "accumulative_counts=2", "seed=1") == 1
    message = capsys.readouterr().err.partition("error: ")[2]
    for words in ("cannot resume", "accumulative_counts: 1 then, 2 now", "seed: 0 then, 1 now", "load_from="):
        assert words in message
    assert run("test.py", config, latest, "--cfg-options", "resume=True") == 0


def test_a_work_dir_that_cannot_be_written_is_told_first(tmp_path, run, capsys):
    (tmp_path / "run").touch()
    config = write_config(tmp_path, more="model['path'] = 'weights/llama'")
    assert run("train.py", config, "--work-dir", tmp_path / "run") == 1
    assert "run' cannot be written (File exists); see --work-dir" in capsys.readouterr().err


def test_a_full_disk_has_its_own_exit_code(tmp_path, run, capsys, monkeypatch):
    write = LocalBackend.put

    def put(self, content, path):
        if "iter_9" in str(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(self, content, path)

    monkeypatch.setattr(LocalBackend, "put", put)
    assert run("train.py", write_config(tmp_path), "--work-dir", tmp_path / "run") == 74
    assert "iter_9.pth: No space left on device. Complete files are still there" in capsys.readouterr().err
    assert os.readlink(tmp_path / "run" / "latest.pth") == "iter_6.pth"
    [log] = (tmp_path / "run").glob("*/*.log")
    assert "process 0 ended by OSError: [Errno 28]" in log.read_text()


def test_amp_without_a_gpu(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    set_amp = runpy.run_path(str(ROOT / "tools" / "train.py"))["set_amp"]
    module = dict(type="Flamingo", language=dict(path="somewhere"))
    cfg = Config(dict(model=dict(type="LoRAModel", module=module), optim_wrapper=dict(type="OptimWrapper")))
    set_amp(cfg)
    assert cfg.model.module.language == dict(path="somewhere", dtype="bfloat16")
    assert cfg.optim_wrapper == dict(type="OptimWrapper")
    cfg = Config(dict(model=dict(module, frozen=["vision"]), optim_wrapper=dict(type="OptimWrapper")))
    with pytest.raises(ValueError, match="--amp needs a GPU where the language model is trained"):
        set_amp(cfg)


def test_amp_without_a_gpu_trains_gated_blocks_in_float32(monkeypatch, tiny_flamingo_config):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    set_amp = runpy.run_path(str(ROOT / "tools" / "train.py"))["set_amp"]
    cfg = Config(dict(model=tiny_flamingo_config | dict(frozen=["vision", "language"]), optim_wrapper={}))
    set_amp(cfg)
    assert cfg.model.gated.every_n_layers == 2
    weights = list(MODELS.build(cfg.model).language.parameters())
    assert {weight.dtype for weight in weights if weight.requires_grad} == {torch.float32}
    assert {weight.dtype for weight in weights if not weight.requires_grad} == {torch.bfloat16}


def test_mistakes_of_testing(tmp_path, run, capsys):
    config = write_config(tmp_path)
    (tmp_path / "broken.pth").write_bytes(b"PK\x03\x04 no archive")
    for arguments, word in [
        ([config, "gone.pth"], "no checkpoint 'gone.pth'"),
        ([config, "broken.pth"], "cannot be read"),
        ([config.with_name("stubb.py")], "did you mean 'stub.py'"),
    ]:
        assert run("test.py", *arguments) == 1
        assert word in capsys.readouterr().err


@pytest.mark.parametrize("workers", [0, 1])
def test_mistake_in_the_data(tmp_path, run, capsys, monkeypatch, workers):
    """The same message, whether the data is read in this process or in a worker. (The stub plays the package.)"""
    monkeypatch.setattr("mmgpt.__file__", str(ROOT / "tests" / "__init__.py"))
    config = write_config(tmp_path, more="train_dataloader['dataset']['broken'] = 5")
    assert run("train.py", config, "--cfg-options", f"workers={workers}") == 1
    assert "error: broken.json, record 5: no 'answer'\n" in capsys.readouterr().err


def test_faults_of_the_program_keep_their_traceback(tmp_path, run, monkeypatch):
    monkeypatch.setattr("mmgpt.cli.tool.load_config", lambda *_: int("x" * 3, 0) / 0)
    monkeypatch.setattr("mmgpt.__file__", str(tmp_path / "elsewhere" / "__init__.py"))
    with pytest.raises(ValueError, match="invalid literal"):
        run("train.py", write_config(tmp_path))


def test_two_processes_without_a_gpu(tmp_path):
    """Both train, each on its half of the data, and only one writes."""
    config = write_config(tmp_path)
    done = run_launcher("dist_train.sh", config, 2, "--work-dir", tmp_path / "two")
    assert done.returncode == 0, done.stderr[-2000:]
    assert sorted(losses(tmp_path / "two")) == [1, 2, 3, 4, 5, 6]
    assert (tmp_path / "two" / "latest.pth").exists()


class Asks:
    """Asks, when it is unpickled, for a folder to be made."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


@pytest.mark.parametrize("way", ["load_from", "--resume", "--resume FILE", "test.py"])
def test_a_checkpoint_that_asks_for_code_is_refused(run, tmp_path, capsys, way):
    config, folder = write_config(tmp_path), tmp_path / "run"
    folder.mkdir()
    latest = folder / "latest.pth"
    torch.save({"state_dict": {}, "meta": {"iter": 1, "asks": Asks(tmp_path / "made")}, "optimizer": {}}, latest)
    arguments = {
        "load_from": ["train.py", config, "--cfg-options", f"load_from={latest}"],
        "--resume": ["train.py", config, "--resume"],
        "--resume FILE": ["train.py", config, "--resume", latest],
        "test.py": ["test.py", config, latest],
    }
    assert run(*arguments[way], "--work-dir", folder) == 1
    shown = capsys.readouterr().err
    assert re.search(r"error: .*latest.pth cannot be read .* asks for (posix|nt).mkdir .* which is refused", shown)
    assert "Traceback" not in shown
    assert not (tmp_path / "made").exists()
