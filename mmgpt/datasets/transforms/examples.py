"""Few-shot examples: answered questions of another dataset before a question."""

import json
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from safetensors import safe_open

from mmgpt.datasets.conversation import place_images, question_text
from mmgpt.datasets.image_folders import real_path
from mmgpt.registry import DATASETS, TRANSFORMS
from mmgpt.utils.data_uri import short_name
from mmgpt.utils.errors import SampleError, SampleLocation

FEATURES_TOOL = "tools/dataset_converters/image_features.py"
SPARE = 8  # additional examples that are drawn, since some may show the sample's own images


@TRANSFORMS.register_module()
class AddExamples:
    """Puts few-shot examples before the turns of a sample, and their images before its own; precedes LoadImages.

    The examples are drawn by the sample's random generator, or have the most similar images, the most similar last
    (RICES: Yang et al. 2022, arXiv:2109.05014; the Flamingo paper, arXiv:2204.14198, section 3.3). A record with one of
    the sample's images is never an example for it. Adds `examples`, their ids, and `own_images`, those of the sample.

    Args:
        dataset: config of an InstructionDataset with answers; its pipeline may hold transforms of turns.
        shots: number of examples.
        images: False leaves out their images. OpenFlamingo's "0-shot" is two examples without images.
        similar: safetensors file with the features of all images (tools/dataset_converters/image_features.py); None
            draws the examples at random.

    Raises:
        ValueError: `shots` below 0, or the dataset is a stream.
        SampleError: fewer examples than `shots`, an example without an answer, or an image without features.
    """

    def __init__(self, dataset: Mapping, shots: int, images: bool = True, similar: str | None = None):
        if shots < 0:
            raise ValueError(f"shots={shots}: the number of examples is 0 or more")
        self.shots, self.images = shots, images
        self.dataset = DATASETS.build(dict(dataset)) if shots else None
        if shots and self.dataset.stream is not None:
            raise ValueError(
                f"dataset {self.dataset.name!r} is a stream, of which no examples can be drawn: copy its shards"
            )
        self.nearest = Nearest(similar, self.dataset) if similar and shots else None

    def __call__(self, results: dict) -> dict:
        turns, images, ids = [], [], []
        for example in self._choose(results):
            if not all(turn.get("answer") for turn in example["turns"]):
                raise SampleError("an example needs an answer", SampleLocation.of(example))
            if self.images:
                turns += place_images(example["turns"], len(example["images"]))
                images += _paths(example)
            else:
                turns += [dict(turn, question=question_text(turn["question"])) for turn in example["turns"]]
            ids.append(example["id"])
        own_images = results["images"]
        results["turns"] = [*turns, *place_images(results["turns"], len(own_images))]
        results["images"], results["own_images"], results["examples"] = [*images, *own_images], own_images, ids
        return results

    def _choose(self, results: dict) -> list[dict]:
        """Examples for a sample, the most similar one last."""
        if not self.shots:
            return []
        own_images, examples = set(_paths(results)), []
        if self.nearest:
            candidates = self.nearest(_paths(results))
        else:
            size = len(self.dataset)
            candidates = map(int, results["rng"].choice(size, min(size, self.shots + SPARE), replace=False))
        for index in candidates:
            example = self.dataset.pipeline(self.dataset.get_data_info(index))
            if own_images.isdisjoint(_paths(example)):
                examples.append(example)
            if len(examples) == self.shots:
                return examples[::-1] if self.nearest else examples
        reason = f"{len(examples)} examples of other images among the {len(self.dataset)} samples"
        raise SampleError(f"{reason} of {self.dataset.ann_file}, but shots={self.shots}", SampleLocation.of(results))


class Nearest:
    """Ranking of the samples of a dataset by the similarity of their first image to another image.

    Args:
        file: safetensors file with `features` (n, D), and `images` in its metadata, a JSON list of the n paths.
        dataset: InstructionDataset whose samples are ranked.

    Raises:
        FileNotFoundError: the file does not exist.
        SampleError: a sample without an image, or an image without features.
    """

    def __init__(self, file: str, dataset: Sequence):
        self.file = file
        with safe_open(file, "np") as content:
            self.features = content.get_tensor("features")
            self.feature_rows = {path: i for i, path in enumerate(json.loads(content.metadata()["images"]))}
        self.features = self.features / np.linalg.norm(self.features, axis=1, keepdims=True)
        samples = (dataset.get_data_info(i) for i in range(len(dataset)))
        self.rows = [self._feature_row(_paths(sample)) for sample in samples]

    def __call__(self, images: Sequence[str]) -> Iterator[int]:
        """Indices of the samples, in the order of the similarity of their image to the first of `images`."""
        similarity = (self.features @ self.features[self._feature_row(images)])[self.rows]
        return map(int, np.argsort(-similarity, kind="stable"))

    def _feature_row(self, images: Sequence[str]) -> int:
        path = images[0] if images else ""
        if path not in self.feature_rows:
            raise SampleError(
                f"{self.file} has no features of the image {short_name(path)!r}: make it again with {FEATURES_TOOL!r}"
            )
        return self.feature_rows[path]


def _paths(sample: dict) -> list[str]:
    return [real_path(sample["image_folder"], image) for image in sample["images"]]
