"""Datasets with the wrong image, to see whether a model looks."""

from collections import defaultdict

import numpy as np
import torch

from mmgpt.cli.image_control import KINDS
from mmgpt.registry import DATASETS

from .instruction import InstructionDataset
from .transforms import LoadFeatures


@DATASETS.register_module()
class ImageControl:
    """A dataset for evaluation whose samples get wrong images; samples without images stay.

    What is passed on as `images` names those that are shown.

    Args:
        dataset: config of an InstructionDataset, or one.
        kind: 'other' gives each sample the images of another sample, of other files and equally many, before they are
            loaded; 'zero' gives pixels that are all zero.
        seed: of the exchange.

    Raises:
        ValueError: unknown kind, no other image to exchange with, or 'zero' without pixels (of cached features).
    """

    def __init__(self, dataset: dict | InstructionDataset, kind: str, seed: int = 0):
        if kind not in KINDS:
            raise ValueError(f"kind={kind!r}: choose among {', '.join(KINDS)}")
        self.dataset = DATASETS.build(dataset) if isinstance(dataset, dict) else dataset
        if kind == "zero" and any(isinstance(step, LoadFeatures) for step in self.dataset.pipeline.transforms):
            raise ValueError(f"kind='zero': dataset {self.dataset.name!r} reads cached features, which have no pixels")
        self.kind = kind
        self.exchange = _exchange(self.dataset, seed) if kind == "other" else {}

    @property
    def name(self) -> str:
        """The dataset's name."""
        return self.dataset.name

    @property
    def source(self) -> str:
        """The dataset's source."""
        return self.dataset.source

    @property
    def metainfo(self) -> dict:
        """The dataset's meta information."""
        return self.dataset.metainfo

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, idx: int) -> dict:
        if self.kind == "zero":
            data = self.dataset[idx]
            pixels = data["pixels"]
            return data if pixels is None else dict(data, pixels=torch.zeros_like(pixels))
        info = self.dataset.get_data_info(idx)
        info["images"] = list(self.exchange.get(tuple(info["images"]), info["images"]))
        return self.dataset.transform(info)

    def __iter__(self):
        return (self[i] for i in range(len(self)))


def _exchange(dataset: InstructionDataset, seed: int) -> dict[tuple, tuple]:
    """For the images of each sample those of another: the next ones in a shuffled circle of equally many."""
    circles = defaultdict(dict)
    for i in range(len(dataset)):
        images = tuple(dataset.get_data_info(i)["images"])
        circles[len(images)][images] = None
    exchange = {}
    for count, circle in circles.items():
        if count and len(circle) < 2:
            raise ValueError(f"dataset {dataset.name!r}: no other image to exchange {next(iter(circle))} with")
        images = list(circle)
        order = np.random.default_rng([seed, count]).permutation(len(images))
        exchange.update({images[a]: images[b] for a, b in zip(order, np.roll(order, -1), strict=True)})
    return exchange
