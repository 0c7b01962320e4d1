"""rank_loader: the batches of a process are those that it gets in a run."""

import pytest
import torch.distributed
from mmengine.config import Config
from mmengine.dist import get_dist_info
from torch.utils.data import Dataset

from mmgpt.engine.loader import rank_loader
from mmgpt.registry import DATASETS


@DATASETS.register_module()
class Numbers(Dataset):
    """The numbers 0..n-1, the first half of which is 'visual'; an index of a later epoch is n more."""

    def __init__(self, n):
        self.n, self.visual_size, self.language_size = n, n // 2, n - n // 2

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        return i


def config(n=12, batch_sampler=None, shuffle=False, seed=3, **loader):
    loader = dict(
        batch_size=2,
        num_workers=4,
        persistent_workers=True,
        prefetch_factor=2,
        pin_memory=True,
        dataset=dict(type="Numbers", n=n),
        sampler=dict(type="DefaultSampler", shuffle=shuffle),
        collate_fn=dict(type="pseudo_collate"),
        **loader,
    )
    if batch_sampler:
        loader["batch_sampler"] = batch_sampler
    return Config(dict(train_dataloader=loader, test_dataloader=loader, randomness=dict(seed=seed)))


JOINT = dict(type="JointBatchSampler", language_batch_size=1)


def batches(*args, **kwargs):
    return [list(batch) for batch in rank_loader(*args, **kwargs)]


def test_each_rank_gets_its_share():
    assert batches(config(), "train") == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9], [10, 11]]
    assert batches(config(), "train", 0, 2) == [[0, 2], [4, 6], [8, 10]]
    assert batches(config(), "train", 1, 2) == [[1, 3], [5, 7], [9, 11]]
    assert batches(config(), "test", 1, 2) == [[1, 3], [5, 7], [9, 11]]


def test_a_batch_sampler_gives_the_share_too():
    assert batches(config(batch_sampler=JOINT), "train", 1, 2) == [[1, 3, 7], [5, 9]]
    assert not torch.distributed.is_initialized() and get_dist_info() == (0, 1)


@pytest.mark.parametrize("batch_sampler", [None, JOINT])
def test_order_follows_seed_and_epoch(batch_sampler):
    def order(epoch, **changes):
        shown = batches(config(100, batch_sampler, shuffle=True, **changes), "train", epoch=epoch)
        return [i % 100 for batch in shown for i in batch]

    assert order(0) == order(0) != order(1)
    assert order(0) != order(0, seed=4)
    # As MMEngine sets it: sampler.set_epoch.
    loader = rank_loader(config(100, batch_sampler, shuffle=True), "train", epoch=5)
    sampler = loader.batch_sampler.sampler
    assert (sampler.epoch, sampler.seed, sampler.world_size) == (5, 3, 1)


def test_no_worker_is_started_and_the_config_stays():
    cfg = config()
    assert rank_loader(cfg, "train").num_workers == 0 and cfg.train_dataloader.num_workers == 4


def test_without_a_seed_the_order_is_the_same_each_time():
    assert rank_loader(config(seed=None), "train").batch_sampler.sampler.seed == 0
    plain = {key: value for key, value in config().items() if key != "randomness"}
    assert rank_loader(plain, "train").batch_sampler.sampler.seed == 0


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
def test_mistakes(arguments, words):
    with pytest.raises(ValueError, match=words):
        rank_loader(config(), *arguments)
