"""Data whose samples have names, and some of which end, poison or interrupt a run, for tests of faults.

The configs of these tests import it by ``custom_imports``: append `FAULTY` to the stub config.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from engine_stub import StubData, StubModel
from mmengine.registry import FUNCTIONS
from torch.utils.data import default_collate

from mmgpt.registry import DATASETS, MODELS

FAULTY = """
custom_imports['imports'] += ['fault_stub']
model['type'] = 'NamedModel'
train_dataloader['dataset']['type'] = 'FaultyData'
train_dataloader['collate_fn'] = dict(type='named_collate')
"""


@MODELS.register_module(force=True)
class NamedModel(StubModel):
    """The stub model on batches that have `metas`; its loss is that of the source 'stub'."""

    def forward(self, x, y, metas=None, mode="loss", **rest):  # what the throughput counts
        outputs = super().forward(x, y, mode=mode)
        return {"loss_stub": outputs["loss"]} if mode == "loss" else outputs


@FUNCTIONS.register_module(force=True)
def named_collate(samples: Sequence[dict]) -> dict:
    """A batch with the fields of a real one that hooks look at."""
    metas = [sample.pop("meta") for sample in samples]
    mask = torch.ones(len(samples), 5, dtype=torch.long)
    return {**default_collate(samples), "metas": metas, "sources": ["stub"] * len(metas), "attention_mask": mask}


@DATASETS.register_module(force=True)
class FaultyData(StubData):
    """`infinite` samples have an infinite target, `huge` ones one whose gradient is infinite and whose loss is capped.

    Reading the sample number `raising` raises a RuntimeError; reading `signalled` sends `signum` to the process that
    trains, or to all of its group, once: until `once`, a file, is there.
    """

    def __init__(self, infinite=(), raising=-1, signalled=-1, signum=0, group=False, once="", **options):
        super().__init__(**options)
        self.infinite, self.raising = infinite, raising
        self.signalled, self.signum, self.group, self.once = signalled, signum, group, once

    def __getitem__(self, index: int) -> dict:
        if index == self.raising:
            raise RuntimeError(f"sample {index} is broken")
        if index == self.signalled and not Path(self.once).exists():
            Path(self.once).touch()
            trainer = os.getpid() if torch.utils.data.get_worker_info() is None else os.getppid()
            (os.killpg if self.group else os.kill)(os.getpgid(0) if self.group else trainer, self.signum)
        sample = super().__getitem__(index)
        if index in self.infinite:
            sample["y"] = torch.tensor(torch.inf)
        return {**sample, "meta": {"dataset": "stub", "id": index}}
