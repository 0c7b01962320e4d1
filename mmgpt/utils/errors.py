"""Errors about one sample of a dataset, with the location of the sample as data."""

import re
from ast import literal_eval
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from .data_uri import short_name

# A field of `str(SampleLocation)` and what follows it: the next field, or the reason.
FIELD = re.compile(r"""(dataset|file|record|id|image) ('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|\d+)(, |: )""")


class SampleLocation(NamedTuple):
    """Location of a sample in the annotation files; a field is None where it is unknown.

    Attributes:
        dataset: name of the dataset.
        file: annotation file.
        record: number of the record in the file, from 0.
        id: the record's own id.
        image: file of the image that an error is about, or the beginning of its data URI.
    """

    dataset: str | None = None
    file: str | None = None
    record: int | None = None
    id: str | None = None
    image: str | None = None

    @classmethod
    def of(cls, sample: Mapping, image: object = None) -> "SampleLocation":
        """Location of a sample, or of one of its images, from those of the sample's keys that are fields."""
        values = {key: sample[key] for key in cls._fields[:-1] if key in sample}
        return cls(**values, image=None if image is None else short_name(str(image)))

    def filled_from(self, other: "SampleLocation") -> "SampleLocation":
        """This location, its unknown fields taken from another one."""
        return SampleLocation(*(theirs if ours is None else ours for ours, theirs in zip(self, other, strict=True)))

    def __str__(self) -> str:
        """The known fields, for messages: ``dataset 'words', file 'a.json', record 3, id 'x'``."""
        return ", ".join(f"{key} {value!r}" for key, value in self._asdict().items() if value is not None)


class SampleError(ValueError):
    """Error about a sample; its text is the known fields of the sample's location, and the reason.

    torch's DataLoader does not send an exception from a worker process: it builds a new one from the type and the text
    of the traceback. Location and reason are read back from that text, and the worker's traceback becomes a note.

    Args:
        reason: what is wrong, without saying where.
        location: of the sample.
    """

    def __init__(self, reason: str, location: SampleLocation = SampleLocation()):  # noqa: B008 immutable
        traceback, name, sentence = reason.rpartition(f"\n{type(self).__module__}.{type(self).__qualname__}: ")
        if name:
            fields, reason = {}, sentence.rstrip("\n")
            while field := FIELD.match(reason):
                fields[field[1]], reason = literal_eval(field[2]), reason[field.end() :]
                if field[3] == ": ":
                    break
            location = SampleLocation(**fields)
            self.add_note(traceback)
        super().__init__(reason, location)
        self.reason, self.location = reason, location

    def __str__(self) -> str:
        location = str(self.location)
        return f"{location}: {self.reason}" if location else self.reason


class MissingImageError(SampleError, FileNotFoundError):
    """Error about a sample with an image file that does not exist."""


@contextmanager
def located(location: SampleLocation) -> Iterator[None]:
    """Context manager that adds the location of a sample to errors about it.

    A SampleError gets the fields that it lacks; an error of any other type, which may be a bug, keeps its type and gets
    a note.
    """
    try:
        yield
    except SampleError as error:
        error.location = error.location.filled_from(location)
        error.args = (error.reason, error.location)
        raise
    except Exception as error:
        error.add_note(f"in {location}")
        raise
