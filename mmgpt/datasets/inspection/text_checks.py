"""Check of the text steps of a pipeline on every sample, without opening images."""

import hashlib
import json
import os
from collections.abc import Sequence
from typing import NamedTuple

from torch.utils.data import Dataset

from mmgpt.datasets.dropped import DroppedSamples
from mmgpt.datasets.instruction import InstructionDataset
from mmgpt.datasets.serialized import serialize
from mmgpt.datasets.transforms import TokenizeSegments
from mmgpt.utils.data_uri import is_data_uri
from mmgpt.utils.errors import SampleError


class CheckedSample(NamedTuple):
    """Facts about the text of a sample as its pipeline writes it in the first epoch, and its problem, if it has one.

    Attributes:
        record: number of the record in the file.
        id: id of the sample.
        turns: number of its turns.
        images: paths of the images that the pipeline reads.
        key: hash, equal for samples with the same images and turns.
        tokens: length before truncation; None where a problem prevents tokenization.
        is_truncated: whether that length is above the limit.
        problem: '', 'broken_record', 'nothing_to_learn' or 'cut_answer'.
        message: describes the problem.
    """

    record: int
    id: str
    turns: int
    images: tuple[str, ...]
    key: bytes
    tokens: int | None = None
    is_truncated: bool = False
    problem: str = ""
    message: str = ""


class CheckedSamples(Dataset):
    """The CheckedSample of each sample.

    Args:
        dataset: dataset whose pipeline is used; not initialized.
        samples: samples of `records.parse_record`.

    Raises:
        ValueError: the pipeline has no TokenizeSegments.
    """

    def __init__(self, dataset: InstructionDataset, samples: Sequence[dict]):
        tokenize_step(dataset)
        self.dataset = dataset
        self.samples = serialize(samples)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, i: int) -> CheckedSample:
        sample = self.samples[i]
        absolute_paths = [os.path.abspath(path) for path in _image_paths(self.dataset, sample)]
        content = json.dumps([absolute_paths, sample.get("system"), sample["turns"]], sort_keys=True)
        key = hashlib.blake2b(content.encode(), digest_size=16).digest()
        # The transforms write into `info` itself, so that it has the reason why there is no output.
        info = self.dataset.equip(sample, epoch=0, position=i)
        problem, message = _problem(self.dataset, info)
        tokens = len(info["input_ids"]) if "input_ids" in info else None
        return CheckedSample(
            record=sample["record"],
            id=sample["id"],
            turns=len(sample["turns"]),
            images=read_images(self.dataset, sample),
            key=key,
            tokens=info["cut"][0] if "cut" in info else tokens,
            is_truncated="cut" in info,
            problem=problem,
            message=message,
        )


def tokenize_step(dataset: InstructionDataset) -> TokenizeSegments:
    """TokenizeSegments of a dataset's pipeline.

    Raises:
        ValueError: the pipeline has none.
    """
    for step in dataset.pipeline.transforms:
        if isinstance(step, TokenizeSegments):
            return step
    raise ValueError(f"dataset {dataset.name!r}: its pipeline has no TokenizeSegments, so there is nothing to check")


def read_images(dataset: InstructionDataset, sample: dict) -> tuple[str, ...]:
    """Different image files of a sample that its pipeline reads."""
    return _image_paths(dataset, sample) if dataset.loads_images else ()


def _image_paths(dataset: InstructionDataset, sample: dict) -> tuple[str, ...]:
    return tuple(
        image if is_data_uri(image) else os.path.normpath(os.path.join(dataset.image_folder, image))
        for image in dict.fromkeys(sample["images"])
    )


def _problem(dataset: InstructionDataset, info: dict) -> tuple[str, str]:
    """Kind and description of the problem that the text steps have with a sample, or two empty strings."""
    try:
        output = dataset.text_only(info, TokenizeSegments)
    except SampleError as error:
        return "broken_record", error.reason
    except ValueError as error:
        return "broken_record", str(error)
    # Transforms raise these errors for records that they do not expect, as parsers do (see parse_record).
    except (LookupError, TypeError, AttributeError) as error:
        return "broken_record", f"{type(error).__name__}: {error}"
    if output is None:
        return "nothing_to_learn", DroppedSamples.reason(info).removeprefix("nothing to learn: ")
    if "cut" in info and info["cut"][2]:
        return "cut_answer", DroppedSamples.reason(info)
    return "", ""
