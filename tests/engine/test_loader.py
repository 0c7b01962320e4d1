"""dataloader_of_rank: the batches of a process are those that it gets in a run."""

import pytest
import torch.distributed
from mmengine.config import Config
from mmengine.dist import get_dist_info
from torch.utils.data import Dataset

from mmgpt.engine.loader import dataloader_of_rank
from mmgpt.registry import DATASETS


@DATASETS.register_module()
class Numbers(Dataset):
    """The numbers 0 to n - 1."""

    def __init__(self, n):
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        return i


def config(n=12, shuffle=False, seed=3):
    loader = dict(
        batch_size=2,
        num_workers=4,
        persistent_workers=True,
        prefetch_factor=2,
        pin_memory=True,
        dataset=dict(type="Numbers", n=n),
        sampler=dict(type="DefaultSampler", shuffle=shuffle),
        collate_fn=dict(type="pseudo_collate"),
    )
    return Config(dict(train_dataloader=loader, test_dataloader=loader, randomness=dict(seed=seed)))


def batches(*args, **kwargs):
    return [list(batch) for batch in dataloader_of_rank(*args, **kwargs)]


def test_each_rank_gets_its_share():
    assert batches(config(), "train") == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9], [10, 11]]
    assert batches(config(), "train", 0, 2) == [[0, 2], [4, 6], [8, 10]]
    assert batches(config(), "train", 1, 2) == [[1, 3], [5, 7], [9, 11]]
    assert batches(config(), "test", 1, 2) == [[1, 3], [5, 7], [9, 11]]
    assert not torch.distributed.is_initialized()
    assert get_dist_info() == (0, 1)


def test_order_follows_seed_and_epoch():
    def order(epoch, **changes):
        return sum(batches(config(100, shuffle=True, **changes), "train", epoch=epoch), [])

    assert sorted(order(0)) == list(range(100))
    assert order(0) == order(0)
    assert order(0) != order(1)
    assert order(0) != order(0, seed=5)
    # MMEngine's sampler shuffles by seed + epoch.
    assert order(1) == order(0, seed=4)


def test_no_worker_is_started_and_the_config_stays():
    cfg = config()
    assert dataloader_of_rank(cfg, "train").num_workers == 0
    assert cfg.train_dataloader.num_workers == 4


def test_without_a_seed_the_order_is_the_same_each_time():
    assert dataloader_of_rank(config(seed=None), "train").batch_sampler.sampler.seed == 0
    plain = {key: value for key, value in config().items() if key != "randomness"}
    assert dataloader_of_rank(plain, "train").batch_sampler.sampler.seed == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("val",), "no val_dataloader"),
        (("train", 2, 2), "rank 2 of 2"),
        (("train", -1, 2), "rank -1 of 2"),
        (("train", 0, 0), "rank 0 of 0"),
        (("test", 0, 1, 1), "epoch 1 of the test split"),
        (("train", 0, 1, -1), "epoch -1"),
    ],
)
def test_splits_ranks_and_epochs_out_of_range_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        dataloader_of_rank(config(), *arguments)
