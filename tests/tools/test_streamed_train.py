"""Training on streamed shards in two processes of two workers each, and in one."""

from collections import Counter

import pytest
import torch

from tests.helpers import two_processes
from tests.helpers.streamed_training import SHARDS, seen, write_streamed_config
from tests.helpers.two_processes import arguments, checkpoint

BATCHES = 5  # of an epoch in each process: 17 photos, 2 a batch


@pytest.fixture(scope="module")
def runs(tmp_path_factory, tiny_flamingo_config):
    """The folder of a run, and of one that is killed, and resumed with other numbers of workers."""
    folder = tmp_path_factory.mktemp("streamed")
    config = write_streamed_config(folder, tiny_flamingo_config)
    options = ["dropout=0.3"]
    commands = [arguments(config, "whole", options), arguments(config, "resumed", [*options, "stop=3"])]
    commands += [arguments(config, "resumed", [*options, "stop=7", "workers=0"], "--resume")]
    commands += [arguments(config, "resumed", options, "--resume")]
    two_processes.train_on_two(folder, commands)
    return folder


def test_every_sample_comes_once_an_epoch_in_equally_many_batches(runs):
    for epoch in range(2):
        counts = Counter()
        for rank in range(2):
            batches = seen(runs / "whole", rank)[epoch * BATCHES : (epoch + 1) * BATCHES]
            assert [number for number, _ in batches] == list(range(epoch * BATCHES, (epoch + 1) * BATCHES))
            counts.update(tuple(name) for _, names in batches for name in names)
        photos = {key: count for key, count in counts.items() if key[0] == "photos"}
        assert photos == {("photos", f"sample-{i}"): 1 for i in range(sum(SHARDS["photos"]))}
        assert sum(counts.values()) - len(photos) == 2 * BATCHES


def test_a_killed_run_ends_in_the_weights_of_an_unbroken_one(runs):
    for rank in range(2):
        assert seen(runs / "resumed", rank) == seen(runs / "whole", rank)
    resumed, whole = (checkpoint(runs / name) for name in ("resumed", "whole"))
    assert whole["meta"]["iter"] == 2 * BATCHES
    for part in ("state_dict", "optimizer"):
        torch.testing.assert_close(resumed[part], whole[part], rtol=0, atol=0)
