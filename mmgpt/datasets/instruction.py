"""Dataset of an annotation file in any format that has a parser."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from itertools import count

import numpy as np
from mmengine.dataset import BaseDataset, force_full_init
from mmengine.logging import print_log

from mmgpt.registry import DATASETS, TRANSFORMS
from mmgpt.utils.errors import SampleError, SampleLocation, located

from .conversation import literal_media_marks, split_turns
from .dropped import DroppedSamples
from .feature_cache import CacheMiss
from .image_folders import check_image_folders
from .load_once import load_once
from .records import expecting, find_parser, parse_record, read_records, record_id
from .serialized import SerializedSamples, serialize
from .transforms import EachImage, FormatPrompt, LoadFeatures, LoadImages, PrepareImages

SOURCES = ("visual", "language")
ON_ERROR = ("raise", "skip")
READERS = (LoadImages, LoadFeatures)
IMAGE_STEPS = (*READERS, EachImage, PrepareImages)
IMAGE_SCOPES = ("mmcv.", "mmpretrain.")


@DATASETS.register_module()
class InstructionDataset(BaseDataset):
    """Conversations, with images or without, read from an annotation file by a parser.

    An index beyond the length means a later epoch: `dataset[epoch * len(dataset) + i]`. All randomness of a sample is a
    function of (seed, epoch, i), so that it differs by epoch without any state in worker processes.

    A training sample without label tokens (its answer is empty or cut off by the length limit) is counted in `dropped`,
    logged, and replaced by the next one; a truncated answer is counted too. With `test_mode=True` the former is an
    error.

    With `on_error='skip'`, a sample whose transforms raise (an image is missing or damaged) is counted and replaced
    too, and a record that the parser refuses is left out. Otherwise the error names the sample.

    In a distributed run one process of each node reads the annotation file (see `load_once`).

    Args:
        parser: name in PARSERS, or `dict(type=name, **options)`.
        source: 'visual' or 'language': the loss that its samples count in.
        name: name in logs and metrics; default the parser's.
        sample: number of records, drawn at random by `seed`; None (or a number above that of the records): all records.
        weight: passes over the dataset in one epoch of a mixture (see Mixture).
        seed: seed of that draw and of the transforms.
        on_error: 'raise', or 'skip' to continue without broken records and samples; for training only.
        pipeline: transforms; nested lists are spliced in, so that configs can share parts of a pipeline.
        expect: keys of the records and regular expressions that their values must match, such as dict(split='val'): the
            file of another split is an error then.
        single_turns: make each turn a sample of its own, with its number in the id: for benchmarks that ask several
            questions about an image (OCR-VQA).
        base: BaseDataset's own arguments (ann_file, data_root, data_prefix=dict(img=...), test_mode, ...). A format of
            two files (VQAv2) has the file of the questions in `data_prefix` too: dict(img=..., questions=...).

    Raises:
        ValueError: unreadable or empty annotation file, unknown parser or source, a record that the parser refuses (a
            SampleError), `sample` below 1, `weight` not above 0; `on_error='skip'` in evaluation.
        FileNotFoundError: no annotation file; no image in a folder that samples name (see `check_image_folders`).
    """

    def __init__(
        self,
        parser: str | dict,
        source: str = "visual",
        name: str | None = None,
        sample: int | None = None,
        weight: float = 1.0,
        seed: int = 0,
        on_error: str = "raise",
        pipeline: Sequence = (),
        expect: Mapping[str, str] | None = None,
        single_turns: bool = False,
        **base,  # MMEngine's BaseDataset
    ):
        if source not in SOURCES:
            raise ValueError(f"source={source!r}: choose among {', '.join(SOURCES)}")
        if sample is not None and sample < 1:
            raise ValueError(f"sample={sample}: at least one record is drawn (None for all of them)")
        if on_error not in ON_ERROR:
            raise ValueError(f"on_error={on_error!r}: choose among {', '.join(ON_ERROR)}")
        self.parse, self.skip_errors = expecting(find_parser(parser), expect or {}), on_error == "skip"
        self.single_turns = single_turns
        self.source, self.sample, self.weight, self.seed = source, sample, weight, seed
        self.name = name or (parser if isinstance(parser, str) else parser["type"])
        if not (isinstance(weight, (int, float)) and 0 < weight < float("inf")):
            reason = f"weight={weight!r} must be a number above 0 (0 leaves a dataset out of a JointDataset)"
            raise ValueError(f"dataset {self.name!r}: {reason}")
        self.dropped = DroppedSamples(self.name)
        steps = build_pipeline(pipeline)
        is_evaluation = base.get("test_mode") or any(getattr(step, "open_last", False) for step in steps)
        if self.skip_errors and is_evaluation:
            raise ValueError(f"dataset {self.name!r}: on_error='skip' would leave questions out of an evaluation")
        super().__init__(pipeline=steps, **base)

    def records(self) -> Iterator[dict]:
        """Records of the annotation file, joined with those of the questions' file where the format has two files."""
        return read_records(self.ann_file, self.data_prefix.get("questions"))

    def load_data_list(self) -> SerializedSamples:
        """All samples of the file (or `sample` of them, drawn at random), checked, without opening images."""
        return load_once(self._read)

    def _read(self) -> SerializedSamples:
        """Samples of the file, parsed and drawn in this process, with a log of what was refused or looks wrong."""
        numbers = count()
        # In this order, zip takes no number when the records end.
        parsed = (self._parse(number, record) for record, number in zip(self.records(), numbers, strict=False))
        samples = serialize(self.draw(serialize(sample for sample in parsed if sample is not None)))
        records, refused = next(numbers), self.dropped.totals["refused"]
        dropped = f" ({refused} refused by the parser)" if refused else ""
        if not samples:
            raise ValueError(f"{self.ann_file}: none of {records} records belongs to dataset {self.name!r}{dropped}")
        if self.loads_images:
            origin = dict(dataset=self.name, file=self.ann_file)
            check_image_folders(samples, self.data_prefix.get("img", ""), origin, self.skip_errors)
        marked = [(sample["record"], marks[0]) for sample in samples if (marks := literal_media_marks(sample))]
        if marked:
            record, mark = marked[0]
            text = f"dataset {self.name}: {len(marked)} samples of {self.ann_file} have marks of media in their"
            hint = f"questions that are read as text, the first {mark!r:.80} in record {record}"
            print_log(f"{text} {hint}", "current", logging.WARNING)
        text = f"dataset {self.name}: {len(samples)} of {records} records of {self.ann_file}{dropped}"
        print_log(text, "current", logging.WARNING if refused else logging.INFO)
        return samples

    def _parse(self, number: int, record: dict) -> dict | None:
        """Sample of a record; None where the parser skips the record, or refuses it and `on_error` is 'skip'."""
        try:
            with located(SampleLocation(self.name, self.ann_file, number, record_id(record))):
                return parse_record(self.parse, number, record)
        except SampleError as error:
            if not self.skip_errors:
                raise
            self.dropped.add("refused", str(error))
            return None

    def draw(self, samples: Sequence[dict]) -> Sequence[dict]:
        """Samples (or their turns, with `single_turns`) of the dataset: `sample` of them at random, in their order."""
        if self.single_turns:
            samples = [turn for sample in samples for turn in split_turns(sample)]
        if self.sample is None or self.sample >= len(samples):
            return samples
        indices = np.random.default_rng(self.seed).choice(len(samples), self.sample, replace=False)
        return [samples[i] for i in sorted(indices)]

    @property
    def loads_images(self) -> bool:
        """Whether the pipeline reads images, or cached features of them."""
        return any(isinstance(step, READERS) for step in self.pipeline.transforms)

    @force_full_init
    def get_data_info(self, idx: int) -> dict:
        """Sample before its transforms; `idx` may be in a later epoch."""
        epoch, position = divmod(idx, len(self))
        return self.equip(super().get_data_info(position), max(epoch, 0), position)

    def equip(self, sample: dict, epoch: int, position: int) -> dict:
        """Sample with what its transforms need: its location, the image folder and its random generator in an epoch."""
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
        hint = ", or those that have cannot be read: see the log" if self.dropped.totals["failed"] else ""
        raise ValueError(f"{self.ann_file}: no sample of dataset {self.name!r} has anything to learn{hint}")

    def __iter__(self) -> Iterator[dict]:
        # Python's default iteration would never end, because every index is valid in some epoch.
        return (self[i] for i in range(len(self)))

    def prepare_data(self, idx: int) -> dict | None:
        """Sample after the pipeline; None without label tokens."""
        return self.transform(self.get_data_info(idx))

    def transform(self, info: dict) -> dict | None:
        """Output of the pipeline for a sample of `get_data_info`; None, and counted, where the sample is dropped."""
        try:
            with located(SampleLocation.of(info)):
                data = self.pipeline(info)
        # Image decoders and transforms raise errors of any type for a broken sample.
        except Exception as error:
            if not self.skip_errors or isinstance(error, CacheMiss):
                raise
            self.dropped.add_failure(info, error)
            return None
        # The transforms write into `info` itself, so that it has the reason why there is no output.
        if data is None and self.test_mode:
            raise SampleError(self.dropped.reason(info), SampleLocation.of(info))
        self.dropped.add_answer(info, skipped=data is None)
        return data

    def text_length(self, idx: int) -> int:
        """Number of characters of a sample's prompts and answers in its epoch; images are not opened.

        With `on_error='skip'` the length of a sample that fails is 0; it is counted when it is read.

        Raises:
            ValueError: the pipeline has no FormatPrompt.
        """
        info, steps = self.get_data_info(idx), self._text_steps(FormatPrompt)
        try:
            with located(SampleLocation.of(info)):
                return sum(len(segment.text) for segment in _apply(steps, info)["segments"])
        except Exception:
            if self.skip_errors:
                return 0
            raise

    def text_only(self, info: dict, last: type) -> dict | None:
        """Output of the transforms up to the first of type `last`, without those of images.

        Raises:
            ValueError: the pipeline has no `last`.
        """
        return _apply(self._text_steps(last), info)

    def _text_steps(self, last: type) -> list:
        """Transforms up to the first of type `last`, without those of images."""
        steps = self.pipeline.transforms
        end = next((i for i, step in enumerate(steps) if isinstance(step, last)), None)
        if end is None:
            raise ValueError(f"dataset {self.name!r}: its pipeline has no {last.__name__}")
        return [step for step in steps[: end + 1] if not isinstance(step, IMAGE_STEPS)]

    def _serialize_data(self) -> tuple[np.ndarray, np.ndarray]:
        samples, self.data_list = serialize(self.data_list), []
        return samples.data, samples.ends


def _apply(steps: Sequence, info: dict) -> dict | None:
    """Output of transforms, one after the other; None as soon as one drops the sample."""
    for step in steps:
        info = None if info is None else step(info)
    return info


def build_pipeline(steps: Sequence) -> list:
    """Transforms from their configs, with nested lists spliced in.

    Transforms of mmcv and mmpretrain work on one image and become steps of EachImage.
    """
    transforms = []
    for step in steps:
        if isinstance(step, (list, tuple)):
            transforms += build_pipeline(step)
        elif isinstance(step, dict):
            is_image_transform = str(step.get("type")).startswith(IMAGE_SCOPES)
            transforms.append(EachImage([step]) if is_image_transform else TRANSFORMS.build(step))
        else:
            transforms.append(step)
    return transforms
