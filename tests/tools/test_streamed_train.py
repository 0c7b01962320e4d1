"""Training on shards in two processes of two workers each, streamed and by an index, and evaluation with a control."""

import json
from collections import Counter

import pytest
import torch

from tests.helpers import two_processes
from tests.helpers.scripts import ROOT, run_script
from tests.helpers.streamed_training import SHARDS, seen, write_shard_configs
from tests.helpers.two_processes import arguments, checkpoint

BATCHES = 5  # of an epoch in each process: 17 photos, 2 a batch


@pytest.fixture(scope="module")
def runs(tmp_path_factory, tiny_flamingo_config):
    """The folder of runs, and of runs that are killed, and resumed, one of them with other numbers of workers."""
    folder = tmp_path_factory.mktemp("streamed")
    options, commands = ["dropout=0.3"], []
    for config in write_shard_configs(folder, tiny_flamingo_config):
        commands += [arguments(config, f"{config.stem}_whole", options)]
        commands += [arguments(config, config.stem, [*options, "stop=3"])]
        if config.stem == "streamed":
            commands += [arguments(config, config.stem, [*options, "stop=7", "workers=0"], "--resume")]
        commands += [arguments(config, config.stem, options, "--resume")]
    two_processes.train_on_two(folder, commands)
    return folder


@pytest.mark.parametrize("name", ["streamed", "indexed"])
def test_every_sample_comes_once_an_epoch_in_equally_many_batches(runs, name):
    for epoch in range(2):
        counts = Counter()
        for rank in range(2):
            batches = seen(runs / f"{name}_whole", rank)[epoch * BATCHES : (epoch + 1) * BATCHES]
            assert [number for number, _ in batches] == list(range(epoch * BATCHES, (epoch + 1) * BATCHES))
            counts.update(tuple(name) for _, names in batches for name in names)
        photos = {key: count for key, count in counts.items() if key[0] == "photos"}
        assert photos == {("photos", f"sample-{i}"): 1 for i in range(sum(SHARDS["photos"]))}
        assert sum(counts.values()) - len(photos) == 2 * BATCHES


@pytest.mark.parametrize("name", ["streamed", "indexed"])
def test_a_killed_run_ends_in_the_weights_of_an_unbroken_one(runs, name):
    for rank in range(2):
        assert seen(runs / name, rank) == seen(runs / f"{name}_whole", rank)
    resumed, whole = (checkpoint(runs / folder) for folder in (name, f"{name}_whole"))
    assert whole["meta"]["iter"] == 2 * BATCHES
    for part in ("state_dict", "optimizer"):
        torch.testing.assert_close(resumed[part], whole[part], rtol=0, atol=0)


def test_an_evaluation_on_shards_has_its_control(runs):
    weights = runs / "indexed" / "latest.pth"
    options = ["--work-dir", runs / "test", "--controls", "other"]
    run_script(ROOT / "tools" / "test.py", runs / "indexed.py", weights, *options).check_returncode()
    files = [path / "predictions.jsonl" for path in sorted((runs / "test" / "evaluation").iterdir())]
    rows = [[json.loads(line) for line in file.read_text().splitlines()] for file in files]
    assert [len(kind) for kind in rows] == [sum(SHARDS["photos"])] * 2
    for first, second in zip(*rows, strict=True):
        assert (first["images"] == second["images"]) == (not first["images"])
