"""Training in two processes on the CPU, which is the same as in one."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
STUBS = [str(ROOT / "tests" / "engine"), str(ROOT / "tests" / "tools")]
sys.path[:0] = STUBS

import two_processes  # noqa: E402

# What is trained, and options.
EQUAL = {
    "batches": ("lora", ["accumulative_counts=1"]),
    "steps": ("lora", ["accumulative_counts=3", "checkpointing=True"]),
    "full": ("full", ["accumulative_counts=2", "checkpointing=True"]),
    "without samples": ("lora", ["language=0", "accumulative_counts=3"]),
    "without images": ("lora", ["visual=0"]),
}
# Steps of 3 batches and dropout; the batch after which the run ends as if killed, and worker processes.
KILLED = {"killed 4": (4, 0), "killed 5": (5, 2), "killed 9": (9, 0)}
RESUMED = ["visual=11", "accumulative_counts=3", "dropout=0.3"]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def configs(tmp_path_factory, tiny_flamingo_config):
    return two_processes.write_configs(tmp_path_factory.mktemp("two"), tiny_flamingo_config)


def arguments(config, name, options, *more):
    folder = config.parent / name.replace(" ", "_")
    return [str(config), "--work-dir", str(folder), *more, "--cfg-options", *options]


def killed_and_resumed(config, name):
    """The arguments of the two runs, one after the other in the same folder."""
    after, workers = KILLED[name]
    options = [*RESUMED, f"workers={workers}"]
    return [arguments(config, name, [*options, f"stop={after}"]), arguments(config, name, options, "--resume")]


@pytest.fixture(scope="module")
def together(configs):
    """The folder in which all runs in two processes are done; they must not hang."""
    runs = [arguments(configs[kind], name, options) for name, (kind, options) in EQUAL.items()]
    runs += [arguments(configs["lora"], "whole", RESUMED)]
    runs += [run for name in KILLED for run in killed_and_resumed(configs["lora"], name)]
    folder = configs["lora"].parent
    (folder / "runs.json").write_text(json.dumps(runs))
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), *STUBS]),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    start = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(free_port())]
    script = str(ROOT / "tests" / "tools" / "two_processes.py")
    done = subprocess.run(
        [*start, script, str(folder / "runs.json")], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-5000:]
    return folder


def checkpoint(folder):
    return torch.load(folder / "latest.pth", weights_only=True)


def logged(state):
    """The loss of every batch by source, as the log has it."""
    scalars = state["message_hub"]["log_scalars"]
    return {name: value["history"][0].tolist() for name, value in scalars.items() if name.startswith("train/loss")}


@pytest.mark.parametrize("name", EQUAL)
def test_two_processes_equal_one(name, together, configs, monkeypatch):
    """The same global batches: losses and weights, with processes that have no image or no sample in some batches."""
    kind, options = EQUAL[name]
    monkeypatch.setenv("LOCAL_RANK", "0")
    alone = [*options, "batch_size=2", "language_batch_size=2"]
    two_processes.train(arguments(configs[kind], f"{name} alone", alone))
    two, one = (checkpoint(together / folder.replace(" ", "_")) for folder in (name, f"{name} alone"))
    assert logged(two).keys() == logged(one).keys()
    for source, values in logged(one).items():
        assert values == pytest.approx(logged(two)[source], rel=1e-6), source
    torch.testing.assert_close(two["state_dict"], one["state_dict"], rtol=0, atol=1e-6)
    torch.testing.assert_close(two["optimizer"]["state"], one["optimizer"]["state"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", KILLED)
def test_resumed_run_equals_uninterrupted_one(name, together):
    resumed, whole = (checkpoint(together / folder.replace(" ", "_")) for folder in (name, "whole"))
    assert logged(resumed) == logged(whole) and len(logged(whole)["train/loss"]) == 12
    torch.testing.assert_close(resumed["state_dict"], whole["state_dict"], rtol=0, atol=0)
    torch.testing.assert_close(resumed["optimizer"]["state"], whole["optimizer"]["state"], rtol=0, atol=0)
