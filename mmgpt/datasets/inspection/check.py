"""Check of a config's datasets: records, images, texts, duplicates, and overlap of training and test data."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import NamedTuple

import numpy as np
from torch.utils.data import ConcatDataset, DataLoader

from mmgpt.datasets.conversation import literal_media_marks
from mmgpt.datasets.image_files import ImageFile, ImageFiles
from mmgpt.datasets.instruction import SOURCES, InstructionDataset
from mmgpt.datasets.joint import JointDataset, build_dataset, with_weight
from mmgpt.datasets.records import has_byte_order_mark, parse_record, record_id
from mmgpt.datasets.serialized import serialize
from mmgpt.registry import DATASETS
from mmgpt.utils.data_uri import short_name
from mmgpt.utils.errors import SampleError

from .text_checks import CheckedSample, CheckedSamples, read_images, tokenize_step

SPLITS = ("train", "val", "test")
ERRORS = {
    "annotation_file": "annotation files that cannot be used",
    "broken_record": "broken records",
    "nothing_to_learn": "samples with nothing to learn",
    "missing_image": "missing images",
    "unreadable_image": "unreadable images",
    "trained_sample": "samples of the training data",
    "trained_image": "images of the training data",
    "unscorable": "answers that the metrics could not score",
}
WARNINGS = {
    "unusual_file": "unusual annotation files",
    "cut_answer": "cut answers",
    "duplicate": "duplicates",
    "unread_mark": "marks of images, videos or sounds that are read as text",
    "unusual_image": "unusual images",
}
CHUNK = 64  # samples or images that a process checks before it reports


class Finding(NamedTuple):
    """Error or warning about a dataset: its kind (a key of ERRORS or WARNINGS), its location, and the value or reason.

    `record` (number in the file) and `id` are None where the finding is about a whole file.
    """

    kind: str
    split: str
    dataset: str
    file: str
    record: int | None
    id: str | None
    value: str


class CheckedDataset:
    """One dataset of a config, with its annotation file read and the findings about it.

    Args:
        split: one of SPLITS.
        dataset: not initialized (`lazy_init=True`), so that a broken record does not stop the check.

    Attributes:
        records: number of records in the file, as far as it can be read.
        parsed: samples of all records, serialized.
        samples: samples that the dataset draws (see its `sample`), serialized.
        findings: findings so far.
    """

    def __init__(self, split: str, dataset: InstructionDataset):
        self.split, self.dataset = split, dataset
        self.records, self.findings = 0, []
        self.parsed = self.samples = serialize([])
        try:
            self.parsed = serialize(sample for sample in self._parse() if sample is not None)
        except SampleError as error:
            location = error.location
            if location.file == dataset.ann_file:
                self.add("annotation_file", error.reason, location.record, location.id)
            else:
                self.add("annotation_file", str(error))
            return
        except (ValueError, OSError) as error:
            self.add("annotation_file", str(error))
            return
        for path in () if dataset.shards else (dataset.ann_file, dataset.data_prefix.get("questions")):
            if path and has_byte_order_mark(path):
                name = "" if path == dataset.ann_file else f"{path}: "
                self.add("unusual_file", f"{name}begins with a byte order mark, which is skipped")
        self.samples = serialize(dataset.draw(self.parsed))
        if not self.samples and not self.findings:
            self.add("annotation_file", f"none of its {self.records} records belongs to the dataset")

    def add(self, kind: str, value: str, record: int | None = None, id: str | None = None) -> None:
        """Add a finding about a record, by its number among all, or about the whole file."""
        file = self.dataset.ann_file
        if record is not None:
            file, record = self.dataset.origin(record)
        self.findings.append(Finding(kind, self.split, self.dataset.name, file, record, id, value))

    def _parse(self) -> Iterator[dict | None]:
        """Samples of all records; a broken record becomes a finding."""
        for number, record in enumerate(self.dataset.records()):
            self.records += 1
            try:
                yield parse_record(self.dataset.parse, number, record)
            except SampleError as error:
                self.add("broken_record", error.reason, number, error.location.id or record_id(record))


def read_datasets(cfg: Mapping) -> Iterator[CheckedDataset]:
    """Datasets of a config's train, val and test loaders, each read in turn; those of a JointDataset one by one.

    Raises:
        ValueError: a dataset is not an InstructionDataset, is a stream, or its pipeline has no TokenizeSegments.
    """
    for split in SPLITS:
        loader = cfg.get(f"{split}_dataloader")
        for dataset in lazy_datasets(loader["dataset"]) if loader else ():
            if dataset.stream is not None:
                raise ValueError(f"dataset {dataset.name!r} is a stream, whose shards have to be copied for the check")
            tokenize_step(dataset)
            yield CheckedDataset(split, dataset)


def images_of(datasets: Sequence[CheckedDataset]) -> list[str]:
    """Unique paths of all images that pipelines read, including those of records that `sample` does not draw."""
    paths = (read_images(checked.dataset, sample) for checked in datasets for sample in checked.parsed)
    return list(dict.fromkeys(chain.from_iterable(paths)))


def check_datasets(
    datasets: Sequence[CheckedDataset],
    images: Sequence[str],
    workers: int = 1,
    progress: Callable[[int], object] | None = None,
) -> tuple[list[dict], list[Finding]]:
    """Checks the text of every sample and every image file.

    Args:
        datasets: datasets of `read_datasets`; findings are added to them.
        images: their `images_of`.
        workers: number of processes; with 1 the check runs in this process.
        progress: called after each chunk with its number of samples or images.

    Returns:
        Figures of each dataset (see `_figures`), and the findings of all.
    """
    # 1. Check texts and image files, in several processes.
    checks = [CheckedSamples(checked.dataset, checked.samples) for checked in datasets]
    loader = DataLoader(
        ConcatDataset([*checks, ImageFiles(images)]),
        batch_size=CHUNK,
        num_workers=workers if workers > 1 else 0,
        collate_fn=list,
    )
    results = []
    for chunk in loader:
        results += chunk
        if progress:
            progress(len(chunk))
    remaining = iter(results)
    texts = [list(islice(remaining, len(check))) for check in checks]
    files = {file.path: file for file in remaining}
    for checked, dataset_texts in zip(datasets, texts, strict=True):
        # 2. Find problems of texts and image files.
        for text in dataset_texts:
            if text.problem:
                checked.add(text.problem, text.message, text.record, text.id)
        for sample in checked.parsed:
            for mark in literal_media_marks(sample):
                checked.add("unread_mark", f"{mark!r:.80} is text in a question", sample["record"], sample["id"])
            for path in read_images(checked.dataset, sample):
                file = files[path]
                if file.problem:
                    checked.add(file.problem, f"{short_name(path)}: {file.message}", sample["record"], sample["id"])
        # 3. Find duplicates.
        by_key: dict[bytes, CheckedSample] = {}
        for text in dataset_texts:
            first = by_key.setdefault(text.key, text)
            if first is not text:
                _, record = checked.dataset.origin(first.record)
                value = f"same images and turns as record {record}, id {first.id!r}"
                checked.add("duplicate", value, text.record, text.id)
    # 4. Find samples and images of the training split in the other splits, which come after it.
    locations: dict[bytes | str, str] = {}
    for checked, dataset_texts in zip(datasets, texts, strict=True):
        for text in dataset_texts:
            file, record = checked.dataset.origin(text.record)
            location = f"{checked.split} dataset {checked.dataset.name!r}, {file}, record {record}, id {text.id!r}"
            paths = {os.path.abspath(path): path for path in text.images}
            if checked.split == SPLITS[0]:
                for key in (text.key, *paths):
                    locations.setdefault(key, location)
                continue
            if text.key in locations:
                checked.add("trained_sample", f"same as {locations[text.key]}", text.record, text.id)
            for absolute, path in paths.items():
                if absolute in locations:
                    value = f"{short_name(path)}: also in {locations[absolute]}"
                    checked.add("trained_image", value, text.record, text.id)
    figures = [_figures(checked, dataset_texts, files) for checked, dataset_texts in zip(datasets, texts, strict=True)]
    return figures, [finding for checked in datasets for finding in checked.findings]


def lazy_datasets(config: Mapping) -> Iterator[InstructionDataset]:
    """Datasets of a config, not initialized: those of a JointDataset or of any wrapper one by one."""
    kind = config.get("type")
    if (DATASETS.get(kind) if isinstance(kind, str) else kind) is JointDataset:
        seed, on_error = config.get("seed", 0), config.get("on_error", "raise")
        for source in SOURCES:
            for member in with_weight(config.get(source)):
                yield build_dataset({**member, "lazy_init": True}, source, seed, on_error)
        return
    wrapped = config.get("datasets") or [config[key] for key in ("dataset",) if key in config]
    for member in wrapped:
        yield from lazy_datasets(member)
    if not wrapped:
        dataset = DATASETS.build({**config, "lazy_init": True})
        if not isinstance(dataset, InstructionDataset):
            raise ValueError(f"a dataset of type {kind!r} cannot be checked, only InstructionDataset")
        yield dataset


def _figures(checked: CheckedDataset, texts: Sequence[CheckedSample], files: Mapping[str, ImageFile]) -> dict:
    """Counts and sizes of one dataset: tokens before truncation, images as (width, height) in pixels."""
    paths = images_of([checked])
    sizes = sorted((files[path].size for path in paths if files[path].size), key=lambda size: (size[0] * size[1], size))
    lengths = [text.tokens for text in texts if text.tokens is not None]
    quantiles = np.percentile(lengths, [50, 95, 100], method="nearest").tolist() if lengths else [None] * 3
    return {
        "split": checked.split,
        "dataset": checked.dataset.name,
        "source": checked.dataset.source,
        "file": checked.dataset.ann_file,
        "records": checked.records,
        "samples": len(texts),
        "turns": sum(text.turns for text in texts),
        "images": len(paths),
        "tokens": {
            **dict(zip(("median", "95 %", "max"), quantiles, strict=True)),
            "limit": tokenize_step(checked.dataset).max_length,
            "above": sum(text.is_truncated for text in texts) / len(texts) if texts else None,
        },
        "image_sizes": {"smallest": sizes[0], "largest": sizes[-1]} if sizes else None,
        "findings": dict(Counter(finding.kind for finding in checked.findings)),
    }
