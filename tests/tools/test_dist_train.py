"""Training in two processes on the CPU, which is the same as in one."""

import pytest
import torch

from tests.helpers import two_processes
from tests.helpers.tolerances import TERMS, assert_equal_checkpoints, rounding
from tests.helpers.two_processes import arguments, checkpoint, logged

# What is trained, and options.
EQUAL = {
    "batches": ("lora", ["accumulative_counts=1"]),
    "steps": ("lora", ["accumulative_counts=3", "checkpointing=True"]),
    "full": ("full", ["accumulative_counts=2", "checkpointing=True"]),
    "both": ("both", ["accumulative_counts=2"]),
    "without samples": ("lora", ["language=0", "accumulative_counts=3"]),
    "without images": ("lora", ["visual=0"]),
}
# Steps of 3 batches and dropout: what is trained, the batch after which the run ends as if killed, worker processes.
KILLED = {
    "killed 4": ("lora", 4, 0),
    "killed 5": ("lora", 5, 2),
    "killed 9": ("lora", 9, 0),
    "both killed 5": ("both", 5, 0),
}
RESUMED = ["visual=11", "accumulative_counts=3", "dropout=0.3"]


@pytest.fixture(scope="module")
def configs(tmp_path_factory, tiny_flamingo_config):
    return two_processes.write_configs(tmp_path_factory.mktemp("two"), tiny_flamingo_config)


def killed_and_resumed(configs, name):
    """The arguments of the two runs, one after the other in the same folder."""
    kind, after, workers = KILLED[name]
    config = configs[kind]
    options = [*RESUMED, f"workers={workers}"]
    return [arguments(config, name, [*options, f"stop={after}"]), arguments(config, name, options, "--resume")]


@pytest.fixture(scope="module")
def together(configs):
    """The folder in which all runs in two processes are done; they must not hang."""
    runs = [arguments(configs[kind], name, options) for name, (kind, options) in EQUAL.items()]
    runs += [arguments(configs[kind], f"whole {kind}", RESUMED) for kind in ("lora", "both")]
    runs += [run for name in KILLED for run in killed_and_resumed(configs, name)]
    two_processes.train_on_two(configs["lora"].parent, runs)
    return configs["lora"].parent


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
        assert values == pytest.approx(logged(two)[source], rel=rounding(TERMS, 1)), source
    assert_equal_checkpoints(two, one, two_processes.LR)


@pytest.mark.parametrize("name", KILLED)
def test_resumed_run_equals_uninterrupted_one(name, together):
    folders = name, f"whole {KILLED[name][0]}"
    resumed, whole = (checkpoint(together / folder.replace(" ", "_")) for folder in folders)
    assert logged(resumed) == logged(whole)
    assert len(logged(whole)["train/loss"]) == 12
    torch.testing.assert_close(resumed["state_dict"], whole["state_dict"], rtol=0, atol=0)
    torch.testing.assert_close(resumed["optimizer"]["state"], whole["optimizer"]["state"], rtol=0, atol=0)
