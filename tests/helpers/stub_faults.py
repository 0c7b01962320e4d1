"""Stub data whose samples have names, and of which some fail, give non-finite losses or send signals to the run.

The configs of these tests import it by ``custom_imports``: append `FAULTY` to the stub config.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.registry import FUNCTIONS
from torch.utils.data import default_collate

from mmgpt.registry import DATASETS, MODELS
from tests.helpers.stub_training import StubData, StubModel

# Targets that make the gradients infinite but not the loss, and the loss but not the gradients.
HUGE, CONSTANT = 1e7, 1e8

FAULTY = """
custom_imports['imports'] += ['tests.helpers.stub_faults']
model['type'] = 'NamedModel'
train_dataloader['dataset']['type'] = 'FaultyData'
train_dataloader['collate_fn'] = dict(type='named_collate')
"""


@MODELS.register_module(force=True)
class NamedModel(StubModel):
    """The stub model on batches that have `metas`; its loss is that of the source 'stub'."""

    def forward(self, x, y, metas=None, mode="loss", **rest):  # rest: fields that the throughput counts
        outputs = super().forward(x, y.clamp(max=1e6), mode=mode)
        if mode != "loss":
            return outputs
        loss, top = outputs["loss"], float(y.max())
        if top == HUGE:
            loss = loss.sub(loss.detach()).abs().sqrt()  # 0, with an infinite slope
        elif top == CONSTANT:
            loss = loss + torch.inf
        elif top == torch.inf:
            loss = loss * torch.inf
        return {"loss_stub": loss}


@FUNCTIONS.register_module(force=True)
def named_collate(samples: Sequence[dict]) -> dict:
    """A batch with those fields of a real one that hooks read."""
    metas = [sample.pop("meta") for sample in samples]
    mask = torch.ones(len(samples), 5, dtype=torch.long)
    return {**default_collate(samples), "metas": metas, "sources": ["stub"] * len(metas), "attention_mask": mask}


@DATASETS.register_module(force=True)
class FaultyData(StubData):
    """Stub data with faulty samples, given by their indices.

    Samples of `infinite` make loss and gradients infinite, those of `huge` the gradients alone, those of `constant` the
    loss alone. Reading the sample `raising` raises a RuntimeError. Reading the sample `signalled` sends `signum` to the
    training process, or to its process group, unless the file `once` exists, which it then creates.
    """

    def __init__(
        self, infinite=(), huge=(), constant=(), raising=-1, signalled=-1, signum=0, group=False, once="", **options
    ):
        super().__init__(**options)
        self.targets = {**dict.fromkeys(huge, HUGE), **dict.fromkeys(constant, CONSTANT)}
        self.targets |= dict.fromkeys(infinite, float("inf"))
        self.raising = raising
        self.signalled, self.signum, self.group, self.once = signalled, signum, group, once

    def __getitem__(self, index: int) -> dict:
        if index == self.raising:
            raise RuntimeError(f"sample {index} is broken")
        if index == self.signalled and not Path(self.once).exists():
            Path(self.once).touch()
            trainer = os.getpid() if torch.utils.data.get_worker_info() is None else os.getppid()
            (os.killpg if self.group else os.kill)(os.getpgid(0) if self.group else trainer, self.signum)
        sample = super().__getitem__(index)
        if index in self.targets:
            sample["y"] = torch.tensor(self.targets[index])
        return {**sample, "meta": {"dataset": "stub", "id": index}}
