"""A tiny model with dropout and a frozen layer, and data for it: small enough to train in tests of the engine.

The configs of these tests import it by ``custom_imports``; `write_config` writes such a config.
"""

import random
import time
from pathlib import Path

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset

from mmgpt.registry import DATA_SAMPLERS, DATASETS, METRICS, MODELS

CONFIGS = Path(__file__).parents[2] / "configs"


@MODELS.register_module(force=True)
class StubModel(BaseModel):
    """Regression model with a frozen first layer, dropout, and noise from the generators of Python and NumPy."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.frozen = nn.Linear(3, width).requires_grad_(False)
        self.norm = nn.BatchNorm1d(width)
        self.gated = nn.Linear(width, 1)

    def settings_in_force(self) -> dict:
        return {"eos_token_id": [2]}

    def forward(self, x: Tensor, y: Tensor, mode: str = "loss") -> dict | list:
        hidden = functional.dropout(self.norm(self.frozen(x)), 0.3, self.training)
        predicted = self.gated(hidden)[:, 0]
        if mode == "predict":
            return [{"error": float(error)} for error in (predicted - y).abs()]
        noise = random.random() + float(np.random.rand())
        return {"loss": functional.mse_loss(predicted, y + noise)}


@DATASETS.register_module(force=True)
class StubData(Dataset):
    """``size`` fixed random samples; every index that is read is appended to the file ``log``, if there is one.

    Reading a sample takes ``seconds``; the sample ``broken`` cannot be read.
    """

    metainfo = {"name": "stub"}

    def __init__(self, size: int = 12, log: str = "", seconds: float = 0.0, broken: int = -1) -> None:
        self.x = torch.randn(size, 3, generator=torch.Generator().manual_seed(0))
        self.log, self.seconds, self.broken = log, seconds, broken

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        time.sleep(self.seconds)
        if index == self.broken:
            raise KeyError(f"broken.json, record {index}: no 'answer'")
        if self.log:
            with open(self.log, "a") as file:
                file.write(f"{index}\n")
        x = self.x[index % len(self.x)]
        return {"x": x, "y": x.sum()}


class StubPart(list):
    """A dataset of StubJoint that has nothing but a length."""

    name, weight = "stub", 1.0


@DATASETS.register_module(force=True)
class StubJoint(StubData):
    """The stub data as a JointDataset: the first 12 samples are visual, the rest is language."""

    visual_size, visual = 12, [StubPart(range(12))]

    @property
    def language(self) -> list[StubPart]:
        return [StubPart(range(12, len(self)))]


@DATA_SAMPLERS.register_module(force=True)
class StubBatchSampler:
    """Batch sampler that skips the first ``start`` batches without reading them."""

    def __init__(self, sampler: object, batch_size: int) -> None:
        self.sampler, self.batch_size, self.start = sampler, batch_size, 0

    def __len__(self) -> int:
        return len(self.sampler) // self.batch_size

    def __iter__(self):
        indices = list(self.sampler)
        for i in range(self.start, len(self)):
            yield indices[i * self.batch_size : (i + 1) * self.batch_size]


@METRICS.register_module(force=True)
class StubMetric(BaseMetric):
    """Mean absolute error; a `broken` metric fails after all samples are answered."""

    def __init__(self, broken: bool = False) -> None:
        super().__init__()
        self.broken = broken

    def process(self, data_batch: object, data_samples: list[dict]) -> None:
        self.results += [sample["error"] for sample in data_samples]

    def compute_metrics(self, results: list[float]) -> dict:
        if self.broken:
            raise RuntimeError("this metric is broken")
        return {"error": float(np.mean(results))}


CONFIG = """
_base_ = ['{configs}/_base_/default_runtime.py', '{configs}/_base_/schedules/tiny.py']
custom_imports = dict(imports=['tests.helpers.stub_training'])
model = dict(type='StubModel')
workers = 0
train_dataloader = dict(
    batch_size=2, num_workers='${{workers}}', dataset=dict(type='StubData', log='{log}'),
    sampler=dict(type='DefaultSampler', shuffle=True), batch_sampler=dict(type='StubBatchSampler'),
    collate_fn=dict(type='default_collate'))
test_dataloader = dict(
    batch_size=2, num_workers=0, dataset=dict(type='StubData'), sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'))
test_cfg = dict(type='EvaluationLoop')
test_evaluator = dict(type='StubMetric')
default_hooks = dict(checkpoint=dict(interval=3), logger=dict(interval=1))
max_epochs = 2
warmup_iters = 4
{more}
"""


def write_config(folder: Path, log: str = "", more: str = "") -> Path:
    """Write a config of 2 epochs of 6 batches with a checkpoint every 3 batches; ``more`` is appended to it."""
    path = folder / "stub.py"
    path.write_text(CONFIG.format(configs=CONFIGS.as_posix(), log=log, more=more))
    return path
