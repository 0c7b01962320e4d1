"""Samples to files in our schema: checked, some of them held out, written whole or not at all."""

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from posixpath import normpath

from mmgpt.datasets.conversation import add_text, check_sample, question_text
from mmgpt.utils.atomic import atomic_write

from .rows import at


def checked(samples: Iterator[tuple[str, dict]], question: str = "") -> Iterator[dict]:
    """The samples, those of them with empty questions asked `question`.

    Raises:
        ValueError: one does not follow the schema; names its place.
    """
    for place, sample in samples:
        for turn in sample["turns"]:
            if question and not question_text(turn["question"]):
                turn["question"] = add_text(turn["question"], question)
        with at(place):
            yield check_sample(sample)


def held_out(samples: Sequence[dict], share: float, seed: int) -> tuple[list[dict], list[dict]]:
    """The samples in two parts, in their order: those to train on, and about `share` of them, drawn by `seed`.

    Samples that show the same image, or say the same without one, are in the same part.

    Raises:
        ValueError: they all belong together, so that one of the parts would be empty.
    """
    groups = _groups(samples)
    random.Random(seed).shuffle(groups)
    out: set[int] = set()
    for group in groups:
        # One more than the share at most: the rest is to be trained on.
        if len(out) + len(group) < share * len(samples) + 1:
            out.update(group)
    if not out or len(out) == len(samples):
        raise ValueError(f"--val {share}: nothing can be held out of {len(samples)} samples that share their images")
    parts = [], []
    for i, sample in enumerate(samples):
        parts[i in out].append(sample)
    return parts


def write(files: Mapping[Path, Sequence[dict]]) -> None:
    """Writes samples as JSON lines; no file appears before all of them are complete."""
    with ExitStack() as stack:
        for path, samples in files.items():
            part = stack.enter_context(atomic_write(path))
            # A lone surrogate, which a file can hold as an escape, stays one.
            with part.open("w", encoding="utf-8", errors="backslashreplace") as file:
                file.writelines(_line(sample) for sample in samples)


def _line(sample: dict) -> str:
    known = {key: sample[key] for key in ("id", "images", "turns") if sample[key]}
    return json.dumps(known, ensure_ascii=False) + "\n"


def _groups(samples: Sequence[dict]) -> list[list[int]]:
    """The numbers of samples that belong together, because each shares an image with another one of them."""
    root = list(range(len(samples)))

    def find(i: int) -> int:
        while root[i] != i:
            root[i] = i = root[root[i]]
        return i

    first: dict[str, int] = {}
    for i, sample in enumerate(samples):
        for key in map(normpath, sample["images"] or [json.dumps(sample["turns"], sort_keys=True)]):
            root[find(i)] = find(first.setdefault(key, i))
    groups: dict[int, list[int]] = {}
    for i in range(len(samples)):
        groups.setdefault(find(i), []).append(i)
    return list(groups.values())
