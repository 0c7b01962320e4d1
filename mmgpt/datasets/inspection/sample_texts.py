"""What the text part of a pipeline makes of samples, told without opening their images."""

import hashlib
import json
import os
from collections.abc import Sequence
from typing import NamedTuple

from torch.utils.data import Dataset

from mmgpt.datasets.dropped import DroppedSamples
from mmgpt.datasets.instruction import InstructionDataset
from mmgpt.datasets.sample_bytes import pack
from mmgpt.datasets.transforms import TokenizeSegments
from mmgpt.utils.errors import SampleError


class SampleText(NamedTuple):
    """A sample as its pipeline writes it in the first epoch.

    `record` is its number in the file; `images` are the paths of those that the pipeline reads; `key` is the same for
    samples with the same images and turns; `tokens` is the length before anything is cut, None where there is none;
    `above` tells whether that is above the limit. `problem` is '', 'broken_record', 'nothing_to_learn' or 'cut_answer';
    `what` says it in words.
    """

    record: int
    id: str
    turns: int
    images: tuple[str, ...]
    key: bytes
    tokens: int | None = None
    above: bool = False
    problem: str = ""
    what: str = ""


class SampleTexts(Dataset):
    """The SampleText of each of some samples, which are packed.

    Args:
        dataset: whose pipeline is used; not initialised.
        samples: as `records.parse_record` gives them.

    Raises:
        ValueError: the pipeline has no TokenizeSegments.
    """

    def __init__(self, dataset: InstructionDataset, samples: Sequence[dict]):
        tokenizing(dataset)
        self.dataset = dataset
        self.samples = pack(samples)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, i: int) -> SampleText:
        sample = self.samples[i]
        images, key = read_images(self.dataset, sample), _key(self.dataset, sample)
        facts = (sample["record"], sample["id"], len(sample["turns"]), images, key)
        # The transforms write into `info` itself, so that it tells why nothing came out.
        info = self.dataset.equip(sample, epoch=0, position=i)
        problem = _problem(self.dataset, info)
        tokens = len(info["input_ids"]) if "input_ids" in info else None
        return SampleText(*facts, info["cut"][0] if "cut" in info else tokens, "cut" in info, *problem)


def tokenizing(dataset: InstructionDataset) -> TokenizeSegments:
    """The step of a dataset's pipeline that makes tokens.

    Raises:
        ValueError: there is none.
    """
    for step in dataset.pipeline.transforms:
        if isinstance(step, TokenizeSegments):
            return step
    raise ValueError(f"dataset {dataset.name!r}: its pipeline has no TokenizeSegments, so there is nothing to check")


def read_images(dataset: InstructionDataset, sample: dict) -> tuple[str, ...]:
    """The files of a sample's images that its pipeline reads, each once."""
    return _image_paths(dataset, sample) if dataset.loads_images else ()


def _image_paths(dataset: InstructionDataset, sample: dict) -> tuple[str, ...]:
    folder = dataset.data_prefix.get("img", "")
    return tuple(os.path.normpath(os.path.join(folder, image)) for image in dict.fromkeys(sample["images"]))


def _key(dataset: InstructionDataset, sample: dict) -> bytes:
    images = [os.path.abspath(path) for path in _image_paths(dataset, sample)]
    said = json.dumps([images, sample["turns"]], sort_keys=True)
    return hashlib.blake2b(said.encode(), digest_size=16).digest()


def _problem(dataset: InstructionDataset, info: dict) -> tuple[str, str]:
    """Runs the text steps on a sample; the kind of problem and its words, or two empty strings."""
    try:
        made = dataset.text_only(info, TokenizeSegments)
    # As in parse_record: what a transform does with a record that it did not expect.
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        if isinstance(error, SampleError):
            return "broken_record", error.reason
        name = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        return "broken_record", f"{name}{error}"
    if made is None:
        return "nothing_to_learn", DroppedSamples.reason(info).removeprefix("nothing to learn: ")
    if "cut" in info and info["cut"][2]:
        return "cut_answer", DroppedSamples.reason(info)
    return "", ""
