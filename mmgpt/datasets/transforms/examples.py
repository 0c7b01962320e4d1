"""In-context examples: answered questions of another dataset, before the one that is asked."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from safetensors import safe_open

from mmgpt.datasets.conversation import place_images, question_text
from mmgpt.registry import DATASETS, TRANSFORMS
from mmgpt.utils.errors import SampleError, SampleLocation

MAKE = "tools/dataset_converters/image_features.py"
SPARE = 8  # more than are needed are drawn, since some may show the sample's own images


@TRANSFORMS.register_module()
class AddExamples:
    """Puts examples before the turns of a sample, their images before its own; stands before LoadImages.

    They are drawn by the sample's own random numbers, or are those whose image is most similar, the most similar last
    (RICES: Yang et al. 2022, arXiv:2109.05014; the Flamingo paper, arXiv:2204.14198, section 3.3). A record that shows
    one of the sample's images is no example for it. Gives `examples`, their ids, and `own_images`.

    Args:
        dataset: config of an InstructionDataset with answers; its pipeline may hold transforms of turns.
        shots: number of examples.
        images: False leaves their images out. OpenFlamingo's "0-shot" is two examples without images.
        similar: safetensors file with the features of all images (tools/dataset_converters/image_features.py); None
            draws at random.

    Raises:
        ValueError: fewer examples than `shots`, one without an answer, or an image without features (names both).
    """

    def __init__(self, dataset: Mapping, shots: int, images: bool = True, similar: str | None = None):
        if shots < 0:
            raise ValueError(f"shots={shots}: the number of examples is 0 or more")
        self.shots, self.images = shots, images
        self.dataset = DATASETS.build(dict(dataset)) if shots else None
        self.nearest = Nearest(similar, self.dataset) if similar and shots else None

    def __call__(self, results: dict) -> dict:
        turns, images, names = [], [], []
        for example in self._chosen(results):
            turns += self._turns(example)
            images += _paths(example) if self.images else []
            names.append(example["id"])
        own = results["images"]
        results["turns"] = [*turns, *place_images(results["turns"], len(own))]
        results["images"], results["own_images"], results["examples"] = [*images, *own], own, names
        return results

    def _chosen(self, results: dict) -> list[dict]:
        own, chosen = set(_paths(results)), []
        for number in self._candidates(results) if self.shots else ():
            example = self.dataset.pipeline(self.dataset.get_data_info(number))
            if own.isdisjoint(_paths(example)):
                chosen.append(example)
            if len(chosen) == self.shots:
                return chosen[::-1] if self.nearest else chosen
        if self.shots:
            raise SampleError(
                f"{len(chosen)} examples of other images among the {len(self.dataset)} samples of "
                f"{self.dataset.ann_file}, but shots={self.shots}",
                SampleLocation.of(results),
            )
        return []

    def _candidates(self, results: dict) -> Iterator[int]:
        """Numbers of samples, those to be taken first."""
        if self.nearest:
            return self.nearest(_paths(results))
        size = len(self.dataset)
        return map(int, results["rng"].choice(size, min(size, self.shots + SPARE), replace=False))

    def _turns(self, example: dict) -> list[dict]:
        if not all(turn.get("answer") for turn in example["turns"]):
            raise SampleError("an example needs an answer", SampleLocation.of(example))
        turns = place_images(example["turns"], len(example["images"]))
        return turns if self.images else [dict(turn, question=question_text(turn["question"])) for turn in turns]


class Nearest:
    """The samples of a dataset in the order of how much their first image is like another.

    Args:
        file: safetensors file with `features` (n, D), and as metadata `images`, a JSON list of the n paths.
        dataset: an InstructionDataset, whose samples are ordered.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a sample without an image, or an image without features.
    """

    def __init__(self, file: str, dataset: Sequence):
        self.file = file
        with safe_open(file, "np") as content:
            self.features = content.get_tensor("features")
            self.numbers = {path: i for i, path in enumerate(json.loads(content.metadata()["images"]))}
        self.features = self.features / np.linalg.norm(self.features, axis=1, keepdims=True)
        samples = (dataset.get_data_info(i) for i in range(len(dataset)))
        self.rows = [self._number(_paths(sample)) for sample in samples]

    def __call__(self, images: Sequence[str]) -> Iterator[int]:
        """Numbers of the samples, the one most like the first of these images first."""
        likeness = (self.features @ self.features[self._number(images)])[self.rows]
        return map(int, np.argsort(-likeness, kind="stable"))

    def _number(self, images: Sequence[str]) -> int:
        path = os.path.realpath(images[0]) if images else ""
        if path not in self.numbers:
            raise SampleError(f"{self.file} has no features of the image {path!r}: make it again with {MAKE!r}")
        return self.numbers[path]


def _paths(sample: dict) -> list[str]:
    return [os.path.abspath(os.path.join(sample["image_folder"], image)) for image in sample["images"]]
