"""Checks of samples, the split into training and held-out samples, and the annotation files."""

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from posixpath import normpath

from mmgpt.datasets.conversation import append_text, check_sample, question_text
from mmgpt.datasets.parsers.schema import SAMPLE_KEYS
from mmgpt.utils.atomic import atomic_write

from .rows import at


def check_samples(samples: Iterator[tuple[str, dict]], question: str = "") -> Iterator[dict]:
    """The samples of a reader, with `question` in place of empty questions.

    Raises:
        ValueError: a sample does not follow the schema; names its location.
    """
    for location, sample in samples:
        for turn in sample["turns"]:
            if question and not question_text(turn["question"]):
                turn["question"] = append_text(turn["question"], question)
        with at(location):
            yield check_sample(sample)


def split_samples(samples: Sequence[dict], share: float, seed: int) -> tuple[list[dict], list[dict]]:
    """Samples to train on and held-out samples, about `share` of all, drawn by `seed`; both keep their order.

    Samples with the same image, or with the same text and no image, are in the same split.

    Raises:
        ValueError: all samples belong together, so that one of the splits would be empty.
    """
    # 1. Samples that share an image, also by way of others, are one group (connected components).
    root = list(range(len(samples)))

    def find(i: int) -> int:
        while root[i] != i:
            root[i] = i = root[root[i]]
        return i

    first: dict[str, int] = {}
    for i, sample in enumerate(samples):
        for key in map(normpath, sample["images"] or [json.dumps(sample["turns"], sort_keys=True)]):
            root[find(i)] = find(first.setdefault(key, i))
    members: dict[int, list[int]] = {}
    for i in range(len(samples)):
        members.setdefault(find(i), []).append(i)
    # 2. Groups are drawn as long as they fit into the share.
    groups = list(members.values())
    random.Random(seed).shuffle(groups)
    held_out: set[int] = set()
    for group in groups:
        # The share is exceeded by at most one sample.
        if len(held_out) + len(group) < share * len(samples) + 1:
            held_out.update(group)
    if not held_out or len(held_out) == len(samples):
        raise ValueError(f"--val {share}: nothing can be held out of {len(samples)} samples that share their images")
    # 3. Both splits keep the order of the samples.
    splits = [], []
    for i, sample in enumerate(samples):
        splits[i in held_out].append(sample)
    return splits


def write(files: Mapping[Path, Sequence[dict]]) -> None:
    """Writes samples as JSON lines; no file appears before all of them are complete."""
    with ExitStack() as stack:
        for path, samples in files.items():
            temporary = stack.enter_context(atomic_write(path))
            # A lone surrogate, which a JSON file can hold as an escape, stays an escape.
            with temporary.open("w", encoding="utf-8", errors="backslashreplace") as file:
                for sample in samples:
                    fields = {key: sample[key] for key in SAMPLE_KEYS if sample.get(key)}
                    file.write(json.dumps(fields, ensure_ascii=False) + "\n")
