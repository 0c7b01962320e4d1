"""Evaluation datasets with shuffled or blank images, to measure how much a model uses the image."""

from collections import defaultdict

import numpy as np
import torch

from mmgpt.cli.image_control import KINDS
from mmgpt.registry import DATASETS

from .instruction import InstructionDataset
from .transforms import LoadFeatures


@DATASETS.register_module()
class ImageControl:
    """Control for evaluation: the samples of a dataset with wrong images; samples without images stay the same.

    The `images` of a sample name the images that the model gets.

    Args:
        dataset: InstructionDataset, or its config.
        kind: 'other' gives each sample the images of another sample, from other files and equally many, before they are
            loaded; 'zero' gives pixels that are all zero.
        seed: seed of the shuffling.

    Raises:
        ValueError: unknown kind, only one image to shuffle, 'other' with a stream, whose images are not all there at a
            time, or 'zero' with cached features, which have no pixels.
    """

    def __init__(self, dataset: dict | InstructionDataset, kind: str, seed: int = 0):
        if kind not in KINDS:
            raise ValueError(f"kind={kind!r}: choose among {', '.join(KINDS)}")
        self.dataset = DATASETS.build(dataset) if isinstance(dataset, dict) else dataset
        if kind == "zero" and any(isinstance(step, LoadFeatures) for step in self.dataset.pipeline.transforms):
            raise ValueError(f"kind='zero': dataset {self.dataset.name!r} reads cached features, which have no pixels")
        if kind == "other" and getattr(self.dataset, "stream", None) is not None:
            reason = "the images of its other samples are not there when a sample is read: copy the shards here"
            raise ValueError(f"kind='other': dataset {self.dataset.name!r} is a stream: {reason}")
        self.kind = kind
        self.shuffled = _shuffled_images(self.dataset, seed) if kind == "other" else {}

    @property
    def name(self) -> str:
        """Name of the dataset."""
        return self.dataset.name

    @property
    def source(self) -> str:
        """Source of the dataset."""
        return self.dataset.source

    @property
    def metainfo(self) -> dict:
        """Meta information of the dataset."""
        return self.dataset.metainfo

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, idx: int) -> dict:
        if self.kind == "zero":
            data = self.dataset[idx]
            pixels = data["pixels"]
            return data if pixels is None else dict(data, pixels=torch.zeros_like(pixels))
        info = self.dataset.get_data_info(idx)
        info["images"] = list(self.shuffled.get(tuple(info["images"]), info["images"]))
        return self.dataset.transform(info)

    def __iter__(self):
        return (self[i] for i in range(len(self)))


def _shuffled_images(dataset: InstructionDataset, seed: int) -> dict[tuple, tuple]:
    """Images of each sample -> images of another: the next ones in a random cycle of those that are equally many."""
    by_count = defaultdict(dict)
    for i in range(len(dataset)):
        images = tuple(dataset.get_data_info(i)["images"])
        by_count[len(images)][images] = None
    shuffled = {}
    for count, cycle in by_count.items():
        if count and len(cycle) < 2:
            raise ValueError(f"dataset {dataset.name!r}: no other image to exchange {next(iter(cycle))} with")
        images = list(cycle)
        order = np.random.default_rng([seed, count]).permutation(len(images))
        shuffled.update({images[a]: images[b] for a, b in zip(order, np.roll(order, -1), strict=True)})
    return shuffled
