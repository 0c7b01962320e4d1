"""What is wrong with the datasets of a config, found before a model is trained on them."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import NamedTuple

import numpy as np
from torch.utils.data import ConcatDataset, DataLoader

from mmgpt.datasets.conversation import unread_marks
from mmgpt.datasets.image_files import ImageFile, ImageFiles
from mmgpt.datasets.instruction import SOURCES, InstructionDataset
from mmgpt.datasets.joint import JointDataset, build_part, kept
from mmgpt.datasets.records import has_byte_order_mark, parse_record, record_id
from mmgpt.datasets.sample_bytes import pack
from mmgpt.registry import DATASETS
from mmgpt.utils.errors import SampleError

from .sample_texts import SampleText, SampleTexts, read_images, tokenizing

SPLITS = ("train", "val", "test")
ERRORS = {
    "annotation_file": "annotation files that cannot be used",
    "broken_record": "broken records",
    "nothing_to_learn": "samples with nothing to learn",
    "missing_image": "missing images",
    "unreadable_image": "unreadable images",
    "trained_sample": "samples of the training data",
    "trained_image": "images of the training data",
    "unjudgeable": "answers that the metrics could not judge",
}
WARNINGS = {
    "unusual_file": "unusual annotation files",
    "cut_answer": "cut answers",
    "duplicate": "duplicates",
    "unread_mark": "marks of images, videos or sounds that are read as text",
    "unusual_image": "unusual images",
}
CHUNK = 64  # samples or images that a process looks at before it tells


class Finding(NamedTuple):
    """Something wrong or noteworthy: its kind (a key of ERRORS or WARNINGS), its place, and the value or reason.

    `record` (the position in the file) and `id` are None where a whole file cannot be used.
    """

    kind: str
    split: str
    dataset: str
    file: str
    record: int | None
    id: str | None
    value: str


class Part:
    """One dataset of a config, with its annotation file read.

    Args:
        split: one of SPLITS.
        dataset: not initialised (`lazy_init=True`), so that a broken record does not end it.

    Attributes:
        records: number of those in the file, as far as it can be read.
        parsed: the samples of all of them, packed.
        samples: those that the dataset keeps (see its `sample`), packed.
        findings: what is known to be wrong with it.
    """

    def __init__(self, split: str, dataset: InstructionDataset):
        self.split, self.dataset = split, dataset
        self.records, self.findings = 0, []
        self.parsed = self.samples = pack([])
        try:
            self.parsed = pack(sample for sample in self._parse() if sample is not None)
        except SampleError as error:
            location = error.location
            if location.file == dataset.ann_file:
                self.find("annotation_file", error.reason, location.record, location.id)
            else:
                self.find("annotation_file", str(error))
            return
        except (ValueError, OSError) as error:
            self.find("annotation_file", str(error))
            return
        for path in (dataset.ann_file, dataset.data_prefix.get("questions")):
            if path and has_byte_order_mark(path):
                name = "" if path == dataset.ann_file else f"{path}: "
                self.find("unusual_file", f"{name}begins with a byte order mark, which is skipped")
        self.samples = pack(dataset.draw(self.parsed))
        if not self.samples and not self.findings:
            self.find("annotation_file", f"none of its {self.records} records belongs to the dataset")

    def find(self, kind: str, value: str, record: int | None = None, name: str | None = None) -> None:
        """Take note of something."""
        self.findings.append(Finding(kind, self.split, self.dataset.name, self.dataset.ann_file, record, name, value))

    def _parse(self) -> Iterator[dict | None]:
        for number, record in enumerate(self.dataset.records()):
            self.records += 1
            try:
                yield parse_record(self.dataset.parse, number, record)
            except SampleError as error:
                self.find("broken_record", error.reason, number, record_id(record))


def read_parts(cfg: Mapping) -> Iterator[Part]:
    """The datasets of a config's train, val and test loaders, those of a JointDataset one by one, each read in turn.

    Raises:
        ValueError: a dataset of a kind that cannot be checked, or without TokenizeSegments in its pipeline.
    """
    for split in SPLITS:
        loader = cfg.get(f"{split}_dataloader")
        for dataset in lazy_datasets(loader["dataset"]) if loader else ():
            tokenizing(dataset)
            yield Part(split, dataset)


def images_of(parts: Sequence[Part]) -> list[str]:
    """The paths of all images that pipelines read, each once; also of records that no draw of this seed takes."""
    paths = (read_images(part.dataset, sample) for part in parts for sample in part.parsed)
    return list(dict.fromkeys(chain.from_iterable(paths)))


def check_parts(
    parts: Sequence[Part], images: Sequence[str], workers: int = 1, seen: Callable[[int], object] | None = None
) -> tuple[list[dict], list[Finding]]:
    """Looks at every sample's text and at every image file.

    Args:
        parts: of `read_parts`; their findings grow.
        images: their `images_of`.
        workers: processes that look; 1 is this one.
        seen: called with the number of samples or images after each chunk, e.g. to move a progress bar.

    Returns:
        Figures of each part (see `_figures`), and the findings of all.
    """
    looks = [SampleTexts(part.dataset, part.samples) for part in parts]
    loader = DataLoader(
        ConcatDataset([*looks, ImageFiles(images)]),
        batch_size=CHUNK,
        num_workers=workers if workers > 1 else 0,
        collate_fn=list,
    )
    facts = _flat(loader, seen)
    texts = [list(islice(facts, len(look))) for look in looks]
    files = {file.path: file for file in facts}
    for part, own in zip(parts, texts, strict=True):
        _find_problems(part, own, files)
        _find_duplicates(part, own)
    _find_trained(parts, texts)
    figures = [_figures(part, own, files) for part, own in zip(parts, texts, strict=True)]
    return figures, [finding for part in parts for finding in part.findings]


def lazy_datasets(config: Mapping) -> Iterator[InstructionDataset]:
    """The datasets of a config, not initialised: parts of a JointDataset or of any wrapper one by one."""
    kind = config.get("type")
    if (DATASETS.get(kind) if isinstance(kind, str) else kind) is JointDataset:
        for source in SOURCES:
            for part in kept(config.get(source)):
                yield build_part(
                    {**part, "lazy_init": True}, source, config.get("seed", 0), config.get("on_error", "raise")
                )
        return
    inner = config.get("datasets") or [config[key] for key in ("dataset",) if key in config]
    for part in inner:
        yield from lazy_datasets(part)
    if not inner:
        dataset = DATASETS.build({**config, "lazy_init": True})
        if not isinstance(dataset, InstructionDataset):
            raise ValueError(f"a dataset of type {kind!r} cannot be checked, only InstructionDataset")
        yield dataset


def _flat(loader: DataLoader, seen: Callable[[int], object] | None) -> Iterator:
    for chunk in loader:
        yield from chunk
        if seen:
            seen(len(chunk))


def _find_problems(part: Part, texts: Sequence[SampleText], files: Mapping[str, ImageFile]) -> None:
    for text in texts:
        if text.problem:
            part.find(text.problem, text.what, text.record, text.id)
    for sample in part.parsed:
        for mark in unread_marks(sample):
            part.find("unread_mark", f"{mark!r:.80} is text in a question", sample["record"], sample["id"])
        for path in read_images(part.dataset, sample):
            if files[path].problem:
                part.find(files[path].problem, f"{path}: {files[path].what}", sample["record"], sample["id"])


def _find_duplicates(part: Part, texts: Sequence[SampleText]) -> None:
    first: dict[bytes, SampleText] = {}
    for text in texts:
        same = first.setdefault(text.key, text)
        if same is not text:
            part.find(
                "duplicate", f"same images and turns as record {same.record}, id {same.id!r}", text.record, text.id
            )


def _find_trained(parts: Sequence[Part], texts: Sequence[Sequence[SampleText]]) -> None:
    """Looks for samples and images of the other splits that are in the training split."""
    trained: dict[bytes | str, tuple[Part, SampleText]] = {}
    # The training split comes first.
    for part, own in zip(parts, texts, strict=True):
        for text in own:
            paths = {os.path.abspath(path): path for path in text.images}
            if part.split == SPLITS[0]:
                trained.update({key: (part, text) for key in (text.key, *paths) if key not in trained})
                continue
            if text.key in trained:
                part.find("trained_sample", f"same as {_place(*trained[text.key])}", text.record, text.id)
            for path in paths:
                if path in trained:
                    value = f"{paths[path]}: also in {_place(*trained[path])}"
                    part.find("trained_image", value, text.record, text.id)


def _place(part: Part, text: SampleText) -> str:
    return f"{part.split} dataset {part.dataset.name!r}, {part.dataset.ann_file}, record {text.record}, id {text.id!r}"


def _figures(part: Part, texts: Sequence[SampleText], files: Mapping[str, ImageFile]) -> dict:
    """Counts and sizes of one dataset: tokens before any cut, images as (width, height) in pixels."""
    paths = images_of([part])
    sizes = sorted((files[path].size for path in paths if files[path].size), key=lambda size: (size[0] * size[1], size))
    lengths = [text.tokens for text in texts if text.tokens is not None]
    middle, most, longest = np.percentile(lengths, [50, 95, 100], method="nearest").tolist() if lengths else [None] * 3
    return {
        "split": part.split,
        "dataset": part.dataset.name,
        "source": part.dataset.source,
        "file": part.dataset.ann_file,
        "records": part.records,
        "samples": len(texts),
        "turns": sum(text.turns for text in texts),
        "images": len(paths),
        "tokens": {
            "median": middle,
            "95 %": most,
            "max": longest,
            "limit": tokenizing(part.dataset).max_length,
            "above": sum(text.above for text in texts) / len(texts) if texts else None,
        },
        "image_sizes": {"smallest": sizes[0], "largest": sizes[-1]} if sizes else None,
        "findings": dict(Counter(finding.kind for finding in part.findings)),
    }
