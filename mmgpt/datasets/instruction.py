"""Dataset of an annotation file in any format that has a parser."""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, partial
from itertools import count
from pathlib import Path

import numpy as np
from mmengine.dataset import BaseDataset, force_full_init
from mmengine.logging import print_log

from mmgpt.registry import DATASETS, TRANSFORMS
from mmgpt.utils.errors import SampleError, SampleLocation, located
from mmgpt.utils.shard_files import is_address, names_shards

from .conversation import first_media_mark, split_turns
from .dropped import DroppedSamples
from .feature_cache import CacheMiss
from .image_folders import check_image_files, check_image_folders
from .load_once import load_once, once_per_node
from .records import expecting, find_parser, parse_record, read_records, record_id
from .serialized import SerializedSamples, serialize
from .shards.files import Shards
from .shards.images import is_shard_image
from .shards.index import code_digest, digest, find_index, index_paths, read_index, write_index
from .shards.sizes import shard_sizes
from .shards.streams import StreamedSamples, StreamedShards, StreamOptions
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

    The annotation file may be shards, `ann_file='shards/*.parquet'` or `'shards/*.tar'` (see `Shards`), with the images
    inside. Their samples are read from an index, which is built at the first use (see `shards.index`); sampling, epochs
    and resuming are those of other files. With `stream`, they are read from their beginning to their end instead (see
    `StreamedShards`), and counted at the first use. StreamBatchSampler draws from them, and a sample is replaced by
    another one in the buffer. The number of a record is counted within its shard.

    Args:
        parser: name in PARSERS, or `dict(type=name, **options)`.
        source: 'visual' or 'language': the loss that its samples count in.
        name: name in logs and metrics; default the parser's.
        sample: number of records, drawn at random by `seed`; None (or a number above that of the records): all records.
        weight: passes over the dataset in one epoch of a mixture (see Mixture).
        seed: seed of that draw and of the transforms.
        on_error: 'raise', or 'skip' to continue without broken records and samples; for training only.
        pipeline: transforms; nested lists are spliced in, so that configs can share parts of a pipeline.
        stream: dict(shuffle_buffer=n), with the number of samples among which the order is random, and, to spare the
            counting, `sizes`, a JSON file of the sizes of shards (see `shard_sizes`); None for local files.
        expect: keys of the records and regular expressions that their values must match, such as dict(split='val'): the
            file of another split is an error then.
        single_turns: make each turn a sample of its own, with its number in the id: for benchmarks that ask several
            questions about an image (OCR-VQA).
        base: BaseDataset's own arguments (ann_file, data_root, data_prefix=dict(img=...), test_mode, ...). A format of
            two files (VQAv2) has the file of the questions in `data_prefix` too: dict(img=..., questions=...).

    Raises:
        ValueError: unreadable or empty annotation file, unknown parser or source, a record that the parser refuses (a
            SampleError), `sample` below 1, `weight` not above 0; `on_error='skip'` in evaluation; `stream` with cached
            features, with `sample`, or in evaluation.
        FileNotFoundError: no annotation file; no image in a folder that samples name (see `check_image_folders`), or
            images beside shards are missing (see `check_image_files`).
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
        stream: Mapping | None = None,
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
        self.parser, self.expect, self.skip_errors = parser, dict(expect or {}), on_error == "skip"
        self.parse = expecting(find_parser(parser), self.expect)
        self.single_turns = single_turns
        self.source, self.sample, self.weight, self.seed = source, sample, weight, seed
        self.name = name or (parser if isinstance(parser, str) else parser["type"])
        if not (isinstance(weight, (int, float)) and 0 < weight < float("inf")):
            reason = f"weight={weight!r} must be a number above 0 (0 leaves a dataset out of a JointDataset)"
            raise ValueError(f"dataset {self.name!r}: {reason}")
        self.dropped = DroppedSamples(self.name)
        steps = build_pipeline(pipeline)
        is_evaluation = base.get("test_mode") or any(getattr(step, "open_last", False) for step in steps)
        self.stream = None if stream is None else StreamOptions(**stream)
        if stream is not None and sample is not None:
            raise ValueError(f"dataset {self.name!r}: a stream is read whole: set weight instead of sample={sample}")
        if stream is not None and any(isinstance(step, LoadFeatures) for step in steps):
            reason = "its images have no files, whose features could be cached: set image_steps='${pixel_steps}'"
            raise ValueError(f"dataset {self.name!r} is a stream: {reason}")
        if stream is not None and is_evaluation:
            reason = "only training reads a stream: copy its shards, name them in ann_file, and set stream=None"
            raise ValueError(f"dataset {self.name!r}: {reason}")
        if self.skip_errors and is_evaluation:
            raise ValueError(f"dataset {self.name!r}: on_error='skip' would leave questions out of an evaluation")
        if is_address(base.get("ann_file") or ""):
            base["data_root"] = None
        super().__init__(pipeline=steps, **base)

    @cached_property
    def shards(self) -> Shards | StreamedShards | None:
        """The shards that `ann_file` names; None for an annotation file.

        Raises:
            ValueError: `data_prefix` names folders beside shards, or the file is on another machine.
        """
        if self.stream is None and is_address(self.ann_file) and not names_shards(self.ann_file):
            reason = "is not a local file: set stream=dict(shuffle_buffer=1000) to read it as a stream"
            raise ValueError(f"dataset {self.name!r}: {self.ann_file} {reason}")
        if self.stream is None and not names_shards(self.ann_file):
            return None
        folders = {name: folder for name, folder in self.data_prefix.items() if name in ("img", "questions")}
        if folders:
            raise ValueError(f"{self.ann_file} has its images inside: data_prefix={folders} is not read with shards")
        return Shards(self.ann_file) if self.stream is None else StreamedShards(self.ann_file)

    @property
    def files(self) -> list[str]:
        """Paths of the annotation file, or of the shards."""
        return self.shards.files if self.shards else [self.ann_file]

    @property
    def image_folder(self) -> str:
        """Folder that the images of samples are relative to."""
        return self.shards.folder if self.shards else self.data_prefix.get("img", "")

    def records(self) -> Iterator[dict]:
        """Records of the annotation file, joined with those of the questions' file where the format has two files."""
        return self.shards.records() if self.shards else read_records(self.ann_file, self.data_prefix.get("questions"))

    def origin(self, number: int) -> tuple[str, int]:
        """File with a record, and the number of the record in it."""
        return self.shards.origin(number) if self.shards else (self.ann_file, number)

    def load_data_list(self) -> SerializedSamples | StreamedSamples:
        """All samples of the file (or `sample` of them, drawn at random), checked, without opening images."""
        if self.stream is not None:
            return self._streamed()
        if self.shards is None:
            return load_once(self._read)
        header, samples = read_index(once_per_node(self._index))
        self.shards.starts = header["starts"]
        samples = serialize(self.draw(samples))
        if header["has_files"] and self.loads_images:
            origin = dict(dataset=self.name, file=self.ann_file)
            once_per_node(lambda: check_image_files(samples, self.shards.folder, origin, self.skip_errors))
        self._log(len(samples), header["records"], len(header["refused"]), header["marks"])
        return samples

    def _read(self) -> SerializedSamples:
        """Samples of the file, parsed and drawn in this process."""
        parsed, records, refused = self._parse_all()
        samples = serialize(self.draw(parsed))
        if self.loads_images:
            origin = dict(dataset=self.name, file=self.ann_file)
            check_image_folders(samples, self.data_prefix.get("img", ""), origin, self.skip_errors)
        self._log(len(samples), records, len(refused), first_media_mark(samples))
        return samples

    def _index(self) -> Path:
        """Path of the index of the shards as they are now, built by this process where there is none."""
        pattern = os.path.relpath(self.shards.path, self.shards.folder or ".")
        paths = index_paths(self.shards.folder, digest(repr([pattern, self.parser, self.expect, self.skip_errors])))
        # The samples depend on the shards and on the code of the parser.
        state = [self.shards.state(), code_digest(find_parser(self.parser))]
        path = find_index(paths, state)
        if path is None:
            print_log(f"dataset {self.name}: indexing {len(self.files)} shards of {self.ann_file}", "current")
            samples, records, refused = self._parse_all(as_json=True)
            has_files = any(not is_shard_image(image) for sample in samples for image in sample["images"])
            header = dict(state=state, starts=self.shards.starts, records=records, refused=refused, has_files=has_files)
            path = write_index(paths, header | dict(marks=first_media_mark(samples)), samples)
        else:
            self._add_refused(read_index(path)[0]["refused"])
        return path

    def _add_refused(self, messages: Sequence[str]) -> None:
        """Count and log records that the parser has refused, by the messages about them."""
        for message in messages:
            self.dropped.add("refused", message)

    def _streamed(self) -> StreamedSamples:
        """Samples of shards that are read as streams, which are counted here where nobody has."""
        self.serialize_data = False
        read, options = self._shard_samples, self.stream
        read_to_count = partial(read, is_counting=True)
        parsing = [self.parser, self.expect, self.skip_errors, self.single_turns, code_digest(find_parser(self.parser))]
        sizes, counts = once_per_node(lambda: shard_sizes(self.shards, read_to_count, parsing, options.sizes))
        samples = StreamedSamples(read, self.files, sizes, counts, options.shuffle_buffer)
        print_log(f"dataset {self.name}: {len(samples)} samples in {len(sizes)} streamed shards", "current")
        return samples

    def _shard_samples(self, shard: int, is_counting: bool = False) -> Iterator[tuple[dict, dict[str, bytes]]]:
        """Samples of a streamed shard, each with the bytes of its images by name.

        A refused record counts in `dropped`, but not while the samples are counted, before it is read for training.
        """
        first, refused = self.shards.starts[shard], []
        for row, (record, images) in enumerate(self.shards.read(shard)):
            if isinstance(record, dict) and record_id(record) is None:
                record = {"id": str(row), **record}
            sample = self._parse(first + row, record, refused)
            if not is_counting:
                self._add_refused(refused)
            refused.clear()
            if sample is not None:
                for turn in split_turns(sample) if self.single_turns else [sample]:
                    yield turn, images

    def _parse_all(self, as_json: bool = False) -> tuple[SerializedSamples, int, list[str]]:
        """Samples of all records, the number of records, and a message about each that the parser has refused."""
        numbers, refused = count(), []
        # In this order, zip takes no number when the records end.
        parsed = (self._parse(number, record, refused) for record, number in zip(self.records(), numbers, strict=False))
        samples = serialize((sample for sample in parsed if sample is not None), as_json)
        records = next(numbers)
        self._add_refused(refused)
        if not samples:
            dropped = f" ({len(refused)} refused by the parser)" if refused else ""
            raise ValueError(f"{self.ann_file}: none of {records} records belongs to dataset {self.name!r}{dropped}")
        return samples, records, refused

    def _log(self, samples: int, records: int, refused: int, marks: tuple[int, int, str] | None) -> None:
        """Log the numbers of samples, records and refused records, and the `first_media_mark`."""
        if marks:
            number, record, mark = marks
            file, record = self.origin(record)
            text = f"dataset {self.name}: {number} samples of {self.ann_file} have marks of media in their"
            hint = f"questions that are read as text, the first {mark!r:.80} in record {record} of {file}"
            print_log(f"{text} {hint}", "current", logging.WARNING)
        dropped = f" ({refused} refused by the parser)" if refused else ""
        text = f"dataset {self.name}: {samples} of {records} records of {self.ann_file}{dropped}"
        print_log(text, "current", logging.WARNING if refused else logging.INFO)

    def _parse(self, number: int, record: dict, refused: list[str]) -> dict | None:
        """Sample of a record; None where the parser skips the record, or refuses it and `on_error` is 'skip'.

        Then a message is appended to `refused`.
        """
        try:
            with located(SampleLocation(self.name, *self.origin(number), record_id(record))):
                return parse_record(self.parse, number, record)
        except SampleError as error:
            if not self.skip_errors:
                raise
            refused.append(str(error))
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
        samples = self.data_list
        if self.serialize_data:
            samples = SerializedSamples(self.data_bytes, self.data_address, self.as_json)
        return self.equip(dict(samples[position], sample_idx=position), max(epoch, 0), position)

    def equip(self, sample: dict, epoch: int, position: int) -> dict:
        """Sample with what its transforms need: its location, the image folder and its random generator in an epoch."""
        file, record = self.origin(sample["record"])
        return dict(
            sample,
            dataset=self.name,
            source=self.source,
            file=file,
            record=record,
            image_folder=self.image_folder,
            rng=np.random.default_rng([self.seed, epoch, position]),
        )

    def __getitem__(self, idx: int) -> dict:
        epoch, position = divmod(idx, len(self))
        run = range(len(self)) if self.stream is None else self.data_list.run_of(position)
        for step in range(len(run)):
            data = self.prepare_data(max(epoch, 0) * len(self) + run[(position - run[0] + step) % len(run)])
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
        self.as_json = samples.as_json
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
