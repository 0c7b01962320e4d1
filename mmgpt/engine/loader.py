"""Data loader of one process of a run, built without the run."""

from collections.abc import Mapping

import torch.distributed
from mmengine.registry import DATASETS, init_default_scope
from mmengine.runner import Runner
from torch.utils.data import DataLoader

# Arguments that have an effect, or are allowed, with worker processes only.
WORKER_ARGUMENTS = ("persistent_workers", "prefetch_factor", "multiprocessing_context", "timeout", "pin_memory")


def dataloader_of_rank(cfg: Mapping, split: str, rank: int = 0, world_size: int = 1, epoch: int = 0) -> DataLoader:
    """The data loader that a run builds in its process `rank` of `world_size`, set to an epoch, without workers.

    Args:
        cfg: config from `load_config`. Where its `randomness` has no seed, a run would draw one; here the seed is 0.
        split: 'train', 'val' or 'test'.
        epoch: counted from 0; only the training split has more than one.

    Raises:
        ValueError: the config has no such split, or rank or epoch are out of range.
    """
    loader_cfg = cfg.get(f"{split}_dataloader")
    if not loader_cfg:
        raise ValueError(f"the config sets no {split}_dataloader")
    if not 0 <= rank < world_size:
        raise ValueError(f"rank {rank} of {world_size} processes: ranks go from 0 to the number of processes - 1")
    if epoch < 0 or epoch and split != "train":
        raise ValueError(f"epoch {epoch} of the {split} split: epochs start at 0, and only training has others")
    init_default_scope(cfg.get("default_scope", "mmgpt"))
    loader_cfg = {key: value for key, value in loader_cfg.items() if key not in WORKER_ARGUMENTS} | {"num_workers": 0}
    # The dataset is built before the fake process group, in which it would wait for processes that do not exist.
    loader_cfg["dataset"] = DATASETS.build(loader_cfg["dataset"])
    # Samplers read rank and world size when they are built, from a process group of which only this process exists.
    torch.distributed.init_process_group("fake", rank=rank, world_size=world_size)
    try:
        loader = Runner.build_dataloader(loader_cfg, seed=(cfg.get("randomness") or {}).get("seed") or 0)
    finally:
        torch.distributed.destroy_process_group()
    # MMEngine's DistSamplerSeedHook sets the epoch in the same way.
    for sampler in (loader.sampler, getattr(loader.batch_sampler, "sampler", None)):
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(epoch)
    return loader
