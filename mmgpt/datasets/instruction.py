"""The dataset: an annotation file in any format that a parser reads."""

import os
import pickle
from collections.abc import Iterator, Sequence

import numpy as np
from mmengine.dataset import BaseDataset, force_full_init
from mmengine.logging import print_log

from mmgpt.registry import DATASETS, TRANSFORMS

from .conversation import place_of
from .lost import LostAnswers
from .records import find_parser, parse_record, read_records, record_name
from .transforms import FormatPrompt, LoadFeatures, LoadImages, PrepareImages

SOURCES = ("visual", "language")
READERS = (LoadImages, LoadFeatures)
IMAGE_STEPS = (*READERS, PrepareImages)


@DATASETS.register_module()
class InstructionDataset(BaseDataset):
    """Conversations, with images or without, read by a parser.

    An index beyond the length means a later epoch: `dataset[epoch * len(dataset) + i]`. All randomness of a sample
    comes from (seed, epoch, i), so that it differs by epoch without any state in worker processes.

    A training sample with nothing to learn (its answer is empty or cut away by the length limit) is counted in
    `lost.skipped`, logged, and replaced by the next one; a partly cut answer is counted in `lost.cut`. With
    `test_mode=True` the former is an error.

    Args:
        parser: name in PARSERS, or `dict(type=name, **options)`.
        source: 'visual' or 'language': which of the two losses its samples count in.
        name: in logs and metrics; default the parser's.
        sample: number of records drawn at random by `seed`; None or more than there are: all.
        weight: passes over it in one epoch of a mix (see Mixture).
        seed: of that draw and of the transforms.
        pipeline: transforms; a list within the list is spliced in, so that configs can share stretches.
        base: BaseDataset's own arguments (ann_file, data_root, data_prefix=dict(img=...), test_mode, ...). A format of
            two files (VQAv2) names that of the questions in `data_prefix` too: dict(img=..., questions=...).

    Raises:
        ValueError: empty or unreadable annotation file, unknown parser or source, a record that the parser cannot
            read (names file, record, key), `sample` below 1, `weight` not above 0.
        FileNotFoundError: no annotation file; of a folder that samples name, the first image does not exist.
    """

    def __init__(
        self,
        parser: str | dict,
        source: str = "visual",
        name: str | None = None,
        sample: int | None = None,
        weight: float = 1.0,
        seed: int = 0,
        pipeline: Sequence = (),
        **base,  # MMEngine's BaseDataset
    ):
        if source not in SOURCES:
            raise ValueError(f"source={source!r}: choose among {', '.join(SOURCES)}")
        if sample is not None and sample < 1:
            raise ValueError(f"sample={sample}: at least one record is drawn (None for all of them)")
        self.parse = find_parser(parser)
        self.source, self.sample, self.weight, self.seed = source, sample, weight, seed
        self.name = name or (parser if isinstance(parser, str) else parser["type"])
        if not (isinstance(weight, (int, float)) and 0 < weight < float("inf")):
            raise ValueError(f"dataset {self.name!r}: weight={weight!r} is no number above 0, or 0 in a joint dataset")
        self.lost = LostAnswers(self.name)
        super().__init__(pipeline=build_pipeline(pipeline), **base)

    def records(self) -> list[dict]:
        """The records of its annotation file (and of the file with the questions, where the format has two)."""
        return read_records(self.ann_file, self.data_prefix.get("questions"))

    def load_data_list(self) -> list[dict]:
        """All samples of the file (of `sample` records drawn at random), checked, without opening images."""
        records = self.records()
        parsed = (self._sample(number, record) for number, record in enumerate(records))
        samples = self.draw([sample for sample in parsed if sample is not None])
        if not samples:
            raise ValueError(f"{self.ann_file}: none of {len(records)} records belongs to dataset {self.name!r}")
        if self.loads_images:
            self._check_folders(samples)
        print_log(f"dataset {self.name}: {len(samples)} of {len(records)} records of {self.ann_file}", "current")
        return samples

    def draw(self, samples: list[dict]) -> list[dict]:
        """Those of all samples that the dataset keeps: `sample` of them, in their order."""
        if self.sample is None or self.sample >= len(samples):
            return samples
        kept = np.random.default_rng(self.seed).choice(len(samples), self.sample, replace=False)
        return [samples[i] for i in sorted(kept)]

    @property
    def loads_images(self) -> bool:
        """Whether the pipeline reads the images of samples, or features of them."""
        return any(isinstance(step, READERS) for step in self.pipeline.transforms)

    @force_full_init
    def get_data_info(self, idx: int) -> dict:
        """A sample before its transforms; `idx` may lie in a later epoch."""
        epoch, position = divmod(idx, len(self))
        return self.equip(super().get_data_info(position), max(epoch, 0), position)

    def equip(self, sample: dict, epoch: int, position: int) -> dict:
        """A sample with what its transforms need: where it comes from, and its random numbers in an epoch."""
        return dict(
            sample,
            dataset=self.name,
            source=self.source,
            file=self.ann_file,
            image_folder=self.data_prefix.get("img", ""),
            rng=np.random.default_rng([self.seed, epoch, position]),
        )

    def __getitem__(self, idx: int) -> dict:
        epoch, position = divmod(idx, len(self))
        for step in range(len(self)):
            data = self.prepare_data(max(epoch, 0) * len(self) + (position + step) % len(self))
            if data is not None:
                return data
        raise ValueError(f"{self.ann_file}: no sample of dataset {self.name!r} has anything to learn")

    def __iter__(self) -> Iterator[dict]:
        # Without it, iteration would go on for ever, from epoch to epoch.
        return (self[i] for i in range(len(self)))

    def prepare_data(self, idx: int) -> dict | None:
        """One sample through the pipeline; None when nothing is left to learn."""
        return self.transform(self.get_data_info(idx))

    def text_length(self, idx: int) -> int:
        """Characters of a sample's prompts and answers in its epoch; no image is opened.

        Raises:
            ValueError: the pipeline has no FormatPrompt.
        """
        return sum(len(segment.text) for segment in self.text_only(self.get_data_info(idx), FormatPrompt)["segments"])

    def text_only(self, info: dict, last: type) -> dict | None:
        """What the transforms up to the first `last` make of a sample, those of images left out.

        Raises:
            ValueError: the pipeline has no `last`.
        """
        steps = self.pipeline.transforms
        end = next((i for i, step in enumerate(steps) if isinstance(step, last)), None)
        if end is None:
            raise ValueError(f"dataset {self.name!r}: its pipeline has no {last.__name__}, so its texts have no length")
        for step in steps[: end + 1]:
            if info is not None and not isinstance(step, IMAGE_STEPS):
                info = step(info)
        return info

    def transform(self, info: dict) -> dict | None:
        """What the pipeline makes of a sample of `get_data_info`, lost answers counted."""
        data = self.pipeline(info)
        # The transforms write into `info` itself, so that it tells why nothing came out.
        if data is None and self.test_mode:
            raise ValueError(f"{place_of(info)}: {self.lost.reason(info)}")
        self.lost.count(info, skipped=data is None)
        return data

    def _serialize_data(self) -> tuple[np.ndarray, np.ndarray]:
        serialized = serialize(self.data_list)
        self.data_list.clear()
        return serialized

    def _sample(self, number: int, record: dict) -> dict | None:
        try:
            return parse_record(self.parse, number, record)
        except ValueError as error:
            where = record_name(self.ann_file, number, record)
            raise ValueError(f"{where}, dataset {self.name!r}: {error}") from error

    def _check_folders(self, samples: list[dict]) -> None:
        """Look for one image of each folder, so that a missing one is found before hours of training."""
        prefix = self.data_prefix.get("img", "")
        first = {os.path.dirname(image): (image, sample) for sample in reversed(samples) for image in sample["images"]}
        for image, sample in first.values():
            path = os.path.join(prefix, image)
            if not os.path.isfile(path):
                place = place_of(dict(sample, dataset=self.name, file=self.ann_file))
                raise FileNotFoundError(f"{place}: no image file {path!r} (data_prefix=dict(img={prefix!r}))")


def serialize(samples: Sequence[dict]) -> tuple[np.ndarray, np.ndarray]:
    """Samples as one row of bytes, which processes share, and where in it each of them ends.

    As MMEngine does it, without its gc.collect(): half a second for each dataset of a mix, and samples hold no circles.
    """
    pieces = [pickle.dumps(sample) for sample in samples]
    return np.frombuffer(b"".join(pieces), np.uint8), np.cumsum([len(piece) for piece in pieces])


def build_pipeline(steps: Sequence) -> list:
    """Transforms from their configs, lists within the list spliced in."""
    built = []
    for step in steps:
        if isinstance(step, (list, tuple)):
            built += build_pipeline(step)
        else:
            built.append(TRANSFORMS.build(step) if isinstance(step, dict) else step)
    return built
